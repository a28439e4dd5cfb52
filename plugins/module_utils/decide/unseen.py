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
from ..model.facts import permissions_facts
from ..model.found import UNSEEN, Found
from ..model.goal import VolumeGoal
from ..model.partitions import PRIMARIES, daemon_deletes, encloses, expected_number, number_of
from ..model.pool import Pool
from ..model.units import format_size
from ..model.volume import Volume
from .blocks import check_format, check_options
from .task import VolumesTask

_WORDS = {
    "create": "created",
    "clone": "made from another one",
    "import": "made from an image file, other than byte for byte,",
    "take": "made from the bytes of an image of another format",
    "reserve": "reserved like that",
    "recreate": "made anew",
    "remove": "deleted",
    "resize": "resized",
    "shrink": "shrunk below what is allocated",
    "amend": "amended",
    "rebase": "put on another backing",
    "permissions": "given another owner, group or mode",
}
_ON_THAT_HOST = "Run the task on the host of the pool itself, as root, where the daemon and the files are both at hand"
_INSTEAD = {
    "import": "Convert it first (qemu-img convert -O raw) and import that, or name a volume of it (source.volume).",
    "take": "Leave source.format out to have it converted.",
    "reserve": "Leave preallocation and allocation out, or use preallocation: falloc without a source or backing.",
    "shrink": "Declare more, or delete it and make it anew (recreate: always), which loses its content.",
}


def cannot(doing: str, name: str, task: VolumesTask) -> StorageError:
    """The refusal of what is not done with volumes of a type, by the daemon or here."""
    row = task.found.row
    if task.found.storage.kind != UNSEEN:
        what = f"volumes of {row.name} pools are not {_WORDS[doing]}"
        return task.refuse("not_supported", name, what, row.elsewhere or "Use a pool of another type.")
    return task.refuse(
        "daemon_cannot",
        name,
        f"the daemon can't do that: volumes of {row.name} pools are not {_WORDS[doing]} through it",
        _INSTEAD.get(doing) or row.elsewhere or f"{_ON_THAT_HOST}.",
    )


def unseen_refusal(changes: Iterable[Change], task: VolumesTask) -> StorageError | None:
    """The first change for which the daemon has no call."""
    made = [change for change in changes if change.subject.volume is not None]
    for change in made:
        for doing in _needed(change, task.found):
            if doing not in task.found.row.daemon:
                return cannot(doing, change.subject.volume or "", task)
    return _partitions_refusal(made, task) if task.found.row.partitions else None


def _needed(change: Change, found: Found) -> tuple[str, ...]:
    """The calls that a change takes, in the words of the table; its own action where there is no such call."""
    volume: Volume = change.wanted
    if change.action == "delete":
        return ("remove",)
    if change.action == "resize":
        return ("resize", *_resized(change, volume))
    if change.action not in ("create", "recreate"):
        return (change.action,)
    needed = ["create"] if change.action == "create" else ["remove", "create"]
    if volume.content is not None and volume.content.volume is not None:
        needed.append("clone")
    return (*needed, *_made(volume, found))


def _resized(change: Change, volume: Volume) -> tuple[str, ...]:
    """libvirt, storage driver: it takes the format from the header, and never goes below what is allocated."""
    if volume.looks_like:
        return ("take",)
    below = bool(change.destroys) and (volume.capacity or 0) < (volume.allocation or 0)
    return ("shrink",) if below else ()


def _made(volume: Volume, found: Found) -> tuple[str, ...]:
    """What of a new image file the daemon can't do as declared."""
    if not found.row.file_tree:
        return ()
    content, reserved = volume.content, volume.preallocation not in (None, "off")
    if content is not None and content.volume is None and {volume.format, content.format} - {"raw", None}:
        return ("import",)
    source = None if content is None else found.images.get(content.volume or "")
    header = None if source is None else source.volume
    if content is not None and header is not None and content.format not in (None, header.format):
        return ("take",)
    if reserved and (content is not None or volume.backing is not None or volume.preallocation == "full"):
        return ("reserve",)
    return ("reserve",) if volume.allocation and volume.format != "raw" else ()


# --- partitions ------------------------------------------------------------------------------------------------------


def _partitions_refusal(changes: Iterable[Change], task: VolumesTask) -> StorageError | None:
    """The daemon names a new partition itself, and where it is not named so, it makes it all the same."""
    found = task.found
    pool = found.definition or found.live
    if pool is None or not found.looked:
        return None
    names = set(found.volumes)
    for change in changes:
        name = change.subject.volume or ""
        anew = change.action == "recreate"
        if change.action == "delete" or anew:
            names.discard(name)
            if (anew or not found.beside) and not daemon_deletes(pool):
                return cannot("remove", name, task)
            refusal = _removal_refusal(name, pool, task, anew)
            if refusal is not None:
                return refusal
        if change.action == "create" or anew:
            refusal = _partition_refusal(name, names, change.wanted, task)
            if refusal is not None:
                return refusal
            names.add(name)
    return None


def from_the_end(names: Iterable[str], task: VolumesTask) -> list[str]:
    """The highest numbers first, so that logical partitions keep theirs until it is their turn."""
    pool = task.found.definition or task.found.live
    return sorted(names, key=lambda name: -((number_of(name, pool, task.found.resolved) if pool else None) or 0))


