# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What two pools can't both have (libvirt, storage driver: duplicates)."""

from __future__ import annotations

from typing import Any

from ..model.definition import with_defaults
from ..model.errors import StorageError
from ..model.found import Found, Neighbour
from ..model.goal import PoolGoal
from ..model.pool import Pool, Source
from ..model.types import row_of
from .decision import subject_of


def check_uuid_is_free(goal: PoolGoal, found: Found) -> None:
    """Raises ``uuid_conflict``."""
    for neighbour in found.neighbours:
        if goal.pool.uuid is not None and neighbour.pool.uuid == goal.pool.uuid:
            raise StorageError(
                "uuid_conflict",
                f"the uuid {goal.pool.uuid} belongs to pool {neighbour.pool.name}",
                subject=str(subject_of(goal)),
                hint=f"Leave uuid out, or declare that pool by its name ({neighbour.pool.name}).",
            )


def check_source_is_free(goal: PoolGoal, found: Found, wanted: Pool) -> None:
    """Raises ``source_conflict``."""
    for neighbour in found.neighbours:
        what = _shared(wanted, neighbour, found)
        if what:
            raise StorageError(
                "source_conflict",
                f"{what} of pool {neighbour.pool.name} already",
                subject=str(subject_of(goal)),
                hint=f"Declare that pool instead (name: {neighbour.pool.name}), or undefine it first (state: absent).",
            )


def is_shared(wanted: Pool, found: Found) -> bool:
    """Whether another pool has what this one would have."""
    return any(_shared(wanted, neighbour, found) for neighbour in found.neighbours)


def _shared(wanted: Pool, neighbour: Neighbour, found: Found) -> str:
    """What another pool has that this one would have too; empty where there is nothing."""
    row, other = row_of(wanted.type), neighbour.pool
    if row.file_tree and wanted.path is not None and row_of(other.type).file_tree:
        resolved = found.resolved.get(wanted.path, wanted.path)
        known = found.storage.identity is not None and found.storage.path == wanted.path
        if neighbour.resolved == resolved or (known and neighbour.identity == found.storage.identity):
            return f"{wanted.path} is the directory"
    if row.on_devices and row_of(other.type).on_devices:
        theirs = {device.path for device in other.source.devices or ()} | set(neighbour.devices)
        for device in wanted.source.devices or ():
            if {device.path, found.resolved.get(device.path, device.path)} & theirs:
                return f"{device.path} is a device"
    if wanted.type != other.type or row.one_of is None:
        return ""
    if _adapters_are_one(wanted.source, other.source, found) or _are_one(wanted, other, row.one_of, found):
        return f"this source of type {wanted.type} is the one"
    return ""


def _are_one(wanted: Pool, other: Pool, names: tuple[str, ...], found: Found) -> bool:
    """Whether their sources agree in all of these fields. Of what nothing is said there is none."""
    mine, theirs = ([_told(with_defaults(pool).source, name, found) for name in names] for pool in (wanted, other))
    return mine == theirs and (not names or any(value is not None for value in mine))


def _adapters_are_one(wanted: Source, other: Source, found: Found) -> bool:
    if wanted.adapter is None or other.adapter is None:
        return False
    from ..model.adapters import in_conflict

    return in_conflict(wanted.adapter, other.adapter, found.hosts)


def _told(source: Source, name: str, found: Found) -> Any:
    if name == "hosts":
        return source.hosts[0].name if source.hosts else None
    if name == "initiator":
        return source.initiator or found.initiator or None
    return getattr(source, name)
