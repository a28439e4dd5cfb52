# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Block devices in a sysfs made up after real ones, what a source means, and who uses them."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import block, device_users, processes, silent, sources
from ansible_collections.virt.storage.plugins.module_utils.host.block import Device, by_name, device_at, holders
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import Mount
from ansible_collections.virt.storage.plugins.module_utils.host.processes import OpenFile, Processes
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


class Machine:
    """Writes what the kernel and udev would show."""

    def __init__(self, root):
        self.sys, self.udev = root / "sys", root / "udev"
        self.udev.mkdir(parents=True)
        for name in ("dev/block", "class/block"):
            (self.sys / name).mkdir(parents=True)
        self._devices = 0

    def add(self, name, number, size=2048, below=(), on=None, **files):
        directory = self.sys / "devices" / (f"{on}/{name}" if on else name)
        directory.mkdir(parents=True)
        (directory / "holders").mkdir()
        files = {"dev": number, "size": size, "ro": 0, **files}
        for path, content in files.items():
            file = directory / path.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            data = content if isinstance(content, bytes) else f"{content}\n".encode()
            file.write_bytes(data)
        (self.sys / "dev/block" / number).symlink_to(directory)
        (self.sys / "class/block" / name).symlink_to(directory)
        for other in below:
            (self.sys / "class/block" / other / "holders" / name).symlink_to(directory)

    def dm(self, name, number, dm_name, uuid, below=()):
        self.add(name, number, below=below, dm__name=dm_name, dm__uuid=uuid)

    def tell(self, number, *lines):
        (self.udev / f"b{number}").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = Machine(tmp_path)
    monkeypatch.setattr(block, "_SYS", str(made.sys))
    monkeypatch.setattr(sources, "_UDEV", str(made.udev))
    return made


def look():
    return Look(10, "/nowhere/records", "/nowhere/started")


def refusal(function, *args):
    with pytest.raises(StorageError) as caught:
        function(*args)
    return caught.value


def test_a_scsi_disk_with_partitions(machine):
    page = b"\0\x80\0\x14" + b"  SERIAL-0001".ljust(20)
    machine.add(
        "sdb", "8:16", 4096, queue__logical_block_size=4096, device__wwid="naa.5000c500a1b2c3d4",
        device__vpd_pg80=page, diskseq=7,
    )  # fmt: skip
    for index in (10, 2, 1):
        machine.add(f"sdb{index}", f"8:{16 + index}", 100, on="sdb", partition=index, start=8 * index, ro=1)
    disk, part = by_name("sdb"), by_name("sdb2")
    assert disk == Device(
        "/dev/sdb", "/dev/sdb", (8, 16), 4096 * 512, 4096, False, "disk",
        partitions=("/dev/sdb1", "/dev/sdb2", "/dev/sdb10"), wwn="naa.5000c500a1b2c3d4", serial="SERIAL-0001",
        diskseq="7",
    )  # fmt: skip
    assert (part.kind, part.disk, part.partition, part.start) == ("part", "/dev/sdb", 2, 16 * 512)
    assert (part.read_only, part.sector, part.wwn, part.diskseq) == (True, 4096, disk.wwn, "7")
    assert part.identity != by_name("sdb1").identity != disk.identity


@pytest.mark.parametrize(
    ("name", "number", "files", "kind"),
    [
        ("sr0", "11:0", {"device__type": 5}, "rom"),
        ("md127", "9:127", {"md__level": "raid1"}, "md"),
        ("md0", "9:0", {}, "md"),
        ("loop3", "7:3", {"loop__backing_file": "/srv/x"}, "loop"),
        ("nvme0n1", "259:1", {"device__serial": "N1", "wwid": "eui.1"}, "disk"),
        ("vda", "254:0", {"device__x": 1, "serial": "V1"}, "disk"),
        ("zd0", "230:0", {}, "other"),
        ("ram0", "1:0", {}, "other"),
        ("dm-3", "253:3", {"dm__name": "x"}, "dm"),
    ],
)
def test_kinds(machine, name, number, files, kind):
    machine.add(name, number, **files)
    found = by_name(name)
    assert (found.node, found.kind) == (f"/dev/{name}", kind)
    assert found.serial == {"loop3": "/srv/x", "nvme0n1": "N1", "vda": "V1"}.get(name, "")


