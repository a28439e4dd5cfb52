# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools and volumes that only a daemon can look at: what is refused before anything changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool, pool_at_stake
from ansible_collections.virt.storage.plugins.module_utils.decide.volumes import volumes_at_stake
from ansible_collections.virt.storage.plugins.module_utils.model.change import UNKNOWN, Condition
from ansible_collections.virt.storage.plugins.module_utils.model.extents import told_extent
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABOVE,
    ABSENT,
    BLANK,
    DATA,
    ERASED,
    EVERYTHING,
    GROUND,
    ITSELF,
    NOT_THERE,
    RUNNING,
    SOURCE,
    UNREADABLE,
    UNSEEN,
    Found,
    Image,
    Neighbour,
    Part,
    Storage,
    Usage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Adapter,
    Permissions,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
)
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES, spoken
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content, Extent

from .building import (
    MIB,
    UUID,
    actions,
    codes,
    decide,
    entry,
    only,
    pool_goal,
    pool_refused,
    refused,
    user,
    volume,
    volumes_goal,
    whole,
)

GIB = 1024 * MIB
DEVICE, TARGET = (SourceDevice("/dev/sdx"),), (SourceDevice("iqn.2026-01.test:x"),)


def pool_of(kind, **source):
    row = POOL_TYPES[kind]
    declared = "/dev" if row.of_devices else "/p"
    path = None if row.target == "none" else declared if row.target == "declared" else row.target.format(name="vg")
    named = {"name": "vg"} if "name" in row.required else {}
    devices = {"devices": TARGET if row.port else DEVICE} if "devices" in (*row.required, *row.optional) else {}
    hosts = {"hosts": (SourceHost("h"),)} if "hosts" in row.required else {}
    return Pool("p", kind, UUID, path, source=Source(**{**named, **devices, **hosts, **source}))


def far(kind, *volumes, active=True, usage=None, users=None, source=None, **more):
    """A defined pool of that type; block devices and images on the network are called what they are."""
    pool = pool_of(kind, **(source or {}))
    storage = Storage(UNSEEN, pool.path, "only the daemon can look at it")
    row = POOL_TYPES[kind]
    shown = {
        each.name: replace(each, type=row.volumes if each.type == "file" else each.type, identity=None)
        for each in volumes
    }
    return Found(
        "p",
        definition=pool,
        live=pool if active else None,
        started=active,
        active=active,
        storage=storage,
        current=storage,
        volumes=shown,
        images={name: Image(each) for name, each in shown.items()},
        usage=usage,
        extent=told_extent(pool, *((usage.capacity, usage.available) if usage else (None, None))),
        users=users or {},
        **more,
    )


def plain(name="v", capacity=8 * MIB, **more):
    """A block device as a daemon shows it."""
    return replace(volume(name, capacity=capacity, allocation=capacity, **more), format=None)


# -- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path", "was_started", "refuses"),
    [
        ("fs", "/p/sub", True, True),
        ("fs", "/p/sub", False, False),
        ("fs", "/pq", True, False),
        ("dir", "/p/s", True, False),
    ],
)
def test_a_pool_in_what_a_daemon_unmounts_keeps_it(kind, path, was_started, refuses):
    """It has files open only where a guest runs on it: umount(8) would not notice."""
    other = Neighbour(Pool("o", "dir", path=path), path, started=was_started)
    there = far(kind, neighbours=(other,))
    for state in ("inactive", "absent"):
        if refuses:
            error = pool_refused(pool_goal(state), there)
            assert (error.code, "unmount /p" in error.message, "pool o" in error.message) == ("pool_in_use", True, True)
        else:
            assert actions(decide_pool(pool_goal(state), there))[0] == "stop"
    elsewhere = replace(there, live=replace(there.live, path="/old"))
    assert actions(decide_pool(pool_goal("inactive"), elsewhere)) == ["stop"]  # what runs is mounted there


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("fs", "unmount /p"),
        ("netfs", "unmount /p"),
        ("vstorage", "unmount /p"),
        ("logical", "deactivate the volumes of vg"),
        ("disk", ""),
        ("zfs", ""),
        ("mpath", ""),
        ("dir", ""),
    ],
)
def test_what_a_daemon_takes_down_is_kept_up_by_its_users(kind, how):
    """Whoever brought it up: a daemon asks nobody. Of what it only forgets nobody is asked for."""
    up = far(kind)
    used = replace(up, current=replace(up.current, busy=(user("process", "qemu (pid 7)"),)))
    for state in ("inactive", "absent"):
        stop = pool_goal(state)
        assert pool_at_stake(stop, up).get(ITSELF) == (RUNNING if how else None)
        assert pool_at_stake(stop, far(kind, active=False)).get(ITSELF) is None
        if how:
            error = pool_refused(stop, used)
            assert error.code == "pool_in_use"
            assert f"({how}): it is used by process qemu (pid 7)" in error.message
        else:
            assert actions(decide_pool(stop, used))[0] == "stop"
    moved = pool_goal(allow=["restart"], source=Source(devices=(SourceDevice("/dev/sdy"),)))
    assert pool_at_stake(moved, up).get(ITSELF) == (RUNNING if how else None)
    if kind in ("fs", "logical"):
        assert pool_refused(moved, used).code == "pool_in_use"
    assert pool_at_stake(pool_goal(), up).get(ITSELF) is None


