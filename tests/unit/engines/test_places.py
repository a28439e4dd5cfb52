# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which engine a uri names, where its files are, and when a daemon is in the way."""

from __future__ import annotations

import socket

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines import places, select
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


@pytest.fixture(autouse=True)
def without_a_daemon(monkeypatch, tmp_path):
    monkeypatch.setattr(select, "_DAEMONS", (str(tmp_path / "libvirtd"),))
    monkeypatch.setattr(select, "SYSTEM_SOCKETS", (str(tmp_path / "libvirt-sock"),))
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/u")


@pytest.fixture
def daemon(tmp_path):
    path = tmp_path / "libvirtd"
    path.touch()
    return str(path)


def engine(uri, allow=(), reading=False):
    return select.engine_for(uri, allow, 30, reading)


def find(uri, allow=(), reading=False):
    return engine(uri, allow, reading).places


def refused(uri, allow=(), reading=False):
    with pytest.raises(StorageError) as caught:
        find(uri, allow, reading)
    assert caught.value.hint
    assert caught.value.subject == uri
    return caught.value.code


def test_the_system():
    found = find("native:///system")
    assert found.uri == "native:///system"
    assert (found.config, found.run) == ("/etc/libvirt/storage", "/run/libvirt/storage")
    assert found.locks == "/run/lock/virt-storage"
    assert "/etc/libvirt/qemu" in found.guests


@pytest.mark.parametrize("uri", ["native:///system", "native:///session", "native:///?root=/srv/test"])
@pytest.mark.parametrize("driver", ["qemu", "lxc", "libxl", "ch"])
def test_guests_of_all_drivers_are_known(uri, driver):
    """Shut off, and running."""
    assert {f"/etc/libvirt/{driver}", f"/run/libvirt/{driver}"} <= set(find(uri).guests)


def test_the_session():
    found = find("native:///session")
    assert found.uri == "native:///session"
    assert found.config == "/home/u/.config/libvirt/storage"
    assert found.run == "/home/u/.cache/libvirt/storage/run"
    assert found.locks == "/home/u/.cache/virt-storage"
    assert found.records.startswith("/home/u/.local/state/")
    assert "/home/u/.config/libvirt/qemu" in found.guests
    assert "/etc/libvirt/qemu" in found.guests


def test_the_session_of_xdg(monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    found = find("native:///session")
    assert (found.config, found.run, found.locks) == ("/c/libvirt/storage", "/r/libvirt/storage/run", "/r/virt-storage")
    assert found.records.startswith("/s/")


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("native:///?root=/srv/test", "/srv/test"),
        ("native:///?root=/srv//test/", "/srv/test"),
        ("native:///?root=/srv/a%20b", "/srv/a b"),
        ("native:///?root=/srv/x/../test", "/srv/test"),
    ],
)
def test_a_root_of_its_own(uri, root):
    found = find(uri)
    assert found.uri == f"native:///?root={root}"
    for directory in (found.config, found.run, found.locks, found.records, found.guests[0]):
        assert directory.startswith(f"{root}/")
    assert "/etc/libvirt/qemu" in found.guests


@pytest.mark.parametrize(
    "uri",
    ["native:", "native://", "native:///", "native:///other", "native:///system/x", "native:///System", "native:///?root=",
     "native:///?root=test", "native:///?root=/", "native:///?root=//", "native:///?root=///", "native:///?root=/.",
     "native:///?root=/srv/..", "native:///?root=/srv&x=1", "native:///?other=/srv", "native:///system?root=/srv",
     "native:///session?root=/srv", "native://host/system", "native://host/?root=/srv", "native:///system#x",
     "native:///?root=../srv", "native://["],
)  # fmt: skip
def test_what_is_not_understood(uri):
    assert refused(uri) == "invalid_uri"


@pytest.mark.parametrize("uri", ["", "system", "/srv", "Auto", "qemu:/system", "qemu:// system", "native"])
def test_what_is_no_uri_at_all(uri):
    assert refused(uri) == "invalid_uri"


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu+ssh://u@host/system",
        "test:///default",
        "storage:///system?socket=/s",
        "qemu+tls://h:1/system",
    ],
)
def test_every_other_uri_is_a_daemons(uri):
    found = engine(uri)
    assert (found.name, found.uri) == ("libvirt", uri)


@pytest.mark.parametrize("allow", [(), ("restart",)])
def test_beside_a_daemon_the_systems_files_are_left_alone(daemon, allow):
    assert refused("native:///system", allow) == "beside_daemon"


def test_beside_a_daemon_with_its_word(daemon):
    assert find("native:///system", ("beside_daemon",)).uri == "native:///system"


def test_reading_beside_a_daemon(daemon):
    assert find("native:///system", reading=True).uri == "native:///system"


@pytest.mark.parametrize("uri", ["native:///session", "native:///?root=/srv/test"])
def test_a_daemon_has_nothing_to_do_with_other_places(daemon, uri):
    assert find(uri)


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("allow", [(), ("beside_daemon",)])
@pytest.mark.parametrize(("user", "uri"), [(0, "qemu:///system"), (1000, "qemu:///session")])
def test_auto_never_goes_past_a_daemon(daemon, monkeypatch, allow, reading, user, uri):
    monkeypatch.setattr(select.os, "geteuid", lambda: user)
    found = engine("auto", allow, reading)
    assert (found.name, found.uri) == ("libvirt", uri)
    assert daemon in found.why


@pytest.mark.parametrize(("user", "uri"), [(0, "native:///system"), (1000, "native:///session")])
def test_auto_without_a_daemon(monkeypatch, user, uri):
    monkeypatch.setattr(places.os, "geteuid", lambda: user)
    found = find("auto")
    assert found.uri == uri
    assert "no daemon" in found.why


def test_what_is_installed_or_running(daemon, monkeypatch, tmp_path):
    assert select.daemon() == f"{daemon} is installed"
    monkeypatch.setattr(select, "_DAEMONS", ())
    assert select.daemon() == ""
    path = str(tmp_path / "libvirt-sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert select.daemon() == ""  # left there by one that is gone
        server.listen()
        assert select.daemon() == f"a daemon listens at {path}"
