# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""A declared pool against what was found of it: pure, two values in, changes or a refusal out."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ..model.change import UNKNOWN, Change, Subject
from ..model.errors import StorageError
from ..model.facts import definition_facts, permissions_facts
from ..model.found import ABSENT, EVERYTHING, FOREIGN, READY, Found
from ..model.goal import PoolGoal, VolumeGoal, VolumesGoal
from ..model.pool import Permissions, Pool, Source, overlay
from ..model.types import POOL_TYPES, PoolType
from ..model.volume import Volume
from .decision import Decision, clean, staging_refusal, unwritable
from .destroying import delete
from .guards import check_copy_on_write, check_ownership
from .task import VolumesTask

DIRECTORY_MODE = 0o711  # what libvirt gives the directory of a pool when none is declared
_MOUNTED_OR_DIRECTORY = ("dir", "fs", "netfs", "vstorage")
_LISTED = 10


def decide_pool(goal: PoolGoal, found: Found) -> Decision:
    """The changes that make the pool what is declared. Raises StorageError where that is refused."""
    _check_identity(goal, found)
    if goal.state == "absent":
        return _finish(goal, found, (*_stop(goal, found), *_undefine(goal, found)))
    if goal.state == "deleted":
        return _finish(goal, found, tuple(_delete(goal, found)))
    if found.definition is None and found.live is None and goal.pool.type is None:
        return _only_state(goal, found)
    return _define_and_run(goal, found)


def pool_at_stake(goal: PoolGoal, found: Found) -> dict[str, str]:
    """The volumes that this goal would destroy: everything must be known of their users before it is decided."""
    if goal.state != "deleted" or "nonempty" not in goal.allow:
        return {}
    return dict.fromkeys(found.volumes, EVERYTHING)


def _finish(
    goal: PoolGoal, found: Found, changes: tuple[Change, ...], missing: tuple[StorageError, ...] = ()
) -> Decision:
    refusal = unwritable(changes, found.unwritable or _protected(changes, found), str(_subject(goal)))
    if goal.state == "deleted":
        refusal = refusal or staging_refusal(changes, found, str(_subject(goal)))
    return Decision(changes, missing, _warnings(goal, found), refusal)


def _protected(changes: tuple[Change, ...], found: Found) -> str:
    """Why the pool's directory can't be changed as planned; empty when it can."""
    actions = {change.action for change in changes}
    storage = found.storage
    if storage.kind != READY:
        return ""
    if storage.read_only and actions & {"permissions", "delete", "clean"}:
        return f"the filesystem of {storage.path} is read-only"
    emptied = any(change.subject.volume is not None for change in changes)
    return f"{storage.path} is not writable" if emptied and not storage.writable else ""


def _subject(goal: PoolGoal) -> Subject:
    return Subject(goal.pool.name)


def _row(pool: Pool) -> PoolType:
    return POOL_TYPES[pool.type or ""]


def _warnings(goal: PoolGoal, found: Found) -> tuple[str, ...]:
    unread = [f"conflicts with pool {other} were not looked for: it can't be read" for other in found.unread]
    return (*unread, *_autostart_warning(goal))


def _autostart_warning(goal: PoolGoal) -> tuple[str, ...]:
    if not goal.autostart:
        return ()
    return (
        f"pool {goal.pool.name}: autostart is marked, but without a libvirt daemon nothing starts pools at boot; "
        "run this task again after a boot",
    )


# --- refusals --------------------------------------------------------------------------------------------------------


def _check_identity(goal: PoolGoal, found: Found) -> None:
    existing, declared = found.definition or found.live, goal.pool
    if existing is None:
        _check_uuid_is_free(goal, found)
        return
    if declared.uuid is not None and declared.uuid != existing.uuid:
        raise StorageError(
            "uuid_conflict",
            f"pool {declared.name} exists with the uuid {existing.uuid}, not {declared.uuid}",
            subject=str(_subject(goal)),
            hint="Leave uuid out to keep the pool's own, or undefine the pool first (state: absent).",
        )
    if declared.type is not None and declared.type != existing.type:
        raise StorageError(
            "identity_change",
            f"pool {declared.name} is of type {existing.type}, not {declared.type}",
            subject=str(_subject(goal)),
            hint="A pool can't change its type: undefine it first (state: absent), or use another name.",
        )


def _check_uuid_is_free(goal: PoolGoal, found: Found) -> None:
    for neighbour in found.neighbours:
        if goal.pool.uuid is not None and neighbour.pool.uuid == goal.pool.uuid:
            raise StorageError(
                "uuid_conflict",
                f"the uuid {goal.pool.uuid} belongs to pool {neighbour.pool.name}",
                subject=str(_subject(goal)),
                hint=f"Leave uuid out, or declare that pool by its name ({neighbour.pool.name}).",
            )


