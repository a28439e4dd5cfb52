# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the guest's own disks, arrays, maps and volume groups are offered for, by the names that udev gives them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.integration.calling import call

from .hosts import Host, run, sh

_CONFIG = Path("/etc/lvm/lvm.conf")


def offered(host: Host, kind: str, **params: Any) -> dict[str, dict[str, Any]]:
    """The records, by the device or the group that each is of; those of the guest's own disk left out."""
    result = call("storage_pool_sources", uri=host.uri, type=kind, **params)
    assert "failed" not in result, result
    assert not result["changed"]
    records = [each for each in result["sources"] if not each.get("path", "").startswith("/dev/vda")]
    return {each["source"].get("name") or each["source"]["device"]: each for each in records}


def taken(host: Host, record: dict[str, Any], name: str, **more: Any) -> None:
    """A source as it was found makes a pool, and is not free then."""
    pool = host.pool(name=name, type=record["type"], source=record["source"], **more)
    assert "failed" not in pool, pool
    assert pool["pool"]["state"] == "active"
    (again,) = call("storage_pool_sources", uri=host.uri, type=record["type"], source=record["source"])["sources"]
    assert (record["free"], again["free"]) == (True, False)
    assert f"part of pool {name} already" in again["why_not"]


def why(records: dict[str, dict[str, Any]], device: str) -> str:
    return " and ".join(records[device].get("why_not", ()))


@pytest.fixture
def used(disks: list[str], scsi_disks: list[str], tmp_path: Path) -> Iterator[list[str]]:
    """Disks in every use: a mounted partition, swap, an array, an opened LUKS, a volume, a pool of ZFS."""
    place = tmp_path / "mounted"
    place.mkdir()
    sh(f"""parted -s {disks[1]} mklabel gpt mkpart a 1MiB 90%; udevadm settle
        mkfs.ext4 -q {disks[1]}-part1; mount {disks[1]}-part1 {place}
        mkswap -q {disks[2]}; swapon {disks[2]}
        mdadm --create --run --quiet /dev/md9 --metadata=1.2 --level=1 --raid-devices=2 {disks[3]} missing
        printf x | cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 {disks[4]} -
        printf x | cryptsetup open {disks[4]} opened --key-file=-
        vgcreate -q vgs {disks[5]}; lvcreate -qq -L 64M -n lv vgs; mkfs.ext4 -q /dev/vgs/lv
        mkfs.xfs -q -L found {scsi_disks[0]}
        zpool create -m none tank {scsi_disks[1]}; zfs create -V 16M tank/volume
        udevadm settle""")
    yield disks
    sh(f"""swapoff {disks[2]}; umount {place}; zpool destroy tank; cryptsetup close opened
        mdadm --quiet --stop /dev/md9; vgremove -qqf vgs; udevadm settle""")


def test_disks_and_what_holds_files(
    host: Host, multipath: Callable[[str], str], used: list[str], scsi_disks: list[str], tmp_path: Path
) -> None:
    maps = f"/dev/mapper/{multipath('')}"
    free, partition, volume = scsi_disks[0], f"{used[1]}-part1", "/dev/mapper/vgs-lv"
    disks = offered(host, "disk")
    files = offered(host, "fs")
    assert [disks[each]["path"] for each in used] == [os.path.realpath(each) for each in used]
    assert (disks[used[0]]["free"], disks[used[0]]["content"], disks[used[0]]["source"]) == (
        True,
        "",
        {"device": used[0]},
    )
    assert disks[used[1]]["source"] == {"device": used[1], "format": "gpt"}
    words = [f"mounted at {tmp_path}/mounted", "swap", "/dev/md9", "opened", "volume group vgs"]
    for disk, word in zip(used[1:], words):
        assert (disks[disk]["free"], word in why(disks, disk)) == (False, True), disks[disk]
        if disk != used[1]:  # that is divided
            assert (files[disk]["free"], word in why(files, disk)) == (False, True), files[disk]
    assert used[1] not in files
    assert words[0] in why(files, partition)
    assert partition not in disks
    assert (disks[scsi_disks[1]]["content"].split()[0], disks[scsi_disks[1]]["free"]) == ("gpt", False)
    xfs = {name: files[free].get(name) for name in ("source", "content", "label", "free")}
    assert xfs == {"source": {"device": free, "format": "xfs"}, "content": "xfs", "label": "found", "free": True}
    assert files[volume]["source"] == {"device": volume, "format": "ext4"}
    assert files[volume]["free"]
    assert volume not in disks
    assert not [each for each in (*disks.values(), *files.values()) if each["path"].startswith("/dev/zd")]
    paths = [each for each in disks.values() if maps in " ".join(each.get("why_not", ()))]
    assert len(paths) == 2
    assert disks[maps]["free"]
    assert offered(host, "fs", free=True) == {name: each for name, each in files.items() if each["free"]}
    taken(host, files[volume], "on-volume", path=str(tmp_path / "a"))
    taken(host, files[free], "on-scsi", path=str(tmp_path / "b"))
    taken(host, disks[used[0]], "on-disk", path="/dev")
    for name in ("on-volume", "on-scsi"):
        assert host.pool(name=name, state="absent")["changed"]


@pytest.fixture
def looks_inside(disks: list[str]) -> Iterator[list[str]]:
    """The disks, on a host whose LVM takes logical volumes for physical ones."""
    config = _CONFIG.read_text(encoding="utf-8")
    _CONFIG.write_text(f"{config}\ndevices/scan_lvs=1\n", encoding="utf-8")
    yield disks
    run("vgimport", "away", check=False)
    for name in ("inner", "plain", "fresh", "away"):
        run("vgremove", "-qqff", "--yes", name, check=False)
    _CONFIG.write_text(config, encoding="utf-8")


def test_volume_groups(host: Host, daemon_host: Host, looks_inside: list[str], tmp_path: Path) -> None:
    """Of a guest's are those on a volume, and on its image."""
    disks = looks_inside
    sh(f"""truncate -s 64M {tmp_path}/image
        vgcreate -q plain {disks[0]}; lvcreate -qq -L 64M -n of-a-guest plain; vgcreate -q inner /dev/plain/of-a-guest
        pvcreate -q {disks[1]}; vgcreate -q broken {disks[2]} {disks[3]}; vgcreate -q away {disks[4]}; vgexport -q away
        wipefs -qa {disks[3]}; udevadm settle""")
    loop = run("losetup", "--find", "--show", str(tmp_path / "image")).strip()
    try:
        run("vgcreate", "-q", "guests", loop)
        found = offered(host, "logical")
        nodes = list(map(os.path.realpath, disks))
        assert sorted(found) == sorted(["plain", "broken", "away", nodes[1]])
        assert found[nodes[1]]["content"] == "LVM2_member"
        assert "1 of its physical volumes are missing" in why(found, "broken")
        assert "exported" in why(found, "away")
        theirs = ElementTree.fromstring(run("virsh", "find-storage-pool-sources", "logical"))
        told = {each.findtext("name"): [device.get("path") for device in each.iter("device")] for each in theirs}
        assert {"inner", "guests"} <= set(told)  # of which libvirt thinks nothing
        for name in ("plain", "away"):
            assert told[name] == [found[name]["source"]["device"]]
        taken(host, found["plain"], "groups")
        taken(host, found[nodes[1]], "fresh")
    finally:
        run("vgremove", "-qqff", "guests")
        run("losetup", "--detach", loop)
