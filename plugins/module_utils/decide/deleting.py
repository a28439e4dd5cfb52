# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Deleting a pool: its volumes first, while they can be looked at, then the storage itself, last its definition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

from ..model.change import Change
from ..model.definition import defined, keep_names
from ..model.errors import StorageError
from ..model.found import ABSENT, DIRECTORY, FOREIGN, READY, UNKNOWN_STORAGE, UNSEEN, Found, Part, Storage
from ..model.goal import PoolGoal, VolumeGoal, VolumesGoal
from ..model.pool import Pool, Source
from ..model.types import VOLUME_GROUP, PoolType, row_of
from ..model.units import counted, listed
from ..model.volume import Volume
from .building import check_unused, parts_of, unreadable
from .decision import change_of, clean, subject_of
from .destroying import delete
from .guards import guard_unused, standing_on
from .pools import undefine
from .running import check_nothing_above, stop
from .task import VolumesTask

_LISTED = 10


def delete_pool(goal: PoolGoal, found: Found) -> list[Change]:
    """The changes that destroy the storage and take its definition away. Raises where more would be lost than said."""
    existing = found.definition or found.live
    check_nothing_above(goal, found)
    if found.storage.kind == UNSEEN:
        from .unseen_pools import delete_unseen

        return [*delete_unseen(goal, found, existing), *undefine(goal, found)]
    row = row_of((existing or goal.pool).type)
    if "delete" not in row.native:
        raise undeletable("not_supported", row, goal)
    _check_storage(goal, found, existing)
    changes: list[Change] = []
    if found.storage.listed:
        changes += clean(goal.pool.name, found)
        changes += _delete_contents(goal, found, defined=existing is not None)
    _check_nobody_beneath(goal, found)
    return [
        *changes,
        *stop(goal, found, deleting=True),
        *_delete_parts(goal, found, existing),
        *undefine(goal, found),
    ]


def undeletable(code: str, row: PoolType, goal: PoolGoal) -> StorageError:
    """The refusal to delete what nobody deletes here."""
    return StorageError(
        code,
        f"the storage of {row.name} pools can't be deleted",
        subject=str(subject_of(goal)),
        hint="Undefine the pool (state: absent), and delete the storage where it is served from.",
    )


def _check_storage(goal: PoolGoal, found: Found, existing: Pool | None) -> None:
    storage, subject = found.storage, str(subject_of(goal))
    if storage.kind == FOREIGN:
        raise StorageError(
            "storage_foreign",
            f"{storage.path or goal.pool.path} is {storage.why}",
            subject=subject,
            hint="Undefine the pool without touching it (state: absent).",
        )
    if storage.kind not in (READY, ABSENT) or _is_unasked(storage):
        if storage.problem is not None:
            raise storage.problem.error(subject)
        raise unreadable(goal, storage.path, storage.why)
    if storage.kind == ABSENT and existing is not None and not _is_unnamed(existing):
        _check_seen_to_be_gone(goal, found)
    hidden = storage.kind == READY and not storage.up and found.row.file_tree and not storage.emptied
    if hidden and existing is not None:
        raise StorageError(
            "pool_inactive",
            f"pool {goal.pool.name} is not active: what it holds can't be looked at, and so would be lost unseen",
            subject=subject,
            hint="Start it first (state: active), or undefine it and keep everything (state: absent).",
        )


def _is_unasked(storage: Storage) -> bool:
    """Whether nothing of it is seen, and what would show it is not installed."""
    return storage.kind == ABSENT and storage.problem is not None and storage.problem.code == "tool_missing"


def _check_seen_to_be_gone(goal: PoolGoal, found: Found) -> None:
    """Raises where what is not here may be on a device that is away or can't be looked at. One that was looked at, and
    holds nothing of it, is what an interrupted task left, even if nothing can be made there.
    """
    for part in found.storage.parts:
        if part.kind == UNKNOWN_STORAGE and part.problem is None:
            raise unreadable(goal, found.storage.path, part.why)
        looked = part.kind == ABSENT and part.requires
        if part.problem is not None and not looked:
            raise part.problem.error(str(subject_of(goal)))


