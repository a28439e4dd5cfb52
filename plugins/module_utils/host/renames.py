# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""renameat2(2), which Python does not wrap."""

from __future__ import annotations

import errno
import os

NO_RENAMEAT2 = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # so say a filesystem or a kernel that can't
_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100


def _renameat2(source: str, target: str, flags: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags)
    if libc.renameat2(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


def rename_noreplace(source: str, target: str) -> None:
    """Raises FileExistsError when the target is there, OSError EINVAL or ENOSYS when the filesystem can't."""
    _renameat2(source, target, _NOREPLACE)


def rename_exchange(first: str, second: str) -> None:
    """Both must be there. Raises OSError EINVAL or ENOSYS when the filesystem can't."""
    _renameat2(first, second, _EXCHANGE)
