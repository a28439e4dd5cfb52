# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""A file that was prepared beside its place put there, and one that is there taken away: in one step, and only if it is
the one that was looked at.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from ..model import operations as ops
from ..model.errors import StorageError
from .contents import NEW
from .identity import changed_meanwhile, identity_of, taken_as
from .renames import NO_RENAMEAT2, rename_exchange, rename_noreplace

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def publish(op: ops.Publish) -> None:
    try:
        try:
            os.link(op.staged, op.path, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _publish_without_links(op)
            return
    except FileExistsError:
        if not _is_linked(op.staged, op.path):
            raise changed_meanwhile(op.path, "was made by somebody else") from None
    with suppress(FileNotFoundError):
        os.unlink(op.staged)


def _is_linked(staged: str, path: str) -> bool:
    """Whether both are one file all the same: who asks an NFS server again, since its answer was lost, is told that
    the name is taken (open(2), O_EXCL).
    """
    try:
        ours, theirs = os.lstat(staged), os.lstat(path)
    except FileNotFoundError:
        return False
    return ours.st_nlink > 1 and identity_of(ours) == identity_of(theirs)


def _publish_without_links(op: ops.Publish) -> None:
    try:
        rename_noreplace(op.staged, op.path)
    except OSError as error:
        if error.errno not in NO_RENAMEAT2:
            raise
        os.close(os.open(op.path, NEW, 0o600))
        os.rename(op.staged, op.path)


def exchange(op: ops.Exchange) -> None:
    """Under a name that says which files are ours to remove, whoever is killed."""
    prepared = identity_of(os.lstat(op.staged))
    place = taken_as(os.path.join(os.path.dirname(op.staged), "-exchanged"), prepared, op.identity)
    os.rename(op.staged, place)
    try:
        _exchange(op._replace(staged=place), prepared)
    except BaseException:
        with suppress(FileNotFoundError):
            if identity_of(os.lstat(place)) == prepared:
                os.rename(place, op.staged)
        raise


def _exchange(op: ops.Exchange, prepared: tuple[int, ...]) -> None:
    try:
        rename_exchange(op.staged, op.path)
    except FileNotFoundError:
        raise changed_meanwhile(op.path, "went away") from None
    except OSError as error:
        if error.errno not in NO_RENAMEAT2:
            raise
        _replace_in_two(op, prepared)
        return
    if identity_of(os.lstat(op.staged)) != op.identity:
        rename_exchange(op.staged, op.path)
        if identity_of(os.lstat(op.staged)) != prepared:
            _give_back(op.staged, op.path)
        raise changed_meanwhile(op.path, "was replaced")
    os.unlink(op.staged)


def _replace_in_two(op: ops.Exchange, prepared: tuple[int, ...]) -> None:
    """Where two files can't be exchanged, as on NFS: for a moment there is none. Who is killed then has lost what was
    to be lost, and the next task makes the new one.
    """
    unique = "-".join(map(str, ("-replaced", *prepared[1:])))
    old = taken_as(os.path.join(os.path.dirname(op.staged), unique), op.identity)
    try:
        os.rename(op.path, old)
    except FileNotFoundError:
        raise changed_meanwhile(op.path, "went away") from None
    if identity_of(os.lstat(old)) != op.identity:
        _give_back(old, op.path)
        raise changed_meanwhile(op.path, "was replaced")
    try:
        publish(ops.Publish(op.staged, op.path))
    except (OSError, StorageError):
        _give_back(old, op.path)
        raise
    os.unlink(old)


def withdraw(op: ops.Withdraw) -> None:
    staged = taken_as(op.staged, op.identity)
    try:
        os.rename(op.path, staged)
    except FileNotFoundError:
        return
    if identity_of(os.lstat(staged)) != op.identity:
        _give_back(staged, op.path)
        raise changed_meanwhile(op.path, "was replaced")
    os.unlink(staged)


def _give_back(staged: str, path: str) -> None:
    """Puts somebody else's file back under its name, or beside it when that was taken again."""
    for name in (path, f"{path}.found-{os.getpid()}"):
        with suppress(StorageError):
            publish(ops.Publish(staged, name))
            return


def truncate(op: ops.Truncate) -> None:
    descriptor = os.open(op.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if identity_of(status) != op.identity:
            raise changed_meanwhile(op.path, "was replaced")
        if status.st_size != op.was:
            raise changed_meanwhile(op.path, "got another size")
        os.ftruncate(descriptor, op.size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
