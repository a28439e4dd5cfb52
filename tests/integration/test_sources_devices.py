# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""storage_pool_sources with real block devices: loop devices, their partitions, and volume groups on them.

Volume groups need no device-mapper as long as they have no active volume; lvm2 has a directory of its own in place of
/etc/lvm. Not proven here: what needs device-mapper (volumes, multipath, crypt), md, and real disks with udev's links.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import logical_sources

from . import daemon as private_daemon
from . import loops
from .calling import call

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root, pytest.mark.deadline(120)]

MODULE = "storage_pool_sources"
MIB = 2**20


def run(*argv) -> str:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout.strip()


class Host:
    """Loop devices, mounts and pools of a test."""

    def __init__(self, root: Path, undo: contextlib.ExitStack) -> None:
        self.root, self.undo = root, undo
        self.uri = f"native:///?root={root}/host"
        self._number = 0

    def disk(self, size: int = 64 * MIB) -> str:
        self._number += 1
        file = self.root / f"disk{self._number}"
        with file.open("wb") as image:
            image.truncate(size)
        node = loops.attach(file, "--partscan")
        self.undo.callback(loops.detach, node)
        return node

    def mount(self, node: str) -> Path:
        place = self.root / f"mount{self._number}"
        place.mkdir()
        run("mount", node, place)
        self.undo.callback(run, "umount", place)
        return place

    def found(self, kind: str, *nodes: str, **params) -> list[dict]:
        """The records of these devices; other tests have loop devices too."""
        result = call(MODULE, uri=self.uri, type=kind, **params)
        assert "failed" not in result, result
        assert result["changed"] is False
        return [each for each in result["sources"] if not nodes or each["source"].get("device") in nodes]

    def one(self, kind: str, node: str, **params) -> dict:
        (found,) = self.found(kind, node, **params)
        return found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with contextlib.ExitStack() as undo:
        yield Host(tmp_path, undo)


# -- disks and filesystems ----------------------------------------------------------------------------------------


def test_an_empty_disk(host):
    node = host.disk()
    assert host.one("disk", node) == {
        "type": "disk",
        "source": {"device": node},
        "free": True,
        "kind": "loop",
        "path": node,
        "size": 64 * MIB,
        "content": "",
    }


@pytest.mark.thorough
@pytest.mark.parametrize("label", ["gpt", "msdos"])
def test_a_disk_with_partitions(host, label):
    node = host.disk()
    run("parted", "-s", node, "mklabel", label, "mkpart", "primary", "1MiB", "20MiB")
    expected = {"gpt": "gpt", "msdos": "dos"}[label]
    found = host.one("disk", node)
    assert (found["source"], found["content"], found["free"]) == ({"device": node, "format": expected}, expected, True)
    (part,) = host.found("fs", f"{node}p1", node)  # what is divided holds no files itself
    assert (part["source"], part["kind"], part["size"]) == ({"device": f"{node}p1"}, "part", 19 * MIB)


@pytest.mark.thorough
@pytest.mark.parametrize(("filesystem", "size"), [("ext4", 64), ("xfs", 320)])
def test_a_filesystem_and_what_it_is_called(host, filesystem, size):
    node = host.disk(size * MIB)
    uuid = "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10"
    if filesystem == "ext4":
        run("mkfs.ext4", "-q", "-L", "two words", "-U", uuid, node)
    else:
        run("mkfs.xfs", "-q", "-L", "two_words", "-m", f"uuid={uuid}", node)
    found = host.one("fs", node)
    assert found["source"] == {"device": node, "format": filesystem}
    assert (found["content"], found["uuid"], found["free"]) == (filesystem, uuid, True)
    assert found["label"].split("_" if filesystem == "xfs" else " ") == ["two", "words"]
    place = host.mount(node)
    found = host.one("fs", node)
    assert (found["free"], found["why_not"]) == (False, [f"mounted at {place}"])
    assert host.one("disk", node)["why_not"] == [f"mounted at {place}"]
    assert host.found("fs", node, free=True) == []


@pytest.mark.thorough
def test_a_disk_whose_partition_is_mounted_is_not_free(host):
    node = host.disk()
    run("parted", "-s", node, "mklabel", "gpt", "mkpart", "p1", "1MiB", "30MiB", "mkpart", "p2", "30MiB", "60MiB")
    run("mkfs.ext4", "-q", f"{node}p1")
    place = host.mount(f"{node}p1")
    assert host.one("disk", node)["why_not"] == [f"mounted at {place} of {node}p1"]
    assert host.one("fs", f"{node}p1")["why_not"] == [f"mounted at {place}"]
    assert host.one("fs", f"{node}p2")["free"]


