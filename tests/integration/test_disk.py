# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disk pools on loop devices: partitions that the kernel really makes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.host.processes import Processes
from ansible_collections.virt.storage.plugins.module_utils.model.operations import ChangeTable

from . import loops
from .crash_support import define_guest, disk_file
from .disk_scenarios import (
    MIB,
    Disk,
    code,
    converges,
    daemons_pool,
    dos_life,
    gpt_life,
    in_use,
    ok,
    pool_of,
    refuses,
    run,
    table,
    the_daemon_sees_the_same,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs_ansible,
    pytest.mark.skipif(shutil.which("parted") is None, reason="parted is not installed"),
]
SWAP, EFI = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
PHYSICAL_VOLUME = b"LABELONE" + (1).to_bytes(8, "little") + bytes(8) + b"LVM2 001"  # as libblkid looks for it


@pytest.fixture
def disk(loop) -> Disk:
    return loop()


@pytest.mark.thorough
def test_a_gpt_disk(host, disk):
    gpt_life(host, disk)


@pytest.mark.thorough
def test_a_dos_disk(host, disk):
    dos_life(host, disk)


@pytest.mark.thorough
def test_sectors_of_4096_bytes(host, loop):
    gpt_life(host, loop(sector=4096))


@pytest.mark.thorough
def test_what_is_in_use_stays(host, disk, tmp_path):
    in_use(host, disk, tmp_path)


@pytest.mark.thorough
def test_a_disk_beyond_what_dos_can_count(host, loop):
    """Without a word it gets gpt."""
    tib = 2**40
    disk = loop(size=3 * tib)
    pool = pool_of(disk)
    converges(host.pool, **pool)
    assert run("blkid", "-p", "-s", "PTTYPE", "-o", "value", disk.node) == "gpt"
    volumes = [{"name": disk.name(1), "capacity": "2560GiB"}, {"name": disk.name(2), "capacity": "8MiB"}]
    converges(host.volume, pool="cut", volumes=volumes)
    assert (table(disk)[2].start > 2 * tib, table(disk)[2].size) == (True, 8 * MIB)
    converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    error = refuses(host.pool, "not_supported", **pool_of(disk, "dos"), allow=["overwrite"])
    assert "gpt" in error["hint"]
    assert run("wipefs", "--noheadings", disk.node) == ""


@pytest.mark.thorough
@pytest.mark.parametrize("label", ["bsd", "dvh", "mac", "pc98", "sun"])
def test_other_labels(host, disk, label):
    """Tables are made and adopted; partitions where they need not be whole cylinders."""
    pool = pool_of(disk, label)
    converges(host.pool, **pool)
    shown = run("parted", "--script", "--machine", disk.node, "print").splitlines()[1]
    assert shown.split(":")[5] == label
    number = 2 if label == "mac" else 1
    volume = {"pool": "cut", "name": disk.name(number), "capacity": "8MiB"}
    if label in ("pc98", "sun"):
        refuses(host.volume, "not_supported", **volume)
        assert not Path(disk.path(1)).exists()
    else:
        converges(host.volume, **volume)
        assert int(run("blockdev", "--getsize64", disk.path(number))) == 8 * MIB
        refuses(host.volume, "volume_differs", **{**volume, "capacity": "16MiB"})
        refuses(host.volume, "not_supported", **volume, recreate="always")
        refuses(host.volume, "format_unsupported", **{**volume, "name": disk.name(number + 1), "format": "fat32"})
        converges(host.volume, pool="cut", name=disk.name(number), state="absent")
        assert not Path(disk.path(number)).exists()
    refuses(host.pool, "restart_needed", **pool_of(disk, "gpt"))
    ok(host.pool(name="cut", state="absent"))
    refuses(host.pool, "storage_foreign", **pool_of(disk, "gpt"))
    converges(host.pool, **pool_of(disk, "gpt"), allow=["overwrite"])


def test_a_table_that_is_no_partition_table(host, disk):
    refuses(host.pool, "not_supported", **pool_of(disk, "lvm2"))


@pytest.mark.thorough
def test_what_is_on_the_disk_is_not_lost_unsaid(host, disk):
    for make in (["mkfs.ext4", "-q"], ["mkswap"]):
        run(*make, disk.node)
        refuses(host.pool, "storage_foreign", **pool_of(disk))
        refuses(host.pool, "storage_foreign", **pool_of(disk), allow=["overwrite"], build="never")
        run("wipefs", "--all", disk.node)
        run("dd", "if=/dev/zero", f"of={disk.node}", "bs=1M", "count=128", "status=none", check=False)
    run("dd", "if=/dev/urandom", f"of={disk.node}", "bs=1M", "count=1", "seek=60", "status=none", "conv=fsync")
    assert "without a signature" in refuses(host.pool, "storage_foreign", **pool_of(disk))["message"]
    made = converges(host.pool, **pool_of(disk), allow=["overwrite"])
    assert "without a signature" in made["plan"][1]["destroys"]


def put_entry(disk: Disk, index: int, start: int, size: int) -> None:
    """Into the MBR, and nothing else."""
    with open(disk.node, "r+b") as file:
        file.seek(446 + 16 * index)
        file.write(struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), start // 512, size // 512))


