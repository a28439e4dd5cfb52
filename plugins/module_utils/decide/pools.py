# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""A declared pool against what was found of it: pure, two values in, changes or a refusal out."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ..model.change import BRING_UP, UNKNOWN, Change, Condition
from ..model.definition import defined, keep_names, lacking, unordered, whole, with_usual
from ..model.errors import StorageError
from ..model.facts import definition_facts, permissions_facts
from ..model.found import ABOVE, ERASED, EVERYTHING, ITSELF, READY, RUNNING, SOURCE, UNSEEN, Found
from ..model.goal import PoolGoal
from ..model.pool import PLACE, Permissions, Pool, Source, overlay
from ..model.types import POOL_TYPES, PoolType
from .decision import Decision, change_of, sealed_refusal, staging_refusal, subject_of, unwritable
from .guards import check_copy_on_write, check_ownership


def decide_pool(goal: PoolGoal, found: Found) -> Decision:
    """The changes that make the pool what is declared. Raises StorageError where that is refused."""
    if goal.pool.extras and not found.keeps_unknown:
        decision = decide_pool(replace(goal, pool=replace(goal.pool, extras=())), found)
        warning = f"pool {goal.pool.name}: a libvirt daemon keeps no elements that it does not know"
        return replace(decision, warnings=(*decision.warnings, warning))
    if _completes_restart(goal, found):
        decision = decide_pool(replace(goal, state="active"), found)
        warning = f"pool {goal.pool.name}: it is started, since a task that was restarting it did not come to its end"
        return replace(decision, warnings=(*decision.warnings, warning))
    _check_identity(goal, found)
    if goal.state == "absent":
        from .running import stop

        return _finish(goal, found, (*stop(goal, found), *undefine(goal, found)))
    if goal.state == "deleted":
        return _finish(goal, found, tuple(_delete(goal, found)))
    if found.definition is None and found.live is None and goal.pool.type is None:
        return _only_state(goal, found)
    return _define_and_run(goal, found)


def pool_at_stake(goal: PoolGoal, found: Found) -> dict[str, str]:
    """The volumes that this goal would destroy, or may take away from who uses them: everything must be known of their
    users before it is decided. Of the storage itself (``ITSELF``) it must be known who keeps it from being taken down,
    of the devices that it would be made of or started on (``SOURCE``), or that would be erased with it (``ERASED``),
    who has them; and of its volumes, which pools run on them (``ABOVE``).
    """
    if _completes_restart(goal, found):
        goal = replace(goal, state="active")
    existing = found.definition or found.live
    taken = goal.state == "deleted" and "nonempty" in goal.allow and existing is not None
    stops, goes = goal.state in ("inactive", "absent", "deleted") or "restart" in goal.allow, False
    if stops:
        from .running import daemon_takes_down, goes_down, takes_away

        taken = taken or takes_away(goal, found)
        goes = goes_down(goal, found) or bool(daemon_takes_down(found))
    stakes = dict.fromkeys(found.volumes, EVERYTHING) if taken or _builds_over_itself(goal, found) else {}
    if goes:
        stakes[ITSELF] = RUNNING
    if stops and found.started and found.row.volumes == "block":
        stakes[ABOVE] = RUNNING
    if (goal.state == "active" or "restart" in goal.allow) and _takes_devices(goal, found):
        stakes[SOURCE] = EVERYTHING
    if goal.state == "deleted" and found.erased:
        stakes[ERASED] = EVERYTHING
    return stakes


def _builds_over_itself(goal: PoolGoal, found: Found) -> bool:
    """Whether a restart would lose the volumes of the pool as it runs."""
    if not found.volumes or not {"restart", "overwrite", "nonempty"} <= goal.allow:
        return False
    if found.storage.kind == UNSEEN:
        from .unseen_pools import builds_over_itself

        return builds_over_itself(goal, found)
    from .building import builds_over_itself as builds_over_it

    return builds_over_it(found)


def _completes_restart(goal: PoolGoal, found: Found) -> bool:
    """Whether the pool is stopped only since a task that was to start it again was ended by something."""
    return goal.state == "present" and found.restarting and not found.active and found.definition is not None


def _takes_devices(goal: PoolGoal, found: Found) -> bool:
    """Whether building or starting the pool would take devices that others may have."""
    if found.storage.kind != UNSEEN:
        return any(part.devices for part in found.storage.parts)
    if not found.devices:
        return False
    from .unseen_pools import takes_devices

    return takes_devices(goal, found)


