# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What real tools have written is recognised, and nothing that holds anything is taken for blank."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import signatures
from ansible_collections.virt.storage.plugins.module_utils.host.devices import content_of
from ansible_collections.virt.storage.plugins.module_utils.host.signatures import content_at, region_at
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import BLANK, DATA, UNREADABLE

pytestmark = pytest.mark.deadline(60)
KIB, MIB = 1024, 2**20
SIZE = 320 * MIB  # the smallest that mkfs.xfs takes is 300 MiB
LUKS = "cryptsetup luksFormat -q --pbkdf-force-iterations 1000"
END = SIZE - 64 * KIB

#: kind: what makes it in {}, and its name.
MADE = {
    "ext2": ("mkfs.ext2 -q {}", "ext2"),
    "ext3": ("mkfs.ext3 -q {}", "ext3"),
    "ext4": ("mkfs.ext4 -q {}", "ext4"),
    "journal": ("mke2fs -q -O journal_dev {}", "jbd"),
    "xfs": ("mkfs.xfs -q {}", "xfs"),
    "btrfs": ("mkfs.btrfs -q {}", "btrfs"),
    "vfat": ("mkfs.vfat {}", "vfat"),
    "exfat": ("mkfs.exfat {}", "exfat"),
    "ntfs": ("mkfs.ntfs -q -Q -F {}", "ntfs"),
    "f2fs": ("mkfs.f2fs -q {}", "f2fs"),
    "nilfs2": ("mkfs.nilfs2 -q {}", "nilfs2"),
    "minix": ("mkfs.minix {}", "minix"),
    "cramfs": ("mkfs.cramfs /etc/apt {}", "cramfs"),
    "udf": ("mkfs.udf {}", "udf"),
    "iso9660": ("genisoimage -quiet -o {} /etc/apt", "iso9660"),
    "swap": ("mkswap -q {}", "swap"),
    "luks1": (LUKS + " --type luks1 {} /etc/hostname", "crypto_LUKS"),
    "luks2": (LUKS + " --pbkdf pbkdf2 --type luks2 {} /etc/hostname", "crypto_LUKS"),
    "bcache": ("make-bcache -B {}", "bcache"),
    "bcache's cache": ("make-bcache -C {}", "bcache"),
    "gpt": ("parted -s {} mklabel gpt", "gpt"),
    "dos": ("parted -s {} mklabel msdos", "dos"),
    "mac": ("parted -s {} mklabel mac", "mac"),
    "sun": ("parted -s {} mklabel sun", "sun"),
    "dvh": ("parted -s {} mklabel dvh", "sgi"),
    # libblkid looks for these elsewhere than parted writes them; pc98 ends like dos
    "bsd": ("parted -s {} mklabel bsd", DATA),
    "amiga": ("parted -s {} mklabel amiga", DATA),
    "pc98": ("parted -s {} mklabel pc98", "dos"),
    "loop": ("parted -s {} mklabel loop", DATA),
}


def md(major: int, sector: int = 0) -> bytes:
    """A superblock of Linux' software RAID (include/uapi/linux/raid/md_p.h)."""
    if major == 0:
        return struct.pack("<IIII", 0xA92B4EFC, 0, 90, 0)
    return struct.pack("<II56xQIIQII", 0xA92B4EFC, 1, 0, 1, 0, 1000, 0, 2).ljust(144, b"\0") + struct.pack("<Q", sector)


def zfs_label() -> bytes:
    """The first uberblocks of a label, which start at 128 KiB (OpenZFS, vdev_impl.h)."""
    return b"".join(struct.pack("<Q", 0x00BAB10C).ljust(KIB, b"\0") for _each in range(8))


