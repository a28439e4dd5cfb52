# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pool types that only a daemon can look at.

What is proven where:

* with a real libvirtd and real storage: fs and disk on loop devices, mpath without a device, iscsi-direct with tgtd; a
  daemon that is reached as one on another host is, in test_daemon_remote.py;
* with a real libvirtd, but without the kernels and servers that they need: logical, zfs, iscsi, scsi, netfs, rbd,
  gluster are defined, marked, changed and undefined, and all but the last two fail to start with an error;
* with a real libvirtd and a stand-in for the commands of ZFS, which gives the documented output: zpools;
* with libvirt's test driver, which keeps pools and volumes of all types in memory and knows no build flags, resize and
  upload: starting, and the volumes of logical, zfs and rbd. It shows all volumes as files, which is put right here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import daemon as engine_daemon

from . import daemon as private_daemon
from .conftest import Host

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.libvirt_binding,
    pytest.mark.xdist_group("daemon of types"),
]

MIB = 2**20


def run(*argv) -> str:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout.strip()


def ok(result):
    assert "failed" not in result, result["msg"]
    assert not [text for text in result["warnings"] if "verification" in text], result["warnings"]
    return result


class Code(str):
    """The code of an error; where it is not the expected one, the message is shown with it."""

    message = ""

    def __repr__(self) -> str:
        return f"{self} ({self.message})"


def code(result) -> Code:
    assert result.get("failed"), result["plan"]
    assert result["error"]["hint"], result["error"]
    assert not result["changed"], result
    found = Code(result["error"]["code"])
    found.message = result["msg"]
    return found


def converges(act, **params):
    """The result of a real run: as check mode said, and with nothing left to do after it."""
    checked = ok(act(check=True, **params))
    made = ok(act(**params))
    assert made["changed"]
    assert checked["plan"] == made["plan"]
    assert checked["diff"] == made["diff"]
    assert ok(act(**params))["plan"] == []
    return made


def actions(result) -> list[str]:
    return [entry["action"] for entry in result["plan"]]


@pytest.fixture
def clean(daemon_host):
    """Pools are gone before the devices that they are on."""
    yield daemon_host
    daemon_host.daemon.remove_pools()


# -- fs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fs(clean, loop, tmp_path):
    return clean, {"name": clean.name, "type": "fs", "path": str(tmp_path / "mnt")}, loop(64 * MIB).node


def signature(device) -> str:
    done = subprocess.run(
        ["blkid", "-p", "-s", "TYPE", "-o", "value", device], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def label(device) -> str:
    return run("blkid", "-p", "-s", "UUID", "-o", "value", device)


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "size"), [("ext4", 64 * MIB), ("xfs", 320 * MIB)])
def test_an_empty_device_is_formatted_once(fs, loop, kind, size):
    host, pool, _first = fs
    device = loop(size).node
    pool["source"] = {"device": device, "format": kind}
    made = converges(host.pool, **pool, autostart=True)
    assert actions(made) == ["define", "start", "autostart"]
    assert made["pool"]["capacity"] > 32 * MIB
    formatted = label(device)
    assert signature(device) == kind
    for state in ("inactive", "active", "absent", "active"):
        converges(host.pool, **pool, state=state)
    assert label(device) == formatted


def test_a_filesystem_that_is_there_is_adopted(fs):
    host, pool, device = fs
    run("mkfs.ext4", "-q", device)
    there = label(device)
    converges(host.pool, **pool, source={"device": device, "format": "ext4"})
    assert label(device) == there


def test_a_filesystem_of_another_kind_is_formatted_only_where_that_is_allowed(fs):
    host, pool, device = fs
    run("mkfs.ext4", "-q", device)
    there, pool["source"] = label(device), {"device": device, "format": "vfat"}
    for check in (True, False):
        refused = host.pool(check=check, **pool)
        assert code(refused) == "storage_foreign"
        assert "ext4" in refused["msg"]
        assert "overwrite" in refused["error"]["hint"]
    assert label(device) == there
    pool["source"]["format"] = "ext2"
    made = converges(host.pool, **pool, allow=["overwrite"])
    assert [entry["destroys"] for entry in made["plan"]] == ["", f"an ext4 filesystem on {device}"]
    assert signature(device) == "ext2"


def test_content_without_a_signature_is_not_taken_for_nothing(fs):
    host, pool, device = fs
    with open(device, "r+b") as file:
        file.write(b"not nothing")
    pool["source"] = {"device": device, "format": "ext4"}
    assert code(host.pool(**pool)) == "storage_foreign"
    assert signature(device) == ""
    converges(host.pool, **pool, allow=["overwrite"])


def test_devices_that_cannot_be_used(fs):
    host, pool, device = fs
    assert code(host.pool(**pool, source={"device": device})) == "missing_option"  # as what to format it
    assert code(host.pool(**pool, source={"device": device, "format": "ext4"}, build="never")) == "source_missing"
    gone = {"device": "/dev/no-such-device", "format": "ext4"}
    assert code(host.pool(**pool, source=gone)) == "source_missing"
    assert ok(host.pool(check=True, **pool, source=gone))["warnings"]
    assert code(host.pool(**pool, source={"device": device, "format": "ext4"}, mode="0750")) == "daemon_cannot"
    assert host.pool_info() == []