def _finish(
    goal: PoolGoal, found: Found, changes: tuple[Change, ...], missing: tuple[StorageError, ...] = ()
) -> Decision:
    refusal = unwritable(changes, found.unwritable or _protected(changes, found), str(subject_of(goal)))
    refusal = refusal or _hampered(changes, found, str(subject_of(goal))) or sealed_refusal(changes, found)
    if goal.state == "deleted":
        refusal = refusal or staging_refusal(changes, found, str(subject_of(goal)))
    warnings = (*_warnings(goal, found), *_hiding_warning(changes, found), *_unseen_warnings(changes, found))
    return Decision(changes, missing, (*warnings, *_secret_warnings(changes, found)), refusal)


def _secret_warnings(changes: tuple[Change, ...], found: Found) -> tuple[str, ...]:
    last = [change for change in changes if change.action in ("redefine", "undefine")]
    if not last or not found.secrets:
        return ()
    from .secrets import kept_unseen

    return kept_unseen(found, None if last[-1].action == "undefine" else last[-1].wanted)


def _hampered(changes: tuple[Change, ...], found: Found, subject: str) -> StorageError | None:
    """The refusal of changes of storage that may not or can't be changed; its definition may."""
    touching = any(
        change.subject.volume is not None or change.action in ("build", "delete", "clean") or BRING_UP in change.may
        for change in changes
    )
    if touching and found.storage.frozen is not None:
        return found.storage.frozen.error(subject)
    starting = any(BRING_UP in change.may for change in changes)
    return found.storage.unable.error(subject) if starting and found.storage.unable is not None else None


def _unseen_warnings(changes: tuple[Change, ...], found: Found) -> tuple[str, ...]:
    if not changes or found.storage.kind != UNSEEN:
        return ()
    from .unseen_pools import warnings

    return warnings(changes, found)


def _protected(changes: tuple[Change, ...], found: Found) -> str:
    """Why the pool's directory can't be changed as planned; empty when it can."""
    actions = {change.action for change in changes}
    storage = found.storage
    if not storage.open:
        return ""
    if storage.read_only and actions & {"permissions", "delete", "clean"}:
        return f"the filesystem of {storage.path} is read-only"
    emptied = any(change.subject.volume is not None for change in changes)
    return f"{storage.path} is not writable" if emptied and not storage.writable and not found.squashes else ""


def _row(pool: Pool) -> PoolType:
    return POOL_TYPES[pool.type or ""]


def _warnings(goal: PoolGoal, found: Found) -> tuple[str, ...]:
    unread = [f"conflicts with pool {other} were not looked for: it can't be read" for other in found.unread]
    remarks = found.storage.remarks
    if goal.state == "deleted":  # those are of what stays
        from .deleting import remarks_on

        remarks = remarks_on(found)
    return (*unread, *remarks, *_autostart_warnings(goal, found))


def _autostart_warnings(goal: PoolGoal, found: Found) -> tuple[str, ...]:
    if not goal.autostart:
        return ()
    from .booting import warnings

    return warnings(goal, found)


def _hiding_warning(changes: tuple[Change, ...], found: Found) -> tuple[str, ...]:
    storage = found.storage
    if not storage.hides or not any(BRING_UP in change.may for change in changes):
        return ()
    entries = "1 entry" if storage.hides == 1 else f"{storage.hides} entries"
    return (f"{storage.path} holds {entries}, hidden as long as the pool is mounted there",)


# --- refusals --------------------------------------------------------------------------------------------------------


def _check_identity(goal: PoolGoal, found: Found) -> None:
    existing, declared = found.definition or found.live, goal.pool
    if existing is None:
        from .sharing import check_uuid_is_free

        check_uuid_is_free(goal, found)
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


def _spelled(name: str) -> str:
    """As most tasks have it: one of those that may be several."""
    return name[:-1] if name in ("source.devices", "source.hosts") else name


