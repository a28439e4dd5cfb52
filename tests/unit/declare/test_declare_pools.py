# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parameters of storage_pool as nouns, and everything that is refused before any host is looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.declare.pools import pool_goal, pool_scope
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Adapter,
    Auth,
    Login,
    Permissions,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
    SourceVolume,
)
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES

OPTIONS = ("name", "uuid", "type", "path", "owner", "group", "mode", "source", "mount_options", "config_options",
           "features", "xml", "autostart", "allow")  # fmt: skip
UUID = "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10"
XML = f"<pool type='dir'><name>p</name><uuid>{UUID}</uuid><target><path>/srv/p</path></target></pool>"


def goal(**params):
    """The goal of a task with these options; owner and group ids are ten times their number."""
    filled = {**dict.fromkeys(OPTIONS), "state": "active", "build": "auto", **params}
    return pool_goal(filled, account, account)


def account(value):
    return None if value is None else int(value) * 10


def pool(**params):
    return goal(**{"name": "p", **params}).pool


def source(**given):
    """The source of a pool without a type: no type's rules apply."""
    return pool(source=given).source


def refused(**params):
    with pytest.raises(StorageError) as caught:
        goal(**params)
    assert caught.value.hint
    return caught.value


# -- every option -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param({}, Pool("p"), id="name"),
        pytest.param({"type": "dir"}, Pool("p", "dir"), id="type"),
        pytest.param({"uuid": UUID}, Pool("p", uuid=UUID), id="uuid"),
        pytest.param({"uuid": f"  {UUID.upper()}\n"}, Pool("p", uuid=UUID), id="uuid-upper"),
        pytest.param({"uuid": UUID.replace("-", "")}, Pool("p", uuid=UUID), id="uuid-without-dashes"),
        pytest.param({"path": "/srv/p"}, Pool("p", path="/srv/p"), id="path"),
        pytest.param({"path": "/srv//p/"}, Pool("p", path="/srv/p"), id="path-slashes"),
        pytest.param({"path": "/srv/./p"}, Pool("p", path="/srv/p"), id="path-dot"),
        pytest.param({"path": "/srv/a b"}, Pool("p", path="/srv/a b"), id="path-space"),
        pytest.param({"path": "/srv/..p"}, Pool("p", path="/srv/..p"), id="path-dots-in-name"),
        pytest.param({"owner": "1"}, Pool("p", permissions=Permissions(owner=10)), id="owner"),
        pytest.param({"owner": "0"}, Pool("p", permissions=Permissions(owner=0)), id="owner-0"),
        pytest.param({"group": "2"}, Pool("p", permissions=Permissions(group=20)), id="group"),
        pytest.param({"mode": "0750"}, Pool("p", permissions=Permissions(0o750)), id="mode"),
        pytest.param({"mode": 0o750}, Pool("p", permissions=Permissions(0o750)), id="mode-integer"),
        pytest.param({"mode": 0}, Pool("p", permissions=Permissions(0)), id="mode-0"),
        pytest.param({"features": {"cow": False}}, Pool("p", cow=False), id="cow"),
        pytest.param({"features": {"cow": None}}, Pool("p"), id="cow-not-given"),
        pytest.param({"mount_options": ["ro", "b"]}, Pool("p", mount_options=("ro", "b")), id="mount-options"),
        pytest.param({"mount_options": []}, Pool("p", mount_options=()), id="no-mount-options"),
        pytest.param(
            {"config_options": {"b": "2", "a": "1"}},
            Pool("p", config_options=(("a", "1"), ("b", "2"))),
            id="config-options-sorted",
        ),
    ],
)
def test_options(params, expected):
    assert pool(**params) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, Source(), id="nothing"),
        pytest.param({"dir": None, "name": None}, Source(), id="nothing-given"),
        pytest.param({"dir": "/export"}, Source(dir="/export"), id="dir"),
        pytest.param({"name": "vg"}, Source(name="vg"), id="name"),
        pytest.param({"initiator": "iqn.a"}, Source(initiator="iqn.a"), id="initiator"),
        pytest.param({"format": "nfs"}, Source(format="nfs"), id="format"),
        pytest.param({"protocol_version": "4.1"}, Source(protocol_version="4.1"), id="protocol-version"),
        pytest.param({"vendor": "v", "product": "p"}, Source(vendor="v", product="p"), id="vendor-product"),
        pytest.param({"device": "/dev/sda"}, Source(devices=(SourceDevice("/dev/sda"),)), id="device"),
        pytest.param({"iqn": "iqn.t"}, Source(devices=(SourceDevice("iqn.t"),)), id="iqn"),
        pytest.param(
            {"devices": ["/dev/a", "/dev/b"]},
            Source(devices=(SourceDevice("/dev/a"), SourceDevice("/dev/b"))),
            id="devices",
        ),
        pytest.param(
            {"device": "/dev/a", "part_separator": False},
            Source(devices=(SourceDevice("/dev/a", False),)),
            id="part-separator",
        ),
        pytest.param(
            {"adapter": {"type": "scsi_host", "name": "host1", "parent": None}},
            Source(adapter=Adapter("scsi_host", "host1")),
            id="adapter",
        ),
        pytest.param(
            {
                "adapter": {
                    "type": "fc_host",
                    "parent": "scsi_host5",
                    "wwnn": "2" * 16,
                    "wwpn": "1" * 16,
                    "managed": False,
                }
            },
            Source(adapter=Adapter("fc_host", parent="scsi_host5", wwnn="2" * 16, wwpn="1" * 16, managed=False)),
            id="adapter-fc",
        ),
        pytest.param(
            {"adapter": {"type": "scsi_host", "parent_address": "0000:00:1f.2", "unique_id": 1}},
            Source(adapter=Adapter("scsi_host", parent_address="0000:00:1f.2", unique_id=1)),
            id="adapter-address",
        ),
        pytest.param(
            {"auth": {"type": "chap", "username": "u", "secret_uuid": UUID, "secret_usage": None}},
            Source(auth=Auth("chap", "u", UUID)),
            id="auth-uuid",
        ),
        pytest.param(
            {"auth": {"type": "ceph", "username": "u", "secret_uuid": None, "secret_usage": "s"}},
            Source(auth=Auth("ceph", "u", None, "s")),
            id="auth-usage",
        ),
    ],
)
def test_sources(given, expected):
    assert source(**given) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("nas", SourceHost("nas"), id="name"),
        pytest.param("nas.example.com:2049", SourceHost("nas.example.com", 2049), id="name-port"),
        pytest.param("192.0.2.1", SourceHost("192.0.2.1"), id="v4"),
        pytest.param("192.0.2.1:3260", SourceHost("192.0.2.1", 3260), id="v4-port"),
        pytest.param("2001:db8::1", SourceHost("2001:db8::1"), id="v6"),
        pytest.param("2001:db8::3260", SourceHost("2001:db8::3260"), id="v6-ends-like-a-port"),
        pytest.param("::1", SourceHost("::1"), id="v6-short"),
        pytest.param("[2001:db8::1]", SourceHost("2001:db8::1"), id="v6-brackets"),
        pytest.param("[2001:db8::1]:3260", SourceHost("2001:db8::1", 3260), id="v6-port"),
        pytest.param("[::1]:65535", SourceHost("::1", 65535), id="v6-largest-port"),
        pytest.param("fe80::1%eth0", SourceHost("fe80::1%eth0"), id="v6-zone"),
    ],
)
def test_hosts(text, expected):
    assert source(host=text).hosts == (expected,)
    assert source(hosts=["first", text]).hosts == (SourceHost("first"), expected)


