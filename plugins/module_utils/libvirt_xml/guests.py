# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The disks of a guest's definition (formatdomain: "Hard drives, floppy disks, CDROMs"), as far as storage is
concerned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ._tree import parse

_SCSI_HOST = "scsi_host"


class GuestDisks(NamedTuple):
    """``paths``: files and devices of its disks and their backing chains; ``volumes``: (pool, volume) pairs;
    ``hardware``: what it is given of the host's hardware that may be, or have, a disk, as sysfs calls it: units of SCSI
    (``2:0:0:1``) and PCI devices (``0000:03:00.0``). ``secrets``: uuids and usages of those that its disks name.
    """

    name: str
    paths: tuple[str, ...]
    volumes: tuple[tuple[str, str], ...]
    hardware: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


def parse_guest(text: bytes) -> GuestDisks:
    """Reads ``<domain>``, or the ``<domstatus>`` of a running guest. Raises ``invalid_xml``."""
    root = parse(text)
    domain = root if root.tag == "domain" else root.find("domain")
    if domain is None:
        return GuestDisks("", (), ())
    sources = [
        source for disk in domain.iter("disk", "hostdev", "filesystem", "nvram") for source in disk.iter("source")
    ]
    paths = [source.get(key) for source in sources for key in ("file", "dev") if source.get(key)]
    paths += [path.text for memory in domain.iter("memory") for path in memory.iterfind("source/path") if path.text]
    for tag in ("kernel", "initrd", "nvram", "loader"):
        paths += [element.text for element in domain.iter(tag) if element.text]
    volumes = [(s.get("pool"), s.get("volume")) for s in sources if s.get("pool") and s.get("volume")]
    hardware = tuple(address for source in sources for address in _addresses(source))
    named = [secret.get(key) for secret in domain.iter("secret") for key in ("uuid", "usage") if secret.get(key)]
    return GuestDisks(domain.findtext("name") or "", tuple(paths), tuple(volumes), hardware, tuple(named))


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