def test_a_table_in_an_old_boot_sector_is_seen(host, disk):
    run("mkfs.vfat", "-I", disk.node)
    put_entry(disk, 0, 10 * MIB, 20 * MIB)
    error = refuses(host.pool, "storage_foreign", **pool_of(disk))
    assert disk.name(1) in error["message"]
    made = converges(host.pool, **pool_of(disk), allow=["overwrite"])
    assert made["plan"][1]["destroys"] == (
        f"a dos partition table and a vfat filesystem on {disk.node} with {disk.name(1)}"
    )


def test_what_only_a_hybrid_mbr_has_is_not_free(host, disk):
    run("parted", "--script", disk.node, "mklabel", "gpt", "mkpart", "one", "1MiB", "11MiB")
    put_entry(disk, 1, 11 * MIB, 40 * MIB)
    ok(host.pool(**pool_of(disk, "gpt")))
    volume = {"pool": "cut", "name": disk.name(2), "capacity": "20MiB"}
    converges(host.volume, **volume)
    assert table(disk)[2].start == 51 * MIB
    refuses(host.volume, "no_space", pool="cut", name=disk.name(1), capacity="20MiB")


@pytest.mark.thorough
def test_all_that_is_cleared_is_looked_at(host, disk):
    """As a boot loader that lies behind the first MiB, between the samples that are read of larger places."""
    data = ["dd", "if=/dev/urandom", f"of={disk.node}", "bs=4K", "count=1", "status=none", "conv=fsync"]
    run(*data, "seek=768")
    error = refuses(host.pool, "storage_foreign", **pool_of(disk, "gpt"))
    assert "without a signature" in error["message"]
    ok(host.pool(**pool_of(disk, "gpt"), allow=["overwrite"]))
    run(*data, "seek=768")
    made = converges(host.volume, pool="cut", name=disk.name(1), capacity="100MiB")
    assert "without a signature" in made["plan"][0]["destroys"]


@pytest.mark.thorough
def test_what_is_left_where_a_logical_partition_will_be_is_said(host, disk):
    """Its place is inside of an extended one that is not there yet."""
    ok(host.pool(**pool_of(disk, "dos")))
    run("dd", "if=/dev/urandom", f"of={disk.node}", "bs=4K", "count=1", f"seek={14 * 256}", "status=none", "conv=fsync")
    sizes = {1: ("10MiB", None), 2: ("60MiB", "extended"), 5: ("20MiB", None), 3: ("10MiB", None)}
    volumes = [{"name": disk.name(n), "capacity": size, "format": word} for n, (size, word) in sizes.items()]
    made = converges(host.volume, pool="cut", volumes=volumes)
    assert table(disk)[5].start == 12 * MIB
    told = {entry["subject"]: entry["destroys"] for entry in made["plan"] if entry["destroys"]}
    assert list(told) == [f"volume cut/{disk.name(5)}"], told
    assert "without a signature" in next(iter(told.values()))


@pytest.mark.parametrize("mounted", [True, False])
def test_what_is_left_where_a_partition_grows_does_not_show_through(host, disk, tmp_path, mounted):
    """The old end of a member of an array, of version 0.90: 64 KiB before the end, and before all else for blkid."""
    ok(host.pool(**pool_of(disk, "gpt")))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="20MiB"))
    run("mkfs.ext4", "-q", "-F", disk.path(1), "16M")
    with open(disk.path(1), "r+b") as file:
        file.seek(20 * MIB - 4)
        file.write(b"kept")
    run("sync", disk.path(1))
    old = MIB + 60 * MIB - 64 * 1024
    with open(disk.node, "r+b") as file:
        file.seek(old)
        file.write(struct.pack("<IIII", 0xA92B4EFC, 0, 90, 0))
        os.fsync(file.fileno())
    point = tmp_path / "point"
    point.mkdir()
    if mounted:
        run("mount", "-t", "ext4", disk.path(1), point)
    try:
        made = converges(host.volume, pool="cut", name=disk.name(1), capacity="60MiB")
        assert "linux_raid_member" in made["plan"][0]["destroys"]
        again = converges(host.volume, pool="cut", name=disk.name(1), capacity="70MiB")
        assert again["plan"][0]["destroys"] == ""
    finally:
        if mounted:
            run("umount", point)
    assert run("wipefs", "--noheadings", "--output", "TYPE", disk.path(1)) == "ext4"
    run("e2fsck", "-f", "-n", disk.path(1))
    with open(disk.path(1), "rb") as file:
        file.seek(20 * MIB - 4)
        assert file.read(4) == b"kept"


def test_a_table_of_another_kind_is_foreign(host, disk):
    run(
        "parted", "--script", disk.node, "mklabel", "gpt", "mkpart", "a", "1MiB", "9MiB", "mkpart", "b", "9MiB", "20MiB"
    )
    error = refuses(host.pool, "storage_foreign", **pool_of(disk, "dos"))
    assert f"{disk.name(1)}, {disk.name(2)}" in error["message"]
    adopted = converges(host.pool, **pool_of(disk))
    assert [entry["action"] for entry in adopted["plan"]] == ["define", "start"]
    assert host.pool_info()[0]["partition_table"] == "gpt"
    ok(host.pool(name="cut", state="absent"))
    made = converges(host.pool, **pool_of(disk, "dos"), allow=["overwrite"])
    assert disk.name(2) in made["plan"][1]["destroys"]
    assert not Path(disk.path(1)).exists()
    assert run("wipefs", "--noheadings", "--output", "TYPE", disk.node) == "dos"


