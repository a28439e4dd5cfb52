# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What new volumes are made from: backing files and sources, believed only as far as they were declared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.found import Image
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content

from .building import GONE, MIB, actions, codes, decide, entry, holding, nothing, only, refused, user, volume, whole

RAW = volume("b", "raw")
QCOW2 = volume("b", "qcow2")


def backed(form=None, path=None, **more):
    """A new overlay; on volume b, or on a path."""
    backing = Backing(path, form) if path else Backing(None, form, "b")
    return entry(**{"format": "qcow2", "backing": backing, **more})


def on(header, **image):
    """The pool with the image b, and the same outside at /img/b."""
    seen = Image(header, (header.identity,), **image)
    return holding(header, images={"b": seen, "/img/b": seen})


# -- backing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, "/img/b"], ids=["volume", "path"])
@pytest.mark.parametrize(
    ("header", "said", "settled"),
    [
        pytest.param(RAW, "raw", "raw", id="raw-declared"),
        pytest.param(RAW, None, "raw", id="raw-not-declared"),
        pytest.param(QCOW2, "qcow2", "qcow2", id="qcow2-declared"),
        pytest.param(QCOW2, "raw", "raw", id="declared-raw-whatever-a-header-says"),
        pytest.param(replace(QCOW2, problem="broken"), "raw", "raw", id="declared-raw-with-a-broken-header"),
        pytest.param(replace(RAW, type="block"), "raw", "raw", id="block-device"),
    ],
)
def test_a_backing_that_is_taken(header, said, settled, path):
    change = only(decide(on(header), backed(said, path)))
    where = path or "/p/b"
    assert change.after["backing"] == {"path": where, "format": settled}
    assert change.wanted.backing == Backing(where, settled, None if path else "b")
    assert change.after["capacity"] == MIB
    assert change.needs == (() if path else ("b",))


@pytest.mark.parametrize("path", [None, "/img/b"], ids=["volume", "path"])
@pytest.mark.parametrize(
    ("header", "image", "said", "code"),
    [
        pytest.param(QCOW2, {}, None, "backing_format", id="looks-like-qcow2"),
        pytest.param(volume("b", "vmdk"), {}, None, "backing_format", id="looks-like-vmdk"),
        pytest.param(RAW, {}, "qcow2", "format_mismatch", id="raw-not-qcow2"),
        pytest.param(volume("b", "vmdk"), {}, "qcow2", "format_mismatch", id="vmdk-not-qcow2"),
        pytest.param(replace(RAW, foreign="a FIFO", type=None), {}, "raw", "backing_refused", id="fifo"),
        pytest.param(replace(RAW, type="dir"), {}, "raw", "backing_refused", id="directory"),
        pytest.param(replace(QCOW2, problem="broken"), {}, "qcow2", "backing_refused", id="malformed"),
        pytest.param(QCOW2, {"problem": "json: is not followed"}, "qcow2", "backing_refused", id="chain-problem"),
        pytest.param(
            QCOW2,
            {"problem": "nobody said", "code": "backing_format"},
            "qcow2",
            "backing_format",
            id="chain-of-guesses",
        ),
        pytest.param(QCOW2, {"problem": "a loop", "code": "backing_loop"}, "qcow2", "backing_loop", id="chain-loops"),
        pytest.param(QCOW2, {"missing": ("/p/v",)}, "qcow2", "backing_loop", id="built-on-what-is-to-be-made"),
    ],
)
def test_a_backing_that_is_refused(header, image, said, code, path):
    assert refused(on(header, **image), backed(said, path)).code == code


def test_a_backing_that_was_declared_raw_and_looks_otherwise_is_warned_of():
    (warning,) = decide(on(QCOW2), backed("raw")).warnings
    assert warning == "volume p/v is built on b as raw, as declared, though that looks like qcow2"
    assert not decide(on(RAW), backed("raw")).warnings
    assert not decide(on(QCOW2), backed("qcow2")).warnings


def test_the_way_out_of_an_undeclared_format_is_said():
    assert "backing: {volume: b, format: qcow2}" in refused(on(QCOW2), backed()).hint
    assert "backing: {path: /img/b, format: qcow2}" in refused(on(QCOW2), backed(None, "/img/b")).hint


def test_the_format_may_be_declared_by_the_entry_of_the_backing():
    change = decide(on(QCOW2), backed(), entry("b", format="qcow2")).changes[-1]
    assert change.wanted.backing.format == "qcow2"
    assert refused(on(QCOW2), backed(), entry("b")).code == "backing_format"


