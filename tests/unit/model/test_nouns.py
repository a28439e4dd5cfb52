# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Laying a declaration over what is there, nouns as facts, and errors."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.change import UNKNOWN, Change, Subject, known
from ansible_collections.virt.storage.plugins.module_utils.model.errors import MISSING_CODES, StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.facts import (
    backing_facts,
    definition_facts,
    permissions_facts,
    source_facts,
    volume_facts,
)
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, Found, Storage, User
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Adapter,
    Auth,
    Permissions,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
    overlay,
)
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content, Volume

FULL = Pool(
    "p",
    "netfs",
    "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10",
    "/srv/p",
    Permissions(0o711, 1, 2, "system_u:object_r:virt_image_t:s0"),
    Source((SourceHost("a", 1),), (SourceDevice("/dev/a"),), "/export", format="nfs", protocol_version="4.1"),
    False,
    ("ro", "sync"),
    (("a", "1"),),
    "capacity",
    ("<x/>",),
)

OTHER = {
    "name": "q",
    "type": "dir",
    "uuid": "11111111-2222-3333-4444-555555555555",
    "path": "/srv/q",
    "cow": True,
    "mount_options": ("rw",),
    "config_options": (("b", "2"),),
    "refresh_allocation": "default",
    "extras": ("<y/>",),
}


# -- overlay ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", OTHER)
def test_a_declared_field_replaces_the_found_one_and_nothing_else(field):
    declared = replace(Pool("p"), **{field: OTHER[field]})
    assert overlay(FULL, declared) == replace(FULL, **{field: OTHER[field]})


def test_every_field_of_a_pool_is_tried():
    assert {field.name for field in fields(Pool) if field.compare} == {*OTHER, "permissions", "source"}


@pytest.mark.parametrize(("field", "value"), [("mode", 0o700), ("mode", 0), ("owner", 0), ("group", 0), ("label", "x")])
def test_permissions_are_laid_one_by_one(field, value):
    declared = Pool("p", permissions=Permissions(**{field: value}))
    assert overlay(FULL, declared) == replace(FULL, permissions=replace(FULL.permissions, **{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hosts", (SourceHost("b"), SourceHost("c"))),
        ("devices", (SourceDevice("/dev/b", True),)),
        ("dir", "/other"),
        ("adapter", Adapter("scsi_host", "host1")),
        ("name", "vg"),
        ("initiator", "iqn.x"),
        ("format", "cifs"),
        ("auth", Auth("chap", "u", secret_usage="s")),
        ("protocol_version", "3"),
        ("vendor", "v"),
        ("product", "p"),
    ],
)
def test_source_fields_are_laid_one_by_one(field, value):
    declared = Pool("p", source=Source(**{field: value}))
    assert overlay(FULL, declared) == replace(FULL, source=replace(FULL.source, **{field: value}))


def test_nothing_declared_changes_nothing():
    assert overlay(FULL, Pool("p")) == FULL


def test_declaring_what_is_there_changes_nothing():
    assert overlay(FULL, FULL) == FULL


def test_false_is_declared():
    assert overlay(replace(FULL, cow=True), Pool("p", cow=False)).cow is False


# -- facts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "facts"),
    [
        (Permissions(), {}),
        (Permissions(mode=0o711), {"mode": "0711"}),
        (Permissions(0, 0, 0), {"mode": "00", "owner": 0, "group": 0}),
        (Permissions(0o600, 1, 2, "l"), {"mode": "0600", "owner": 1, "group": 2, "label": "l"}),
    ],
)
def test_permissions_as_facts(permissions, facts):
    assert permissions_facts(permissions) == facts


def test_a_definition_as_facts():
    assert definition_facts(FULL) == {
        "type": "netfs",
        "uuid": "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10",
        "path": "/srv/p",
        "mode": "0711",
        "owner": 1,
        "group": 2,
        "label": "system_u:object_r:virt_image_t:s0",
        "source": {
            "hosts": [{"name": "a", "port": 1}],
            "devices": [{"path": "/dev/a"}],
            "dir": "/export",
            "format": "nfs",
            "protocol_version": "4.1",
        },
        "features": {"cow": False},
        "mount_options": ["ro", "sync"],
        "config_options": {"a": "1"},
        "refresh_allocation": "capacity",
        "extras": ["<x/>"],
    }


def test_an_empty_definition_has_no_facts():
    assert definition_facts(Pool("p")) == {}


