# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes that are files of a directory, changed: for every pool type whose storage is a file tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

from ..images import qemu_img
from ..model import operations as ops
from ..model.change import Change
from ..model.found import Found
from ..model.pool import Permissions
from ..model.types import VOLUME_FORMATS
from ..model.units import round_up
from ..model.volume import STAGING, Backing, Volume
from .filetree import staging_name

if TYPE_CHECKING:
    from ..host.notes import Notes

VOLUME_MODE = 0o600  # what libvirt gives a volume when none is declared


Instead = Callable[[Change], "list[Any] | None"]


def lower_volumes(changes: Sequence[Change], found: Found, instead: Instead = lambda change: None) -> list[ops.Step]:
    """The steps of all changes of one pool's volumes. Identical images are made once and copied.

    ``instead`` gives the operations of a change that is made in another way; None for those that are made here.
    """
    storage, name = found.storage, staging_name(found.filesystem)
    path = os.path.join(storage.path or "", name)
    opening = ops.OpenStaging(path, storage.identity or (), bool(storage.fixed), name != STAGING)
    lowering = _Lowering(changes, opening, instead, {id(change): actor_of(change, found) for change in changes})
    for change in changes:
        lowering.add(change)
    return lowering.finish()


def actor_of(change: Change, found: Found) -> tuple[int, int] | None:
    """Owner and group in whose name a change is made, where a server may not take root for root; None for ourselves."""
    if not found.squashes:
        return None
    if change.action == "clean":
        told = found.leftovers[0].rpartition("-")[2] if found.leftovers else ""
        owner = found.storage.permissions.owner
        return _with_group(owner, found) if told and told == str(owner) else None
    name = change.subject.volume or ""
    have = found.volumes.get(name)
    if change.action in ("create", "recreate"):
        declared = change.wanted.permissions
        if declared.owner is None and have is not None:
            declared = have.permissions
        actor = _with_group(declared.owner, found, declared.group)
        return actor if actor is not None and found.storage.may_write(*actor) else None
    if have is None:
        return None
    if change.action == "delete":
        return None if found.storage.writable else _remover(have, found)
    return _with_group(have.permissions.owner, found, have.permissions.group) if name in found.protected else None


def _remover(have: Volume, found: Found) -> tuple[int, int] | None:
    """Whoever may write the directory: its owner, or that of the file."""
    owners = (
        _with_group(found.storage.permissions.owner, found),
        _with_group(have.permissions.owner, found, have.permissions.group),
    )
    return next((each for each in owners if each is not None and found.storage.may_write(*each)), None)


def _with_group(owner: int | None, found: Found, group: int | None = None) -> tuple[int, int] | None:
    """None for root, who is nobody there."""
    if not owner:
        return None
    return owner, (found.storage.permissions.group or 0) if group is None else group


def _settled(volume: Volume) -> bool:
    """Whether all that a command needs is known. It is not where an earlier task would have made the pool, backing or
    source.
    """
    parts = [volume.path, volume.format]
    if volume.backing is not None:
        parts += [volume.backing.path, volume.backing.format]
    if volume.content is not None and volume.content.data is None:
        parts += [volume.content.path, volume.content.format]
    return None not in parts


def _template_key(volume: Volume | None) -> Any:
    """Equal for images that are the same but for their name; None for those that must be made each by itself."""
    if volume is None or volume.format != "qcow2" or volume.content or volume.allocation or volume.nocow:
        return None
    if volume.preallocation not in (None, "off"):
        return None
    return replace(volume, name="", path=None, permissions=Permissions(), identity=None)


def lower_directory(change: Change, notes: Notes) -> list[Any]:
    """The operations of a change of the directory itself: made, given away, removed."""
    pool = change.wanted
    path, permissions = pool.path or "", pool.permissions
    if change.action == "build":
        operations: list[Any] = [ops.MakeDirectory(path, permissions.mode or 0, notes.record_path(path))]
        if permissions.owner is not None or permissions.group is not None:
            operations.append(ops.SetPermissions(path, None, permissions.owner, permissions.group, follow=True))
        return operations
    if change.action == "permissions":
        return [ops.SetPermissions(path, permissions.mode, permissions.owner, permissions.group, follow=True)]
    if change.action == "delete":
        return [ops.RemoveDirectory(path), ops.Remove(notes.record_path(path))]
    return []