@pytest.mark.thorough
def test_odd_partitions_are_as_they_are(host, disk):
    run(
        "parted",
        "--script",
        "--align",
        "none",
        disk.node,
        "mklabel",
        "msdos",
        "mkpart",
        "primary",
        "fat16",
        "63s",
        "16064s",
    )
    ok(host.pool(**pool_of(disk)))
    size = (16064 - 63 + 1) * 512
    for capacity in (size, size - 1000, size - MIB + 1):
        assert not ok(host.volume(pool="cut", name=disk.name(1), capacity=str(capacity)))["changed"]
    refuses(host.volume, "shrink_refused", pool="cut", name=disk.name(1), capacity=str(size - MIB))
    converges(host.volume, pool="cut", name=disk.name(1), capacity=str(size + 1))
    assert table(disk)[1].start == 63 * 512
    assert host.volume_info()[0]["format"] == "fat16"


@pytest.mark.thorough
def test_devices_that_can_not_be_cut(host, disk, loop, tmp_path):
    error = refuses(host.pool, "not_supported", **pool_of(loop(partitions=False)))
    assert "--partscan" in error["hint"]
    ok(host.pool(**pool_of(disk)))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="8MiB"))
    part = {"name": "part", "type": "disk", "path": "/dev"}
    refuses(host.pool, "storage_foreign", **part, source={"device": disk.path(1)})
    refuses(host.pool, "storage_foreign", **part, source={"device": str(tmp_path)})
    missing = {**part, "source": {"device": "/dev/nosuch"}}
    assert code(host.pool(**missing)) == "source_missing"
    planned = ok(host.pool(check=True, **missing))["plan"]
    assert [entry["action"] for entry in planned] == ["define", "build", "start"]
    assert planned[1]["summary"].endswith("make a partition table on /dev/nosuch, if it is empty then")
    missing["source"]["format"] = "gpt"
    planned = ok(host.pool(check=True, **missing))["plan"]
    assert planned[1]["commands"] == ["parted --script --align none /dev/nosuch mklabel gpt"]
    missing["source"]["format"] = "lvm2"
    refuses(host.pool, "not_supported", **missing)
    refuses(host.pool, "source_conflict", **part, source={"device": disk.node})


@pytest.fixture
def links():
    """A directory of links to devices."""
    with tempfile.TemporaryDirectory(dir="/dev", prefix="virt-storage-") as directory:
        yield Path(directory)


def test_what_is_on_a_disk_that_is_away_is_not_taken_for_deleted(host, disk, links):
    """udev's names of a disk go with it."""
    link = links / "mine"
    link.symlink_to(disk.node)
    pool = {**pool_of(disk, "gpt"), "source": {"device": str(link), "format": "gpt"}}
    ok(host.pool(**pool))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="8MiB"))
    before = run("sfdisk", "--dump", disk.node)
    gone = {**pool, "state": "deleted", "allow": ["nonempty"]}
    link.unlink()
    refuses(host.pool, "source_missing", **gone)
    link.symlink_to(disk.node)
    assert run("sfdisk", "--dump", disk.node) == before
    converges(host.pool, **gone)


@pytest.mark.thorough
def test_links_of_the_target(host, disk, links):
    (links / "mine").symlink_to(disk.node)
    for number in (1, 2):
        (links / f"mine-part{number}").symlink_to(disk.path(number))
    pool = {**pool_of(disk), "path": str(links), "source": {"device": str(links / "mine")}}
    converges(host.pool, **pool)
    converges(host.volume, pool="cut", name=disk.name(1), capacity="8MiB")
    record = host.volume_info(pool="cut")[0]
    assert (record["name"], record["path"]) == (disk.name(1), str(links / "mine-part1"))
    assert record["key"] == record["path"]
    converges(host.volume, pool="cut", name=disk.name(1), state="absent")


@pytest.mark.thorough
def test_content(host, disk, tmp_path):
    """Written before the partition is there."""
    ok(host.pool(**pool_of(disk, "gpt")))
    converges(host.volume, pool="cut", name=disk.name(1), source={"content": "some text"})
    assert Path(disk.path(1)).read_bytes()[:10] == b"some text\0"
    assert ok(host.volume(pool="cut", name=disk.name(1), source={"content": "some text"}))["changed"] is False
    image = tmp_path / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "16M")
    run("qemu-io", "-c", "write -P 7 1M 3M", image)
    converges(host.volume, pool="cut", name=disk.name(2), source={"path": str(image)})
    assert run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, disk.path(2)) == "Images are identical."
    converges(host.volume, pool="cut", name=disk.name(3), source={"volume": disk.name(2)}, format="linux-lvm")
    assert run("qemu-img", "compare", "-f", "raw", "-F", "raw", disk.path(3), disk.path(2)) == "Images are identical."
    refuses(
        host.volume, "capacity_too_small", pool="cut", name=disk.name(6), source={"path": str(image)}, capacity="8M"
    )
    both = [
        {"name": disk.name(4), "source": {"content": "more text"}, "capacity": "8M", "format": "linux-swap"},
        {"name": disk.name(5), "source": {"volume": disk.name(4), "format": "raw"}},
    ]
    converges(host.volume, pool="cut", volumes=both)
    assert run("qemu-img", "compare", "-f", "raw", "-F", "raw", disk.path(4), disk.path(5)) == "Images are identical."
    made = host.volume(pool="cut", name=disk.name(3), recreate="always", capacity="24M")
    assert "content" in ok(made)["plan"][0]["destroys"]
    assert table(disk)[3].size == 24 * MIB
    assert not any(Path(disk.path(3)).read_bytes()[:MIB])


