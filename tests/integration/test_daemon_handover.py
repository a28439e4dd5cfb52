# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the native engine made, a real libvirtd takes over as it is when it starts; and the other way round."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from .crash_support import done, unchanged

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root]

UUID = "3f0a1d5e-6c1f-4b5c-9d55-6a1b2c3d4e5f"
# Pools that can be defined anywhere, as tasks declare them.
ELSEWHERE = {
    "netfs": {
        "type": "netfs",
        "path": "/mnt/no-such-shared",
        "source": {"host": "nas1", "dir": "/vm", "format": "nfs"},
        "mount_options": ["vers=4.2"],
    },
    "fs": {"type": "fs", "path": "/mnt/no-such-fs", "source": {"device": "/dev/no-such-disk", "format": "xfs"}},
    "logical": {
        "type": "logical",
        "path": "/dev/no-such-vg",
        "source": {"name": "no-such-vg", "format": "lvm2", "devices": ["/dev/no-such-disk"]},
    },
    "iscsi": {
        "type": "iscsi",
        "path": "/dev/disk/by-path",
        "source": {"host": "nas1:3261", "device": "iqn.2026-11.org.example:disks"},
    },
    "rbd": {"type": "rbd", "source": {"hosts": ["mon1", "mon2:6790"], "name": "no-such-pool"}},
    "dir": {"type": "dir", "path": "/srv/no-such-directory"},
}


@pytest.fixture
def stopped(daemon, native_host):
    """The daemon does not run, and a native engine works on its files."""
    daemon.stop()
    return native_host


@pytest.fixture(params=["stop", "kill"])
def end(request, daemon):
    """How the daemon ends."""
    return getattr(daemon, request.param)


def pairs(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _colon, value in (line.partition(":") for line in text.splitlines())}


def told(daemon, name: str) -> dict[str, str]:
    """What virsh says of a pool."""
    info = pairs(daemon.virsh("pool-info", name))
    return {key: info[key] for key in ("UUID", "State", "Persistent", "Autostart")}


def record(host, name: str) -> dict[str, object]:
    (found,) = host.pool_info(name=name)
    return found


def definitions(host) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(host.root, "etc/libvirt/storage").glob("*.xml")}


# -- made natively, taken over by the daemon ----------------------------------------------------------------------


@pytest.mark.parametrize("autostart", [True, False])
@pytest.mark.parametrize("name", ["images", "with space", "bücher", "a.b-c_d"])
def test_an_active_pool_is_taken_over(daemon, stopped, tmp_path, name, autostart):
    made = done(stopped.pool(name=name, type="dir", path=str(tmp_path / "d"), autostart=autostart, mode="0711"))
    before = definitions(stopped)
    daemon.start()
    assert told(daemon, name) == {
        "UUID": made["pool"]["uuid"],
        "State": "running",
        "Persistent": "yes",
        "Autostart": "yes" if autostart else "no",
    }
    assert definitions(stopped) == before
    unchanged(stopped.pool(name=name, type="dir", path=str(tmp_path / "d"), mode="0711", state="present"))


def test_the_uuid_that_was_declared_is_the_daemons(daemon, stopped, tmp_path):
    done(stopped.pool(name="mine", uuid=UUID, type="dir", path=str(tmp_path / "d")))
    daemon.start()
    assert told(daemon, "mine")["UUID"] == UUID
    assert daemon.virsh("pool-name", UUID) == "mine"


def test_a_stopped_pool_is_started_by_the_daemon_if_its_directory_is_there(daemon, stopped, tmp_path):
    """libvirtd takes every directory that exists for started: docs/compatibility.md says so."""
    for name in ("kept", "gone"):
        done(stopped.pool(name=name, type="dir", path=str(tmp_path / name)))
        done(stopped.pool(name=name, state="inactive"))
    (tmp_path / "gone").rmdir()
    daemon.start()
    assert told(daemon, "kept")["State"] == "running"
    assert told(daemon, "gone")["State"] == "inactive"


def test_a_pool_that_was_undefined_is_gone(daemon, stopped, tmp_path):
    done(stopped.pool(name="gone", type="dir", path=str(tmp_path / "d"), autostart=True))
    done(stopped.pool(name="gone", state="absent"))
    daemon.start()
    assert daemon.pools("--all") == []


