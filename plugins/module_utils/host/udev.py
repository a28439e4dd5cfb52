# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Getting along with udev, and telling the kernel of a new partition table."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..model.errors import StorageError
from .block import Device, by_name, device_at, name_of
from .run import run

_CONTROL = "/run/udev/control"
_POLL_SECONDS = 0.05
_NO_TABLE = "failed to read partition table"  # partx of util-linux, of a disk without one


def settle(seconds: float) -> bool:
    """Waits until udev has worked off its events, so that links are there (udevadm(8)). False where that took too long;
    a host without udev has nothing to wait for.
    """
    if not os.path.exists(_CONTROL):
        return True
    try:
        run(["udevadm", "settle", f"--timeout={max(1, int(seconds))}"], timeout=seconds + 1)
    except StorageError as error:
        return error.code == "tool_missing"
    return True


def settled_device(path: str, identity: tuple, seconds: float) -> Device:
    """The device at a path, which was that one. It can be away for a moment, and its name lead elsewhere: a partition
    while udev has its table read anew, the link of a volume while udev works off what others of its group went through.
    Raises what device_at does.
    """
    with suppress(StorageError):
        device = device_at(path)
        if device.identity == identity:
            return device
    settle(seconds)
    return device_at(path)


@contextmanager
def locked(device: Device, seconds: float) -> Iterator[int]:
    """Keeps udev, and whoever else follows it, from probing a disk while it is written: an exclusive lock on the whole
    disk (systemd.io/BLOCK_DEVICE_LOCKING). Yields the descriptor, which is closed after writing, so that udev looks
    anew. Not to be held while mounting: a kernel may refuse that while a device is open for writing.
    """
    descriptor = _open(device.disk or device.node)
    try:
        deadline = time.monotonic() + seconds
        while not _lock(descriptor):
            if time.monotonic() >= deadline:
                raise StorageError(
                    "locked",
                    f"{device.path} is being changed by another program",
                    subject=device.path,
                    hint="Run the task again when that one has ended, or give it a longer timeout.",
                )
            time.sleep(_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(node: str) -> int:
    try:
        return os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def reread(disk: str, seconds: float) -> None:
    """Makes the kernel's partitions of a disk those of its table, all that stay the same being left alone, so that they
    may be in use. By partx, which also reads tables that the kernel can't, but takes away none by itself. Raises what
    it ends with, as where one in use is to go; what udev did at the same time is no failure.
    """
    wanted = _in_table(disk, seconds)
    for number in sorted(_in_kernel(disk) - wanted):
        try:
            run(["partx", "--delete", "--nr", str(number), disk], timeout=seconds)
        except StorageError:
            if number in _in_kernel(disk):
                raise
    if wanted:
        try:
            run(["partx", "--update", disk], timeout=seconds)
        except StorageError:
            if _in_kernel(disk) != wanted:
                raise


def _in_kernel(disk: str) -> set[int]:
    parts = (by_name(name_of(node)) for node in device_at(disk).partitions)
    return {part.partition for part in parts if part is not None and part.partition is not None}


def _in_table(disk: str, seconds: float) -> set[int]:
    try:
        argv = ["partx", "--raw", "--noheadings", "--output", "NR", disk]
        printed = run(argv, timeout=seconds)
    except StorageError as error:
        if _NO_TABLE not in error.stderr:
            raise
        return set()
    return {int(word) for word in printed.split()}