def _is_unnamed(existing: Pool) -> bool:
    """Whether nothing tells on which devices it was, so that it can't be told from one that was deleted."""
    return row_of(existing.type).group == VOLUME_GROUP and not existing.source.devices


def remarks_on(found: Found) -> tuple[str, ...]:
    """What is to be said of what goes without having been seen."""
    existing = found.definition or found.live
    if existing is None or found.storage.kind != ABSENT or not _is_unnamed(existing):
        return ()
    problem = found.storage.problem
    return () if problem is None else (f"{problem.what}: if its devices are only away, it is still on them",)


def _check_nobody_beneath(goal: PoolGoal, found: Found) -> None:
    """Raises ``device_in_use`` where others have what would be erased. What they have open can't be, whatever is
    allowed.
    """
    storage = found.storage
    for part in storage.parts if not storage.up else ():
        if part.kind == READY and part.removable:
            check_unused(part, goal, "deleted")
    check_nobody_has(goal, found)


def check_nobody_has(goal: PoolGoal, found: Found) -> None:
    """The same of the devices as a whole."""
    standing, way_out, word = standing_on(found, goal.allow, erased=True)
    if standing:
        raise StorageError(
            "device_in_use",
            f"pool {goal.pool.name} can't be deleted: {', '.join(found.erased)} would be erased, and {standing}",
            subject=str(subject_of(goal)),
            hint=way_out,
            word=word,
        )


def is_gone(goal: PoolGoal, found: Found) -> bool:
    """Whether something else is where the storage of an undefined pool was, or nothing. Raises where it is there
    without a definition: then no earlier task left it, since the definition goes last.
    """
    storage = found.storage
    left = [part for part in storage.parts if part.name != DIRECTORY and part.kind == READY and part.removable]
    if left:
        raise StorageError(
            "pool_undefined",
            f"no pool {goal.pool.name} is defined, and {left[0].what} is there",
            subject=str(subject_of(goal)),
            hint="If that is the pool's, define it first (state: present), then delete it.",
        )
    missing = storage.problem is not None and storage.problem.code == "source_missing"
    return storage.kind == FOREIGN or missing or _is_unasked(storage)


def _delete_parts(goal: PoolGoal, found: Found, existing: Pool | None) -> list[Change]:
    """What the pool was built of goes in reverse order; a directory only where we made it, or the note of it where an
    interrupted task got no further.
    """
    changes = []
    for part in reversed(parts_of(found.storage)):
        there = part.kind == READY
        if part.removable and (there or part.name == DIRECTORY):
            changes.append(_delete_part(part, goal, found, existing, there))
    return changes


def _delete_part(part: Part, goal: PoolGoal, found: Found, existing: Pool | None, there: bool) -> Change:
    key = "target" if part.name == DIRECTORY else part.name
    what = part.what
    if found.row.whole and found.volumes and part.name != DIRECTORY:
        what += f" with {listing(found.volumes)}"
    return change_of(
        goal,
        "delete",
        (part.deleting or f"remove {what}") if there else f"forget {what}",
        {key: dict(part.facts or {}) if there else None},
        {key: None},
        replace(existing or goal.pool, path=found.storage.path),
        destroys=what if there else "",
        requires=part.requires if there else (),
        part=part.name,
    )


