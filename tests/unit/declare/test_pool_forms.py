# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""However a pool is said: once it is defined, saying the same again, by options or as XML, changes nothing."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool
from ansible_collections.virt.storage.plugins.module_utils.declare.pools import pool_goal
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import (
    RBD_NAMESPACE,
    parse_pool,
    render_definition,
    render_pool,
)
from ansible_collections.virt.storage.plugins.module_utils.model.definition import normal
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import UNKNOWN_STORAGE, Found, Storage
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Adapter, Pool, Source
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES

OPTIONS = ("name", "uuid", "type", "path", "owner", "group", "mode", "source", "mount_options", "config_options",
           "features", "xml", "autostart", "allow")  # fmt: skip
NO_BACKEND = Storage(UNKNOWN_STORAGE, why="no backend")


def goal(state="present", **params):
    return pool_goal({**dict.fromkeys(OPTIONS), "state": state, "build": "auto", **params}, account, account)


def account(value):
    return None if value is None else int(value)


def found(text=None):
    """What the native engine finds of a type that it has no backend for."""
    pool = None if text is None else parse_pool(text)
    return Found("p", pool, text, storage=NO_BACKEND, current=NO_BACKEND)


def changes(wanted, text=None):
    return decide_pool(wanted, found(text)).changes


def written(wanted, text=None):
    """The definition file after the task."""
    (change,) = changes(wanted, text)
    assert change.action in ("define", "redefine")
    pool = replace(change.wanted, uuid=change.wanted.uuid or str(uuid.UUID(int=7)))
    return render_definition(pool, text)


def refused(**params):
    with pytest.raises(StorageError) as caught:
        goal(**{"name": "p", **params})
    error = caught.value
    assert error.hint
    assert "XML" not in error.hint
    assert error.subject == "pool p"
    return error


# -- every type, with generated options ---------------------------------------------------------------------------

SLASHES = st.sampled_from(["/", "//", "///"])
WORDS = st.text("abz09_.é &<'", min_size=1, max_size=6).filter(str.strip)
NAMES = st.text("abz09_", min_size=1, max_size=6)
UUIDS = st.uuids().map(str) | st.uuids().map(lambda value: str(value).upper()) | st.uuids().map(lambda v: v.hex)
WWNS = st.integers(0, 2**64 - 1).map("{:016x}".format) | st.integers(0, 2**64 - 1).map("0x{:016X}".format)


@st.composite
def paths(draw):
    """Also as nobody should write them."""
    parts = draw(st.lists(NAMES, min_size=1, max_size=3))
    path = "".join(draw(SLASHES) + part for part in parts) + draw(st.sampled_from(["", "/", "//"]))
    return path if draw(st.booleans()) else "/" + path.lstrip("/")


def picks(**options):
    """A dict with some of these."""
    return st.fixed_dictionaries({}, optional=options)


