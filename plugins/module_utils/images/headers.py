# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What an image says about itself: its header, and the chain of files that it is built on.

A guest can write any bytes into its disk, so nothing read here is trusted: offsets and lengths are bounded, and a
malformed image is a record with a ``problem``, never an exception. Only the operating system's own errors (OSError)
leave ``read_header``.

Formats have libvirt's names, and are told apart as libvirt does, with these differences: what stands at offset 0 wins
over what stands further in; VMDK's text descriptors and COWD files are vmdk too, since QEMU opens them as such; version
2 of LUKS counts as encrypted. The layouts are those of QEMU's docs/interop/qcow2.txt and of its block drivers.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import Any, Callable, Literal, NamedTuple

_BLOCK = 1024  # Holds the whole header of nearly every image that qemu-img makes.
_EXTENSIONS_LIMIT = 64
_BACKING_LIMIT = 1023  # qcow2.txt: "Must not be longer than 1023 bytes". QEMU's other drivers have the same buffer.
_FORMAT_LIMIT = 15  # QEMU: the length of its backing format buffer.
_DATA_FILE_LIMIT = 4096
_L1_LIMIT = 32 * 2**20
_SIZE_LIMIT = 2**63 - 1
_VMDK_DESCRIPTOR = 20 * 512

_QCOW2 = struct.Struct(">4sIQIIQIIQQII")
_QCOW2_V3 = struct.Struct(">QQQII")
_QCOW = struct.Struct(">8xQI4xQ4xI")
_QED = struct.Struct("<4sI4xIQ24xQII")
_EXTENSION = struct.Struct(">II")
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = 1, 2, 4, 8, 16
_KNOWN_FEATURES = 31
_BITMAPS = 1  # of the autoclear features
_REFCOUNT_BITS = 16  # of version 2


class ImageHeader(NamedTuple):
    """Sizes in bytes. ``backing_path`` and ``backing_format`` are the strings in the header, None when there are none.

    ``compat``, ``cluster_size``, ``lazy_refcounts`` and ``extended_l2`` are None for every format but qcow2.
    ``data_file`` is the file outside of the image that holds its data (of several, the first): "" when the header says
    that there is one and not which. A header with a ``problem`` is not to be relied on, neither for what it says nor
    for what it leaves out. ``snapshots``: how many internal ones there are. ``beyond_0_10``: what it has that an image
    of compat 0.10 can't, or that is lost on the way there.
    """

    format: str
    capacity: int
    backing_path: str | None = None
    backing_format: str | None = None
    compat: str | None = None
    cluster_size: int | None = None
    lazy_refcounts: bool | None = None
    extended_l2: bool | None = None
    encrypted: bool = False
    data_file: str | None = None
    dirty: bool = False
    corrupt: bool = False
    problem: str = ""
    snapshots: int = 0
    beyond_0_10: tuple[str, ...] = ()


def read_header(fd: int, size: int, declared: str | None = None) -> ImageHeader:
    """The header of an open file or block device of ``size`` bytes. What is ``declared`` raw is raw."""
    if declared == "raw":
        return ImageHeader("raw", size)
    block = os.pread(fd, _BLOCK, 0)
    read = _AT_START.get(block[:3])
    header = read(fd, block, size) if read else None
    if header is not None:
        return header
    if block[64:68] == b"\x7f\x10\xda\xbe":
        return _vdi(block, size)
    if size > 32774 and os.pread(fd, 5, 32769) == b"CD001":
        return ImageHeader("iso", size)
    return ImageHeader("raw", size)


def _number(block: bytes, offset: int, length: int, order: Literal["big", "little"]) -> int | None:
    """None when the block ends before it."""
    part = block[offset : offset + length]
    return int.from_bytes(part, order) if len(part) == length else None


def _bytes(fd: int, block: bytes, offset: int, length: int) -> bytes:
    return block[offset : offset + length] if offset + length <= len(block) else os.pread(fd, length, offset)


