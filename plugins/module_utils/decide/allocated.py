# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Block volumes that get their space from another one, or their content: thin volumes, snapshots, copies."""

from __future__ import annotations

from dataclasses import replace

from ..model.goal import VolumeGoal
from ..model.types import THIN_POOL
from ..model.units import format_size, listed, round_up
from ..model.volume import Volume
from .images import settle_content
from .task import VolumesTask

_CHUNK = 64 * 1024
_LEAST_METADATA, _MOST_METADATA = 2 * 1024 * 1024, 128 * 1024 * 1024


def settle_made(entry: VolumeGoal, task: VolumesTask) -> Volume:
    """The declared volume with what follows from what it is made from. Raises where it can't be made; adds to
    ``missing`` what an earlier task may make.
    """
    volume = entry.volume
    if volume.backing is not None:
        return _settle_snapshot(volume, task)
    if volume.format == THIN_POOL:
        _check_plain(volume, task)
        return volume
    if volume.content is not None:
        volume = _filled(entry, task)
    if volume.thin_pool is not None:
        _check_thin_pool(volume, task)
        return replace(volume, allocation=0)
    sparse = volume.allocation is not None and volume.allocation < (volume.capacity or 0)
    if sparse:
        raise task.refuse(
            "invalid_option",
            volume.name,
            f"volume {task.goal.pool}/{volume.name} would have less space than its capacity, and no thin pool for more",
            "Give options.thin_pool to let it grow as it is written, or leave allocation out.",
        )
    return replace(volume, allocation=None)


def _check_plain(volume: Volume, task: VolumesTask) -> None:
    given = [name for name in ("thin_pool", "content", "allocation") if getattr(volume, name) is not None]
    if given:
        words = ", ".join({"content": "source", "thin_pool": "options.thin_pool"}.get(name, name) for name in given)
        raise task.refuse(
            "invalid_option", volume.name, f"a {THIN_POOL} has no {words}", "Leave it out, or make it a volume."
        )


def _in_pool(name: str, task: VolumesTask) -> Volume | None:
    """The volume that is there, or that this task makes."""
    entry = task.goal.by_name.get(name)
    have = task.found.volumes.get(name)
    if entry is None or entry.state != "present" or (have is not None and not task.remade(entry)):
        return have
    from .images import settle_new

    return settle_new(entry, task)


def _check_thin_pool(volume: Volume, task: VolumesTask) -> None:
    name = volume.thin_pool or ""
    pool = _in_pool(name, task)
    if pool is None:
        missing = f"the thin pool {name} is not there"
        task.missing.append(
            task.refuse("backing_missing", volume.name, missing, f"Make it first (name: {name}, format: {THIN_POOL}).")
        )
        return
    if pool.format != THIN_POOL:
        raise task.refuse(
            "backing_refused", volume.name, f"{name} is no thin pool", f"Name a volume of format {THIN_POOL}."
        )
    _warn_promised(volume, pool, task)