ADDRESSES = st.builds(
    lambda form, *numbers: form.format(*numbers),
    st.sampled_from(["{:x}:{:x}:{:x}.{:x}", "{:04X}:{:02X}:{:02X}.{:X}", "{:03x}:{:02x}:{:x}.{:x}"]),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFF),
    st.integers(0, 0x1F),
    st.integers(0, 7),
)
EMPTY = st.sampled_from([None, ""])
KIND = st.sampled_from([{}, {"type": None}, {"type": "scsi_host"}])
ADAPTERS = st.one_of(
    st.builds(lambda kind, name, parent: {**kind, "name": name, "parent": parent}, KIND, WORDS, EMPTY),
    st.builds(lambda kind, at, number: {**kind, "parent_address": at, "unique_id": number}, KIND, ADDRESSES,
              st.integers(0, 9)),
    st.builds(
        lambda wwnn, wwpn, pair, more: {"type": "fc_host", "wwnn": wwnn, "wwpn": wwpn, **pair, **more},
        WWNS,
        WWNS,
        st.just({}) | st.fixed_dictionaries({"parent_wwnn": WWNS, "parent_wwpn": WWNS}),
        picks(parent=WORDS | EMPTY, parent_fabric_wwn=WWNS, managed=st.booleans() | st.none()),
    ),
)  # fmt: skip
AUTHS = st.builds(
    lambda kind, user, secret: {"type": kind, "username": user, **secret},
    st.sampled_from(["chap", "ceph"]),
    WORDS,
    st.fixed_dictionaries({"secret_uuid": UUIDS, "secret_usage": EMPTY})
    | st.fixed_dictionaries({"secret_usage": WORDS, "secret_uuid": EMPTY}),
)
HOSTS = st.sampled_from(["h", "h:24007", "[2001:db8::1]:3260", "2001:db8::1"])
DEVICES = st.tuples(st.sampled_from(["/dev/", "UUID=", "PARTLABEL="]), WORDS).map("".join)
IQNS = st.from_regex(r"iqn\.2026-01\.com\.example(:[a-z0-9.:-]{1,9})?", fullmatch=True)
ISCSI = {
    "devices": st.fixed_dictionaries({"device": IQNS}) | st.fixed_dictionaries({"iqn": IQNS}),
    "initiator": st.fixed_dictionaries({"initiator": IQNS}),
}
FIELDS = {
    "hosts": st.fixed_dictionaries({"host": HOSTS}) | st.fixed_dictionaries({"hosts": st.lists(HOSTS, min_size=1)}),
    "devices": st.fixed_dictionaries({"device": DEVICES}, optional={"part_separator": st.booleans()})
    | st.fixed_dictionaries({"devices": st.lists(DEVICES, min_size=1)}),
    "dir": st.fixed_dictionaries({"dir": paths()}),
    "adapter": st.fixed_dictionaries({"adapter": ADAPTERS}),
    "name": st.fixed_dictionaries({"name": NAMES}),
    "initiator": st.fixed_dictionaries({"initiator": WORDS}),
    "auth": st.fixed_dictionaries({"auth": AUTHS}),
    "protocol_version": st.just({}),
}
FEATURES = {
    "cow": st.fixed_dictionaries({"features": picks(cow=st.booleans() | st.none())}),
    "mount_options": st.fixed_dictionaries({"mount_options": st.lists(WORDS, max_size=3)}),
    "config_options": st.fixed_dictionaries(
        {"config_options": st.dictionaries(WORDS, WORDS | st.integers() | st.booleans(), max_size=3)}
    ),
}


def source_of(draw, row):
    source = {}
    fields = {**FIELDS, **ISCSI} if row.port else FIELDS
    for name in row.required:
        if not (name == "name" and row.named_by_pool and draw(st.booleans())):
            source.update(draw(fields[name]))
    for name in row.optional:
        source.update(draw(st.just({}) | fields[name]) if name in fields else {})
    if row.formats:
        source.update(draw(picks(format=st.sampled_from(row.formats) | EMPTY)))
    if "protocol_version" in row.optional and (source.get("format") or "auto") in row.formats[:2]:
        source.update(draw(picks(protocol_version=st.sampled_from(["", "3", "4.2"]))))
    source.update(draw(picks(vendor=WORDS | EMPTY, product=WORDS | EMPTY)))
    return source


@st.composite
def options(draw, kind):
    row = POOL_TYPES[kind]
    params = {"name": "p", "type": kind, **draw(picks(uuid=UUIDS))}
    source = source_of(draw, row)
    if source or draw(st.booleans()):
        params["source"] = source
    if row.target == "declared":
        below = "/dev/" if row.of_devices else "/"
        params["path"] = draw(paths().map(lambda path: below + path.lstrip("/")))
    elif row.target != "none" and draw(st.booleans()):
        params["path"] = row.target.format(name=source.get("name") or "p") + draw(st.sampled_from(["", "/"]))
    if row.target != "none":
        params.update(
            draw(
                picks(owner=st.integers(0, 9), group=st.integers(0, 9), mode=st.sampled_from([0, 0o111, 0o700, 0o777]))
            )
        )
    for feature in row.features:
        params.update(draw(st.just({}) | FEATURES[feature]) if feature in FEATURES else {})
    return params