def test_of_a_pool_to_be_deleted_its_volumes_are_asked_first():
    """As without a daemon."""
    busy = far("logical", plain(), users={"v": (user("mount", "/m"),)}, usage=Usage(GIB, 8 * MIB, GIB - 8 * MIB))
    busy = replace(busy, current=replace(busy.current, busy=(user("mount", "/m"),)))
    assert pool_refused(deleting(busy), busy).code == "pool_nonempty"
    assert pool_refused(deleting(busy, ["nonempty"]), busy).code == "volume_in_use"
    open_only = replace(busy, users={})
    assert pool_refused(deleting(open_only, ["nonempty"]), open_only).code == "pool_in_use"


# -- starting -----------------------------------------------------------------------------------------------------


def started(found, **goal):
    return decide_pool(pool_goal(**goal), found)


@pytest.mark.parametrize(
    ("kind", "source", "holds", "may"),
    [
        pytest.param("fs", {"format": "ext4"}, BLANK, {"build"}, id="fs-empty"),
        pytest.param("fs", {"format": "ext4"}, "ext4", {"directory"}, id="fs-there"),
        pytest.param("fs", {"format": "auto"}, "xfs", {"directory"}, id="fs-any"),
        pytest.param("disk", {"format": "gpt"}, BLANK, {"build"}, id="disk-empty"),
        pytest.param("disk", {"format": "gpt"}, "gpt", {"check"}, id="disk-there"),
        pytest.param("disk", {"format": "unknown"}, "dos", {"check"}, id="disk-unknown-is-dos"),
        pytest.param("logical", {}, BLANK, {"build"}, id="logical-empty"),
        pytest.param("logical", {}, "LVM2_member", {"check"}, id="logical-there"),
        pytest.param("zfs", {}, "zfs_member", {"check"}, id="zfs-there"),
    ],
)
def test_what_is_at_hand_decides_what_starting_may_build(kind, source, holds, may):
    change = only(started(far(kind, active=False, source=source, devices={"/dev/sdx": holds})))
    assert change.may == may
    assert change.destroys == ""
    assert [(c.kind, c.path, c.expected) for c in change.requires] == [("content", "/dev/sdx", (holds,))]


@pytest.mark.parametrize(
    ("kind", "source", "holds"),
    [
        pytest.param("fs", {"format": "ext4"}, "xfs", id="fs"),
        pytest.param("fs", {"format": "ext4"}, DATA, id="fs-data"),
        pytest.param("fs", {"format": "auto"}, DATA, id="fs-any-data"),
        pytest.param("fs", {"format": "ext4"}, "gpt", id="fs-on-partitions"),
        pytest.param("disk", {"format": "gpt"}, "dos", id="disk"),
        pytest.param("disk", {"format": "gpt"}, "ext4", id="disk-on-a-filesystem"),
        pytest.param("logical", {}, "ext4", id="logical"),
        pytest.param("zfs", {}, DATA, id="zfs"),
    ],
)
def test_what_is_of_another_kind_is_built_over_only_where_that_is_allowed(kind, source, holds):
    found = far(kind, active=False, source=source, devices={"/dev/sdx": holds})
    error = pool_refused(pool_goal(), found)
    assert error.code == "storage_foreign"
    assert spoken(holds) in error.message
    assert "overwrite" in error.hint
    assert pool_refused(pool_goal(build="never", allow=["overwrite"]), found).code == "storage_foreign"
    change = only(started(found, allow=["overwrite"]))
    assert change.may == {"build", "overwrite"}
    assert change.destroys == f"{spoken(holds)} on /dev/sdx"


def with_part(found, **more):
    """With the device at hand as it was looked at since it is at stake."""
    part = Part("device /dev/sdx", "/dev/sdx", ABSENT, **{"devices": ("/dev/sdx",), **more})
    return replace(found, storage=replace(found.storage, parts=(part,)))


@pytest.mark.parametrize(
    ("kind", "source", "holds", "stake"),
    [
        ("fs", {"format": "ext4"}, BLANK, True),
        ("fs", {"format": "ext4"}, "xfs", True),
        ("fs", {"format": "ext4"}, "ext4", True),  # it is mounted
        ("disk", {"format": "gpt"}, "dos", True),
        ("disk", {"format": "gpt"}, "gpt", False),
        ("logical", {}, BLANK, True),
        ("logical", {}, "LVM2_member", False),
        ("zfs", {}, "zfs_member", False),
    ],
)
def test_who_has_a_device_is_asked_only_where_it_is_taken(kind, source, holds, stake):
    found = far(kind, active=False, source=source, devices={"/dev/sdx": holds})
    assert pool_at_stake(pool_goal(), found) == ({SOURCE: EVERYTHING} if stake else {})
    assert pool_at_stake(pool_goal("inactive"), found) == {}
    assert pool_at_stake(pool_goal(), replace(found, devices={})) == {}
    never = {SOURCE: EVERYTHING} if stake and kind == "fs" else {}
    assert pool_at_stake(pool_goal(build="never"), found) == never


