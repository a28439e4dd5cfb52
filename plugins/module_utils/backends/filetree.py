# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes that are files of a directory, looked at: for every pool type whose storage is a file tree."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

from ..host.files import seals
from ..host.identity import identity_of, is_stray, this_host
from ..host.mounts import Mount, filesystem_of, mounts, stores_nothing
from ..host.remote import is_remote
from ..images.headers import ImageHeader, built_on, open_header, open_to_read, read_header, resolve_backing
from ..model.errors import StorageError
from ..model.found import ABSENT, FOREIGN, READY, UNKNOWN_STORAGE, Found, Part, Storage, Usage
from ..model.goal import Scope
from ..model.pool import Permissions
from ..model.volume import STAGING, Backing, Volume, is_staging

if TYPE_CHECKING:
    from ..host.look import Look
    from ..model.change import Change

_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
)
_LARGEST = 2**63 - 1
# Files whose blocks are mapped one by one, by the size of a block: the kernel's fs/ext4/super.c, ext4_max_bitmap_size.
_LARGEST_MAPPED = {1024: 17247252480, 2048: 275415851008, 4096: 2196873666560}
_QCOW2_HEADER = 104  # bytes, of version 3


def _permissions(status: os.stat_result) -> Permissions:
    return Permissions(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def staging_name(fstype: str) -> str:
    """What the private directory is called: where other hosts may have theirs beside it, locks don't tell whether one
    is in use (flock(2) on a directory of NFS, CIFS or FUSE is known to this host only).
    """
    return f"{STAGING}-{this_host()}" if is_remote(fstype) else STAGING


def _is_own_staging(name: str) -> bool:
    """That of another host may hold what a task is making there."""
    return name == STAGING or (is_staging(name) and name.startswith(f"{STAGING}-{this_host()}"))


def observe_directory(path: str, note: str | None, holds: bool) -> Storage:
    """The directory of a pool; ``note`` is that of the directory that we made there, if we did."""
    made_inode = noted_inode(note)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            return Storage(FOREIGN, path, "a symbolic link that leads nowhere")
        return Storage(ABSENT, path, "not there", made=made_inode is not None)
    except NotADirectoryError:
        return Storage(FOREIGN, path, f"below {_nearest(path)}, which is not a directory")
    except OSError as error:
        return Storage(UNKNOWN_STORAGE, path, error.strerror or str(error))
    if not stat.S_ISDIR(status.st_mode):
        return Storage(FOREIGN, path, "not a directory")
    try:
        held = tuple(sorted(name for name in os.listdir(path) if not _is_own_staging(name))) if holds else ()
    except OSError as error:
        return Storage(UNKNOWN_STORAGE, path, error.strerror or str(error))
    return Storage(
        READY,
        path,
        permissions=_permissions(status),
        made=made_inode == status.st_ino,
        mount_point=os.path.ismount(path),
        writable=os.access(path, os.W_OK | os.X_OK) and not seals(path),
        read_only=bool(os.statvfs(path).f_flag & os.ST_RDONLY),
        holds=held,
        identity=identity_of(status),
    )


def unfit(path: str, fstype: str) -> Storage | None:
    """The storage at a path where none can be, for the filesystem that holds it; None else."""
    if not stores_nothing(fstype):
        return None
    return Storage(FOREIGN, path, f"in a filesystem of the kernel's own ({fstype}), which stores nothing")


def _nearest(path: str) -> str:
    """What is there of a path."""
    while path.strip("/") and not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def silent(path: str, look: Look) -> Storage | None:
    """The storage at a path of which nothing can be told, since it leads into what does not answer; None else."""
    mount = look.servers.silent(path) if path else None
    return None if mount is None else not_answering(path, mount, look)


def not_answering(path: str, mount: Mount, look: Look) -> Storage:
    """The storage at a path that leads into a mount which does not answer."""
    problem = look.servers.problem(mount)
    part = Part("directory", f"the directory {path}", UNKNOWN_STORAGE, problem.what, problem)
    return Storage(UNKNOWN_STORAGE, path, problem.what, parts=(part,))


def noted_inode(note: str | None) -> int | None:
    """The inode number that a note begins with: see host/apply.py."""
    match = re.match("([0-9]+) ", note or "")
    return int(match.group(1)) if match else None


def observe_usage(path: str) -> Usage:
    """Bytes, as libvirt counts them: blocks reserved for root are available (storage driver, statvfs(3))."""
    status = os.statvfs(path)
    capacity, available = status.f_blocks * status.f_frsize, status.f_bfree * status.f_frsize
    return Usage(capacity, capacity - available, available)


def filesystem(path: str) -> str:
    """The type of the filesystem that holds a path, or will: what is not there yet counts as its nearest parent."""
    while path.strip("/") and not os.path.exists(path):
        path = os.path.dirname(path)
    mount = filesystem_of(os.path.realpath(path), mounts())
    return "" if mount is None else mount.fstype


def file_limit(path: str, fstype: str) -> int | None:
    """The largest file in bytes that the filesystem can hold, where it is known (ext4(5), vfat: 32-bit sizes)."""
    if fstype in ("ext2", "ext3"):
        return _LARGEST_MAPPED.get(os.statvfs(path).f_bsize)
    if fstype == "ext4":
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
        links=link.st_nlink,
        timestamps=(("atime", status.st_atime_ns), ("mtime", status.st_mtime_ns), ("ctime", status.st_ctime_ns)),
    )
    if stat.S_ISDIR(status.st_mode):
        return replace(volume, type="dir", format="dir", capacity=0, allocation=0, physical=0)
    if stat.S_ISBLK(status.st_mode):
        volume = replace(volume, type="block")
    return _with_header(volume, path, declared) if headers else volume


