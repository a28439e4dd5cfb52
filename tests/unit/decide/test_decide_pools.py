# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every state of a pool against everything that can be found of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.decision import Decision
from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool, pool_at_stake
from ansible_collections.virt.storage.plugins.module_utils.model.change import UNKNOWN, Condition
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    EVERYTHING,
    READY,
    UNKNOWN_STORAGE,
    UNSEEN,
    Found,
    Neighbour,
    Part,
    Problem,
    Storage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Permissions,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
)

from .building import (
    DEFINED,
    DIRECTORY,
    GONE,
    IN_THE_WAY,
    UNREADABLE,
    UUID,
    actions,
    codes,
    defined,
    nothing,
    pool_goal,
    pool_refused,
    started,
    user,
    volume,
    whole,
)

OTHER = "11111111-2222-3333-4444-555555555555"
MADE = replace(DIRECTORY, made=True)
ELSEWHERE = replace(DIRECTORY, path="/q", identity=(1, 2))
SAME_BY_LINK = replace(DIRECTORY, path="/link")


def dir_goal(state="active", **more):
    return pool_goal(state, **{"type": "dir", "path": "/p", **more})


# -- states × what is there ---------------------------------------------------------------------------------------

STATES = ("present", "active", "inactive", "absent", "deleted")
FOREIGN, NO_READING = "!storage_foreign", "!storage_unreadable"
TABLE = {
    "nothing": (nothing(), ("define", "define build start", "define", "", "")),
    "nothing, directory there": (nothing(DIRECTORY), ("define", "define start", "define", "", "")),
    "nothing, foreign": (nothing(IN_THE_WAY), ("define", FOREIGN, "define", "", "")),
    "nothing, unreadable": (nothing(UNREADABLE), ("define", NO_READING, "define", "", NO_READING)),
    "defined": (defined(), ("", "start", "", "undefine", "undefine")),
    "defined, our directory": (defined(MADE), ("", "start", "", "undefine", "delete undefine")),
    "defined, directory gone": (defined(GONE), ("", "build start", "", "undefine", "undefine")),
    "defined, foreign": (defined(IN_THE_WAY), ("", FOREIGN, "", "undefine", FOREIGN)),
    "defined, unreadable": (defined(UNREADABLE), ("", NO_READING, "", "undefine", NO_READING)),
    "active": (started(), ("", "", "stop", "stop undefine", "stop undefine")),
    "active, our directory": (started(MADE), ("", "", "stop", "stop undefine", "stop delete undefine")),
    "started, directory gone": (started(GONE), ("", "build start", "stop", "stop undefine", "stop undefine")),
    "started, foreign": (started(IN_THE_WAY), ("", FOREIGN, "stop", "stop undefine", FOREIGN)),
    "started, unreadable": (started(UNREADABLE), ("", NO_READING, "stop", "stop undefine", NO_READING)),
    "transient": (started(definition=None), ("define", "define", "stop define", "stop", "stop")),
}


@pytest.mark.parametrize(
    ("state", "found", "expected"),
    [
        pytest.param(state, found, expected, id=f"{state}: {situation}")
        for situation, (found, row) in TABLE.items()
        for state, expected in zip(STATES, row)
    ],
)
def test_what_each_state_comes_to(state, found, expected):
    goal = dir_goal(state)
    if expected.startswith("!"):
        assert pool_refused(goal, found).code == expected[1:]
        return
    decision = decide_pool(goal, found)
    assert actions(decision) == expected.split()
    assert (decision.missing, decision.refusal) == ((), None)
    assert {str(change.subject) for change in decision.changes} <= {"pool p"}


@pytest.mark.parametrize(
    ("state", "found", "expected", "missing"),
    [
        pytest.param("present", nothing(), [], ["pool_missing"], id="present, nothing"),
        pytest.param("active", nothing(), ["start"], ["pool_missing"], id="active, nothing"),
        pytest.param("inactive", nothing(), [], ["pool_missing"], id="inactive, nothing"),
        pytest.param("absent", nothing(), [], [], id="absent, nothing"),
        pytest.param("present", defined(), [], [], id="present, defined"),
        pytest.param("active", defined(), ["start"], [], id="active, defined"),
        pytest.param("active", defined(GONE), ["build", "start"], [], id="active, directory gone"),
        pytest.param("inactive", started(), ["stop"], [], id="inactive, active"),
        pytest.param("absent", started(), ["stop", "undefine"], [], id="absent, active"),
    ],
)
def test_a_state_alone(state, found, expected, missing):
    decision = decide_pool(pool_goal(state), found)
    assert (actions(decision), codes(decision)) == (expected, missing)
    for error in decision.missing:
        whole(error)


def test_where_an_earlier_task_may_define_the_pool_the_start_is_planned_from_unknown():
    (change,) = decide_pool(pool_goal("active"), nothing()).changes
    assert (change.before, change.after) == ({"state": UNKNOWN}, {"state": "active"})


# -- defining -----------------------------------------------------------------------------------------------------


def test_what_defining_claims():
    decision = decide_pool(dir_goal("present", permissions=Permissions(0o750, 1, 2), cow=True), nothing())
    (change,) = decision.changes
    assert change.before is None
    assert change.after == {
        "definition": {
            "type": "dir",
            "path": "/p",
            "mode": "0750",
            "owner": 1,
            "group": 2,
            "features": {"cow": True},
            "uuid": UNKNOWN,
        }
    }
    assert (change.wanted.name, change.destroys, change.requires) == ("p", "", ())


