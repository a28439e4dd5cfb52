# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filesystem pools on the guest's kernel, beside those that the guest's daemon makes; its own tools judge."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.disk_scenarios import head

from .hosts import Host, run, sh

FIELDS = ("capacity", "allocation", "available")
TOLD = ("path", "key", "capacity", "allocation", "format", "type")


def settle() -> None:
    run("udevadm", "settle")


def mounted(path: Path) -> dict[str, str]:
    said = run("findmnt", "--json", "--mountpoint", str(path), check=False)
    return json.loads(said)["filesystems"][0] if said else {}


def signatures(device: str) -> list[str]:
    return run("wipefs", "--no-act", "--noheadings", "--output", "TYPE", device).split()


class Pool:
    """The pool p of a host on a device."""

    def __init__(self, host: Host, device: str, path: Path) -> None:
        self.host, self.device, self.path = host, device, path

    def __call__(self, check: bool = False, kind: str = "ext4", **params: Any) -> dict[str, Any]:
        declared = {
            "name": "p",
            "type": "fs",
            "path": str(self.path),
            "source": {"device": self.device, "format": kind},
        }
        return self.host.pool(check, **{**declared, **params})


@pytest.fixture
def pool(host: Host, disks: list[str], tmp_path: Path) -> Any:
    yield Pool(host, disks[0], tmp_path / "pool")
    for path in (tmp_path / "pool", tmp_path / "elsewhere"):
        while os.path.ismount(path):
            run("umount", str(path))


def refused(result: dict[str, Any], code: str) -> dict[str, Any]:
    assert result.get("failed"), result
    assert result["error"]["code"] == code, result["error"]
    assert result["changed"] is False
    return result["error"]


