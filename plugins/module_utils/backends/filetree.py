# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes that are files of a directory: shared by every pool type whose storage is a file tree."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..host.apply import identity_of
from ..host.mounts import filesystem_of, mounts
from ..images import qemu_img
from ..images.headers import read_header, resolve_backing
from ..model import operations as ops
from ..model.change import Change
from ..model.found import ABSENT, FOREIGN, READY, UNKNOWN_STORAGE, Found, Storage, Usage
from ..model.pool import Permissions
from ..model.types import VOLUME_FORMATS
from ..model.units import round_up
from ..model.volume import Backing, Volume

STAGING = ".virt-storage"  # where volumes are prepared, inside the pool's directory: the same filesystem
VOLUME_MODE = 0o600  # what libvirt gives a volume when none is declared

_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
)
_LARGEST = 2**63 - 1


# --- looking ---------------------------------------------------------------------------------------------------------


def _permissions(status: os.stat_result) -> Permissions:
    return Permissions(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def observe_directory(path: str, made_inode: int | None, holds: bool) -> Storage:
    """The directory of a pool; ``made_inode`` is that of the directory that we made there, if we did."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            return Storage(FOREIGN, path, "a symbolic link that leads nowhere")
        return Storage(ABSENT, path, "not there", made=made_inode is not None)
    except OSError as error:
        return Storage(UNKNOWN_STORAGE, path, error.strerror or str(error))
    if not stat.S_ISDIR(status.st_mode):
        return Storage(FOREIGN, path, "not a directory")
    try:
        held = tuple(sorted(name for name in os.listdir(path) if name != STAGING)) if holds else ()
    except OSError as error:
        return Storage(UNKNOWN_STORAGE, path, error.strerror or str(error))
    return Storage(
        READY,
        path,
        permissions=_permissions(status),
        made=made_inode == status.st_ino,
        mount_point=os.path.ismount(path),
        writable=os.access(path, os.W_OK | os.X_OK),
        read_only=bool(os.statvfs(path).f_flag & os.ST_RDONLY),
        holds=held,
        identity=identity_of(status),
    )


def observe_usage(path: str) -> Usage:
    """Bytes, as libvirt counts them: blocks reserved for root are available (storage driver, statvfs(3))."""
    status = os.statvfs(path)
    capacity, available = status.f_blocks * status.f_frsize, status.f_bfree * status.f_frsize
    return Usage(capacity, capacity - available, available)


def filesystem(path: str) -> str:
    """The type of the filesystem that holds a path, or will: what is not there yet counts as its nearest parent."""
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    mount = filesystem_of(os.path.realpath(path), mounts())
    return "" if mount is None else mount.fstype


def file_limit(path: str, fstype: str) -> int | None:
    """The largest file in bytes that the filesystem can hold, where it is known (ext4(5), vfat: 32-bit sizes)."""
    if fstype in ("ext2", "ext3", "ext4"):
        return (2**32 - 1) * os.statvfs(path).f_bsize
    if fstype in ("vfat", "msdos"):
        return 2**32 - 1
    return _LARGEST if fstype in ("xfs", "btrfs", "tmpfs") else None


def read_volume(path: str, name: str, headers: bool = True, declared: str | None = None) -> Volume | None:
    """What stands under a name of the directory; None when nothing does. Never raises for what a file holds.

    What is ``declared`` raw is raw, and ``looks_like`` says what its first bytes pretend.
    """
    try:
        link = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Volume(name, path=path, problem=f"not readable ({error.strerror})")
    status, target = link, None
    if stat.S_ISLNK(link.st_mode):
        target = os.readlink(path)
        try:
            status = os.stat(path)
        except OSError:
            return Volume(name, path=path, foreign=f"a symbolic link that leads nowhere ({target})")
    for is_kind, what in _KINDS:
        if is_kind(status.st_mode):
            return Volume(name, path=path, foreign=what)
    volume = Volume(
        name,
        type="file",
        path=path,
        key=path,
        physical=status.st_size,
        allocation=status.st_blocks * 512,
        permissions=_permissions(status),
        link_target=target,
        identity=identity_of(link),
        timestamps=(("atime", status.st_atime), ("mtime", status.st_mtime), ("ctime", status.st_ctime)),
    )
    if stat.S_ISDIR(status.st_mode):
        return replace(volume, type="dir", format="dir", capacity=0, allocation=0, physical=0)
    if stat.S_ISBLK(status.st_mode):
        volume = replace(volume, type="block")
    return _with_header(volume, path, declared) if headers else volume


def _with_header(volume: Volume, path: str, declared: str | None) -> Volume:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return replace(volume, problem=f"not readable ({error.strerror})")
    try:
        size = volume.physical or 0
        if volume.type == "block":
            size = os.lseek(descriptor, 0, os.SEEK_END)
        header = read_header(descriptor, size)
    except OSError as error:
        return replace(volume, problem=f"not readable ({error.strerror})")
    finally:
        os.close(descriptor)
    if declared == "raw":
        pretends = "an encrypted image" if header.encrypted else "" if header.format == "raw" else header.format
        return replace(volume, format="raw", capacity=size, physical=size, looks_like=header.problem or pretends)
    backing = None
    if header.backing_path is not None:
        resolved = resolve_backing(path, header.backing_path)
        backing = Backing(resolved.path or header.backing_path, header.backing_format)
    return replace(
        volume,
        format=header.format,
        capacity=header.capacity,
        physical=size,
        backing=backing,
        compat=header.compat,
        cluster_size=header.cluster_size,
        lazy_refcounts=header.lazy_refcounts,
        extended_l2=header.extended_l2,
        encrypted=header.encrypted,
        data_file=header.data_file,
        problem=header.problem,
    )


def list_volumes(
    directory: str, names: Collection[str] | None, headers: bool, raw: Collection[str] = ()
) -> dict[str, Volume]:
    """The named entries (whatever they are), or all that are volumes. One bad file is a record, never the end of the
    listing.
    """
    wanted: Iterable[str] = names if names is not None else sorted(os.listdir(directory))
    volumes = {}
    for name in wanted:
        if name == STAGING:
            continue
        volume = read_volume(os.path.join(directory, name), name, headers, "raw" if name in raw else None)
        if volume is not None and (names is not None or not volume.foreign):
            volumes[name] = volume
    return volumes


def references(directory: str) -> Iterator[tuple[str, str]]:
    """(name, path of a file that it is built on) of every image of a directory: lean, since pools are large."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False):
                continue
            try:
                descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                header = read_header(descriptor, os.fstat(descriptor).st_size)
            except OSError:
                continue
            finally:
                os.close(descriptor)
            for below in (header.backing_path, header.data_file):
                target = resolve_backing(entry.path, below).path if below else None
                if target is not None:
                    yield entry.name, target


def digest(path: str, length: int) -> str | None:
    """SHA-256 of the first bytes of a file, in hex; None when it has fewer or can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(length)
    except OSError:
        return None
    return hashlib.sha256(data).hexdigest()


def observe_staging(directory: str) -> tuple[tuple[str, ...], str]:
    """What a killed task left behind, and what is wrong with the private directory. One that is in use is no
    leftover.
    """
    import fcntl

    path = os.path.join(directory, STAGING)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return (), ""
    except OSError as error:
        return (), f"{path} is in the way: {error.strerror}"
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return (), f"{path} belongs to another user"
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        names = sorted(os.listdir(descriptor))
        strange = [name for name in names if os.path.isdir(os.path.join(path, name))]
        if strange:
            return (), f"{path} holds a directory, {strange[0]}, that no task made"
        return (STAGING, *names), ""
    except OSError as error:
        return (), "" if error.errno == errno.EWOULDBLOCK else f"{path}: {error.strerror}"
    finally:
        os.close(descriptor)


# --- lowering --------------------------------------------------------------------------------------------------------


def lower_volumes(changes: Sequence[Change], found: Found) -> list[ops.Step]:
    """The steps of all changes of one pool's volumes. Identical images are made once and copied."""
    staging = os.path.join(found.storage.path or "", STAGING)
    lowering = _Lowering(changes, staging)
    for change in changes:
        lowering.add(change)
    return lowering.finish()


def _settled(volume: Volume) -> bool:
    """Whether all that a command needs is known. It is not where an earlier task would have made the pool, backing or
    source.
    """
    parts = [volume.path, volume.format]
    if volume.backing is not None:
        parts += [volume.backing.path, volume.backing.format]
    if volume.content is not None and volume.content.data is None:
        parts += [volume.content.path, volume.content.format]
    return None not in parts


def _template_key(volume: Volume | None) -> Any:
    """Equal for images that are the same but for their name; None for those that must be made each by itself."""
    if volume is None or volume.format != "qcow2" or volume.content or volume.allocation or volume.nocow:
        return None
    if volume.preallocation not in (None, "off"):
        return None
    return replace(volume, name="", path=None, permissions=Permissions(), identity=None)


class _Lowering:
    """Collects steps; knows which step a volume's changes ended in, so that others can wait for it."""

    def __init__(self, changes: Sequence[Change], staging: str) -> None:
        self.staging = staging
        self.steps: list[ops.Step] = []
        self.ends: dict[str, int] = {}
        self.templates: dict[Any, tuple[int, str]] = {}
        self.counts: dict[Any, int] = {}
        for change in changes:
            if change.action in ("create", "recreate"):
                key = _template_key(change.wanted)
                self.counts[key] = self.counts.get(key, 0) + 1
        self.staged = [change for change in changes if change.action in ("create", "recreate", "delete", "clean")]
        if self.staged:
            clean = next((change for change in changes if change.action == "clean"), None)
            self.steps.append(ops.Step((ops.OpenStaging(staging),), clean))

    def add(self, change: Change) -> None:
        if change.action == "clean":
            return
        name = change.subject.volume or ""
        needs = [self.ends[other] for other in (*change.needs, name) if other in self.ends]
        if self.steps and change.action in ("create", "recreate", "delete"):
            needs.append(0)
        if change.action in ("create", "recreate"):
            operations = self._create(change, needs)
        else:
            operations = _LOWER[change.action](change, os.path.join(self.staging, f"-removed-{len(self.steps)}"))
        self.ends[name] = len(self.steps)
        self.steps.append(ops.Step(tuple(operations), change, tuple(sorted(set(needs)))))

    def finish(self) -> list[ops.Step]:
        if self.staged:
            needs = tuple(range(len(self.steps)))
            self.steps.append(ops.Step((ops.CloseStaging(self.staging),), needs=needs, always=True))
        return self.steps

    def _create(self, change: Change, needs: list[int]) -> list[Any]:
        volume: Volume = change.wanted
        if not _settled(volume):
            return []
        staged = os.path.join(self.staging, volume.name)
        key = _template_key(volume)
        if key is not None and self.counts[key] > 1:
            operations: list[Any] = [ops.CopySparse(self._template(key, volume, needs), staged)]
        else:
            operations = _make_image(volume, staged)
        permissions = volume.permissions
        mode = VOLUME_MODE if permissions.mode is None else permissions.mode
        operations.append(ops.SetPermissions(staged, mode, permissions.owner, permissions.group))
        operations.append(ops.Sync(staged))
        if change.action == "create":
            operations.append(ops.Publish(staged, volume.path or ""))
        else:
            operations.append(ops.Exchange(staged, volume.path or "", volume.identity or ()))
        return operations

    def _template(self, key: Any, volume: Volume, needs: list[int]) -> str:
        """The path of the image that equal ones are copied from. No new volume's name starts with a dash."""
        if key not in self.templates:
            path = os.path.join(self.staging, f"-template-{len(self.templates)}")
            self.templates[key] = (len(self.steps), path)
            self.steps.append(ops.Step(tuple(_make_image(volume, path)), None, tuple(sorted(set(needs)))))
        index, path = self.templates[key]
        needs.append(index)
        return path


def _run(argv: Sequence[str]) -> ops.Run:
    return ops.Run(tuple(argv), qemu_img.PACKAGE)


def _granule(volume: Volume) -> int:
    return VOLUME_FORMATS[volume.format or "raw"].granule


def _make_image(volume: Volume, path: str) -> list[Any]:
    if volume.content is not None and volume.content.data is not None:
        operations: list[Any] = [ops.WriteContent(path, volume.content.data, volume.capacity or 0)]
    elif volume.content is not None and volume.format == volume.content.format == "raw":
        operations = [ops.CopySparse(volume.content.path or "", path, volume.capacity or 0)]
    elif volume.content is not None:
        source, source_format = volume.content.path or "", volume.content.format or ""
        operations = [_run(qemu_img.convert(source, source_format, volume, path))]
        if volume.capacity and volume.capacity != round_up(volume.content.capacity or 0, _granule(volume)):
            operations.append(_run(qemu_img.resize(path, volume.format or "", volume.capacity)))
    elif volume.format == "raw":
        return [ops.MakeRaw(path, volume.capacity or 0, volume.allocation or 0, bool(volume.nocow))]
    else:
        operations = [_run(qemu_img.create(volume, path))]
    if volume.allocation:
        operations.append(ops.Reserve(path, volume.allocation))
    return operations


def _lower_delete(change: Change, staged: str) -> list[Any]:
    return [ops.Withdraw(change.wanted.path, staged, change.wanted.identity or ())]


def _lower_resize(change: Change, staged: str) -> list[Any]:
    volume: Volume = change.wanted
    if volume.format == "raw":
        return [ops.Truncate(volume.path or "", volume.capacity or 0, volume.identity or ())]
    argv = qemu_img.resize(volume.path or "", volume.format or "", volume.capacity or 0, shrink=bool(change.destroys))
    return [_run(argv), ops.Sync(volume.path or "")]


def _lower_amend(change: Change, staged: str) -> list[Any]:
    volume: Volume = change.wanted
    argv = qemu_img.amend(volume.path or "", compat=volume.compat, lazy_refcounts=volume.lazy_refcounts)
    return [_run(argv), ops.Sync(volume.path or "")]


def _lower_rebase(change: Change, staged: str) -> list[Any]:
    volume: Volume = change.wanted
    backing = volume.backing or Backing()
    if backing.path is None or backing.format is None:
        return []
    return [_run(qemu_img.rebase(volume.path or "", backing.path, backing.format)), ops.Sync(volume.path or "")]


def _lower_permissions(change: Change, staged: str) -> list[Any]:
    permissions = change.wanted.permissions
    return [ops.SetPermissions(change.wanted.path, permissions.mode, permissions.owner, permissions.group)]


_LOWER = {
    "delete": _lower_delete,
    "resize": _lower_resize,
    "amend": _lower_amend,
    "rebase": _lower_rebase,
    "permissions": _lower_permissions,
}
