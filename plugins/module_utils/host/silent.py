# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Devices that the kernel knows not to answer, such as the units of a target that is away: who reads one waits until it
is back or given up, which of iSCSI takes two minutes (iscsid.conf: replacement_timeout).
"""

from __future__ import annotations

from .block import Device, by_name, disks_in_state, holders, name_of, slave_names

# Who reads blocked ones waits, who reads those that are offline is told so.
_AWAY = ("blocked", "created-blocked", "offline", "transport-offline")
_MULTIPATH = "mpath-"  # what multipath-tools have a map's uuid begin with


def silent_devices() -> tuple[Device, ...]:
    """With their partitions, and with what is built on them, but for a map that another path leads to."""
    found: dict[str, Device] = {}
    for disk in disks_in_state(_AWAY):
        parts = filter(None, (by_name(name_of(node)) for node in disk.partitions))
        found.update({device.name: device for device in (disk, *parts)})
    for below in tuple(found.values()):
        for above in holders(below):
            quiet = [name in found for name in slave_names(above)]
            if all(quiet) if above.dm_uuid.startswith(_MULTIPATH) else any(quiet):
                found[above.name] = above
    return tuple(found.values())