def _with_header(volume: Volume, path: str, declared: str | None) -> Volume:
    try:
        descriptor = open_to_read(path)
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
        return replace(
            volume,
            format="raw",
            capacity=size,
            physical=size,
            looks_like=header.problem or pretends,
            looks_capacity=header.capacity if pretends and not header.problem else None,
        )
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
        snapshots=header.snapshots,
        beyond_0_10=header.beyond_0_10,
        problem=header.problem,
    )


def list_volumes(
    directory: str, names: Collection[str] | None, headers: bool, raw: Collection[str] = (), also: Collection[str] = ()
) -> dict[str, Volume]:
    """The named entries (whatever they are), or all that are volumes, and of ``also`` whatever they are, by these names
    where the filesystem takes others for the same (vfat, CIFS, ext4 with casefold). One bad file is a record, never the
    end of the listing.
    """
    wanted: Iterable[str] = names if names is not None else sorted(os.listdir(directory))
    volumes = {}
    for name in wanted:
        if is_staging(name):
            continue
        volume = read_volume(os.path.join(directory, name), name, headers, "raw" if name in raw else None)
        if volume is not None and (names is not None or name in also or not volume.foreign):
            volumes[name] = volume
    folded = {} if names is not None else list_volumes(directory, sorted({*also} - {*wanted}), headers, raw)
    same = {volume.identity for volume in folded.values()}
    return {name: each for name, each in volumes.items() if each.identity not in same} | folded if folded else volumes


def cut_off(directory: str) -> list[str]:
    """The qcow2 images of version 3 that end before their header does (QEMU: docs/interop/qcow2.txt)."""
    names = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                if entry.is_file(follow_symlinks=False) and entry.stat().st_size < _QCOW2_HEADER:
                    with open(entry.path, "rb") as file:
                        if file.read(8) == b"QFI\xfb\x00\x00\x00\x03":
                            names.append(entry.name)
            except OSError:
                continue
    return sorted(names)


def references(directory: str, readable: Callable[[str], bool], unseen: set[str]) -> Iterator[tuple[str, str]]:
    """(path, path of a file that it is built on) of every image of a directory, and of what is ``readable`` of those
    that links there lead to: lean, since pools are large. Images of which that can't be told are added to ``unseen``.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            header = _header_of(entry, readable)
            if header is None:
                continue
            paths, known = built_on(entry.path, header)
            if not known:
                unseen.add(_what_is_below(entry.path))
            if paths and entry.is_symlink():  # it is the image that needs them, whatever becomes of the link
                yield from ((os.path.realpath(entry.path), path) for path in paths)
            else:
                yield from ((entry.path, path) for path in paths)


def _header_of(entry: os.DirEntry[str], readable: Callable[[str], bool]) -> ImageHeader | None:
    try:
        if entry.is_symlink():
            return open_header(entry.path)[0] if readable(entry.path) else None
        if not entry.is_file(follow_symlinks=False):
            return None
        descriptor = open_to_read(entry.path)
        try:
            return read_header(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
    except OSError:
        return None


def below(path: str, unseen: set[str]) -> tuple[str, ...]:
    """The files that an image is built on, as far as its header tells; else it is added to ``unseen``."""
    try:
        paths, known = built_on(path, open_header(path)[0])
    except (OSError, ValueError):
        return ()
    if not known:
        unseen.add(_what_is_below(path))
    return paths


def _what_is_below(path: str) -> str:
    return f"what {path} is built on"


def digest(path: str, length: int) -> str | None:
    """SHA-256 of the first bytes of a file, in hex; None when it has fewer or can't be read."""
    try:
        descriptor = open_to_read(path)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(length)
    except OSError:
        return None
    return hashlib.sha256(data).hexdigest()


