# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filesystem pools on loop devices, with the filesystems that this kernel mounts; findmnt, blkid and stat judge."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import fs
from ansible_collections.virt.storage.plugins.module_utils.engines.local import LocalHost
from ansible_collections.virt.storage.plugins.module_utils.host import kernel
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.model.operations import MakeOn

from . import loops
from .conftest import Host
from .crash_support import MIB, ModuleServer, define_guest, disk_file, disk_volume, done, refused, unchanged

pytestmark = [pytest.mark.needs_ansible, pytest.mark.deadline(120)]


def run(*words: object, check: bool = True, input_text: str | None = None) -> str:
    argv = list(map(str, words))
    return subprocess.run(argv, check=check, capture_output=True, text=True, input=input_text).stdout.strip()


def _can_mount() -> str:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return "no loop devices here"
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    return "" if "ext4" in known else "the kernel mounts no ext4"


if _can_mount():
    pytest.skip(_can_mount(), allow_module_level=True)


class Disk:
    """A loop device of the test's own, and where its pool is mounted."""

    def __init__(self, host: Host, top: Path, size: int) -> None:
        self.host, self.top, self.file = host, top, top / "disk.img"
        with self.file.open("wb") as file:
            file.truncate(size)
        self.device = loops.attach(self.file)
        self.path = top / "pool"

    def pool(self, check: bool = False, **params: Any) -> dict[str, Any]:
        source = {"device": self.device, "format": params.pop("format", "ext4")}
        declared = {"name": "p", "type": "fs", "path": str(self.path), "source": source}
        return self.host.pool(check, **{**declared, **params})

    def mounted(self) -> dict[str, str]:
        """What findmnt says of the path, empty where nothing is mounted there."""
        said = run("findmnt", "--json", "--mountpoint", self.path, check=False)
        return json.loads(said)["filesystems"][0] if said else {}

    def content(self) -> str:
        return run("blkid", "-p", "-o", "value", "-s", "TYPE", self.device, check=False)

    def close(self) -> None:
        for _again in range(3):
            run("umount", self.path, check=False)
            run("umount", self.top / "elsewhere", check=False)
        run("blockdev", "--setrw", self.device, check=False)
        run("swapoff", self.device, check=False)
        loops.detach(self.device)


@contextlib.contextmanager
def a_disk(host: Host, top: Path, size: int = 64 * MIB) -> Iterator[Disk]:
    host.root.mkdir(parents=True, exist_ok=True)
    made = Disk(host, top, size)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def disk(host: Host, tmp_path: Path) -> Iterator[Disk]:
    with a_disk(host, tmp_path) as made:
        yield made


def same_plan(disk: Disk, **params: Any) -> dict[str, Any]:
    """Check mode, then the real run, which must do just what was announced; then again, which must do nothing."""
    before = (disk.mounted(), disk.content(), sorted(os.listdir(disk.top)))
    planned = disk.pool(check=True, **params)
    assert (disk.mounted(), disk.content(), sorted(os.listdir(disk.top))) == before
    result = disk.pool(**params)
    assert not result.get("failed"), result
    assert (planned["changed"], _plain(planned["plan"])) == (result["changed"], _plain(result["plan"]))
    assert not [text for text in result["warnings"] if text.startswith("verification")], result["warnings"]
    unchanged(disk.pool(**params))
    return result


def _plain(plan: Any) -> Any:
    return [(entry["action"], entry["summary"], entry.get("destroys"), entry.get("commands")) for entry in plan]


KINDS = [("ext2", 64), ("ext3", 64), ("ext4", 64), ("xfs", 320), ("btrfs", 128)]


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_a_filesystem_is_made_mounted_adopted_and_deleted(host, tmp_path, kind, size):
    with a_disk(host, tmp_path, size * MIB) as disk:
        made = same_plan(disk, format=kind, mode="0750", owner="65534")
        assert disk.content() == kind
        found = disk.mounted()
        assert (found["source"], found["fstype"]) == (disk.device, kind)
        assert {"nodev", "nosuid", "noexec"} <= set(found["options"].split(","))
        status = os.stat(disk.path)
        assert (status.st_mode & 0o7777, status.st_uid) == (0o750, 65534)
        assert (made["pool"]["state"], made["pool"]["mode"]) == ("active", "0750")
        size_told = os.statvfs(disk.path)
        assert made["pool"]["capacity"] == size_told.f_blocks * size_told.f_frsize

        done(host.volume(pool="p", name="a.raw", capacity="1M"))
        assert [volume["name"] for volume in host.volume_info(pool="p")] == ["a.raw"]
        assert (disk.path / "a.raw").stat().st_size == MIB

        same_plan(disk, format=kind, state="inactive")
        assert not disk.mounted()
        assert os.listdir(disk.path) == []
        refused(host.volume(pool="p", name="b.raw", capacity="1M"), "pool_inactive")
        assert os.listdir(disk.path) == []
        same_plan(disk, format=kind)
        assert (disk.path / "a.raw").stat().st_size == MIB

        refused(disk.pool(format=kind, state="deleted"), "pool_nonempty")
        gone = disk.pool(format=kind, state="deleted", allow=["nonempty"])
        assert any(kind in entry["destroys"] for entry in done(gone)["plan"])
        assert (disk.mounted(), disk.content(), disk.path.exists()) == ({}, "", False)
        unchanged(disk.pool(format=kind, state="deleted"))


@pytest.mark.thorough
@pytest.mark.thorough
@pytest.mark.parametrize("named", [0, 1])
def test_a_btrfs_of_several_devices_is_known_by_each(host, tmp_path, named):
    """All of them are mounted by one, and none is erased while that leaves another."""
    with contextlib.ExitStack() as disks:
        pair = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            pair.append(disks.enter_context(a_disk(host, tmp_path / name, 256 * MIB)))
        run("mkfs.btrfs", "-q", *(each.device for each in pair))
        run("btrfs", "device", "scan", *(each.device for each in pair))
        disk, other = pair[named], pair[1 - named]
        same_plan(disk, format="btrfs")
        assert host.pool_info(name="p")[0]["state"] == "active"
        refused(other.pool(name="q", format="btrfs"), "device_in_use")
        error = refused(disk.pool(format="btrfs", state="deleted", allow=["nonempty"]), "pool_foreign_content")
        assert other.device in error["message"]
        same_plan(disk, format="btrfs", path=str(disk.top / "elsewhere"), allow=["restart"])
        same_plan(disk, state="absent", format="btrfs", path=None)
        assert not run("findmnt", "--noheadings", "--types", "btrfs", "--source", disk.device, check=False)
        assert not run("findmnt", "--noheadings", "--types", "btrfs", "--source", other.device, check=False)
        assert [each.content() for each in pair] == ["btrfs", "btrfs"]


