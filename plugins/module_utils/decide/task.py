# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The whole declaration of a pool's volumes and the whole look at them, as far as one volume's decision needs them."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from ..model.change import Subject
from ..model.errors import StorageError
from ..model.found import UNSEEN, Found
from ..model.goal import VolumeGoal, VolumesGoal
from ..model.volume import Backing, Content, Sought, Volume
from .compare import differences


def extra_volumes(goal: VolumesGoal, found: Found) -> tuple[str, ...]:
    """The volumes that ``exclusive`` removes: those whose names match and that are not listed."""
    if goal.exclusive is None:
        return ()
    return tuple(
        sorted(
            name
            for name, volume in found.volumes.items()
            if name not in goal.by_name and found.is_volume(volume) and fnmatch.fnmatchcase(name, goal.exclusive)
        )
    )


def pool_of(volume: Volume) -> Backing | None:
    """The volume that its space comes from, as what it is made from."""
    return None if volume.thin_pool is None else Backing(volume=volume.thin_pool)


@dataclass(frozen=True)
class VolumesTask:
    """``missing``, ``warnings``, ``refusals`` (of what is planned all the same), ``settled`` (what is made) and
    ``sought`` (what is looked for anew) are gathered while deciding.
    """

    goal: VolumesGoal
    found: Found
    missing: list[StorageError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusals: list[StorageError] = field(default_factory=list)
    settled: dict[str, Volume] = field(default_factory=dict)
    sought: list[Sought] = field(default_factory=list)
    _remade: dict[str, bool] = field(default_factory=dict)

    def subject(self, name: str) -> Subject:
        return Subject(self.goal.pool, name)

    def refuse(self, code: str, name: str, message: str, hint: str, word: str = "") -> StorageError:
        return StorageError(code, message, subject=str(self.subject(name)), hint=hint, word=word)

    def check_can(self, name: str, *doings: str) -> None:
        """Raises ``not_supported`` where volumes of this type of pool can't be that here. What a daemon can't do is
        told of the whole plan: see unseen.py.
        """
        lacking = [doing for doing in doings if doing not in self.found.can]
        if lacking and self.found.storage.kind != UNSEEN:
            from .unseen import cannot

            raise cannot(lacking[0], name, self)

    @cached_property
    def doomed(self) -> tuple[str, ...]:
        """What this task removes, overlays before what they are built on."""
        names = [entry.volume.name for entry in self.goal.volumes if entry.state == "absent"]
        waiting = dict.fromkeys((*names, *extra_volumes(self.goal, self.found)))
        order: dict[str, None] = {}
        stack = list(reversed(waiting))
        entered = set()
        while stack:
            name = stack[-1]
            overlays = [] if name in entered else [o for o in self._above.get(name, ()) if o in waiting]
            entered.add(name)
            if any(overlay not in entered for overlay in overlays):
                stack += [overlay for overlay in overlays if overlay not in entered]
            else:
                order[stack.pop()] = None
        return tuple(order)

    @cached_property
    def doomed_names(self) -> frozenset[str]:
        return frozenset(self.doomed)

    @cached_property
    def doomed_paths(self) -> frozenset[str]:
        return frozenset(filter(None, map(self.found.volume_path, self.doomed)))

    @cached_property
    def _below(self) -> dict[str, str]:
        """The volume of this pool that each found volume is built on."""
        below = {}
        for name, volume in self.found.volumes.items():
            base = self.volume_of(volume.backing) if volume.backing is not None else None
            if base is not None and base != name:
                below[name] = base
        return below

    @cached_property
    def _above(self) -> dict[str, list[str]]:
        above: dict[str, list[str]] = {}
        for name, base in self._below.items():
            above.setdefault(base, []).append(name)
        names = {volume.path: name for name, volume in self.found.volumes.items()}
        for base, users in self.found.users.items():
            overlays = [names[user.who] for user in users if user.kind == "overlay" and user.who in names]
            above.setdefault(base, []).extend(overlays)
        return above

    def overlays(self, name: str) -> tuple[str, ...]:
        """The found volumes of this pool that are built on a volume, be it by way of files elsewhere."""
        return tuple(dict.fromkeys(self._above.get(name, ())))

    @cached_property
    def _bases(self) -> dict[str, tuple[str, ...]]:
        bases: dict[str, dict[str, None]] = {}
        for base, overlays in self._above.items():
            for name in overlays:
                bases.setdefault(name, {})[base] = None
        for name, members in self.found.chains.items():
            nearest = self.nearest(members[1:])
            if nearest is not None:
                bases.setdefault(name, {})[nearest] = None
        return {name: tuple(below) for name, below in bases.items()}

    def bases(self, name: str) -> tuple[str, ...]:
        """The volumes of this pool that a found volume is built on, be it by way of files elsewhere."""
        return self._bases.get(name, ())

    def nearest(self, members: Iterable[tuple[int, ...]]) -> str | None:
        """The first of these files that is a volume which was looked at."""
        return next((self._by_identity[member] for member in members if member in self._by_identity), None)

    @cached_property
    def _by_identity(self) -> dict[tuple[int, ...] | None, str]:
        return {volume.identity: name for name, volume in self.found.volumes.items() if volume.identity is not None}

    def remade(self, entry: VolumeGoal) -> bool:
        """Whether an existing volume is made anew, which loses its content."""
        have = self.found.volumes.get(entry.volume.name)
        if have is None or entry.state != "present" or entry.recreate == "never":
            return False
        if entry.recreate == "always":
            return True
        name = entry.volume.name
        if name not in self._remade:
            self._remade[name] = any(not each.in_place for each in differences(entry.volume, have, self.found))
        return self._remade[name]

    def volume_of(self, reference: Backing | Content) -> str | None:
        """The volume of this pool that is meant, by its name or its path; None for a file elsewhere."""
        if reference.volume is not None or reference.path is None:
            return reference.volume
        if reference.path in self._devices:
            return self._devices[reference.path]
        resolved, directory = self.found.resolved, self.found.storage.path or ""
        path = resolved.get(reference.path, reference.path)
        inside = posixpath.dirname(path) == resolved.get(directory, directory)
        return posixpath.basename(path) if inside else None

    @cached_property
    def _devices(self) -> dict[str, str]:
        """Volumes that are devices, by what they are called: of LVM that leads to nodes which say nothing of them."""
        volumes = self.found.volumes.values() if self.found.row.volumes == "block" else ()
        return {path: volume.name for volume in volumes for path in (volume.path, *volume.aliases) if path is not None}

    def parents(self, entry: VolumeGoal) -> tuple[str, ...]:
        """The volumes of this pool that an entry declares to be made from."""
        if entry.state != "present":
            return ()
        references = (entry.volume.backing, entry.volume.content, pool_of(entry.volume))
        names = (self.volume_of(reference) for reference in references if reference is not None)
        return tuple(name for name in names if name is not None)

    def related(self, name: str) -> tuple[str, ...]:
        """The volumes whose changes can't run beside this one's: what it is built on, and what is built on it."""
        names = dict.fromkeys((*self._above.get(name, ()), *self.bases(name)))
        return tuple(other for other in names if other != name and other in self._touched)

    @cached_property
    def _touched(self) -> frozenset[str]:
        return frozenset((*self.goal.by_name, *self.doomed))
