# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What must still hold of a device or a mount just before something is destroyed: made when it is looked at, checked
again under the lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

from ..model.change import Condition
from ..model.errors import StorageError
from ..model.found import User
from .block import Device, device_at
from .mounts import Mount, mount_at, mounts
from .processes import Processes
from .signatures import Content

_AWAY = "went away"


def is_device(device: Device) -> Condition:
    """What the kernel calls so is still this device, of the same size: that name is what it is worked on by."""
    return Condition("device", device.node, device.identity)


def holds(path: str, content: Content) -> Condition:
    """The device has the same signatures, or still none."""
    return Condition("signatures", path, content.facts)


def is_mounted(point: str, mount: Mount) -> Condition:
    """What is mounted at the point, on top of all else there, is still this mount."""
    return Condition("mount", point, _facts(mount))


def _facts(mount: Mount) -> tuple:
    return (mount.id, *mount.number, mount.root, mount.fstype, mount.source)


def device_unused(path: str, but: Iterable[User] = ()) -> Condition:
    """Nobody uses the device but those."""
    return Condition("device_unused", path, tuple(sorted(map(str, but))))


def has_devices(number: int, target: str, nodes: Iterable[str]) -> Condition:
    """The session with that number has no other devices than these, by the kernel's names, and is one with the
    target.
    """
    return Condition("session", str(number), (target, *sorted(nodes)))


def untouched(device: Device, content: Content) -> tuple[Condition, ...]:
    """Everything that must still be so before the device is taken: it is that one, with that on it, and free."""
    return is_device(device), holds(device.node, content), device_unused(device.node)


class Checks:
    """Made anew for each time that conditions are checked: what the processes do is read once for all of them."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._processes = Processes()
        self._kinds: dict[str, Callable[[Condition], str]] = {
            "device": self._device,
            "content": self._content,
            "signatures": self._signatures,
            "device_unused": self._device_unused,
            "mount": self._mount,
            "session": self._session,
        }

    def broken(self, condition: Condition) -> str:
        """What became of it, as "was replaced" in words for ``changed_meanwhile``; empty while it holds."""
        try:
            return self._kinds[condition.kind](condition)
        except StorageError as error:
            if error.code == "source_missing":
                return _AWAY if condition.expected else ""  # a volume that was not active, and still is not
            return f"can't be looked at ({error.message})"

    def _device(self, condition: Condition) -> str:
        from .udev import settled_device

        path, expected = condition.path, condition.expected
        found = settled_device(path, expected, self._timeout) if expected else device_at(path)
        return _replaced(expected, found.identity)

    def _signatures(self, condition: Condition) -> str:
        from .signatures import content_at

        found = content_at(condition.path, self._timeout)
        return "" if found.facts == condition.expected and not found.problem else _now(found)

    def _content(self, condition: Condition) -> str:
        from .devices import content_of

        found = content_of(condition.path, self._timeout)
        return "" if (found,) == condition.expected else f"got other content: {found or 'nothing but zeros'}"

    def _device_unused(self, condition: Condition) -> str:
        from .device_users import users_of_path

        users, unseen = users_of_path(condition.path, self._processes, self._timeout)
        return _taken(users, condition) or _blind(unseen)

    @staticmethod
    def _mount(condition: Condition) -> str:
        found = mount_at(condition.path, mounts())
        if found is None:
            return "was unmounted"
        return "" if _facts(found) == condition.expected else f"got another mount on it ({found.source})"

    @staticmethod
    def _session(condition: Condition) -> str:
        from .iscsi import sessions
        from .scsi import nodes_of

        target, *known = condition.expected
        found = next((each for each in sessions() if str(each.number) == condition.path), None)
        if found is None:  # nobody loses anything by its end
            return ""
        if found.target != target:
            return f"is a session with {found.target}, and not with {target}"
        new = [node for node in nodes_of(found.host, found.within) if node not in known]
        return f"got another device ({new[0]})" if new else ""


def _replaced(expected: tuple, found: tuple) -> str:
    hardware = ("wwn", "serial number", "uuid", "partition")
    names = ("major number", "minor number", "size", "start", "sequence number", *hardware)
    differing = [f"{name} {now}, not {was}" for name, was, now in zip(names, expected, found) if was != now]
    return "" if found == expected else f"was replaced ({differing[0] if differing else 'it was not there'})"


def _taken(users: Iterable[User], condition: Condition) -> str:
    new = [str(user) for user in users if str(user) not in condition.expected]
    return f"was taken into use by {new[0]}" if new else ""


def _blind(unseen: Iterable[str]) -> str:
    """What could not be looked at may be a user."""
    return "".join(f"could not be checked for users ({what})" for what in list(unseen)[:1])


def _now(found: Content) -> str:
    return f"got other content: {found.text or 'nothing but zeros'}"