def test_a_device_of_another_pool(fs, tmp_path):
    host, pool, device = fs
    source = {"device": device, "format": "ext4"}
    ok(host.pool(**pool, source=source))
    for other in ({"type": "fs", "path": str(tmp_path / "two"), "source": source},
                  {"type": "disk", "path": "/dev", "source": {"device": device, "format": "gpt"}},
                  {"type": "logical", "source": {"device": device, "name": "vg"}}):  # fmt: skip
        refused = host.pool(name="other", **other)
        assert code(refused) == "source_conflict", refused
        assert host.name in refused["error"]["hint"]


def test_a_device_of_another_pool_under_another_name(fs, tmp_path):
    """Such as /dev/disk/by-id: it is the same disk, though nothing was built there yet."""
    host, pool, device = fs
    (tmp_path / "by-id").symlink_to(device)
    mine = {**pool, "source": {"device": str(tmp_path / "by-id"), "format": "ext4"}}
    ok(host.pool(**mine, state="present"))
    theirs = [
        {"type": "disk", "path": "/dev", "source": {"device": device, "format": "gpt"}},
        {"type": "fs", "path": str(tmp_path / "two"), "source": {"device": device, "format": "ext4"}},
    ]
    for other in theirs:
        for check in (True, False):
            assert code(host.pool(check=check, name="other", **other)) == "source_conflict"
    assert signature(device) == ""


def test_image_files_through_the_daemon(fs, tmp_path):
    host, pool, device = fs
    ok(host.pool(**pool, source={"device": device, "format": "ext4"}))
    volumes = [
        {"name": "raw", "capacity": "1000001"},
        {"name": "full", "capacity": "1MiB", "allocation": "1MiB"},
        {"name": "base", "format": "qcow2", "capacity": "8MiB", "mode": "0640"},
        {"name": "odd", "format": "qcow2", "capacity": "8389120"},  # no multiple of a KiB
        {"name": "meta", "format": "qcow2", "capacity": "8MiB", "options": {"preallocation": "metadata"}},
        {"name": "text", "source": {"content": "hello"}, "capacity": "1MiB"},
    ]
    converges(host.volume, volumes=volumes)
    (tmp_path / "disk.raw").write_bytes(b"\1" * 3_000_000)
    copies = [
        {"name": "raw2", "source": {"volume": "full"}, "capacity": "2MiB"},
        {"name": "base2", "source": {"volume": "base"}, "capacity": "16MiB"},
        {"name": "converted", "source": {"volume": "full"}, "format": "qcow2"},
        {"name": "over", "format": "qcow2", "backing": {"volume": "base", "format": "qcow2"}},
        {"name": "uploaded", "source": {"path": str(tmp_path / "disk.raw")}, "capacity": "4MiB"},
    ]
    converges(host.volume, volumes=copies)
    sizes = {record["name"]: record["capacity"] for record in host.volume_info()}
    assert (sizes["raw2"], sizes["base2"], sizes["uploaded"]) == (2 * MIB, 16 * MIB, 4 * MIB)
    for name, content in (("text", b"hello"), ("uploaded", b"\1" * 3_000_000)):
        host.daemon.virsh("vol-download", "--pool", host.name, name, tmp_path / "out")
        data = (tmp_path / "out").read_bytes()
        assert data.startswith(content)
        assert len(data) == sizes[name]
        assert not any(data[len(content) :])
    converges(host.volume, name="base2", capacity="20MiB")
    assert code(host.volume(name="raw2", capacity="1MiB")) == "shrink_refused"
    converges(host.volume, name="base2", capacity="8MiB", allow=["shrink"])
    converges(host.volume, name="raw2", state="absent")
    assert code(host.volume(name="base", state="absent")) == "volume_backing"


@pytest.mark.parametrize(
    "volume",
    [
        pytest.param({"name": "base", "format": "qcow2", "options": {"lazy_refcounts": True}}, id="amend"),
        pytest.param({"name": "raw", "mode": "0640"}, id="mode"),
        pytest.param({"name": "new", "source": {"path": "IMAGE"}}, id="import"),
        pytest.param({"name": "new", "format": "qcow2", "source": {"path": "DATA"}}, id="convert"),
        pytest.param({"name": "new", "source": {"volume": "base", "format": "raw"}}, id="take"),
        pytest.param(
            {"name": "new", "format": "qcow2", "capacity": "1MiB", "options": {"preallocation": "full"}}, id="full"
        ),
        pytest.param({"name": "new", "format": "qcow2", "capacity": "4MiB", "allocation": "1MiB"}, id="part"),
    ],
)
def test_what_the_daemon_cannot_do_with_files(fs, tmp_path, volume):
    host, pool, device = fs
    ok(host.pool(**pool, source={"device": device, "format": "ext4"}))
    ok(host.volume(volumes=[{"name": "base", "format": "qcow2", "capacity": "1MiB"}, {"name": "raw", "capacity": 9}]))
    run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "image", "1M")
    (tmp_path / "data").write_bytes(b"data")
    source = volume.get("source", {})
    if "path" in source:
        volume = {**volume, "source": {"path": str(tmp_path / source["path"].lower())}}
    before = host.volume_info(fields=["name", "capacity", "mode"])
    for check in (True, False):
        assert code(host.volume(check=check, **volume)) == "daemon_cannot"
    assert host.volume_info(fields=["name", "capacity", "mode"]) == before


