# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Diffs as YAML that a YAML reader reads back, plans that group like changes, records."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.model import operations as ops
from ansible_collections.virt.storage.plugins.module_utils.model.change import UNKNOWN, Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    READY,
    UNKNOWN_STORAGE,
    UNSEEN,
    Found,
    Storage,
    Usage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool, Source, SourceHost
from ansible_collections.virt.storage.plugins.module_utils.model.tables import Table
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content, Extent, Volume
from ansible_collections.virt.storage.plugins.module_utils.report.records import (
    POOL_FIELDS,
    VOLUME_FIELDS,
    pool_record,
    volume_record,
)
from ansible_collections.virt.storage.plugins.module_utils.report.result import diff, plan
from ansible_collections.virt.storage.plugins.module_utils.report.yaml_text import to_yaml

# -- yaml ---------------------------------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    "a ",
    " a",
    "true",
    "True",
    "no",
    "On",
    "y",
    "N",
    "null",
    "~",
    "1",
    "1.5",
    "1e3",
    "0x1f",
    "0711",
    "1_000",
    "12:30",
    "2001-01-01",
    ".inf",
    ".nan",
    "-",
    "- a",
    "-a",
    "?",
    "? a",
    ":",
    ": a",
    "a:",
    "a: b",
    "a :b",
    "a:b",
    "#",
    "a #b",
    "a#b",
    "&a",
    "*a",
    "!a",
    "!!str",
    "|",
    ">",
    "@a",
    "`a",
    "%a",
    "'",
    '"',
    "a'b",
    'a"b',
    "\\",
    "a\\nb",
    "{",
    "}",
    "{a}",
    "[",
    "]",
    "[a]",
    ",",
    "a, b",
    "a\nb",
    "a\n",
    "\n",
    "a\tb",
    "\t",
    "a\rb",
    "\0",
    "\x1b[0m",
    "\x7f",
    "\x80",
    "a\x85b",
    "\xa0",
    "a\u2028b",
    "\u2029",
    "\ufeff",
    "\ufffe",
    "\ufffd",
    "ä",
    "日本",
    "😀",
    "---",
    "...",
    "--- a",
    "<<",
    "=",
    "a=b",
    "/p/v",
    "(known after apply)",
    "x" * 5000,
    "a  b",
    "None",
    "yes",
    "off",
    "NaN",
    "Infinity",
]

text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | text | st.sampled_from(ODD)
keys = (text | st.sampled_from([each for each in ODD if len(each) < 100])).filter(lambda key: len(key) < 60)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_odd_text_reads_back(odd):
    value = {"k": odd, "l": [odd, {"m": odd}], **({odd: 1} if len(odd) < 100 else {})}
    assert yaml.safe_load(to_yaml(value)) == value


@given(st.dictionaries(keys, nested, min_size=1, max_size=4))
def test_whatever_is_written_reads_back(value):
    assert yaml.safe_load(to_yaml(value)) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, ""),
        ({}, ""),
        ({"a": 1, "b": "x"}, "a: 1\nb: x\n"),
        ({"a": True, "b": None, "c": "true"}, 'a: true\nb: null\nc: "true"\n'),
        ({"a": {"b": {"c": 1}}}, "a:\n  b:\n    c: 1\n"),
        ({"a": [], "b": {}}, "a: []\nb: {}\n"),
        ({"a": [1, {"b": 2, "c": 3}, [4]]}, "a:\n  - 1\n  - b: 2\n    c: 3\n  - - 4\n"),
        ({"a": ("x", "z")}, "a:\n  - x\n  - z\n"),
        ({"mode": "0711"}, 'mode: "0711"\n'),
        ({"capacity": UNKNOWN}, "capacity: (known after apply)\n"),
        ({"volume p/v": None}, "volume p/v: null\n"),
    ],
)
def test_how_it_looks(value, written):
    assert to_yaml(value) == written


# -- diff ---------------------------------------------------------------------------------------------------------


def change(name, action="create", before=None, after=None, **more):
    subject = Subject("p", name)
    return Change(subject, action, f"{subject}: {action}", before, after, **more)


