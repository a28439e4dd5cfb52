# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disk pools on disks of every kind, with a real udev; the guest's daemon on the same disks as the oracle."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator

import pytest

from tests.integration.disk_scenarios import (
    MIB,
    POOL_XML,
    Disk,
    code,
    converges,
    ok,
    pool_of,
    table,
    the_daemon_sees_the_same,
)

from .hosts import Host, run


@pytest.fixture
def empty() -> Iterator[Callable[[int], Disk]]:
    """The virtio disk of that number, without anything; only those that were asked for are cleared after the test."""
    used: list[str] = []

    def give(number: int) -> Disk:
        found = whole(sorted(glob.glob("/dev/disk/by-id/virtio-lab-disk[0-9]"))[number])
        used.append(found.node)
        return found

    yield give
    for node in used:
        run("blkdiscard", "--force", node)
        run("blockdev", "--rereadpt", node, check=False)
    run("udevadm", "settle")


@pytest.fixture
def scsi() -> Iterator[Disk]:
    found = whole(sorted(glob.glob("/dev/disk/by-id/wwn-0x5000c500a00000??"))[0])
    yield found
    run("blkdiscard", "--force", found.node)


def whole(source: str) -> Disk:
    node = os.path.realpath(source)
    name = os.path.basename(node)
    return Disk(source, node, name + ("p" if name[-1].isdigit() else ""))


def test_links_that_stay(host, empty):
    """With a target of links, partitions are known by those that udev makes; its own looks at the disk do no harm."""
    disk = empty(2)
    pool = {**pool_of(disk, "gpt"), "path": "/dev/disk/by-id"}
    ok(host.pool(**pool))
    volumes = [{"name": disk.name(number), "capacity": "8MiB"} for number in (1, 2)]
    made = converges(host.volume, pool="cut", volumes=volumes)
    paths = [record["path"] for record in made["volumes"]]
    assert paths == [f"{disk.source}-part{number}" for number in (1, 2)]
    run("mkfs.ext4", "-q", disk.path(1))
    ok(host.volume(pool="cut", name=disk.name(1), state="absent"))
    assert sorted(table(disk)) == [2]
    assert not os.path.lexists(paths[0])
    made = ok(host.volume(pool="cut", name=disk.name(3), capacity="8MiB"))
    assert "ext4" in made["plan"][0]["destroys"]
    assert "ID_FS_TYPE" not in run("udevadm", "info", "--query=property", disk.path(3))


def test_a_scsi_disk_with_dos(host, scsi):
    disk = scsi
    ok(host.pool(**pool_of(disk)))
    volumes = [
        {"name": disk.name(5), "capacity": "8MiB"},
        {"name": disk.name(6), "capacity": "8MiB"},
        {"name": disk.name(1), "capacity": "40MiB", "format": "extended"},
    ]
    converges(host.volume, pool="cut", volumes=volumes)
    assert code(host.volume(pool="cut", name=disk.name(5), state="absent")) == "partition_renumbered"
    ok(host.volume(pool="cut", name=disk.name(6), capacity="16MiB"))
    assert {number: each.size for number, each in table(disk).items()} == {1: 40 * MIB, 5: 8 * MIB, 6: 16 * MIB}
    ok(host.pool(**pool_of(disk), state="deleted", allow=["nonempty"]))
    assert not os.path.exists(disk.path(1))


def in_use(host: Host, disk: Disk, number: int) -> str:
    refused = host.volume(pool="cut", name=disk.name(number), state="absent")
    assert code(refused) == "volume_in_use"
    return refused["msg"]


def test_swap_and_physical_volumes_stay(host, empty):
    disk = empty(4)
    ok(host.pool(**pool_of(disk)))
    volumes = [{"name": disk.name(number), "capacity": "64MiB"} for number in (1, 2)]
    ok(host.volume(pool="cut", volumes=volumes))
    run("mkswap", disk.path(1))
    run("swapon", disk.path(1))
    run("vgcreate", "-qq", "held", disk.path(2))
    try:
        assert "swap" in in_use(host, disk, 1)
        assert "LVM" in in_use(host, disk, 2)
    finally:
        run("swapoff", disk.path(1))
        run("vgremove", "-qq", "-y", "held")
        run("pvremove", "-qq", disk.path(2))
    ok(host.volume(pool="cut", volumes=[{"name": disk.name(number), "state": "absent"} for number in (1, 2)]))
    ok(host.pool(**pool_of(disk), state="deleted"))


def test_whole_disks_in_use(host, empty, tmp_path):
    disk = empty(5)
    run("vgcreate", "-qq", "held", disk.source)
    run("lvcreate", "-qq", "-n", "one", "-L", "8M", "held")
    try:
        assert code(host.pool(**pool_of(disk), allow=["overwrite"])) == "device_in_use"
    finally:
        run("vgremove", "-qq", "-y", "held")
    refused = host.pool(**pool_of(disk))
    assert (code(refused), "LVM2_member" in refused["msg"]) == ("storage_foreign", True)
    ok(host.pool(**pool_of(disk), allow=["overwrite"]))


def virsh(*words: str) -> str:
    return run("virsh", "-q", *words).strip()


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_the_daemon_sees_the_same(host: Host, daemon_host: Host, empty, tmp_path, label):
    """Capacity, allocation, what is available, volumes, paths and keys, of what each of the two has made."""
    disk = empty(0)
    ok(host.pool(**pool_of(disk, label)))
    volumes = [
        {"name": disk.name(1), "capacity": "20MiB"},
        {"name": disk.name(2), "capacity": "30MiB", "format": "linux-lvm"},
    ]
    ok(host.volume(pool="cut", volumes=volumes))
    xml = tmp_path / "pool.xml"
    xml.write_text(POOL_XML.format(device=disk.node, label=label))
    virsh("pool-define", str(xml))
    virsh("pool-start", "theirs")
    try:
        size = 40 * MIB
        virsh("vol-create-as", "theirs", disk.name(3), str(size), *(["--format", "linux"] if label == "dos" else []))
        run("udevadm", "settle")
        the_daemon_sees_the_same(host, virsh, disk)
        assert not ok(host.volume(pool="cut", name=disk.name(3), capacity=str(table(disk)[3].size)))["changed"]
        virsh("vol-delete", "--pool", "theirs", disk.name(2))
        run("udevadm", "settle")
        the_daemon_sees_the_same(host, virsh, disk)
    finally:
        virsh("pool-destroy", "theirs")
        virsh("pool-undefine", "theirs")
