# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run did to a machine, seen from outside: a snapshot of files, and a record of what Python was asked to do.

Neither is enough alone. Times of files have the granularity of the kernel's tick, so that a write that puts back what
was there may leave no trace in a snapshot; the recorder sees that. And some calls raise no audit event (os.mknod,
os.mkfifo, pwrite, posix_fallocate, whatever is called through ctypes): data can be written only through a descriptor
that was opened for writing, which is an event; new, renamed and removed names are in the snapshot.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 14
_ZEROS = bytes(_CHUNK)


# -- snapshot -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """All of a file but its time of access (one may look) and its blocks (the kernel writes out when it likes)."""

    mode: int
    uid: int
    gid: int
    links: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    content: str


Snapshot = dict[str, Entry]


def content_of(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return ""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        offset = 0
        while offset < status.st_size:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) // _CHUNK * _CHUNK
            except OSError:  # only a hole is left
                break
            data = os.pread(file.fileno(), _CHUNK, offset)
            if data != _ZEROS[: len(data)]:
                digest.update(b"%d:" % offset)
                digest.update(data)
            offset += _CHUNK
    return digest.hexdigest()


def snapshot(top: Path) -> Snapshot:
    """Everything at and below ``top``, by its path relative to ``top``; digests leave out holes and blocks of zeros."""
    entries: Snapshot = {}

    def look(path: str, name: str) -> None:
        status = os.lstat(path)
        entries[name] = Entry(
            status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size, status.st_mtime_ns,
            status.st_ctime_ns, status.st_ino, content_of(path, status),
        )  # fmt: skip
        if stat.S_ISDIR(status.st_mode):
            for child in sorted(os.listdir(path)):
                look(f"{path}/{child}", f"{name}/{child}" if name != "." else child)

    look(str(top), ".")
    return entries


def differences(before: Snapshot, after: Snapshot) -> dict[str, str]:
    """What differs, by path, in words."""
    found = dict.fromkeys(before.keys() - after.keys(), "is gone")
    found.update(dict.fromkeys(after.keys() - before.keys(), "is new"))
    for name in before.keys() & after.keys():
        fields = [f for f in Entry.__dataclass_fields__ if getattr(before[name], f) != getattr(after[name], f)]
        if fields:
            found[name] = "other " + ", ".join(fields)
    return found


def less_locks(found: dict[str, str], root: str) -> dict[str, str]:
    """The differences that a task that takes its locks and then changes nothing may not make.

    Excepted are, exactly: whatever is at or below ROOT/run/lock/virt-storage; that ROOT, ROOT/run and ROOT/run/lock
    come into being; and the times, size and number of links of these three and of the directory that ROOT is in.
    """
    locks = f"{root}/run/lock/virt-storage"
    parents = (root, f"{root}/run", f"{root}/run/lock")
    moved = {"links", "size", "mtime_ns", "ctime_ns"}

    def excepted(name: str, what: str) -> bool:
        if name == locks or name.startswith(locks + "/"):
            return True
        if name in parents and what == "is new":
            return True
        above = name in parents or name == os.path.dirname(root) or (name == "." and "/" not in root)
        return above and what.startswith("other ") and set(what[len("other ") :].split(", ")) <= moved

    return {name: what for name, what in found.items() if not excepted(name, what)}


# -- recorder -----------------------------------------------------------------------------------------------------

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# os.remove is also unlink's, os.rename also replace's, os.chmod also fchmod's and lchmod's, os.chown also fchown's and
# lchown's, os.truncate also ftruncate's event; test_watching.py shows it for each Python that runs the tests.
_CHANGING = frozenset({
    "os.chmod", "os.chown", "os.chflags", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename", "os.rmdir",
    "os.setxattr", "os.symlink", "os.truncate", "os.utime",
})  # fmt: skip
_STARTING = frozenset({"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty"})


class Recorder:
    """Audit hooks can't be removed: there is one for the process, which listens only while something is recorded."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        events = self.events
        if events is None:
            return
        if event == "open":
            path, _unused, flags = arguments
            if isinstance(flags, int) and flags & _WRITING and not isinstance(path, int):
                events.append((event, os.fsdecode(path)))
        elif event in _CHANGING or event in _STARTING:
            if event in ("os.rename", "os.link", "os.symlink"):
                arguments = arguments[1:2]
            events.append((event, " ".join(_text(argument) for argument in arguments[:2])))

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[tuple[str, str]]]:
        """The list is filled while the context lasts: changing calls, commands started, files opened for writing."""
        events: list[tuple[str, str]] = []
        self.events = events
        try:
            yield events
        finally:
            self.events = None


def _text(argument: object) -> str:
    if isinstance(argument, (str, bytes, os.PathLike)):
        return os.fsdecode(argument)
    if isinstance(argument, (list, tuple)):
        return " ".join(_text(part) for part in argument)
    return str(argument)


def of_the_task(events: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the byte code that Python itself caches when something is imported for the first time, and without forks:
    what could hang, such as a loop device that another test has, is looked at by a child that can be left behind.
    """
    return [(event, what) for event, what in events if "__pycache__" not in what and event != "os.fork"]


def but_locks(events: list[tuple[str, str]], root: Path) -> list[tuple[str, str]]:
    """Without the making of ROOT/run/lock/virt-storage, its parents, and the opening of files in it."""
    locks = str(root / "run" / "lock" / "virt-storage")

    def excepted(event: str, what: str) -> bool:
        if event == "open":
            return what.startswith(locks + "/")
        return event == "os.mkdir" and f"{locks}/".startswith(what.split(" ", maxsplit=1)[0] + "/")

    return [(event, what) for event, what in of_the_task(events) if not excepted(event, what)]