def test_a_declared_uuid_is_claimed():
    (change,) = decide_pool(dir_goal("present", uuid=UUID), nothing()).changes
    assert change.after["definition"]["uuid"] == UUID
    assert change.wanted.uuid == UUID


def test_defining_a_transient_pool_keeps_its_uuid():
    (change,) = decide_pool(dir_goal("present"), started(definition=None)).changes
    assert change.after["definition"]["uuid"] == UUID
    assert change.wanted.uuid == UUID


@pytest.mark.parametrize(
    ("pool_type", "given", "lacking"),
    [
        ("dir", {}, "path"),
        ("fs", {}, "source.device, path"),
        ("netfs", {"path": "/p"}, "source.host, source.dir"),
        ("vstorage", {}, "path"),
        ("iscsi", {"path": "/dev/disk/by-path"}, "source.host, source.device"),
        ("scsi", {"path": "/dev/disk/by-path"}, "source.adapter"),
        ("rbd", {}, "source.host, source.name"),
    ],
)
def test_a_pool_that_is_not_defined_must_be_said_in_full(pool_type, given, lacking):
    error = pool_refused(pool_goal("present", type=pool_type, **given), nothing())
    assert error.code == "missing_option"
    assert lacking in error.message
    assert lacking in error.hint


def test_a_type_that_is_not_supported_can_be_defined_and_undefined_but_not_started():
    declared = {"type": "netfs", "path": "/p", "source": Source(dir="/e", hosts=("h",))}
    other = replace(DEFINED, type="netfs", source=Source(dir="/e"))
    no = {"unsupported": "not here"}
    assert actions(decide_pool(pool_goal("inactive", **declared), nothing())) == ["define"]
    assert actions(decide_pool(pool_goal("absent"), defined(pool=other))) == ["undefine"]
    assert pool_refused(pool_goal("active", **declared), nothing(**no)).code == "backend_missing"
    assert pool_refused(pool_goal("active"), defined(pool=other, **no)).code == "backend_missing"
    assert pool_refused(pool_goal("deleted", **declared), nothing(**no)).code == "backend_missing"
    assert (
        pool_refused(pool_goal("deleted", type="netfs", path="/p"), defined(pool=other, **no)).code == "backend_missing"
    )


# -- changing a definition ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "found", "expected"),
    [
        pytest.param({}, started(), [], id="nothing"),
        pytest.param({"uuid": UUID}, started(), [], id="the-uuid-it-has"),
        pytest.param({"permissions": Permissions(0o711, 0, 0)}, started(), ["redefine"], id="mode-it-has"),
        pytest.param({"permissions": Permissions(0o700)}, started(), ["redefine", "permissions"], id="mode"),
        pytest.param({"permissions": Permissions(owner=5)}, started(), ["redefine", "permissions"], id="owner"),
        pytest.param({"permissions": Permissions(group=5)}, started(), ["redefine", "permissions"], id="group"),
        pytest.param(
            {"permissions": Permissions(0o700)}, defined(), ["redefine", "permissions", "start"], id="inactive"
        ),
        pytest.param({"permissions": Permissions(0o700)}, defined(GONE), ["redefine", "build", "start"], id="gone"),
        pytest.param(
            {"permissions": Permissions(0o711)},
            started(pool=replace(DEFINED, permissions=Permissions(0o711))),
            [],
            id="defined-so",
        ),
        pytest.param(
            {},
            started(
                replace(DIRECTORY, permissions=Permissions(0o777, 0, 0)),
                replace(DEFINED, permissions=Permissions(0o711)),
            ),
            ["permissions"],
            id="directory-differs-from-its-definition",
        ),
        pytest.param({}, started(replace(DIRECTORY, permissions=Permissions(0o777, 9, 9))), [], id="mode-not-declared"),
    ],
)
def test_live_changes(declared, found, expected):
    decision = decide_pool(dir_goal(**declared), found)
    assert actions(decision) == expected
    assert "stop" not in expected


def test_permissions_that_a_daemon_wrote_into_the_definition_are_nobodys_declaration():
    """It may have found them there, and somebody have changed them since."""
    written = replace(DEFINED, permissions=Permissions(0o711, 0, 0))
    found = started(replace(DIRECTORY, permissions=Permissions(0o777, 9, 9)), written, learned=True)
    assert actions(decide_pool(dir_goal(), found)) == []
    declared = decide_pool(dir_goal(permissions=Permissions(0o711)), found)
    assert actions(declared) == ["permissions"]
    assert declared.changes[0].wanted.permissions == Permissions(0o711)


@pytest.mark.parametrize("state", ["present", "inactive"])
def test_the_mode_of_an_inactive_pool_waits_for_its_start(state):
    decision = decide_pool(dir_goal(state, permissions=Permissions(0o700)), defined())
    assert actions(decision) == ["redefine"]


def test_the_mode_of_an_active_pool_is_set_with_state_present():
    decision = decide_pool(dir_goal("present", permissions=Permissions(0o700)), started())
    assert actions(decision) == ["redefine", "permissions"]


def test_a_redefinition_claims_only_what_changes():
    redefine, permissions = decide_pool(dir_goal(permissions=Permissions(0o700)), started()).changes
    assert redefine.before == {"definition": {"mode": None}}
    assert redefine.after == {"definition": {"mode": "0700"}}
    assert permissions.before == {"target": {"mode": "0711"}}
    assert permissions.after == {"target": {"mode": "0700"}}
    assert permissions.wanted.permissions == Permissions(0o700)


