# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The native engine: libvirt's own definition and state files, without a daemon, and a backend per pool type."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..host.files import read_small_file
from ..host.identity import Pins, changed_meanwhile, identity_of
from ..host.locks import locked
from ..host.run import tool_missing
from ..libvirt_xml.pool import parse_pool
from ..model.change import Change, Condition
from ..model.errors import StorageError
from ..model.found import ABSENT, PIN, READY, UNKNOWN_STORAGE, Found, Neighbour, Storage
from ..model.goal import Scope
from ..model.pool import Pool, overlay
from .places import Places

_NO_BACKEND = "this type has no backend yet"


def _backend(pool_type: str | None) -> Any:
    """The backend module of a pool type; None where there is none yet. Imported only when needed: see
    docs/architecture.md.
    """
    if pool_type == "dir":
        from ..backends import dir as backend

        return backend
    return None


def _read(path: str) -> str | None:
    data = read_small_file(path)
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _parse(path: str, text: str | None, name: str) -> Pool | None:
    """The pool of a definition or state file, whose name must be that of the file, as libvirt has it."""
    if text is None:
        return None
    hint = f"Repair or remove {path}."
    try:
        pool = parse_pool(text)
    except StorageError as error:
        if error.code == "library_missing":
            raise
        raise StorageError("invalid_xml", f"{path}: {error.message}", subject=f"pool {name}", hint=hint) from error
    if pool.name != name:
        raise StorageError("invalid_xml", f"{path} defines the pool {pool.name}", subject=f"pool {name}", hint=hint)
    return pool


def _unwritable(path: str) -> str:
    """Why nothing can be written at ``path`` or, where it is not there, in its nearest parent; empty when it can."""
    while path.strip("/") and not os.path.exists(path):
        path = os.path.dirname(path)
    return "" if os.access(path or "/", os.W_OK | os.X_OK) else f"{path} is not writable"


def _of_volumes(change: Change) -> bool:
    """Whether a change is made in the pool's volumes rather than in its definition and state."""
    return change.subject.volume is not None or change.action == "clean"