def check_same_storage(goal: PoolGoal, found: Found, existing: Pool) -> None:
    declared = keep_names(defined(goal.pool), existing, found.resolved, found.hosts)
    if found.live is not None and found.moved:
        have, want = _place(found.live), _place(existing)
        raise StorageError(
            "restart_needed",
            f"pool {declared.name} runs on {have}, and its definition says {want} from its next start on: nothing is "
            "deleted",
            subject=str(subject_of(goal)),
            hint="Stop it first (state: inactive), then say what is to be deleted.",
        )
    same_file = found.storage.same_as(found.current)
    same_path = declared.path in (None, existing.path) or same_file
    other = [
        name
        for name in (field.name for field in fields(Source))
        if getattr(declared.source, name) not in (None, getattr(existing.source, name))
    ]
    if not same_path or other:
        lives = f"in {existing.path}, not in {declared.path}" if not same_path else f"on other {', '.join(other)}"
        raise StorageError(
            "identity_change",
            f"pool {goal.pool.name} lives {lives}: nothing is deleted",
            subject=str(subject_of(goal)),
            hint="Name the path and source that the pool has.",
        )


def _place(pool: Pool) -> str:
    source = pool.source
    devices = [device.path for device in source.devices or ()]
    hosts = [host.name for host in source.hosts or ()]
    return " ".join(filter(None, (pool.path, *hosts, *devices, source.dir, source.name)))


def listing(names: Iterable[str]) -> str:
    """What would be lost, in the order of the names."""
    return listed(sorted(names), _LISTED)


def _delete_contents(goal: PoolGoal, found: Found, defined: bool) -> list[Change]:
    if not found.storage.holds:
        return []
    subject, path = str(subject_of(goal)), found.storage.path
    if not defined:
        raise StorageError(
            "pool_undefined",
            f"no pool {goal.pool.name} is defined, and {path} holds {listing(found.storage.holds)}",
            subject=subject,
            hint="If that is the pool's, define it first (state: present), then delete it.",
        )
    strange = [name for name in found.storage.holds if not _is_plain_volume(found, name)]
    if strange:
        raise StorageError(
            "pool_foreign_content",
            f"{path} holds what is not a volume: {listing(strange)}",
            subject=subject,
            hint="Move it away first, or undefine the pool and keep everything (state: absent).",
        )
    if found.row.whole:
        check_whole(goal, found)
        return []
    return delete_listed(goal, found)


def check_whole(goal: PoolGoal, found: Found, doing: str = "deleted") -> None:
    """Raises where volumes that go with their pool as one may not."""
    if "nonempty" not in goal.allow:
        delete_listed(goal, found)  # refuses
    guard_all(goal, found, doing)


def guard_all(goal: PoolGoal, found: Found, doing: str, harmless: str = "") -> None:
    """Raises where a volume is in use, unless that is allowed. ``harmless`` is a kind of users that lose nothing."""
    entries = tuple(VolumeGoal(Volume(name), "absent", allow=goal.allow) for name in found.volumes)
    task = VolumesTask(VolumesGoal(goal.pool.name, entries), found)
    for name in found.volumes:
        users = tuple(user for user in found.users.get(name, ()) if user.kind != harmless)
        guard_unused(str(task.subject(name)), users, goal.allow, doing, task, "in_use", name)


def _holder(goal: PoolGoal, found: Found) -> str:
    """What its volumes are in: a path says it only where it leads to nothing else."""
    path = found.storage.path if found.row.file_tree else None
    return path or f"pool {goal.pool.name}"


def delete_listed(goal: PoolGoal, found: Found) -> list[Change]:
    if "nonempty" not in goal.allow:
        raise StorageError(
            "pool_nonempty",
            f"{_holder(goal, found)} still holds "
            f"{counted(len(found.volumes), 'volume')}, which would be lost: {listing(found.volumes)}",
            subject=str(subject_of(goal)),
            hint="Delete them first, or add allow: [nonempty].",
            word="nonempty",
        )
    entries = tuple(VolumeGoal(Volume(name), "absent", allow=goal.allow) for name in found.volumes)
    task = VolumesTask(VolumesGoal(goal.pool.name, entries), found)
    return [change for name in task.doomed for change in delete(task.goal.by_name[name], task, backing_word="in_use")]


def _is_plain_volume(found: Found, name: str) -> bool:
    volume = found.volumes.get(name)
    return volume is not None and found.is_volume(volume)