def observe_staging(directory: str, fstype: str = "", owner: int | None = None) -> tuple[tuple[str, ...], str]:
    """What a killed task left behind, and what is wrong with the private directory. One that is in use is no
    leftover. ``owner`` is that of the directory, as whom we may have worked there.
    """
    name = staging_name(fstype)
    names = [name] if name == STAGING or not owner else [name, f"{name}-{owner}"]
    for each in names:
        found = _observe_staging(directory, each, each != STAGING)
        if found != ((), ""):
            return found
    return (), ""


def _observe_staging(directory: str, name: str, shared: bool) -> tuple[tuple[str, ...], str]:
    import fcntl

    path = os.path.join(directory, name)
    try:
        descriptor = _open_directory(path, shared)
    except FileNotFoundError:
        return (), ""
    except OSError as error:
        return (), f"{path} is in the way: {error.strerror}"
    try:
        if not shared and os.fstat(descriptor).st_uid != os.geteuid():
            return (), f"{path} belongs to another user"
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        entries = list(os.scandir(descriptor))
        strange = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        if strange:
            return (), f"{path} holds a directory, {strange[0]}, that no task made"
        stray = sorted(entry.name for entry in entries if is_stray(os.path.join(path, entry.name)))
        if stray:
            return (), f"{path} holds {stray[0]}, which took the place of a volume that was being deleted or replaced"
        return (name, *sorted(entry.name for entry in entries)), ""
    except OSError as error:
        return (), "" if error.errno == errno.EWOULDBLOCK else f"{path}: {error.strerror}"
    finally:
        os.close(descriptor)


def _open_directory(path: str, shared: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except PermissionError:
        if not shared:
            raise
        from ..host.acting import open_as_owner

        return open_as_owner(path, flags)


def observe_volumes(found: Found, scope: Scope, look: Look) -> Found:
    """Adds volumes, what is left of them by killed tasks, usage and limits to what was found of a pool.

    Raises ``storage_unreadable``.
    """
    directory = found.storage.path or ""
    try:
        volumes = list_volumes(directory, scope.volumes, scope.headers, scope.raw, scope.named)
        owner = found.storage.permissions.owner
        leftovers, staging_problem = observe_staging(directory, found.storage.filesystem, owner)
        usage = observe_usage(directory)
        limit = file_limit(directory, found.filesystem)
    except OSError as error:
        raise StorageError(
            "storage_unreadable",
            f"{directory}: {error.strerror}",
            subject=f"pool {found.name}",
            hint="Run as a user who may read it (become: true).",
        ) from error
    return replace(
        found,
        volumes=volumes,
        usage=usage,
        protected=_protected(volumes) if scope.volumes is not None else frozenset(),
        leftovers=leftovers,
        staging_problem=staging_problem,
        file_limit=limit,
        digests=digests({name: each for name, each in volumes.items() if each.type == "file"}, scope),
    )


def _protected(volumes: Mapping[str, Volume]) -> frozenset[str]:
    """The volumes that we may not write."""
    return frozenset(n for n, v in volumes.items() if v.type == "file" and v.path and not os.access(v.path, os.W_OK))


def digests(volumes: Mapping[str, Volume], scope: Scope) -> dict[str, str]:
    """Of the volumes whose first bytes are declared, as far as they can be read."""
    paths = {name: volumes[name].path or "" for name, _length in scope.contents if name in volumes}
    read = {name: digest(paths[name], length) for name, length in scope.contents if name in paths}
    return {name: value for name, value in read.items() if value is not None}


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> list[Any]:
    from . import filetree_changes

    return filetree_changes.lower_volumes(changes, found, instead)
