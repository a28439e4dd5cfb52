# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Changing an existing volume in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..model.change import Change
from ..model.errors import StorageError
from ..model.goal import VolumeGoal
from ..model.pool import Permissions
from ..model.units import format_size, listed, round_up
from ..model.volume import Backing, Volume
from .compare import Difference, format_row, shown
from .creating import check_parents_stay, left_there, link_refused
from .guards import check_ground_is_free, check_ownership, guard_unused, guarded, same_file
from .images import PERMISSIONS, check_capacity, settle
from .task import VolumesTask


def adjust(entry: VolumeGoal, have: Volume, differing: tuple[Difference, ...], task: VolumesTask) -> Iterator[Change]:
    _check_can_be_written(have, differing, task)
    for names, decide in _ADJUSTMENTS:
        mine = [difference for difference in differing if difference.field in names]
        if mine:
            yield from decide(entry, have, mine, task)


def _check_can_be_written(have: Volume, differing: tuple[Difference, ...], task: VolumesTask) -> None:
    if not differing:
        return
    if have.link_target is not None:
        raise link_refused(have, task)
    by_owner = task.found.squashes and bool(have.permissions.owner)
    if have.name in task.found.protected and not by_owner and any(d.field not in PERMISSIONS for d in differing):
        refusal = task.refuse(
            "not_writable",
            have.name,
            f"{have.path} is not writable",
            "Run as a user who may write it (become: true).",
        )
        task.refusals.append(refusal)
    if have.name in task.found.broken and any(d.field not in PERMISSIONS for d in differing):
        lost = task.found.broken[have.name]
        message = f"volume {task.goal.pool}/{have.name} is built on {lost}, which is not there"
        task.missing.append(task.refuse("backing_missing", have.name, message, "Restore that file first."))
    if have.name in task.found.unlike and any(d.field not in PERMISSIONS for d in differing):
        raise task.refuse(
            "format_mismatch",
            have.name,
            f"volume {task.goal.pool}/{have.name} can't be read: {task.found.unlike[have.name]}",
            "Put back what it is built on, or let it be made anew, which loses its content (recreate: always).",
        )
    if (have.data_file is not None or have.encrypted) and any(d.field not in PERMISSIONS for d in differing):
        what = "is encrypted" if have.encrypted else "keeps its data in another file"
        raise task.refuse(
            "volume_differs",
            have.name,
            f"{have.path} {what}: it can't be changed in place",
            "Declare it as it is, or let it be made anew, which loses its content (recreate: always).",
        )


def _changed(
    task: VolumesTask, have: Volume, action: str, summary: str, differing: list[Difference], **more: Any
) -> Change:
    return Change(
        task.subject(have.name),
        action,
        f"volume {task.goal.pool}/{have.name}: {summary}",
        {d.field: d.have for d in differing},
        {d.field: d.want for d in differing},
        **more,
    )


def _refuse_running(have: Volume, doing: str, allow: frozenset[str], task: VolumesTask) -> None:
    running = [user for user in task.found.users.get(have.name, ()) if user.running]
    if running and "in_use" not in allow:
        raise task.refuse(
            "volume_in_use",
            have.name,
            f"volume {task.goal.pool}/{have.name} would be {doing}, but is open: {listed(running)}",
            "Stop what uses it first; a running guest's disk is resized with virsh blockresize.",
        )


def _amend(entry: VolumeGoal, have: Volume, mine: list[Difference], task: VolumesTask) -> Iterator[Change]:
    _refuse_running(have, "rewritten", entry.allow, task)
    declared = entry.volume
    lazy = have.lazy_refcounts if declared.lazy_refcounts is None else declared.lazy_refcounts
    needing = [name for name, on in (("lazy_refcounts", lazy), ("extended_l2", have.extended_l2)) if on]
    needing += have.beyond_0_10
    if (declared.compat or have.compat) == "0.10" and needing:
        raise task.refuse(
            "invalid_option",
            have.name,
            f"{' and '.join(needing)} of volume {task.goal.pool}/{have.name} needs compat 1.1",
            "Leave options.compat out, or say 1.1.",
        )
    wanted = replace(have, compat=declared.compat, lazy_refcounts=declared.lazy_refcounts)
    names = " and ".join(difference.field for difference in mine)
    yield _changed(task, have, "amend", f"change {names}", mine, wanted=wanted, requires=same_file(have))