@pytest.mark.parametrize("more", [{"users": (user("mount", "/mnt"),)}, {"unseen": ("whether /dev/sdx is in use",)}])
@pytest.mark.parametrize(
    ("kind", "source", "holds"),
    [
        ("fs", {"format": "ext4"}, "xfs"),
        ("disk", {"format": "gpt"}, "ext4"),
        ("logical", {}, "ext4"),
        ("logical", {}, BLANK),
    ],
)
def test_nothing_is_built_on_what_somebody_has(kind, source, holds, more):
    found = with_part(far(kind, active=False, source=source, devices={"/dev/sdx": holds}), **more)
    error = pool_refused(pool_goal(allow=["overwrite"]), found)
    assert error.code == "device_in_use"
    assert "/dev/sdx" in error.message


def test_what_is_built_on_must_still_be_free_and_the_same():
    requires = (Condition("device", "/dev/sdx", (1,)), Condition("device_unused", "/dev/sdx"))
    found = with_part(
        far("disk", active=False, source={"format": "gpt"}, devices={"/dev/sdx": "ext4"}), requires=requires
    )
    change = only(started(found, allow=["overwrite"]))
    assert change.requires == (Condition("content", "/dev/sdx", ("ext4",)), *requires)


def test_one_device_of_another_kind_is_enough():
    devices = (SourceDevice("/dev/sdx"), SourceDevice("/dev/sdy"))
    found = far("logical", active=False, source={"devices": devices}, devices={"/dev/sdx": BLANK, "/dev/sdy": "ext4"})
    assert pool_refused(pool_goal(), found).code == "storage_foreign"


def test_an_empty_device_and_nothing_to_say_as_what_to_format_it():
    found = far("fs", active=False, source={"format": "auto"}, devices={"/dev/sdx": BLANK})
    assert pool_refused(pool_goal(), found).code == "missing_option"


@pytest.mark.parametrize("holds", [BLANK, "xfs"])
@pytest.mark.parametrize(
    ("kind", "declared", "code"),
    [
        pytest.param("fs", "btrfs", "daemon_cannot", id="btrfs"),
        pytest.param("fs", "hfs+", "daemon_cannot", id="hfs"),
        pytest.param("fs", "iso9660", "not_supported", id="iso9660"),
        pytest.param("disk", "lvm2", "not_supported", id="lvm2"),
    ],
)
def test_what_no_daemon_makes_is_refused_before_it_is_defined(kind, declared, code, holds):
    new = {"type": kind, "path": pool_of(kind).path, "source": Source(devices=DEVICE, format=declared)}
    found = replace(far(kind, active=False, devices={"/dev/sdx": holds}), definition=None)
    error = pool_refused(pool_goal(allow=["overwrite"], **new), found)
    assert (error.code, declared in error.message) == (code, True)
    for devices in ({"/dev/sdx": declared}, {}):  # one that is there, and one that only the daemon can look at
        changes = started(replace(found, devices=devices), allow=["overwrite"], **new).changes
        assert not {"build", "overwrite"} & frozenset().union(*(change.may for change in changes))


def test_what_another_uri_makes_is_told_before_that_a_restart_is_needed():
    """No word of this task lets it happen, though the hint names one of another."""
    found = far("fs", source={"format": "ext4"}, devices={"/dev/sdy": BLANK})
    elsewhere = Source(devices=(SourceDevice("/dev/sdy"),), format="btrfs")
    assert pool_refused(pool_goal(path="/p", source=elsewhere), found).code == "daemon_cannot"
    made_here = replace(elsewhere, format="xfs")
    assert pool_refused(pool_goal(path="/p", source=made_here), found).code == "restart_needed"


def test_an_empty_device_that_may_not_be_built():
    found = far("disk", active=False, source={"format": "gpt"}, devices={"/dev/sdx": BLANK})
    decision = started(found, build="never")
    assert codes(decision) == ["source_missing"]
    assert decision.changes[-1].may == {"check"}


def test_a_device_that_cannot_be_read_is_not_an_empty_one():
    found = far("fs", active=False, source={"format": "ext4"}, devices={"/dev/sdx": UNREADABLE + NOT_THERE})
    decision = started(found)
    assert codes(decision) == ["source_missing"]
    assert NOT_THERE in whole(decision.missing[0]).message
    assert "build" not in decision.changes[-1].may


@pytest.mark.parametrize("overwrite", [False, True])
def test_devices_that_only_the_daemon_can_look_at(overwrite):
    decision = started(far("fs", active=False, source={"format": "ext4"}), allow=["overwrite"] if overwrite else [])
    change = only(decision)
    assert change.may == {"build", "overwrite"} if overwrite else {"build"}
    assert bool(change.destroys) == overwrite
    assert "only the daemon can look at /dev/sdx" in decision.warnings[0]
    assert only(started(far("fs", active=False), build="never")).may == {"check"}


