# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deciding is pure and total, and what it claims, once it is there, is what was declared."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool
from ansible_collections.virt.storage.plugins.module_utils.decide.volumes import decide_volumes, volumes_at_stake
from ansible_collections.virt.storage.plugins.module_utils.model.change import UNKNOWN
from ansible_collections.virt.storage.plugins.module_utils.model.errors import MISSING_CODES, StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    Found,
    Image,
    Neighbour,
    Storage,
    Usage,
    User,
)
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal, VolumeGoal, VolumesGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content, Volume

from .building import DIRECTORY, GONE, IN_THE_WAY, MIB, UNREADABLE, UUID, volume, whole

NAMES = ("a", "b", "c")
maybe = st.none()
names = st.sampled_from(NAMES)
sizes = st.sampled_from([0, 1, 512, 1000, MIB, MIB + 1, 2 * MIB])
formats = st.sampled_from(["raw", "qcow2"])
modes = st.sampled_from([0o600, 0o640])
permissions = st.builds(
    Permissions, maybe | modes, maybe | st.sampled_from([0, 1000]), maybe | st.sampled_from([0, 10])
)
found_permissions = st.builds(Permissions, modes, st.sampled_from([0, 1000]), st.sampled_from([0, 10]))
paths = st.sampled_from(["/p/a", "/p/b", "/img/x"])
users = st.builds(
    User,
    st.sampled_from(["process", "guest", "overlay", "lock"]),
    st.sampled_from(["x", "/p/a", "/p/b"]),
)

# -- declared and found volumes -----------------------------------------------------------------------------------

backings = st.builds(Backing, paths, maybe | formats) | st.builds(
    lambda name, form: Backing(None, form, name), names, maybe | formats
)
contents = (
    st.builds(lambda path, form: Content(path, None, form), paths, maybe | formats)
    | st.builds(lambda name, form: Content(None, name, form), names, maybe | formats)
    | st.builds(lambda data: Content(data=data), st.binary(max_size=3))
)


@st.composite
def entries(draw, name):
    declared = Volume(
        name,
        capacity=draw(maybe | sizes),
        allocation=draw(maybe | maybe | sizes),
        format=draw(maybe | formats),
        permissions=draw(st.just(Permissions()) | permissions),
        backing=draw(maybe | maybe | backings),
        compat=draw(maybe | maybe | st.sampled_from(["0.10", "1.1"])),
        cluster_size=draw(maybe | maybe | st.sampled_from([512, 65536, 5])),
        lazy_refcounts=draw(maybe | maybe | st.booleans()),
        extended_l2=draw(maybe | maybe | st.booleans()),
        content=draw(maybe | maybe | maybe | contents),
        preallocation=draw(maybe | maybe | maybe | st.sampled_from(["off", "falloc"])),
        at_least=draw(st.booleans()),
    )
    return VolumeGoal(
        declared,
        draw(st.sampled_from(["present", "present", "present", "absent"])),
        draw(st.sampled_from(["never", "needed"])),
        draw(st.frozensets(st.sampled_from(["shrink", "in_use", "backing"]))),
    )


@st.composite
def goals(draw):
    listed = draw(st.lists(names, unique=True, max_size=3))
    return VolumesGoal(
        "p", tuple(draw(entries(name)) for name in listed), draw(maybe | maybe | st.sampled_from(["*", "a"]))
    )


@st.composite
def headers(draw, name):
    base = volume(
        name,
        draw(st.sampled_from(["raw", "raw", "qcow2", "qcow2", "vmdk"])),
        draw(st.sampled_from([0, 512, 1024, MIB, 2 * MIB])),
        permissions=draw(found_permissions),
    )
    odd = draw(st.sampled_from(["", "", "", "", "", "foreign", "problem", "link", "dir", "data", "encrypted"]))
    changed = {
        "foreign": {"foreign": "a FIFO", "type": None},
        "problem": {"problem": "it is broken"},
        "link": {"link_target": "/elsewhere"},
        "dir": {"type": "dir", "format": "dir"},
        "data": {"data_file": "/elsewhere"},
        "encrypted": {"encrypted": True},
    }
    base = replace(base, **changed.get(odd, {}))
    if base.format == "qcow2" and draw(st.booleans()):
        base = replace(base, backing=Backing(draw(paths), draw(maybe | formats)))
    if base.format == "qcow2":
        base = replace(base, compat=draw(st.sampled_from(["0.10", "1.1"])))
    return base


