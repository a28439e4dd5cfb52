# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volume groups as LVM reports them (a recorded report), decided on, and lowered to its commands."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import holding, logical, logical_devices, lvm
from ansible_collections.virt.storage.plugins.module_utils.backends.logical_changes import lower_pool, lower_volumes
from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool
from ansible_collections.virt.storage.plugins.module_utils.decide.volumes import decide_volumes
from ansible_collections.virt.storage.plugins.module_utils.engines.execute import execute
from ansible_collections.virt.storage.plugins.module_utils.host import (
    block,
    kernel,
    partitions,
    signatures,
    sources,
)
from ansible_collections.virt.storage.plugins.module_utils.host.block import Device
from ansible_collections.virt.storage.plugins.module_utils.host.signatures import Content as Held
from ansible_collections.virt.storage.plugins.module_utils.host.signatures import Signature
from ansible_collections.virt.storage.plugins.module_utils.model.change import Change, Condition, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, UNKNOWN_STORAGE, Found, Problem
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal, Scope, VolumeGoal, VolumesGoal
from ansible_collections.virt.storage.plugins.module_utils.model.operations import Taken
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool, Source, SourceDevice
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES, THIN_POOL
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content, Extent, Volume

MIB = 2**20
REPORT = json.loads((Path(__file__).parent / "lvm_full_report.json").read_text(encoding="utf-8"))
POOL = Pool("vg1", "logical", path="/dev/vg1", source=Source(name="vg1"))


class Look:
    """LVM says that, and its filter; the devices do not answer. Nothing else is asked."""

    def __init__(self, told, silent=(), own=""):
        self._told, self._silent, self._own = told, silent, own

    def run(self, argv):
        assert argv[:2] == ("lvm", "lvmconfig")
        if not self._own:
            raise StorageError("command_failed", "not set")
        return f"global_filter={self._own}\n"

    def once(self, key, look):
        if key == "silent":
            return self._silent
        return lvm.parse(self._told, self._told.get("warnings", ()))


def reported(**group):
    told = copy.deepcopy(REPORT)
    told["report"][0]["vg"][0].update(group)
    return told


@pytest.fixture(autouse=True)
def able(monkeypatch):
    """What the kernel of the machine has, that the tests run on, is not asked."""
    monkeypatch.setattr(logical, "unable", lambda row, formats: None)


def storage(told=REPORT, pool=POOL):
    return logical.observe(pool, Look(told), True)


def found(told=REPORT, there=None):
    there = there or storage(told)
    base = Found("vg1", POOL, started=True, active=True, storage=there, current=there)
    seen = logical.observe_volumes(base, Scope(POOL, volumes=None), Look(told))
    nodes = {f"/dev/dm-{number}": each for number, each in enumerate(seen.volumes.values())}
    return replace(seen, resolved={path: node for node, each in nodes.items() for path in (each.path, *each.aliases)})


# --- looking ---------------------------------------------------------------------------------------------------------


def test_a_report():
    told = lvm.parse(REPORT)
    (group,) = told.groups
    assert (group.name, group.size, group.free, group.extent) == ("vg1", 2139095040, 1979711488, 4 * MIB)
    assert [device.path for device in group.devices] == ["/dev/vdb", "/dev/vdc"]
    assert [(device.path, device.group) for device in told.devices][-1] == ("/dev/vdd", "")


def test_nothing_reported():
    assert lvm.parse({"report": []}) == lvm.Report((), ())


