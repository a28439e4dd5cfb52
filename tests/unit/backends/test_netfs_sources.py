# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How servers are asked, with stand-ins for the tools; with real servers: tests/integration/test_sources_servers.py."""

from __future__ import annotations

import os
import stat
import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import netfs_sources
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.model.discovery import CIFS, GLUSTERFS, NFS, Query

SHOWMOUNT = 'test "$*" = "--no-headers --exports -- nas1" && echo "/export/a b (everyone)" || exit 1'
SMBCLIENT = """
for word; do case $word in
    --authentication-file=*) cat "${word#*=}" > "$TOLD" ;;
    --no-pass) echo guest > "$TOLD" ;;
esac; done
printf '%s\\n' "$@" > "$TOLD.argv"
env > "$TOLD.env"
echo 'Disk|images|'; exit 1
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Makes a tool of a shell script; there are no others than those, and what scripts need."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    monkeypatch.setattr(netfs_sources, "ensure_listening", lambda host, port, seconds: None)

    def make(name, script):
        path = place / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return make


def look(hosts=("nas1",), formats=(NFS,), seconds=20, **more):
    return netfs_sources.find(Query("netfs", hosts, formats, **more), Look(seconds, "", ""))


def test_exports(tools):
    tools("showmount", SHOWMOUNT)
    found = look()
    assert [(each.source.dir, each.source.format, each.clients) for each in found.sources] == [("/export/a b", NFS, ())]
    assert (found.unanswered, found.answered) == ((), True)


def test_every_host_is_asked_and_one_that_refuses_hides_no_other(tools):
    tools("showmount", SHOWMOUNT)
    found = look(("other", "nas1"))
    assert [each.source.hosts[0].name for each in found.sources] == ["nas1"]
    assert [(each.host, each.format, each.error.code) for each in found.unanswered] == [
        ("other", NFS, "command_failed")
    ]
    assert found.answered


def test_missing_tools_are_said_with_their_packages(tools):
    tools("showmount", SHOWMOUNT)
    found = look(formats=(NFS, GLUSTERFS, CIFS))
    assert [(each.format, each.error.code) for each in found.unanswered] == [
        (GLUSTERFS, "tool_missing"),
        (CIFS, "tool_missing"),
    ]
    assert "glusterfs-cli" in found.unanswered[0].error.hint
    assert "smbclient" in found.unanswered[1].error.hint


def test_a_dead_server_ends_at_the_deadline_and_hides_no_other(tools):
    tools("showmount", f'test "$4" = dead && exec sleep 60\n{SHOWMOUNT}')
    began = time.monotonic()
    found = look(("dead", "nas1"), seconds=1)
    assert time.monotonic() - began < 10
    assert [each.error.code for each in found.unanswered] == ["deadline"]
    assert len(found.sources) == 1


def test_what_can_be_no_source_is_left_out_and_told(tools):
    tools("showmount", r"printf '/export/\351t\351 *\n/export/ok *\n'")
    found = look()
    assert [each.source.dir for each in found.sources] == ["/export/ok"]
    assert len(found.left_out) == 1


def test_an_account_is_handed_over_unseen(tools, tmp_path):
    tools("smbclient", SMBCLIENT)
    found = look(formats=(CIFS,), username="WORK\\me", password="p%w d#\\")
    assert [each.source.dir for each in found.sources] == ["images"]
    assert (tmp_path / "told").read_text() == "username=me\npassword=p%w d#\\\ndomain=WORK\n"
    for name in ("told.argv", "told.env"):
        assert "p%w" not in (tmp_path / name).read_text()


def test_without_an_account_a_guest_asks(tools, tmp_path):
    tools("smbclient", SMBCLIENT)
    look(formats=(CIFS,))
    assert (tmp_path / "told").read_text() == "guest\n"


def test_no_descriptor_is_left_open(tools):
    tools("smbclient", SMBCLIENT)
    before = len(os.listdir("/proc/self/fd"))
    look(formats=(CIFS,), username="me", password="secret")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_refused_login_says_why(tools):
    tools("smbclient", "echo 'session setup failed: NT_STATUS_LOGON_FAILURE'; exit 1")
    error = look(formats=(CIFS,)).unanswered[0].error
    assert (error.code, error.stderr) == ("command_failed", "session setup failed: NT_STATUS_LOGON_FAILURE")
    assert error.hint


@pytest.mark.parametrize(
    ("tool", "protocol", "said", "code"),
    [
        ("showmount", NFS, "clnt_create: RPC: Port mapper failure - Timed out", "deadline"),
        ("showmount", NFS, "clnt_create: RPC: Unable to send; errno = No route to host", "deadline"),
        ("showmount", NFS, "clnt_create: RPC: Unable to receive; errno = Connection refused", "command_failed"),
        ("showmount", NFS, "clnt_create: RPC: Program not registered", "command_failed"),
        ("smbclient", CIFS, "do_connect: Connection to nas1 failed (Error NT_STATUS_IO_TIMEOUT)", "deadline"),
        ("smbclient", CIFS, "do_connect: Connection to nas1 failed (Error NT_STATUS_HOST_UNREACHABLE)", "deadline"),
        (
            "smbclient",
            CIFS,
            "do_connect: Connection to nas1 failed (Error NT_STATUS_CONNECTION_REFUSED)",
            "command_failed",
        ),
    ],
)
def test_who_does_not_answer_in_the_time_of_the_tool_is_silent(tools, tool, protocol, said, code):
    tools(tool, f"echo '{said}' >&2; exit 1")
    error = look(formats=(protocol,)).unanswered[0].error
    assert (error.code, error.subject) == (code, "nas1")
    assert said in f"{error.message} {error.stderr}"
    assert error.hint


GLUSTER = """
echo '<cliOutput><opRet>0</opRet><volInfo><volumes>'
echo '<volume><name>gv0</name><id>u</id><statusStr>Started</statusStr></volume>'
echo '<volume><name>gv1</name><id>v</id><statusStr>Stopped</statusStr></volume></volumes></volInfo></cliOutput>'
"""


@pytest.mark.parametrize(("kind", "field"), [("netfs", "dir"), ("gluster", "name")])
def test_gluster_volumes(tools, kind, field):
    tools("gluster", GLUSTER)
    found = netfs_sources.find(Query(kind, ("nas1",), (GLUSTERFS,)), Look(20, "", "")).sources
    assert [(getattr(each.source, field), each.free) for each in found] == [("gv0", True), ("gv1", False)]
    assert found[1].why_not == ("the volume is not started (Stopped)",)


def test_what_gluster_says_with_status_0_may_be_an_error(tools):
    tools("gluster", "echo '<cliOutput><opRet>-1</opRet><opErrstr>no such host</opErrstr></cliOutput>'")
    error = look(formats=(GLUSTERFS,)).unanswered[0].error
    assert (error.code, error.stderr) == ("command_failed", "no such host")
