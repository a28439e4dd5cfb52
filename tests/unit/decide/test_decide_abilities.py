# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the row of a type does not list is refused before anything changes, with what to do instead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.deleting import guard_all
from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool, pool_at_stake
from ansible_collections.virt.storage.plugins.module_utils.model import types
from ansible_collections.virt.storage.plugins.module_utils.model.change import ANYTHING, Condition
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    FOREIGN,
    READY,
    Found,
    Neighbour,
    Part,
    Problem,
    Storage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Adapter, Pool, Source
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Content, Sought, Volume

from .building import MIB, UUID, actions, codes, decide, entry, only, pool_goal, pool_refused, refused, user

ADAPTER = Source(adapter=Adapter("scsi_host", "scsi_host2"))
PATH = "/dev/disk/by-path"
POOL = Pool("p", "scsi", UUID, PATH, source=ADAPTER)
UNIT = Volume("unit:0:0:1", type="block", path=f"{PATH}/unit", capacity=MIB, identity=(1, 8))


def adapter(kind=READY, **more):
    return Part("adapter", "the host adapter scsi_host2", kind, **more)


def units(part=None, **more):
    """An active pool of units that others serve, of which nothing is made here."""
    storage = Storage((part or adapter()).kind, PATH, parts=(part or adapter(),))
    seen = {"definition": POOL, "live": POOL, "started": True, "active": True, "volumes": {UNIT.name: UNIT}, **more}
    return Found("p", storage=storage, current=storage, **seen)


def inactive(part, **more):
    return units(part, **{"live": None, "started": False, "active": False, "volumes": {}, **more})


def goal(state="active", **more):
    return pool_goal(state, **{"type": "scsi", "path": PATH, "source": ADAPTER, **more})


def can(monkeypatch, *doings):
    row = replace(types.POOL_TYPES["scsi"], native=doings)
    monkeypatch.setitem(types.POOL_TYPES, "scsi", row)


# -- volumes ------------------------------------------------------------------------------------------------------


def test_what_is_there_as_declared_is_met():
    assert decide(units(), entry(UNIT.name, capacity=MIB)).changes == ()
    assert decide(units(), entry("other", state="absent")).changes == ()