@st.composite
def founds(draw):
    there = draw(st.lists(names, unique=True, max_size=3))
    volumes = {name: draw(headers(name)) for name in there}
    images = {key: Image(None) for key in (*NAMES, "/p/a", "/p/b", "/img/x")}
    for name, each in volumes.items():
        images[name] = Image(
            each,
            (each.identity,),
            draw(st.sampled_from([(), (), ("/p/c",)])),
            draw(st.sampled_from(["", "", "it is odd"])),
            writers=draw(st.sampled_from([(), (), ("process x",)])),
        )
        if f"/p/{name}" in images:
            images[f"/p/{name}"] = images[name]
    pool = draw(st.sampled_from([Pool("p", "dir", UUID, "/p")] * 3 + [None]))
    storage = draw(st.sampled_from([DIRECTORY] * 5 + [GONE])) if pool else GONE
    if storage is GONE:
        volumes, images = {}, {}
    return Found(
        "p",
        pool,
        live=pool,
        started=pool is not None,
        active=storage is DIRECTORY,
        storage=storage,
        current=storage,
        volumes=volumes,
        images=images,
        users={name: tuple(draw(st.lists(users, max_size=2, unique=True))) for name in volumes},
        usage=draw(maybe | st.just(Usage(MIB, 0, MIB))),
        leftovers=draw(st.sampled_from([(), (), (".virt-storage",)])),
        unwritable=draw(st.sampled_from(["", "", "", "/p is not writable"])),
        file_limit=draw(maybe | st.just(2**32 - 1)),
        process=draw(maybe | maybe | st.just((1000, frozenset({10})))),
    )


def attempt(decide, goal, found):
    """The decision, or the refusal, which must be whole."""
    try:
        return decide(goal, found), None
    except StorageError as error:
        whole(error)
        return None, error.as_dict()


@given(goals(), founds())
def test_deciding_on_volumes_is_pure_and_total(goal, found):
    before = copy.deepcopy((goal, found))
    decision, refusal = attempt(decide_volumes, goal, found)
    assert attempt(decide_volumes, goal, found)[1] == refusal
    assert (goal, found) == before
    if decision is None:
        return
    again = decide_volumes(goal, found)
    assert again.changes == decision.changes
    for error in (*decision.missing, *filter(None, [decision.refusal])):
        whole(error)
    assert {error.code for error in decision.missing} <= set(MISSING_CODES)
    declared = {each.volume.name for each in goal.volumes}
    for change in decision.changes:
        assert change.summary
        if change.action == "clean":
            continue
        assert change.subject.volume in declared or goal.exclusive is not None
        assert not change.destroys or any(condition.kind == "identity" for condition in change.requires)
        assert change.after is None or "name" not in change.after
    order = [change.subject.volume for change in decision.changes]
    for place, change in enumerate(decision.changes):
        assert not {name for name in change.needs if name in order} - set(order[:place])


@given(goals(), founds())
def test_what_is_at_stake_is_there(goal, found):
    assert set(volumes_at_stake(goal, found)) <= set(found.volumes)


FIELDS = {field.name for field in fields(Volume)}


def fold(found, changes):
    """The volumes as they are once every claim of the changes holds, and nothing else changed."""
    volumes = dict(found.volumes)
    for change in changes:
        name = change.subject.volume
        if name is None:
            continue
        if change.after is None:
            del volumes[name]
            continue
        have = volumes.get(name)
        if change.action in ("create", "recreate"):
            mine = have.permissions if have else Permissions(0o600, 0, 0)
            fresh = volume(name, change.wanted.format)
            have = replace(fresh, compat=fresh.compat and (change.wanted.compat or "1.1"), permissions=mine)
        claimed = {key: value for key, value in change.after.items() if value is not UNKNOWN}
        rights = {key: claimed.pop(key) for key in ("mode", "owner", "group") if key in claimed}
        if "mode" in rights:
            rights["mode"] = int(rights["mode"], 8)
        if "backing" in claimed:
            claimed["backing"] = Backing(claimed["backing"]["path"], claimed["backing"].get("format"))
        claimed.pop("content", None)
        assert set(claimed) <= FIELDS
        volumes[name] = replace(have, **claimed, permissions=replace(have.permissions, **rights))
    return volumes


