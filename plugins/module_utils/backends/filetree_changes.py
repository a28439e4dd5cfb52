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
from ..model.volume import Backing, Volume
from .filetree import STAGING

if TYPE_CHECKING:
    from ..host.notes import Notes

VOLUME_MODE = 0o600  # what libvirt gives a volume when none is declared


Instead = Callable[[Change], "list[Any] | None"]


def lower_volumes(changes: Sequence[Change], found: Found, instead: Instead = lambda change: None) -> list[ops.Step]:
    """The steps of all changes of one pool's volumes. Identical images are made once and copied.

    ``instead`` gives the operations of a change that is made in another way; None for those that are made here.
    """
    staging = os.path.join(found.storage.path or "", STAGING)
    lowering = _Lowering(changes, ops.OpenStaging(staging, found.storage.identity or ()), instead)
    for change in changes:
        lowering.add(change)
    return lowering.finish()


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
    """Collects steps; knows which step a volume's changes ended in, so that others can wait for it."""

    def __init__(self, changes: Sequence[Change], opening: ops.OpenStaging, instead: Instead) -> None:
        self.staging = opening.path
        self.otherwise = {id(change): instead(change) for change in changes}
        self.steps: list[ops.Step] = []
        self.ends: dict[str, int] = {}
        self.templates: dict[Any, tuple[int, str]] = {}
        self.counts: dict[Any, int] = {}
        self.shared: dict[Any, frozenset[str]] = {}
        here = [change for change in changes if self.otherwise[id(change)] is None]
        for change in here:
            if change.action in ("create", "recreate"):
                key = _template_key(change.wanted)
                self.counts[key] = self.counts.get(key, 0) + 1
                self.shared[key] = self.shared.get(key, frozenset(change.needs)) & frozenset(change.needs)
        self.staged = [change for change in here if change.action in ("create", "recreate", "delete", "clean")]
        if self.staged:
            clean = next((change for change in changes if change.action == "clean"), None)
            self.steps.append(ops.Step((opening,), clean))

    def add(self, change: Change) -> None:
        if change.action == "clean":
            return
        name = change.subject.volume or ""
        needs = [self.ends[other] for other in (*change.needs, name) if other in self.ends]
        otherwise = self.otherwise[id(change)]
        if otherwise is None and change.action in ("create", "recreate", "delete"):
            needs.append(0)  # the step that opened the staging directory
        if otherwise is not None:
            operations = otherwise
        elif change.action in ("create", "recreate"):
            operations = self._create(change, needs)
        else:
            operations = _LOWER[change.action](change, os.path.join(self.staging, f"-removed-{len(self.steps)}"))
        if otherwise is None and change.action == "recreate" and operations:
            # A step of its own, so that the conditions are looked at when the image is ready, not minutes before.
            preparing, operations = operations[:-1], operations[-1:]
            self._step(preparing, None, needs)
            needs.append(len(self.steps) - 1)
        self._step(operations, change, needs)
        self.ends[name] = len(self.steps) - 1

    def _step(self, operations: Sequence[Any], change: Change | None, needs: Sequence[int]) -> None:
        self.steps.append(ops.Step(tuple(operations), change, tuple(sorted(set(needs)))))

    def finish(self) -> list[ops.Step]:
        if self.staged:
            needs = tuple(range(len(self.steps)))
            self.steps.append(ops.Step((ops.CloseStaging(self.staging),), needs=needs, always=True))
        return self.steps

    def _create(self, change: Change, needs: list[int]) -> list[Any]:
        volume: Volume = change.wanted
        if not _settled(volume):
            return []
        staged = os.path.join(self.staging, volume.name)
        key = _template_key(volume)
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
            path = os.path.join(self.staging, f"-template-{len(self.templates)}")
            self._step(
                _make_image(volume, path), None, [0, *(self.ends[n] for n in self.shared[key] if n in self.ends)]
            )
            self.templates[key] = (len(self.steps) - 1, path)
        index, path = self.templates[key]
        needs.append(index)
        return path


def _run(argv: Sequence[str]) -> ops.Run:
    return ops.Run(tuple(argv), qemu_img.PACKAGE)


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
        return [ops.Truncate(volume.path or "", volume.capacity or 0, volume.identity or ())]
    argv = qemu_img.resize(volume.path or "", volume.format or "", volume.capacity or 0, shrink=bool(change.destroys))
    return [_run(argv), ops.Sync(volume.path or "")]


def _lower_amend(change: Change, staged: str) -> list[Any]:
    volume: Volume = change.wanted
    argv = qemu_img.amend(volume.path or "", compat=volume.compat, lazy_refcounts=volume.lazy_refcounts)
    return [_run(argv), ops.Sync(volume.path or "")]


def _lower_rebase(change: Change, staged: str) -> list[Any]:
    volume: Volume = change.wanted
    backing = volume.backing or Backing()
    if backing.path is None or backing.format is None:
        return []
    return [_run(qemu_img.rebase(volume.path or "", backing.path, backing.format)), ops.Sync(volume.path or "")]


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
