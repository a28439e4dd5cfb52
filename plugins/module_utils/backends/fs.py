# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Filesystem pools: a filesystem on a block device, mounted on the pool's path (formatstorage: "Filesystem pool").

What is on the device is asked of libblkid, by all of its signatures, and never taken for empty where it can't be told.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..host.block import Device, btrfs_devices, number_at, on_network
from ..host.conditions import is_device, untouched
from ..host.mounts import Mount
from ..host.notes import boot
from ..host.paths import resolved
from ..model.change import Change, Condition
from ..model.errors import StorageError
from ..model.found import ABSENT, FOREIGN, READY, UNKNOWN_STORAGE, Found, Part, Problem, Storage, User
from ..model.goal import Scope
from ..model.pool import Pool
from ..model.sources import tag_of_path
from ..model.types import spoken
from ..model.units import format_size
from ..model.volume import LOST_AND_FOUND
from . import filetree, mounted
from .filesystems import FILESYSTEMS, Filesystem, by_signature

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes
    from ..host.signatures import Content

FILESYSTEM = "filesystem"
_AUTO = "auto"
_XFS = "xfs"
_NETDEV = "_netdev"  # mount(8); systemd.mount(5): unmounted before the network goes, and who logs out of targets
_OWN = (LOST_AND_FOUND,)
_BY_CONTENT = ("UUID", "LABEL")  # what is gone once something else is made there

busy = mounted.busy


class _Source(NamedTuple):
    """The device that a pool names, or why there is none. ``text`` is how it is named."""

    text: str
    device: Device | None
    problem: Problem | None


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    source = _source(pool, look)
    place = mounted.place_of(pool, look, _is_mount_of(source))
    part, read_only, known, mark = _filesystem(pool, source, place, look, holds)
    storage = mounted.observe(pool, place, look, holds, source.text, parts=(part,), own=_OWN)
    if storage.up:
        if holds and place.mount is not None:
            storage = replace(storage, holds=(*storage.holds, *_beside(source, place.mount)))
        kind = by_signature(storage.filesystem)
        fixed = "it is mounted from a filesystem that has none" if kind.fixed else ""
        read_only = kind.read_only or (source.device is not None and source.device.read_only)
        return replace(storage, mark=mark, fixed=fixed, read_only_source=read_only, requires=part.requires[:1])
    fixed = f"{known.signature} has none" if known is not None and known.fixed else ""
    same = 2 if part.kind == READY else 1  # else it gets its content in the same task
    return replace(
        storage,
        mark=mark,
        fixed=fixed,
        read_only_source=read_only,
        requires=part.requires[:same],
        filesystem="" if known is None else known.kernel,
        remote=source.device is not None and on_network(source.device),
    )


def observe_volumes(found: Found, scope: Scope, look: Look) -> Found:
    """A filesystem's own directory is no volume."""
    found = filetree.observe_volumes(found, scope, look)
    if scope.volumes is None and LOST_AND_FOUND in found.volumes:
        volumes = {name: volume for name, volume in found.volumes.items() if name != LOST_AND_FOUND}
        return replace(found, volumes=volumes)
    return found


# --- the device ------------------------------------------------------------------------------------------------------


def _source(pool: Pool, look: Look) -> _Source:
    devices = pool.source.devices or ()
    if len(devices) != 1:
        what = f"{len(devices)} devices are named, and a filesystem is on one"
        return _Source("its device", None, Problem("invalid_option", what, "Name one device."))
    text = devices[0].path
    from ..host.sources import resolve

    tag = tag_of_path(text)
    try:
        device = resolve("=".join(tag) if tag else text, look)
        if device.size:
            return _Source(text, device, None)
        return _Source(
            text, None, Problem("source_missing", f"{text} is empty: no disk is in it", "Put one in, or name another.")
        )
    except StorageError as error:
        return _Source(text, None, Problem(error.code, error.message, error.hint))


def _is_mount_of(source: _Source) -> Callable[[Mount], bool]:
    """Whether a mount is that of the device: by its number, and of btrfs, whose mounts have numbers of their own, by
    the devices that it is on. Of a device that went away only the name is left.
    """
    device = source.device

    def is_it(mount: Mount) -> bool:
        if device is None:
            return mount.source in (source.text, os.path.realpath(source.text))
        if mount.number == device.number:
            return mount.root == "/"
        return mount.fstype == "btrfs" and number_at(mount.source) in (device.number, *btrfs_devices(device.number))

    return is_it


