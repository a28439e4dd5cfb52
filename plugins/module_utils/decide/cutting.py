# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes that are partitions: which numbers and places new ones get, and whose numbers change with one that goes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..model.change import Change
from ..model.errors import StorageError
from ..model.tables import (
    DOS,
    EXTENDED,
    GPT,
    Gap,
    Partition,
    Table,
    can_be_cut,
    format_of,
    free_extents,
    place,
    room_of,
    rounded,
    type_made,
    type_of,
)
from ..model.units import format_size, listed, spoken_size
from ..model.volume import Extent, Volume
from .task import VolumesTask

_SHOWN = 8
_FREE_IT = "Free it first: only the highest logical partition can go without giving others new numbers."


def _table(task: VolumesTask) -> Table:
    """The table as it will be once what was settled so far is done."""
    table = task.found.table
    if table is None:
        raise ValueError("the pool has no partition table")
    settled = {}
    for name, volume in task.settled.items():
        number = table.number(name)
        if volume.extents and number is not None:
            extent = volume.extents[0]
            kind = type_of(table.label, volume.format) or ""
            settled[number] = Partition(number, extent.start, extent.end, kind)
    kept = [each for each in table.partitions if each.number not in settled]
    return table._replace(partitions=tuple(sorted([*kept, *settled.values()])))


def settle_partition(volume: Volume, wanted: int, task: VolumesTask) -> Volume:
    """A new partition with its place. Raises ``invalid_name``, ``format_unsupported`` and ``no_space``."""
    table, have = _table(task), task.found.volumes.get(volume.name)
    if have is not None:
        _check_made_anew(volume.name, table, task)
    number = _number(volume, table, task, new=have is None)
    _check_kind(volume, number, table, task)
    logical, kind = table.is_logical(number), type_made(table, number, volume.format) or ""
    extent = _again(wanted, number, table) if have is not None else place(table, wanted, logical)
    if extent is None and have is not None and not logical:
        table = table.without(number)
        extent = place(table, wanted, logical)
    if extent is None:
        raise no_space(volume.name, f"{format_size(wanted)} in one piece", table, task, logical)
    directory = (task.found.storage.path or "").rstrip("/")
    path = f"{table.directory}/{volume.name}" if directory in ("/dev", table.directory) else None
    return replace(
        volume,
        format=format_of(table.label, kind),
        path=path if have is None else have.path,
        capacity=extent.size,
        allocation=extent.size,
        extents=(Extent(table.device, extent.start, extent.end),),
    )


def newly_taken(changes: Iterable[Change], table: Table) -> dict[str, Extent]:
    """What is cleared for partitions beside the places that they have, by their names; for extended ones nothing is."""
    taken = {}
    for change in changes:
        volume = change.wanted
        if change.action not in ("create", "recreate", "resize") or volume.format == EXTENDED or not volume.extents:
            continue
        extent, old = volume.extents[0], table.by_number(table.number(volume.name))
        start = old.end if old is not None and old.start == extent.start else extent.start
        end = extent.start + (volume.capacity or 0)
        if start < end:
            taken[volume.name] = replace(extent, start=start, end=end)
    return taken


def _check_made_anew(name: str, table: Table, task: VolumesTask) -> None:
    """Raises for labels of which a new partition does not get the number that we want."""
    if table.label not in (DOS, GPT):
        raise task.refuse(
            "not_supported",
            name,
            f"partitions of {table.label} labels are not made anew: one that is made gets a number by itself",
            "Delete it (state: absent), then declare the next one.",
        )


def _again(wanted: int, number: int, table: Table) -> Gap | None:
    """In the place that it has."""
    old = table.by_number(number)
    if old is None:
        return None
    size = rounded(wanted, room_of(table, old), table.sector)
    if size is None:
        return None
    return Gap(old.start, old.start + size)


def _number(volume: Volume, table: Table, task: VolumesTask, new: bool) -> int:
    name = volume.name
    number = table.number(name)
    if number is None:
        free = table.free_numbers(False) or table.free_numbers(True)
        example = f", such as {table.name(free[0])}" if free else ""
        raise task.refuse(
            "invalid_name",
            name,
            f"a partition of {table.device} can't be called {name}",
            f"Name it as the kernel does: {table.stem} and a number{example}.",
        )
    if not can_be_cut(table.label):
        raise task.refuse(
            "not_supported",
            name,
            f"partitions of {table.label} labels are not made here: they have to be whole cylinders",
            "Make it with parted, then declare it as it is.",
        )
    logical = table.is_logical(number)
    if logical and table.extended is None:
        raise task.refuse(
            "invalid_name",
            name,
            f"{name} is a logical partition, and {table.device} has no extended one",
            "Declare that too, with a number from 1 to 4 and format: extended.",
        )
    free = table.free_numbers(logical)
    if new and number not in free:
        if not free:
            raise task.refuse(
                "no_space",
                name,
                f"the {table.label} partition table of {table.device} has no room for another partition",
                "Delete one" + (", or use gpt." if table.label != GPT else "."),
            )
        numbers = ", ".join(map(str, free[:_SHOWN])) + (" and higher" if len(free) > _SHOWN else "")
        raise task.refuse(
            "invalid_name",
            name,
            f"a new partition of {table.device} can't have the number {number}, so {name} can't be its name",
            f"Name it {table.stem} and one of these numbers: {numbers}.",
        )
    return number


