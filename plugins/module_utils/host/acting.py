# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Files asked for in the name of another user, where a server does not take root for root (exports(5): root_squash)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def acting_as(user: int, group: int) -> Iterator[None]:
    """This thread alone asks for files as that user (setfsuid(2)), and servers are told so too."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.setfsgid(group)
    libc.setfsuid(user)
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())


_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_as_owner(path: str, flags: int = _READ) -> int:
    """A descriptor to read a file that root may not read. Raises PermissionError where its owner may not either."""
    status = os.stat(path)
    if os.geteuid() != 0 or status.st_uid == 0:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    with acting_as(status.st_uid, status.st_gid):
        return os.open(path, flags)
