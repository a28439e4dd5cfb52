# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Partition tables and partitions, changed: dos and gpt by sfdisk, which makes a partition with its number, place and
type in one write; other labels, and new tables, by parted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from ..host.partitions import PARTED_LABELS
from ..host.signatures import HEAD, TAIL
from ..model.change import UNKNOWN, Change
from ..model.found import Found
from ..model.operations import ChangeTable, Run, Step
from ..model.tables import DOS, EXTENDED, GPT, Table, type_made, type_of
from ..model.volume import Volume

_SIZE_IN_IDENTITY = 2  # behind major and minor number: host/block.py
# udev is not to look, and the kernel is told by us; --force: partitions beside it may be in use.
_SFDISK = (
    "sfdisk", "--quiet", "--force", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--wipe-partitions", "never",
)  # fmt: skip
_PARTED = ("parted", "--script", "--align", "none")


def _ends(start: int, end: int) -> tuple[tuple[int, int], ...]:
    head = min(HEAD, end - start)
    tail = max(start + head, end - TAIL)
    return tuple((offset, size) for offset, size in ((start, head), (tail, end - tail)) if size > 0)


def _beyond(old: int, start: int, end: int) -> tuple[tuple[int, int], ...]:
    """What of both ends is behind the old end of what grows."""
    ranges = ((max(old, offset), offset + size) for offset, size in _ends(start, end))
    return tuple((first, last - first) for first, last in ranges if first < last)


def lower_pool(change: Change, found: Found) -> list[Any]:
    if change.action not in ("build", "delete") or not change.part:
        return []
    source = change.wanted.source.devices[0]
    label: Any = (dict(change.after or {})[change.part] or {}).get("label")
    known = [(each.path, each.expected) for each in change.requires if each.kind == "device"]
    if not known:  # an earlier task would have made it
        return [] if label is UNKNOWN else [Run((*_PARTED, source.path, "mklabel", PARTED_LABELS.get(label, label)))]
    node, identity = known[0]
    size = identity[_SIZE_IN_IDENTITY]
    operation = ChangeTable(node, identity, clear=_ends(0, size), separator=source.part_separator)
    if change.action == "delete":
        return [operation]
    made = ("mklabel", PARTED_LABELS.get(label, label))
    return [operation._replace(argv=(*_PARTED, node, *made), made=label)]


def lower_volumes(changes: Sequence[Change], found: Found, instead: Callable[[Change], Any]) -> Sequence[Step]:
    """One after the other, since they all change one table, whatever becomes of those that are independent."""
    table = found.table
    if table is None:
        return [Step((), change) for change in changes]
    lowering = _Lowering(found, table)
    steps: list[Step] = []
    for index, change in enumerate(changes):
        otherwise = instead(change)
        operations = lowering.lower(change) if otherwise is None else otherwise
        needs = [before for before in range(index) if _needs(change, changes[before], table)]
        steps.append(Step(tuple(operations), change, tuple(needs), after=(index - 1,) if index else ()))
    return _settling(steps)


def _needs(change: Change, before: Change, table: Table) -> bool:
    """Whether a change can be made only where an earlier one was."""
    if before.action == "clean" or before.subject.volume in (change.subject.volume, *change.needs):
        return True
    if not change.wanted.extents or not before.wanted.extents:
        return False
    if table.label not in (DOS, GPT):
        return change.action == "create"  # parted gives it the next number that is free
    if "resize" not in (change.action, before.action) and _counts(change, table) and _counts(before, table):
        return True
    return change.action != "delete" and _frees(before, change, table)


def _counts(change: Change, table: Table) -> bool:
    """Whether it is a logical partition, of which the numbers have no holes, or the one that those are in."""
    number = table.number(change.wanted.name) or 0
    old = table.by_number(number)
    extended = change.wanted.format == EXTENDED or (old is not None and table.is_extended(old))
    return table.is_logical(number) or extended


def _frees(before: Change, change: Change, table: Table) -> bool:
    """Whether a partition gets a place that another one has until it is moved, or made smaller."""
    old = table.by_number(table.number(before.wanted.name))
    start = change.wanted.extents[0].start
    end = start + (change.wanted.capacity or 0)
    return old is not None and old.start < end and start < old.end and not table.is_extended(old)


def _settling(steps: list[Step]) -> list[Step]:
    """The last change of the table waits for udev, for all of them."""
    for index in range(len(steps) - 1, -1, -1):
        operations = steps[index].operations
        if operations and isinstance(operations[-1], ChangeTable):
            last = operations[-1]._replace(settle=True)
            steps[index] = steps[index]._replace(operations=(*operations[:-1], last))
            break
    return steps


