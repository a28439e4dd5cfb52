# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Whether a block device is, or lies on, one that guests' volumes are: what it holds is a guest's then (sysfs)."""

from __future__ import annotations

import os
import re

from .files import read_small_file

_OF_GUESTS = re.compile(r"(?:loop|nbd|zd)[0-9]+\Z")
_LOGICAL_VOLUME = b"LVM-"


def holds_guests(path: str, sysfs: str = "/sys") -> bool:
    """Whether the device at ``path`` is a loop device, nbd device, zvol or logical volume, a part of one, or stacked on
    one.
    """
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return False
    return _is_of_guests(os.path.realpath(f"{sysfs}/dev/block/{os.major(number)}:{os.minor(number)}"))


def _is_of_guests(device: str) -> bool:
    if os.path.exists(f"{device}/partition"):
        return _is_of_guests(os.path.dirname(device))
    if _OF_GUESTS.match(os.path.basename(device)):
        return True
    if (read_small_file(f"{device}/dm/uuid") or b"").startswith(_LOGICAL_VOLUME):
        return True
    try:
        below = os.listdir(f"{device}/slaves")
    except OSError:
        return False
    return any(_is_of_guests(os.path.realpath(f"{device}/slaves/{name}")) for name in below)