def test_volumes():
    volumes = found().volumes
    shown = {name: (v.capacity // MIB, v.allocation // MIB, v.format, v.thin_pool) for name, v in volumes.items()}
    assert shown == {
        "l1": (12, 12, None, None),
        "off": (8, 8, None, None),
        "sn": (12, 8, None, None),
        "st": (16, 16, None, None),
        "th": (500, 0, None, "tp"),
        "ths": (500, 0, None, "tp"),
        "tp": (100, 0, THIN_POOL, None),
    }
    assert {name: v.backing.path for name, v in volumes.items() if v.backing} == {
        "sn": "/dev/vg1/l1",
        "ths": "/dev/vg1/th",
    }
    assert volumes["st"].extents == (
        Extent("/dev/vdb", 12582912, 29360128),
        Extent("/dev/vdc", 0, 16777216),
    )
    assert volumes["st"].key == "sSNC3E-WEGG-4M7I-7O6Y-R9Sf-WyRX-WS3Zs3"
    assert {v.path for v in volumes.values()} == {f"/dev/vg1/{name}" for name in volumes}


def test_a_group_that_is_up():
    there = storage()
    assert (there.kind, there.up, there.idle, there.frozen) == (READY, True, False, None)
    assert there.holds == ("l1", "off", "sn", "st", "th", "ths", "tp")


def test_a_group_with_nothing_active():
    told = reported()
    for row in told["report"][0]["lv"]:
        row["lv_attr"] = row["lv_attr"][:4] + "-" + row["lv_attr"][5:]
    there = storage(told)
    assert (there.up, there.idle) == (False, True)
    for row in told["report"][0]["lv"]:
        row["lv_attr"] = row["lv_attr"][:9] + "k"
    assert storage(told).up  # none is activated with its group
    told["report"][0]["lv"] = []
    assert storage(told).up


@pytest.mark.parametrize(
    ("group", "code"),
    [
        ({"vg_exported": "exported"}, "vg_exported"),
        ({"vg_lock_type": "sanlock"}, "vg_shared"),
        ({"vg_clustered": "clustered"}, "vg_shared"),
        ({"vg_systemid": "other"}, "vg_foreign"),
        ({"vg_missing_pv_count": "1"}, "vg_partial"),
        ({"vg_permissions": "read-only"}, "vg_read_only"),
    ],
)
def test_groups_of_which_nothing_is_changed(group, code):
    told = reported(**group)
    there = storage(told)
    assert there.frozen.code == code
    assert there.parts[0].problem.code == code
    decision = decide_volumes(VolumesGoal("vg1", (VolumeGoal(Volume("new", 4 * MIB)),)), found(told))
    assert decision.refusal.code == code


def test_a_partition_that_only_the_kernel_has_is_not_taken(monkeypatch):
    monkeypatch.setattr(partitions, "unreliable", lambda device, run: "is gone")
    part = Device("/dev/sdb1", "/dev/sdb1", (8, 17), MIB, 512, False, "part", disk="/dev/sdb", partition=1)
    problem = logical_devices._unfit(part.path, part, SimpleNamespace(run=None))
    assert (problem.code, problem.what) == ("source_missing", "/dev/sdb1 is gone")


def test_a_copy_of_a_device():
    told = reported()
    uuid = told["report"][0]["pv"][0]["pv_uuid"]
    told["warnings"] = [f"  WARNING: Not using device /dev/loop2 for PV {uuid}."]
    assert storage(told).frozen.code == "vg_duplicate"
    assert "/dev/loop2 of /dev/vdb" in storage(told).frozen.what


def test_two_groups_of_one_name():
    told = reported()
    told["report"].append(copy.deepcopy(told["report"][0]))
    told["report"][-1]["vg"][0]["vg_uuid"] = "other"
    there = storage(told)
    assert there.kind == UNKNOWN_STORAGE
    assert there.parts[0].problem.code == "vg_duplicate"
    assert "other and" in there.why or "and other" in there.why


def test_a_group_of_another_host_hides_none_of_this_one():
    told = reported()
    told["report"].append(copy.deepcopy(told["report"][0]))
    told["report"][-1]["vg"][0].update(vg_uuid="other", vg_systemid="other")
    assert storage(told).frozen is None
    assert found(told).volumes.keys() == found().volumes.keys()
    told = reported(vg_systemid="this", vg_uuid="own")
    assert lvm.parse(told, own={"own"}).groups[0].foreign == ""


def test_a_group_that_nobody_declared_devices_of():
    there = storage({"report": []})
    assert there.parts[0].problem.code == "source_missing"
    assert not there.up


# --- a group that LVM does not show ----------------------------------------------------------------------------------

NOTHING = {"report": []}
ON_A_DISK = replace(POOL, source=Source(name="vg1", devices=(SourceDevice("/nodev/sdb"),)))


class NoLvm:
    """lvm2 is not installed."""

    def once(self, key, look):
        if key == "silent":
            return ()
        raise StorageError("tool_missing", "lvm is not installed on this host", hint="Install it: lvm2.")


@pytest.fixture
def host(monkeypatch):
    """A host with one disk and what is active in device-mapper; LVM shows no group."""

    def looked(pool, content="", active=(), lvm2=True, problem=""):
        disk = Device("/nodev/sdb", "/nodev/sdb", (8, 16), MIB, 512, False, "disk")
        held = Held((Signature(content),) if content else (), problem=problem)
        look = Look(NOTHING) if lvm2 else NoLvm()
        monkeypatch.setattr(look, "left", lambda subject: 1.0, raising=False)
        monkeypatch.setattr(sources, "resolve", lambda path, look: disk)
        monkeypatch.setattr(signatures, "content_at", lambda node, seconds: held)
        monkeypatch.setattr(holding, "users_of", lambda device, content, look: ((), ()))
        monkeypatch.setattr(logical_devices, "_unfit", lambda path, device, look: None)
        monkeypatch.setattr(block, "mapped", lambda uuid, name: [each for each in active if each.startswith(name)])
        there = logical.observe(pool, look, True)
        return Found("vg1", pool, live=pool, started=True, storage=there, current=replace(there, ours=True))

    return looked


def outcome(state, known):
    """The code of what is refused or missing, else the actions that are planned."""
    try:
        decision = decide_pool(PoolGoal(known.definition or POOL, state, allow=frozenset({"nonempty"})), known)
    except StorageError as error:
        return error.code
    missing = [f"{error.code} later" for error in decision.missing]
    return missing or [change.action for change in decision.changes]


@pytest.mark.parametrize("state", ["deleted", "absent", "inactive"])
@pytest.mark.parametrize(
    ("pool", "seen", "code"),
    [
        pytest.param(ON_A_DISK, {"content": "LVM2_member"}, "vg_hidden", id="hidden"),
        pytest.param(ON_A_DISK, {"content": "LVM2_member", "lvm2": False}, "tool_missing", id="hidden-without-lvm2"),
        pytest.param(ON_A_DISK, {"problem": "an I/O error"}, "storage_unreadable", id="unreadable"),
        pytest.param(POOL, {"active": ["vg1-l1"]}, "vg_hidden", id="active"),
        pytest.param(ON_A_DISK, {"active": ["vg1-l1"]}, "vg_hidden", id="active-and-lost"),
        pytest.param(POOL, {"active": ["vg1-l1"], "lvm2": False}, "tool_missing", id="active-without-lvm2"),
    ],
)
def test_a_group_that_is_not_shown_is_not_taken_for_absent(host, pool, seen, code, state):
    """What was activated would stay so, with nothing to say so; what is to be deleted would stay, too."""
    known = host(pool, **seen)
    assert known.storage.kind == UNKNOWN_STORAGE
    assert outcome(state, known) == code


@pytest.mark.parametrize("seen", [{}, {"content": "ext4"}, {"active": ["vg1--b-l1", "vg1--l1"]}], ids=str)
def test_a_group_of_which_nothing_is_there_is_absent(host, seen):
    """The active ones are those of the groups vg1-b and vg1-l1."""
    assert outcome("inactive", host(ON_A_DISK, **seen)) == ["stop"]
    assert outcome("deleted", host(ON_A_DISK, **seen)) == ["stop", "undefine"]


def test_a_group_that_nobody_can_ask_for_may_be_let_go_and_is_not_deleted(host):
    known = host(POOL, lvm2=False)
    assert outcome("inactive", known) == ["stop"]
    assert outcome("deleted", known) == "tool_missing"
    assert outcome("deleted", replace(known, definition=None, live=None, started=False)) == []


@pytest.mark.parametrize(
    ("pool", "seen"), [(POOL, {}), (ON_A_DISK, {"content": "LVM2_member"}), (POOL, {"active": ["vg1-l1"]})]
)
def test_an_earlier_task_may_install_lvm2(host, pool, seen):
    known = replace(host(pool, lvm2=False, **seen), started=False, live=None)
    assert outcome("active", known) == ["tool_missing later"]


def test_a_hidden_device_counts_whatever_else_is_wrong(host, monkeypatch):
    """Such as another one that is not there, or a name that is in /dev, as it is while the group is active."""
    monkeypatch.setattr(logical_devices, "_name_problem", lambda name: Problem("invalid_name", "", ""))
    assert outcome("deleted", host(ON_A_DISK, content="LVM2_member")) == "vg_hidden"
    gone = SourceDevice("/nodev/gone")
    both = replace(ON_A_DISK, source=replace(ON_A_DISK.source, devices=(*ON_A_DISK.source.devices, gone)))
    known = host(both, content="LVM2_member")
    there = sources.resolve

    def resolve(path, look):
        if path == gone.path:
            raise StorageError("source_missing", "it is gone")
        return there(path, look)

    monkeypatch.setattr(sources, "resolve", resolve)
    look = Look(NOTHING)
    look.left = lambda subject: 1.0
    seen = logical.observe(both, look, True)
    assert outcome("deleted", replace(known, storage=seen, current=seen)) == "vg_hidden"


def test_leftovers_are_no_volumes():
    told = reported()
    told["report"][0]["lv"][0].update(lv_name="virt-storage.0", lv_tags="virt-storage")
    told["report"][0]["lv"][1].update(lv_name="virt-storage.1")
    there = found(told)
    assert there.leftovers == ("virt-storage.0",)
    assert "virt-storage.0" not in there.volumes
    assert "virt-storage.1" in there.volumes


def test_what_is_wrong_with_a_volume():
    told = reported()
    told["report"][0]["lv"][2]["lv_attr"] = "swi-I-s---"
    told["report"][0]["lv"][3]["lv_attr"] = "-wi-a---p-"
    volumes = found(told).volumes
    assert "lost" in volumes["sn"].problem
    assert "missing" in volumes["st"].problem


# --- deciding and lowering -------------------------------------------------------------------------------------------


def entry(name, state="present", recreate="never", allow=(), **declared):
    return VolumeGoal(Volume(name, **declared), state, recreate, frozenset(allow))


def decide(*entries, told=REPORT):
    return decide_volumes(VolumesGoal("vg1", entries), found(told))


def commands(*entries, told=REPORT):
    decision = decide(*entries, told=told)
    assert (decision.refusal, decision.missing) == (None, ())
    steps = lower_volumes(decision.changes, found(told))
    return [operation.command for step in steps for operation in step.operations]


def refused(*entries, told=REPORT):
    with pytest.raises(StorageError) as caught:
        decide(*entries, told=told)
    return caught.value.code


def test_a_plain_volume_is_made_under_another_name():
    assert commands(entry("new", capacity=10 * MIB)) == [
        "lvcreate --wipesignatures y --zero y --yes --addtag virt-storage --name virt-storage.0 --extents 3 -- vg1",
        "lvrename -- vg1 virt-storage.0 new",
    ]


def test_metadata_is_on_the_disks_when_it_is_reported_done():
    there = storage()
    parts = tuple(replace(part, facts={"devices": ["/dev/vdb", "/dev/vdc"]}) for part in there.parts)
    looked = replace(found(), storage=replace(there, parts=parts))
    goal = VolumesGoal("vg1", (entry("new", capacity=10 * MIB), entry("other", capacity=10 * MIB)))
    steps = lower_volumes(decide_volumes(goal, looked).changes, looked)
    assert [operation.command for operation in steps[-1].operations] == ["sync /dev/vdb", "sync /dev/vdc"]
    assert (steps[-1].needs, steps[-1].always) == ((0, 1), True)
    assert lower_volumes((), looked) == []


def test_thin_volumes_are_made_at_once():
    made = commands(
        entry("t2", capacity=1000 * MIB, thin_pool="tp2"), entry("tp2", capacity=100 * MIB, format=THIN_POOL)
    )
    assert [command.split()[-1] for command in made] == ["vg1", "tp2", "vg1/tp2"]
    assert "--type thin-pool" in made[0]
    assert f"--type thin --yes --addtag virt-storage --name t2 --virtualsize {1000 * MIB}b" in made[2]


def test_promised_space_is_said():
    decision = decide(entry("t2", capacity=8 * MIB, thin_pool="tp"))
    assert any("promised" in warning for warning in decision.warnings)


def test_snapshots():
    thin, room, whole = (
        commands(entry("s", backing=Backing(volume="th")))[0],
        commands(entry("s", backing=Backing(volume="l1"), allocation=5 * MIB))[0],
        commands(entry("s", backing=Backing(path="/dev/vg1/l1")))[0],
    )
    assert "--setactivationskip n" in thin
    assert "--extents 2 -- vg1/l1" in room
    assert "--extents 100%ORIGIN -- vg1/l1" in whole


@pytest.mark.parametrize("path", ["/dev/vg1/l1", "/dev/mapper/vg1-l1", "/dev/disk/by-id/dm-name-vg1-l1"])
def test_a_volume_that_is_meant_by_a_path(path):
    """Whatever node that leads to: as by its name."""
    snapshot = decide(entry("s", backing=Backing(path=path))).changes[0].wanted
    assert snapshot == decide(entry("s", backing=Backing(volume="l1"))).changes[0].wanted
    copied = entry("a", content=Content(path=path))
    assert decide(copied, entry("l1", capacity=12 * MIB)).changes[0].wanted.content.format == "raw"
    with pytest.raises(StorageError) as caught:
        decide(copied, entry("l1", "absent", allow=["backing"]))
    assert caught.value.code == "parent_removed"


def test_a_volume_with_content():
    made = commands(entry("c", capacity=4 * MIB, content=Content(data=b"hello")))
    assert made[1] == "dd of=/dev/vg1/virt-storage.0 bs=1M conv=notrunc,fsync status=none < 5 bytes"
    assert made[2] == "lvrename -- vg1 virt-storage.0 c"


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        (entry("s", capacity=8 * MIB, allocation=0), "invalid_option"),
        (entry("s", capacity=8 * MIB, thin_pool="l1"), "backing_refused"),
        (entry("s", backing=Backing(volume="sn")), "backing_refused"),
        (entry("s", backing=Backing(volume="tp")), "backing_refused"),
        (entry("s", backing=Backing(path="/srv/base.qcow2")), "backing_refused"),
        (entry("s", capacity=8 * MIB, backing=Backing(volume="l1")), "invalid_size"),
        (entry("s", capacity=8 * MIB, format="qcow2"), "format_unsupported"),
        (entry("s", capacity=8 * MIB, format=THIN_POOL, thin_pool="tp"), "invalid_option"),
        (entry("s"), "capacity_missing"),
        (entry("a_tmeta", capacity=MIB), "invalid_name"),
        (entry("virt-storage.7", capacity=MIB), "invalid_name"),
        (entry("l1", capacity=40 * MIB), "volume_backing"),
        (entry("sn", capacity=40 * MIB), "volume_differs"),
        (entry("tp", capacity=4 * MIB, allow=["shrink"]), "volume_differs"),
        (entry("l1", capacity=12 * MIB, thin_pool="tp"), "volume_differs"),
        (entry("l1", capacity=12 * MIB, format=THIN_POOL), "volume_differs"),
    ],
)
def test_what_is_refused(declared, code):
    assert refused(declared) == code


