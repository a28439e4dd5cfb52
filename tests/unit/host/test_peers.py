# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which daemon is on this host, and whether it sees what we see."""

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import accounts, peers
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


@pytest.mark.parametrize(
    ("uri", "remote"),
    [
        ("qemu:///system", False),
        ("qemu:///session", False),
        ("storage:///system?socket=/tmp/s", False),
        ("qemu+unix:///system", False),
        ("qemu+unix:///system?socket=/tmp/s", False),
        ("test:///default", False),
        ("qemu+ssh://root@host/system", True),
        ("qemu+ssh:///system", True),  # by way of ssh to this host: another mount namespace, for all we know
        ("qemu+tls://host/system", True),
        ("qemu+tcp:///system", True),
        ("qemu://host/system", True),
        ("qemu+ext:///system?command=/bin/true", True),
        ("qemu+libssh2://host:22/system", True),
    ],
)
def test_which_uris_are_those_of_other_hosts(uri, remote):
    assert peers.is_remote(uri) == remote


@pytest.fixture
def listening(tmp_path, monkeypatch):
    """A socket that this process listens on."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        yield path


def test_the_process_behind_a_socket(listening, monkeypatch, tmp_path):
    assert peers.listener(listening) == os.getpid()
    assert peers.listener(str(tmp_path / "none")) is None
    monkeypatch.setattr(peers, "_name", lambda pid: "libvirtd" if pid == os.getpid() else "")
    uri = f"qemu:///system?socket={listening}"
    assert peers.daemon_process(uri) == os.getpid()
    assert peers.daemon_process(uri.replace("qemu:", "qemu+ssh:")) is None
    assert peers.daemon_process(uri.replace("qemu:", "test:")) is None
    assert peers.daemon_process("qemu:///system?socket=/no/such/socket") is None


def test_a_socket_that_systemd_opened_for_its_daemon(listening, monkeypatch):
    """The daemon is the one that holds the socket, not any that runs here."""
    uri = f"qemu:///system?socket={listening}"
    monkeypatch.setattr(peers, "listener", lambda path: 1)
    monkeypatch.setattr(peers, "_name", lambda pid: "virtstoraged" if pid in (os.getpid(), os.getppid()) else "")
    assert peers.daemon_process(uri) == os.getpid()
    monkeypatch.setattr(peers, "_name", lambda pid: "virtstoraged" if pid == os.getppid() else "")
    assert peers.daemon_process(uri) is None


def test_a_socket_that_is_forwarded(listening, monkeypatch):
    """Behind it may be the daemon of another host, though one runs here, too."""
    monkeypatch.setattr(peers, "listener", lambda path: os.getppid())
    monkeypatch.setattr(peers, "_name", lambda pid: "libvirtd" if pid == os.getpid() else "sshd")
    assert peers.daemon_process(f"qemu:///system?socket={listening}") is None


def test_the_sockets_of_a_user(monkeypatch):
    monkeypatch.setattr(peers.os, "geteuid", lambda: 7)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    tried = []
    monkeypatch.setattr(peers, "listener", tried.append)
    assert peers.daemon_process("qemu:///session") is None
    assert tried[0] == "/run/user/7/libvirt/libvirt-sock"
    assert peers.daemon_process("qemu:///system") is None
    assert "/run/libvirt/libvirt-sock" in tried


def test_the_same_files(tmp_path):
    pid = os.getpid()
    (tmp_path / "file").touch()
    assert peers.same_files(pid, str(tmp_path / "file"))
    assert peers.same_files(pid, str(tmp_path / "not" / "there" / "yet"))
    assert not peers.same_files(2**22 + 1, str(tmp_path))  # no such process
    assert peers.may_stand_in(pid)
    assert not peers.may_stand_in(2**22 + 1)


# -- accounts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["auto", "native:///system", "native:///?root=/x", "qemu:///system"])
def test_names_of_this_host(uri):
    owner, group = accounts.accounts_of(uri)
    assert (owner("root"), group("root")) == (0, 0)
    assert (owner("7"), group(None)) == (7, None)


def test_names_mean_nothing_on_another_host():
    owner, group = accounts.accounts_of("qemu+ssh://host/system")
    assert (owner("7"), owner(7), group("8"), group(None)) == (7, 7, 8, None)
    for resolve, code in ((owner, "unknown_owner"), (group, "unknown_group")):
        with pytest.raises(StorageError) as caught:
            resolve("root")
        assert caught.value.code == code
        assert "number" in caught.value.hint
        with pytest.raises(StorageError):
            resolve("99999999999")