@pytest.mark.parametrize(
    ("declared", "code", "capacity"),
    [
        pytest.param({}, "", MIB, id="the-backings"),
        pytest.param({"capacity": 2 * MIB}, "", 2 * MIB, id="larger"),
        pytest.param({"capacity": MIB - 1}, "capacity_too_small", None, id="smaller"),
        pytest.param({"capacity": 1, "at_least": True}, "", MIB, id="at-least"),
    ],
)
@pytest.mark.parametrize("header", [RAW, QCOW2], ids=["raw", "qcow2"])
def test_the_capacity_of_an_overlay(header, declared, code, capacity):
    new = backed(header.format, **declared)
    if code:
        assert refused(on(header), new).code == code
    else:
        assert only(decide(on(header), new)).wanted.capacity == capacity


def test_what_is_declared_raw_is_as_large_as_its_file():
    header = replace(QCOW2, capacity=8 * MIB, physical=3 * MIB)
    assert only(decide(on(header), backed("raw"))).wanted.capacity == 3 * MIB
    assert only(decide(on(header), backed("qcow2"))).wanted.capacity == 8 * MIB


@pytest.mark.parametrize(
    ("new", "found"),
    [
        pytest.param(backed("qcow2"), holding(), id="volume"),
        pytest.param(backed("qcow2", "/img/b"), holding(images={"/img/b": Image(None)}), id="path"),
        pytest.param(backed("qcow2", "/img/b"), holding(), id="path-not-looked-at"),
        pytest.param(backed("qcow2"), on(QCOW2, missing=("/img/lower",)), id="lower-in-the-chain"),
    ],
)
def test_a_backing_that_is_not_there(new, found):
    decision = decide(found, new)
    assert (actions(decision), codes(decision)) == (["create v"], ["backing_missing"])
    whole(decision.missing[0])


def test_a_backing_made_by_the_same_task():
    decision = decide(holding(), backed(), entry("b", format="qcow2", capacity=2 * MIB))
    assert actions(decision) == ["create b", "create v"]
    assert decision.changes[1].wanted.backing == Backing("/p/b", "qcow2", "b")
    assert decision.changes[1].after["capacity"] == 2 * MIB
    assert refused(holding(), backed("raw"), entry("b", format="qcow2", capacity=MIB)).code == "format_mismatch"


@pytest.mark.parametrize(
    "reference", [{"form": "qcow2"}, {"form": "qcow2", "path": "/p/b"}], ids=["by-name", "by-path"]
)
@pytest.mark.parametrize(
    ("others", "exclusive"),
    [
        pytest.param([entry("b", state="absent")], None, id="absent"),
        pytest.param([], "*", id="exclusive"),
    ],
)
def test_a_backing_removed_by_the_same_task(reference, others, exclusive):
    found = holding(QCOW2, images={"/p/b": Image(QCOW2, (QCOW2.identity,))})
    assert refused(found, backed(**reference), *others, exclusive=exclusive).code == "parent_removed"


@pytest.mark.parametrize(
    "content", [Content(volume="b", format="raw"), Content("/p/b", format="raw")], ids=["name", "path"]
)
@pytest.mark.parametrize(
    ("others", "exclusive"),
    [
        pytest.param([entry("b", state="absent")], None, id="absent"),
        pytest.param([], "*", id="exclusive"),
    ],
)
def test_a_source_removed_by_the_same_task(content, others, exclusive):
    """Refused, or copied before it goes: never the other way round."""
    from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

    found = holding(RAW, images={"/p/b": Image(RAW, (RAW.identity,))})
    try:
        decision = decide(found, entry(content=content), *others, exclusive=exclusive)
    except StorageError as error:
        whole(error)
    else:
        assert actions(decision) == ["create v", "delete b"]
        assert decision.changes[1].needs == ("v",)


# -- another backing ----------------------------------------------------------------------------------------------

OVERLAY = volume("v", "qcow2", backing=Backing("/p/a", "raw"))


def rebasing(header=RAW, **more):
    return holding(OVERLAY, volume("a", "raw"), header, **more)


def test_rebasing_takes_a_word():
    new = backed("raw")
    error = refused(rebasing(), new)
    assert error.code == "volume_differs"
    assert "allow: [backing]" in error.hint
    change = only(decide(rebasing(), replace(new, allow=frozenset({"backing"}))))
    assert (change.action, change.destroys) == ("rebase", "")
    assert change.before == {"backing": {"path": "/p/a", "format": "raw"}}
    assert change.after == {"backing": {"path": "/p/b", "format": "raw"}}
    assert change.wanted == replace(OVERLAY, backing=Backing("/p/b", "raw", "b"))
    assert change.requires[0].expected == OVERLAY.identity
    assert "b" in change.needs


