# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools and volumes through a real libvirt daemon that sees the same files as the module."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.libvirt_binding,
    pytest.mark.xdist_group("daemon"),
]


def test_a_pool_from_nothing_to_nothing(daemon_host):
    host = daemon_host
    first = host.pool(name="images", type="dir", path=str(host.images), autostart=True, mode="0750")
    assert "failed" not in first, first
    assert [entry["action"] for entry in first["plan"]] == ["define", "build", "start", "autostart"]
    assert first["engine"]["name"] == "libvirt"
    assert first["pool"]["state"] == "active"
    again = host.pool(name="images", type="dir", path=str(host.images), autostart=True, mode="0750")
    assert not again["changed"], again
    gone = host.pool(name="images", type="dir", path=str(host.images), state="deleted")
    assert gone["changed"], gone
    assert not host.images.exists()
    assert not host.pool(name="images", type="dir", path=str(host.images), state="deleted")["changed"]


def listed(host) -> list[str]:
    return sorted(line.split()[0] for line in host.daemon.virsh("vol-list", host.name).splitlines() if line.strip())


@pytest.mark.thorough
def test_volumes_of_every_kind(daemon_images):
    host = daemon_images
    Path(host.root, "disk.img").write_bytes(b"\1" * 3_000_000)
    volumes = [
        {"name": "raw", "capacity": "1000001"},
        {"name": "part", "capacity": "4MiB", "allocation": "1MiB"},
        {"name": "base", "format": "qcow2", "source": {"path": f"{host.root}/disk.img"}},
        {"name": "over", "format": "qcow2", "backing": "base", "capacity": "10MiB", "mode": "0640"},
        {
            "name": "new",
            "format": "qcow2",
            "capacity": "10MiB",
            "options": {"cluster_size": "128KiB", "lazy_refcounts": True},
        },
        {"name": "full", "format": "qcow2", "capacity": "10MiB", "options": {"preallocation": "falloc"}},
        {"name": "copy", "source": {"volume": "raw"}, "capacity": "2MiB"},
        {"name": "text", "source": {"content": "hello\n"}},
    ]
    checked = host.volume(volumes=volumes, check=True)
    made = host.volume(volumes=volumes)
    assert "failed" not in made, made["msg"]
    assert not [w for w in made["warnings"] if "verif" in w], made["warnings"]
    assert (checked["plan"], checked["diff"]) == (made["plan"], made["diff"])
    assert listed(host) == sorted(volume["name"] for volume in volumes)
    again = host.volume(volumes=volumes)
    assert not again["changed"], again["plan"]
    grown = host.volume(name="raw", capacity="2MiB")
    assert [c for entry in grown["plan"] for c in entry["commands"]] == [
        f"virsh -c '{host.uri}' vol-resize --pool {host.name} raw 2097152"
    ], grown
    shrunk = host.volume(name="raw", capacity="1MiB", allow=["shrink"])
    assert "failed" not in shrunk, shrunk
    gone = host.volume(volumes=[{"name": "over"}, {"name": "base"}], state="absent")
    assert "failed" not in gone, gone
    assert "over" not in listed(host)


def actions(result) -> list[str]:
    return [entry["action"] for entry in result["plan"]]


def commands(result) -> list[str]:
    return [command for entry in result["plan"] for command in entry["commands"]]


def test_a_transient_pool_is_shown_as_one_and_becomes_persistent(daemon_host):
    host = daemon_host
    host.images.mkdir(parents=True)
    host.daemon.virsh("pool-create-as", host.name, "dir", "--target", host.images)
    uuid = host.daemon.virsh("pool-uuid", host.name)
    (record,) = host.pool_info(name=host.name)
    assert (record["persistent"], record["state"], record["uuid"]) == (False, "active", uuid)
    made = host.pool(name=host.name, type="dir", path=str(host.images))
    assert actions(made) == ["define"]
    assert (made["pool"]["persistent"], made["pool"]["uuid"]) == (True, uuid)
    assert not host.pool(name=host.name, type="dir", path=str(host.images))["changed"]


def test_a_definition_that_waits_for_the_next_start_is_no_reason_to_say_all_is_well(daemon_images):
    host = daemon_images
    other = host.root / "other"
    text = host.daemon.virsh("pool-dumpxml", host.name).replace(str(host.images), str(other))
    (host.root / "next.xml").write_text(text)
    host.daemon.virsh("pool-define", host.root / "next.xml")
    assert str(host.images) in host.daemon.virsh("pool-dumpxml", host.name)
    refused = host.pool(name=host.name, type="dir", path=str(other))
    assert refused["error"]["code"] == "restart_needed", refused
    done = host.pool(name=host.name, type="dir", path=str(other), allow=["restart"])
    assert actions(done) == ["stop", "build", "start"], done
    assert str(other) in host.daemon.virsh("pool-dumpxml", host.name)
    assert not host.pool(name=host.name, type="dir", path=str(other))["changed"]


