# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of one task that are built on each other: what comes first, so that no content is lost by the order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends.filetree_changes import lower_volumes
from ansible_collections.virt.storage.plugins.module_utils.model.found import Image
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content

from .building import MIB, actions, decide, entry, holding, refused, user, volume


def on(name, base, image_format="qcow2", **more):
    """A found overlay."""
    return volume(name, "qcow2", backing=Backing(f"/p/{base}", image_format), **more)


def under(*overlays):
    return tuple(user("overlay", f"/p/{overlay}") for overlay in overlays)


def anew(name, allow=(), **declared):
    return entry(name, recreate="always", allow=allow, **{"format": "qcow2", "capacity": MIB, **declared})


def moved(name, base, allow=("backing",), **declared):
    return entry(name, allow=allow, backing=Backing(volume=base, format="qcow2"), **declared)


A, B, C = (volume(name, "qcow2") for name in "abc")
OVERLAY = holding(A, B, C, on("v", "a"), users={"a": under("v")})


def waits(decision):
    """For each volume those of the task that it waits for; the steps must wait for the same."""
    needs = {}
    names = {change.subject.volume for change in decision.changes}
    for change in decision.changes:
        needs.setdefault(change.subject.volume, set()).update(names.intersection(change.needs))
    steps = lower_volumes(decision.changes, OVERLAY)
    first, last = {}, {}
    for index, step in enumerate(steps):
        if step.change is not None:
            first.setdefault(step.change.subject.volume, index)
            last[step.change.subject.volume] = index
    for name, others in needs.items():
        for other in others:
            assert last[other] < first[name]
            assert last[other] in steps[first[name]].needs
    return needs


@pytest.mark.parametrize("base_first", [True, False])
def test_an_overlay_is_moved_away_before_its_base_is_made_anew(base_first):
    entries = (anew("a"), moved("v", "b"))
    decision = decide(OVERLAY, *(entries if base_first else entries[::-1]))
    assert actions(decision) == ["rebase v", "recreate a"]
    assert waits(decision) == {"v": set(), "a": {"v"}}


def test_an_overlay_is_moved_away_before_its_base_is_shrunk():
    base = entry("a", capacity=512, allow=("shrink",))
    decision = decide(OVERLAY, base, moved("v", "b"))
    assert actions(decision) == ["rebase v", "resize a"]
    assert waits(decision) == {"v": set(), "a": {"v"}}


def test_an_overlay_is_moved_away_before_its_base_is_removed():
    decision = decide(OVERLAY, entry("a", "absent"), moved("v", "b"))
    assert actions(decision) == ["rebase v", "delete a"]
    assert waits(decision) == {"v": set(), "a": {"v"}}


def test_what_grows_under_an_overlay_is_not_written_at_the_same_time():
    decision = decide(OVERLAY, entry("a", capacity=2 * MIB), moved("v", "b"))
    assert actions(decision) == ["resize a", "rebase v"]
    assert waits(decision) == {"a": set(), "v": {"a"}}


def test_an_overlay_is_made_anew_elsewhere_before_its_base_is():
    decision = decide(OVERLAY, anew("a"), anew("v", backing=Backing(volume="b", format="qcow2")))
    assert actions(decision) == ["recreate v", "recreate a"]
    assert waits(decision)["a"] == {"v"}


def test_an_overlay_is_moved_to_a_base_that_is_made_anew_only_afterwards():
    decision = decide(OVERLAY, moved("v", "b"), anew("b"))
    assert actions(decision) == ["recreate b", "rebase v"]
    assert waits(decision) == {"b": set(), "v": {"b"}}


def test_from_one_to_another_while_both_are_made_anew():
    decision = decide(OVERLAY, anew("a"), anew("b"), moved("v", "b"))
    assert actions(decision) == ["recreate b", "rebase v", "recreate a"]
    assert waits(decision) == {"b": set(), "v": {"b"}, "a": {"v"}}


def test_each_one_after_the_other():
    """v leaves a for b, which leaves c: only then c is made anew."""
    found = holding(A, on("b", "c"), C, on("v", "a"), users={"a": under("v"), "c": under("b")})
    decision = decide(found, anew("c"), anew("a"), moved("b", "d"), moved("v", "b"), anew("d"))
    assert actions(decision)[-1] in ("recreate a", "recreate c")
    order = actions(decision)
    assert order.index("rebase b") < order.index("recreate c")
    assert order.index("rebase b") < order.index("rebase v") < order.index("recreate a")


@pytest.mark.parametrize("base", [anew("a"), entry("a", capacity=512, allow=("shrink",)), entry("a", "absent")])
def test_an_overlay_that_stays_is_protected(base):
    assert refused(OVERLAY, base).code == "volume_backing"
    assert refused(OVERLAY, base, entry("v", capacity=2 * MIB)).code == "volume_backing"
    assert refused(OVERLAY, base, moved("w", "a"), entry("v")).code in ("volume_backing", "parent_removed")
    allowed = replace(base, allow=base.allow | {"backing"})
    assert len(decide(OVERLAY, allowed).changes) == 1


def test_an_overlay_that_is_not_listed_is_protected_beside_one_that_moves():
    found = holding(A, B, on("v", "a"), on("w", "a"), users={"a": under("v", "w")})
    assert refused(found, anew("a"), moved("v", "b")).code == "volume_backing"


