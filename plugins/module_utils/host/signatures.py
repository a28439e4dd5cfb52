# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a block device or a part of it holds: all signatures that libblkid knows, and whether there is anything else."""

from __future__ import annotations

import os
import re
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple

from ..model.errors import StorageError
from ..model.found import BLANK, DATA, NOT_THERE, UNREADABLE
from .patience import in_child
from .run import misprinted, run

_MIB = 1 << 20
# Where signatures are: 4 MiB and a bit from the start (the last copy of a LUKS2 header), 1 MiB before the end. That
# much is cleared where a table or a partition is made (disk pools), and so is read whole: nothing there goes unseen.
HEAD, TAIL = 5 * _MIB, _MIB
_SAMPLES, _SAMPLE = 64, 64 * 1024
# Where filesystems keep copies of their superblocks: ext4 in group 1 (with blocks of 1 and 4 KiB), btrfs; those of XFS
# are at fractions of the size (ext4(5): sparse_super; btrfs' on-disk format; mkfs.xfs(8): agcount).
_COPIES = (8 * _MIB, 64 * _MIB, 128 * _MIB, 256 * 1024 * _MIB)
_TABLE, _PROTECTIVE = "partition-table", "PMBR"
_BOOT_SECTORS = {"exfat", "ntfs", "vfat"}
_SECTOR = 512
_ENTRIES, _ENTRY, _MAGIC_AT, _MAGIC = 446, 16, 510, b"\x55\xaa"  # of an MBR: four partitions
PROTECTS_GPT = 0xEE
# What a signature makes of a device (blkid's words), in use or not.
MEMBERS = {
    "LVM2_member": "of LVM, as a physical volume",
    "linux_raid_member": "of mdraid",
    "ddf_raid_member": "of mdraid",
    "isw_raid_member": "of mdraid",
    "zfs_member": "of a pool of ZFS",
    "bcache": "of bcache",
    "ceph_bluestore": "of Ceph, as an OSD",
}
_NOTHING, _SEVERAL = 2, 8  # blkid(8): exit status of low-level probing
_NOT_TOLD = -1
_ESCAPED = re.compile(r"\\(.)")  # as for a shell (blkid(8): export)


class Signature(NamedTuple):
    """``name`` as blkid has it (ext4, LVM2_member, gpt …); ``usage`` is filesystem, raid, crypto, partition-table or
    other. ``offset`` is that of its magic number, -1 where it is not told.
    """

    name: str
    offset: int = _NOT_TOLD
    usage: str = ""
    uuid: str = ""
    label: str = ""


class Content(NamedTuple):
    """``data``: there is no signature, and something else than zeros. ``problem``: why it can't be told."""

    signatures: tuple[Signature, ...] = ()
    data: bool = False
    problem: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Each kind of signature once, partition tables first; without the MBR that only protects a GPT."""
        tables = [each.name for each in self.signatures if each.usage == _TABLE]
        others = [each.name for each in self.signatures if each.usage != _TABLE]
        names = dict.fromkeys(sorted(tables) + sorted(others))
        aside = {_PROTECTIVE} if len(names) > 1 else set()
        return tuple(name for name in names if name not in aside)

    @property
    def text(self) -> str:
        """In the words of model/found.py: BLANK, DATA, UNREADABLE and why, or the names."""
        if self.problem:
            return f"{UNREADABLE}{self.problem}"
        return " and ".join(self.names) or (DATA if self.data else BLANK)

    @property
    def facts(self) -> tuple:
        """What must still be so before it is overwritten."""
        return (self.problem, self.data, *sorted(each[:4] for each in self.signatures))


Prober = Callable[[float], "list[Signature]"]


def content_at(path: str, timeout: float) -> Content:
    """What the device or file at ``path`` holds: every signature, those too that contradict each other or are left from
    earlier (wipefs(8)). Where there is none, the first 5 MiB, the last one and some 64 samples of 64 KiB between them
    are read: data that they miss is missed.
    """
    return look_at(path, timeout, lambda left: all_signatures(path, left))


def region_at(path: str, timeout: float, offset: int, size: int) -> Content:
    """The same of a part of it, as of a free extent of a disk; of several signatures their names are not told."""
    return look_at(path, timeout, lambda left: likely_signatures(path, left, offset, size), offset, size)


def look_at(path: str, timeout: float, prober: Prober, offset: int = 0, size: int | None = None) -> Content:
    """What a prober and the samples find. Nothing is raised: what can't be told is a ``problem``. Read in a child,
    since a disk that lost its paths may never answer.
    """
    deadline = time.monotonic() + timeout
    try:
        read = in_child(lambda: _read(path, offset, size), timeout)
    except StorageError as error:
        return Content(problem=error.message)
    if read is None:
        return Content(problem=f"it did not answer within {timeout:.3g} s")
    if read["problem"]:
        return Content(problem=read["problem"])
    try:
        found = _with_table(prober(max(0.1, deadline - time.monotonic())), read["divided"])
    except StorageError as error:
        return Content(problem=error.message)
    return Content(found, not found and not read["zero"])


def _with_table(found: Sequence[Signature], divided: bool) -> tuple[Signature, ...]:
    """A boot sector ends as an MBR does: wipefs takes any of a filesystem for a table too, and blkid none, though one
    may have been written into it.
    """
    if not _BOOT_SECTORS & {each.name for each in found}:
        return tuple(found)
    others = tuple(each for each in found if each.name != "dos")
    return (*others, Signature("dos", _MAGIC_AT, _TABLE)) if divided else others


def mbr_partitions(sector: bytes) -> list[tuple[int, int, int]]:
    """(type, first sector, number of sectors) of those in an MBR; none where the kernel takes it for a boot sector
    without a table (block/partitions/msdos.c).
    """
    entries = [sector[at : at + _ENTRY] for at in range(_ENTRIES, _MAGIC_AT, _ENTRY)]
    if sector[_MAGIC_AT:_SECTOR] != _MAGIC or any(entry[0] & 0x7F for entry in entries):
        return []
    found = [(entry[4], *struct.unpack("<II", entry[8:])) for entry in entries]
    return [each for each in found if each[0] and each[2]]


def _is_divided(sector: bytes) -> bool:
    """What begins with the boot sector itself is the filesystem once more, for those who want a table on each disk
    (mkfs.fat(8): --mbr, which it does by itself on disks that could be divided).
    """
    types = [kind for kind, first, _count in mbr_partitions(sector) if first]
    return bool(types) and PROTECTS_GPT not in types


def _read(path: str, offset: int, size: int | None) -> dict[str, Any]:
    """Why it can't be read, or whether all samples are zeros (the first that is not ends it), and partitions in it."""
    try:
        # a FIFO must not be waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {"problem": NOT_THERE}
    except OSError as error:
        return {"problem": error.strerror}
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
        return {"problem": "it is no block device"}
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if (not end and stat.S_ISBLK(mode)) or end < offset + (size or 0):
            return {"problem": f"it ends at {end} bytes" if end else "it has no medium"}
        ranges = list(sampled(offset, end if size is None else offset + size))
        for start, length in ranges:
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)  # see _is_zero
        divided = _is_divided(os.pread(descriptor, _SECTOR, offset))
        return {"problem": "", "zero": _is_zero(descriptor, ranges), "divided": divided}
    except OSError as error:
        return {"problem": error.strerror}


