# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Locks that die with their owner: flock(2) on files outside the pools."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..model.errors import StorageError

_POLL_SECONDS = 0.05


def _acquire(path: str, deadline: float, subject: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise StorageError(
                    "locked",
                    f"{subject} is being changed by another task",
                    subject=subject,
                    hint="Run the task again when that one has ended, or give it a longer timeout.",
                ) from None
            time.sleep(_POLL_SECONDS)


@contextmanager
def locked(directory: str, names: Sequence[tuple[str, str]], timeout: float) -> Iterator[tuple[int, ...]]:
    """Holds the locks ``(file name, what it stands for)``, taken in the order given. Yields their descriptors."""
    deadline = time.monotonic() + timeout
    held: list[int] = []
    try:
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)
            if os.stat(directory).st_uid not in (0, os.geteuid()):
                raise PermissionError(errno.EPERM, "it belongs to another user")
            for name, subject in names:
                held.append(_acquire(os.path.join(directory, name), deadline, subject))
        except OSError as error:
            raise StorageError(
                "not_writable",
                f"the lock directory {directory} can't be used: {error.strerror}",
                subject=directory,
                hint="Run as a user who may write there (become: true), or name another uri.",
            ) from error
        yield tuple(held)
    finally:
        for descriptor in held:
            os.close(descriptor)
