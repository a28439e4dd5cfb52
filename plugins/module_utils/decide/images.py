# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a new volume is made from, settled: formats, sizes and paths, and every reason why it can't be made."""

from __future__ import annotations

from dataclasses import replace

from ..model.errors import StorageError
from ..model.found import UNSEEN, Found, Image
from ..model.goal import VolumeGoal, VolumesGoal
from ..model.pool import Permissions
from ..model.qcow2 import qcow2_limit, qcow2_problem
from ..model.types import THIN_POOL, VOLUME_FORMATS, kind_of_volume
from ..model.units import SIZE_LIMIT, format_size, round_up
from ..model.volume import Backing, Content, Volume
from .task import VolumesTask

_NO_SOURCE = "Look at how it is spelled, or put the image there first."
PERMISSIONS = ("owner", "group", "mode")


def _refuse(code: str, message: str, goal: VolumesGoal, name: str, hint: str) -> StorageError:
    return StorageError(code, message, subject=f"volume {goal.pool}/{name}", hint=hint)


def settle_new(entry: VolumeGoal, task: VolumesTask) -> Volume:
    """``settle`` for a volume that is made, for the first time or anew, once per task."""
    name = entry.volume.name
    if name not in task.settled:
        have = task.found.volumes.get(name)
        declared = entry.volume if have is None else _completed(entry.volume, have, task)
        task.settled[name] = settle(replace(entry, volume=declared), task)
    return task.settled[name]


def _completed(declared: Volume, have: Volume, task: VolumesTask) -> Volume:
    """What is not declared stays as it was. An image of another format that is made anew as raw keeps the size that a
    guest saw, not that of its file.
    """
    size = have.looks_capacity if have.looks_like == "qcow2" and have.looks_capacity is not None else have.capacity
    if have.type == "block":  # udev gives permissions to a device
        permissions = declared.permissions
    else:
        permissions = _kept_permissions(declared.permissions, have.permissions)
    made_from = declared.content is not None or declared.backing is not None
    return replace(
        declared,
        identity=have.identity,
        format=_kept_format(declared, have, task),
        capacity=size if declared.capacity is None and not made_from else declared.capacity,
        permissions=permissions,
        thin_pool=declared.thin_pool or (None if declared.backing is not None else have.thin_pool),
    )


def _kept_format(declared: Volume, have: Volume, task: VolumesTask) -> str | None:
    """That of a partition says what it is for, whatever is written into it."""
    if task.found.table is not None:
        return have.format if declared.format in (None, "none", "raw") else declared.format
    known = have.format if have.format in (*VOLUME_FORMATS, THIN_POOL) else None
    return declared.format or (None if declared.content is not None else known)


def _kept_permissions(declared: Permissions, have: Permissions) -> Permissions:
    kept = {name: getattr(have if getattr(declared, name) is None else declared, name) for name in PERMISSIONS}
    return Permissions(**kept)


def settle(entry: VolumeGoal, task: VolumesTask) -> Volume:
    """The declared volume with everything filled in that follows from what was found. Raises where it can't be made;
    adds to ``missing`` what an earlier task of the play may make.
    """
    goal, found = task.goal, task.found
    if entry.volume.encryption is not None and found.storage.kind != UNSEEN and found.looked:
        raise _refuse(
            "encryption_unsupported",
            "encrypted volumes are not made here",
            goal,
            entry.volume.name,
            "Make it with virsh vol-create, then declare it: an encrypted volume that is there is adopted.",
        )
    if found.row.volumes != "file" and found.storage.kind == UNSEEN:
        from .unseen import settle_plain

        return settle_plain(entry, task)
    if found.row.volumes != "file":
        from .blocks import settle_block

        return settle_block(entry, task)
    if not found.looked and (entry.volume.thin_pool is not None or entry.volume.format == THIN_POOL):
        return entry.volume  # the pool that an earlier task would have made is none of files
    volume = replace(entry.volume, path=found.volume_path(entry.volume.name))
    if volume.thin_pool is not None:
        raise _refuse(
            "invalid_option",
            f"volumes of {found.row.name} pools have no thin_pool",
            goal,
            volume.name,
            "Leave it out: files take no space before they are written, unless allocation says so.",
        )
    volume = settle_content(entry, volume, task)
    if volume.format is None and volume.content is None and found.looked:
        volume = replace(volume, format="raw")
    volume = _settle_backing(volume, task)
    _check_kind(volume, goal)
    _check_qcow2(volume, goal)
    check_capacity(volume, task)
    return _rounded(volume)


def _rounded(volume: Volume) -> Volume:
    """As qemu-img makes it: sizes of whole granules; a fully allocated qcow2 image has its metadata reserved too."""
    capacity = volume.capacity
    if volume.format != "qcow2" or capacity is None:
        return volume
    full = (volume.allocation or 0) >= capacity > 0 and volume.preallocation is None and volume.content is None
    if full and (volume.backing is None or volume.extended_l2):
        volume = replace(volume, preallocation="falloc", allocation=None)
    return replace(volume, capacity=round_up(capacity, VOLUME_FORMATS["qcow2"].granule))


