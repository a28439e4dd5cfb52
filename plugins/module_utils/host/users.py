# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who has a file open or attached now: processes, QEMU's image locks, loop devices, mounts, swap, the kernel's own
servers.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..model.errors import StorageError
from ..model.found import User
from .mounts import Mount, mounts, unescaped
from .patience import in_child
from .processes import OpenFile, Processes, is_udev, process_user
from .remote import is_remote

# QEMU locks single bytes from 100 (permissions it uses) and 200 (permissions it denies others): block/file-posix.c.
_QEMU_LOCK_START, _QEMU_LOCK_LENGTH = 100, 200
_FLOCK = "hhqqi4x"
_LOOP_GET_STATUS64, _LOOP_INFO = 0x4C05, "QQQQQ192x"  # linux/loop.h
_SECONDS = 5.0
_GONE = " (deleted)"  # proc_pid_fd(5)
_OF_ZFS = "zfs_member"
_LOOPS = "what loop devices are attached to"


def _try_stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


class Attached(NamedTuple):
    """What a loop device is attached to: device and inode of the file, the number of a device; from which byte on, and
    of how many, all that follow where that is 0.
    """

    device: int
    inode: int
    number: int
    start: int
    size: int

    @property
    def identity(self) -> tuple[int, ...]:
        return (self.number,) if self.number else (self.device, self.inode)

    def overlaps(self, other: Attached) -> bool:
        """Whether both have some of the same bytes."""
        if self.identity != other.identity:
            return False
        first, second = sorted((self, other), key=lambda each: each.start)
        return not first.size or first.start + first.size > second.start


class _Targets:
    """The files that are asked about, by what they are and by what they are called. A block device is the same under
    every node that has its number.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._keys: dict[tuple[int, ...], str] = {}
        self._names: set[str] = set()
        self._any_name = False
        self._devices = False
        self._filesystems: set[int] = set()
        for key, path in paths.items():
            status = _try_stat(path)
            if status is not None:
                self._keys[_what(status)] = key
                self._filesystems.add(status.st_dev)
                self._names.add(os.path.basename(os.path.realpath(path)))
                self._any_name = self._any_name or status.st_nlink > 1
                self._devices = self._devices or stat.S_ISBLK(status.st_mode)

    def find(self, path: str, shown: str) -> str | None:
        """The key of the file at ``path`` whose link text is ``shown``. Other names are not opened up: it may hang on
        dead servers.
        """
        if not shown.startswith("/"):
            return None
        of_device = self._devices and "/dev/" in shown
        if not self._any_name and not of_device and os.path.basename(shown) not in self._names:
            return None
        status = _try_stat(path)
        return None if status is None else self._keys.get(_what(status))

    def find_gone(self, file: OpenFile, processes: Processes) -> str | None:
        """The key of a file that is open under a name which is gone, where it has another one still: its name tells
        nothing. Nothing is opened up of servers which none of the files asked about is on.
        """
        if not self._keys or not file.shown.endswith(_GONE):
            return None
        mount = processes.mount_of(file)
        if mount is None or (is_remote(mount.fstype) and os.makedev(*mount.number) not in self._filesystems):
            return None
        status = _try_stat(file.link)
        return None if status is None else self._keys.get(_what(status))

    def attached(self, attached: Attached) -> str | None:
        """The key of what a loop device is attached to."""
        return self._keys.get(attached.identity)

    def mounted(self, mount: Mount, process: str) -> str | None:
        """The key of the file that a process sees mounted somewhere. Only what is on the filesystems of those that are
        asked about is opened up.
        """
        name = os.path.basename(mount.root)
        if name not in self._names and not self._any_name:
            return None
        if mount.fstype != "btrfs" and os.makedev(*mount.number) not in self._filesystems:
            return None
        status = _try_stat(f"/proc/{process}/root{mount.point}")
        return None if status is None else self._keys.get(_what(status))


def _what(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_rdev,) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


def writable(descriptor_path: str) -> bool:
    """Whether a descriptor in /proc is open for writing, or that can't be told."""
    info = descriptor_path.replace("/fd/", "/fdinfo/")
    try:
        with open(info, encoding="ascii") as file:
            flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
    except (OSError, StopIteration):
        return True
    return flags & os.O_ACCMODE != os.O_RDONLY