@pytest.mark.thorough
def test_a_disk_that_a_program_has_open(host):
    node = host.disk()
    with Path(node).open("rb") as file:
        program = subprocess.Popen(["sleep", "600"], stdin=file)
    with program:
        try:
            assert host.one("disk", node)["why_not"] == [f"used by process sleep (pid {program.pid})"]
        finally:
            program.kill()
    assert host.one("disk", node)["free"]


def test_data_without_a_signature_is_shown(host):
    node = host.disk()
    Path(node).write_bytes(b"precious")
    assert host.one("fs", node)["content"] == "data without a signature"


def test_a_disk_of_a_guest_is_not_free(host):
    """Also of one that does not run, whose definition is all that there is."""
    node = host.disk()
    qemu = host.root / "host" / "etc" / "libvirt" / "qemu"
    qemu.mkdir(parents=True)
    link = host.root / "link"
    link.symlink_to(node)
    text = "<domain><name>web</name><devices><disk><source dev='{}'/></disk></devices></domain>"
    (qemu / "web.xml").write_text(text.format(node))
    assert host.one("disk", node)["why_not"] == ["a disk of guest web"]


@pytest.mark.thorough
def test_what_a_pool_has(host):
    """A filesystem pool has its partition, and with it the disk."""
    node = host.disk()
    run("parted", "-s", node, "mklabel", "gpt", "mkpart", "p1", "1MiB", "30MiB")
    run("mkfs.ext4", "-q", f"{node}p1")
    source = host.one("fs", f"{node}p1")["source"]
    pool = {"name": "images", "type": "fs", "path": str(host.root / "images"), "source": source}
    made = call("storage_pool", uri=host.uri, state="inactive", **pool)
    assert made["changed"], made
    for kind, device in (("fs", f"{node}p1"), ("disk", node)):
        assert host.one(kind, device)["why_not"] == ["part of pool images already"]
    call(MODULE, uri=host.uri, type="fs", wait_for=[source], timeout=8)


@pytest.mark.thorough
def test_a_device_by_another_name(host):
    node = host.disk()
    link = host.root / "by-id"
    link.symlink_to(node)
    found = host.found("disk", source={"device": str(link)})
    assert [each["path"] for each in found] == [node]
    assert call(MODULE, uri=host.uri, type="disk", wait_for=[{"device": str(link)}], timeout=5)["missing"] == []


@pytest.mark.thorough
def test_what_is_free_later_is_waited_for(host):
    node = host.disk()
    run("mkfs.ext4", "-q", node)
    place = host.root / "busy"
    place.mkdir()
    wait = {"type": "fs", "uri": host.uri, "wait_for": [{"device": node, "format": "ext4"}]}
    run("mount", node, place)
    umount = threading.Timer(2, run, ("umount", place))
    try:
        result = call(MODULE, **wait, timeout=8)
    finally:
        umount.start()
    assert result["error"]["code"] == "source_not_free", result
    assert f"mounted at {place}" in result["error"]["message"]
    result = call(MODULE, **wait, timeout=60)
    umount.join()
    assert "failed" not in result, result


@pytest.mark.thorough
def test_a_device_that_is_not_there_is_named(host):
    node = host.disk()
    wait = [{"device": node}, {"device": "/dev/disk/by-id/gone"}]
    result = call(MODULE, uri=host.uri, type="disk", wait_for=wait, timeout=8)
    assert (result["error"]["code"], result["error"]["subject"]) == ("source_missing", "/dev/disk/by-id/gone")
    checked = call(MODULE, True, uri=host.uri, type="disk", wait_for=wait, timeout=8)
    assert "failed" not in checked
    assert any("/dev/disk/by-id/gone" in text for text in checked["warnings"])


def test_looking_at_devices_leaves_nothing_behind(host):
    """Neither on the device nor in blkid's cache."""
    node = host.disk()
    run("mkfs.ext4", "-q", node)
    file = host.root / "disk1"
    caches = [path for path in ("/run/blkid", "/etc/blkid.tab", "/var/cache/blkid") if os.path.lexists(path)]
    before = (file.read_bytes(), [sorted(os.listdir(path)) for path in caches if os.path.isdir(path)])
    host.found("fs")
    assert (file.read_bytes(), [sorted(os.listdir(path)) for path in caches if os.path.isdir(path)]) == before


# -- volume groups ------------------------------------------------------------------------------------------------