def test_a_volume_that_grows_by_more_than_there_is():
    assert decide(entry("st", capacity=2**40)).refusal.code == "no_space"


def test_a_thin_volume_with_a_snapshot_that_is_not_thin_is_not_resized():
    """LVM resizes the origin of one only while that is inactive; a thin snapshot, which it has too, is no matter."""
    told = reported()
    next(row for row in told["report"][0]["lv"] if row["lv_name"] == "sn")["origin"] = "th"
    assert refused(entry("th", capacity=2**40), told=told) == "volume_backing"


@pytest.mark.parametrize("recreate", ["never", "always"])
def test_raw_is_no_format_that_a_volume_would_have(recreate):
    """What is claimed is held against what LVM shows, which knows none."""
    name = "new" if recreate == "never" else "off"
    raw, plain = (decide(entry(name, recreate=recreate, capacity=8 * MIB, format=each)) for each in ("raw", None))
    assert raw == plain
    assert raw.changes[0].after.get("format") is None


def test_what_is_not_there_may_still_be_made():
    decision = decide(entry("s", capacity=8 * MIB, thin_pool="later"), entry("x", backing=Backing(volume="later2")))
    assert [error.code for error in decision.missing] == ["backing_missing", "backing_missing"]


def test_sizes_within_an_extent_are_met():
    assert decide(entry("l1", capacity=9 * MIB), entry("th", capacity=497 * MIB)).changes == ()


