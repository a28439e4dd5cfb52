# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Declared volumes of one pool against what was found of them: pure, two values in, changes or a refusal out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..model.change import UNKNOWN, Change, Condition, Subject
from ..model.errors import StorageError
from ..model.facts import volume_facts
from ..model.found import EVERYTHING, READY, RUNNING, Found
from ..model.goal import VolumeGoal, VolumesGoal
from ..model.pool import Permissions
from ..model.types import POOL_TYPES
from ..model.units import format_size, round_up
from ..model.volume import Volume
from .compare import Difference, differences, format_row
from .decision import Decision, clean, staging_refusal, unwritable
from .guards import check_ownership, guard_unused, running_users
from .images import check_capacity, settle

_PERMISSIONS = ("owner", "group", "mode")


@dataclass(frozen=True)
class _Task:
    """The whole declaration and the whole look, as far as one volume's decision needs them."""

    goal: VolumesGoal
    found: Found
    missing: list[StorageError]
    warnings: list[str]

    def subject(self, name: str) -> Subject:
        return Subject(self.goal.pool, name)

    @property
    def doomed(self) -> tuple[str, ...]:
        """What this task removes: absent ones and, with ``exclusive``, those that are not listed."""
        return (*(g.volume.name for g in self.goal.volumes if g.state == "absent"), *_extra(self.goal, self.found))


def decide_volumes(goal: VolumesGoal, found: Found) -> Decision:
    """The changes that make the volumes what is declared. Raises StorageError where any of them is refused."""
    task = _Task(goal, found, [], [])
    _check_pool(task)
    changes = clean(goal.pool, found)
    for entry in _ordered(goal):
        changes += _decide_one(entry, task)
    for name in _extra(goal, found):
        changes += _delete(VolumeGoal(Volume(name), "absent", allow=goal.exclusive_allow), task)
    made, subject = tuple(changes), f"pool {goal.pool}"
    refusal = (
        unwritable(made, found.unwritable, subject)
        or staging_refusal(made, found, subject)
        or _space_refusal(task, changes)
    )
    return Decision(made, tuple(task.missing), tuple(task.warnings), refusal)


def volumes_at_stake(goal: VolumesGoal, found: Found) -> dict[str, str]:
    """The existing volumes that this goal would change or destroy, and how much must be known of their users first."""
    stakes = dict.fromkeys(_extra(goal, found), EVERYTHING)
    for entry in goal.volumes:
        have = found.volumes.get(entry.volume.name)
        stake = "" if have is None or have.foreign else _stake(entry, have, found)
        if stake:
            stakes[entry.volume.name] = stake
    return stakes


def _stake(entry: VolumeGoal, have: Volume, found: Found) -> str:
    if entry.state == "absent" or entry.recreate == "always":
        return EVERYTHING
    differing = differences(entry.volume, have, found)
    if any(not difference.in_place for difference in differing):
        return EVERYTHING if entry.recreate == "needed" else ""
    fields = {difference.field for difference in differing}
    if "capacity" in fields and _shrinks(entry, have):
        return EVERYTHING if "shrink" in entry.allow else ""
    if have.format == "raw":
        fields.discard("capacity")  # a raw image can grow under who uses it
    return RUNNING if fields else ""


def _shrinks(entry: VolumeGoal, have: Volume) -> bool:
    return (entry.volume.capacity or 0) < (have.capacity or 0)


def _extra(goal: VolumesGoal, found: Found) -> tuple[str, ...]:
    if goal.exclusive is None:
        return ()
    listed = {entry.volume.name for entry in goal.volumes}
    return tuple(
        sorted(
            name
            for name, volume in found.volumes.items()
            if name not in listed and volume.type == "file" and fnmatch.fnmatchcase(name, goal.exclusive)
        )
    )


def _check_pool(task: _Task) -> None:
    goal, found, subject = task.goal, task.found, f"pool {task.goal.pool}"
    definition = found.definition or found.live
    if definition is None:
        task.missing.append(
            StorageError(
                "pool_missing",
                f"pool {goal.pool} is not defined on this host",
                subject=subject,
                hint="Define and start it first with storage_pool.",
            )
        )
    elif not POOL_TYPES[definition.type or ""].backend:
        raise StorageError(
            "backend_missing",
            f"pools of type {definition.type} have no backend yet",
            subject=subject,
            hint="Use a pool of another type, or a libvirt daemon.",
        )
    elif not found.active:
        why = "" if found.storage.kind == READY else f" (its directory is {found.storage.why or found.storage.kind})"
        task.missing.append(
            StorageError(
                "pool_inactive",
                f"pool {goal.pool} is not active{why}",
                subject=subject,
                hint="Start it first with storage_pool (state: active).",
            )
        )