def _look_up(reference: Backing | Content, task: VolumesTask) -> tuple[str, Image | None, VolumeGoal | None]:
    """What another volume is made from: its key, what is there of it, and what this task makes of it."""
    key = reference.path or reference.volume or ""
    return key, task.found.images.get(key), task.goal.by_name.get(task.volume_of(reference) or "")


def _made_anew(image: Image | None, declared: VolumeGoal | None, task: VolumesTask) -> Volume | None:
    """What this task makes, for the first time or anew, and something else is made from; None where it makes nothing
    of that, and what is there counts.
    """
    if declared is None or declared.state != "present":
        return None
    there = image is not None and image.volume is not None
    return None if there and not task.remade(declared) else settle_new(declared, task)


def _capacity_then(image_capacity: int | None, declared: VolumeGoal | None) -> int | None:
    """The size that an existing image will have once this task has changed it as declared."""
    volume = declared.volume if declared is not None and declared.state == "present" else None
    if volume is None or volume.capacity is None or image_capacity is None:
        return image_capacity
    if volume.at_least and image_capacity >= volume.capacity:
        return image_capacity
    granule = VOLUME_FORMATS[volume.format].granule if volume.format in VOLUME_FORMATS else 1
    met = volume.capacity <= image_capacity < volume.capacity + VOLUME_FORMATS["qcow2"].granule
    return image_capacity if met else round_up(volume.capacity, granule)


# --- content ---------------------------------------------------------------------------------------------------------


def settle_content(entry: VolumeGoal, volume: Volume, task: VolumesTask) -> Volume:
    goal, found, missing = task.goal, task.found, task.missing
    content = volume.content
    if content is None:
        return volume
    if content.data is not None:
        return _settle_inline(volume, content, goal)
    key, image, declared = _look_up(content, task)
    made = _made_anew(image, declared, task)
    if made is not None:
        if found.row.volumes != "file":  # its format is the type of a partition, what backs it is the device's matter
            made = replace(made, format="raw", backing=None)
        _check_made_source(content, made, key, goal, volume.name)
        return _with_source(volume, content, found, content.format or made.format or "raw", made.capacity, goal)
    if image is None or image.volume is None:
        missing.append(_refuse("source_missing", f"the source {key} is not there", goal, volume.name, _NO_SOURCE))
        return replace(volume, content=replace(content, path=content.path or found.volume_path(key)))
    header = image.volume
    if content.format is None and declared is not None and declared.volume.format == "raw":
        content = replace(content, format="raw")  # whatever a guest wrote into it
    _check_source(entry, volume, content, image, header, key, goal)
    source_format = content.format or header.format or "raw"
    capacity = _capacity_then(header.physical if source_format == "raw" else header.capacity, declared)
    return _with_source(volume, content, found, source_format, capacity, goal)


def _check_made_source(content: Content, made: Volume, key: str, goal: VolumesGoal, name: str) -> None:
    """Raises where a source is not what this task makes of it, or can't be one."""
    if content.format is not None and made.format is not None and content.format != made.format:
        raise _refuse(
            "format_mismatch",
            f"the same task makes its source {key} as {made.format}, not {content.format}",
            goal,
            name,
            "Declare what it is, or leave the format out.",
        )
    if made.backing is not None:
        raise _refuse(
            "source_refused",
            f"{key} will be backed by {made.backing.volume or made.backing.path}",
            goal,
            name,
            "Give a source that is not backed by another image.",
        )


def _with_source(
    volume: Volume, content: Content, found: Found, source_format: str, capacity: int | None, goal: VolumesGoal
) -> Volume:
    path = content.path or found.volume_path(content.volume or "")
    if volume.capacity is None:
        volume = replace(volume, capacity=capacity)
    elif capacity is not None and volume.capacity < capacity:
        if not volume.at_least:
            raise _refuse(
                "capacity_too_small",
                f"the source has {format_size(capacity)}, more than the {format_size(volume.capacity)} asked for",
                goal,
                volume.name,
                "Ask for at least as much, or leave capacity out to take the source's.",
            )
        volume = replace(volume, capacity=capacity)
    return replace(
        volume,
        format=volume.format or source_format,
        content=replace(content, path=path, format=source_format, capacity=capacity),
    )