def test_resizing():
    assert commands(entry("st", capacity=30 * MIB)) == ["lvextend --extents 8 -- vg1/st"]
    assert commands(entry("off", capacity=4 * MIB, allow=["shrink"])) == [
        "lvreduce --force --yes --extents 1 -- vg1/off"
    ]
    assert commands(entry("th", capacity=2**40)) == ["lvextend --extents 262144 -- vg1/th"]


def test_made_anew():
    made = commands(entry("off", capacity=4 * MIB, recreate="always"))
    assert [command.split()[0] for command in made] == [
        "lvcreate",
        "lvchange",
        "lvrename",
        "lvrename",
        "lvremove",
    ]


class Engine:
    """Does nothing, and notes in which order it is told to, and to look at conditions."""

    parallel = False

    def __init__(self):
        self.done = []

    def prepare(self):
        pass

    def broken(self, conditions):
        self.done.append("look")
        return {}

    def execute(self, operation):
        self.done.append(operation.command.split()[0])


def test_what_is_made_anew_is_looked_at_when_the_new_one_is_whole():
    """Not before it is filled, which may take minutes: somebody may take the old one into use meanwhile."""
    declared = entry("off", capacity=4 * MIB, recreate="always", content=Content(data=b"hello"))
    steps, engine = lower_volumes(decide(declared).changes, found()), Engine()
    execute(steps, engine)
    assert engine.done == ["lvcreate", "dd", "look", "lvchange", "lvrename", "lvrename", "lvremove"]