def done(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("failed"), result
    assert result["changed"], result
    assert not [text for text in result["warnings"] if text.startswith("verification")], result["warnings"]
    return result


def plain(plan: Any) -> Any:
    return [(entry["action"], entry["summary"], entry["destroys"], entry["commands"]) for entry in plan]


def applied(pool: Pool, **params: Any) -> dict[str, Any]:
    """Check mode, then the real run that does what was announced, then one that does nothing."""
    planned = pool(check=True, **params)
    result = done(pool(**params))
    assert plain(planned["plan"]) == plain(result["plan"])
    again = pool(**params)
    assert not again.get("failed"), again
    assert not again["changed"], again["plan"]
    return result


def done_now(pool: Pool, **params: Any) -> dict[str, Any]:
    return done(pool(**params))


# What Debian's kernel mounts, and what makes it there; the others are refused below.
KINDS = ["ext2", "ext3", "ext4", "xfs", "vfat", "btrfs", "gfs2", "ocfs2", "udf"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_made_mounted_and_erased(pool: Pool, kind: str) -> None:
    result = applied(pool, kind=kind)
    assert signatures(pool.device)[:1] == [kind]
    found = mounted(pool.path)
    assert found["fstype"] == kind
    assert os.path.realpath(found["source"]) == os.path.realpath(pool.device)
    assert ("ro" in found["options"].split(",")) == (kind == "udf")
    assert result["pool"]["source"]["format"] == ("auto" if kind == "btrfs" else kind)
    if kind == "udf":
        refused(pool.host.volume(pool="p", name="a", capacity="1M"), "not_writable")
        done(pool(kind=kind, state="inactive"))
        return
    done(pool.host.volume(pool="p", name="a", capacity="1M"))
    again = applied if kind == "ext4" else done_now  # once is enough: of that, nothing depends on the format
    again(pool, kind=kind, state="inactive")
    again(pool, kind=kind)
    refused(pool(kind=kind, state="deleted"), "pool_nonempty")
    done(pool(kind=kind, state="deleted", allow=["nonempty"]))
    assert (signatures(pool.device), mounted(pool.path), pool.path.exists()) == ([], {}, False)
    assert not pool(kind=kind, state="deleted")["changed"]


def test_what_is_not_made_here_says_why(pool: Pool) -> None:
    for kind in ("ufs", "gfs", "iso9660", "vmfs"):
        refused(pool(kind=kind), "not_supported")
    assert refused(pool(kind="hfs+"), "tool_missing")["subject"] == "mkfs.hfsplus"
    assert signatures(pool.device) == []
    with open(pool.device, "r+b") as disk:  # the head of a superblock of gfs: libblkid, superblocks/gfs.c
        disk.seek(64 << 10)
        disk.write(b"\x01\x16\x19\x70".ljust(24, b"\0") + struct.pack(">II", 1309, 1401).ljust(4096, b"\0"))
    assert signatures(pool.device) == ["gfs"]
    for kind in ("gfs", "auto"):
        assert "can't mount gfs" in refused(pool(kind=kind), "not_supported")["message"]
    assert pool.host.pool_info() == []


def test_a_disc_image_gives_a_read_only_pool(pool: Pool, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    (content / "file.iso").write_text("hello", encoding="ascii")
    run("genisoimage", "-quiet", "-o", str(tmp_path / "disc"), "-R", str(content))
    run("dd", f"if={tmp_path / 'disc'}", f"of={pool.device}", "conv=notrunc", "status=none")
    settle()
    applied(pool, kind="auto")
    assert mounted(pool.path)["fstype"] == "iso9660"
    assert [volume["name"] for volume in pool.host.volume_info(pool="p")] == ["file.iso"]
    refused(pool.host.volume(pool="p", name="a", capacity="1M"), "not_writable")
    applied(pool, kind="auto", state="inactive")


# -- what may not be lost -----------------------------------------------------------------------------------------

_LUKS = "echo x | cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --type"
_MD = "mdadm --create --run --quiet /dev/md8 --level=1 --raid-devices=2 $D missing --metadata"
# How it is made, and what is said of it.
FOREIGN = {
    "ext2": ("mkfs.ext2 -q $D", "ext2"),
    "xfs": ("mkfs.xfs -q $D", "xfs"),
    "btrfs": ("mkfs.btrfs -q $D", "btrfs"),
    "vfat": ("mkfs.vfat $D", "vfat"),
    "udf": ("mkfs.udf $D", "udf"),
    "ocfs2": ("mkfs.ocfs2 -q -M local $D", "ocfs2"),
    "gfs2": ("mkfs.gfs2 -O -q -p lock_nolock -j 1 -J 8 $D", "gfs2"),
    "iso9660": ("genisoimage -quiet -R /etc/lvm | dd of=$D status=none", "iso9660"),
    "gpt": ("parted -s $D mklabel gpt mkpart a 1MiB 90%", "gpt"),
    "dos": ("parted -s $D mklabel msdos mkpart primary 1MiB 90%", "dos"),
    "physical volume": ("pvcreate -q $D", "LVM2_member"),
    "luks1": (f"{_LUKS} luks1 $D -", "crypto_LUKS"),
    "luks2": (f"{_LUKS} luks2 $D -", "crypto_LUKS"),
    "zfs": ("zpool create -m none tank $D; zpool export tank", "gpt"),
    "swap": ("mkswap -q $D", "swap"),
    "array, at the end": (f"{_MD} 1.0", "linux_raid_member"),
    "array, at the start": (f"{_MD} 1.2", "linux_raid_member"),
    "two at once": (f"{_MD} 1.0; mkfs.xfs -q /dev/md8", "linux_raid_member and an xfs"),
    "bcache": ("make-bcache -B $D > /dev/null", "bcache"),
    "no signature": ("dd if=/dev/urandom of=$D bs=1M count=1 seek=4 status=none", "without a signature"),
}
STOP = {
    "linux_raid_member": "mdadm --stop --quiet /dev/md8",
    "bcache": "echo 1 > /sys/block/bcache0/bcache/stop; while [ -e /sys/block/bcache0 ]; do sleep 0.1; done",
}
LOST = ("gpt", "zfs", "array, at the end", "two at once", "bcache", "no signature")  # in a place of its own each


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_nothing_is_formatted_that_nobody_allowed_to_be_lost(pool: Pool, kind: str) -> None:
    script, name = FOREIGN[kind]
    sh(script.replace("$D", pool.device))
    settle()
    stop = STOP.get(name.split()[0])
    if stop:  # udev has not let go of it
        refused(pool(allow=["overwrite"]), "device_in_use")
        sh(stop)
        settle()
    before = signatures(pool.device), head(pool.device)
    for check in (True, False):
        error = refused(pool(check=check), "storage_foreign")
        assert name in error["message"]
    assert (signatures(pool.device), head(pool.device)) == before
    if kind in LOST:
        done(pool(allow=["overwrite"]))
        assert signatures(pool.device) == ["ext4"]
        done(pool(state="deleted"))


USED = {
    "mount": "mkfs.ext4 -q $D; mkdir -p $P; mount $D $P",
    "swap": "mkswap -q $D; swapon $D",
    "volume group": "vgcreate -q vg_fs $D",
    "logical volume": "vgcreate -q vg_fs $D; lvcreate -qq -L 16M -n a vg_fs",
    "mdraid": "mdadm --create --run --quiet /dev/md7 --metadata=1.2 --level=1 --raid-devices=2 $D missing",
    "device-mapper": "echo 0 8192 linear $D 0 | dmsetup create held",
    "partition": "parted -s $D mklabel gpt mkpart a 1MiB 90%; udevadm settle; mkswap -q $D-part1; swapon $D-part1",
}
FREE = "swapoff -a; vgremove -qqf vg_fs; mdadm -qS /dev/md7; dmsetup remove held; true"


@pytest.mark.parametrize("kind", list(USED))
def test_a_device_in_use_is_refused_whatever_is_allowed(pool: Pool, tmp_path: Path, kind: str) -> None:
    words = {"swap": "swap", "logical volume": "vg_fs", "volume group": "vg_fs", "partition": "swap", "mdraid": "md7"}
    try:
        sh(USED[kind].replace("$D", pool.device).replace("$P", str(tmp_path / "elsewhere")))
        settle()
        for check in (True, False):
            error = refused(pool(check=check, kind="xfs", allow=["overwrite"]), "device_in_use")
            assert words.get(kind, {"mount": "elsewhere", "device-mapper": "held"}.get(kind, "")) in error["message"]
    finally:
        run("umount", str(tmp_path / "elsewhere"), check=False)
        subprocess.run(["bash", "-c", FREE], capture_output=True, check=False)
        settle()


# -- sources ------------------------------------------------------------------------------------------------------


def test_a_source_by_name_of_its_content(pool: Pool, disks: list[str]) -> None:
    run("mkfs.ext4", "-q", "-L", "my data", pool.device)
    settle()
    uuid = run("blkid", "-p", "-o", "value", "-s", "UUID", pool.device).strip()
    for text in (f"UUID={uuid}", "LABEL=my data", f"/dev/disk/by-uuid/{uuid}"):
        pool.device = text
        applied(pool, kind="auto")
        assert os.path.realpath(mounted(pool.path)["source"]) == os.path.realpath(disks[0])
        applied(pool, kind="auto", state="absent")
    run("dd", f"if={disks[0]}", f"of={disks[1]}", "bs=1M", "count=64", "status=none")
    run("udevadm", "trigger", "--action=change", "--subsystem-match=block")
    settle()
    error = refused(pool(kind="auto", source={"device": f"UUID={uuid}"}), "source_conflict")
    assert all(os.path.realpath(disk) in error["message"] for disk in disks[:2])


# -- the daemon ---------------------------------------------------------------------------------------------------


def told(name: str) -> dict[str, int]:
    """Sizes as virsh tells them, in bytes."""
    lines = run("virsh", "pool-dumpxml", name).splitlines()
    return {field: int(line.split(">")[1].split("<")[0]) for line in lines for field in FIELDS if f"<{field} " in line}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "vfat"])
def test_the_daemon_makes_and_shows_the_same(
    system_host: Host, daemon_host: Host, disks: list[str], tmp_path: Path, kind: str
) -> None:
    """One disk by the daemon, one by us: equal sizes; then each other's pools, with equal volumes."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    try:
        run(
            "virsh",
            "pool-define-as",
            "theirs",
            "fs",
            "--source-dev",
            disks[0],
            "--source-format",
            kind,
            "--target",
            str(theirs),
        )
        run("virsh", "pool-build", "theirs", "--overwrite")
        run("virsh", "pool-start", "theirs")
        settle()
        pool = Pool(Host("native:///?root=" + str(tmp_path / "root")), disks[1], ours)
        applied(pool, kind=kind)
        (record,) = pool.host.pool_info(name="p")
        daemon_says = told("theirs")
        assert record["capacity"] == daemon_says["capacity"]
        assert abs(record["allocation"] - daemon_says["allocation"]) <= 1 << 20
        assert mounted(ours)["fstype"] == mounted(theirs)["fstype"]
        for path in (ours, theirs):
            run("qemu-img", "create", "-q", "-f", "qcow2", str(path / "a.qcow2"), "8M")
            run("truncate", "-s", "3M", str(path / "b.raw"))
        run("virsh", "pool-refresh", "theirs")
        listed = run("virsh", "vol-list", "theirs").split()
        names = [volume["name"] for volume in pool.host.volume_info(pool="p")]
        assert [name for name in names if name in listed] == names == ["a.qcow2", "b.raw"]
        # the daemon's own pool, seen without it
        (seen,) = Host("native:///system").pool_info(name="theirs")
        assert (seen["state"], seen["source"]["format"]) == ("active", kind)
        assert {field: seen[field] for field in FIELDS} == told("theirs")
        daemon_volumes = {volume["name"]: volume for volume in daemon_host.volume_info(pool="theirs")}
        for volume in Host("native:///system").volume_info(pool="theirs"):
            other = daemon_volumes[volume["name"]]
            assert {field: volume[field] for field in TOLD} == {field: other[field] for field in TOLD}
    finally:
        run("umount", str(ours), check=False)
        run("virsh", "pool-destroy", "theirs", check=False)
        run("umount", str(theirs), check=False)


def test_the_daemon_takes_over_what_was_started_without_it(system_host: Host, disks: list[str], tmp_path: Path) -> None:
    """Defined and mounted natively, btrfs among them, whose format it does not know; then it starts, and stops them."""
    kinds = ["ext4", "btrfs"]
    try:
        for kind, disk in zip(kinds, disks):
            pool = Pool(system_host, disk, tmp_path / kind)
            done(pool(kind=kind, name=kind))
            done(system_host.volume(pool=kind, name="a", capacity="1M"))
        run("systemctl", "start", "virtlogd.socket", "virtlockd.socket", "libvirtd.service")
        for kind in kinds:
            assert "running" in run("virsh", "pool-info", kind)
            assert "a" in run("virsh", "vol-list", kind).split()
            run("virsh", "pool-destroy", kind)
            assert not mounted(tmp_path / kind)
        new = Pool(Host("qemu:///system"), disks[2], tmp_path / "new")
        for kind, code in (("btrfs", "daemon_cannot"), ("gfs", "not_supported")):
            refused(new(kind=kind), code)
        assert sorted(run("virsh", "pool-list", "--all", "--name").split()) == sorted(kinds)
    finally:
        for kind in kinds:
            run("virsh", "pool-destroy", kind, check=False)
            run("virsh", "pool-undefine", kind, check=False)
            run("umount", str(tmp_path / kind), check=False)
        run("systemctl", "stop", "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
