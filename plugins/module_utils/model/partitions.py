# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Names and numbers of the partitions of a disk pool (libvirt, storage driver: disk)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping

from .pool import Pool
from .volume import Volume

PRIMARIES = 4  # of a dos label
_NUMBER = re.compile(r"(.*?)([0-9]+)\Z", re.DOTALL)


def disk_of(pool: Pool) -> str:
    devices = pool.source.devices or ()
    return devices[0].path if devices else ""


def daemon_deletes(pool: Pool) -> bool:
    """Whether the daemon can delete partitions of this disk: it expects a number right after the name of its device."""
    disk = disk_of(pool)
    mapped = disk.startswith(("/dev/mapper/", "/dev/dm-"))
    return mapped or (posixpath.dirname(disk) == "/dev" and not disk[-1].isdigit())


def number_of(name: str, pool: Pool, resolved: Mapping[str, str]) -> int | None:
    """The number of the partition of that name; None for a name that no partition of this disk has."""
    match = _NUMBER.match(name)
    if match is None:
        return None
    disk = resolved.get(disk_of(pool), disk_of(pool))
    if not disk.startswith(("/dev/disk/", "/dev/mapper/", "/dev/dm-")):  # those have other names in the end
        base = posixpath.basename(disk)
        base += "p" if base[-1:].isdigit() else ""
        if not name.startswith(base) or not name[len(base) :].isdigit():
            return None
        return int(name[len(base) :])
    return int(match.group(2))


def removing(name: str, pool: Pool, resolved: Mapping[str, str]) -> tuple[str, ...]:
    """The command that removes a partition which a daemon can't delete."""
    return ("parted", "--script", disk_of(pool), "rm", str(number_of(name, pool, resolved)))


def expected_number(pool: Pool, names: Collection[str], extended: bool) -> int | None:
    """The number that the next partition gets: the lowest that is free; None where there is none. What comes after the
    primary ones of a dos label is in its extended one.
    """
    used = {int(match.group(2)) for match in map(_NUMBER.match, names) if match is not None}
    free = next(number for number in range(1, len(used) + 2) if number not in used)
    if pool.source.format not in (None, "unknown", "dos") or free <= PRIMARIES:
        return free
    return None if extended else max(used) + 1


def encloses(outer: Volume, inner: Volume) -> bool:
    """Whether a partition lies in another one, as a logical one in the extended one."""
    if outer.name == inner.name or not outer.extents or not inner.extents:
        return False
    around, within = outer.extents[0], inner.extents[0]
    return around.start <= within.start and within.end <= around.end
