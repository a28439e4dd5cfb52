# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Partition tables changed: under the lock that keeps udev from looking at a disk half done (systemd's documentation,
"Locking Block Device Access"), and the kernel told partition by partition, so that those in use stay as they are.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import time
from collections.abc import Sequence

from ..model.errors import StorageError
from ..model.operations import ChangeTable
from ..model.tables import Partition, Table
from .block import Device, device_at
from .identity import changed_meanwhile
from .partitions import differences, kernel_partitions, read_table, stem_of
from .run import run

_MIB = 1 << 20
_PAUSE = 0.05
_SECONDS = 30.0  # that the lock is waited for, where nothing else is said
_UDEV = "/run/udev/control"
_BLKPG, _ADD, _DELETE, _RESIZE = 0x1269, 1, 2, 3  # linux/blkpg.h
_ARGUMENT, _PARTITION = "@iiiP", "@qqi64s64s0q"
_SHOWN_OF_EXTENDED = 1024  # bytes that the kernel shows of an extended partition: enough for a boot loader


def change_table(op: ChangeTable, held: Sequence[int], timeout: float | None) -> None:
    """Raises ``changed_meanwhile``, ``locked``, ``device_in_use`` and what commands raise."""
    descriptor = os.open(op.disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock(descriptor, op.disk, timeout or _SECONDS)
        device = device_at(op.disk)
        if device.identity != op.identity:
            raise changed_meanwhile(op.disk, "was replaced or went away")
        table = _table(op.label, device, op)
        if table is not None:
            _check(op, table)
        keep = (*held, descriptor)
        _write(op, descriptor, keep)
        if op.argv:
            if op.argv[0] == "parted":
                # It waits for udev itself, which needs a shared lock for events, and ours to read the table anew.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            run(op.argv, keep_fds=keep, package=op.package, stdin=f"{op.script}\n".encode() if op.script else b"")
        _tell_kernel(descriptor, device, _table(op.made or op.label, device, op), op)
    finally:
        os.close(descriptor)
    if op.settle:
        _settle(timeout or _SECONDS)


def _lock(descriptor: int, disk: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageError(
                    "locked",
                    f"{disk} is locked by another program",
                    subject=disk,
                    hint="See who works on the disk (lslocks), and run the task again.",
                ) from None
        time.sleep(_PAUSE)


def _table(label: str, device: Device, op: ChangeTable) -> Table | None:
    if not label:
        return None
    return read_table(device, label, op.separator, lambda argv, package: run(argv, package=package))


def _check(op: ChangeTable, table: Table) -> None:
    there = {(each.number, each.start, each.end) for each in table.partitions}
    if table.label != op.label or not set(op.was) <= there:
        raise changed_meanwhile(op.disk, "got other partitions")
    if op.free is None:
        return
    start, end = op.free
    for number, first, last in there - set(op.was):
        outside = table.is_extended(table.by_number(number) or Partition(0, 0, 0)) and first <= start and end <= last
        if first < end and start < last and not outside:
            raise changed_meanwhile(op.disk, f"got a partition {number} where a new one was to be")


def _write(op: ChangeTable, descriptor: int, keep: Sequence[int]) -> None:
    for offset, size in op.clear:
        _clear(descriptor, offset, size)
    if isinstance(op.content, bytes):
        _put(descriptor, op.content, op.at)
    if op.clear or op.content:
        os.fsync(descriptor)
    if op.content and not isinstance(op.content, bytes):
        run(op.content, keep_fds=keep, package="qemu-utils, in EL qemu-img")
        os.fsync(descriptor)


def _clear(descriptor: int, offset: int, size: int) -> None:
    """What is zero already is not written. Read anew: a disk keeps old pages of what was written to a partition."""
    os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)
    for start in range(offset, offset + size, _MIB):
        zeros = bytes(min(_MIB, offset + size - start))
        if os.pread(descriptor, len(zeros), start) != zeros:
            _put(descriptor, zeros, start)


def _put(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _tell_kernel(descriptor: int, disk: Device, table: Table | None, op: ChangeTable) -> None:
    device = device_at(op.disk)
    if device.kind == "dm":
        stem, _directory = stem_of(device, op.separator)
        what = ["-d"] if table is None else ["-u", "-p", stem[len(device.dm_name) :]]
        run(["kpartx", *what, "-s", f"/dev/mapper/{device.dm_name}"], package="kpartx")
        return
    seen = kernel_partitions(device)
    if table is None:
        table = Table("", op.disk, "", device.sector, 0, device.size)
    gone, new, sized = differences(table, seen)
    for each in reversed(gone):
        _blkpg(descriptor, _DELETE, each.number, 0, 0, op.disk)
    for partition in sized:
        _blkpg(descriptor, _RESIZE, partition.number, partition.start, partition.size, op.disk)
    for partition in new:
        size = min(partition.size, _SHOWN_OF_EXTENDED) if table.is_extended(partition) else partition.size
        _blkpg(descriptor, _ADD, partition.number, partition.start, size, op.disk)


def _blkpg(descriptor: int, operation: int, number: int, start: int, size: int, disk: str) -> None:
    data = ctypes.create_string_buffer(struct.pack(_PARTITION, start, size, number, b"", b""))
    argument = struct.pack(_ARGUMENT, operation, 0, len(data), ctypes.addressof(data))
    try:
        fcntl.ioctl(descriptor, _BLKPG, argument)
    except OSError as error:
        if operation == _DELETE and error.errno == errno.ENXIO:
            return  # gone already
        busy = error.errno == errno.EBUSY
        raise StorageError(
            "device_in_use" if busy else "operation_failed",
            f"the partition table of {disk} is written, but the kernel can't take over its partition {number}: "
            f"{error.strerror}",
            subject=disk,
            hint=f"Free partition {number} of {disk}, then run the task again." if busy else "Run the task again.",
        ) from error


def _settle(seconds: float) -> None:
    """Waits for udev, where it runs, to make the links of new partitions."""
    if os.path.exists(_UDEV) and shutil.which("udevadm"):
        try:
            run(["udevadm", "settle", f"--timeout={max(1, int(seconds))}"])
        except StorageError:
            return  # it is busy with something else: who needs a link looks for it