@pytest.mark.parametrize("kind", ["iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "gluster", "netfs"])
def test_what_is_never_formatted(kind):
    decision = started(far(kind, active=False))
    assert "overwrite" not in only(decision).may
    assert only(decision).destroys == ""
    assert decision.warnings == ()
    assert only(started(far(kind, active=False), allow=["overwrite"])).destroys == ""


def test_a_volume_group_without_devices_is_not_built():
    found = far("logical", active=False, source={"devices": None})
    assert only(started(found, allow=["overwrite"])).may == {"check"}
    assert started(found).warnings == ()


def test_a_directory_of_another_host():
    found = far("dir", active=False)
    assert only(started(found)).may == {"directory"}
    assert started(found, permissions=Permissions(0o750)).changes[-1].may == {"first"}
    assert only(started(found, build="never")).may == {"check"}


def test_permissions_that_cannot_be_set():
    mounted = far("fs", active=False, source={"format": "ext4"}, devices={"/dev/sdx": "ext4"})
    assert pool_refused(pool_goal(permissions=Permissions(0o750)), mounted).code == "daemon_cannot"
    active = far("dir")
    active = replace(active, storage=replace(active.storage, permissions=Permissions(0o700, 0, 0)))
    assert pool_refused(pool_goal(permissions=Permissions(0o750)), active).code == "daemon_cannot"
    assert "permissions" not in actions(decide_pool(pool_goal(permissions=Permissions(0o700)), active))


@pytest.mark.parametrize("state", ["inactive", "absent"])
def test_units_in_use_are_not_taken_away(state):
    found = far("iscsi", plain("unit:0:0:1"), users={"unit:0:0:1": (user("guest", "g"),)})
    assert pool_at_stake(pool_goal(state), found) == {"unit:0:0:1": EVERYTHING, ABOVE: RUNNING}
    error = pool_refused(pool_goal(state), found)
    assert error.code == "volume_in_use"
    assert decide_pool(pool_goal(state, allow=["in_use"]), found).changes
    idle = replace(found, users={})
    assert actions(decide_pool(pool_goal(state), idle))[0] == "stop"


@pytest.mark.parametrize(
    ("adapter", "goes"),
    [
        (Adapter("scsi_host", "scsi_host2"), False),
        (Adapter("fc_host", wwnn="1" * 16, wwpn="2" * 16), False),
        (Adapter("fc_host", wwnn="1" * 16, wwpn="2" * 16, managed=False), False),
        (Adapter("fc_host", wwnn="1" * 16, wwpn="2" * 16, managed=True), True),
    ],
)
def test_which_adapters_go_with_their_pool(adapter, goes):
    found = far("scsi", plain("unit:0:0:1"), users={"unit:0:0:1": (user("guest", "g"),)}, source={"adapter": adapter})
    assert ("unit:0:0:1" in pool_at_stake(pool_goal("inactive"), found)) is goes
    if goes:
        assert pool_refused(pool_goal("inactive"), found).code == "volume_in_use"
    else:
        assert actions(decide_pool(pool_goal("inactive"), found)) == ["stop"]


def test_a_restart_builds_nothing():
    found = far("fs", source={"format": "ext4"})
    decision = decide_pool(pool_goal(path="/q", allow=["restart", "overwrite"]), found)
    assert actions(decision) == ["stop", "redefine", "start"]
    assert decision.changes[-1].may == {"directory"}
    assert decision.changes[-1].destroys == ""
    other = Source(devices=(SourceDevice("/dev/sdy"),))
    moved = decide_pool(pool_goal(source=other, allow=["restart"]), found)
    assert moved.changes[-1].may == {"build"}


def test_what_a_pool_holds_is_not_lost_by_making_it_anew_unasked():
    words = ["restart", "overwrite"]
    there = Source(devices=DEVICE, format="xfs")
    volumes = (plain("v"), plain("lost+found", type="dir"))
    found = far("fs", *volumes, source={"format": "ext4"}, users={"v": (user("guest", "g"),)})
    assert pool_refused(pool_goal(source=there, allow=words), found).code == "pool_nonempty"
    asked = pool_goal(source=there, allow=[*words, "nonempty"])
    assert pool_at_stake(asked, found)["v"] == EVERYTHING
    assert pool_refused(asked, found).code == "volume_in_use"
    for empty in (far("fs", source={"format": "ext4"}), far("fs", *volumes[1:], source={"format": "ext4"})):
        assert actions(decide_pool(pool_goal(source=there, allow=words), empty)) == ["stop", "redefine", "start"]
    moved = pool_goal(source=Source(devices=(SourceDevice("/dev/sdy"),), format="xfs"), allow=[*words, "nonempty"])
    assert "v" not in pool_at_stake(moved, found)
    assert actions(decide_pool(moved, found)) == ["stop", "redefine", "start"]


# -- conflicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        pytest.param(pool_of("disk"), pool_of("logical"), True, id="a-device"),
        pytest.param(pool_of("disk"), pool_of("iscsi"), False, id="no-device"),
        pytest.param(pool_of("netfs", dir="/e"), pool_of("netfs", dir="/e"), True, id="netfs"),
        pytest.param(pool_of("netfs", dir="/e"), pool_of("netfs", dir="/f"), False, id="netfs-another"),
        pytest.param(pool_of("iscsi"), pool_of("iscsi"), True, id="iscsi"),
        pytest.param(pool_of("iscsi", initiator="a"), pool_of("iscsi", initiator="b"), False, id="iscsi-initiators"),
        pytest.param(pool_of("mpath"), pool_of("mpath"), True, id="mpath"),
        pytest.param(pool_of("gluster"), pool_of("gluster", dir="/"), True, id="gluster"),
        pytest.param(pool_of("rbd"), pool_of("rbd"), False, id="rbd"),
    ],
)
def test_what_two_pools_cannot_both_have(one, other, conflict):
    storage = Storage(UNSEEN, one.path)
    neighbour = Neighbour(replace(other, name="q", path="/q"), "/q")
    found = Found("p", storage=storage, current=storage, neighbours=(neighbour,))
    goal = pool_goal("present", **{name: getattr(one, name) for name in ("type", "path", "source")})
    if conflict:
        error = pool_refused(goal, found)
        assert error.code == "source_conflict"
        assert "name: q" in error.hint
    else:
        assert actions(decide_pool(goal, found)) == ["define"]