def _beside(source: _Source, mount: Mount) -> list[str]:
    """What would be lost with the device, or be left of it, beside what is mounted: that is not seen there."""
    number = source.device.number if source.device is not None else (0, 0)
    others = [node for each, node in sorted(btrfs_devices(number).items()) if each != number]
    beside = [f"what is beside its subvolume {mount.root}"] if mount.root != "/" else []
    return beside + ([f"what is on its other devices ({', '.join(others)})"] if others else [])


# --- the filesystem --------------------------------------------------------------------------------------------------


def _filesystem(
    pool: Pool, source: _Source, place: mounted.Place, look: Look, holds: bool
) -> tuple[Part, bool, Filesystem | None, str]:
    """The filesystem as a part; whether it can only be read; what it is or will be, if that is known; and its UUID, if
    its beginning tells whether something was written in it.
    """
    wanted = FILESYSTEMS.get(pool.source.format or _AUTO)
    named = spoken(pool.source.format or "") if wanted else "a filesystem"
    what = f"{named} on {source.text}"
    device = source.device
    if place.up and place.mount is not None and _fits_mount(place.mount, wanted) and not holds:
        same = () if device is None else (is_device(device),)
        return _ready(what, pool, source, place.mount.fstype, same), False, wanted, ""
    if device is None:
        return _missing(what, pool, source, source.problem, wanted), False, wanted, ""
    from .holding import unreliable

    lost = None if place.up else unreliable(source.text, device, look)
    if lost is not None:
        return _missing(what, pool, source, lost, wanted), False, wanted, ""
    from ..host.signatures import content_at

    content: Content = look.once(("content", device.node), lambda: content_at(device.node, look.left(source.text)))
    requires = untouched(device, content)
    if content.problem:
        part = Part(FILESYSTEM, what, UNKNOWN_STORAGE, f"{source.text}: {content.problem}")
        if not place.up:  # the kernel may forbid to read what is mounted
            users, unseen = _users(device, content, look)
            part = replace(part, users=users, unseen=unseen)
        return part, False, wanted, ""
    found = _single(content, wanted)
    if found is not None:
        mark = next((each.uuid for each in content.signatures if each.name == found.signature and found.tells), "")
        part = _ready(what, pool, source, found.signature, requires)
        if not place.up:
            users, unseen = _users(device, content, look)
            lasting = () if found.read_only or device.read_only else (device.node,)
            problem = _unmountable(found) or _twin(mark, pool, source, device, found, look)
            part = replace(part, devices=lasting, users=users, unseen=unseen, problem=problem)
        return part, found.read_only or device.read_only, found, mark
    part = _not_it(what, pool, source, device, content, wanted, look)
    return replace(part, requires=requires), bool(wanted and wanted.read_only), wanted, ""


def _missing(what: str, pool: Pool, source: _Source, problem: Problem | None, wanted: Filesystem | None) -> Part:
    """Of a device that is not there, or none that can be used. One that an earlier task makes is formatted then."""
    part = Part(FILESYSTEM, what, UNKNOWN_STORAGE, problem.what if problem else "", problem)
    tag = tag_of_path(source.text)
    if problem is None or problem.code != "source_missing" or (tag is not None and tag[0] in _BY_CONTENT):
        return part
    if wanted is None:
        return part
    part = replace(part, barred=_unmountable(wanted))
    return replace(part, making=_making(what, ""), facts={"format": pool.source.format}) if wanted.making else part


def _fits_mount(mount: Mount, wanted: Filesystem | None) -> bool:
    return wanted is None or mount.fstype == wanted.kernel


def _single(content: Content, wanted: Filesystem | None) -> Filesystem | None:
    """The filesystem that is there, if it is the wanted one and there is nothing else."""
    names = content.names
    if wanted is None:
        of_files = [each.name for each in content.signatures if each.usage == "filesystem"]
        first = [name for name in ("iso9660", "udf") if name in of_files] or of_files
        wanted = by_signature(first[0]) if first and not first[0].endswith("_member") else None
    if wanted is None or wanted.signature not in names:
        return None
    return wanted if all(name == wanted.signature or name in wanted.also for name in names) else None


def _ready(what: str, pool: Pool, source: _Source, name: str, requires: tuple[Condition, ...]) -> Part:
    declared = pool.source.format or _AUTO
    shown = declared if declared != _AUTO else name
    return Part(
        FILESYSTEM,
        what,
        READY,
        requires=requires,
        removable=True,
        deleting=f"erase the {shown} filesystem on {source.text}",
        facts={"format": shown},
    )


