# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partitions decided on: places, numbers, growth, and whose names change with one that goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends.disk_changes import lower_volumes
from ansible_collections.virt.storage.plugins.module_utils.decide.volumes import (
    decide_volumes,
    places_at_stake,
    volumes_at_stake,
)
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    EVERYTHING,
    GROUND,
    READY,
    Found,
    Image,
    Problem,
    Storage,
    Usage,
    User,
)
from ansible_collections.virt.storage.plugins.module_utils.model.goal import VolumeGoal, VolumesGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool, Source, SourceDevice
from ansible_collections.virt.storage.plugins.module_utils.model.tables import ALIGNMENT, Partition, Table, format_of
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Content, Extent, Volume

MIB = 2**20
POOL = Pool("cut", "disk", path="/dev", source=Source(devices=(SourceDevice("/dev/sdb"),)))


def found(*partitions: Partition, label="dos", users=None, remains=None) -> Found:
    table = Table(label, "/dev/sdb", "sdb", 512, 1024, 256 * MIB, tuple(sorted(partitions)))
    volumes = {
        table.name(each.number): Volume(
            table.name(each.number),
            each.size,
            each.size,
            format_of(label, each.type),
            type="block",
            path=f"/dev/sdb{each.number}",
            identity=(8, each.number),
            extents=(Extent("/dev/sdb", each.start, each.end),),
        )
        for each in partitions
    }
    storage = Storage(READY, "/dev")
    return Found(
        "cut", POOL, live=POOL, started=True, active=True, storage=storage, current=storage, volumes=volumes,
        usage=Usage(256 * MIB, 0, 256 * MIB), extent=ALIGNMENT, table=table, users=users or {}, remains=remains or {},
    )  # fmt: skip


def decide(there: Found, *entries: VolumeGoal):
    return decide_volumes(VolumesGoal("cut", entries), there)


def volume(number: int, mib: float | None = None, state="present", allow=(), **more) -> VolumeGoal:
    capacity = None if mib is None else int(mib * MIB)
    return VolumeGoal(Volume(f"sdb{number}", capacity, **more), state, allow=frozenset(allow))


def code(there: Found, *entries: VolumeGoal) -> str:
    with pytest.raises(StorageError) as raised:
        decide(there, *entries)
    return raised.value.code


def again(number: int, mib: float | None = None, **more) -> VolumeGoal:
    return replace(volume(number, mib, **more), recreate="always")


EXTENDED = Partition(2, 20 * MIB, 120 * MIB, "f")
FIRST = Partition(1, MIB, 20 * MIB, "83")
LOGICAL = (Partition(5, 21 * MIB, 31 * MIB, "83"), Partition(6, 32 * MIB, 42 * MIB, "83"))


@pytest.mark.parametrize("more", [{}, {"at_least": True}, {"content": Content(data=b"")}])
def test_there_is_no_partition_of_nothing(more):
    assert code(found(), volume(1, 0, **more)) == "invalid_size"


