# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Logical pools: the storage is a volume group of LVM (formatstorage: "Logical volume pool").

What LVM does not show is not taken for absent: a devices file may hide it (lvmdevices(8)).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..host.kernel import unable
from ..model.change import Change
from ..model.errors import StorageError
from ..model.found import ABSENT, READY, UNKNOWN_STORAGE, Found, Part, Problem, Storage, Usage, User
from ..model.goal import Scope
from ..model.pool import UNDECLARED, Permissions, Pool
from ..model.types import THIN_POOL, row_of
from ..model.units import counted
from ..model.volume import Backing, Extent, Volume
from . import lvm

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes

GROUP = "volume group"
STAGED, TAG = "virt-storage.", "virt-storage"  # what is being made, until it is whole; what was made by us


# --- the group -------------------------------------------------------------------------------------------------------


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    row = row_of(pool.type)
    return replace(_group(pool, look, holds), unable=unable(row, row.formats), words=lvm.apart(look))


def _group(pool: Pool, look: Look, holds: bool) -> Storage:
    name = pool.source.name or pool.name
    path = f"/dev/{name}"
    lacking = None
    try:
        told = lvm.report(look)
    except StorageError as error:
        if error.code == "deadline":
            raise
        if error.code != "tool_missing":
            return Storage(UNKNOWN_STORAGE, path, str(error))
        told, lacking = lvm.Report((), ()), error
    groups = told.named(name)
    if len(groups) == 1:
        return _ready(groups[0], pool, path, told, look, holds)
    if groups:
        uuids = " and ".join(sorted(group.uuid for group in groups))
        what = f"there are {len(groups)} volume groups {name}: {uuids}"
        return _hampered(path, name, Problem("vg_duplicate", what, "Rename one by its uuid (vgrename UUID NEWNAME)."))
    return _not_shown(name, pool, path, told, look, lacking)


def _not_shown(name: str, pool: Pool, path: str, told: lvm.Report, look: Look, lacking: StorageError | None) -> Storage:
    """A group that LVM does not show is absent only where neither the kernel nor its devices have anything of it.
    ``lacking``: there is no LVM to ask.
    """
    from .logical_devices import active_of, parts_to_build, unshown

    active = active_of(name)
    if active:
        return _hampered(path, name, unshown(name, active, lacking))
    silent = lvm.silent(look)
    if silent:
        return _hampered(path, name, _unseen(name, silent))
    parts = parts_to_build(name, pool, told, look, lacking)
    untold = next((part for part in parts if part.kind == UNKNOWN_STORAGE), None)
    if untold is not None:
        return Storage(UNKNOWN_STORAGE, path, untold.why, parts=parts)
    return Storage(
        ABSENT,
        path,
        f"no volume group {name} on this host",
        parts=parts,
        up=False,
        bring_up=_bring_up(name),
    )


def _unseen(name: str, silent: Sequence[str]) -> Problem:
    what = f"LVM shows no volume group {name}, and may be kept from it by what does not answer: {', '.join(silent)}"
    return Problem("storage_unreadable", what, "See that what serves them is back, or take them away; run it again.")


def _bring_up(name: str) -> str:
    return f"activate the volumes of {name} (vgchange --activate y {name})"


def _hampered(path: str, name: str, problem: Problem) -> Storage:
    """It is there and can't even be told apart."""
    return Storage(UNKNOWN_STORAGE, path, problem.what, parts=(_group_part(name, READY, problem=problem),))


def _group_part(name: str, kind: str, **more: Any) -> Part:
    return Part(GROUP, f"the volume group {name}", kind, **more)


