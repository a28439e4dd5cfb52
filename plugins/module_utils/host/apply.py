# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Operations turned into system calls: the only code that changes a host, besides the commands it runs."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Callable

from ..model import operations as ops
from ..model.errors import StorageError
from .identity import changed_meanwhile, identity_of
from .mounts import mount_at, mounts
from .paths import resolved
from .renames import rename_exchange, rename_noreplace
from .run import lacks, run

_COPY_BYTES = 1 << 18  # a run of zeros that long becomes a hole
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
_NO_RENAMEAT2 = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_NOCOW_FL = 0x80086601, 0x40086602, 0x00800000

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


def sync_path(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directory(op: ops.MakeDirectory) -> None:
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
    _write_file(ops.WriteFile(op.record, f"{os.stat(staged).st_ino} {op.path}\n"))
    try:
        rename_noreplace(staged, op.path)
    except OSError as error:
        os.rmdir(staged)
        if error.errno not in _NO_RENAMEAT2:
            raise
        os.mkdir(op.path, op.mode)
        os.chmod(op.path, op.mode)
        _write_file(ops.WriteFile(op.record, f"{os.stat(op.path).st_ino} {op.path}\n"))


def _note_directory(op: ops.NoteDirectory) -> None:
    _write_file(ops.WriteFile(op.record, f"{os.stat(op.path).st_ino} {op.path}\n"))


def _set_permissions(op: ops.SetPermissions) -> None:
    links = 0 if op.follow else os.O_NOFOLLOW
    descriptor = os.open(op.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | links)
    try:
        if op.owner is not None or op.group is not None:
            os.fchown(descriptor, -1 if op.owner is None else op.owner, -1 if op.group is None else op.group)
        if op.mode is not None:
            os.fchmod(descriptor, op.mode)
    finally:
        os.close(descriptor)


def _write_file(op: ops.WriteFile) -> None:
    _make_directory(ops.MakeDirectory(os.path.dirname(op.path), 0o700))
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


def _make_link(op: ops.MakeLink) -> None:
    _make_directory(ops.MakeDirectory(os.path.dirname(op.path), 0o700))
    staged = op.path + ".new"
    _unlink(staged)
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


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _remove(op: ops.Remove) -> None:
    _unlink(op.path)
    with suppress(FileNotFoundError):
        sync_path(os.path.dirname(op.path))


def _remove_directory(op: ops.RemoveDirectory) -> None:
    with suppress(FileNotFoundError):
        os.rmdir(op.path)
        sync_path(os.path.dirname(op.path))


def _make_raw(op: ops.MakeRaw) -> None:
    descriptor = os.open(op.path, _NEW, 0o600)
    try:
        if op.nocow:
            _set_nocow(descriptor)
        os.ftruncate(descriptor, op.capacity)
        if op.allocation:
            os.posix_fallocate(descriptor, 0, op.allocation)
    finally:
        os.close(descriptor)


def _set_directory_nocow(op: ops.SetNocow) -> None:
    descriptor = os.open(op.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _set_nocow(descriptor)
    finally:
        os.close(descriptor)


def _set_nocow(descriptor: int) -> None:
    """chattr +C: only before the first byte is written (ioctl_iflags(2))."""
    flags = bytearray(8)
    fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
    value = int.from_bytes(flags[:4], "little") | _FS_NOCOW_FL
    fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, bytearray(value.to_bytes(8, "little")))


def _reserve(op: ops.Reserve) -> None:
    descriptor = os.open(op.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, op.allocation)
    finally:
        os.close(descriptor)


def _write_content(op: ops.WriteContent) -> None:
    descriptor = os.open(op.path, _NEW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(op.data)
        file.flush()
        os.ftruncate(file.fileno(), op.capacity)


def _copy_sparse(op: ops.CopySparse, acting: Callable[[], Any] = nullcontext) -> None:
    """``acting``: as whom the new file is made; the source may be one that only root can read."""
    source = _open_source(op.source, acting)
    try:
        with acting():
            target = os.open(op.path, _NEW, 0o600)
        try:
            size = os.lseek(source, 0, os.SEEK_END)
            os.ftruncate(target, max(size, op.size))
            for start, end in _data_extents(source, size):
                _copy_range(source, target, start, end)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _open_source(path: str, acting: Callable[[], Any]) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        with acting():
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _data_extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, offset


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(source, min(_COPY_BYTES, end - start), start)
        if not data:
            raise StorageError(
                "changed_meanwhile", "the source became shorter while it was copied", hint="Run the task again."
            )
        if data.count(0) != len(data):
            _write_whole(target, data, start)
        start += len(data)


def _write_whole(descriptor: int, data: bytes, offset: int) -> None:
    """pwrite(2) may write less than it was given, as where the filesystem is nearly full; the next call says why."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset, view = offset + written, view[written:]


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
        if error.errno not in _NO_RENAMEAT2:
            raise
        os.close(os.open(op.path, _NEW, 0o600))
        os.rename(op.staged, op.path)


def _exchange(op: ops.Exchange) -> None:
    prepared = identity_of(os.lstat(op.staged))
    try:
        rename_exchange(op.staged, op.path)
    except FileNotFoundError:
        raise changed_meanwhile(op.path, "went away") from None
    except OSError as error:
        if error.errno not in _NO_RENAMEAT2:
            raise
        _replace_in_two(op)
        return
    if identity_of(os.lstat(op.staged)) != op.identity:
        rename_exchange(op.staged, op.path)
        if identity_of(os.lstat(op.staged)) != prepared:
            _give_back(op.staged, op.path)
        raise changed_meanwhile(op.path, "was replaced")
    os.unlink(op.staged)


def _replace_in_two(op: ops.Exchange) -> None:
    """Where two files can't be exchanged, as on NFS: for a moment there is none. Who is killed then has lost what was
    to be lost, and the next task makes the new one.
    """
    old = f"{op.staged}.old"
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


def _withdraw(op: ops.Withdraw) -> None:
    try:
        os.rename(op.path, op.staged)
    except FileNotFoundError:
        return
    if identity_of(os.lstat(op.staged)) != op.identity:
        _give_back(op.staged, op.path)
        raise changed_meanwhile(op.path, "was replaced")
    os.unlink(op.staged)


def _give_back(staged: str, path: str) -> None:
    """Puts somebody else's file back under its name, or beside it when that was taken again."""
    for name in (path, f"{path}.found-{os.getpid()}"):
        with suppress(StorageError):
            publish(ops.Publish(staged, name))
            return


def _truncate(op: ops.Truncate) -> None:
    descriptor = os.open(op.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if identity_of(os.fstat(descriptor)) != op.identity:
            raise changed_meanwhile(op.path, "was replaced")
        os.ftruncate(descriptor, op.size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _empty(directory: str) -> None:
    for name in os.listdir(directory):
        _unlink(os.path.join(directory, name))


def _owner_there(path: str) -> int:
    """Whom a server takes us for: the owner of what we make beside that."""
    probe = f"{path}-probe"
    with suppress(FileExistsError):
        os.mkdir(probe, 0o700)
    try:
        return os.lstat(probe).st_uid
    finally:
        os.rmdir(probe)


def _is_mounted(path: str) -> bool:
    table = mounts()
    return mount_at(resolved(path, table), table) is not None


def _check_not_refused(op: ops.Run) -> None:
    """Raises where nobody listens: mount(8) would ask for long."""
    if op.asks is None:
        return
    import socket

    try:
        socket.create_connection(op.asks, 1).close()
    except ConnectionRefusedError as error:
        why = f"{op.asks[0]}, port {op.asks[1]}: {error.strerror}"
        raise StorageError("command_failed", "mount failed", subject="mount", command=op.command, stderr=why) from None
    except OSError:
        return


@contextmanager
def _credentials(op: ops.Run) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The words of a command and the open files that it gets. The file of credentials is in memory only: nobody else
    can open it, and it is gone with the command, however that ends.
    """
    if op.credentials is None:
        yield op.argv, ()
        return
    descriptor = os.memfd_create("credentials")
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, op.credentials.data)
        shown = f"credentials=/proc/self/fd/{descriptor}"
        yield tuple(word.replace(ops.CREDENTIALS, shown) for word in op.argv), (descriptor,)
    finally:
        os.close(descriptor)


class Applier:
    """Carries out operations under the locks whose descriptors it was given; holds the staging directories it
    opened. ``timeout``: seconds that bounded commands may take.
    """

    def __init__(self, locks: Sequence[int] = (), timeout: float | None = None) -> None:
        self._locks = tuple(locks)
        self._timeout = timeout
        self._staging: dict[str, int] = {}
        self._table: dict[type, Callable[[Any], object]] = {
            ops.Run: self._run,
            ops.FirstOf: self._first_of,
            ops.As: self._as,
            ops.MakeDirectory: _make_directory,
            ops.NoteDirectory: _note_directory,
            ops.SetPermissions: _set_permissions,
            ops.SetNocow: _set_directory_nocow,
            ops.WriteFile: _write_file,
            ops.MakeLink: _make_link,
            ops.Remove: _remove,
            ops.RemoveDirectory: _remove_directory,
            ops.OpenStaging: self._open_staging,
            ops.CloseStaging: self._close_staging,
            ops.MakeRaw: _make_raw,
            ops.Reserve: _reserve,
            ops.WriteContent: _write_content,
            ops.CopySparse: _copy_sparse,
            ops.Sync: lambda op: sync_path(op.path),
            ops.Publish: publish,
            ops.Exchange: _exchange,
            ops.Withdraw: _withdraw,
            ops.Truncate: _truncate,
            ops.ChangeTable: self._change_table,
        }

    def apply(self, operation: Any) -> None:
        """Carries out one operation. Raises StorageError for whatever goes wrong."""
        try:
            self._table[type(operation)](operation)
        except OSError as error:
            code, text, hint = _ERRNO_CODES.get(
                error.errno or 0, ("operation_failed", error.strerror or str(error), "")
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
            _copy_sparse(inner, lambda: acting_as(op.owner, op.group))
            return
        with acting_as(op.owner, op.group):
            self._table[type(inner)](inner)

    def _run(self, op: ops.Run, timeout: float | None = None) -> None:
        timeout = timeout or (self._timeout if op.bounded else None)
        with _credentials(op) as (argv, descriptors):
            try:
                held = () if op.leaves else self._held()
                run(argv, keep_fds=(*held, *descriptors), timeout=timeout, stdin=op.stdin)
            except StorageError as error:
                if error.code != "deadline":
                    raise
                if op.unmounts and not _is_mounted(op.unmounts):
                    return
                error.hint = op.late or error.hint
                raise

    def _first_of(self, op: ops.FirstOf) -> None:
        """They share the time of one. Who does not answer says nothing: then no other is tried."""
        end = None if self._timeout is None else time.monotonic() + self._timeout
        errors: list[StorageError] = []
        for attempt in op.attempts:
            if lacks(attempt):
                continue
            try:
                _check_not_refused(attempt)
                self._run(attempt, None if end is None else max(0.1, end - time.monotonic()))
                return
            except StorageError as error:
                if error.code != "command_failed":
                    raise
                errors.append(error)
        if not errors:
            self._run(op.attempts[0])
            return
        said = "\n".join(f"{error.command}: {error.stderr}" for error in errors)
        first = errors[0]
        raise StorageError(
            first.code,
            first.message,
            subject=first.subject,
            hint=first.hint,
            command=op.command,
            rc=first.rc,
            stderr=said,
        )

    def _change_table(self, op: ops.ChangeTable) -> None:
        from .partitioning import change_table

        change_table(op, self._held(), self._timeout)

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
