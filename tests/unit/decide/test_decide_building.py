# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storage that is more than a directory: built part by part, brought up, taken down or only released, deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool, pool_at_stake
from ansible_collections.virt.storage.plugins.module_utils.model.change import BRING_UP, EMPTIED, TAKE_DOWN, Condition
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    ERASED,
    EVERYTHING,
    FOREIGN,
    ITSELF,
    READY,
    RUNNING,
    SOURCE,
    UNKNOWN_STORAGE,
    Neighbour,
    Part,
    Problem,
    Storage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool, Source, SourceDevice

from .building import UUID, actions, defined, nothing, pool_goal, pool_refused, started, user, volume

DEVICE = Source(devices=(SourceDevice("/dev/sdx"),), format="ext4")
POOL = Pool("p", "fs", UUID, "/p", source=DEVICE)
SAME = Condition("content", "/dev/sdx", ("",))


def filesystem(kind=READY, **more):
    return Part(
        "filesystem", "an ext4 filesystem on /dev/sdx", kind, **{"removable": True, "requires": (SAME,), **more}
    )


def directory(kind=READY, **more):
    return Part("directory", "the directory /p", kind, **more)


def storage(*parts, up=False, **more):
    """That of a filesystem pool: what its parts are, it is as a whole."""
    parts = parts or (filesystem(), directory())
    kinds = [part.kind for part in parts]
    kind = next((bad for bad in (FOREIGN, UNKNOWN_STORAGE, ABSENT) if bad in kinds), READY)
    words = {"bring_up": "mount /dev/sdx on /p", "take_down": "unmount /p"}
    return Storage(kind, "/p", parts=parts, up=up, **{**words, **more})


def goal(state="active", **more):
    return pool_goal(state, **{"type": "fs", "path": "/p", "source": DEVICE, **more})


def change(decision, action, part=""):
    (found,) = [each for each in decision.changes if each.action == action and each.part == part]
    return found


# -- building -----------------------------------------------------------------------------------------------------


def test_what_is_missing_is_made_part_by_part():
    made = decide_pool(goal(), nothing(storage(filesystem(ABSENT), directory(ABSENT))))
    assert actions(made) == ["define", "build", "build", "start"]
    first = change(made, "build", "filesystem")
    assert (first.destroys, first.requires, first.before, first.after) == (
        "",
        (SAME,),
        {"filesystem": None},
        {"filesystem": {}},
    )
    assert change(made, "build", "directory").after == {"directory": {}}  # the mode is that of what is mounted on it
    assert change(made, "start").may == {BRING_UP}


def test_what_is_there_is_adopted():
    made = decide_pool(goal(), nothing(storage()))
    assert actions(made) == ["define", "start"]
    assert change(made, "start").summary == "pool p: start it: mount /dev/sdx on /p"
    up = decide_pool(goal(), nothing(storage(up=True)))
    assert (change(up, "start").may, actions(up)) == (frozenset(), ["define", "start"])


@pytest.mark.parametrize("state", ["present", "inactive"])
def test_nothing_is_built_that_is_not_started(state):
    assert actions(decide_pool(goal(state), nothing(storage(filesystem(ABSENT))))) == ["define"]


def test_something_else_is_only_overwritten_with_a_word():
    other = storage(filesystem(FOREIGN, why="/dev/sdx holds xfs", destroys="xfs on /dev/sdx"), directory())
    refused = pool_refused(goal(), nothing(other))
    assert refused.code == "storage_foreign"
    assert "xfs" in refused.message
    assert "overwrite" in refused.hint
    made = decide_pool(goal(allow=["overwrite"]), nothing(other))
    assert change(made, "build", "filesystem").destroys == "xfs on /dev/sdx"
    assert pool_refused(goal(allow=["overwrite"], build="never"), nothing(other)).code == "storage_foreign"


def test_what_nothing_can_be_made_of():
    other = storage(filesystem(FOREIGN, why="a partition table of another kind"), directory())
    assert pool_refused(goal(allow=["overwrite"]), nothing(other)).code == "storage_foreign"