def test_names_with_slashes(machine):
    machine.add("cciss!c0d0", "104:0")
    machine.add("cciss!c0d0p1", "104:1", on="cciss!c0d0", partition=1, start=1)
    assert by_name("cciss!c0d0").node == "/dev/cciss/c0d0"
    assert by_name("cciss!c0d0").partitions == ("/dev/cciss/c0d0p1",)
    assert by_name("cciss!c0d0p1").disk == "/dev/cciss/c0d0"


def test_another_device_of_the_same_name_is_another_one(machine):
    machine.add("sdb", "8:16", 2048, device__wwid="naa.1", diskseq=7)
    before = by_name("sdb").identity
    assert by_name("sdb").identity == before
    for path, other in (("diskseq", "8"), ("size", "4096"), ("device/wwid", "naa.2")):
        file = machine.sys / "devices/sdb" / path
        old = file.read_text()
        file.write_text(other)
        assert by_name("sdb").identity != before
        file.write_text(old)
    assert by_name("sdb").identity == before


def test_a_partition_that_the_kernel_numbers_anew_is_the_same(machine):
    machine.add("nvme0n1", "259:0", 4096, diskseq=7)
    machine.add("nvme0n1p1", "259:1", 100, on="nvme0n1", partition=1, start=8)
    before = by_name("nvme0n1p1").identity
    (machine.sys / "dev/block/259:1").rename(machine.sys / "dev/block/259:5")
    (machine.sys / "devices/nvme0n1/nvme0n1p1/dev").write_text("259:5")
    assert by_name("nvme0n1p1").number == (259, 5)
    assert by_name("nvme0n1p1").identity == before
    for file, other in (("partition", "2"), ("start", "16"), ("size", "99")):
        part = machine.sys / "devices/nvme0n1/nvme0n1p1" / file
        old = part.read_text()
        part.write_text(other)
        assert by_name("nvme0n1p1").identity != before
        part.write_text(old)
    (machine.sys / "devices/nvme0n1/dev").write_text("259:7")  # as another disk has it
    assert by_name("nvme0n1p1").identity != before


def test_a_partition_that_is_half_gone_is_missing(machine):
    machine.add("sdb", "8:16", 4096)
    machine.add("sdb1", "8:17", 100, on="sdb", partition=1, start=8)
    (machine.sys / "devices/sdb/sdb1/start").unlink()
    assert by_name("sdb1") is None


def test_what_is_no_device(machine, tmp_path):
    assert refusal(device_at, "/dev/none").code == "source_missing"
    assert refusal(device_at, "/dev/null/x").code == "source_missing"
    for path in ("/dev/null", str(tmp_path)):
        error = refusal(device_at, path)
        assert (error.code, error.subject) == ("storage_foreign", path)
        assert block.number_at(path) is None  # a character device has a number of another kind
    assert block.number_at("/dev/none") is None
    assert refusal(device_at, f"{tmp_path}/{'x' * 300}").code == "not_readable"
    assert refusal(block.device_of, (8, 99)).code == "source_missing"
    assert by_name("sdz") is None


def stack(machine):
    """Two paths, a multipath map, its partition, a volume group with two volumes, one encrypted."""
    machine.add("sda", "8:0", device__wwid="naa.1")
    machine.add("sdb", "8:16", device__wwid="naa.1")
    machine.dm("dm-0", "253:0", "mpatha", "mpath-360001", below=("sda", "sdb"))
    machine.dm("dm-1", "253:1", "mpatha-part2", "part2-mpath-360001", below=("dm-0",))
    machine.dm("dm-2", "253:2", "vg--0-data", "LVM-abcdef", below=("dm-1",))
    machine.dm("dm-3", "253:3", "vg--0-root", "LVM-abcxyz", below=("dm-1",))
    machine.dm("dm-4", "253:4", "secret", "CRYPT-LUKS2-1-secret", below=("dm-3",))