class _Lowering:
    """Collects steps; knows which step a volume's changes ended in, so that others can wait for it. Who acts for
    another user has a staging directory of its own.
    """

    def __init__(
        self, changes: Sequence[Change], opening: ops.OpenStaging, instead: Instead, actors: dict[int, Any]
    ) -> None:
        self.opening = opening
        self.actors = actors
        self.otherwise = {id(change): instead(change) for change in changes}
        self.steps: list[ops.Step] = []
        self.ends: dict[str, int] = {}
        self.templates: dict[Any, tuple[int, str]] = {}
        self.counts: dict[Any, int] = {}
        self.shared: dict[Any, frozenset[str]] = {}
        self.opened: dict[Any, int] = {}
        here = [change for change in changes if self.otherwise[id(change)] is None]
        for change in here:
            if change.action in ("create", "recreate"):
                key = self._key(change)
                self.counts[key] = self.counts.get(key, 0) + 1
                self.shared[key] = self.shared.get(key, frozenset(change.needs)) & frozenset(change.needs)
        clean = next((change for change in changes if change.action == "clean"), None)
        staged = [change for change in here if change.action in ("create", "recreate", "delete", "clean")]
        for actor in dict.fromkeys(actors[id(change)] for change in staged):
            self.opened[actor] = len(self.steps)
            opens = opening._replace(path=self._staging(actor))
            self._step([opens], clean if clean is not None and actors[id(clean)] == actor else None, [], actor)

    def _staging(self, actor: Any) -> str:
        return self.opening.path if actor is None else f"{self.opening.path}-{actor[0]}"

    def _key(self, change: Change) -> Any:
        key = _template_key(change.wanted)
        return None if key is None else (self.actors[id(change)], key)

    def add(self, change: Change) -> None:
        if change.action == "clean":
            return
        name, actor = change.subject.volume or "", self.actors[id(change)]
        needs = [self.ends[other] for other in (*change.needs, name) if other in self.ends]
        otherwise = self.otherwise[id(change)]
        if otherwise is None and change.action in ("create", "recreate", "delete"):
            needs.append(self.opened[actor])
        if otherwise is not None:
            operations, actor = otherwise, None
        elif change.action in ("create", "recreate"):
            operations = self._create(change, needs)
        else:
            removed = os.path.join(self._staging(actor), f"-removed-{len(self.steps)}")
            operations = _LOWER[change.action](change, removed)
        if otherwise is None and change.action == "recreate" and operations:
            # A step of its own, so that the conditions are looked at when the image is ready, not minutes before.
            preparing, operations = operations[:-1], operations[-1:]
            self._step(preparing, None, needs, actor)
            needs.append(len(self.steps) - 1)
        seen = 1 if otherwise is None and change.action == "create" else None
        self._step(operations, change, needs, actor, seen)
        self.ends[name] = len(self.steps) - 1

    def _step(
        self,
        operations: Sequence[Any],
        change: Change | None,
        needs: Sequence[int],
        actor: Any,
        seen: int | None = None,
    ) -> None:
        if actor is not None:
            operations = [ops.As(actor[0], actor[1], operation) for operation in operations]
        self.steps.append(ops.Step(tuple(operations), change, tuple(sorted(set(needs))), seen=seen))

    def finish(self) -> list[ops.Step]:
        needs = tuple(range(len(self.steps)))
        for actor in self.opened:
            closing: Any = ops.CloseStaging(self._staging(actor))
            closing = closing if actor is None else ops.As(actor[0], actor[1], closing)
            self.steps.append(ops.Step((closing,), needs=needs, always=True))
        return self.steps

    def _create(self, change: Change, needs: list[int]) -> list[Any]:
        volume: Volume = change.wanted
        if not _settled(volume):
            return []
        staged = os.path.join(self._staging(self.actors[id(change)]), volume.name)
        key = self._key(change)
        if key is not None and self.counts[key] > 1:
            operations: list[Any] = [ops.CopySparse(self._template(key, volume, needs), staged)]
        else:
            operations = _make_image(volume, staged)
        permissions = volume.permissions
        mode = VOLUME_MODE if permissions.mode is None else permissions.mode
        operations.append(ops.SetPermissions(staged, mode, permissions.owner, permissions.group))
        operations.append(ops.Sync(staged))
        if change.action == "create":
            operations.append(ops.Publish(staged, volume.path or ""))
        else:
            operations.append(ops.Exchange(staged, volume.path or "", volume.identity or ()))
        return operations

    def _template(self, key: Any, volume: Volume, needs: list[int]) -> str:
        """The path of the image that equal ones are copied from. No new volume's name starts with a dash. It waits only
        for what all of them wait for.
        """
        if key not in self.templates:
            actor = key[0]
            path = os.path.join(self._staging(actor), f"-template-{len(self.templates)}")
            waits = [self.opened[actor], *(self.ends[n] for n in self.shared[key] if n in self.ends)]
            self._step(_make_image(volume, path), None, waits, actor)
            self.templates[key] = (len(self.steps) - 1, path)
        index, path = self.templates[key]
        needs.append(index)
        return path