def sampled(start: int, end: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is read: both ends, and samples between; all of it where it is small."""
    first, last = min(end, start + HEAD), max(start, end - TAIL)
    if start < end:
        yield start, first - start
    places = [first]
    if last - first > _SAMPLES * _SAMPLE:
        even = (start + (end - start) * index // _SAMPLES - _SAMPLE // 2 for index in range(1, _SAMPLES))
        places = sorted({*(place // 4096 * 4096 for place in even), *(start + place for place in _COPIES)})
    whole = len(places) == 1
    done = first
    for place in places:
        reach = last if whole else min(last, place + _SAMPLE)
        if max(done, place) < reach:
            yield max(done, place), reach - max(done, place)
            done = reach
    if first < end:
        yield max(first, last), end - max(first, last)


def _is_zero(descriptor: int, ranges: list[tuple[int, int]]) -> bool:
    """From the disk itself: it does not notice what was written to its partitions while it has old pages in memory."""
    zeros = bytes(_MIB)
    for start, length in ranges:
        for offset in range(start, start + length, _MIB):
            data = os.pread(descriptor, min(_MIB, start + length - offset), offset)
            if data != zeros[: len(data)]:
                return False
    return True


def all_signatures(path: str, timeout: float) -> list[Signature]:
    """By wipefs, which tells of each (JSON since util-linux 2.31). It takes what can't be read for the end of the list:
    reading must be tried as well.
    """
    import json

    argv = ["wipefs", "--no-act", "--json", "--output", "OFFSET,TYPE,USAGE,UUID,LABEL", path]
    try:
        printed = run(argv, timeout=timeout)
    except StorageError as error:
        if error.code == "tool_missing" or "option" in error.stderr:
            return likely_signatures(path, timeout)
        raise
    try:
        rows = json.loads(printed)["signatures"] if printed.strip() else []
    except ValueError as error:
        raise misprinted(argv, f"JSON: {error}", path) from None
    return [_signature(row) for row in rows]


def _signature(row: dict[str, Any]) -> Signature:
    offset = row.get("offset")
    return Signature(
        row.get("type") or "?",
        _NOT_TOLD if offset is None else int(str(offset), 0),
        row.get("usage") or "",
        row.get("uuid") or "",
        row.get("label") or "",
    )


def likely_signatures(path: str, timeout: float, offset: int = 0, size: int | None = None) -> list[Signature]:
    """By blkid's probing, which tells of a partition table and of one more, or that there are several."""
    place = [] if size is None else ["-O", str(offset), "-S", str(size)]
    try:
        printed = run(["blkid", "-p", *place, "-o", "export", path], timeout=timeout)
    except StorageError as error:
        if error.rc == _NOTHING:
            return []
        if error.rc == _SEVERAL:
            return [Signature("several signatures")]
        raise
    pairs = dict(_ESCAPED.sub(r"\1", line).partition("=")[::2] for line in printed.splitlines())
    found = []
    if "PTTYPE" in pairs:
        found.append(Signature(pairs["PTTYPE"], usage=_TABLE, uuid=pairs.get("PTUUID", "")))
    if "TYPE" in pairs:
        told = (pairs.get(name, "") for name in ("USAGE", "UUID", "LABEL"))
        found.append(Signature(pairs["TYPE"], _NOT_TOLD, *told))
    return found