def _ready(group: lvm.Group, pool: Pool, path: str, told: lvm.Report, look: Look, holds: bool) -> Storage:
    from ..host.conditions import is_device
    from .logical_devices import joined, members

    problem = _problem(group)
    parts, remarks, elsewhere = joined(group, pool, told, look)
    there = [volume for volume in group.volumes if not _is_leftover(volume)]
    active = any(volume.active for volume in group.volumes)
    devices = members(device.number for device in group.devices if device.path)
    part = _group_part(
        group.name,
        READY,
        problem=problem or elsewhere,
        removable=True,
        deleting=f"remove the volume group {group.name} and the labels of {_names(group)}",
        facts={"devices": [device.node for device in devices]},
        requires=tuple(map(is_device, devices)),
    )
    return Storage(
        READY,
        path,
        parts=(part, *parts),
        writable=os.geteuid() == 0,
        holds=tuple(sorted(volume.name for volume in there)) if holds else (),
        up=active or all(volume.skipped for volume in group.volumes),
        idle=not active,
        bring_up=_bring_up(group.name),
        take_down=f"deactivate the volumes of {group.name} (vgchange --activate n {group.name})",
        frozen=problem,
        remarks=remarks,
        listable=True,
    )


def _names(group: lvm.Group) -> str:
    return ", ".join(device.path for device in group.devices)


def _problem(group: lvm.Group) -> Problem | None:
    """Why nothing of a group may be changed."""
    subject = f"the volume group {group.name}"
    if group.exported:
        return Problem("vg_exported", f"{subject} is exported", f"Import it where it belongs (vgimport {group.name}).")
    if group.shared:
        return Problem(
            "vg_shared",
            f"{subject} is shared with other hosts (clustered, or locked by lvmlockd)",
            "Use a volume group of this host alone.",
        )
    if group.foreign:
        return Problem(
            "vg_foreign",
            f"{subject} belongs to another host, by its system ID {group.foreign}",
            "If that host has it no more, take it over by hand (lvmsystemid(7)).",
        )
    if group.missing or any(device.missing for device in group.devices):
        lost = [device.uuid for device in group.devices if device.missing]
        of_all = f"{group.missing or len(lost)} of its {counted(len(group.devices), 'device')}"
        return Problem(
            "vg_partial",
            f"{subject} lacks {of_all}: {', '.join(lost)}",
            "Bring them back (lvmdevices --adddev where the devices file hides them), or repair it by hand "
            "(vgreduce --removemissing loses what they held).",
        )
    copies = [f"{copy} of {device.path}" for device in group.devices for copy in device.copies]
    if copies:
        return Problem(
            "vg_duplicate",
            f"there are copies of devices of {subject}: {', '.join(copies)}",
            "Take the copies away, or give them an identity of their own (vgimportclone DEVICE).",
        )
    if not group.writable:
        return Problem("vg_read_only", f"{subject} is read-only", f"Allow changes: vgchange -prw {group.name}.")
    return None