def test_mount_options_and_their_change(disk):
    same_plan(disk, mount_options=["noatime"])
    assert "noatime" in disk.mounted()["options"]
    refused(disk.pool(mount_options=["nodiratime"]), "restart_needed")
    same_plan(disk, mount_options=["nodiratime"], allow=["restart"])
    assert "nodiratime" in disk.mounted()["options"]
    assert "noatime" not in disk.mounted()["options"].split(",")


def test_a_read_only_pool_becomes_writable(disk):
    same_plan(disk, mount_options=["ro"])
    same_plan(disk, mount_options=["noatime"], allow=["restart"])
    assert {"rw", "noatime"} <= set(disk.mounted()["options"].split(","))
    done(disk.host.volume(pool="p", name="a", capacity="1M"))


def test_a_mount_point_can_not_be_made_on_a_read_only_filesystem(disk, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", outer)
    try:
        refused_alike(disk, "not_writable", path=str(outer / "inner"))
    finally:
        run("umount", outer)


def test_a_restart_can_change_the_mode_too(disk):
    same_plan(disk, mode="0755")
    same_plan(disk, mode="0700", mount_options=["noatime"], allow=["restart"])
    assert os.stat(disk.path).st_mode & 0o7777 == 0o700


def test_the_mode_of_a_definition_alone_is_shown_too(disk):
    done(disk.pool(state="inactive"))
    edit(disk, ("</path>", "</path><permissions><mode>0750</mode></permissions>"))
    result = same_plan(disk)
    assert 'mode: "0750"' in result["diff"]["after"]
    assert os.stat(disk.path).st_mode & 0o7777 == 0o750


def test_a_mode_is_refused_where_it_is_mounted_read_only(disk):
    refused_alike(disk, "not_supported", mount_options=["ro"], mode="0755")
    assert not disk.mounted()
    same_plan(disk, mode="0755")
    refused(disk.pool(mode="0750", mount_options=["ro"], allow=["restart"]), "not_supported")
    same_plan(disk, mode="0755", mount_options=["ro"], allow=["restart"])
    assert "ro" in disk.mounted()["options"].split(",")
    assert os.stat(disk.path).st_mode & 0o7777 == 0o755
    same_plan(disk, mode="0750", mount_options=[], allow=["restart"])
    assert os.stat(disk.path).st_mode & 0o7777 == 0o750


def test_what_a_pool_holds_is_not_lost_by_making_it_anew_unasked(disk):
    same_plan(disk)
    for name in ("of-a-guest", "base"):
        done(disk.host.volume(pool="p", name=name, capacity="1M"))
    guest = define_guest(disk.host.root, "off", disk_file(disk.path / "of-a-guest"))
    images = str(disk.top / "images")
    done(disk.host.pool(name="images", type="dir", path=images))
    backing = {"path": str(disk.path / "base"), "format": "raw"}
    done(disk.host.volume(pool="images", name="overlay", format="qcow2", backing=backing))

    def refused_with(code: str, *words: str) -> str:
        errors = [refused(disk.pool(check, format="ext2", allow=[*words]), code) for check in (True, False)]
        assert disk.mounted()["fstype"] == "ext4"
        return errors[0]["message"]

    words = ["restart", "overwrite"]
    assert "2 volumes" in refused_with("pool_nonempty", *words)
    assert "overlay" in refused_with("volume_backing", *words, "nonempty")
    done(disk.host.volume(pool="images", name="overlay", state="absent"))
    assert "guest off" in refused_with("volume_in_use", *words, "nonempty")
    guest.unlink()
    made = same_plan(disk, format="ext2", allow=[*words, "nonempty"])
    assert [entry["action"] for entry in made["plan"]] == ["stop", "redefine", "build", "start"]
    assert os.listdir(disk.path) == ["lost+found"]
    same_plan(disk, format="ext4", allow=words)


def test_copying_on_write_is_not_set_where_it_is_mounted_read_only(host, tmp_path):
    with a_disk(host, tmp_path, 128 * MIB) as disk:
        declared = {"format": "btrfs", "features": {"cow": False}}
        refused_alike(disk, "not_supported", **declared, mount_options=["ro"])
        same_plan(disk, **declared)
        assert "C" in run("lsattr", "-d", disk.path).split()[0]


def test_a_pool_does_not_move_into_itself(disk):
    same_plan(disk)
    (disk.path / "inner").mkdir()
    for name in ("inner", "new"):
        for check in (True, False):
            error = refused(disk.pool(check=check, path=str(disk.path / name), allow=["restart"]), "invalid_path")
            assert str(disk.path) in error["message"]
    assert disk.mounted()
    unchanged(disk.pool())
    done(disk.pool(path=str(disk.path / "inner"), state="inactive"))
    assert not disk.pool(check=True, path=str(disk.path / "inner")).get("failed")


@pytest.mark.thorough
def test_a_pool_moves_to_another_path(disk, tmp_path):
    same_plan(disk)
    (disk.path / "kept").write_text("x")
    other = tmp_path / "other"
    disk.pool(check=True, path=str(other), allow=["restart"])
    result = disk.pool(path=str(other), allow=["restart"])
    try:
        done(result)
        assert (other / "kept").read_text() == "x"
        assert not disk.mounted()
    finally:
        run("umount", other, check=False)


def test_what_is_mounted_by_hand_is_adopted_and_released(disk):
    run("mkfs.ext4", "-q", disk.device)
    disk.path.mkdir()
    run("mount", disk.device, disk.path)
    result = same_plan(disk, format="auto")
    assert [entry["action"] for entry in result["plan"]] == ["define", "start"]
    same_plan(disk, format="auto", state="inactive")
    assert disk.mounted()
    same_plan(disk, format="auto")
    refused(disk.pool(format="auto", state="deleted"), "pool_adopted")
    done(disk.pool(format="auto", state="inactive", allow=["stop_adopted"]))
    assert not disk.mounted()
    assert disk.path.is_dir()
    unchanged(disk.pool(format="auto", state="inactive", allow=["stop_adopted"]))


@pytest.mark.thorough
def test_a_pool_is_only_active_while_it_is_mounted(disk):
    same_plan(disk)
    run("umount", disk.path)
    (record,) = disk.host.pool_info(name="p")
    assert record["state"] == "inactive"
    refused(disk.host.volume(pool="p", name="a", capacity="1M"), "pool_inactive")
    assert os.listdir(disk.path) == []
    same_plan(disk)
    assert disk.mounted()


def test_a_mount_of_something_else_is_in_the_way(disk):
    disk.path.mkdir()
    run("mount", "-t", "tmpfs", "none", disk.path)
    error = refused(disk.pool(), "storage_foreign")
    assert "tmpfs" in error["message"]
    assert disk.content() == ""


def test_nothing_says_as_what_to_format(disk):
    refused(disk.pool(format="auto"), "missing_option")
    assert disk.content() == ""


def make(*words: object) -> Any:
    return lambda disk: run(*[disk.device if word is DEVICE else word for word in words])


def write(offset: int, data: bytes) -> Any:
    def put(disk: Disk) -> None:
        with open(disk.device, "r+b") as file:
            file.seek(offset)
            file.write(data)

    return put


def both(*makers: Any) -> Any:
    return lambda disk: [maker(disk) for maker in makers]


DEVICE = object()
SIZE = 64 * MIB
# Content that no tool here makes is put there as libblkid looks for it.
FOREIGN = {
    "ext2": make("mkfs.ext2", "-q", DEVICE),
    "vfat": make("mkfs.vfat", "-I", DEVICE),
    "btrfs": make("mkfs.btrfs", "-q", "--mixed", DEVICE),
    "iso9660": write(32768, b"\x01CD001\x01" + bytes(2041) + b"\xffCD001\x01"),
    "squashfs": write(0, b"hsqs" + bytes(24) + b"\x04\x00\x00\x00" + bytes(64)),
    "gpt": make("parted", "-s", DEVICE, "mklabel", "gpt"),
    "dos": make("parted", "-s", DEVICE, "mklabel", "msdos"),
    "sun": make("parted", "-s", DEVICE, "mklabel", "sun"),
    "bsd": make("parted", "-s", DEVICE, "mklabel", "bsd"),
    "swap": make("mkswap", DEVICE),
    "LVM2_member": write(512, b"LABELONE" + (1).to_bytes(8, "little") + bytes(8) + b"LVM2 001"),
    "linux_raid_member at the end": None,
    "crypto_LUKS": write(0, b"LUKS\xba\xbe\x00\x01" + bytes(584)),
    "zfs_member": None,
    "bcache": None,
    "two at once": both(make("mkfs.ext4", "-q", DEVICE), write(0, b"hsqs" + bytes(24) + b"\x04")),
    "data at the start": write(0, b"precious"),
    "data in the middle": write(SIZE // 2, os.urandom(4 * MIB)),
    "data at the end": write(SIZE - 8, b"precious"),
}


def put_raid(disk: Disk) -> None:
    """The superblock of version 0.90, in the last 128 KiB (md(4))."""
    block = bytearray(4096)
    words = {0: 0xA92B4EFC, 1: 0, 2: 90, 5: 0x11111111, 7: 1, 8: 31, 9: 2, 10: 2, 13: 0x22222222, 14: 0x33333333}
    for index, value in words.items():
        block[index * 4 : index * 4 + 4] = value.to_bytes(4, "little")
    write((SIZE & ~0xFFFF) - 0x10000, bytes(block))(disk)


def put_zfs(disk: Disk) -> None:
    """Uberblocks in the first label."""
    for number in range(8):
        write(128 * 1024 + number * 1024, (0x00BAB10C).to_bytes(8, "little"))(disk)


def put_bcache(disk: Disk) -> None:
    import struct

    magic = bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")
    block = bytearray(4096)
    struct.pack_into("<QQQ16s", block, 0, 0, 8, 1, magic)
    write(4096, bytes(block))(disk)


FOREIGN.update({"linux_raid_member at the end": put_raid, "zfs_member": put_zfs, "bcache": put_bcache})


@pytest.mark.thorough
@pytest.mark.parametrize("kind", list(FOREIGN))
def test_nothing_is_formatted_that_nobody_allowed_to_be_lost(disk, kind):
    FOREIGN[kind](disk)
    run("sync", disk.device)
    before = disk.file.read_bytes()
    for check in (True, False):
        refused(disk.pool(check=check), "storage_foreign")
    assert disk.file.read_bytes() == before
    if kind in ("gpt", "two at once", "data in the middle", "linux_raid_member at the end"):
        same_plan(disk, allow=["overwrite"])
        assert disk.content() == "ext4"
        assert run("wipefs", "--no-act", "--noheadings", "--output", "TYPE", disk.device).split() == ["ext4"]


@pytest.mark.parametrize("kind", ["auto", "vfat", "ext4"])
def test_a_table_in_the_boot_sector_of_a_filesystem_is_not_overlooked(disk, kind):
    make("mkfs.vfat", "-I", DEVICE)(disk)
    run("sfdisk", "--wipe", "never", disk.device, input_text="label: dos\nstart=10MiB, size=20MiB\n")
    error = refused(disk.pool(check=True, format=kind), "storage_foreign")
    assert "a dos partition table and a vfat filesystem" in error["message"]


def test_a_device_that_is_used_elsewhere_is_left_alone(disk, tmp_path):
    run("mkfs.ext4", "-q", disk.device)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("mount", disk.device, elsewhere)
    for params in ({}, {"allow": ["overwrite"], "format": "ext3"}):
        error = refused(disk.pool(**params), "device_in_use")
        assert str(elsewhere) in error["message"]


@pytest.mark.thorough
@pytest.mark.parametrize("params", [{}, {"allow": ["overwrite"], "format": "ext3"}])
def test_what_a_loop_device_is_attached_to_is_not_taken_from_others(disk, params):
    """The same bytes under another name: by one more loop device, as a guest's disk, open for writing."""
    run("mkfs.ext4", "-q", disk.device)

    def left_alone(who: str) -> None:
        for check in (True, False):
            assert who in refused(disk.pool(check=check, **params), "device_in_use")["message"]
        assert (disk.content(), disk.mounted()) == ("ext4", {})

    other = loops.attach(disk.file)
    left_alone(f"loop {other}")
    loops.detach(other)
    definition = define_guest(disk.host.root, "off", disk_file(disk.file))
    left_alone("guest off")
    definition.unlink()
    with subprocess.Popen(["sleep", "60"], stdin=os.open(disk.file, os.O_RDWR)) as process:
        left_alone("process sleep")
        process.kill()
    os.truncate(disk.file, 80 * MIB)
    loops.attach_anew(disk.device, disk.file, "--sizelimit", 64 * MIB)
    behind = loops.attach(disk.file, "--offset", 64 * MIB)
    same_plan(disk, **params)
    loops.detach(behind)


@pytest.mark.thorough
def test_the_disk_of_a_partition_is_not_taken_from_who_has_it_open(disk):
    loops.attach_anew(disk.device, disk.file, "--partscan")
    run("sfdisk", "--quiet", "--no-reread", disk.device, input_text="label: gpt\nsize=40M\n")
    run("partx", "--update", disk.device)
    source = {"device": f"{disk.device}p1", "format": "ext4"}
    with subprocess.Popen(["sleep", "60"], stdin=os.open(disk.device, os.O_RDWR)) as process:
        for check in (True, False):
            error = refused(disk.pool(check=check, source=source), "device_in_use")
            assert "process sleep" in error["message"]
        process.kill()
    done(disk.pool(source=source))


@pytest.mark.thorough
@pytest.mark.parametrize("by", ["path", "link", "volume", "image"])
def test_a_disk_of_a_guest_that_is_shut_off_is_left_alone(disk, tmp_path, by):
    run("mkfs.ext4", "-q", disk.device)
    named = disk_file(disk.device)
    if by == "link":
        (tmp_path / "link").symlink_to(disk.device)
        named = disk_file(tmp_path / "link")
    elif by == "volume":
        done(disk.host.pool(name="devices", type="disk", path="/dev", source={"device": "/dev/none"}, state="inactive"))
        named = disk_volume("devices", os.path.basename(disk.device))
    elif by == "image":
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk.device, "-F", "raw", tmp_path / "over")
        named = disk_file(tmp_path / "over")
    definition = define_guest(disk.host.root, "off", named)
    for params in ({}, {"allow": ["overwrite"], "format": "ext3"}):
        for check in (True, False):
            error = refused(disk.pool(check=check, **params), "device_in_use")
            assert "guest off" in error["message"]
    assert disk.content() == "ext4"
    definition.unlink()
    same_plan(disk)
    define_guest(disk.host.root, "off", named)
    unchanged(disk.pool())  # it runs: whoever has it now, nothing is taken


@pytest.mark.thorough
def test_a_filesystem_of_which_others_have_the_device_is_not_erased(disk, tmp_path):
    """Mounted elsewhere too, open, or a guest's that is shut off: nothing in it is deleted before that is known."""
    done(disk.pool())
    done(disk.host.volume(pool="p", name="a", capacity="1MiB"))
    deleting = {"state": "deleted", "allow": ["nonempty", "in_use"]}

    def left_alone(who: str, **params: Any) -> None:
        for check in (True, False):
            assert who in refused(disk.pool(check=check, **params), "device_in_use")["message"]
        assert disk.mounted()
        assert (disk.path / "a").exists()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("mount", disk.device, elsewhere)
    left_alone(str(elsewhere), **deleting)
    run("umount", elsewhere)
    with subprocess.Popen(["sleep", "60"], stdin=os.open(disk.device, os.O_RDWR)) as process:
        left_alone("process sleep", **deleting)
        process.kill()
    define_guest(disk.host.root, "off", disk_file(disk.device))
    left_alone("guest off", state="deleted", allow=["nonempty"])
    same_plan(disk, **deleting)


@pytest.mark.thorough
def test_the_device_by_another_path_is_the_same(disk):
    same_plan(disk)
    link = disk.top / "link"
    link.symlink_to(disk.device)
    by_link = {"device": str(link), "format": "ext4"}
    for check in (True, False):
        for state in ("active", "present"):
            unchanged(disk.pool(check=check, source=by_link, state=state))
    done(disk.pool(state="inactive"))
    unchanged(disk.pool(source=by_link, state="inactive"))
    same_plan(disk, source=by_link)
    assert disk.mounted()["source"] == disk.device
    done(disk.pool(source=by_link, state="deleted"))
    assert disk.content() == ""


def test_nobody_is_looked_for_where_nothing_is_taken(disk, monkeypatch):
    from ansible_collections.virt.storage.plugins.module_utils.engines import native_users
    from ansible_collections.virt.storage.plugins.module_utils.host.processes import Processes

    def looked(*_arguments: object) -> None:
        raise AssertionError("processes or guests were looked at")

    done(disk.pool())
    monkeypatch.setattr(Processes, "files", looked)
    monkeypatch.setattr(native_users, "guest_definitions", looked)
    unchanged(disk.pool())


def test_a_guest_that_can_not_be_read_is_said_where_something_is_destroyed(disk):
    run("mkswap", disk.device)
    define_guest(disk.host.root, "bad", "").write_text("<domain><name>bad")
    result = done(disk.pool(allow=["overwrite"]))
    assert any("the guest's definition" in text for text in result["warnings"]), result["warnings"]


def test_a_busy_pool_says_by_whom(disk):
    same_plan(disk)
    program = "import sys; file = open(sys.argv[1], 'w'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, disk.path / "held"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        for check in (True, False):
            error = refused(disk.pool(check=check, state="inactive"), "pool_in_use")
            assert str(holder.pid) in error["message"]
        holder.stdin.close()
    done(disk.pool(state="inactive"))


@pytest.mark.thorough
def test_a_source_by_uuid_and_by_label(disk, host):
    run("mkfs.ext4", "-q", "-L", "my disk", disk.device)
    uuid = run("blkid", "-p", "-o", "value", "-s", "UUID", disk.device)
    for device in (f"UUID={uuid}", "LABEL=my disk"):
        done(disk.pool(source={"device": device}))
        assert disk.mounted()["source"] == disk.device
        unchanged(disk.pool(source={"device": device}))
        done(disk.pool(state="absent", source={"device": device}))
        assert not disk.mounted()
    copy = disk.top / "copy.img"
    copy.write_bytes(disk.file.read_bytes())
    twin = loops.attach(copy)
    try:
        error = refused(disk.pool(source={"device": f"UUID={uuid}"}), "source_conflict")
        assert twin in error["message"]
        assert disk.device in error["message"]
    finally:
        loops.detach(twin)


def test_a_copy_of_what_is_mounted_is_refused_before_anything_is_done(host, tmp_path):
    """The kernel mounts no two XFS filesystems of one UUID."""
    with a_disk(host, tmp_path, 320 * MIB) as disk:
        done(disk.pool(format="xfs", state="active"))
        done(disk.pool(format="xfs", state="inactive"))
        copy = disk.top / "copy.img"
        run("cp", "--sparse=always", disk.file, copy)
        done(disk.pool(format="xfs"))
        twin = loops.attach(copy)
        clone = {"name": "q", "type": "fs", "path": str(disk.top / "elsewhere"), "source": {"device": twin}}
        try:
            for check in (True, False):
                error = refused(host.pool(check, **clone), "source_conflict")
                assert str(disk.path) in error["message"]
                assert "nouuid" in error["hint"]
            assert [record["name"] for record in host.pool_info()] == ["p"]
            moved = {"source": {"device": twin, "format": "xfs"}, "allow": ["restart"]}
            assert not disk.pool(check=True, **moved).get("failed")  # the other one is unmounted first
            done(host.pool(**clone, mount_options=["nouuid"]))
            done(host.pool(**clone, state="absent"))
        finally:
            loops.detach(twin)


def test_a_device_that_went_away(disk):
    same_plan(disk)
    done(disk.pool(state="inactive"))
    gone = disk.top / "no-such-device"
    refused(
        disk.pool(name="q", path=str(disk.top / "q"), source={"device": str(gone), "format": "ext4"}), "source_missing"
    )
    with loops.detached(disk.device):
        error = refused(disk.pool(), "source_missing")
        assert disk.device in error["message"]
        refused(disk.pool(state="deleted"), "source_missing")


@pytest.mark.thorough
def test_another_filesystem_than_the_one_declared(disk):
    same_plan(disk)
    done(disk.pool(state="inactive"))
    run("mkfs.ext2", "-q", "-F", disk.device)
    refused(disk.pool(), "storage_foreign")
    assert disk.content() == "ext2"


def test_a_read_only_device_gives_a_read_only_pool(disk):
    run("mkfs.ext4", "-q", disk.device)
    run("blockdev", "--setro", disk.device)
    same_plan(disk)
    assert "ro" in disk.mounted()["options"].split(",")
    refused(disk.host.volume(pool="p", name="a", capacity="1M"), "not_writable")
    same_plan(disk, state="inactive")


def test_what_nothing_makes_is_refused(disk):
    for kind in ("ufs", "vmfs", "gfs", "iso9660"):
        refused(disk.pool(format=kind), "not_supported")
    assert disk.content() == ""


def test_lost_and_found_is_the_filesystems_own_while_it_is_empty(disk):
    same_plan(disk)
    assert disk.host.volume_info(pool="p") == []
    (disk.path / "lost+found" / "#11").write_text("found")
    refused(disk.pool(state="deleted", allow=["nonempty"]), "pool_foreign_content")
    (disk.path / "lost+found" / "#11").unlink()
    done(disk.pool(state="deleted"))


@pytest.mark.thorough
def test_a_play_that_deletes_a_pool_and_makes_another_of_its_disk_can_run_again(disk):
    """As a play would have it for a pool that got another name, type or format."""
    done(disk.pool())
    others = [
        {"name": "q", "path": str(disk.top / "q")},
        {"name": "r", "path": str(disk.top / "r"), "format": "ext2"},
    ]
    gone: dict[str, Any] = {}
    for other in others:
        for judged in (done, unchanged):
            judged(disk.pool(**gone, state="deleted"))
            judged(disk.pool(**other, allow=["overwrite"]))
        gone = other
    done(disk.pool(**gone, state="deleted"))
    run("mkswap", disk.device)
    unchanged(disk.pool(**gone, state="deleted"))
    with loops.detached(disk.device):
        unchanged(disk.pool(**gone, state="deleted"))


def test_who_only_looks_into_a_device_for_a_moment_is_no_user(disk):
    program = "import sys, time; file = open(sys.argv[1], 'rb'); print('open', flush=True); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", program, disk.device], stdout=subprocess.PIPE, text=True) as looker:
        assert looker.stdout.readline() == "open\n"
        done(disk.pool())
    done(disk.pool(state="deleted"))


