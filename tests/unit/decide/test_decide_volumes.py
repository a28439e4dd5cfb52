# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declared volumes against found ones: creating, changing, destroying, and every reason not to."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.compare import differences
from ansible_collections.virt.storage.plugins.module_utils.decide.volumes import decide_volumes, volumes_at_stake
from ansible_collections.virt.storage.plugins.module_utils.model.change import UNKNOWN, Condition
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    EVERYTHING,
    PIN,
    RUNNING,
    UNKNOWN_STORAGE,
    UNSEEN,
    Image,
    Part,
    Problem,
    Storage,
    Usage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import (
    Backing,
    Content,
    Encryption,
    SecretReference,
    Volume,
)

from .building import (
    DIRECTORY,
    GONE,
    MIB,
    actions,
    codes,
    decide,
    defined,
    entry,
    holding,
    nothing,
    only,
    refused,
    started,
    user,
    volume,
    volumes_goal,
    whole,
)

EMPTY = holding()
IDENTITY = Condition("identity", "/p/v", volume().identity)
UNUSED = Condition("unused", "/p/v")


# -- creating -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "claims"),
    [
        pytest.param({"capacity": MIB}, {"format": "raw", "capacity": MIB}, id="raw-by-default"),
        pytest.param({"capacity": 0}, {"format": "raw", "capacity": 0}, id="of-nothing"),
        pytest.param({"capacity": 1}, {"format": "raw", "capacity": 1}, id="raw-is-not-rounded"),
        pytest.param({"capacity": 1, "format": "qcow2"}, {"format": "qcow2", "capacity": 512}, id="qcow2-is-rounded"),
        pytest.param({"capacity": MIB, "at_least": True}, {"format": "raw", "capacity": MIB}, id="at-least"),
        pytest.param(
            {"capacity": MIB, "format": "qcow2", "compat": "0.10", "cluster_size": 4096, "lazy_refcounts": False},
            {"format": "qcow2", "capacity": MIB, "compat": "0.10", "cluster_size": 4096, "lazy_refcounts": False},
            id="what-is-declared-is-claimed",
        ),
        pytest.param(
            {"capacity": MIB, "permissions": Permissions(0o640, 1, 2)},
            {"format": "raw", "capacity": MIB, "mode": "0640", "owner": 1, "group": 2},
            id="permissions",
        ),
        pytest.param(
            {"content": Content(data=b"hello")}, {"format": "raw", "capacity": 5}, id="content-makes-the-capacity"
        ),
        pytest.param(
            {"content": Content(data=b"hello"), "capacity": 512},
            {"format": "raw", "capacity": 512},
            id="content-in-a-larger-volume",
        ),
        pytest.param({"content": Content(data=b"")}, {"format": "raw", "capacity": 0}, id="empty-content"),
    ],
)
def test_a_new_volume(declared, claims):
    change = only(decide(EMPTY, entry(**declared)))
    assert (change.action, change.before, change.destroys, change.requires) == ("create", None, "", ())
    assert change.after == {"path": "/p/v", **claims}
    assert change.wanted.path == "/p/v"
    assert change.wanted.format == claims["format"]
    assert change.wanted.capacity == claims["capacity"]


@pytest.mark.parametrize(
    ("declared", "preallocation", "allocation"),
    [
        pytest.param({"format": "qcow2"}, None, None, id="sparse"),
        pytest.param({"format": "qcow2", "allocation": MIB}, "falloc", None, id="fully-allocated"),
        pytest.param({"format": "qcow2", "allocation": 4096}, None, 4096, id="partly-allocated"),
        pytest.param({"format": "qcow2", "preallocation": "full"}, "full", None, id="said-so"),
        pytest.param({"format": "qcow2", "preallocation": "off", "allocation": MIB}, "off", MIB, id="said-off"),
        pytest.param({"format": "raw", "allocation": MIB}, None, MIB, id="raw"),
        pytest.param({"format": "raw", "allocation": 0}, None, 0, id="raw-nothing"),
    ],
)
def test_how_a_new_volume_is_allocated(declared, preallocation, allocation):
    wanted = only(decide(EMPTY, entry(capacity=MIB, **declared))).wanted
    assert (wanted.preallocation, wanted.allocation) == (preallocation, allocation)


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        pytest.param({}, "capacity_missing", id="no-capacity"),
        pytest.param({"format": "qcow2"}, "capacity_missing", id="no-capacity-qcow2"),
        pytest.param({"capacity": MIB, "allocation": MIB + 1}, "invalid_option", id="more-allocated-than-there-is"),
        pytest.param({"capacity": MIB, "format": "vmdk"}, "format_unsupported", id="vmdk"),
        pytest.param({"capacity": MIB, "format": "dir"}, "format_unsupported", id="directory"),
        pytest.param({"capacity": MIB, "compat": "1.1"}, "invalid_option", id="compat-of-raw"),
        pytest.param({"capacity": MIB, "cluster_size": 4096}, "invalid_option", id="clusters-of-raw"),
        pytest.param({"capacity": MIB, "lazy_refcounts": False}, "invalid_option", id="refcounts-of-raw"),
        pytest.param({"capacity": MIB, "extended_l2": True}, "invalid_option", id="subclusters-of-raw"),
        pytest.param({"capacity": MIB, "preallocation": "full"}, "invalid_option", id="preallocation-of-raw"),
        pytest.param({"capacity": MIB, "format": "qcow2", "cluster_size": 5}, "invalid_option", id="clusters"),
        pytest.param(
            {"capacity": MIB, "format": "qcow2", "compat": "0.10", "extended_l2": True},
            "invalid_option",
            id="subclusters",
        ),
        pytest.param({"capacity": 2**51 + 1, "format": "qcow2"}, "capacity_too_large", id="qcow2-limit"),
        pytest.param(
            {"capacity": 2**37 + 1, "format": "qcow2", "cluster_size": 512}, "capacity_too_large", id="small-clusters"
        ),
        pytest.param({"content": Content(data=b"hello"), "capacity": 4}, "capacity_too_small", id="content"),
        pytest.param({"content": Content(data=b"x"), "format": "qcow2"}, "invalid_option", id="content-in-qcow2"),
        pytest.param({"capacity": MIB, "backing": Backing(volume="b")}, "invalid_option", id="backing-needs-qcow2"),
        pytest.param(
            {"capacity": MIB, "format": "raw", "backing": Backing(volume="b")}, "invalid_option", id="backing-of-raw"
        ),
    ],
)
def test_what_can_not_be_made(declared, code):
    assert refused(holding(volume("b")), entry(**declared)).code == code