def test_what_the_daemon_has_not_seen_is_shown_to_it_once(daemon_images):
    host = daemon_images
    (host.images / "stranger").write_bytes(bytes(4096))
    checked = host.volume(name="stranger", capacity=4096, check=True)
    assert actions(checked) == ["refresh"]
    assert "stranger" not in listed(host)
    (record,) = host.volume_info()
    assert "has not looked at it" in record["problem"]
    done = host.volume(name="stranger", capacity=4096)
    assert commands(done) == [f"virsh -c '{host.uri}' pool-refresh {host.name}"]
    assert "stranger" in listed(host)
    assert not host.volume(name="stranger", capacity=4096)["changed"]


def test_one_task_refreshes_once(daemon_images):
    host = daemon_images
    (host.images / "stranger").write_bytes(bytes(4096))
    (host.images / "gone").write_bytes(bytes(4096))
    host.daemon.virsh("pool-refresh", host.name)
    (host.images / "gone").unlink()
    (host.images / "late").write_bytes(bytes(4096))
    volumes = [
        {"name": "late", "state": "absent"},
        {"name": "gone", "capacity": 8192},
        {"name": "stranger", "capacity": 4096},
        {"name": "text", "source": {"content": "x"}},
    ]
    done = host.volume(volumes=volumes)
    assert "failed" not in done, done
    assert sum("pool-refresh" in command for command in commands(done)) <= 1
    assert listed(host) == ["gone", "stranger", "text"]
    assert not host.volume(volumes=volumes)["changed"]


def test_a_directory_that_went_away_under_a_running_pool_is_made_again(daemon_images):
    host = daemon_images
    host.images.rmdir()
    (record,) = host.pool_info(name=host.name)
    assert record["state"] == "inactive"
    done = host.pool(name=host.name, type="dir", path=str(host.images))
    assert actions(done) == ["build", "start"], done
    assert host.images.is_dir()
    assert not host.pool(name=host.name, type="dir", path=str(host.images))["changed"]


@pytest.mark.thorough
def test_a_thousand_volumes_are_one_task(daemon_images):
    host = daemon_images
    host.volume(name="base", format="qcow2", capacity="1GiB")
    volumes = [
        {"name": f"vm{number}", "format": "qcow2", "backing": {"volume": "base", "format": "qcow2"}}
        for number in range(1000)
    ]
    done = host.volume(volumes=volumes)
    assert "failed" not in done, done["msg"]
    assert len(listed(host)) == 1001
    assert not host.volume(volumes=volumes)["changed"]


def test_a_daemon_that_dies_in_the_middle(daemon_images, monkeypatch):
    from ansible_collections.virt.storage.plugins.module_utils.host.daemon import Daemon as Connection

    host = daemon_images
    call, numbers = Connection.call, itertools.count(1)  # calls come from several threads

    def dying(self, op):
        if next(numbers) == 3:
            host.daemon.kill()
        return call(self, op)

    monkeypatch.setattr(Connection, "call", dying)
    volumes = [{"name": f"v{number}", "capacity": "1MiB"} for number in range(6)]
    lost = host.volume(volumes=volumes)
    assert lost["error"]["code"] == "daemon_lost", lost
    monkeypatch.undo()
    assert host.volume(volumes=volumes)["error"]["code"] == "daemon_down"
    host.daemon.start()
    assert host.pool(name=host.name)["pool"]["state"] == "active"
    done = host.volume(volumes=volumes)
    assert "failed" not in done, done
    assert listed(host) == [volume["name"] for volume in volumes]
    assert not host.volume(volumes=volumes)["changed"]


def test_a_file_that_the_daemon_can_not_read_stops_its_pool_and_the_error_says_so(daemon_images):
    host = daemon_images
    (host.images / "short").write_bytes(b"QFI\xfb" + bytes([0, 0, 0, 3]) + bytes(50))
    failed = host.volume(name="text", source={"content": "x"})
    assert failed["error"]["code"] == "daemon_failed"
    assert failed["changed"]
    assert "has stopped pool" in failed["msg"], failed["msg"]
    assert (host.images / "text").read_text() == "x"
    assert "it can't read short in" in failed["msg"]
    assert host.pool_info(name=host.name)[0]["state"] == "inactive"
    assert "it can't read short in" in host.pool(name=host.name)["msg"]
    (host.images / "short").unlink()
    assert actions(host.pool(name=host.name)) == ["start"]
    assert not host.volume(name="text", source={"content": "x"})["changed"]
