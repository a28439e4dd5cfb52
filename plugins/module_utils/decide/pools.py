# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""A declared pool against what was found of it: pure, two values in, changes or a refusal out."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ..model.change import UNKNOWN, Change, Subject
from ..model.definition import lacking, unordered, whole
from ..model.errors import StorageError
from ..model.facts import definition_facts, permissions_facts
from ..model.found import ABSENT, EVERYTHING, FOREIGN, READY, UNSEEN, Found, Neighbour
from ..model.goal import PoolGoal, VolumeGoal, VolumesGoal
from ..model.pool import Permissions, Pool, Source, overlay
from ..model.types import POOL_TYPES, TAKEN_AWAY, PoolType
from ..model.volume import Volume
from .decision import Decision, clean, staging_refusal, unwritable
from .destroying import delete
from .guards import check_copy_on_write, check_ownership
from .task import VolumesTask

DIRECTORY_MODE = 0o711  # what libvirt gives the directory of a pool when none is declared
_LISTED = 10


def decide_pool(goal: PoolGoal, found: Found) -> Decision:
    """The changes that make the pool what is declared. Raises StorageError where that is refused."""
    if goal.pool.extras and not found.keeps_unknown:
        decision = decide_pool(replace(goal, pool=replace(goal.pool, extras=())), found)
        warning = f"pool {goal.pool.name}: a libvirt daemon keeps no elements that it does not know"
        return replace(decision, warnings=(*decision.warnings, warning))
    _check_identity(goal, found)
    if goal.state == "absent":
        return _finish(goal, found, (*_stop(goal, found), *_undefine(goal, found)))
    if goal.state == "deleted":
        return _finish(goal, found, tuple(_delete(goal, found)))
    if found.definition is None and found.live is None and goal.pool.type is None:
        return _only_state(goal, found)
    return _define_and_run(goal, found)


def pool_at_stake(goal: PoolGoal, found: Found) -> dict[str, str]:
    """The volumes that this goal would destroy, or may take away from who uses them: everything must be known of their
    users before it is decided.
    """
    deleted = goal.state == "deleted" and "nonempty" in goal.allow
    taken = found.started and found.row.name in TAKEN_AWAY
    return dict.fromkeys(found.volumes, EVERYTHING) if deleted or taken else {}


def _finish(
    goal: PoolGoal, found: Found, changes: tuple[Change, ...], missing: tuple[StorageError, ...] = ()
) -> Decision:
    refusal = unwritable(changes, found.unwritable or _protected(changes, found), str(subject_of(goal)))
    if goal.state == "deleted":
        refusal = refusal or staging_refusal(changes, found, str(subject_of(goal)))
    return Decision(changes, missing, (*_warnings(goal, found), *_unseen_warnings(changes, found)), refusal)


def _unseen_warnings(changes: tuple[Change, ...], found: Found) -> tuple[str, ...]:
    if not changes or found.storage.kind != UNSEEN:
        return ()
    from .unseen_pools import warnings

    return warnings(changes, found)


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


def subject_of(goal: PoolGoal) -> Subject:
    return Subject(goal.pool.name)


def _row(pool: Pool) -> PoolType:
    return POOL_TYPES[pool.type or ""]


def _warnings(goal: PoolGoal, found: Found) -> tuple[str, ...]:
    unread = [f"conflicts with pool {other} were not looked for: it can't be read" for other in found.unread]
    return (*unread, *_autostart_warning(goal, found))


def _autostart_warning(goal: PoolGoal, found: Found) -> tuple[str, ...]:
    if not goal.autostart or found.starts_at_boot:
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
            subject=str(subject_of(goal)),
            hint="Leave uuid out to keep the pool's own, or undefine the pool first (state: absent).",
        )
    if declared.type is not None and declared.type != existing.type:
        raise StorageError(
            "identity_change",
            f"pool {declared.name} is of type {existing.type}, not {declared.type}",
            subject=str(subject_of(goal)),
            hint="A pool can't change its type: undefine it first (state: absent), or use another name.",
        )


def _check_uuid_is_free(goal: PoolGoal, found: Found) -> None:
    for neighbour in found.neighbours:
        if goal.pool.uuid is not None and neighbour.pool.uuid == goal.pool.uuid:
            raise StorageError(
                "uuid_conflict",
                f"the uuid {goal.pool.uuid} belongs to pool {neighbour.pool.name}",
                subject=str(subject_of(goal)),
                hint=f"Leave uuid out, or declare that pool by its name ({neighbour.pool.name}).",
            )


def _check_source_is_free(goal: PoolGoal, found: Found, wanted: Pool) -> None:
    for neighbour in found.neighbours:
        what = _shared(wanted, neighbour, found)
        if what:
            raise StorageError(
                "source_conflict",
                f"{what} of pool {neighbour.pool.name} already",
                subject=str(subject_of(goal)),
                hint=f"Declare that pool instead (name: {neighbour.pool.name}), or undefine it first (state: absent).",
            )