def _check_complete(goal: PoolGoal, wanted: Pool, starting: bool) -> None:
    """What is declared and what was found make a definition together."""
    absent = lacking(wanted, starting)
    if absent:
        raise StorageError(
            "missing_option",
            f"a pool of type {wanted.type} needs {', '.join(map(_spelled, absent))}",
            subject=str(subject_of(goal)),
            hint=f"Add {', '.join(map(_spelled, absent))} to the task.",
        )
    from ..model.sources import device_problem, misfit, misplaced, source_problem

    row, declared = _row(wanted), goal.pool  # which need not have said the type
    problem = misfit(declared, row) or misplaced(declared, row, wanted.source.name)
    problem = problem or source_problem(wanted.source, row)
    problem = problem or (device_problem(declared.source, row) if goal.missing is None else None)
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
    changes += _autostart(goal, found, UNKNOWN)
    return _finish(goal, found, tuple(changes), (missing,))


def unlooked_pool(goal: PoolGoal) -> tuple[Change, ...]:
    """What is planned for a pool that nobody could look at: from whatever is there by then."""
    if goal.state in ("absent", "deleted"):
        return ()
    declared = {"definition": definition_facts(goal.pool), "autostart": goal.autostart, "state": goal.state}
    if goal.state == "present":
        del declared["state"]
    after = {name: value for name, value in declared.items() if value not in (None, {})}
    before = dict.fromkeys(after, UNKNOWN)
    return (change_of(goal, "define", "define it, or adjust what is there by then", before, after),)


def _define_and_run(goal: PoolGoal, found: Found) -> Decision:
    existing = found.definition or found.live
    if goal.pool.login is not None and found.storage.kind == UNSEEN:
        raise StorageError(
            "daemon_cannot",
            "libvirt mounts CIFS shares as a guest only",
            subject=str(subject_of(goal)),
            hint="Leave source.auth out, or mount the share by other means before the pool is started.",
        )
    if goal.pool.mutual is not None and found.storage.kind == UNSEEN:
        raise StorageError(
            "daemon_cannot",
            "libvirt does not ask targets to show who they are",
            subject=str(subject_of(goal)),
            hint="Leave source.auth.mutual out, or work natively (native:///system).",
        )
    if existing is None:
        wanted = with_usual(whole(overlay(Pool(goal.pool.name), goal.pool)))
        _check_complete(goal, wanted, starting=True)
    else:
        wanted = _as_defined(laid_over(existing, goal, found), existing, found)
    kept = defined(wanted)
    differing = () if existing is None else _differing(existing, kept)
    if (existing is None or differing) and not found.defines_all:
        _check_supported(goal, found)
    if differing:
        _check_complete(goal, wanted, starting=False)
    moved = any(name in differing for name in PLACE)
    if "cow" in _row(wanted).features and (found.storage.open or found.storage.bring_up):
        check_copy_on_write("features.cow", goal.pool.cow, found, str(subject_of(goal)))
    if existing is None or moved:
        from .sharing import check_source_is_free

        check_source_is_free(goal, found, wanted)
    names = _restarting(goal, found, differing, kept)
    unallowed = _unallowed_restart(goal, found, names) if names and not found.down else None
    try:
        decision = _run(goal, found, wanted, kept, differing, restart=bool(names))
    except StorageError as refusal:
        if unallowed is None or not refusal.word:
            raise
        raise unallowed from refusal
    if unallowed is None:
        return decision
    if decision.missing:
        unallowed.hint += f" It would not start now: {decision.missing[0].message}."
    raise decision.refusal or unallowed


def _run(goal: PoolGoal, found: Found, wanted: Pool, kept: Pool, differing: tuple[str, ...], restart: bool) -> Decision:
    """The changes of a pool that may be defined as declared. Raises where one of them can't be made."""
    missing: list[StorageError] = []
    changes: list[Change] = []
    if goal.missing is not None and not (goal.state == "inactive" and found.definition is not None):
        missing.append(goal.missing)
    if restart or goal.state == "inactive":
        from .running import stop

        changes += stop(goal, found, restart=restart)
    changes += _define(goal, found, kept, differing)
    runs = goal.state == "active" or restart
    starts = runs and (restart or not found.active)
    changes += _keep_secret(goal, found, wanted, starts, redefined=bool(differing))
    if runs:
        _check_supported(goal, found)
        changes += _build(goal, found, wanted, missing)
    if (runs or (found.active and goal.state == "present")) and not (restart and found.storage.bring_up):
        changes += _set_permissions(goal, found, wanted)  # a restart gives them to what it brings up
    if runs and (restart or not found.active):
        from .running import start

        changes.append(start(goal, found, wanted, missing, restart))
    changes += _autostart(goal, found, found.autostart, wanted)
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