def test_what_is_active_in_device_mapper(machine):
    for index, (uuid, name) in enumerate(
        [("LVM-ab", "vg-b"), ("LVM-ac", "vg-a"), ("LVM-ad", "other-a"), ("mpath-1", "vg-c")]
    ):
        machine.add(f"dm-{index}", f"253:{index}", 8, dm__uuid=uuid, dm__name=name)
    machine.add("sdb", "8:16", 8)
    assert block.mapped("LVM-", "vg-") == ["vg-a", "vg-b"]


def test_holders(machine):
    stack(machine)
    assert [above.node for above in holders(by_name("sda"))] == ["/dev/dm-0", "/dev/dm-2", "/dev/dm-3", "/dev/dm-4"]
    assert [above.node for above in holders(by_name("dm-3"))] == ["/dev/dm-4"]
    assert holders(by_name("dm-4")) == ()
    assert by_name("dm-0").partitions == ("/dev/dm-1",)
    part = by_name("dm-1")
    assert (part.disk, part.partition, part.start, part.kind) == ("/dev/dm-0", 2, None, "dm")


def test_holders_of_partitions(machine):
    machine.add("sda", "8:0")
    machine.add("sda1", "8:1", on="sda", partition=1, start=1)
    machine.add("md0", "9:0", below=("sda1",), md__level="raid1")
    machine.add("bcache0", "252:0", below=("sda",))
    assert [above.node for above in holders(by_name("sda"))] == ["/dev/bcache0", "/dev/md0"]


class Nobody(Processes):
    def files(self):
        return []

    def tables(self):
        return {}


def test_users_are_named_for_what_they_are(machine, monkeypatch):
    stack(machine)
    machine.add("md0", "9:0", below=("dm-4",), md__level="raid1")
    machine.dm("dm-9", "253:9", "other", "", below=("md0",))
    monkeypatch.setattr(device_users, "loops", lambda: [("/dev/loop5", "/dev/dm-9")])
    monkeypatch.setattr(device_users, "number_at", {"/dev/dm-9": (253, 9)}.get)
    machine.add("loop5", "7:5")
    users, _unseen = device_users.users_of_device(by_name("sda"), Nobody())
    assert [str(user) for user in users] == [
        "holder multipath map mpatha (/dev/mapper/mpatha)",
        "holder volume group vg-0 (/dev/mapper/vg--0-data)",
        "holder volume group vg-0 (/dev/mapper/vg--0-root)",
        "holder dm-crypt secret (/dev/mapper/secret)",
        "holder mdraid /dev/md0",
        "holder device-mapper /dev/mapper/other",
        "loop /dev/loop5",
    ]
    assert all(user.running for user in users)


@pytest.mark.parametrize("options", ["ro", "rw"])
@pytest.mark.parametrize("number", [(8, 1), (9, 0)])
def test_a_mount_that_is_not_read_only_writes(machine, monkeypatch, options, number):
    """To its device, and to what that is built on."""
    machine.add("sda", "8:0")
    machine.add("sda1", "8:1", on="sda", partition=1, start=1)
    machine.add("md0", "9:0", below=("sda1",), md__level="raid1")
    machine.add("sda2", "8:2", on="sda", partition=2, start=1)
    mount = Mount("/", "/mnt", "ext4", "/dev/x", ("rw",), (options,), number, 2, 1)
    monkeypatch.setattr(Nobody, "tables", lambda self: {"self": ("self", [mount])})
    monkeypatch.setattr(device_users, "held", lambda path: False)
    for name, written in (("sda", True), ("sda1", True), ("md0", number == (9, 0)), ("sda2", False)):
        writers = device_users.writers_of_device(by_name(name), Nobody())
        assert [user.kind for user in writers] == ["mount"] * (written and options == "rw"), name


