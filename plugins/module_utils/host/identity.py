# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Which file is which: what was looked at must still be there when it is changed."""

from __future__ import annotations

import hashlib
import os
import re
import resource

from ..model.errors import StorageError
from .files import read_small_file

_TAKEN = re.compile(r"\A-.*-inode((?:-[0-9]+)*)\Z", re.DOTALL)  # no new volume's name starts with a dash
_OTHER_FILES = 256  # what a task has open besides


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """What tells one file from another. A number can be given to a new file: see Pins."""
    return (status.st_dev, status.st_ino)


def taken_as(path: str, *identities: tuple[int, ...]) -> str:
    """A name like ``path`` for what is taken out of a pool, that says which files may be there: see ``is_stray``."""
    return "-".join([f"{path}-inode", *(str(number) for identity in identities for number in identity[1:])])


def is_stray(path: str) -> bool:
    """Whether a file is none of those that its name says may be there: somebody else's, which took the place of a
    volume and was taken out of the pool for it, by a task that was killed before it could put it back.
    """
    match = _TAKEN.search(os.path.basename(path))
    if match is None:
        return False
    try:
        return str(os.lstat(path).st_ino) not in match.group(1).split("-")
    except FileNotFoundError:
        return False


def changed_meanwhile(path: str, what: str) -> StorageError:
    return StorageError(
        "changed_meanwhile",
        f"{path} {what} after it was looked at",
        subject=path,
        hint="Nothing of it was touched. Look at what is there now and run the task again.",
    )


def this_host() -> str:
    """A short name of this host among those that share a filesystem (machine-id(5), gethostname(2))."""
    machine = read_small_file("/etc/machine-id") or b""
    return hashlib.sha256(machine.strip() + b" " + os.fsencode(os.uname().nodename)).hexdigest()[:8]


class Pins:
    """Keeps files from being taken for others: the number of one that is held open can't be given to a new one."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def pin(self, path: str, identity: tuple[int, ...]) -> None:
        """Raises ``changed_meanwhile`` where the path is another file already."""
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise changed_meanwhile(path, "went away") from None
        self._descriptors.append(descriptor)
        if identity_of(os.fstat(descriptor)) != identity:
            raise changed_meanwhile(path, "was replaced")

    def make_room(self, count: int) -> None:
        """Lets this process have so many more files open, as far as it may."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count + len(self._descriptors) + _OTHER_FILES
        if soft != resource.RLIM_INFINITY and wanted > soft:
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))

    def release(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())