@pytest.mark.parametrize("text", ["nas:99999", "nas:", "nas:x", "nas:0", "nas:²", "", "[::1]:70000", ":3260"])
def test_what_is_no_host(text):
    assert refused(name="p", source={"host": text}).code == "invalid_option"


@pytest.mark.parametrize("text", ["-ofoo", "-o:111", "a b", "a\u00a0b", "a/b", "a\\b", "/", "[-x]"])
def test_what_a_tool_would_take_for_something_else_is_no_host(text):
    xml = (
        "<pool type='netfs'><name>p</name><source><host name='{}'/><dir path='/x'/></source>"
        "<target><path>/p</path></target></pool>"
    )
    given = {"name": "p", "type": "netfs", "path": "/p", "source": {"host": text, "dir": "/x"}}
    name = text.partition(":")[0].strip("[]")
    for error in (refused(**given), refused(xml=xml.format(name))):
        assert error.code == "invalid_option"
        assert "is not a host" in error.message


def test_the_order_of_hosts_is_kept():
    assert [host.name for host in source(hosts=["c", "a", "b"]).hosts] == ["c", "a", "b"]


# -- the goal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["present", "active", "inactive", "absent"])
def test_states(state):
    assert goal(name="p", state=state) == PoolGoal(Pool("p"), state)


