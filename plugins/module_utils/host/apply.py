# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Operations carried out: all that changes a host goes through here."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Callable

from ..model import operations as ops
from ..model.errors import StorageError
from .commands import run_command, run_first_of
from .contents import copy_sparse, imprint_of, make_raw, reserve, set_directory_nocow, write_content
from .directories import (
    make_directory,
    make_link,
    note_directory,
    remove,
    remove_directory,
    set_permissions,
    sync_path,
    unlink,
    write_file,
)
from .identity import changed_meanwhile, identity_of, is_stray
from .publishing import exchange, publish, truncate, withdraw
from .run import run

_ERRNO_CODES = {
    errno.ENOSPC: ("no_space", "the filesystem is full", "Free some space and run the task again."),
    errno.EDQUOT: ("no_space", "the quota is used up", "Free some space and run the task again."),
    errno.EFBIG: ("capacity_too_large", "the filesystem can't hold a file of that size", "Ask for less."),
    errno.EACCES: ("not_writable", "permission denied", "Run as a user who may write there (become: true)."),
    errno.EPERM: ("not_writable", "operation not permitted", "Run as a user who may do that (become: true)."),
    errno.ELOOP: (
        "changed_meanwhile",
        "a symbolic link took its place",
        "Look at what is there and run the task again.",
    ),
    errno.ENOTEMPTY: ("changed_meanwhile", "something appeared in it", "Look at what is there and run the task again."),
    errno.EEXIST: ("changed_meanwhile", "something took its place", "Look at what is there and run the task again."),
    errno.EROFS: ("not_writable", "the filesystem is read-only", "Mount it read-write."),
}
_UNKNOWN = "See what the kernel says of it (dmesg), and run the task again."


def _empty(directory: str) -> None:
    """Raises ``staging_foreign`` where it holds what is somebody else's."""
    paths = [os.path.join(directory, name) for name in os.listdir(directory)]
    for path in paths:
        if is_stray(path):
            raise StorageError(
                "staging_foreign", f"{path} is no file of ours", subject=path, hint="Move it to where it belongs."
            )
    for path in paths:
        unlink(path)


def _owner_there(path: str) -> int:
    """Whom a server takes us for: the owner of what we make beside that."""
    probe = f"{path}-probe"
    with suppress(FileExistsError):
        os.mkdir(probe, 0o700)
    try:
        return os.lstat(probe).st_uid
    finally:
        os.rmdir(probe)


