# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Directories, links and small files: made whole or not at all, and on disk before it goes on."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..model import operations as ops
from .renames import NO_RENAMEAT2, rename_noreplace


def sync_path(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(op: ops.MakeDirectory) -> None:
    if os.path.isdir(op.path):
        return
    _make_parents(os.path.dirname(op.path))
    if op.record:
        _make_recorded_directory(op)
    else:
        os.mkdir(op.path, op.mode)
        os.chmod(op.path, op.mode)
    sync_path(os.path.dirname(op.path))


def _make_parents(path: str) -> None:
    missing = []
    while path.strip("/") and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for parent in reversed(missing):
        os.mkdir(parent, 0o755)
        os.chmod(parent, 0o755)
        sync_path(os.path.dirname(parent))


def _make_recorded_directory(op: ops.MakeDirectory) -> None:
    """Under a private name first, so that it is on record by the time it has its own: it is never ours without a note,
    and whatever stands under its name by then is never taken for ours.
    """
    parent, name = os.path.split(op.path)
    staged = os.path.join(parent, f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.virt-storage")
    with suppress(FileNotFoundError):
        os.rmdir(staged)
    os.mkdir(staged, op.mode)
    os.chmod(staged, op.mode)
    write_file(ops.WriteFile(op.record, f"{os.stat(staged).st_ino} {op.path}\n"))
    try:
        rename_noreplace(staged, op.path)
    except OSError as error:
        os.rmdir(staged)
        if error.errno not in NO_RENAMEAT2:
            raise
        os.mkdir(op.path, op.mode)
        os.chmod(op.path, op.mode)
        write_file(ops.WriteFile(op.record, f"{os.stat(op.path).st_ino} {op.path}\n"))


def note_directory(op: ops.NoteDirectory) -> None:
    write_file(ops.WriteFile(op.record, f"{os.stat(op.path).st_ino} {op.path}\n"))


def set_permissions(op: ops.SetPermissions) -> None:
    """What is so already is not set again: a server that does not take root for root refuses that too."""
    links = 0 if op.follow else os.O_NOFOLLOW
    descriptor = os.open(op.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | links)
    try:
        have = os.fstat(descriptor)
        owner = -1 if op.owner in (None, have.st_uid) else op.owner
        group = -1 if op.group in (None, have.st_gid) else op.group
        if (owner, group) != (-1, -1):
            os.fchown(descriptor, owner, group)
            have = os.fstat(descriptor)  # which may have taken bits of the mode away
        if op.mode not in (None, stat.S_IMODE(have.st_mode)):
            _set_mode(descriptor, op.mode, have)
    finally:
        os.close(descriptor)


def _set_mode(descriptor: int, mode: int, have: os.stat_result) -> None:
    """Until it is mounted nobody can tell whether a server takes root for root. Its owner may always."""
    try:
        os.fchmod(descriptor, mode)
    except PermissionError:
        if os.geteuid() != 0 or have.st_uid == 0:
            raise
        from .acting import acting_as

        with acting_as(have.st_uid, have.st_gid):
            os.fchmod(descriptor, mode)


def write_file(op: ops.WriteFile) -> None:
    make_directory(ops.MakeDirectory(os.path.dirname(op.path), 0o700))
    staged = op.path + ".new"
    with _removed_on_failure(staged):
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, op.mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), op.mode)
            file.write(op.text.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        os.rename(staged, op.path)
    sync_path(os.path.dirname(op.path))


def make_link(op: ops.MakeLink) -> None:
    make_directory(ops.MakeDirectory(os.path.dirname(op.path), 0o700))
    staged = op.path + ".new"
    unlink(staged)
    with _removed_on_failure(staged):
        os.symlink(op.target, staged)
        os.rename(staged, op.path)
    sync_path(os.path.dirname(op.path))


@contextmanager
def _removed_on_failure(path: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        with suppress(OSError):
            os.unlink(path)
        raise


def unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def remove(op: ops.Remove) -> None:
    unlink(op.path)
    with suppress(FileNotFoundError):
        sync_path(os.path.dirname(op.path))


def remove_directory(op: ops.RemoveDirectory) -> None:
    with suppress(FileNotFoundError):
        os.rmdir(op.path)
        sync_path(os.path.dirname(op.path))
