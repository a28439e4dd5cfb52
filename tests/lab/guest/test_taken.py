# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Volumes that others have by another name, as a part of something larger, or past the processes of this host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .hosts import Host, run, sh

MIB = 2**20
GROUP = "vg-t"


@pytest.fixture
def group(disks: list[str]) -> Iterator[list[str]]:
    yield disks
    run("vgremove", "-ff", "-y", GROUP, check=False)


def done(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("failed"), result
    return result


def refused(act: Callable[..., dict[str, Any]], expected: str, **params: Any) -> str:
    """The message, the same in check mode and in a real run."""
    checked, real = act(check=True, **params), act(**params)
    assert real.get("failed"), real["plan"]
    assert (checked.get("error"), real["error"]["code"]) == (real["error"], expected), (checked, real)
    return str(real["error"]["message"])


def logical(*devices: str) -> dict[str, Any]:
    return {"name": GROUP, "type": "logical", "source": {"devices": list(devices)}}


@contextmanager
def guest(path: str, root: Path) -> Iterator[None]:
    """A guest that is shut off."""
    definition = root / "etc/libvirt/qemu/off.xml"
    definition.parent.mkdir(parents=True, exist_ok=True)
    definition.write_text(f"<domain><name>off</name><devices><disk><source dev='{path}'/></disk></devices></domain>")
    yield
    definition.unlink()


def root_of(host: Host) -> Path:
    return Path(host.uri.partition("root=")[2])


def dm_uuid(name: str) -> str:
    return run("dmsetup", "info", "-c", "--noheadings", "-o", "uuid", name).strip()


def test_a_volume_that_is_not_active_is_known_by_its_other_names(host: Host, group: list[str]) -> None:
    done(host.pool(**logical(group[0])))
    volume = {"pool": GROUP, "name": "a-b"}
    done(host.volume(pool=GROUP, volumes=[{"name": "a-b"}, {"name": "active"}], capacity="16MiB"))
    uuid = dm_uuid("vg--t-a--b")
    names = ["mapper/vg--t-a--b", "disk/by-id/dm-name-vg--t-a--b", f"disk/by-id/dm-uuid-{uuid}"]
    assert all(Path("/dev", name).exists() for name in names)
    run("lvchange", "--activate", "n", f"{GROUP}/a-b")
    for name in names:
        with guest(f"/dev/{name}", root_of(host)):
            assert "guest off" in refused(host.volume, "volume_in_use", **volume, state="absent")
    pool = {"name": "on-it", "type": "fs", "path": "/mnt/on-it", "source": {"device": f"/dev/{names[0]}"}}
    done(host.pool(**pool, state="inactive"))
    assert "pool on-it" in refused(host.volume, "volume_in_use", **volume, state="absent")
    done(host.pool(name="on-it", state="absent"))
    done(host.volume(**volume, state="absent"))


def test_a_group_on_the_disk_of_a_guest_is_the_guests(host: Host, group: list[str]) -> None:
    done(host.pool(**logical(group[0])))
    volume = {"pool": GROUP, "name": "a"}
    done(host.volume(**volume, capacity="16MiB"))
    with guest(group[0], root_of(host)):
        assert "guest off" in refused(host.volume, "volume_in_use", **volume, state="absent")
        assert "guest off" in refused(
            host.pool, "volume_in_use", **logical(group[0]), state="deleted", allow=["nonempty"]
        )
    done(host.pool(**logical(group[0]), state="deleted", allow=["nonempty"]))


@contextmanager
def exported(kind: str, path: str) -> Iterator[None]:
    """By the kernel's SCSI target, to nobody."""
    sh(f"targetcli /backstores/{kind} create name=one {'file_or_dev' if kind == 'fileio' else 'dev'}={path}")
    try:
        yield
    finally:
        sh(f"targetcli /backstores/{kind} delete one")


@pytest.mark.parametrize("kind", ["fileio", "block"])
def test_what_a_target_of_the_kernel_has(host: Host, group: list[str], tmp_path: Path, kind: str) -> None:
    """It has no process that could be seen to have it open."""
    done(host.pool(**logical(group[0])))
    done(host.volume(pool=GROUP, name="a", capacity="16MiB"))
    with exported(kind, f"/dev/{GROUP}/a"):
        refused(host.volume, "volume_in_use", pool=GROUP, name="a", state="absent", allow=["in_use"])
    done(host.pool(**logical(group[0]), state="deleted", allow=["nonempty"]))
    if kind == "fileio":
        files = {"name": "files", "type": "dir", "path": str(tmp_path / "files")}
        done(host.pool(**files))
        done(host.volume(pool="files", name="a.raw", capacity="16MiB"))
        with exported(kind, str(tmp_path / "files" / "a.raw")):
            assert "target" in refused(host.volume, "volume_in_use", pool="files", name="a.raw", state="absent")
        done(host.volume(pool="files", name="a.raw", state="absent"))


def test_what_a_daemon_has_not_seen_is_not_lost_with_its_pool(daemon_host: Host, group: list[str]) -> None:
    """It deletes all of a volume group, and remembers what was there when it last looked."""
    pool = logical(os.path.realpath(group[0]))
    done(daemon_host.pool(**pool))
    run("lvcreate", "-y", "-n", "precious", "-L", "16M", GROUP)
    result = daemon_host.pool(**pool, state="deleted")
    assert result.get("failed"), result
    assert "precious" in run("lvs", "--noheadings", "-o", "lv_name", GROUP)
    assert "precious" in refused(daemon_host.pool, "pool_nonempty", **pool, state="deleted")
    done(daemon_host.pool(**pool, state="deleted", allow=["nonempty"]))
    assert not run("lvs", "--noheadings", GROUP, check=False)


def test_a_daemon_knows_devices_by_one_name_only(daemon_host: Host, group: list[str]) -> None:
    done(daemon_host.pool(**logical(os.path.realpath(group[0]))))
    volume = {"pool": GROUP, "name": "a"}
    done(daemon_host.volume(**volume, capacity="16MiB"))
    for path in ("/dev/mapper/vg--t-a", f"/dev/disk/by-id/dm-uuid-{dm_uuid('vg--t-a')}", group[0]):
        with guest(path, Path("/")):
            assert "guest off" in refused(daemon_host.volume, "volume_in_use", **volume, state="absent")
    done(daemon_host.volume(**volume, state="absent"))


def test_a_name_in_other_letters_is_the_same_on_vfat(host: Host, disks: list[str], tmp_path: Path) -> None:
    """What is listed is not removed as what is not."""
    path = tmp_path / "fat"
    done(host.pool(name="fat", type="fs", path=str(path), source={"device": disks[0], "format": "vfat"}))
    run("truncate", "-s", "1M", str(path / "DATA.raw"))
    for check in (True, False):
        result = host.volume(check=check, pool="fat", volumes=[{"name": "data.RAW", "capacity": "1MiB"}], exclusive="*")
        assert not done(result)["changed"], result["plan"]
    assert os.listdir(path) == ["DATA.raw"]
    done(host.pool(name="fat", state="inactive"))


def test_other_subvolumes_are_not_lost_with_the_one_of_the_pool(host: Host, disks: list[str], tmp_path: Path) -> None:
    sh(f"mkfs.btrfs -q {disks[0]}; mkdir -p /mnt/all; mount {disks[0]} /mnt/all; btrfs subvolume create /mnt/all/pool")
    sh("btrfs subvolume create /mnt/all/other; echo precious > /mnt/all/other/file; umount /mnt/all")
    pool = {
        "name": "sub",
        "type": "fs",
        "path": str(tmp_path / "sub"),
        "source": {"device": disks[0], "format": "btrfs"},
        "mount_options": ["subvol=pool"],
    }
    done(host.pool(**pool))
    message = refused(host.pool, "pool_foreign_content", **pool, state="deleted", allow=["nonempty"])
    assert "subvolume /pool" in message
    done(host.pool(**pool, state="inactive"))
    assert sh(f"mount -o subvol=other {disks[0]} /mnt/all; cat /mnt/all/file; umount /mnt/all") == "precious\n"


def test_a_path_of_a_multipath_map_is_no_disk_of_its_own(host: Host, disks: list[str]) -> None:
    """Its partition is mounted by way of another device, and may have no node of its own."""
    node = os.path.realpath(disks[0])
    name = os.path.basename(node) + "1"
    pool = {"name": "cut", "type": "disk", "path": "/dev", "source": {"device": disks[0], "format": "gpt"}}
    done(host.pool(**pool))
    done(host.volume(pool="cut", name=name, capacity="64MiB"))
    run("mkfs.ext4", "-q", f"/dev/{name}")
    sh(f"blockdev --getsz {node} | xargs -I% dmsetup create above --table '0 % linear {node} 0'")
    try:
        sh("kpartx -a /dev/mapper/above; udevadm settle; mkdir -p /mnt/above; mount /dev/mapper/above1 /mnt/above")
        run("partx", "--delete", "--nr", "1", node, check=False)
        for words in ({"state": "absent"}, {"state": "absent", "allow": ["in_use"]}):
            assert "above" in refused(host.volume, "volume_in_use", pool="cut", name=name, **words)
        refused(host.volume, "device_in_use", pool="cut", name=name[:-1] + "2", capacity="8MiB")
        assert "above" in refused(host.pool, "volume_in_use", **pool, state="deleted", allow=["nonempty"])
    finally:
        sh("umount /mnt/above; kpartx -d /dev/mapper/above; dmsetup remove above; udevadm settle")
    done(host.volume(pool="cut", name=name, state="absent"))