def _ordered(goal: VolumesGoal) -> Iterator[VolumeGoal]:
    """Backing and source before what is made from them. Raises ``backing_loop``."""
    entries = {entry.volume.name: entry for entry in goal.volumes}
    done: dict[str, bool] = {}

    def visit(name: str, path: tuple[str, ...]) -> Iterator[VolumeGoal]:
        if name in path:
            raise StorageError(
                "backing_loop",
                f"the volumes {' -> '.join((*path, name))} would be built on each other",
                subject=f"volume {goal.pool}/{name}",
                hint="Let one of them have no backing.",
            )
        if name in done or name not in entries:
            return
        for parent in _parents(entries[name]):
            yield from visit(parent, (*path, name))
        done[name] = True
        yield entries[name]

    for name in entries:
        yield from visit(name, ())


def _parents(entry: VolumeGoal) -> tuple[str, ...]:
    """The volumes of the same pool that this one is made from."""
    if entry.state != "present":
        return ()
    volume = entry.volume
    names = (volume.backing and volume.backing.volume, volume.content and volume.content.volume)
    return tuple(name for name in names if name)


def _decide_one(entry: VolumeGoal, task: _Task) -> Iterator[Change]:
    if entry.state == "absent":
        return iter(_delete(entry, task))
    have = task.found.volumes.get(entry.volume.name)
    if have is None:
        return iter(_create(entry, task))
    _check_is_volume(entry.volume.name, have, task)
    differing = differences(entry.volume, have, task.found)
    stuck = [difference for difference in differing if not difference.in_place]
    if entry.recreate == "always" or (entry.recreate == "needed" and stuck):
        return iter(_recreate(entry, have, task))
    if stuck:
        raise _differs(entry, stuck, task)
    return iter(_adjust(entry, have, differing, task))


def _check_is_volume(name: str, have: Volume, task: _Task) -> None:
    what = have.foreign or ("" if have.type == "file" else f"a {have.type}")
    if what or have.problem:
        raise StorageError(
            "volume_foreign" if what else "volume_malformed",
            f"{have.path} is {what}" if what else f"{have.path}: {have.problem}",
            subject=str(task.subject(name)),
            hint="It is left alone. Move it away, or use another name.",
        )


def _differs(entry: VolumeGoal, stuck: list[Difference], task: _Task) -> StorageError:
    shown = ", ".join(f"{d.field} is {d.have}, not {d.want}" for d in stuck)
    return StorageError(
        "volume_differs",
        f"volume {task.goal.pool}/{entry.volume.name} is there, but its {shown}; that can't be changed in place",
        subject=str(task.subject(entry.volume.name)),
        hint="Declare what it is, or let it be made anew, which loses its content (recreate: needed).",
    )


# --- creating --------------------------------------------------------------------------------------------------------


def _create(entry: VolumeGoal, task: _Task) -> list[Change]:
    volume, parents = settle(entry, task.goal, task.found, task.missing), _parents(entry)
    check_ownership(volume.permissions, None, task.found, str(task.subject(volume.name)))
    return [
        Change(
            task.subject(volume.name),
            "create",
            f"volume {task.goal.pool}/{volume.name}: {_creating(task)} ({_described(volume)})",
            None,
            _claims(volume),
            volume,
            needs=parents,
        )
    ]


def _creating(task: _Task) -> str:
    return "create it" if task.found.looked else "create it, or adjust what is there by then"


def _described(volume: Volume) -> str:
    size = "size known after apply" if volume.capacity is None else format_size(volume.capacity)
    words = [volume.format or "format known after apply", size]
    if volume.backing is not None:
        words.append(f"backed by {volume.backing.volume or volume.backing.path}")
    if volume.content is not None:
        words.append(f"content from {volume.content.volume or volume.content.path or 'the task'}")
    return ", ".join(words)


def _claims(volume: Volume) -> dict[str, Any]:
    """What the volume will be, as far as it was declared or follows from it."""
    claims: dict[str, Any] = {"path": volume.path or UNKNOWN, "format": volume.format or UNKNOWN}
    claims.update(volume_facts(volume))
    claims["capacity"] = (
        UNKNOWN if volume.capacity is None else round_up(volume.capacity, format_row(volume.format).granule)
    )
    return claims


def _space_refusal(task: _Task, changes: list[Change]) -> StorageError | None:
    """Space that was asked to be reserved must be there; sparse volumes are not counted."""
    usage = task.found.usage
    asked = sum(_reserved(change) for change in changes)
    if usage is None or asked <= usage.available:
        return None
    return StorageError(
        "no_space",
        f"{format_size(asked)} would be reserved, but pool {task.goal.pool} has {format_size(usage.available)} left",
        subject=f"pool {task.goal.pool}",
        hint="Free some space, or make sparse volumes (leave allocation out).",
    )