def _settle_inline(volume: Volume, content: Content, goal: VolumesGoal) -> Volume:
    size = len(content.data or b"")
    if volume.format not in (None, "raw"):
        raise _refuse(
            "invalid_option",
            "inline content makes raw volumes only",
            goal,
            volume.name,
            "Leave format out, or say raw.",
        )
    if volume.at_least:
        volume = replace(volume, capacity=max(size, volume.capacity or 0))
    if volume.capacity is not None and volume.capacity < size:
        raise _refuse(
            "capacity_too_small",
            f"the content has {size} bytes, more than the capacity",
            goal,
            volume.name,
            "Ask for at least as much, or leave capacity out.",
        )
    return replace(volume, format="raw", capacity=size if volume.capacity is None else volume.capacity)


def _check_source(
    entry: VolumeGoal, volume: Volume, content: Content, image: Image, header: Volume, key: str, goal: VolumesGoal
) -> None:
    name = volume.name
    if header.foreign or header.type not in ("file", "block"):
        raise _refuse(
            "source_refused",
            f"{key} is {header.foreign or kind_of_volume(header.type)}",
            goal,
            name,
            "Name an image file.",
        )
    if content.format == "raw":
        pass  # taken byte for byte, whatever a header in it says
    elif header.problem:
        raise _refuse(
            "source_refused",
            f"{key}: {header.problem}",
            goal,
            name,
            "Repair it, or import its bytes with source: {format: raw}.",
        )
    elif header.encrypted or header.data_file is not None or header.backing is not None:
        what = (
            "is encrypted"
            if header.encrypted
            else f"keeps its data in another file ({header.data_file})"
            if header.data_file is not None
            else f"is backed by {header.backing.path if header.backing else ''}"
        )
        raise _refuse(
            "source_refused",
            f"{key} {what}, which was not declared",
            goal,
            name,
            "Import a self-contained image (qemu-img convert makes one), or its bytes with source: {format: raw}.",
        )
    elif content.format is not None and header.format != content.format:
        raise _refuse(
            "format_mismatch", f"{key} is {header.format}, not {content.format}", goal, name, "Declare what it is."
        )
    elif header.format not in ("raw", "qcow2"):
        raise _refuse(
            "format_unsupported",
            f"{key} is a {header.format} image",
            goal,
            name,
            "Convert it to qcow2 or raw first, or import its bytes with source: {format: raw}.",
        )
    if image.writers and "in_use" not in entry.allow:
        raise _refuse(
            "source_in_use",
            f"{key} is open for writing: {', '.join(image.writers)}",
            goal,
            name,
            "Stop the writer first; a copy made now would not be consistent.",
        )


# --- backing ---------------------------------------------------------------------------------------------------------


def _settle_backing(volume: Volume, task: VolumesTask) -> Volume:
    goal, found, missing = task.goal, task.found, task.missing
    backing = volume.backing
    if backing is None:
        return volume
    if volume.format not in ("qcow2", None):
        raise _refuse(
            "invalid_option",
            f"a {volume.format} volume can't have a backing",
            goal,
            volume.name,
            "Declare format: qcow2.",
        )
    key, image, declared = _look_up(backing, task)
    path = backing.path or found.volume_path(backing.volume or "")
    made = _made_anew(image, declared, task)
    if made is not None:
        _check_declared_format(backing, made.format, key, goal, volume.name)
        return _with_backing(volume, Backing(path, made.format, backing.volume), made.capacity, goal)
    if image is None or image.volume is None:
        missing.append(
            _refuse("backing_missing", f"the backing {key} is not there", goal, volume.name, "Make it first.")
        )
        return replace(volume, backing=replace(backing, path=path))
    backing_format = _checked_backing_format(volume, backing, image, image.volume, declared, key, goal, missing)
    if backing_format == "raw":
        _warn_of_raw(volume, image.volume, key, task)
    capacity = image.volume.physical if backing_format == "raw" else image.volume.capacity
    capacity = _capacity_then(capacity, declared)
    return _with_backing(volume, Backing(path, backing_format, backing.volume), capacity, goal)


def _warn_of_raw(volume: Volume, header: Volume, key: str, task: VolumesTask) -> None:
    """What was declared is believed, but a guest would see the headers of an image as its disk."""
    if header.format in (None, "raw"):
        return
    warning = (
        f"volume {task.goal.pool}/{volume.name} is built on {key} as raw, as declared, though that looks like "
        f"{header.format}"
    )
    if warning not in task.warnings:
        task.warnings.append(warning)


def _check_declared_format(backing: Backing, actual: str | None, key: str, goal: VolumesGoal, name: str) -> None:
    if backing.format is not None and actual is not None and backing.format != actual:
        raise _refuse(
            "format_mismatch", f"its backing {key} is {actual}, not {backing.format}", goal, name, "Declare what it is."
        )