@pytest.mark.thorough
def test_deleting_a_filesystem_pool_deletes_its_volumes(fs):
    host, pool, device = fs
    pool["source"] = {"device": device, "format": "ext4"}
    ok(host.pool(**pool))
    ok(host.volume(name="raw", capacity="1MiB"))
    assert code(host.pool(**pool, state="deleted")) == "pool_nonempty"
    host.daemon.virsh("vol-create-as", host.name, "sub", "0", "--format", "dir")
    assert code(host.pool(**pool, state="deleted", allow=["nonempty"])) == "pool_foreign_content"
    host.daemon.virsh("vol-delete", "--pool", host.name, "sub")
    ok(host.pool(**pool, state="inactive"))
    assert code(host.pool(**pool, state="deleted", allow=["nonempty"])) == "pool_inactive"
    ok(host.pool(**pool))
    converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    ok(host.pool(**pool))
    assert [record["name"] for record in host.volume_info()] == ["lost+found"]


@pytest.mark.thorough
def test_a_change_that_needs_a_restart_builds_nothing(fs, tmp_path):
    host, pool, device = fs
    pool["source"] = {"device": device, "format": "ext4"}
    ok(host.pool(**pool))
    there = label(device)
    moved = {**pool, "path": str(tmp_path / "elsewhere")}
    assert code(host.pool(**moved)) == "restart_needed"
    made = converges(host.pool, **moved, allow=["restart"])
    assert actions(made) == ["stop", "redefine", "start"]
    assert label(device) == there
    assert made["warnings"] == []
    other = {**moved, "source": {"device": device, "format": "ext2"}}
    assert code(host.pool(**other, allow=["restart"])) == "storage_foreign"
    found_out = {**pool, "source": {"device": device, "format": "auto"}}  # that it is mounted is no use by others
    assert code(host.pool(**found_out)) == "restart_needed"
    assert actions(converges(host.pool, **found_out, allow=["restart"])) == ["stop", "redefine", "start"]
    assert (label(device), host.pool_info()[0]["state"]) == (there, "active")


@contextlib.contextmanager
def a_holder(daemon, path):
    """Something with an open file, among the mounts that the daemon sees."""
    program = "import sys; file = open(sys.argv[1], 'w'); print('open', flush=True); sys.stdin.read()"
    argv = ["nsenter", "--mount", "--target", str(daemon.pid), sys.executable, "-c", program, path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        yield f"(pid {process.pid})"
        process.stdin.close()


def test_a_busy_pool_says_by_whom(fs, tmp_path):
    """As without a daemon: it is neither stopped nor moved nor deleted, and check mode says so."""
    host, pool, device = fs
    pool["source"] = {"device": device, "format": "ext4"}
    ok(host.pool(**pool))
    stopping = (
        {"state": "inactive"},
        {"state": "absent"},
        {"state": "deleted", "allow": ["nonempty"]},
        {"path": str(tmp_path / "elsewhere"), "allow": ["restart"]},
    )
    with a_holder(host.daemon, f"{pool['path']}/held") as who:
        for asked in stopping:
            for check in (True, False):
                refused = host.pool(check=check, **{**pool, **asked})
                assert code(refused) == "pool_in_use", asked
                assert who in refused["msg"]
        assert ok(host.pool(**pool))["plan"] == []
    converges(host.pool, **pool, state="inactive")


def test_a_file_that_the_daemon_does_not_list_stays(fs):
    host, pool, device = fs
    ok(host.pool(**pool, source={"device": device, "format": "ext4"}))
    Path(f"/proc/{host.daemon.pid}/root{pool['path']}/unlisted").write_bytes(b"content")
    refused = host.volume(name="unlisted", capacity="1MiB")
    assert refused["error"]["code"] == "changed_meanwhile", refused["error"]
    assert "pool-refresh" in refused["error"]["hint"]
    host.daemon.virsh("pool-refresh", host.name)
    assert host.volume_info(name="unlisted")[0]["capacity"] == 7


# -- disk ---------------------------------------------------------------------------------------------------------


def partitions(device) -> list[str]:
    lines = run("parted", "--script", "--machine", device, "unit", "B", "print").splitlines()[2:]
    return [line.split(":")[0] for line in lines]


@pytest.fixture
def disk(clean, loop):
    if shutil.which("parted") is None:
        pytest.skip("parted is not installed")
    device = loop().node
    return clean, {"name": clean.name, "type": "disk", "path": "/dev"}, device


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["gpt", "dos"])
def test_partitions(disk, kind):
    host, pool, device = disk
    pool["source"] = {"device": device, "format": kind}
    converges(host.pool, **pool)
    base = os.path.basename(device)
    volumes = [{"name": f"{base}p2", "capacity": "8000000"}, {"name": f"{base}p1", "capacity": "8MiB"}]
    made = converges(host.volume, volumes=volumes)
    assert partitions(device) == ["1", "2"]
    sizes = {record["name"]: record["capacity"] for record in made["volumes"]}
    assert sizes[f"{base}p1"] >= 8 * MIB
    assert sizes[f"{base}p2"] >= 8_000_000
    assert [record["name"] for record in host.volume_info()] == [f"{base}p1", f"{base}p2"]
    for check in (True, False):
        assert code(host.volume(check=check, name=f"{base}p9", capacity="8MiB")) == "invalid_name"
        assert code(host.volume(check=check, name="data", capacity="8MiB")) == "invalid_name"
        assert code(host.volume(check=check, name=f"{base}p1", capacity="64MiB")) == "daemon_cannot"
        assert code(host.volume(check=check, name=f"{base}p1", mode="0640")) == "daemon_cannot"
    converges(host.volume, name=f"{base}p1", state="absent")  # which libvirt can't on a loop device
    assert partitions(device) == ["2"]
    converges(host.volume, name=f"{base}p1", capacity="1MiB")
    assert code(host.pool(**pool, state="deleted")) == "pool_nonempty"
    gone = converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    assert f"{base}p1, {base}p2" in gone["plan"][1]["destroys"]
    assert run("wipefs", "--noheadings", device) == ""


