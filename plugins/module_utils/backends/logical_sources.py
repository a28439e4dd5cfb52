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
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..host.nested import holds_guests
from ..model.discovery import Discovery, FoundSource, Query
from ..model.errors import StorageError
from ..model.pool import Source, SourceDevice
from . import lvm

if TYPE_CHECKING:
    from ..host.look import Look

_FORMAT = "lvm2"


def find(query: Query, look: Look) -> Discovery:
    if os.geteuid() != 0:
        raise StorageError(
            "not_readable",
            "only root can look for volume groups",
            subject="lvm2",
            hint="Run as root (become: true).",
        )
    told = lvm.report(look)
    paths = [path for device in told.devices for path in (device.path, *device.copies) if path]
    guests = frozenset(path for path in paths if holds_guests(path))
    resolved = {path: os.path.realpath(path) for path in paths}
    sources = [*_groups(told, guests, resolved), *_unused(told, guests, resolved)]
    return Discovery(tuple(sources), resolved=resolved)


def _groups(told: lvm.Report, guests: frozenset[str], resolved: dict[str, str]) -> Iterator[FoundSource]:
    for group in told.groups:
        paths = [device.path for device in group.devices if device.path]
        if any(path in guests for path in paths):
            continue
        same_name = sum(other.name == group.name for other in told.groups) > 1
        yield FoundSource(
            Source(name=group.name, devices=tuple(map(SourceDevice, paths)) or None, format=_FORMAT),
            users=tuple(_hindrances(group, same_name)),
            devices=tuple(resolved[path] for path in paths),
            group=group.name,
            kind="group",
            size=group.size,
            available=group.free,
            uuid=group.uuid,
            volumes=len(group.volumes),
        )


def _hindrances(group: lvm.Group, same_name: bool) -> Iterator[str]:
    """Why a group can't be a pool as it is."""
    if group.missing:
        yield f"{group.missing} of its physical volumes are missing"
    if group.exported:
        yield "it is exported (vgexport)"
    if group.shared:
        yield "it is shared with other hosts"
    if group.foreign:
        yield f"it belongs to another host, by its system ID {group.foreign}"
    if any(device.copies for device in group.devices):
        yield "another device is the same physical volume as one of its own"
    if same_name:
        yield "another volume group has the same name"


def _unused(told: lvm.Report, guests: frozenset[str], resolved: dict[str, str]) -> Iterator[FoundSource]:
    for device in told.devices:
        own = [device.path] if device.path and not device.group else []
        for path in (*own, *device.copies):
            if path in guests:
                continue
            users = []
            if device.used and not device.group:
                users.append("it belongs to a volume group whose metadata is not found")
            if device.copies:
                users.append("another device is the same physical volume")
            yield FoundSource(
                Source(devices=(SourceDevice(path),), format=_FORMAT),
                users=tuple(users),
                devices=(resolved[path],),
                path=resolved[path],
                kind="device",
                size=device.size if path == device.path else None,
                content="LVM2_member",
                uuid=device.uuid,
            )