def test_who_keeps_a_device_open_is_named(disk):
    program = "import sys; file = open(sys.argv[1], 'rb'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, disk.device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        error = refused(disk.pool(), "device_in_use")
        assert str(holder.pid) in error["message"]
        holder.stdin.close()


# -- what happens after the look ----------------------------------------------------------------------------------


@pytest.fixture
def meanwhile(monkeypatch) -> Any:
    """Has something done right before the operation of a kind: after all that was looked at before."""

    def arrange(kind: type, what: Callable[[], object]) -> None:
        plain, waiting = Applier.apply, [what]

        def apply(self, operation):
            if isinstance(operation, kind) and waiting:
                waiting.pop()()
            plain(self, operation)

        monkeypatch.setattr(Applier, "apply", apply)

    return arrange


def kept_off(result: dict[str, Any], code: str) -> dict[str, Any]:
    """The error of a task that ended before it touched the device; its definition is written by then."""
    assert (result["failed"], result["error"]["code"]) == (True, code), result
    assert "filesystem" not in result["diff"]["after"]
    assert "not completed" not in result["diff"]["after"]
    return result["error"]


@pytest.mark.parametrize(
    ("kind", "tool"),
    [("ext4", "mkfs.xfs -q"), ("vfat", "mkfs.ext4 -q"), ("btrfs", "mkfs.ext4 -q"), ("xfs", "mkfs.ext4 -q")],
)
def test_what_shows_up_after_the_look_is_not_formatted(host, tmp_path, meanwhile, monkeypatch, kind, tool):
    monkeypatch.setattr(kernel, "mounts_type", lambda name: True)  # it does not come to that
    with a_disk(host, tmp_path, 320 * MIB) as disk:
        if kind == "vfat" and not shutil.which("mkfs.vfat"):
            pytest.skip("no mkfs.vfat here")
        meanwhile(MakeOn, lambda: run(*tool.split(), disk.device))
        kept_off(disk.pool(format=kind), "changed_meanwhile")
        assert disk.content() == tool.split()[0].partition(".")[2]
        assert not disk.mounted()


