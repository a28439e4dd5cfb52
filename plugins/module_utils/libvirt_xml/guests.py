# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a guest's definition, or that of a snapshot of it, has of the host's storage (formatdomain, formatsnapshot)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ._tree import parse

_SCSI_HOST = "scsi_host"


class GuestDisks(NamedTuple):
    """``paths``: files and devices of its disks and their backing chains; ``volumes``: (pool, volume) pairs;
    ``hardware``: what it is given of the host's hardware that may be, or have, a disk, as sysfs calls it: units of SCSI
    (``2:0:0:1``) and PCI devices (``0000:03:00.0``). ``secrets``: uuids and usages of those that its disks name.
    ``directories``: what it has all that is in.
    """

    name: str
    paths: tuple[str, ...]
    volumes: tuple[tuple[str, str], ...]
    hardware: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()


def parse_guest(text: bytes, name: str = "") -> GuestDisks:
    """Reads ``<domain>``, the ``<domstatus>`` of a running guest, or a ``<domainsnapshot>``. ``name`` is the guest's,
    where it is not told. Raises ``invalid_xml``.
    """
    root = parse(text)
    if root.tag == "domainsnapshot":
        return _snapshot(root, name)
    domain = root if root.tag == "domain" else root.find("domain")
    if domain is None:
        return GuestDisks("", (), ())
    sources = [
        source for disk in domain.iter("disk", "hostdev", "filesystem", "nvram") for source in disk.iter("source")
    ]
    paths = _paths(sources)
    paths += [path.text for memory in domain.iter("memory") for path in memory.iterfind("source/path") if path.text]
    for tag in ("kernel", "initrd", "dtb", "shim", "nvram", "loader"):
        paths += [element.text for element in domain.iter(tag) if element.text]
    paths += [table.text for acpi in domain.iter("acpi") for table in acpi.iterfind("table") if table.text]
    states = [source for tpm in domain.iter("tpm") for source in tpm.iter("source") if source.get("path")]
    paths += [state.get("path") for state in states if state.get("type") != "dir"]
    paths += [path for argument in domain.iter("{*}arg") for path in _argued(argument.get("value") or "")]
    directories = [source.get("dir") for source in sources if source.get("dir")]
    directories += [state.get("path") for state in states if state.get("type") == "dir"]
    volumes = [(s.get("pool"), s.get("volume")) for s in sources if s.get("pool") and s.get("volume")]
    hardware = tuple(address for source in sources for address in _addresses(source))
    named = [secret.get(key) for secret in domain.iter("secret") for key in ("uuid", "usage") if secret.get(key)]
    told = domain.findtext("name") or name
    return GuestDisks(told, tuple(paths), tuple(volumes), hardware, tuple(named), tuple(directories))


def _paths(sources: list[Any]) -> list[str]:
    return [source.get(key) for source in sources for key in ("file", "dev") if source.get(key)]


def _snapshot(root: Any, name: str) -> GuestDisks:
    """The files that a snapshot is in (formatsnapshot); the guest as it was then has them, and others that it may have
    given up since.
    """
    paths = _paths(list(root.iterfind("disks/disk/source")))
    paths += [memory.get("file") for memory in root.iterfind("memory") if memory.get("file")]
    guest, snapshot = root.findtext("domain/name") or name, root.findtext("name") or ""
    return GuestDisks(f"{guest} (snapshot {snapshot})", tuple(paths), ())


def _argued(value: str) -> list[str]:
    """The absolute paths in an argument of QEMU's own: after a comma or an equals sign, or in JSON. A comma that is
    doubled is one of the path.
    """
    if value.startswith("{"):
        from ..model.blockdev import files_of_json

        return list(files_of_json(value).paths)
    options = (option.replace("\0", ",") for option in value.replace(",,", "\0").split(","))
    words = (option.partition("=")[2] if "=" in option else option for option in options)
    return [word for word in words if word.startswith("/")]


def is_in(path: str, directories: Iterable[str]) -> bool:
    """Whether a guest has a path with all that is in a directory. Who is given the root of the host, as some containers
    are, has nothing in particular.
    """
    tops = filter(None, (directory.rstrip("/") for directory in directories))
    return any(path.startswith(f"{top}/") for top in tops)


def _addresses(source: Any) -> Iterator[str]:
    """What is passed through: formatdomain, "Host device assignment", and disks of the type nvme."""
    adapter = (source.find("adapter") if source.find("adapter") is not None else source).get("name") or ""
    for address in source.iterfind("address"):
        try:
            if adapter.startswith(_SCSI_HOST):
                yield ":".join(
                    [adapter[len(_SCSI_HOST) :], *(address.get(k) or "0" for k in ("bus", "target", "unit"))]
                )
            elif address.get("slot"):
                numbers = [int(address.get(key) or "0", 0) for key in ("domain", "bus", "slot", "function")]
                yield "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)
        except ValueError:  # no number: the guest can't be started
            continue