# -- deleting -------------------------------------------------------------------------------------------------------


def deleting(found, allow=()):
    pool = found.definition
    return pool_goal("deleted", allow=allow, type=pool.type, path=pool.path, source=pool.source)


@pytest.mark.parametrize("kind", ["iscsi", "iscsi-direct", "scsi", "mpath"])
def test_what_is_served_from_elsewhere_is_not_deleted(kind):
    found = far(kind, plain())
    assert pool_refused(deleting(found, ["nonempty"]), found).code == "daemon_cannot"


@pytest.mark.parametrize("kind", ["fs", "logical", "disk", "zfs", "rbd", "gluster", "dir"])
def test_what_is_not_active_cannot_be_listed(kind):
    found = far(kind, active=False)
    assert pool_refused(deleting(found, ["nonempty"]), found).code == "pool_inactive"


@pytest.mark.parametrize("kind", ["fs", "logical", "disk", "zfs", "rbd", "gluster", "dir"])
def test_volumes_go_with_their_word_only(kind):
    one = volume("a") if POOL_TYPES[kind].volumes == "file" else plain("a")
    found = far(kind, one, usage=Usage(GIB, 8 * MIB, GIB - 8 * MIB))
    error = pool_refused(deleting(found), found)
    assert error.code == "pool_nonempty"
    decision = decide_pool(deleting(found, ["nonempty"]), found)
    expected = {
        "disk": ["stop", "delete", "undefine"],
        "zfs": ["stop", "delete", "undefine"],
        "logical": ["delete a", "stop", "delete", "undefine"],
    }
    assert actions(decision) == expected.get(kind, ["delete a", "stop", "undefine"])
    assert any(change.destroys for change in decision.changes)
    if kind in ("disk", "zfs"):
        assert "with a" in decision.changes[1].destroys


def test_a_volume_group_that_holds_more_than_is_listed():
    found = far("logical", plain("a"), usage=Usage(GIB, 12 * MIB, GIB - 12 * MIB))
    error = pool_refused(deleting(found, ["nonempty"]), found)
    assert error.code == "pool_foreign_content"
    assert "4 MiB" in error.message
    assert "lvs" in error.hint


def test_a_zpool_may_hold_what_no_daemon_lists():
    found = far("zfs", usage=Usage(GIB, 0, GIB))
    assert pool_refused(deleting(found), found).code == "pool_nonempty"


@pytest.mark.parametrize("kind", ["disk", "zfs", "logical"])
def test_what_is_in_use_stays_whatever_it_is_cut_from(kind):
    found = far(kind, plain("a"), usage=Usage(GIB, 8 * MIB, GIB), users={"a": (user("guest", "g"),)})
    error = pool_refused(deleting(found, ["nonempty"]), found)
    assert error.code == "volume_in_use"
    assert decide_pool(deleting(found, ["nonempty", "in_use"]), found).changes


@pytest.mark.parametrize(("kind", "asked"), [("disk", True), ("logical", True), ("fs", False), ("scsi", False)])
def test_who_has_the_devices_as_a_whole_is_asked_for(kind, asked):
    """An empty pool tells of no device that something is cut from; its definition does."""
    found = far(kind)
    assert (ERASED in pool_at_stake(deleting(found), found)) is asked
    made = volumes_at_stake(volumes_goal(entry("new", capacity=MIB)), found)
    assert made.get(GROUND) == (EVERYTHING if asked else None)


@pytest.mark.parametrize("kind", ["disk", "logical"])
def test_what_others_have_as_a_whole_is_neither_cut_nor_erased(kind):
    found = far(kind, beneath=(user("guest", "g"),), usage=Usage(GIB, 0, GIB))
    new = entry("sdx1", capacity=MIB)
    for error in (pool_refused(deleting(found), found), refused(found, new)):
        assert (error.code, "guest g" in error.message) == ("device_in_use", True)
    assert decide_pool(deleting(found, ["in_use"]), found).changes
    opened = far(kind, beneath=(user("process", "x"),), usage=Usage(GIB, 0, GIB))
    assert pool_refused(deleting(opened, ["in_use"]), opened).code == "device_in_use"


def test_directories_in_a_filesystem():
    own = far("fs", volume("lost+found", type="dir"))
    assert actions(decide_pool(deleting(own), own)) == ["stop", "undefine"]
    other = far("fs", volume("d", type="dir"))
    assert pool_refused(deleting(other, ["nonempty"]), other).code == "pool_foreign_content"


