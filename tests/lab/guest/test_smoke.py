# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every kind of storage that the tests need is really in the guest, and can be used."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from .hosts import Host, own_address, run, run_json, sh


def test_the_guest_is_clean() -> None:
    listed = run("systemctl", "list-units", "--type=service", "--state=running", "--no-legend", "--plain")
    running = {line.split()[0] for line in listed.splitlines()}
    running.discard("systemd-machined.service")  # libvirtd called it when it was warmed up; it leaves when it is idle
    assert running == {"dbus.service", "ssh.service", "systemd-journald.service", "systemd-udevd.service"}
    assert run("systemctl", "--failed", "--no-legend") == ""
    assert run("vgs", "--noheadings") == ""


def test_the_module_makes_a_volume_that_qemu_img_reads(host: Host, tmp_path: Path) -> None:
    made = host.pool(name="images", type="dir", path=str(tmp_path / "images"))
    assert made["changed"], made
    assert host.volume(pool="images", name="a.qcow2", capacity="16MiB", format="qcow2")["changed"]
    seen = run_json("qemu-img", "info", "--output=json", str(tmp_path / "images" / "a.qcow2"))
    assert (seen["format"], seen["virtual-size"]) == ("qcow2", 16 << 20)


def test_six_disks_have_serials(disks: list[str]) -> None:
    listed = run_json("lsblk", "--json", "--bytes", "--nodeps", "--output", "NAME,SIZE,SERIAL", *disks)
    assert [(each["size"], each["serial"]) for each in listed["blockdevices"]] == [
        (1 << 30, f"lab-disk{number}") for number in range(1, 7)
    ]


def test_scsi_disks_have_world_wide_names(scsi_disks: list[str]) -> None:
    assert len(scsi_disks) == 2
    assert "QEMU" in run("sg_inq", scsi_disks[0])
    assert list(Path("/dev/disk/by-path").glob("*scsi*"))


def test_lvm_with_thin_volumes_and_snapshots(disks: list[str]) -> None:
    sh(f"""vgcreate -q lab {disks[0]} {disks[1]}
        lvcreate -q -n linear -L 64M lab
        lvcreate -q --type thin-pool -n pool -L 200M lab
        lvcreate -q -n thin -V 1G --thinpool pool lab
        lvcreate -q -s -n earlier -L 32M lab/linear""")
    seen = run_json("lvs", "--reportformat", "json", "-o", "lv_name", "lab")
    assert {each["lv_name"] for each in seen["report"][0]["lv"]} == {"linear", "pool", "thin", "earlier"}
    run("vgremove", "-qff", "-y", "lab")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "vfat", "udf", "ocfs2", "gfs2"])
def test_filesystem(kind: str, disks: list[str], tmp_path: Path) -> None:
    """Those that need a cluster are only made, not mounted."""
    more = {
        "ocfs2": ["--fs-features=local", "-N", "1"],
        "gfs2": ["-O", "-p", "lock_nolock", "-j", "1", "-J", "32"],
        "udf": ["--blocksize=512"],
    }
    run(f"mkfs.{kind}", *more.get(kind, []), disks[0], text="y\n")
    assert run("blkid", "-p", "-s", "TYPE", "-o", "value", disks[0]).strip() == kind
    if kind in ("ext4", "xfs", "btrfs", "vfat", "udf"):
        run("mount", disks[0], str(tmp_path))
        run("umount", str(tmp_path))