def moved(base, **more):
    """The declared directory /q is there, and another one than the pool's /p."""
    return base(ELSEWHERE, current=DIRECTORY, **more)


@pytest.mark.parametrize(
    ("state", "allow", "found", "expected"),
    [
        ("active", (), "started", "!restart_needed"),
        ("present", (), "started", "!restart_needed"),
        ("active", ("restart",), "started", ["stop", "redefine", "start"]),
        ("present", ("restart",), "started", ["stop", "redefine", "start"]),
        ("inactive", (), "started", ["stop", "redefine"]),
        ("inactive", ("restart",), "started", ["stop", "redefine"]),
        ("active", (), "defined", ["redefine", "start"]),
        ("present", (), "defined", ["redefine"]),
        ("inactive", (), "defined", ["redefine"]),
    ],
)
def test_another_path(state, allow, found, expected):
    goal = pool_goal(state, allow=allow, path="/q")
    seen = moved({"started": started, "defined": defined}[found])
    if isinstance(expected, str):
        error = pool_refused(goal, seen)
        assert error.code == expected[1:]
        assert "allow: [restart]" in error.hint
    else:
        assert actions(decide_pool(goal, seen)) == expected


@pytest.mark.parametrize("allow", [(), ("restart",)])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("active", ["stop", "redefine", "start"]), ("present", ["redefine"]), ("inactive", ["stop", "redefine"])],
)
def test_a_started_pool_that_is_down_needs_no_leave_to_restart(state, allow, expected):
    found = started(ELSEWHERE, current=GONE, active=False)
    assert actions(decide_pool(pool_goal(state, allow=allow, path="/q"), found)) == expected


@pytest.mark.parametrize(
    ("found", "state", "expected"),
    [
        (defined(restarting=True), "present", ["start"]),
        (
            defined(restarting=True, current=DIRECTORY, storage=replace(GONE, path="/q")),
            "present",
            ["redefine", "build", "start"],
        ),
        (started(GONE, restarting=True), "present", ["build", "start"]),
        (started(restarting=True), "present", []),
        (defined(restarting=True), "inactive", []),
        (defined(), "present", []),
        (nothing(restarting=True), "present", ["define"]),
    ],
)
def test_a_restart_that_was_ended_is_completed(found, state, expected):
    """Only where the pool was stopped to be started again does ``present`` start it."""
    path = found.storage.path if found.definition is not None else "/p"
    decision = decide_pool(dir_goal(state, path=path), found)
    assert actions(decision) == expected
    assert any("restarting" in text for text in decision.warnings) is ("start" in expected)


def test_a_started_pool_of_which_nobody_can_tell_needs_leave_to_restart():
    found = started(ELSEWHERE, current=UNREADABLE, active=False)
    assert pool_refused(pool_goal(path="/q"), found).code == "restart_needed"


def test_what_no_word_allows_is_told_before_that_a_restart_is_needed():
    in_the_way = started(replace(IN_THE_WAY, path="/q"), current=DIRECTORY, active=True)
    for state in ("active", "present"):
        assert pool_refused(pool_goal(state, path="/q"), in_the_way).code == "storage_foreign"
    unable = Storage(ABSENT, "/q", up=False, bring_up="mount x", unable=Problem("not_supported", "no nfs", "Load it."))
    pool = replace(DEFINED, type="netfs", source=Source((SourceHost("h"),), dir="/e"))
    mounted = started(unable, pool, current=DIRECTORY, active=True)
    wanted = PoolGoal(replace(pool, path="/q"), "active")
    assert pool_refused(wanted, mounted).code == "not_supported"
    assert pool_refused(wanted, replace(mounted, storage=replace(unable, unable=None))).code == "restart_needed"


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [(None, "nfs", ["redefine"]), ("auto", "nfs", ["redefine"]), ("nfs", "cifs", "restart_needed")],
)
def test_a_format_that_was_found_out_can_be_said(have, want, expected):
    source = Source((SourceHost("h"),), dir="/e", format=have)
    mounted = replace(DIRECTORY, up=True, take_down="unmount /p")
    found = started(mounted, replace(DEFINED, type="netfs", source=source), current=mounted)
    goal = pool_goal(type="netfs", path="/p", source=replace(source, format=want))
    if expected == "restart_needed":
        assert pool_refused(goal, found).code == expected
    else:
        assert actions(decide_pool(goal, found)) == expected
    other = replace(found, storage=replace(mounted, up=False))
    assert pool_refused(goal, other).code == "restart_needed"


@pytest.mark.parametrize(
    ("pool_type", "want", "known"), [("netfs", "nfs", True), ("netfs", "cifs", False), ("fs", "xfs", False)]
)
def test_a_daemon_mounts_nfs_where_the_format_is_left_open(pool_type, want, known):
    source = Source((SourceHost("h"),), dir="/e") if pool_type == "netfs" else Source(devices=(SourceDevice("/dev/x"),))
    unseen = Storage(UNSEEN, "/p")
    found = started(unseen, replace(DEFINED, type=pool_type, source=source), current=unseen, active=True)
    goal = pool_goal(type=pool_type, path="/p", source=replace(source, format=want))
    if known:
        assert actions(decide_pool(goal, found)) == ["redefine"]
    else:
        assert pool_refused(goal, found).code == "restart_needed"


