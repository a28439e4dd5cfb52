# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Multipath maps as sysfs shows them: device-mapper's devices that multipath-tools made (libmultipath: the uuid)."""

from __future__ import annotations

import os

from .block import Device, by_name
from .scsi import MULTIPATH

_SYS = "/sys"


def maps() -> tuple[Device, ...]:
    """In the order of their names."""
    names = (name for name in os.listdir(f"{_SYS}/class/block") if name.startswith("dm-"))
    devices = (device for device in map(by_name, names) if device is not None)
    return tuple(
        sorted((each for each in devices if each.dm_uuid.startswith(MULTIPATH)), key=lambda each: each.dm_name)
    )


def node_of(device: Device) -> str:
    return f"/dev/mapper/{device.dm_name}"
