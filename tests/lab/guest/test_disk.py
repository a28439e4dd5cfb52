# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disk pools on disks of every kind, with a real udev; the guest's daemon on the same disks as the oracle."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.disk_scenarios import (
    MIB,
    Disk,
    converges,
    dos_life,
    gpt_life,
    in_use,
    ok,
    pool_of,
    refuses,
    table,
)

from .hosts import Host, run


def whole(source: str) -> Disk:
    node = os.path.realpath(source)
    name = os.path.basename(node)
    return Disk(source, node, name + ("p" if name[-1].isdigit() else ""))


def test_a_virtio_disk_with_gpt(host, disks):
    gpt_life(host, whole(disks[0]))


def test_a_virtio_disk_with_dos(host, disks):
    dos_life(host, whole(disks[1]))


def test_a_scsi_disk_in_use(host, scsi_disks, tmp_path):
    in_use(host, whole(scsi_disks[0]), tmp_path)


def test_links_that_stay(host, disks):
    """With a target of links, partitions are known by those that udev makes."""
    disk = whole(disks[2])
    pool = {**pool_of(disk, "gpt"), "path": "/dev/disk/by-id"}
    converges(host.pool, **pool)
    volumes = [{"name": disk.name(number), "capacity": "8MiB"} for number in (1, 2)]
    converges(host.volume, pool="cut", volumes=volumes)
    paths = [record["path"] for record in host.volume_info(pool="cut")]
    assert paths == [f"{disk.source}-part{number}" for number in (1, 2)]
    converges(host.volume, pool="cut", name=disk.name(1), state="absent")
    assert sorted(table(disk)) == [2]
    assert not os.path.lexists(paths[0])
    converges(host.pool, **pool, state="deleted", allow=["nonempty"])


@pytest.fixture
def mapped(disks) -> Iterator[str]:
    """A disk of device-mapper that udev takes for a multipath map."""
    sectors = run("blockdev", "--getsz", disks[3]).strip()
    run("dmsetup", "create", "mpatha", "--uuid", "mpath-test", "--table", f"0 {sectors} linear {disks[3]} 0")
    run("udevadm", "settle")
    yield "/dev/mapper/mpatha"
    run("kpartx", "-d", "/dev/mapper/mpatha", check=False)
    run("dmsetup", "remove", "--retry", "mpatha")


@pytest.mark.parametrize(("separator", "stem"), [(True, "mpathap"), (False, "mpatha")])
def test_a_multipath_disk(host, mapped, separator, stem):
    disk = Disk(mapped, os.path.realpath(mapped), stem, "/dev/mapper")
    pool = pool_of(disk, "gpt")
    pool["source"] = {"devices": [{"path": mapped, "part_separator": separator}], "format": "gpt"}
    converges(host.pool, **pool)
    volumes = [{"name": disk.name(number), "capacity": "8MiB"} for number in (1, 2)]
    converges(host.volume, pool="cut", volumes=volumes)
    assert [record["path"] for record in host.volume_info(pool="cut")] == [disk.path(1), disk.path(2)]
    converges(host.volume, pool="cut", name=disk.name(2), capacity="16MiB")
    assert run("blockdev", "--getsize64", disk.path(2)).strip() == str(16 * MIB)
    converges(host.volume, pool="cut", name=disk.name(1), state="absent")
    assert not os.path.exists(disk.path(1))
    assert os.path.exists(disk.path(2))
    converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    assert not os.path.exists(disk.path(2))