def _rebase(entry: VolumeGoal, have: Volume, mine: list[Difference], task: VolumesTask) -> Iterator[Change]:
    if "backing" not in entry.allow:
        raise task.refuse(
            "volume_differs",
            have.name,
            f"volume {task.goal.pool}/{have.name} is backed by {shown(mine[0].have)}, not {shown(mine[0].want)}",
            "Add allow: [backing] to rewrite it on the new backing, its content kept as it reads now, "
            "or let it be made anew, which loses its content (recreate: needed).",
            "backing",
        )
    if have.snapshots:
        raise _has_snapshots(have, "they would read what is in the new backing", "", task)
    _refuse_running(have, "rewritten", entry.allow, task)
    check_parents_stay(entry, task)
    capacity = entry.volume.capacity if entry.volume.capacity is not None else have.capacity
    as_it_is = replace(entry.volume, format=have.format, identity=have.identity, capacity=capacity, at_least=True)
    backing = settle(replace(entry, volume=as_it_is), task).backing
    _check_same_backing(backing, entry, task)
    want = dict(mine[0].want or {})
    if backing is not None and backing.format is not None:
        want["format"] = backing.format
    yield _changed(
        task,
        have,
        "rebase",
        f"rewrite it on {want.get('path')}",
        [replace(mine[0], want=want)],
        wanted=replace(have, backing=backing),
        requires=same_file(have),
        needs=task.parents(entry),
    )


def _has_snapshots(have: Volume, why: str, way_out: str, task: VolumesTask) -> StorageError:
    return task.refuse(
        "volume_differs",
        have.name,
        f"volume {task.goal.pool}/{have.name} has internal snapshots ({have.snapshots}): {why}",
        f"Remove them (qemu-img snapshot -d){way_out}, or let it be made anew, which loses all (recreate: always).",
    )


def _check_same_backing(backing: Backing | None, entry: VolumeGoal, task: VolumesTask) -> None:
    """qemu-img takes a file that the image is built on already, however far below, for what it was, whatever format it
    is told: nothing would be copied, and it would be read otherwise from then on. So the format must be the file's own.
    """
    declared = entry.volume.backing
    if backing is None or backing.format is None or declared is None:
        return
    below = task.goal.by_name.get(task.volume_of(declared) or "")
    if below is not None and task.remade(below):
        return  # another file by then
    image = task.found.images.get(declared.path or declared.volume or "")
    actual = None if image is None or image.volume is None else image.volume.format
    if actual is not None and backing.format != actual:
        raise task.refuse(
            "format_mismatch",
            entry.volume.name,
            f"the backing of volume {task.goal.pool}/{entry.volume.name} is {actual}, not {backing.format}",
            "Declare what it is.",
        )


def _resize(entry: VolumeGoal, have: Volume, mine: list[Difference], task: VolumesTask) -> Iterator[Change]:
    task.check_can(have.name, "resize")
    _check_is_raw(entry, have, task)
    if have.snapshots and (entry.volume.compat or have.compat) == "0.10":
        why, way_out = "one of compat 0.10 is not resized then", ", give it compat 1.1 (options)"
        raise _has_snapshots(have, why, way_out, task)
    wanted = _resized(entry, have, task)
    size, had = wanted.capacity or 0, have.capacity or 0
    if size == 0 and (have.format != "raw" or have.type == "block"):
        raise task.refuse(
            "invalid_size",
            have.name,
            f"a {have.format} volume can't be shrunk to nothing",
            "Delete it (state: absent).",
        )
    differing = [replace(mine[0], want=size)]
    if size < had:
        yield _shrink(entry, have, wanted, differing, task)
        return
    check_ground_is_free(entry, "grown", task)
    if have.format != "raw" and have.type != "block":
        _refuse_running(have, "resized", entry.allow, task)
    summary, lost = f"grow it to {format_size(size)}", "".join(left_there(have, task))
    yield _changed(task, have, "resize", summary, differing, wanted=wanted, destroys=lost, requires=same_file(have))