def _run(argv: Sequence[str], whole: bool = False) -> ops.Run:
    return ops.Run(tuple(argv), whole=whole)


def _granule(volume: Volume) -> int:
    return VOLUME_FORMATS[volume.format or "raw"].granule


def _make_image(volume: Volume, path: str) -> list[Any]:
    if volume.content is not None and volume.content.data is not None:
        operations: list[Any] = [ops.WriteContent(path, volume.content.data, volume.capacity or 0)]
    elif volume.content is not None and volume.format == volume.content.format == "raw":
        operations = [ops.CopySparse(volume.content.path or "", path, volume.capacity or 0)]
    elif volume.content is not None:
        source, source_format = volume.content.path or "", volume.content.format or ""
        operations = [_run(qemu_img.convert(source, source_format, volume, path))]
        if volume.capacity and volume.capacity != round_up(volume.content.capacity or 0, _granule(volume)):
            operations.append(_run(qemu_img.resize(path, volume.format or "", volume.capacity)))
    elif volume.format == "raw":
        return [ops.MakeRaw(path, volume.capacity or 0, volume.allocation or 0, bool(volume.nocow))]
    else:
        operations = [_run(qemu_img.create(volume, path))]
    if volume.allocation:
        operations.append(ops.Reserve(path, volume.allocation))
    return operations


def _lower_delete(change: Change, staged: str) -> list[Any]:
    return [ops.Withdraw(change.wanted.path, staged, change.wanted.identity or ())]


def _lower_resize(change: Change, staged: str) -> list[Any]:
    volume: Volume = change.wanted
    if volume.format == "raw":
        return [ops.Truncate(volume.path or "", volume.capacity or 0, volume.identity or (), volume.physical or 0)]
    argv = qemu_img.resize(volume.path or "", volume.format or "", volume.capacity or 0, shrink=bool(change.destroys))
    return [_run(argv, whole=not change.destroys), ops.Sync(volume.path or "")]  # the header is written last


def _lower_amend(change: Change, staged: str) -> list[Any]:
    volume: Volume = change.wanted
    argv = qemu_img.amend(volume.path or "", compat=volume.compat, lazy_refcounts=volume.lazy_refcounts)
    return [_run(argv, whole=True), ops.Sync(volume.path or "")]


def _lower_rebase(change: Change, staged: str) -> list[Any]:
    volume: Volume = change.wanted
    backing = volume.backing or Backing()
    if backing.path is None or backing.format is None:
        return []
    return [
        _run(qemu_img.rebase(volume.path or "", backing.path, backing.format), whole=True),
        ops.Sync(volume.path or ""),
    ]


def _lower_permissions(change: Change, staged: str) -> list[Any]:
    permissions = change.wanted.permissions
    return [ops.SetPermissions(change.wanted.path, permissions.mode, permissions.owner, permissions.group)]


_LOWER = {
    "delete": _lower_delete,
    "resize": _lower_resize,
    "amend": _lower_amend,
    "rebase": _lower_rebase,
    "permissions": _lower_permissions,
}