def test_what_is_mounted_after_the_look_is_not_wiped(disk, meanwhile):
    run("mkfs.ext4", "-q", disk.device)
    (disk.top / "elsewhere").mkdir()
    meanwhile(MakeOn, lambda: run("mount", disk.device, disk.top / "elsewhere"))
    error = kept_off(disk.pool(format="ext3", allow=["overwrite"]), "changed_meanwhile")
    assert "elsewhere" in error["message"]
    assert disk.content() == "ext4"


def test_a_disk_that_a_guest_gets_after_the_look_is_left_alone(disk, monkeypatch):
    run("mkfs.ext4", "-q", disk.device)
    plain = LocalHost.prepare

    def prepare(self, locks):
        define_guest(disk.host.root, "new", disk_file(disk.device))
        plain(self, locks)

    monkeypatch.setattr(LocalHost, "prepare", prepare)
    error = kept_off(disk.pool(format="ext3", allow=["overwrite"]), "changed_meanwhile")
    assert "guest new" in error["message"]
    assert disk.content() == "ext4"


@pytest.mark.parametrize("declared", [{"state": "inactive"}, {"state": "deleted"}, {"mount_options": ["noatime"]}])
def test_what_is_mounted_over_a_pool_after_the_look_stays(disk, monkeypatch, declared):
    done(disk.pool())
    plain = LocalHost.prepare

    def prepare(self, locks):
        run("mount", "-t", "tmpfs", "theirs", disk.path)
        plain(self, locks)

    monkeypatch.setattr(LocalHost, "prepare", prepare)
    restarting = {"allow": ["restart"]} if "mount_options" in declared else {}
    kept_off(disk.pool(**declared, **restarting), "changed_meanwhile")
    assert "theirs" in run("findmnt", "--noheadings", "--output", "SOURCE", "--mountpoint", disk.path).split()
    monkeypatch.undo()
    run("umount", disk.path)
    assert disk.mounted()["source"] == disk.device