def _not_it(
    what: str, pool: Pool, source: _Source, device: Device, content: Content, wanted: Filesystem | None, look: Look
) -> Part:
    """Something else than the wanted filesystem, or nothing. What is only left of our own making counts as nothing."""
    begun = content.data and _begun(pool, device, look)
    held = "" if begun else spoken(content.text)
    why = f"{source.text} holds {held}" if held else f"{source.text} is empty"
    problem = _unmakeable(pool, source, device, wanted)
    kind = FOREIGN if content.signatures else ABSENT
    tag = tag_of_path(source.text)
    if problem is not None:
        foreign = kind == FOREIGN  # which is what is said first, until somebody wants it lost
        part = Part(FILESYSTEM, what, kind, why, None if foreign else problem, barred=problem if foreign else None)
    elif tag is not None and tag[0] in _BY_CONTENT:
        part = Part(FILESYSTEM, what, kind, f"{why}, which is what {source.text} is named after")
    else:
        inside = ", ".join(map(os.path.basename, device.partitions))
        lost = f"{held} on {source.text}" + (f" with {inside}" if inside else "")
        part = Part(FILESYSTEM, what, kind, why, destroys=lost if held else "")
    facts = {"format": pool.source.format}
    users, unseen = _users(device, content, look)
    return replace(part, facts=facts, devices=(device.node,), users=users, unseen=unseen, making=_making(what, held))


def _begun(pool: Pool, device: Device, look: Look) -> bool:
    """Whether a task was killed while it made the pool's filesystem there: what has come there since then, another pool
    may not lose.
    """
    return look.started(making_key(device.node, device.identity)) == _making_note(pool.name)


def _making_note(pool: str) -> str:
    return f"{boot()}\n{pool}\n"


def _making(what: str, held: str) -> str:
    return f"make {what}" + (f", over {held}" if held else "")


def _unmakeable(pool: Pool, source: _Source, device: Device, wanted: Filesystem | None) -> Problem | None:
    """Why the wanted filesystem can't be made."""
    if wanted is None:
        what = f"{source.text} holds no filesystem, and nothing says as what to format it"
        return Problem("missing_option", what, "Give source.format, such as ext4 or xfs.")
    if not wanted.making:
        what = f"{source.text} holds no {pool.source.format} filesystem, and Linux has no tool that makes one"
        return Problem("not_supported", what, "Name a device that holds one, or another source.format.")
    if device.read_only:
        return Problem(
            "not_writable", f"{source.text} is read-only", "Make it writable (blockdev --setrw), or name another."
        )
    return _misfit(source.text, device, wanted, spoken(pool.source.format or "")) or _unmountable(wanted)


def _misfit(path: str, device: Device, wanted: Filesystem, name: str) -> Problem | None:
    """Why it can't be made in that size."""
    least, has = wanted.smallest(device.sector), f"{path} has {format_size(device.size)}, and {name}"
    if device.size < least:
        what = f"{has} needs {format_size(least)} or more"
        return Problem("not_supported", what, "Name a larger device, or another source.format.")
    if wanted.limit and device.size >= wanted.limit:
        what = f"{has} can only be made of less than {format_size(wanted.limit)}"
        return Problem("not_supported", what, "Name a smaller device, or another source.format, such as ext4 or xfs.")
    return None


def _unmountable(found: Filesystem) -> Problem | None:
    from ..host.kernel import mounts_type

    if mounts_type(found.kernel):
        return None
    what = f"the kernel of this host can't mount {found.kernel}: no module for that can be loaded"
    hint = "Install or load the module for the running kernel, or name another source.format."
    return Problem("not_supported", what, hint)


def _twin(uuid: str, pool: Pool, source: _Source, device: Device, found: Filesystem, look: Look) -> Problem | None:
    """A filesystem with the same UUID that is mounted already, such as what it is a copy of: XFS then takes it only
    with ``nouuid`` (xfs(5)).
    """
    options = [word for option in pool.mount_options or () for word in option.split(",")]
    if found.signature != _XFS or not uuid or "nouuid" in options:
        return None
    for mount in look.mounts():
        if mount.fstype != _XFS or mount.number == device.number or _is_leaving(mount, look):
            continue
        if uuid in _uuids_of(mount, look):
            what = f"{source.text} has the UUID of the filesystem that is mounted on {mount.point}: {uuid}"
            hint = "If it is a copy, give it another (xfs_admin -U generate DEVICE), or add nouuid to mount_options."
            return Problem("source_conflict", what, hint)
    return None


def _is_leaving(mount: Mount, look: Look) -> bool:
    return bool(look.leaving) and mount.point == resolved(look.leaving, look.mounts())


