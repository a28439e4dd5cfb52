# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Multipath pools: all multipath maps of the host are the volumes (formatstorage: "Multipath pools"). Starting and
stopping one is only a note. libvirt calls a map by its minor number, which is another one after the next boot; here it
has the name that it has in /dev/mapper, through a daemon too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..host.block import Device
from ..host.multipath import maps, node_of
from ..model.change import Change
from ..model.found import READY, Found, Part, Storage, Usage, User
from ..model.goal import Scope
from ..model.operations import Step
from ..model.pool import Pool
from ..model.volume import Volume, passing_name

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes

_PART = Part("maps", "the multipath maps of this host", READY)


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    """Without any there is nothing wrong with it."""
    return Storage(READY, pool.path, parts=(_PART,))


def observe_volumes(found: Found, scope: Scope, look: Look) -> Found:
    there = look.once("maps", maps)
    volumes = {device.dm_name: _volume(device) for device in there}
    if scope.volumes is not None:
        others = {device.name: _by_number(device) for device in there}
        asked = {*scope.volumes, *scope.named}
        volumes = {name: volume for name, volume in {**others, **volumes}.items() if name in asked}
    total = sum(device.size for device in there)
    return replace(found, volumes=volumes, usage=Usage(total, total, 0))


def _volume(device: Device) -> Volume:
    return Volume(
        device.dm_name,
        capacity=device.size,
        allocation=device.size,
        physical=device.size,
        type="block",
        path=node_of(device),
        key=node_of(device),
        identity=device.identity,
        problem="" if device.size else "it has no size, as one without paths",
    )


def _by_number(device: Device) -> Volume:
    """To who asks for libvirt's name."""
    return replace(_volume(device), name=device.name, foreign=passing_name(device.dm_name))


def busy(pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    return (), ()


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    return []


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> Sequence[Step]:
    return ()