def test_another_device_of_that_name_is_not_formatted(disk, meanwhile):
    def exchange() -> None:
        with (disk.top / "other.img").open("wb") as file:
            file.truncate(64 * MIB)
        loops.attach_anew(disk.device, disk.top / "other.img")

    meanwhile(MakeOn, exchange)
    kept_off(disk.pool(), "changed_meanwhile")
    assert disk.content() == ""


@pytest.mark.thorough
def test_who_works_on_the_disk_is_waited_for(disk, meanwhile):
    """And nobody waits for ever."""
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            held = stack.enter_context(open(disk.device, "rb"))
            fcntl.flock(held, fcntl.LOCK_SH)

        meanwhile(MakeOn, lock)
        kept_off(disk.pool(timeout=2), "locked")
        assert disk.content() == ""
    done(disk.pool())


@contextlib.contextmanager
def tool_instead(top: Path, name: str, script: str) -> Iterator[None]:
    """A tool that is found before the real one."""
    directory = top / "bin"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{directory}:{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path


def test_the_device_is_nobody_elses_until_the_tool_begins(disk):
    """While the old content goes, the kernel mounts it no more; while the tool works, udev stays away."""
    run("mkfs.ext4", "-q", disk.device)
    report, elsewhere = disk.top / "report", disk.top / "elsewhere"
    elsewhere.mkdir()
    wipefs = shutil.which("wipefs")
    wipe = f'case "$*" in *--force*) mount {disk.device} {elsewhere} 2>/dev/null || echo held >>{report};; esac\n'
    look = f"flock --shared --nonblock {disk.device} true || echo locked >>{report}\n"
    wiping = tool_instead(disk.top, "wipefs", f'{wipe}exec {wipefs} "$@"')
    with wiping, tool_instead(disk.top, "mkfs.ext3", f"{look}exit 1"):
        disk.pool(format="ext3", allow=["overwrite"])
    assert report.read_text().split() == ["held", "locked"]


def test_content_that_went_before_the_tool_failed_counts_as_changed(disk):
    run("mkfs.ext4", "-q", disk.device)
    with tool_instead(disk.top, "mkfs.ext3", "echo no >&2; exit 1"):
        result = disk.pool(format="ext3", allow=["overwrite"])
    assert (result["failed"], result["error"]["code"], result["changed"]) == (True, "command_failed", True)
    assert "begun, not completed" in result["diff"]["after"]
    assert [entry.get("halfway") for entry in result["plan"] if entry["action"] == "build"][-1] == ["pool p"]
    assert disk.content() == ""


def test_what_a_tool_left_that_failed_is_data_like_any_other(disk):
    """Nothing notes for later that what is there is of our making."""
    with tool_instead(disk.top, "mkfs.ext4", 'for device; do :; done\nprintf half >"$device"; exit 1'):
        assert disk.pool()["error"]["code"] == "command_failed"
    refused(disk.pool(), "storage_foreign")
    assert disk.file.read_bytes()[:4] == b"half"
    done(disk.pool(allow=["overwrite"]))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("meanwhile", [False, True])
def test_what_was_written_after_a_pool_was_emptied_is_not_lost_with_it(host, tmp_path, kind, meanwhile):
    """A task that could not erase the filesystem is completed by the next one, unless somebody has used it since."""
    with a_disk(host, tmp_path, 320 * MIB) as disk:
        done(disk.pool(format=kind))
        done(host.volume(pool="p", name="a", capacity="1MiB"))
        deleting = {"format": kind, "state": "deleted"}
        with tool_instead(disk.top, "wipefs", 'case "$*" in *--force*) exit 1;; esac; exec /sbin/wipefs "$@"'):
            assert disk.pool(**deleting, allow=["nonempty"])["failed"]
        assert (disk.mounted(), disk.content()) == ({}, kind)
        if not meanwhile:
            done(disk.pool(**deleting))
            assert disk.content() == ""
            return
        elsewhere = disk.top / "elsewhere"
        elsewhere.mkdir()
        run("mount", disk.device, elsewhere)
        (elsewhere / "precious").write_text("mine")
        run("umount", elsewhere)
        for check in (True, False):
            refused(disk.pool(check=check, **deleting), "pool_inactive")
        assert disk.content() == kind


def test_what_was_written_after_a_pool_could_not_be_deleted_is_not_lost_with_it(disk):
    """It was emptied, but somebody came into it before it was unmounted: it goes on, and is filled again."""
    done(disk.pool())
    done(disk.host.volume(pool="p", name="a", capacity="1MiB"))
    with tool_instead(disk.top, "umount", "exit 32"):
        assert disk.pool(state="deleted", allow=["nonempty"])["failed"]
    assert (os.listdir(disk.path), disk.content()) == (["lost+found"], "ext4")
    done(disk.host.volume(pool="p", name="precious", capacity="1MiB"))
    for check in (True, False):
        refused(disk.pool(check=check, state="deleted"), "pool_nonempty")
    done(disk.pool(state="inactive"))
    for check in (True, False):
        refused(disk.pool(check=check, state="deleted"), "pool_inactive")
    done(disk.pool())
    assert "precious" in os.listdir(disk.path)


@pytest.mark.thorough
def test_a_note_of_another_boot_tells_nothing(disk, server, monkeypatch):
    with tool_instead(disk.top, "mkfs.ext4", 'for device; do :; done\nprintf half >"$device"; kill -9 $PPID'):
        assert killed_before(1000, server, disk)
    monkeypatch.setattr(fs, "boot", lambda: "another")
    refused(disk.pool(), "storage_foreign")
    monkeypatch.undo()
    done(disk.pool())


def test_a_table_that_went_is_gone_for_the_kernel_too(disk):
    loops.attach_anew(disk.device, disk.file, "--partscan")
    run("sfdisk", "--quiet", "--no-reread", disk.device, input_text="label: gpt\nsize=10M\n")
    run("partx", "--update", disk.device)
    assert Path(f"{disk.device}p1").exists()
    done(disk.pool(allow=["overwrite"]))
    assert not Path(f"{disk.device}p1").exists()
    assert disk.content() == "ext4"


# -- killed -------------------------------------------------------------------------------------------------------


def killed_before(operation: int, server: ModuleServer, disk: Disk, **params: Any) -> bool:
    """Whether a run was killed before its operation of this number; else it came to its end."""
    source = {"device": disk.device, "format": "ext4"}
    declared = {"uri": disk.host.uri, "name": "p", "type": "fs", "path": str(disk.path), "source": source, **params}
    status, result = server.run("storage_pool", declared, dies_before=operation, PATH=os.environ["PATH"])
    assert status in (0, -9), result
    return status == -9


@pytest.mark.thorough
@pytest.mark.parametrize("first", [0, 1, 2])
def test_killed_between_operations_the_next_run_completes_the_work(host, tmp_path, server, first):
    """Making and deleting a pool, killed before every third operation, beginning with the first ones."""
    for number in range(first, 40, 3):
        with a_disk(host, tmp_path, 16 * MIB) as disk:
            going_up = killed_before(number, server, disk)
            made = disk.pool()
            assert not made.get("failed"), (number, made["error"])
            assert (disk.content(), bool(disk.mounted())) == ("ext4", True), number
            unchanged(disk.pool())
            done(host.volume(pool="p", name="a", capacity="1M"))
            words = ["nonempty"]  # killed right after it was mounted, it is ours all the same
            going_down = killed_before(number, server, disk, state="deleted", allow=words)
            gone = disk.pool(state="deleted", allow=words)
            if gone.get("failed") and gone["error"]["code"] == "pool_inactive":  # somebody may have written to it since
                done(disk.pool())
                gone = disk.pool(state="deleted")
            assert not gone.get("failed"), (number, gone["error"])
            assert (disk.content(), bool(disk.mounted()), disk.path.exists()) == ("", False, False), number
            unchanged(disk.pool(state="deleted", allow=words))
            if not going_up and not going_down:
                return
    raise AssertionError("it never came to its end")


@pytest.mark.thorough
def test_what_a_killed_task_left_of_its_own_making_is_made_anew(disk, server):
    """mkfs itself is killed: what it wrote by then has no signature yet, and was not there before."""
    directory = disk.top / "bin"
    directory.mkdir()
    tool = directory / "mkfs.ext4"
    tool.write_text('#!/bin/sh\nfor device; do :; done\nprintf half >"$device"\nkill -9 $PPID\n')
    tool.chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{directory}:{path}"
    try:
        assert killed_before(1000, server, disk)
    finally:
        os.environ["PATH"] = path
    with open(disk.device, "rb") as file:  # what it wrote is in the file only once all have closed the device
        assert file.read(4) == b"half"
    done(disk.pool())
    assert disk.content() == "ext4"


@pytest.mark.thorough
@pytest.mark.parametrize("given_up", [True, False])
def test_what_a_killed_task_left_of_another_pool_is_data_like_any_other(disk, server, given_up):
    """So is what came there since then. Without us, nothing forgets that the pool was being made."""
    with tool_instead(disk.top, "mkfs.ext4", 'for device; do :; done\nprintf half >"$device"; kill -9 $PPID'):
        assert killed_before(1000, server, disk)
    if given_up:
        done(disk.pool(state="absent"))
    else:
        (disk.host.root / "etc/libvirt/storage/p.xml").unlink()
    make_random(disk)
    for name in ("q", "p") if given_up else ("q",):
        refused(disk.pool(name=name), "storage_foreign")
    assert disk.content() == ""


def make_random(disk: Disk) -> None:
    with open(disk.device, "r+b") as file:
        file.write(os.urandom(8 * MIB))
        os.fsync(file.fileno())


def refused_alike(disk: Disk, code: str, **params: Any) -> dict[str, Any]:
    """The same error in check mode and in a real run, and the device as it was."""
    run("sync", disk.device)
    before = (disk.file.read_bytes(), disk.path.exists())
    checked, real = (refused(disk.pool(check=check, **params), code) for check in (True, False))
    assert checked == real
    assert (disk.file.read_bytes(), disk.path.exists()) == before
    assert disk.host.pool_info(name="p") == []
    return real


@pytest.mark.parametrize("content", ["", "vfat"])
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_device_that_is_too_small_is_left_as_it_is(disk, kind, content):
    if content:
        run("mkfs.vfat", "-I", disk.device)
        refused_alike(disk, "storage_foreign", format=kind)
    error = refused_alike(disk, "not_supported", format=kind, allow=["overwrite"])
    assert "64 MiB" in error["message"]


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_the_smallest_that_is_not_refused_is_made(host, tmp_path, kind):
    from ansible_collections.virt.storage.plugins.module_utils.backends.filesystems import FILESYSTEMS

    with a_disk(host, tmp_path, FILESYSTEMS[kind].least) as disk:
        same_plan(disk, format=kind)
    with a_disk(host, tmp_path, FILESYSTEMS[kind].least - 512) as disk:
        assert subprocess.run([f"mkfs.{kind}", "-q", disk.device], capture_output=True, check=False).returncode


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_the_smallest_of_each_sector_size_can_be_mounted(tmp_path, kind, sector):
    from ansible_collections.virt.storage.plugins.module_utils.backends.filesystems import FILESYSTEMS

    least = FILESYSTEMS[kind].smallest(sector)
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, least)
    device = loops.attach(file, "--sector-size", sector)
    try:
        run(f"mkfs.{kind}", "-q", device)
        (tmp_path / "point").mkdir()
        run("mount", "-t", kind, device, tmp_path / "point")
        run("umount", tmp_path / "point")
    finally:
        loops.detach(device)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["ext2", "ext3"])