def _check_source_is_free(goal: PoolGoal, found: Found, wanted: Pool) -> None:
    if wanted.type not in _MOUNTED_OR_DIRECTORY or wanted.path is None:
        return
    resolved = found.resolved.get(wanted.path, wanted.path)
    for neighbour in found.neighbours:
        if neighbour.pool.type in _MOUNTED_OR_DIRECTORY and neighbour.resolved == resolved:
            raise StorageError(
                "source_conflict",
                f"{wanted.path} is the directory of pool {neighbour.pool.name} already",
                subject=str(_subject(goal)),
                hint=f"Declare that pool instead (name: {neighbour.pool.name}), or undefine it first (state: absent).",
            )


def _check_complete(goal: PoolGoal, wanted: Pool) -> None:
    row = _row(wanted)
    lacking = [f"source.{name}" for name in row.required if getattr(wanted.source, name) in (None, ())]
    if row.target == "declared" and wanted.path is None:
        lacking.append("path")
    if lacking:
        raise StorageError(
            "missing_option",
            f"a pool of type {row.name} needs {', '.join(lacking)}",
            subject=str(_subject(goal)),
            hint=f"Add {', '.join(lacking)} to the task.",
        )


# --- definition ------------------------------------------------------------------------------------------------------


def _only_state(goal: PoolGoal, found: Found) -> Decision:
    """The pool is not defined and the task does not say what it is: an earlier task of the play may make it."""
    missing = StorageError(
        "pool_missing",
        f"pool {goal.pool.name} is not defined on this host",
        subject=str(_subject(goal)),
        hint="Give its type (and path or source) to define it.",
    )
    changes = []
    if goal.state == "active":
        changes.append(_change(goal, "start", "start the pool", {"state": UNKNOWN}, {"state": "active"}))
    if goal.autostart is not None:
        changes.append(_autostart(goal, UNKNOWN))
    return _finish(goal, found, tuple(changes), (missing,))


def _change(
    goal: PoolGoal, action: str, summary: str, before: Any, after: Any, wanted: Pool | None = None, **more: Any
) -> Change:
    return Change(
        _subject(goal), action, f"pool {goal.pool.name}: {summary}", before, after, wanted or goal.pool, **more
    )


def _define_and_run(goal: PoolGoal, found: Found) -> Decision:
    existing = found.definition or found.live
    wanted = goal.pool if existing is None else _as_defined(overlay(existing, goal.pool), existing, found)
    if existing is None:
        _check_complete(goal, wanted)
    differing = () if existing is None else _differing(existing, wanted)
    moved = "path" in differing
    if wanted.type == "dir":
        check_copy_on_write("features.cow", goal.pool.cow, found, str(_subject(goal)))
    if existing is None or moved:
        _check_source_is_free(goal, found, wanted)
    restart = _restart_needed(goal, found, differing)
    missing: list[StorageError] = []
    changes: list[Change] = []
    if restart or (goal.state == "inactive" and found.started):
        changes += _stop(goal, found)
    changes += _define(goal, found, wanted, differing)
    runs = goal.state == "active" or restart
    if runs:
        _check_backend(goal, wanted)
        changes += _build(goal, found, wanted, missing)
    if runs or (found.active and goal.state == "present"):
        changes += _set_permissions(goal, found, wanted)
    if runs and (restart or not found.active):
        changes.append(_start(goal, found, wanted))
    if goal.autostart is not None and goal.autostart != found.autostart:
        changes.append(_autostart(goal, found.autostart, wanted))
    return _finish(goal, found, tuple(changes), tuple(missing))


def _check_backend(goal: PoolGoal, wanted: Pool) -> None:
    if not _row(wanted).backend:
        raise StorageError(
            "backend_missing",
            f"pools of type {wanted.type} have no backend yet: this one can be defined, but not built or started",
            subject=str(_subject(goal)),
            hint="Declare it with state: inactive, or start it with a libvirt daemon.",
        )


def _as_defined(wanted: Pool, existing: Pool, found: Found) -> Pool:
    """Another path to the same directory is no difference: the definition keeps its own."""
    same = found.storage.kind == READY and found.storage.identity == found.current.identity
    return replace(wanted, path=existing.path) if same else wanted


def _differing(existing: Pool, wanted: Pool) -> tuple[str, ...]:
    """The names of the fields in which the definition must change, those of its source with a dot."""
    names = [
        f.name for f in fields(Pool) if f.name != "source" and getattr(existing, f.name) != getattr(wanted, f.name)
    ]
    for field in fields(Source):
        if getattr(existing.source, field.name) != getattr(wanted.source, field.name):
            names.append(f"source.{field.name}")
    return tuple(names)


