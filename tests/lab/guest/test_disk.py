# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disk pools on disks of every kind, with a real udev; the guest's daemon on the same disks as the oracle."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.disk_scenarios import (
    MIB,
    Disk,
    code,
    converges,
    daemons_pool,
    ok,
    pool_of,
    table,
    the_daemon_sees_the_same,
)

from .hosts import Host, run, sh


@pytest.fixture
def empty(disks: list[str]) -> Callable[[int], Disk]:
    """The virtio disk of that number, without anything."""
    return lambda number: whole(disks[number])


@pytest.fixture
def scsi(scsi_disks: list[str]) -> Disk:
    return whole(scsi_disks[0])


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


def virsh(*words: str) -> str:
    return run("virsh", "-q", *words).strip()


def cut_grown_removed(host: Host, disk: Disk, seen: bool = False) -> None:
    """Two partitions under their names, one of them grown, the other one removed; then all of it. ``seen``: the daemon
    calls them so, too.
    """
    pool = pool_of(disk, "gpt")
    ok(host.pool(**pool))
    volumes = [{"name": disk.name(number), "capacity": "8MiB"} for number in (1, 2)]
    made = converges(host.volume, pool="cut", volumes=volumes)
    assert [record["path"] for record in made["volumes"]] == [disk.path(1), disk.path(2)]
    ok(host.volume(pool="cut", name=disk.name(2), capacity="16MiB"))
    run("udevadm", "settle")
    assert run("blockdev", "--getsize64", disk.path(2)).strip() == str(16 * MIB)
    if seen:
        with daemons_pool(virsh, disk, "gpt"):
            the_daemon_sees_the_same(host, virsh, disk)
    ok(host.volume(pool="cut", name=disk.name(1), state="absent"))
    assert {number: each.size for number, each in table(disk).items()} == {2: 16 * MIB}
    assert not os.path.exists(disk.path(1))
    assert code(host.volume(pool="cut", name=f"{disk.stem}x1", capacity="8MiB")) == "invalid_name"
    ok(host.pool(**pool, state="deleted", allow=["nonempty"]))
    run("udevadm", "settle")
    assert not os.path.exists(disk.path(2))


def test_a_multipath_map_that_udev_makes_partitions_of(host: Host, multipath: Callable[[str], str]) -> None:
    """By its path among those that stay; udev's rule says how its partitions are called."""
    name = multipath("")
    source = f"/dev/disk/by-id/dm-name-{name}"
    cut_grown_removed(host, Disk(source, os.path.realpath(source), f"{name}-part", "/dev/mapper"))


def test_a_multipath_map_whose_partitions_are_ours_to_name(
    host: Host, daemon_host: Host, multipath: Callable[[str], str]
) -> None:
    name = multipath("skip_kpartx yes")
    source = f"/dev/mapper/{name}"
    for separator, stem in ((True, f"{name}p"), (False, name)):
        disk = Disk(source, os.path.realpath(source), stem, "/dev/mapper")
        pool = pool_of(disk, "gpt", part_separator=separator)
        ok(host.pool(**pool, allow=["overwrite"]))
        assert ok(host.volume(pool="cut", name=disk.name(1), capacity="8MiB"))["volumes"][0]["path"] == disk.path(1)
        assert run("blockdev", "--getsize64", disk.path(1)).strip() == str(8 * MIB)
        with daemons_pool(virsh, disk, "gpt", f"part_separator='{'yes' if separator else 'no'}'"):
            the_daemon_sees_the_same(host, virsh, disk)
        ok(host.pool(**pool, state="deleted", allow=["nonempty"]))
        assert not os.path.exists(disk.path(1))


@pytest.fixture
def nvme(tmp_path: Path) -> Iterator[Disk]:
    """A namespace that this kernel serves over TCP to itself."""
    target, image = "/sys/kernel/config/nvmet", tmp_path / "namespace"
    image.write_bytes(b"")
    os.truncate(image, 64 * MIB)
    sh(f"""modprobe nvmet-tcp; modprobe nvme-tcp
        mkdir -p {target}/subsystems/lab/namespaces/1 {target}/ports/1; cd {target}/subsystems/lab
        echo 1 > attr_allow_any_host
        echo -n {image} > namespaces/1/device_path; echo 1 > namespaces/1/buffered_io; echo 1 > namespaces/1/enable
        cd {target}/ports/1
        echo tcp > addr_trtype; echo ipv4 > addr_adrfam; echo 127.0.0.1 > addr_traddr; echo 4420 > addr_trsvcid
        ln -s {target}/subsystems/lab subsystems/lab
        echo transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=lab > /dev/nvme-fabrics
        for turn in $(seq 100); do test -b /dev/nvme0n1 && break; sleep 0.1; done
        udevadm settle""")
    yield whole("/dev/nvme0n1")
    sh(f"""echo 1 > /sys/class/nvme/nvme0/delete_controller
        rm {target}/ports/1/subsystems/lab
        rmdir {target}/subsystems/lab/namespaces/1 {target}/subsystems/lab {target}/ports/1""")


