# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The private libvirtd that other tests judge by is private, shares its files with the native engine, and ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .daemon import Daemon

pytestmark = pytest.mark.root


def test_it_has_no_pools_but_its_own(daemon, tmp_path):
    assert daemon.pools("--all") == []
    daemon.virsh("pool-define-as", "mine", "dir", "--target", tmp_path)
    assert daemon.pools("--all") == ["mine"]
    assert Path(daemon.files, "etc/libvirt/storage/mine.xml").exists()
    assert not os.path.exists("/etc/libvirt/storage/mine.xml")


def test_it_sees_what_the_tests_see(daemon, tmp_path):
    seen = os.stat(f"/proc/{daemon.pid}/root{tmp_path}")
    assert os.path.samestat(seen, os.stat(tmp_path))
    assert Path(f"/proc/{daemon.pid}/exe").resolve().name == "libvirtd"


def test_definitions_outlive_it_however_it_ends(daemon, tmp_path):
    daemon.virsh("pool-define-as", "kept", "dir", "--target", tmp_path)
    for end in (daemon.stop, daemon.kill):
        before = daemon.pid
        end()
        assert not daemon.running
        assert not os.path.exists(f"/proc/{before}")
        daemon.restart()
        assert daemon.pid != before
        assert daemon.pools("--all") == ["kept"]


def test_nothing_is_left(daemon, tmp_path):
    other = Daemon(tmp_path / "other")
    other.start()
    sockets, process = Path(other.uri.partition("=")[2]).parent, other.pid
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    assert sockets.is_dir()
    assert str(other.files) not in mounts
    other.close()
    assert not sockets.exists()
    assert not os.path.exists(f"/proc/{process}")


@pytest.mark.libvirt_binding
def test_the_binding_works_in_this_process(daemon, tmp_path):
    import libvirt

    connection = libvirt.open(daemon.uri)
    try:
        assert [pool.name() for pool in connection.listAllStoragePools()] == []
    finally:
        connection.close()
