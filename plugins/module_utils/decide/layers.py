# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""A pool on a volume of another one: what was found of that becomes the device that its definition names."""

from __future__ import annotations

from dataclasses import replace

from ..model.change import UNKNOWN
from ..model.found import Layer
from ..model.goal import PoolGoal
from ..model.pool import SourceDevice


def settled(goal: PoolGoal, layer: Layer, defined: bool) -> PoolGoal:
    """The goal with the path of the volume. One that is not known is left as a ``defined`` pool has it; of a new pool
    only doing reveals it.
    """
    volume = goal.pool.source_volume
    path = layer.path or (None if defined else repr(UNKNOWN))
    devices = None if path is None or volume is None else (SourceDevice(path, volume.part_separator),)
    source = replace(goal.pool.source, devices=devices)
    return replace(goal, pool=replace(goal.pool, source=source, source_volume=None), missing=layer.missing)