def test_what_fails_with_one_partition_keeps_no_other_from_being_made(host, disk, tmp_path):
    ok(host.pool(**pool_of(disk, "gpt")))
    plain, image = tmp_path / "plain.raw", tmp_path / "image.qcow2"
    plain.write_bytes(b"text to compress" * (MIB // 16))
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", plain, image)
    content = image.read_bytes()
    image.write_bytes(content[: 5 * 65536] + b"\xff" * (len(content) - 5 * 65536))  # what is compressed can't be read
    volumes = [
        {"name": disk.name(1), "source": {"path": str(image)}},
        *({"name": disk.name(number), "capacity": "8MiB"} for number in (2, 3)),
    ]
    result = host.volume(pool="cut", volumes=volumes)
    assert [entry["status"] for entry in result["volumes"]] == ["failed", "changed", "changed"], result
    assert {number: each.size for number, each in table(disk).items()} == {2: 8 * MIB, 3: 8 * MIB}
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
    converges(host.volume, pool="cut", volumes=volumes)


@pytest.mark.thorough
def test_what_is_mounted_is_copied_only_while_nothing_is_written(host, disk, tmp_path):
    ok(host.pool(**pool_of(disk, "gpt")))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="16MiB"))
    run("mkfs.ext4", "-q", disk.path(1))
    (tmp_path / "m").mkdir()
    copy = {"pool": "cut", "name": disk.name(2), "source": {"volume": disk.name(1)}}
    run("mount", disk.path(1), tmp_path / "m")
    try:
        assert str(tmp_path / "m") in refuses(host.volume, "source_in_use", **copy)["message"]
        run("mount", "-o", "remount,ro", tmp_path / "m")
        converges(host.volume, **copy)
    finally:
        run("umount", tmp_path / "m")


@pytest.mark.thorough
def test_what_volumes_of_a_disk_can_not_have(host, disk):
    ok(host.pool(**pool_of(disk, "gpt")))
    volume = {"pool": "cut", "name": disk.name(1), "capacity": "8MiB"}
    refuses(host.volume, "invalid_option", **volume, mode="0640")
    refuses(host.volume, "format_unsupported", **volume, format="qcow2")
    refuses(host.volume, "format_unsupported", **volume, format="fat16")
    refuses(host.volume, "format_unsupported", **volume, format="extended")
    refuses(host.volume, "invalid_name", **{**volume, "name": "data"})
    refuses(host.volume, "invalid_name", **{**volume, "name": disk.name(129)})
    refuses(host.volume, "capacity_missing", pool="cut", name=disk.name(1))


@pytest.mark.thorough
def test_members_and_guests_keep_a_partition(host, disk, tmp_path):
    ok(host.pool(**pool_of(disk, "gpt")))
    volumes = [{"name": disk.name(number), "capacity": "16MiB"} for number in (1, 2)]
    ok(host.volume(pool="cut", volumes=volumes))
    if shutil.which("pvcreate"):
        run("pvcreate", "-qq", disk.path(1), check=False)
        error = refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(1), state="absent")
        assert "physical volume" in error["message"]
    guests = host.root / "etc/libvirt/qemu"
    guests.mkdir(parents=True)
    disk_xml = f"<disk type='block'><source dev='{disk.path(2)}'/><target dev='vda'/></disk>"
    (guests / "g.xml").write_text(f"<domain type='kvm'><name>g</name><devices>{disk_xml}</devices></domain>")
    assert "guest g" in refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(2), state="absent")["message"]


@pytest.mark.thorough
def test_a_disk_of_which_a_guest_has_a_partition_gets_no_other_table(host, disk):
    run("parted", "--script", disk.node, "mklabel", "msdos", "mkpart", "primary", "1MiB", "2MiB")
    definition = define_guest(host.root, "off", disk_file(disk.path(1)))
    error = refuses(host.pool, "device_in_use", **pool_of(disk, "gpt"), allow=["overwrite"])
    assert "guest off" in error["message"]
    converges(host.pool, **pool_of(disk, "dos"))  # adopted: nothing is taken
    ok(host.pool(name="cut", state="absent"))
    definition.unlink()
    converges(host.pool, **pool_of(disk, "gpt"), allow=["overwrite"])
    ok(host.volume(pool="cut", name=disk.name(1), capacity="16MiB"))
    define_guest(host.root, "off", disk_file(disk.node))  # the whole disk: so its partition is the guest's too
    part = {"type": "fs", "path": str(host.root / "p"), "source": {"device": disk.path(1), "format": "ext4"}}
    assert "guest off" in refuses(host.pool, "device_in_use", name="p", **part)["message"]


DESTROYING = {
    "delete": {"state": "absent"},
    "shrink": {"capacity": "8MiB", "allow": ["shrink"]},
    "recreate": {"recreate": "always", "capacity": "16MiB"},
}


@contextmanager
def open_as_a_whole(disk: Disk, tmp_path: Path) -> Iterator[str]:
    with subprocess.Popen(["sleep", "60"], stdin=os.open(disk.node, os.O_RDWR)) as process:
        try:
            yield f"process sleep (pid {process.pid}) on {disk.node}"
        finally:
            process.kill()


@contextmanager
def under_another_disk(disk: Disk, tmp_path: Path) -> Iterator[str]:
    """Its partition is mounted, under another name."""
    above = loops.attach(disk.node, "--offset", MIB)
    (tmp_path / "m").mkdir()
    run("mount", above, tmp_path / "m")
    try:
        yield f"loop {above} on {disk.node}"
    finally:
        run("umount", tmp_path / "m")
        loops.detach(above)