def test_leftovers_go_first():
    told = reported()
    told["report"][0]["lv"][1].update(lv_name="virt-storage.0", lv_tags="virt-storage")
    assert commands(entry("new", capacity=MIB), told=told)[0] == "lvremove --yes -- vg1/virt-storage.0"


NAMES = {
    "a": True, "vm1.disk_0+x": True, "snapshot1": False, "pvmove0": False, "-x": False, "..": False, "a b": False,
    "x_rimage_0": False, "é": False, "a" * 128: False, "virt-storage.0": False, "virt-storage": True,
}  # fmt: skip


@pytest.mark.parametrize(("name", "taken"), NAMES.items())
def test_names(name, taken):
    assert bool(re.match(POOL_TYPES["logical"].names, name, re.ASCII)) is taken


def test_a_volume_that_is_not_active_has_no_identity():
    there = found()
    assert there.volumes["off"].identity is None
    assert replace(there, extent=None).granule == 4 * MIB


@pytest.mark.parametrize(("state", "code"), [("absent", ""), ("inactive", ""), ("active", "vg_partial")])
def test_a_partial_group_can_be_let_go(state, code):
    there = replace(storage(reported(vg_missing_pv_count="1")), ours=True)
    known = Found("vg1", POOL, live=POOL, started=True, active=True, storage=there, current=there)
    goal = PoolGoal(Pool("vg1"), state)
    if code:
        with pytest.raises(StorageError) as caught:
            decide_pool(goal, known)
        assert caught.value.code == code
    else:
        assert decide_pool(goal, known).refusal is None


