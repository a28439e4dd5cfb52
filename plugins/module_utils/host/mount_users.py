# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who keeps a mounted filesystem busy. The filesystem itself is asked nothing: its server may be dead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..model.errors import StorageError
from ..model.found import User
from .mounts import Mount, filesystem_of, is_below, mount_at, mounts_below, unescaped
from .patience import in_child
from .processes import SELF, Processes, process_user
from .users import loops, swaps

_SECONDS_FOR_MAPS = 5.0
_MAPS = "files that processes have in memory"
_MAPPED = re.compile(r"(?:\S+ +){5}(/.*)")  # proc_pid_maps(5)


class _Inside:
    """What lies in the filesystem: in the viewer's mount namespace by this very mount, in others by any mount of it."""

    def __init__(self, mount: Mount, processes: Processes, viewer: str) -> None:
        self._mount = mount
        self._processes = processes
        self.ours = processes.table_of(viewer)
        self._points: dict[int, list[str]] = {}

    def __call__(self, shown: str, table: list[Mount] | None = None) -> bool:
        table = self.ours if table is None else table
        points = self._points.get(id(table))
        if points is None:
            points = [mount.point for mount in table if self._is_it(mount, table)]
            self._points[id(table)] = points
        if not any(is_below(shown, point) for point in points):
            return False
        holding = filesystem_of(shown, table)
        return holding is not None and self._is_it(holding, table)

    def _is_it(self, mount: Mount, table: list[Mount]) -> bool:
        return mount.id == self._mount.id if table is self.ours else mount.number == self._mount.number

    def of(self, pid: str, shown: str) -> bool:
        """As a process sees it."""
        return self(shown, self._processes.table_of(pid))


def users_at(path: str, viewer: str = SELF) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """The users of what the process ``viewer`` sees mounted at an absolute, resolved path; nobody where nothing is."""
    processes = Processes()
    mount = mount_at(path, processes.table_of(viewer))
    return ((), ()) if mount is None else users_of_mount(mount, processes, viewer=viewer)


def users_of_mount(
    mount: Mount, processes: Processes | None = None, seconds: float = _SECONDS_FOR_MAPS, viewer: str = SELF
) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """The users of one mount that the process ``viewer`` sees, and what could not be looked at: what is mounted below
    it, loop devices, swap and exports in it, and processes with files, sockets, directories or memory there.
    """
    processes = processes or Processes()
    inside = _Inside(mount, processes, viewer)
    found: dict[User, None] = {}
    found.update(dict.fromkeys(User("mount", below.point) for below in mounts_below(mount, inside.ours)))
    found.update(dict.fromkeys(User("loop", node) for node, path in loops() if inside(path)))
    found.update(dict.fromkeys(User("swap", path) for path in swaps() if inside(path)))
    found.update(dict.fromkeys(User("holder", f"NFS server, {path}") for path in _exports() if inside(path)))
    found.update(dict.fromkeys(user for path, user in processes.served() if inside(path)))
    sockets = {f"socket:[{inode}]" for inode, path in _sockets() if inside(path)}
    opened = (*processes.files(), *processes.places())
    pids = [file.pid for file in opened if file.shown in sockets or inside.of(file.pid, file.shown)]
    others = processes.pids()
    try:
        mapped = in_child(lambda: _mapping(others, inside), seconds)
    except StorageError:
        mapped = None
    found.update(dict.fromkeys(process_user(pid) for pid in dict.fromkeys([*pids, *(mapped or ())])))
    unseen = processes.unseen | ({_MAPS} if mapped is None else set())
    return tuple(found), tuple(sorted(unseen))


def _mapping(pids: Iterable[str], inside: _Inside) -> list[str]:
    """Processes that have a file of it in memory. Their maps can't be read while a page of theirs is waited for."""
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:
                paths = {match.group(1) for match in map(_MAPPED.match, lines) if match}
        except OSError:
            continue
        if any(inside.of(pid, path) for path in paths):
            found.append(pid)
    return found


def _sockets() -> Iterator[tuple[str, str]]:
    """(inode, path) of Unix sockets (proc_pid_net(5): unix)."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
            for line in list(lines)[1:]:
                words = line.rstrip("\n").split(None, 7)
                if len(words) == 8 and words[7].startswith("/"):
                    yield words[6], words[7]
    except OSError:
        return


def _exports() -> Iterator[str]:
    """Directories that the kernel's NFS server holds (fs/nfsd/export.c)."""
    try:
        with open("/proc/fs/nfsd/exports", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if line.startswith("/"):
                    yield unescaped(line.split()[0])
    except OSError:
        return