@pytest.mark.parametrize(
    ("kind", "holds", "gone"),
    [
        pytest.param("disk", BLANK, True, id="disk"),
        pytest.param("logical", DATA, True, id="logical"),
        pytest.param("disk", "gpt", False, id="disk-there"),
        pytest.param("logical", "LVM2_member", False, id="logical-there"),
        pytest.param("disk", UNREADABLE + NOT_THERE, False, id="not-read"),
        pytest.param("fs", BLANK, False, id="fs"),
    ],
)
def test_an_interrupted_deletion(kind, holds, gone):
    found = far(kind, active=False, devices={"/dev/sdx": holds})
    if gone:
        assert actions(decide_pool(deleting(found), found)) == ["undefine"]
    else:
        assert pool_refused(deleting(found), found).code == "pool_inactive"


def test_a_deletion_that_was_interrupted_between_devices():
    devices = (SourceDevice("/dev/sdx"), SourceDevice("/dev/sdy"))
    holds = {"/dev/sdx": BLANK, "/dev/sdy": "LVM2_member"}
    found = far("logical", active=False, source={"devices": devices}, devices=holds)
    assert pool_refused(deleting(found), found).code == "pool_inactive"


# -- volumes --------------------------------------------------------------------------------------------------------


def refusal(found, *entries):
    return whole(decide(found, *entries).refusal)


@pytest.mark.parametrize("kind", ["iscsi", "iscsi-direct", "scsi", "mpath", "gluster"])
def test_types_that_only_show_what_there_is(kind):
    found = far(kind, plain("a"))
    assert decide(found, entry("a")).changes == ()
    assert refusal(found, entry("new", capacity=MIB)).code == "daemon_cannot"
    if kind != "gluster":
        assert refusal(found, entry("a", "absent")).code == "daemon_cannot"


@pytest.mark.parametrize(
    ("kind", "grows"), [("logical", False), ("disk", False), ("zfs", False), ("rbd", True), ("fs", True)]
)
def test_growing(kind, grows):
    one = volume("a", capacity=8 * MIB) if kind in ("fs", "rbd") else plain("a")
    found = far(kind, one)
    if grows:
        assert actions(decide(found, entry("a", capacity=64 * MIB))) == ["resize a"]
        return
    error = refused(found, entry("a", capacity=64 * MIB))
    assert error.code == "daemon_cannot"
    assert "on that host" in error.hint


@pytest.mark.parametrize(
    ("kind", "usage", "want", "have"),
    [
        pytest.param("logical", Usage(255 * 4 * MIB, 4 * MIB, 254 * 4 * MIB), 1_000_000, 4 * MIB, id="extents"),
        pytest.param("logical", Usage(255 * 32 * MIB, 32 * MIB, 254 * 32 * MIB), MIB, 32 * MIB, id="large-extents"),
        pytest.param("logical", None, 1_000_000, 4 * MIB, id="extents-unknown"),
        pytest.param("disk", None, 8 * MIB, 8_615_936, id="cylinders"),
        pytest.param("zfs", None, 1_000_001, 1_015_808, id="blocks"),
    ],
)
def test_a_size_that_was_rounded_is_met(kind, usage, want, have):
    found = far(kind, plain("a", have), usage=usage)
    assert decide(found, entry("a", capacity=want)).changes == ()


@pytest.mark.parametrize(
    ("kind", "usage", "want", "have"),
    [
        pytest.param("logical", Usage(255 * 4 * MIB, 0, 255 * 4 * MIB), 4 * MIB, 8 * MIB, id="an-extent-more"),
        pytest.param("logical", Usage(255 * MIB, 0, 255 * MIB), MIB, 4 * MIB, id="small-extents"),
        pytest.param("rbd", None, MIB, MIB + 1, id="bytes"),
        pytest.param("zfs", None, MIB, MIB - 1, id="too-small"),
    ],
)
def test_another_size_is_not(kind, usage, want, have):
    one = volume("a", capacity=have) if kind == "rbd" else plain("a", have)
    found = far(kind, one, usage=usage)
    declared = entry("a", capacity=want, allow=["shrink"])
    if kind == "rbd":
        assert actions(decide(found, declared)) == ["resize a"]
    else:
        assert refused(found, declared).code == "daemon_cannot"


def test_a_gpt_partition_is_as_large_as_asked_for():
    found = far("disk", plain("sdx1", MIB + 512), source={"format": "gpt"})
    assert refused(found, entry("sdx1", capacity=MIB)).code == "daemon_cannot"


@pytest.mark.parametrize(
    ("kind", "capacity", "claim"),
    [
        pytest.param("logical", 8 * MIB, 8 * MIB, id="whole-extents"),
        pytest.param("logical", 1_000_000, UNKNOWN, id="rounded"),
        pytest.param("disk", 8 * MIB, UNKNOWN, id="cylinders"),
        pytest.param("disk", 10 * POOL_TYPES["disk"].granule, UNKNOWN, id="whole-cylinders"),
        pytest.param("rbd", 1_000_000, 1_000_000, id="bytes"),
    ],
)
def test_only_what_will_be_is_claimed(kind, capacity, claim):
    change = only(decide(far(kind), entry("sdx1", capacity=capacity)))
    assert change.after["capacity"] == claim