@pytest.mark.thorough
@pytest.mark.parametrize("use", [open_as_a_whole, under_another_disk])
def test_who_has_the_whole_disk_has_its_partitions(host, disk, tmp_path, use):
    pool = pool_of(disk, "gpt")
    ok(host.pool(**pool))
    volume = {"pool": "cut", "name": disk.name(1)}
    ok(host.volume(**volume, capacity="16MiB"))
    run("mkfs.ext4", "-q", disk.path(1))
    before = table(disk)
    with use(disk, tmp_path) as user:
        for declared in DESTROYING.values():
            for word in ([], ["in_use"]):
                both = {**declared, "allow": [*declared.get("allow", []), *word]}
                code = "device_in_use" if both["allow"] == ["shrink", "in_use"] else "volume_in_use"
                assert user in refuses(host.volume, code, **volume, **both)["message"]
        assert user in refuses(host.pool, "volume_in_use", **pool, state="deleted", allow=["nonempty"])["message"]
        refuses(host.volume, "device_in_use", **volume, capacity="20MiB", allow=["in_use"])
        other = {"pool": "cut", "name": disk.name(2), "capacity": "8MiB"}
        assert user in refuses(host.volume, "device_in_use", **other, allow=["in_use"])["message"]
        assert table(disk) == before
    converges(host.volume, **volume, state="absent")


@pytest.mark.thorough
def test_a_partition_of_a_disk_that_is_a_guests_is_the_guests(host, disk, tmp_path):
    """Shut off, and named by another path."""
    pool = pool_of(disk, "gpt")
    ok(host.pool(**pool))
    volume = {"pool": "cut", "name": disk.name(1)}
    ok(host.volume(**volume, capacity="16MiB"))
    (tmp_path / "by-id").symlink_to(disk.node)
    definition = define_guest(host.root, "off", disk_file(tmp_path / "by-id"))
    for declared in DESTROYING.values():
        assert "guest off" in refuses(host.volume, "volume_in_use", **volume, **declared)["message"]
    assert "guest off" in refuses(host.pool, "volume_in_use", **pool, state="deleted", allow=["nonempty"])["message"]
    grown, other = {**volume, "capacity": "20MiB"}, {"pool": "cut", "name": disk.name(2), "capacity": "8MiB"}
    for declared in (grown, other):
        assert "guest off" in refuses(host.volume, "device_in_use", **declared)["message"]
        converges(host.volume, **declared, allow=["in_use"])
    definition.unlink()
    converges(host.volume, **{**other, "capacity": "9MiB"})
    converges(host.pool, **pool, state="deleted", allow=["nonempty"])


@pytest.mark.thorough
def test_who_may_not_look_is_refused_in_check_mode_too(host, disk, monkeypatch):
    """What converges or is refused is the same in check mode, and stays so when it is done."""
    pool = pool_of(disk, "gpt")
    converges(host.pool, **pool)
    one = {"pool": "cut", "name": disk.name(1)}
    converges(host.volume, **one, capacity="8MiB")

    def denied(self, pid):
        self.unseen.add("what others have open")
        return []

    monkeypatch.setattr(Processes, "_descriptors", denied)
    two = {"pool": "cut", "name": disk.name(2), "capacity": "8MiB"}
    assert "what others have open" in refuses(host.volume, "device_in_use", **two)["message"]
    converges(host.volume, **two, allow=["in_use"])
    assert "what others have open" in converges(host.volume, **one, state="absent")["warnings"][0]
    refuses(host.pool, "device_in_use", **pool, state="deleted", allow=["nonempty", "in_use"])
    assert Path(disk.path(2)).exists()


@pytest.mark.thorough
def test_an_empty_disk_that_is_in_use_keeps_its_table(host, disk, tmp_path):
    pool = pool_of(disk, "gpt")
    ok(host.pool(**pool))
    gone = {**pool, "state": "deleted"}
    with open_as_a_whole(disk, tmp_path) as user:
        assert user in refuses(host.pool, "device_in_use", **gone, allow=["in_use"])["message"]
    define_guest(host.root, "off", disk_file(disk.node))
    assert "guest off" in refuses(host.pool, "device_in_use", **gone)["message"]
    converges(host.pool, **gone, allow=["in_use"])


@pytest.mark.thorough
def test_a_disk_on_which_another_pool_is_gets_no_other_table(host, disk, tmp_path):
    """Another pool's partition is not lost with it, running or not."""
    ok(host.pool(**pool_of(disk, "gpt")))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="16MiB"))
    ok(host.pool(name="cut", state="absent"))
    part = {"type": "fs", "path": str(tmp_path / "p"), "source": {"device": disk.path(1), "format": "ext4"}}
    ok(host.pool(name="p", **part))
    ok(host.pool(name="p", state="inactive"))
    error = refuses(host.pool, "device_in_use", **pool_of(disk, "dos"), allow=["overwrite"])
    assert "pool p" in error["message"]
    whole = {"type": "fs", "path": str(tmp_path / "w"), "source": {"device": disk.node, "format": "ext4"}}
    assert "pool p" in refuses(host.pool, "device_in_use", name="w", **whole, allow=["overwrite"])["message"]
    ok(host.pool(name="p", state="absent"))
    converges(host.pool, **pool_of(disk, "dos"), allow=["overwrite"])


