# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A daemon on another host: a real libvirtd, reached through libvirt's transport for ssh with a stand-in for ssh that
connects to its socket. All that the engine knows of it is its uri, so it takes it for one on another host.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from . import loops
from .conftest import Host
from .test_daemon_types import MIB, actions, code, converges, ok, run

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.libvirt_binding,
    pytest.mark.xdist_group("daemon"),
]

_SSH = """#!{python}
import os, socket, sys, threading
daemon = socket.socket(socket.AF_UNIX)
daemon.connect({path!r})
def copy():
    while data := os.read(0, 65536):
        daemon.sendall(data)
    daemon.shutdown(socket.SHUT_WR)
threading.Thread(target=copy, daemon=True).start()
while data := daemon.recv(65536):
    os.write(1, data)
"""


@pytest.fixture
def far(daemon_host, tmp_path, monkeypatch):
    """A directory pool of another host. ``elsewhere`` is that host's directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = daemon_host.daemon.uri.partition("socket=")[2]
    script = tmp_path / "ssh"
    script.write_text(_SSH.format(python=sys.executable, path=path))
    script.chmod(0o755)
    driver = daemon_host.uri.partition(":")[0]
    host = Host(tmp_path, f"{driver}+ssh://elsewhere.test/system?command={script}&proxy=netcat", daemon_host.name)
    host.daemon = daemon_host.daemon
    return host


@pytest.fixture
def pool(far):
    return {"name": far.name, "type": "dir", "path": str(far.images)}


@pytest.fixture
def files(far, pool):
    ok(far.pool(**pool))
    return far


def test_a_pool_of_another_host(far, pool):
    made = converges(far.pool, **pool, autostart=True, mode="0750")
    assert actions(made) == ["define", "start", "autostart"]
    assert made["pool"]["mode"] == "0750"
    assert far.images.stat().st_mode & 0o777 == 0o750
    assert any("processes" in text for text in made["pool"]["unseen"])
    assert far.pool_info()[0]["unseen"] == made["pool"]["unseen"]
    assert "ssh://elsewhere.test" in made["plan"][1]["commands"][0]
    assert code(far.pool(**pool, mode="0700")) == "daemon_cannot"
    converges(far.pool, **pool, state="inactive")
    converges(far.pool, **pool, mode="0700")  # a directory that is there gets it, too
    assert far.images.stat().st_mode & 0o777 == 0o700
    converges(far.pool, **pool, state="absent")
    assert far.images.is_dir()


def test_nothing_of_it_is_noted_or_removed_here(far, pool, tmp_path):
    ok(far.pool(**pool))
    ok(far.volume(name="raw", capacity="1MiB"))
    assert code(far.pool(**pool, state="deleted")) == "pool_nonempty"
    gone = converges(far.pool, **pool, state="deleted", allow=["nonempty"])
    assert actions(gone) == ["delete", "stop", "undefine"]
    assert any("could not look at the processes" in text for text in gone["warnings"])
    assert list(far.images.iterdir()) == []  # itself it stays


def test_locks_are_those_of_the_uri(far, pool):
    from ansible_collections.virt.storage.plugins.module_utils.engines.libvirt import LibvirtEngine

    other = far.uri.replace("elsewhere", "nowhere")
    assert LibvirtEngine(far.uri, "", 5)._lock_directory() != LibvirtEngine(other, "", 5)._lock_directory()


@pytest.mark.parametrize("option", ["owner", "group"])
def test_names_of_this_host_mean_nothing_there(far, pool, option):
    for check in (True, False):
        assert code(far.pool(check=check, **pool, **{option: "root"})) == f"unknown_{option}"
        assert code(far.volume(check=check, name="v", capacity=1, **{option: "root"})) == f"unknown_{option}"
    converges(far.pool, **pool, **{option: "0"})
    converges(far.volume, name="v", capacity=1, **{option: 0})


def test_images_of_another_host(files, tmp_path):
    far = files
    (tmp_path / "data").write_bytes(b"\1" * 100_000)
    volumes = [
        {"name": "base", "format": "qcow2", "capacity": "8MiB"},
        {"name": "over", "format": "qcow2", "backing": {"volume": "base", "format": "qcow2"}, "capacity": "10MiB"},
        {"name": "text", "source": {"content": "hello"}},
        {"name": "data", "source": {"path": str(tmp_path / "data")}, "capacity": "1MiB"},
        {"name": "copy", "source": {"volume": "base"}, "capacity": "16MiB"},
    ]
    converges(far.volume, volumes=volumes)
    assert (far.images / "text").read_bytes() == b"hello"
    assert (far.images / "data").read_bytes().rstrip(b"\0") == b"\1" * 100_000
    assert '"virtual-size": 16777216' in run("qemu-img", "info", "--output=json", far.images / "copy")
    assert code(far.volume(name="base", state="absent")) == "volume_backing"
    converges(far.volume, volumes=[{"name": "base"}, {"name": "over"}], state="absent")
    ours = tmp_path / "ours"
    ours.write_bytes(b"ours")
    assert code(far.volume(name="x", source={"path": "/no/such/file"})) == "source_missing"


def test_an_upload_that_fails_leaves_nothing(files, tmp_path, monkeypatch):
    import libvirt

    (tmp_path / "data").write_bytes(b"\1" * 100_000)

    def broken(self, handler, opaque):
        raise OSError(5, "Input/output error", str(tmp_path / "data"))

    monkeypatch.setattr(libvirt.virStream, "sendAll", broken)
    failed = files.volume(name="data", source={"path": str(tmp_path / "data")})
    assert failed["volumes"][0]["status"] == "failed"
    assert failed["error"]["code"] == "not_readable"
    assert os.listdir(files.images) == []
    monkeypatch.undo()


def test_a_device_of_another_host_is_not_looked_at_here(far, tmp_path):
    """Though it has the same path here, and holds something there."""
    file = tmp_path / "device"
    file.touch()
    os.truncate(file, 64 * MIB)
    device = loops.attach(file)
    try:
        run("mkfs.ext4", "-q", device)
        pool = {
            "name": far.name,
            "type": "fs",
            "path": str(tmp_path / "mnt"),
            "source": {"device": device, "format": "ext2"},
        }
        planned = ok(far.pool(check=True, **pool))
        assert any("only the daemon can look at" in text for text in planned["warnings"])
        failed = far.pool(**{**pool, "source": {"device": device, "format": "vfat"}})
        assert failed["error"]["code"] == "storage_foreign", failed["error"]  # in the daemon's own words
        assert "overwrite" in failed["error"]["hint"]
        ok(far.pool(name=far.name, state="absent"))
        made = converges(far.pool, **{**pool, "source": {"device": device, "format": "ext4"}})
        assert "what its devices hold" in made["pool"]["unseen"]
        ok(far.pool(name=far.name, state="absent"))
    finally:
        far.daemon.remove_pools()
        loops.detach(device)


def test_a_host_that_is_not_reached(far, pool):
    Path(far.root / "ssh").write_text("#!/bin/sh\nexit 255\n")
    assert code(far.pool(**pool)) == "daemon_down"
    Path(far.root / "ssh").write_text("#!/bin/sh\nexec sleep 60\n")
    assert code(far.pool(**pool, timeout=1)) == "deadline"
