# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a block device holds, as far as its signatures and its ends tell."""

from __future__ import annotations

import os

from ..model.errors import StorageError
from ..model.found import BLANK, DATA, NOT_THERE, UNREADABLE
from .run import run

_END = 1024 * 1024  # as much as the daemon clears at both ends (libvirt, storage driver: build)
_NOTHING, _SEVERAL = 2, 8  # blkid(8): exit status of low-level probing


def content_of(path: str, timeout: float) -> str:
    """``BLANK``, ``DATA`` (something without a signature), or the signature in blkid's words; where it can't be told,
    a text that starts with ``UNREADABLE``.
    """
    try:
        blank = _is_blank(path)
    except FileNotFoundError:
        return f"{UNREADABLE}{NOT_THERE}"
    except OSError as error:
        return f"{UNREADABLE}{error.strerror}"
    try:
        printed = run(["blkid", "-p", "-o", "export", path], timeout=timeout, package="util-linux")
    except StorageError as error:
        if error.rc == _NOTHING:
            return BLANK if blank else DATA
        return "several signatures" if error.rc == _SEVERAL else f"{UNREADABLE}{error.message}"
    pairs = dict(line.partition("=")[::2] for line in printed.splitlines())
    found = [pairs[name] for name in ("PTTYPE", "TYPE") if name in pairs]
    return " and ".join(found) or (BLANK if blank else DATA)


def _is_blank(path: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not be waited for
    with os.fdopen(descriptor, "rb", buffering=0) as device:
        size = device.seek(0, os.SEEK_END)
        for start in (0, max(0, size - _END)):
            device.seek(start)
            if any(device.read(_END)):
                return False
    return True
