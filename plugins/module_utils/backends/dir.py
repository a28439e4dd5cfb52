# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Directory pools: the storage is a directory, starting and stopping it is only a note.

libvirt's name for the type is dir (formatstorage: "Directory pool").
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..model.change import Change
from ..model.found import Found, Storage, User
from ..model.pool import Pool
from . import filetree

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    path = pool.path or ""
    silent = filetree.silent(path, look)
    if silent is not None:
        return silent
    fstype = filetree.filesystem(path) if path else ""
    storage = filetree.unfit(path, fstype) or filetree.observe_directory(path, look.made(path), holds)
    return replace(storage, filesystem=fstype)


observe_volumes = filetree.observe_volumes


def busy(pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    return (), ()


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    from . import filetree_changes

    operations = filetree_changes.lower_directory(change, notes)
    if change.action == "build" and change.wanted.cow is False:
        from ..model.operations import SetNocow

        operations.append(SetNocow(change.wanted.path))
    return operations


lower_volumes = filetree.lower_volumes
