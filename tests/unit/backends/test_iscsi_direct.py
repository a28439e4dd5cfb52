# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools of iSCSI targets without the kernel: what each answer of a target makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import iscsi_direct as backend
from ansible_collections.virt.storage.plugins.module_utils.host.libiscsi import Unit
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.notes import Notes
from ansible_collections.virt.storage.plugins.module_utils.model.change import Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    READY,
    UNKNOWN_STORAGE,
    Found,
    Usage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.operations import AskUnits
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Auth,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
)
from ansible_collections.virt.storage.plugins.module_utils.model.secrets import SecretObject
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Sought

SOURCE = Source((SourceHost("nas"),), (SourceDevice("iqn.a"),), initiator="iqn.us")
POOL = Pool("san", "iscsi-direct", source=SOURCE)
KEPT = SecretObject("u", "iscsi", "san", value=b"geheim")
LOGS_IN = replace(POOL, source=replace(SOURCE, auth=Auth("chap", "me", secret_usage="san")))


@pytest.fixture
def look():
    return Look(5.0, "", "")


@pytest.fixture
def asked(monkeypatch):
    """What targets are asked for; each answers, or ``refuses`` as is put into that."""

    class Asked(list):
        refuses: list[StorageError]

    told = Asked()
    told.refuses = []

    def units(portal, target, left):
        told.append((portal, target))
        for refusal in told.refuses:
            raise refusal
        return [Unit(1, 100), Unit(7, 28), Unit(9, problem="broken")]

    monkeypatch.setattr(backend, "units", units)
    return told


def test_a_target_that_answers(asked, look):
    storage = backend.observe(POOL, look, False)
    assert (storage.kind, storage.up, storage.path, storage.problem) == (READY, True, None, None)
    ((server, target),) = asked
    assert (str(server.portal), server.initiator, server.account, target) == ("nas:3260", "iqn.us", None, "iqn.a")


@pytest.mark.parametrize(
    ("code", "kind", "problem"),
    [
        ("source_missing", ABSENT, "source_missing"),
        ("login_refused", UNKNOWN_STORAGE, "login_refused"),
        ("deadline", UNKNOWN_STORAGE, "deadline"),
        ("command_failed", UNKNOWN_STORAGE, "command_failed"),
        ("tool_missing", UNKNOWN_STORAGE, None),
    ],
)
def test_one_that_does_not(asked, look, code, kind, problem):
    asked.refuses = [StorageError(code, "no", subject="nas", hint="Look.")]
    storage = backend.observe(POOL, look, False)
    assert storage.kind == kind
    assert (storage.problem and storage.problem.code) == problem
    assert storage.why == "no" if code != "command_failed" else storage.why.startswith("no")


@pytest.mark.parametrize(
    "source",
    [
        replace(SOURCE, hosts=None),
        replace(SOURCE, hosts=(SourceHost("a"), SourceHost("b"))),
        replace(SOURCE, devices=None),
        replace(SOURCE, devices=(SourceDevice("a"), SourceDevice("b"))),
    ],
)
def test_what_can_not_be_asked(asked, look, source):
    """Definitions of others may say anything."""
    storage = backend.observe(replace(POOL, source=source), look, False)
    assert (storage.kind, storage.problem.code) == (UNKNOWN_STORAGE, "not_supported")
    assert asked == []


@pytest.mark.parametrize("other", [{"devices": (SourceDevice("a/b"),)}, {"initiator": "a b"}])
def test_names_that_are_none(asked, look, other):
    storage = backend.observe(replace(POOL, source=replace(SOURCE, **other)), look, False)
    assert (storage.kind, storage.problem.code, asked) == (UNKNOWN_STORAGE, "invalid_option", [])


def test_with_the_secret_that_is_kept_or_declared(asked, look):
    look.secrets = (KEPT,)
    assert backend.observe(LOGS_IN, look, False).kind == READY
    (portal, _target) = asked[0]
    assert (portal.account.username, portal.account.password.data) == ("me", b"geheim")
    assert "geheim" not in repr(asked)
    backend.observe(replace(LOGS_IN, secret="another"), Look(5.0, "", ""), False)
    assert asked[1][0].account.password.data == b"another"


def test_without_its_secret(asked, look):
    assert backend.observe(LOGS_IN, look, False).problem.code == "secret_missing"
    assert asked == []


def test_its_volumes(asked, look):
    found = backend.observe_volumes(Found("san", POOL), Scope(POOL, volumes=None), look)
    assert found.usage == Usage(128, 128, 0)
    assert {name: (each.capacity, each.problem) for name, each in found.volumes.items()} == {
        "unit:0:0:1": (100, ""), "unit:0:0:7": (28, ""), "unit:0:0:9": (0, "broken"),
    }  # fmt: skip
    volume = found.volumes["unit:0:0:7"]
    assert volume.path == volume.key == "ip-nas:3260-iscsi-iqn.a-lun-7"
    assert volume.type == "network"


@pytest.mark.parametrize(
    ("host", "words"),
    [(SourceHost("nas", 3261), "ip-nas:3261-"), (SourceHost("fd00::5"), "ip-[fd00::5]:3260-")],
    ids=["port", "ipv6"],
)
def test_paths(asked, look, host, words):
    pool = replace(POOL, source=replace(SOURCE, hosts=(host,)))
    found = backend.observe_volumes(Found("san", pool), Scope(pool, volumes=("unit:0:0:1",)), look)
    assert [volume.path for volume in found.volumes.values()] == [f"{words}iscsi-iqn.a-lun-1"]


def test_one_look_asks_once(asked, look):
    backend.observe(POOL, look, False)
    backend.observe_volumes(Found("san", POOL), Scope(POOL, volumes=None), look)
    assert len(asked) == 1


def test_starting_asks_and_stopping_does_nothing():
    start = Change(Subject("san"), "start", "", wanted=LOGS_IN)
    (operation,) = backend.lower(start, Found("san", LOGS_IN, secrets=(KEPT,)), Notes("", ""))
    assert operation == AskUnits("nas", 3260, "iqn.a", "iqn.us", "me", operation.password)
    assert operation.password.data == b"geheim"
    stop = Change(Subject("san"), "stop", "", wanted=LOGS_IN)
    assert backend.lower(stop, Found("san", LOGS_IN), Notes("", "")) == []


def test_what_is_sought():
    sought = (Sought("unit:0:0:3", 5),)
    change = Change(Subject("san"), "refresh", "", wanted=sought)
    (step,) = backend.lower_volumes([change], Found("san", POOL))
    assert step.operations == (AskUnits("nas", 3260, "iqn.a", "iqn.us", sought=sought),)
    assert backend.lower_volumes([change], Found("san")) == ()