def test_volumes_of_a_group_with_nothing_active_are_not_deleted_unsaid():
    told = reported()
    for row in told["report"][0]["lv"]:
        row["lv_attr"] = row["lv_attr"][:4] + "-" + row["lv_attr"][5:]
    known = replace(found(told), started=False, active=False)
    assert (known.storage.open, known.storage.listed) == (False, True)
    with pytest.raises(StorageError) as caught:
        decide_pool(PoolGoal(POOL, "deleted"), known)
    assert caught.value.code == "pool_nonempty"
    assert decide_pool(PoolGoal(POOL, "deleted", allow=frozenset({"nonempty"})), known).refusal is None


def test_the_commands_of_a_group():
    parts = tuple(replace(part, facts={"devices": ["/dev/vdb", "/dev/vdc"]}) for part in storage().parts)
    there = Found("vg1", POOL, storage=replace(storage(), parts=parts))
    kinds = {"device": (8, 16), "signatures": ("ext4",)}
    seen = [Condition(kind, path, said) for path in ("/dev/vdb", "/dev/vdc") for kind, said in kinds.items()]

    def lowered(action, **more):
        change = Change(Subject("vg1"), action, "", wanted=POOL, part=logical.GROUP, **more)
        return [operation.command for operation in lower_pool(change, there)]

    assert lowered("start") == ["vgchange --activate y -- vg1"]
    assert lowered("stop") == ["vgchange --activate n -- vg1"]
    flushed = ["sync /dev/vdb", "sync /dev/vdc"]
    assert lowered("build", requires=tuple(seen)) == ["vgcreate -- vg1 /dev/vdb /dev/vdc", *flushed]
    over = lowered("build", requires=tuple(seen[:2]), destroys="all")
    assert over == ["wipefs --all --quiet -- /dev/vdb && vgcreate -- vg1 /dev/vdb", "sync /dev/vdb"]
    change = Change(Subject("vg1"), "build", "", wanted=POOL, part="device /dev/vdb", requires=tuple(seen))
    extended = lower_pool(change, there)[0]
    assert extended.argv == ("vgextend", "--", "vg1", "/dev/vdb", "/dev/vdc")
    assert extended.devices[1] == Taken("/dev/vdc", (8, 16), ("ext4",))
    assert lowered("delete") == ["vgremove -- vg1", "pvremove -- /dev/vdb /dev/vdc", *flushed]


