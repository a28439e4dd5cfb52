# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Declared volumes of one pool against what was found of them: pure, two values in, changes or a refusal out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..model.change import Change
from ..model.errors import StorageError
from ..model.found import EVERYTHING, GROUND, PIN, READY, RUNNING, UNSEEN, Found
from ..model.goal import VolumeGoal, VolumesGoal
from ..model.types import THIN_POOL
from ..model.units import format_size, listed, spoken_size
from ..model.volume import Extent, Volume
from .compare import Difference, differences, shown
from .decision import Decision, clean, refresh, sealed_refusal, staging_refusal, unwritable
from .task import VolumesTask, extra_volumes

_DEEPEST = 64  # backing files below each other; libvirt and QEMU have limits of their own beyond


def decide_volumes(goal: VolumesGoal, found: Found) -> Decision:
    """The changes that make the volumes what is declared. Raises StorageError where any of them is refused."""
    task = VolumesTask(goal, found, warnings=[*goal.doubts])
    _check_pool(task)
    changes = clean(goal.pool, found)
    for entry in _ordered(task):
        changes += _decide_one(entry, task)
    for name in _doomed(task):
        from .destroying import delete

        changes += _delete_extra(name, task) if name not in goal.by_name else delete(goal.by_name[name], task)
    made, subject = (*_arranged(changes, task), *refresh(goal.pool, found, task.sought)), f"pool {goal.pool}"
    task.warnings.extend(_tight_warning(task, made))
    if found.table is not None:
        from .cutting import recognised

        made = recognised(made)
    hampered = found.storage.frozen or (found.storage.unable if found.active else None)
    refusal = (
        _unseen_refusal(made, task)
        or unwritable(made, found.unwritable, subject)
        or (hampered.error(subject) if made and hampered is not None else None)
        or sealed_refusal(made, found)
        or next(iter(task.refusals), None)
        or staging_refusal(made, found, subject)
        or _space_refusal(task, made)
    )
    return Decision(made, tuple(task.missing), tuple(task.warnings), refusal)


def _doomed(task: VolumesTask) -> Iterable[str]:
    if not task.found.row.partitions or not task.doomed:
        return task.doomed
    if task.found.storage.kind == UNSEEN:
        from .unseen import from_the_end as last_first

        return last_first(task.doomed, task)
    if task.found.table is None:
        return task.doomed
    from .cutting import from_the_end

    return from_the_end(task.doomed, task)


def _unseen_refusal(changes: tuple[Change, ...], task: VolumesTask) -> StorageError | None:
    if not changes or task.found.storage.kind != UNSEEN:
        return None
    from .unseen import unseen_refusal

    return unseen_refusal(changes, task)


def _arranged(changes: list[Change], task: VolumesTask) -> tuple[Change, ...]:
    """The changes in the order in which they are made."""
    if len({change.subject.volume for change in changes} - {None}) > 1:
        from .order import interwoven, ordered

        if interwoven(task):
            return tuple(ordered(changes, task))
    return tuple(changes)


def _delete_extra(name: str, task: VolumesTask) -> list[Change]:
    """What ``exclusive`` removes; no word lets it remove what is in use."""
    from .destroying import delete

    try:
        return list(delete(VolumeGoal(Volume(name), "absent"), task))
    except StorageError as error:
        if error.code != "not_supported":
            error.hint, error.word = "List it in volumes to keep it, or delete it by name.", ""
        raise


def volumes_at_stake(goal: VolumesGoal, found: Found) -> dict[str, str]:
    """The existing volumes that this goal would change or destroy, and how much must be known of their users first; and
    where new ones or more of them would be cut from devices, who has these (``GROUND``).
    """
    stakes = dict.fromkeys(extra_volumes(goal, found), EVERYTHING)
    for entry in goal.volumes:
        have = found.volumes.get(entry.volume.name)
        stake = "" if have is None or have.foreign else _stake(entry, have, found)
        if stake:
            stakes[entry.volume.name] = stake
    if found.table is not None and EVERYTHING in stakes.values():
        from .cutting import gone_with

        for name in [name for name, stake in stakes.items() if stake == EVERYTHING]:
            stakes.update(
                dict.fromkeys((other for other in gone_with(name, found.table) if other in found.volumes), EVERYTHING)
            )
    if found.ground and found.looked and any(_is_cut(entry, found) for entry in goal.volumes):
        stakes[GROUND] = EVERYTHING
    return stakes


