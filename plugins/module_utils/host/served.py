# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What the kernel itself has open, without a process or a device of its own that would tell: what its SCSI targets
(LIO) and NVMe targets serve (configfs), and what the pools of ZFS that are imported are made of.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from ..model.errors import StorageError
from ..model.found import User
from .run import run

_SERVED = (
    ("/sys/kernel/config/target/core/*/*/udev_path", "SCSI target"),
    ("/sys/kernel/config/nvmet/subsystems/*/namespaces/*/device_path", "NVMe target"),
)
_IMPORTED = "/proc/spl/kstat/zfs"  # a directory for each pool that is imported
# Log, cache and spare devices too; tabs between the columns, whole paths, links followed: zpool-list(8).
_LIST = ("zpool", "list", "-v", "-H", "-P", "-L")
_SECONDS = 10.0


def served(unseen: set[str]) -> Iterator[tuple[str, User]]:
    """(path, user). What could not be looked at is added to ``unseen``."""
    for pattern, what in _SERVED:
        for attribute in sorted(glob.glob(pattern)):
            try:
                with open(attribute, encoding="utf-8", errors="surrogateescape") as file:
                    path = file.read().strip()
            except OSError:
                continue
            if path.startswith("/"):
                yield path, User("holder", f"{what}, {attribute.split('/')[-2]}")
    if _imports():
        try:
            printed = run(_LIST, timeout=_SECONDS)
        except StorageError as error:
            unseen.add(f"what the pools of ZFS are made of ({error.message})")
            return
        yield from _members(printed)


def _imports() -> bool:
    try:
        with os.scandir(_IMPORTED) as entries:
            return any(entry.is_dir() for entry in entries)
    except OSError:
        return False


def _members(printed: str) -> Iterator[tuple[str, User]]:
    """A pool's line starts with its name, those of what it is made of with a tab."""
    pool = "?"
    for line in printed.splitlines():
        name, tab, rest = line.partition("\t")
        path = rest.partition("\t")[0]
        if name and tab:
            pool = name
        elif path.startswith("/"):
            yield path, User("holder", f"zpool {pool}")