def _restart_needed(goal: PoolGoal, found: Found, differing: tuple[str, ...]) -> bool:
    row = _row(found.definition or found.live or goal.pool)
    identity = [name for name in differing if name not in row.live and name not in row.restart]
    if identity:
        raise StorageError(
            "identity_change",
            f"pool {goal.pool.name} can't change its {', '.join(identity)}: that would make it another pool",
            subject=str(_subject(goal)),
            hint="Undefine it first (state: absent), or use another name.",
        )
    names = [name for name in differing if name in row.restart]
    if not names or not found.started or goal.state == "inactive":
        return False
    if "restart" not in goal.allow:
        raise StorageError(
            "restart_needed",
            f"pool {goal.pool.name} is active, and a change of its {', '.join(names)} needs a restart",
            subject=str(_subject(goal)),
            hint="Add allow: [restart] to stop it, change it and start it again, or stop it first (state: inactive).",
        )
    return True


def _define(goal: PoolGoal, found: Found, wanted: Pool, differing: tuple[str, ...]) -> list[Change]:
    if found.definition is None:
        wanted = replace(wanted, uuid=wanted.uuid or (found.live.uuid if found.live else None))
        after = definition_facts(wanted)
        after["uuid"] = wanted.uuid or UNKNOWN
        what = f"define it as {wanted.type}" + (f" at {wanted.path}" if wanted.path else "")
        return [_change(goal, "define", what, None, {"definition": after}, wanted)]
    if not differing:
        return []
    have, want = definition_facts(found.definition), definition_facts(wanted)
    names = [name for name in {**have, **want} if have.get(name) != want.get(name)]
    before = {name: have.get(name) for name in names}
    after = {name: want.get(name) for name in names}
    return [
        _change(
            goal,
            "redefine",
            f"change {', '.join(names)} of its definition",
            {"definition": before},
            {"definition": after},
            wanted,
        )
    ]


def _undefine(goal: PoolGoal, found: Found) -> list[Change]:
    if found.definition is None:
        return []
    before = {"definition": definition_facts(found.definition), "autostart": found.autostart}
    what = "remove its definition" + ("" if goal.state == "deleted" else ", keep its data")
    return [_change(goal, "undefine", what, before, None, found.definition)]


# --- running state and storage ---------------------------------------------------------------------------------------


def _start(goal: PoolGoal, found: Found, wanted: Pool) -> Change:
    adopted = found.storage.kind == READY and not found.storage.made and found.definition is None
    summary = f"start it on {wanted.path}" + (", a directory that was there before" if adopted else "")
    state = "active" if found.active else "inactive"
    return _change(goal, "start", summary, {"state": state}, {"state": "active"}, wanted)


def _stop(goal: PoolGoal, found: Found) -> list[Change]:
    if not found.started:
        return []
    state = "active" if found.active else "inactive"
    return [_change(goal, "stop", "stop it", {"state": state}, {"state": "inactive"}, found.definition or found.live)]


def _autostart(goal: PoolGoal, before: Any, wanted: Pool | None = None) -> Change:
    word = "mark" if goal.autostart else "unmark"
    return _change(
        goal, "autostart", f"{word} it for autostart", {"autostart": before}, {"autostart": goal.autostart}, wanted
    )


def _build(goal: PoolGoal, found: Found, wanted: Pool, missing: list[StorageError]) -> list[Change]:
    storage = found.storage
    if storage.kind == READY:
        return []
    if storage.kind == FOREIGN:
        raise StorageError(
            "storage_foreign",
            f"{wanted.path} is {storage.why}",
            subject=str(_subject(goal)),
            hint="Move it away, or give the pool another path.",
        )
    if storage.kind != ABSENT:
        raise _unreadable(goal, found)
    if goal.build == "never":
        missing.append(
            StorageError(
                "source_missing",
                f"the directory {wanted.path} of pool {goal.pool.name} is not there",
                subject=str(_subject(goal)),
                hint="Make it, or let the task do so (build: auto).",
            )
        )
        return []
    check_ownership(wanted.permissions, None, found, str(_subject(goal)))
    permissions = replace(
        wanted.permissions,
        label=None,
        mode=DIRECTORY_MODE if wanted.permissions.mode is None else wanted.permissions.mode,
    )
    return [
        _change(
            goal,
            "build",
            f"make the directory {wanted.path}",
            {"target": None},
            {"target": permissions_facts(permissions)},
            replace(wanted, permissions=permissions),
        )
    ]