def sides(*changes):
    made = diff(changes)
    return yaml.safe_load(made["before"]), yaml.safe_load(made["after"])


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        pytest.param([], None, None, id="nothing"),
        pytest.param([change("v", after={"a": 1})], {"volume p/v": None}, {"volume p/v": {"a": 1}}, id="create"),
        pytest.param([change("v", "delete", {"a": 1})], {"volume p/v": {"a": 1}}, {"volume p/v": None}, id="delete"),
        pytest.param(
            [change("v", "resize", {"a": 1}, {"a": 2}), change("v", "permissions", {"b": 1}, {"b": 2})],
            {"volume p/v": {"a": 1, "b": 1}},
            {"volume p/v": {"a": 2, "b": 2}},
            id="two-changes-of-one",
        ),
        pytest.param(
            [
                change(None, "define", None, {"definition": {"a": 1}}),
                change(None, "start", {"state": "i"}, {"state": "a"}),
            ],
            {"pool p": None},
            {"pool p": {"definition": {"a": 1}, "state": "a"}},
            id="it-was-not-there-before-the-first",
        ),
        pytest.param(
            [
                change(None, "stop", {"state": "a"}, {"state": "i"}),
                change(None, "undefine", {"definition": {"x": 1}}, None),
            ],
            {"pool p": {"state": "a", "definition": {"x": 1}}},
            {"pool p": None},
            id="it-is-not-there-after-the-last",
        ),
        pytest.param(
            [
                change(None, "redefine", {"definition": {"a": 1}}, {"definition": {"a": 2}}),
                change(None, "x", {"definition": {"b": 1}}, {"definition": {"b": 2}}),
            ],
            {"pool p": {"definition": {"a": 1, "b": 1}}},
            {"pool p": {"definition": {"a": 2, "b": 2}}},
            id="merged-below",
        ),
        pytest.param(
            [change("v", after={"a": UNKNOWN})],
            {"volume p/v": None},
            {"volume p/v": {"a": "(known after apply)"}},
            id="unknown",
        ),
    ],
)
def test_diffs(changes, before, after):
    assert sides(*changes) == (before, after)


def test_a_diff_leaves_the_changes_alone():
    first, second = (
        change("v", "a", {"x": {"y": 1}}, {"x": {"y": 2}}),
        change("v", "b", {"x": {"z": 1}}, {"x": {"z": 2}}),
    )
    sides(first, second)
    assert (first.before, first.after) == ({"x": {"y": 1}}, {"x": {"y": 2}})


# -- plan ---------------------------------------------------------------------------------------------------------


def created(name, destroys="", wanted=None, **facts):
    return change(name, after={"path": f"/p/{name}", "capacity": 1, **facts}, destroys=destroys, wanted=wanted)


def summaries(*changes):
    return [(entry["subject"], entry["count"]) for entry in plan(changes, [])]


@pytest.mark.parametrize(
    ("changes", "grouped"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([created("a")], [("volume p/a", 1)], id="one"),
        pytest.param([created("a"), created("b"), created("c")], [("volume p/a", 3)], id="alike"),
        pytest.param(
            [created("a"), created("b", capacity=2)], [("volume p/a", 1), ("volume p/b", 1)], id="other-facts"
        ),
        pytest.param(
            [created("a"), created("x", capacity=2), created("b")], [("volume p/a", 2), ("volume p/x", 1)], id="apart"
        ),
        pytest.param([created("a"), created("b", "all")], [("volume p/a", 1), ("volume p/b", 1)], id="one-destroys"),
        pytest.param(
            [change(None, "start", {}, {}), change(None, "start", {}, {})],
            [("pool p", 1), ("pool p", 1)],
            id="pools-never",
        ),
        pytest.param(
            [
                created("a", wanted=Volume("a", content=Content("/x"))),
                created("b", wanted=Volume("b", content=Content("/y"))),
            ],
            [("volume p/a", 1), ("volume p/b", 1)],
            id="other-content",
        ),
        pytest.param(
            [created("a", wanted=Volume("a", allocation=1)), created("b", wanted=Volume("b"))],
            [("volume p/a", 1), ("volume p/b", 1)],
            id="other-allocation",
        ),
    ],
)
def test_grouping(changes, grouped):
    assert summaries(*changes) == grouped