def laid_over(existing: Pool, goal: PoolGoal, found: Found) -> Pool:
    """The definition with what is declared."""
    return keep_names(overlay(existing, goal.pool), existing, found.resolved, found.hosts)


def _as_defined(wanted: Pool, existing: Pool, found: Found) -> Pool:
    """Another path to the same directory is no difference: the definition keeps its own."""
    same = found.storage.same_as(found.current)
    return replace(wanted, path=existing.path) if same else wanted


def _differing(existing: Pool, wanted: Pool) -> tuple[str, ...]:
    """The names of the fields in which the definition must change, those of its source with a dot."""
    names = [
        f.name
        for f in fields(Pool)
        if f.name != "source" and f.compare and getattr(existing, f.name) != getattr(wanted, f.name)
    ]
    if "config_options" in names and unordered(existing.config_options) == unordered(wanted.config_options):
        names.remove("config_options")
    for field in fields(Source):
        if getattr(existing.source, field.name) != getattr(wanted.source, field.name):
            names.append(f"source.{field.name}")
    if "source.adapter" in names and _is_managed_otherwise(existing.source, wanted.source):
        names[names.index("source.adapter")] = "source.adapter.managed"
    return tuple(names)


def _is_managed_otherwise(existing: Source, wanted: Source) -> bool:
    """Whether that is all in which their adapters differ."""
    have, want = existing.adapter, wanted.adapter
    return have is not None and want is not None and replace(have, managed=want.managed) == want