@pytest.mark.parametrize("held", [False, True])
def test_what_the_kernel_has_and_nobody_explains_may_be_written_to(machine, monkeypatch, held):
    machine.add("sda", "8:0")
    monkeypatch.setattr(device_users, "held", lambda path: held)
    assert [user.kind for user in device_users.writers_of_device(by_name("sda"), Nobody())] == ["holder"] * held


@pytest.mark.parametrize(("held", "users"), [((), 0), (("/dev/dm-1",), 1), (("/dev/mapper/mpatha",), 0)])
def test_of_a_disk_that_kpartx_split_its_partitions_are_asked(machine, monkeypatch, held, users):
    """They hold it themselves, in use or not."""
    machine.dm("dm-0", "253:0", "mpatha", "mpath-360001")
    machine.dm("dm-1", "253:1", "mpatha-part2", "part2-mpath-360001", below=("dm-0",))
    monkeypatch.setattr(device_users, "held", lambda path: path in held)
    found, _unseen = device_users.users_of_device(by_name("dm-0")._replace(path="/dev/mapper/mpatha"), Nobody())
    assert len(found) == users


def test_a_disk_that_does_not_answer_is_not_called_unused(machine, monkeypatch):
    machine.add("sda", "8:0")
    monkeypatch.setattr(device_users, "held", lambda path: time.sleep(60))
    start = time.monotonic()
    found, unseen = device_users.users_of_device(by_name("sda"), Nobody(), 0.3)
    assert found == ()
    assert unseen == ("whether the kernel uses /dev/sda, which does not answer",)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("cgroup", "users"),
    [("0::/system.slice/systemd-udevd.service/udev\n", 0), ("0::/machine.slice/machine-qemu.scope\n", 1), (None, 1)],
)
def test_udev_is_no_user(machine, monkeypatch, tmp_path, cgroup, users):
    machine.add("sda", "8:0")
    monkeypatch.setattr(Nobody, "files", lambda self: [OpenFile("1", "/proc/1/fd/3", "/dev/sda")])
    monkeypatch.setattr(Nobody, "lasting", lambda self, opened: opened)
    monkeypatch.setattr(device_users, "number_at", {"/proc/1/fd/3": (8, 0)}.get)
    path = tmp_path / "cgroup"
    if cgroup is not None:
        path.write_text(cgroup)

    def opened(name, **named):
        return open(path if name.endswith("/cgroup") else name, **named)

    monkeypatch.setattr(processes, "open", opened, raising=False)
    assert len(device_users.users_of_device(by_name("sda"), Nobody())[0]) == users


def test_what_is_changed_with_a_device(machine):
    """A volume on a partition on a disk: what is built on it, and what it is on itself."""
    machine.add("sda", "8:0")
    machine.add("sda1", "8:1", on="sda", partition=1, start=8)
    machine.add("sda2", "8:2", on="sda", partition=2, start=16)
    machine.dm("dm-0", "253:0", "vg-lv", "LVM-x", below=("sda1",))
    slaves = machine.sys / "devices/dm-0/slaves"
    slaves.mkdir()
    (slaves / "sda1").symlink_to(machine.sys / "devices/sda/sda1")
    disk, one, two, volume = (8, 0), (8, 1), (8, 2), (253, 0)
    expected = {"sda": {disk, one, two, volume}, "sda1": {disk, one, volume}, "sda2": {disk, two}}
    expected["dm-0"] = {disk, one, volume}
    for name, numbers in expected.items():
        assert device_users.touched(by_name(name)) == {(os.makedev(*number),) for number in numbers}


