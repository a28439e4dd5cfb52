# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Partition tables as data, and where in them a new partition can be. Bytes everywhere; ends are exclusive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .units import round_up

ALIGNMENT = 1024 * 1024  # what partitions start at multiples of, and what their sizes are multiples of
DOS, GPT = "dos", "gpt"
EXTENDED = "extended"
PRIMARIES = 4  # of a dos label; what comes after them is in the extended one
_DOS_SECTORS = 2**32  # that a dos label can count
# Labels whose partitions parted cuts as it is told; those of pc98 and sun have to be whole cylinders.
_CUT_BY_PARTED = {"bsd": 8, "dvh": 8, "mac": 63}
_GPT_ENTRIES = 128  # that are usual, and the most that are used
_MOST_LOGICAL = 60  # of a disk, that any kernel of our time shows
# Partitions that hold nothing but the table itself, or stand for the whole disk, by label: their numbers.
RESERVED = {"dvh": (9, 11), "mac": (1,), "sun": (3,)}

# Types of partitions by the word for them. The first of a word is what a new one gets.
_DOS_TYPES = (
    ("83", "linux"), ("c", "fat32"), ("b", "fat32"), ("e", "fat16"), ("6", "fat16"), ("4", "fat16"),
    ("82", "linux-swap"), ("8e", "linux-lvm"), ("fd", "linux-raid"), ("f", EXTENDED), ("5", EXTENDED), ("85", EXTENDED),
)  # fmt: skip
_GPT_TYPES = (
    ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "linux"),
    ("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "fat32"),
    ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "linux-swap"),
    ("E6D6D379-F507-44C2-A23C-238F2A3DF928", "linux-lvm"),
    ("A19D880F-05FC-4D3B-A006-743F0F84911E", "linux-raid"),
)
_TYPES = {DOS: _DOS_TYPES, GPT: _GPT_TYPES}


class Partition(NamedTuple):
    """``type`` is what the table says: hexadecimal digits of a dos label, a GUID of gpt, nothing of others."""

    number: int
    start: int
    end: int
    type: str = ""

    @property
    def size(self) -> int:
        return self.end - self.start


class Gap(NamedTuple):
    """Space of a disk that is in no partition; ``logical``: inside the extended one."""

    start: int
    end: int
    logical: bool = False

    @property
    def size(self) -> int:
        return max(0, self.end - self.start)


class Table(NamedTuple):
    """``stem`` is what the names of its partitions begin with, before their numbers; ``directory`` where their nodes
    are. ``first`` and ``end`` bound what can be in partitions. ``links``: the places of the chain in an extended
    partition, a sector each. ``identity`` tells the disk from any other. ``entries``: for how many partitions a gpt has
    room. ``taken``: (start, end) of what a hybrid MBR has as partitions, which may be none of the GPT's.
    """

    label: str
    device: str
    stem: str
    sector: int
    first: int
    end: int
    partitions: tuple[Partition, ...] = ()
    links: tuple[int, ...] = ()
    directory: str = "/dev"
    identity: tuple = ()
    entries: int = _GPT_ENTRIES
    taken: tuple[tuple[int, int], ...] = ()

    @property
    def extended(self) -> Partition | None:
        return next((each for each in self.partitions if self.is_extended(each)), None)

    def is_extended(self, partition: Partition) -> bool:
        return self.label == DOS and format_of(self.label, partition.type) == EXTENDED

    def is_logical(self, number: int) -> bool:
        return self.label == DOS and number > PRIMARIES

    def name(self, number: int) -> str:
        return f"{self.stem}{number}"

    def number(self, name: str) -> int | None:
        """None for a name that no partition of this disk has."""
        digits = name[len(self.stem) :]
        fits = name.startswith(self.stem) and digits.isascii() and digits.isdigit() and digits[0] != "0"
        return int(digits) if fits else None

    def by_number(self, number: int | None) -> Partition | None:
        return next((each for each in self.partitions if each.number == number), None)

    def moved_by(self, number: int) -> tuple[Partition, ...]:
        """The partitions that get other numbers when that one is removed: logical ones have no holes."""
        return tuple(each for each in self.partitions if self.is_logical(number) and each.number > number)

    def inside(self, number: int) -> tuple[Partition, ...]:
        """The partitions that go with an extended one."""
        extended = self.extended
        if extended is None or extended.number != number:
            return ()
        return tuple(each for each in self.partitions if self.is_logical(each.number))

    def free_numbers(self, logical: bool) -> tuple[int, ...]:
        """The numbers that a new partition can have."""
        used = {*(each.number for each in self.partitions), *RESERVED.get(self.label, ())}
        if self.label == DOS and logical:
            following = max([PRIMARIES, *used]) + 1
            return (following,) if following <= _MOST_LOGICAL else ()
        most = {DOS: PRIMARIES, GPT: min(self.entries, _GPT_ENTRIES), **_CUT_BY_PARTED}.get(self.label, 0)
        free = tuple(number for number in range(1, most + 1) if number not in used)
        return free if self.label in (DOS, GPT) else free[:1]

    def with_partition(self, partition: Partition) -> Table:
        others = [each for each in self.partitions if each.number != partition.number]
        return self._replace(partitions=tuple(sorted([*others, partition])))

    def without(self, number: int) -> Table:
        return self._replace(partitions=tuple(each for each in self.partitions if each.number != number))