def test_one_entry():
    mine = created("a", "all of it")
    steps = [
        ops.Step((ops.OpenStaging("/p/.x"),)),
        ops.Step((ops.Remove("/p/a"), ops.Sync("/p")), mine, (0,)),
        ops.Step((ops.CloseStaging("/p/.x"),), None, (0, 1), True),
    ]
    assert plan([mine], steps) == [
        {
            "action": "create",
            "subject": "volume p/a",
            "summary": "volume p/a: create",
            "destroys": "all of it",
            "commands": ["mkdir -m 0700 /p/.x", "rm -f /p/a", "sync /p"],
            "count": 1,
        }
    ]


def test_a_group_names_all_and_shows_some():
    (entry,) = plan([created(f"v{i}", f"v{i} goes") for i in range(20)], [])
    assert entry["count"] == 20
    assert entry["subjects"] == [f"volume p/v{i}" for i in range(20)]
    assert entry["summary"] == "volume p/v0: create; the same for 19 more: v1, v2, v3, ..., v19"
    assert entry["destroys"] == "; ".join(f"v{i} goes" for i in range(20))
    (few,) = plan([created(name) for name in "abc"], [])
    assert few["summary"].endswith("the same for 2 more: b, c")


def test_what_is_not_lowered_has_no_commands():
    mine = created("a")
    assert plan([mine], [ops.Step((ops.OpenStaging("/x"),)), ops.Step((), mine, (0,))])[0]["commands"] == []


# -- commands for people ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "command"),
    [
        (ops.Run(("a", "b c", "d'e")), "a 'b c' 'd'\"'\"'e'"),
        (ops.MakeDirectory("/a b", 0o711), "mkdir -p -m 0711 '/a b'"),
        (ops.SetPermissions("/a", 0o600), "chmod 0600 /a"),
        (ops.SetPermissions("/a", None, 0, 0), "chown 0:0 /a"),
        (ops.SetPermissions("/a", None, None, 5), "chown :5 /a"),
        (ops.SetPermissions("/a", 0, 1, None), "chown 1 /a && chmod 00 /a"),
        (ops.WriteFile("/a", "secret"), "write /a"),
        (ops.WriteContent("/a", b"secret", 9), "write 6 bytes to /a"),
        (ops.MakeRaw("/a", 5), "truncate -s 5 /a"),
        (ops.MakeRaw("/a", 5, 3, True), "touch /a && chattr +C /a && truncate -s 5 /a && fallocate -l 3 /a"),
        (ops.Publish("/s", "/a"), "mv --no-clobber /s /a"),
        (ops.Withdraw("/a", "/s", (1, 2)), "rm /a"),
    ],
)
def test_commands(operation, command):
    assert operation.command == command


# -- records ------------------------------------------------------------------------------------------------------

POOL = Pool("p", "netfs", "u", "/p", Permissions(0o700, 5, 5), Source((SourceHost("h"),), dir="/e"))


def test_a_pool_that_is_not_there():
    assert pool_record(Found("p")) == {"name": "p", "state": "absent"}


def test_a_pool():
    storage = Storage(READY, "/p", permissions=Permissions(0o711, 0, 0))
    found = Found(
        "p", POOL, None, POOL, True, True, True, storage=storage, current=storage, usage=Usage(3, 1, 2)
    )  # fmt: skip
    record = pool_record(found)
    assert record == {
        "name": "p",
        "state": "active",
        "type": "netfs",
        "uuid": "u",
        "path": "/p",
        "persistent": True,
        "autostart": True,
        "source": {"hosts": [{"name": "h"}], "dir": "/e"},
        "mode": "0711",
        "owner": 0,
        "group": 0,
        "capacity": 3,
        "allocation": 1,
        "available": 2,
    }
    assert pool_record(replace(found, active=False))["state"] == "inactive"
    assert pool_record(replace(found, definition=None))["persistent"] is False
    assert "capacity" not in pool_record(replace(found, current=Storage("absent"), usage=None))