def test_a_logical_volume_is_whole():
    assert only(decide(far("logical"), entry(capacity=8 * MIB))).wanted.allocation == 8 * MIB
    assert refused(far("logical"), entry(capacity=8 * MIB, allocation=0)).code == "daemon_cannot"
    snapshot = entry(capacity=8 * MIB, allocation=4 * MIB, backing=Backing(path="/dev/vg/base"))
    assert only(decide(far("logical"), snapshot)).wanted.allocation == 4 * MIB


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param({"capacity": MIB, "permissions": Permissions(0o640)}, id="mode"),
        pytest.param({"capacity": MIB, "compat": "1.1"}, id="compat"),
        pytest.param({"content": Content(data=b"x")}, id="content"),
        pytest.param({"capacity": MIB, "backing": Backing(path="/x", format="raw")}, id="backing"),
        pytest.param({}, id="no-capacity"),
    ],
)
def test_what_images_on_the_network_do_not_have(declared):
    assert refused(far("rbd"), entry(**declared)).code in ("daemon_cannot", "invalid_option", "capacity_missing")


def test_a_clone_knows_the_size_of_its_source():
    found = far("rbd", volume("a", capacity=8 * MIB))
    change = only(decide(found, entry("b", capacity=16 * MIB, content=Content(volume="a"))))
    assert (change.wanted.capacity, change.wanted.content.capacity) == (16 * MIB, 8 * MIB)
    assert refused(found, entry("b", capacity=MIB, content=Content(volume="a"))).code == "capacity_too_small"
    both = decide(far("rbd"), entry("b", content=Content(volume="a")), entry("a", capacity=MIB))
    assert actions(both) == ["create a", "create b"]
    assert both.changes[1].wanted.capacity == MIB
    assert codes(decide(far("rbd"), entry("b", content=Content(volume="none")))) == ["source_missing"]
    assert refusal(far("zfs", plain("a")), entry("b", content=Content(volume="a"))).code == "daemon_cannot"


# -- partitions -----------------------------------------------------------------------------------------------------


def partitioned(*names, label="gpt", device="/dev/sdx", **more):
    source = {"format": label, "devices": (SourceDevice(device),)}
    return far("disk", *(plain(name) for name in names), source=source, **more)


@pytest.mark.parametrize(
    ("found", "name"),
    [
        pytest.param(partitioned(), "sdx1", id="first"),
        pytest.param(partitioned("sdx1", "sdx3"), "sdx2", id="a-gap"),
        pytest.param(partitioned(device="/dev/nvme0n1"), "nvme0n1p1", id="digits"),
        pytest.param(partitioned("sdx1", "sdx2", "sdx3", "sdx4", label="dos"), "sdx5", id="logical"),
        pytest.param(partitioned(device="/dev/disk/by-id/x"), "sdq1", id="by-id"),
        pytest.param(
            replace(partitioned(device="/dev/disk/by-id/x"), resolved={"/dev/disk/by-id/x": "/dev/sdq"}),
            "sdq1",
            id="by-id-here",
        ),
    ],
)
def test_the_name_of_the_next_partition(found, name):
    assert actions(decide(found, entry(name, capacity=MIB))) == [f"create {name}"]
    assert refusal(found, entry(name[:-1] + "9", capacity=MIB)).code == "invalid_name"
    assert refusal(found, entry("data", capacity=MIB)).code == "invalid_name"


def test_several_partitions_in_whatever_order():
    found = partitioned("sdx1")
    wanted = [entry(f"sdx{number}", capacity=MIB) for number in (10, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert actions(decide(found, *wanted)) == [f"create sdx{number}" for number in range(2, 11)]


def test_the_kind_of_a_partition_counts_when_it_is_made():
    """The daemon does not read it back."""
    found = partitioned("sdx1", label="dos")
    assert decide(found, entry("sdx1", capacity=8 * MIB, format="linux-lvm")).changes == ()
    assert only(decide(found, entry("sdx2", capacity=8 * MIB, format="linux-lvm"))).wanted.format == "linux-lvm"


def test_partitions_that_cannot_be_made():
    full = partitioned("sdx1", "sdx2", "sdx3", "sdx4", label="dos")
    assert refusal(full, entry("sdx5", capacity=MIB, format="extended")).code == "no_space"
    assert refused(partitioned(), entry("sdx1", capacity=MIB, format="linux")).code == "invalid_option"
    by_path = replace(partitioned(), definition=replace(partitioned().definition, path="/dev/disk/by-path"))
    error = refusal(by_path, entry("sdx1", capacity=MIB))
    assert error.code == "daemon_cannot"
    assert "/dev" in error.hint


@pytest.mark.parametrize(
    ("device", "name", "beside", "deleted"),
    [
        ("/dev/sdx", "sdx1", False, True),
        ("/dev/mapper/mpatha", "mpatha1", False, True),
        ("/dev/nvme0n1", "nvme0n1p1", False, False),
        ("/dev/nvme0n1", "nvme0n1p1", True, True),
        ("/dev/disk/by-id/x", "sdq1", False, False),
    ],
)
def test_partitions_that_the_daemon_cannot_delete(device, name, beside, deleted):
    found = partitioned(name, device=device, beside=beside)
    if deleted:
        assert actions(decide(found, entry(name, "absent"))) == [f"delete {name}"]
    else:
        assert refusal(found, entry(name, "absent")).code == "daemon_cannot"


def cut(name, start, end):
    return replace(plain(name, capacity=(end - start) * MIB), extents=(Extent("/dev/sdx", start * MIB, end * MIB),))


LOGICAL = (cut("sdx1", 1, 2), cut("sdx2", 2, 9), cut("sdx5", 3, 4), cut("sdx6", 5, 6), cut("sdx7", 7, 8))


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["sdx5"], "partition_renumbered"),  # the next run would delete what was sdx6
        (["sdx5", "sdx6"], "partition_renumbered"),
        (["sdx2", "sdx5", "sdx7"], "partition_renumbered"),
        (["sdx2"], "volume_in_use"),
        (["sdx1"], ""),
        (["sdx7"], ""),
        (["sdx6", "sdx7"], ""),
        (["sdx2", "sdx5", "sdx6", "sdx7"], ""),
    ],
)
def test_logical_partitions_get_no_other_numbers_unseen(names, code):
    found = far("disk", *LOGICAL, source={"format": "dos"})
    doomed = [entry(name, "absent") for name in names]
    if code:
        assert refusal(found, *doomed).code == code
    else:
        assert actions(decide(found, *doomed)) == [f"delete {name}" for name in sorted(names, reverse=True)]
    gpt = far("disk", *LOGICAL, source={"format": "gpt"})
    assert len(decide(gpt, *doomed).changes) == len(names)