def test_iso_image(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    image, mount = tmp_path / "image.iso", tmp_path / "mount"
    mount.mkdir()
    run("genisoimage", "-quiet", "-o", str(image), str(tmp_path / "file"))
    run("mount", "-o", "loop,ro", str(image), str(mount))
    assert [path.name.lower() for path in mount.iterdir()] == ["file.;1"] or list(mount.iterdir())
    run("umount", str(mount))


def test_partitions_appear_by_udev(disks: list[str]) -> None:
    run("parted", "-s", disks[2], "mklabel", "gpt", "mkpart", "one", "1MiB", "100MiB")
    run("udevadm", "settle")
    assert stat.S_ISBLK(os.stat(f"{disks[2]}-part1").st_mode)
    assert "one" in run("sgdisk", "-p", disks[2])
    run("parted", "-s", disks[2], "rm", "1")


def test_loop_device(tmp_path: Path) -> None:
    run("truncate", "-s", "16M", str(tmp_path / "file"))
    device = run("losetup", "--find", "--show", str(tmp_path / "file")).strip()
    assert run("blockdev", "--getsize64", device).strip() == str(16 << 20)
    run("losetup", "-d", device)


def test_raid_encryption_and_cache_tools(disks: list[str]) -> None:
    run("mdadm", "--create", "/dev/md0", "--run", "--level=1", "--raid-devices=2", disks[0], disks[1])
    run("mdadm", "--stop", "/dev/md0")
    run(
        "cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", disks[2], text="secret"
    )
    run("cryptsetup", "open", disks[2], "opened", text="secret")
    run("cryptsetup", "close", "opened")
    run("make-bcache", "-B", disks[3])
    assert run("blkid", "-p", "-s", "TYPE", "-o", "value", disks[3]).strip() == "bcache"
    sh("for each in /sys/block/*/bcache/stop; do if [ -e $each ]; then echo 1 > $each; fi; done; udevadm settle")


def test_zfs(disks: list[str]) -> None:
    sh(f"zpool create -f lab {disks[4]}; zfs create lab/files; zfs create -V 64M lab/volume; udevadm settle")
    assert stat.S_ISBLK(os.stat("/dev/zvol/lab/volume").st_mode)
    run("zpool", "destroy", "lab")


@pytest.mark.parametrize("version", ["3", "4.2"])
def test_nfs(version: str, tmp_path: Path) -> None:
    shared, mount = tmp_path / "shared", tmp_path / "mount"
    shared.mkdir()
    mount.mkdir()
    sh(f"""systemctl start rpcbind nfs-server
        exportfs -o rw,no_root_squash,insecure,no_subtree_check,fsid=1 '127.0.0.1:{shared}'
        mount -t nfs -o vers={version} 127.0.0.1:{shared} {mount}""")
    (mount / "file").write_text("content")
    assert (shared / "file").read_text() == "content"
    assert str(shared) in run("showmount", "--no-headers", "-e", "127.0.0.1")
    sh(f"umount {mount}; exportfs -u '127.0.0.1:{shared}'; systemctl stop nfs-server")


def test_samba(tmp_path: Path) -> None:
    shared, mount = tmp_path / "shared", tmp_path / "mount"
    shared.mkdir()
    mount.mkdir()
    with open("/etc/samba/smb.conf", "a", encoding="utf-8") as stream:
        stream.write(f"[smoke]\npath = {shared}\nread only = no\nvalid users = smoke\n")
    sh(f"""useradd -M smoke; chown smoke {shared}; chmod 711 /tmp/pytest-of-root {tmp_path.parent} {tmp_path}
        printf 'secret\\nsecret\\n' | smbpasswd -s -a smoke
        systemctl start smbd
        printf 'username=smoke\\npassword=secret\\n' > {tmp_path}/credentials
        until smbclient -N -L 127.0.0.1; do sleep 0.5; done
        mount -t cifs -o credentials={tmp_path}/credentials,vers=3.0 //127.0.0.1/smoke {mount}""")
    (mount / "file").write_text("content")
    assert (shared / "file").read_text() == "content"
    sh(f"umount {mount}; systemctl stop smbd; smbpasswd -x smoke; userdel smoke")


def test_gluster(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    address = own_address()  # Gluster refuses the loopback
    sh(f"""systemctl start rpcbind glusterd
        mkdir -p /srv/brick
        gluster --mode=script volume create smoke {address}:/srv/brick force
        gluster --mode=script volume start smoke
        mount -t glusterfs {address}:/smoke {mount}""")
    (mount / "file").write_text("content")
    assert Path("/srv/brick/file").read_text() == "content"
    sh(f"""umount {mount}
        gluster --mode=script volume stop smoke force
        gluster --mode=script volume delete smoke
        systemctl stop glusterd; rm -rf /srv/brick""")


TARGET = "iqn.2026-01.lab.example:smoke"


def test_iscsi_with_chap(tmp_path: Path) -> None:
    initiator = Path("/etc/iscsi/initiatorname.iscsi").read_text().strip().split("=")[1]
    portal = f"/iscsi/{TARGET}/tpg1"
    run(
        "targetcli",
        text=f"""/backstores/fileio create smoke {tmp_path}/lun 64M
/iscsi create {TARGET}
{portal}/luns create /backstores/fileio/smoke
{portal}/acls create {initiator}
{portal}/acls/{initiator} set auth userid=user password=secretsecret
{portal} set attribute authentication=1
exit
""",
    )
    node = ["iscsiadm", "-m", "node", "-T", TARGET, "-p", "127.0.0.1"]
    sh("systemctl start iscsid; iscsiadm -m discovery -t st -p 127.0.0.1")
    run(*node, "-o", "update", "-n", "node.session.auth.authmethod", "-v", "CHAP")
    run(*node, "-o", "update", "-n", "node.session.auth.username", "-v", "user")
    run(*node, "-o", "update", "-n", "node.session.auth.password", "-v", "wrongwrongwr")
    assert "Logging in" in run(*node, "--login", check=False)
    assert TARGET not in run("iscsiadm", "-m", "session", check=False)
    run(*node, "-o", "update", "-n", "node.session.auth.password", "-v", "secretsecret")
    run(*node, "--login")
    run("udevadm", "settle")
    assert list(Path("/dev/disk/by-path").glob(f"ip-127.0.0.1:3260-iscsi-{TARGET}-lun-0"))
    run(*node, "--logout")
    run(*node, "-o", "delete")
    sh("targetcli clearconfig confirm=True; systemctl stop iscsid")


def test_scsi_debug_under_multipath() -> None:
    sh("""modprobe scsi_debug dev_size_mb=64 max_luns=1 add_host=2 vpd_use_hostno=0; udevadm settle
        systemctl start multipathd
        for turn in $(seq 60); do test "$(multipath -ll | grep -c running)" = 2 && break; sleep 0.5; done""")
    assert run("multipath", "-ll").count("running") == 2
    sh("""multipath -F; systemctl stop multipathd.service multipathd.socket; udevadm settle
        modprobe -r scsi_debug""")


KINDS = ["dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "gluster", "zfs"]


def test_libvirtd_has_its_drivers(daemon_host: Host) -> None:
    text = run("virsh", "pool-capabilities")
    for kind in KINDS:
        assert f"<pool type='{kind}' supported='yes'>" in text, kind
    assert daemon_host.pool_info() == []


def test_what_judges_is_there() -> None:
    assert json.loads(run("jq", "-n", "{a: 1}")) == {"a": 1}
    for tool in ("strace", "lsof", "fuser", "getfacl", "xorriso", "file", "thin_check"):
        run("which", tool)
