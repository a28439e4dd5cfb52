# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Removing a volume, and what is never removed or touched since it is none."""

from __future__ import annotations

from collections.abc import Iterator

from ..model.change import Change
from ..model.facts import volume_facts
from ..model.goal import VolumeGoal
from ..model.types import kind_of_volume
from ..model.volume import Volume
from .guards import guard_unused, guarded, same_file, stays_while_open
from .task import VolumesTask


def check_is_volume(have: Volume, task: VolumesTask) -> None:
    """Raises for what stands under a volume's name and is no image that can be read."""
    is_one = have.type in (task.found.row.volumes, None)
    what = have.foreign or ("" if is_one else kind_of_volume(have.type))
    if what and task.found.row.volumes == "block":
        wrong, hint = f"{have.name} is {what}, not a volume of its own", "Declare that, or another one."
        raise task.refuse("volume_foreign", have.name, wrong, hint)
    if what:
        raise task.refuse(
            "volume_foreign",
            have.name,
            f"{have.path} is {what}, not an image: it is left alone",
            "Move it away, or use another name.",
        )
    if have.problem:
        raise task.refuse(
            "volume_malformed" if have.type is not None else "not_readable",
            have.name,
            f"{have.path}: {have.problem}",
            "It is left alone. Repair it or move it away, or run as a user who may read it (become: true).",
        )


def delete(entry: VolumeGoal, task: VolumesTask, backing_word: str = "backing") -> Iterator[Change]:
    """``backing_word``: the word that lets a volume go that others are backed by."""
    name = entry.volume.name
    have = task.found.volumes.get(name)
    if have is None:
        return
    if not task.found.is_volume(have):
        check_is_volume(have, task)
    task.check_can(name, "remove")
    destroys = "" if have.link_target is not None else f"the content of {have.path}"
    if destroys:
        subject, users = str(task.subject(name)), task.found.users.get(name, ())
        guard_unused(subject, users, entry.allow, "deleted", task, backing_word, name)
    if task.found.table is not None:
        from .cutting import check_removal

        check_removal(name, task)
    yield Change(
        task.subject(name),
        "delete",
        f"volume {task.goal.pool}/{name}: delete it",
        {"path": have.path, **volume_facts(have)},
        None,
        have,
        destroys=destroys,
        requires=guarded(have, entry.allow, task.found.unseen, stays_while_open(have, task.found))
        if destroys
        else same_file(have),
        needs=task.related(name),
    )