def room_of_thin_pool(volume: Volume, task: VolumesTask) -> int:
    """What it takes of its group: its metadata has 64 bytes for each chunk of 64 KiB, which grow before that is more
    than 128 MiB, and the first pool of a group has LVM keep as much once more for a repair (lvmthin(7)), which is there
    already where a task was ended while it made that one.
    """
    capacity = volume.capacity or 0
    metadata = round_up(min(max(_LEAST_METADATA, capacity // _CHUNK * 64), _MOST_METADATA), task.found.granule)
    pools = (each.name for each in (*task.found.volumes.values(), *task.settled.values()) if each.format == THIN_POOL)
    spare = max(0, metadata - hidden_of_group(task)) if next(pools, volume.name) == volume.name else 0
    return capacity + metadata + spare


def hidden_of_group(task: VolumesTask) -> int:
    """How many bytes of a group no volume accounts for: LVM's own volumes, and what a task left that was ended."""
    if task.found.usage is None:
        return 0
    seen = (each.allocation or 0 for each in task.found.volumes.values() if each.thin_pool is None)
    return max(0, task.found.usage.allocation - sum(seen))


def _warn_promised(volume: Volume, pool: Volume, task: VolumesTask) -> None:
    promised = sum(
        each.capacity or 0
        for each in task.found.volumes.values()
        if each.thin_pool == pool.name and each.name != volume.name
    )
    promised += sum(made.capacity or 0 for made in task.settled.values() if made.thin_pool == pool.name)
    promised += volume.capacity or 0
    if pool.capacity is not None and promised > pool.capacity:
        task.warnings.append(
            f"volume {task.goal.pool}/{volume.name}: its thin pool {pool.name} has {format_size(pool.capacity)}, and "
            f"{format_size(promised)} are promised: when it is full, what is written is lost"
        )


def _settle_snapshot(volume: Volume, task: VolumesTask) -> Volume:
    """The snapshot of a thin volume is thin, unless it gets room of its own for differences (lvmthin(7))."""
    backing, wrong = volume.backing, ""
    name = None if backing is None else task.volume_of(backing)
    if backing is None or name is None or backing.format not in (None, "raw"):
        raise task.refuse(
            "backing_refused",
            volume.name,
            f"a volume of a {task.found.row.name} pool can be a snapshot of another volume of the pool, nothing else",
            "Name such a volume (backing: {volume: NAME}), without a format.",
        )
    path = task.found.volume_path(name)
    backing = replace(backing, path=path, volume=None)
    origin = _in_pool(name, task)
    if origin is None:
        task.missing.append(task.refuse("backing_missing", volume.name, f"{name} is not there", "Make it first."))
        return replace(volume, backing=backing)
    thin = volume.allocation is None and origin.thin_pool is not None
    if origin.format == THIN_POOL:
        wrong = f"{name} is a thin pool"
    elif origin.backing is not None and origin.thin_pool is None:
        wrong = f"{name} is a snapshot itself"
    elif volume.thin_pool is not None and (not thin or volume.thin_pool != origin.thin_pool):
        wrong = f"{name} is not in the thin pool {volume.thin_pool}"
    elif volume.format not in (None, "raw"):
        wrong = f"a {volume.format} is no snapshot"
    size = origin.capacity
    if wrong:
        raise task.refuse("backing_refused", volume.name, f"there is no such snapshot: {wrong}", "Name another volume.")
    if volume.capacity is not None and size is not None:
        asked = round_up(volume.capacity, task.found.granule)
        if asked > size or (asked < size and not volume.at_least):
            raise task.refuse(
                "invalid_size",
                volume.name,
                f"a snapshot has the size of its origin, {format_size(size)}, not {format_size(asked)}",
                "Leave capacity out; allocation is the room for differences.",
            )
    made = replace(volume, backing=backing, capacity=size)
    if thin:
        made = replace(made, thin_pool=origin.thin_pool, allocation=0)
    elif volume.allocation is not None and size is not None:
        made = replace(made, allocation=min(volume.allocation, size))
    return made


def _filled(entry: VolumeGoal, task: VolumesTask) -> Volume:
    """With the size of what it is filled from. What another volume of the pool holds is taken byte for byte."""
    volume, content = entry.volume, entry.volume.content
    if content is not None and content.data is None and content.format is None and task.volume_of(content) is not None:
        content = replace(content, format="raw")
    declared = replace(volume, content=content, format="raw")
    filled = settle_content(replace(entry, volume=declared), declared, task)
    return replace(filled, format=volume.format)


def check_grows(have: Volume, size: int, task: VolumesTask) -> None:
    """Raises ``volume_backing`` where snapshots stand against it: LVM resizes an origin only while all is inactive."""
    if size == have.capacity:
        return
    snapshots = [
        each.name
        for each in task.found.volumes.values()
        if each.backing is not None and each.backing.path == have.path and each.thin_pool is None
    ]
    if snapshots and have.format != THIN_POOL:
        raise task.refuse(
            "volume_backing",
            have.name,
            f"volume {task.goal.pool}/{have.name} can't be resized while it has snapshots: {listed(snapshots)}",
            "Remove those first.",
        )
