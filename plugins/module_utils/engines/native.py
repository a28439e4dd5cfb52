# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The native engine: libvirt's own definition and state files, without a daemon, and a backend per pool type."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..backends.by_type import backend_of
from ..host.files import read_small_file
from ..host.locks import locked
from ..host.look import Look
from ..libvirt_xml.pool import parse_pool
from ..model.change import BRING_UP, EMPTIED, TAKE_DOWN, Change, Condition
from ..model.definition import defined, keep_names
from ..model.errors import StorageError
from ..model.found import ABSENT, ENABLED, NO_UNIT, SQUASHING, Boot, Found, Layer, Neighbour, Storage
from ..model.goal import Scope
from ..model.pool import Pool, SourceVolume, is_elsewhere, overlay
from ..model.types import row_of
from .local import (
    LocalHost,
    arrange,
    device_paths,
    emptied_key,
    emptied_note,
    hosts_of,
    initiator_of,
    login_key,
    no_backend,
    paths_of,
    process,
    restarting_key,
    start_note,
    unwritable,
    with_note_of_restart,
)
from .places import Places

if TYPE_CHECKING:  # nothing else needs it than what looks for sources
    from ..model.discovery import Discovery, Query
    from ..model.secrets import SecretObject
    from ..model.volume import Extent
    from .boot import BootUnit


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


def _is_moved(live: Pool | None, definition: Pool | None) -> bool:
    """Whether a pool runs on other storage than its definition says."""
    return definition is not None and is_elsewhere(live, definition, row_of(definition.type).port)


def _same_source(pool: Pool | None, other: Pool) -> bool:
    other = defined(other)
    return pool is not None and (pool.type, pool.path, pool.source) == (other.type, other.path, other.source)


def _same_place(pool: Pool, other: Pool) -> bool:
    other = defined(other)
    return _same_source(pool, other) and pool.mount_options == other.mount_options