@pytest.mark.parametrize(
    ("name", "going", "code"),
    [
        ("sdx2", (), "volume_in_use"),  # the daemon would delete it with all that is in it
        ("sdx2", ("sdx5", "sdx6", "sdx7"), "volume_in_use"),  # they go after that
        ("sdx5", (), "partition_renumbered"),  # the new one would be sdx7
        ("sdx7", (), ""),
        ("sdx1", (), ""),
    ],
)
def test_partitions_made_anew_unseen(name, going, code):
    found = far("disk", *LOGICAL, source={"format": "dos"})
    declared = [entry(name, capacity=MIB, recreate="always"), *(entry(each, "absent") for each in going)]
    if code:
        assert refusal(found, *declared).code == code
    else:
        assert actions(decide(found, *declared)) == [f"recreate {name}"]


def test_what_would_get_another_number_is_not_made_anew_unseen():
    again = {"capacity": MIB, "recreate": "always"}
    assert refusal(partitioned("sdx1", "sdx3"), entry("sdx3", **again)).code == "invalid_name"
    digits = partitioned("nvme0n1p1", device="/dev/nvme0n1", beside=True)
    assert refusal(digits, entry("nvme0n1p1", **again)).code == "daemon_cannot"


# -- files ------------------------------------------------------------------------------------------------------------


IMAGE = volume("image", "qcow2", 8 * MIB)
RAW = volume("raw", "raw", MIB, allocation=MIB)


def files(*volumes, **more):
    found = far("fs", *volumes, source={"format": "ext4"}, **more)
    return replace(found, images={**found.images, "/raw": Image(volume("raw")), "/image": Image(IMAGE)})


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param(entry("new", content=Content(path="/image")), id="import"),
        pytest.param(entry("new", format="qcow2", content=Content(path="/raw")), id="convert"),
        pytest.param(entry("new", content=Content(volume="image", format="raw")), id="take"),
        pytest.param(entry("new", format="qcow2", capacity=MIB, preallocation="full"), id="full"),
        pytest.param(entry("new", format="qcow2", capacity=MIB, allocation=512), id="part"),
        pytest.param(
            entry("new", format="qcow2", preallocation="metadata", content=Content(volume="image")), id="reserved-copy"
        ),
        pytest.param(entry("raw", capacity=MIB // 2, allow=["shrink"]), id="shrink"),
        pytest.param(entry("raw", permissions=Permissions(0o640)), id="mode"),
        pytest.param(entry("image", compat="0.10"), id="amend"),
    ],
)
def test_what_no_daemon_does_with_files(declared):
    error = refusal(files(IMAGE, RAW), declared)
    assert error.code == "daemon_cannot"


@pytest.mark.parametrize(
    ("declared", "action"),
    [
        (entry("new", content=Content(path="/raw")), "create new"),
        (entry("new", content=Content(path="/image", format="raw")), "create new"),
        (entry("new", content=Content(data=b"x")), "create new"),
        (entry("new", content=Content(volume="image")), "create new"),
        (entry("new", format="qcow2", content=Content(volume="raw")), "create new"),
        (entry("new", format="qcow2", capacity=MIB, preallocation="falloc"), "create new"),
        (entry("new", capacity=MIB, allocation=512), "create new"),
        (entry("image", capacity=4 * MIB, allow=["shrink"]), "resize image"),
        (entry("raw", capacity=4 * MIB), "resize raw"),
        (entry("raw", "absent"), "delete raw"),
        (entry("raw", format="raw", capacity=MIB, recreate="always"), "recreate raw"),
    ],
)
def test_what_a_daemon_does_with_files(declared, action):
    decision = decide(files(IMAGE, RAW), declared)
    assert decision.refusal is None
    assert actions(decision) == [action]


def test_what_is_declared_raw_is_not_resized_by_its_header():
    odd = replace(RAW, looks_like="qcow2")
    declared = {"format": "raw", "capacity": 4 * MIB}
    assert refusal(files(odd), entry("raw", allow=["raw"], **declared)).code == "daemon_cannot"