@pytest.mark.parametrize("declared", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_the_daemon_prints_the_definition_as_it_was_written(daemon, stopped, declared):
    made = done(stopped.pool(name="shared", state="present", **declared))
    daemon.start()
    assert told(daemon, "shared") == {
        "UUID": made["pool"]["uuid"],
        "State": "inactive",
        "Persistent": "yes",
        "Autostart": "no",
    }
    written = definitions(stopped)["shared.xml"].decode()
    assert written.split("-->\n\n")[1].strip() == daemon.virsh("pool-dumpxml", "--inactive", "shared")


def test_volumes_are_the_same(daemon, stopped, tmp_path):
    (tmp_path / "big.img").write_bytes(b"\1" * 3_000_000)
    done(stopped.pool(name="images", type="dir", path=str(tmp_path / "images")))
    done(
        stopped.volume(
            volumes=[
                {"name": "raw", "capacity": "1000001"},
                {"name": "part", "capacity": "4MiB", "allocation": "1MiB"},
                {"name": "base", "format": "qcow2", "source": {"path": f"{tmp_path}/big.img"}},
                {"name": "over", "format": "qcow2", "backing": "base", "capacity": "10MiB"},
            ]
        )
    )
    daemon.start()
    records = stopped.volume_info(pool="images", xml=True)
    assert len(records) == 4
    for volume in records:
        dumped = daemon.virsh("vol-dumpxml", "--pool", "images", volume["name"])
        assert without_times(volume["xml"]) == without_times(dumped)


def without_times(text: str) -> str:
    """Times differ since reading changes them, and the daemon adds the permissions of the backing file."""
    root = ElementTree.fromstring(text)
    for path, gone in (("target", "timestamps"), ("backingStore", "timestamps"), ("backingStore", "permissions")):
        parent = root.find(path)
        child = None if parent is None else parent.find(gone)
        if child is not None:
            parent.remove(child)
    return ElementTree.canonicalize(ElementTree.tostring(root, encoding="unicode"), strip_text=True)


# -- made with virsh, taken over natively -------------------------------------------------------------------------


@pytest.mark.parametrize("autostart", [True, False])
def test_a_pool_of_the_daemon_is_found_as_it_was(daemon, native_host, end, tmp_path, autostart):
    declared = {"name": "theirs", "type": "dir", "path": str(tmp_path / "d")}
    daemon.virsh("pool-define-as", "theirs", "dir", "--target", tmp_path / "d")
    daemon.virsh("pool-build", "theirs")
    daemon.virsh("pool-start", "theirs")
    if autostart:
        daemon.virsh("pool-autostart", "theirs")
    uuid = daemon.virsh("pool-uuid", "theirs")
    end()
    found = record(native_host, "theirs")
    assert {key: found[key] for key in ("uuid", "state", "persistent", "autostart")} == {
        "uuid": uuid,
        "state": "active",
        "persistent": True,
        "autostart": autostart,
    }
    before = definitions(native_host)
    for check in (True, False):
        unchanged(native_host.pool(check, **declared, autostart=autostart))
        unchanged(native_host.pool(check, **declared))
        unchanged(native_host.pool(check, name="theirs", uuid=uuid))
    assert definitions(native_host) == before
    daemon.start()
    assert told(daemon, "theirs") == {
        "UUID": uuid,
        "State": "running",
        "Persistent": "yes",
        "Autostart": "yes" if autostart else "no",
    }


def test_a_pool_that_virsh_stopped_is_stopped(daemon, native_host, end, tmp_path):
    declared = {"name": "theirs", "type": "dir", "path": str(tmp_path)}
    daemon.virsh("pool-define-as", "theirs", "dir", "--target", tmp_path)
    daemon.virsh("pool-start", "theirs")
    daemon.virsh("pool-destroy", "theirs")
    uuid = daemon.virsh("pool-uuid", "theirs")
    end()
    assert record(native_host, "theirs")["state"] == "inactive"
    unchanged(native_host.pool(**declared, state="inactive"))
    unchanged(native_host.pool(**declared, state="present"))
    started = done(native_host.pool(**declared))
    assert started["pool"]["uuid"] == uuid
    assert [change["action"] for change in started["plan"]] == ["start"]
    daemon.start()
    assert told(daemon, "theirs")["UUID"] == uuid


def test_a_transient_pool_is_found(daemon, native_host, end, tmp_path):
    daemon.virsh("pool-create-as", "passing", "dir", "--target", tmp_path)
    uuid = daemon.virsh("pool-uuid", "passing")
    end()
    found = record(native_host, "passing")
    assert (found["uuid"], found["state"], found["persistent"]) == (uuid, "active", False)
    done(native_host.pool(name="passing", type="dir", path=str(tmp_path)))
    daemon.start()
    assert told(daemon, "passing")["UUID"] == uuid
    assert told(daemon, "passing")["Persistent"] == "yes"


@pytest.mark.parametrize("declared", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_definition_of_virsh_is_the_declared_one(daemon, native_host, tmp_path, declared):
    """Written by the daemon, with what it adds of its own."""
    native_host.pool(name="shared", state="present", uuid=UUID, **declared)
    text = definitions(native_host)["shared.xml"].decode()
    native_host.pool(name="shared", state="absent")
    (tmp_path / "shared.xml").write_text(text)
    daemon.virsh("pool-define", tmp_path / "shared.xml")
    daemon.stop()
    before = definitions(native_host)
    unchanged(native_host.pool(name="shared", state="present", **declared))
    unchanged(native_host.pool(name="shared", state="inactive", **declared))
    assert record(native_host, "shared")["uuid"] == UUID
    assert definitions(native_host) == before


def test_volumes_of_virsh_are_the_declared_ones(daemon, native_host, end, tmp_path):
    daemon.virsh("pool-create-as", "images", "dir", "--target", tmp_path)
    daemon.virsh("vol-create-as", "images", "raw.img", "1000448b", "--allocation", "0")
    daemon.virsh("vol-create-as", "images", "base.qcow2", "3M", "--format", "qcow2")
    backing = ("--backing-vol", "base.qcow2", "--backing-vol-format", "qcow2")
    daemon.virsh("vol-create-as", "images", "over.qcow2", "5M", "--format", "qcow2", *backing)
    daemon.virsh("pool-refresh", "images")  # until then it tells what was asked for, not what is there
    dumped = {name: daemon.virsh("vol-dumpxml", "--pool", "images", name) for name in ("base.qcow2", "over.qcow2")}
    end()
    unchanged(
        native_host.volume(
            volumes=[
                {"name": "raw.img", "capacity": "1000448"},
                {"name": "over.qcow2", "format": "qcow2", "capacity": "5MiB", "backing": "base.qcow2"},
                {"name": "base.qcow2", "format": "qcow2", "capacity": "3MiB"},
            ]
        )
    )
    for volume in native_host.volume_info(pool="images", xml=True):
        if volume["name"] in dumped:  # qcow2 of version 2, of which nothing is shown
            assert volume["compat"] == "0.10"
            assert without_times(volume["xml"]) == without_times(dumped[volume["name"]])