@pytest.mark.thorough
def test_the_kernel_is_told_again(host, disk):
    """A table that was written, by a task that did not get further."""
    ok(host.pool(**pool_of(disk, "gpt")))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="8MiB"))
    run("partx", "--delete", disk.node)
    assert [record["name"] for record in host.volume_info(pool="cut")] == [disk.name(1)]
    converges(host.volume, pool="cut", name=disk.name(1), capacity="8MiB")
    table(disk)


@pytest.mark.thorough
@pytest.mark.parametrize("declared", [{"state": "absent"}, {"capacity": "24MiB"}, {"recreate": "always"}])
def test_a_partition_that_the_kernel_has_not_is_changed_as_well(host, disk, declared):
    ok(host.pool(**pool_of(disk, "gpt")))
    volume = {"pool": "cut", "name": disk.name(1)}
    ok(host.volume(**volume, capacity="16MiB"))
    run("partx", "--delete", "--nr", "1", disk.node)
    foreseen = host.volume(check=True, **volume, **declared)
    done = ok(host.volume(**volume, **declared))
    assert done["changed"]
    assert foreseen["plan"] == done["plan"]
    assert Path(disk.path(1)).exists() is (declared != {"state": "absent"})


@pytest.mark.thorough
def test_what_the_kernel_has_and_the_table_has_not(host, disk, tmp_path):
    """A table that somebody else changed while a partition was in use: refused before anything is written."""
    pool = pool_of(disk, "gpt")
    ok(host.pool(**pool))
    ok(host.volume(pool="cut", volumes=[{"name": disk.name(number), "capacity": "8MiB"} for number in (1, 2)]))
    fs = {"name": "p", "type": "fs", "path": str(tmp_path / "p"), "source": {"device": disk.path(1), "format": "ext4"}}
    with (
        open(disk.path(1), "rb") as opened,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[opened.fileno()]),
    ):
        run("sfdisk", "--force", "--no-reread", "--no-tell-kernel", "--delete", disk.node, 1)
        before = run("sfdisk", "--dump", disk.node)
        for volume in ({"name": disk.name(3), "capacity": "8MiB"}, {"name": disk.name(2), "state": "absent"}):
            error = refuses(host.volume, "device_in_use", pool="cut", **volume)
            assert disk.path(1) in error["message"]
            assert "process" in error["message"]
        refuses(host.pool, "device_in_use", **pool, state="deleted", allow=["nonempty"])
        assert (run("sfdisk", "--dump", disk.node), Path(disk.path(1)).exists()) == (before, True)
    not_taken(host, fs, "no longer in the partition table")
    assert run("wipefs", "--noheadings", disk.path(1)) == ""
    converges(host.volume, pool="cut", name=disk.name(3), capacity="8MiB")
    assert not Path(disk.path(1)).exists()
    ok(host.pool(**pool, state="deleted", allow=["nonempty"]))


def test_a_gpt_with_few_entries(host, disk):
    """What does not fit is refused before anything is cleared."""
    run("sfdisk", "--quiet", disk.node, script="label: gpt\ntable-length: 4\n" + "size=4MiB\n" * 3)
    ok(host.pool(**pool_of(disk, "gpt")))
    refuses(host.volume, "invalid_name", pool="cut", name=disk.name(5), capacity="4MiB")
    converges(host.volume, pool="cut", name=disk.name(4), capacity="4MiB")
    refuses(host.volume, "no_space", pool="cut", name=disk.name(5), capacity="4MiB")


def test_what_is_on_a_read_only_disk_stays_as_it_is(host, disk):
    """It is started and read all the same."""
    pool = pool_of(disk, "gpt")
    ok(host.pool(**pool))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="8MiB"))
    ok(host.pool(name="cut", state="inactive"))
    run("blockdev", "--setro", disk.node)
    try:
        ok(host.pool(**pool))
        assert not ok(host.volume(pool="cut", name=disk.name(1), capacity="8MiB"))["changed"]
        for volume in ({"name": disk.name(2), "capacity": "8MiB"}, {"name": disk.name(1), "capacity": "9MiB"}):
            refuses(host.volume, "not_writable", pool="cut", **volume)
        refuses(host.volume, "not_writable", pool="cut", name=disk.name(1), state="absent")
        refuses(host.pool, "not_writable", **pool, state="deleted", allow=["nonempty"])
    finally:
        run("blockdev", "--setrw", disk.node)


@pytest.mark.thorough
def test_a_disk_is_deleted_by_the_next_task_whatever_can_be_made_there(host, loop):
    """A task was killed between the table and the definition, and no such table could be made again."""
    disk = loop()
    pool = pool_of(disk, "gpt")
    ok(host.pool(**pool))
    run("wipefs", "--all", "--quiet", disk.node)
    run("blockdev", "--setro", disk.node)
    try:
        converges(host.pool, **pool, state="deleted")
    finally:
        run("blockdev", "--setrw", disk.node)


def not_taken(host, pool, why):
    """Check mode only warns: an earlier task may make the partition what it should be."""
    for mode in (True, False):
        told = host.pool(check=mode, **pool)
        assert (told.get("failed", False), told["changed"]) == (not mode, mode)
        assert any(why in text for text in (*told["warnings"], str(told.get("error"))))