def places(decision) -> dict[str, tuple[int, int]]:
    extents = {change.subject.volume: change.wanted.extents[0] for change in decision.changes}
    return {name: (extent.start // MIB, extent.end // MIB) for name, extent in extents.items()}


def test_new_partitions_are_one_after_the_other():
    made = decide(found(), volume(6, 10), volume(2, 100, format="extended"), volume(1, 9.5), volume(5, 10))
    assert places(made) == {"sdb1": (1, 11), "sdb2": (11, 111), "sdb5": (12, 22), "sdb6": (23, 33)}
    assert [change.wanted.format for change in made.changes] == ["linux", "extended", "linux", "linux"]
    assert made.changes[0].after["path"] == "/dev/sdb1"


def test_what_is_left_there_is_said():
    made = decide(found(remains={"sdb1": "ext4"}), volume(1, 10), volume(2, 10))
    assert [bool(change.destroys) for change in made.changes] == [True, False]


@pytest.mark.parametrize(
    ("old", "new", "cleared"),
    [
        (20, 30, [(30, 31)]),
        (2, 30, [(3, 6), (30, 31)]),
        (2, 4, [(3, 5)]),
        (2, 6, [(3, 6), (6, 7)]),
        (29.5, 30, [(30.5, 31)]),
        (30, 20, []),
    ],
)
def test_what_shows_through_where_a_partition_grows_is_cleared(old, new, cleared):
    """Nothing of what it has."""
    there = found(Partition(1, MIB, MIB + int(old * MIB), "83"))
    (step,) = lower_volumes(decide(there, volume(1, new, allow=["shrink"])).changes, there, lambda change: None)
    (operation,) = step.operations
    ranges = [(offset / MIB, (offset + size) / MIB) for offset, size in operation.clear]
    assert ranges == cleared


IMAGE = Image(Volume("i", 30 * MIB, format="raw", type="file", path="/i", physical=30 * MIB))
LOGICAL_TOO = [volume(1, 10), volume(2, 100, format="extended"), volume(5, 10), volume(6, 10), volume(3, 10)]


@pytest.mark.parametrize(
    ("there", "entries", "expected"),
    [
        pytest.param(
            found(),
            LOGICAL_TOO,
            {"sdb1": (1, 11), "sdb5": (12, 22), "sdb6": (23, 33), "sdb3": (111, 121)},
            id="in and behind a new extended one, for which nothing is cleared",
        ),
        pytest.param(
            replace(found(), images={"/i": IMAGE}),
            [volume(1, content=Content(path="/i")), volume(2, 10)],
            {"sdb1": (1, 31), "sdb2": (31, 41)},
            id="as large as the source",
        ),
        pytest.param(
            found(FIRST), [volume(1, 29), volume(2, 10)], {"sdb1": (20, 30), "sdb2": (30, 40)}, id="grown, and behind"
        ),
        pytest.param(found(FIRST), [volume(1, 9, allow=["shrink"])], {}, id="shrunk"),
        pytest.param(found(FIRST), [again(1, 29)], {"sdb1": (20, 30)}, id="made anew, larger"),
        pytest.param(found(FIRST), [again(1, 10)], {}, id="made anew in its place"),
        pytest.param(found(FIRST), [volume(1, 300)], {}, id="refused"),
        pytest.param(replace(found(), table=None), [volume(1, 10)], {}, id="no table"),
    ],
)
def test_what_is_cleared_is_looked_at_where_it_is_decided_to_be(there, entries, expected):
    goal = VolumesGoal("cut", tuple(entries))
    taken = places_at_stake(goal, there)
    assert {name: (extent.start // MIB, extent.end // MIB) for name, extent in taken.items()} == expected
    changes = decide(replace(there, remains=dict.fromkeys(taken, "ext4")), *entries).changes if expected else ()
    told = {change.subject.volume for change in changes if "ext4" in change.destroys}
    assert told == expected.keys()


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([volume(1, 300)], "no_space"),
        ([volume(1, 200), volume(2, 100)], "no_space"),
        ([volume(5, 10)], "invalid_name"),
        ([VolumeGoal(Volume("data", 10 * MIB))], "invalid_name"),
        ([volume(1, 10, format="qcow2")], "format_unsupported"),
        ([volume(1, 10, format="extended"), volume(2, 10, format="extended")], "invalid_option"),
        ([volume(1)], "capacity_missing"),
    ],
)
def test_what_can_not_be_made(entries, expected):
    assert code(found(), *entries) == expected


def test_growth_takes_what_is_behind():
    there = found(FIRST, Partition(2, 30 * MIB, 40 * MIB, "83"))
    assert decide(there, volume(1, 29)).changes[0].wanted.capacity == 29 * MIB
    assert code(there, volume(1, 30)) == "no_space"
    assert code(there, volume(1, 29), volume(3, 250)) == "no_space"
    assert decide(there, volume(1, 19)).changes == ()
    assert code(there, volume(1, 5)) == "shrink_refused"
    assert decide(there, volume(1, 5, allow=["shrink"])).changes[0].destroys
    assert code(found(EXTENDED), volume(2, 150)) == "volume_differs"


def test_two_do_not_get_the_same_space():
    there = found(FIRST, Partition(3, 30 * MIB, 256 * MIB, "83"))
    assert code(there, volume(1, 29), volume(2, 5)) == "no_space"
    assert places(decide(there, volume(1, 24), volume(2, 5)))["sdb2"] == (25, 30)


def test_logical_partitions_keep_their_names():
    there = found(FIRST, EXTENDED, *LOGICAL)
    goal = VolumesGoal("cut", (volume(2, state="absent"),))
    assert volumes_at_stake(goal, there).keys() == {"sdb2", "sdb5", "sdb6"}
    assert code(there, volume(5, state="absent")) == "partition_renumbered"
    both = decide(there, volume(5, state="absent"), volume(6, state="absent")).changes
    assert [change.subject.volume for change in both] == ["sdb6", "sdb5"]
    assert decide(there, volume(6, state="absent")).changes[0].after is None
    assert code(there, volume(2, state="absent"), volume(6, state="absent")) == "volume_in_use"


@pytest.mark.parametrize("word", ["linux", "extended", None])
def test_an_extended_partition_is_not_made_anew_with_others_in_it(word):
    """Nor where these go in the same task: only after that."""
    extended = again(2, 100, format=word)
    assert code(found(FIRST, EXTENDED, *LOGICAL), extended) == "volume_in_use"
    assert code(found(FIRST, EXTENDED, LOGICAL[0]), extended, volume(5, state="absent")) == "volume_in_use"
    assert [change.action for change in decide(found(FIRST, EXTENDED), extended).changes] == ["recreate"]
    assert [change.action for change in decide(found(FIRST, EXTENDED, *LOGICAL), again(5, 10)).changes] == ["recreate"]


def written(change, there: Found) -> str:
    """The entry that the table gets."""
    (step,) = lower_volumes([change], there, lambda each: None)
    return step.operations[0].script


@pytest.mark.parametrize("said", [{}, {"format": "none"}, {"format": "raw"}, {"content": Content(data=b"x")}])
@pytest.mark.parametrize(
    ("label", "kind", "word"),
    [
        ("dos", "82", "linux-swap"),
        ("dos", "b", "fat32"),
        ("dos", "7", "none"),
        ("gpt", "e6d6d379-f507-44c2-a23c-238f2a3df928", "linux-lvm"),
        ("gpt", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "none"),
    ],
)
def test_a_partition_that_is_made_anew_stays_what_it_is_for(label, kind, word, said):
    """Its type, too, where several have one word, or none has one."""
    there = found(FIRST._replace(type=kind), label=label)
    (change,) = decide(there, again(1, 19, **said)).changes
    assert change.wanted.format == change.after["format"] == word
    assert written(change, there).endswith(f"type={kind}")
    (other,) = decide(there, again(1, 19, format="linux")).changes
    assert other.wanted.format == "linux"
    assert not written(other, there).endswith(f"type={kind}")


def test_an_extended_partition_that_is_made_anew_stays_that():
    (change,) = decide(found(EXTENDED), again(2)).changes
    assert change.wanted.format == "extended"
    assert code(found(EXTENDED), again(2, content=Content(data=b"x"))) == "invalid_option"


def test_the_highest_go_first():
    there = found(FIRST, EXTENDED, *LOGICAL)
    made = decide(there, *(volume(number, state="absent") for number in (2, 5, 1, 6)))
    assert [change.subject.volume for change in made.changes] == ["sdb6", "sdb5", "sdb2", "sdb1"]
    assert all(change.after is None for change in made.changes)


# -- in use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mount", "swap", "holder", "loop", "process", "lock"])
@pytest.mark.parametrize(
    "entry",
    [
        volume(1, state="absent", allow=["in_use"]),
        VolumeGoal(Volume("sdb1", MIB), recreate="always", allow=frozenset(["in_use"])),
    ],
)
def test_no_word_takes_an_open_partition_away(kind, entry):
    there = found(FIRST, users={"sdb1": (User(kind, "/srv"), User("guest", "g"))})
    with pytest.raises(StorageError) as raised:
        decide(there, entry)
    assert raised.value.code == "volume_in_use"
    assert "in_use" not in raised.value.hint


@pytest.mark.parametrize("kind", ["guest", "pool", "member"])
def test_what_only_names_a_partition_lets_it_go_with_a_word(kind):
    there = found(FIRST, users={"sdb1": (User(kind, "x"),)})
    assert code(there, volume(1, state="absent")) == "volume_in_use"
    (change,) = decide(there, volume(1, state="absent", allow=["in_use"])).changes
    assert [condition.kind for condition in change.requires] == ["device", "unused"]  # nobody opens it meanwhile


def test_a_partition_that_is_open_shrinks_with_both_words():
    there = found(FIRST, users={"sdb1": (User("process", "x"),)})
    assert code(there, volume(1, 10, allow=["shrink"])) == "volume_in_use"
    (change,) = decide(there, volume(1, 10, allow=["shrink", "in_use"])).changes
    assert [condition.kind for condition in change.requires] == ["device"]


def test_a_partition_that_the_kernel_can_not_forget_stops_all_changes():
    there = found(FIRST)
    problem = Problem("device_in_use", "the kernel still has /dev/sdb2", "Free /dev/sdb2.")
    there = replace(there, storage=replace(there.storage, frozen=problem), leftovers=("sdb2 of the kernel",))
    assert decide(there, volume(3, 10)).refusal.code == "device_in_use"


@pytest.mark.parametrize("identity", [None, (8, 1)])
def test_a_partition_that_the_kernel_does_not_know_as_it_is_can_go(identity):
    """It is another device once the kernel was told, which comes first."""
    there = found(FIRST)
    there = replace(there, volumes={"sdb1": replace(there.volumes["sdb1"], identity=identity)})
    kinds = [
        [
            (change.action, [each.kind for each in change.requires])
            for change in decide(seen, volume(1, state="absent")).changes
        ]
        for seen in (there, replace(there, leftovers=("sdb1 of the table",)))
    ]
    assert kinds == [[("delete", ["device", "unused"])], [("clean", []), ("delete", ["unused"])]]


@pytest.mark.parametrize(
    ("label", "expected"), [("dos", ""), ("gpt", ""), ("mac", "not_supported"), ("bsd", "not_supported")]
)
def test_what_gets_its_number_by_itself_is_not_made_anew(label, expected):
    """The tool that makes one with the number that it had knows no such labels."""
    if expected:
        assert code(found(FIRST, label=label), again(1, 19)) == expected
    else:
        assert [change.action for change in decide(found(FIRST, label=label), again(1, 19)).changes] == ["recreate"]


@pytest.mark.parametrize("declared", [volume(3, 10), volume(1, 30), volume(1, 9, allow=["shrink"])])
@pytest.mark.parametrize(
    ("who", "allow", "refused"),
    [("guest", (), True), ("guest", ["in_use"], False), ("process", (), True), ("process", ["in_use"], True)],
)
def test_of_a_disk_that_others_have_nothing_is_taken(declared, who, allow, refused):
    there = replace(found(FIRST), beneath=(User(who, "x"),))
    declared = replace(declared, allow=declared.allow | frozenset(allow))
    assert volumes_at_stake(VolumesGoal("cut", (declared,)), there)[GROUND] == EVERYTHING
    if refused:
        assert code(there, declared) == "device_in_use"
    else:
        assert decide(there, declared).changes


@pytest.mark.parametrize("declared", [volume(3, 10), volume(1, 30)])
def test_of_a_disk_that_could_not_be_looked_at_nothing_is_taken(declared):
    """Before it is said what will be done, rather than only when it is to be done."""
    there = replace(found(FIRST), blind=("open files",))
    assert code(there, declared) == "device_in_use"
    assert decide(there, replace(declared, allow=frozenset(["in_use"]))).changes


@pytest.mark.parametrize("declared", [volume(1, 19), volume(1, state="absent"), volume(3, state="absent")])
def test_nobody_is_asked_about_the_disk_where_none_of_it_is_taken(declared):
    assert GROUND not in volumes_at_stake(VolumesGoal("cut", (declared,)), found(FIRST))


# --- what needs what -------------------------------------------------------------------------------------------------


def order(there, *entries):
    """What each step needs, by the names of volumes and in the order in which they are changed."""
    changes = decide(there, *entries).changes
    steps = lower_volumes(changes, there, lambda each: None)
    assert [step.after for step in steps] == [(index - 1,) if index else () for index in range(len(steps))]
    names = [change.subject.volume for change in changes]
    return {names[index]: [names[need] for need in step.needs] for index, step in enumerate(steps)}


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_partitions_that_are_independent_do_not_need_each_other(label):
    made = [volume(number, 10) for number in (1, 2, 3)]
    assert order(found(label=label), *made) == {"sdb1": [], "sdb2": [], "sdb3": []}
    third = Partition(3, 50 * MIB, 60 * MIB, "83")
    gone = [volume(number, state="absent") for number in (1, 3)]
    assert order(found(FIRST, third, label=label), *gone) == {"sdb3": [], "sdb1": []}


def test_logical_partitions_need_the_one_that_they_are_in_and_those_before():
    made = [volume(1, 10), volume(2, 100, format="extended"), volume(5, 10), volume(6, 10)]
    assert order(found(), *made) == {"sdb1": [], "sdb2": [], "sdb5": ["sdb2"], "sdb6": ["sdb2", "sdb5"]}
    gone = [volume(number, state="absent") for number in (1, 2, 5, 6)]
    assert order(found(FIRST, EXTENDED, *LOGICAL), *gone) == {
        "sdb6": [],
        "sdb5": ["sdb6"],
        "sdb2": ["sdb6", "sdb5"],
        "sdb1": [],
    }


def test_a_partition_needs_what_gives_it_its_place():
    """By becoming smaller; and what it is filled from."""
    full = found(Partition(1, MIB, 100 * MIB, "83"), Partition(4, 100 * MIB, 200 * MIB, "83"), label="gpt")
    smaller = volume(1, 20, allow=["shrink"])
    assert order(full, smaller, volume(2, 10), volume(3, 70)) == {"sdb1": [], "sdb2": [], "sdb3": ["sdb1"]}
    copied = volume(2, 10, content=Content(volume="sdb1"))
    assert order(found(label="gpt"), volume(1, 10), copied) == {"sdb1": [], "sdb2": ["sdb1"]}


@pytest.mark.parametrize(("label", "number"), [("mac", 2), ("bsd", 1)])
def test_partitions_that_parted_numbers_need_those_before(label, number):
    names = f"sdb{number}", f"sdb{number + 1}"
    assert order(found(label=label), volume(number, 10), volume(number + 1, 10)) == {
        names[0]: [],
        names[1]: [names[0]],
    }
