# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Disks for pools of type disk, and devices that hold or could hold a filesystem for those of type fs.

Devices come from sysfs; what is on one and who uses it is read in a child process, so that a device that does not
answer holds up nobody. Nothing is cached: no blkid cache is read or written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..host.block import Device, by_name
from ..host.device_users import group_of, users_of_device
from ..host.partitions import label_of
from ..host.patience import in_child
from ..host.processes import Processes
from ..host.signatures import MEMBERS, Content, Signature, content_at
from ..host.sources import aliases
from ..model.discovery import Discovery, FoundSource, Query, Unanswered
from ..model.errors import StorageError
from ..model.found import User
from ..model.pool import Source, SourceDevice
from ..model.types import POOL_TYPES, PoolType
from . import lvm

if TYPE_CHECKING:
    from ..host.look import Look

_BLOCK = "/sys/class/block"
_LEAST = 2 * 1024 * 1024  # smaller ones are what boot loaders and extended partitions have
_PATIENCE = 3.0  # seconds that each device gets at least; and a part of what there is for all
_SHARE = 4
# In the memory of this host, or volumes that guests have.
_NEVER = re.compile(r"(?:ram|zram|nbd|zd|fd|sr)[0-9]+(?:p[0-9]+)?\Z")
_TABLE, _FILESYSTEM, _RAID = "partition-table", "filesystem", "raid"
_LVM_MEMBER = "LVM2_member"
_VOLUME, _MULTIPATH, _CRYPT = "LVM-", "mpath-", "CRYPT-"
_LINKS = ("/dev/disk/by-id/", "/dev/disk/by-path/")
_SILENT = "it did not answer"
_ELSEWHERE = " as process "  # see device_users.py
_POOR_LINKS = ("lvm-pv-uuid-", "dm-uuid-", "dm-name-")


def find(query: Query, look: Look) -> Discovery:
    """Devices that hold files or may, or that can be divided."""
    row = POOL_TYPES[query.type]
    if os.geteuid() != 0:
        raise StorageError(
            "not_readable",
            "only root can look at what devices hold",
            subject="block devices",
            hint="Run as root (become: true).",
        )
    devices = [device for device in _devices() if _is_disk(device) or (row.file_tree and _may_hold_files(device))]
    processes = Processes()
    processes.files()  # once for all, before there are children
    processes.tables()
    looked = [(device, *_look_at(device, processes, look)) for device in devices]
    wanted = [each for each in looked if row.partitions or not _is_divided(each[0], each[1])]
    groups = _Groups(look)
    silent = [_unanswered(device) for device, content, _users in wanted if content.problem == _SILENT]
    sources = tuple(_found(row, device, content, users, groups) for device, content, users in wanted)
    return Discovery(sources, tuple(silent))


def _unanswered(device: Device) -> Unanswered:
    error = StorageError(
        "deadline",
        f"{device.node} did not answer in time",
        subject=device.node,
        hint="Look at the device (dmesg), or raise timeout.",
    )
    return Unanswered(device.node, "", error)


def _devices() -> list[Device]:
    names = sorted((name for name in os.listdir(_BLOCK) if not _NEVER.match(name)), key=_in_order)
    found = [device for device in map(by_name, names) if device is not None]
    return [device for device in found if device.kind != "rom" and device.size >= _LEAST]


def _in_order(name: str) -> tuple[Any, ...]:
    return tuple((not part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"([0-9]+)", name))


def _is_disk(device: Device) -> bool:
    """A volume of LVM may be a guest's whole disk: it is none for the host to divide."""
    if device.disk is not None or device.partition is not None:
        return False
    return device.kind != "dm" or device.dm_uuid.startswith(_MULTIPATH)


def _may_hold_files(device: Device) -> bool:
    """Of device-mapper's, those that are a device like others: volumes, partitions, opened encrypted ones. An inner
    part of a volume has a suffix in its uuid (lvm2, lib/activate/dev_manager.c).
    """
    if device.kind != "dm":
        return True
    inner = device.dm_uuid.startswith(_VOLUME) and "-" in device.dm_uuid[len(_VOLUME) :]
    return not inner and (device.partition is not None or device.dm_uuid.startswith((_VOLUME, _MULTIPATH, _CRYPT)))


def _is_divided(device: Device, content: Content) -> bool:
    return bool(device.partitions) or any(each.usage == _TABLE for each in content.signatures)


# --- one device ------------------------------------------------------------------------------------------------------