def test_an_nvme_disk(host: Host, daemon_host: Host, nvme: Disk) -> None:
    assert nvme.path(1) == "/dev/nvme0n1p1"
    cut_grown_removed(host, nvme, seen=True)


def test_a_scsi_disk_with_dos(host, daemon_host, scsi):
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
    with daemons_pool(virsh, disk, "dos"):
        the_daemon_sees_the_same(host, virsh, disk)
    ok(host.pool(**pool_of(disk), state="deleted", allow=["nonempty"]))
    assert not os.path.exists(disk.path(1))


@contextlib.contextmanager
def events(node: str) -> Iterator[list[str]]:
    """What udev says of that device meanwhile, an entry for each event."""
    seen: list[str] = []
    words = ["stdbuf", "-oL", "udevadm", "monitor", "--udev", "--property", "--subsystem-match=block"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout
        while monitor.stdout.readline().strip():  # it listens now
            pass
        try:
            yield seen
            run("udevadm", "settle")
        finally:
            monitor.terminate()
        seen += [each for each in monitor.stdout.read().split("\n\n") if f"DEVNAME={node}\n" in f"{each}\n"]


def activations() -> str:
    return run("journalctl", "--quiet", "--output=cat", "--unit=lvm-activate-old.service")


def test_a_signature_that_shows_through_is_gone_before_udev_looks(host, empty):
    """Made by hand, the partition of a volume group's disk makes udev activate that group."""
    disk = empty(3)
    ok(host.pool(**pool_of(disk, "gpt")))
    volume = {"pool": "cut", "name": disk.name(1), "capacity": "64MiB"}
    ok(host.volume(**volume))
    run("vgcreate", "-qq", "old", disk.path(1))
    run("lvcreate", "-qq", "-n", "one", "-L", "8M", "old")
    before = table(disk)[1]
    by_hand = f"start={before.start // 512}, size={before.size // 512}\n"

    def away() -> None:
        sh("vgchange -qq -an old; rm -f /run/lvm/pvs_online/* /run/lvm/vgs_online/*")
        run("sfdisk", "-q", "--wipe=never", "--delete", disk.node, "1")
        run("udevadm", "settle")

    away()
    with events(disk.path(1)) as seen:
        run("sfdisk", "-q", "--append", "--wipe-partitions=never", disk.node, text=by_hand)
    assert table(disk)[1][:2] == before[:2]
    assert [each for each in seen if "ID_FS_TYPE=LVM2_member" in each]
    sh("until journalctl --quiet --unit=lvm-activate-old.service | grep 'now active'; do sleep 0.2; done")
    activated = activations()
    away()
    with events(disk.path(1)) as seen:
        made = ok(host.volume(**volume))
    assert "LVM2_member" in made["plan"][0]["destroys"]
    assert table(disk)[1][:2] == before[:2]
    assert [each for each in seen if "ACTION=add" in each]
    assert not [each for each in seen if "ID_FS_TYPE" in each]
    assert activations() == activated
    assert run("pvs", "--noheadings") == ""


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


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_the_daemon_sees_the_same(host: Host, daemon_host: Host, empty, label):
    """What each of the two has made."""
    disk = empty(0)
    ok(host.pool(**pool_of(disk, label)))
    volumes = [
        {"name": disk.name(1), "capacity": "20MiB"},
        {"name": disk.name(2), "capacity": "30MiB", "format": "linux-lvm"},
    ]
    ok(host.volume(pool="cut", volumes=volumes))
    with daemons_pool(virsh, disk, label):
        size = 40 * MIB
        virsh("vol-create-as", "theirs", disk.name(3), str(size), *(["--format", "linux"] if label == "dos" else []))
        run("udevadm", "settle")
        if label == "dos":
            extended = {"name": disk.name(4), "capacity": "40MiB", "format": "extended"}
            logical = [{"name": disk.name(number), "capacity": "10MiB"} for number in (5, 6)]
            ok(host.volume(pool="cut", volumes=[extended, *logical]))
        the_daemon_sees_the_same(host, virsh, disk)
        assert not ok(host.volume(pool="cut", name=disk.name(3), capacity=str(table(disk)[3].size)))["changed"]
        virsh("vol-delete", "--pool", "theirs", disk.name(2))
        run("udevadm", "settle")
        the_daemon_sees_the_same(host, virsh, disk)