def test_undefined_is_another_word_for_absent():
    assert goal(name="p", state="undefined").state == "absent"


def test_the_rest_of_the_goal():
    made = goal(name="p", autostart=False, build="never", allow=["restart", "nonempty", "restart"])
    assert made == PoolGoal(Pool("p"), "active", False, "never", frozenset({"restart", "nonempty"}))


@pytest.mark.parametrize(
    ("state", "volumes", "holds"),
    [("present", (), False), ("active", (), False), ("absent", (), False), ("deleted", None, True)],
)
def test_how_far_to_look(state, volumes, holds):
    scope = pool_scope(goal(name="p", type="dir", path="/srv/p", state=state))
    assert (scope.pool.path, scope.volumes, scope.holds, scope.neighbours) == ("/srv/p", volumes, holds, True)


@pytest.mark.parametrize("pool_type", ["logical", "rbd", "zfs", "gluster", "sheepdog", "vstorage"])
def test_a_pool_can_be_named_by_its_source(pool_type):
    assert goal(type=pool_type, source={"name": "vg0"}).pool.name == "vg0"
    assert goal(name="p", type=pool_type, source={"name": "vg0"}).pool.name == "p"


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "code"),
    [
        pytest.param({}, "missing_option", id="no-name"),
        pytest.param({"type": "netfs", "source": {"name": "x"}}, "missing_option", id="not-named-by-source"),
        pytest.param({"name": "a/b"}, "invalid_name", id="name"),
        pytest.param({"name": ""}, "invalid_name", id="empty-name"),
        pytest.param({"type": "logical", "source": {"name": "../vg"}}, "invalid_name", id="name-of-source"),
        pytest.param({"name": "p", "uuid": "x"}, "invalid_uuid", id="uuid"),
        pytest.param({"name": "p", "uuid": ""}, "invalid_uuid", id="empty-uuid"),
        pytest.param({"name": "p", "mode": "999"}, "invalid_mode", id="mode"),
        pytest.param({"name": "p", "mode": True}, "invalid_mode", id="mode-bool"),
        pytest.param(
            {
                "name": "p",
                "source": {"auth": {"type": "chap", "username": "u", "secret_uuid": None, "secret_usage": None}},
            },
            "invalid_option",
            id="auth-without-secret",
        ),
        pytest.param(
            {
                "name": "p",
                "source": {"auth": {"type": "chap", "username": "u", "secret_uuid": "u", "secret_usage": "s"}},
            },
            "invalid_option",
            id="auth-with-two-secrets",
        ),
        pytest.param({"name": "p", "state": "deleted"}, "missing_option", id="delete-by-name"),
        pytest.param({"name": "p", "type": "dir", "state": "deleted"}, "missing_option", id="delete-without-path"),
        pytest.param({"name": "p", "path": "/srv/p", "state": "deleted"}, "missing_option", id="delete-without-type"),
        pytest.param({"name": "p", "type": "netfs", "source": {"format": "x"}}, "invalid_option", id="source-format"),
        pytest.param({"name": "p", "type": "dir", "source": {"format": "x"}}, "invalid_option", id="no-source-format"),
        *(
            pytest.param(
                {"name": "p", "type": kind, "path": path, "source": {"device": "sdb"}}, "invalid_path", id=kind
            )
            for kind, path in (("fs", "/srv/p"), ("disk", "/dev"), ("logical", None))
        ),
        pytest.param({"xml": XML.replace(">p<", ">a/b<")}, "invalid_xml", id="name-in-xml"),
        pytest.param({"xml": XML.replace(">p<", ">-p<")}, "invalid_name", id="dash-in-xml"),
        pytest.param({"xml": "<pool"}, "invalid_xml", id="broken-xml"),
        pytest.param({"xml": XML, "name": "q"}, "invalid_option", id="two-names"),
    ],
)
def test_refusals(params, code):
    assert refused(**params).code == code