def _reserved(change: Change) -> int:
    volume = change.wanted
    if change.action not in ("create", "recreate") or volume is None:
        return 0
    if volume.preallocation in ("falloc", "full"):
        return volume.capacity or 0
    return volume.allocation or 0


# --- changing --------------------------------------------------------------------------------------------------------


def _adjust(entry: VolumeGoal, have: Volume, differing: tuple[Difference, ...], task: _Task) -> Iterator[Change]:
    _check_writable_image(entry, have, differing, task)
    for name, decide in _ADJUSTMENTS:
        mine = [difference for difference in differing if difference.field in name]
        if mine:
            yield from decide(entry, have, mine, task)


def _check_writable_image(entry: VolumeGoal, have: Volume, differing: tuple[Difference, ...], task: _Task) -> None:
    if not differing:
        return
    if have.link_target is not None:
        raise StorageError(
            "volume_foreign",
            f"{have.path} is a symbolic link to {have.link_target}: what it points to is not changed",
            subject=str(task.subject(have.name)),
            hint=f"Change {have.link_target} where it belongs.",
        )
    if (have.data_file is not None or have.encrypted) and any(d.field not in _PERMISSIONS for d in differing):
        what = "is encrypted" if have.encrypted else "keeps its data in another file"
        raise StorageError(
            "volume_differs",
            f"{have.path} {what}: it can't be changed in place",
            subject=str(task.subject(have.name)),
            hint="Declare it as it is, or let it be made anew, which loses its content (recreate: always).",
        )


def _changed(task: _Task, have: Volume, action: str, summary: str, differing: list[Difference], **more: Any) -> Change:
    return Change(
        task.subject(have.name),
        action,
        f"volume {task.goal.pool}/{have.name}: {summary}",
        {d.field: d.have for d in differing},
        {d.field: d.want for d in differing},
        **more,
    )


def _refuse_running(have: Volume, doing: str, allow: frozenset[str], task: _Task) -> None:
    running = running_users(task.found, have.name)
    if running and "in_use" not in allow:
        raise StorageError(
            "volume_in_use",
            f"volume {task.goal.pool}/{have.name} would be {doing}, but is open: {', '.join(map(str, running[:5]))}",
            subject=str(task.subject(have.name)),
            hint="Stop what uses it first; a running guest's disk is resized with virsh blockresize.",
        )


def _amend(entry: VolumeGoal, have: Volume, mine: list[Difference], task: _Task) -> Iterator[Change]:
    _refuse_running(have, "rewritten", entry.allow, task)
    wanted = replace(have, compat=entry.volume.compat, lazy_refcounts=entry.volume.lazy_refcounts)
    compat = entry.volume.compat or have.compat
    if compat == "0.10" and (
        entry.volume.lazy_refcounts or (entry.volume.lazy_refcounts is None and have.lazy_refcounts)
    ):
        raise StorageError(
            "invalid_option",
            "lazy_refcounts needs compat 1.1",
            subject=str(task.subject(have.name)),
            hint="Set options.compat to 1.1, or lazy_refcounts to false.",
        )
    names = " and ".join(difference.field for difference in mine)
    yield _changed(task, have, "amend", f"change {names}", mine, wanted=wanted, requires=_identity(have))


def _rebase(entry: VolumeGoal, have: Volume, mine: list[Difference], task: _Task) -> Iterator[Change]:
    if "backing" not in entry.allow:
        difference = mine[0]
        raise StorageError(
            "volume_differs",
            f"volume {task.goal.pool}/{have.name} is backed by {difference.have}, not {difference.want}",
            subject=str(task.subject(have.name)),
            hint="Add allow: [backing] to rewrite it on the new backing, its content kept as it reads now, "
            "or let it be made anew, which loses its content (recreate: needed).",
        )
    _refuse_running(have, "rewritten", entry.allow, task)
    settled = settle(entry, task.goal, task.found, task.missing)
    want = dict(
        mine[0].want or {}, **({"format": settled.backing.format} if settled.backing and settled.backing.format else {})
    )
    yield _changed(
        task,
        have,
        "rebase",
        f"rewrite it on {want.get('path')}",
        [replace(mine[0], want=want)],
        wanted=replace(have, backing=settled.backing),
        requires=_identity(have),
        needs=_parents(entry),
    )


