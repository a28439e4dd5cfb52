# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Logical units of SCSI hosts as sysfs shows them: no process, and no unit is opened. The serial numbers are those of
udev's scsi_id(8), taken from the pages of vital product data that the kernel keeps (SPC-4: 7.8).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .block import Device, attribute, by_name, holder_names_of

_SYS = "/sys"
_ADDRESS = re.compile(r"([0-9]+):([0-9]+):([0-9]+):([0-9]+)")
_DISK = "0"  # SPC-4: peripheral device type of a direct access block device
_WORKS = ("running", "created")  # of a device that takes commands: drivers/scsi/scsi_sysfs.c
MULTIPATH = "mpath-"  # device-mapper's uuid of what multipath-tools made
_VENDOR, _MODEL = 8, 16  # characters
_RESERVED = 6  # a byte of the page that is 0
_BINARY, _ASCII = 1, 2
_VENDOR_SPECIFIC, _T10, _EUI, _NAA, _PORT_GROUP = 0, 1, 2, 3, 5
# What scsi_id takes for the serial number, the best first: its type and, of a name by NAA, the kind.
_PREFERRED = ((_NAA, 6), (_NAA, 5), (_NAA, None), (_EUI, None), (_T10, None), (_VENDOR_SPECIFIC, None))
_UNSAFE = re.compile(r"[^0-9A-Za-z#+\-.:=@_]")


class Unit(NamedTuple):
    """A logical unit that is a disk. ``address`` is what sysfs calls it (``H:B:T:L``). ``device``: what the kernel made
    of it, None as long as it has not. ``serial`` as scsi_id has it, ``port`` the number of the group of ports that it
    answers through, in hexadecimal digits; both may be empty. ``away``: the kernel has no way to it, and asks it
    nothing. ``problem``: why it can't be used. ``map`` is the multipath map that it is a path of.
    """

    address: str
    device: Device | None
    serial: str
    port: str
    away: bool
    problem: str
    map: str

    @property
    def name(self) -> str:
        """libvirt's name for it as a volume."""
        return "unit:" + self.address.partition(":")[2]


def units(host: int, target: str = "") -> tuple[Unit, ...]:
    """The disks of a host, or of one of its targets (``H:B:T``), in the order of their numbers."""
    within = f"{target or host}:"
    addresses = [name for name in _addresses() if name.startswith(within)]
    return tuple(_unit(name) for name in addresses if attribute(directory_of(name), "type") == _DISK)


def _addresses() -> list[str]:
    try:
        names = os.listdir(f"{_SYS}/bus/scsi/devices")
    except OSError:
        return []
    return sorted(filter(_ADDRESS.fullmatch, names), key=lambda name: tuple(map(int, name.split(":"))))


def nodes_of(host: int, target: str = "") -> tuple[str, ...]:
    """All nodes of all units of a host, or of one of its targets, whatever they are: those of disks and drives, and
    those by which they are given commands past these, as those of tapes are.
    """
    within = f"{target or host}:"
    found = (node for name in _addresses() if name.startswith(within) for node in _nodes(directory_of(name)))
    return tuple(dict.fromkeys(found))


def nodes_at(addresses: Iterable[str]) -> list[str]:
    """The nodes of units, by what sysfs calls these (``H:B:T:L``)."""
    return [node for each in addresses if _ADDRESS.fullmatch(each) for node in _nodes(directory_of(each))]


def _nodes(directory: str) -> Iterator[str]:
    """What the kernel's drivers have made of a unit: in directories of their own, with the name in ``uevent``."""
    for made in (made for driver in _within(directory) for made in _within(driver)):
        lines = attribute(made, "uevent").splitlines()
        yield from (f"/dev/{line.partition('=')[2]}" for line in lines if line.startswith("DEVNAME="))


def _within(directory: str) -> list[str]:
    """The directories in one; links lead to others' units too."""
    try:
        return sorted(each.path for each in os.scandir(directory) if each.is_dir(follow_symlinks=False))
    except OSError:
        return []