@pytest.mark.thorough
def test_a_disk_that_somebody_has_as_a_whole_is_left_alone(disk):
    """Empty as it is: no partition is made on it, and its table stays."""
    host, pool, device = disk
    pool["source"] = {"device": device, "format": "gpt"}
    converges(host.pool, **pool)
    one = {"name": f"{os.path.basename(device)}p1", "capacity": "8MiB"}
    with subprocess.Popen(["sleep", "60"], stdin=os.open(device, os.O_RDWR)) as process:
        for check in (True, False):
            for refused in (host.volume(check=check, **one), host.pool(check=check, **pool, state="deleted")):
                assert code(refused) == "device_in_use"
                assert "process sleep" in refused["msg"]
        process.kill()
    assert partitions(device) == []
    converges(host.volume, **one)


def test_a_partition_in_use_stays(disk, tmp_path):
    host, pool, device = disk
    ok(host.pool(**pool, source={"device": device, "format": "gpt"}))
    ok(host.volume(name=f"{os.path.basename(device)}p1", capacity="32MiB"))
    run("mkfs.ext4", "-q", f"{device}p1")
    (tmp_path / "point").mkdir()
    run("mount", f"{device}p1", tmp_path / "point")
    try:
        assert code(host.volume(name=f"{os.path.basename(device)}p1", state="absent")) == "volume_in_use"
        refused = host.pool(**pool, source={"device": device}, state="deleted", allow=["nonempty"])
        assert code(refused) in ("volume_in_use", "identity_change")
    finally:
        run("umount", tmp_path / "point")
    assert partitions(device) == ["1"]


def test_a_label_of_another_kind_is_written_only_where_that_is_allowed(disk):
    host, pool, device = disk
    run("parted", "--script", device, "mklabel", "gpt", "mkpart", "one", "1MiB", "2MiB")
    pool["source"] = {"device": device, "format": "dos"}
    for check in (True, False):
        assert code(host.pool(check=check, **pool)) == "storage_foreign"
    assert partitions(device) == ["1"]
    converges(host.pool, **{**pool, "source": {"device": device, "format": "gpt"}})  # adopted
    assert partitions(device) == ["1"]
    ok(host.pool(name=host.name, state="absent"))
    converges(host.pool, **pool, allow=["overwrite"])
    assert partitions(device) == []


@pytest.mark.parametrize(
    ("kind", "source"),
    [("fs", {"format": "ext2"}), ("disk", {"format": "gpt"}), ("logical", {"name": "taken"})],
)
def test_nothing_is_built_over_a_mounted_disk(clean, loop, tmp_path, kind, source):
    """libvirt would clear its first MiB, and parted, pvcreate or mkfs would find the mount too late."""
    device, point = loop(64 * MIB).node, tmp_path / "point"
    run("mkfs.ext4", "-q", device)
    point.mkdir()
    run("mount", device, point)
    path = {"fs": str(tmp_path / "mnt"), "disk": "/dev", "logical": None}[kind]
    pool = {"name": clean.name, "type": kind, "path": path, "source": {"device": device, **source}}
    try:
        for check in (True, False):
            refused = clean.pool(check=check, **pool, allow=["overwrite"])
            assert code(refused) == "device_in_use", refused
            assert f"mount {point}" in refused["msg"]
        assert clean.pool_info() == []
        assert signature(device) == "ext4"
    finally:
        run("umount", point)
    if kind == "fs":
        converges(clean.pool, **pool, allow=["overwrite"])


