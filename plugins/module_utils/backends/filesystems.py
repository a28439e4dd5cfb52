# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Filesystems on block devices: how each format is recognised, made and mounted. Data only."""

from __future__ import annotations

from typing import NamedTuple


class Filesystem(NamedTuple):
    """``signature`` is libblkid's name, ``fstype`` the kernel's, the same where empty. ``making`` is the command that
    makes it, before the device. It is without force where the tool has that, but most of these tools overwrite
    whatever is there: that nothing showed up after our look is for host/taking.py to see. ``also``:
    other signatures that belong to it. ``read_only``: it is only read. ``fixed``: it has no owners and modes of
    its own. ``least``: the smallest device in bytes that its tool takes, 0 where that is not known; ``least_4k``: with
    sectors of 4096 bytes, where that is another one; ``limit``: one of that size or more it does not take, 0 where it
    takes all, be it that it leaves the rest unused. ``tells``: its first MiB is another one whenever something was
    written in it: there is its superblock, with counts or times.
    """

    signature: str
    fstype: str = ""
    making: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    read_only: bool = False
    fixed: bool = False
    least: int = 0
    least_4k: int = 0
    limit: int = 0
    tells: bool = False

    @property
    def kernel(self) -> str:
        return self.fstype or self.signature

    def smallest(self, sector: int) -> int:
        return self.least_4k if self.least_4k and sector >= 4096 else self.least


_KIB, _MIB = 1 << 10, 1 << 20
_EXT, _EXT_4K = 104 * _KIB, 224 * _KIB  # mke2fs(8): what its blocks and their tables take
_COUNTED = 4096 << 32  # blocks are counted in 32 bits (ext4's documentation, blocks.rst), and mke2fs makes them 4 KiB
_JOURNAL = 2048  # blocks that a filesystem must have to get a journal (e2fsprogs, ext2fs_default_journal_size)
_DISC = ("udf", "iso9660", "dos", "gpt", "mac", "PMBR", "hfs", "hfsplus", "vfat")  # hybrid images

# By libvirt's names (formatstorage), and btrfs. mke2fs(8), mkfs.xfs(8), mkfs.btrfs(8), mkfs.fat(8), mkudffs(8),
# mkfs.gfs2(8), mkfs.ocfs2(8). Cluster filesystems are made for one host.
FILESYSTEMS: dict[str, Filesystem] = {
    "ext2": Filesystem("ext2", making=("mkfs.ext2", "-q"), least=_EXT, least_4k=_EXT_4K, limit=_COUNTED, tells=True),
    "ext3": Filesystem(
        "ext3",
        making=("mkfs.ext3", "-q"),
        least=_JOURNAL * 1024,
        least_4k=_JOURNAL * 4096,
        limit=_COUNTED,
        tells=True,
    ),
    "ext4": Filesystem("ext4", making=("mkfs.ext4", "-q"), least=_EXT, least_4k=_EXT_4K, tells=True),
    "ufs": Filesystem("ufs", read_only=True),
    "iso9660": Filesystem("iso9660", also=_DISC, read_only=True),
    "udf": Filesystem(
        "udf",
        making=("mkfs.udf", "--media-type=hd"),
        also=_DISC,
        read_only=True,
        least=48 * _KIB,
    ),
    "gfs": Filesystem("gfs"),
    "gfs2": Filesystem(
        "gfs2",
        making=("mkfs.gfs2", "-O", "-q", "-p", "lock_nolock", "-j", "1"),
    ),
    "vfat": Filesystem("vfat", making=("mkfs.vfat", "-I"), fixed=True, least=50 * _KIB, tells=True),
    "hfs+": Filesystem("hfsplus", making=("mkfs.hfsplus",), tells=True),
    "xfs": Filesystem("xfs", making=("mkfs.xfs", "-q"), least=300 * _MIB, tells=True),
    "ocfs2": Filesystem(
        "ocfs2",
        making=("mkfs.ocfs2", "-q", "-M", "local"),
    ),
    "vmfs": Filesystem("VMFS", "vmfs", read_only=True),
    "btrfs": Filesystem("btrfs", making=("mkfs.btrfs", "-q"), least=109 * _MIB, tells=True),
}

# Of those that are only found: what can't be written, and what has no owners.
_READ_ONLY = ("squashfs", "erofs", "cramfs", "romfs")
_NO_OWNERS = ("exfat", "ntfs", "msdos")


def by_signature(name: str) -> Filesystem:
    """What is known of a filesystem that libblkid calls so."""
    for known in FILESYSTEMS.values():
        if known.signature == name:
            return known
    return Filesystem(name, read_only=name in _READ_ONLY, fixed=name in _NO_OWNERS)