def places_at_stake(goal: VolumesGoal, found: Found) -> dict[str, Extent]:
    """What volumes would be cut from that is free now, by their names: something may be left there."""
    if found.table is None:
        return {}
    from .cutting import newly_taken

    try:
        return newly_taken(decide_volumes(goal, found).changes, found.table)
    except StorageError:  # whatever is left there
        return {}


def _is_cut(entry: VolumeGoal, found: Found) -> bool:
    """Whether a volume is made, or grows."""
    have = found.volumes.get(entry.volume.name)
    if entry.state == "absent" or have is None:
        return entry.state != "absent"
    return any(each.field == "capacity" for each in differences(entry.volume, have, found))


def _stake(entry: VolumeGoal, have: Volume, found: Found) -> str:
    if entry.state == "absent" or entry.recreate == "always":
        return EVERYTHING
    differing = differences(entry.volume, have, found)
    if any(not difference.in_place for difference in differing):
        return EVERYTHING if entry.recreate == "needed" else ""
    fields = {difference.field for difference in differing}
    if "capacity" in fields and (entry.volume.capacity or 0) < (have.capacity or 0):
        return EVERYTHING if "shrink" in entry.allow else ""
    if (have.format == "raw" or have.type == "block") and fields == {"capacity"}:
        return PIN  # these can grow under who uses them
    return RUNNING if fields else ""


def _check_pool(task: VolumesTask) -> None:
    goal, found, subject = task.goal, task.found, f"pool {task.goal.pool}"
    definition = found.definition or found.live
    if definition is None and goal.exclusive is None and all(entry.state == "absent" for entry in goal.volumes):
        task.warnings.append(f"pool {goal.pool} is not defined on this host, so that it has no volumes to be removed")
    elif definition is None:
        task.missing.append(
            StorageError(
                "pool_missing",
                f"pool {goal.pool} is not defined on this host",
                subject=subject,
                hint="Define and start it first with storage_pool.",
            )
        )
    elif found.unsupported:
        raise StorageError(
            "backend_missing",
            found.unsupported,
            subject=subject,
            hint="Use a pool of another type, or the uri of a libvirt daemon that can.",
        )
    elif found.unreadable is not None:  # no task of a play makes that answer, as one starts what is not active
        raise found.unreadable
    elif not found.active:
        known = found.storage.kind not in (READY, UNSEEN)
        what = "directory" if found.row.file_tree else "storage"
        why = f" (its {what} is {found.storage.why or found.storage.kind})" if known else ""
        task.missing.append(
            StorageError(
                "pool_inactive",
                f"pool {goal.pool} is not active{why}",
                subject=subject,
                hint="Start it first with storage_pool (state: active).",
            )
        )