def host_directory(host: int) -> str:
    return f"{_SYS}/class/scsi_host/host{host}"


def directory_of(address: str) -> str:
    return f"{_SYS}/bus/scsi/devices/{address}"


def _unit(address: str) -> Unit:
    directory = directory_of(address)
    try:
        nodes = sorted(os.listdir(f"{directory}/block"))
    except OSError:
        nodes = []
    device = by_name(nodes[0]) if nodes else None
    state = attribute(directory, "state")
    away = bool(state) and state not in _WORKS
    problem = f"the kernel has no way to it: its state is {state}" if away else _missing(device)
    return Unit(address, device, *_identification(directory), away, problem, _map(device))


def _missing(device: Device | None) -> str:
    if device is None:
        return "the kernel has made no block device of it"
    return "" if device.size else "it does not tell its size, as one that is not served any more"


def _map(device: Device | None) -> str:
    above = map(by_name, holder_names_of(device)) if device is not None else ()
    return next((each.dm_name for each in above if each is not None and each.dm_uuid.startswith(MULTIPATH)), "")


# --- how it is told from others --------------------------------------------------------------------------------------


class _Designator(NamedTuple):
    """One of the names that a unit tells (SPC-4: 7.8.6.1). ``of`` is 0 for the unit itself, 1 for its port."""

    kind: int
    code: int
    of: int
    data: bytes

    @property
    def naa(self) -> int:
        """The kind of a name by NAA."""
        return self.data[0] >> 4 if self.data else 0

    @property
    def text(self) -> str:
        return self.data.partition(b"\0")[0].decode("latin-1") if self.code == _ASCII else self.data.hex()


def _designators(page: bytes) -> Iterator[_Designator]:
    place, end = 4, min(4 + int.from_bytes(page[2:4], "big"), len(page))
    while place + 4 <= end:
        code, kind, _reserved, length = page[place : place + 4]
        yield _Designator(kind & 0x0F, code & 0x0F, kind >> 4 & 3, page[place + 4 : place + 4 + length])
        place += 4 + length


def _identification(directory: str) -> tuple[str, str]:
    """Serial number and group of ports."""
    page = _page(directory, "vpd_pg83")
    if page[_RESERVED : _RESERVED + 1].strip(b"\0"):  # units older than SPC-3 have their name by NAA there
        return f"{_NAA}{page[4 : 4 + page[3]].hex()}", ""
    told = tuple(_designators(page))
    groups = [f"{int.from_bytes(each.data[2:4], 'big'):x}" for each in told if each.kind == _PORT_GROUP]
    own = [each for each in told if each.of == 0]
    return _safe(_best(own, directory) or _from_number(directory)), "".join(groups[-1:])


def _best(own: Sequence[_Designator], directory: str) -> str:
    for kind, naa in _PREFERRED:
        for code in (_BINARY, _ASCII):
            for each in own:
                if (each.kind, each.code) == (kind, code) and naa in (None, each.naa):
                    return f"{kind}{_maker(directory) if kind == _VENDOR_SPECIFIC else ''}{each.text}"
    return ""


def _from_number(directory: str) -> str:
    page = _page(directory, "vpd_pg80")
    number = page[4 : 4 + int.from_bytes(page[2:4], "big")].decode("latin-1")
    return f"S{_maker(directory)}{number}" if number else ""


def _page(directory: str, name: str) -> bytes:
    try:
        with open(f"{directory}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _maker(directory: str) -> str:
    return attribute(directory, "vendor").ljust(_VENDOR) + attribute(directory, "model").ljust(_MODEL)


def _safe(text: str) -> str:
    """As a part of a name (scsi_id: --replace-whitespace)."""
    return _UNSAFE.sub("_", re.sub(r"\s+", "_", text.strip("\0 \t\n")))
