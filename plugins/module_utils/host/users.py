# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who has a file open or attached now: processes, QEMU's image locks, loop devices, mounts, swap."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import struct
from collections.abc import Iterator, Mapping

from ..model.found import User
from .mounts import mounts

# QEMU locks single bytes from 100 (permissions it uses) and 200 (permissions it denies others): block/file-posix.c.
_QEMU_LOCK_START, _QEMU_LOCK_LENGTH = 100, 200
_FLOCK = "hhqqi4x"


def _try_stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


class _Targets:
    """The files that are asked about, by what they are and by what they are called."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self.by_identity: dict[tuple[int, int], str] = {}
        self.names: set[str] = set()
        self.any_name = False
        for key, path in paths.items():
            status = _try_stat(path)
            if status is not None:
                self.by_identity[(status.st_dev, status.st_ino)] = key
                self.names.add(os.path.basename(os.path.realpath(path)))
                self.any_name = self.any_name or status.st_nlink > 1

    def find(self, path: str, shown: str) -> str | None:
        """The key of the file at ``path`` whose link text is ``shown``. Other names are not opened up: it may hang on
        dead servers.
        """
        if not shown.startswith("/"):
            return None
        if not self.any_name and os.path.basename(shown) not in self.names:
            return None
        status = _try_stat(path)
        return None if status is None else self.by_identity.get((status.st_dev, status.st_ino))


def _open_files(unseen: set[str]) -> Iterator[tuple[str, str, str]]:
    """(pid, path of the descriptor, what it points to) of every process but this one."""
    own = str(os.getpid())
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid == own:
            continue
        directory = f"/proc/{pid}/fd"
        try:
            descriptors = os.listdir(directory)
        except PermissionError:
            unseen.add("open files of other users' processes")
            continue
        except OSError:
            continue
        for descriptor in descriptors:
            path = f"{directory}/{descriptor}"
            try:
                yield pid, path, os.readlink(path)
            except OSError:
                continue


def _process(pid: str) -> User:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
    except OSError:
        name = "?"
    return User("process", f"{name} (pid {pid})")


def _writable(descriptor_path: str) -> bool:
    info = descriptor_path.replace("/fd/", "/fdinfo/")
    try:
        with open(info, encoding="ascii") as file:
            flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
    except (OSError, StopIteration):
        return True
    return flags & os.O_ACCMODE != os.O_RDONLY


def _qemu_lock(path: str, writers_only: bool) -> User | None:
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


def _attached() -> Iterator[tuple[str, str, User]]:
    """(path, what the kernel shows of the file, user)."""
    for backing in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            with open(backing, encoding="utf-8", errors="surrogateescape") as file:
                path = file.read().rstrip("\n")
            yield path, path, User("loop", "/dev/" + backing.split("/")[3])
        except OSError:
            continue
    for mount in mounts():
        if mount.root != "/":
            yield mount.point, mount.root, User("mount", mount.point)
    try:
        with open("/proc/swaps", encoding="utf-8") as lines:
            for line in list(lines)[1:]:
                path = line.split()[0]
                yield path, path, User("swap", path)
    except OSError:
        return


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
    paths: Mapping[str, str], writers_only: bool = False
) -> tuple[dict[str, tuple[User, ...]], tuple[str, ...]]:
    """For each key the users of the file at its path, and what could not be looked at."""
    targets = _Targets(paths)
    users: dict[str, list[User]] = {key: [] for key in paths}
    unseen: set[str] = set()
    for pid, path, shown in _open_files(unseen):
        key = targets.find(path, shown)
        if key is not None and (not writers_only or _writable(path)):
            user = _process(pid)
            if user not in users[key]:
                users[key].append(user)
    for path, shown, user in _attached():
        key = targets.find(path, shown)
        if key is not None:
            users[key].append(user)
    for key, path in paths.items():
        lock = None if users[key] else _qemu_lock(path, writers_only)
        if lock is not None:
            users[key].append(lock)
    return {key: tuple(found) for key, found in users.items()}, tuple(sorted(unseen))