def _ordered(task: VolumesTask) -> Iterator[VolumeGoal]:
    """The entries that are to be present, backing and source before what is made from them. Raises ``backing_loop``."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[VolumeGoal]:
        entry = task.goal.by_name.get(name)
        if name in path:
            raise task.refuse(
                "backing_loop",
                name,
                f"the volumes {' -> '.join((*path, name))} would be built on each other",
                "Let one of them have no backing.",
            )
        if len(path) > _DEEPEST:
            raise task.refuse(
                "backing_too_deep",
                name,
                f"more than {_DEEPEST} volumes would be built on each other",
                "Flatten the chain.",
            )
        if entry is None or entry.state == "absent" or name in done:
            return
        for parent in task.parents(entry):
            yield from visit(parent, (*path, name))
        done.add(name)
        yield entry

    for entry in sorted(task.goal.volumes, key=_number) if task.found.row.partitions else task.goal.volumes:
        yield from visit(entry.volume.name, ())


def _number(entry: VolumeGoal) -> tuple[int, str]:
    """Partitions get their numbers one after the other."""
    name = entry.volume.name
    digits = len(name) - len(name.rstrip("0123456789"))
    return (int(name[-digits:]) if digits else 0, name)


def _decide_one(entry: VolumeGoal, task: VolumesTask) -> Iterator[Change]:
    """Only what a task needs is imported, since it is compiled anew each time."""
    have = task.found.volumes.get(entry.volume.name)
    if task.found.row.appear and _is_sought(entry, have, task):
        return iter(())
    if have is None:
        from .creating import create

        return create(entry, task)
    if not task.found.is_volume(have) or have.problem:
        from .destroying import check_is_volume

        check_is_volume(have, task)
    if have.looks_like:
        task.warnings.append(
            f"volume {task.goal.pool}/{have.name} is declared raw and is taken as that, "
            f"though its content looks like {have.looks_like}"
        )
    differing = differences(entry.volume, have, task.found)
    stuck = [difference for difference in differing if not difference.in_place]
    if entry.recreate == "always" or (entry.recreate == "needed" and stuck):
        from .creating import recreate

        return recreate(entry, have, task)
    if stuck:
        raise _differs(have, stuck, task)
    if not differing:
        return iter(())
    from .adjusting import adjust

    return adjust(entry, have, differing, task)


def _is_sought(entry: VolumeGoal, have: Volume | None, task: VolumesTask) -> bool:
    from .seeking import sought

    volume = sought(entry, have, task)
    task.sought.extend([volume] if volume is not None else [])
    return volume is not None


def _differs(have: Volume, stuck: list[Difference], task: VolumesTask) -> StorageError:
    sides = ", ".join(f"{d.field} is {_told(d, d.have)}, not {_told(d, d.want)}" for d in stuck)
    stays = task.found.storage.kind == UNSEEN or "resize" not in task.found.can
    if stays and [d.field for d in stuck] == ["capacity"]:
        from .unseen import cannot

        return cannot("resize", have.name, task)
    anew = ", or let it be made anew, which loses its content (recreate: needed)" if "create" in task.found.can else ""
    return task.refuse(
        "volume_differs",
        have.name,
        f"volume {task.goal.pool}/{have.name} is there, but its {sides}; that can't be changed in place",
        f"Declare what it is{anew}.",
    )


def _told(difference: Difference, fact: Any) -> str:
    return format_size(fact) if difference.field == "capacity" and isinstance(fact, int) else shown(fact)


def _space_refusal(task: VolumesTask, changes: Iterable[Change]) -> StorageError | None:
    """Space that is to be reserved must be there; sparse volumes are not counted, and partitions have their places."""
    usage, row = task.found.usage, task.found.row
    reserved = {change.subject.volume or "": _reserved(change, task) for change in changes}
    asked, names = sum(reserved.values()), [name for name, size in reserved.items() if size]
    if usage is None or task.found.table is not None or asked <= usage.available + _freed(task):
        return None
    sparse = "make sparse volumes (leave allocation out)" if row.volumes == "file" else "give the pool another device"
    thin = ", or make thin volumes (options.thin_pool)" if THIN_POOL in row.made_here else ""
    return StorageError(
        "no_space",
        f"{format_size(asked)} would be reserved for {listed(names)}, but pool {task.goal.pool} has "
        f"{spoken_size(usage.available)} left",
        subject=f"pool {task.goal.pool}",
        hint=f"Free some space, or {sparse}{thin}.",
    )


def _tight_warning(task: VolumesTask, changes: Iterable[Change]) -> Iterator[str]:
    """How much of a source is zeros, which take no space, is known only when it is copied: no reason to refuse it."""
    copied = {change.subject.volume or "": _copied(change, task) for change in changes}
    total, names = sum(copied.values()), [name for name, size in copied.items() if size]
    if task.found.usage is not None and task.found.row.volumes == "file" and total > task.found.usage.available:
        yield (
            f"pool {task.goal.pool} has {spoken_size(task.found.usage.available)} left, and what is copied to "
            f"{listed(names)} takes up {spoken_size(total)} where it is: what does not fit will fail (no_space)"
        )


def _copied(change: Change, task: VolumesTask) -> int:
    """The bytes that the source of a new volume takes up where it is."""
    if change.action not in ("create", "recreate") or change.wanted is None or change.wanted.content is None:
        return 0
    content = change.wanted.content
    source = task.found.images.get(content.path or content.volume or "")
    return 0 if source is None or source.volume is None else source.volume.allocation or 0


def _freed(task: VolumesTask) -> int:
    """At most, by taking away what a task left that was ended while it made block volumes."""
    if not task.found.leftovers or task.found.row.volumes != "block":
        return 0
    from .allocated import hidden_of_group

    return hidden_of_group(task)


def _reserved(change: Change, task: VolumesTask) -> int:
    volume = change.wanted
    if change.action == "resize":
        return _grown(volume, task)
    if change.action not in ("create", "recreate") or volume is None:
        return 0
    if volume.format is not None and volume.format in task.found.row.made_here:
        from .allocated import room_of_thin_pool

        return room_of_thin_pool(volume, task)
    if volume.preallocation in ("falloc", "full"):
        return volume.capacity or 0
    return volume.allocation or 0


def _grown(volume: Volume, task: VolumesTask) -> int:
    """By how much a block volume grows that has all of its space."""
    have = task.found.volumes[volume.name]
    if have.type != "block" or have.thin_pool is not None:
        return 0
    return max(0, (volume.capacity or 0) - (have.capacity or 0))