def test_unsigned_content_of_what_is_not_built_yet():
    dirty = storage(filesystem(ABSENT, why="/dev/sdx holds data", destroys="data without a signature"), directory())
    assert pool_refused(goal(), nothing(dirty)).code == "storage_foreign"
    assert "build" in actions(decide_pool(goal(allow=["overwrite"]), nothing(dirty)))


def test_what_is_in_use_is_neither_built_nor_started():
    used = storage(filesystem(users=(user("mount", "/mnt"),)), directory())
    error = pool_refused(goal(), defined(used, POOL))
    assert error.code == "device_in_use"
    assert "mount /mnt" in error.message
    assert pool_refused(goal(), nothing(storage(filesystem(ABSENT, users=(user("swap"),))))).code == "device_in_use"
    assert actions(decide_pool(goal("present"), defined(used, POOL))) == []


def test_what_may_be_in_use_is_neither_built_nor_started():
    for kind in (ABSENT, READY):
        blind = storage(filesystem(kind, unseen=("whether the kernel uses /dev/sdx",)), directory())
        error = pool_refused(goal(allow=["overwrite"]), nothing(blind))
        assert error.code == "device_in_use"
        assert "whether the kernel uses /dev/sdx" in error.message
        assert actions(decide_pool(goal("inactive"), nothing(blind))) == ["define"]


def test_who_has_the_devices_is_asked_only_where_they_are_taken():
    taken = storage(filesystem(ABSENT, devices=("/dev/sdx",)), directory())
    assert pool_at_stake(goal(), nothing(taken)) == {SOURCE: EVERYTHING}
    for state in ("present", "inactive", "absent"):
        assert pool_at_stake(goal(state), nothing(taken)) == {}
    assert pool_at_stake(goal(), nothing(storage())) == {}


def test_problems():
    gone = storage(filesystem(ABSENT, problem=Problem("source_missing", "/dev/sdx is not there", "Name another.")))
    made = decide_pool(goal(), nothing(gone))
    assert [error.code for error in made.missing] == ["source_missing"]
    strange = storage(filesystem(ABSENT, problem=Problem("not_supported", "no such thing", "Don't.")))
    assert pool_refused(goal(), nothing(strange)).code == "not_supported"


def test_never_built():
    made = decide_pool(goal(build="never"), nothing(storage(filesystem(ABSENT), directory())))
    assert [error.code for error in made.missing] == ["source_missing"]
    assert "build" not in actions(made)


# -- stopping -----------------------------------------------------------------------------------------------------

RUNNING_OURS = storage(up=True, ours=True)
RUNNING_ADOPTED = storage(up=True)


def test_what_is_taken_down_must_be_what_was_looked_at():
    mounted = (Condition("mount", "/p", (1,)),)
    ours = storage(up=True, ours=True, leaves=mounted)
    assert change(decide_pool(goal("inactive"), started(ours, POOL)), "stop").requires == mounted
    adopted = storage(up=True, leaves=mounted)
    assert change(decide_pool(goal("inactive"), started(adopted, POOL)), "stop").requires == ()


@pytest.mark.parametrize("state", ["inactive", "absent"])
def test_only_what_we_brought_up_is_taken_down(state):
    found = started(RUNNING_OURS, POOL)
    assert pool_at_stake(goal(state), found) == {ITSELF: RUNNING}
    assert change(decide_pool(goal(state), found), "stop").may == {TAKE_DOWN}
    adopted = started(RUNNING_ADOPTED, POOL)
    assert pool_at_stake(goal(state), adopted) == {}
    released = change(decide_pool(goal(state), adopted), "stop")
    assert (released.may, released.after) == (frozenset(), {"state": "inactive"})
    assert "up before" in released.summary
    allowed = goal(state, allow=["stop_adopted"])
    assert change(decide_pool(allowed, adopted), "stop").may == {TAKE_DOWN}