def _removal_refusal(name: str, pool: Pool, task: VolumesTask, anew: bool) -> StorageError | None:
    """What is refused of a dos label, as far as the daemon tells of that."""
    volumes = task.found.volumes
    numbers = {other: number_of(other, pool, task.found.resolved) or 0 for other in volumes}
    logical = sorted((other for other, number in numbers.items() if number > PRIMARIES), key=numbers.__getitem__)
    extended = next((each for each in volumes if any(encloses(volumes[each], volumes[one]) for one in logical)), None)
    if pool.source.format not in ("dos", "unknown", None) or extended is None:
        return None
    from .cutting import removal_refusal

    moved = [other for other in logical if name in logical and numbers[other] > numbers[name]]
    return removal_refusal(name, task, logical if name == extended else (), moved, anew)


def _partition_refusal(name: str, names: set[str], volume: Volume, task: VolumesTask) -> StorageError | None:
    pool = task.found.definition or task.found.live
    if pool is None:
        return None
    if (pool.path or "").startswith("/dev/disk/"):
        return task.refuse(
            "daemon_cannot",
            name,
            f"with the path {pool.path} the daemon takes another partition for the new one, and removes it",
            "Give the pool the path /dev, or make the partition on that host (parted), then virsh pool-refresh.",
        )
    number = expected_number(pool, names, extended=volume.format == "extended")
    if number is None:
        return task.refuse(
            "no_space", name, "the partition table has no room for another partition", "Delete one, or use gpt."
        )
    if number_of(name, pool, task.found.resolved) != number:
        return task.refuse(
            "invalid_name",
            name,
            f"the next partition of this disk will have the number {number}, so {name} can't be its name",
            "Name it as the kernel does: the disk's name, p where that ends in a digit, and the number.",
        )
    return None


# --- settling --------------------------------------------------------------------------------------------------------


def settle_plain(entry: VolumeGoal, task: VolumesTask) -> Volume:
    """A declared block device or network image with everything filled in that is known of it before it is made."""
    volume, row = entry.volume, task.found.row
    check_format(volume, row.volume_formats, task)
    _check_options(volume, task)
    has_formats = bool(row.volume_formats) and not (row.partitions and volume.format in ("raw", "none"))
    volume = replace(volume, format=volume.format if has_formats else None)
    return _allocated(_sized(volume, task), task)


def _check_options(volume: Volume, task: VolumesTask) -> None:
    row, name = task.found.row, volume.name
    given = [] if volume.thin_pool is None else ["thin_pool"]
    if volume.backing is not None and not row.snapshots:
        given.append("backing")
    if volume.content is not None and volume.content.volume is None:
        given.append("source.path or content")
    if row.partitions and volume.format not in (None, "none", "raw") and task.found.granule == 1:
        given.append("format, since its label is not dos")
    check_options(volume, given, task)
    declared = task.goal.by_name[name].volume if name in task.goal.by_name else volume
    if permissions_facts(declared.permissions):
        raise task.refuse(
            "daemon_cannot",
            name,
            f"the daemon can't do that: volumes of {row.name} pools have no lasting {_OWNERSHIP}",
            f"Leave {_OWNERSHIP} out; a rule of udev on that host gives them to a device each time it appears.",
        )


_OWNERSHIP = "owner, group or mode"


def _allocated(volume: Volume, task: VolumesTask) -> Volume:
    """A smaller allocation would make a snapshot that is lost once it is full."""
    if not task.found.row.snapshots:
        return volume
    if volume.allocation is not None and volume.backing is None and volume.allocation != volume.capacity:
        raise task.refuse(
            "daemon_cannot",
            volume.name,
            "the daemon would make a snapshot of nothing that is lost once it is full",
            "Leave allocation out; make a thin volume on that host (lvcreate --thin).",
        )
    return volume if volume.allocation is not None else replace(volume, allocation=volume.capacity)


def _sized(volume: Volume, task: VolumesTask) -> Volume:
    source = None if volume.content is None else task.found.images.get(volume.content.volume or "")
    have = None if source is None or source.volume is None else source.volume.capacity
    if volume.content is not None and have is None and volume.content.volume not in task.goal.by_name:
        missing = task.refuse(
            "source_missing",
            volume.name,
            f"the source {volume.content.volume} is not there",
            "Make it first, or name another.",
        )
        task.missing.append(missing)
    if have is not None and volume.capacity is not None and volume.capacity < have and not volume.at_least:
        raise task.refuse(
            "capacity_too_small",
            volume.name,
            f"the source has {format_size(have)}, more than the {format_size(volume.capacity)} asked for",
            "Ask for at least as much, or leave capacity out to take the source's.",
        )
    if volume.content is not None and have is None and volume.content.volume in task.goal.by_name:
        have = task.goal.by_name[volume.content.volume].volume.capacity
    if volume.content is not None:
        volume = replace(volume, content=replace(volume.content, capacity=have))
    capacity = max(volume.capacity or 0, have or 0) or None
    if capacity is None and volume.content is None and volume.backing is None:
        raise task.refuse(
            "capacity_missing",
            volume.name,
            f"volume {volume.name} is not there, and no capacity was given",
            "Give capacity, or what it is made from (source).",
        )
    return replace(volume, capacity=capacity)
