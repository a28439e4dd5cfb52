# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Changes as calls of a daemon, and, where it has no call that does just that, as operations beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from posixpath import dirname
from typing import Any

from ..backends.by_type import backend_of
from ..libvirt_xml.pool import render_pool, without_secrets
from ..libvirt_xml.volume import render_volume
from ..model import operations as ops
from ..model.change import Change
from ..model.daemon_calls import DaemonCall, SecretCall
from ..model.found import READY, UNSEEN, Found
from ..model.partitions import daemon_deletes, removing
from ..model.pool import Pool
from ..model.qcow2 import DEFAULT_COMPAT
from ..model.tables import GPT
from ..model.types import POOL_TYPES
from ..model.volume import Volume
from .local import LocalHost, of_volumes

_MANY = 20  # from so many new volumes on, all of them are made at once beside the daemon: it takes ten times as long
_KIB = 1024
_SECTOR = 512
_PERMISSION_BITS = 0o777
# What changes a volume so that the daemon does not see it by itself: it keeps names, formats and backing in memory.
_UNNOTICED = ("create", "recreate", "delete", "amend", "rebase")
_NUMBERING = {"create", "recreate", "delete"}  # of partitions


class Calls:
    def __init__(self, uri: str, host: LocalHost, found: Found, changes: Sequence[Change]) -> None:
        self.uri, self.host, self.found = uri, host, found
        self.at_hand = found.storage.kind != UNSEEN
        self.stops = any(change.action == "stop" for change in changes)
        self.removed = {change.subject.volume or "" for change in changes if change.action == "delete"}
        self.goes = not self.at_hand and any(change.action == "delete" and not of_volumes(change) for change in changes)
        self.many = sum(change.action == "create" for change in changes) >= _MANY

    def _call(self, verb: str, volume: str | None = None, **more: Any) -> DaemonCall:
        return DaemonCall(verb, self.uri, self.found.name, volume, **more)

    # --- pools -------------------------------------------------------------------------------------------------------

    def of_pool(self, change: Change) -> Sequence[Any]:
        pool = change.wanted
        if pool is None or pool.type is None:
            return ()  # an earlier task would have defined it
        return tuple(_POOL[change.action](self, change, pool))

    def _define(self, change: Change, pool: Pool) -> Iterator[Any]:
        xml = render_pool(pool, self.found.definition_text)
        yield self._call("pool-define", xml=xml, shown=without_secrets(xml))
        yield from self._forget_secrets(change)

    def _build(self, change: Change, pool: Pool) -> Iterator[Any]:
        if self.found.started and not self.stops:  # the daemon builds no active pool
            yield from self._beside(change, pool)
            return
        path = pool.path or ""
        yield self._call("pool-build")
        yield ops.NoteDirectory(path, self.host.notes.record_path(path))

    def _start(self, change: Change, pool: Pool) -> Iterator[Any]:
        if self.found.started and not self.stops:
            yield self._call("pool-refresh")  # active already, but its directory was gone
        else:
            words = {*change.may, "sized"} if POOL_TYPES[pool.type or ""].starts_on_nothing else change.may
            yield self._call("pool-start", words=tuple(sorted(words)), told=pool.mount_options or ())

    def _stop(self, change: Change, pool: Pool) -> Iterator[Any]:
        if self.goes:
            yield self._call("pool-refresh", holds=self._left(pool))
        yield self._call("pool-destroy")

    def _left(self, pool: Pool) -> tuple[tuple[str, ...], int | None]:
        """What is to be in a pool that goes, just before: what else others have made, the daemon would remove too."""
        left = tuple(sorted(self.found.volumes.keys() - self.removed))
        if POOL_TYPES[pool.type or ""].whole or self.found.usage is None:
            return left, None
        gone = sum(self.found.volumes[name].allocation or 0 for name in self.removed if name in self.found.volumes)
        return left, max(0, self.found.usage.allocation - gone)

    def _autostart(self, change: Change, pool: Pool) -> Iterator[Any]:
        off = change.after is not None and change.after.get("autostart") is False
        yield self._call("pool-autostart", words=("--disable",) if off else ())

    def _undefine(self, change: Change, pool: Pool) -> Iterator[Any]:
        yield from self._forget_secrets(change)
        yield self._call("pool-undefine")

    def _secret(self, change: Change, pool: Pool) -> Iterator[Any]:
        from .secrets import object_for, value_for

        if "old_secret" in (change.before or {}):
            yield from self._forget_secrets(change)
            return
        uuid, xml = object_for(pool, self.found)
        if xml:
            yield self._secret_call("secret-define", uuid, xml=xml)
        yield self._secret_call("secret-set-value", uuid, value=value_for(pool))

    def _forget_secrets(self, change: Change) -> Iterator[Any]:
        if not self.found.secrets:
            return
        from .secrets import forgotten_by

        for secret in forgotten_by(change, self.found):
            yield self._secret_call("secret-undefine", secret.uuid)

    def _secret_call(self, verb: str, uuid: str, **more: Any) -> SecretCall:
        return SecretCall(verb, self.uri, self.found.name, uuid, **more)

    def _permissions(self, change: Change, pool: Pool) -> Iterator[Any]:
        yield from self._beside(change, pool)

    def _beside(self, change: Change, pool: Pool) -> Sequence[Any]:
        """A change of the pool's directory that is made here, beside the daemon."""
        backend = backend_of(pool.type)
        return () if backend is None else backend.lower(change, self.found, self.host.notes)

    def _delete(self, change: Change, pool: Pool) -> Iterator[Any]:
        if not self.at_hand:
            yield self._call("pool-delete")
        elif self.found.storage.kind == READY and self.found.definition is not None:
            yield from (self._call("pool-delete"), ops.Remove(self.host.notes.record_path(pool.path or "")))
        else:
            yield from self._beside(change, pool)

    # --- volumes -----------------------------------------------------------------------------------------------------

    def of_volumes(self, changes: Sequence[Change]) -> Sequence[Any]:
        pool = self.found.definition or self.found.live
        if pool is None:
            return ()  # an earlier task would have made the pool
        if not self.at_hand:
            return self._in_order(changes, pool)
        of_files = [change for change in changes if change.action != "refresh"]
        called = {id(change): self._called(change, pool) for change in of_files}
        backend = backend_of(pool.type)
        steps = [] if backend is None else [*backend.lower_volumes(of_files, self.found, lambda c: called[id(c)])]
        refresh = next((change for change in changes if change.action == "refresh"), None)
        beside = [change for change in of_files if called[id(change)] is None and change.action in _UNNOTICED]
        if self.found.started and not self.stops and (beside or refresh is not None):
            steps.append(ops.Step((self._call("pool-refresh"),), refresh, tuple(range(len(steps))), always=True))
        return steps

    def _in_order(self, changes: Sequence[Change], pool: Pool) -> list[ops.Step]:
        steps: list[ops.Step] = []
        ends: dict[str, int] = {}
        for change in changes:
            if change.action == "refresh":
                steps.append(ops.Step((self._call("pool-refresh", sought=change.wanted),), change))
                continue
            name = change.subject.volume or ""
            needs = {ends[other] for other in (*change.needs, name) if other in ends}
            needs |= {index for index, step in enumerate(steps) if self._counts(change, step.change, pool)}
            # What is cut from one device is cut in this order.
            after = (len(steps) - 1,) if steps and not self.found.row.file_tree else ()
            ends[name] = len(steps)
            steps.append(ops.Step(tuple(self._far(change, pool)), change, tuple(sorted(needs)), after=after))
        return steps

    def _counts(self, change: Change, before: Change, pool: Pool) -> bool:
        """Whether a partition gets or has its number only where an earlier change was made: a daemon gives new ones the
        next that is free, and those that are in the extended one of a dos label have no holes.
        """
        if not self.found.row.partitions or not {change.action, before.action} <= _NUMBERING:
            return False
        return change.action != "delete" or (before.action != "create" and pool.source.format != GPT)

    def _far(self, change: Change, pool: Pool) -> Iterator[Any]:
        """All through the daemon: decide/unseen.py has refused what it has no call for."""
        volume: Volume = change.wanted
        name = volume.name
        if change.action == "delete" and self.found.row.partitions and not daemon_deletes(pool):
            yield ops.Run(removing(name, pool, self.found.resolved))
            yield self._call("pool-refresh")
        elif change.action in ("delete", "recreate"):
            yield self._call("vol-delete", name)
        if change.action == "resize":
            yield self._resize(change)
        if change.action in ("create", "recreate"):
            yield from self._create_far(volume, pool)

    def _create_far(self, volume: Volume, pool: Pool) -> Iterator[Any]:
        content = volume.content
        if content is not None and content.volume is not None:
            yield self._call("vol-create-from", content.volume, xml=_made(volume, pool))
            copied = volume.format != "raw" or not self.found.row.file_tree  # with its source's size
            larger = copied and volume.capacity is not None and volume.capacity != content.capacity
            if larger and "resize" in self.found.row.daemon:
                yield self._call("vol-resize", volume.name, value=volume.capacity)
            return
        yield self._create(volume, pool)
        if volume.format == "qcow2" and volume.capacity and volume.capacity % _KIB:  # it rounds what it makes
            yield self._call("vol-resize", volume.name, value=volume.capacity, words=("--shrink",))
        if content is not None:
            yield self._call("vol-upload", volume.name, data=content.path if content.data is None else content.data)

    def _create(self, volume: Volume, pool: Pool) -> Any:
        reserved = volume.preallocation in ("metadata", "falloc")
        return self._call("vol-create", xml=_made(volume, pool), words=("--prealloc-metadata",) if reserved else ())

    def _resize(self, change: Change) -> Any:
        shrinks = ("--shrink",) if change.destroys else ()
        return self._call("vol-resize", change.subject.volume, value=change.wanted.capacity, words=shrinks)

    def _called(self, change: Change, pool: Pool) -> list[Any] | None:
        """The calls that do just what is declared; None where there are none, so that it is done beside the daemon."""
        volume: Volume = change.wanted
        if not self.found.started or self.stops or change.subject.volume in (None, *self.found.unlisted):
            return None
        if change.action == "create" and not self.many and _can_create(volume, self.found.storage.path):
            return [self._create(volume, pool)]
        if change.action == "delete":
            return [self._call("vol-delete", volume.name)]
        if change.action == "resize" and _can_resize(volume, bool(change.destroys)):
            return [self._resize(change)]
        return None


