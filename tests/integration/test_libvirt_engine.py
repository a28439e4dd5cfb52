# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools and volumes through a real libvirt daemon that sees the same files as the module."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root, pytest.mark.libvirt_binding, pytest.mark.xdist_group("daemon")]


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
    assert gone["changed"] and not host.images.exists(), gone
    assert not host.pool(name="images", type="dir", path=str(host.images), state="deleted")["changed"]


def listed(host) -> list[str]:
    return sorted(line.split()[0] for line in host.daemon.virsh("vol-list", host.name).splitlines() if line.strip())


def test_volumes_of_every_kind(daemon_images):
    host = daemon_images
    Path(host.root, "disk.img").write_bytes(b"\1" * 3_000_000)
    volumes = [
        {"name": "raw", "capacity": "1000001"},
        {"name": "part", "capacity": "4MiB", "allocation": "1MiB"},
        {"name": "base", "format": "qcow2", "source": {"path": f"{host.root}/disk.img"}},
        {"name": "over", "format": "qcow2", "backing": "base", "capacity": "10MiB", "mode": "0640"},
        {"name": "new", "format": "qcow2", "capacity": "10MiB", "options": {"cluster_size": "128KiB", "lazy_refcounts": True}},
        {"name": "full", "format": "qcow2", "capacity": "10MiB", "options": {"preallocation": "falloc"}},
        {"name": "copy", "source": {"volume": "raw"}, "capacity": "2MiB"},
        {"name": "text", "source": {"content": "hello\n"}},
    ]
    checked = host.volume(volumes=volumes, check=True)
    made = host.volume(volumes=volumes)
    assert "failed" not in made, made["msg"]
    assert not [w for w in made["warnings"] if "verif" in w], made["warnings"]
    assert checked["plan"] == made["plan"] and checked["diff"] == made["diff"]
    assert listed(host) == sorted(volume["name"] for volume in volumes)
    again = host.volume(volumes=volumes)
    assert not again["changed"], again["plan"]
    native = {**host.volume_info()[0]}
    grown = host.volume(name="raw", capacity="2MiB")
    assert [c for entry in grown["plan"] for c in entry["commands"]] == [
        f"virsh -c '{host.uri}' vol-resize --pool {host.name} raw 2097152"
    ], grown
    shrunk = host.volume(name="raw", capacity="1MiB", allow=["shrink"])
    assert "failed" not in shrunk, shrunk
    gone = host.volume(volumes=[{"name": "over"}, {"name": "base"}], state="absent")
    assert "failed" not in gone, gone
    assert "over" not in listed(host)