def test_a_filesystem_that_is_mounted_elsewhere_is_not_mounted_again(fs, tmp_path):
    host, pool, device = fs
    run("mkfs.ext4", "-q", device)
    point = tmp_path / "point"
    point.mkdir()
    run("mount", device, point)
    pool["source"] = {"device": device, "format": "ext4"}
    try:
        for check in (True, False):
            assert code(host.pool(check=check, **pool)) == "device_in_use"
    finally:
        run("umount", point)
    converges(host.pool, **pool)


def test_a_pool_in_a_mount_keeps_it(fs):
    """The daemon's umount would not notice one that has no file open."""
    host, pool, device = fs
    run("mkfs.ext4", "-q", device)
    ok(host.pool(**pool, source={"device": device, "format": "ext4"}))
    inner = {"name": f"{pool['name']}-inner", "type": "dir", "path": f"{pool['path']}/inner"}
    ok(host.pool(**inner))
    try:
        for params in ({"state": "inactive"}, {"state": "absent"}):
            for check in (True, False):
                refused = host.pool(name=pool["name"], check=check, **params)
                assert code(refused) == "pool_in_use"
                assert inner["name"] in refused["msg"]
        ok(host.pool(name=inner["name"], state="inactive"))
        ok(host.pool(name=pool["name"], state="inactive"))
    finally:
        host.pool(name=inner["name"], state="absent")


@pytest.mark.thorough
def test_a_disk_of_a_guest_of_the_daemon_is_left_alone(fs, tmp_path):
    host, pool, device = fs
    if not host.daemon.uri.startswith("qemu:"):
        pytest.skip("this libvirtd has no guests")
    disk_xml = f"<disk type='block' device='disk'><source dev='{device}'/><target dev='vda' bus='virtio'/></disk>"
    xml = tmp_path / "guest.xml"
    xml.write_text(
        "<domain type='qemu'><name>off</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os>"
        f"<devices>{disk_xml}</devices></domain>"
    )
    host.daemon.virsh("define", xml)
    pool["source"] = {"device": device, "format": "ext4"}
    try:
        for check in (True, False):
            refused = host.pool(check=check, **pool)
            assert code(refused) == "device_in_use"
            assert "guest off" in refused["msg"]
        assert signature(device) == ""
    finally:
        host.daemon.virsh("undefine", "off")
    converges(host.pool, **pool)


def test_who_takes_the_device_before_it_is_built_is_noticed(disk, monkeypatch):
    """The conditions of building are looked at again right before."""
    from ansible_collections.virt.storage.plugins.module_utils.engines.libvirt import LibvirtEngine

    host, pool, device = disk
    run("mkfs.ext4", "-q", device)
    prepare, opened = LibvirtEngine.prepare, []

    def taken(engine):
        prepare(engine)
        program = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(); sys.stdout.flush(); sys.stdin.read()"
        argv = [sys.executable, "-c", program, device]
        opened.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        opened[0].stdout.readline()

    monkeypatch.setattr(LibvirtEngine, "prepare", taken)
    try:
        result = host.pool(**pool, source={"device": device, "format": "gpt"}, allow=["overwrite"])
    finally:
        opened[0].communicate()
    assert result["error"]["code"] == "changed_meanwhile", result["error"]
    assert f"(pid {opened[0].pid})" in result["msg"]
    assert signature(device) == "ext4"


def test_a_deleted_pool_is_gone_though_another_one_has_its_disk_by_now(disk):
    host, pool, device = disk
    old = {**pool, "name": f"{host.name}-old", "source": {"device": device, "format": "gpt"}}
    new = {**pool, "source": {"device": device, "format": "dos"}}
    ok(host.pool(**old))
    for again in (False, True):
        assert ok(host.pool(**old, state="deleted"))["changed"] is not again
        assert ok(host.pool(**new))["changed"] is not again
    ok(host.pool(name=host.name, state="absent"))
    assert ok(host.pool(**old, state="deleted"))["changed"] is False


def test_an_interrupted_deletion_is_completed(disk):
    host, pool, device = disk
    pool["source"] = {"device": device, "format": "gpt"}
    ok(host.pool(**pool))
    host.daemon.virsh("pool-destroy", host.name)
    assert code(host.pool(**pool, state="deleted")) == "pool_inactive"
    host.daemon.virsh("pool-delete", host.name)
    assert actions(converges(host.pool, **pool, state="deleted")) == ["undefine"]


# -- units of targets ---------------------------------------------------------------------------------------------


def test_mpath_is_one_per_host_and_has_what_the_kernel_has(clean):
    host = clean
    pool = {"name": host.name, "type": "mpath", "path": "/dev/mapper"}
    assert actions(converges(host.pool, **pool)) == ["define", "start"]
    assert host.volume_info() == []
    assert code(host.pool(**{**pool, "name": "another"})) == "source_conflict"
    assert code(host.volume(name="dm-7", capacity="1MiB")) == "daemon_cannot"
    assert code(host.pool(**pool, state="deleted")) == "daemon_cannot"
    for state in ("inactive", "absent"):
        converges(host.pool, **pool, state=state)