def test_the_largest_volumes():
    assert only(decide(EMPTY, entry(capacity=2**51, format="qcow2"))).action == "create"
    limited = replace(EMPTY, file_limit=2**32 - 1)
    assert only(decide(limited, entry(capacity=2**32 - 1))).action == "create"
    assert refused(limited, entry(capacity=2**32)).code == "capacity_too_large"
    # A sparse qcow2 image can be larger than a file of the filesystem.
    assert only(decide(limited, entry(capacity=2**33, format="qcow2"))).action == "create"


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        ({}, ""),
        ({"permissions": Permissions(0o600)}, ""),
        ({"permissions": Permissions(owner=1000)}, ""),
        ({"permissions": Permissions(group=20)}, ""),
        ({"permissions": Permissions(owner=0)}, "not_permitted"),
        ({"permissions": Permissions(group=0)}, "not_permitted"),
    ],
)
def test_whose_a_new_volume_can_be_without_root(declared, code):
    found = replace(EMPTY, process=(1000, frozenset({10, 20})))
    if code:
        assert refused(found, entry(capacity=MIB, **declared)).code == code
    else:
        assert only(decide(found, entry(capacity=MIB, **declared))).action == "create"


# -- space --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("allocation", "said"), [(MIB, False), (MIB + 1, True), (0, False)])
def test_what_is_copied_may_not_fit(allocation, said):
    """How much of it is zeros nobody knows yet."""
    source = Image(Volume("s", type="file", path="/s", format="raw", capacity=10 * MIB, allocation=allocation))
    found = replace(EMPTY, usage=Usage(100 * MIB, 99 * MIB, MIB), images={"/s": source})
    decision = decide(found, entry(format="raw", content=Content("/s", format="raw")))
    assert (decision.refusal, len(decision.changes)) == (None, 1)
    assert any("what does not fit will fail" in text for text in decision.warnings) == said