def _uuids_of(mount: Mount, look: Look) -> tuple[str, ...]:
    """Those on its device; none where that can't be read: then mounting tells."""
    from ..host.block import device_of
    from ..host.signatures import content_at

    try:
        node = device_of(mount.number).node
    except StorageError:
        return ()
    content: Content = look.once(("content", node), lambda: content_at(node, look.left(node)))
    return tuple(each.uuid for each in content.signatures if each.name == _XFS)


def _users(device: Device, content: Content, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """Who has the device, but for the running pool that goes before, and what could not be looked at."""
    from .holding import users_of

    users, unseen = users_of(device, content, look)
    leaving = User("mount", resolved(look.leaving, look.mounts())) if look.leaving else None
    return tuple(user for user in users if user != leaving), unseen


# --- changing --------------------------------------------------------------------------------------------------------


def making_key(node: str, identity: tuple) -> str:
    """What the note is called that a filesystem is being made on a device. It holds until the next boot, and until the
    device is another one, such as a loop device that was attached anew.
    """
    return f"making {node} {' '.join(map(str, identity))}"


def lower_volumes(changes: Sequence[Change], found: Found, instead: Callable[[Change], Any]) -> list[Any]:
    """Where a filesystem has no owners and modes, none are given to new files."""
    steps = filetree.lower_volumes(changes, found, instead)
    if not by_signature(found.storage.filesystem).fixed:
        return steps
    from ..model.operations import OpenStaging, SetPermissions

    def fitted(operations: Sequence[Any]) -> tuple[Any, ...]:
        kept = [operation for operation in operations if not isinstance(operation, SetPermissions)]
        return tuple(each._replace(shared=True) if isinstance(each, OpenStaging) else each for each in kept)

    return [step._replace(operations=fitted(step.operations)) for step in steps]


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    if change.part == FILESYSTEM:
        return _make(change, found, notes)
    if change.action == "undefine":
        return _forget_making(found, notes)
    operations = mounted.lower(change, notes, lambda pool: _mount(pool, found))
    made = any(part.name == FILESYSTEM and part.kind != READY for part in found.storage.parts)
    if change.action == "start" and operations and made and change.wanted.cow is False:
        from ..model.operations import SetNocow

        operations.append(SetNocow(change.wanted.path))
    return operations


def _forget_making(found: Found, notes: Notes) -> list[Any]:
    """What the next pool of this name finds there is not ours."""
    from ..model.operations import Remove

    devices = [each for each in _seen(found) if each.kind == "device"]
    return [Remove(notes.started_path(making_key(each.path, each.expected))) for each in devices]


def _node(found: Found) -> str:
    """The kernel's name of the device that was looked at. That it is still that one is a condition of the change."""
    return next((condition.path for condition in _seen(found)), "")


def _seen(found: Found) -> tuple[Condition, ...]:
    """What was seen of the device."""
    return next((part.requires for part in found.storage.parts if part.name == FILESYSTEM), ())


def _make(change: Change, found: Found, notes: Notes) -> list[Any]:
    """What makes the filesystem, or erases it."""
    from ..model.operations import MakeOn, Run, Taken

    conditions = {each.kind: each for each in change.requires or _seen(found)}
    if not conditions:  # an earlier task would have made the device
        making = FILESYSTEMS[change.wanted.source.format].making
        return [Run((*making, change.wanted.source.devices[0].path))]
    device, content = conditions["device"], conditions.get("signatures")
    operation = MakeOn((Taken(device.path, device.expected, None if content is None else content.expected),))
    if change.action == "delete":
        return [operation._replace(wipe=True)]
    wanted = FILESYSTEMS[change.wanted.source.format]
    return [
        operation._replace(
            argv=(*wanted.making, device.path),
            wipe=bool(change.destroys),
            note=notes.started_path(making_key(device.path, device.expected)),
            noted=_making_note(change.subject.pool),
        )
    ]


def _mount(pool: Pool, found: Found) -> list[Any]:
    from ..model.private import public_options

    wanted = FILESYSTEMS.get(pool.source.format or _AUTO)
    read_only = ("ro",) if found.storage.read_only_source else ()
    node = _node(found) or (pool.source.devices or ())[0].path
    remote = (_NETDEV,) if found.storage.remote else ()
    options = (*mounted.OPTIONS, *read_only, *remote, *public_options(pool.mount_options or ()))
    mount = mounted.mount(wanted.kernel if wanted else _AUTO, options, node, pool.path or "")
    return [mount._replace(hint="See what the kernel says of it (dmesg), and whether mount_options fit.")]