def test_a_busy_pool_is_not_taken_down():
    busy = replace(RUNNING_OURS, busy=tuple(user("process", f"qemu (pid {number})") for number in range(7)))
    error = pool_refused(goal("inactive"), started(busy, POOL))
    assert error.code == "pool_in_use"
    assert "qemu (pid 4) and 2 more" in error.message
    adopted = replace(busy, ours=False)
    assert actions(decide_pool(goal("inactive"), started(adopted, POOL))) == ["stop"]


def test_a_restart_brings_up_again_what_it_took_down():
    options = goal(mount_options=("noatime",), allow=["restart"])
    made = decide_pool(options, started(RUNNING_OURS, POOL))
    assert actions(made) == ["stop", "redefine", "start"]
    assert change(made, "start").may == {BRING_UP}
    assert pool_refused(options, started(RUNNING_ADOPTED, POOL)).code == "pool_adopted"


def rebuilt(**more):
    """An active filesystem that is to become another one, with a volume that a guest has."""
    on = (Condition("device", "/dev/sdx", (8, 0)),)
    other = filesystem(FOREIGN, why="/dev/sdx holds ext4", destroys="ext4 on /dev/sdx", requires=on)
    current = storage(filesystem(requires=on), directory(), up=True, ours=True)
    known = {"current": current, "volumes": {"v": volume()}, "users": {"v": (user("guest", "vm1"),)}}
    return started(storage(other, directory()), POOL, **{**known, "active": True, **more})


def test_what_a_pool_holds_is_not_lost_by_making_it_anew_unasked():
    def asked(*allow):
        return goal(source=replace(DEVICE, format="xfs"), allow=["restart", "overwrite", *allow])

    found = rebuilt()
    assert pool_refused(asked(), found).code == "pool_nonempty"
    assert pool_at_stake(asked("nonempty"), found)["v"] == EVERYTHING
    error = pool_refused(asked("nonempty"), found)
    assert (error.code, "guest vm1" in error.message) == ("volume_in_use", True)
    overlay = rebuilt(users={"v": (user("overlay", "/q/overlay"),)})
    assert pool_refused(asked("nonempty"), overlay).code == "volume_backing"
    made = decide_pool(asked("nonempty", "in_use"), found)
    assert actions(made) == ["stop", "redefine", "build", "start"]


def test_making_an_empty_pool_anew_takes_no_more_words():
    wanted = goal(source=replace(DEVICE, format="xfs"), allow=["restart", "overwrite"])
    assert "build" in actions(decide_pool(wanted, rebuilt(volumes={}, users={})))


def test_what_a_pool_holds_that_moves_to_another_device_stays():
    there = storage(filesystem(requires=(Condition("device", "/dev/sdy", (8, 16)),)), directory(), up=True, ours=True)
    wanted = goal(source=replace(DEVICE, format="xfs"), allow=["restart", "overwrite", "nonempty"])
    found = rebuilt(current=there)
    assert "v" not in pool_at_stake(wanted, found)
    assert "build" in actions(decide_pool(wanted, found))


# -- deleting -----------------------------------------------------------------------------------------------------


def test_deleting_goes_from_the_inside_out():
    found = started(replace(RUNNING_OURS, parts=(filesystem(), directory(removable=True))), POOL)
    made = decide_pool(goal("deleted"), found)
    assert [(each.action, each.part) for each in made.changes] == [
        ("stop", ""),
        ("delete", "directory"),
        ("delete", "filesystem"),
        ("undefine", ""),
    ]
    assert change(made, "stop").may == {TAKE_DOWN, EMPTIED}
    assert change(made, "delete", "filesystem").destroys == "an ext4 filesystem on /dev/sdx"
    assert change(made, "delete", "filesystem").requires == (SAME,)


def test_what_is_down_can_only_be_deleted_when_it_is_known_to_be_empty():
    assert pool_refused(goal("deleted"), defined(storage(), POOL)).code == "pool_inactive"
    emptied = defined(storage(emptied=True), POOL)
    assert actions(decide_pool(goal("deleted"), emptied)) == ["delete", "undefine"]


