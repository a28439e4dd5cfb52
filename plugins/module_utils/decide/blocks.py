# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes that are block devices cut out of a pool by its backend: logical volumes, partitions."""

from __future__ import annotations

from dataclasses import replace

from ..model.facts import permissions_facts
from ..model.goal import VolumeGoal
from ..model.units import format_size, round_up
from ..model.volume import Volume
from .task import VolumesTask

_IMAGE_OPTIONS = ("compat", "cluster_size", "lazy_refcounts", "extended_l2", "preallocation", "nocow")


def settle_block(entry: VolumeGoal, task: VolumesTask) -> Volume:
    """A declared block volume with everything filled in that is known of it before it is made. Raises where its type of
    pool has no such volumes.
    """
    volume, row = entry.volume, task.found.row
    _check_options(volume, task)
    if volume.format not in (None, "raw", *row.volume_formats):
        raise task.refuse(
            "format_unsupported",
            volume.name,
            f"volumes of {row.name} pools are not {volume.format}",
            f"Leave format out, or give one of: {', '.join(row.volume_formats) or 'raw'}.",
        )
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
        return settle_partition(volume, max(volume.capacity or 0, 1), task)
    capacity = None if volume.capacity is None else round_up(volume.capacity, task.found.granule)
    allocation = capacity if volume.allocation is None else round_up(volume.allocation, task.found.granule)
    path = task.found.volume_path(volume.name)
    return replace(volume, path=path, capacity=capacity, allocation=allocation)


def _with_content(entry: VolumeGoal, volume: Volume, task: VolumesTask) -> Volume:
    """With what its source tells. What is written to a block device is raw, whatever the volume is for."""
    if volume.content is None:
        return volume
    from .images import settle_content

    return replace(settle_content(entry, replace(volume, format="raw"), task), format=volume.format)


def _check_options(volume: Volume, task: VolumesTask) -> None:
    given = [option for option in _IMAGE_OPTIONS if getattr(volume, option) is not None]
    given += list(permissions_facts(volume.permissions))  # of a device node, which udev makes anew each time
    if given:
        raise task.refuse(
            "invalid_option",
            volume.name,
            f"volumes of {task.found.row.name} pools have no {', '.join(given)}",
            "Leave it out; a rule of udev gives an owner and a mode to a device each time it appears.",
        )


def grown(have: Volume, size: int, wanted: int, task: VolumesTask) -> int:
    """The size that a volume gets, of which ``wanted`` was declared. Raises ``no_space`` where it would grow by more
    than the pool has left.
    """
    if task.found.table is not None:
        from .cutting import resized

        return resized(have, size, wanted, task)
    usage, more = task.found.usage, size - (have.capacity or 0)
    if usage is not None and more > usage.available:
        raise task.refuse(
            "no_space",
            have.name,
            f"{format_size(more)} more are asked for; pool {task.goal.pool} has {format_size(usage.available)} left",
            "Free some space, or ask for less.",
        )
    return size
