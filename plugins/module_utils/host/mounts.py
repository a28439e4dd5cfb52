# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The mount table, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    root: str
    point: str
    fstype: str
    source: str


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def mounts() -> list[Mount]:
    table = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for line in lines:
            left, right = line.split(" - ", 1)
            fields, tail = left.split(" "), right.split(" ")
            table.append(Mount(_unescape(fields[3]), _unescape(fields[4]), tail[0], _unescape(tail[1])))
    return table


def filesystem_of(path: str, table: Iterable[Mount]) -> Mount | None:
    """The mount that holds an absolute, resolved path; the last one wins, as the kernel has it."""
    best = None
    for mount in table:
        prefix = mount.point.rstrip("/") + "/"
        if (path + "/").startswith(prefix) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best
