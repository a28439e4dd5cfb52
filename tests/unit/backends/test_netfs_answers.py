# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tools of servers print, as recorded from nfs-utils 2.6.2, glusterfs 10.3 and Samba 4.17."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import netfs_answers as answers

EXPORTS = """\
/export/plain         (everyone)
/export/a b           127.0.0.1/32,10.0.0.0/8,*.example.com,2001:db8::/64
/export/with  two     @trusted
/export/t\u00e4st     netgroup
/                     *
"""
SHARES = """\
Anonymous login successful
Disk|pool|a comment | with a pipe
Disk|with space \u00fc|
Disk|hidden$|
Disk|print$|Printer Drivers
Disk|C$|Default share
Disk|ADMIN$|Remote Admin
Printer|laser|
IPC|IPC$|IPC Service (Samba 4.17.12-Debian)
SMB1 disabled -- no workgroup available
"""
VOLUMES = """\
<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<cliOutput>
  <opRet>0</opRet>
  <opErrno>0</opErrno>
  <opErrstr/>
  <volInfo>
    <volumes>
      <volume>
        <name>gv-stopped</name>
        <id>24909303-df34-4ed4-9319-0e15336a4d74</id>
        <status>0</status>
        <statusStr>Created</statusStr>
        <bricks>
          <brick uuid="e50b8114-b4b8-435e-863f-b60f18cb6ab9">127.0.0.2:/b<name>127.0.0.2:/b</name></brick>
        </bricks>
        <options><option><name>nfs.disable</name><value>on</value></option></options>
      </volume>
      <volume><name>gv0</name><id>87dfa05f</id><status>1</status><statusStr>Started</statusStr></volume>
      <count>2</count>
    </volumes>
  </volInfo>
</cliOutput>
"""
NO_VOLUME = """\
<cliOutput><opRet>-1</opRet><opErrno>30806</opErrno><opErrstr>Volume does not exist</opErrstr>
  <volInfo><volumes><count>0</count></volumes></volInfo></cliOutput>
"""


def test_exports_with_spaces_and_their_clients():
    assert answers.exports(EXPORTS) == [
        ("/export/plain", ()),
        ("/export/a b", ("127.0.0.1/32", "10.0.0.0/8", "*.example.com", "2001:db8::/64")),
        ("/export/with  two", ("@trusted",)),
        ("/export/t\u00e4st", ("netgroup",)),
        ("/", ()),
    ]


@pytest.mark.parametrize("printed", ["", "\n", "clnt_create: RPC: Program not registered\n", "Export list for nas1:\n"])
def test_no_exports(printed):
    assert answers.exports(printed) == []


def test_shares():
    """Those that every Windows host has are none to keep images in; a hidden one may be."""
    assert answers.shares(SHARES) == [
        ("pool", "a comment | with a pipe"),
        ("with space \u00fc", ""),
        ("hidden$", ""),
    ]


@pytest.mark.parametrize(
    "printed", ["", "session setup failed: NT_STATUS_LOGON_FAILURE\n", "tree connect failed: NT_STATUS_ACCESS_DENIED\n"]
)
def test_nothing_listed_is_not_no_shares(printed):
    assert answers.shares(printed) is None
    assert answers.shares("IPC|IPC$|IPC Service\n") == []


def test_gluster_volumes():
    assert answers.gluster_volumes(VOLUMES) == [
        ("gv-stopped", "24909303-df34-4ed4-9319-0e15336a4d74", "Created"),
        ("gv0", "87dfa05f", "Started"),
    ]


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        (NO_VOLUME, "Volume does not exist"),
        ("", "no XML"),
        ("Connection failed. Please check if gluster daemon is operational.", "no XML"),
        ("<!DOCTYPE x [<!ENTITY a 'a'>]><cliOutput><opRet>0</opRet></cliOutput>", "document type"),
        ("<cliOutput><opRet>-1</opRet><opErrno>2</opErrno><opErrstr/></cliOutput>", "error 2"),
    ],
)
def test_what_is_no_list_of_volumes(printed, why):
    with pytest.raises(answers.Unreadable, match=why):
        answers.gluster_volumes(printed)


@pytest.mark.parametrize(
    ("name", "good"),
    [("images", True), ("with space \u00fc", True), ("", False), ("a\nb", False), ("\ufffd", False), ("a\x7f", False)],
)
def test_usable_names(name, good):
    assert answers.usable(name) is good