class Applier:
    """Carries out operations under the locks whose descriptors it was given; holds the staging directories it
    opened. ``timeout``: seconds that bounded commands may take.
    """

    def __init__(self, locks: Sequence[int] = (), timeout: float | None = None) -> None:
        self._locks = tuple(locks)
        self._timeout = timeout
        self._staging: dict[str, int] = {}
        self._table: dict[type, Callable[[Any], object]] = {
            ops.Run: lambda op: run_command(op, self._held(), self._timeout),
            ops.FirstOf: lambda op: run_first_of(op, self._held(), self._timeout),
            ops.As: self._as,
            ops.Noted: self._noted,
            ops.MakeDirectory: make_directory,
            ops.NoteDirectory: note_directory,
            ops.SetPermissions: set_permissions,
            ops.SetNocow: set_directory_nocow,
            ops.WriteFile: write_file,
            ops.WriteSecret: self._write_secret,
            ops.NoteContent: lambda op: write_file(ops.WriteFile(op.path, f"{op.text}\n{imprint_of(op.node)}")),
            ops.MakeLink: make_link,
            ops.Remove: remove,
            ops.RemoveDirectory: remove_directory,
            ops.OpenStaging: self._open_staging,
            ops.CloseStaging: self._close_staging,
            ops.MakeRaw: make_raw,
            ops.Reserve: reserve,
            ops.WriteContent: write_content,
            ops.CopySparse: copy_sparse,
            ops.Sync: lambda op: sync_path(op.path),
            ops.Publish: publish,
            ops.Exchange: exchange,
            ops.Withdraw: withdraw,
            ops.Truncate: truncate,
            ops.ChangeTable: self._change_table,
            ops.MakeOn: self._make_on,
            ops.ScanUnits: self._scan_units,
            ops.ChangeVport: self._change_vport,
            ops.AskUnits: self._ask_units,
            ops.LogIn: lambda op: self._initiator().log_in(op, self._held(), self._timeout),
            ops.LogOut: lambda op: self._initiator().log_out(op, self._held(), self._timeout),
            ops.ForgetRecords: lambda op: self._initiator().forget_records(op, self._held(), self._timeout),
        }

    def apply(self, operation: Any) -> None:
        """Carries out one operation. Raises StorageError for whatever goes wrong."""
        try:
            self._table[type(operation)](operation)
        except OSError as error:
            code, text, hint = _ERRNO_CODES.get(
                error.errno or 0, ("operation_failed", error.strerror or str(error), _UNKNOWN)
            )
            raise StorageError(
                code, f"{operation.command}: {text}", subject=str(error.filename or operation.command), hint=hint
            ) from error

    def _as(self, op: ops.As) -> None:
        inner = op.operation
        if isinstance(inner, ops.Run):
            run(inner.argv, self._held(), stdin=inner.stdin, user=(op.owner, op.group))
            return
        from .acting import acting_as

        if isinstance(inner, ops.CopySparse):
            copy_sparse(inner, lambda: acting_as(op.owner, op.group))
            return
        with acting_as(op.owner, op.group):
            self._table[type(inner)](inner)

    def _noted(self, op: ops.Noted) -> None:
        """What did not answer in time may come to its end yet, as what is killed may."""
        write_file(ops.WriteFile(op.path, op.text))
        try:
            self.apply(op.operation)
        except StorageError as error:
            if error.code != "deadline" and (error.rc or 0) >= 0:
                with suppress(OSError):
                    unlink(op.path)
            raise

    def _write_secret(self, op: ops.WriteSecret) -> None:
        from .secrets import write_secret

        write_secret(op)

    def _change_table(self, op: ops.ChangeTable) -> None:
        from .partitioning import change_table

        change_table(op, self._held(), self._timeout)

    def _make_on(self, op: ops.MakeOn) -> None:
        from .taking import make_on

        make_on(op, self._held(), self._timeout)

    def _scan_units(self, op: ops.ScanUnits) -> None:
        from .scanning import scan_units

        scan_units(op, self._held(), self._timeout)

    def _change_vport(self, op: ops.ChangeVport) -> None:
        from .vports import change_vport

        change_vport(op, self._held(), self._timeout)

    def _ask_units(self, op: ops.AskUnits) -> None:
        from .libiscsi import ask_units

        ask_units(op, self._timeout)

    @staticmethod
    def _initiator() -> Any:
        from . import initiator

        return initiator

    def _held(self) -> tuple[int, ...]:
        return self._locks + tuple(self._staging.values())

    def _open_staging(self, op: ops.OpenStaging) -> None:
        pool, name = os.path.split(op.path)
        directory = os.open(pool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if op.inside and identity_of(os.fstat(directory)) != op.inside:
                raise changed_meanwhile(pool, "was replaced or unmounted")
            made = True
            try:
                os.mkdir(name, 0o700, dir_fd=directory)
            except FileExistsError:
                made = False
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            self._take_over(op.path, descriptor, op, made)
        except BaseException:
            os.close(descriptor)
            raise
        self._staging[op.path] = descriptor

    def _take_over(self, path: str, descriptor: int, op: ops.OpenStaging, made: bool) -> None:
        """Raises where the directory is somebody else's or in use: then it is not ours to close either. On a server it
        belongs to whom that takes us for.
        """
        status = os.fstat(descriptor)
        if op.shared:
            ours = True
        elif op.far:
            ours = made or status.st_uid == _owner_there(path)
        else:
            ours = status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
        if not ours:
            raise StorageError("staging_foreign", f"{path} was not made by this user", subject=path, hint="Remove it.")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                "locked", f"{path} is in use by another task", subject=path, hint="Run the task again later."
            ) from None
        if not os.path.exists(path) or identity_of(os.stat(path)) != identity_of(status):
            raise changed_meanwhile(path, "was removed by another task")
        _empty(path)

    def _close_staging(self, op: ops.CloseStaging) -> None:
        descriptor = self._staging.pop(op.path, None)
        if descriptor is None:
            return
        try:
            _empty(op.path)
            os.rmdir(op.path)
            sync_path(os.path.dirname(op.path))
        finally:
            os.close(descriptor)