def format_of(label: str, kind: str) -> str | None:
    """The word for a type of partition; none for a type that there is no word for, None where types are not told."""
    types = _TYPES.get(label)
    if types is None:
        return None
    return next((word for number, word in types if number.upper() == kind.upper()), "none")


def type_of(label: str, word: str | None) -> str | None:
    """The type that a new partition gets for a word; None where the label has none for it."""
    if word in (None, "none", "raw"):
        word = "linux"
    types = _TYPES.get(label)
    if types is None:
        return "" if word == "linux" else None
    return next((number for number, known in types if known == word), None)


def type_made(table: Table, number: int, word: str | None) -> str | None:
    """The type that a partition gets for a word. One that is that already keeps its own: several types have one word,
    and many have none.
    """
    old = table.by_number(number)
    kept = old is not None and word is not None and word == format_of(table.label, old.type)
    return old.type if old is not None and kept else type_of(table.label, word)


def can_be_cut(label: str) -> bool:
    return label in (DOS, GPT) or label in _CUT_BY_PARTED


def default_label(size: int, sector: int) -> str:
    """What a disk gets where no label is declared: dos, gpt where that can't count all of it."""
    return DOS if size <= _DOS_SECTORS * sector else GPT


def bounds(label: str, size: int, sector: int) -> tuple[int, int]:
    """What can be in partitions where the table does not say it: as parted counts free space."""
    if label == DOS:
        return 2 * sector, min(size, _DOS_SECTORS * sector)
    return sector, size


def gaps(table: Table) -> list[Gap]:
    """Everything that is in no partition, those inside the extended one after the others."""
    outer = [(each.start, each.end) for each in table.partitions if not table.is_logical(each.number)]
    found = [Gap(*gap) for gap in _between([*outer, *table.taken], table.first, table.end)]
    extended = table.extended
    if extended is not None:
        inner = [(each.start, each.end) for each in table.inside(extended.number)]
        inner += [(link, link + table.sector) for link in table.links]
        found += [Gap(*gap, True) for gap in _between(inner, extended.start, extended.end)]
    return found


def _between(taken: Iterable[tuple[int, int]], start: int, end: int) -> Iterable[tuple[int, int]]:
    for first, last in sorted(taken):
        if first > start:
            yield start, min(first, end)
        start = max(start, last)
    if start < end:
        yield start, end


def free_extents(table: Table) -> list[Gap]:
    """Where new partitions can be: aligned starts, ends at whole sectors, at least one unit long. A logical one has a
    sector of its own before it, for which a unit is left.
    """
    found = []
    for gap in gaps(table):
        start = round_up(max(gap.start + (ALIGNMENT if gap.logical else 0), ALIGNMENT), ALIGNMENT)
        extent = Gap(start, gap.end // table.sector * table.sector, gap.logical)
        if extent.size >= ALIGNMENT:
            found.append(extent)
    return found


def rounded(wanted: int, room: int, sector: int) -> int | None:
    """The size a partition gets: of whole units, or of whole sectors where only that fits; None if nothing does."""
    wanted = max(wanted, 1)
    size = round_up(wanted, ALIGNMENT)
    if size <= room:
        return size
    exact = round_up(wanted, sector)
    return exact if exact <= room else None


def place(table: Table, wanted: int, logical: bool) -> Gap | None:
    """The smallest free extent that a partition fits into, cut to its size; None where none is large enough."""
    fitting = []
    for extent in free_extents(table):
        size = rounded(wanted, extent.size, table.sector) if extent.logical == logical else None
        if size is not None:
            fitting.append((extent.size, extent.start, size))
    if not fitting:
        return None
    _room, start, size = min(fitting)
    return Gap(start, start + size, logical)


def room_of(table: Table, partition: Partition) -> int:
    """How many bytes a partition can have where it is: with what is free right behind it."""
    logical = table.is_logical(partition.number)
    for gap in gaps(table):
        if gap.start == partition.end and gap.logical == logical:
            return gap.end // table.sector * table.sector - partition.start
    return partition.size


def usage_of(table: Table) -> tuple[int, int, int]:
    """Capacity, allocation and what is available, as libvirt counts them (storage driver: disk)."""
    free = gaps(table)
    ends = [*(each.end for each in table.partitions), *(gap.end for gap in free)]
    allocated = sum(each.size for each in table.partitions if not table.is_extended(each))
    return max(ends, default=table.end), allocated, sum(gap.size for gap in free)