def test_the_largest_that_is_refused_is_not_made(host, tmp_path, kind):
    """Nothing that it holds is wiped for that."""
    host.root.mkdir(parents=True, exist_ok=True)
    top = tmp_path / "sparse"
    top.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", top)
    file = top / "disk.img"
    file.touch()
    os.truncate(file, (16 << 40) - 512)
    try:
        assert subprocess.run([f"mkfs.{kind}", "-n", "-q", file], capture_output=True, check=False).returncode == 0
        os.truncate(file, 16 << 40)
        assert subprocess.run([f"mkfs.{kind}", "-n", "-q", file], capture_output=True, check=False).returncode
        device = loops.attach(file)
        try:
            run("mkswap", device)
            declared = {"name": "p", "type": "fs", "path": str(tmp_path / "pool"), "allow": ["overwrite"]}
            for check in (True, False):
                result = host.pool(check, **declared, source={"device": device, "format": kind})
                assert "16 TiB" in refused(result, "not_supported")["message"]
            assert run("blkid", "-p", "-o", "value", "-s", "TYPE", device) == "swap"
        finally:
            loops.detach(device)
    finally:
        run("umount", "--lazy", top)


@pytest.mark.parametrize("kind", ["ufs", "gfs2"])
def test_what_can_not_be_made_here_is_said_to_who_would_lose_for_it(disk, kind):
    run("mkfs.vfat", "-I", disk.device)
    refused_alike(disk, "storage_foreign", format=kind)
    refused_alike(disk, "not_supported", format=kind, allow=["overwrite"])