def _restarting(goal: PoolGoal, found: Found, differing: tuple[str, ...], wanted: Pool) -> list[str]:
    """The fields for which the pool has to be restarted, in which it runs as another one than is wanted: by this change
    of its definition, or by an earlier one that waits for the next start.
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
    if not found.started or goal.state == "inactive" or (found.down and goal.state != "active"):
        return []  # of one that is down nobody is disturbed; it runs as is wanted when it is started again
    grows = row.grows if found.storage.kind != UNSEEN else ()
    pending = () if found.live is None else _differing(found.live, wanted)
    changed = [name for name in row.restart if name not in grows and (name in differing or name in pending)]
    if found.moved and found.storage.kind != UNSEEN:
        changed += [name for name in pending if name in PLACE and name not in changed]
    return [name for name in changed if not (name == "source.format" and _is_found_out(found, wanted))]


def _is_found_out(found: Found, wanted: Pool) -> bool:
    """Whether the format was left to the mounting and is that of what is mounted: to say it changes nothing there."""
    running, row = found.live or found.definition, found.row
    if running is None or not row.mounted or running.source.format not in (None, row.default_format):
        return False
    if found.storage.kind == UNSEEN:
        return found.active and wanted.source.format == row.daemon_mounts
    return found.storage.up and found.storage.same_as(found.current)


def _unallowed_restart(goal: PoolGoal, found: Found, names: list[str]) -> StorageError | None:
    if "restart" in goal.allow:
        return None
    hint = "Add allow: [restart] to stop it, change it and start it again, or stop it first (state: inactive)."
    if "source.format" in names and found.row.on_devices:
        hint += " What is on the device is lost if it is made anew, which overwrite allows."
    return StorageError(
        "restart_needed",
        f"pool {goal.pool.name} is active, and a change of its {', '.join(names)} needs a restart",
        subject=str(subject_of(goal)),
        hint=hint,
        word="restart",
    )


def _define(goal: PoolGoal, found: Found, wanted: Pool, differing: tuple[str, ...]) -> list[Change]:
    if found.definition is None:
        wanted = replace(wanted, uuid=wanted.uuid or (found.live.uuid if found.live else None))
        facts = {**definition_facts(wanted), "uuid": wanted.uuid or UNKNOWN}
        what = f"define it as {wanted.type}" + (f" at {wanted.path}" if wanted.path else "")
        return [change_of(goal, "define", what, None, {"definition": facts}, wanted)]
    if not differing:
        return []
    have, want = definition_facts(found.definition), definition_facts(wanted)
    names = [name for name in {**have, **want} if have.get(name) != want.get(name)]
    before: dict[str, Any] = {"definition": {name: have.get(name) for name in names}}
    after: dict[str, Any] = {"definition": {name: want.get(name) for name in names}}
    what = f"change {', '.join(names)} of its definition"
    if found.secrets:
        from .secrets import going, removal, usages

        secrets = going(found, wanted)
        if secrets:
            before["old_secret"], after["old_secret"] = usages(secrets), None
            what += f"; {removal(secrets)}"
    return [change_of(goal, "redefine", what, before, after, wanted)]


def _keep_secret(goal: PoolGoal, found: Found, wanted: Pool, starts: bool, redefined: bool) -> list[Change]:
    if wanted.secret is None and not found.secrets:
        return []
    from .secrets import forget, keep

    changes = [] if redefined else forget(goal, found, wanted)
    return [*changes, *(keep(goal, found, wanted, starts) if wanted.secret is not None else ())]


def undefine(goal: PoolGoal, found: Found) -> list[Change]:
    if found.definition is None:
        return []
    before = {"definition": definition_facts(found.definition), "autostart": found.autostart}
    what = "remove its definition" + ("" if goal.state == "deleted" else ", keep its data")
    if found.autostart:
        from .booting import removal_of_unit, unit_goes

        if unit_goes(found):
            before["boot_unit"] = found.boot.state
            what += f"; {removal_of_unit(found)}"
    if found.secrets:
        from .secrets import going, removal, usages

        secrets = going(found, None)
        if secrets:
            before["secret"] = usages(secrets)
            what += f"; {removal(secrets)}"
    return [change_of(goal, "undefine", what, before, None, found.definition)]


# --- running state and storage ---------------------------------------------------------------------------------------


def _build(goal: PoolGoal, found: Found, wanted: Pool, missing: list[StorageError]) -> list[Change]:
    if found.storage.kind == UNSEEN or (found.storage.kind == READY and not found.storage.parts):
        return []  # what only a daemon can look at is built when it is started
    from .building import build

    return build(goal, found, wanted, missing)


def _autostart(goal: PoolGoal, found: Found, before: Any, wanted: Pool | None = None) -> list[Change]:
    if goal.autostart is None:
        return []
    from .booting import autostart

    return autostart(goal, found, before, wanted)


def _set_permissions(goal: PoolGoal, found: Found, wanted: Pool) -> list[Change]:
    if found.storage.kind == UNSEEN:
        from .unseen_pools import check_permissions

        check_permissions(goal, found, wanted)
    if not found.storage.open or not _row(wanted).file_tree:
        return []
    have = permissions_facts(found.storage.permissions)
    declared = goal.pool.permissions if found.learned or found.storage.fixed else wanted.permissions
    want = permissions_facts(replace(declared, label=None))
    names = [name for name in want if want[name] != have.get(name)]
    if not names:
        return []
    changed = Permissions(
        **{name: getattr(wanted.permissions, name) for name in ("mode", "owner", "group") if name in names}
    )
    check_ownership(changed, found.storage.permissions, found, str(subject_of(goal)))
    return [
        change_of(
            goal,
            "permissions",
            f"set {', '.join(names)} of {wanted.path}",
            {"target": {n: have.get(n) for n in names}},
            {"target": {n: want[n] for n in names}},
            replace(wanted, permissions=changed),
            requires=_still_mounted(found, wanted),
        )
    ]


def _still_mounted(found: Found, wanted: Pool) -> tuple[Condition, ...]:
    """Below a mount that went away there is a directory, which is not the pool's."""
    path, identity = wanted.path or "", found.storage.identity
    return (
        (Condition("identity", found.resolved.get(path, path), identity),)
        if found.storage.bring_up and identity
        else ()
    )


# --- deleting --------------------------------------------------------------------------------------------------------


def _delete(goal: PoolGoal, found: Found) -> list[Change]:
    from .deleting import check_same_storage, delete_pool, is_gone
    from .sharing import check_source_is_free, is_shared

    existing = found.definition or found.live
    if existing is not None:
        check_same_storage(goal, found, existing)
    _check_supported(goal, found)
    if existing is None:
        if goal.missing is not None:
            return []  # nothing of it is left that could be looked at
        wanted = whole(overlay(Pool(goal.pool.name), goal.pool))
        if is_shared(wanted, found) or is_gone(goal, found):
            return []
    else:
        check_source_is_free(goal, found, existing)
    return delete_pool(goal, found)