@given(goals(), founds())
def test_once_the_claims_hold_nothing_is_left_to_do(goal, found):
    decision, _refusal = attempt(decide_volumes, goal, found)
    if decision is None or decision.missing or decision.refusal or decision.warnings:
        return
    volumes = fold(found, decision.changes)
    images = {**found.images}
    for key in images:
        name = key[len("/p/") :] if key.startswith("/p/") else key
        if not name.startswith("/"):
            images[key] = Image(volumes[name], (volumes[name].identity,)) if name in volumes else Image(None)
    after = replace(found, volumes=volumes, images=images, users={}, leftovers=())
    assert decide_volumes(goal, after).changes == ()


# -- pools --------------------------------------------------------------------------------------------------------

POOL_PATHS = ("/p", "/q")


@st.composite
def pool_goals(draw):
    state = draw(st.sampled_from(["present", "active", "inactive", "absent", "deleted"]))
    whole_pool = state == "deleted"
    declared = Pool(
        "p",
        "dir" if whole_pool else draw(maybe | st.sampled_from(["dir", "dir", "dir", "fs"])),
        draw(maybe | maybe | st.sampled_from([UUID, "11111111-2222-3333-4444-555555555555"])),
        draw(st.sampled_from(POOL_PATHS) if whole_pool else maybe | st.sampled_from(POOL_PATHS)),
        draw(st.just(Permissions()) | permissions),
        cow=draw(maybe | maybe | st.booleans()),
    )
    return PoolGoal(
        declared,
        state,
        draw(maybe | st.booleans()),
        draw(st.sampled_from(["auto", "never"])),
        draw(st.frozensets(st.sampled_from(["restart", "nonempty", "in_use"]))),
    )


@st.composite
def pool_founds(draw):
    have = Pool("p", draw(st.sampled_from(["dir", "dir", "dir", "netfs"])), UUID, "/p", draw(permissions))
    definition, live = draw(maybe | st.just(have)), draw(maybe | st.just(have))
    volumes = {name: volume(name) for name in draw(st.lists(names, unique=True, max_size=2))}
    storage = draw(st.sampled_from([DIRECTORY, DIRECTORY, GONE, IN_THE_WAY, UNREADABLE]))
    if storage is DIRECTORY:
        made = draw(st.booleans())
        storage = replace(
            storage, made=made, permissions=draw(found_permissions), holds=draw(st.sampled_from([(), tuple(volumes)]))
        )
    return Found(
        "p",
        definition,
        live=live,
        started=live is not None,
        active=live is not None and storage.kind == "ready",
        autostart=draw(st.booleans()) if definition else False,
        storage=storage,
        current=draw(st.sampled_from([storage, Storage("ready", "/p", identity=(9, 9))])),
        neighbours=draw(
            st.sampled_from([(), (Neighbour(Pool("o", "dir", "11111111-2222-3333-4444-555555555555", "/q"), "/q"),)])
        ),
        volumes=volumes,
        users={name: tuple(draw(st.lists(users, max_size=1))) for name in volumes},
        unwritable=draw(st.sampled_from(["", "", "/etc is not writable"])),
        process=draw(maybe | maybe | st.just((1000, frozenset({10})))),
    )


@given(pool_goals(), pool_founds())
def test_deciding_on_a_pool_is_pure_and_total(goal, found):
    before = copy.deepcopy((goal, found))
    decision, refusal = attempt(decide_pool, goal, found)
    assert attempt(decide_pool, goal, found)[1] == refusal
    assert (goal, found) == before
    if decision is None:
        return
    for error in (*decision.missing, *filter(None, [decision.refusal])):
        whole(error)
    done = [change.action for change in decision.changes if change.subject.volume is None]
    assert len(set(done)) == len(done)
    order = [
        action
        for action in ("stop", "define", "redefine", "build", "permissions", "start", "autostart")
        if action in done
    ]
    assert goal.state == "deleted" or [action for action in done if action != "undefine"] == order
    assert not any(change.destroys for change in decision.changes) or goal.state == "deleted"
    assert found.started or "stop" not in done
    assert goal.state != "present" or ("stop" in done) == ("start" in done)