def test_a_group_of_devices_that_an_earlier_task_makes():
    pool = Pool("new", "logical", source=Source(name="new", devices=(SourceDevice("/dev/nosuch"),)))
    (group,) = storage(pool=pool).parts
    assert (group.problem.code, group.making) == ("source_missing", "make the volume group new of /dev/nosuch")
    change = Change(Subject("new"), "build", "", wanted=pool, part=logical.GROUP)
    commands = [operation.command for operation in lower_pool(change, Found("new", pool))]
    assert commands == ["vgcreate -- new /dev/nosuch", "sync /dev/nosuch"]
    both = replace(pool.source, devices=(SourceDevice("/dev/nosuch"), SourceDevice("/proc")))
    (group,) = storage(pool=replace(pool, source=both)).parts
    assert (group.problem.code, group.making) == ("storage_foreign", "")  # which no task makes good


# --- without device-mapper -------------------------------------------------------------------------------------------


def test_a_kernel_without_device_mapper_is_refused_in_check_mode_too(monkeypatch):
    monkeypatch.setattr(kernel, "has", lambda name, module: False)
    monkeypatch.setattr(logical, "unable", kernel.unable)
    down = replace(storage(), up=False)
    stopped = replace(found(), started=False, active=False, storage=down, current=down)
    refusal = decide_pool(PoolGoal(POOL, "active"), stopped).refusal
    assert (refusal.code, "device-mapper" in refusal.message) == ("not_supported", True)
    volume = VolumeGoal(Volume("new", capacity=8 * MIB), "present")
    assert decide_volumes(VolumesGoal("vg1", (volume,)), found()).refusal.code == "not_supported"
    assert decide_pool(PoolGoal(POOL, "absent"), stopped).refusal is None


# --- devices that do not answer --------------------------------------------------------------------------------------

SILENT = Device("/dev/sdx", "/dev/sdx", (8, 240), MIB, 512, False, "disk")


@pytest.mark.parametrize(
    ("own", "also"),
    [
        ("", ""),
        ('["r|^/dev/sdy$|", "a|.*|"]', ',"r|^/dev/sdy$|", "a|.*|"'),
        ('"r|^/dev/sdy$|"', ',"r|^/dev/sdy$|"'),
    ],
)
def test_lvm_is_kept_from_what_does_not_answer(monkeypatch, own, also):
    monkeypatch.setattr(sources, "aliases", lambda device: ("/dev/disk/by-id/a.b+c", device.node))
    there = logical.observe(POOL, Look(REPORT, (SILENT,), own), True)
    assert (there.kind, there.frozen) == (READY, None)
    config = f'devices/global_filter=["r|^/dev/disk/by-id/a.b.c$|","r|^/dev/sdx$|"{also}]'
    (stopping,) = lower_pool(Change(Subject("vg1"), "stop", "", {}, {}, POOL), found(there=there))
    assert stopping.argv == ("vgchange", "--config", config, "--activate", "n", "--", "vg1")
    volume = Volume("new", 4 * MIB, allocation=4 * MIB, path="/dev/vg1/new")
    steps = lower_volumes([Change(Subject("vg1", "new"), "create", "", None, {}, volume)], found(there=there))
    commands = [each.argv[:3] for step in steps for each in step.operations if getattr(each, "argv", None)]
    assert [words for words in commands if words[0].startswith("lv")]
    assert all(words[1:] == ("--config", config) for words in commands if words[0].startswith("lv"))


def test_a_group_that_may_be_on_what_does_not_answer_is_not_absent(monkeypatch):
    monkeypatch.setattr(sources, "aliases", lambda device: (device.node,))
    monkeypatch.setattr(logical_devices, "active_of", lambda name: ())
    pool = replace(POOL, source=Source(name="other"))
    there = logical.observe(pool, Look(REPORT, (SILENT,)), True)
    assert (there.kind, there.problem.code) == (UNKNOWN_STORAGE, "storage_unreadable")
    assert "/dev/sdx" in there.why
