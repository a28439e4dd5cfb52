# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Directory pools: the storage is a directory, starting and stopping it is only a note.

libvirt's name for the type is dir (formatstorage: "Directory pool").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from ..model.change import Change
from ..model.found import Found, Storage
from ..model.pool import Pool
from . import filetree


def observe(pool: Pool, made_inode: int | None, holds: bool) -> Storage:
    """The directory of the pool, or of a definition that has none yet."""
    return filetree.observe_directory(pool.path or "", made_inode, holds)


def filesystem(pool: Pool) -> str:
    """The type of the filesystem that holds the pool, or will."""
    return filetree.filesystem(pool.path) if pool.path else ""


observe_volumes = filetree.observe_volumes


def is_up(pool: Pool, storage: Storage, started: bool) -> bool:
    """A directory pool is active when it was started and its directory is there."""
    return started and storage.kind == "ready"


def lower(change: Change, record: str) -> list[Any]:
    """``record`` is the file that notes which directory we made."""
    from ..model import operations as ops

    pool: Pool = change.wanted
    path, permissions = pool.path or "", pool.permissions
    if change.action == "build":
        operations: list[Any] = [ops.MakeDirectory(path, permissions.mode or 0, record)]
        if permissions.owner is not None or permissions.group is not None:
            operations.append(ops.SetPermissions(path, None, permissions.owner, permissions.group, follow=True))
        if pool.cow is False:
            operations.append(ops.SetNocow(path))
        return operations
    if change.action == "permissions":
        return [ops.SetPermissions(path, permissions.mode, permissions.owner, permissions.group, follow=True)]
    if change.action == "delete":
        return [ops.RemoveDirectory(path), ops.Remove(record)]
    return []  # starting and stopping are only notes of the engine's


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> list[Any]:
    from . import filetree_changes

    return filetree_changes.lower_volumes(changes, found, instead)