def test_rebasing_needs_no_format_of_what_is_there():
    new = backed("raw", format=None, allow=["backing"])
    assert only(decide(rebasing(), new)).action == "rebase"


@pytest.mark.parametrize(
    ("found", "said", "code"),
    [
        pytest.param(rebasing(QCOW2), None, "backing_format", id="looks-like"),
        pytest.param(rebasing(), "qcow2", "format_mismatch", id="mismatch"),
        pytest.param(rebasing(users={"v": (user("process"),)}), "raw", "volume_in_use", id="open"),
        pytest.param(
            rebasing(QCOW2, images={"b": Image(QCOW2, (QCOW2.identity, OVERLAY.identity))}),
            "qcow2",
            "backing_loop",
            id="loop",
        ),
        pytest.param(rebasing(volume("b", "raw", 2 * MIB)), "raw", None, id="a-larger-one"),
    ],
)
def test_rebasing_has_rules(found, said, code):
    new = backed(said, allow=["backing"])
    if code is None:
        assert only(decide(found, new)).action == "rebase"
    else:
        assert refused(found, new).code == code


def test_rebasing_onto_what_is_not_there():
    decision = decide(holding(OVERLAY), backed("raw", allow=["backing"]))
    assert (actions(decision), codes(decision)) == (["rebase v"], ["backing_missing"])


# -- sources ------------------------------------------------------------------------------------------------------


def copied(form=None, path="/img/b", **more):
    content = Content(path, None, form) if path else Content(None, "b", form)
    return entry(content=content, **more)


@pytest.mark.parametrize("path", [None, "/img/b"], ids=["volume", "path"])
@pytest.mark.parametrize(
    ("header", "said", "declared", "source_format", "made"),
    [
        pytest.param(RAW, None, {}, "raw", "raw", id="raw"),
        pytest.param(QCOW2, None, {}, "qcow2", "qcow2", id="qcow2-keeps-its-format"),
        pytest.param(QCOW2, "qcow2", {"format": "raw"}, "qcow2", "raw", id="converted"),
        pytest.param(RAW, "raw", {"format": "qcow2"}, "raw", "qcow2", id="converted-back"),
        pytest.param(QCOW2, "raw", {}, "raw", "raw", id="taken-byte-for-byte"),
        pytest.param(replace(QCOW2, problem="broken"), "raw", {}, "raw", "raw", id="broken-byte-for-byte"),
        pytest.param(replace(QCOW2, backing=Backing("/x")), "raw", {}, "raw", "raw", id="backed-byte-for-byte"),
        pytest.param(replace(RAW, type="block"), None, {}, "raw", "raw", id="block-device"),
    ],
)
def test_a_source_that_is_taken(header, said, declared, source_format, made, path):
    wanted = only(decide(on(header), copied(said, path, **declared))).wanted
    assert (wanted.content.path, wanted.content.format, wanted.format) == (path or "/p/b", source_format, made)
    assert wanted.capacity == MIB


@pytest.mark.parametrize("path", [None, "/img/b"], ids=["volume", "path"])
@pytest.mark.parametrize(
    ("header", "image", "said", "code"),
    [
        pytest.param(replace(RAW, foreign="a socket", type=None), {}, "raw", "source_refused", id="socket"),
        pytest.param(replace(RAW, type="dir"), {}, None, "source_refused", id="directory"),
        pytest.param(replace(QCOW2, problem="broken"), {}, None, "source_refused", id="malformed"),
        pytest.param(replace(QCOW2, problem="broken"), {}, "qcow2", "source_refused", id="malformed-declared"),
        pytest.param(replace(QCOW2, encrypted=True), {}, "qcow2", "source_refused", id="encrypted"),
        pytest.param(replace(QCOW2, data_file="/etc/shadow"), {}, "qcow2", "source_refused", id="data-file"),
        pytest.param(replace(QCOW2, backing=Backing("/etc/shadow")), {}, "qcow2", "source_refused", id="backing"),
        pytest.param(
            replace(QCOW2, backing=Backing("/etc/shadow")), {}, None, "source_refused", id="backing-undeclared"
        ),
        pytest.param(RAW, {}, "qcow2", "format_mismatch", id="raw-not-qcow2"),
        pytest.param(volume("b", "vmdk"), {}, "qcow2", "format_mismatch", id="vmdk-not-qcow2"),
        pytest.param(volume("b", "vmdk"), {}, None, "format_unsupported", id="vmdk"),
        pytest.param(RAW, {"writers": ("process qemu",)}, None, "source_in_use", id="written-to"),
        pytest.param(RAW, {"writers": ("process qemu",)}, "raw", "source_in_use", id="written-to-raw"),
    ],
)
def test_a_source_that_is_refused(header, image, said, code, path):
    assert refused(on(header, **image), copied(said, path)).code == code