def _can_create(volume: Volume, directory: str | None) -> bool:
    """libvirt, storage driver: it takes sizes in KiB, knows no partial reservation of an image that is not raw, and no
    bits beyond the nine of permissions. What takes long is not made through it, since it would stand under its name
    half done; nor what is built on a file elsewhere, of which the daemon may see another one than we do.
    """
    if volume.content is not None or volume.format not in ("raw", "qcow2") or volume.capacity is None:
        return False
    if (volume.permissions.mode or 0) & ~_PERMISSION_BITS:
        return False
    if volume.format == "raw":
        return True
    backing = volume.backing
    if backing is not None and (not backing.path or not backing.format or dirname(backing.path) != directory):
        return False
    reserved = volume.allocation or volume.preallocation not in (None, "off")
    return not reserved and volume.capacity % _KIB == 0 and volume.capacity > 0


def _can_resize(volume: Volume, shrinks: bool) -> bool:
    """libvirt, storage driver: it looks at the image for its format, rounds to sectors, and gives nothing a size below
    what is allocated, even if it grows.
    """
    capacity = volume.capacity or 0
    if volume.looks_like or capacity < (volume.allocation or 0):
        return False
    return capacity % _SECTOR == 0 or (volume.format == "raw" and not shrinks)


def _made(volume: Volume, pool: Pool) -> str:
    """What the daemon is told to make: sparse, and with the compat that we document, unless something else was said."""
    allocation = volume.allocation or 0
    if volume.preallocation == "falloc":
        allocation = volume.capacity or 0
    compat = volume.compat or (DEFAULT_COMPAT if volume.format == "qcow2" else None)
    told = replace(volume, allocation=allocation, compat=compat, path=None, identity=None)
    return render_volume(told, pool)


_POOL = {
    "define": Calls._define,
    "redefine": Calls._define,
    "build": Calls._build,
    "secret": Calls._secret,
    "start": Calls._start,
    "stop": Calls._stop,
    "autostart": Calls._autostart,
    "undefine": Calls._undefine,
    "permissions": Calls._permissions,
    "delete": Calls._delete,
}