def _checked_backing_format(
    volume: Volume,
    backing: Backing,
    image: Image,
    header: Volume,
    declared: VolumeGoal | None,
    key: str,
    goal: VolumesGoal,
    missing: list[StorageError],
) -> str:
    """A format that was declared, here or in the backing volume's own entry; a header alone is never believed, since a
    guest can write one into a raw disk.
    """
    name = volume.name
    if header.foreign or header.type not in ("file", "block"):
        raise _refuse(
            "backing_refused",
            f"{key} is {header.foreign or kind_of_volume(header.type)}",
            goal,
            name,
            "Name an image file.",
        )
    said = backing.format or (declared.volume.format if declared is not None else None)
    if said == "raw":
        return "raw"
    if said is None and header.format != "raw":
        raise _refuse(
            "backing_format",
            f"{key} looks like {header.format}, but its format was not declared",
            goal,
            name,
            f"Say backing: {{{'path' if backing.path else 'volume'}: {key}, format: {header.format}}} if you trust it.",
        )
    if header.problem or image.problem:
        raise _refuse(
            image.code or "backing_refused",
            f"{key}: {header.problem or image.problem}",
            goal,
            name,
            "Give a backing whose whole chain is made of files on this host.",
        )
    if said is not None and said != header.format:
        raise _refuse(
            "format_mismatch", f"its backing {key} is {header.format}, not {said}", goal, name, "Declare what it is."
        )
    _check_chain(volume, image, key, goal, missing)
    return said or "raw"


def _check_chain(volume: Volume, image: Image, key: str, goal: VolumesGoal, missing: list[StorageError]) -> None:
    loop = volume.path in image.missing or (volume.identity is not None and volume.identity in image.chain)
    if loop:
        raise _refuse(
            "backing_loop", f"{key} is itself built on {volume.path}", goal, volume.name, "Give another backing."
        )
    if image.missing:
        missing.append(
            _refuse(
                "backing_missing",
                f"{key} is built on {image.missing[0]}, which is not there",
                goal,
                volume.name,
                "Restore that file first.",
            )
        )


def _with_backing(volume: Volume, backing: Backing, capacity: int | None, goal: VolumesGoal) -> Volume:
    if volume.capacity is None:
        volume = replace(volume, capacity=capacity)
    elif capacity is not None and volume.capacity < capacity:
        if not volume.at_least:
            raise _refuse(
                "capacity_too_small",
                f"its backing has {format_size(capacity)}, more than the {format_size(volume.capacity)} asked for",
                goal,
                volume.name,
                "Ask for at least as much, or leave capacity out to take the backing's.",
            )
        volume = replace(volume, capacity=capacity)
    return replace(volume, backing=backing)


# --- the whole -------------------------------------------------------------------------------------------------------


def _check_kind(volume: Volume, goal: VolumesGoal) -> None:
    if volume.format not in (None, "raw", "qcow2"):
        raise _refuse(
            "format_unsupported",
            f"volumes of format {volume.format} can't be made",
            goal,
            volume.name,
            "Declare format: raw or qcow2.",
        )
    if volume.format == "raw":
        given = [
            name
            for name in ("compat", "cluster_size", "lazy_refcounts", "extended_l2", "preallocation")
            if getattr(volume, name) is not None
        ]
        if given:
            raise _refuse(
                "invalid_option",
                f"raw volumes have no {', '.join(given)}",
                goal,
                volume.name,
                "Leave it out, or declare format: qcow2.",
            )


def _check_qcow2(volume: Volume, goal: VolumesGoal) -> None:
    problem = qcow2_problem(replace(volume, capacity=None)) if volume.format == "qcow2" else ""
    if problem:
        raise _refuse("invalid_option", problem, goal, volume.name, "Change what is said there.")


def _largest(volume: Volume, found: Found) -> tuple[int, str]:
    if volume.format == "qcow2":
        clusters = "with clusters of this size (larger ones reach further)"
        return qcow2_limit(volume.cluster_size, volume.extended_l2), f"a qcow2 image {clusters}"
    return found.file_limit or SIZE_LIMIT, "a file of this filesystem"


def check_capacity(volume: Volume, task: VolumesTask) -> None:
    """Raises ``capacity_missing`` or ``capacity_too_large``: what the format and the filesystem can hold."""
    goal, found = task.goal, task.found
    capacity = volume.capacity
    if capacity is None:
        if volume.backing is None and volume.content is None and found.looked:
            raise _refuse(
                "capacity_missing",
                f"volume {volume.name} is not there, and no capacity was given",
                goal,
                volume.name,
                "Give capacity, or what it is made from (backing or source).",
            )
        return
    limit, what = _largest(volume, found)
    if capacity > limit:
        raise _refuse(
            "capacity_too_large",
            f"{what} can hold {format_size(limit)}, less than {format_size(capacity)}",
            goal,
            volume.name,
            "Ask for less.",
        )
    reserved = max(volume.allocation or 0, 0)
    if reserved > capacity:
        raise _refuse(
            "invalid_option", "allocation is more than capacity", goal, volume.name, "Ask for at most the capacity."
        )