def shuffled(text, seed):
    """The definition with the options of Ceph in another order."""
    root = etree.fromstring(text)
    for block in root.findall(f"{{{RBD_NAMESPACE}}}config_opts"):
        nodes = list(block)
        random.Random(seed).shuffle(nodes)
        block[:] = nodes
    return etree.tostring(root, encoding="unicode")


@pytest.mark.parametrize("kind", POOL_TYPES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_same_again_is_no_change(kind, data):
    params = data.draw(options(kind))
    state = data.draw(st.sampled_from(["present", "inactive"]))
    by_options = goal(state, **params)
    assert normal(by_options.pool) == by_options.pool
    text = written(by_options)
    assert changes(by_options, text) == ()
    # As XML: what the task wrote, and no more than what it said.
    whole = text.partition("-->")[2].strip()
    for xml in (shuffled(whole, 3), render_pool(by_options.pool)):
        by_xml = goal(state, xml=xml)
        assert changes(by_xml, text) == ()
        again = written(by_xml)
        assert changes(by_xml, again) == ()
        assert changes(replace(by_options, pool=replace(by_options.pool, uuid=None)), again) == ()
    # A definition of another hand, with the options in its own order.
    assert changes(by_options, shuffled(whole, 5)) == ()


# -- examples -----------------------------------------------------------------------------------------------------

SCSI = {"type": "scsi", "path": "/dev/disk/by-path"}
NETFS = {"type": "netfs", "path": "/p", "source": {"host": "h", "dir": "/exp"}}
RBD = {"type": "rbd", "source": {"host": "h", "name": "n"}}
FS = {"type": "fs", "path": "/p", "source": {"device": "/dev/a"}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "host1"}, Adapter("scsi_host", "host1")),
        (
            {"parent_address": "0:0:1F.2", "unique_id": 0},
            Adapter("scsi_host", parent_address="0000:00:1f.2", unique_id=0),
        ),
        ({"type": "scsi_host", "name": "host1", "parent": ""}, Adapter("scsi_host", "host1")),
    ],
)
def test_adapters(given, expected):
    assert goal(name="p", **SCSI, source={"adapter": given}).pool.source == Source(adapter=expected)


def test_what_is_said_in_several_ways_is_kept_in_one():
    secret = "6F1EC92B-2b3c4d2f-9d5f-0d2c1c6c7f10"
    auth = {"type": "ceph", "username": "u", "secret_uuid": secret}
    made = goal(name="p", type="rbd", source={"host": "h", "name": "n", "auth": auth}).pool.source
    assert made.auth.secret_uuid == "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10"
    source = {"host": "h", "dir": "/exp//a/", "vendor": "", "format": "", "protocol_version": ""}
    made = goal(name="p", **{**NETFS, "source": source}).pool
    assert made.source == Source(hosts=made.source.hosts, dir="/exp/a")


def test_a_source_that_is_called_like_its_pool():
    (change,) = changes(goal(name="p", type="logical"))
    assert (change.wanted.source.name, change.wanted.path) == ("p", "/dev/p")
    other = render_pool(Pool("p", "logical", source=Source(name="vg")))
    assert changes(goal(name="p", type="logical"), other) == ()  # not declared, so not compared
    assert changes(goal(name="p", type="logical", path="/dev/vg", source={"name": "vg"}), other) == ()


def test_a_fixed_path_says_the_name_of_the_source():
    other = render_pool(Pool("p", "logical", source=Source(name="vg")))
    with pytest.raises(StorageError) as caught:
        changes(goal(name="p", type="logical", path="/dev/p"), other)
    assert caught.value.code == "identity_change"


@pytest.mark.parametrize(("kind", "fixed"), [("logical", "/dev/vg"), ("zfs", "/dev/zvol/vg")])
def test_another_path_than_the_fixed_one_is_refused(kind, fixed):
    error = refused(type=kind, path="/srv/x", source={"name": "vg"})
    assert error.code == "invalid_option"
    assert fixed in error.message
    assert refused(type=kind, path=fixed).code == "invalid_option"
    assert goal(name="p", type=kind, path=fixed, source={"name": "vg"}).pool.path == fixed


