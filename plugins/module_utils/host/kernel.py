# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What the running kernel can do, with the modules that it could load."""

from __future__ import annotations

import os

from ..model.errors import StorageError
from .run import run

_SECONDS = 10.0
_HELPERS = ("/sbin", "/usr/sbin")  # mount(8): where it looks for helpers


def mounts_type(name: str) -> bool:
    """Whether filesystems of a type can be mounted, also where it can't be told. Without modprobe nothing is loaded
    that is not there yet.
    """
    try:
        with open("/proc/filesystems", encoding="ascii") as lines:
            if name in [line.split()[-1] for line in lines]:
                return True
    except OSError:
        return True
    if any(os.path.exists(f"{directory}/mount.{name}") for directory in _HELPERS):
        return True
    try:
        run(["modprobe", "--dry-run", "--quiet", f"fs-{name}"], timeout=_SECONDS)
    except StorageError as error:
        return error.code not in ("command_failed", "tool_missing")
    return True
