# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volume groups, and physical volumes that belong to none yet.

What is inside the volumes of guests is the guests': a group on a logical volume, a loop device, a zvol or an nbd device
is never offered, nor is such a physical volume.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..host.clock import Deadline
from ..host.nested import holds_guests
from ..model.discovery import Discovery, FoundSource
from ..model.errors import StorageError
from ..model.pool import Source, SourceDevice
from . import lvm

_FORMAT = "lvm2"


def look(deadline: Deadline) -> Discovery:
    if os.geteuid() != 0:
        raise StorageError(
            "not_readable",
            "only root can look for volume groups",
            subject="lvm2",
            hint="Run as root (become: true).",
        )
    groups, devices = lvm.groups(deadline), lvm.devices(deadline)
    guests = frozenset(device.path for device in devices if device.path is not None and holds_guests(device.path))
    resolved = {device.path: os.path.realpath(device.path) for device in devices if device.path is not None}
    sources = [*_groups(groups, devices, guests, resolved), *_unused(devices, guests, resolved)]
    return Discovery(tuple(sources), resolved=resolved)


def _groups(
    groups: Sequence[lvm.Group], devices: Sequence[lvm.Device], guests: frozenset[str], resolved: dict[str, str]
) -> list[FoundSource]:
    found = []
    for group in groups:
        paths = [device.path for device in devices if device.group_uuid == group.uuid and device.path is not None]
        if any(path in guests for path in paths):
            continue
        same_name = sum(other.name == group.name for other in groups) > 1
        found.append(
            FoundSource(
                Source(name=group.name, devices=tuple(map(SourceDevice, paths)) or None, format=_FORMAT),
                users=tuple(_hindrances(group, same_name)),
                devices=tuple(resolved[path] for path in paths),
                group=group.name,
                kind="group",
                size=group.size,
                available=group.free,
                uuid=group.uuid,
                volumes=group.volumes,
            )
        )
    return found


def _hindrances(group: lvm.Group, same_name: bool) -> list[str]:
    """Why a group can't be a pool as it is."""
    hindrances = []
    if group.missing:
        hindrances.append(f"{group.missing} of its physical volumes are missing")
    if group.exported:
        hindrances.append("it is exported (vgexport)")
    if same_name:
        hindrances.append("another volume group has the same name")
    return hindrances


def _unused(devices: Sequence[lvm.Device], guests: frozenset[str], resolved: dict[str, str]) -> list[FoundSource]:
    found = []
    for device in devices:
        if device.group or device.path is None or device.path in guests:
            continue
        users = []
        if device.used:
            users.append("it belongs to a volume group whose metadata is not found")
        if device.duplicate:
            users.append("another device is the same physical volume")
        found.append(
            FoundSource(
                Source(devices=(SourceDevice(device.path),), format=_FORMAT),
                users=tuple(users),
                devices=(resolved[device.path],),
                path=resolved[device.path],
                kind="device",
                size=device.size,
                content="LVM2_member",
                uuid=device.uuid,
            )
        )
    return found