def test_a_filesystem_is_not_made_larger_than_the_table_has_its_partition(host, disk, tmp_path):
    """Another one may begin where the kernel's still is: after a boot both would have what is there."""
    ok(host.pool(**pool_of(disk, "gpt")))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="16MiB"))
    quietly = ("sfdisk", "--force", "--no-reread", "--no-tell-kernel")
    fs = {"name": "p", "type": "fs", "path": str(tmp_path / "p"), "source": {"device": disk.path(1), "format": "ext4"}}
    for words in (("-N", 1), ("--append",)):
        run(*quietly, *words, disk.node, script="size=8MiB\n")
    not_taken(host, fs, "ends in the partition table")
    assert run("wipefs", "--noheadings", disk.path(1)) == ""


@pytest.mark.thorough
@pytest.mark.parametrize("word", [(), ("in_use",)])
def test_what_a_partition_is_a_member_of_may_be_lost_with_a_word(host, disk, word):
    """Nothing holds it: it is not assembled."""
    ok(host.pool(**pool_of(disk, "gpt")))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="16MiB"))
    with open(disk.path(1), "r+b") as file:
        file.seek(512)
        file.write(PHYSICAL_VOLUME)
    gone = {"pool": "cut", "name": disk.name(1), "state": "absent"}
    if word:
        converges(host.volume, **gone, allow=list(word))
    else:
        assert "member of LVM" in refuses(host.volume, "volume_in_use", **gone)["message"]


@pytest.mark.thorough
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_the_daemon_sees_the_same(host, daemon, disk, label):
    ok(host.pool(**pool_of(disk, label)))
    volumes = [{"name": disk.name(number), "capacity": f"{number}0MiB"} for number in (1, 2)]
    ok(host.volume(pool="cut", volumes=volumes))
    with daemons_pool(daemon.virsh, disk, label):
        the_daemon_sees_the_same(host, daemon.virsh, disk)
        daemon.virsh("vol-create-as", "theirs", disk.name(3), str(20 * MIB))
        the_daemon_sees_the_same(host, daemon.virsh, disk)
        assert not ok(host.volume(pool="cut", name=disk.name(3), capacity=str(table(disk)[3].size)))["changed"]
        ok(host.volume(pool="cut", name=disk.name(2), state="absent"))
        the_daemon_sees_the_same(host, daemon.virsh, disk)


@pytest.fixture
def meanwhile(monkeypatch):
    """Has something done right before a table is changed: after all that was looked at before."""

    def arrange(what) -> None:
        plain, waiting = Applier.apply, [what]

        def apply(self, operation):
            if isinstance(operation, ChangeTable) and waiting:
                waiting.pop()()
            plain(self, operation)

        monkeypatch.setattr(Applier, "apply", apply)

    return arrange


@pytest.fixture
def mounted_meanwhile(host, disk, tmp_path, meanwhile):
    """A partition with a filesystem, which is mounted right before the table is changed."""
    ok(host.pool(**pool_of(disk, "gpt")))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="20MiB"))
    run("mkfs.ext4", "-q", disk.path(1))
    point = tmp_path / "point"
    point.mkdir()
    meanwhile(lambda: run("mount", disk.path(1), point))
    yield
    assert sorted(table(disk)) == [1]
    assert table(disk)[1].size == 20 * MIB
    run("umount", point)
    assert run("fsck.ext4", "-fn", disk.path(1))
    assert run("blkid", "-p", "-o", "value", "-s", "PTTYPE", disk.node) == "gpt"


@pytest.mark.thorough
@pytest.mark.parametrize(
    "declared",
    [
        {"recreate": "always", "capacity": "20MiB"},
        {"recreate": "always", "capacity": "20MiB", "source": {"content": "other"}},
        {"capacity": "10MiB", "allow": ["shrink"]},
        {"state": "absent"},
    ],
    ids=["recreate", "fill", "shrink", "delete"],
)
@pytest.mark.usefixtures("mounted_meanwhile")
def test_a_partition_that_is_mounted_after_the_look_is_left_alone(host, disk, declared):
    refuses_now(host.volume, pool="cut", name=disk.name(1), **declared)


@pytest.mark.thorough
@pytest.mark.usefixtures("mounted_meanwhile")
def test_a_table_with_a_partition_that_is_mounted_after_the_look_is_left_alone(host, disk):
    ok(host.pool(name="cut", state="absent"))
    refuses_now(host.pool, **pool_of(disk, "dos"), allow=["overwrite"])


@pytest.mark.thorough
@pytest.mark.usefixtures("mounted_meanwhile")
def test_a_table_that_is_to_go_is_left_alone_too(host, disk):
    refuses_now(host.pool, **pool_of(disk, "gpt"), state="deleted", allow=["nonempty"])


def refuses_now(act, **params) -> None:
    """Some of the task may be done by then, such as the definition."""
    result = act(**params)
    assert result["error"]["code"] == "changed_meanwhile", result
    assert "table" not in result["diff"]["after"]
    assert "not completed" not in result["diff"]["after"]
    assert result["changed"] is bool(result["diff"]["after"])
    assert "mounted" in result["error"]["message"] or "point" in result["error"]["message"]