def test_who_has_to_allow_a_restart_is_told_that_it_would_not_help():
    """Not refused for what is missing: in check mode an earlier task may make that."""
    found = started(current=DIRECTORY, storage=replace(GONE, path="/q"), active=True)
    (missing,) = decide_pool(pool_goal(path="/q", build="never", allow=["restart"]), found).missing
    error = pool_refused(pool_goal(path="/q", build="never"), found)
    assert (error.code, missing.code, missing.message in error.hint) == ("restart_needed", "source_missing", True)
    assert missing.message not in pool_refused(pool_goal(path="/q"), found).hint


def test_what_a_word_allows_is_told_after_that_a_restart_is_needed():
    adopted = Storage(READY, "/p", up=True, bring_up="mount x", take_down="unmount /p")
    pool = replace(DEFINED, type="netfs", source=Source((SourceHost("h"),), dir="/e"))
    found = started(replace(adopted, path="/q", up=False), pool, current=adopted, active=True)
    moved_there = PoolGoal(replace(pool, path="/q"), "active")
    assert pool_refused(moved_there, found).code == "restart_needed"
    assert pool_refused(replace(moved_there, allow=frozenset({"restart"})), found).code == "pool_adopted"


def test_a_restart_into_a_directory_that_is_not_there_builds_it():
    found = started(current=DIRECTORY, storage=replace(GONE, path="/q"))
    decision = decide_pool(pool_goal(path="/q", allow=["restart"]), replace(found, active=True))
    assert actions(decision) == ["stop", "redefine", "build", "start"]


@pytest.mark.parametrize("state", ["present", "active", "inactive"])
def test_the_same_directory_by_another_name_is_no_change(state):
    found = started(SAME_BY_LINK) if state != "inactive" else defined(SAME_BY_LINK)
    found = replace(found, current=DIRECTORY)
    assert decide_pool(pool_goal(state, path="/link"), found).changes == ()


@pytest.mark.parametrize("allow", [(), ("restart",)])
@pytest.mark.parametrize("state", STATES)
def test_a_pool_keeps_its_type(state, allow):
    error = pool_refused(pool_goal(state, type="fs", path="/p", allow=allow), started())
    assert error.code == "identity_change"


# -- conflicts ----------------------------------------------------------------------------------------------------


def neighbour(name="other", path="/other", uuid=OTHER, resolved=None, pool_type="dir"):
    return Neighbour(Pool(name, pool_type, uuid, path), resolved or path)


@pytest.mark.parametrize("state", STATES)
def test_the_same_name_with_another_uuid(state):
    error = pool_refused(dir_goal(state, uuid=OTHER), defined())
    assert error.code == "uuid_conflict"
    assert UUID in error.message


@pytest.mark.parametrize("state", ["present", "active", "inactive"])
def test_the_same_uuid_with_another_name(state):
    error = pool_refused(dir_goal(state, uuid=OTHER), nothing(neighbours=(neighbour(),)))
    assert error.code == "uuid_conflict"
    assert "other" in error.message


@pytest.mark.parametrize("state", ["present", "active", "inactive"])
@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param("/p", nothing(neighbours=(neighbour(path="/p"),)), id="same path"),
        pytest.param("/p", nothing(neighbours=(neighbour(path="/link", resolved="/p"),)), id="its path is a link"),
        pytest.param(
            "/link", nothing(neighbours=(neighbour(path="/p"),), resolved={"/link": "/p"}), id="our path is a link"
        ),
        pytest.param("/p", nothing(neighbours=(neighbour(path="/p", pool_type="netfs"),)), id="of another file tree"),
        pytest.param("/p", nothing(neighbours=(neighbour(path="/x"), neighbour(path="/p"))), id="the second of two"),
    ],
)
def test_the_same_directory_as_another_pool(state, path, found):
    error = pool_refused(dir_goal(state, path=path), found)
    assert error.code == "source_conflict"
    assert "other" in error.message
    assert "name: other" in error.hint


@pytest.mark.parametrize(("theirs", "same"), [((8, 2), True), ((8, 3), False), (None, False)])
def test_one_directory_in_two_places(theirs, same):
    """As it is with mount --bind: no path tells."""
    other = replace(neighbour(path="/bound"), identity=theirs)
    found = nothing(replace(DIRECTORY, identity=(8, 2)), neighbours=(other,))
    if same:
        assert pool_refused(dir_goal(), found).code == "source_conflict"
    else:
        assert "define" in actions(decide_pool(dir_goal(), found))
    assert "define" in actions(decide_pool(dir_goal(), nothing(neighbours=(other,))))


@pytest.mark.parametrize("allow", [(), ("nonempty",)])
def test_a_deleted_pool_is_gone_though_another_one_has_its_directory_by_now(allow):
    """So that a task that deletes a pool can be followed by one that makes another of the same, again and again."""
    theirs = replace(DIRECTORY, holds=("a",), made=True)
    found = nothing(theirs, neighbours=(neighbour(path="/p"),), volumes={"a": volume("a")})
    assert decide_pool(dir_goal("deleted", allow=allow), found) == Decision()
    assert pool_at_stake(dir_goal("deleted", allow=allow), found) == {}
    both = defined(theirs, neighbours=(neighbour(path="/p"),))
    assert pool_refused(dir_goal("deleted", allow=allow), both).code == "source_conflict"


ISCSI = Source((SourceHost("san", 3260),), (SourceDevice("iqn.2026-01.test:a"),))