def test_a_volume():
    volume = Volume(
        "v", 5, 6, "qcow2", Permissions(0o600, 1, 2), Backing("/b", "raw"), "1.1", 65536, False, True,
        type="file", path="/p/v", key="/p/v", physical=7, timestamps=(("mtime", 1_500_000_000),),
    )  # fmt: skip
    assert volume_record(volume) == {
        "name": "v",
        "type": "file",
        "path": "/p/v",
        "key": "/p/v",
        "format": "qcow2",
        "capacity": 5,
        "allocation": 6,
        "physical": 7,
        "mode": "0600",
        "owner": 1,
        "group": 2,
        "compat": "1.1",
        "cluster_size": 65536,
        "lazy_refcounts": False,
        "extended_l2": True,
        "backing": {"path": "/b", "format": "raw"},
        "timestamps": {"mtime": 1.5},
    }
    assert volume_record(replace(volume, encrypted=True))["encrypted"] is True
    assert volume_record(replace(volume, problem="odd"))["problem"] == "odd"
    assert volume_record(replace(volume, foreign="a FIFO"))["problem"] == "a FIFO"


def test_the_fields_that_records_can_have():
    everything = Permissions(0o700, 1, 2, "label")
    pool = replace(
        POOL, cow=False, mount_options=("ro",), config_options=(("a", "b"),), refresh_allocation="capacity"
    )  # fmt: skip
    unseen = Storage(UNSEEN, permissions=everything)
    table = Table("gpt", "/dev/sdx", "sdx", 512, 17408, 1 << 30)
    seen = pool_record(Found("p", pool, current=unseen, active=True, usage=Usage(3, 1, 2), table=table))
    unread = pool_record(Found("p", pool, started=True, current=Storage(UNKNOWN_STORAGE)))
    assert {*seen, *unread} == set(POOL_FIELDS)
    volume = Volume(
        "v", permissions=everything, backing=Backing("/b"), compat="1.1", cluster_size=65536, lazy_refcounts=False,
        thin_pool="t", extended_l2=True, data_file="/d", encrypted=True, link_target="/t", problem="odd",
        extents=(Extent("/dev/sdx", 0, 1),),
    )  # fmt: skip
    assert set(volume_record(volume)) == set(VOLUME_FIELDS)
    assert len(set(POOL_FIELDS)) == len(POOL_FIELDS)
    assert len(set(VOLUME_FIELDS)) == len(VOLUME_FIELDS)


# -- what failed in the middle ------------------------------------------------------------------------------------


def test_what_failed_in_the_middle_is_said_as_such():
    build = Change(Subject("p"), "build", "make it", {"filesystem": None}, {"filesystem": {"format": "ext4"}})
    assert yaml.safe_load(diff([build.halfway()])["before"]) == {"pool p": {"filesystem": None}}
    after = yaml.safe_load(diff([build.halfway()])["after"])
    assert after == {"pool p": {"filesystem": {"format": "(begun, not completed)"}}}
    removed = Change(Subject("p", "v"), "delete", "remove it", {"capacity": 1, "format": "raw"}, None)
    after = yaml.safe_load(diff([removed.halfway()])["after"])
    assert set(after["volume p/v"].values()) == {"(begun, not completed)"}
    nothing = Change(Subject("p"), "clean", "remove leftovers")
    assert yaml.safe_load(diff([nothing.halfway()])["after"]) == {"pool p": {"clean": "(begun, not completed)"}}


def test_a_plan_names_what_failed_in_the_middle():
    changes = [Change(Subject("p", name), "delete", f"remove {name}", {"capacity": 1}) for name in "abc"]
    entries = plan(changes, [ops.Step((), change) for change in changes], {id(changes[1])})
    assert [entry.get("halfway") for entry in entries] == [["volume p/b"]]
    assert "halfway" not in plan(changes, ())[0]