def _text(raw: bytes) -> str:
    """A name as QEMU takes it: up to the first NUL byte."""
    return os.fsdecode(raw.split(b"\0", 1)[0])


def _sized(name: str, capacity: int | None, size: int, problem: str = "", **more: Any) -> ImageHeader:
    """A header whose capacity has been looked at: one that is missing or impossible becomes the size of the file."""
    if capacity is None:
        return ImageHeader(name, size, problem=f"the {name} header is cut off")
    if capacity > _SIZE_LIMIT:
        problem = problem or f"the {name} header gives a size of {capacity} bytes, more than any disk has"
        capacity = size
    return ImageHeader(name, capacity, problem=problem, **more)


def _other_version(name: str, version: int | None, size: int) -> ImageHeader:
    """libvirt lists these as raw, and so do we, but not without a word."""
    what = "ends before its version" if version is None else f"is of version {version}"
    return ImageHeader("raw", size, problem=f"it begins like a {name} image that {what}, which can't be used")


def _backing(fd: int, block: bytes, offset: int, length: int, limit: int) -> tuple[str | None, str]:
    """The name of the backing file, and what is wrong with it. It lies before ``limit``."""
    if not offset or not length:
        return None, ""
    if length > _BACKING_LIMIT:
        return None, f"the name of the backing file is {length} bytes long, more than {_BACKING_LIMIT}"
    if offset + length > limit:
        return None, "the name of the backing file lies outside of the header"
    raw = _bytes(fd, block, offset, length)
    if len(raw) < length:
        return None, "the name of the backing file is cut off"
    return _text(raw) or None, "the name of the backing file has a NUL byte in it" if b"\0" in raw else ""


def _qcow_family(fd: int, block: bytes, size: int) -> ImageHeader:
    version = _number(block, 4, 4, "big")
    if version == 1:
        return _qcow(fd, block, size)
    if version in (2, 3):
        return _qcow2(fd, block, size, version)
    return _other_version("qcow2", version, size)


def _qcow(fd: int, block: bytes, size: int) -> ImageHeader:
    if len(block) < 48:
        return _sized("qcow", None, size)
    offset, length, capacity, crypt = _QCOW.unpack_from(block)
    backing, wrong = _backing(fd, block, offset, length, size)
    problem = _magic(block, b"QFI\xfb") or wrong
    return _sized("qcow", capacity, size, problem, backing_path=backing, encrypted=crypt != 0)


def _magic(block: bytes, magic: bytes) -> str:
    """libvirt compares three bytes of these, QEMU four."""
    return "" if block.startswith(magic) else "the fourth byte of the magic number is wrong"