@pytest.mark.thorough
def test_a_volume_that_is_made_anew_is_no_volume_until_it_is_whole(host, disk, server, tmp_path):
    """Killed while it is filled: nothing is there by its name, and the next run completes."""
    ok(host.pool(**pool_of(disk, "gpt")))
    volumes = [{"name": disk.name(number), "source": {"content": f"old {number}"}} for number in (1, 2)]
    ok(host.volume(pool="cut", volumes=volumes))
    run("sfdisk", "--no-reread", "--no-tell-kernel", "--part-label", disk.node, "2", "label of 2")
    image, tools = tmp_path / "image.qcow2", tmp_path / "bin"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
    run("qemu-io", "-c", "write -P 7 0 1M", image)
    tools.mkdir()
    script = f"printf half | dd of={disk.node} bs=512 seek={table(disk)[2].start // 512} conv=notrunc\nkill -9 $PPID\n"
    (tools / "qemu-img").write_text(
        f'#!/bin/sh\ncase $1 in convert) {script};; *) exec {shutil.which("qemu-img")} "$@";; esac\n'
    )
    (tools / "qemu-img").chmod(0o755)
    task = {"pool": "cut", "name": disk.name(2), "source": {"path": str(image)}, "recreate": "always"}
    path = f"{tools}:{os.environ['PATH']}"
    status, _result = server.run("storage_volume", {**task, "uri": host.uri}, PATH=path)
    assert status == -signal.SIGKILL
    assert sorted(table(disk)) == [1]
    assert not Path(disk.path(2)).exists()
    assert Path(disk.path(1)).read_bytes()[:5] == b"old 1"
    ok(host.volume(**task))
    assert Path(disk.path(2)).read_bytes()[: len(b"half")] == b"\7" * 4
    run("sfdisk", "--no-reread", "--no-tell-kernel", "--part-label", disk.node, "2", "label of 2")
    kept = run("sfdisk", "--part-uuid", disk.node, "2")
    ok(host.volume(**task))
    assert run("sfdisk", "--part-uuid", disk.node, "2") == kept
    assert run("sfdisk", "--part-label", disk.node, "2") == "label of 2"


@pytest.mark.thorough
def test_a_logical_partition_keeps_the_others_numbers_when_made_anew(host, disk):
    ok(host.pool(**pool_of(disk, "dos")))
    logical = [{"name": disk.name(number), "source": {"content": f"old {number}"}} for number in (5, 6, 7)]
    ok(host.volume(pool="cut", volumes=[{"name": disk.name(1), "capacity": "60MiB", "format": "extended"}, *logical]))
    before = table(disk)
    for number in (5, 7):
        made = {"name": disk.name(number), "source": {"content": f"new {number}"}, "recreate": "always"}
        ok(host.volume(pool="cut", **made))
        assert Path(disk.path(number)).read_bytes()[:5] == f"new {number}".encode()
        assert table(disk) == before
    assert Path(disk.path(6)).read_bytes()[:5] == b"old 6"


@pytest.mark.parametrize(("label", "kinds"), [("dos", ["82", "7", "5"]), ("gpt", [SWAP, EFI])])
def test_a_partition_that_is_made_anew_keeps_its_type(host, disk, label, kinds):
    ok(host.pool(**pool_of(disk, label)))
    numbers = range(1, len(kinds) + 1)
    ok(host.volume(pool="cut", volumes=[{"name": disk.name(number), "capacity": "8MiB"} for number in numbers]))
    for number, kind in zip(numbers, kinds):
        run("sfdisk", "--no-reread", "--no-tell-kernel", "--part-type", disk.node, number, kind)
    before = table(disk)
    ok(host.volume(pool="cut", recreate="always", volumes=[{"name": disk.name(number)} for number in numbers]))
    assert table(disk) == before
    assert [before[number].type for number in numbers] == [kind.lower() for kind in kinds]


@pytest.mark.parametrize("name", ["Daten/Büro", "a, b: c", "q\"'$`\\x41", "日本"])
def test_a_partition_that_is_made_anew_keeps_its_name(host, disk, name):
    ok(host.pool(**pool_of(disk, "gpt")))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="8MiB"))
    run("sfdisk", "--no-reread", "--no-tell-kernel", "--part-label", disk.node, "1", name)
    told = run("sfdisk", "--dump", disk.node)
    ok(host.volume(pool="cut", name=disk.name(1), recreate="always"))
    assert run("sfdisk", "--dump", disk.node) == told
    assert run("sfdisk", "--part-label", disk.node, "1") == name


ROUNDS = int(os.environ.get("CRASH_SAMPLE") or 10)


@pytest.mark.thorough
def test_killed_at_any_point(host, disk, server):
    """The next run completes, and each partition has all that it is to have, or is not there."""
    chance = random.Random(5)
    pool = pool_of(disk)
    numbers = [1, 2, 3, 5, 6]
    volumes = [
        {"name": disk.name(number), "source": {"content": f"text {number}"}} for number in numbers if number != 3
    ]
    volumes.append({"name": disk.name(3), "capacity": "30MiB", "format": "extended"})
    tasks = [
        ("storage_pool", {**pool, "allow": ["overwrite"], "uri": host.uri}),
        ("storage_volume", {"pool": "cut", "volumes": volumes, "uri": host.uri}),
    ]
    killed = 0
    for _round in range(ROUNDS):
        for task in tasks:
            child = server.start(*task)
            child.go()
            time.sleep(chance.uniform(0, 0.45))
            child.kill()
            killed += child.wait()[0] == -signal.SIGKILL
            for number in (1, 2, 5, 6):
                if Path(disk.path(number)).exists():
                    assert Path(disk.path(number)).read_bytes()[:7] == f"text {number}\0".encode()[:7]
        ok(host.pool(**pool, allow=["overwrite"]))
        ok(host.volume(pool="cut", volumes=volumes))
        assert not ok(host.volume(pool="cut", volumes=volumes))["changed"]
        assert sorted(table(disk)) == numbers
        converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    assert killed