@pytest.mark.parametrize("kind", ["chap", "ceph"])
def test_a_secret_that_is_to_be_kept(kind):
    """It is no part of the definition, and shown by nothing."""
    made = pool(source={"auth": {"type": kind, "username": "u", "secret": "c2VjcmV0"}})
    assert made.secret == "c2VjcmV0"
    assert made.source.auth == Auth(kind, "u")
    assert "c2VjcmV0" not in repr(made)
    assert made == pool(source={"auth": {"type": kind, "username": "u", "secret": "b3RoZXI="}})


@pytest.mark.parametrize(
    ("auth", "code"),
    [
        ({"type": "chap", "secret": ""}, "invalid_option"),
        ({"type": "chap", "secret": "two\nlines"}, "invalid_option"),
        ({"type": "ceph", "secret": "no-key"}, "invalid_option"),
        ({"type": "chap", "secret": "geheim", "username": ""}, "missing_option"),
        ({"type": "chap", "secret": "geheim", "secret_uuid": UUID, "secret_usage": "x"}, "invalid_option"),
    ],
    ids=["empty", "lines", "no-key", "nobody", "two-names"],
)
def test_secrets_that_can_not_be_kept(auth, code):
    error = refused(name="p", type="rbd", source={"auth": {"username": "u", **auth}})
    assert error.code == code
    assert not auth["secret"] or auth["secret"] not in str(error)


CHAP = {"type": "chap", "username": "kvm1", "secret_uuid": None, "secret_usage": "san"}
BACK = {"username": "san", "secret": "back"}


def test_as_whom_the_target_shows_itself():
    found = pool(type="iscsi", source={"auth": {**CHAP, "mutual": BACK}})
    assert found.mutual == Login("san", "back")
    assert found == replace(found, mutual=None)
    assert "back" not in repr(found)


@pytest.mark.parametrize(
    ("kind", "auth"),
    [
        ("iscsi", {"mutual": {**BACK, "username": "kvm1"}}),
        ("iscsi", {"mutual": {**BACK, "secret": ""}}),
        ("iscsi", {"mutual": {**BACK, "secret": " back"}}),
        ("iscsi", {"mutual": {**BACK, "secret": "b\nack"}}),
        ("rbd", {"mutual": BACK}),
        ("iscsi-direct", {"mutual": BACK}),
        ("iscsi", {"type": "ceph", "mutual": BACK}),
    ],
)
def test_as_whom_it_can_not_show_itself(kind, auth):
    error = refused(name="p", type=kind, source={"auth": {**CHAP, **auth}})
    assert error.code == "invalid_option"
    assert "ack" not in str(error)


