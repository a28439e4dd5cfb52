# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Partition tables of disks, read: by sfdisk, which opens them for reading only, and by parted what sfdisk does not
know. What parted only looks at, udev looks at again, since it opens disks for writing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..model.errors import StorageError
from ..model.tables import DOS, GPT, RESERVED, Partition, Table, bounds
from .block import Device, device_at
from .files import read_small_file
from .patience import in_child
from .run import misprinted
from .signatures import PROTECTS_GPT, mbr_partitions

_TRAILING = re.compile(r"([0-9]+)\Z")
_SYS = "/sys/class/block"
_SECTOR = 512  # what sysfs counts in
_SIGNATURE = b"\x55\xaa"
_BSD_MAGIC, _BSD_AT = b"\x57\x45\x56\x82", 64  # DISKMAGIC of a BSD label, where parted writes it
_PC98_MAGIC, _PC98_AT = b"IPL1", 4
_MOST_LINKS = 256
_SECONDS = 30.0  # where nothing else is said
_DEAD = "See whether the disk is there and can be read, or give the task a longer timeout."
_UDEV = "/run/udev/data"
_RULES = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d")
_CUTS = re.compile(r"(kpartx|multipath|dm-parts)\.rules\Z")
_KPARTX = re.compile(rb'^[^#\n]*RUN[^=\n]*=\s*"[^"\n]*kpartx\s([^"\n]*)"', re.MULTILINE)
# Labels in the words of libvirt by those of blkid, sfdisk and parted.
LABELS = {"dos": "dos", "msdos": "dos", "sgi": "dvh", "gpt": "gpt", "PMBR": "gpt"}
PARTED_LABELS = {"dos": "msdos"}
# Types of dos partitions in which the kernel looks for a table: of FreeBSD, OpenBSD, NetBSD, Solaris, Minix, UnixWare
# (block/partitions/msdos.c).
_WITH_TABLES = ("a5", "a6", "a9", "bf", "81", "63")
_BY_PARTED = ("dvh", "mac", "bsd", "pc98", "sun")

Runner = Callable[[Sequence[str]], str]


class Seen(NamedTuple):
    """A partition as the kernel has it: in bytes."""

    name: str
    number: int
    start: int
    size: int


def label_of(text: str) -> str:
    return LABELS.get(text, text)


def _patiently(disk: str, seconds: float, look: Callable[[], Any]) -> Any:
    """What a look into a disk finds, which may be dead. Raises ``deadline``."""
    told = in_child(look, seconds)
    if told is None:
        raise StorageError("deadline", f"{disk} did not answer within {seconds:.3g} s", subject=disk, hint=_DEAD)
    return told


def old_label(path: str, seconds: float = _SECONDS) -> str:
    """bsd or pc98, which blkid does not know, where the first sector is one of them; empty otherwise."""
    label: str = _patiently(path, seconds, lambda: _old_label(path))
    return label


def _old_label(path: str) -> str:
    with open(path, "rb") as file:
        head = file.read(_SECTOR)
    if head[_BSD_AT : _BSD_AT + 4] == _BSD_MAGIC:
        return "bsd"
    is_pc98 = head[_PC98_AT : _PC98_AT + 4] == _PC98_MAGIC and head[510:512] == _SIGNATURE
    return "pc98" if is_pc98 else ""


def stem_of(device: Device, separator: bool | None) -> tuple[str, str]:
    """What the names of partitions begin with, and the directory that they are in. Those of device-mapper are called
    as its other partitions are, or as udev calls them, else by libvirt's rule for part_separator; the kernel's have a p
    after a digit.
    """
    if device.kind != "dm":
        name = os.path.basename(device.node)
        return name + ("p" if name[-1:].isdigit() else ""), os.path.dirname(device.node)
    for node in device.partitions:
        name = (read_small_file(f"{_SYS}/{os.path.basename(node)}/dm/name") or b"").decode().strip()
        match = _TRAILING.search(name)
        if match is not None and name.startswith(device.dm_name):
            return name[: match.start()], "/dev/mapper"
    name = device.dm_name
    own = "p" if name[-1:].isdigit() else ""
    by_udev = _kpartx_of_udev() if _is_cut_by_udev(device) else None
    if by_udev is not None:
        return name + (by_udev or own), "/dev/mapper"
    return name + ("p" if separator else own), "/dev/mapper"