@pytest.mark.parametrize(("params", "option"), [(FS, "mount_options"), (RBD, "config_options")])
def test_an_empty_list_takes_away(params, option):
    some, none = {"mount_options": (["ro"], []), "config_options": ({"a": 1}, {})}[option]
    text = written(goal(name="p", **params, **{option: some}))
    emptied = goal(name="p", **params, **{option: none})
    (change,) = changes(emptied, text)
    assert change.after == {"definition": {option: None}}
    text = written(emptied, text)
    assert getattr(parse_pool(text), option) is None
    assert changes(emptied, text) == ()


def test_values_of_ceph_become_text():
    given = {"a": 2, "b": True, "c": 1.5, 4: "x"}
    assert goal(name="p", **RBD, config_options=given).pool.config_options == (
        ("4", "x"), ("a", "2"), ("b", "true"), ("c", "1.5"),
    )  # fmt: skip


@pytest.mark.parametrize("value", [None, "", [], {"x": 1}, "a\nb"], ids=repr)
def test_what_is_no_value_for_ceph(value):
    assert refused(**RBD, config_options={"a": value}).code == "invalid_option"


@pytest.mark.parametrize("value", ["AQs3cret==", "AQs3cret\n", ["AQs3cret"], {"AQs3cret": "AQs3cret"}], ids=repr)
def test_a_key_of_ceph_is_no_option(value):
    error = refused(**RBD, config_options={"key": value})
    assert (error.code, "s3cret" in f"{error}") == ("invalid_option", False)
    goal(name="p", **RBD, config_options={"keyring": "/etc/ceph/a.keyring", "keyfile": "/etc/ceph/key"})


def test_a_key_of_ceph_is_no_option_of_the_xml_either():
    text = written(goal(name="p", **RBD, config_options={"timeout": 3}))
    error = refused(xml=text.replace("name='timeout' value='3'", "name='key' value='AQs3cret=='"))
    assert (error.code, "source.auth.secret" in error.hint) == ("invalid_option", True)
    assert "s3cret" not in f"{error}"


@pytest.mark.parametrize("option", [{"mode": 0o700}, {"owner": "0"}, {"group": "0"}], ids=lambda o: next(iter(o)))
def test_networked_types_have_no_target(option):
    error = refused(**RBD, **option)
    assert error.code == "invalid_option"
    assert next(iter(option)) in error.message


WWN = "1" * 16


