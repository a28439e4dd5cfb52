# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Targets that a host logs in to, in a made-up sysfs and a made-up database of open-iscsi: which session is a pool's,
what logging in makes, and what goes again.
"""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import iscsi as backend
from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool
from ansible_collections.virt.storage.plugins.module_utils.engines.local import start_note
from ansible_collections.virt.storage.plugins.module_utils.engines.native import NativeEngine
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.host import initiator, iscsi, iscsiadm, patience, reach, udev
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.host.conditions import Checks
from ansible_collections.virt.storage.plugins.module_utils.host.iscsi import (
    Portal,
    iface_for,
    new_iface,
    nodes,
    sessions,
)
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.notes import Notes
from ansible_collections.virt.storage.plugins.module_utils.host.run import Ended
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import render_definition, render_state
from ansible_collections.virt.storage.plugins.module_utils.model.change import TAKE_DOWN, Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.definition import keep_names, with_usual
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import ABSENT, READY, UNKNOWN_STORAGE, Found
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal, Scope
from ansible_collections.virt.storage.plugins.module_utils.model.operations import (
    ForgetRecords,
    LogIn,
    LogOut,
    WriteFile,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Auth,
    Login,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
)

from .initiator_host import OWN, OpenIscsi
from .scsi_tree import MIB, Tree

TARGET, OTHER = "iqn.2026-01.lab.test:disks", "iqn.2026-01.lab.test:others"
INITIATOR = "iqn.2026-01.lab.test:guests"
CHAP = Auth("chap", "kvm1", secret_usage="san")
SECRET = "a secret with = and #"
UUID = "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    made = Tree(tmp_path, monkeypatch)
    monkeypatch.setattr(udev, "_CONTROL", "/nowhere/control")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(reach, "look_up", lambda name: ["127.0.0.1"] if name in ("san", "localhost") else [])
    monkeypatch.setattr(patience, "in_child", lambda function, seconds: function())
    return made


@pytest.fixture
def tool(tmp_path, tree, monkeypatch):
    return OpenIscsi(tmp_path, tree, monkeypatch)


@pytest.fixture
def portal(tool):
    server, name = tool.listen()
    yield name
    server.close()


@pytest.fixture
def notes(tmp_path):
    return Notes(str(tmp_path / "made"), str(tmp_path / "started"))


def look():
    return Look(10, "/nowhere/records", "/nowhere/started")


def pool_of(*portals, target=TARGET, **more):
    hosts = []
    for each in portals or ("127.0.0.1:3260",):
        host, _colon, port = each.rpartition(":")
        hosts.append(SourceHost(host, int(port)) if host else SourceHost(each))
    initiator, auth = more.pop("initiator", None), more.pop("auth", None)
    source = Source(tuple(hosts), (SourceDevice(target),), initiator=initiator, auth=auth)
    return Pool("san", "iscsi", path="/dev", source=source, **more)


def observe(pool):
    return backend.observe(pool, look(), False)


def lower(action, pool, notes, may=frozenset(), storage=None):
    storage = storage or observe(pool)
    change = Change(Subject("san"), action, "", wanted=pool, may=may, requires=storage.leaves)
    return backend.lower(change, Found("san", storage=storage), notes)


def do(operations, timeout=10):
    for operation in operations:
        Applier(timeout=timeout).apply(operation)


def start(pool, notes):
    do(lower("start", pool, notes))


def stop(pool, notes):
    do(lower("stop", pool, notes, frozenset({TAKE_DOWN})))


def undefine(pool, notes):
    do(lower("undefine", pool, notes))


# -- which session is a pool's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "pool", "up"),
    [
        ({}, {}, True),
        ({"target": OTHER}, {}, False),
        ({"port": 3261}, {}, False),
        ({"address": "127.0.0.2"}, {}, False),
        ({"state": "FREE"}, {}, False),
        ({"state": "FAILED"}, {}, True),
        ({"told": "san"}, {"portals": ("san",)}, True),
        ({}, {"portals": ("san",)}, True),
        ({"address": "127.0.0.2"}, {"portals": ("san",)}, False),
        ({"address": "127.0.0.9", "told": "SAN."}, {"portals": ("san",)}, True),
        ({"address": "fd00:0::5"}, {"portals": ("fd00::5:3260",)}, True),
        ({"initiator": INITIATOR, "iface": "some"}, {}, False),
        ({"initiator": INITIATOR, "iface": "some"}, {"initiator": INITIATOR}, True),
        ({"initiator": OWN, "iface": "eth0"}, {}, True),
        ({"initiator": "iqn.2026-01.lab.test:before"}, {}, True),
        ({}, {"initiator": INITIATOR}, False),
    ],
)
def test_which_session_is_the_pools(tool, tree, session, pool, up):
    given = {"target": TARGET, "initiator": OWN, **session}
    tree.session(1, given.pop("target"), 11, **given)
    portals = pool.pop("portals", ("127.0.0.1:3260",))
    storage = observe(pool_of(*portals, **pool))
    assert (storage.kind, storage.up) == (READY, up)
    assert storage.take_down == f"log out of {TARGET}"


def test_a_target_that_was_given_up_has_its_session_still(tool, tree):
    """The kernel calls that free again, and goes on trying."""
    tree.session(1, TARGET, 11, initiator=OWN, state="FREE")
    tree.unit("11:0:0:0", state="transport-offline")
    storage = observe(pool_of("127.0.0.1:3260"))
    assert storage.up
    assert "does not answer" in storage.remarks[0]


def test_who_may_not_read_the_hosts_name_still_sees_its_sessions(tool, tree, monkeypatch):
    def refused(path):
        raise StorageError("not_readable", path)

    tree.session(1, TARGET, 11, initiator=OWN)
    monkeypatch.setattr(iscsi, "read_small_file", refused)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert observe(pool_of()).up


def test_without_a_target_there_is_nothing(tool):
    assert backend.observe(Pool("san", "iscsi"), look(), False).kind == ABSENT


@pytest.mark.parametrize("other", [{"target": "iqn.2026-01.lab.test:a   b"}, {"initiator": "../x"}])
def test_a_name_that_is_none_is_looked_at_no_further(tool, other):
    """Definitions of others may say anything."""
    storage = observe(pool_of(**other))
    assert (storage.kind, storage.up, storage.problem.code) == (UNKNOWN_STORAGE, False, "invalid_option")


def test_what_starting_takes(tool, tree, monkeypatch):
    assert observe(pool_of(auth=CHAP)).unable.code == "secret_missing"
    assert observe(pool_of(auth=CHAP, secret=SECRET)).unable is None
    for secret in ("secret ", "se\ncret"):
        assert observe(pool_of(auth=CHAP, secret=secret)).unable.code == "not_supported"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert observe(pool_of()).unable.code == "not_writable"
    tree.session(1, TARGET, 11)
    assert observe(pool_of()).unable is None


def test_who_may_not_read_the_hosts_name_sees_its_sessions(tool, tree, monkeypatch):
    (tool.database / "initiatorname.iscsi").unlink()
    (tool.database / "initiatorname.iscsi").mkdir()  # root may read any file
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    tree.session(1, TARGET, 11)
    assert observe(pool_of()).up
    assert not observe(pool_of(target=OTHER)).up


def test_what_is_said_of_sessions(tool, tree):
    tree.session(1, TARGET, 11, state="FAILED")
    lost, missing = observe(pool_of("127.0.0.1:3260", "127.0.0.2:3260")).remarks
    assert "does not answer" in lost
    assert "has no session" in missing
    assert "127.0.0.2:3260" in missing


def test_a_session_that_goes_right_now(tool, tree):
    tree.session(1, TARGET, 11)
    (tree.sys / "class/iscsi_session/session2").symlink_to("/nowhere")
    assert [each.number for each in sessions()] == [1]


# -- volumes ----------------------------------------------------------------------------------------------------------


def volumes(pool, **scope):
    return backend.observe_volumes(Found("san", definition=pool), Scope(pool, volumes=None, **scope), look())


def test_the_units_are_its_volumes(tool, tree):
    tree.session(1, TARGET, 11)
    tree.session(2, OTHER, 12)
    tree.unit("11:0:0:0")
    tree.unit("11:0:0:7", size=2 * MIB)
    tree.unit("12:0:0:1")
    found = volumes(pool_of())
    assert {name: volume.capacity for name, volume in found.volumes.items()} == {
        "unit:0:0:0": MIB,
        "unit:0:0:7": 2 * MIB,
    }
    assert (found.usage.capacity, found.usage.allocation, found.usage.available) == (3 * MIB, 3 * MIB, 0)


def test_units_by_several_sessions(tool, tree):
    """Each is there once, by the first portal that has a way to it; who may lose the others is told of them."""
    tree.session(1, TARGET, 11, address="127.0.0.2")
    tree.session(2, TARGET, 12)
    first = [tree.unit(f"12:0:0:{lun}", state="offline" if lun else "running") for lun in (0, 1)]
    second = [tree.unit(f"11:0:0:{lun}") for lun in (0, 1)]
    pool = pool_of("127.0.0.1:3260", "127.0.0.2:3260")
    found = volumes(pool)
    assert {name: volume.path for name, volume in found.volumes.items()} == {
        "unit:0:0:0": f"/dev/{first[0]}",
        "unit:0:0:1": f"/dev/{second[1]}",
    }
    assert found.usage.capacity == 2 * MIB
    others = {name: v.path for name, v in volumes(pool, neighbours=True).volumes.items() if v.foreign}
    assert others == {"unit:0:0:0 by host11": f"/dev/{second[0]}", "unit:0:0:1 by host12": f"/dev/{first[1]}"}


def test_whatever_goes_with_the_sessions_is_told_to_who_may_take_it_away(tool, tree):
    """Drives, tapes, and the nodes by which a disk is given commands past itself, beside what is a volume."""
    tree.session(1, TARGET, 11)
    disk = tree.unit("11:0:0:0", nodes={"scsi_generic": "sg1", "bsg": "bsg/11:0:0:0"})
    tree.unit("11:0:0:1", kind=5, disk=False, nodes={"block": "sr0", "scsi_generic": "sg2"})
    tree.write(tree.sys / "class/block/sr0", dev="11:0", size=0)
    tree.link("dev/block/11:0", tree.sys / "class/block/sr0")
    tree.unit("11:0:0:2", kind=1, disk=False, nodes={"scsi_tape": "st0"})
    assert list(volumes(pool_of()).volumes) == ["unit:0:0:0"]
    told = volumes(pool_of(), neighbours=True)
    others = {name: (each.type, each.path) for name, each in told.volumes.items() if each.foreign}
    assert others == {
        "sr0": ("block", "/dev/sr0"),
        **{name: ("character", f"/dev/{name}") for name in ("bsg/11:0:0:0", "sg1", "sg2", "st0")},
    }
    assert (told.volumes["unit:0:0:0"].path, told.usage.capacity) == (f"/dev/{disk}", MIB)


def test_a_disk_without_a_link_goes_too(tool, tree):
    tree.session(1, TARGET, 11)
    disk = tree.unit("11:0:0:0")
    pool = replace(pool_of(), path="/dev/disk/by-nowhere")
    told = volumes(pool, neighbours=True).volumes
    assert {each.path for each in told.values() if each.path} == {f"/dev/{disk}"}


def test_sessions_are_logged_out_of_as_they_were_looked_at(tool, tree, notes):
    """One that came meanwhile is not ours to end, and a device that came may have a user."""
    tree.session(1, TARGET, 11)
    tree.unit("11:0:0:0")
    storage = observe(pool_of())
    (condition,) = storage.leaves
    assert Checks(5).broken(condition) == ""
    tree.session(2, TARGET, 12)
    assert lower("stop", pool_of(), notes, frozenset({TAKE_DOWN}), storage) == [LogOut(1, TARGET)]
    disk = tree.unit("11:0:0:1")
    assert Checks(5).broken(condition) == f"got another device (/dev/{disk})"
    assert "is a session with" in Checks(5).broken(replace(condition, expected=(OTHER,)))
    tree.end_session(1, 11)
    assert Checks(5).broken(condition) == ""


@pytest.mark.parametrize("other", [{"portals": ("127.0.0.2:3260",)}, {"initiator": INITIATOR}, {"target": OTHER}])
def test_what_a_restart_elsewhere_takes_away(tool, tree, other):
    """It is the units that the pool has: their users keep it from being stopped."""
    tree.session(1, TARGET, 11)
    tree.unit("11:0:0:0")
    wanted = pool_of(*other.pop("portals", ()), **other)
    found = Found("san", definition=pool_of(), started=True)
    told = backend.observe_volumes(found, Scope(wanted, volumes=None, neighbours=True), look())
    assert list(told.volumes) == ["unit:0:0:0"]


def test_units_are_looked_for_in_all_sessions(tool, tree):
    tree.session(1, TARGET, 11, address="127.0.0.2", state="FAILED")
    tree.session(2, TARGET, 12)
    tree.unit("12:0:0:0")
    change = Change(Subject("san"), "refresh", "", wanted=())
    (step,) = backend.lower_volumes([change], Found("san", definition=pool_of("127.0.0.2:3260", "127.0.0.1:3260")))
    assert [(scan.host, scan.target) for scan in step.operations] == [(12, "12:0:0")]
    assert backend.lower_volumes([change], Found("san", definition=pool_of(target=OTHER))) == ()


# -- logging in and out -----------------------------------------------------------------------------------------------


def test_started_stopped_and_undefined(tool, portal, notes):
    pool = pool_of(portal)
    tool.offer(TARGET, portal, tag=3)
    (operation,) = lower("start", pool, notes)
    assert isinstance(operation, LogIn)
    node = f"iscsiadm -m node -T {TARGET} -p {portal} -I default"
    assert operation.command.split(" && ") == [
        f"iscsiadm -m discovery -t sendtargets -p {portal} -o nonpersistent -I default",
        f"{node} -o new",
        f"{node} -o update -n node.startup -v manual",
        f"{node} --login",
    ]
    do([operation])
    assert observe(pool).up
    (node,) = nodes(TARGET)
    assert (str(node.portal), node.tag, node.iface) == (portal, 3, "default")
    settings = backend.fields_of(node.path)
    assert settings["node.startup"] == settings["node.conn[0].startup"] == "manual"
    assert stat.S_IMODE(os.stat(node.path).st_mode) == 0o600
    (out,) = lower("stop", pool, notes, frozenset({TAKE_DOWN}))
    assert out == LogOut(1, TARGET)
    assert lower("stop", pool, notes) == []
    do([out, out])
    assert not observe(pool).up
    assert len(tool.records()) == 1
    assert [type(each) for each in lower("undefine", pool, notes)] == [ForgetRecords]
    undefine(pool, notes)
    assert tool.records() == []
    assert lower("undefine", pool, notes) == []


def test_a_record_that_is_there_is_used_and_stays(tool, portal, notes):
    pool = pool_of(portal.replace("127.0.0.1", "localhost"))
    tool.offer(TARGET, portal)
    path = tool.node(TARGET, portal)
    before = path.read_text()
    start(pool, notes)
    assert path.read_text() == before
    assert observe(pool).up
    stop(pool, notes)
    undefine(pool, notes)
    assert len(tool.records()) == 1
    assert not any("-o new" in command or "-o delete" in command for command in tool.log)


def test_a_session_that_is_there_is_used(tool, tree, portal, notes):
    tree.session(5, TARGET, 11, port=int(portal.rpartition(":")[2]), initiator=OWN)
    start(pool_of(portal), notes)
    assert tool.log == []


def test_what_is_not_offered(tool, portal, notes):
    tool.offer(OTHER, portal)
    with pytest.raises(StorageError) as caught:
        start(pool_of(portal), notes)
    assert caught.value.code == "source_missing"
    assert f"it offers {OTHER}" in caught.value.message
    tool.offers.clear()
    with pytest.raises(StorageError) as caught:
        start(pool_of(portal), notes)
    assert "it offers nothing" in caught.value.message
    assert tool.records() == []


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (24, "login_refused", "secret"),
        (19, "command_failed", "target"),
        (20, "command_failed", "iscsid"),
        (6, "command_failed", "lock.write"),
        (12, "not_supported", "iscsi_tcp"),
        (8, "deadline", ""),
    ],
)
def test_a_login_that_fails_leaves_nothing(tool, portal, notes, status, code, hint):
    tool.offer(TARGET, portal)
    tool.fails["--login"] = (status, "iscsiadm: it failed")
    with pytest.raises(StorageError) as caught:
        start(pool_of(portal, initiator=INITIATOR), notes)
    assert (caught.value.code, hint in caught.value.hint, caught.value.rc) == (code, True, status)
    assert (tool.records(), tool.ifaces()) == ([], [])
    assert lower("undefine", pool_of(portal), notes) == []


GUARDED = {
    "discovery.sendtargets.auth.authmethod": "CHAP",
    "discovery.sendtargets.auth.username": "kvm1",
    "discovery.sendtargets.auth.password": SECRET,
}


def test_a_portal_that_tells_only_who_knows_the_password(tool, portal, notes):
    tool.offer(TARGET, portal, tag=5)
    tool.wants_of_asking = GUARDED
    with pytest.raises(StorageError) as caught:
        start(pool_of(portal), notes)
    assert caught.value.code == "login_refused"
    start(pool_of(portal, auth=CHAP, secret=SECRET), notes)
    assert [node.tag for node in nodes(TARGET)] == [5]
    assert not list(tool.database.glob("send_targets/*"))
    assert not list(tool.database.glob(".virt-storage-*"))
    assert "send_targets" not in str(notes.made("records san"))
    assert not [command for command in tool.log if SECRET in command]


def test_a_portal_that_wants_another_password(tool, portal, notes):
    tool.offer(TARGET, portal)
    tool.wants_of_asking = {**GUARDED, "discovery.sendtargets.auth.password": "another"}
    pool = pool_of(portal, auth=CHAP, secret=SECRET)
    with pytest.raises(StorageError) as caught:
        start(pool, notes)
    assert (caught.value.code, tool.records()) == ("login_refused", [])
    assert not list(tool.database.glob("send_targets/*"))
    assert lower("undefine", pool, notes) == []
    # Somebody has told open-iscsi already.
    theirs = tool.asking(portal, **{name.replace(".", "__"): value for name, value in tool.wants_of_asking.items()})
    before = theirs.read_text()
    start(pool, notes)
    stop(pool, notes)
    undefine(pool, notes)
    assert theirs.read_text() == before


def test_what_was_left_of_asking_goes(tool, portal, notes):
    """By a task that was killed meanwhile."""
    tool.offer(TARGET, portal)
    tool.wants_of_asking = GUARDED
    pool = pool_of(portal, auth=CHAP, secret=SECRET)
    (operation,) = lower("start", pool, notes)
    Path(operation.records).parent.mkdir(parents=True, exist_ok=True)
    for goes in (start, undefine):
        tool.asking(portal)
        Path(operation.records).write_text(f"asking {portal}\n")
        goes(pool, notes)
        assert not list(tool.database.glob("send_targets/*"))


def test_a_portal_that_nobody_listens_at(tool, notes):
    server, name = tool.listen()
    server.close()
    with pytest.raises(StorageError) as caught:
        start(pool_of(name), notes)
    assert (caught.value.code, tool.log) == ("source_missing", [])


def test_one_of_two_portals_is_enough(tool, portal, notes):
    server, dead = tool.listen()
    server.close()
    tool.offer(TARGET, portal)
    pool = pool_of(dead, portal)
    start(pool, notes)
    storage = observe(pool)
    assert (storage.up, len(storage.remarks)) == (True, 1)
    assert len(tool.records()) == 1


def test_both_portals(tool, portal, notes):
    server, other = tool.listen()
    for each in (portal, other):
        tool.offer(TARGET, each)
    pool = pool_of(portal, other)
    start(pool, notes)
    assert [str(each.portals[0]) for each in sessions()] == [portal, other]
    assert observe(pool).remarks == ()
    stop(pool, notes)
    undefine(pool, notes)
    assert (sessions(), tool.records()) == ((), [])
    server.close()


def test_a_login_that_is_on_its_way(tool, tree, portal, notes):
    """By a task that was killed: it is waited for."""
    tool.offer(TARGET, portal)
    port = int(portal.rpartition(":")[2])
    tree.session(5, TARGET, 11, port=port, state="FREE", initiator=OWN)
    with pytest.raises(StorageError) as caught:
        do(lower("start", pool_of(portal), notes), timeout=0.5)
    assert caught.value.code == "deadline"
    (tree.sys / "class/iscsi_session/session5/state").write_text("LOGGED_IN\n")
    start(pool_of(portal), notes)
    assert observe(pool_of(portal)).up


def test_a_login_that_somebody_else_has_on_its_way_is_not_taken_back(tool, tree, portal, notes, monkeypatch):
    tool.offer(TARGET, portal)
    finish = tool.finish

    def comes_up_at_last(argv, *more, **options):
        if "--login" not in argv:
            return finish(argv, *more, **options)
        tree.session(5, TARGET, 11, port=int(portal.rpartition(":")[2]), state="FREE", initiator=OWN)
        return Ended(" ".join(argv), 15, "", "1 session requested, but 1 already present")

    def too_late(attempt, where, end):
        (tree.sys / "class/iscsi_session/session5/state").write_text("LOGGED_IN\n")
        raise StorageError("deadline", "it is not logged in to by now")

    monkeypatch.setattr(iscsiadm, "finish", comes_up_at_last)
    monkeypatch.setattr(initiator._Attempt, "_await_login", too_late)
    with pytest.raises(StorageError):
        start(pool_of(portal), notes)
    assert [each.number for each in sessions()] == [5]


def test_a_record_that_can_not_go_yet_goes_with_the_definition(tool, tree, portal, notes, monkeypatch):
    """iscsid goes on with the login of an iscsiadm that was killed, and keeps its record."""
    tool.offer(TARGET, portal)
    finish = tool.finish

    def killed(argv, *more, **options):
        if "--login" not in argv:
            return finish(argv, *more, **options)
        tree.session(5, TARGET, 11, port=int(portal.rpartition(":")[2]), state="FREE", initiator=OWN)
        raise StorageError("deadline", "iscsiadm did not answer")

    monkeypatch.setattr(iscsiadm, "finish", killed)
    tool.fails["--logout"] = (4, "session in invalid state for logout")
    with pytest.raises(StorageError) as caught:
        start(pool_of(portal), notes)
    assert "iscsid may go on" in caught.value.hint
    (record,) = tool.records()
    assert "node.startup = manual" in (tool.database / record).read_text()
    tree.end_session(5, 11)
    undefine(pool_of(portal), notes)
    assert tool.records() == []


@pytest.mark.parametrize("comes", [True, False], ids=["in time", "later"])
def test_a_login_that_nobody_waits_for_any_more_is_undone(tool, tree, portal, notes, monkeypatch, comes):
    """iscsid goes on with the login of an iscsiadm that was killed: what it has only begun it does not end."""
    tool.offer(TARGET, portal)
    finish, pool, refused = tool.finish, pool_of(portal), []
    port = int(portal.rpartition(":")[2])
    tree.session(3, OTHER, 13, port=port, initiator=OWN)

    def killed(argv, *more, **options):
        if "--login" in argv:
            if comes:
                tree.session(5, TARGET, 11, port=port, state="FREE", initiator=OWN)
            raise StorageError("deadline", "iscsiadm did not answer")
        if "--logout" in argv and not refused:
            refused.append(argv)
            return Ended(" ".join(argv), 4, "", "session in invalid state for logout. Try again later")
        return finish(argv, *more, **options)

    monkeypatch.setattr(iscsiadm, "finish", killed)
    with pytest.raises(StorageError) as caught:
        start(pool, notes)
    assert (caught.value.code, "iscsid may go on" in caught.value.hint) == ("deadline", not comes)
    assert [each.target for each in sessions()] == [OTHER]
    assert tool.records() == []


def test_a_session_that_was_there_before_is_not_undone(tool, tree, portal, notes, monkeypatch):
    tool.offer(TARGET, portal)
    port = int(portal.rpartition(":")[2])
    tree.session(5, TARGET, 11, port=port, state="FREE", initiator=OWN)

    def killed(argv, *more, **options):
        if "--login" in argv:
            raise StorageError("deadline", "iscsiadm did not answer")
        return tool.finish(argv, *more, **options)

    monkeypatch.setattr(iscsiadm, "finish", killed)
    with pytest.raises(StorageError):
        start(pool_of(portal), notes)
    assert [each.number for each in sessions()] == [5]
    assert all("startup = automatic" not in (tool.database / name).read_text() for name in tool.records())


def test_iscsid_gives_up_when_the_task_does(tool, portal, notes):
    """It tries eight times otherwise, of a quarter of a minute each."""
    tool.offer(TARGET, portal)
    do(lower("start", pool_of(portal), notes), timeout=40)
    (node,) = nodes(TARGET)
    assert backend.fields_of(node.path)["node.session.initial_login_retry_max"] == "2"
    theirs = tool.node(OTHER, portal)
    tool.offer(OTHER, portal)
    start(pool_of(portal, target=OTHER), notes)
    assert "retry_max" not in theirs.read_text()


def test_each_of_several_portals_says_what_was_wrong(tool, portal, notes):
    server, other = tool.listen()
    tool.offer(TARGET, portal)
    tool.fails[f"-p {portal},1"] = (24, "it was refused")
    tool.fails[f"-p {other} "] = (8, "it was silent")
    with pytest.raises(StorageError) as caught:
        start(pool_of(portal, other), notes)
    error = caught.value
    assert error.code == "deadline"
    assert (
        f"at {portal}: iscsiadm failed (it was refused); at {other}: iscsiadm failed (it was silent)" == error.message
    )
    server.close()


def test_no_units_are_no_error(tool, portal, notes):
    tool.offer(TARGET, portal)
    tool.units = ()
    start(pool_of(portal), notes)
    assert volumes(pool_of(portal)).volumes == {}


# -- a definition that was changed meanwhile ---------------------------------------------------------------------------


@pytest.fixture
def edited(tool, tree, portal, tmp_path):
    """An engine whose pool was started at one target, by a definition that says another one since."""
    engine = NativeEngine(find_places(f"native:///?root={tmp_path / 'root'}"), 5)
    for target in (TARGET, OTHER):
        tool.offer(target, portal)
    pool, wanted = pool_of(portal), pool_of(portal, target=OTHER)
    notes = engine.host.notes
    start(pool, notes)
    start(wanted, Notes(str(tmp_path / "others"), str(tmp_path / "theirs")))  # by somebody else
    texts = {
        f"{engine.places.config}/san.xml": render_definition(replace(wanted, uuid=UUID), None),
        f"{engine.places.run}/san.xml": render_state(replace(pool, uuid=UUID), None),
        notes.started_path("san"): start_note(observe(pool)),
    }
    for path, text in texts.items():
        do([WriteFile(path, text)])
    return engine


def decided(engine, state, **more):
    found = engine.observe(Scope(Pool("san"), volumes=(), neighbours=True))
    decision = decide_pool(PoolGoal(Pool("san"), state, **more), found)
    return [operation for step in engine.lower(decision.changes, found) for operation in step.operations]


def test_what_was_started_is_what_is_stopped(edited, tool):
    operations = decided(edited, "inactive")
    assert [each.target for each in operations if isinstance(each, LogOut)] == [TARGET]


def test_it_is_started_anew_where_its_definition_says(edited, tool):
    with pytest.raises(StorageError) as caught:
        decided(edited, "active")
    assert caught.value.code == "restart_needed"
    operations = decided(edited, "active", allow=frozenset({"restart"}))
    plain = [getattr(each, "operation", each) for each in operations]
    assert [(type(each), each.target) for each in plain if isinstance(each, (LogIn, LogOut))] == [(LogOut, TARGET)]


def test_its_volumes_are_those_of_what_was_started(edited, tool, tree):
    tree.unit("11:0:0:7")
    found = edited.observe(Scope(Pool("san"), volumes=None))
    assert (found.active, sorted(found.volumes)) == (True, ["unit:0:0:0", "unit:0:0:7"])


# -- who logs in ------------------------------------------------------------------------------------------------------


def test_the_secret_is_in_the_record_alone(tool, portal, notes):
    tool.offer(TARGET, portal)
    tool.wants = {
        "node.session.auth.authmethod": "CHAP",
        "node.session.auth.username": "kvm1",
        "node.session.auth.password": SECRET,
    }
    pool = pool_of(portal, auth=CHAP, secret=SECRET)
    operations = lower("start", pool, notes)
    assert SECRET not in repr(operations) + " ".join(each.command for each in operations)
    assert '-n node.session.auth.password -v "$PASSWORD"' in operations[0].command
    subprocess.run(["sh", "-n", "-c", operations[0].command], check=True)
    do(operations)
    assert observe(pool).up
    assert SECRET not in " ".join(tool.log)
    assert all(SECRET not in Path(path).read_text() for path in [notes.record_path("records san")])
    (node,) = nodes(TARGET)
    assert stat.S_IMODE(os.stat(node.path).st_mode) == 0o600
    assert os.listdir(os.path.dirname(node.path)) == ["default"]
    assert [each.name for each in tool.database.iterdir() if each.name.startswith(".")] == []


def test_the_target_shows_itself_too(tool, portal, notes):
    tool.offer(TARGET, portal)
    pool = pool_of(portal, auth=CHAP, secret=SECRET, mutual=Login("san", "another one"))
    start(pool, notes)
    stop(pool, notes)
    tool.wants = {"node.session.auth.username_in": "san", "node.session.auth.password_in": "another one"}
    start(pool_of(portal, auth=CHAP, secret="a new one"), notes)  # it is kept
    (node,) = nodes(TARGET)
    assert backend.fields_of(node.path)["node.session.auth.password"] == "a new one"


def test_a_record_of_somebody_else_gets_the_credentials_only(tool, portal, notes):
    tool.offer(TARGET, portal)
    path = tool.node(TARGET, portal, node__session__auth__password="old", node__session__timeo="5")
    os.chmod(path, 0o644)
    start(pool_of(portal, auth=CHAP, secret=SECRET), notes)
    settings = backend.fields_of(str(path))
    assert settings["node.startup"] == "automatic"
    assert settings["node.session.auth.password"] == SECRET
    assert settings["node.session.timeo"] == "5"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_record_of_somebody_else_is_as_it_was_after_a_login_that_fails(tool, portal, notes):
    server, other = tool.listen()
    for each in (portal, other):
        tool.offer(TARGET, each)
    paths = [tool.node(TARGET, each, node__session__auth__password="theirs") for each in (portal, other)]
    before = [path.read_text() for path in paths]
    tool.fails[f"-p {portal},1 -I default --login"] = (24, "iscsiadm: it failed")
    pool = pool_of(portal, other, auth=CHAP, secret=SECRET)
    start(pool, notes)
    assert [path.read_text() == text for path, text in zip(paths, before)] == [True, False]
    assert stat.S_IMODE(os.stat(paths[0]).st_mode) == 0o600
    stop(pool, notes)
    tool.fails["--login"] = (24, "iscsiadm: it failed")
    with pytest.raises(StorageError):
        start(pool_of(portal, auth=CHAP, secret="a wrong one"), notes)
    assert paths[0].read_text() == before[0]
    server.close()


@pytest.mark.parametrize("mutual", [None, Login("san", "another one")])
def test_a_record_of_somebody_else_gets_back_what_it_had(tool, portal, notes, mutual):
    """When the definition goes; until then iscsid may read it. Other credentials make no difference to that."""
    tool.offer(TARGET, portal)
    path = tool.node(TARGET, portal, node__session__auth__username="them", node__session__auth__password="theirs")
    before = path.read_text()
    for secret in (SECRET, "a new one"):
        pool = pool_of(portal, auth=CHAP, secret=secret, mutual=mutual)
        start(pool, notes)
        stop(pool, notes)
        assert secret in path.read_text()
    assert stat.S_IMODE(os.stat(notes.record_path("records san")).st_mode) == 0o600
    undefine(pool, notes)
    assert path.read_text() == before
    assert notes.made("records san") is None


def test_a_record_that_somebody_changed_since_is_left_as_it_is(tool, portal, notes):
    tool.offer(TARGET, portal)
    path = tool.node(TARGET, portal)
    pool = pool_of(portal, auth=CHAP, secret=SECRET)
    start(pool, notes)
    stop(pool, notes)
    path.write_text(path.read_text().replace(SECRET, "changed"))
    undefine(pool, notes)
    assert "node.session.auth.password = changed" in path.read_text()


def test_a_record_of_somebody_else_loses_credentials_that_the_pool_does_not_have_any_more(tool, portal, notes):
    tool.offer(TARGET, portal)
    path = tool.node(TARGET, portal)
    before = path.read_text()
    start(pool_of(portal, auth=CHAP, secret=SECRET), notes)
    stop(pool_of(portal), notes)
    start(pool_of(portal), notes)
    assert path.read_text() == before


def test_a_record_of_ours_forgets_old_credentials(tool, portal, notes):
    tool.offer(TARGET, portal)
    start(pool_of(portal, auth=CHAP, secret=SECRET), notes)
    stop(pool_of(portal), notes)
    start(pool_of(portal), notes)
    (node,) = nodes(TARGET)
    assert SECRET not in Path(node.path).read_text()


def test_under_a_name_of_its_own(tool, portal, notes):
    tool.offer(TARGET, portal)
    pool = pool_of(portal, initiator=INITIATOR)
    (operation,) = lower("start", pool, notes)
    made, named, asked = operation.command.split(" && ")[:3]
    assert made == f"iscsiadm -m iface -I {new_iface(INITIATOR)} -o new"
    assert named.endswith(f"-o update -n iface.initiatorname -v {INITIATOR}")
    assert asked.endswith(f"-I {new_iface(INITIATOR)}")
    start(pool, notes)
    (operation,) = lower("start", pool, notes)
    assert ("-o new" in operation.command, "-m iface" in operation.command) == (False, False)
    assert observe(pool).up
    assert not observe(pool_of(portal)).up
    name = new_iface(INITIATOR)
    assert tool.ifaces() == [name]
    assert tool.records()[0].endswith(f"/{name}")
    start(pool_of(portal), notes)  # beside it
    assert len(sessions()) == 2
    stop(pool, notes)
    assert [each.initiator for each in sessions()] == [OWN]


def test_an_interface_that_has_the_name_is_used_and_stays(tool, portal, notes):
    tool.offer(TARGET, portal)
    tool.iface("libvirt-iface-01234567", INITIATOR)
    pool = pool_of(portal, initiator=INITIATOR)
    start(pool, notes)
    assert tool.records()[0].endswith("/libvirt-iface-01234567")
    stop(pool, notes)
    undefine(pool, notes)
    assert (tool.records(), tool.ifaces()) == ([], ["libvirt-iface-01234567"])


def test_an_interface_of_ours_goes_when_nobody_needs_it(tool, portal, notes, tmp_path):
    for target in (TARGET, OTHER):
        tool.offer(target, portal)
    pool, other = pool_of(portal, initiator=INITIATOR), pool_of(portal, target=OTHER, initiator=INITIATOR)
    theirs = Notes(str(tmp_path / "others"), str(tmp_path / "started"))
    start(pool, notes)
    start(other, theirs)
    stop(pool, notes)
    undefine(pool, notes)
    assert tool.ifaces() == [new_iface(INITIATOR)]
    assert len(tool.records()) == 1


def test_the_hosts_own_name_needs_no_interface(tool):
    assert iface_for("") == iface_for(OWN) == "default"
    assert iface_for(INITIATOR) == ""


def test_records_of_a_portal_that_it_had_before_go(tool, portal, notes):
    server, other = tool.listen()
    for each in (portal, other):
        tool.offer(TARGET, each)
    start(pool_of(portal), notes)
    stop(pool_of(portal), notes)
    start(pool_of(other, initiator=INITIATOR), notes)
    (record,) = tool.records()
    assert record.endswith(f",{other.rpartition(':')[2]},1/{new_iface(INITIATOR)}")
    stop(pool_of(other, initiator=INITIATOR), notes)
    undefine(pool_of(other, initiator=INITIATOR), notes)
    assert (tool.records(), tool.ifaces()) == ([], [])
    server.close()


# -- at boot ----------------------------------------------------------------------------------------------------------


def test_what_brings_it_up_at_boot_without_us(tool, portal, notes):
    tool.offer(TARGET, portal)
    path = tool.node(TARGET, portal)
    tool.node(OTHER, portal)
    tool.node(TARGET, portal, iface="some")
    storage = observe(pool_of(portal))
    assert storage.comes_back == (str(path),)
    (operation,) = lower("autostart", pool_of(portal), notes, storage=storage)
    assert (
        operation.command
        == f"iscsiadm -m node -T {TARGET} -p {portal},1 -I default -o update -n node.startup -v manual"
    )
    tool.finish(operation.argv, timeout=1)
    assert observe(pool_of(portal)).comes_back == ()


def test_portals_in_words():
    assert str(Portal("fd00::5", 3261)) == "[fd00::5]:3261"
    assert str(Portal("san")) == "san:3260"


# -- portals in definitions -------------------------------------------------------------------------------------------


def test_a_port_that_is_left_out_is_the_usual_one():
    """A daemon writes it into the definition of a pool that it starts."""
    new = with_usual(Pool("san", "iscsi", source=Source((SourceHost("san"),), (SourceDevice(TARGET),))))
    assert (new.path, new.source.hosts) == ("/dev/disk/by-path", (SourceHost("san", 3260),))
    for said, had in ((None, 3260), (3260, None)):
        declared, existing = pool_of("san"), pool_of("san")
        declared = replace(declared, source=replace(declared.source, hosts=(SourceHost("san", said),)))
        existing = replace(existing, source=replace(existing.source, hosts=(SourceHost("san", had),)))
        assert keep_names(declared, existing, {}, {}).source.hosts == (SourceHost("san", had),)
    moved = keep_names(pool_of("other"), new, {}, {})
    assert moved.source.hosts == (SourceHost("other", 3260),)