@pytest.mark.parametrize("broken", [{"username": "u\ndomain=d"}, {"secret": "s\nusername=root"}])
def test_an_account_is_one_line_each(broken):
    """What mount.cifs reads would say something else, and the secret is not shown."""
    auth = {"type": "cifs", "username": "u", "secret": "s", **broken}
    error = refused(name="p", type="netfs", source={"format": "cifs", "auth": auth})
    assert error.code == "invalid_option"
    assert not {"domain=d", "username=root"} & set(str(error).replace("\n", " ").split())


@pytest.mark.parametrize(
    "path",
    ["", "p", "./p", "../p", "~/p", "/", "//", "///", "/.", "//srv/p", "/srv/../p", "/srv/p/..", "/..", "/srv/a\nb",
     "/srv/a\0b", "/srv/\x7f", "\n/srv", "file:///srv"],
    ids=repr,
)  # fmt: skip
def test_what_is_no_path(path):
    error = refused(name="p", path=path)
    assert (error.code, error.subject) == ("invalid_path", "pool p")


# For each type a source that it has no use for, and an option.
FORBIDDEN = [
    ("dir", {"host": "h"}, "source.hosts"),
    ("dir", {"device": "/dev/a"}, "source.devices"),
    ("dir", {"dir": "/d"}, "source.dir"),
    ("dir", {"name": "n"}, "source.name"),
    ("dir", {"initiator": "i"}, "source.initiator"),
    ("dir", {"protocol_version": "4"}, "source.protocol_version"),
    ("dir", {"adapter": {"type": "scsi_host", "name": "host1"}}, "source.adapter"),
    ("fs", {"device": "/dev/a", "host": "h"}, "source.hosts"),
    ("netfs", {"host": "h", "dir": "/d", "device": "/dev/a"}, "source.devices"),
    ("logical", {"name": "vg", "host": "h"}, "source.hosts"),
    ("disk", {"device": "/dev/a", "name": "n"}, "source.name"),
    ("iscsi", {"host": "h", "iqn": "i", "dir": "/d"}, "source.dir"),
    ("iscsi-direct", {"host": "h", "iqn": "i", "initiator": "j", "format": "x"}, "source.format"),
    ("scsi", {"adapter": {"type": "scsi_host", "name": "host1"}, "device": "/dev/a"}, "source.devices"),
    ("mpath", {"device": "/dev/a"}, "source.devices"),
    ("rbd", {"host": "h", "name": "n", "dir": "/d"}, "source.dir"),
    ("sheepdog", {"host": "h", "name": "n", "initiator": "i"}, "source.initiator"),
    ("gluster", {"host": "h", "name": "n", "device": "/dev/a"}, "source.devices"),
    ("zfs", {"name": "n", "host": "h"}, "source.hosts"),
    ("vstorage", {"name": "n", "device": "/dev/a"}, "source.devices"),
]


@pytest.mark.parametrize(("pool_type", "given", "field"), FORBIDDEN)
def test_what_a_type_has_no_use_for_is_refused(pool_type, given, field):
    error = refused(name="p", type=pool_type, source=given)
    assert error.code == "invalid_option"
    assert error.message.endswith(f"have no {field}")


@pytest.mark.parametrize(
    ("pool_type", "params", "option"),
    [
        ("dir", {"mount_options": ["ro"]}, "mount_options"),
        ("dir", {"config_options": {"a": "b"}}, "config_options"),
        ("logical", {"features": {"cow": True}}, "features"),
        ("netfs", {"features": {"cow": False}}, "features"),
        ("rbd", {"mount_options": ["ro"]}, "mount_options"),
        ("rbd", {"path": "/srv/p"}, "path"),
        ("iscsi-direct", {"path": "/srv/p"}, "path"),
        ("gluster", {"path": "/srv/p"}, "path"),
        ("sheepdog", {"path": "/srv/p"}, "path"),
    ],
)
def test_options_that_a_type_has_no_use_for(pool_type, params, option):
    error = refused(name="p", type=pool_type, **params)
    assert error.code == "invalid_option"
    assert option in error.message


