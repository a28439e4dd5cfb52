# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a path leads to, without asking what is mounted there: its server may be dead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Callable

from .mounts import Mount, mount_at

_LINKS = 40  # that many one after the other are followed (path_resolution(7))


def resolved(path: str, table: Sequence[Mount]) -> str:
    """An absolute path with symbolic links followed, as os.path.realpath does it; but a mount point is a directory, and
    so is never looked at. What is below one is looked at there.
    """
    return walk(path, table, _nobody)[0]


def walk(path: str, table: Sequence[Mount], silent: Callable[[Mount], bool]) -> tuple[str, Mount | None]:
    """Likewise, but not into a mount that is ``silent``, which is given then, with the rest of the path as it is."""
    points = {mount.point for mount in table}
    left = [name for name in reversed(path.split("/")) if name]
    here, links = "", 0
    while left:
        name = left.pop()
        if name in (".", ".."):
            here = os.path.dirname(here).rstrip("/") if name == ".." else here
            continue
        there = f"{here}/{name}"
        mount = mount_at(there, table) if there in points else None
        if mount is not None and silent(mount):
            return "/".join([there, *reversed(left)]), mount
        target = None if there in points or links >= _LINKS else _link(there)
        if target is None:
            here = there
            continue
        links += 1
        here = "" if target.startswith("/") else here
        left += [part for part in reversed(target.split("/")) if part]
    return here or "/", None


def _nobody(mount: Mount) -> bool:
    return False


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
