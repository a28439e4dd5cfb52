# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pool on a volume of another one, and that other one under it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.layers import settled
from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool, pool_at_stake
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABOVE,
    ABSENT,
    READY,
    RUNNING,
    Layer,
    Part,
    Problem,
    Storage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Pool,
    Source,
    SourceDevice,
    SourceVolume,
)

from .building import UUID, actions, codes, defined, nothing, pool_goal, pool_refused, started, user

PATH = "/dev/vg/data"
INACTIVE = StorageError("pool_inactive", "pool vg is not active", subject="volume vg/data", hint="Start it first.")
UPPER = Pool("p", "fs", UUID, "/p", source=Source(devices=(SourceDevice(PATH),), format="ext4"))
LOWER = Pool("p", "logical", UUID, "/dev/vg", source=Source(name="vg", format="lvm2"))
GROUP = Storage(READY, "/dev/vg", bring_up="activate it", take_down="deactivate it", ours=True)
NO_DEVICE = Problem("source_missing", "there is no such device on this host", "Name another.")


def upper(state="active", separator=None, **more):
    pool = {"type": "fs", "path": "/p", "source": Source(format="ext4"), **more.pop("pool", {})}
    return pool_goal(state, **pool, source_volume=SourceVolume("vg", "data", separator), **more)


def without_device():
    parts = (
        Part("directory", "the directory /p", ABSENT),
        Part("filesystem", "ext4 on it", ABSENT, problem=NO_DEVICE, making="make ext4 on it"),
    )
    return Storage(ABSENT, "/p", "not there", parts=parts, up=False, bring_up="mount it on /p", take_down="unmount /p")


# -- the volume as the device -------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [None, True])
def test_a_volume_becomes_the_path_that_it_has(separator):
    goal = settled(upper(separator=separator), Layer(PATH), defined=False)
    assert goal.pool.source.devices == (SourceDevice(PATH, separator),)
    assert (goal.pool.source_volume, goal.missing) == (None, None)
    assert goal.pool.source.format == "ext4"


@pytest.mark.parametrize(
    ("path", "known", "devices"),
    [
        (PATH, False, (SourceDevice(PATH),)),
        (PATH, True, (SourceDevice(PATH),)),
        (None, False, (SourceDevice("(known after apply)"),)),
        (None, True, None),
    ],
)
def test_a_volume_that_can_not_be_looked_at(path, known, devices):
    goal = settled(upper(), Layer(path, INACTIVE), known)
    assert (goal.pool.source.devices, goal.missing) == (devices, INACTIVE)


def test_what_an_earlier_task_would_have_made_is_planned_and_warned_of():
    goal = settled(upper(), Layer(None, INACTIVE), defined=False)
    decision = decide_pool(goal, nothing(without_device()))
    assert actions(decision) == ["define", "build", "build", "start"]
    assert codes(decision)[0] == "pool_inactive"
    assert decision.changes[0].after["definition"]["source"]["devices"] == [{"path": "(known after apply)"}]


@pytest.mark.parametrize("state", ["present", "active"])
def test_a_pool_whose_volume_is_not_there_is_not_called_unchanged(state):
    goal = settled(upper(state), Layer(None, INACTIVE), defined=True)
    assert codes(decide_pool(goal, defined(without_device(), UPPER)))[0] == "pool_inactive"


@pytest.mark.parametrize("state", ["inactive", "absent"])
def test_stopping_and_undefining_need_no_volume(state):
    goal = settled(upper(state), Layer(None, INACTIVE), defined=True)
    assert codes(decide_pool(goal, defined(without_device(), UPPER))) == []


def test_a_new_pool_that_is_only_defined_needs_it():
    goal = settled(upper("inactive"), Layer(None, INACTIVE), defined=False)
    decision = decide_pool(goal, nothing(without_device()))
    assert (actions(decision), codes(decision)) == (["define"], ["pool_inactive"])


def test_of_a_pool_that_is_gone_with_its_volume_nothing_is_left_to_delete():
    goal = settled(upper("deleted"), Layer(None, INACTIVE), defined=False)
    assert decide_pool(goal, nothing(without_device())).changes == ()


def test_types_that_are_on_no_device():
    goal = settled(pool_goal(source_volume=SourceVolume("vg", "data")), Layer(PATH), defined=True)
    assert pool_refused(goal, started()).code == "invalid_option"


# -- the pool below -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["inactive", "absent"])
@pytest.mark.parametrize("ours", [True, False])
def test_a_pool_is_not_stopped_under_one_that_runs_on_it(state, ours):
    found = started(replace(GROUP, ours=ours), LOWER, above=(user("pool", "files"),))
    error = pool_refused(pool_goal(state), found)
    assert error.code == "pool_in_use"
    assert "pool files" in error.message
    assert actions(decide_pool(pool_goal(state, allow=["in_use"]), found))[0] == "stop"
    assert actions(decide_pool(pool_goal(state), replace(found, above=())))[0] == "stop"


def test_nor_restarted():
    other = replace(LOWER, source=replace(LOWER.source, devices=(SourceDevice("/dev/sdx"),)))
    found = started(GROUP, other, above=(user("pool", "files"),))
    goal = pool_goal(allow=["restart"], source=Source(format="unknown"))
    assert pool_refused(goal, found).code == "pool_in_use"
    assert actions(decide_pool(goal, replace(found, above=())))[0] == "stop"


@pytest.mark.parametrize(
    ("state", "allow", "running", "asked"),
    [
        ("inactive", (), True, True),
        ("absent", (), True, True),
        ("deleted", (), True, True),
        ("active", ("restart",), True, True),
        ("active", (), True, False),
        ("present", (), True, False),
        ("inactive", (), False, False),
    ],
)
def test_who_runs_on_it_is_asked_for_where_it_may_be_stopped(state, allow, running, asked):
    found = (started if running else defined)(GROUP, LOWER)
    assert (pool_at_stake(pool_goal(state, allow=allow), found).get(ABOVE) == RUNNING) == asked


def test_of_files_nobody_asks():
    assert ABOVE not in pool_at_stake(pool_goal("inactive"), started())