class NativeEngine:
    """See converge.Engine. ``execute`` is the only method that changes the host."""

    parallel = True
    name = "native"

    def __init__(self, places: Places, timeout: float) -> None:
        self.uri, self.why = places.uri, places.why
        self.places = places
        self.timeout = timeout
        self.host = LocalHost(places, timeout)
        self._locks: tuple[int, ...] = ()

    # --- locks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, pool: str, definitions: bool, check: bool) -> Iterator[bool]:
        """Where there can be no lock, nothing can be changed either, and what is found says so (``unwritable``)."""
        names = [("definitions.lock", "the set of pool definitions")] if definitions else []
        names.append((f"pool-{pool}.lock", f"pool {pool}"))
        try:
            if check or unwritable(self.places.locks):
                yield False
                return
            with locked(self.places.locks, names, self.timeout) as descriptors:
                self._locks = descriptors
                yield True
        finally:
            self.host.release()

    # --- looking -----------------------------------------------------------------------------------------------------

    def _definition_path(self, name: str) -> str:
        return os.path.join(self.places.config, f"{name}.xml")

    def _state_path(self, name: str) -> str:
        return os.path.join(self.places.run, f"{name}.xml")

    def _autostart_path(self, name: str) -> str:
        return os.path.join(self.places.config, "autostart", f"{name}.xml")

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

    def _neighbours(self, but: str, look: Look) -> tuple[tuple[Neighbour, ...], tuple[str, ...]]:
        """The other pools: as they run, where that is elsewhere, and as they are defined; and what can't be read."""
        neighbours: list[Neighbour] = []
        unread: list[str] = []
        for name in self.pool_names():
            for pool, started in self._places_of(name, unread) if name != but else ():
                place = look.servers.resolved(pool.path) if pool.path else None
                devices = tuple(map(look.servers.resolved, device_paths(pool)))
                identity = look.servers.identity(place) if place else None
                neighbours.append(Neighbour(pool, place, devices, started, identity))
        return tuple(neighbours), tuple(unread)

    def _places_of(self, name: str, unread: list[str]) -> Iterator[tuple[Pool, bool]]:
        """Where a pool runs and where it will, each with whether it does; one that runs as it is defined has but one
        place. Why a file can't be read is added to ``unread``.
        """
        told: dict[str, Pool | None] = {}
        for path in (self._state_path(name), self._definition_path(name)):
            try:
                told[path] = _parse(path, _read(path), name)
            except StorageError as error:
                unread.append(f"{name} ({error.message})")
        live, definition = told.get(self._state_path(name)), told.get(self._definition_path(name))
        moved = _is_moved(live, definition)
        if live is not None and (moved or definition is None):
            yield live, True
        if definition is not None:
            yield definition, not moved and os.path.exists(self._state_path(name))

    def observe(self, scope: Scope) -> Found:
        """One look at one pool, as deep as the scope asks."""
        name = scope.pool.name
        text = _read(self._definition_path(name))
        definition = _parse(self._definition_path(name), text, name)
        live = _parse(self._state_path(name), _read(self._state_path(name)), name)
        # What was started is what is stopped; volumes are where the pool runs, whatever a definition says since.
        running = live if _is_moved(live, definition) else definition or live
        existing = (definition or live) if scope.neighbours else running
        look = self.host.look()
        resolved = {path: look.servers.resolved(path) for path in paths_of((scope.pool, existing, running))}
        neighbours, unread = self._neighbours(name, look) if scope.neighbours else ((), ())
        hosts = hosts_of((scope.pool, existing, running, *(neighbour.pool for neighbour in neighbours)))
        wanted = scope.pool
        if existing is not None:
            wanted = keep_names(overlay(existing, scope.pool), existing, resolved, hosts)
        secrets = self._secrets((wanted, existing), neighbours, unread, scope)
        look.secrets = secrets
        started = live is not None
        current = None if running is None or _same_place(running, wanted) else self.host.storage(running, look)
        if started and current is not None and current.up and not _same_source(running, wanted):
            look.leaving = current.path or ""
        storage = self.host.storage(wanted, look, scope.holds)
        current = current or storage
        found = Found(
            name,
            definition,
            text,
            live,
            autostart=self._is_autostarted(name),
            started=started,
            restarting=scope.neighbours and self.host.is_restarting(restarting_key(name)),
            active=existing is not None and started and current.open,
            storage=storage,
            current=current,
            neighbours=neighbours,
            unread=unread,
            unwritable=self._unwritable_reason(scope, storage),
            unsupported=no_backend(wanted.type),
            boot=self._boot(name) if scope.boots else Boot(),
            process=process(),
            resolved=resolved,
            hosts=hosts,
            initiator=initiator_of(wanted),
            secrets=secrets,
        )
        return self.host.contents(found, wanted, scope, look)

    def _secrets(
        self, pools: Sequence[Pool | None], neighbours: Sequence[Neighbour], unread: Sequence[str], scope: Scope
    ) -> tuple[SecretObject, ...]:
        """Those that they name; in tasks about the pool itself, with which one may go, also others that were made for
        it, and who else names them.
        """
        named = any(pool is not None and pool.source.auth is not None for pool in pools)
        own = scope.neighbours and any(pool is not None and "auth" in row_of(pool.type).optional for pool in pools)
        if not named and not own:
            return ()
        from .secrets import auths_of, kept_in, with_users

        try:
            found = kept_in(self.places.secrets, auths_of(pools), scope.pool.name if scope.neighbours else "")
        except StorageError:
            if named:
                raise
            return ()
        return with_users(found, neighbours, unread, self._guests) if scope.neighbours else found

    def layer(self, wanted: SourceVolume, upper: Pool) -> Layer:
        from .layers import lasting, layer_of

        return layer_of(self, wanted, lasting)

    def _is_autostarted(self, name: str) -> bool:
        link, definition = self._autostart_path(name), self._definition_path(name)
        return os.path.exists(link) and os.path.exists(definition) and os.path.samefile(link, definition)

    def _marked(self) -> list[str]:
        """The pools that are to be started at boot."""
        return [name for name in self.pool_names() if self._is_autostarted(name)]

    def marked_pools(self) -> dict[str, Pool]:
        """The same, with what can be told of them where a definition can't be read."""
        pools = {neighbour.pool.name: neighbour.pool for neighbour in self._neighbours("", self.host.look())[0]}
        return {name: pools.get(name, Pool(name)) for name in self._marked()}

    @cached_property
    def _boot_unit(self) -> BootUnit:
        from .boot import BootUnit

        return BootUnit(self.places)

    def _boot(self, name: str) -> Boot:
        others = any(each != name for each in self._marked())
        return self._boot_unit.look(others, self.is_keyless(name))

    def is_keyless(self, name: str) -> bool:
        """Whether a pool was started with a login, which is kept nowhere."""
        return self.host.notes.made(login_key(name)) is not None

    def _unwritable_reason(self, scope: Scope, storage: Storage) -> str:
        if not scope.neighbours:  # a task about volumes
            as_owners = process() is None and storage.filesystem in SQUASHING and not storage.read_only
            if storage.open and not storage.writable and not as_owners:
                return f"{storage.path} is " + ("on a read-only filesystem" if storage.read_only else "not writable")
            return unwritable(self.places.locks)
        paths = [self.places.locks, self.places.config, self.places.run]
        if storage.path and storage.directory == ABSENT:
            paths.append(os.path.dirname(storage.path))
        return next(filter(None, map(unwritable, paths)), "")

    def observe_users(self, found: Found, stakes: Mapping[str, str]) -> Found:
        return self.host.observe_users(found, stakes, lambda: self._neighbours(found.name, self.host.look())[0])

    def observe_remains(self, found: Found, places: Mapping[str, Extent]) -> Found:
        return self.host.observe_remains(found, places)

    def find_sources(self, query: Query, seconds: float) -> Discovery:
        from .sources import look_here, settled

        discovery = look_here(query, self.host.look(seconds))
        neighbours, unread = self._neighbours("", self.host.look())
        guests, unseen = self._guests() if row_of(query.type).on_devices else ((), ())
        pools = [neighbour.pool for neighbour in neighbours]
        return settled(query, discovery, pools, guests, (*(f"pool {name}" for name in unread), *unseen))

    def _guests(self) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        """Guests' definitions, and those that can't be read."""
        from .native_users import guest_definitions

        unseen: set[str] = set()
        return tuple(guest_definitions(self.places, unseen)), tuple(sorted(unseen))

    # --- lowering ----------------------------------------------------------------------------------------------------

    def lower(self, changes: Sequence[Change], found: Found) -> list[Any]:
        if not changes and not found.restarting:
            return []
        import uuid

        fresh = str(uuid.uuid4())
        stays_up = found.started and not any(change.action == "stop" for change in changes)
        steps = arrange(
            changes,
            lambda change: tuple(self._lower_pool(change, found, fresh, stays_up)),
            lambda of_volumes: _lower_volumes(of_volumes, found),
        )
        note = self.host.notes.started_path(restarting_key(found.name))
        return with_note_of_restart(steps, changes, found, note)

    def _lower_pool(self, change: Change, found: Found, fresh: str, stays_up: bool) -> Iterator[Any]:
        from ..libvirt_xml.pool import render_definition, render_state
        from ..model import operations as ops

        name, pool = change.subject.pool, change.wanted
        if pool is None or pool.type is None:
            return  # an earlier task would have defined it
        if change.action in ("define", "redefine"):
            pool = replace(pool, uuid=pool.uuid or fresh)
            if change.action == "redefine" and stays_up:
                # First, so that a task that is killed between the two finds the definition still to be changed.
                yield ops.WriteFile(self._state_path(name), render_state(pool, found.definition_text))
            yield ops.WriteFile(self._definition_path(name), render_definition(pool, found.definition_text))
            if "old_secret" in (change.before or {}):
                yield from self._forget_secrets(change, found)
        elif change.action == "start":
            yield from self._start(change, found)
            identity = found.definition.uuid if found.definition else None
            pool = replace(pool, uuid=pool.uuid or identity or fresh)
            yield ops.WriteFile(self._state_path(name), render_state(pool, found.definition_text))
        elif change.action == "stop":
            yield from self._stop(change, found)
            yield ops.Remove(self._state_path(name))
        elif change.action == "autostart":
            yield from self._mark(change, found)
        elif change.action == "secret":
            if "old_secret" in (change.before or {}):
                yield from self._forget_secrets(change, found)
            else:
                yield self._keep_secret(pool, found)
        elif change.action == "undefine":
            if "boot_unit" in (change.before or {}):
                yield from self._boot_unit.remove()
            if "auth" in row_of(pool.type).optional:
                yield from self._forget_secrets(change, found)
            if row_of(pool.type).recorded or row_of(pool.type).mounted:
                yield from self._backend(change, found)
            if found.autostart:
                yield ops.Remove(self._autostart_path(name))
            yield ops.Remove(self._definition_path(name))
            if row_of(pool.type).login and self.is_keyless(name):
                yield ops.Remove(self.host.notes.record_path(login_key(name)), note=True)
            if found.storage.bring_up:
                yield ops.Remove(self.host.notes.record_path(emptied_key(name)))
                if not found.started:  # a start that never came to its end
                    yield ops.Remove(self.host.notes.started_path(name))
        else:
            yield from self._backend(change, found)

    def _keep_secret(self, pool: Pool, found: Found) -> Any:
        from ..model.operations import WriteSecret
        from .secrets import object_for, value_for

        uuid, xml = object_for(pool, found)
        return WriteSecret(self.places.secrets, uuid, xml, value_for(pool))

    def _forget_secrets(self, change: Change, found: Found) -> Iterator[Any]:
        """With what tasks that were killed have left of their values."""
        from ..host.secrets import left_by_killed
        from ..model import operations as ops
        from .secrets import forgotten_by, unmade

        directory = self.places.secrets
        gone = forgotten_by(change, found)
        for secret in gone:
            yield ops.Remove(f"{directory}/{secret.uuid}.xml")
            yield ops.Remove(f"{directory}/{secret.uuid}.base64")
        for uuid in (*(secret.uuid for secret in gone), *unmade(found)):
            yield from (ops.Remove(path) for path in left_by_killed(directory, uuid))

    def _mark(self, change: Change, found: Found) -> Iterator[Any]:
        """The mark is the last of it: as long as it is not what it should be, there is something to do."""
        from ..model import operations as ops

        link, claimed = self._autostart_path(change.subject.pool), change.after or {}
        if claimed.get("boot_unit") == ENABLED:
            yield from self._boot_unit.install()
        elif claimed.get("boot_unit") == NO_UNIT:
            yield from self._boot_unit.remove()
        if "comes_back" in claimed:
            yield from self._backend(change, found)
        if claimed.get("autostart") is False:
            yield ops.Remove(link)
        elif claimed.get("autostart") is True:
            yield ops.MakeLink(link, self._definition_path(change.subject.pool))

    def _backend(self, change: Change, found: Found) -> Sequence[Any]:
        backend = backend_of(change.wanted.type)
        return () if backend is None else backend.lower(change, found, self.host.notes)

    def _start(self, change: Change, found: Found) -> Iterator[Any]:
        """It is noted before it is brought up: without a note, what is up counts as adopted and stays."""
        from ..model import operations as ops

        name, notes = change.subject.pool, self.host.notes
        if BRING_UP not in change.may:
            return
        if found.storage.emptied:
            yield ops.Remove(notes.record_path(emptied_key(name)), note=True)
        yield from self._note_login(change)
        first, *others = self._backend(change, found)
        yield ops.Noted(first, notes.started_path(name), start_note(found.storage))
        yield from others

    def _note_login(self, change: Change) -> Iterator[Any]:
        """What starts the pool without being told has to know that it can't."""
        from ..model import operations as ops

        note, login = self.host.notes.record_path(login_key(change.subject.pool)), change.wanted.login
        if login is not None:
            yield ops.WriteFile(note, "", note=True)
        elif row_of(change.wanted.type).login and self.is_keyless(change.subject.pool):
            yield ops.Remove(note, note=True)

    def _stop(self, change: Change, found: Found) -> Iterator[Any]:
        """That it was emptied is noted only of what is down: as long as it is up, anybody may fill it again."""
        from ..model import operations as ops

        name, notes, storage = change.subject.pool, self.host.notes, found.storage
        if TAKE_DOWN in change.may:
            yield from self._backend(change, found)
        if EMPTIED in change.may and storage.mark:
            yield ops.NoteContent(notes.record_path(emptied_key(name)), emptied_note(storage), storage.ground[0])
        if TAKE_DOWN in change.may or found.current.ours:  # what went down by itself and came back is not ours
            yield ops.Remove(notes.started_path(name))

    def lacking(self, steps: Sequence[Any]) -> tuple[StorageError, ...]:
        return self.host.lacking(steps)

    # --- changing ----------------------------------------------------------------------------------------------------

    def broken(self, conditions: Mapping[int, Sequence[Condition]]) -> dict[int, StorageError]:
        return self.host.broken(conditions)

    def prepare(self) -> None:
        self.host.prepare(self._locks)

    def execute(self, operation: Any) -> None:
        self.host.execute(operation)


def _lower_volumes(changes: Sequence[Change], found: Found) -> Sequence[Any]:
    pool = found.running
    backend = backend_of(None if pool is None else pool.type)
    return (
        () if backend is None else backend.lower_volumes(changes, found, lambda change: None)
    )  # none where an earlier task would have made the pool
