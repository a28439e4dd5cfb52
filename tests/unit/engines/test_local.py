# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""This host's own eyes: what an engine is told of users, and what could not be looked at for them."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import mounted
from ansible_collections.virt.storage.plugins.module_utils.engines.local import (
    LocalHost,
    device_parts,
    with_note_of_restart,
)
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.host import volume_users
from ansible_collections.virt.storage.plugins.module_utils.host.identity import identity_of
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.notes import boot
from ansible_collections.virt.storage.plugins.module_utils.model import operations as ops
from ansible_collections.virt.storage.plugins.module_utils.model.change import ANYTHING, Change, Condition, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    EVERYTHING,
    ITSELF,
    READY,
    RUNNING,
    UNSEEN,
    Found,
    Storage,
    User,
)
from ansible_collections.virt.storage.plugins.module_utils.model.operations import Step
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume

UTILS = "ansible_collections.virt.storage.plugins.module_utils"
BLIND = "open files of other users' processes"


@pytest.fixture
def local(tmp_path):
    return LocalHost(find_places(f"native:///?root={tmp_path}"), 5.0)


@pytest.mark.parametrize(
    ("users", "unseen", "known", "expected"),
    [
        ((), (), (), ""),
        ((), (BLIND,), (), f"could not be checked for users ({BLIND})"),
        ((), (BLIND,), (BLIND,), ""),
        ((), (BLIND, "more"), (BLIND,), "could not be checked for users (more)"),
        ((User("process", "x"),), (BLIND,), (BLIND,), "was taken into use by process x"),
        ((), (BLIND, "more"), ANYTHING, ""),
        ((User("process", "x"),), (BLIND,), ANYTHING, "was taken into use by process x"),
    ],
)
def test_of_a_volume_nothing_may_be_unseen_that_was_not_warned_of(
    local, tmp_path, monkeypatch, users, unseen, known, expected
):
    path = tmp_path / "v"
    path.touch()
    monkeypatch.setattr(volume_users, "users_of_volumes", lambda paths: (dict.fromkeys(paths, users), unseen))
    broken = local.broken({3: (Condition("unused", str(path), known),)})
    assert [error.message for error in broken.values()] == (
        [f"{path} {expected} after it was looked at"] if expected else []
    )
    assert set(broken) <= {3}


def test_what_is_not_there_has_no_users(local, monkeypatch):
    monkeypatch.setattr(volume_users, "users_of_volumes", lambda paths: ({}, (BLIND,)))
    assert local.broken({0: (Condition("unused", "/no/such/volume"),)}) == {}


def test_each_of_several_things_has_to_be_unused(local, tmp_path, monkeypatch):
    """Whatever goes with a pool, before that is stopped."""
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.touch()
    users = {str(paths[0]): (User("mount", "/m"),), str(paths[1]): ()}
    monkeypatch.setattr(volume_users, "users_of_volumes", lambda asked: (users, ()))
    broken = local.broken({0: tuple(Condition("unused", str(path)) for path in paths)})
    assert "mount /m" in broken[0].message
    assert broken[0].code == "changed_meanwhile"


def test_who_has_a_character_device_open():
    """No list of the kernel tells of it. It is not opened for that."""
    with open("/dev/zero", "rb") as opened, subprocess.Popen(["sleep", "60"], stdin=opened) as sleeping:
        try:
            users, _unseen = volume_users.users_of_volumes({"zero": "/dev/zero", "full": "/dev/full"})
        finally:
            sleeping.kill()
    assert f"sleep (pid {sleeping.pid})" in {user.who for user in users["zero"]}
    assert not {user for user in users["full"] if str(sleeping.pid) in user.who}


def test_who_keeps_a_pool_up_and_what_could_not_be_looked_at(local, monkeypatch):
    told = ((User("process", "x"),), (BLIND,))
    monkeypatch.setattr(mounted, "busy", lambda pool, storage, look: told)
    monkeypatch.setattr("ansible_collections.virt.storage.plugins.module_utils.backends.fs.busy", mounted.busy)
    there = Storage(READY, "/p")
    found = Found("p", Pool("p", "fs", path="/p"), storage=there, current=there)
    seen = local.observe_users(found, {ITSELF: RUNNING}, tuple)
    assert (seen.current.busy, seen.unseen) == told