def _shared(wanted: Pool, neighbour: Neighbour, found: Found) -> str:
    """What another pool has that this one would have too."""
    if _row(wanted).file_tree and wanted.path is not None and _row(neighbour.pool).file_tree:
        resolved = found.resolved.get(wanted.path, wanted.path)
        if neighbour.resolved == resolved:
            return f"{wanted.path} is the directory"
    if found.storage.kind == UNSEEN:
        from .unseen_pools import shared_source

        return shared_source(wanted, neighbour.pool)
    return ""


def _check_complete(goal: PoolGoal, wanted: Pool, starting: bool) -> None:
    """What is declared and what was found make a definition together."""
    absent = lacking(wanted, starting)
    if absent:
        raise StorageError(
            "missing_option",
            f"a pool of type {wanted.type} needs {', '.join(absent)}",
            subject=str(subject_of(goal)),
            hint=f"Add {', '.join(absent)} to the task.",
        )
    from ..model.sources import misfit, misplaced, source_problem

    row, declared = _row(wanted), goal.pool  # which need not have said the type
    problem = misfit(declared, row) or misplaced(declared, row, wanted.source.name)
    problem = problem or source_problem(wanted.source, row)
    if problem is not None:
        code, what, hint = problem
        raise StorageError(code, what, subject=str(subject_of(goal)), hint=hint)


# --- definition ------------------------------------------------------------------------------------------------------


def _only_state(goal: PoolGoal, found: Found) -> Decision:
    """The pool is not defined and the task does not say what it is: an earlier task of the play may make it."""
    missing = StorageError(
        "pool_missing",
        f"pool {goal.pool.name} is not defined on this host",
        subject=str(subject_of(goal)),
        hint="Give its type (and path or source) to define it.",
    )
    changes = []
    if goal.state == "active":
        changes.append(change_of(goal, "start", "start the pool", {"state": UNKNOWN}, {"state": "active"}))
    if goal.autostart is not None:
        changes.append(_autostart(goal, UNKNOWN))
    return _finish(goal, found, tuple(changes), (missing,))


def change_of(
    goal: PoolGoal, action: str, summary: str, before: Any, after: Any, wanted: Pool | None = None, **more: Any
) -> Change:
    return Change(
        subject_of(goal), action, f"pool {goal.pool.name}: {summary}", before, after, wanted or goal.pool, **more
    )


def _define_and_run(goal: PoolGoal, found: Found) -> Decision:
    existing = found.definition or found.live
    if existing is None:
        wanted = whole(overlay(Pool(goal.pool.name), goal.pool))
        _check_complete(goal, wanted, starting=True)
    else:
        wanted = _as_defined(overlay(existing, goal.pool), existing, found)
    differing = () if existing is None else _differing(existing, wanted)
    if (existing is None or differing) and not found.defines_all:
        _check_supported(goal, found)
    if differing:
        _check_complete(goal, wanted, starting=False)
    moved = "path" in differing
    if wanted.type == "dir":
        check_copy_on_write("features.cow", goal.pool.cow, found, str(subject_of(goal)))
    if existing is None or moved:
        _check_source_is_free(goal, found, wanted)
    restart = _restart_needed(goal, found, differing, wanted)
    missing: list[StorageError] = []
    changes: list[Change] = []
    if restart or (goal.state == "inactive" and found.started):
        changes += _stop(goal, found)
    changes += _define(goal, found, wanted, differing)
    runs = goal.state == "active" or restart
    if runs:
        _check_supported(goal, found)
        changes += _build(goal, found, wanted, missing)
    if runs or (found.active and goal.state == "present"):
        changes += _set_permissions(goal, found, wanted)
    if runs and (restart or not found.active):
        changes.append(_start(goal, found, wanted, missing))
    if goal.autostart is not None and goal.autostart != found.autostart:
        changes.append(_autostart(goal, found.autostart, wanted))
    return _finish(goal, found, tuple(changes), tuple(missing))


def _check_supported(goal: PoolGoal, found: Found) -> None:
    if not found.unsupported:
        return
    if found.defines_all:
        what = "this one can be defined, but not built or started"
        hint = "Declare it with state: inactive, or use the uri of a libvirt daemon that can (uri: qemu:///system)."
    else:
        what, hint = (
            "it can't even be defined there",
            "Use the uri of a daemon that does, or define it without one (native:///system).",
        )
    raise StorageError("backend_missing", f"{found.unsupported}: {what}", subject=str(subject_of(goal)), hint=hint)


def _as_defined(wanted: Pool, existing: Pool, found: Found) -> Pool:
    """Another path to the same directory is no difference: the definition keeps its own."""
    same = found.storage.same_as(found.current)
    return replace(wanted, path=existing.path) if same else wanted