def test_what_was_up_before_is_not_deleted_without_a_word():
    assert pool_refused(goal("deleted"), started(RUNNING_ADOPTED, POOL)).code == "pool_adopted"
    allowed = goal("deleted", allow=["stop_adopted"])
    assert actions(decide_pool(allowed, started(RUNNING_ADOPTED, POOL))) == ["stop", "delete", "undefine"]


def test_what_somebody_else_mounted_is_not_deleted_without_a_word():
    """The pool was not started, as its own record says, but what it would mount is mounted."""
    found = defined(RUNNING_ADOPTED, POOL)
    assert pool_refused(goal("deleted"), found).code == "pool_adopted"
    allowed = goal("deleted", allow=["stop_adopted"])
    assert pool_at_stake(allowed, found) == {ITSELF: RUNNING}
    made = decide_pool(allowed, found)
    assert actions(made) == ["stop", "delete", "undefine"]
    assert change(made, "stop").may == {TAKE_DOWN, EMPTIED}
    assert actions(decide_pool(goal("absent"), found)) == ["undefine"]


PULLED = Problem("source_missing", "there is no /dev/sdx", "Name what is there.")
UNMAKEABLE = Problem("not_supported", "a dos label can't count all of /dev/sdx", "Declare source.format: gpt.")


def cut(*parts, kind="logical", named=True):
    """A group or disk that is defined and not there, and the goal to delete it."""
    source = Source(devices=(SourceDevice("/dev/sdx"),) if named else None, name="vg" if kind == "logical" else None)
    pool = Pool("p", kind, UUID, "/dev/vg" if kind == "logical" else "/dev", source=source)
    found = defined(Storage(ABSENT, pool.path, parts=parts, up=kind == "disk"), pool)
    return pool_goal("deleted", allow=["nonempty"], type=kind, source=source), found


@pytest.mark.parametrize("kind", ["logical", "disk"])
def test_what_is_away_is_not_taken_for_deleted(kind):
    """Its device may come back with all that it holds."""
    made = {"removable": False, "requires": ()}
    assert pool_refused(*cut(filesystem(ABSENT, problem=PULLED, **made), kind=kind)).code == "source_missing"
    hidden = Problem("vg_hidden", "LVM does not show it", "Show it.")
    assert pool_refused(*cut(filesystem(FOREIGN, problem=hidden, removable=False), kind=kind)).code == "vg_hidden"
    unread = filesystem(UNKNOWN_STORAGE, why="Input/output error", **made)
    assert pool_refused(*cut(unread, kind=kind)).code == "storage_unreadable"


@pytest.mark.parametrize("kind", ["logical", "disk"])
def test_what_an_interrupted_task_deleted_is_gone(kind):
    """Whether it could be made anew is no matter."""
    for problem in (None, UNMAKEABLE):
        decision = decide_pool(*cut(filesystem(ABSENT, problem=problem, removable=False), kind=kind))
        assert (actions(decision), decision.warnings) == (["undefine"], ())


def test_a_group_of_which_nothing_says_where_it_was_goes_with_a_warning():
    decision = decide_pool(*cut(filesystem(ABSENT, problem=PULLED, requires=()), named=False))
    assert actions(decision) == ["undefine"]
    assert [PULLED.what in warning for warning in decision.warnings] == [True]


def test_what_nobody_defined_is_not_deleted():
    assert pool_refused(goal("deleted"), nothing(storage())).code == "pool_undefined"
    assert actions(decide_pool(goal("deleted"), nothing(storage(filesystem(ABSENT), directory())))) == []


def test_what_was_deleted_is_gone_whatever_has_its_device_by_now():
    other = storage(
        filesystem(FOREIGN, why="/dev/sdx holds xfs", destroys="xfs on /dev/sdx", removable=False), directory()
    )
    pulled = Problem("source_missing", "there is no /dev/sdx", "Name what is there.")
    lost = storage(filesystem(UNKNOWN_STORAGE, problem=pulled, removable=False), directory())
    theirs = Neighbour(Pool("other", "disk", path="/dev", source=DEVICE), None, ("/dev/sdx",))
    for found in (nothing(other), nothing(lost), nothing(storage(), neighbours=(theirs,))):
        decision = decide_pool(goal("deleted", allow=["nonempty"]), found)
        assert (decision.changes, decision.missing, decision.refusal) == ((), (), None)
    for found in (defined(other, POOL), defined(storage(), POOL, neighbours=(theirs,))):
        pool_refused(goal("deleted"), found)