def test_swap_and_physical_volumes_stay(host, disks):
    disk = whole(disks[4])
    ok(host.pool(**pool_of(disk)))
    volumes = [{"name": disk.name(number), "capacity": "64MiB"} for number in (1, 2)]
    ok(host.volume(pool="cut", volumes=volumes))
    run("mkswap", disk.path(1))
    run("swapon", disk.path(1))
    run("vgcreate", "-qq", "held", disk.path(2))
    try:
        assert "swap" in refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(1), state="absent")["message"]
        assert "LVM" in refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(2), state="absent")["message"]
    finally:
        run("swapoff", disk.path(1))
        run("vgremove", "-qq", "-y", "held")
        run("pvremove", "-qq", disk.path(2))
    converges(host.volume, pool="cut", exclusive="*", volumes=[])
    ok(host.pool(**pool_of(disk), state="deleted"))


def test_whole_disks_in_use(host, disks, tmp_path):
    disk = whole(disks[5])
    run("vgcreate", "-qq", "held", disk.source)
    run("lvcreate", "-qq", "-n", "one", "-L", "8M", "held")
    try:
        refuses(host.pool, "device_in_use", **pool_of(disk), allow=["overwrite"])
    finally:
        run("vgremove", "-qq", "-y", "held")
    assert "LVM2_member" in refuses(host.pool, "storage_foreign", **pool_of(disk))["message"]
    converges(host.pool, **pool_of(disk), allow=["overwrite"])
    converges(host.pool, **pool_of(disk), state="deleted")


_XML = """<pool type='disk'><name>{name}</name><source><device path='{device}'/><format type='{label}'/></source>
<target><path>/dev</path></target></pool>"""


def virsh(*words: str) -> str:
    return run("virsh", "-q", *words).strip()


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_the_daemon_sees_the_same(host: Host, daemon_host: Host, disks, tmp_path, label):
    """Capacity, allocation, what is available, volumes, paths and keys, of what each of the two has made."""
    disk = whole(disks[0])
    ok(host.pool(**pool_of(disk, label)))
    volumes = [
        {"name": disk.name(1), "capacity": "20MiB"},
        {"name": disk.name(2), "capacity": "30MiB", "format": "linux-lvm"},
    ]
    ok(host.volume(pool="cut", volumes=volumes))
    xml = tmp_path / "pool.xml"
    xml.write_text(_XML.format(name="theirs", device=disk.node, label=label))
    virsh("pool-define", str(xml))
    virsh("pool-start", "theirs")
    try:
        compare(host, disk)
        size = 40 * MIB
        virsh("vol-create-as", "theirs", disk.name(3), str(size), *(["--format", "linux"] if label == "dos" else []))
        run("udevadm", "settle")
        compare(host, disk)
        assert not ok(host.volume(pool="cut", name=disk.name(3), capacity=str(table(disk)[3].size)))["changed"]
        virsh("vol-delete", "--pool", "theirs", disk.name(2))
        run("udevadm", "settle")
        compare(host, disk)
    finally:
        virsh("pool-destroy", "theirs")
        virsh("pool-undefine", "theirs")
    adopted = tmp_path / "adopted"
    other = Host(f"native:///?root={adopted}")
    shown = converges(other.pool, **pool_of(disk, label))
    assert [entry["action"] for entry in shown["plan"]] == ["define", "start"]
    ok(host.pool(**pool_of(disk, label), state="deleted", allow=["nonempty"]))


def compare(host: Host, disk: Disk) -> None:
    told = dict(line.split(":", 1) for line in virsh("pool-info", "--bytes", "theirs").splitlines() if ":" in line)
    ours = host.pool_info(name="cut")[0]
    sizes = {name: int(told[name.capitalize()]) for name in ("capacity", "allocation", "available")}
    assert sizes == {name: ours[name] for name in sizes}
    listed = dict(line.split() for line in virsh("vol-list", "theirs").splitlines())
    records = {record["name"]: record for record in host.volume_info(pool="cut")}
    assert listed == {name: record["path"] for name, record in records.items()}
    for name, record in records.items():
        info = virsh("vol-info", "--bytes", "--pool", "theirs", name).split()
        assert str(record["capacity"]) in info, (record, info)
        assert virsh("vol-key", "--pool", "theirs", name) == record["key"]
