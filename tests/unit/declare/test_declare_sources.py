# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parameters of storage_pool_sources: whom they ask by what, and what is refused before anybody is asked."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.declare.pools import source_of
from ansible_collections.virt.storage.plugins.module_utils.declare.sources import sources_goal
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Adapter, Source, SourceDevice, SourceHost

OPTIONS = ("host", "hosts", "dir", "device", "devices", "name", "adapter", "format")
ALL = ("nfs", "glusterfs", "cifs")


def filled(given):
    return None if given is None else {**dict.fromkeys(OPTIONS), **given}


def goal(kind="netfs", source=None, wait_for=None, **more):
    params = {"type": kind, "source": filled(source), "username": None, "password": None, "free": False, **more}
    return sources_goal({**params, "wait_for": None if wait_for is None else [filled(each) for each in wait_for]})


def refused(*args, **params):
    with pytest.raises(StorageError) as caught:
        goal(*args, **params)
    assert caught.value.hint
    return caught.value.code


@pytest.mark.parametrize(
    ("params", "hosts", "formats"),
    [
        ({"source": {"host": "nas1"}}, ("nas1",), ALL),
        ({"source": {"hosts": ["nas1", "nas2", "nas1"]}}, ("nas1", "nas2"), ALL),
        ({"source": {"host": "[2001:db8::1]"}}, ("2001:db8::1",), ALL),
        ({"source": {"host": "2001:db8::1"}}, ("2001:db8::1",), ALL),
        ({"source": {"host": "nas1", "format": "auto"}}, ("nas1",), ALL),
        ({"source": {"host": "nas1", "format": "nfs"}}, ("nas1",), ("nfs",)),
        ({"wait_for": [{"host": "nas1", "dir": "/a", "format": "nfs"}]}, ("nas1",), ("nfs",)),
        (
            {"wait_for": [{"host": "a", "dir": "x", "format": "cifs"}, {"host": "b", "dir": "/y", "format": "nfs"}]},
            ("a", "b"),
            ("nfs", "cifs"),
        ),
        ({"wait_for": [{"host": "nas1", "dir": "/a"}]}, ("nas1",), ALL),
        ({"source": {"host": "nas1"}, "wait_for": [{"dir": "/a", "format": "nfs"}]}, ("nas1",), ALL),
        ({"source": {"format": "nfs"}, "wait_for": [{"host": "nas1", "dir": "/a"}]}, ("nas1",), ("nfs",)),
        ({"kind": "gluster", "source": {"host": "nas1"}}, ("nas1",), ("glusterfs",)),
        ({"kind": "logical"}, (), ()),
        ({"kind": "disk", "wait_for": [{"device": "/dev/sdb"}]}, (), ()),
        ({"kind": "mpath", "wait_for": [{"device": "/dev/mapper/mpatha"}]}, (), ()),
    ],
)
def test_who_is_asked_by_what(params, hosts, formats):
    query = goal(**params).query
    assert (query.hosts, query.formats) == (hosts, formats)


def test_what_is_waited_for():
    told = goal("logical", source={"name": "vg0"}, wait_for=[{"devices": ["/dev/sdb", "/dev/sdc"]}, {"name": "vg0"}])
    assert told.like == Source(name="vg0")
    assert told.wanted == (Source(devices=(SourceDevice("/dev/sdb"), SourceDevice("/dev/sdc"))), Source(name="vg0"))
    assert told.query.paths == ("/dev/sdb", "/dev/sdc")


def test_nothing_to_wait_for_is_no_wait():
    assert goal("disk", wait_for=[]).wanted == ()


def test_an_adapter_is_what_is_asked_for():
    adapter = Adapter("scsi_host", parent_address="0000:00:1f.2", unique_id=1)
    query = goal("scsi", {"adapter": {"parent_address": "0:0:1f.2", "unique_id": 1}}).query
    assert query.adapters == (adapter,)


def test_directories_are_in_normal_form():
    assert goal(wait_for=[{"host": "nas1", "dir": "/a//b/"}]).wanted == (
        Source(hosts=(SourceHost("nas1"),), dir="/a/b"),
    )


def test_an_account_for_cifs():
    query = goal(source={"host": "nas1"}, username="me", password="secret").query
    assert (query.username, query.password) == ("me", "secret")
    assert "secret" not in repr(query)


@pytest.mark.parametrize(
    ("code", "params"),
    [
        ("missing_option", {}),
        ("missing_option", {"kind": "gluster"}),
        ("missing_option", {"source": {"format": "nfs"}}),
        ("missing_option", {"wait_for": [{"host": "nas1"}]}),
        ("missing_option", {"source": {"host": "a"}, "wait_for": [{"dir": "/a"}, {"format": "nfs"}]}),
        ("missing_option", {"wait_for": [{"host": "nas1", "dir": "/a"}, {"dir": "/b"}]}),
        ("missing_option", {"kind": "logical", "wait_for": [{}]}),
        ("missing_option", {"kind": "fs", "wait_for": [{"format": "ext4"}]}),
        ("invalid_option", {"source": {"host": "nas1", "format": "smb"}}),
        ("invalid_option", {"source": {"host": "nas1", "device": "/dev/sdb"}}),
        ("invalid_option", {"source": {"host": "nas1:2049"}}),
        ("invalid_option", {"source": {"host": "--help"}}),
        ("invalid_option", {"source": {"host": "nas1/export"}}),
        ("invalid_option", {"source": {"host": "nas 1"}}),
        ("invalid_option", {"source": {"host": ""}}),
        ("invalid_option", {"source": {"hosts": ["nas1", ""]}}),
        ("invalid_option", {"source": {"host": "nas1", "dir": "/a\nb"}}),
        ("invalid_option", {"kind": "logical", "source": {"host": "nas1"}}),
        ("invalid_option", {"kind": "disk", "source": {"name": "vg0"}}),
        ("missing_option", {"kind": "scsi", "wait_for": [{}]}),
        ("missing_option", {"kind": "scsi", "source": {"adapter": {"type": "fc_host"}}}),
        ("missing_option", {"kind": "mpath", "wait_for": [{}]}),
        ("invalid_option", {"kind": "mpath", "source": {"name": "mpatha"}}),
        ("invalid_path", {"kind": "disk", "source": {"device": "sdb"}}),
        ("invalid_path", {"kind": "fs", "wait_for": [{"devices": ["/dev/sdb", "sdc"]}]}),
        ("invalid_option", {"kind": "disk", "username": "me", "password": "x"}),
        ("invalid_option", {"source": {"host": "a", "format": "nfs"}, "username": "me", "password": "x"}),
        ("missing_option", {"source": {"host": "a"}, "username": "me"}),
        ("missing_option", {"source": {"host": "a"}, "password": "x"}),
        ("invalid_option", {"source": {"host": "a"}, "username": "me", "password": "x\ny"}),
        ("invalid_option", {"source": {"host": "a"}, "username": "me", "password": " x"}),
        ("invalid_option", {"source": {"host": "a"}, "username": "", "password": "x"}),
    ],
)
def test_what_is_refused(code, params):
    assert refused(**params) == code


def test_no_password_in_an_error():
    with pytest.raises(StorageError) as caught:
        goal(source={"host": "a"}, username="me", password="secret\n")
    assert "secret" not in str(caught.value)


def test_the_words_of_storage_pool_are_meant():
    assert source_of(filled({"host": "nas1", "dir": "/a"})) == Source(hosts=(SourceHost("nas1"),), dir="/a")
