# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Partitions of device-mapper's disks, which the kernel does not make: kpartx does, for us and for udev, whose rule for
multipath maps (kpartx.rules of multipath-tools) makes and renames them whenever the disk was written to.
"""

from __future__ import annotations

from ..model.errors import StorageError
from ..model.tables import Table
from .block import Device, device_at
from .partitions import differences, kernel_partitions, stem_of
from .run import run
from .udev import settle


def update(device: Device, table: Table | None, separator: bool | None, seconds: float) -> None:
    """Makes the partitions of a disk those of its table; of none where it has no table. udev may do the same now: what
    fails of ours because of that is there all the same once it is done.
    """
    stem, _directory = stem_of(device, separator)
    what = ["-d"] if table is None else ["-u", "-p", stem[len(device.dm_name) :]]
    argv = ["kpartx", *what, "-s", f"/dev/mapper/{device.dm_name}"]
    try:
        run(argv, timeout=seconds)
    except StorageError as error:
        if error.code == "tool_missing":
            raise
        settle(seconds)
        run(argv, timeout=seconds)
    if _differs(device, table):
        settle(seconds)
        run(argv, timeout=seconds)


def _differs(device: Device, table: Table | None) -> bool:
    there = device_at(device.path)
    seen = kernel_partitions(there)
    return bool(seen) if table is None else any(differences(table, seen))