@pytest.mark.parametrize("state", ["present", "active", "inactive"])
def test_the_same_device_by_another_name_is_no_change(state):
    by_id = Source(devices=(SourceDevice("/dev/disk/by-id/x"),), format="ext4")
    leads = {"/dev/disk/by-id/x": "/dev/sdx", "/dev/sdx": "/dev/sdx"}
    wanted = replace(goal(state), pool=replace(POOL, source=by_id))
    running = started(RUNNING_OURS, POOL, resolved=leads)
    assert actions(decide_pool(wanted, running)) == (["stop"] if state == "inactive" else [])
    elsewhere = replace(running, resolved={**leads, "/dev/disk/by-id/x": "/dev/sdy"})
    if state == "inactive":
        assert actions(decide_pool(wanted, elsewhere)) == ["stop", "redefine"]
    else:
        assert pool_refused(wanted, elsewhere).code == "restart_needed"


def test_the_same_device_by_another_name_is_deleted():
    by_id = Source(devices=(SourceDevice("/dev/disk/by-id/x"),))
    wanted = replace(goal("deleted", allow=["nonempty"]), pool=replace(POOL, source=by_id))
    there = storage(filesystem(), directory(), up=True, ours=True)
    leads = {"/dev/disk/by-id/x": "/dev/sdx", "/dev/sdx": "/dev/sdx"}
    assert "delete" in actions(decide_pool(wanted, started(there, POOL, resolved=leads)))
    other = started(there, POOL, resolved={**leads, "/dev/disk/by-id/x": "/dev/sdy"})
    assert pool_refused(wanted, other).code == "identity_change"


def test_what_something_is_mounted_over_is_not_gone():
    over = storage(filesystem(), directory(FOREIGN, why="a mount of tmpfs"))
    assert pool_refused(goal("deleted"), nothing(over)).code == "pool_undefined"


def test_permissions_are_those_of_what_is_mounted():
    wanted = goal(permissions=Permissions(0o750))
    made = decide_pool(wanted, nothing(storage()))
    assert change(made, "start").after == {"state": "active", "target": {"mode": "0750"}}
    up = storage(up=True, ours=True, permissions=Permissions(0o755, 0, 0))
    assert actions(decide_pool(wanted, started(up, replace(POOL, permissions=Permissions(0o750))))) == ["permissions"]


def test_permissions_of_a_definition_alone_are_shown_where_they_are_set():
    known = replace(POOL, permissions=Permissions(0o750, 5))
    made = decide_pool(pool_goal(), defined(storage(), known))
    assert change(made, "start").after == {"state": "active", "target": {"mode": "0750", "owner": 5}}
    fixed = defined(storage(fixed="vfat has none"), known)
    assert change(decide_pool(pool_goal(), fixed), "start").after == {"state": "active"}
    assert pool_refused(pool_goal(permissions=Permissions(0o750)), fixed).code == "not_supported"


RO = {"mount_options": ("noatime,ro",)}


@pytest.mark.parametrize(
    ("there", "pool"),
    [
        (storage(), RO),
        (storage(read_only_source=True), {}),
        (storage(up=True, ours=True), {**RO, "allow": ["restart"]}),
    ],
)
def test_what_is_mounted_read_only_gets_no_permissions(there, pool):
    """A definition may have some all the same; what the task says would stay undone."""
    known = replace(POOL, permissions=Permissions(0o750, 5))
    found = started(there, known) if there.up else defined(there, known)
    assert "target" not in change(decide_pool(pool_goal(**pool), found), "start").after
    error = pool_refused(pool_goal(permissions=Permissions(0o755), **pool), found)
    assert (error.code, "mode" in error.message, "read-only" in error.message) == ("not_supported", True, True)


