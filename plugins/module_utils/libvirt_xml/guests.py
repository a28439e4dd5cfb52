# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The disks of a guest's definition (formatdomain: "Hard drives, floppy disks, CDROMs"), as far as storage is
concerned.
"""

from __future__ import annotations

from typing import NamedTuple

from ._tree import parse


class GuestDisks(NamedTuple):
    """``paths``: files and devices of its disks and their backing chains; ``volumes``: (pool, volume) pairs."""

    name: str
    paths: tuple[str, ...]
    volumes: tuple[tuple[str, str], ...]


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
    return GuestDisks(domain.findtext("name") or "", tuple(paths), tuple(volumes))
