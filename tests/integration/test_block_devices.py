# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real block devices (loop devices), partitions, mounts: what they are, who uses them, what must still hold."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import conditions
from ansible_collections.virt.storage.plugins.module_utils.host.block import Device, device_at, holders
from ansible_collections.virt.storage.plugins.module_utils.host.device_users import users_of_path
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.mount_users import users_of_mount
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import mount_at, mounts
from ansible_collections.virt.storage.plugins.module_utils.host.signatures import content_at, region_at
from ansible_collections.virt.storage.plugins.module_utils.host.sources import aliases, resolve
from ansible_collections.virt.storage.plugins.module_utils.host.udev import locked, reread, settle
from ansible_collections.virt.storage.plugins.module_utils.host.users import users_of
from ansible_collections.virt.storage.plugins.module_utils.host.volume_users import writers_of
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import BLANK

from . import loops

MIB = 2**20
pytestmark = [pytest.mark.root, pytest.mark.deadline(60)]


def output(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


class Disks:
    """Loop devices and mounts; ``close`` takes away those that it made, and no others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._undo = contextlib.ExitStack()
        self._count = 0

    def add(self, size: int = 64 * MIB, *options: str) -> str:
        self._count += 1
        path = self.root / f"disk{self._count}"
        with path.open("wb") as file:
            file.truncate(size)
        return self.attach(path, *options)

    def attach(self, path: Path | str, *options: str) -> str:
        node = loops.attach(path, *options)
        self._undo.callback(self._detach, node)
        return node

    @staticmethod
    def _detach(node: str) -> None:
        """Partitions first: of a device without partition scanning they would stay, for whoever gets it next."""
        subprocess.run(["partx", "--delete", node], check=False, capture_output=True)
        loops.detach(node)

    def mount(self, device: str, name: str = "mnt", *options: str) -> Path:
        point = self.root / name
        point.mkdir(exist_ok=True)
        output("mount", *options, device, point)
        self._undo.callback(subprocess.run, ["umount", point], check=False, capture_output=True)
        return point

    def close(self) -> None:
        self._undo.close()


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("no loop devices")
    made = Disks(tmp_path)
    yield made
    made.close()


@pytest.fixture
def disk(disks: Disks) -> str:
    return disks.add()


@pytest.fixture
def partitioned(disk: str) -> str:
    output("parted", "-s", disk, "mklabel", "gpt", "mkpart", "one", "1MiB", "20MiB", "mkpart", "two", "20MiB", "50MiB")
    return disk


@contextlib.contextmanager
def child(program: str, *arguments: object) -> Iterator[subprocess.Popen]:
    words = [sys.executable, "-c", program + "\nprint('ready', flush=True)\nimport time\ntime.sleep(60)"]
    with subprocess.Popen([*words, *map(str, arguments)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def users(path: str) -> list[str]:
    return [str(user) for user in users_of_path(path)[0]]


def mount_users(point: Path) -> list[str]:
    mount = mount_at(str(point), mounts())
    assert mount is not None
    found, unseen = users_of_mount(mount)
    assert not unseen
    return [str(user) for user in found]


def look() -> Look:
    return Look(20, "/nowhere/records", "/nowhere/started")


# -- what a device is ---------------------------------------------------------------------------------------------


def told_by_lsblk(node: str) -> dict:
    columns = "NAME,KNAME,MAJ:MIN,SIZE,RO,TYPE,LOG-SEC,PKNAME"
    return json.loads(output("lsblk", "--json", "--bytes", "--nodeps", "--output", columns, node))["blockdevices"][0]


def agrees_with_lsblk(device: Device) -> None:
    told = told_by_lsblk(device.node)
    assert device.size == int(told["size"])
    assert "{}:{}".format(*device.number) == told["maj:min"]
    assert device.read_only == bool(int(told["ro"]))
    assert device.sector == int(told["log-sec"])
    assert device.kind == told["type"]
    assert (device.disk or "").rpartition("/")[2] == (told["pkname"] or "")


def test_a_disk_and_its_partitions(partitioned: str) -> None:
    found = device_at(partitioned)
    assert found.partitions == (f"{partitioned}p1", f"{partitioned}p2")
    agrees_with_lsblk(found)
    for number, node in enumerate(found.partitions, 1):
        part = device_at(node)
        agrees_with_lsblk(part)
        assert part.partition == number
    assert (device_at(found.partitions[1]).start, device_at(found.partitions[1]).size) == (20 * MIB, 30 * MIB)


@pytest.mark.parametrize("options", [("--read-only",), ("--sector-size", "4096")])
def test_odd_disks(disks: Disks, options: tuple[str, ...]) -> None:
    agrees_with_lsblk(device_at(disks.add(64 * MIB, *options)))


def test_by_another_name(disk: str, tmp_path: Path) -> None:
    link, node = tmp_path / "link", tmp_path / "node"
    link.symlink_to(disk)
    os.mknod(node, 0o60600, os.stat(disk).st_rdev)
    for path in (link, node):
        found = device_at(str(path))
        assert (found.path, found.node) == (str(path), disk)
        assert found.identity == device_at(disk).identity
    assert disk in aliases(device_at(disk))


def test_what_was_attached_anew_is_another_device(disks: Disks, disk: str) -> None:
    seen = []
    for name in ("one", "other", "one"):
        path = disks.root / name
        with path.open("wb") as file:
            file.truncate(64 * MIB)
        loops.attach_anew(disk, path)
        seen.append(device_at(disk))
    assert seen[0].identity != seen[1].identity
    assert seen[0]._replace(serial="", diskseq="") == seen[1]._replace(serial="", diskseq="")
    if seen[0].diskseq:
        assert seen[0].identity != seen[2].identity


# -- what a source means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["plain", "a b", "käse/brot"])
def test_by_label(disk: str, label: str) -> None:
    output("mkfs.ext4", "-q", "-L", label, disk)
    assert resolve(f"LABEL={label}", look()).node == disk


def test_by_uuid(disks: Disks) -> None:
    uuid = f"0f0f0f0f-1111-4222-8333-{os.getpid():012x}"
    one, two = disks.add(), disks.add()
    with pytest.raises(StorageError) as caught:
        resolve(f"UUID={uuid}", look())
    assert caught.value.code == "source_missing"
    output("mkfs.ext4", "-q", "-U", uuid, one)
    assert resolve(f"UUID={uuid}", look()).node == one
    output("mkfs.ext4", "-q", "-U", uuid, two)
    settle(10)
    with pytest.raises(StorageError) as caught:
        resolve(f"UUID={uuid}", look())
    assert caught.value.code == "source_conflict"
    assert one in caught.value.message
    assert two in caught.value.message


def test_by_partition(partitioned: str) -> None:
    uuid = output("blkid", "-p", "-s", "PART_ENTRY_UUID", "-o", "value", f"{partitioned}p2").strip()
    settle(10)
    assert resolve(f"PARTUUID={uuid}", look()).node == f"{partitioned}p2"


# -- who uses a device --------------------------------------------------------------------------------------------


def test_nobody(partitioned: str) -> None:
    assert users(partitioned) == []
    assert users(f"{partitioned}p1") == []


@pytest.mark.thorough
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_a_process(partitioned: str, tmp_path: Path, flags: int) -> None:
    program = "import os, sys\nos.open(sys.argv[1], int(sys.argv[2]))"
    with child(program, f"{partitioned}p1", flags) as process:
        mine = f"(pid {process.pid})"  # others may look at the device for a moment
        (user,) = [each for each in users(f"{partitioned}p1") if mine in each]
        assert [each for each in users(partitioned) if mine in each] == [f"{user} with {partitioned}p1"]
        assert not [each for each in users(f"{partitioned}p2") if mine in each]
        found, _unseen = users_of({"it": f"{partitioned}p1"})
        assert user in [str(each) for each in found["it"]]
    assert not [each for each in users(partitioned) if mine in each]


def test_a_process_with_a_node_of_its_own(disk: str, tmp_path: Path) -> None:
    """As QEMU has, to which libvirt gives a /dev of its own."""
    directory = tmp_path / "dev"
    directory.mkdir()
    os.mknod(directory / "other", 0o60600, os.stat(disk).st_rdev)
    with child("import os, sys\nos.open(sys.argv[1], os.O_RDONLY)", directory / "other"):
        assert len(users(disk)) == 1
        assert len(users_of({"it": disk})[0]["it"]) == 1


def test_a_mount(disks: Disks, partitioned: str) -> None:
    output("mkfs.ext4", "-q", f"{partitioned}p1")
    point = disks.mount(f"{partitioned}p1")
    assert users(f"{partitioned}p1") == [f"mount {point}"]
    assert users(partitioned) == [f"mount {point} of {partitioned}p1"]
    assert users(f"{partitioned}p2") == []


def test_a_mount_that_only_another_process_sees(disks: Disks, disk: str) -> None:
    output("mkfs.ext4", "-q", disk)
    point = disks.root / "theirs"
    point.mkdir()
    script = f"mount {disk} {point} && echo ready && exec sleep 60"
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert mount_at(str(point), mounts()) is None
            assert users(disk) == [f"mount {point} as process {process.pid} sees it"]
        finally:
            process.kill()


def test_btrfs_whose_mounts_have_other_numbers(disks: Disks) -> None:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is not installed")
    one, two = disks.add(128 * MIB), disks.add(128 * MIB)
    output("mkfs.btrfs", "-q", one, two)
    output("btrfs", "device", "scan", one, two)
    point = disks.mount(one)
    assert sorted([*users(one), *users(two)])[-1] == f"mount {point}"
    assert all(users(node) for node in (one, two))


def test_swap(disk: str) -> None:
    output("mkswap", disk)
    os.chmod(disk, 0o600)
    output("swapon", disk)
    try:
        assert users(disk) == [f"swap {disk}"]
    finally:
        output("swapoff", disk)


@pytest.mark.thorough
def test_who_may_write_to_it(disks: Disks, partitioned: str) -> None:
    def writers(node: str) -> list[str]:
        return list(map(str, writers_of(node)))

    part = f"{partitioned}p2"
    assert writers(part) == writers(partitioned) == []
    reading = os.open(part, os.O_RDONLY)
    with subprocess.Popen(["sleep", "60"], stdin=reading) as process:
        assert writers(part) == []
        process.kill()
    os.close(reading)
    for node in (part, partitioned):
        both = os.open(node, os.O_RDWR)
        with subprocess.Popen(["sleep", "60"], stdin=both) as process:
            assert writers(part) == [f"process sleep (pid {process.pid})"]
            process.kill()
        os.close(both)
    output("mkfs.ext4", "-q", part)
    point = disks.mount(part)
    assert writers(part) == [f"mount {point}"]
    assert writers(partitioned) == [f"mount {point} of {part}"]
    assert writers(f"{partitioned}p1") == []
    output("mount", "-o", "remount,ro", point)
    assert writers(part) == writers(partitioned) == []
    output("umount", point)
    above = disks.attach(part)
    assert writers(part) == [f"loop {above}"]


def test_a_loop_device_on_it_and_what_is_on_that(disks: Disks, partitioned: str) -> None:
    above = disks.attach(f"{partitioned}p2")
    assert users(f"{partitioned}p2") == [f"loop {above}"]
    output("mkfs.ext4", "-q", above)
    point = disks.mount(above)
    assert users(f"{partitioned}p2") == [f"loop {above}", f"mount {point} of {above}"]
    assert users(partitioned) == users(f"{partitioned}p2")
    assert holders(device_at(partitioned)) == ()


def test_what_only_the_kernel_knows(disk: str) -> None:
    """Held with O_EXCL by a process that is not seen: as by a ZFS, an iSCSI target or another kernel's user."""
    descriptor = os.open(disk, os.O_RDONLY | os.O_EXCL)
    try:
        (user,) = users(disk)  # of our own process nothing is said
        assert user.startswith("holder the kernel")
    finally:
        os.close(descriptor)


# -- who uses a mount ---------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(disks: Disks, disk: str) -> Path:
    output("mkfs.ext4", "-q", disk)
    point = disks.mount(disk)
    (point / "inside").mkdir()
    return point


def busy(point: Path) -> bool:
    return subprocess.run(["umount", "--no-canonicalize", point], capture_output=True, check=False).returncode != 0


USING = {
    "file": "import sys\nkept = open(sys.argv[1] + '/inside/file', 'w')",
    "deleted": "import os, sys\nname = sys.argv[1] + '/x'\nkept = open(name, 'w')\nos.unlink(name)",
    "directory": "import os, sys\nos.chdir(sys.argv[1] + '/inside')",
    "the point": "import os, sys\nos.chdir(sys.argv[1])",
    "root": "import os, sys\nkept = os.open('/', 0)\nos.chroot(sys.argv[1])\nos.fchdir(kept)",
    "memory": """
import mmap, sys
name = sys.argv[1] + '/x'
with open(name, 'wb') as file:
    file.write(bytes(4096))
with open(name, 'r+b') as file:
    kept = mmap.mmap(file.fileno(), 4096)
import os
for name in os.listdir('/proc/self/fd'):
    if int(name) > 2 and os.path.exists('/proc/self/fd/' + name):
        os.close(int(name))
""",
    "socket": "import socket, sys\nkept = socket.socket(socket.AF_UNIX)\nkept.bind(sys.argv[1] + '/inside/s')",
}


@pytest.mark.parametrize("how", USING)
def test_a_process_in_a_mount(mounted: Path, how: str) -> None:
    assert mount_users(mounted) == []
    with child(USING[how], mounted) as process:
        (user,) = mount_users(mounted)
        assert f"(pid {process.pid})" in user
        assert busy(mounted)
    assert mount_users(mounted) == []
    assert not busy(mounted)


def test_a_program_that_runs_from_a_mount(mounted: Path) -> None:
    shutil.copy("/bin/sleep", mounted / "doze")
    with subprocess.Popen([mounted / "doze", "60"]) as process:
        try:
            assert mount_users(mounted) == [f"process doze (pid {process.pid})"]
        finally:
            process.kill()


def test_a_name_that_only_begins_like_it(mounted: Path) -> None:
    other = mounted.parent / (mounted.name + "-other")
    other.mkdir()
    with child("import os, sys\nos.chdir(sys.argv[1])", other):
        assert mount_users(mounted) == []


def test_what_is_mounted_below_and_attached(disks: Disks, mounted: Path) -> None:
    output("mount", "-t", "tmpfs", "none", mounted / "inside")
    try:
        assert mount_users(mounted) == [f"mount {mounted}/inside"]
        with child("import os, sys\nos.chdir(sys.argv[1])", mounted / "inside"):
            assert mount_users(mounted) == [f"mount {mounted}/inside"]
    finally:
        output("umount", mounted / "inside")
    (mounted / "image").write_bytes(bytes(MIB))
    node = loops.attach(mounted / "image")
    try:
        assert mount_users(mounted) == [f"loop {node}"]
        assert busy(mounted)
    finally:
        loops.detach(node)


def test_a_file_for_swapping(mounted: Path) -> None:
    swap = mounted / "swap file"
    swap.write_bytes(bytes(8 * MIB))
    swap.chmod(0o600)
    output("mkswap", swap)
    output("swapon", swap)
    try:
        assert mount_users(mounted) == [f"swap {swap}"]
    finally:
        output("swapoff", swap)


def test_the_same_filesystem_elsewhere_is_no_user_of_this_mount(disks: Disks, disk: str, mounted: Path) -> None:
    other = disks.mount(disk, "other")
    with child("import os, sys\nos.chdir(sys.argv[1])", other):
        assert mount_users(mounted) == []
        assert len(mount_users(other)) == 1


def test_a_process_with_mounts_of_its_own(mounted: Path) -> None:
    """It keeps the filesystem in use, if not our mount of it: as a guest does in the namespace of its own."""
    script = f"cd {mounted}/inside && echo ready && exec sleep 60"
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert mount_users(mounted) == [f"process sleep (pid {process.pid})"]
        finally:
            process.kill()


def test_a_socket_that_was_left(mounted: Path) -> None:
    with socket.socket(socket.AF_UNIX) as kept:
        kept.bind(str(mounted / "s"))
    assert mount_users(mounted) == []


# -- what must still hold -----------------------------------------------------------------------------------------


def broken(condition: object) -> str:
    return conditions.Checks(10).broken(condition)


@pytest.mark.thorough
def test_conditions_of_a_device(disks: Disks, disk: str) -> None:
    of_device = conditions.is_device(device_at(disk))
    of_content = conditions.holds(disk, content_at(disk, 10))
    unused = conditions.device_unused(disk)
    every = [of_device, of_content, unused]
    assert [broken(each) for each in every] == [""] * 3
    with child("import os, sys\nos.open(sys.argv[1], os.O_RDONLY)", disk) as process:
        assert f"(pid {process.pid})" in broken(unused)
        assert broken(conditions.device_unused(disk, users_of_path(disk)[0])) == ""
    with open(disk, "r+b") as file:
        file.seek(2 * MIB)
        file.write(b"x" * MIB)
    assert [bool(broken(each)) for each in every] == [False, True, False]
    with loops.detached(disk):
        assert [bool(broken(each)) for each in every] == [True, True, False]
    other = disks.root / "other"
    other.touch()
    os.truncate(other, 63 * MIB)
    loops.attach_anew(disk, other)
    assert "replaced" in broken(of_device)


def test_the_condition_of_a_mount(disks: Disks, disk: str, mounted: Path) -> None:
    there = conditions.is_mounted(str(mounted), mount_at(str(mounted), mounts()))
    assert broken(there) == ""
    output("mount", "-t", "tmpfs", "none", mounted)
    assert broken(there) == "got another mount on it (none)"
    output("umount", mounted)
    assert broken(there) == ""
    output("umount", mounted)
    assert broken(there) == "was unmounted"


# -- partition tables and udev ------------------------------------------------------------------------------------


def test_what_a_partition_held_is_seen_when_it_is_gone(partitioned: str, disks: Disks) -> None:
    """Though the disk has zeros of that place in memory, and another partition in use keeps it from forgetting them."""
    output("mkfs.ext4", "-q", f"{partitioned}p2")
    disks.mount(f"{partitioned}p2")
    assert region_at(partitioned, 10, MIB, 19 * MIB).text == BLANK
    output("mkfs.ext4", "-q", f"{partitioned}p1")
    assert region_at(partitioned, 10, MIB, 19 * MIB).text == "ext4"


def test_the_kernel_learns_of_a_table(disk: str, disks: Disks) -> None:
    script = "label: gpt\nsize=10MiB\nsize=10MiB\n"
    for text, names in ((script, ["p1", "p2"]), (script + "size=10MiB\n", ["p1", "p2", "p3"]), ("label: gpt\n", [])):
        words = ["sfdisk", "--no-reread", "--no-tell-kernel", "--wipe", "always", "--force", disk]
        subprocess.run(words, input=text, check=True, capture_output=True, text=True)
        reread(disk, 10)
        assert device_at(disk).partitions == tuple(disk + name for name in names)


def test_a_partition_in_use_stays_while_others_come(disk: str, disks: Disks) -> None:
    words = ["sfdisk", "--no-reread", "--no-tell-kernel", "--force", disk]
    subprocess.run(words, input="label: gpt\nsize=40MiB\n", check=True, capture_output=True, text=True)
    reread(disk, 10)
    output("mkfs.ext4", "-q", f"{disk}p1")
    point = disks.mount(f"{disk}p1")
    subprocess.run([*words[:-1], "--append", disk], input="size=5MiB\n", check=True, capture_output=True, text=True)
    reread(disk, 10)
    assert device_at(disk).partitions == (f"{disk}p1", f"{disk}p2")
    assert users(disk) == [f"mount {point} of {disk}p1"]


def test_without_a_table_there_are_no_partitions(partitioned: str) -> None:
    output("wipefs", "--all", "--force", partitioned)
    reread(partitioned, 10)
    assert device_at(partitioned).partitions == ()


def test_the_lock_that_udev_heeds(partitioned: str) -> None:
    """udev takes a shared one on the whole disk before it looks at a partition (systemd.io/BLOCK_DEVICE_LOCKING)."""
    like_udev = os.open(partitioned, os.O_RDONLY)
    try:
        with locked(device_at(f"{partitioned}p1"), 1):
            with pytest.raises(BlockingIOError):
                fcntl.flock(like_udev, fcntl.LOCK_SH | fcntl.LOCK_NB)
            output("mkfs.ext4", "-q", f"{partitioned}p1")
        fcntl.flock(like_udev, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(StorageError) as caught, locked(device_at(partitioned), 0.2):
            pass
        assert caught.value.code == "locked"
    finally:
        os.close(like_udev)


def test_without_udev_nothing_is_waited_for() -> None:
    assert settle(5) or os.path.exists("/run/udev/control")