def _resize(entry: VolumeGoal, have: Volume, mine: list[Difference], task: _Task) -> Iterator[Change]:
    granule = format_row(have.format).granule
    size = round_up(entry.volume.capacity or 0, granule)
    difference = replace(mine[0], want=size)
    wanted = replace(have, capacity=size)
    check_capacity(wanted, task.goal, task.found)
    if size > (have.capacity or 0):
        if have.format != "raw":
            _refuse_running(have, "resized", entry.allow, task)
        yield _changed(
            task,
            have,
            "resize",
            f"grow it to {format_size(size)}",
            [difference],
            wanted=wanted,
            requires=_identity(have),
        )
        return
    lost = f"the last {format_size((have.capacity or 0) - size)} of {have.path}"
    if "shrink" not in entry.allow:
        raise StorageError(
            "shrink_refused",
            f"volume {task.goal.pool}/{have.name} has {format_size(have.capacity or 0)}; "
            f"making it {format_size(size)} would lose {lost}",
            subject=str(task.subject(have.name)),
            hint="Add allow: [shrink], or declare the capacity it has (or capacity_policy: at_least).",
        )
    guard_unused(task.goal.pool, have.name, task.found, entry.allow, "shrunk", task.doomed)
    yield _changed(
        task,
        have,
        "resize",
        f"shrink it to {format_size(size)}",
        [difference],
        wanted=wanted,
        destroys=lost,
        requires=_guarded(have, entry.allow),
    )


def _set_permissions(entry: VolumeGoal, have: Volume, mine: list[Difference], task: _Task) -> Iterator[Change]:
    running = running_users(task.found, have.name)
    names = ", ".join(difference.field for difference in mine)
    if running:
        task.warnings.append(
            f"volume {task.goal.pool}/{have.name}: {names} left alone while it is in use by {running[0]}"
        )
        return
    check_ownership(entry.volume.permissions, have.permissions, task.found, str(task.subject(have.name)))
    changed = Permissions(**{d.field: getattr(entry.volume.permissions, d.field) for d in mine})
    wanted = replace(have, permissions=changed)
    yield _changed(task, have, "permissions", f"set {names}", mine, wanted=wanted, requires=_identity(have))


_ADJUSTMENTS = (
    (("compat", "lazy_refcounts"), _amend),
    (("backing",), _rebase),
    (("capacity",), _resize),
    (_PERMISSIONS, _set_permissions),
)


# --- destroying ------------------------------------------------------------------------------------------------------


def _identity(have: Volume) -> tuple[Condition, ...]:
    return (Condition("identity", have.path or "", have.identity or ()),)


def _guarded(have: Volume, allow: frozenset[str]) -> tuple[Condition, ...]:
    unused = () if "in_use" in allow else (Condition("unused", have.path or ""),)
    return (*_identity(have), *unused)


def _delete(entry: VolumeGoal, task: _Task) -> list[Change]:
    name = entry.volume.name
    have = task.found.volumes.get(name)
    if have is None:
        return []
    if have.foreign or have.type != "file":
        raise StorageError(
            "volume_foreign",
            f"{have.path} is {have.foreign or 'a ' + str(have.type)}, not an image: it is left alone",
            subject=str(task.subject(name)),
            hint="Remove it by hand if it is not needed.",
        )
    if have.link_target is None:
        guard_unused(task.goal.pool, name, task.found, entry.allow, "deleted", task.doomed)
    destroys = f"the content of {have.path}" if have.link_target is None else ""
    before = {"path": have.path, **volume_facts(have)}
    return [
        Change(
            task.subject(name),
            "delete",
            f"volume {task.goal.pool}/{name}: delete it",
            before,
            None,
            have,
            destroys=destroys,
            requires=_guarded(have, entry.allow) if destroys else _identity(have),
            needs=_overlays_going_first(have, task),
        )
    ]


def _overlays_going_first(have: Volume, task: _Task) -> tuple[str, ...]:
    users = {user.who for user in task.found.users.get(have.name, ()) if user.kind == "overlay"}
    return tuple(name for name in task.doomed if task.found.volume_path(name) in users)


def _kept(declared: Permissions, have: Permissions) -> Permissions:
    """What is declared, and for the rest what the volume has."""
    return Permissions(**{n: getattr(have if getattr(declared, n) is None else declared, n) for n in _PERMISSIONS})


def _recreate(entry: VolumeGoal, have: Volume, task: _Task) -> Iterator[Change]:
    if have.link_target is not None:
        _check_writable_image(entry, have, (Difference("format", None, None, False),), task)
    guard_unused(task.goal.pool, have.name, task.found, entry.allow, "made anew", task.doomed)
    volume = settle(entry, task.goal, task.found, task.missing)
    volume = replace(volume, permissions=_kept(volume.permissions, have.permissions))
    check_ownership(volume.permissions, None, task.found, str(task.subject(have.name)))
    yield Change(
        task.subject(have.name),
        "recreate",
        f"volume {task.goal.pool}/{have.name}: make it anew ({_described(volume)})",
        {"path": have.path, **volume_facts(have)},
        _claims(volume),
        replace(volume, identity=have.identity),
        destroys=f"the content of {have.path}",
        requires=_guarded(have, entry.allow),
        needs=_parents(entry),
    )