def _check_is_raw(entry: VolumeGoal, have: Volume, task: VolumesTask) -> None:
    if have.looks_like == "qcow2" and "raw" not in entry.allow:
        raise task.refuse(
            "format_mismatch",
            have.name,
            f"volume {task.goal.pool}/{have.name} is declared raw, but its content looks like {have.looks_like}: "
            f"its file would be resized from {format_size(have.capacity or 0)}, not the disk in it",
            "Declare format: qcow2 if it is that, or add allow: [raw] if a guest wrote that into its raw disk.",
            "raw",
        )


def _resized(entry: VolumeGoal, have: Volume, task: VolumesTask) -> Volume:
    """As it will be. Raises where there is no room for that."""
    declared = entry.volume.capacity or 0
    wanted = replace(have, capacity=round_up(declared, max(format_row(have.format).granule, task.found.granule)))
    if have.type == "block":
        from .blocks import grown

        return replace(have, capacity=grown(have, wanted.capacity or 0, declared, task))
    check_capacity(replace(wanted, allocation=None), task)
    return wanted


def _shrink(entry: VolumeGoal, have: Volume, wanted: Volume, differing: list[Difference], task: VolumesTask) -> Change:
    size, had = format_size(wanted.capacity or 0), have.capacity or 0
    lost = f"the last {format_size(had - (wanted.capacity or 0))} of {have.path}"
    if have.links > 1 and have.type == "file":
        lost += f", whose file has {have.links - 1} more " + ("name" if have.links == 2 else "names")
    if "shrink" not in entry.allow:
        raise task.refuse(
            "shrink_refused",
            have.name,
            f"volume {task.goal.pool}/{have.name} has {format_size(had)}; making it {size} would lose {lost}",
            "Add allow: [shrink], or declare the capacity it has (or capacity_policy: at_least).",
            "shrink",
        )
    if have.type == "block":
        from .blocks import check_shrink

        check_shrink(have, task)
    subject, users = str(task.subject(have.name)), task.found.users.get(have.name, ())
    guard_unused(subject, users, entry.allow, "shrunk", task, name=have.name, goes=False)
    check_ground_is_free(entry, "shrunk", task)
    return _changed(
        task,
        have,
        "resize",
        f"shrink it to {size}",
        differing,
        wanted=wanted,
        destroys=lost,
        requires=guarded(have, entry.allow, task.found.unseen),
    )


def _set_permissions(entry: VolumeGoal, have: Volume, mine: list[Difference], task: VolumesTask) -> Iterator[Change]:
    running = [user for user in task.found.users.get(have.name, ()) if user.running]
    names = ", ".join(difference.field for difference in mine)
    if running:
        task.warnings.append(
            f"volume {task.goal.pool}/{have.name}: {names} left alone while it is in use by {running[0]}"
        )
        return
    check_ownership(entry.volume.permissions, have.permissions, task.found, str(task.subject(have.name)))
    changed = Permissions(**{d.field: getattr(entry.volume.permissions, d.field) for d in mine})
    wanted = replace(have, permissions=changed)
    yield _changed(task, have, "permissions", f"set {names}", mine, wanted=wanted, requires=same_file(have))


_ADJUSTMENTS = (
    (("compat", "lazy_refcounts"), _amend),
    (("backing",), _rebase),
    (("capacity",), _resize),
    (PERMISSIONS, _set_permissions),
)