def iscsi_found(*neighbours, source=None, **more):
    existing = None if source is None else Pool("p", "iscsi", UUID, "/dev/disk/by-path", source=source)
    known = tuple(
        Neighbour(Pool("other", "iscsi", OTHER, "/dev/disk/by-path", source=each), None) for each in neighbours
    )
    storage = Storage(READY, "/dev/disk/by-path")
    return Found("p", existing, storage=storage, current=storage, neighbours=known, **more)


def test_the_hosts_own_name_is_that_of_who_names_none():
    named = replace(ISCSI, initiator="iqn.2026-01.test:host")
    goal = PoolGoal(Pool("p", "iscsi", source=named), "inactive")
    found = iscsi_found(ISCSI, initiator="iqn.2026-01.test:host")
    assert pool_refused(goal, found).code == "source_conflict"
    assert "define" in actions(decide_pool(goal, iscsi_found(ISCSI, initiator="iqn.2026-01.test:another")))


def test_another_host_gets_the_usual_port_too():
    goal = PoolGoal(Pool("p", source=Source((SourceHost("other"),))), "inactive")
    (change,) = decide_pool(goal, iscsi_found(source=ISCSI)).changes
    assert change.wanted.source.hosts == (SourceHost("other", 3260),)


def test_changing_to_the_target_of_another_pool():
    before = replace(ISCSI, devices=(SourceDevice("iqn.2026-01.test:b"),))
    goal = PoolGoal(Pool("p", source=Source(devices=ISCSI.devices)), "inactive")
    assert pool_refused(goal, iscsi_found(ISCSI, source=before)).code == "source_conflict"
    assert "redefine" in actions(decide_pool(goal, iscsi_found(source=before)))


def test_moving_into_the_directory_of_another_pool():
    found = moved(defined, neighbours=(neighbour(path="/q"),))
    assert pool_refused(pool_goal("inactive", path="/q"), found).code == "source_conflict"


@pytest.mark.parametrize(
    ("pool_type", "paths", "other"),
    [("fs", ["/dev/b"], "fs"), ("disk", ["/dev/b"], "fs"), ("logical", ["/dev/a", "/dev/b"], "fs")],
)
@pytest.mark.parametrize("theirs", ["/dev/b", "/dev/disk/by-id/b"])
def test_changing_to_a_device_of_another_pool(pool_type, paths, other, theirs):
    def source(*names):
        return Source(devices=tuple(map(SourceDevice, names)), name="vg" if pool_type == "logical" else None)

    existing = Pool("p", pool_type, UUID, "/p", source=source("/dev/a"))
    neighbour = Neighbour(Pool("other", other, OTHER, "/o", source=source(theirs)), None, devices=("/dev/b",))
    storage = Storage(READY, "/p")
    found = Found("p", existing, storage=storage, current=storage)
    goal = PoolGoal(Pool("p", source=source(*paths)), "inactive")
    assert pool_refused(goal, replace(found, neighbours=(neighbour,))).code == "source_conflict"
    assert "redefine" in actions(decide_pool(goal, found))


def test_a_neighbour_at_another_place_is_no_conflict():
    found = nothing(neighbours=(neighbour(), neighbour("vg", "/p", pool_type="logical"), neighbour("n", None, None)))
    assert actions(decide_pool(dir_goal("present", uuid=UUID), found)) == ["define"]


def test_what_is_defined_already_does_not_look_for_conflicts():
    found = started(neighbours=(neighbour(path="/p", uuid=UUID),))
    assert decide_pool(dir_goal(), found).changes == ()


# -- building -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "claimed"),
    [
        (Permissions(), {"mode": "0711"}),
        (Permissions(0o750), {"mode": "0750"}),
        (Permissions(0, 0, 0), {"mode": "00", "owner": 0, "group": 0}),
        (Permissions(0o700, 1, 2, "label"), {"mode": "0700", "owner": 1, "group": 2}),
    ],
)
def test_the_mode_of_a_new_directory(permissions, claimed):
    build = decide_pool(dir_goal(permissions=permissions), nothing()).changes[1]
    assert (build.action, build.before, build.after) == ("build", {"target": None}, {"target": claimed})


def test_build_never_leaves_a_missing_directory_missing():
    decision = decide_pool(dir_goal(build="never"), nothing())
    assert actions(decision) == ["define", "start"]
    assert codes(decision) == ["source_missing"]
    whole(decision.missing[0])


@pytest.mark.parametrize("found", [nothing(DIRECTORY), defined()], ids=["nothing", "defined"])
def test_build_never_adopts_a_directory(found):
    decision = decide_pool(dir_goal(build="never"), found)
    assert (actions(decision)[-1], codes(decision)) == ("start", [])
    assert "build" not in actions(decision)


@pytest.mark.parametrize("state", ["present", "inactive", "absent", "deleted"])
def test_build_never_is_no_matter_where_nothing_is_built(state):
    assert codes(decide_pool(dir_goal(state, build="never"), nothing())) == []


# -- writing ------------------------------------------------------------------------------------------------------


def test_where_nothing_can_be_written_changes_are_known_and_refused():
    decision = decide_pool(dir_goal(), nothing(unwritable="/etc/libvirt is not writable"))
    assert actions(decision) == ["define", "build", "start"]
    assert decision.refusal.code == "not_writable"
    whole(decision.refusal)


def test_where_nothing_changes_nothing_need_be_writable():
    assert decide_pool(dir_goal(), started(unwritable="/etc is not writable")).refusal is None


