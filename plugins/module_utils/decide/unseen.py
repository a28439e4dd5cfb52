# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes that only a daemon can look at: block devices, images on the network, and whatever is on another host.

What the daemon can do with them is a row of the table of types (libvirt, storage driver: support matrix).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..model.change import Change
from ..model.errors import StorageError
from ..model.goal import VolumeGoal
from ..model.units import format_size
from ..model.volume import Volume
from .task import VolumesTask

_IMAGE_OPTIONS = ("compat", "cluster_size", "lazy_refcounts", "extended_l2", "preallocation", "nocow")
_WORDS = {
    "create": "created",
    "clone": "made from another one",
    "recreate": "made anew",
    "remove": "deleted",
    "resize": "resized",
    "amend": "amended",
    "rebase": "put on another backing",
    "permissions": "given another owner, group or mode",
}
_ELSEWHERE = {
    "logical": "Do it on that host (lvextend and the like), then let the daemon look again (virsh pool-refresh).",
    "zfs": "Do it on that host (zfs set volsize), then let the daemon look again (virsh pool-refresh).",
    "iscsi": "Do it where the target is served from.",
    "iscsi-direct": "Do it where the target is served from.",
    "gluster": "Do it in a netfs pool on the same Gluster volume (source.format: glusterfs).",
}


def cannot(doing: str, name: str, task: VolumesTask) -> StorageError:
    row = task.found.row
    return task.refuse(
        "daemon_cannot",
        name,
        f"the daemon can't do that: volumes of {row.name} pools are not {_WORDS[doing]} through it",
        _ELSEWHERE.get(row.name, "Run the task on the host of the pool itself, as root."),
    )


def unseen_refusal(changes: Iterable[Change], task: VolumesTask) -> StorageError | None:
    """The first change for which the daemon has no call."""
    for change in changes:
        if change.subject.volume is None:
            continue
        for doing in _needed(change):
            if doing not in task.found.row.daemon:
                return cannot(doing, change.subject.volume, task)
    return None


def _needed(change: Change) -> tuple[str, ...]:
    """The calls that a change takes, in the words of the table; its own action where there is no such call."""
    if change.action == "delete":
        return ("remove",)
    if change.action not in ("create", "recreate"):
        return (change.action,)
    volume: Volume = change.wanted
    needed = ["create"] if change.action == "create" else ["remove", "create"]
    if volume.content is not None and volume.content.volume is not None:
        needed.append("clone")
    return tuple(needed)


def settle_plain(entry: VolumeGoal, task: VolumesTask) -> Volume:
    """A declared block device or network image with everything filled in that is known of it before it is made."""
    volume, row, name = entry.volume, task.found.row, entry.volume.name
    if volume.format not in (None, "raw", *row.volume_formats):
        kinds = ", ".join(row.volume_formats) or "raw"
        raise task.refuse(
            "format_unsupported",
            name,
            f"volumes of {row.name} pools are not {volume.format}",
            f"Leave format out, or give one of: {kinds}.",
        )
    given = [option for option in _IMAGE_OPTIONS if getattr(volume, option) is not None]
    if volume.backing is not None and row.name != "logical":
        given.append("backing")
    if volume.content is not None and volume.content.volume is None:
        given.append("source.path or content")
    if given:
        raise task.refuse(
            "invalid_option", name, f"volumes of {row.name} pools have no {', '.join(given)}", "Leave it out."
        )
    volume = replace(volume, format=None if volume.format == "raw" and not row.volume_formats else volume.format)
    return _sized(volume, task)


def _sized(volume: Volume, task: VolumesTask) -> Volume:
    source = None if volume.content is None else task.found.images.get(volume.content.volume or "")
    have = None if source is None or source.volume is None else source.volume.capacity
    if volume.content is not None and have is None and volume.content.volume not in task.goal.by_name:
        missing = task.refuse(
            "source_missing", volume.name, f"the source {volume.content.volume} is not there", "Name what is there."
        )
        task.missing.append(missing)
    if have is not None and volume.capacity is not None and volume.capacity < have and not volume.at_least:
        raise task.refuse(
            "capacity_too_small",
            volume.name,
            f"the source has {format_size(have)}, more than the {format_size(volume.capacity)} asked for",
            "Ask for at least as much, or leave capacity out to take the source's.",
        )
    capacity = max(volume.capacity or 0, have or 0) or None
    if capacity is None and volume.content is None and volume.backing is None:
        raise task.refuse(
            "capacity_missing",
            volume.name,
            f"volume {volume.name} is not there, and no capacity was given",
            "Give capacity, or what it is made from (source).",
        )
    return replace(volume, capacity=capacity)