class Groups(Host):
    """lvm2 sees only the devices that are made here."""

    def __init__(self, root: Path, undo: contextlib.ExitStack) -> None:
        super().__init__(root, undo)
        self.etc = root / "etc-lvm"
        (self.etc / "devices").mkdir(parents=True)
        self.configure()

    def configure(self, more: str = "") -> None:
        names = ", ".join(f'"a|^{run("realpath", node)}$|"' for node in self.nodes) + (", " if self.nodes else "")
        (self.etc / "lvm.conf").write_text(
            f'devices {{ {more or "use_devicesfile = 0"}\n filter = [ {names}"r|.*|" ]\n }}\n'
            f'global {{ activation = 0\n use_lvmpolld = 0\n locking_dir = "{self.root}/locks" }}\n'
        )

    @property
    def nodes(self) -> list[str]:
        return getattr(self, "_nodes", [])

    def disk(self, size: int = 64 * MIB) -> str:
        node = super().disk(size)
        self._nodes = [*self.nodes, node]
        self.configure()
        return node


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Groups]:
    if shutil.which("vgcreate") is None:
        pytest.skip("lvm2 is not installed (Debian: apt-get install lvm2)")
    monkeypatch.setenv("LVM_SUPPRESS_FD_WARNINGS", "1")
    monkeypatch.setenv("LVM_SYSTEM_DIR", str(tmp_path / "etc-lvm"))
    with contextlib.ExitStack() as undo:
        yield Groups(tmp_path, undo)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loop devices stand for disks of the host."""
    monkeypatch.setattr(logical_sources, "holds_guests", lambda path: False)


def test_groups_and_unused_devices(groups, real):
    first, second, third = groups.disk(), groups.disk(), groups.disk()
    run("pvcreate", "-q", first, second, third)
    run("vgcreate", "-q", "vg-a_b+c.d", first, second)
    run("lvcreate", "-q", "-L", "8M", "-n", "one", "vg-a_b+c.d")
    group, unused = groups.found("logical")
    assert group["source"] == {"name": "vg-a_b+c.d", "devices": sorted([first, second]), "format": "lvm2"}
    assert (group["free"], group["kind"], group["volumes"]) == (True, "group", 1)
    told = run("vgs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_size,vg_free,vg_uuid").split()
    assert [str(group["size"]), str(group["available"]), group["uuid"]] == told
    assert unused["source"] == {"device": third, "format": "lvm2"}
    assert (unused["free"], unused["kind"], unused["size"], unused["content"]) == (
        True,
        "device",
        64 * MIB,
        "LVM2_member",
    )


def test_a_group_can_be_given_to_storage_pool_and_is_its_then(groups, real):
    node = groups.disk()
    run("vgcreate", "-q", "vg0", node)
    (group,) = groups.found("logical")
    made = call("storage_pool", uri=groups.uri, name="guests", type="logical", state="inactive", source=group["source"])
    assert made["changed"], made
    (group,) = groups.found("logical")
    assert group["why_not"] == ["part of pool guests already"]
    result = call(MODULE, uri=groups.uri, type="logical", wait_for=[{"name": "vg0"}], timeout=5)
    assert "failed" not in result, result


@pytest.mark.thorough
def test_a_group_with_a_device_missing_and_an_exported_one(groups, real):
    first, second, third = groups.disk(), groups.disk(), groups.disk()
    run("vgcreate", "-q", "broken", first, second)
    run("vgcreate", "-q", "away", third)
    run("vgexport", "-q", "away")
    run("wipefs", "-a", second)
    why = {each["source"]["name"]: each["why_not"] for each in groups.found("logical")}
    assert why == {"broken": ["1 of its physical volumes are missing"], "away": ["it is exported (vgexport)"]}
    result = call(MODULE, uri=groups.uri, type="logical", wait_for=[{"name": "away"}], timeout=8)
    assert result["error"]["code"] == "source_not_free"


def shared(group: str, place: Path) -> None:
    """As lvmlockd makes it, which needs a lock manager that runs on all hosts."""
    backup = place / "backup"
    run("vgcfgbackup", "-f", str(backup), group)
    text = backup.read_text(encoding="utf-8")
    lock = '\tlock_type = "sanlock"\n\tlock_args = "1.0.0:lvmlock"\n'
    backup.write_text(text.replace("\tflags = []\n", f"\tflags = []\n{lock}", 1).replace(', "WRITE"]', "]", 1))
    run("vgcfgrestore", "-f", str(backup), group)


def test_groups_of_other_hosts(groups, real):
    """LVM does not show them by itself: they are not absent."""
    first, second, third = groups.disk(), groups.disk(), groups.disk()
    run("vgcreate", "-q", "everybody", first)
    run("vgcreate", "-q", "other", second)
    run("vgcreate", "-q", "own", third)
    shared("everybody", groups.root)
    run("vgchange", "-q", "-y", "--systemid", "elsewhere", "other")
    assert run("vgs", "--noheadings", "-o", "vg_name").split() == ["own"]
    why = {each["source"]["name"]: each.get("why_not") for each in groups.found("logical")}
    assert why == {
        "everybody": ["it is shared with other hosts"],
        "other": ["it belongs to another host, by its system ID elsewhere"],
        "own": None,
    }
    for name, device, code in (("everybody", first, "vg_shared"), ("other", second, "vg_foreign")):
        params = {"uri": groups.uri, "name": name, "type": "logical", "source": {"device": device}}
        assert call("storage_pool", **params)["error"]["code"] == code
        gone = call("storage_pool", **params, state="deleted", allow=["nonempty"])
        assert gone["error"]["code"] == "pool_undefined"  # it is there, and nobody defined it here
    groups.configure("use_devicesfile = 0\n}\nglobal { system_id_source = lvmlocal\n}\nlocal { system_id = elsewhere")
    free = [each["source"] for each in groups.found("logical") if each["free"] and each["kind"] == "group"]
    assert {source["name"] for source in free} & {"everybody", "other", "own"} == {"other", "own"}


def test_groups_inside_volumes_of_guests_are_never_offered(groups):
    """A loop device is like the image of a guest that somebody attached."""
    first, second = groups.disk(), groups.disk()
    run("vgcreate", "-q", "of-a-guest", first)
    run("pvcreate", "-q", second)
    assert groups.found("logical") == []


def test_members_of_groups_are_no_free_disks(groups):
    first, second = groups.disk(), groups.disk()
    run("vgcreate", "-q", "vg0", first)
    run("pvcreate", "-q", second)
    assert groups.one("disk", first)["why_not"] == ["member of volume group vg0"]
    assert groups.one("fs", second)["why_not"] == ["physical volume of LVM"]


@pytest.mark.libvirt_binding
def test_groups_through_a_daemon(groups, tmp_path, monkeypatch):
    """A real libvirtd, which lvm2 shows the same devices, and which tells of none whether it can be a pool."""
    why = private_daemon.missing()
    if why:
        pytest.skip(why)
    first, second, third, unused = (groups.disk() for _each in range(4))
    run("vgcreate", "-q", "vg0", first, second)
    run("vgcreate", "-q", "away", third)
    run("vgexport", "-q", "away")
    run("pvcreate", "-q", unused)
    daemon = private_daemon.Daemon(tmp_path / "daemon")
    daemon.start()
    try:
        assert call(MODULE, uri=daemon.uri, type="logical")["sources"] == []  # those on loop devices are guests'
        monkeypatch.setattr(logical_sources, "holds_guests", lambda path: False)
        told = call(MODULE, uri=daemon.uri, type="logical")["sources"]
        assert told == call(MODULE, uri=groups.uri, type="logical")["sources"]
        found = {each["source"].get("name") or each["source"]["device"]: each for each in told}
        assert {name: each["free"] for name, each in found.items()} == {"vg0": True, "away": False, unused: True}
        assert "<name>away</name>" in daemon.virsh("find-storage-pool-sources", "logical")
    finally:
        daemon.close()


def snapshot(*places: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for place in places for path in sorted(place.rglob("*")) if path.is_file()}


def test_looking_changes_no_devices_file(groups, real):
    """One whose device got another name meanwhile: pvs itself would rewrite it, with --readonly too."""
    node = groups.disk()
    run("vgcreate", "-q", "vg0", node)
    groups.configure("use_devicesfile = 1")
    devices = groups.etc / "devices" / "system.devices"
    file = groups.root / "disk1"
    devices.write_text(f"VERSION=1.1.1\nIDTYPE=loop_file IDNAME={file} DEVNAME=/dev/loop77 PVID=none\n")
    shutil.rmtree(groups.root / "locks", ignore_errors=True)
    before = snapshot(groups.root)
    assert [each["source"]["name"] for each in groups.found("logical")] == ["vg0"]
    assert snapshot(groups.root) == before
    run("pvs", "--readonly")
    assert snapshot(groups.root) != before  # so it would have been


def test_the_devices_file_is_respected(groups, real):
    first, second = groups.disk(), groups.disk()
    run("vgcreate", "-q", "listed", first)
    run("vgcreate", "-q", "unlisted", second)
    groups.configure("use_devicesfile = 1")
    listed = f"IDTYPE=loop_file IDNAME={groups.root}/disk1 DEVNAME={first} PVID=none"
    (groups.etc / "devices" / "system.devices").write_text(f"VERSION=1.1.1\n{listed}\n")
    assert [each["source"]["name"] for each in groups.found("logical")] == ["listed"]