def qemu_lock(path: str, writers_only: bool) -> User | None:
    """A lock that QEMU or another tool holds on the image. A shared lock on the first bytes is a reader's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # byte 101 is "writes" of the permissions in use (BLK_PERM_WRITE)
        start, length = (_QEMU_LOCK_START + 1, 1) if writers_only else (_QEMU_LOCK_START, _QEMU_LOCK_LENGTH)
        query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, query))
        return None if answer[0] == fcntl.F_UNLCK else User("lock", "held by QEMU or another program")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def loops() -> Iterator[tuple[str, str]]:
    """(node, backing file as it was named) of all loop devices in use (sysfs-block-loop)."""
    for backing in sorted(glob.glob("/sys/block/loop*/loop/backing_file")):
        try:
            with open(backing, encoding="utf-8", errors="surrogateescape") as file:
                yield "/dev/" + backing.split("/")[3], file.read().rstrip("\n")
        except OSError:
            continue


def attachments(nodes: Iterable[str], seconds: float = _SECONDS) -> dict[str, Attached] | None:
    """What loop devices are attached to, by itself: whoever attached it may have seen other paths than we do. None
    where that can't be told, since it may be on a server that is dead.
    """
    asked = list(nodes)
    try:
        told = in_child(lambda: _attachments(asked), seconds) if asked else {}
    except StorageError:
        return None
    return None if told is None else {node: Attached(*each) for node, each in told.items()}


def _attachments(nodes: Iterable[str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for node in nodes:
        try:
            descriptor = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            told = fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, bytes(struct.calcsize(_LOOP_INFO)))
            found[node] = struct.unpack(_LOOP_INFO, told)
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return found


def swaps() -> list[str]:
    """Paths that are swapped to (proc_swaps(5))."""
    try:
        with open("/proc/swaps", encoding="utf-8", errors="surrogateescape") as lines:
            return [unescaped(line.split()[0]) for line in list(lines)[1:]]
    except OSError:
        return []


def _attached(processes: Processes) -> Iterator[tuple[str, str, User]]:
    """(path, what the kernel shows of the file, user)."""
    for node, path in loops():
        yield path, path, User("loop", node)
    for mount in mounts():
        if mount.root != "/":
            yield mount.point, mount.root, User("mount", mount.point)
    for path in swaps():
        yield path, path, User("swap", path)
    for path, user in processes.served():
        yield path, path, user


def _elsewhere(
    targets: _Targets, nodes: Iterable[str], processes: Processes, unseen: set[str]
) -> Iterator[tuple[str | None, User]]:
    """Users to whom a file has another path than to us, since they see other mounts."""
    told = attachments(nodes)
    unseen |= {_LOOPS} if told is None else set()
    for node, attached in (told or {}).items():
        yield targets.attached(attached), User("loop", node)
    for process, table in processes.tables().values():
        for mount in table if process != "self" else ():
            if mount.root != "/":
                user = User("mount", f"{mount.point} as process {process} sees it")
                yield targets.mounted(mount, process), user


def _renamed(paths: Mapping[str, str], processes: Processes) -> Iterator[tuple[str, User]]:
    """Users that know a file by the name that it had, as a pool of ZFS does: of what is no longer under that name only
    the content tells.
    """
    lost = [user for path, user in processes.served() if not os.path.lexists(path)] if paths else []
    if not lost:
        return
    from .signatures import content_at

    for key, path in paths.items():
        if _OF_ZFS in content_at(path, _SECONDS).names:
            yield from ((key, user) for user in lost)


def held(path: str) -> bool:
    """Whether the kernel has a block device in use: mounted, as swap, or below another device (open(2), O_EXCL)."""
    status = _try_stat(path)
    if status is None or not stat.S_ISBLK(status.st_mode):
        return False
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def users_of(
    paths: Mapping[str, str], writers_only: bool = False, processes: Processes | None = None
) -> tuple[dict[str, tuple[User, ...]], tuple[str, ...]]:
    """For each key the users of the file at its path, and what could not be looked at."""
    processes = processes or Processes()
    targets = _Targets(paths)
    users: dict[str, list[User]] = {key: [] for key in paths}
    for file in processes.files():
        key = targets.find(file.link, file.shown) or targets.find_gone(file, processes)
        if key is not None and (not writers_only or writable(file.link)) and not is_udev(file.pid):
            user = process_user(file.pid)
            if user not in users[key]:
                users[key].append(user)
    loop_nodes = [node for node, _path in loops()]
    for path, shown, user in _attached(processes) if paths else ():
        key = targets.find(path, shown)
        if key is not None:
            users[key].append(user)
    unseen = set(processes.unseen)
    for key, user in _elsewhere(targets, loop_nodes, processes, unseen) if paths else ():
        if key is not None and user not in users[key]:
            users[key].append(user)
    for key, user in _renamed({key: path for key, path in paths.items() if not users[key]}, processes):
        users[key].append(user)
    for key, path in paths.items():
        lock = None if users[key] else qemu_lock(path, writers_only)
        if lock is not None:
            users[key].append(lock)
    return {key: tuple(found) for key, found in users.items()}, tuple(sorted(unseen))


def writers_beside(node: str, processes: Processes, unseen: set[str]) -> Iterator[User]:
    """Who else may write to what a loop device is attached to, or has it as a device of another name."""
    paths = dict(loops())
    if node not in paths:
        return
    told = attachments(paths)
    own = (told or {}).get(node)
    if told is None or own is None:
        unseen.add(_LOOPS)
        return
    path = paths[node]
    for other, attached in told.items():
        if other != node and attached.overlaps(own):
            yield User("loop", f"{other}, attached to {path} too")
    if own.number:  # a device, which is asked by itself
        return
    status = in_child(lambda: list(_what(os.stat(path))) if os.path.exists(path) else [], _SECONDS)
    if status is None or tuple(status) != own.identity:
        unseen.add(f"who has {path}, which {node} is attached to")
        return
    users, blind = users_of({node: path}, writers_only=True, processes=processes)
    unseen |= {*blind}
    yield from (User(user.kind, f"{user.who} with {path}") for user in users[node] if user.kind != "loop")