class NativeEngine:
    """``execute`` is the only method that changes the host; everything else looks, or makes data."""

    parallel = True
    name = "native"

    def __init__(self, places: Places, timeout: float) -> None:
        self.places = places
        self.timeout = timeout
        self._locks: tuple[int, ...] = ()
        self._applier: Any = None
        self._pins = Pins()

    # --- locks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, pool: str, definitions: bool, check: bool) -> Iterator[bool]:
        """Around one look and what follows from it. Yields whether the pool is locked, with all definitions where those
        change. It is not in check mode, nor where there can be no lock: then nothing can be changed, and what is found
        says so (``unwritable``).
        """
        names = [("definitions.lock", "the set of pool definitions")] if definitions else []
        names.append((f"pool-{pool}.lock", f"pool {pool}"))
        try:
            if check or _unwritable(self.places.locks):
                yield False
                return
            with locked(self.places.locks, names, self.timeout) as descriptors:
                self._locks = descriptors
                yield True
        finally:
            self._pins.release()

    # --- looking -----------------------------------------------------------------------------------------------------

    def _definition_path(self, name: str) -> str:
        return os.path.join(self.places.config, f"{name}.xml")

    def _state_path(self, name: str) -> str:
        return os.path.join(self.places.run, f"{name}.xml")

    def _autostart_path(self, name: str) -> str:
        return os.path.join(self.places.config, "autostart", f"{name}.xml")

    def _record_path(self, path: str) -> str:
        return os.path.join(self.places.records, hashlib.sha256(os.fsencode(path)).hexdigest())

    def _made_inode(self, path: str) -> int | None:
        """The inode of the directory that we made at ``path``, from our record of it."""
        text = _read(self._record_path(path))
        match = re.match(r"([0-9]+) ", text or "")
        return int(match.group(1)) if match else None

    def pool_names(self) -> list[str]:
        """Every pool that has a definition or a state file."""
        names: set[str] = set()
        for directory in (self.places.config, self.places.run):
            try:
                names.update(entry[: -len(".xml")] for entry in os.listdir(directory) if entry.endswith(".xml"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise StorageError(
                    "not_readable",
                    f"{directory}: {error.strerror}",
                    subject=directory,
                    hint="Run as a user who may read it (become: true).",
                ) from error
        return sorted(names)

    def _neighbours(self, but: str) -> tuple[tuple[Neighbour, ...], tuple[str, ...]]:
        """The other pools, and those that can't be read."""
        neighbours, unread = [], []
        for name in self.pool_names():
            if name == but:
                continue
            try:
                text = _read(self._definition_path(name)) or _read(self._state_path(name))
                pool = _parse(self._definition_path(name), text or "", name)
            except StorageError as error:
                unread.append(f"{name} ({error.message})")
                continue
            if pool is not None:
                neighbours.append(Neighbour(pool, os.path.realpath(pool.path) if pool.path else None))
        return tuple(neighbours), tuple(unread)

    def observe(self, scope: Scope) -> Found:
        """One look at one pool, as deep as the scope asks."""
        name = scope.pool.name
        text = _read(self._definition_path(name))
        state_text = _read(self._state_path(name))
        definition = _parse(self._definition_path(name), text, name)
        live = _parse(self._state_path(name), state_text, name)
        existing = definition or live
        wanted = scope.pool if existing is None else overlay(existing, scope.pool)
        storage = self._storage(wanted, scope.holds)
        current = storage if existing is None or existing.path == wanted.path else self._storage(existing, False)
        started = live is not None
        backend = _backend(wanted.type)
        autostart = self._autostart_path(name)
        neighbours, unread = self._neighbours(name) if scope.neighbours else ((), ())
        paths = (wanted.path, existing.path if existing is not None else None)
        found = Found(
            name,
            definition,
            text,
            live,
            autostart=os.path.exists(autostart)
            and os.path.exists(self._definition_path(name))
            and os.path.samefile(autostart, self._definition_path(name)),
            started=started,
            active=backend is not None and existing is not None and backend.is_up(existing, current, started),
            storage=storage,
            current=current,
            neighbours=neighbours,
            unread=unread,
            unwritable=self._unwritable_reason(scope, storage),
            filesystem="" if backend is None else backend.filesystem(wanted),
            process=None if os.geteuid() == 0 else (os.geteuid(), frozenset({os.getegid(), *os.getgroups()})),
            resolved={path: os.path.realpath(path) for path in paths if path},
        )
        if backend is not None and storage.kind == READY:
            found = backend.observe_volumes(found, scope)
        if scope.images or scope.sources or any(volume.backing for volume in found.volumes.values()):
            from .native_images import observe_images

            found = observe_images(found, scope)
        return found

    def _unwritable_reason(self, scope: Scope, storage: Storage) -> str:
        if not scope.neighbours:  # a task about volumes
            if storage.kind == READY and not storage.writable:
                return f"{storage.path} is not writable"
            return _unwritable(self.places.locks)
        paths = [self.places.locks, self.places.config, self.places.run]
        if storage.path and storage.kind == ABSENT:
            paths.append(os.path.dirname(storage.path))
        return next(filter(None, map(_unwritable, paths)), "")

    def _storage(self, pool: Pool, holds: bool) -> Storage:
        backend = _backend(pool.type)
        if backend is None:
            return Storage(UNKNOWN_STORAGE, pool.path, _NO_BACKEND)
        storage: Storage = backend.observe(pool, self._made_inode(pool.path or ""), holds)
        return storage

    def observe_users(self, found: Found, stakes: Mapping[str, str]) -> Found:
        """Holds on to the volumes at stake, and adds to what was found who uses them, as much as each stake asks."""
        if not stakes:
            return found
        self._pins.make_room(len(stakes))
        for name in stakes:
            volume = found.volumes.get(name)
            if volume is not None and volume.path and volume.identity:
                self._pins.pin(volume.path, volume.identity)
        if all(stake == PIN for stake in stakes.values()):
            return found
        from .native_images import observe_chains
        from .native_users import observe_users

        return observe_users(
            observe_chains(found, stakes), stakes, self.places.guests, lambda: self._neighbours(found.name)[0]
        )

    # --- lowering ----------------------------------------------------------------------------------------------------

    def lower(self, changes: Sequence[Change], found: Found) -> list[Any]:
        """The operations of each change, as data. Pool changes come one after the other, volume changes as they need
        each other.
        """
        if not changes:
            return []
        import uuid

        from ..model.operations import Step

        steps: list[Any] = []
        volume_changes = [change for change in changes if _of_volumes(change)]
        fresh = str(uuid.uuid4())
        stays_up = found.started and not any(change.action == "stop" for change in changes)
        for change in changes:
            if _of_volumes(change):
                if change is volume_changes[0]:
                    self._append_volumes(steps, volume_changes, found)
                continue
            needs = tuple(range(len(steps)))
            steps.append(Step(tuple(self._lower_pool(change, found, fresh, stays_up)), change, needs))
        return steps

    def _append_volumes(self, steps: list[Any], changes: Sequence[Change], found: Found) -> None:
        pool = found.definition or found.live
        backend = _backend(None if pool is None else pool.type)
        if backend is None:
            return  # an earlier task would have made the pool
        offset = len(steps)
        for step in backend.lower_volumes(changes, found):
            needs = tuple(need + offset for need in step.needs) or ((offset - 1,) if offset else ())
            steps.append(step._replace(needs=needs))

    def _lower_pool(self, change: Change, found: Found, fresh: str, stays_up: bool) -> Iterator[Any]:
        from ..libvirt_xml.pool import render_definition, render_state
        from ..model import operations as ops

        name, pool = change.subject.pool, change.wanted
        if pool is None or pool.type is None:
            return  # an earlier task would have defined it
        backend, record = _backend(pool.type), self._record_path(pool.path or "")
        if change.action in ("define", "redefine"):
            pool = replace(pool, uuid=pool.uuid or fresh)
            if change.action == "redefine" and stays_up:
                # First, so that a task that is killed between the two finds the definition still to be changed.
                yield ops.WriteFile(self._state_path(name), render_state(pool, found.definition_text))
            yield ops.WriteFile(self._definition_path(name), render_definition(pool, found.definition_text))
        elif change.action == "start":
            identity = found.definition.uuid if found.definition else None
            yield from backend.lower(change, record)
            yield ops.WriteFile(
                self._state_path(name),
                render_state(replace(pool, uuid=pool.uuid or identity or fresh), found.definition_text),
            )
        elif change.action == "stop":
            yield from () if backend is None else backend.lower(change, record)
            yield ops.Remove(self._state_path(name))
        elif change.action == "autostart":
            link = self._autostart_path(name)
            if change.after and change.after.get("autostart") is False:
                yield ops.Remove(link)
            else:
                yield ops.MakeLink(link, self._definition_path(name))
        elif change.action == "undefine":
            if found.autostart:
                yield ops.Remove(self._autostart_path(name))
            yield ops.Remove(self._definition_path(name))
        else:
            yield from backend.lower(change, record)

    def lacking(self, steps: Sequence[Any]) -> tuple[StorageError, ...]:
        """The tools that the steps need and this host does not have: an earlier task of a play may install them."""
        if not steps:
            return ()
        from ..model.operations import Run

        runs = {op.argv[0]: op for step in steps for op in step.operations if isinstance(op, Run)}
        return tuple(tool_missing(tool, op.package) for tool, op in runs.items() if shutil.which(tool) is None)

    # --- changing ----------------------------------------------------------------------------------------------------

    def broken(self, conditions: Mapping[int, Sequence[Condition]]) -> dict[int, StorageError]:
        """Which of the conditions, by step, hold no longer; all are looked at together."""
        failed: dict[int, StorageError] = {}
        unused: dict[str, int] = {}
        for index, group in conditions.items():
            for condition in group:
                if condition.kind == "unused":
                    unused[condition.path] = index
                elif not _same_file(condition):
                    failed[index] = changed_meanwhile(condition.path, "was replaced or went away")
        if unused:
            from ..host.users import users_of

            users = users_of({path: path for path in unused})[0]
            for path, found in users.items():
                if found:
                    failed[unused[path]] = changed_meanwhile(path, f"was taken into use by {found[0]}")
        return failed

    def prepare(self) -> None:
        """Before the first operation is executed."""
        from ..host.apply import Applier

        self._applier = Applier(self._locks)

    def execute(self, operation: Any) -> None:
        self._applier.apply(operation)


def _same_file(condition: Condition) -> bool:
    try:
        return identity_of(os.lstat(condition.path)) == condition.expected
    except OSError:
        return False