def test_what_is_not_there_yet_is_planned(disk, tmp_path):
    """As check mode sees a play whose first task makes the device."""
    node = tmp_path / "node"
    declared = {"source": {"device": str(node), "format": "ext4"}}
    planned = disk.pool(check=True, **declared)
    assert not planned.get("failed"), planned
    assert "if it is empty" in next(entry["summary"] for entry in planned["plan"] if "ext4" in entry["summary"])
    assert any(str(node) in text for text in planned["warnings"])
    refused(disk.pool(**declared), "source_missing")
    node.symlink_to(disk.device)
    made = done(disk.pool(**declared))
    assert [entry["action"] for entry in planned["plan"]] == [entry["action"] for entry in made["plan"]]
    summaries = [entry["summary"].replace(", if it is empty then", "") for entry in planned["plan"]]
    assert summaries == [entry["summary"] for entry in made["plan"]]


def test_a_device_is_named_by_a_path(disk):
    error = refused_alike(disk, "invalid_path", source={"device": Path(disk.device).name, "format": "ext4"})
    assert "absolute" in error["message"]
    done(disk.pool())  # also of a pool whose type the task leaves out
    for check in (True, False):
        later = disk.host.pool(check, name="p", source={"device": Path(disk.device).name}, allow=["restart"])
        refused(later, "invalid_path")