@pytest.mark.parametrize(
    ("adapter", "code"),
    [
        ({}, "missing_option"),
        ({"type": "scsi_host"}, "missing_option"),
        ({"type": "scsi_host", "name": ""}, "missing_option"),
        ({"parent_address": "0000:00:1f.2"}, "missing_option"),
        ({"parent_address": "1f.2", "unique_id": 1}, "invalid_option"),
        ({"parent_address": "0000:00:20.0", "unique_id": 1}, "invalid_option"),
        ({"parent_address": "0000:00:1f.2", "unique_id": -1}, "invalid_option"),
        ({"parent_address": "0000:00:1f.2", "unique_id": 2**32}, "invalid_option"),
        ({"unique_id": 1}, "missing_option"),
        ({"name": "host1", "unique_id": 1}, "invalid_option"),
        ({"name": "host1", "parent_address": "0000:00:1f.2", "unique_id": 1}, "invalid_option"),
        ({"name": "host1", "wwnn": WWN}, "invalid_option"),
        ({"type": "usb", "name": "host1"}, "invalid_option"),
        ({"type": "fc_host"}, "missing_option"),
        ({"type": "fc_host", "wwnn": WWN}, "missing_option"),
        ({"type": "fc_host", "wwnn": WWN, "wwpn": "1"}, "invalid_option"),
        ({"type": "fc_host", "wwnn": WWN, "wwpn": WWN, "name": "host1"}, "invalid_option"),
        ({"type": "fc_host", "wwnn": WWN, "wwpn": WWN, "parent_wwnn": WWN}, "missing_option"),
    ],
)
def test_what_is_no_adapter(adapter, code):
    assert refused(**SCSI, source={"adapter": adapter}).code == code


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({"format": "cifs", "protocol_version": "3"}, "invalid_option"),
        ({"protocol_version": "3,ro"}, "invalid_option"),
        ({"dir": "/e\nx"}, "invalid_path"),
        ({"dir": "/e\x01"}, "invalid_path"),
        ({"vendor": "\x02"}, "invalid_option"),
    ],
)
def test_what_is_no_source(source, code):
    assert refused(**{**NETFS, "source": {**NETFS["source"], **source}}).code == code


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"type": "fs", "source": {"device": ""}}, "invalid_path"),
        ({"type": "fs", "source": {"devices": ["/dev/a", ""]}}, "invalid_path"),
        ({"type": "fs", "source": {"device": "/dev/\ud800"}}, "invalid_path"),
        ({"type": "fs", "mount_options": ["ro", ""]}, "invalid_option"),
        ({"type": "fs", "mount_options": ["\x01"]}, "invalid_option"),
        ({"type": "iscsi", "source": {"iqn": ""}}, "invalid_option"),
        ({"source": {"auth": {"type": "chap", "username": "", "secret_usage": "s"}}}, "missing_option"),
        ({"source": {"auth": {"type": "none", "username": "u", "secret_usage": "s"}}}, "invalid_option"),
        ({"source": {"auth": {"type": "chap", "username": "u", "secret_uuid": "1"}}}, "invalid_uuid"),
    ],
)
def test_what_can_not_be_written(params, code):
    assert refused(**params).code == code


def test_an_order_of_ceph_options_stays_and_is_no_difference():
    options = "<rbd:option name='z' value='1'/><rbd:option name='a' value='2'/>"
    text = render_pool(Pool("p", "rbd", source=goal(name="p", **RBD).pool.source)).replace(
        "</pool>", f"<rbd:config_opts xmlns:rbd='{RBD_NAMESPACE}'>{options}</rbd:config_opts></pool>"
    )
    assert render_pool(Pool("p"), text).index("'z'") < render_pool(Pool("p"), text).index("'a'")
    again = goal(name="p", **RBD, config_options={"a": 2, "z": 1})
    assert changes(again, text) == ()
    live = replace(found(text), live=replace(parse_pool(text), config_options=(("a", "2"), ("z", "1"))), started=True)
    assert decide_pool(again, live).changes == ()
    (change,) = changes(goal(name="p", **RBD, config_options={"a": 2, "z": 3}), text)
    assert change.action == "redefine"


def test_what_only_does_not_go_with_what_is_there():
    """Neither is wrong by itself."""
    text = written(goal(name="p", **{**NETFS, "source": {**NETFS["source"], "format": "cifs"}}))
    with pytest.raises(StorageError) as caught:
        changes(goal(name="p", source={"protocol_version": "3"}), text)
    assert (caught.value.code, caught.value.subject) == ("invalid_option", "pool p")


@pytest.mark.parametrize(
    ("params", "option"),
    [
        (RBD, {"path": "/x"}),
        (RBD, {"mode": 0o700}),
        (NETFS, {"config_options": {"a": "b"}}),
        (NETFS, {"source": {"iqn": "iqn.a"}}),
        ({"type": "logical"}, {"path": "/srv/x"}),
    ],
)
def test_what_the_type_that_is_there_has_no_use_for(params, option):
    """Without a type it is seen only then."""
    text = written(goal(name="p", **params))
    with pytest.raises(StorageError) as caught:
        changes(goal(name="p", **option), text)
    assert (caught.value.code, caught.value.subject) == ("invalid_option", "pool p")


def test_what_is_defined_already_may_lack_what_only_a_start_needs():
    text = render_pool(Pool("p", "iscsi", path="/d", source=goal(name="p", source={"host": "h"}).pool.source))
    (change,) = changes(goal(name="p", source={"vendor": "v"}), text)
    assert change.action == "redefine"