def _is_cut_by_udev(device: Device) -> bool:
    """Whether udev makes the partitions of a disk: of multipath maps, unless multipathd has told it not to
    (multipath.conf(5): skip_kpartx).
    """
    if not device.dm_uuid.startswith("mpath-"):
        return False
    major, minor = device.number
    return b"E:DM_SUBSYSTEM_UDEV_FLAG1=1\n" not in (read_small_file(f"{_UDEV}/b{major}:{minor}") or b"")


def _kpartx_of_udev() -> str | None:
    """What the rule of udev that runs kpartx has it put before the numbers of partitions, empty where it leaves that to
    kpartx; None where there is no such rule.
    """
    seen = set()
    for directory in _RULES:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            if name in seen or not _CUTS.search(name):
                continue
            seen.add(name)  # it replaces those of this name in the directories that come later: udev(7)
            match = _KPARTX.search(_rules(f"{directory}/{name}"))
            if match is not None:
                words = match.group(1).decode(errors="replace").split()
                return words[words.index("-p") + 1] if "-p" in words[:-1] else ""
    return None


def _rules(path: str) -> bytes:
    """Empty for a link to /dev/null, by which rules are put out of force."""
    try:
        return read_small_file(path) or b""
    except StorageError:
        return b""


def read_table(device: Device, label: str, separator: bool | None, run: Runner, seconds: float = _SECONDS) -> Table:
    """The table of a disk, which is one of that label. What is read here and not by ``run`` takes no more than those
    ``seconds``. Raises ``command_failed``, ``deadline`` and the like.
    """
    stem, directory = stem_of(device, separator)
    first, end = bounds(label, device.size, device.sector)
    empty = Table(label, device.node, stem, device.sector, first, end, directory=directory, identity=device.identity)
    if label in _BY_PARTED:
        return _by_parted(empty, run)
    return _by_sfdisk(empty, run, seconds)


def _by_sfdisk(empty: Table, run: Runner, seconds: float) -> Table:
    rows = _rows(empty.device, run)
    sector = int(rows.get("sectorsize") or empty.sector)
    found = [_partition(row, sector) for row in rows.get("partitions", ())]
    table = empty._replace(label=label_of(rows["label"]), sector=sector, partitions=tuple(sorted(found)))
    if table.label == GPT and "firstlba" in rows and "lastlba" in rows:
        first, end = int(rows["firstlba"]) * sector, (int(rows["lastlba"]) + 1) * sector
        return table._replace(first=first, end=end, entries=int(rows.get("table-length", table.entries)))
    if table.extended is None:
        return table
    return table._replace(links=tuple(_patiently(table.device, seconds, lambda: _links(table))))


def _rows(disk: str, run: Runner) -> dict[str, Any]:
    argv = ["sfdisk", "--json", disk]
    try:
        rows: dict[str, Any] = json.loads(run(argv))["partitiontable"]
    except (ValueError, KeyError) as error:
        raise misprinted(argv, f"JSON: {error}", disk) from None
    return rows


def partition_row(device: Device, number: int, run: Runner) -> dict[str, Any]:
    """All that sfdisk tells of a partition; empty where there is none."""
    rows = _rows(device.node, run).get("partitions", ())
    return next((row for row in rows if _partition(row, _SECTOR).number == number), {})


def _partition(row: dict[str, Any], sector: int) -> Partition:
    match = _TRAILING.search(row["node"])
    start = int(row["start"]) * sector
    number = int(match.group(1)) if match is not None else 0
    return Partition(number, start, start + int(row["size"]) * sector, str(row.get("type", "")))


def with_hybrid(table: Table, seconds: float = _SECONDS) -> Table:
    """With what a hybrid MBR beside a GPT has as partitions."""
    taken = _patiently(table.device, seconds, lambda: _hybrid(table)) if table.label == GPT else ()
    return table._replace(taken=tuple((start, end) for start, end in taken))


def _hybrid(table: Table) -> list[tuple[int, int]]:
    with open(table.device, "rb") as disk:
        entries = mbr_partitions(disk.read(_SECTOR))
    own = [(first, first + count) for kind, first, count in entries if kind != PROTECTS_GPT]
    return [(start * table.sector, end * table.sector) for start, end in own]


def _links(table: Table) -> tuple[int, ...]:
    """Where the chain of logical partitions is: a sector for each, with the partition and where the next link is, both
    as entries of an MBR.
    """
    extended = table.extended
    if extended is None:
        return ()
    links = [extended.start]
    with open(table.device, "rb") as disk:
        while len(links) < _MOST_LINKS:
            disk.seek(links[-1])
            sector = disk.read(_SECTOR)
            entry = sector[462:478]
            offset = int.from_bytes(entry[8:12], "little") * table.sector
            following = extended.start + offset
            if sector[510:512] != _SIGNATURE or not offset or following in links or following >= extended.end:
                break
            links.append(following)
    return tuple(links)