#: kind: (offset, bytes) … that no tool here writes without the kernel's driver, and its name.
WRITTEN = {
    "md 0.90": ([(END, md(0))], "linux_raid_member"),
    "md 1.0": ([(SIZE - 8 * KIB, md(1, (SIZE - 8 * KIB) // 512))], "linux_raid_member"),
    "md 1.1": ([(0, md(1, 0))], "linux_raid_member"),
    "md 1.2": ([(4 * KIB, md(1, 8))], "linux_raid_member"),
    "zfs": ([(128 * KIB, zfs_label()), (384 * KIB, zfs_label())], "zfs_member"),
    "zfs at the end": ([(SIZE - 512 * KIB + 128 * KIB, zfs_label())], "zfs_member"),
    "imsm": ([(SIZE - KIB, b"Intel Raid ISM Cfg Sig. 1.0.00")], "isw_raid_member"),
    "bluestore": ([(0, b"bluestore block device\n")], "ceph_bluestore"),
}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian gives who is not root a PATH without them."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")


def make(command: str, path: Path) -> None:
    words = [word.format(path) for word in command.split()]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    with path.open("r+b") as file:
        file.truncate(max(path.stat().st_size, SIZE))


def write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def text(path: Path) -> str:
    return content_at(str(path), 30).text


@pytest.mark.parametrize("kind", MADE)
def test_what_tools_write(kind: str, disk: Path) -> None:
    command, name = MADE[kind]
    make(command, disk)
    assert text(disk) == name
    assert name in (DATA, region_at(str(disk), 30, 0, SIZE).text, "exfat")


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_others_write(kind: str, disk: Path) -> None:
    places, name = WRITTEN[kind]
    for offset, data in places:
        write(disk, offset, data)
    assert text(disk) == name


@pytest.mark.parametrize(("before", "after"), [("ext4", "swap"), ("gpt", "ext4"), ("btrfs", "xfs"), ("luks2", "mac")])
def test_what_is_left_from_earlier_is_seen_or_gone(before: str, after: str, disk: Path) -> None:
    """blkid tells neither of two that contradict each other."""
    make(MADE[before][0], disk)
    force = MADE[after][0].replace("mkfs.xfs", "mkfs.xfs -f").replace("mkfs.ext4", "mkfs.ext4 -F")
    make(force, disk)
    names = content_at(str(disk), 30).names
    assert MADE[after][1] in names
    listed = subprocess.run(["wipefs", "-n", "-p", disk], check=True, capture_output=True, text=True).stdout
    types = {line.split(",")[-1] for line in listed.splitlines() if line and not line.startswith("#")}
    assert set(names) == types - ({"PMBR"} if len(types) > 1 else set())


def test_two_at_once(disk: Path) -> None:
    """An old superblock of an array at the end, under which libblkid alone would see no filesystem."""
    make(MADE["ext4"][0], disk)
    write(disk, END, md(0))
    found = content_at(str(disk), 30)
    assert found.text == "ext4 and linux_raid_member"
    assert {each.offset for each in found.signatures} == {0x438, END}
    assert content_of(str(disk), 30) == "linux_raid_member"


def test_only_the_backup_of_a_gpt(disk: Path) -> None:
    make(MADE["gpt"][0], disk)
    write(disk, 0, b"\0" * MIB)
    assert text(disk) == "gpt"
    assert content_of(str(disk), 30) in ("gpt", DATA)


def test_a_partition_table_with_a_filesystem(disk: Path) -> None:
    """parted clears what it finds; others don't."""
    make(MADE["ext4"][0], disk)
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\3\0", 2048, 2048)  # one of Linux, from 1 MiB on
    write(disk, 446, entry + b"\0" * 48 + b"\x55\xaa")
    assert text(disk) == "dos and ext4"
    assert content_of(str(disk), 30) in ("dos and ext4", "ext4")


@pytest.mark.parametrize("kind", ["vfat", "ntfs", "exfat"])
@pytest.mark.parametrize("by", ["wipefs", "blkid"])
def test_a_partition_table_in_the_boot_sector_of_a_filesystem(kind: str, by: str, disk: Path, monkeypatch) -> None:
    """As sfdisk leaves it: blkid tells of no table, wipefs of one wherever there is a boot sector."""
    if by == "blkid":
        monkeypatch.setattr(signatures, "all_signatures", signatures.likely_signatures)
    make(MADE[kind][0], disk)
    assert text(disk) == kind
    alone = content_at(str(disk), 30)
    write(disk, 446, struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\3\0", 2048, 2048) + b"\0" * 48)
    divided = content_at(str(disk), 30)
    assert divided.names == ("dos", kind)
    assert divided.facts != alone.facts


@pytest.mark.parametrize("by", ["wipefs", "blkid"])
def test_a_filesystem_that_its_own_table_has_as_a_partition(by: str, disk: Path, monkeypatch) -> None:
    """As mkfs.vfat leaves it on the disk of a machine, of which the kernel then has all as a partition, too."""
    if by == "blkid":
        monkeypatch.setattr(signatures, "all_signatures", signatures.likely_signatures)
    make("mkfs.vfat --mbr=yes {}", disk)
    assert signatures.mbr_partitions(disk.read_bytes()[:512])
    assert text(disk) == "vfat"


def test_labels_and_uuids(disk: Path) -> None:
    make("mkfs.ext4 -q -U 11111111-2222-3333-4444-555555555555 {}", disk)
    subprocess.run(["tune2fs", "-L", "a b,c", disk], check=True, capture_output=True)
    for found in (content_at(str(disk), 30), region_at(str(disk), 30, 0, SIZE)):
        (signature,) = found.signatures
        assert signature.uuid == "11111111-2222-3333-4444-555555555555"
        assert signature.label == "a b,c"
        assert signature.usage == "filesystem"


def test_what_was_made_anew_is_another_content(disk: Path) -> None:
    make(MADE["ext4"][0], disk)
    before = content_at(str(disk), 30)
    assert content_at(str(disk), 30).facts == before.facts
    make("mkfs.ext4 -q -F {}", disk)
    after = content_at(str(disk), 30)
    assert (after.text, after.facts == before.facts) == (before.text, False)


@pytest.mark.parametrize("command", ["xfs", "ext4", "btrfs"])
@pytest.mark.parametrize("wiped", [MIB, 2 * MIB])
def test_a_filesystem_without_its_beginning_is_data(command: str, wiped: int, disk: Path) -> None:
    """That of libvirt's delete: only the ends are cleared, and superblocks further in may be left."""
    make(MADE[command][0], disk)
    write(disk, 0, b"\0" * wiped)
    write(disk, SIZE - MIB, b"\0" * MIB)
    assert text(disk) != BLANK


@pytest.mark.parametrize("place", [0, 1, MIB - 1, 2 * MIB, 5 * MIB - 1, SIZE - MIB, SIZE - 1])
def test_a_byte_at_either_end(place: int, disk: Path) -> None:
    write(disk, place, b"\1")
    assert text(disk) == DATA


def test_data_in_the_middle(disk: Path) -> None:
    """Samples lie closer than 5 MiB here, so that no hole of that size goes unseen."""
    write(disk, SIZE // 2 - 2 * MIB, b"\1" * 5 * MIB)
    assert text(disk) == DATA
    assert content_of(str(disk), 30) == DATA


def test_zeros(disk: Path) -> None:
    assert text(disk) == BLANK
    assert content_of(str(disk), 30) == BLANK
    assert region_at(str(disk), 30, 512, SIZE - 512).text == BLANK


@pytest.mark.thorough
def test_regions(disk: Path, tmp_path: Path) -> None:
    """As a filesystem in a free extent, left by a partition that was removed."""
    part = tmp_path / "part"
    part.touch()
    with part.open("r+b") as file:
        file.truncate(SIZE)
    make(MADE["ext4"][0], part)
    data = part.read_bytes()[: 100 * MIB]
    write(disk, 150 * MIB, data)
    assert region_at(str(disk), 30, 150 * MIB, 100 * MIB).text == "ext4"
    assert region_at(str(disk), 30, 149 * MIB, 10 * MIB).text == DATA
    assert region_at(str(disk), 30, MIB, 149 * MIB).text == BLANK
    write(disk, 10 * MIB - 1, b"\1")
    assert region_at(str(disk), 30, MIB, 9 * MIB).text == DATA
    assert region_at(str(disk), 30, 10 * MIB, 9 * MIB).text == BLANK


def test_every_sample_is_read_once() -> None:
    for start, end in ((0, 0), (0, 1), (0, MIB), (5, 2 * MIB), (0, 3 * MIB), (0, 7 * MIB), (0, SIZE), (MIB, 2**50)):
        ranges = list(signatures.sampled(start, end))
        assert sum(length for _offset, length in ranges) <= 11 * MIB
        for (offset, length), (following, _more) in zip(ranges, ranges[1:]):
            assert offset + length <= following
        if end > start:
            assert ranges[0][0] == start
            assert ranges[-1][0] + ranges[-1][1] == end
        if end - start <= 10 * MIB:
            assert sum(length for _offset, length in ranges) == end - start


def test_without_wipefs_blkid_tells(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(MADE["gpt"][0], disk)
    real = signatures.run

    def run(argv: list[str], **more: object) -> str:
        if argv[0] == "wipefs":
            raise StorageError("command_failed", "wipefs failed", rc=1, stderr="wipefs: unrecognized option '--json'")
        return real(argv, **more)

    monkeypatch.setattr(signatures, "run", run)
    assert text(disk) == "gpt"


def test_what_takes_too_long_is_no_blank_device(disk: Path) -> None:
    start = time.monotonic()
    assert content_at(str(disk), 0.0).text.startswith(UNREADABLE)
    assert time.monotonic() - start < 10


def test_a_tool_that_fails_is_no_blank_device(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "run", lambda *argv, **more: "no JSON")
    assert text(disk).startswith(UNREADABLE)
