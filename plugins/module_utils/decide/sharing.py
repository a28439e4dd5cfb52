# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What two pools can't both have (libvirt, storage driver: duplicates)."""

from __future__ import annotations

from collections.abc import Callable

from ..model.found import Found, Neighbour
from ..model.pool import Pool, Source
from ..model.types import POOL_TYPES


def shared_source(wanted: Pool, neighbour: Neighbour, found: Found) -> str:
    """What another pool has that this one would have too; empty where there is nothing."""
    other = neighbour.pool
    if POOL_TYPES[wanted.type or "dir"].on_devices and POOL_TYPES[other.type or "dir"].on_devices:
        theirs = {device.path for device in other.source.devices or ()} | set(neighbour.devices)
        for device in wanted.source.devices or ():
            if {device.path, found.resolved.get(device.path, device.path)} & theirs:
                return f"{device.path} is a device"
    if wanted.type == other.type and any(
        same(wanted.source, other.source) for same in _SAME.get(wanted.type or "", ())
    ):
        return f"this source of type {wanted.type} is the one"
    return ""


def _first_host(source: Source) -> str | None:
    return source.hosts[0].name if source.hosts else None


_SAME: dict[str, tuple[Callable[[Source, Source], bool], ...]] = {
    "netfs": (lambda a, b: (a.dir, _first_host(a)) == (b.dir, _first_host(b)),),
    "logical": (lambda a, b: a.name is not None and a.name == b.name,),
    "gluster": (lambda a, b: (a.name, a.dir or "/", _first_host(a)) == (b.name, b.dir or "/", _first_host(b)),),
    "iscsi": (lambda a, b: (a.devices, a.initiator) == (b.devices, b.initiator),),
    "scsi": (lambda a, b: a.adapter is not None and a.adapter == b.adapter,),
    "mpath": (lambda a, b: True,),
    "vstorage": (lambda a, b: a.name == b.name,),
}
