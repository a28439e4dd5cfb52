# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What two pools can't both have (libvirt, storage driver: duplicates)."""

from __future__ import annotations

from typing import Any

from ..model.definition import with_defaults
from ..model.found import Found, Neighbour
from ..model.pool import Pool, Source
from ..model.types import row_of


def shared_source(wanted: Pool, neighbour: Neighbour, found: Found) -> str:
    """What another pool has that this one would have too; empty where there is nothing."""
    row, other = row_of(wanted.type), neighbour.pool
    if row.on_devices and row_of(other.type).on_devices:
        theirs = {device.path for device in other.source.devices or ()} | set(neighbour.devices)
        for device in wanted.source.devices or ():
            if {device.path, found.resolved.get(device.path, device.path)} & theirs:
                return f"{device.path} is a device"
    if wanted.type != other.type or row.one_of is None:
        return ""
    if _adapters_are_one(wanted.source, other.source, found) or _are_one(wanted, other, row.one_of):
        return f"this source of type {wanted.type} is the one"
    return ""


def _are_one(wanted: Pool, other: Pool, names: tuple[str, ...]) -> bool:
    """Whether their sources agree in all of these fields. Of what nothing is said there is none."""
    mine, theirs = ([_told(with_defaults(pool).source, name) for name in names] for pool in (wanted, other))
    return mine == theirs and (not names or any(value is not None for value in mine))


def _adapters_are_one(wanted: Source, other: Source, found: Found) -> bool:
    if wanted.adapter is None or other.adapter is None:
        return False
    from ..model.adapters import in_conflict

    return in_conflict(wanted.adapter, other.adapter, found.hosts)


def _told(source: Source, name: str) -> Any:
    if name == "hosts":
        return source.hosts[0].name if source.hosts else None
    return getattr(source, name)