@pytest.mark.parametrize(
    ("permissions", "have", "code"),
    [
        pytest.param(Permissions(owner=1000), None, "", id="new-own"),
        pytest.param(Permissions(owner=0), None, "not_permitted", id="new-owner"),
        pytest.param(Permissions(group=20), None, "", id="new-group-of-ours"),
        pytest.param(Permissions(group=0), None, "not_permitted", id="new-group"),
        pytest.param(Permissions(0o700), Permissions(0o711, 1000, 10), "", id="mode-of-own"),
        pytest.param(Permissions(0o700), Permissions(0o711, 0, 0), "not_permitted", id="mode-of-others"),
        pytest.param(Permissions(owner=5), Permissions(0o711, 1000, 10), "not_permitted", id="give-away"),
        pytest.param(Permissions(group=20), Permissions(0o711, 1000, 10), "", id="group-of-ours"),
        pytest.param(Permissions(group=5), Permissions(0o711, 1000, 10), "not_permitted", id="group-of-others"),
    ],
)
def test_who_is_not_root_can_not_give_files_away(permissions, have, code):
    ours = (1000, frozenset({10, 20}))
    found = nothing(process=ours) if have is None else started(replace(DIRECTORY, permissions=have), process=ours)
    goal = dir_goal(permissions=permissions)
    if code:
        assert pool_refused(goal, found).code == code
    else:
        assert decide_pool(goal, found).refusal is None
    assert decide_pool(goal, replace(found, process=None))


@pytest.mark.parametrize(
    ("permissions", "there", "code"),
    [
        (Permissions(0o700, 5, 9), {}, ""),
        (Permissions(owner=6), {}, "not_permitted"),
        (Permissions(owner=6), {"writable": True}, ""),
        (Permissions(owner=6), {"filesystem": "ext4"}, ""),
    ],
)
def test_nothing_is_given_away_where_a_server_takes_root_for_nobody(permissions, there, code):
    export = replace(
        DIRECTORY, **{"permissions": Permissions(0o755, 5, 5), "writable": False, "filesystem": "nfs4", **there}
    )
    found, goal = started(export, filesystem=export.filesystem), dir_goal(permissions=permissions)
    if code:
        assert pool_refused(goal, found).code == code
    else:
        assert actions(decide_pool(goal, found)) == ["redefine", "permissions"]


# -- deleting -----------------------------------------------------------------------------------------------------


def full(*names, made=True, users=None, base=started, **more):
    """The pool with these entries in its directory; a volume is there for each name that is none of a kind."""
    volumes = {each.name: each for each in (volume(name) if isinstance(name, str) else name for name in names)}
    listed = {name: each for name, each in volumes.items() if not each.foreign}
    storage = replace(DIRECTORY, made=made, holds=tuple(sorted(volumes)))
    return base(storage, volumes=listed, users=users or {}, **more)


def test_deleting_takes_the_word_for_what_the_pool_holds():
    error = pool_refused(dir_goal("deleted"), full("a", "b"))
    assert error.code == "pool_nonempty"
    assert "2 volumes" in error.message
    assert "a, b" in error.message
    assert "allow: [nonempty]" in error.hint


def test_deleting_a_full_pool():
    decision = decide_pool(dir_goal("deleted", allow=["nonempty"]), full("a", "b"))
    assert actions(decision) == ["delete a", "delete b", "stop", "delete", "undefine"]
    first, _second, _stop, directory, _undefine = decision.changes
    assert first.destroys == "the content of /p/a"
    assert first.before["path"] == "/p/a"
    assert first.after is None
    assert first.requires == (Condition("identity", "/p/a", volume("a").identity), Condition("unused", "/p/a"))
    assert directory.destroys == "the directory /p"
    assert directory.after == {"target": None}


@pytest.mark.parametrize(
    "storage",
    [
        pytest.param({"made": False}, id="not ours"),
        pytest.param({"made": True, "mount_point": True}, id="a mount point"),
    ],
)
def test_a_directory_that_we_did_not_make_stays(storage):
    found = started(replace(DIRECTORY, **storage))
    assert actions(decide_pool(dir_goal("deleted"), found)) == ["stop", "undefine"]


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(volume("x", type="dir"), id="a directory"),
        pytest.param(volume("x", type="block"), id="a block device"),
        pytest.param(volume("x", foreign="a FIFO"), id="a FIFO"),
        pytest.param(volume("x", foreign="a socket"), id="a socket"),
    ],
)
def test_what_is_no_volume_is_never_deleted(strange):
    error = pool_refused(dir_goal("deleted", allow=["nonempty", "in_use"]), full("a", strange))
    assert error.code == "pool_foreign_content"
    assert "x" in error.message


def test_a_long_list_is_cut_short():
    error = pool_refused(dir_goal("deleted"), full(*(f"v{i:02}" for i in range(30))))
    assert "v09 and 20 more" in error.message
    assert "v10" not in error.message


@pytest.mark.parametrize(
    ("who", "allow", "code"),
    [
        pytest.param(user("process", "qemu (pid 5)"), (), "volume_in_use", id="process"),
        pytest.param(user("lock"), (), "volume_in_use", id="lock"),
        pytest.param(user("guest", "vm"), (), "volume_in_use", id="guest"),
        pytest.param(user("pool", "layer"), (), "volume_in_use", id="pool"),
        pytest.param(user("overlay", "/elsewhere/o"), (), "volume_backing", id="overlay-elsewhere"),
        pytest.param(user("overlay", "/p/b"), (), "", id="overlay-that-goes-too"),
        pytest.param(user("process"), ("in_use",), "", id="process-allowed"),
        pytest.param(user("overlay", "/elsewhere/o"), ("in_use",), "", id="overlay-allowed"),
    ],
)
def test_who_stands_in_the_way_of_deleting(who, allow, code):
    goal = dir_goal("deleted", allow=("nonempty", *allow))
    found = full("a", "b", users={"a": (who,)})
    if code:
        error = pool_refused(goal, found)
        assert error.code == code
        assert "allow: [in_use]" in error.hint
    else:
        assert "delete a" in actions(decide_pool(goal, found))


