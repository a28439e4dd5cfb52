# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Records of pools and volumes: libvirt's words, bytes, nothing volatile left out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..model.facts import backing_facts, definition_facts, permissions_facts, source_facts
from ..model.found import READY, UNSEEN, Found
from ..model.tables import Table, free_extents
from ..model.volume import Volume

_OPTIONS = ("features", "mount_options", "config_options", "refresh_allocation")
_PERMISSIONS = ("mode", "owner", "group", "label")

# What a record can have. The documentation of the modules lists the same.
POOL_FIELDS = (
    "name", "state", "error", "type", "uuid", "path", "persistent", "autostart", "source", *_OPTIONS, *_PERMISSIONS,
    "capacity", "allocation", "available", "partition_table", "free_extents", "unseen",
)  # fmt: skip
VOLUME_FIELDS = (
    "name", "type", "path", "key", "format", "capacity", "allocation", "physical", *_PERMISSIONS, "thin_pool", "compat",
    "cluster_size", "lazy_refcounts", "extended_l2", "data_file", "link_target", "backing", "encrypted", "problem",
    "extents", "timestamps",
)  # fmt: skip


def pool_record(found: Found) -> dict[str, Any]:
    """A pool as it is: definition, running state, and the directory's real owner and mode."""
    pool = found.definition or found.live
    if pool is None:
        return {"name": found.name, "state": "absent"}
    unreadable = found.unreadable
    state = "active" if found.active else "inactive" if unreadable is None else "unknown"
    record: dict[str, Any] = {"name": found.name, "state": state}
    if unreadable is not None:
        record["error"] = unreadable.as_dict()
    elif found.current.frozen is not None:
        record["error"] = found.current.frozen.error(f"pool {found.name}").as_dict()
    record.update(
        type=pool.type,
        uuid=pool.uuid,
        path=pool.path,
        persistent=found.definition is not None,
        autostart=found.autostart,
        source=source_facts(pool.source),
    )
    facts = definition_facts(pool)
    record.update({name: facts[name] for name in _OPTIONS if name in facts})
    unseen = found.current.kind == UNSEEN
    if found.current.kind == READY or (unseen and found.active):
        record.update(permissions_facts(found.current.permissions))
        if found.usage is not None:
            usage = found.usage
            record.update(capacity=usage.capacity, allocation=usage.allocation, available=usage.available)
        if found.table is not None:
            record.update(partition_table=found.table.label, free_extents=_free(found.table))
    if unseen:
        record["unseen"] = unseen_guards(found)
    return record


def _free(table: Table) -> list[dict[str, Any]]:
    """Where new partitions can be, each in one piece."""
    return [
        {"start": each.start, "end": each.end, "size": each.size, "kind": "logical" if each.logical else "primary"}
        for each in free_extents(table)
    ]


def unseen_guards(found: Found) -> list[str]:
    """What nobody but the daemon has looked at: guards that are only as good as its own."""
    row, unseen = found.row, []
    if "build" in row.daemon and "devices" in (*row.required, *row.optional) and not (found.devices or found.beside):
        unseen.append("what its devices hold")
    if not found.beside or row.volumes == "network":
        unseen.append("which processes, mounts and devices use its volumes")
    unseen.append("what its volumes hold: their formats and sizes are as the daemon shows them")
    return unseen


_UNLISTED = "the daemon has not looked at it since it is there or was changed (virsh pool-refresh)"


def volume_record(volume: Volume, unlisted: Collection[str] = ()) -> dict[str, Any]:
    """A volume as its file and its header have it; ``unlisted`` are names that a daemon does not list."""
    record: dict[str, Any] = {
        "name": volume.name,
        "type": volume.type,
        "path": volume.path,
        "key": volume.key,
        "format": volume.format,
        "capacity": volume.capacity,
        "allocation": volume.allocation,
        "physical": volume.physical,
    }
    record.update(permissions_facts(volume.permissions))
    for name in ("thin_pool", "compat", "cluster_size", "lazy_refcounts", "extended_l2", "data_file", "link_target"):
        if getattr(volume, name) is not None:
            record[name] = getattr(volume, name)
    if volume.backing is not None:
        record["backing"] = backing_facts(volume.backing)
    if volume.encrypted:
        record["encrypted"] = True
    problem = volume.foreign or volume.problem or (_UNLISTED if volume.name in unlisted else "")
    if problem:
        record["problem"] = problem
    if volume.extents:
        record["extents"] = [{"device": e.device, "start": e.start, "end": e.end} for e in volume.extents]
    record["timestamps"] = {name: nanoseconds / 10**9 for name, nanoseconds in volume.timestamps}
    return record
