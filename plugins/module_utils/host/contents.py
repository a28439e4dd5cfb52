# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What is in an image file: its size, its reserved space, its data; holes stay holes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Callable

from ..model import operations as ops
from ..model.errors import StorageError
from .files import attributes

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_COPY_BYTES = 1 << 18  # a run of zeros that long becomes a hole
_FS_IOC_SETFLAGS, _FS_NOCOW_FL = 0x40086602, 0x00800000


def make_raw(op: ops.MakeRaw) -> None:
    descriptor = os.open(op.path, NEW, 0o600)
    try:
        if op.nocow:
            _set_nocow(descriptor)
        os.ftruncate(descriptor, op.capacity)
        if op.allocation:
            os.posix_fallocate(descriptor, 0, op.allocation)
    finally:
        os.close(descriptor)


def imprint_of(node: str) -> str:
    """What tells what a device holds from what it held before, by both its ends and samples between. In its first MiB
    many filesystems note that they were written to. Empty where it can't be read.
    """
    from .signatures import sampled

    digest = hashlib.sha256()
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        for offset, size in sampled(0, os.lseek(descriptor, 0, os.SEEK_END)):
            os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)
            digest.update(os.pread(descriptor, size, offset))
        return digest.hexdigest()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def set_directory_nocow(op: ops.SetNocow) -> None:
    descriptor = os.open(op.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _set_nocow(descriptor)
    finally:
        os.close(descriptor)


def _set_nocow(descriptor: int) -> None:
    """chattr +C: only before the first byte is written (ioctl_iflags(2))."""
    value = attributes(descriptor) | _FS_NOCOW_FL
    fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, bytearray(value.to_bytes(8, "little")))


def reserve(op: ops.Reserve) -> None:
    descriptor = os.open(op.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, op.allocation)
    finally:
        os.close(descriptor)


def write_content(op: ops.WriteContent) -> None:
    descriptor = os.open(op.path, NEW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(op.data)
        file.flush()
        os.ftruncate(file.fileno(), op.capacity)


def copy_sparse(op: ops.CopySparse, acting: Callable[[], Any] = nullcontext) -> None:
    """``acting``: as whom the new file is made; the source may be one that only root can read."""
    source = _open_source(op.source, acting)
    try:
        with acting():
            target = os.open(op.path, NEW, 0o600)
        try:
            size = os.lseek(source, 0, os.SEEK_END)
            os.ftruncate(target, max(size, op.size))
            for start, end in _data_extents(source, size):
                _copy_range(source, target, start, end)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _open_source(path: str, acting: Callable[[], Any]) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        with acting():
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _data_extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, offset


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(source, min(_COPY_BYTES, end - start), start)
        if not data:
            raise StorageError(
                "changed_meanwhile",
                "the source became shorter while it was copied",
                subject=os.readlink(f"/proc/self/fd/{source}"),
                hint="Run the task again.",
            )
        if data.count(0) != len(data):
            _write_whole(target, data, start)
        start += len(data)


def _write_whole(descriptor: int, data: bytes, offset: int) -> None:
    """pwrite(2) may write less than it was given, as where the filesystem is nearly full; the next call says why."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset, view = offset + written, view[written:]