def _differing(existing: Pool, wanted: Pool) -> tuple[str, ...]:
    """The names of the fields in which the definition must change, those of its source with a dot."""
    names = [
        f.name for f in fields(Pool) if f.name != "source" and getattr(existing, f.name) != getattr(wanted, f.name)
    ]
    if "config_options" in names and unordered(existing.config_options) == unordered(wanted.config_options):
        names.remove("config_options")
    for field in fields(Source):
        if getattr(existing.source, field.name) != getattr(wanted.source, field.name):
            names.append(f"source.{field.name}")
    return tuple(names)


def _restart_needed(goal: PoolGoal, found: Found, differing: tuple[str, ...], wanted: Pool) -> bool:
    """Whether the running pool is another than the one that is wanted: by this change of its definition, or by an
    earlier one that waits for the next start.
    """
    row = _row(found.definition or found.live or goal.pool)
    identity = [name for name in differing if name not in row.live and name not in row.restart]
    if identity:
        raise StorageError(
            "identity_change",
            f"pool {goal.pool.name} can't change its {', '.join(identity)}: that would make it another pool",
            subject=str(subject_of(goal)),
            hint="Undefine it first (state: absent), or use another name.",
        )
    pending = () if found.live is None else _differing(found.live, wanted)
    names = [name for name in row.restart if name in differing or name in pending]
    if not names or not found.started or goal.state == "inactive":
        return False
    if "restart" not in goal.allow:
        raise StorageError(
            "restart_needed",
            f"pool {goal.pool.name} is active, and a change of its {', '.join(names)} needs a restart",
            subject=str(subject_of(goal)),
            hint="Add allow: [restart] to stop it, change it and start it again, or stop it first (state: inactive).",
        )
    return True


