# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Small files read whole: only regular ones, and no more of them than makes sense. Attributes of any."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ..model.errors import StorageError

_LARGEST = 1 << 20  # bytes; definitions and records are a few kB
_FS_IOC_GETFLAGS = 0x80086601  # ioctl_iflags(2)
_SEALS = {0x10: "i", 0x20: "a"}  # FS_IMMUTABLE_FL, FS_APPEND_FL, in the letters of chattr(1)


def read_small_file(path: str) -> bytes | None:
    """The content of a file; None when it is not there. Raises ``not_readable``, also for what is no regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _not_readable(path, error.strerror or str(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_readable(path, "not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(_LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(data) > _LARGEST:
        raise _not_readable(path, f"larger than {_LARGEST} bytes")
    return data


@contextmanager
def in_memory(data: bytes) -> Iterator[tuple[int, str]]:
    """A file that is in memory only, as a descriptor and its path for a command that gets that: nobody else can open
    it, and it is gone with the command, however that ends.
    """
    descriptor = os.memfd_create("credentials")
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        yield descriptor, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def attributes(descriptor: int) -> int:
    """Raises OSError where the filesystem has none."""
    flags = bytearray(8)
    fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
    return int.from_bytes(flags[:4], "little")


def seals(path: str) -> str:
    """The attributes for which nobody, not even root, may remove or change a file, or what is in a directory."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        flags = attributes(descriptor)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return "".join(letter for bit, letter in _SEALS.items() if flags & bit)


def _not_readable(path: str, why: str) -> StorageError:
    return StorageError(
        "not_readable",
        f"{path}: {why}",
        subject=path,
        hint="Run as a user who may read it (become: true).",
    )