OF_DEVICES = [row.name for row in POOL_TYPES.values() if row.of_devices]


@pytest.mark.parametrize("pool_type", OF_DEVICES)
@pytest.mark.parametrize("path", ["/srv/p", "/devices", "/", "/dev/../srv"])
def test_devices_are_looked_up_below_dev_only(pool_type, path):
    assert refused(name="p", type=pool_type, path=path).code == "invalid_path"


@pytest.mark.parametrize("pool_type", OF_DEVICES)
@pytest.mark.parametrize("path", ["/dev", "/dev/", "/dev/disk/by-id", "/dev/disk/by-path", "/dev/mapper"])
def test_where_devices_can_be_looked_up(pool_type, path):
    assert pool(type=pool_type, path=path).path == path.rstrip("/")


def test_of_a_definition_the_target_is_checked_too():
    xml = "<pool type='disk'><name>p</name><source><device path='/dev/sdb'/></source>"
    xml += "<target><path>/srv/p</path></target></pool>"
    assert refused(xml=xml).code == "invalid_path"


@pytest.mark.parametrize("pool_type", ["dir", "netfs", "scsi", "zfs"])
def test_vendor_and_product_are_for_every_type(pool_type):
    assert pool(type=pool_type, source={"vendor": "v", "product": "x"}).source == Source(vendor="v", product="x")


# -- xml ----------------------------------------------------------------------------------------------------------


def test_a_pool_from_xml():
    made = goal(xml=XML, state="inactive", autostart=True)
    assert made == PoolGoal(Pool("p", "dir", UUID, "/srv/p"), "inactive", True)
    assert goal(xml=XML, name="p").pool == made.pool


@pytest.mark.parametrize(
    "given",
    [
        {"type": "dir"},
        {"uuid": UUID},
        {"path": "/srv/p"},
        {"owner": "0"},
        {"group": "0"},
        {"mode": "0711"},
        {"source": {"dir": None}},
        {"mount_options": ["ro"]},
        {"config_options": {"a": "b"}},
        {"features": {"cow": True}},
    ],
    ids=lambda given: next(iter(given)),
)
def test_xml_excludes_what_it_says_itself(given):
    error = refused(xml=XML, **given)
    assert error.code == "invalid_option"
    assert next(iter(given)) in error.message


def test_deleting_needs_no_more_than_xml():
    assert goal(xml=XML, state="deleted").state == "deleted"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param(XML.replace("<target>", "<source><host name='h'/></source><target>"), "source/host", id="host"),
        pytest.param(XML.replace("<target>", "<source><new/></source><target>"), "source/new", id="new"),
        pytest.param(XML.replace("</path>", "</path><quota/>"), "target/quota", id="quota"),
        pytest.param(
            XML.replace("</path>", "</path><permissions><acl/></permissions>"), "target/permissions/acl", id="acl"
        ),
        pytest.param(
            XML.replace("</name>", "</name><m:mount_opts xmlns:m='http://libvirt.org/schemas/storagepool/fs/1.0'/>"),
            "mount_options",
            id="mount-options",
        ),
        pytest.param(
            "<pool type='rbd'><name>p</name><source><host name='h'/><name>n</name></source>"
            "<target><path>/p</path></target></pool>",
            "target/path",
            id="no-target",
        ),
        pytest.param(
            "<pool type='logical'><name>vg</name><target><path>/srv</path></target></pool>", "/dev/vg", id="fixed-path"
        ),
    ],
)
def test_nothing_of_the_xml_is_dropped(text, word):
    error = refused(xml=text)
    assert error.code == "invalid_xml"
    assert word in error.message