def _place(volume: Volume, table: Table) -> tuple[int, int, int]:
    extent = volume.extents[0]
    return (table.number(volume.name) or 0, extent.start, extent.end)


class _Lowering:
    def __init__(self, found: Found, table: Table) -> None:
        pool = found.running
        source = None if pool is None else (pool.source.devices or (None,))[0]
        separator = None if source is None else source.part_separator
        self.found, self.table = found, table
        self.operation = ChangeTable(
            table.device,
            table.identity,
            label=table.label,
            made=table.label,
            separator=separator,
            unseen=found.unseen,
        )

    def lower(self, change: Change) -> list[Any]:
        if change.action == "clean":
            return [self.operation]
        if not change.wanted.extents:
            return []
        return [_LOWER[change.action](self, change)]

    def _unit(self, offset: int) -> int:
        return offset // self.table.sector

    def _entry(self, number: int, start: int, end: int, kind: str | None) -> str:
        first, size = self._unit(start), self._unit(end - start)
        return f"{self.table.name(number)} : start={first}, size={size}" + (f", type={kind}" if kind else "")

    def create(self, change: Change) -> ChangeTable:
        volume: Volume = change.wanted
        number, start, end = _place(volume, self.table)
        kind = type_of(self.table.label, volume.format)
        operation = self._filled(volume, start, end)
        if self.table.label in (DOS, GPT):
            return operation._replace(
                argv=(*_SFDISK, "--append", self.table.device),
                script=self._entry(number, start, end, kind),
            )
        made = ("mkpart", *_WORDS[self.table.label], f"{start}B", f"{end - 1}B")
        return operation._replace(argv=(*_PARTED, self.table.device, *made))

    def _filled(self, volume: Volume, start: int, end: int) -> ChangeTable:
        """Cleared, and filled with its content, before it is a partition: it appears whole or not at all."""
        clear = () if volume.format == "extended" else _ends(start, end)
        operation = self.operation._replace(free=(start, end), clear=clear, at=start)
        content = volume.content
        if content is None:
            return operation
        if content.data is not None:
            return operation._replace(content=content.data)
        from ..images.qemu_img import convert_into

        if content.path is None or content.format is None:
            return operation
        return operation._replace(content=convert_into(content.path, content.format, self.table.device, start, end))

    def recreate(self, change: Change) -> ChangeTable:
        """Out of the table while it is filled; one without which others would get other numbers stays in it."""
        volume: Volume = change.wanted
        number, start, end = _place(volume, self.table)
        old = self.table.by_number(number)
        was = () if old is None else ((old.number, old.start, old.end),)
        filled = self._filled(volume, start, end)._replace(was=was, unused=True)
        entry = self._entry(number, start, end, type_made(self.table, number, volume.format))
        if self.table.moved_by(number):
            return filled._replace(
                argv=(*_SFDISK, "-N", str(number), self.table.device), script=entry.partition(": ")[2]
            )
        return filled._replace(drop=self._without(number), argv=(*_SFDISK, "--append", self.table.device), script=entry)

    def delete(self, change: Change) -> ChangeTable:
        place = _place(change.wanted, self.table)
        return self.operation._replace(argv=self._without(place[0]), was=(place,), unused=True)

    def _without(self, number: int) -> tuple[str, ...]:
        if self.table.label in (DOS, GPT):
            return (*_SFDISK, "--delete", self.table.device, str(number))
        return (*_PARTED, self.table.device, "rm", str(number))

    def resize(self, change: Change) -> ChangeTable:
        volume: Volume = change.wanted
        number, start, end = _place(volume, self.table)
        size = volume.capacity or 0
        return self.operation._replace(
            argv=(*_SFDISK, "-N", str(number), self.table.device),
            script=f"start={self._unit(start)}, size={self._unit(size)}",
            was=((number, start, end),),
            free=(start, start + size),
            clear=_beyond(end, start, start + size),
            unused=start + size < end,
        )


# What parted has to be told of a new partition, beside its place: a kind, a name, a filesystem.
_WORDS = {"bsd": ("ext2",), "mac": ("ext2",), "dvh": ("primary", "ext2")}
_LOWER = {
    "create": _Lowering.create,
    "recreate": _Lowering.recreate,
    "delete": _Lowering.delete,
    "resize": _Lowering.resize,
}