ALL = ("create", "clone", "remove", "resize")
ANEW = entry(UNIT.name, recreate="needed", capacity=2 * MIB)
LACKING = [
    (entry("other", capacity=MIB), "create", "created"),
    (entry("other"), "create", "created"),
    (entry("other", content=Content(path="/image")), "clone", "made from"),
    (entry(UNIT.name, state="absent"), "remove", "deleted"),
    (entry(UNIT.name, capacity=MIB // 2, allow=("shrink",)), "resize", "resized"),
    (entry(UNIT.name, capacity=MIB, recreate="always"), "remove", "deleted"),
    (entry(UNIT.name, capacity=MIB, recreate="always"), "create", "created"),
]


@pytest.mark.parametrize("declared", [*(each for each, *_rest in LACKING), ANEW])
def test_nothing_is_done_with_volumes_that_others_serve(declared):
    error = refused(units(), declared)
    assert (error.code, error.hint) == ("not_supported", "Do it where the units are served from.")


@pytest.mark.parametrize(("declared", "lacking", "word"), LACKING)
def test_what_a_type_does_not_list_is_refused(monkeypatch, declared, lacking, word):
    can(monkeypatch, *(doing for doing in ALL if doing != lacking))
    error = refused(units(), declared)
    assert error.code == "not_supported"
    assert word in error.message


def test_what_exclusive_removes():
    error = refused(units(), exclusive="*")
    assert (error.code, error.hint) == ("not_supported", "Do it where the units are served from.")


def test_what_differs_is_not_made_anew_where_nothing_is_made():
    error = refused(units(), entry(UNIT.name, thin_pool="tp"))
    assert (error.code, "recreate" in error.hint) == ("volume_differs", False)


# -- units that appear and grow by themselves ---------------------------------------------------------------------

LOOKED_FOR = [
    (entry("unit:0:0:2"), Sought("unit:0:0:2")),
    (entry("unit:0:0:2", capacity=MIB, at_least=True), Sought("unit:0:0:2", MIB, True)),
    (entry(UNIT.name, capacity=2 * MIB), Sought(UNIT.name, 2 * MIB)),
]


@pytest.mark.parametrize(("declared", "sought"), LOOKED_FOR)
def test_one_that_is_not_as_declared_is_looked_for(declared, sought):
    change = only(decide(units(), declared))
    assert (change.action, change.wanted) == ("refresh", (sought,))
    assert (change.before, change.after) == ({"unlisted": declared.volume.name}, {"unlisted": ""})
    assert declared.volume.name in change.summary


def test_all_are_looked_for_at_once():
    change = only(decide(units(), *(declared for declared, _sought in LOOKED_FOR[::2])))
    assert change.wanted == tuple(sought for _declared, sought in LOOKED_FOR[::2])


def test_one_that_can_not_be_used_is_looked_for():
    gone = replace(UNIT, capacity=0, problem="it does not tell its size")
    change = only(decide(units(volumes={UNIT.name: gone}), entry(UNIT.name)))
    assert change.wanted == (Sought(UNIT.name),)


def test_what_an_earlier_task_may_start_is_looked_for_then():
    decision = decide(inactive(adapter()), entry("unit:0:0:2"))
    assert (actions(decision), codes(decision)) == (["refresh"], ["pool_inactive"])


def test_a_path_of_a_map_is_no_volume():
    path = replace(UNIT, foreign="a path of the multipath map mpatha")
    error = refused(units(volumes={UNIT.name: path}), entry(UNIT.name))
    assert (error.code, "mpatha" in error.message) == ("volume_foreign", True)


def test_what_does_not_appear_by_itself_is_not_looked_for():
    error = refused(units(definition=replace(POOL, type="mpath", source=Source())), entry("unit:0:0:2"))
    assert error.code == "not_supported"


# -- adapters that go with their pool -----------------------------------------------------------------------------

VIRTUAL = Pool("p", "scsi", UUID, PATH, source=Source(adapter=Adapter("fc_host", wwnn="1" * 16, wwpn="2" * 16)))


def virtual(ours=True, **more):
    found = units(definition=VIRTUAL, live=VIRTUAL, **more)
    storage = replace(found.storage, bring_up="make it", take_down="remove it", ours=ours)
    return replace(found, storage=storage, current=storage)


def test_what_the_pool_made_goes_with_it():
    assert "remove it" in only(decide_pool(pool_goal("inactive"), virtual())).summary
    kept = only(decide_pool(pool_goal("inactive"), virtual(ours=False)))
    assert ("without this: remove it" in kept.summary, kept.may) == (True, frozenset())


def test_units_in_use_are_not_taken_away():
    found = virtual(users={UNIT.name: (user("mount", "/srv"),)})
    assert UNIT.name in pool_at_stake(pool_goal("inactive"), found)
    assert pool_refused(pool_goal("inactive"), found).code == "volume_in_use"
    assert UNIT.name not in pool_at_stake(pool_goal("inactive"), virtual(ours=False))


def test_what_is_taken_away_is_looked_at_again_before_that():
    """A mount that is made meanwhile would lose its disk. Of one that does not answer each look sees something else."""
    for unseen, expected in (((), ()), (("what it holds",), ANYTHING)):
        change = only(decide_pool(pool_goal("inactive"), virtual(unseen=unseen)))
        assert Condition("unused", UNIT.path, expected) in change.requires
    released = only(decide_pool(pool_goal("inactive"), virtual(ours=False)))
    assert released.requires == ()


def test_what_may_be_in_use_when_it_is_taken_away_may_get_users_meanwhile():
    tape = Volume("st0", type="character", path="/dev/st0", foreign="a device of the target that is no volume")
    found = virtual(volumes={"st0": tape}, users={"st0": (user("process", "mt"),)})
    assert pool_refused(pool_goal("inactive"), found).code == "volume_in_use"
    assert only(decide_pool(pool_goal("inactive", allow=["in_use"]), found)).requires == ()


def test_a_member_of_what_is_not_assembled_loses_nothing_when_its_unit_goes_away():
    found = virtual(users={UNIT.name: (user("member", "LVM"),)})
    assert "remove it" in only(decide_pool(pool_goal("inactive"), found)).summary
    with pytest.raises(StorageError) as caught:
        guard_all(pool_goal("deleted", allow=["nonempty"]), found, "deleted")
    assert caught.value.code == "volume_in_use"


OTHER_WORDS = Adapter("fc_host", wwnn="0x" + "1" * 16, wwpn="0x" + "2" * 16)


def test_an_adapter_in_other_words_is_no_change():
    declared = pool_goal("active", type="scsi", source=Source(adapter=OTHER_WORDS))
    assert decide_pool(declared, virtual()).changes == ()


def test_whether_it_goes_may_change_at_any_time():
    managed = Source(adapter=replace(OTHER_WORDS, managed=True))
    change = only(decide_pool(pool_goal("active", type="scsi", source=managed), virtual()))
    assert change.action == "redefine"
    assert change.wanted.source.adapter == replace(VIRTUAL.source.adapter, managed=True)


def test_another_adapter_is_another_pool():
    other = Source(adapter=replace(OTHER_WORDS, wwpn="3" * 16))
    assert pool_refused(pool_goal("active", type="scsi", source=other), virtual()).code == "identity_change"


@pytest.mark.parametrize(
    ("hosts", "conflict"), [({}, False), ({ADAPTER.adapter: (2,), VIRTUAL.source.adapter: (7, 2)}, True)]
)
def test_no_two_pools_have_one_adapter(hosts, conflict):
    found = inactive(adapter(), definition=None, hosts=hosts, neighbours=(Neighbour(replace(VIRTUAL, name="q"), PATH),))
    if conflict:
        assert pool_refused(goal(), found).code == "source_conflict"
    else:
        assert actions(decide_pool(goal(), found)) == ["define", "start"]


# -- pools --------------------------------------------------------------------------------------------------------


def test_what_is_there_is_started():
    assert actions(decide_pool(goal(), inactive(adapter()))) == ["start"]


def test_a_source_that_is_not_there_is_no_work_of_ours():
    decision = decide_pool(goal(), inactive(adapter(ABSENT)))
    assert (actions(decision), codes(decision)) == (["start"], ["source_missing"])
    assert "build" not in decision.missing[0].hint
    assert decision.missing[0].hint


def test_a_source_that_can_not_be_used_is_not_made_either():
    gone = Problem("source_missing", "there is no scsi_host2", "Name one that is there.")
    decision = decide_pool(goal(), inactive(adapter(ABSENT, problem=gone, making="make it")))
    assert (actions(decision), codes(decision)) == (["start"], ["source_missing"])


def test_nothing_is_built_over_what_is_there():
    part = adapter(FOREIGN, why="it is another one", destroys="all of it")
    error = pool_refused(goal(), inactive(part))
    assert (error.code, "overwrite" in error.hint) == ("storage_foreign", False)
    assert pool_refused(replace(goal(), allow=frozenset({"overwrite"})), inactive(part)).code == "storage_foreign"


@pytest.mark.parametrize("found", [units(), inactive(adapter()), inactive(adapter(), definition=None)])
def test_what_others_serve_is_not_deleted(found):
    error = pool_refused(goal("deleted"), found)
    assert error.code == "not_supported"
    assert "absent" in error.hint


@pytest.mark.parametrize(
    ("how", "in_use", "taken"),
    [
        ({}, True, False),
        ({"take_down": "remove the adapter"}, True, False),
        ({"take_down": "remove the adapter", "ours": True}, False, False),
        ({"take_down": "remove the adapter", "ours": True}, True, True),
    ],
    ids=["stays", "was-there-before", "unused", "goes"],
)
def test_stopping_takes_its_devices_away_where_it_takes_anything_down(how, in_use, taken):
    found = units(users={UNIT.name: (user("guest"),)} if in_use else {})
    found = replace(found, current=replace(found.current, **how))
    assert (UNIT.name in pool_at_stake(goal("absent"), found)) == ("ours" in how)
    if taken:
        assert pool_refused(goal("absent"), found).code == "volume_in_use"
    else:
        assert actions(decide_pool(goal("absent"), found)) == ["stop", "undefine"]