def _qcow2(fd: int, block: bytes, size: int, version: int) -> ImageHeader:
    if len(block) < (72 if version == 2 else 104):
        return ImageHeader("qcow2", size, problem="the qcow2 header is cut off")
    (_magic4, _version, offset, length, bits, capacity, crypt, l1_size, l1_offset, refcounts, _clusters, snapshots) = (
        _QCOW2.unpack_from(block)
    )
    features = compatible = 0
    header_length = 72
    beyond: tuple[str, ...] = ()
    if version == 3:
        features, compatible, autoclear, order, header_length = _QCOW2_V3.unpack_from(block, 72)
        beyond = _beyond_0_10(features, autoclear, order, snapshots)
    cluster = 1 << bits if 9 <= bits <= 21 else None
    extended = features & _EXTENDED_L2 != 0
    problem = _magic(block, b"QFI\xfb")
    backing = backing_format = data_file = None
    if cluster is None:
        problem = problem or f"the cluster size of 2^{bits} bytes is not between 512 bytes and 2 MiB"
    else:
        covered = cluster * (cluster // (16 if extended else 8))
        if (header_length < 104 and version == 3) or header_length > cluster:
            problem = problem or f"the header length {header_length} is not one that a header can have"
        elif offset > cluster:
            problem = problem or "the name of the backing file lies outside of the header"
        else:
            backing, wrong = _backing(fd, block, offset, length, cluster)
            backing_format, data_file, unreadable = _extensions(fd, block, header_length, offset or cluster)
            problem = problem or wrong or unreadable
        if extended and bits < 14:
            problem = problem or f"extended L2 entries need clusters of at least 16 KiB, these have {cluster} bytes"
        elif l1_size * 8 > _L1_LIMIT:
            problem = problem or "the L1 table is larger than 32 MiB"
        elif l1_size * covered < capacity:
            problem = problem or f"the L1 table is too small for a size of {capacity} bytes"
        elif refcounts >= size or (l1_size and l1_offset >= size):
            problem = problem or "the file ends before its tables: it is cut off"
    if features & ~_KNOWN_FEATURES:
        problem = problem or f"the incompatible features {features & ~_KNOWN_FEATURES:#x} are not known"
    if crypt > 2:
        problem = problem or f"the encryption method {crypt} is not known"
    return _sized(
        "qcow2",
        capacity,
        size,
        problem,
        backing_path=backing,
        backing_format=backing_format if backing is not None else None,
        compat="1.1" if version == 3 else "0.10",
        cluster_size=cluster,
        lazy_refcounts=compatible & 1 != 0,
        extended_l2=extended,
        encrypted=crypt != 0,
        data_file=(data_file or "") if features & _DATA_FILE else None,
        dirty=features & _DIRTY != 0,
        corrupt=features & _CORRUPT != 0,
        snapshots=snapshots,
        beyond_0_10=beyond,
    )


def _beyond_0_10(features: int, autoclear: int, order: int, snapshots: int) -> tuple[str, ...]:
    """In words. Of the same kind are lazy refcounts and extended L2 entries, which are told by themselves."""
    told = (
        ("an internal snapshot", snapshots),
        ("a bitmap", autoclear & _BITMAPS),
        ("another compression type", features & _COMPRESSION),
        (f"another width of refcounts than {_REFCOUNT_BITS} bits", 1 << min(order, 8) != _REFCOUNT_BITS),
    )
    return tuple(what for what, there in told if there)


def _extensions(fd: int, block: bytes, offset: int, end: int) -> tuple[str | None, str | None, str]:
    """Backing format, name of the data file, problem."""
    backing_format = data_file = None
    for _count in range(_EXTENSIONS_LIMIT):
        if offset >= end:
            return backing_format, data_file, ""
        raw = _bytes(fd, block, offset, 8)
        if len(raw) < 8:  # Beyond the end of the file everything reads as zeros, which is the end mark.
            return backing_format, data_file, ""
        kind, length = _EXTENSION.unpack(raw)
        offset += 8
        if offset + length > end:
            return backing_format, data_file, "a header extension is larger than the header"
        if kind == 0:
            return backing_format, data_file, ""
        if kind == 0xE2792ACA:
            if length > _FORMAT_LIMIT:
                return None, data_file, "the name of the backing file's format is too long"
            backing_format = _text(_bytes(fd, block, offset, length)) or None
        elif kind == 0x44415441:
            if length > _DATA_FILE_LIMIT:
                return backing_format, None, "the name of the external data file is too long"
            data_file = _text(_bytes(fd, block, offset, length))
        offset += (length + 7) & ~7
    return backing_format, data_file, f"the header has more than {_EXTENSIONS_LIMIT} extensions"


def _qed(fd: int, block: bytes, size: int) -> ImageHeader:
    if len(block) < 64:
        return _sized("qed", None, size)
    _magic4, cluster, clusters, features, capacity, offset, length = _QED.unpack_from(block)
    backing, problem = None, _magic(block, b"QED\0")
    if features & 1:
        backing, wrong = _backing(fd, block, offset, length, min(cluster * clusters, size))
        problem = problem or wrong
    if features & ~7:
        problem = problem or f"the features {features & ~7:#x} are not known"
    # Bit 2: "the backing file is raw, don't probe".
    backing_format = "raw" if backing is not None and features & 4 else None
    return _sized(
        "qed", capacity, size, problem, backing_path=backing, backing_format=backing_format, dirty=features & 2 != 0
    )


def _vmdk(fd: int, block: bytes, size: int) -> ImageHeader | None:
    if not block.startswith(b"KDMV"):
        return None
    version = _number(block, 4, 4, "little")
    if version not in (1, 2, 3):
        return _other_version("vmdk", version, size)
    sectors, at = _number(block, 12, 8, "little"), _number(block, 28, 8, "little")
    if sectors is None or at is None:
        return _sized("vmdk", None, size)
    if sectors == 0 and at:
        # No extent of its own: QEMU takes everything from the descriptor then, other files included.
        if at * 512 >= size:
            return ImageHeader("vmdk", size, problem="the descriptor lies beyond the end of the file")
        return _vmdk_described(os.pread(fd, _VMDK_DESCRIPTOR, at * 512), size)
    backing, problem = _vmdk_parent(os.pread(fd, _VMDK_DESCRIPTOR, 512))
    return _sized("vmdk", sectors * 512, size, problem, backing_path=backing)


def _vmdk_text(fd: int, block: bytes, size: int) -> ImageHeader | None:
    if not block.startswith(b"# Disk DescriptorFile"):
        return None
    return _vmdk_described(os.pread(fd, _VMDK_DESCRIPTOR, 0), size)


def _vmdk_cowd(fd: int, block: bytes, size: int) -> ImageHeader | None:
    if not block.startswith(b"COWD"):
        return None
    sectors = _number(block, 12, 4, "little")
    backing, problem = _vmdk_parent(os.pread(fd, _VMDK_DESCRIPTOR, 512))
    return _sized("vmdk", None if sectors is None else sectors * 512, size, problem, backing_path=backing)


def _vmdk_described(text: bytes, size: int) -> ImageHeader:
    """A disk that is described by ``text``, and made of the extents (other files) that it names."""
    backing, problem = _vmdk_parent(text)
    sectors, first = 0, None
    for line in text.split(b"\0", 1)[0].splitlines():
        words = line.split(None, 3)
        if len(words) < 3 or words[0] not in (b"RW", b"RDONLY", b"NOACCESS"):
            continue
        if not words[1].isdigit() or len(words[1]) > 19:
            problem = problem or "an extent has no size"
            continue
        sectors += int(words[1])
        if first is None and len(words) == 4:
            first = _text(words[3].split(b'"')[1]) if words[3].count(b'"') >= 2 else ""
    if not sectors:
        problem = problem or "the descriptor names no extent"
    return _sized("vmdk", sectors * 512, size, problem, backing_path=backing, data_file=first or "")


def _vmdk_parent(text: bytes) -> tuple[str | None, str]:
    _before, hint, after = text.split(b"\0", 1)[0].partition(b"parentFileNameHint=")
    if not hint:
        return None, ""
    parts = after.split(b'"', 2)
    if len(parts) < 3 or parts[0] or len(parts[1]) > _BACKING_LIMIT:
        return None, "the name of the parent can't be read"
    return _text(parts[1]) or None, ""


def _vpc(fd: int, block: bytes, size: int) -> ImageHeader | None:
    """Only with the copy of the footer at the start: a fixed image is raw to libvirt too."""
    if not block.startswith(b"conectix"):
        return None
    version = _number(block, 12, 4, "big")
    if version != 0x10000:
        return _other_version("vpc", version, size)
    problem = "it is a differencing image, whose parent can't be read" if _number(block, 60, 4, "big") == 4 else ""
    return _sized("vpc", _number(block, 40, 8, "big"), size, problem)


def _vdi(block: bytes, size: int) -> ImageHeader:
    version = _number(block, 68, 4, "little")
    if version != 0x00010001:
        return _other_version("vdi", version, size)
    return _sized("vdi", _number(block, 368, 8, "little"), size)


def _ploop(fd: int, block: bytes, size: int) -> ImageHeader | None:
    if not block.startswith(b"WithouFreSpacExt"):
        return None
    sectors = _number(block, 36, 8, "little")
    return _sized("ploop", None if sectors is None else sectors * 512, size)


def _cow(fd: int, block: bytes, size: int) -> ImageHeader | None:
    if not block.startswith(b"OOOM"):
        return None
    version = _number(block, 4, 4, "big")
    if version != 2:
        return _other_version("cow", version, size)
    block = os.pread(fd, 1044, 0)
    name = block[8:1032]
    if len(name) == 1024 and b"\0" not in name:
        return ImageHeader("cow", size, problem="the name of the backing file has no end")
    return _sized("cow", _number(block, 1036, 8, "big"), size, backing_path=_text(name) or None)


def _luks(fd: int, block: bytes, size: int) -> ImageHeader | None:
    if not block.startswith(b"LUKS\xba\xbe"):
        return None
    version = _number(block, 6, 2, "big")
    if version == 2:
        return ImageHeader("raw", size, encrypted=True)
    if version != 1:
        return _other_version("luks", version, size)
    payload = _number(block, 104, 4, "big")
    if payload is None or payload * 512 > size:
        return ImageHeader("raw", size, encrypted=True, problem="the luks header is cut off")
    return ImageHeader("raw", size - payload * 512, encrypted=True)


def _vhdx(fd: int, block: bytes, size: int) -> ImageHeader | None:
    if not block.startswith(b"vhdxfile"):
        return None
    return ImageHeader("raw", size, problem="it begins like a vhdx image, a format that libvirt has no name for")


_AT_START: dict[bytes, Callable[[int, bytes, int], ImageHeader | None]] = {
    b"QFI": _qcow_family,
    b"QED": _qed,
    b"KDM": _vmdk,
    b"COW": _vmdk_cowd,
    b"# D": _vmdk_text,
    b"con": _vpc,
    b"Wit": _ploop,
    b"OOO": _cow,
    b"LUK": _luks,
    b"vhd": _vhdx,
}


class BackingTarget(NamedTuple):
    """``kind`` is file, protocol or json; only a file has a ``path``."""

    kind: str
    path: str | None = None


def resolve_backing(image_path: str, backing: str) -> BackingTarget:
    """Where a backing string points, by QEMU's rules. A relative name starts from the directory of the path as given.

    A colon before any slash is a protocol (``nbd://…``, ``fat:…``, ``file:…``); these and ``json:`` are never followed
    to make something from: see ``built_on``.
    """
    if backing.startswith("json:"):
        return BackingTarget("json")
    if ":" in backing.split("/", 1)[0]:
        return BackingTarget("protocol")
    return BackingTarget("file", os.path.join(os.path.dirname(image_path), backing))


def built_on(image_path: str, header: ImageHeader) -> tuple[tuple[str, ...], bool]:
    """The files that an image is built on, also those that are never followed to make something from it, since who
    destroys one has to know; and whether these are all.
    """
    paths: list[str] = []
    known = True
    for named in filter(None, (header.backing_path, header.data_file)):
        target = resolve_backing(image_path, named)
        if target.path is not None:
            paths.append(target.path)
            continue
        from ..model.blockdev import files_of_words

        files = files_of_words(named)
        paths += files.paths
        known = known and files.all
    return tuple(paths), known


def open_header(path: str, declared: str | None = None) -> tuple[ImageHeader, tuple[int, int]]:
    """Header and identity (st_dev, st_ino) of a regular file or block device; OSError for everything else.

    Other kinds are not even opened: that alone can wait (FIFO) or do something (a watchdog, a tape).
    """
    _check_kind(path, os.stat(path))
    fd = open_to_read(path)
    try:
        state = os.fstat(fd)
        _check_kind(path, state)
        size = state.st_size if stat.S_ISREG(state.st_mode) else os.lseek(fd, 0, os.SEEK_END)
        return read_header(fd, size, declared), (state.st_dev, state.st_ino)
    finally:
        os.close(fd)


def open_to_read(path: str) -> int:
    """A descriptor. Where a server does not take root for root, it is opened as the owner of the file."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except PermissionError:
        from ..host.acting import open_as_owner

        return open_as_owner(path)


def _check_kind(path: str, state: os.stat_result) -> None:
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISBLK(state.st_mode)):
        raise OSError(errno.EINVAL, "not a regular file or block device", path)


class Member(NamedTuple):
    """One file of a chain. ``probed``: nobody declared its format, and a guest can write any header into a raw disk."""

    path: str
    header: ImageHeader
    identity: tuple[int, ...]
    probed: bool


class Chain(NamedTuple):
    """An image and the files that it is built on, itself first.

    ``end`` says why the walk ended: "whole" (nothing is missing), missing, unreadable, loop, too_deep, json, protocol,
    malformed (the last member's header has a problem), or mismatch (the last member is not what its parent's header
    says). ``at`` is the path or the backing string at which it ended, ``problem`` says it in words.
    """

    members: tuple[Member, ...]
    end: str = "whole"
    at: str = ""
    problem: str = ""

    @property
    def identities(self) -> tuple[tuple[int, ...], ...]:
        return tuple(member.identity for member in self.members)

    @property
    def probed(self) -> tuple[str, ...]:
        """The backing files whose format no header declares."""
        return tuple(member.path for member in self.members[1:] if member.probed)


# QEMU's names of formats that libvirt has another name for.
_FROM_QEMU = {"parallels": "ploop", "file": "raw", "host_device": "raw", "host_cdrom": "raw"}
# Formats that always show in the header, other than a fixed vpc image or a dmg.
_SURELY_SEEN = ("qcow", "qcow2", "qed", "vdi", "vmdk", "ploop", "cow")


def chain(
    path: str,
    opener: Callable[[str, str | None], tuple[ImageHeader, tuple[int, ...]]] = open_header,
    declared: str | None = None,
    limit: int = 64,
) -> Chain:
    """Follows the backing files of an image; ``declared`` is the format of the first one, None if it has to be probed.

    A file that its parent declares raw ends the chain whatever is in it, as it does for QEMU.
    """
    members: list[Member] = []
    seen = set()

    def ended(end: str, at: str, problem: str) -> Chain:
        return Chain(tuple(members), end, at, problem)

    while len(members) < limit:
        try:
            header, identity = opener(path, declared)
        except (FileNotFoundError, NotADirectoryError):
            return ended("missing", path, f"{path} is not there")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            return ended("unreadable", path, f"{path} can't be read: {why}")
        if identity in seen:
            return ended("loop", path, f"{path} is built on itself")
        seen.add(identity)
        members.append(Member(path, header, identity, declared is None))
        if header.problem:
            return ended("malformed", path, f"{path} is malformed: {header.problem}")
        if declared is not None and header.format != declared and (declared in _SURELY_SEEN or header.format != "raw"):
            return ended("mismatch", path, f"{path} is declared as {declared}, but looks like {header.format}")
        backing = header.backing_path
        if backing is None:
            return Chain(tuple(members))
        target = resolve_backing(path, backing)
        if target.path is None:
            return ended(target.kind, backing, f"{path} is built on {backing}, which is not a file")
        path, declared = target.path, header.backing_format
        declared = _FROM_QEMU.get(declared, declared) if declared else None
    return ended("too_deep", path, f"there are more than {limit} files in the chain")
