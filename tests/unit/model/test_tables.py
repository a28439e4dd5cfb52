# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partition tables as data: free extents, places, numbers, names; whatever partitions somebody else has made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.model import tables
from ansible_collections.virt.storage.plugins.module_utils.model.tables import (
    ALIGNMENT,
    Gap,
    Partition,
    Table,
    free_extents,
    gaps,
    place,
    room_of,
    rounded,
    usage_of,
)

MIB = 2**20
SECTOR = 512
SIZE = 512 * MIB


def gpt(*partitions: Partition) -> Table:
    return Table("gpt", "/dev/sdb", "sdb", SECTOR, 34 * SECTOR, SIZE - 33 * SECTOR, partitions)


def dos(*partitions: Partition, links=()) -> Table:
    return Table("dos", "/dev/sdb", "sdb", SECTOR, 2 * SECTOR, SIZE, partitions, links)


@st.composite
def layouts(draw) -> Table:
    """A table with partitions anywhere, aligned or not; a dos one may have an extended one with logical ones."""
    label = draw(st.sampled_from(["gpt", "dos"]))
    table = gpt() if label == "gpt" else dos()
    cuts = sorted(draw(st.sets(st.integers(table.first // SECTOR, table.end // SECTOR), min_size=2, max_size=8)))
    numbers = draw(st.permutations(range(1, 5)))
    found = [
        Partition(number, first * SECTOR, last * SECTOR, "83" if label == "dos" else tables._GPT_TYPES[0][0])
        for number, first, last in zip(numbers, cuts[::2], cuts[1::2])
        if last > first
    ]
    if label == "dos" and found and draw(st.booleans()):
        extended = found[0]._replace(type="f")
        found[0] = extended
        inner = extended.size // SECTOR
        links = [extended.start]
        at, number = 1, 5
        for length in draw(st.lists(st.integers(1, 60 * 2048), max_size=3)):
            gap = draw(st.integers(1, 4096))
            if at + gap + length >= inner:
                break
            if number > 5:
                links.append(extended.start + at * SECTOR)
            start = extended.start + (at + gap) * SECTOR
            found.append(Partition(number, start, start + length * SECTOR, "83"))
            at, number = at + gap + length, number + 1
        table = table._replace(links=tuple(links))
    return table._replace(partitions=tuple(sorted(found)))


def overlaps(a, b) -> bool:
    return a.start < b.end and b.start < a.end


@given(layouts())
def test_free_extents_are_aligned_and_in_nobodys_way(table):
    for extent in free_extents(table):
        assert extent.start % ALIGNMENT == 0
        assert extent.start >= ALIGNMENT
        assert extent.end % SECTOR == 0
        assert extent.size >= ALIGNMENT
        within = table.extended if extent.logical else Partition(0, table.first, table.end)
        assert within.start <= extent.start < extent.end <= within.end
        others = [each for each in table.partitions if not (extent.logical and table.is_extended(each))]
        assert not [each for each in others if overlaps(each, extent)]
        if extent.logical:  # a link of the chain fits before it, and overwrites none
            link = Gap(extent.start - ALIGNMENT, extent.end)
            assert not [at for at in table.links if link.start < at + SECTOR and at < link.end]
            assert not [each for each in others if overlaps(each, link)]


@given(layouts())
def test_gaps_and_partitions_fill_the_disk(table):
    outer = [each for each in table.partitions if not table.is_logical(each.number)]
    spaces = sorted([(each.start, each.end) for each in outer] + [g[:2] for g in gaps(table) if not g.logical])
    assert spaces[0][0] == table.first
    assert spaces[-1][1] == table.end
    assert all(one[1] == other[0] for one, other in zip(spaces, spaces[1:]))


@given(layouts(), st.integers(1, SIZE), st.booleans())
def test_a_place_is_the_smallest_that_fits(table, wanted, logical):
    found = place(table, wanted, logical)
    fitting = [each for each in free_extents(table) if each.logical == logical and each.size >= wanted]
    if found is None:
        assert all(-(-wanted // SECTOR) * SECTOR > each.size for each in fitting)
        return
    assert wanted <= found.size < wanted + ALIGNMENT
    assert found.start == min(fitting, key=lambda each: (each.size, each.start)).start
    assert place(table.with_partition(Partition(9, *found[:2])), SIZE, logical) is None


@given(layouts(), st.lists(st.integers(1, 40 * MIB), max_size=6))
def test_new_partitions_are_beside_each_other(table, sizes):
    numbers = range(10, 16) if table.label == "gpt" else range(1, 5)
    free = [number for number in numbers if table.by_number(number) is None]
    for number, size in zip(free, sizes):
        found = place(table, size, False)
        if found is not None:
            assert not [each for each in table.partitions if overlaps(found, each)]
            table = table.with_partition(Partition(number, found.start, found.end))


@given(layouts())
def test_what_can_grow_grows_into_what_is_free(table):
    for partition in table.partitions:
        room = room_of(table, partition)
        grown = Partition(0, partition.start, partition.start + room)
        assert room >= partition.size
        assert not [
            each
            for each in table.partitions
            if each.number != partition.number
            and overlaps(each, grown)
            and not (table.is_logical(partition.number) and table.is_extended(each))
            and not (table.is_extended(partition) and table.is_logical(each.number))
        ]
        assert not [at for at in table.links if table.is_logical(partition.number) and grown.start <= at < grown.end]


@given(layouts())
def test_usage_adds_up(table):
    capacity, allocation, available = usage_of(table)
    assert 0 <= allocation <= capacity <= SIZE
    assert available == sum(each.size for each in gaps(table))


@pytest.mark.parametrize(
    ("wanted", "room", "size"),
    [
        (1, SIZE, MIB),
        (0, SIZE, MIB),
        (MIB, SIZE, MIB),
        (MIB + 1, SIZE, 2 * MIB),
        (3 * MIB - 5, 3 * MIB - SECTOR, None),
        (3 * MIB - 600, 3 * MIB - SECTOR, 3 * MIB - SECTOR),
        (10**7, SIZE, 10 * MIB),
        (5 * MIB, 4 * MIB, None),
    ],
)
def test_sizes_are_whole_units_or_all_that_is_there(wanted, room, size):
    assert rounded(wanted, room, SECTOR) == size


def test_names_and_numbers():
    table = gpt()._replace(stem="nvme0n1p")
    assert table.number("nvme0n1p12") == 12
    for name in ("nvme0n1", "nvme0n1p", "nvme0n1p0", "nvme0n1p01", "nvme0n1p1x", "sdb1", "nvme0n1p²"):
        assert table.number(name) is None, name
    assert table.name(3) == "nvme0n1p3"


def test_what_a_hybrid_mbr_has_is_not_free():
    first = Partition(1, MIB, 10 * MIB, "83")
    table = gpt(first)._replace(taken=((MIB, 10 * MIB), (12 * MIB, 40 * MIB)))
    assert (tables.free_extents(table)[0].start, tables.free_extents(table)[0].end) == (10 * MIB, 12 * MIB)
    assert tables.free_extents(table)[1].start == 40 * MIB
    assert tables.room_of(table, first) == 11 * MIB


def test_free_numbers():
    first = Partition(1, MIB, 2 * MIB, "83")
    assert dos(first).free_numbers(False) == (2, 3, 4)
    assert dos(first).free_numbers(True) == (5,)
    extended = Partition(2, 2 * MIB, 100 * MIB, "f")
    logical = [Partition(5, 3 * MIB, 4 * MIB, "83"), Partition(6, 5 * MIB, 6 * MIB, "83")]
    full = dos(first, extended, *logical)
    assert full.free_numbers(True) == (7,)
    assert gpt(first).free_numbers(False) == tuple(range(2, 129))
    assert gpt(first)._replace(entries=4).free_numbers(False) == (2, 3, 4)
    assert gpt(first)._replace(label="bsd").free_numbers(False) == (2,)
    assert gpt()._replace(label="mac").free_numbers(False) == (2,)  # the first one is the map itself
    assert [each.number for each in full.moved_by(5)] == [6]
    assert full.moved_by(1) == full.moved_by(6) == ()
    assert [each.number for each in full.inside(2)] == [5, 6]
    assert full.inside(1) == gpt(first).inside(1) == ()


@pytest.mark.parametrize("word", ["linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended"])
def test_types_are_read_as_they_are_written(word):
    assert tables.format_of("dos", tables.type_of("dos", word)) == word
    told = tables.type_of("gpt", word)
    if word in ("fat16", "extended"):  # which gpt has no type of its own for
        assert told is None
    else:
        assert tables.format_of("gpt", told.lower()) == word
    assert tables.type_of("mac", word) == ("" if word == "linux" else None)


def test_what_nothing_is_said_of_is_linux():
    assert tables.type_of("dos", None) == tables.type_of("dos", "none") == tables.type_of("dos", "raw") == "83"
    assert tables.format_of("dos", "ef") == "none"
    assert tables.format_of("bsd", "") is None


def test_the_label_of_a_large_disk():
    assert tables.default_label(2**32 * SECTOR, SECTOR) == "dos"
    assert tables.default_label(2**32 * SECTOR + SECTOR, SECTOR) == "gpt"
    assert tables.default_label(2**32 * SECTOR + SECTOR, 4096) == "dos"