@pytest.mark.parametrize(
    ("kind", "options", "fits"),
    [(ABSENT, ("ro",), False), (FOREIGN, ("ro",), False), (ABSENT, ("ro", "rw"), True), (READY, ("ro",), True)],
)
def test_copying_on_write_can_not_be_set_where_a_new_filesystem_is_mounted_read_only(kind, options, fits):
    wanted = goal(cow=False, mount_options=options, allow=["overwrite"])
    found = nothing(storage(filesystem(kind, destroys="swap" if kind == FOREIGN else ""), directory()))
    if fits:
        assert decide_pool(wanted, found).refusal is None
    else:
        error = pool_refused(wanted, found)
        assert (error.code, "features.cow" in error.message) == ("not_supported", True)
    assert decide_pool(replace(wanted, pool=replace(wanted.pool, cow=None)), found).refusal is None


def test_what_is_mounted_read_only_may_be_said_as_it_is():
    wanted = pool_goal(permissions=Permissions(0o755), allow=["restart"], **RO)
    up = storage(up=True, ours=True, permissions=Permissions(0o755, 0, 0))
    assert "target" not in change(decide_pool(wanted, started(up, POOL)), "start").after


def test_a_read_only_mount_that_goes_keeps_nobody_from_setting_them():
    wanted = pool_goal(permissions=Permissions(0o750), allow=["restart"], mount_options=("ro", "rw"))
    up = storage(up=True, ours=True, read_only=True, permissions=Permissions(0o755, 0, 0))
    made = decide_pool(wanted, started(up, replace(POOL, mount_options=("ro",))))
    assert (made.refusal, change(made, "start").after["target"]) == (None, {"mode": "0750"})


def test_what_a_restart_mounts_gets_its_permissions_then():
    """What is on the path in between is the bare directory."""
    wanted = goal(permissions=Permissions(0o750), mount_options=("noatime",), allow=["restart"])
    up = storage(up=True, ours=True, permissions=Permissions(0o755, 0, 0))
    made = decide_pool(wanted, started(up, POOL))
    assert actions(made) == ["stop", "redefine", "start"]
    assert change(made, "start").after["target"] == {"mode": "0750"}


TAKEN = Condition("device", "/dev/sdx", (8,))
UP = storage(filesystem(requires=(TAKEN,)), directory(), up=True, ours=True)


@pytest.mark.parametrize(
    ("who", "allow", "code"),
    [
        ("guest", (), "device_in_use"),
        ("guest", ["in_use"], None),
        ("mount", (), "device_in_use"),
        ("mount", ["in_use"], "device_in_use"),
    ],
)
def test_what_others_have_is_not_erased(who, allow, code):
    found = replace(started(UP, POOL), beneath=(user(who),))
    wanted = goal("deleted", allow=allow)
    if code:
        assert pool_refused(wanted, found).code == code
    else:
        assert actions(decide_pool(wanted, found)) == ["stop", "delete", "undefine"]


@pytest.mark.parametrize("allow", [(), ["in_use"]])
def test_what_could_not_be_looked_at_is_not_erased(allow):
    """Nor would it be in the end, when its volumes are gone (host/taking.py)."""
    found = replace(started(UP, POOL), blind=("open files",))
    error = pool_refused(goal("deleted", allow=allow), found)
    assert (error.code, "open files" in error.message) == ("device_in_use", True)


def test_what_is_down_is_not_erased_while_it_is_mounted_elsewhere():
    down = storage(filesystem(requires=(TAKEN,), users=(user("mount", "/elsewhere"),)), directory(), emptied=True)
    assert pool_refused(goal("deleted", allow=["in_use"]), defined(down, POOL)).code == "device_in_use"


def test_who_has_what_would_be_erased_is_asked_for():
    assert pool_at_stake(goal("deleted"), started(UP, POOL)) == {ITSELF: RUNNING, ERASED: EVERYTHING}
    kept = storage(filesystem(FOREIGN, requires=(TAKEN,)), directory())
    assert ERASED not in pool_at_stake(goal("deleted"), defined(kept, POOL))
    assert ERASED not in pool_at_stake(goal("inactive"), started(UP, POOL))