@pytest.fixture
def target(tmp_path):
    """An iSCSI target of two units in user space: its address."""
    if shutil.which("tgtd") is None:
        pytest.skip("tgtd is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    control = str(1000 + os.getpid() % 20000)
    argv = ["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"]
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    admin = ["tgtadm", "-C", control, "--lld", "iscsi"]
    try:
        for _try in range(100):
            if (
                subprocess.run([*admin, "--op", "show", "--mode", "sys"], capture_output=True, check=False).returncode
                == 0
            ):
                break
            time.sleep(0.05)
        run(*admin, "--op", "new", "--mode", "target", "--tid", "1", "-T", "iqn.2026-01.test:one")
        for number in (1, 2):
            file = tmp_path / f"unit{number}"
            file.touch()
            os.truncate(file, number * 8 * MIB)
            run(*admin, "--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", number, "-b", file)
        run(*admin, "--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(10)
        for name in (f"socket.{control}", f"socket.{control}.lock"):
            Path("/var/run/tgtd", name).unlink(missing_ok=True)


def supported(host, kind) -> bool:
    line = next(line for line in host.daemon.virsh("pool-capabilities").splitlines() if f"type='{kind}'" in line)
    return "supported='yes'" in line


def test_units_of_a_target_without_the_kernel(clean, target):
    host = clean
    if not supported(host, "iscsi-direct"):
        pytest.skip("libvirtd has no iscsi-direct")
    source = {"host": target, "iqn": "iqn.2026-01.test:one", "initiator": "iqn.2026-01.test:us"}
    pool = {"name": host.name, "type": "iscsi-direct", "source": source}
    assert actions(converges(host.pool, **pool, autostart=True)) == ["define", "start", "autostart"]
    sizes = {record["name"]: record["capacity"] for record in host.volume_info()}
    assert sizes["unit:0:0:2"] >= 16 * MIB - 512
    ok(host.volume(name="unit:0:0:1"))
    looked = host.volume(name="unit:0:0:7", capacity="1MiB")
    assert (looked["error"]["code"], actions(looked)) == ("source_missing", ["refresh"])
    assert code(host.volume(name="unit:0:0:1", state="absent")) == "daemon_cannot"
    assert code(host.pool(**pool, state="deleted")) == "daemon_cannot"
    converges(host.pool, **pool, state="inactive")
    converges(host.pool, **pool, state="absent")


# -- without their kernels and servers ------------------------------------------------------------------------------

ELSEWHERE = {
    "netfs": {"path": "DIR", "source": {"host": "127.0.0.1", "dir": "/export", "format": "nfs"}},
    "logical": {"source": {"name": "no_such_vg", "device": "/dev/no-such-device"}},
    "iscsi": {"path": "/dev/disk/by-path", "source": {"host": "127.0.0.1:9", "iqn": "iqn.2026-01.test:none"}},
    "scsi": {"path": "/dev/disk/by-path", "source": {"adapter": {"type": "scsi_host", "name": "scsi_host99"}}},
    "rbd": {"source": {"host": "127.0.0.1:9", "name": "rbd"}},
    "gluster": {"source": {"host": "127.0.0.1", "name": "gv0"}},
    "zfs": {"source": {"name": "no_such_tank", "device": "/dev/no-such-device"}},
}
#: rbd and gluster wait for their servers, the latter ten seconds when it ends: libvirt has no shorter time for them.
SLOW = ("rbd", "gluster")


@pytest.fixture(params=ELSEWHERE)
def elsewhere(request, clean, tmp_path):
    if not supported(clean, request.param):
        pytest.skip(f"libvirtd has no {request.param}")
    declared = {
        key: str(tmp_path / "mnt") if value == "DIR" else value for key, value in ELSEWHERE[request.param].items()
    }
    return clean, {"name": clean.name, "type": request.param, **declared}


def test_a_definition_comes_and_goes(elsewhere):
    host, pool = elsewhere
    made = converges(host.pool, **pool, state="present", autostart=True)
    assert actions(made) == ["define", "autostart"]
    assert "pool-define" in made["plan"][0]["commands"][0]
    assert made["pool"]["unseen"]
    assert host.pool_info()[0]["type"] == pool["type"]
    converges(host.pool, **pool, state="present", autostart=False)
    assert code(host.pool(name=host.name, type="dir", path="/x")) == "identity_change"
    changed = {**pool, "source": {**pool["source"], "vendor": "somebody"}}
    assert actions(converges(host.pool, **changed, state="inactive")) == ["redefine"]
    started = ok(host.pool(check=True, **pool)) if pool["type"] not in ("logical", "zfs") else None
    assert started is None or actions(started)[-1] == "start"
    assert code(host.volume(name="v", capacity="1MiB")) in ("pool_inactive", "daemon_cannot")
    if "device" in pool["source"] or pool["type"] in ("netfs", "rbd", "gluster"):
        assert code(host.pool(**pool, state="deleted")) == "pool_inactive"
    else:
        assert code(host.pool(**pool, state="deleted")) == "daemon_cannot"
    converges(host.pool, **pool, state="absent")


@pytest.mark.parametrize("elsewhere", [kind for kind in ELSEWHERE if kind not in SLOW], indirect=True)
def test_what_is_not_there_cannot_be_started(elsewhere):
    host, pool = elsewhere
    if pool["type"] in ("logical", "zfs"):
        assert code(host.pool(**pool)) == "source_missing"  # its device is looked at first
        pool["source"].pop("device") if pool["type"] == "logical" else None
    failed = host.pool(**pool)
    assert failed["failed"]
    assert failed["error"]["code"] in ("daemon_failed", "source_missing", "daemon_cannot"), failed["error"]
    again = host.pool(**pool, state="present")
    assert again["pool"]["state"] == "inactive" or "failed" in again


def test_sheepdog_is_not_for_daemons(clean):
    pool = {"name": clean.name, "type": "sheepdog", "source": {"host": "127.0.0.1", "name": "sheep"}}
    refused = clean.pool(**pool)
    assert code(refused) == "backend_missing"
    assert "native" in refused["error"]["hint"]


# -- a stand-in for ZFS -----------------------------------------------------------------------------------------------

_ZFS = """#!{python}
import os, sys
state, words = {state!r}, sys.argv[1:]
tool, verb, last = os.path.basename(sys.argv[0]), words[0] if words else "", words[-1] if words else ""
with open(state + ".log", "a") as log:
    print(tool, *words, file=log)
place = os.path.join(state, last)
if (tool, verb) == ("zpool", "get"):
    if not os.path.isdir(place):
        sys.exit(f"cannot open '{{last}}': no such pool")
    for name, value in (("health", "ONLINE"), ("size", 2**30), ("free", 2**30 - 2**20), ("allocated", 2**20)):
        print(last, name, value, "-", sep="\\t")
elif (tool, verb) == ("zpool", "create"):
    os.mkdir(os.path.join(state, words[1]))
elif (tool, verb) == ("zpool", "destroy"):
    for name in os.listdir(place):
        os.unlink(os.path.join(place, name))
    os.rmdir(place)
elif (tool, verb) == ("zfs", "list"):
    for name in sorted(os.listdir(place)):
        print(f"{{last}}/{{name}}", open(os.path.join(place, name)).read(), 0, sep="\\t")
elif (tool, verb) == ("zfs", "create"):
    size = int(words[words.index("-V") + 1].rstrip("K")) * 1024
    with open(place, "x") as file:
        print(-(-size // 16384) * 16384, end="", file=file)
elif (tool, verb) == ("zfs", "destroy"):
    os.unlink(place)
else:
    sys.exit(2)
"""


@pytest.fixture
def zfs(clean, tmp_path, monkeypatch):
    """A daemon that finds the stand-in, and its state: a directory for each zpool."""
    if not supported(clean, "zfs"):
        pytest.skip("libvirtd has no zfs")
    state, tools = tmp_path / "zpools", tmp_path / "tools"
    for made in (state, tools):
        made.mkdir()
    for tool in ("zfs", "zpool"):
        (tools / tool).write_text(_ZFS.format(python=sys.executable, state=str(state)))
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    daemon = private_daemon.Daemon(tmp_path / "daemon")
    daemon.start()
    yield Host(tmp_path, daemon.uri, "tank"), state
    daemon.close()


def commands(state) -> list[str]:
    log = Path(f"{state}.log")
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line for line in lines if line.split()[1] in ("create", "destroy")]


@pytest.mark.thorough
def test_a_zpool(zfs, loop):
    host, state = zfs
    device = loop(64 * MIB).node
    pool = {"name": "tank", "type": "zfs", "source": {"name": "tank", "device": device}}
    failed = host.pool(**pool, build="never")
    assert failed["error"]["code"] == "source_missing", failed["error"]
    assert commands(state) == []
    made = ok(host.pool(**pool))
    assert made["pool"]["capacity"] == 2**30
    assert commands(state) == [f"zpool create tank {device}"]
    assert ok(host.pool(**pool))["plan"] == []
    volumes = [{"name": "a", "capacity": "1000001"}, {"name": "b", "capacity": "8MiB"}]
    converges(host.volume, volumes=volumes)
    assert commands(state) == ["zfs create -s -V 977K tank/a", "zfs create -s -V 8192K tank/b"]
    assert code(host.volume(name="a", capacity="4MiB")) == "daemon_cannot"
    converges(host.volume, name="b", state="absent")
    assert commands(state) == ["zfs destroy tank/b"]
    for step in ("inactive", "active"):
        ok(host.pool(**pool, state=step))
    assert commands(state) == []
    assert code(host.pool(**pool, state="deleted")) == "pool_nonempty"
    converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    assert commands(state) == ["zpool destroy tank"]
    assert list(state.iterdir()) == []


def test_a_zpool_that_is_there_is_adopted(zfs):
    host, state = zfs
    (state / "tank").mkdir()
    (state / "tank" / "old").write_text("8388608")
    converges(host.pool, name="tank", type="zfs", source={"name": "tank"})
    assert commands(state) == []
    assert [record["name"] for record in host.volume_info()] == ["old"]


# -- libvirt's test driver ------------------------------------------------------------------------------------------


class InMemory(Host):
    """``connection`` keeps the driver's pools alive."""

    def __init__(self, root: Path) -> None:
        import libvirt

        super().__init__(root, "test:///default", "pool")
        self.connection = libvirt.open(self.uri)

    def close(self) -> None:
        for pool in self.connection.listAllStoragePools():
            if pool.name() == self.name:
                with contextlib.suppress(Exception):
                    pool.destroy()
                pool.undefine()
        self.connection.close()


KINDS = {"logical": "block", "zfs": "block", "rbd": "network", "disk": "block"}


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Makes a pool of a type; its volumes have that type's kind."""
    host = InMemory(tmp_path)
    text_of, kinds = engine_daemon.Daemon._text, []

    def text(self, volume):
        told = text_of(self, volume)
        return told.replace("<volume type='file'>", f"<volume type='{kinds[-1]}'>") if told and kinds else told

    monkeypatch.setattr(engine_daemon.Daemon, "_text", text)

    def start(kind, **more):
        kinds.append(KINDS[kind])
        source = {"name": "pool", "host": "127.0.0.1"} if kind == "rbd" else {"name": "pool"}
        return host, {"name": "pool", "type": kind, "source": source, **more}

    yield start
    host.close()


@pytest.mark.parametrize("kind", ["logical", "zfs", "rbd"])
def test_volumes_cut_from_a_pool(memory, kind):
    host, pool = memory(kind)
    assert actions(converges(host.pool, **pool)) == ["define", "start"]
    # the driver rounds nothing; that sizes are met all the same where a real one rounds: tests/unit/decide
    volumes = [{"name": "one", "capacity": "8MiB"}, {"name": "two", "capacity": "4MiB"}]
    made = converges(host.volume, volumes=volumes)
    text = made["plan"][0]["commands"][0]
    assert "vol-create pool /dev/stdin" in text
    allocation = 8 * MIB if kind == "logical" else 0  # a smaller one would be a snapshot
    assert f"<allocation unit='bytes'>{allocation}</allocation>" in text
    if kind == "rbd":
        return
    copied = host.volume(check=True, name="copy", source={"volume": "one"}, capacity="16MiB")
    if kind == "zfs":
        assert code(copied) == "daemon_cannot"
    else:
        assert "vol-create-from" in copied["plan"][0]["commands"][0]
        assert "vol-resize" not in str(copied["plan"])  # the daemon makes it as large as asked for
        converges(host.volume, name="copy", source={"volume": "one"}, capacity="16MiB")
    for check in (True, False):
        refused = host.volume(check=check, name="one", capacity="64MiB")
        assert code(refused) == "daemon_cannot"
        assert "resized" in refused["msg"]
        assert code(host.volume(check=check, name="new", capacity="4MiB", mode="0640")) == "daemon_cannot"
        assert code(host.volume(check=check, name="new", capacity="4MiB", format="qcow2")) == "format_unsupported"
    converges(host.volume, name="two", state="absent")


def test_a_clone_in_ceph_gets_its_size_in_a_second_step(memory):
    host, pool = memory("rbd")
    ok(host.pool(**pool))
    ok(host.volume(name="one", capacity="8MiB"))
    same = ok(host.volume(check=True, name="copy", source={"volume": "one"}))
    assert "vol-resize" not in str(same["plan"])
    larger = ok(host.volume(check=True, name="copy", source={"volume": "one"}, capacity="16MiB"))
    assert "vol-resize --pool pool copy 16777216" in larger["plan"][0]["commands"][-1]
    assert code(host.volume(name="copy", source={"volume": "one"}, capacity="4MiB")) == "capacity_too_small"


def test_a_logical_volume_is_not_made_thinner_than_it_is(memory):
    host, pool = memory("logical")
    ok(host.pool(**pool))
    assert code(host.volume(name="one", capacity="8MiB", allocation="4MiB")) == "daemon_cannot"


def test_deleting_what_volumes_were_cut_from(memory):
    host, pool = memory("logical")
    ok(host.pool(**pool))
    ok(host.volume(volumes=[{"name": "one", "capacity": "8MiB"}, {"name": "two", "capacity": "8MiB"}]))
    assert code(host.pool(**pool, state="deleted")) == "pool_nonempty"
    gone = converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    assert actions(gone) == ["delete", "stop", "delete", "undefine"]
    assert "pool-delete" in gone["plan"][2]["commands"][0]


def test_deleting_a_zpool_always_takes_its_word(memory):
    host, pool = memory("zfs")
    ok(host.pool(**pool))
    refused = host.pool(**pool, state="deleted")
    assert code(refused) == "pool_nonempty"
    assert "file systems and snapshots" in refused["msg"]
    gone = converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    assert "file systems and snapshots" in gone["plan"][1]["destroys"]


def test_deleting_what_is_in_ceph(memory):
    host, pool = memory("rbd")
    ok(host.pool(**pool))
    ok(host.volume(name="one", capacity="8MiB"))
    assert code(host.pool(**pool, state="deleted")) == "pool_nonempty"
    assert actions(converges(host.pool, **pool, state="deleted", allow=["nonempty"])) == ["delete", "stop", "undefine"]
