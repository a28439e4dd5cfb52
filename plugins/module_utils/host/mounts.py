# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The mount table, from /proc/PID/mountinfo (proc_pid_mountinfo(5)): what is mounted is never asked itself, since a
dead server would never answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

# Filesystems that show what the kernel does, and store nothing (filesystems(5), proc_filesystems(5)).
_KERNELS_OWN = (
    "proc", "sysfs", "cgroup", "cgroup2", "cpuset", "resctrl", "devpts", "mqueue", "securityfs", "selinuxfs", "smackfs",
    "apparmorfs", "debugfs", "tracefs", "configfs", "functionfs", "bpf", "pstore", "efivarfs", "fusectl", "binfmt_misc",
    "binder", "nfsd", "rpc_pipefs", "dlmfs", "xenfs", "hypfs", "usbfs", "usbdevfs", "nsfs", "pipefs", "sockfs",
)  # fmt: skip
_ESCAPE = re.compile(r"\\([0-7]{3})")
_OPTION = re.compile(r'(?:[^,"]|"[^"]*")+')  # a security context with commas is quoted (mount(8): context)


class Mount(NamedTuple):
    """``number`` is that of its superblock (major, minor): of a filesystem on one block device, that of the device.
    ``options`` are those of the mount, ``super_options`` those of the filesystem. ``parent`` is the ``id`` of the mount
    that holds its point.
    """

    root: str
    point: str
    fstype: str
    source: str
    options: tuple[str, ...]
    super_options: tuple[str, ...]
    number: tuple[int, int]
    id: int
    parent: int


def unescaped(text: str) -> str:
    """Text without the octal escapes of the kernel's lists."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def _options(text: str) -> tuple[str, ...]:
    return tuple(unescaped(option) for option in _OPTION.findall(text))


def _mount(line: str) -> Mount:
    left, right = line.rstrip("\n").split(" - ", 1)
    fields, tail = left.split(" "), right.split(" ")
    major, _colon, minor = fields[2].partition(":")
    return Mount(
        unescaped(fields[3]),
        unescaped(fields[4]),
        tail[0],
        unescaped(tail[1]),
        _options(fields[5]),
        _options(tail[2]) if len(tail) > 2 else (),
        (int(major), int(minor)),
        int(fields[0]),
        int(fields[1]),
    )


def mounts(process: str = "self") -> list[Mount]:
    """The mounts that a process sees."""
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return [_mount(line) for line in lines]


def filesystem_of(path: str, table: Iterable[Mount]) -> Mount | None:
    """The mount that holds an absolute, resolved path, found as the kernel walks there: from the root on, at each
    mount point into what is mounted on it. A mount below a directory that another one covers holds nothing.
    """
    covering = [mount for mount in table if is_below(path, mount.point)]
    ids = {mount.id for mount in covering}
    held = None
    while True:
        here = held.id if held is not None else None
        inside = [mount for mount in covering if _mounted_on(mount, ids) == here]
        if not inside:
            return held
        nearest = min(len(mount.point) for mount in inside)
        held = [mount for mount in inside if len(mount.point) == nearest][-1]


def _mounted_on(mount: Mount, ids: set[int]) -> int | None:
    """The mount that one is mounted on; None for what a walk starts at."""
    return mount.parent if mount.parent in ids and mount.parent != mount.id else None


def stores_nothing(fstype: str) -> bool:
    """Whether no files or directories can be made in a filesystem of this type, or not to keep anything."""
    return fstype in _KERNELS_OWN


def is_below(path: str, directory: str) -> bool:
    """Whether a path is the directory or in it, by their names."""
    return (path + "/").startswith(directory.rstrip("/") + "/")


def mount_at(path: str, table: Iterable[Mount]) -> Mount | None:
    """The topmost mount at an absolute, resolved path; None where nothing is mounted just there."""
    mount = filesystem_of(path, table)
    return mount if mount is not None and mount.point == path else None


def mounts_below(mount: Mount, table: Iterable[Mount]) -> list[Mount]:
    """What is mounted on directories of a mount, and on those in turn."""
    found: list[Mount] = []
    known = {mount.id}
    waiting = [other for other in table if other.id != mount.id]
    while True:
        inside = [other for other in waiting if other.parent in known]
        if not inside:
            return found
        found += inside
        known |= {other.id for other in inside}
        waiting = [other for other in waiting if other.id not in known]