def test_the_word_in_use_lifts_the_condition_too():
    goal = dir_goal("deleted", allow=["nonempty", "in_use"])
    decision = decide_pool(goal, full("a", users={"a": (user("process"),)}))
    (change,) = [change for change in decision.changes if change.subject.volume == "a"]
    assert [condition.kind for condition in change.requires] == ["identity"]


def test_overlays_go_before_what_they_are_built_on():
    found = full("base", "overlay", users={"base": (user("overlay", "/p/overlay"),)})
    decision = decide_pool(dir_goal("deleted", allow=["nonempty"]), found)
    names = [change.subject.volume for change in decision.changes]
    assert names.index("overlay") < names.index("base")
    assert decision.changes[names.index("base")].needs[0] == "overlay"


def test_what_lies_where_no_pool_is_defined_is_not_deleted():
    error = pool_refused(dir_goal("deleted", allow=["nonempty"]), full("a", base=nothing))
    assert error.code == "pool_undefined"


@pytest.mark.parametrize("base", [defined, started])
def test_another_directory_than_the_pools_is_not_deleted(base):
    error = pool_refused(pool_goal("deleted", type="dir", path="/q", allow=["nonempty"]), moved(base))
    assert error.code == "identity_change"


def test_the_pools_directory_by_another_name_is_deleted():
    found = replace(started(replace(SAME_BY_LINK, made=True)), current=DIRECTORY)
    decision = decide_pool(pool_goal("deleted", type="dir", path="/link"), found)
    assert actions(decision) == ["stop", "delete", "undefine"]


def test_undefining_says_what_was_defined():
    (change,) = decide_pool(pool_goal("absent"), defined(autostart=True)).changes
    assert change.after is None
    assert change.before == {"definition": {"type": "dir", "uuid": UUID, "path": "/p"}, "autostart": True}
    assert change.destroys == ""


@pytest.mark.parametrize("state", ["active", "inactive", "absent"])
def test_only_deleting_destroys(state):
    for found in (nothing(), nothing(DIRECTORY), defined(), started(), full("a")):
        assert not any(change.destroys for change in decide_pool(dir_goal(state), found).changes)


@pytest.mark.parametrize(
    ("state", "allow", "stakes"),
    [
        ("deleted", ("nonempty",), {"a": EVERYTHING, "b": EVERYTHING}),
        ("deleted", (), {}),
        ("absent", ("nonempty",), {}),
        ("active", ("nonempty",), {}),
    ],
)
def test_what_is_at_stake(state, allow, stakes):
    assert pool_at_stake(dir_goal(state, allow=allow), full("a", "b")) == stakes


def test_extras_of_a_definition_do_not_count_as_a_difference():
    found = started(pool=replace(DEFINED, extras=("<x/>",), source=Source(devices=(SourceDevice("/dev/a"),))))
    assert decide_pool(dir_goal(), found).changes == ()


def test_a_daemon_that_keeps_no_unknown_elements_is_not_told_of_them_each_time():
    goal = pool_goal(type="dir", path="/p", extras=("<metadata></metadata>",))
    decision = decide_pool(goal, started(keeps_unknown=False))
    assert decision.changes == ()
    assert "keeps no elements" in decision.warnings[0]
    assert decide_pool(goal, started()).changes != ()


# -- mounted --------------------------------------------------------------------------------------------------------

MOUNTED = Storage(READY, "/p", bring_up="mount x on /p", take_down="unmount /p", ours=True, identity=(1, 1))


@pytest.mark.parametrize(
    ("path", "was_started", "refuses"),
    [
        ("/p/sub", True, True),
        ("/p/a/b", True, True),
        ("/p/sub", False, False),
        ("/pq", True, False),
        ("/", True, False),
    ],
)
def test_what_stands_on_a_mount_keeps_it(path, was_started, refuses):
    pool = Pool("p", "fs", UUID, "/p", source=Source(devices=(SourceDevice("/dev/x"),)))
    other = Neighbour(Pool("o", "dir", path=path), path, started=was_started)
    found = started(MOUNTED, pool, neighbours=(other,))
    for state in ("inactive", "absent"):
        if refuses:
            error = pool_refused(pool_goal(state), found)
            assert (error.code, "pool o" in error.message) == ("pool_in_use", True)
        else:
            assert decide_pool(pool_goal(state), found).changes
    adopted = replace(found, current=replace(MOUNTED, ours=False))
    assert decide_pool(pool_goal("inactive"), adopted).changes  # it is left as it is