@pytest.mark.parametrize(
    ("entries", "fits"),
    [
        pytest.param([entry(capacity=10 * MIB)], True, id="sparse"),
        pytest.param([entry(capacity=10 * MIB, format="qcow2")], True, id="sparse-qcow2"),
        pytest.param([entry(capacity=MIB, allocation=MIB)], True, id="just-fits"),
        pytest.param([entry(capacity=MIB + 1, allocation=MIB + 1)], False, id="just-not"),
        pytest.param([entry(capacity=10 * MIB, allocation=MIB)], True, id="partly"),
        pytest.param([entry(capacity=10 * MIB, format="qcow2", allocation=10 * MIB)], False, id="qcow2-allocated"),
        pytest.param([entry(capacity=10 * MIB, format="qcow2", preallocation="falloc")], False, id="qcow2-falloc"),
        pytest.param([entry(capacity=10 * MIB, format="qcow2", preallocation="metadata")], True, id="qcow2-metadata"),
        pytest.param([entry(name, capacity=MIB, allocation=MIB // 2) for name in "ab"], True, id="two-fit"),
        pytest.param([entry(name, capacity=MIB, allocation=MIB // 2) for name in "abc"], False, id="three-do-not"),
    ],
)
def test_reserved_space_must_be_there(entries, fits):
    decision = decide(replace(EMPTY, usage=Usage(100 * MIB, 99 * MIB, MIB)), *entries)
    assert len(decision.changes) == len(entries)
    if fits:
        assert decision.refusal is None
    else:
        assert whole(decision.refusal).code == "no_space"
    assert decide(replace(EMPTY, usage=None), *entries).refusal is None


# -- the pool -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "code"),
    [
        pytest.param(nothing(), "pool_missing", id="no-pool"),
        pytest.param(nothing(DIRECTORY), "pool_missing", id="no-pool-but-a-directory"),
        pytest.param(defined(), "pool_inactive", id="not-started"),
        pytest.param(defined(GONE), "pool_inactive", id="not-built"),
        pytest.param(started(GONE), "pool_inactive", id="its-directory-is-gone"),
    ],
)
def test_a_pool_that_an_earlier_task_may_make(found, code):
    decision = decide(found, entry(capacity=MIB))
    assert actions(decision) == ["create v"]
    assert codes(decision) == [code]
    whole(decision.missing[0])


def test_a_pool_whose_server_does_not_answer_is_not_taken_for_a_stopped_one():
    part = Part("directory", "it", UNKNOWN_STORAGE, "away", Problem("deadline", "its server is away", "Wait."))
    away = started(Storage(UNKNOWN_STORAGE, "/p", "away", parts=(part,)))
    for volume_entry in (entry(capacity=MIB), entry(state="absent")):
        assert refused(away, volume_entry).code == "deadline"


def test_where_the_pool_could_not_be_looked_at_nothing_is_guessed():
    decision = decide(nothing(), entry(capacity=MIB), entry("w"), entry("x", format="qcow2", capacity=1))
    first, second, third = decision.changes
    assert first.after["format"] is UNKNOWN
    assert first.after["capacity"] == MIB
    assert second.after["capacity"] is UNKNOWN
    assert third.after["capacity"] == 512
    assert "create it, or adjust what is there by then" in first.summary


def test_where_the_path_of_the_pool_is_not_known():
    decision = decide(nothing(replace(GONE, path=None)), entry(format="qcow2", backing=Backing(volume="b")))
    assert decision.changes[0].after["path"] is UNKNOWN
    assert decision.changes[0].after["backing"]["path"] is UNKNOWN
    assert codes(decision) == ["pool_missing", "backing_missing"]


def test_nothing_to_remove_where_there_is_no_pool():
    """As when a play that takes all away runs again; a name that is misspelled is still told."""
    decision = decide(nothing(), entry(state="absent"), entry("w", state="absent"))
    assert (actions(decision), codes(decision)) == ([], [])
    assert "not defined" in decision.warnings[0]
    for more in ({"exclusive": "*"}, {}):
        entries = [entry(state="absent"), *([] if more else [entry("w", capacity=MIB)])]
        assert codes(decide(nothing(), *entries, **more)) == ["pool_missing"]


def test_a_type_that_is_not_supported():
    found = started(pool=Pool("p", "netfs", path="/p"), unsupported="not here")
    assert refused(found, entry(capacity=MIB)).code == "backend_missing"


ENCRYPTED = {"format": "qcow2", "capacity": MIB, "encryption": Encryption("luks", secrets=(SecretReference("u"),))}


def test_no_encrypted_volume_is_made_in_the_clear():
    assert refused(EMPTY, entry(**ENCRYPTED)).code == "encryption_unsupported"
    plain = holding(volume("v", "qcow2"))
    assert refused(plain, entry(**ENCRYPTED)).code == "volume_differs"
    assert refused(plain, entry(**ENCRYPTED, recreate="always")).code == "encryption_unsupported"


def test_an_encrypted_volume_that_is_there_is_adopted():
    assert actions(decide(holding(volume("v", "qcow2", encrypted=True)), entry(**ENCRYPTED))) == []


def test_a_daemon_that_alone_sees_the_pool_is_told_of_the_encryption():
    far = started(Storage(UNSEEN, "/p"), active=True)
    change = only(decide(far, entry(**ENCRYPTED)))
    assert change.wanted.encryption == ENCRYPTED["encryption"]
    assert change.after["encryption"] == "luks"


def test_nothing_declared_is_nothing_to_do():
    assert decide(holding(volume())).changes == ()


# -- what is there already ----------------------------------------------------------------------------------------


QCOW2 = volume(image_format="qcow2")
RAW = volume()


@pytest.mark.parametrize(
    ("have", "declared"),
    [
        pytest.param(RAW, {}, id="nothing-declared"),
        pytest.param(RAW, {"capacity": MIB, "format": "raw"}, id="the-same"),
        pytest.param(RAW, {"capacity": 1, "at_least": True}, id="at-least"),
        pytest.param(RAW, {"capacity": MIB, "at_least": True}, id="at-least-just"),
        pytest.param(RAW, {"permissions": Permissions(0o600, 0, 0)}, id="permissions"),
        pytest.param(RAW, {"capacity": MIB, "allocation": MIB}, id="allocation-counts-at-creation"),
        pytest.param(RAW, {"capacity": MIB, "nocow": True}, id="nocow-counts-at-creation"),
        pytest.param(QCOW2, {"capacity": MIB, "preallocation": "full"}, id="preallocation-counts-at-creation"),
        pytest.param(QCOW2, {"capacity": MIB - 511}, id="rounded-by-511"),
        pytest.param(QCOW2, {"capacity": MIB - 1, "format": "qcow2"}, id="rounded-by-1"),
        pytest.param(QCOW2, {"compat": "1.1", "cluster_size": 65536}, id="options"),
        pytest.param(QCOW2, {"lazy_refcounts": False, "extended_l2": False}, id="options-that-are-off"),
        pytest.param(
            replace(QCOW2, lazy_refcounts=None, extended_l2=None), {"lazy_refcounts": False}, id="unsaid-is-off"
        ),
        pytest.param(RAW, {"content": Content("/anything", format="raw")}, id="source-counts-at-creation"),
        pytest.param(RAW, {"content": Content(volume="gone")}, id="source-may-be-gone"),
        pytest.param(replace(QCOW2, backing=Backing("/p/b", "raw")), {"capacity": MIB}, id="backing-not-declared"),
        pytest.param(volume(image_format="vmdk"), {"capacity": MIB}, id="another-format"),
        pytest.param(replace(RAW, link_target="/x"), {"capacity": MIB}, id="a-link"),
        pytest.param(replace(QCOW2, data_file="/x"), {"capacity": MIB}, id="a-data-file"),
        pytest.param(replace(QCOW2, encrypted=True), {"capacity": MIB}, id="encrypted"),
    ],
)
def test_what_is_as_declared(have, declared):
    decision = decide(holding(have), entry(**declared))
    assert (decision.changes, decision.missing, decision.warnings, decision.refusal) == ((), (), (), None)


@pytest.mark.parametrize("recreate", ["never", "needed"])
def test_what_is_as_declared_is_not_made_anew(recreate):
    assert decide(holding(RAW), entry(recreate=recreate, capacity=MIB)).changes == ()


@pytest.mark.parametrize(
    ("have", "code"),
    [
        pytest.param(volume(foreign="a FIFO", type=None), "volume_foreign", id="fifo"),
        pytest.param(volume(foreign="not readable (Permission denied)", type=None), "volume_foreign", id="unreadable"),
        pytest.param(volume(type="dir"), "volume_foreign", id="directory"),
        pytest.param(volume(type="block"), "volume_foreign", id="block-device"),
        pytest.param(volume(problem="the header is cut off"), "volume_malformed", id="malformed"),
    ],
)
@pytest.mark.parametrize("recreate", ["never", "needed", "always"])
def test_what_is_no_volume_is_left_alone(have, code, recreate):
    assert refused(holding(have), entry(capacity=MIB, recreate=recreate)).code == code


# -- resizing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "declared", "size"),
    [
        pytest.param(RAW, {"capacity": MIB + 1}, MIB + 1, id="raw"),
        pytest.param(QCOW2, {"capacity": MIB + 1}, MIB + 512, id="qcow2-rounded"),
        pytest.param(QCOW2, {"capacity": 2 * MIB, "at_least": True}, 2 * MIB, id="at-least"),
        pytest.param(replace(RAW, capacity=0), {"capacity": MIB}, MIB, id="from-nothing"),
    ],
)
def test_growing(have, declared, size):
    change = only(decide(holding(have), entry(**declared)))
    assert (change.action, change.destroys, change.requires) == ("resize", "", (IDENTITY,))
    assert (change.before, change.after) == ({"capacity": have.capacity}, {"capacity": size})
    assert (change.wanted.capacity, change.wanted.path, change.wanted.format) == (size, "/p/v", have.format)


@pytest.mark.parametrize("have", [RAW, QCOW2], ids=["raw", "qcow2"])
def test_shrinking_takes_a_word(have):
    found = holding(have)
    error = refused(found, entry(capacity=MIB // 2))
    assert error.code == "shrink_refused"
    assert "allow: [shrink]" in error.hint
    change = only(decide(found, entry(capacity=MIB // 2, allow=["shrink"])))
    assert change.destroys == "the last 512 KiB of /p/v"
    assert change.requires == (IDENTITY, UNUSED)
    assert change.after == {"capacity": MIB // 2}
    lifted = only(decide(found, entry(capacity=MIB // 2, allow=["shrink", "in_use"])))
    assert lifted.requires == (IDENTITY,)


def test_what_is_shrunk_under_other_names_too_is_said():
    change = only(decide(holding(replace(RAW, links=3)), entry(capacity=0, allow=["shrink"])))
    assert change.destroys == "the last 1 MiB of /p/v, whose file has 2 more names"


def test_qcow2_that_is_a_granule_too_large_is_shrunk():
    assert refused(holding(QCOW2), entry(capacity=MIB - 512)).code == "shrink_refused"
    assert decide(holding(QCOW2), entry(capacity=MIB - 511)).changes == ()


@pytest.mark.parametrize(
    ("looks_like", "capacity", "allow", "code"),
    [
        pytest.param("qcow2", 2 * MIB, (), "format_mismatch", id="growing"),
        pytest.param("qcow2", 512, ("shrink",), "format_mismatch", id="shrinking"),
        pytest.param("qcow2", 2 * MIB, ("in_use", "shrink", "backing"), "format_mismatch", id="no-other-word"),
        pytest.param("qcow2", 2 * MIB, ("raw",), "", id="the-word"),
        pytest.param("qcow2", 512, ("raw",), "shrink_refused", id="which-is-not-that-for-shrinking"),
        pytest.param("qcow2", 512, ("raw", "shrink"), "", id="both"),
        pytest.param("an encrypted image", 2 * MIB, (), "", id="a-guest-encrypts-its-disk"),
        pytest.param("vmdk", 2 * MIB, (), "", id="text"),
    ],
)
def test_what_is_declared_raw_and_looks_like_qcow2_is_resized_with_a_word(looks_like, capacity, allow, code):
    found = holding(volume(looks_like=looks_like, looks_capacity=5 * MIB))
    declared = entry(format="raw", capacity=capacity, allow=allow)
    if code:
        assert refused(found, declared).code == code
    else:
        assert decide(found, declared).changes[0].wanted.capacity == capacity
    assert decide(found, entry(format="raw", capacity=MIB)).changes == ()


def test_at_least_never_shrinks():
    assert decide(holding(RAW), entry(capacity=1, at_least=True, allow=["shrink"])).changes == ()


@pytest.mark.parametrize(
    ("have", "declared", "limit"),
    [
        pytest.param(RAW, {"capacity": 2**33}, 2**32 - 1, id="file"),
        pytest.param(replace(QCOW2, cluster_size=512), {"capacity": 2**37 + 1}, None, id="small-clusters"),
        pytest.param(QCOW2, {"capacity": 2**51 + 512}, None, id="qcow2"),
    ],
)
def test_growing_has_limits(have, declared, limit):
    assert refused(holding(have, file_limit=limit), entry(**declared)).code == "capacity_too_large"


# -- changing in place --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "declared", "before", "after"),
    [
        pytest.param(QCOW2, {"compat": "0.10"}, {"compat": "1.1"}, {"compat": "0.10"}, id="compat"),
        pytest.param(QCOW2, {"lazy_refcounts": True}, {"lazy_refcounts": False}, {"lazy_refcounts": True}, id="lazy"),
        pytest.param(
            replace(QCOW2, compat="0.10"),
            {"compat": "1.1", "lazy_refcounts": True},
            {"compat": "0.10", "lazy_refcounts": False},
            {"compat": "1.1", "lazy_refcounts": True},
            id="both",
        ),
    ],
)
def test_amending(have, declared, before, after):
    change = only(decide(holding(have), entry(**declared)))
    assert (change.action, change.before, change.after) == ("amend", before, after)
    assert change.requires == (IDENTITY,)
    assert (change.wanted.compat, change.wanted.lazy_refcounts) == (
        declared.get("compat"),
        declared.get("lazy_refcounts"),
    )


@pytest.mark.parametrize(
    ("have", "declared"),
    [
        pytest.param(replace(QCOW2, lazy_refcounts=True), {"compat": "0.10"}, id="lazy-there"),
        pytest.param(replace(QCOW2, compat="0.10"), {"lazy_refcounts": True}, id="lazy-wanted"),
        pytest.param(QCOW2, {"compat": "0.10", "lazy_refcounts": True}, id="both-wanted"),
        pytest.param(replace(QCOW2, extended_l2=True), {"compat": "0.10"}, id="subclusters-there"),
        pytest.param(replace(QCOW2, beyond_0_10=("a bitmap",)), {"compat": "0.10"}, id="bitmap-there"),
    ],
)
def test_what_can_not_be_amended(have, declared):
    assert refused(holding(have), entry(**declared)).code in ("invalid_option", "volume_differs")


def test_what_internal_snapshots_stand_against():
    have = replace(QCOW2, backing=Backing("/p/old", "raw"), snapshots=2)
    found = holding(have, volume("old"), volume("new"))
    error = refused(found, entry(backing=Backing(volume="new", format="raw"), allow=frozenset({"backing"})))
    assert (error.code, "internal snapshots (2)" in error.message) == ("volume_differs", True)
    of_version_2 = holding(replace(QCOW2, compat="0.10", snapshots=1))
    size = (QCOW2.capacity or 0) + MIB
    assert refused(of_version_2, entry(capacity=size)).code == "volume_differs"
    assert actions(decide(of_version_2, entry(capacity=size, compat="1.1"))) == ["amend v", "resize v"]
    assert actions(decide(holding(replace(QCOW2, snapshots=1)), entry(capacity=size))) == ["resize v"]


def test_turning_lazy_refcounts_off_with_compat():
    change = only(decide(holding(replace(QCOW2, lazy_refcounts=True)), entry(compat="0.10", lazy_refcounts=False)))
    assert change.after == {"compat": "0.10", "lazy_refcounts": False}


@pytest.mark.parametrize(
    ("permissions", "before", "after"),
    [
        (Permissions(0o640), {"mode": "0600"}, {"mode": "0640"}),
        (Permissions(0), {"mode": "0600"}, {"mode": "00"}),
        (Permissions(owner=5), {"owner": 0}, {"owner": 5}),
        (Permissions(0o600, 0, 7), {"group": 0}, {"group": 7}),
        (Permissions(0o640, 5, 7), {"owner": 0, "group": 0, "mode": "0600"}, {"owner": 5, "group": 7, "mode": "0640"}),
    ],
)
def test_permissions(permissions, before, after):
    change = only(decide(holding(RAW), entry(permissions=permissions)))
    assert (change.action, change.before, change.after) == ("permissions", before, after)
    given = change.wanted.permissions
    assert {name for name in ("mode", "owner", "group") if getattr(given, name) is not None} == set(after)


@pytest.mark.parametrize("kind", ["process", "lock", "loop", "mount", "swap"])
def test_the_permissions_of_what_is_open_are_left_alone_and_that_is_said(kind):
    decision = decide(
        holding(RAW, users={"v": (user(kind, "x"),)}), entry(capacity=2 * MIB, permissions=Permissions(0o640, 5))
    )
    assert actions(decision) == ["resize v"]
    (warning,) = decision.warnings
    assert "owner, mode left alone" in warning


@pytest.mark.parametrize("kind", ["guest", "pool", "overlay"])
def test_the_permissions_of_what_is_only_named_are_set(kind):
    decision = decide(holding(RAW, users={"v": (user(kind),)}), entry(permissions=Permissions(0o640)))
    assert (actions(decision), decision.warnings) == (["permissions v"], ())


@pytest.mark.parametrize(
    ("permissions", "owner", "code"),
    [
        (Permissions(0o640), 1000, ""),
        (Permissions(group=20), 1000, ""),
        (Permissions(0o640), 0, "not_permitted"),
        (Permissions(owner=5), 1000, "not_permitted"),
        (Permissions(group=5), 1000, "not_permitted"),
    ],
)
def test_whose_permissions_can_be_changed_without_root(permissions, owner, code):
    have = replace(RAW, permissions=Permissions(0o600, owner, 10))
    found = holding(have, process=(1000, frozenset({10, 20})))
    if code:
        assert refused(found, entry(permissions=permissions)).code == code
    else:
        assert only(decide(found, entry(permissions=permissions))).action == "permissions"


def test_changes_of_one_volume_come_in_a_fixed_order():
    base = volume("b", "raw")
    declared = entry(
        compat="0.10",
        capacity=2 * MIB,
        permissions=Permissions(0o640),
        backing=Backing(volume="b", format="raw"),
        allow=["backing"],
    )
    assert actions(decide(holding(QCOW2, base), declared)) == ["amend v", "rebase v", "resize v", "permissions v"]


@pytest.mark.parametrize(
    ("declared", "have", "running", "allowed"),
    [
        pytest.param({"compat": "0.10"}, QCOW2, "volume_in_use", True, id="amend"),
        pytest.param({"capacity": 2 * MIB}, QCOW2, "volume_in_use", True, id="grow-qcow2"),
        pytest.param({"capacity": 2 * MIB}, RAW, "", True, id="grow-raw"),
        pytest.param({"capacity": 512, "allow": ["shrink"]}, RAW, "volume_in_use", True, id="shrink"),
    ],
)
def test_what_is_open_is_not_rewritten(declared, have, running, allowed):
    found = holding(have, users={"v": (user("process", "qemu"),)})
    if running:
        assert refused(found, entry(**declared)).code == running
    else:
        assert len(decide(found, entry(**declared)).changes) == 1
    lifted = {**declared, "allow": [*declared.get("allow", ()), "in_use"]}
    assert len(decide(found, entry(**lifted)).changes) == 1


@pytest.mark.parametrize("have", [RAW, QCOW2], ids=["raw", "qcow2"])
def test_what_a_guest_only_names_can_grow(have):
    found = holding(have, users={"v": (user("guest", "vm"),)})
    assert only(decide(found, entry(capacity=2 * MIB))).action == "resize"


# -- what can't be changed in place -------------------------------------------------------------------------------

STUCK = {
    "format": (RAW, {"format": "qcow2"}),
    "format back": (QCOW2, {"format": "raw"}),
    "cluster_size": (QCOW2, {"cluster_size": 4096}),
    "extended_l2": (QCOW2, {"extended_l2": True}),
    "compat": (RAW, {"compat": "1.1"}),
    "backing": (RAW, {"backing": Backing("/img/b", "raw")}),
    "capacity": (volume(image_format="vmdk"), {"capacity": 2 * MIB}),
}


@pytest.mark.parametrize(("have", "declared"), STUCK.values(), ids=STUCK)
def test_what_is_stuck(have, declared):
    error = refused(holding(have), entry(**declared))
    assert error.code == "volume_differs"
    assert "recreate: needed" in error.hint


def test_what_is_stuck_is_named_with_both_sides():
    error = refused(holding(QCOW2), entry(cluster_size=4096, format="raw"))
    assert "format is qcow2, not raw" in error.message
    assert "cluster_size is 65536, not 4096" in error.message


@pytest.mark.parametrize("recreate", ["needed", "always"])
@pytest.mark.parametrize(
    ("have", "declared"),
    [
        (RAW, {"format": "qcow2", "capacity": 2 * MIB}),
        (QCOW2, {"format": "raw", "capacity": 512}),
        (QCOW2, {"format": "qcow2", "cluster_size": 4096, "capacity": MIB}),
    ],
)
def test_making_anew(have, declared, recreate):
    change = only(decide(holding(have), entry(recreate=recreate, **declared)))
    assert (change.action, change.destroys) == ("recreate", "the content of /p/v")
    assert change.requires == (IDENTITY, UNUSED)
    assert change.before["format"] == have.format
    assert change.after["format"] == declared["format"]
    assert change.after["capacity"] == declared["capacity"]
    assert change.wanted.identity == have.identity


def test_making_anew_each_time():
    assert only(decide(holding(RAW), entry(recreate="always", capacity=MIB))).action == "recreate"
    assert only(decide(EMPTY, entry(recreate="always", capacity=MIB))).action == "create"


def test_making_anew_keeps_permissions_that_are_not_declared():
    have = replace(RAW, permissions=Permissions(0o644, 5, 7))
    change = only(decide(holding(have), entry(recreate="always", capacity=MIB, permissions=Permissions(group=9))))
    assert change.wanted.permissions == Permissions(0o644, 5, 9)
    assert (change.after["mode"], change.after["owner"], change.after["group"]) == ("0644", 5, 9)


def test_making_anew_keeps_the_format_and_size_that_are_not_declared():
    change = only(decide(holding(QCOW2), entry(recreate="always")))
    assert (change.wanted.format, change.wanted.capacity) == ("qcow2", MIB)
    assert (change.after["format"], change.after["capacity"]) == ("qcow2", MIB)


def test_making_anew_shows_the_options_that_the_new_volume_has():
    have = replace(QCOW2, cluster_size=131072, lazy_refcounts=True, backing=Backing("/img/b", "raw"))
    change = only(decide(holding(have), entry(recreate="always", extended_l2=True)))
    assert set(change.before) == set(change.after)
    options = {"compat": "1.1", "cluster_size": 65536, "lazy_refcounts": False, "extended_l2": True, "backing": None}
    assert {name: change.after[name] for name in options} == options


def test_making_anew_in_another_format_shows_its_options():
    options = {"compat": "1.1", "cluster_size": 65536, "lazy_refcounts": False, "extended_l2": False}
    after = only(decide(holding(RAW), entry(recreate="needed", format="qcow2"))).after
    assert {name: after[name] for name in options} == options
    after = only(decide(holding(QCOW2), entry(recreate="needed", format="raw"))).after
    assert {name: after[name] for name in options} == dict.fromkeys(options)


def test_making_a_qcow2_image_anew_as_raw_keeps_the_size_that_a_guest_saw():
    """What is declared raw is read as raw, as large as its file."""
    have = volume(capacity=196624, looks_like="qcow2", looks_capacity=5 * MIB)
    declared = entry(format="raw", recreate="always")
    assert only(decide(holding(have), declared)).wanted.capacity == 5 * MIB
    declared = entry(format="raw", recreate="always", capacity=MIB)
    assert only(decide(holding(have), declared)).wanted.capacity == MIB


def test_making_anew_needs_all_that_creating_needs():
    assert refused(holding(RAW), entry(recreate="always", capacity=MIB, allocation=2 * MIB)).code == "invalid_option"
    assert refused(holding(RAW), entry(recreate="always", capacity=MIB, compat="1.1")).code == "invalid_option"


def test_what_must_be_kept_by_others_is_not_made_anew_without_root():
    have = replace(RAW, permissions=Permissions(0o600, 0, 0))
    found = holding(have, process=(1000, frozenset({10})))
    assert refused(found, entry(recreate="always", capacity=MIB)).code == "not_permitted"


@pytest.mark.parametrize(
    ("have", "code"),
    [
        pytest.param(replace(RAW, link_target="/x"), "volume_foreign", id="link"),
        pytest.param(replace(QCOW2, data_file="/x"), "volume_differs", id="data-file"),
        pytest.param(replace(QCOW2, encrypted=True), "volume_differs", id="encrypted"),
    ],
)
def test_what_is_kept_elsewhere_is_not_changed(have, code):
    assert refused(holding(have), entry(capacity=2 * MIB)).code == code


def test_permissions_of_an_encrypted_image_can_be_set():
    decision = decide(holding(replace(QCOW2, encrypted=True)), entry(permissions=Permissions(0o640)))
    assert actions(decision) == ["permissions v"]


def test_a_link_is_not_made_anew():
    have = replace(RAW, link_target="/x")
    assert refused(holding(have), entry(recreate="always", capacity=MIB)).code == "volume_foreign"


# -- content ------------------------------------------------------------------------------------------------------


def test_inline_content_is_compared():
    digest = hashlib.sha256(b"hello").hexdigest()
    same = holding(volume(capacity=5), digests={"v": digest})
    assert decide(same, entry(content=Content(data=b"hello"))).changes == ()
    other = replace(same, digests={"v": hashlib.sha256(b"other").hexdigest()})
    error = refused(other, entry(content=Content(data=b"hello")))
    assert error.code == "volume_differs"
    assert "hello" not in str(error)
    change = only(decide(other, entry(content=Content(data=b"hello"), recreate="needed")))
    assert change.action == "recreate"
    assert "hello" not in str((change.before, change.after, change.summary))


# -- destroying ---------------------------------------------------------------------------------------------------


def test_deleting():
    change = only(decide(holding(RAW), entry(state="absent")))
    assert (change.action, change.after, change.destroys) == ("delete", None, "the content of /p/v")
    assert change.before == {
        "path": "/p/v", "format": "raw", "capacity": MIB, "mode": "0600", "owner": 0, "group": 0,
    }  # fmt: skip
    assert change.requires == (IDENTITY, UNUSED)


def test_deleting_what_is_not_there():
    assert decide(EMPTY, entry(state="absent")).changes == ()


def test_deleting_what_can_not_be_read_as_an_image():
    assert only(decide(holding(volume(problem="broken")), entry(state="absent"))).action == "delete"


@pytest.mark.parametrize(
    "have",
    [
        pytest.param(volume(type="dir"), id="directory"),
        pytest.param(volume(type="block"), id="block"),
        pytest.param(volume(foreign="a socket", type=None), id="socket"),
    ],
)
@pytest.mark.parametrize("allow", [(), ("in_use", "backing", "shrink")])
def test_what_is_no_file_is_not_deleted(have, allow):
    assert refused(holding(have), entry(state="absent", allow=allow)).code == "volume_foreign"


def test_of_a_link_only_the_link_is_deleted():
    have = replace(RAW, link_target="/x")
    change = only(decide(holding(have, users={"v": (user("process"),)}), entry(state="absent")))
    assert (change.destroys, change.requires) == ("", (IDENTITY,))


DESTROYING = {
    "absent": {"state": "absent"},
    "recreate": {"recreate": "always", "capacity": MIB},
    "recreate needed": {"recreate": "needed", "capacity": MIB, "format": "qcow2"},
    "shrink": {"capacity": 512, "allow": ["shrink"]},
}
GUARDS = [
    (user("process", "qemu (pid 5)"), "volume_in_use", "in_use"),
    (user("lock"), "volume_in_use", "in_use"),
    (user("loop", "/dev/loop0"), "volume_in_use", "in_use"),
    (user("mount", "/mnt"), "volume_in_use", "in_use"),
    (user("swap", "/p/v"), "volume_in_use", "in_use"),
    (user("guest", "vm"), "volume_in_use", "in_use"),
    (user("pool", "layer"), "volume_in_use", "in_use"),
    (user("overlay", "/p/o"), "volume_backing", "backing"),
    (user("overlay", "/elsewhere/o"), "volume_backing", "backing"),
]


@pytest.mark.parametrize("declared", DESTROYING.values(), ids=DESTROYING)
@pytest.mark.parametrize(
    ("who", "code", "word"), GUARDS, ids=lambda value: str(value) if not isinstance(value, str) else ""
)
def test_what_is_used_is_not_destroyed_without_a_word(declared, who, code, word):
    found = holding(RAW, users={"v": (who,)})
    error = refused(found, entry(**declared))
    assert error.code == code
    assert str(who) in error.message
    assert f"allow: [{word}]" in error.hint
    other = {"in_use": "backing", "backing": "in_use"}[word]
    assert refused(found, entry(**{**declared, "allow": [*declared.get("allow", ()), other]})).code == code
    allowed = {**declared, "allow": [*declared.get("allow", ()), word]}
    assert len(decide(found, entry(**allowed)).changes) == 1


def test_only_five_users_are_named():
    found = holding(RAW, users={"v": tuple(user("guest", f"vm{i}") for i in range(9))})
    message = refused(found, entry(state="absent")).message
    assert "vm4 and 4 more" in message
    assert "vm5" not in message


# -- overlay and base together ------------------------------------------------------------------------------------

BASE = volume("base", "qcow2")
OVERLAY = volume("overlay", "qcow2", backing=Backing("/p/base", "qcow2"))
CHAIN = holding(BASE, OVERLAY, users={"base": (user("overlay", "/p/overlay"),)})


@pytest.mark.parametrize("order", [("base", "overlay"), ("overlay", "base")])
def test_an_overlay_goes_before_its_base(order):
    decision = decide(CHAIN, *(entry(name, state="absent") for name in order))
    assert actions(decision) == ["delete overlay", "delete base"]
    assert decision.changes[1].needs[0] == "overlay"


def test_exclusive_removes_overlay_and_base_in_that_order():
    decision = decide(holding(volume("z", "raw"), BASE, OVERLAY, users=CHAIN.users), entry("z"), exclusive="*")
    assert actions(decision) == ["delete overlay", "delete base"]
    assert decision.changes[1].needs[0] == "overlay"


def test_a_base_stays_while_an_overlay_does():
    assert refused(CHAIN, entry("base", state="absent")).code == "volume_backing"
    assert refused(CHAIN, entry("base", state="absent"), entry("overlay", backing=Backing("/p/base"))).code in (
        "volume_backing",
        "parent_removed",
    )


def test_an_overlay_of_a_removed_one_counts_only_when_it_goes_too():
    users = {"base": (user("overlay", "/p/overlay"), user("overlay", "/p/other"))}
    found = holding(BASE, OVERLAY, users=users)
    assert refused(found, entry("base", state="absent"), entry("overlay", state="absent")).code == "volume_backing"


# -- exclusive ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("*", ["vm1", "vm2", "web"]),
        ("vm*", ["vm1", "vm2"]),
        ("vm[12]", ["vm1", "vm2"]),
        ("vm?", ["vm1", "vm2"]),
        ("VM*", []),
        ("vm", []),
        ("[!v]*", ["web"]),
    ],
)
def test_exclusive(pattern, gone):
    found = holding(
        volume("vm0"),
        volume("vm2"),
        volume("vm1"),
        volume("web"),
        volume("vm3", type="dir"),
        volume("vm4", type="block"),
    )
    decision = decide(found, entry("vm0"), exclusive=pattern)
    assert actions(decision) == [f"delete {name}" for name in gone]
    assert all(change.destroys for change in decision.changes)


def test_exclusive_never_removes_what_is_used():
    found = holding(volume("a"), volume("b"), users={"b": (user("guest", "vm"),)})
    assert refused(found, entry("a", allow=["in_use"]), exclusive="*").code == "volume_in_use"


def test_exclusive_keeps_what_is_listed_as_absent_out_of_the_way():
    found = holding(volume("a"), volume("b"))
    assert actions(decide(found, entry("a", state="absent"), exclusive="*")) == ["delete a", "delete b"]


# -- many, order, leftovers ---------------------------------------------------------------------------------------


def test_one_bad_entry_refuses_the_task():
    assert refused(EMPTY, entry("a", capacity=MIB), entry("b"), entry("c", capacity=MIB)).code == "capacity_missing"


def test_backing_comes_before_what_is_built_on_it():
    top = entry("top", format="qcow2", backing=Backing(volume="mid", format="qcow2"))
    mid = entry("mid", format="qcow2", backing=Backing(volume="low", format="raw"))
    low = entry("low", capacity=MIB)
    decision = decide(EMPTY, top, mid, low)
    assert actions(decision) == ["create low", "create mid", "create top"]
    assert [change.needs for change in decision.changes] == [(), ("low",), ("low", "mid")]
    assert decision.changes[2].after["capacity"] == MIB


def test_a_source_comes_before_its_copy():
    decision = decide(EMPTY, entry("copy", content=Content(volume="orig")), entry("orig", capacity=MIB, format="qcow2"))
    assert actions(decision) == ["create orig", "create copy"]
    assert decision.changes[1].needs == ("orig",)
    assert decision.changes[1].after["format"] == "qcow2"


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry("a", format="qcow2", backing=Backing(volume="a"))], id="itself"),
        pytest.param(
            [entry(n, format="qcow2", backing=Backing(volume=b)) for n, b in [("a", "b"), ("b", "a")]], id="each-other"
        ),
        pytest.param(
            [entry(n, format="qcow2", backing=Backing(volume=b)) for n, b in [("a", "b"), ("b", "c"), ("c", "a")]],
            id="three",
        ),
        pytest.param(
            [entry("a", content=Content(volume="b")), entry("b", format="qcow2", backing=Backing(volume="a"))],
            id="source-and-backing",
        ),
    ],
)
def test_loops(entries):
    assert refused(EMPTY, *entries).code == "backing_loop"


def test_a_long_chain_ends_in_an_answer():
    entries = [entry("v0", format="qcow2", capacity=MIB)]
    entries += [entry(f"v{i}", format="qcow2", backing=Backing(volume=f"v{i - 1}")) for i in range(1, 60)]
    assert len(decide(EMPTY, *reversed(entries)).changes) == 60


def test_a_chain_of_thousands_is_no_crash():
    entries = [entry("v0", format="qcow2", capacity=MIB)]
    entries += [entry(f"v{i}", format="qcow2", backing=Backing(volume=f"v{i - 1}")) for i in range(1, 1000)]
    try:
        decision = decide(EMPTY, *reversed(entries))
    except StorageError as error:
        whole(error)
    else:
        assert len(decision.changes) == 1000


def test_leftovers_are_removed_first():
    decision = decide(replace(EMPTY, leftovers=(".virt-storage", "x")), entry(capacity=MIB))
    assert actions(decision) == ["clean", "create v"]
    clean = decision.changes[0]
    assert (clean.before, clean.after) == ({"leftovers": ".virt-storage, x"}, {"leftovers": ""})


def test_leftovers_alone_are_a_change():
    assert actions(decide(holding(RAW, leftovers=(".virt-storage",)), entry(capacity=MIB))) == ["clean"]


def test_a_private_directory_that_is_not_ours_is_in_the_way_of_changes_only():
    problem = {"staging_problem": "/p/.virt-storage belongs to another user"}
    decision = decide(replace(EMPTY, **problem), entry(capacity=MIB))
    assert whole(decision.refusal).code == "staging_foreign"
    assert actions(decision) == ["create v"]
    assert decide(holding(RAW, **problem), entry(capacity=MIB)).refusal is None


def test_a_directory_that_is_not_writable_is_in_the_way_of_changes_only():
    problem = {"unwritable": "/p is not writable"}
    decision = decide(replace(EMPTY, **problem), entry(capacity=MIB))
    assert whole(decision.refusal).code == "not_writable"
    assert actions(decision) == ["create v"]
    assert decide(holding(RAW, **problem), entry(capacity=MIB)).refusal is None


@pytest.mark.parametrize(
    "declared",
    [
        {"state": "absent"},
        {"recreate": "always", "capacity": MIB},
        {"capacity": 2 * MIB},
        {"permissions": Permissions(0o640)},
    ],
)
def test_a_volume_whose_attributes_keep_it_is_in_the_way_of_its_changes_only(declared):
    found = holding(RAW, sealed={"v": "i"})
    decision = decide(found, entry(**declared))
    assert whole(decision.refusal).code == "not_writable"
    assert "chattr -i" in decision.refusal.hint
    assert actions(decision)
    assert decide(found, entry(capacity=MIB)).refusal is None
    assert decide(found, entry(name="w", capacity=MIB)).refusal is None


# -- how much must be known of users ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "declared", "stake"),
    [
        pytest.param(None, {"capacity": MIB}, None, id="new"),
        pytest.param(RAW, {"capacity": MIB}, None, id="same"),
        pytest.param(RAW, {"state": "absent"}, EVERYTHING, id="absent"),
        pytest.param(RAW, {"recreate": "always", "capacity": MIB}, EVERYTHING, id="always"),
        pytest.param(RAW, {"recreate": "needed", "capacity": MIB}, None, id="not-needed"),
        pytest.param(RAW, {"recreate": "needed", "format": "qcow2"}, EVERYTHING, id="needed"),
        pytest.param(RAW, {"format": "qcow2"}, None, id="refused-anyway"),
        pytest.param(RAW, {"capacity": 512, "allow": ["shrink"]}, EVERYTHING, id="shrink"),
        pytest.param(RAW, {"capacity": 512}, None, id="shrink-refused-anyway"),
        pytest.param(RAW, {"capacity": 2 * MIB}, PIN, id="grow-raw"),
        pytest.param(QCOW2, {"capacity": 2 * MIB}, RUNNING, id="grow-qcow2"),
        pytest.param(QCOW2, {"compat": "0.10"}, RUNNING, id="amend"),
        pytest.param(RAW, {"permissions": Permissions(0o640)}, RUNNING, id="permissions"),
        pytest.param(RAW, {"permissions": Permissions(0o640), "capacity": 2 * MIB}, RUNNING, id="permissions-and-grow"),
        pytest.param(QCOW2, {"backing": Backing("/b", "raw"), "allow": ["backing"]}, RUNNING, id="rebase"),
        pytest.param(volume(foreign="a FIFO"), {"state": "absent"}, None, id="foreign"),
    ],
)
def test_stakes(have, declared, stake):
    found = EMPTY if have is None else holding(have)
    stakes = volumes_at_stake(volumes_goal(entry(**declared)), found)
    assert stakes == ({} if stake is None else {"v": stake})


def test_what_exclusive_removes_is_at_stake():
    found = holding(volume("a"), volume("b"))
    assert volumes_at_stake(volumes_goal(entry("a"), exclusive="*"), found) == {"b": EVERYTHING}


# -- comparing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("want", "have", "names"),
    [
        pytest.param({}, RAW, [], id="nothing"),
        pytest.param({"capacity": MIB + 1, "format": "qcow2"}, RAW, ["format", "capacity"], id="two"),
        pytest.param(
            {"permissions": Permissions(0o1, 1, 1)},
            replace(RAW, permissions=Permissions()),
            ["owner", "group", "mode"],
            id="unknown-permissions",
        ),
        pytest.param({"capacity": MIB}, replace(RAW, capacity=None), ["capacity"], id="unknown-capacity"),
        pytest.param({"backing": Backing("/b")}, QCOW2, ["backing"], id="no-backing-yet"),
        pytest.param(
            {"backing": Backing("/b")}, replace(QCOW2, backing=Backing("/b", "raw")), [], id="format-not-said"
        ),
        pytest.param(
            {"backing": Backing("/b", "raw")},
            replace(QCOW2, backing=Backing("/b", None)),
            ["backing"],
            id="not-in-header",
        ),
        pytest.param(
            {"backing": Backing("/b", "raw")},
            replace(QCOW2, backing=Backing("/b", "qcow2")),
            ["backing"],
            id="other-format",
        ),
        pytest.param({"backing": Backing(volume="b")}, replace(QCOW2, backing=Backing("/p/b")), [], id="by-name"),
        pytest.param({"backing": Backing("/link")}, replace(QCOW2, backing=Backing("/target")), [], id="resolved"),
    ],
)
def test_differences(want, have, names):
    found = holding(have, resolved={"/link": "/real", "/target": "/real"})
    assert [difference.field for difference in differences(Volume("v", **want), have, found)] == names


def test_deciding_on_thousands_takes_no_time():
    names = [f"v{i}" for i in range(1500)]
    found = holding(*(volume(name) for name in names))
    start = time.process_time()
    decision = decide(found, *(entry(name, state="absent") for name in names[:750]), exclusive="*")
    assert len(decision.changes) == 1500
    assert time.process_time() - start < 1.5


def test_what_is_hardly_meant_is_warned_of():
    goal = replace(volumes_goal(entry("v", capacity=10)), doubts=("odd",))
    assert decide_volumes(goal, EMPTY).warnings == ("odd",)


def test_what_differs_is_told_in_words():
    backed = replace(QCOW2, backing=Backing("/img/b", "raw"))
    error = refused(holding(backed), entry(backing=Backing("/img/c", "qcow2")))
    assert "is backed by /img/b as raw, not /img/c as qcow2" in error.message
    error = refused(holding(QCOW2), entry(extended_l2=True))
    assert "extended_l2 is off, not on" in error.message
    error = refused(holding(volume(image_format="vmdk")), entry(capacity=2 * MIB))
    assert "capacity is 1 MiB, not 2 MiB" in error.message