def _define(goal: PoolGoal, found: Found, wanted: Pool, differing: tuple[str, ...]) -> list[Change]:
    if found.definition is None:
        wanted = replace(wanted, uuid=wanted.uuid or (found.live.uuid if found.live else None))
        after = definition_facts(wanted)
        after["uuid"] = wanted.uuid or UNKNOWN
        what = f"define it as {wanted.type}" + (f" at {wanted.path}" if wanted.path else "")
        return [change_of(goal, "define", what, None, {"definition": after}, wanted)]
    if not differing:
        return []
    have, want = definition_facts(found.definition), definition_facts(wanted)
    names = [name for name in {**have, **want} if have.get(name) != want.get(name)]
    before = {name: have.get(name) for name in names}
    after = {name: want.get(name) for name in names}
    return [
        change_of(
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
    return [change_of(goal, "undefine", what, before, None, found.definition)]


# --- running state and storage ---------------------------------------------------------------------------------------


def _start(goal: PoolGoal, found: Found, wanted: Pool, missing: list[StorageError]) -> Change:
    adopted = found.storage.kind == READY and not found.storage.made and found.definition is None
    summary = "start it" + (f" on {wanted.path}" if wanted.path else "")
    summary += ", a directory that was there before" if adopted else ""
    state = "active" if found.active else "inactive"
    if found.storage.kind == UNSEEN:
        from .unseen_pools import start_unseen

        return start_unseen(goal, found, wanted, {"state": state}, missing)
    return change_of(goal, "start", summary, {"state": state}, {"state": "active"}, wanted)


def _stop(goal: PoolGoal, found: Found) -> list[Change]:
    if not found.started:
        return []
    if found.row.name in TAKEN_AWAY:
        from .unseen_pools import guard_all

        guard_all(goal, found, "taken away")
    state = "active" if found.active else "inactive"
    return [change_of(goal, "stop", "stop it", {"state": state}, {"state": "inactive"}, found.definition or found.live)]


def _autostart(goal: PoolGoal, before: Any, wanted: Pool | None = None) -> Change:
    word = "mark" if goal.autostart else "unmark"
    return change_of(
        goal, "autostart", f"{word} it for autostart", {"autostart": before}, {"autostart": goal.autostart}, wanted
    )


def _build(goal: PoolGoal, found: Found, wanted: Pool, missing: list[StorageError]) -> list[Change]:
    storage = found.storage
    if storage.kind in (READY, UNSEEN):
        return []  # what only a daemon can look at is built when it is started
    if storage.kind == FOREIGN:
        raise StorageError(
            "storage_foreign",
            f"{wanted.path} is {storage.why}",
            subject=str(subject_of(goal)),
            hint="Move it away, or give the pool another path.",
        )
    if storage.kind != ABSENT:
        raise _unreadable(goal, found)
    if goal.build == "never":
        missing.append(
            StorageError(
                "source_missing",
                f"the directory {wanted.path} of pool {goal.pool.name} is not there",
                subject=str(subject_of(goal)),
                hint="Make it, or let the task do so (build: auto).",
            )
        )
        return []
    check_ownership(wanted.permissions, None, found, str(subject_of(goal)))
    permissions = replace(
        wanted.permissions,
        label=None,
        mode=DIRECTORY_MODE if wanted.permissions.mode is None else wanted.permissions.mode,
    )
    return [
        change_of(
            goal,
            "build",
            f"make the directory {wanted.path}",
            {"target": None},
            {"target": permissions_facts(permissions)},
            replace(wanted, permissions=permissions),
        )
    ]


def _set_permissions(goal: PoolGoal, found: Found, wanted: Pool) -> list[Change]:
    if found.storage.kind == UNSEEN:
        from .unseen_pools import check_permissions

        check_permissions(goal, found, wanted)
    if found.storage.kind != READY:
        return []
    have = permissions_facts(found.storage.permissions)
    declared = goal.pool.permissions if found.learned else wanted.permissions
    want = permissions_facts(replace(declared, label=None))
    names = [name for name in want if want[name] != have.get(name)]
    if not names:
        return []
    check_ownership(wanted.permissions, found.storage.permissions, found, str(subject_of(goal)))
    changed = Permissions(
        **{name: getattr(wanted.permissions, name) for name in ("mode", "owner", "group") if name in names}
    )
    return [
        change_of(
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
    _check_supported(goal, found)
    _check_source_is_free(goal, found, existing or goal.pool)
    if found.storage.kind == UNSEEN:
        from .unseen_pools import delete_unseen

        return [*delete_unseen(goal, found, existing, _stop(goal, found)), *_undefine(goal, found)]
    changes: list[Change] = []
    if found.storage.kind == READY:
        changes += clean(goal.pool.name, found)
        changes += _delete_contents(goal, found, defined=existing is not None)
    elif found.storage.kind == FOREIGN:
        raise StorageError(
            "storage_foreign",
            f"{goal.pool.path} is {found.storage.why}",
            subject=str(subject_of(goal)),
            hint="Undefine the pool without touching it (state: absent).",
        )
    elif found.storage.kind != ABSENT:
        raise _unreadable(goal, found)
    return [*changes, *_stop(goal, found), *_delete_directory(goal, found), *_undefine(goal, found)]


def _unreadable(goal: PoolGoal, found: Found) -> StorageError:
    return StorageError(
        "storage_unreadable",
        f"{found.storage.path}: {found.storage.why}",
        subject=str(subject_of(goal)),
        hint="Run as a user who may read it (become: true), or look at what it is mounted from.",
    )


def _check_same_storage(goal: PoolGoal, found: Found, existing: Pool) -> None:
    declared = goal.pool
    if found.live is not None and found.started and found.live.path != existing.path:
        raise StorageError(
            "restart_needed",
            f"pool {declared.name} runs on {found.live.path}, and its definition says {existing.path} from its next "
            "start on: nothing is deleted",
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
        lives = f"in {existing.path}, not in {declared.path}" if not same_path else f"on another {', '.join(other)}"
        raise StorageError(
            "identity_change",
            f"pool {goal.pool.name} lives {lives}: nothing is deleted",
            subject=str(subject_of(goal)),
            hint="Name the path and source that the pool has.",
        )


def listing(names: Any) -> str:
    names = sorted(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


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
    return delete_listed(goal, found)


def delete_listed(goal: PoolGoal, found: Found) -> list[Change]:
    if "nonempty" not in goal.allow:
        raise StorageError(
            "pool_nonempty",
            f"{found.storage.path or f'pool {goal.pool.name}'} still holds {len(found.volumes)} volumes, "
            f"which would be lost: {listing(found.volumes)}",
            subject=str(subject_of(goal)),
            hint="Delete them first, or add allow: [nonempty].",
        )
    entries = tuple(VolumeGoal(Volume(name), "absent", allow=goal.allow) for name in found.volumes)
    task = VolumesTask(VolumesGoal(goal.pool.name, entries), found)
    return [change for name in task.doomed for change in delete(task.goal.by_name[name], task, backing_word="in_use")]


def _is_plain_volume(found: Found, name: str) -> bool:
    volume = found.volumes.get(name)
    return volume is not None and found.is_volume(volume)


def _delete_directory(goal: PoolGoal, found: Found) -> list[Change]:
    """Removes the directory that we made, or the note of it where an interrupted task got no further."""
    storage = found.storage
    if not storage.made or storage.mount_point:
        return []
    there = storage.kind == READY
    return [
        change_of(
            goal,
            "delete",
            f"remove the directory {storage.path}" if there else f"forget the directory {storage.path}",
            {"target": permissions_facts(storage.permissions) if there else None},
            {"target": None},
            replace(goal.pool, path=storage.path),
            destroys=f"the directory {storage.path}" if there else "",
        )
    ]