def _by_parted(empty: Table, run: Runner) -> Table:
    printed = run(["parted", "--script", "--machine", empty.device, "unit", "B", "print", "free"])
    own = RESERVED.get(empty.label, ())
    partitions, ends = [], [empty.end]
    for line in printed.splitlines()[2:]:
        fields = line.rstrip(";").split(":")
        if len(fields) < 4 or not fields[0].isdigit():
            continue
        start, end = int(fields[1].rstrip("B")), int(fields[2].rstrip("B")) + 1
        if fields[4:5] == ["free"]:
            ends.append(end)
        else:
            partitions.append(Partition(int(fields[0]), start, end))
    hidden = [each for each in partitions if each.number in own]
    first = max([empty.first, *(each.end for each in hidden)])
    seen = tuple(sorted(each for each in partitions if each.number not in own))
    return empty._replace(partitions=seen, first=first, end=max(ends))


def kernel_partitions(device: Device) -> list[Seen]:
    """The partitions of a disk that the kernel has, or device-mapper. Of these their places are not known here."""
    found = []
    for node in device.partitions:
        name = node[len("/dev/") :].replace("/", "!")
        number, start, size = (_number(name, each) for each in ("partition", "start", "size"))
        if number is None:
            uuid = (read_small_file(f"{_SYS}/{name}/dm/uuid") or b"").decode()
            number, start = int(uuid[len("part") :].partition("-")[0]), None
        found.append(Seen(name, number, -1 if start is None else start * _SECTOR, (size or 0) * _SECTOR))
    return found


def _number(name: str, attribute: str) -> int | None:
    data = read_small_file(f"{_SYS}/{name}/{attribute}")
    return int(data) if data is not None and data.strip().isdigit() else None


def differences(table: Table, seen: Sequence[Seen]) -> tuple[list[Seen], list[Partition], list[Partition]]:
    """What the kernel has to forget, what to learn, and what to learn another size of. Of an extended partition it has
    only the beginning. What it finds in a partition with a table of its own is left to that.
    """
    own = RESERVED.get(table.label, ())
    wanted = {each.number: each for each in table.partitions}
    gone, sized = [], []
    for have in seen:
        want = wanted.get(have.number)
        if want is None and (have.number in own or _is_inner(have, table)):
            continue
        if want is None or have.start not in (-1, want.start):
            gone.append(have)
        elif not table.is_extended(want) and have.size != want.size:
            sized.append(want)
    kept = {have.number for have in seen} - {have.number for have in gone}
    return gone, [each for each in table.partitions if each.number not in kept], sized


def _is_inner(have: Seen, table: Table) -> bool:
    return table.label == DOS and any(
        each.type.lower() in _WITH_TABLES and each.start <= have.start and have.start + have.size <= each.end
        for each in table.partitions
    )


def unreliable(device: Device, run: Runner) -> str:
    """Why a partition of the kernel's is none to rely on, as what follows its name: one that was in use when the table
    of its disk changed stays as it was until it is free. Empty where that can't be told.
    """
    if device.kind != "part" or device.disk is None:
        return ""
    try:
        disk = device_at(device.disk)
        gone, _new, sized = differences(read_table(disk, "", None, run), kernel_partitions(disk))
    except (StorageError, OSError):
        return ""
    if device.name in [each.name for each in gone]:
        return f"is no longer in the partition table of {device.disk}; only the kernel has it still"
    if any(each.number == device.partition and each.size < device.size for each in sized):
        return f"ends in the partition table of {device.disk} before it does for the kernel"
    return ""


def loop_without_partitions(device: Device) -> bool:
    """Whether the kernel makes no partitions of that loop device (losetup(8): --partscan)."""
    if device.kind != "loop":
        return False
    told = read_small_file(f"{_SYS}/{device.name}/loop/partscan")
    return told is not None and told.strip() == b"0"


def is_damaged(table: Table) -> str:
    """What is wrong with a table; empty where nothing is."""
    if table.label not in (DOS, GPT):
        return ""
    numbers = [each.number for each in table.partitions]
    if 0 in numbers or len(set(numbers)) != len(numbers):
        return "its partitions have no numbers"
    return next(
        (
            f"partition {each.number} ends behind the disk"
            for each in table.partitions
            if each.end > table.end and not table.is_logical(each.number)
        ),
        "",
    )
