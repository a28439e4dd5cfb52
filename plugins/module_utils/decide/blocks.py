# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes that are block devices cut out of a pool by its backend: logical volumes, partitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..model.facts import permissions_facts
from ..model.goal import VolumeGoal
from ..model.units import round_up
from ..model.volume import Volume
from .task import VolumesTask

_IMAGE_OPTIONS = ("compat", "cluster_size", "lazy_refcounts", "extended_l2", "preallocation", "nocow")


def settle_block(entry: VolumeGoal, task: VolumesTask) -> Volume:
    """A declared block volume with everything filled in that is known of it before it is made. Raises where its type of
    pool has no such volumes.
    """
    volume, row = entry.volume, task.found.row
    _check_name(volume, task)
    _check_options(volume, task)
    check_format(volume, (*row.volume_formats, *row.made_here), task)
    if row.made_here:
        from .allocated import settle_made

        volume = settle_made(entry, task)
    if volume.capacity is None and volume.backing is None and volume.content is None:
        raise task.refuse(
            "capacity_missing",
            volume.name,
            f"volume {volume.name} is not there, and no capacity was given",
            "Give capacity.",
        )
    if task.found.table is not None:
        from .cutting import settle_partition

        volume = _with_content(entry, volume, task)
        if not volume.capacity:
            what = f"volume {task.goal.pool}/{volume.name} can't be made: there are no partitions of 0 bytes"
            raise task.refuse("invalid_size", volume.name, what, "Give the capacity that it is to have.")
        return settle_partition(volume, volume.capacity, task)
    capacity = None if volume.capacity is None else round_up(volume.capacity, task.found.granule)
    allocation = capacity if volume.allocation is None else round_up(volume.allocation, task.found.granule)
    path = task.found.volume_path(volume.name)
    kind = None if volume.format == "raw" else volume.format  # it is not written anywhere that it is raw
    return replace(volume, type="block", path=path, format=kind, capacity=capacity, allocation=allocation)


def _check_name(volume: Volume, task: VolumesTask) -> None:
    """A volume that is there already has its name, whatever it is."""
    pattern = task.found.row.names
    if pattern and volume.name not in task.found.volumes and not re.match(pattern, volume.name, re.ASCII):
        raise task.refuse(
            "invalid_name",
            volume.name,
            f"the volume name {volume.name!r} can't be that of a volume of a {task.found.row.name} pool",
            "Use letters, digits and + _ . -, and no name that is reserved there: see the page of the pool type.",
        )


def _with_content(entry: VolumeGoal, volume: Volume, task: VolumesTask) -> Volume:
    """With what its source tells. What is written to a block device is raw, whatever the volume is for."""
    if volume.content is None:
        return volume
    from .images import settle_content

    return replace(settle_content(entry, replace(volume, format="raw"), task), format=volume.format)


def _check_options(volume: Volume, task: VolumesTask) -> None:
    given = list(permissions_facts(volume.permissions))  # of a device node, which udev makes anew each time
    if volume.thin_pool is not None and not task.found.row.made_here:
        given.append("thin_pool")
    way_out = "Leave it out; a rule of udev gives an owner and a mode to a device each time it appears."
    check_options(volume, given, task, way_out)


def check_options(volume: Volume, more: Sequence[str], task: VolumesTask, way_out: str = "Leave it out.") -> None:
    """Raises ``invalid_option`` for what only image files have, and for ``more`` that is given."""
    given = [*(option for option in _IMAGE_OPTIONS if getattr(volume, option) is not None), *more]
    if given:
        what = f"volumes of {task.found.row.name} pools have no {', '.join(given)}"
        raise task.refuse("invalid_option", volume.name, what, way_out)


def check_format(volume: Volume, known: Sequence[str], task: VolumesTask) -> None:
    """Raises ``format_unsupported`` for what is neither raw nor known."""
    if volume.format not in (None, "raw", *known):
        raise task.refuse(
            "format_unsupported",
            volume.name,
            f"volumes of {task.found.row.name} pools are not {volume.format}",
            f"Leave format out, or give one of: {', '.join(known) or 'raw'}.",
        )


def grown(have: Volume, size: int, wanted: int, task: VolumesTask) -> int:
    """The size that a volume gets, of which ``wanted`` was declared. Raises ``no_space`` where a partition has no room
    for that, and ``volume_backing`` where snapshots keep a volume from it.
    """
    if task.found.table is not None:
        from .cutting import resized

        return resized(have, size, wanted, task)
    if task.found.row.made_here:
        from .allocated import check_grows

        check_grows(have, size, task)
    return size


def check_shrink(have: Volume, task: VolumesTask) -> None:
    """Raises ``volume_differs`` for what can't be made smaller."""
    if have.format is not None and have.format in task.found.row.made_here:
        raise task.refuse(
            "volume_differs",
            have.name,
            f"volume {task.goal.pool}/{have.name} is a {have.format}, which can't be made smaller",
            "Declare the capacity that it has (or capacity_policy: at_least).",
        )