def test_the_facts_of_auth_name_the_secret_and_hold_none():
    source = Source(auth=Auth("ceph", "admin", secret_usage="ceph key"))
    assert source_facts(source) == {"auth": {"type": "ceph", "username": "admin", "secret_usage": "ceph key"}}


@pytest.mark.parametrize(
    ("backing", "facts"),
    [
        (Backing("/a", "raw"), {"path": "/a", "format": "raw"}),
        (Backing("/a"), {"path": "/a"}),
        (Backing(volume="v", format="qcow2"), {"path": UNKNOWN, "format": "qcow2"}),
    ],
)
def test_a_backing_as_facts(backing, facts):
    assert backing_facts(backing) == facts


def test_a_volume_as_facts_says_what_can_be_declared_and_read_back():
    volume = Volume(
        "v",
        capacity=0,
        allocation=4096,
        format="qcow2",
        permissions=Permissions(0o600),
        backing=Backing("/b", "raw"),
        compat="1.1",
        cluster_size=65536,
        lazy_refcounts=False,
        extended_l2=True,
        content=Content(data=b"secret"),
        preallocation="full",
        nocow=True,
        path="/p/v",
        physical=1,
        timestamps=(("mtime", 10**9),),
    )
    assert volume_facts(volume) == {
        "format": "qcow2",
        "capacity": 0,
        "compat": "1.1",
        "cluster_size": 65536,
        "lazy_refcounts": False,
        "extended_l2": True,
        "backing": {"path": "/b", "format": "raw"},
        "mode": "0600",
    }


def test_known_leaves_out_what_only_doing_reveals():
    facts = {"a": 1, "b": UNKNOWN, "c": {"d": UNKNOWN, "e": None}, "f": {"g": {"h": UNKNOWN}}}
    assert known(facts) == {"a": 1, "c": {"e": None}, "f": {"g": {}}}


def test_unknown_says_what_it_is():
    assert str(UNKNOWN) == "(known after apply)"


@pytest.mark.parametrize(
    ("subject", "text"), [(Subject("p"), "pool p"), (Subject("p", "v"), "volume p/v"), (Subject("p", ""), "volume p/")]
)
def test_subjects(subject, text):
    assert str(subject) == text


def test_a_change_can_be_told_from_another():
    assert Change(Subject("p"), "start", "s") != Change(Subject("p"), "stop", "s")


# -- found --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "running"),
    [
        ("process", True),
        ("lock", True),
        ("loop", True),
        ("mount", True),
        ("swap", True),
        ("guest", False),
        ("overlay", False),
        ("pool", False),
    ],
)
def test_which_users_have_it_open_now(kind, running):
    assert User(kind, "x").running is running
    assert str(User(kind, "x")) == f"{kind} x"


@pytest.mark.parametrize(
    ("storage", "path"),
    [(Storage(READY, "/p"), "/p/v"), (Storage(READY, "/p/"), "/p/v"), (Storage("absent"), None)],
)
def test_where_a_volume_would_be(storage, path):
    assert Found("p", storage=storage).volume_path("v") == path


@pytest.mark.parametrize(
    ("kind", "looked"), [("ready", True), ("absent", False), ("foreign", False), ("unknown", False)]
)
def test_only_ready_storage_was_looked_at(kind, looked):
    assert Found("p", storage=Storage(kind)).looked is looked


# -- errors -------------------------------------------------------------------------------------------------------


def test_an_error_as_text_and_as_result():
    error = StorageError("no_space", "it is full", subject="pool p", hint="Free some.")
    assert str(error) == "it is full. Free some."
    assert error.as_dict() == {
        "code": "no_space",
        "subject": "pool p",
        "message": "it is full",
        "hint": "Free some.",
    }


def test_an_error_of_a_command_shows_it():
    error = StorageError("command_failed", "x failed", command="x -y", rc=3, stderr=" bad \n")
    assert str(error) == "x failed (command: x -y; exit status 3; bad)"
    assert error.as_dict()["rc"] == 3
    assert error.as_dict()["command"] == "x -y"
    assert error.as_dict()["stderr"] == " bad \n"


def test_an_error_of_a_daemons_call_has_no_exit_status():
    error = StorageError("daemon_failed", "refused", command="virsh x")
    assert str(error) == "refused (command: virsh x)"


def test_the_codes_on_which_check_mode_may_differ():
    assert set(MISSING_CODES) == {"pool_missing", "pool_inactive", "backing_missing", "source_missing"}