def test_a_source_that_is_written_to_takes_a_word():
    assert only(decide(on(RAW, writers=("x",)), copied(allow=["in_use"]))).action == "create"


@pytest.mark.parametrize(
    ("declared", "code", "capacity"),
    [
        pytest.param({}, "", MIB, id="the-sources"),
        pytest.param({"capacity": 2 * MIB}, "", 2 * MIB, id="larger"),
        pytest.param({"capacity": MIB - 1}, "capacity_too_small", None, id="smaller"),
        pytest.param({"capacity": 1, "at_least": True}, "", MIB, id="at-least"),
    ],
)
def test_the_capacity_of_a_copy(declared, code, capacity):
    if code:
        assert refused(on(RAW), copied(**declared)).code == code
    else:
        assert only(decide(on(RAW), copied(**declared))).wanted.capacity == capacity


def test_a_source_that_is_not_there():
    decision = decide(holding(), copied())
    assert (actions(decision), codes(decision)) == (["create v"], ["source_missing"])
    whole(decision.missing[0])
    assert codes(decide(nothing(GONE), copied())) == ["pool_missing", "source_missing"]


def test_a_source_made_by_the_same_task():
    decision = decide(holding(), copied(None, None), entry("b", format="qcow2", capacity=2 * MIB))
    assert actions(decision) == ["create b", "create v"]
    assert decision.changes[1].wanted.content == Content("/p/b", "b", "qcow2", capacity=2 * MIB)


FRESH = {"format": "qcow2", "capacity": 2 * MIB}


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("have", [None, "raw", "qcow2"])
@pytest.mark.parametrize("use", ["source", "backing"])
def test_the_format_of_what_the_same_task_makes(use, have, form):
    """Whatever was there, and whatever is declared of it: what counts is what it will be."""
    found = holding() if have is None else holding(volume("b", have))
    base = entry("b", recreate="never" if have is None else "always", **{**FRESH, "format": form})
    for said in (None, "raw", "qcow2"):
        new = copied(said, None) if use == "source" else backed(said)
        if said not in (None, form):
            error = refused(found, base, new)
            assert error.code == "format_mismatch"
            assert form in error.message
        else:
            made = decide(found, base, new).changes[1].wanted
            assert (made.content if use == "source" else made.backing).format == form
            assert made.capacity == 2 * MIB


def test_a_format_that_is_not_declared_but_follows():
    """b is raw, since nothing else is said of it."""
    assert refused(holding(), entry("b", capacity=MIB), copied("qcow2", None)).code == "format_mismatch"
    assert decide(holding(), entry("b", capacity=MIB), copied("raw", None)).changes[1].wanted.format == "raw"


def test_a_source_that_the_same_task_puts_on_a_backing():
    base = entry("b", format="qcow2", capacity=MIB, backing=Backing("/img/b", "raw"))
    assert refused(on(RAW), replace(base, volume=replace(base.volume, name="n")), entry(
        content=Content(volume="n")
    )).code == "source_refused"  # fmt: skip


def test_a_source_that_is_declared_raw_is_taken_as_that():
    """A guest wrote a header into its disk; the entry of that disk says what it is."""
    disk = replace(QCOW2, physical=3 * MIB)
    seen = replace(disk, format="raw", capacity=3 * MIB, looks_like="qcow2")
    found = replace(on(disk), volumes={"b": seen})
    (change,) = decide(found, entry("b", format="raw"), copied(None, None)).changes
    assert (change.wanted.format, change.wanted.content.format, change.wanted.capacity) == ("raw", "raw", 3 * MIB)


def test_rebasing_onto_what_is_made_anew_in_another_format():
    found = holding(volume("v", "qcow2", backing=Backing("/img/x", "raw")), RAW, images={"/img/x": Image(None)})
    base = entry("b", recreate="always", **FRESH)
    over = entry(allow=("backing",), backing=Backing(volume="b", format="qcow2"), capacity=2 * MIB)
    assert actions(decide(found, over, base)) == ["recreate b", "rebase v", "resize v"]


def test_a_source_counts_at_creation_only():
    found = holding(volume("v"), images={"/img/b": Image(None)})
    assert decide(found, copied()).changes == ()
    assert decide(found, copied()).missing == ()


def test_a_directory_is_called_one():
    found = holding(images={"/img/d": Image(replace(RAW, type="dir"), ())})
    for declared in ({"content": Content("/img/d", format="raw")}, {"backing": Backing("/img/d", "raw")}):
        assert "/img/d is a directory" in refused(found, entry("w", format="qcow2", **declared)).message