def test_an_overlay_that_is_made_anew_on_the_same_base_stays():
    again = anew("v", backing=Backing(volume="a", format="qcow2"))
    assert refused(OVERLAY, anew("a"), again).code == "volume_backing"
    assert actions(decide(OVERLAY, anew("a", allow=("backing",)), again)) == ["recreate a", "recreate v"]


def test_a_clone_of_what_it_was_built_on_stays_too():
    clone = anew("v", content=Content(volume="a"))
    assert refused(OVERLAY, anew("a"), clone).code == "volume_backing"


def test_the_same_base_by_a_link_is_no_other_one():
    found = holding(
        A, volume("l", "qcow2", link_target="a"), on("v", "a"), users={"a": under("v")},
        resolved={"/p": "/p", "/p/l": "/p/a", "/p/a": "/p/a"},
    )  # fmt: skip
    assert refused(found, anew("a"), moved("v", "l")).code == "volume_backing"


def test_through_a_file_elsewhere():
    """v is on /img/x, which is on a; and it may be put there."""
    outside = Image(volume("x", "qcow2", path="/img/x", identity=(9, 9)), ((9, 9), A.identity))
    found = holding(
        A, B, volume("v", "qcow2", backing=Backing("/img/x", "qcow2")), users={"a": under("v")},
        images={"/img/x": outside},
    )  # fmt: skip
    decision = decide(found, anew("a"), moved("v", "b"))
    assert actions(decision) == ["rebase v", "recreate a"]
    found = replace(OVERLAY, images={**OVERLAY.images, "/img/x": outside})
    elsewhere = entry("v", allow=("backing",), backing=Backing("/img/x", "qcow2"))
    assert refused(found, anew("a"), elsewhere).code == "volume_backing"


CHAIN = holding(A, on("m", "a"), on("v", "m"), users={"a": under("m"), "m": under("v")})


@pytest.mark.parametrize(
    ("found", "entries"),
    [
        pytest.param(CHAIN, (anew("a", allow=("backing",)), moved("v", "a")), id="down-the-chain"),
        pytest.param(
            CHAIN, (entry("a", capacity=512, allow=("shrink", "backing")), moved("v", "a")), id="down-to-what-shrinks"
        ),
        pytest.param(
            OVERLAY,
            (anew("a", allow=("backing",)), moved("v", "n"), anew("n", backing=Backing(volume="a", format="qcow2"))),
            id="on-a-new-one-of-the-same",
        ),
        pytest.param(
            OVERLAY,
            (anew("a"), moved("v", "b"), anew("b", content=Content(volume="a"))),
            id="on-a-copy",
        ),
        pytest.param(
            holding(A, B, on("v", "a", "raw"), users={"a": under("v")}),
            (anew("a", allow=("backing",)), moved("v", "a")),
            id="on-the-same-in-another-format",
        ),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_where_there_is_no_order(found, entries, backwards):
    entries = tuple(replace(each, allow=each.allow | {"backing"}) for each in entries)
    assert refused(found, *(entries[::-1] if backwards else entries)).code == "no_order"


def test_two_that_change_places():
    """v goes from a to b, w from b to a, and both bases are made anew: each would have to wait for the other."""
    found = holding(A, B, on("v", "a"), on("w", "b"), users={"a": under("v"), "b": under("w")})
    error = refused(found, anew("a"), anew("b"), moved("v", "b"), moved("w", "a"))
    assert error.code == "no_order"
    assert "two tasks" in error.hint


def test_a_loop_that_only_the_task_makes():
    """v on c, which is made anew on m, which is on v."""
    found = holding(B, on("m", "v"), on("v", "b"), C, users={"v": under("m"), "b": under("v")})
    entries = (moved("v", "c"), anew("c", backing=Backing(volume="m", format="qcow2")))
    assert refused(found, *entries).code == "backing_loop"


def test_below_what_stays_nothing_is_removed():
    """A new overlay of m would be built on a, which goes."""
    new = entry("w", format="qcow2", backing=Backing(volume="m", format="qcow2"))
    assert refused(CHAIN, entry("a", "absent", allow=("backing",)), new).code == "parent_removed"


def test_a_thousand_overlays_take_no_time():
    overlays = [on(f"v{number}", "a") for number in range(1000)]
    found = holding(A, B, *overlays, users={"a": under(*(each.name for each in overlays))})
    decision = decide(found, anew("a"), *(moved(each.name, "b") for each in overlays))
    assert actions(decision)[-1] == "recreate a"
    assert len(decision.changes[-1].needs) == 1000


def test_through_volumes_that_are_not_listed():
    """v is on m, which is on n, which is on a; neither m nor n is an entry, so nothing else is known of them."""
    found = holding(
        A, on("v", "m"), users={"a": under("n")}, chains={"v": ((1, 1), (8, 8), (9, 9), A.identity)}
    )  # fmt: skip
    assert refused(found, anew("a", allow=("backing",)), moved("v", "a")).code == "no_order"
    new = entry("w", format="qcow2", backing=Backing(volume="m", format="qcow2"))
    middle = Image(on("m", "n"), ((8, 8), (9, 9), A.identity))
    found = replace(found, images={**found.images, "m": middle})
    decision = decide(found, new, anew("a", allow=("backing",)))
    assert actions(decision) == ["recreate a", "create w"]
    assert "a" in decision.changes[1].needs
