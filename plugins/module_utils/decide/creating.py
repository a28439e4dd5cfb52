# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Making a volume, for the first time or anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..model.change import UNKNOWN, Change, Condition
from ..model.errors import StorageError
from ..model.facts import volume_facts
from ..model.found import UNSEEN
from ..model.goal import VolumeGoal
from ..model.qcow2 import DEFAULTS
from ..model.units import format_size
from ..model.volume import Volume
from .compare import format_row
from .guards import (
    check_copy_on_write,
    check_ground_is_free,
    check_ownership,
    guard_unused,
    guarded,
    same_file,
    stays_while_open,
)
from .images import settle_new
from .task import VolumesTask

_GONE = ("backing", "encryption", "thin_pool")  # what a volume has only if it is declared


def create(entry: VolumeGoal, task: VolumesTask) -> Iterator[Change]:
    task.check_can(entry.volume.name, *_making(entry))
    check_ground_is_free(entry, "made", task)
    check_parents_stay(entry, task)
    volume = settle_new(entry, task)
    check_copy_on_write("options.nocow", volume.nocow or None, task.found, str(task.subject(volume.name)))
    check_ownership(volume.permissions, None, task.found, str(task.subject(volume.name)))
    if volume.format == "raw" and volume.name.endswith((".qcow2", ".qcow")):
        task.warnings.append(
            f"volume {task.goal.pool}/{volume.name} is not there, and is made raw, whatever its name says: "
            "declare format: qcow2 if that is meant"
        )
    doing = "create it" if task.found.looked else "create it, or adjust what is there by then"
    yield Change(
        task.subject(volume.name),
        "create",
        f"volume {task.goal.pool}/{volume.name}: {doing} ({_described(volume)})",
        None,
        _claims(volume, task),
        volume,
        destroys="".join(left_there(volume, task)),
        requires=_made_from(entry, task),
        needs=task.parents(entry),
    )


def _making(entry: VolumeGoal) -> tuple[str, ...]:
    """What it takes to make a volume, in the words of the table of types."""
    return ("create",) if entry.volume.content is None else ("create", "clone")


def left_there(volume: Volume, task: VolumesTask) -> tuple[str, ...]:
    """What is lost where a volume is cut from a pool."""
    remains = task.found.remains.get(volume.name)
    return (f"what is left where {volume.name} will be: {remains}",) if remains else ()


def recreate(entry: VolumeGoal, have: Volume, task: VolumesTask) -> Iterator[Change]:
    """What is not declared of its format, size and permissions stays as it was; its content does not, and its options
    are those of a new volume.
    """
    task.check_can(have.name, "remove", *_making(entry))
    if have.link_target is not None:
        raise link_refused(have, task)
    subject, users = str(task.subject(have.name)), task.found.users.get(have.name, ())
    guard_unused(subject, users, entry.allow, "made anew", task, name=have.name)
    if task.found.table is not None:
        from .cutting import check_removal

        check_removal(have.name, task, anew=True)
    check_parents_stay(entry, task)
    volume = settle_new(entry, task)
    check_copy_on_write("options.nocow", volume.nocow or None, task.found, str(task.subject(volume.name)))
    check_ownership(volume.permissions, None, task.found, str(task.subject(have.name)))
    before = {"path": have.path, **volume_facts(have)}
    yield Change(
        task.subject(have.name),
        "recreate",
        f"volume {task.goal.pool}/{have.name}: make it anew ({_described(volume)})",
        before,
        {**_instead(before, volume, task), **_claims(volume, task)},
        volume,
        destroys=", and ".join((f"the content of {have.path}", *left_there(volume, task))),
        requires=(
            *guarded(have, entry.allow, task.found.unseen, stays_while_open(have, task.found)),
            *_made_from(entry, task),
        ),
        needs=task.parents(entry),
    )


def _instead(before: dict[str, Any], volume: Volume, task: VolumesTask) -> dict[str, Any]:
    """What the new volume has of all that the old one had, and of its own options, unless more is declared."""
    gone = {name: None if name in _GONE else UNKNOWN for name in before}
    if volume.format is None or task.found.storage.kind == UNSEEN:
        return gone
    own = format_row(volume.format).options
    changing = [name for name in DEFAULTS if name in own or name in before]
    return {**gone, **{name: DEFAULTS[name] if name in own else None for name in changing}}


def _made_from(entry: VolumeGoal, task: VolumesTask) -> tuple[Condition, ...]:
    """What a volume is made from must still be the file that was looked at, unless this task changes it first."""
    conditions: list[Condition] = []
    for reference in (entry.volume.backing, entry.volume.content):
        key = "" if reference is None else reference.path or reference.volume or ""
        image = task.found.images.get(key)
        if image is not None and image.volume is not None and not set(task.parents(entry)) & set(task.goal.by_name):
            conditions += same_file(image.volume)
    return tuple(conditions)


def link_refused(have: Volume, task: VolumesTask) -> StorageError:
    return task.refuse(
        "volume_foreign",
        have.name,
        f"{have.path} is a symbolic link to {have.link_target}: what it points to is not changed",
        f"Change {have.link_target} where it belongs.",
    )


def check_parents_stay(entry: VolumeGoal, task: VolumesTask) -> None:
    """Raises ``parent_removed`` where the same task removes what a volume is made from."""
    for parent in task.parents(entry):
        if parent in task.doomed_names:
            raise task.refuse(
                "parent_removed",
                entry.volume.name,
                f"volume {task.goal.pool}/{entry.volume.name} is made from {parent}, which the same task removes",
                "Keep it, or remove it in a later task.",
            )


def _described(volume: Volume) -> str:
    size = "size known after apply" if volume.capacity is None else format_size(volume.capacity)
    words = [size]
    if volume.format is not None or volume.type != "block":
        words.insert(0, volume.format or "format known after apply")
    if volume.thin_pool is not None:
        words.append(f"thin, from {volume.thin_pool}")
    if volume.backing is not None:
        words.append(f"backed by {volume.backing.volume or volume.backing.path}")
    if volume.content is not None:
        words.append(f"content from {volume.content.volume or volume.content.path or 'the task'}")
    return ", ".join(words)


def _claims(volume: Volume, task: VolumesTask) -> dict[str, Any]:
    """What the volume will be, as far as it was declared or follows from it."""
    claims: dict[str, Any] = {"path": volume.path or UNKNOWN, "format": UNKNOWN, "capacity": UNKNOWN}
    if volume.type == "block":
        del claims["format"]
    claims.update(volume_facts(volume))
    if volume.capacity is not None and task.found.rounds(volume.capacity):
        claims["capacity"] = UNKNOWN
    if task.found.row.partitions and task.found.storage.kind == UNSEEN:
        claims["format"] = UNKNOWN  # the daemon doesn't read it back
    return claims