def busy(pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """Who has volumes open, which alone keeps a group from being deactivated, and what could not be looked at."""
    name = pool.source.name or pool.name
    opened = [
        volume.name
        for group in lvm.report(look).named(name)
        for volume in group.volumes
        if volume.opened and volume.kind != lvm.THIN_POOL
    ]
    if not opened:
        return (), ()
    from ..host.volume_users import users_of_volumes

    users, unseen = users_of_volumes({volume: f"/dev/{name}/{volume}" for volume in opened})
    found: dict[User, None] = {}
    for volume in opened:
        of_volume = users[volume] or (User("holder", "something that is not seen from here"),)
        found.update(dict.fromkeys(User(user.kind, f"{user.who}, which has {volume} open") for user in of_volume))
    return tuple(found), unseen


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    from .logical_changes import lower_pool

    return lower_pool(change, found)


# --- its volumes -----------------------------------------------------------------------------------------------------


def observe_volumes(found: Found, scope: Scope, look: Look) -> Found:
    """All volumes are in the one report anyway, and tell what others of them are built on."""
    from .filetree import digests

    pool = found.running
    name = (None if pool is None else pool.source.name) or found.name
    group = next(iter(lvm.report(look).named(name)), None)
    if group is None:
        return found
    names = {volume.name for volume in group.volumes}
    there = [each for each in group.volumes if not _is_leftover(each)] if scope.volumes != () else []
    volumes = {each.name: _volume(each, group, names) for each in there}
    if scope.named or scope.holds:  # they may be changed
        at_stake = volumes if scope.volumes is None else [name for name in scope.volumes if name in volumes]
        volumes.update({name: _with_identity(volumes[name]) for name in at_stake})
    return replace(
        found,
        volumes=volumes,
        usage=Usage(group.size, group.size - group.free, group.free),
        extent=group.extent,
        leftovers=tuple(each.name for each in group.volumes if _is_leftover(each)),
        digests=digests(volumes, scope),
    )


def _is_leftover(volume: lvm.Logical) -> bool:
    return volume.name.startswith(STAGED) and TAG in volume.tags


def _volume(found: lvm.Logical, group: lvm.Group, names: Iterable[str]) -> Volume:
    """As libvirt shows it (storage driver: logical), and what libvirt leaves out: thin and inactive ones."""
    path = f"/dev/{group.name}/{found.name}"
    capacity, allocation = _sizes(found)
    backing = Backing(f"/dev/{group.name}/{found.origin}", volume=found.origin) if found.origin in names else None
    permissions, timestamps = _node(path) if found.active else (UNDECLARED, ())
    return Volume(
        found.name,
        capacity=capacity,
        allocation=allocation,
        format=THIN_POOL if found.kind == lvm.THIN_POOL else None,
        backing=backing,
        thin_pool=found.pool if found.pool in names else None,
        type="block",
        path=path,
        key=found.uuid,
        physical=capacity,
        problem=_volume_problem(found),
        extents=tuple(_extents(found, group.extent)),
        permissions=permissions,
        timestamps=timestamps,
        aliases=_aliases(found, group),
    )


def _aliases(found: lvm.Logical, group: lvm.Group) -> tuple[str, ...]:
    """The names that device-mapper and udev give it: dm_build_dm_name of libdevmapper, build_dm_uuid of lvm2."""
    name = "-".join(each.replace("-", "--") for each in (group.name, found.name))
    uuid = f"LVM-{group.uuid}{found.uuid}".replace("-", "").replace("LVM", "LVM-", 1)
    return f"/dev/mapper/{name}", f"/dev/disk/by-id/dm-name-{name}", f"/dev/disk/by-id/dm-uuid-{uuid}"


def _node(path: str) -> tuple[Permissions, tuple[tuple[str, int], ...]]:
    """Who may use the device of a volume, and when it was used."""
    try:
        status = os.stat(path)
    except OSError:
        return UNDECLARED, ()
    times = (("atime", status.st_atime_ns), ("mtime", status.st_mtime_ns), ("ctime", status.st_ctime_ns))
    return Permissions(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid), times


def _with_identity(volume: Volume) -> Volume:
    """It has one while it is active."""
    from ..host.block import device_at

    try:
        return replace(volume, identity=device_at(volume.path or "").identity)
    except StorageError:
        return volume


def _sizes(found: lvm.Logical) -> tuple[int, int | None]:
    """Capacity and allocation. Of a snapshot its group gave it the room for differences only."""
    if found.kind in (lvm.SNAPSHOT, lvm.MERGING) and found.origin_size:
        return found.origin_size, found.size
    if found.kind in (lvm.THIN, lvm.THIN_POOL):
        return found.size, None if found.percent is None else int(found.size * found.percent / 100)
    return found.size, found.size


def _volume_problem(found: lvm.Logical) -> str:
    if found.lost:
        return "a snapshot that had no room left for differences, and is lost"
    return "one of its devices is missing" if found.partial else ""


def _extents(found: lvm.Logical, extent: int) -> Iterable[Extent]:
    for segment in found.segments:
        for device, first in segment.places:
            if device.startswith("/"):
                yield Extent(device, first * extent, first * extent + segment.size)


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> Sequence[Any]:
    from .logical_changes import lower_volumes as lower_them

    return lower_them(changes, found, instead)
