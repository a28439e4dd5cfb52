# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""In which order the volumes of one task are changed, where one is built on another: before the task, or after it.

What is made from a volume comes after that volume's change. What is built on a volume now and no longer afterwards
comes before a change that loses that volume's content: a rebase reads it one last time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ..model.change import Change
from ..model.volume import Backing, Content
from .task import VolumesTask, pool_of

_READING = ("create", "recreate", "rebase")  # reads what the volume is made from


def interwoven(task: VolumesTask) -> bool:
    """Whether any volume is made from another one, as far as this task can see."""
    return (
        any(volume.backing is not None for volume in task.found.volumes.values())
        or any(v.backing or v.content or v.thin_pool for v in (entry.volume for entry in task.goal.volumes))
        or any(user.kind == "overlay" for users in task.found.users.values() for user in users)
    )


def leaving(name: str, task: VolumesTask) -> frozenset[str]:
    """The paths of the overlays of a volume that this task puts on something else, or makes anew without it."""
    listed = [overlay for overlay in task.overlays(name) if overlay in task.goal.by_name]
    gone = [overlay for overlay in listed if name not in _afterwards(overlay, task)]
    return frozenset(filter(None, map(task.found.volume_path, gone)))


def ordered(changes: Iterable[Change], task: VolumesTask) -> list[Change]:
    """The changes in an order in which no content is lost that was not to be, each with all that it has to wait for.
    Raises ``no_order``, ``backing_loop`` and ``parent_removed``.
    """
    made = list(changes)
    units: dict[str, list[Change]] = {}
    for change in made:
        if change.subject.volume is not None:
            units.setdefault(change.subject.volume, []).append(change)
    graph = _Graph(units, task)
    for name in units:
        graph.add(name)
    order = graph.sort()
    place = {name: index for index, name in enumerate(order)}
    arranged = [change for change in made if change.subject.volume is None]
    for name in order:
        earlier = sorted((o for o in graph.related[name] if place[o] < place[name]), key=place.__getitem__)
        for change in units[name]:
            elsewhere = [other for other in change.needs if other not in place]
            arranged.append(replace(change, needs=(*elsewhere, *earlier)))
    return arranged


class _Graph:
    """``after``: the volumes whose changes must follow those of a volume; ``related``: those that can't run beside
    them, in whatever order.
    """

    def __init__(self, units: dict[str, list[Change]], task: VolumesTask) -> None:
        self.units, self.task = units, task
        self.after: dict[str, set[str]] = {name: set() for name in units}
        self.related: dict[str, set[str]] = {name: set() for name in units}

    def add(self, name: str) -> None:
        now, then = _closure(name, self.task.bases), _afterwards(name, self.task)
        reads = any(change.action in _READING for change in self.units[name])
        if reads and name in then:
            raise self.task.refuse(
                "backing_loop",
                name,
                f"volume {self.task.goal.pool}/{name} would be built on itself",
                "Give another backing.",
            )
        for other in sorted((now | then) & self.units.keys() - {name}):
            self.related[name].add(other)
            self.related[other].add(name)
            if name not in self.task.doomed_names:
                self._direct(name, other, other in now, other in then, reads)

    def _direct(self, name: str, other: str, now: bool, then: bool, reads: bool) -> None:
        """``name`` is built on ``other`` now, will be then, or both."""
        destroyed = any(change.destroys for change in self.units[other])
        if then and reads and other in self.task.doomed_names:
            raise self.task.refuse(
                "parent_removed",
                name,
                f"volume {self.task.goal.pool}/{name} would be built on {other}, which the same task removes",
                "Keep it, or remove it in a later task.",
            )
        if then and now and destroyed and any(change.action == "rebase" for change in self.units[name]):
            raise self._no_order((name, other))
        if then and reads:
            self.after[other].add(name)
        elif destroyed:  # also what stays on it is changed while it can still be read
            self.after[name].add(other)

    def sort(self) -> list[str]:
        """As it was, but for what must follow something. Raises ``no_order``."""
        names = list(self.units)
        place = {name: index for index, name in enumerate(names)}
        waiting = dict.fromkeys(names, 0)
        for followers in self.after.values():
            for name in followers:
                waiting[name] += 1
        ready = [place[name] for name in names if not waiting[name]]
        order: list[str] = []
        while ready:
            name = names[heapq.heappop(ready)]
            order.append(name)
            for follower in self.after[name]:
                waiting[follower] -= 1
                if not waiting[follower]:
                    heapq.heappush(ready, place[follower])
        if len(order) < len(names):
            raise self._no_order(tuple(name for name in names if waiting[name]))
        return order

    def _no_order(self, names: Sequence[str]) -> Exception:
        return self.task.refuse(
            "no_order",
            names[0],
            f"the changes of the volumes {', '.join(names)} would each have to come before the other: "
            f"a volume would have to be read both before and after its content is lost",
            "Make the changes in two tasks: first put the overlays on what they are to be built on.",
        )


def _closure(name: str, below: Callable[[str], Iterable[str]]) -> set[str]:
    """All that can be reached, without ``name`` itself unless it is reached again."""
    seen: set[str] = set()
    waiting = list(below(name))
    while waiting:
        other = waiting.pop()
        if other not in seen:
            seen.add(other)
            waiting += below(other)
    return seen


def _afterwards(name: str, task: VolumesTask) -> set[str]:
    return _closure(name, lambda each: _made_from(each, task))


def _made_from(name: str, task: VolumesTask) -> tuple[str, ...]:
    """What a volume is built on, or made from, once the task is done."""
    entry = task.goal.by_name.get(name)
    if entry is None or entry.state != "present":
        return task.bases(name)
    made = name not in task.found.volumes or task.remade(entry)
    if not made and entry.volume.backing is None:
        return task.bases(name)
    references = [entry.volume.backing, *((entry.volume.content, pool_of(entry.volume)) if made else ())]
    return tuple(below for reference in references if reference is not None for below in _targets(reference, task))


def _targets(reference: Backing | Content, task: VolumesTask) -> tuple[str, ...]:
    """The volumes of this pool that are meant: by name, by where a link of that name leads, and of a file that was not
    looked at as a volume the nearest that it is built on.
    """
    image = task.found.images.get(reference.path or reference.volume or "")
    name = task.volume_of(reference)
    linked = None if name is None else task.volume_of(Backing(task.found.volume_path(name)))
    below = None if image is None or name in task.found.volumes else task.nearest(image.chain)
    return tuple(dict.fromkeys(each for each in (name, linked, below) if each is not None))
