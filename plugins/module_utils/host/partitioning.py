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
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..model.errors import StorageError
from ..model.operations import ChangeTable
from ..model.tables import Partition, Table
from .block import Device, device_at
from .identity import changed_meanwhile
from .partitions import differences, kernel_partitions, partition_row, read_table
from .run import run
from .taking import SECONDS, alone, check_unused, same_device
from .udev import locked, settle

_MIB = 1 << 20
_PARTED = "parted"
_KEPT, _PLAIN = ("uuid", "name", "attrs"), re.compile(r"[\w .,:+-]", re.ASCII)
_BLKPG, _ADD, _DELETE, _RESIZE = 0x1269, 1, 2, 3  # linux/blkpg.h
_ARGUMENT, _PARTITION = "@iiiP", "@qqi64s64s0q"
_SHOWN_OF_EXTENDED = 1024  # bytes that the kernel shows of an extended partition: enough for a boot loader


class _Held(NamedTuple):
    """What is worked with under the lock: the disk as it is open, the open files that commands get, and the seconds
    that each may take but those that write content.
    """

    disk: int
    keep: tuple[int, ...]
    seconds: float

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> str:
        return run(argv, self.keep, self.seconds, stdin)


def change_table(op: ChangeTable, held: Sequence[int], timeout: float | None) -> None:
    """Raises ``changed_meanwhile`` or ``locked`` before it does anything, ``device_in_use`` and what commands raise."""
    seconds = timeout or SECONDS
    try:
        with locked(same_device(op.disk, op.identity, seconds), seconds) as descriptor:
            _change_locked(op, _Held(descriptor, (*held, descriptor), max(seconds, SECONDS)), seconds)
    finally:  # for those before it, too
        if op.settle:
            settle(seconds)


def _change_locked(op: ChangeTable, work: _Held, seconds: float) -> None:
    device = same_device(op.disk, op.identity, 0)
    table = _checked(op, device, work)
    if not op.label:
        check_unused(device, seconds)
    elif op.argv:
        _check_alone(device, op.unseen)
    _change(op, device, work)
    if op.argv:
        table = _table(op.made or op.label, device, op, work)
    _tell_kernel(device, table, op, work)
    _check_made(op, table)


def _change(op: ChangeTable, device: Device, work: _Held) -> None:
    """What must be unused is held as long as it can be: the kernel takes away no partition that is held, by us either,
    and parted has it do so as soon as it has written.
    """
    at_once = op.unused and op.argv[0] == _PARTED
    with alone(_taken(op, device)):
        if op.drop:
            op = op._replace(script=op.script + _beside(op, device, work))
            work.run(op.drop)
        else:
            _write(op, work)
            if not at_once:
                _edit(op, work)
    if op.drop:
        _tell_kernel(device, _table(op.label, device, op, work), op, work)
        _write(op, work)
    if op.drop or at_once:
        _edit(op, work)


def _check_alone(device: Device, known: Sequence[str]) -> None:
    """Raises ``changed_meanwhile`` where somebody has the whole disk, and so all that is in it and free in it."""
    from .device_users import users_beneath

    users, told = users_beneath(device)
    unseen = [what for what in told if what not in known]
    if users or unseen:
        what = f"was taken into use by {users[0]}" if users else f"could not be checked for users ({unseen[0]})"
        raise changed_meanwhile(device.node, what)


def _checked(op: ChangeTable, device: Device, work: _Held) -> Table | None:
    """The table as it is, which is still the one that was looked at."""
    try:
        table = _table(op.label, device, op, work)
    except StorageError as error:
        raise changed_meanwhile(op.disk, f"got a table that can't be read ({error.stderr or error.message})") from None
    if table is not None:
        _check(op, table)
    return table


def _taken(op: ChangeTable, device: Device) -> list[str]:
    """The nodes that nobody may have in use: the whole disk where its table does not count, or partitions of it. Those
    that kpartx made have the disk in use themselves.
    """
    if not op.label:
        return list(device.partitions) if device.kind == "dm" and device.partitions else [device.node]
    numbers = [number for number, _start, _end in op.was] if op.unused else []
    nodes = ["/dev/" + each.name.replace("!", "/") for each in kernel_partitions(device) if each.number in numbers]
    return [node for node in nodes if os.path.exists(node)]


def _beside(op: ChangeTable, device: Device, work: _Held) -> str:
    """What a partition that is to be made anew has beside its place and type, as sfdisk(8) reads it."""
    words = []
    for number, _start, _end in op.was:
        row = partition_row(device, number, work.run)
        words += [f', {name}="{_escaped(str(row[name]))}"' for name in _KEPT if row.get(name)]
        words += [", bootable"] if row.get("bootable") else []
    return "".join(words)


def _escaped(text: str) -> str:
    """As sfdisk itself dumps names, which any characters can be in (util-linux, lib/mangle.c)."""
    told = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if _PLAIN.match(chr(byte)) else f"\\x{byte:02x}" for byte in told)


def _edit(op: ChangeTable, work: _Held) -> None:
    """parted waits for udev, which needs a shared lock for its events, and the one we have to read the table anew."""
    if op.argv:
        if op.argv[0] == _PARTED:
            fcntl.flock(work.disk, fcntl.LOCK_SH)
        work.run(op.argv, f"{op.script}\n".encode() if op.script else b"")


def _table(label: str, device: Device, op: ChangeTable, work: _Held) -> Table | None:
    return read_table(device, label, op.separator, work.run, work.seconds) if label else None


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


def _check_made(op: ChangeTable, table: Table | None) -> None:
    """sfdisk ends well where the table has no entry left for a partition, and makes none."""
    if op.free is None or table is None or op.free in [(each.start, each.end) for each in table.partitions]:
        return
    start, end = op.free
    raise StorageError(
        "operation_failed",
        f"{op.argv[0]} ended without an error, but {op.disk} has no partition from byte {start} to {end}",
        subject=op.disk,
        hint=f"See what is there (sfdisk --dump {op.disk}), then run the task again.",
    )


def _write(op: ChangeTable, work: _Held) -> None:
    for offset, size in op.clear:
        _clear(work.disk, offset, size)
    if isinstance(op.content, bytes):
        _put(work.disk, op.content, op.at)
    if op.clear or op.content:
        os.fsync(work.disk)
    if op.content and not isinstance(op.content, bytes):
        run(op.content, keep_fds=work.keep)
        os.fsync(work.disk)


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


def _tell_kernel(disk: Device, table: Table | None, op: ChangeTable, work: _Held) -> None:
    device = device_at(op.disk)
    if device.kind == "dm":
        from .mapped import update

        update(device, table, op.separator, work.seconds)
        return
    seen = kernel_partitions(device)
    if table is None:
        table = Table("", op.disk, "", device.sector, 0, device.size)
    gone, new, sized = differences(table, seen)
    for each in reversed(gone):
        _blkpg(work.disk, _DELETE, each.number, 0, 0, op.disk)
    for partition in sized:
        _blkpg(work.disk, _RESIZE, partition.number, partition.start, partition.size, op.disk)
    for partition in new:
        size = min(partition.size, _SHOWN_OF_EXTENDED) if table.is_extended(partition) else partition.size
        _blkpg(work.disk, _ADD, partition.number, partition.start, size, op.disk)


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
