# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Changes of volume groups and their volumes as commands of LVM.

What LVM would ask is answered here only where it was decided: a new volume's old content may go (``--yes``); what
appears on a device meanwhile makes vgcreate and vgextend ask, and end without an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from ..images import qemu_img
from ..model import operations as ops
from ..model.change import Change, Condition
from ..model.found import Found
from ..model.pool import Pool
from ..model.types import THIN_POOL
from ..model.volume import Volume
from .logical import GROUP, STAGED, TAG
from .logical_devices import LABELS

_CHUNK = "1M"
_TOOLS = ("lv", "vg", "pv")  # what the names of LVM's commands begin with
_WHOLE = (
    "lvcreate",
    "lvrename",
    "lvchange",
    "lvextend",
)  # one write of the group's metadata, taken back where it fails


_HINT = "Mend what LVM says; vgs, lvs and dmesg show more. Then run the task again."


def _lvm(tool: str, *words: str) -> ops.Run:
    return ops.Run((tool, *words), hint=_HINT, whole=tool in _WHOLE)


def _group_of(pool: Pool) -> str:
    return pool.source.name or pool.name


# --- the group -------------------------------------------------------------------------------------------------------


def lower_pool(change: Change, found: Found) -> list[Any]:
    return _told(_lower_pool(change, found), found)


def _told(operations: Sequence[Any], found: Found) -> list[Any]:
    """Each command of LVM with what it has to be told on this host."""
    words = found.storage.words
    if not words:
        return list(operations)
    return [
        each._replace(argv=(each.argv[0], *words, *each.argv[1:]))
        if isinstance(each, (ops.Run, ops.MakeOn)) and each.argv and each.argv[0].startswith(_TOOLS)
        else each
        for each in operations
    ]


def _lower_pool(change: Change, found: Found) -> list[Any]:
    name = _group_of(change.wanted)
    if change.action == "start":
        return [_lvm("vgchange", "--activate", "y", "--", name)]
    if change.action == "stop":
        return [_lvm("vgchange", "--activate", "n", "--", name)]
    if change.action == "build":
        return _build(change, name)
    if change.action == "delete":
        return _delete(change, found, name)
    return []


def _build(change: Change, name: str) -> list[Any]:
    argv = ("vgcreate" if change.part == GROUP else "vgextend", "--", name)
    taken = tuple(_taken(change.requires))
    if not taken:  # devices that an earlier task would make
        paths = [device.path for device in change.wanted.source.devices or ()]
        return [_lvm(*argv, *paths), *_flushed(paths)]
    nodes = [device.node for device in taken]
    return [ops.MakeOn(taken, (*argv, *nodes), wipe=bool(change.destroys), hint=_HINT), *_flushed(nodes)]


def _taken(requires: Sequence[Condition]) -> Iterator[ops.Taken]:
    """The devices of a build, as they were looked at."""
    contents = {each.path: each.expected for each in requires if each.kind == "signatures"}
    for each in requires:
        if each.kind == "device":
            yield ops.Taken(each.path, each.expected, contents.get(each.path))


def _delete(change: Change, found: Found, name: str) -> list[Any]:
    """Neither asks: where the group has volumes again, LVM does, and gets no answer."""
    facts = next((each.facts for each in found.storage.parts if each.name == change.part), None) or {}
    nodes = cast("list[str]", facts["devices"])
    removed = [_lvm("pvremove", "--", *nodes), *_flushed(nodes)]
    return removed if change.part == LABELS else [_lvm("vgremove", "--", name), *removed]


def _flushed(nodes: Sequence[str]) -> list[ops.Sync]:
    """LVM writes its metadata past the kernel's cache, and not through that of the disk, which a power cut empties."""
    return [ops.Sync(node) for node in nodes]


# --- its volumes -----------------------------------------------------------------------------------------------------


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> list[ops.Step]:
    """A step for each change. New volumes are made under a name of their own, and renamed when they are whole: what
    takes the place of an old one in a step before, so that the conditions for losing that are looked at when it is
    whole, not minutes before.
    """
    pool = found.running
    lowering = _Lowering("" if pool is None else _group_of(pool), found)
    steps: list[ops.Step] = []
    ends: dict[str, int] = {}
    for change in changes:
        name = change.subject.volume or ""
        otherwise = instead(change)
        needs = {ends[other] for other in (*change.needs, name, "") if other in ends}
        before, operations = lowering.operations(change) if otherwise is None else ([], otherwise)
        before, operations = _told(before, found), _told(operations, found)
        if before:
            steps.append(ops.Step(tuple(before), needs=tuple(sorted(needs))))
            needs.add(len(steps) - 1)
        steps.append(ops.Step(tuple(operations), change, tuple(sorted(needs))))
        ends[name] = len(steps) - 1  # under the empty name: the removal of leftovers, for which all wait
    flushed = tuple(_flushed(lowering.devices))  # once for all of them
    return [*steps, ops.Step(flushed, needs=tuple(range(len(steps))), always=True)] if steps and flushed else steps


