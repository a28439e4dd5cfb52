# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""A volume of one pool as the device of another, looked at through its own pool, whatever engine that is of."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..model.errors import StorageError
from ..model.found import Found, Layer
from ..model.goal import Scope
from ..model.pool import Pool, SourceVolume
from ..model.volume import Volume

if TYPE_CHECKING:
    from ..host.block import Device


def layer_of(engine: Any, wanted: SourceVolume, named: Callable[[str], str]) -> Layer:
    """``named`` gives the name of a device by which a definition is to have it. Raises StorageError where the volume is
    none.
    """
    found: Found = engine.observe(Scope(Pool(wanted.pool), volumes=(wanted.volume,)))
    volume = found.volumes.get(wanted.volume)
    if volume is not None and not found.is_volume(volume):
        volume = None
    if found.definition is None and found.live is None:
        return Layer(None, _missing("pool_missing", f"pool {wanted.pool} is not defined on this host", wanted))
    _check_is_device(wanted, volume, found)
    path = volume.path if volume is not None else _expected(wanted, found)
    if volume is not None and path is not None and path.startswith("/"):
        path = named(path)
    if found.unreadable is not None:
        raise found.unreadable
    if not found.active:
        return Layer(path, _missing("pool_inactive", f"pool {wanted.pool} is not active", wanted))
    return Layer(path, None if volume else _missing("source_missing", f"there is no volume {wanted}", wanted))


def _missing(code: str, what: str, wanted: SourceVolume) -> StorageError:
    hints = {"pool_missing": "Define it first.", "pool_inactive": "Start it first (state: active)."}
    return StorageError(code, what, subject=f"volume {wanted}", hint=hints.get(code, "Make it first, or name another."))


def _check_is_device(wanted: SourceVolume, volume: Volume | None, found: Found) -> None:
    row, what = found.row, ""
    if row.volumes != "block":
        what = f"volumes of pools of type {row.name} are no block devices"
    elif volume is not None and volume.format in row.made_here:
        what = f"volume {wanted} is a {volume.format}, which others get their space from"
    if what:
        hint = "Name a volume that is a device, such as one of a volume group or a LUN."
        raise StorageError("not_supported", what, subject=f"volume {wanted}", hint=hint)


def _expected(wanted: SourceVolume, found: Found) -> str | None:
    """The path that a volume will have, where its pool's type tells that."""
    return found.volume_path(wanted.volume) if found.row.target.startswith("/") else None


def lasting(path: str) -> str:
    """A name that leads to a device after the next boot as well: the kernel's own may be another one's by then."""
    if os.path.realpath(path) != path:
        return path
    from ..backends.device_sources import stable_path

    device = _device(path)
    return path if device is None else stable_path(device)


def printed(path: str) -> str:
    """The name that tools print of a device: the kernel's, or device-mapper's."""
    device = _device(path)
    if device is None:
        return path
    return f"/dev/mapper/{device.dm_name}" if device.dm_name else device.node


def _device(path: str) -> Device | None:
    """None where it went away meanwhile, or is not activated."""
    from ..host.block import device_at

    try:
        return device_at(path)
    except StorageError:
        return None
