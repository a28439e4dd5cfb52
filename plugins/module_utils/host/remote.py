# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What is mounted from servers, and which of these do not answer: nothing on those is touched, since whoever touches it
may hang for good. Likewise devices: nothing is read from one that does not answer.
"""

from __future__ import annotations

import os
import stat
from threading import Thread

from ..model.errors import StorageError
from ..model.found import Problem
from .identity import identity_of
from .mounts import Mount, mounts
from .paths import walk
from .reach import Names

# Filesystems that ask somebody else: servers, and processes of this host (FUSE).
_REMOTE = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "9p", "virtiofs", "lustre", "gpfs",
    "beegfs", "glusterfs", "orangefs", "fuse",
)  # fmt: skip
_SECTOR = 4096
_AT_ONCE = 64  # so many are asked together; of more than that each is asked by itself


def is_remote(fstype: str) -> bool:
    """Whether a filesystem of this type may hang because somebody does not answer."""
    return fstype in _REMOTE or fstype.startswith("fuse.")


class Servers:
    """Whether what is mounted answers. All are asked together, the first time that it matters, so that several dead
    ones take no longer than one; what did not answer once is not asked again.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._table: list[Mount] | None = None
        self._asked: dict[tuple[int, int], Thread] = {}
        self._silent: dict[tuple[int, int], bool] = {}
        self._devices: dict[int, bool] = {}
        self.names = Names()

    def look_again(self) -> None:
        """Something may have been mounted or unmounted."""
        self._table = None

    def table(self) -> list[Mount]:
        if self._table is None:
            self._table = mounts()
        return self._table

    def silent(self, path: str) -> Mount | None:
        """The mount that a path leads into and that does not answer; None where it can be touched."""
        return self._walk(path)[1]

    def resolved(self, path: str) -> str:
        """An absolute path with symbolic links followed, as far as that can be told without asking who is dead."""
        return self._walk(path)[0]

    def identity(self, path: str) -> tuple[int, ...] | None:
        """What tells a file from others, under whatever name; None where there is none, or who has it is dead."""
        if self.silent(path) is not None:
            return None
        try:
            return identity_of(os.stat(path))
        except OSError:
            return None

    def check(self, path: str, subject: str) -> None:
        """Raises ``deadline`` where a path leads into what does not answer."""
        mount = self.silent(path)
        if mount is not None:
            raise StorageError("deadline", not_answering(mount, self.timeout), subject=subject, hint=_HINT)

    def unread(self, path: str) -> str:
        """Why the content of a file or device would be waited for in vain; empty where it can be read. A device is
        asked only once.
        """
        mount = self.silent(path)
        if mount is not None:
            return not_answering(mount, self.timeout)
        try:
            status = os.stat(path)
        except OSError:
            return ""
        if not stat.S_ISBLK(status.st_mode):
            return ""
        if status.st_rdev not in self._devices:
            self._devices[status.st_rdev] = _device_answers(path, status.st_rdev, self.timeout)
        return "" if self._devices[status.st_rdev] else f"{path} did not answer within {self.timeout:g} s"

    def problem(self, mount: Mount) -> Problem:
        return Problem("deadline", not_answering(mount, self.timeout), _HINT)

    def answers(self, mount: Mount) -> bool:
        """Whether it answers; it is asked only once."""
        if not is_remote(mount.fstype):
            return True
        if mount.number not in self._silent:
            self._ask(mount)
        return not self._silent[mount.number]

    def _ask(self, mount: Mount) -> None:
        if not self._asked:
            others = {other.number: other for other in self.table() if is_remote(other.fstype)}
            for other in list(others.values())[:_AT_ONCE]:
                self._begin(other)
        if mount.number not in self._asked:
            self._begin(mount)
        self._asked[mount.number].join()

    def _begin(self, mount: Mount) -> None:
        from .patience import answers

        def ask() -> None:
            self._silent[mount.number] = answers(mount.point, self.timeout) is None

        self._asked[mount.number] = Thread(target=ask, daemon=True)
        self._asked[mount.number].start()

    def _walk(self, path: str) -> tuple[str, Mount | None]:
        return walk(path, self.table(), self._is_silent)

    def _is_silent(self, mount: Mount) -> bool:
        return not self.answers(mount)


def _device_answers(path: str, number: int, seconds: float) -> bool:
    """One that the kernel knows not to is not asked; of others the first sector is read, by a child."""
    from .patience import in_child
    from .silent import silent_devices

    if (os.major(number), os.minor(number)) in {device.number for device in silent_devices()}:
        return False
    return in_child(lambda: _touched(path), seconds) is not None


def _touched(path: str) -> bool:
    """True, also where it can't be read: whoever reads it is told so at once."""
    try:
        with open(path, "rb", buffering=0) as device:
            device.read(_SECTOR)
    except OSError:
        pass
    return True


_HINT = "See whether the server is up and can be reached, or give the task a longer timeout."


def not_answering(mount: Mount, timeout: float) -> str:
    return f"{mount.source}, mounted on {mount.point}, did not answer within {timeout:g} s"