class _Lowering:
    """Knows the names under which volumes are being made."""

    def __init__(self, group: str, found: Found) -> None:
        self.group, self.found = group, found
        parts = [part.facts for part in found.storage.parts if part.name == GROUP and part.facts is not None]
        self.devices = [node for facts in parts for node in cast("list[str]", facts["devices"])]
        self._count = 0

    def operations(self, change: Change) -> tuple[list[Any], list[Any]]:
        """Those that prepare the change, where nobody sees it, and those that make it."""
        if change.action == "recreate":
            return self._recreate(change.wanted)
        return [], self._visible(change)

    def _visible(self, change: Change) -> list[Any]:
        name = change.subject.volume or ""
        if change.action == "clean":
            return [_lvm("lvremove", "--yes", "--", *map(self._path, self.found.leftovers))]
        if change.action == "delete":
            return [_lvm("lvremove", "--yes", "--", self._path(name))]
        if change.action == "resize":
            return [self._resize(change)]
        if change.action == "create":
            return self._create(change.wanted)
        return []

    def _path(self, name: str) -> str:
        return f"{self.group}/{name}"

    def _extents(self, size: int | None) -> str:
        return str((size or 0) // self.found.granule)

    def _resize(self, change: Change) -> ops.Run:
        extents, path = self._extents(change.wanted.capacity), self._path(change.wanted.name)
        if change.destroys:
            return _lvm("lvreduce", "--force", "--yes", "--extents", extents, "--", path)
        return _lvm("lvextend", "--extents", extents, "--", path)

    def _staged(self) -> str:
        """None that is there: what has such a name and no tag of ours is somebody else's."""
        while True:
            name = f"{STAGED}{self._count}"
            self._count += 1
            if name not in self.found.volumes:
                return name

    def _create(self, volume: Volume) -> list[Any]:
        if not _settled(volume):
            return []  # an earlier task would have made what it is made from
        if volume.thin_pool is not None and volume.content is None and volume.format is None:
            return [self._make(volume, volume.name)]  # LVM makes these as a whole, and they start with zeros
        staged = self._staged()
        made = [self._make(volume, staged), *self._fill(volume, f"/dev/{self.group}/{staged}")]
        return [*made, _lvm("lvrename", "--", self.group, staged, volume.name)]

    def _recreate(self, volume: Volume) -> tuple[list[Any], list[Any]]:
        if not _settled(volume):
            return [], []
        staged, old = self._staged(), self._staged()
        made = [self._make(volume, staged), *self._fill(volume, f"/dev/{self.group}/{staged}")]
        return made, [
            _lvm("lvchange", "--addtag", TAG, "--", self._path(volume.name)),
            _lvm("lvrename", "--", self.group, volume.name, old),
            _lvm("lvrename", "--", self.group, staged, volume.name),
            _lvm("lvremove", "--yes", "--", self._path(old)),
        ]

    def _make(self, volume: Volume, name: str) -> ops.Run:
        words = ["--yes", "--addtag", TAG, "--name", name]
        backing, thin_pool = volume.backing, volume.thin_pool
        if backing is not None:
            origin = self._path((backing.path or "").rpartition("/")[2])
            if thin_pool is not None:
                return _lvm("lvcreate", "--snapshot", "--setactivationskip", "n", *words, "--", origin)
            whole = volume.allocation is None or volume.allocation >= (volume.capacity or 0)
            room = "100%ORIGIN" if whole else self._extents(volume.allocation)
            return _lvm("lvcreate", "--snapshot", *words, "--extents", room, "--", origin)
        if thin_pool is not None:
            size = f"{volume.capacity}b"
            return _lvm("lvcreate", "--type", "thin", *words, "--virtualsize", size, "--", self._path(thin_pool))
        words += ["--extents", self._extents(volume.capacity)]
        if volume.format == THIN_POOL:
            return _lvm("lvcreate", "--type", "thin-pool", "--zero", "y", *words, "--", self.group)
        return _lvm("lvcreate", "--wipesignatures", "y", "--zero", "y", *words, "--", self.group)

    def _fill(self, volume: Volume, path: str) -> list[Any]:
        content = volume.content
        if content is None:
            return []
        if content.data is not None:
            argv = ("dd", f"of={path}", f"bs={_CHUNK}", "conv=notrunc,fsync", "status=none")
            return [ops.Run(argv, stdin=content.data)]
        source = qemu_img.copy_onto(content.path or "", content.format or "", path)
        return [ops.Run(source), ops.Sync(path)]


def _settled(volume: Volume) -> bool:
    """Whether all that a command needs is known: it is not where an earlier task would have made the rest."""
    content = volume.content
    filled = content is None or content.data is not None or None not in (content.path, content.format)
    return filled and volume.path is not None and volume.capacity is not None