@pytest.mark.parametrize(
    "text",
    [
        XML.replace("<target>", "<capacity unit='bytes'>7</capacity><source><vendor name='v'/></source><target>"),
        "<pool type='logical'><name>vg</name><source><device path='/dev/sda'><freeExtent start='1' end='2'/></device>"
        "</source><target><path>/dev/vg/</path></target></pool>",
        "<pool type='rbd'><name>p</name><source><host name='h'/><name>n</name></source><target/></pool>",
    ],
)
def test_what_is_only_shown_is_read_over(text):
    assert goal(xml=text).pool.type is not None


def test_metadata_of_the_xml_is_kept():
    assert goal(xml=XML.replace("<target>", "<metadata><a/></metadata><target>")).pool.extras == (
        "<metadata><a></a></metadata>",
    )


def test_every_form_of_adapter():
    given = {"type": "fc_host", "wwnn": "1" * 16, "wwpn": "2" * 16, "parent_fabric_wwn": "3" * 16, "managed": False}
    assert pool(type="scsi", path="/dev", source={"adapter": given}).source.adapter == Adapter(**given)


@pytest.mark.parametrize("word", ["loop", "loop=/dev/loop9", "bind", "remount", "offset=512"])
def test_options_that_mount_something_else(word):
    """What is mounted would never be known for the pool's source."""
    declared = {"name": "p", "type": "fs", "path": "/p", "source": {"device": "/dev/x"}}
    error = refused(**declared, mount_options=["noatime", f"ro,{word}"])
    assert (error.code, word.partition("=")[0] in error.message) == ("invalid_option", True)
    goal(**declared, mount_options=["ro,noatime", "subvol=loop"])


@pytest.mark.parametrize(
    "word",
    ["password=s3cret", "pass=s3cret", "passwd=s3cret", " password2=s3cret", "username=u%s3cret", "user=DOM/u%s3cret",
     "username=DOM\\u%s3cret"],
)  # fmt: skip
def test_options_that_hold_a_password(word):
    """As mount.cifs takes them, which knows options by their first letters."""
    declared = {"name": "p", "type": "netfs", "path": "/p", "source": {"host": "h", "dir": "s", "format": "cifs"}}
    for given in ([word], [f"ro,{word}"], [f"{word}\n"]):
        error = refused(**declared, mount_options=given)
        assert (error.code, "s3cret" in f"{error}") == ("invalid_option", False)
    goal(**declared, mount_options=["username=u", "domain=a%b", "credentials=/etc/share", "user_xattr", "ro,uid=1"])


# -- a volume of another pool as the device -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"volume": "vg/data"}, SourceVolume("vg", "data")),
        ({"volume": "vg/unit:0:0:1", "part_separator": True}, SourceVolume("vg", "unit:0:0:1", True)),
        ({"device": "/dev/sdb"}, None),
    ],
)
@pytest.mark.parametrize("kind", ["fs", "logical", "disk", "zfs"])
def test_a_volume_as_the_source(kind, given, expected):
    declared = pool(type=kind, source={"name": "x", **given} if kind in ("logical", "zfs") else given)
    assert declared.source_volume == expected
    assert (declared.source.devices is None) == (expected is not None)


@pytest.mark.parametrize(
    ("text", "code"),
    [("data", "invalid_option"), ("p/data", "invalid_option"), ("/dev/vg/x", "invalid_name"), ("vg/", "invalid_name"),
     ("vg/a/b", "invalid_name"), ("", "invalid_option"), ("vg/a\nb", "invalid_option")],
)  # fmt: skip
def test_what_is_no_volume(text, code):
    assert refused(name="p", type="fs", source={"volume": text}).code == code


@pytest.mark.parametrize("kind", [name for name, row in POOL_TYPES.items() if not row.on_devices])
def test_types_that_are_on_no_device(kind):
    error = refused(name="p", type=kind, source={"volume": "vg/data"})
    assert (error.code, "source.volume" in error.message) == ("invalid_option", True)


def test_a_volume_says_what_is_deleted():
    assert goal(name="p", type="fs", source={"volume": "vg/data"}, state="deleted").pool.source_volume