def _set_permissions(goal: PoolGoal, found: Found, wanted: Pool) -> list[Change]:
    if found.storage.kind != READY:
        return []
    have = permissions_facts(found.storage.permissions)
    want = permissions_facts(replace(wanted.permissions, label=None))
    names = [name for name in want if want[name] != have.get(name)]
    if not names:
        return []
    check_ownership(wanted.permissions, found.storage.permissions, found, str(_subject(goal)))
    changed = Permissions(
        **{name: getattr(wanted.permissions, name) for name in ("mode", "owner", "group") if name in names}
    )
    return [
        _change(
            goal,
            "permissions",
            f"set {', '.join(names)} of {wanted.path}",
            {"target": {n: have.get(n) for n in names}},
            {"target": {n: want[n] for n in names}},
            replace(wanted, permissions=changed),
        )
    ]


# --- deleting --------------------------------------------------------------------------------------------------------


def _delete(goal: PoolGoal, found: Found) -> list[Change]:
    existing = found.definition or found.live
    if existing is not None:
        _check_same_storage(goal, found, existing)
        _check_backend(goal, existing)
    else:
        _check_backend(goal, goal.pool)
    _check_source_is_free(goal, found, existing or goal.pool)
    changes = _stop(goal, found)
    if found.storage.kind == READY:
        changes += clean(goal.pool.name, found)
        changes += _delete_contents(goal, found, defined=existing is not None)
        changes += _delete_directory(goal, found)
    elif found.storage.kind == ABSENT:
        changes += _delete_directory(goal, found)
    elif found.storage.kind == FOREIGN:
        raise StorageError(
            "storage_foreign",
            f"{goal.pool.path} is {found.storage.why}",
            subject=str(_subject(goal)),
            hint="Undefine the pool without touching it (state: absent).",
        )
    else:
        raise _unreadable(goal, found)
    return [*changes, *_undefine(goal, found)]


def _unreadable(goal: PoolGoal, found: Found) -> StorageError:
    return StorageError(
        "storage_unreadable",
        f"{found.storage.path}: {found.storage.why}",
        subject=str(_subject(goal)),
        hint="Run as a user who may read it (become: true), or look at what it is mounted from.",
    )


def _check_same_storage(goal: PoolGoal, found: Found, existing: Pool) -> None:
    same = existing.path == goal.pool.path or (
        found.storage.kind == READY and found.storage.identity == found.current.identity
    )
    if not same:
        raise StorageError(
            "identity_change",
            f"pool {goal.pool.name} lives in {existing.path}, not in {goal.pool.path}: nothing is deleted",
            subject=str(_subject(goal)),
            hint="Name the path that the pool has.",
        )


def _listing(names: Any) -> str:
    names = sorted(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _delete_contents(goal: PoolGoal, found: Found, defined: bool) -> list[Change]:
    if not found.storage.holds:
        return []
    subject, path = str(_subject(goal)), found.storage.path
    if not defined:
        raise StorageError(
            "pool_undefined",
            f"no pool {goal.pool.name} is defined, and {path} holds {_listing(found.storage.holds)}",
            subject=subject,
            hint="If that is the pool's, define it first (state: present), then delete it.",
        )
    strange = [name for name in found.storage.holds if not _is_plain_volume(found, name)]
    if strange:
        raise StorageError(
            "pool_foreign_content",
            f"{path} holds what is not a volume: {_listing(strange)}",
            subject=subject,
            hint="Move it away first, or undefine the pool and keep everything (state: absent).",
        )
    if "nonempty" not in goal.allow:
        raise StorageError(
            "pool_nonempty",
            f"{path} still holds {len(found.volumes)} volumes, which would be lost: {_listing(found.volumes)}",
            subject=subject,
            hint="Delete them first, or add allow: [nonempty].",
        )
    entries = tuple(VolumeGoal(Volume(name), "absent", allow=goal.allow) for name in found.volumes)
    task = VolumesTask(VolumesGoal(goal.pool.name, entries), found)
    return [change for name in task.doomed for change in delete(task.goal.by_name[name], task, backing_word="in_use")]


def _is_plain_volume(found: Found, name: str) -> bool:
    volume = found.volumes.get(name)
    return volume is not None and volume.type == "file" and not volume.foreign


def _delete_directory(goal: PoolGoal, found: Found) -> list[Change]:
    """Removes the directory that we made, or the note of it where an interrupted task got no further."""
    storage = found.storage
    if not storage.made or storage.mount_point:
        return []
    there = storage.kind == READY
    return [
        _change(
            goal,
            "delete",
            f"remove the directory {storage.path}" if there else f"forget the directory {storage.path}",
            {"target": permissions_facts(storage.permissions) if there else None},
            {"target": None},
            replace(goal.pool, path=storage.path),
            destroys=f"the directory {storage.path}" if there else "",
        )
    ]
