# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Devices taken: what was looked at is looked at again with udev kept away (systemd's documentation, "Locking Block
Device Access") and the device held, so that the kernel lets nobody mount it, swap to it or build on it, until what is
made there is begun.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from ..model.errors import StorageError
from ..model.operations import MakeOn, Taken, WriteFile
from .block import Device
from .directories import unlink, write_file
from .identity import changed_meanwhile
from .processes import Processes
from .run import run
from .udev import locked, reread, settled_device

SECONDS = 30.0  # that a lock is waited for, and a look may take, where nothing else is said
_FLAGS = os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC


def make_on(op: MakeOn, held: Sequence[int], timeout: float | None) -> None:
    """Raises ``changed_meanwhile`` and ``locked`` before anything is done, and what commands raise."""
    seconds = timeout or SECONDS
    devices = _same_devices(op, seconds)
    with _all_locked(devices, seconds) as locks:
        keep = (*held, *locks)
        _check_all_unused(devices, seconds)
        with ExitStack() as holding:
            holding.enter_context(alone(op.nodes))
            _same_devices(op, 0)
            for taken in op.devices:
                _check_content(taken, seconds)
            with _noted(op):
                if op.wipe:
                    run(op.wiping, keep)
                holding.close()  # the tools want to hold them too
                for device in devices:
                    if op.wipe and device.partitions:
                        reread(device.node, seconds)
                _make(op, keep)


def _same_devices(op: MakeOn, seconds: float) -> list[Device]:
    return [same_device(taken.node, taken.identity, seconds) for taken in op.devices]


@contextmanager
def _all_locked(devices: Iterable[Device], seconds: float) -> Iterator[list[int]]:
    """The disk of several partitions is locked once, and all disks in one order, so that no two tasks wait for each
    other.
    """
    by_disk = {device.disk or device.node: device for device in devices}
    with ExitStack() as stack:
        yield [stack.enter_context(locked(by_disk[disk], seconds)) for disk in sorted(by_disk)]


def _check_all_unused(devices: Iterable[Device], seconds: float) -> None:
    processes = Processes()
    for device in devices:
        check_unused(device, seconds, processes)


@contextmanager
def _noted(op: MakeOn) -> Iterator[None]:
    """What was killed leaves the note, as it would with us; what failed by itself had its reason, and leaves data like
    any other: that of others, where it failed before anything was made.
    """
    if not op.note:
        yield
        return
    write_file(WriteFile(op.note, op.noted))
    try:
        yield
    except (OSError, StorageError) as error:
        if (getattr(error, "rc", None) or 0) >= 0:
            with suppress(OSError):
                unlink(op.note)
        raise
    unlink(op.note)


def _make(op: MakeOn, keep: Sequence[int]) -> None:
    if not op.argv:
        return
    try:
        run(op.argv, keep)
    except StorageError as error:
        if error.code == "command_failed":
            error.hint = op.hint or error.hint
        raise


def same_device(node: str, identity: tuple, seconds: float) -> Device:
    """The device, if that is still the one that was looked at; else raises ``changed_meanwhile``."""
    try:
        device = settled_device(node, identity, seconds)
    except StorageError as error:
        raise changed_meanwhile(node, f"went away ({error.message})") from None
    if device.identity != identity:
        raise changed_meanwhile(node, "was replaced")
    return device


def check_unused(device: Device, seconds: float, processes: Processes | None = None) -> None:
    """Raises ``changed_meanwhile`` where somebody has the device, or that can't be told."""
    from .device_users import users_of_device

    users, unseen = users_of_device(device, processes, seconds)
    if users:
        raise changed_meanwhile(device.node, f"was taken into use by {users[0]}")
    if unseen:
        raise changed_meanwhile(device.node, f"could not be checked for users ({unseen[0]})")


def _check_content(taken: Taken, seconds: float) -> None:
    if taken.content is None:
        return
    from .signatures import content_at

    found = content_at(taken.node, seconds)
    if found.facts != taken.content:
        raise changed_meanwhile(taken.node, f"got other content: {found.text or 'nothing but zeros'}")


@contextmanager
def alone(nodes: Iterable[str]) -> Iterator[None]:
    """Holds devices that nobody else holds (open(2), O_EXCL): the kernel refuses to mount them, to swap to them or to
    build on them meanwhile. Raises ``changed_meanwhile`` where it has one in use.
    """
    descriptors: list[int] = []
    try:
        for node in nodes:
            descriptors.append(_hold(node))
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _hold(node: str) -> int:
    try:
        return os.open(node, _FLAGS)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise changed_meanwhile(node, f"can't be opened any more ({error.strerror})") from None
        what = "was taken into use: it is mounted, swapped to, or part of another device"
        raise changed_meanwhile(node, what) from None