def _check_kind(volume: Volume, number: int, table: Table, task: VolumesTask) -> None:
    if type_of(table.label, volume.format) is None:
        raise task.refuse(
            "format_unsupported",
            volume.name,
            f"a {table.label} label knows no {volume.format} partitions",
            "Declare fat32: the table does not tell them apart." if volume.format == "fat16" else "Leave format out.",
        )
    if volume.format != EXTENDED:
        return
    there = table.extended
    if table.is_logical(number) or (there is not None and there.number != number) or volume.content is not None:
        raise task.refuse(
            "invalid_option",
            volume.name,
            f"{volume.name} can't be extended: one of the partitions 1 to 4 is, without content",
            "Leave format out, or declare another one (format: linux) where it is extended now.",
        )


def no_space(name: str, what: str, table: Table, task: VolumesTask, logical: bool) -> StorageError:
    """Says where how much is free: a partition is in one piece."""
    free = sorted((each for each in free_extents(table) if each.logical == logical), key=lambda each: -each.size)
    shown = ", ".join(f"{spoken_size(each.size)} at {spoken_size(each.start)}" for each in free[:_SHOWN])
    where = "the extended partition" if logical else table.device
    return task.refuse(
        "no_space",
        name,
        f"{what} is asked for; free in {where}: {shown or 'nothing'}",
        "Ask for less, or free what is beside one of these: a partition is in one piece.",
    )


def resized(have: Volume, size: int, wanted: int, task: VolumesTask) -> int:
    """The size that a partition gets in its place. Raises where there is no room for that, or where it can't change."""
    table = _table(task)
    partition = table.by_number(table.number(have.name))
    if partition is None or table.is_extended(partition) or table.label not in (DOS, GPT):
        what = "extended partitions" if have.format == EXTENDED else f"partitions of {table.label} labels"
        raise task.refuse(
            "volume_differs",
            have.name,
            f"volume {task.goal.pool}/{have.name} is there, but its capacity is {format_size(have.capacity or 0)}; "
            f"{what} can't be changed in place",
            "Declare what it is.",
        )
    if size > (have.capacity or 0):
        room = room_of(table, partition)
        fitting = rounded(wanted, room, table.sector)
        if fitting is None:
            more = f"{format_size(size - (have.capacity or 0))} right behind {have.name}"
            raise no_space(have.name, more, table, task, table.is_logical(partition.number))
        size = fitting
    changed = Extent(table.device, partition.start, partition.start + size)
    task.settled[have.name] = replace(have, capacity=size, extents=(changed,))
    return size


# --- removing --------------------------------------------------------------------------------------------------------


def from_the_end(names: Iterable[str], task: VolumesTask) -> list[str]:
    """The highest numbers first: logical partitions keep theirs until it is their turn, and go before the extended."""
    table = _table(task)
    return sorted(names, key=lambda name: -(table.number(name) or 0))


def gone_with(name: str, table: Table) -> tuple[str, ...]:
    """The other volumes that go with a removed one: the logical partitions in an extended one."""
    return tuple(table.name(each.number) for each in table.inside(table.number(name) or 0))


def recognised(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """Without the conditions that partitions are the same devices where the same task has the kernel learn first what
    the table says: they are not, by then. That the table has them still is looked at when that is changed.
    """
    if not any(change.action == "clean" for change in changes):
        return changes
    return tuple(
        replace(change, requires=tuple(each for each in change.requires if each.kind != "device")) for change in changes
    )


def check_removal(name: str, task: VolumesTask, anew: bool = False) -> None:
    """Raises where logical partitions would get other names, or would go with their extended one. ``anew``: it is made
    anew, with the number that it has.
    """
    table = _table(task)
    moved = () if anew else table.moved_by(table.number(name) or 0)
    refusal = removal_refusal(name, task, gone_with(name, table), (table.name(each.number) for each in moved), anew)
    if refusal is not None:
        raise refusal


def removal_refusal(
    name: str, task: VolumesTask, within: Iterable[str], moved: Iterable[str], anew: bool = False
) -> StorageError | None:
    """What is refused of deleting a partition ``within`` which others lie, or for which others are ``moved`` to another
    number. Those that go in the same task don't count, unless it is made ``anew``, which comes before.
    """
    going = frozenset() if anew else task.doomed_names
    doing, when = ("made anew", "in an earlier task") if anew else ("deleted", "in the same task, or before")
    staying = [other for other in within if other not in going]
    if staying:
        return task.refuse(
            "volume_in_use",
            name,
            f"volume {task.goal.pool}/{name} would be {doing}, but {listed(staying, _SHOWN)} are in it",
            f"Delete these {when}.",
        )
    other = next((other for other in moved if other not in going), None)
    if other is None:
        return None
    return task.refuse(
        "partition_renumbered",
        name,
        f"without {name}, {other} would get another number and name, so that the next run would change that",
        f"Delete the higher ones {when}.",
    )