@pytest.mark.parametrize(
    ("path", "was_started", "identity", "refuses"),
    [
        ("/p/sub", True, (2, 2), True),
        ("/p/sub", True, None, False),  # it is in what is mounted, and not there meanwhile
        ("/p/sub", False, (2, 2), False),
        ("/pq", True, (2, 2), False),
    ],
)
def test_no_pool_that_was_started_is_hidden(path, was_started, identity, refuses):
    """It would be made anew in what is mounted over it, and called deleted with all of its volumes still there."""
    pool = Pool("p", "fs", UUID, "/p", source=Source(devices=(SourceDevice("/dev/x"),)))
    down = replace(MOUNTED, up=False, ours=False, hides=1, parts=(Part("filesystem", "a filesystem", READY),))
    other = Neighbour(Pool("o", "dir", path=path), path, started=was_started, identity=identity)
    found = defined(down, pool, neighbours=(other,))
    if refuses:
        error = pool_refused(pool_goal(), found)
        assert (error.code, "pool o" in error.message) == ("pool_in_use", True)
    else:
        assert decide_pool(pool_goal(), found).changes
    assert decide_pool(pool_goal("present", autostart=True), found).changes


def test_what_bringing_up_hides_is_said_once():
    pool = Pool("p", "fs", UUID, "/p", source=Source(devices=(SourceDevice("/dev/x"),)))
    down = replace(MOUNTED, up=False, ours=False, hides=1, parts=(Part("filesystem", "a filesystem", READY),))
    assert any("1 entry" in text for text in decide_pool(pool_goal(), defined(down, pool)).warnings)
    assert not decide_pool(pool_goal("inactive"), defined(down, pool)).warnings


# -- nobody can tell what is up -------------------------------------------------------------------------------------

GROUP = Pool("p", "logical", UUID, "/dev/vg", source=Source(name="vg"))
EXPORT = Pool("p", "netfs", UUID, "/p", source=Source((SourceHost("nas"),), dir="/e"))
TWICE = Problem("vg_duplicate", "there are 2 volume groups vg", "Rename one.")
DEAD = Problem("deadline", "/srv does not answer", "See whether its server is up.")


def untold(problem):
    return replace(UNREADABLE, parts=(Part("x", "x", UNKNOWN_STORAGE, problem=problem),))


@pytest.mark.parametrize(("state", "otherwise"), [("inactive", []), ("absent", ["undefine"])])
@pytest.mark.parametrize(
    ("pool", "storage", "code"),
    [
        pytest.param(GROUP, UNREADABLE, "storage_unreadable", id="LVM does not tell"),
        pytest.param(GROUP, untold(TWICE), "vg_duplicate", id="two groups of the name"),
        pytest.param(EXPORT, untold(DEAD), "deadline", id="below another dead mount"),
    ],
)
def test_what_may_be_up_is_not_taken_for_stopped(state, otherwise, pool, storage, code):
    """The state file would go, and with it all that says that there is something to be taken down."""
    assert pool_refused(pool_goal(state), started(storage, pool)).code == code
    assert actions(decide_pool(pool_goal(state), defined(storage, pool))) == otherwise


def test_what_does_not_answer_is_taken_down_where_that_can_be_tried():
    dead = replace(untold(DEAD), bring_up="mount x on /p", take_down="unmount /p", ours=True)
    (stop,) = decide_pool(pool_goal("inactive"), started(dead, EXPORT)).changes
    assert "unmount /p" in stop.summary


# -- a login that came to its end after its task --------------------------------------------------------------------


AT_SAN = Source((SourceHost("san"),), (SourceDevice("iqn.2026-01.test:x"),))
SAN = Pool("p", "iscsi", UUID, "/dev/disk/by-path", source=AT_SAN)


@pytest.mark.parametrize(("state", "expected"), [("inactive", ["stop"]), ("absent", ["stop", "undefine"])])
@pytest.mark.parametrize("ours", [True, False])
def test_what_came_up_after_its_task_gave_up_is_taken_down(state, expected, ours):
    up = Storage(READY, SAN.path, up=True, ours=ours, bring_up="log in", take_down="log out")
    found = Found("p", definition=SAN, storage=up, current=up)
    decision = decide_pool(pool_goal(state), found)
    assert actions(decision) == (expected if ours else expected[1:])
    if ours:
        assert "log out" in decision.changes[0].summary


# -- a definition that was changed while the pool runs --------------------------------------------------------------


@pytest.mark.parametrize(("state", "expected"), [("inactive", ["stop"]), ("absent", ["stop", "undefine"])])
def test_what_was_started_is_stopped_whatever_the_definition_says_since(state, expected):
    fs = Pool("p", "fs", UUID, "/p", source=Source(devices=(SourceDevice("/dev/sdx"),)))
    up = replace(DIRECTORY, up=True, ours=True, bring_up="mount it on /p", take_down="unmount /p")
    other = Storage(READY, "/q", bring_up="mount it on /q", take_down="unmount /q", up=True)
    found = started(other, replace(fs, path="/q"), live=fs, current=up)
    decision = decide_pool(pool_goal(state), found)
    assert actions(decision) == expected
    stop = decision.changes[0]
    assert (stop.wanted.path, "unmount /p" in stop.summary) == ("/p", True)


@pytest.mark.parametrize(
    "other", [{"path": "/q"}, {"source": Source(devices=(SourceDevice("/dev/sdy"),))}], ids=["path", "device"]
)
def test_what_runs_elsewhere_than_it_is_defined_is_not_deleted(other):
    fs = Pool("p", "fs", UUID, "/p", source=Source(devices=(SourceDevice("/dev/sdx"),)))
    found = started(DIRECTORY, replace(fs, **other), live=fs)
    goal = pool_goal("deleted", type="fs", path=found.definition.path, source=found.definition.source)
    assert pool_refused(goal, found).code == "restart_needed"
