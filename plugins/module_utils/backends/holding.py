# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who has a device that a pool is to be made of, whatever the type of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..host.block import Device
from ..model.errors import StorageError
from ..model.found import Problem, User

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.signatures import Content


def users_of(device: Device, content: Content, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """The users, and what could not be looked at; a volume group with nothing active is seen only by LVM. Raises
    ``deadline``.
    """
    from ..host import device_users

    users, unseen = device_users.users_of_device(device)
    if users or not ("LVM2_member" in content.names or device.partitions):
        return users, unseen
    try:
        return _groups(device, look), unseen
    except StorageError as error:
        if error.code == "deadline":
            raise
        if error.code == "tool_missing":  # without LVM there are no volume groups on this host
            return (), unseen
        return (), (*unseen, f"the volume groups on {device.node} ({error.message})")


def unreliable(path: str, device: Device, look: Look) -> Problem | None:
    """Why nothing can be kept on a device: after a boot, or once its user is gone, it is another one, or not there."""
    from ..host import partitions

    why = partitions.unreliable(device, look.run)
    if not why:
        return None
    hint = f"Have the kernel read the table anew (partx --update {device.disk}), or name another device."
    return Problem("source_missing", f"{path} {why}", hint)


def _groups(device: Device, look: Look) -> tuple[User, ...]:
    from ..host.device_users import family
    from .lvm import report

    numbers = {member.number for member in family(device)}
    groups = dict.fromkeys(each.group for each in report(look).devices if each.number in numbers and each.group)
    return tuple(User("holder", f"volume group {name}") for name in groups)
