# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Logical units of SCSI hosts as volumes, for all types whose units others serve.

``units(host, target)`` of host/scsi.py lists the disks of the host with that number, or of one of its targets
(``H:B:T``), from sysfs alone. ``observe_units`` makes them the volumes of a pool, and their sum its usage: that is all
of a backend's ``observe_volumes``. ``rescan`` is the operation, for starting a pool and for whatever else changes
something, that lets the kernel look for new units and for new sizes, and waits until what it found can be used;
looking never does that. A unit that is no longer served has the size 0 after it. A task that declares a volume
which is not there, is smaller, or can't be used gets one change ``refresh`` of the pool, whose ``wanted`` are the
volumes sought, where the row has ``appear``: ``lower_volumes`` makes it a ``rescan``, which fails where they do not
turn up (``source_missing``).

A unit is called ``unit:BUS:TARGET:LUN``. Its path is the first link that leads to it in the pool's directory, or its
node where that is /dev; its key is what scsi_id says. One without a link, without a size or without a way to it is a
record with a problem. A path of a multipath map is no volume: it is told only to who asks for its name, and to tasks
about the pool itself, which may take it away from the map.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..host.scsi import Unit
from ..model.found import Found, Usage
from ..model.goal import Scope
from ..model.operations import ScanUnits
from ..model.volume import Sought, Volume
from .links import DEV, links_to

if TYPE_CHECKING:
    from ..host.look import Look


def observe_units(
    found: Found, scope: Scope, look: Look, units: Sequence[Unit], directory: str | None, ports: bool = False
) -> Found:
    """Adds the units that are asked for as volumes, and the usage of all. ``ports``: one may be there several times, by
    several ports, so that the port is a part of its key.
    """
    directory = directory or DEV
    nodes = [unit.device.node for unit in units if unit.device is not None and not unit.map]
    links = links_to(nodes, directory, look)
    asked = [unit for unit in units if _is_asked_for(unit, scope)]
    volumes = {unit.name: _volume(unit, directory, links, ports) for unit in asked}
    total = sum(unit.device.size for unit in units if unit.device is not None and not unit.map)
    return replace(found, volumes=volumes, usage=Usage(total, total, 0))


def _is_asked_for(unit: Unit, scope: Scope) -> bool:
    if scope.volumes is None:
        return not unit.map or scope.neighbours
    return unit.name in scope.volumes or unit.name in scope.named


def rescan(host: int, target: str = "", sought: Sequence[Sought] = ()) -> ScanUnits:
    return ScanUnits(host, target, tuple(sought))


def _volume(unit: Unit, directory: str, links: dict[str, str], ports: bool) -> Volume:
    device = unit.device
    if device is None:
        return Volume(unit.name, type="block", problem=unit.problem)
    path = device.node if os.path.normpath(directory) == DEV else links.get(device.node)
    volume = Volume(
        unit.name,
        capacity=device.size,
        allocation=device.size,
        physical=device.size,
        type="block",
        path=path,
        key=_key(unit, ports) or path,
        identity=device.identity,
        problem=unit.problem or ("" if path else f"no link in {directory} leads to {device.node}"),
    )
    if not unit.map:
        return volume
    return replace(volume, foreign=f"a path of the multipath map {unit.map} (/dev/mapper/{unit.map})")


def _key(unit: Unit, ports: bool) -> str:
    if not ports:
        return unit.serial
    return f"{unit.serial}_PORT{unit.port}" if unit.serial and unit.port else ""