@pytest.mark.thorough
@pytest.mark.parametrize("state", ["inactive", "absent"])
def test_a_pool_in_its_directory_is_not_lost_from_view(disk, host, state):
    same_plan(disk)
    inner = {"name": "inner", "type": "dir", "path": str(disk.path / "sub")}
    done(host.pool(**inner))
    for check in (True, False):
        error = refused(disk.pool(check, state=state), "pool_in_use")
        assert "pool inner" in error["message"]
        error = refused(disk.pool(check, mount_options=["noatime"], allow=["restart"]), "pool_in_use")
    assert disk.mounted()
    done(host.pool(name="inner", state="inactive"))
    same_plan(disk, state=state)
    assert not disk.mounted()


def test_what_a_mount_hides_is_said(disk):
    disk.path.mkdir()
    (disk.path / "a").touch()
    (disk.path / "b").mkdir()
    for check in (True, False):
        told = disk.pool(check)
        assert [text for text in told["warnings"] if "2 entries" in text and str(disk.path) in text], told
    assert not unchanged(disk.pool())["warnings"]
    run("umount", disk.path)
    assert (disk.path / "a").exists()


# -- a definition that was changed while the pool runs --------------------------------------------------------------


def edit(disk: Disk, *words: tuple[str, str]) -> None:
    definition = Path(disk.host.root) / "etc/libvirt/storage/p.xml"
    text = definition.read_text()
    for old, new in words:
        assert old in text
        text = text.replace(old, new)
    definition.write_text(text)


def test_what_was_started_is_unmounted_whatever_the_definition_says_since(disk):
    """And not what somebody else has mounted where that says."""
    done(disk.pool())
    elsewhere = disk.top / "elsewhere"
    elsewhere.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", elsewhere)
    edit(disk, (str(disk.path), str(elsewhere)))
    assert disk.host.pool_info(name="p")[0]["state"] == "active"
    done(disk.host.pool(name="p", state="inactive"))
    assert disk.mounted() == {}
    assert run("findmnt", "--noheadings", "--output", "FSTYPE", elsewhere) == "tmpfs"


@pytest.mark.thorough
def test_it_is_started_anew_where_its_definition_says(disk):
    done(disk.pool())
    elsewhere = disk.top / "elsewhere"
    edit(disk, (str(disk.path), str(elsewhere)))
    refused(disk.host.pool(name="p", state="active"), "restart_needed")
    done(disk.host.pool(name="p", state="active", allow=["restart"]))
    assert disk.mounted() == {}
    assert run("findmnt", "--noheadings", "--output", "FSTYPE", elsewhere) == "ext4"
    unchanged(disk.host.pool(name="p", state="active"))
