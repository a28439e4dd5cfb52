# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One pool at /p, and shorter words for what is declared and found of it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool
from ansible_collections.virt.storage.plugins.module_utils.decide.volumes import decide_volumes
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    FOREIGN,
    READY,
    UNKNOWN_STORAGE,
    Boot,
    Found,
    Image,
    Storage,
    User,
)
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal, VolumeGoal, VolumesGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume

MIB = 2**20
UUID = "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10"
DEFINED = Pool("p", "dir", UUID, "/p")
GONE = Storage(ABSENT, "/p", "not there")
DIRECTORY = Storage(READY, "/p", permissions=Permissions(0o711, 0, 0), identity=(1, 1))
IN_THE_WAY = Storage(FOREIGN, "/p", "not a directory")
UNREADABLE = Storage(UNKNOWN_STORAGE, "/p", "Input/output error")
PLAIN = {"raw": {}, "qcow2": {"compat": "1.1", "cluster_size": 65536, "lazy_refcounts": False, "extended_l2": False}}


# -- found --------------------------------------------------------------------------------------------------------


def nothing(storage=GONE, **more):
    """No pool p."""
    known = {"current": storage, "resolved": {"/p": "/p"}, "boot": Boot(nobody="nothing starts it")}
    return Found("p", storage=storage, **{**known, **more})


def defined(storage=DIRECTORY, pool=DEFINED, **more):
    return nothing(storage, **{"definition": pool, **more})


def started(storage=DIRECTORY, pool=DEFINED, **more):
    """Defined and started, which makes it active where its directory is there."""
    return defined(storage, pool, **{"live": pool, "started": True, "active": storage.kind == READY, **more})


def volume(name="v", image_format="raw", capacity=MIB, **more):
    """A volume as a look at the directory would have it."""
    filled = {
        "type": "file",
        "path": f"/p/{name}",
        "key": f"/p/{name}",
        "physical": capacity,
        "allocation": 0,
        "permissions": Permissions(0o600, 0, 0),
        "identity": (1, sum(name.encode())),
        **PLAIN.get(image_format, {}),
        **more,
    }
    return Volume(name, format=image_format, capacity=capacity, **filled)


def holding(*volumes, users=None, **more):
    """The active pool with these volumes, each also known as an image."""
    found = {each.name: each for each in volumes}
    images = {each.name: Image(each, (each.identity,)) for each in volumes}
    return started(
        **{
            "volumes": found,
            "images": {**images, **more.pop("images", {})},
            "users": users or {},
            **more,
        }
    )


def user(kind, who="x"):
    return User(kind, who)


# -- declared -----------------------------------------------------------------------------------------------------


def pool_goal(state="active", autostart=None, build="auto", allow=(), **pool):
    return PoolGoal(replace(Pool("p"), **pool), state, autostart, build, frozenset(allow))


def entry(name="v", state="present", recreate="never", allow=(), **declared):
    return VolumeGoal(Volume(name, **declared), state, recreate, frozenset(allow))


def volumes_goal(*entries, exclusive=None):
    return VolumesGoal("p", entries, exclusive)


# -- decided ------------------------------------------------------------------------------------------------------


def decide(found, *entries, exclusive=None):
    """The decision on these entries."""
    return decide_volumes(volumes_goal(*entries, exclusive=exclusive), found)


def only(decision):
    """The one change of a decision that holds nothing else."""
    assert (decision.missing, decision.refusal) == ((), None)
    (change,) = decision.changes
    return change


def actions(decision):
    """The actions, those of volumes with their names."""
    return [
        change.action if change.subject.volume is None else f"{change.action} {change.subject.volume}"
        for change in decision.changes
    ]


def codes(decision):
    return [error.code for error in decision.missing]


def whole(error):
    """The error, which must say what is wrong, of what, and what to do: the word that the hint names, if one helps."""
    assert error.code
    assert error.message
    assert error.subject
    assert error.hint
    named = "" if error.code == "daemon_cannot" else "".join(re.findall(r"allow: \[(\w+)\]", error.hint)[:1])
    assert error.word == named
    return error


def refused(found, *entries, exclusive=None):
    """The error with which these entries are refused."""
    with pytest.raises(StorageError) as caught:
        decide(found, *entries, exclusive=exclusive)
    return whole(caught.value)


def pool_refused(goal, found):
    with pytest.raises(StorageError) as caught:
        decide_pool(goal, found)
    return whole(caught.value)