@pytest.mark.parametrize(
    ("name", "on", "far"),
    [
        ("sda", "platform/host2/session1/target2:0:0/2:0:0:0/block", True),
        ("sda", "pci0000:00/0000:00:1f.2/ata1/host2/target2:0:0/2:0:0:0/block", False),
        ("rbd0", "rbd/0/block", True),
        ("nbd0", "virtual/block", True),
    ],
)
def test_what_goes_with_the_network(machine, name, on, far):
    """A volume on a partition is on it, too."""
    machine.add(name, "8:0", on=on)
    machine.add(f"{name}p1", "8:1", on=f"{on}/{name}", partition=1, start=8)
    machine.dm("dm-0", "253:0", "vg-lv", "LVM-x")
    (machine.sys / "devices/dm-0/slaves").mkdir()
    (machine.sys / f"devices/dm-0/slaves/{name}p1").symlink_to(machine.sys / f"class/block/{name}p1")
    assert [block.on_network(by_name(each)) for each in (name, f"{name}p1", "dm-0")] == [far] * 3


# -- sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("UUID=ab-12", "ID_FS_UUID_ENC=ab-12"),
        ("LABEL=a b/ä", r"ID_FS_LABEL_ENC=a\x20b\x2fä"),
        (r"LABEL=a\b", r"ID_FS_LABEL_ENC=a\x5cb"),
        ('LABEL="quoted"', "ID_FS_LABEL_ENC=quoted"),
        ("PARTUUID=p-1", "ID_PART_ENTRY_UUID=p-1"),
        ("PARTLABEL=EFI System", r"ID_PART_ENTRY_NAME=EFI\x20System"),
    ],
)
def test_what_udev_tells(machine, text, told):
    machine.add("sda", "8:0")
    machine.add("sdb", "8:16")
    machine.tell("8:0", "S:disk/by-id/x", "E:ID_FS_UUID_ENC=other", "E:ID_FS_LABEL_ENC=other")
    machine.tell("8:16", "I:12", f"E:{told}")
    found = sources.resolve(text, look())
    assert (found.node, found.path) == ("/dev/sdb", "/dev/sdb")


def test_two_devices_of_one_uuid(machine):
    machine.add("sda", "8:0")
    machine.add("sdb", "8:16")
    for number in ("8:0", "8:16"):
        machine.tell(number, "E:ID_FS_UUID_ENC=u", "E:ID_FS_TYPE=ext4")
    error = refusal(sources.resolve, "UUID=u", look())
    assert error.code == "source_conflict"
    assert "/dev/sda and /dev/sdb" in error.message


def test_a_multipath_map_is_taken_for_its_paths(machine):
    stack(machine)
    for number in ("8:0", "8:16", "253:0"):
        machine.tell(number, "E:ID_FS_UUID_ENC=u")
    assert sources.resolve("UUID=u", look()).node == "/dev/dm-0"


def test_devices_of_one_btrfs_are_one_source(machine):
    machine.add("sda", "8:0")
    machine.add("sdb", "8:16")
    for number in ("8:0", "8:16"):
        machine.tell(number, "E:ID_FS_UUID_ENC=u", "E:ID_FS_TYPE=btrfs", f"E:ID_FS_UUID_SUB={number}")
    assert sources.resolve("UUID=u", look()).node in ("/dev/sda", "/dev/sdb")


def test_each_device_of_a_mounted_btrfs_is_used_by_it(machine, monkeypatch):
    for name, number in (("sda", "8:0"), ("sdb", "8:16"), ("sdc", "8:32")):
        machine.add(name, number)
    for uuid, names in (("u", ("sda", "sdb")), ("v", ("sdc",))):
        devices = machine.sys / "fs/btrfs" / uuid / "devices"
        devices.mkdir(parents=True)
        for name in names:
            (devices / name).symlink_to(machine.sys / "class/block" / name)
    (machine.sys / "fs/btrfs/features").mkdir()
    assert block.btrfs_devices((8, 0)) == block.btrfs_devices((8, 16)) == {(8, 0): "/dev/sda", (8, 16): "/dev/sdb"}
    assert block.btrfs_devices((8, 48)) == {}
    table = [Mount("/", "/srv", "btrfs", "/dev/sda", ("rw",), ("rw",), (0, 40), 7, 1)]
    monkeypatch.setattr(Processes, "tables", lambda self: {"": ("self", table)})
    monkeypatch.setattr(device_users, "number_at", {"/dev/sda": (8, 0)}.get)
    for name, expected in (("sda", ["mount /srv"]), ("sdb", ["mount /srv"]), ("sdc", [])):
        device = by_name(name)
        assert [*map(str, device_users._mounts({device.number: device}, device, Processes()))] == expected