@pytest.mark.parametrize(
    ("user", "own"),
    [
        (User("mount", "/p"), True),
        (User("mount", "/old"), True),
        (User("mount", "/old as process 7 sees it"), True),
        (User("mount", "/p as process 7 sees it"), False),
        (User("mount", "/other"), False),
        (User("holder", "/p"), False),
    ],
)
def test_a_pool_that_a_daemon_restarts_leaves_its_device_first(monkeypatch, tmp_path, user, own):
    """It runs on /old; a second mount elsewhere is no part of it."""
    device = SimpleNamespace(node="/dev/sdx", read_only=False)
    for name, told in (
        ("host.block.device_at", device),
        ("host.signatures.content_at", None),
        ("backends.holding.users_of", ((user,), ())),
        ("host.conditions.untouched", ()),
    ):
        monkeypatch.setattr(f"{UTILS}.{name}", lambda *words, told=told: told)
    defined, live = Pool("p", "fs", path="/p"), Pool("p", "fs", path="/old")
    storage = Storage(UNSEEN, "/p")
    found = Found("p", defined, live=live, storage=storage, devices={"/dev/sdx": "ext4"}, resolved={"/p": "/p"})
    (part,) = device_parts(found, Look(5, str(tmp_path), str(tmp_path)))
    assert part.users == (() if own else (user,))


@pytest.mark.parametrize("named", ["path", "volume", "bad"])
def test_a_guest_that_is_defined_after_the_look_stands_in_the_way(local, tmp_path, named):
    """One that was there before was decided on."""
    pool, guests = tmp_path / "pool", tmp_path / "etc/libvirt/qemu"
    pool.mkdir()
    guests.mkdir(parents=True)
    texts = {"path": f"<source file='{pool}/v'/>", "volume": "<source pool='p' volume='v'/>"}

    def define(name, source):
        (guests / f"{name}.xml").write_text(f"<domain><name>{name}</name><devices><disk>{source}</disk></devices>")
        if source:
            with (guests / f"{name}.xml").open("a") as file:
                file.write("</domain>")

    (pool / "v").touch()
    identity = identity_of((pool / "v").stat())
    volume = Volume("v", path=str(pool / "v"), identity=identity)
    there = Storage(READY, str(pool))
    found = Found("p", Pool("p", "dir", path=str(pool)), storage=there, current=there, volumes={"v": volume})
    define("before", texts["path"])
    seen = local.observe_users(found, {"v": EVERYTHING}, tuple)
    assert seen.users["v"] == (User("guest", "before"),)
    conditions = {1: (Condition("unused", str(pool / "v")),)}
    assert local.broken(conditions) == {}
    define("new", texts.get(named, ""))
    (error,) = local.broken(conditions).values()
    assert error.code == "changed_meanwhile"
    assert ("could not be checked" if named == "bad" else "guest new") in error.message
    local.release()


def _step(action, volume=None):
    return Step((ops.Remove("/x"),), Change(Subject("p", volume), action, action))


@pytest.mark.parametrize(
    ("actions", "restarting", "expected"),
    [
        ("stop redefine start", False, ["note x", "x", "x forget"]),
        ("stop redefine start", True, ["note x", "x", "x forget"]),
        ("start", True, ["x forget"]),
        ("start", False, ["x"]),
        ("stop undefine", True, ["x", "x", "forget"]),
        ("", True, ["forget"]),
        ("", False, []),
    ],
)
def test_a_restart_is_noted_until_it_is_done(actions, restarting, expected):
    steps = [_step(action) for action in actions.split()]
    words = {ops.WriteFile("/note", boot(), note=True): "note", ops.Remove("/note", note=True): "forget"}
    changes = [step.change for step in steps]
    noted = with_note_of_restart(steps, changes, Found("p", restarting=restarting), "/note")
    assert [" ".join(words.get(op, "x") for op in step.operations) for step in noted] == expected
    assert all(step.always and step.change is None for step in noted[len(steps) :])
