# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a task declares: nouns plus the state they should have and what may happen to get there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .errors import StorageError
from .pool import Pool
from .volume import Volume


@dataclass(frozen=True)
class PoolGoal:
    """``missing``: the volume that is to be its device could not be looked at, which an earlier task may mend."""

    pool: Pool
    state: str = "active"
    autostart: bool | None = None
    build: str = "auto"
    allow: frozenset[str] = frozenset()
    missing: StorageError | None = None


@dataclass(frozen=True)
class VolumeGoal:
    volume: Volume
    state: str = "present"
    recreate: str = "never"
    allow: frozenset[str] = frozenset()


@dataclass(frozen=True)
class VolumesGoal:
    """The volumes of one pool. ``exclusive`` is a shell pattern: volumes that match and are not listed go. ``doubts``:
    what is declared so, and hardly meant.
    """

    pool: str
    volumes: tuple[VolumeGoal, ...] = ()
    exclusive: str | None = None
    doubts: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, VolumeGoal]:
        return {entry.volume.name: entry for entry in self.volumes}


@dataclass(frozen=True)
class Scope:
    """How far an observation looks. ``pool`` names the pool and may carry what is declared of it.

    ``volumes``: names, or None for all. ``named``: those whose place is looked at even if no volume is there.
    ``headers``: read image headers too. ``raw``: volumes that are declared raw, and are taken as that whatever a guest
    has written into them. ``images`` and ``sources``: what volumes are made from, as volume names of the pool or
    absolute paths; of sources it is also asked who writes to them. ``neighbours``: read the other definitions.
    ``contents``: volume name to number of bytes whose digest is wanted. ``holds``: list what its directory holds.
    ``boots``: it is asked who starts pools at boot. ``stops``: the pool may be stopped, and so what devices it has
    matters. ``rebuilds``: it may be built anew over the storage that it runs on, and so what that holds matters.
    """

    pool: Pool
    volumes: tuple[str, ...] | None = ()
    named: tuple[str, ...] = ()
    headers: bool = True
    raw: frozenset[str] = frozenset()
    images: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    neighbours: bool = False
    contents: tuple[tuple[str, int], ...] = ()
    holds: bool = False
    boots: bool = False
    stops: bool = False
    rebuilds: bool = False