def test_a_copy_of_a_btrfs_is_not_one_of_its_devices(machine):
    """A clone or a snapshot of a device, as of LVM: which one is meant nobody knows."""
    for name, number, own in (("sda", "8:0", "a"), ("sdb", "8:16", "b"), ("sdc", "8:32", "a")):
        machine.add(name, number)
        machine.tell(number, "E:ID_FS_UUID_ENC=u", "E:ID_FS_TYPE=btrfs", f"E:ID_FS_UUID_SUB={own}")
    error = refusal(sources.resolve, "UUID=u", look())
    assert error.code == "source_conflict"
    assert "/dev/sda and /dev/sdc" in error.message


def blkid(machine, monkeypatch, answer):
    asked = []

    def run(argv, timeout):
        asked.append(argv)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(f"{Look.__module__}.run", run)
    return asked


def test_without_udev_blkid_is_asked_once(machine, monkeypatch):
    asked = blkid(machine, monkeypatch, StorageError("command_failed", "blkid failed", rc=2))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    seen = look()
    for _each in range(2):
        assert refusal(sources.resolve, "UUID=u", seen).code == "source_missing"
    assert asked == [("blkid", "-c", "/dev/null", "-t", "UUID=u", "-o", "export")]


def test_who_may_not_read_devices_does_not_call_it_missing(machine, monkeypatch):
    blkid(machine, monkeypatch, StorageError("command_failed", "blkid failed", rc=2))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert refusal(sources.resolve, "UUID=u", look()).code == "not_readable"


def test_a_blkid_that_fails_is_said(machine, monkeypatch):
    blkid(machine, monkeypatch, StorageError("command_failed", "blkid failed", rc=4))
    assert refusal(sources.resolve, "UUID=u", look()).rc == 4


@pytest.mark.parametrize("text", ["/dev/disk/by-id/x=y", "x=y", "UUID"])
def test_what_is_a_path(text):
    assert sources.tag_of(text) is None


def test_aliases(machine, monkeypatch):
    machine.dm("dm-2", "253:2", "vg-data", "LVM-abc")
    machine.tell("253:2", "S:disk/by-id/dm-name-vg-data", "S:vg/data", "S:disk/by-uuid/taken-by-another")
    numbers = {"/dev/dm-2": (253, 2), "/dev/vg/data": (253, 2), "/dev/disk/by-uuid/taken-by-another": (8, 0)}
    monkeypatch.setattr(sources, "number_at", numbers.get)
    assert sources.aliases(by_name("dm-2")) == ("/dev/dm-2", "/dev/vg/data")


def test_what_does_not_answer(machine):
    """With all that is on it; not a map that another path leads to."""
    below = {"dm-0": ("sda",), "dm-1": ("sda", "sdb"), "dm-2": ("dm-0",), "dm-3": ("sdb",), "dm-4": ("sdb", "sda1")}
    machine.add("sda", "8:0", device__state="blocked")
    machine.add("sdb", "8:16", device__state="running")
    machine.add("sda1", "8:1", on="sda", partition=1, start=8)
    for name, on in below.items():
        kind = "LVM-x" if name in ("dm-2", "dm-4") else "mpath-x"
        machine.dm(name, f"253:{name[-1]}", f"map{name[-1]}", kind, below=on)
        (machine.sys / f"devices/{name}/slaves").mkdir()
        for each in on:
            (machine.sys / f"devices/{name}/slaves/{each}").symlink_to(machine.sys / f"class/block/{each}")
    assert [device.name for device in silent.silent_devices()] == ["sda", "sda1", "dm-0", "dm-2", "dm-4"]