def _look_at(device: Device, processes: Processes, look: Look) -> tuple[Content, list[str]]:
    """What it holds, and its users in words."""
    try:
        seconds = min(look.left(device.node), max(_PATIENCE, look.timeout / _SHARE))
    except StorageError:
        return Content(problem=_SILENT), []

    def told() -> dict[str, Any]:
        content = content_at(device.node, seconds)
        users, unseen = users_of_device(device, processes)
        words = [_in_words(user) for user in _nearest(users)]
        return {"content": list(content), "users": words + [f"{what} can't be looked at" for what in unseen]}

    try:
        answer = in_child(told, seconds)
    except StorageError as error:
        return Content(problem=error.message), []
    if answer is None:
        return Content(problem=_SILENT), []
    signatures, data, problem = answer["content"]
    return Content(tuple(Signature(*each) for each in signatures), data, problem), answer["users"]


def _nearest(users: Sequence[User]) -> list[User]:
    """Without mounts that only other processes see, where this host has one itself."""
    own = any(user.kind == "mount" and _ELSEWHERE not in user.who for user in users)
    return [user for user in users if not (own and user.kind == "mount" and _ELSEWHERE in user.who)]


def _in_words(user: User) -> str:
    if user.kind == "mount":
        return f"mounted at {user.who}"
    if user.kind in ("process", "lock", "loop"):
        return f"used by {user}"
    return f"used as {user}" if user.kind == "swap" else f"part of {user.who}"


class _Groups:
    """Volume groups by the device that is a part of them; looked for when a device says that it is one."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._known: dict[str, str] | None = None

    def of(self, device: Device) -> str:
        if self._known is None:
            try:
                members = lvm.report(self._look).devices
            except StorageError:
                members = ()  # without lvm2 its signature has to do
            self._known = {os.path.realpath(each.path): each.group for each in members if each.path}
        group = self._known.get(os.path.realpath(device.node), "")
        return f"member of volume group {group}" if group else "physical volume of LVM"


def _hindrances(row: PoolType, device: Device, content: Content, groups: _Groups) -> Iterator[str]:
    """What stands in the way, beside its users."""
    if content.problem:
        yield f"it can't be looked at: {content.problem}"
    for name in dict.fromkeys(each.name for each in content.signatures if _is_part(each)):
        yield groups.of(device) if name == _LVM_MEMBER else f"it has the signature {name} of a part of something"
    if device.read_only and row.partitions:
        yield "it is read-only"


def _is_part(signature: Signature) -> bool:
    """Whether that is what a member of something has. libblkid takes those of ZFS for filesystems."""
    return signature.usage == _RAID or signature.name.endswith("_member") or signature.name in MEMBERS


def _found(row: PoolType, device: Device, content: Content, users: Sequence[str], groups: _Groups) -> FoundSource:
    filesystem = _filesystem(content)
    whole = (device.disk,) if device.disk is not None else ()
    return FoundSource(
        Source(devices=(SourceDevice(stable_path(device)),), format=_format(row, content)),
        users=tuple(dict.fromkeys((*users, *_hindrances(row, device, content, groups)))),
        devices=(device.node, *whole, *device.partitions),
        group=group_of(device.dm_name) if device.dm_uuid.startswith(_VOLUME) else None,
        path=device.node,
        kind=device.kind,
        size=device.size,
        content=None if content.problem else content.text,
        label=(filesystem.label or None) if filesystem else None,
        uuid=(filesystem.uuid or None) if filesystem else None,
    )


def _filesystem(content: Content) -> Signature | None:
    """The only one; of several none is the one that counts."""
    found = [each for each in content.signatures if each.usage == _FILESYSTEM and not _is_part(each)]
    return found[0] if len({each.name for each in found}) == 1 else None


def _format(row: PoolType, content: Content) -> str | None:
    """As the pool would have it; None for what it has no word for, or where there is nothing."""
    if row.file_tree:
        filesystem = _filesystem(content)
        name = filesystem.name if filesystem else None
    else:
        tables = [each.name for each in content.signatures if each.usage == _TABLE]
        name = "gpt" if "gpt" in tables else next(map(label_of, tables), None)
    return name if name in row.formats else None


def stable_path(device: Device) -> str:
    """A name that it has after the next start too, where there is one: a volume's own, or a link that tells what the
    device is, else where it is attached (udev(7), persistent names).
    """
    paths = aliases(device)
    if device.dm_name:
        return f"/dev/mapper/{device.dm_name}" if f"/dev/mapper/{device.dm_name}" in paths else device.node
    for directory in _LINKS:
        names = [path for path in paths if path.startswith(directory)]
        names = [path for path in names if not os.path.basename(path).startswith(_POOR_LINKS)]
        if names:
            return min(names, key=_preference)
    return device.node


def _preference(path: str) -> tuple[bool, int, str]:
    """World wide names first, then the shortest."""
    name = os.path.basename(path)
    return not name.startswith(("wwn-", "nvme-eui.", "nvme-uuid.", "md-uuid-")), len(name), name
