# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The libvirt engine: pools and volumes of a running daemon, through its API.

Where the daemon runs on this host and sees the same files, what it has no call for is done beside it, and it is told to
look again. Otherwise the daemon is all there is: its own words are taken for what is there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..host import peers
from ..host.daemon import Daemon, PoolLook
from ..host.locks import locked
from ..host.look import Look
from ..libvirt_xml.pool import parse_pool
from ..model.change import Change, Condition
from ..model.definition import keep_names
from ..model.errors import StorageError
from ..model.found import (
    ABOVE,
    EVERYTHING,
    ITSELF,
    READY,
    SOURCE,
    UNKNOWN_STORAGE,
    UNSEEN,
    Found,
    Layer,
    Neighbour,
    Storage,
    Usage,
    User,
)
from ..model.goal import Scope
from ..model.pool import UNDECLARED, Pool, SourceVolume, overlay
from ..model.types import POOL_TYPES, row_of
from .local import (
    LocalHost,
    arrange,
    beneath_of,
    device_paths,
    hosts_of,
    initiator_of,
    paths_of,
    process,
    restarting_key,
    with_note_of_restart,
)
from .places import daemon_places

if TYPE_CHECKING:  # nothing else needs it than what looks for sources
    from ..model.discovery import Discovery, Query
    from ..model.secrets import SecretObject
    from ..model.volume import Extent

_FAR = "only the daemon can look at it"
_OF_IDENTITY = ("identity", "device")
_FEW = 50  # so many volumes are compared with what the daemon remembers of them, also where nothing is to be changed
_UNLISTABLE = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # libvirt, storage driver: names it skips


class LibvirtEngine:
    """See converge.Engine. ``execute`` is the only method that changes the host."""

    parallel = True
    name = "libvirt"

    def __init__(self, uri: str, why: str, timeout: float) -> None:
        self.uri, self.why = uri, why
        self.timeout = timeout
        self.remote = peers.is_remote(uri)
        self.places = daemon_places()
        self.host = LocalHost(self.places, timeout)
        self.daemon = Daemon(uri, timeout, why)
        self._locks: tuple[int, ...] = ()
        self._supported: frozenset[str] | None = None
        self._directory: str | None = None

    @cached_property
    def _pid(self) -> int | None:
        """The daemon's process on this host; looked for once there is a connection."""
        return None if self.remote else peers.daemon_process(self.uri)

    # --- locks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, pool: str, definitions: bool, check: bool) -> Iterator[bool]:
        self.daemon.open(changing=not check)
        try:
            if check:
                yield False
                return
            names = [("definitions.lock", "the set of pool definitions")] if definitions else []
            names.append((f"pool-{pool}.lock", f"pool {pool}"))
            with locked(self._lock_directory(), names, self.timeout) as descriptors:
                self._locks = descriptors
                yield True
        finally:
            self.host.release()
            self.daemon.close()

    def _lock_directory(self) -> str:
        """The pools of another host are not those of this one that have the same names."""
        if not self.remote:
            return self.places.locks
        return os.path.join(self.places.locks, hashlib.sha256(self.uri.encode()).hexdigest()[:16])

    # --- looking -----------------------------------------------------------------------------------------------------

    def pool_names(self) -> list[str]:
        return self.daemon.pool_names()

    def _neighbours(self, but: str) -> tuple[Neighbour, ...]:
        """The other pools: as they are defined and, where that is another place, as they run."""
        told = ((parse_pool(text), runs) for text, runs in self.daemon.definitions(but))
        pools = {(pool.name, pool.path): (pool, runs) for pool, runs in told}
        return tuple(
            Neighbour(
                pool,
                self._resolved(pool.path) if pool.path else None,
                tuple(map(self._resolved, device_paths(pool))),
                runs,
                self.host.servers.identity(pool.path) if pool.path and self._pid is not None else None,
            )
            for pool, runs in pools.values()
        )

    def _resolved(self, path: str) -> str:
        return self.host.servers.resolved(path) if self._pid is not None else path

    def _at_hand(self, pool: Pool) -> bool:
        """Whether we see the files of the pool as the daemon does, and may work on them beside it. Of one that nobody
        has said anything of yet that is what volumes would be made from.
        """
        known = pool.type is not None and POOL_TYPES[pool.type].beside and pool.path is not None
        if known and self._pid is not None:
            self.host.servers.check(pool.path or "", f"pool {pool.name}")
        return (
            self._pid is not None
            and (known or pool.type is None)
            and peers.may_stand_in(self._pid)
            and peers.same_files(self._pid, pool.path or "/")
        )

    def observe(self, scope: Scope) -> Found:
        """One look at one pool, as deep as the scope asks. The daemon is never told to refresh."""
        name = scope.pool.name
        look = self.daemon.pool(name) or PoolLook(False, False, None, None, None)
        definition = None if look.definition is None else parse_pool(look.definition)
        live = None if look.live is None else parse_pool(look.live)
        # Volumes are where the pool runs; a definition may wait for the next start.
        existing = (definition or live) if scope.neighbours else (live or definition)
        resolved = {path: self._resolved(path) for path in paths_of((scope.pool, existing))}
        neighbours = self._neighbours(name) if scope.neighbours else ()
        pools = (scope.pool, existing, *(neighbour.pool for neighbour in neighbours))
        hosts = hosts_of(pools) if self._pid is not None else {}
        wanted = scope.pool
        if existing is not None:
            wanted = keep_names(overlay(existing, scope.pool), existing, resolved, hosts)
        host = self.host.look()
        at_hand = self._at_hand(wanted)
        storage = self._storage(wanted, live, at_hand, host, scope.holds)
        same = existing is None or (existing.type, existing.path) == (wanted.type, wanted.path)
        current = storage if same or existing is None else self._storage(existing, live, at_hand, host)
        runs = (
            current
            if live is None or existing is None or live.path == existing.path
            else self._storage(live, live, at_hand, host)
        )
        devices = device_paths(wanted)
        found = Found(
            name,
            definition,
            look.definition,
            live,
            autostart=look.autostart,
            started=look.active,
            restarting=scope.neighbours and self.host.is_restarting(restarting_key(name, self.uri)),
            active=look.active and runs.kind in (READY, UNSEEN),
            storage=storage,
            current=current,
            usage=None if at_hand or look.usage is None else Usage(*look.usage),
            neighbours=neighbours,
            unwritable="" if not at_hand or not storage.read_only else f"{storage.path} is on a read-only filesystem",
            unsupported=self._unsupported(wanted),
            defines_all=False,
            learned=True,  # libvirt, storage driver: a pool that is refreshed gets its directory's owner, group, mode
            keeps_unknown=False,
            process=process() if at_hand else None,
            resolved=resolved,
            hosts=hosts,
            initiator=initiator_of(wanted) if self._pid is not None else "",
            secrets=self._secrets(name, (wanted, existing), neighbours) if scope.neighbours else (),
        )
        self._directory = storage.path if at_hand and storage.kind == READY else None
        if at_hand:
            return self._unlisted(self.host.contents(found, wanted, scope, host), scope)
        from .far import observe_far

        found = replace(found, beside=self._beside(devices), devices=self._contents(found, wanted, devices, scope))
        return observe_far(found, scope, self.daemon)

    def _secrets(
        self, name: str, pools: Sequence[Pool | None], neighbours: Sequence[Neighbour]
    ) -> tuple[SecretObject, ...]:
        named = any(pool is not None and pool.source.auth is not None for pool in pools)
        if not named and not any(pool is not None and "auth" in row_of(pool.type).optional for pool in pools):
            return ()
        from .far import guests_told
        from .secrets import auths_of, directory_of_daemon, own_auths, told_by, with_users

        at_hand = self._pid is not None and peers.may_stand_in(self._pid)
        directory = directory_of_daemon(self._pid, self.uri, self.places.secrets) if at_hand and self._pid else ""
        try:
            found = told_by(self.daemon, (*auths_of(pools), *own_auths(name)), directory)
        except StorageError as error:
            if (named and error.code != "daemon_cannot") or any(
                pool is not None and pool.secret is not None for pool in pools
            ):
                raise
            return ()
        return with_users(found, neighbours, (), lambda: guests_told(self.daemon))

    def layer(self, wanted: SourceVolume, upper: Pool) -> Layer:
        from .layers import lasting, layer_of, printed

        named = printed if row_of(upper.type).as_printed else lasting
        return layer_of(self, wanted, lambda path: named(path) if self._beside([path]) else path)

    def _beside(self, paths: Sequence[str]) -> bool:
        """Whether these are the same files for the daemon as for us, and we may do with them what it may."""
        pid = self._pid
        return pid is not None and peers.may_stand_in(pid) and all(peers.same_files(pid, path) for path in paths)

    def _contents(self, found: Found, wanted: Pool, devices: Sequence[str], scope: Scope) -> dict[str, str]:
        """What is on the devices of a pool that may be built or was deleted."""
        if found.runs_on(wanted) or not scope.neighbours or "build" not in row_of(wanted.type).daemon or not devices:
            return {}
        if not self._beside(devices):
            return {}
        from ..host.devices import content_of

        return {path: content_of(path, self.timeout) for path in devices}

    def _storage(self, pool: Pool, live: Pool | None, at_hand: bool, look: Look, holds: bool = False) -> Storage:
        if at_hand:
            return self.host.storage(pool, look, holds)
        if self._unsupported(pool):
            return Storage(UNKNOWN_STORAGE, pool.path, self._unsupported(pool))
        return Storage(UNSEEN, pool.path, _FAR, permissions=UNDECLARED if live is None else live.permissions)

    def _unsupported(self, pool: Pool) -> str:
        if pool.type is None:
            return ""
        if self._supported is None:
            self._supported = _supported_types(self.daemon.capabilities())
        known = pool.type in self._supported
        return "" if known else f"the daemon of {self.uri} does not support pools of type {pool.type}"

    def _unlisted(self, found: Found, scope: Scope) -> Found:
        """Adds the volumes that the daemon does not list although they are there, and those that are gone."""
        if not found.started or scope.volumes == () or found.storage.kind != READY:
            return found
        listed = self.daemon.volume_names(found.name)
        names = {*found.volumes, *listed} if scope.volumes is None else scope.volumes
        there = {name for name, volume in found.volumes.items() if not volume.foreign}
        unlisted = {name for name in names if (name in there) != (name in listed) and not _UNLISTABLE.search(name)}
        if len(names) <= _FEW:
            unlisted |= self._mistaken(found, [name for name in names if name in there and name in listed])
        return replace(found, unlisted=tuple(sorted(unlisted)))

    def _mistaken(self, found: Found, names: Sequence[str]) -> set[str]:
        """The volumes that the daemon takes for images of another format: those that were replaced since it looked."""
        from ..libvirt_xml.volume import parse_found_volume

        seen = map(parse_found_volume, self.daemon.volumes(found.name, names)) if names else ()
        formats = {volume.name: volume.format for volume in seen}
        return {
            name
            for name, image_format in formats.items()
            if not found.volumes[name].looks_like and found.volumes[name].format != image_format
        }

    def observe_users(self, found: Found, stakes: Mapping[str, str]) -> Found:
        if not stakes:
            return found
        from .far import far_users, guests_told, overlays_told

        if found.storage.kind == UNSEEN:
            if SOURCE in stakes:
                found = self._with_devices(found)
            if ABOVE in stakes:
                found = self._with_above(found)
            if ITSELF in stakes:
                found = self._with_busy(found)
            stakes = {name: stake for name, stake in stakes.items() if name not in (SOURCE, ABOVE, ITSELF)}
            if not stakes:
                return found
            if self._sees_volumes(found, stakes):
                return self._seen_here(found, stakes)
            return far_users(found, stakes, self.daemon, self.host)
        known = [name for name in stakes if name in found.volumes and name not in found.unlisted]
        mistaken = self._mistaken(found, known) if found.started else set()
        found = replace(found, unlisted=tuple(sorted({*found.unlisted, *mistaken})))
        deep = any(stake == EVERYTHING for stake in stakes.values())
        neighbours = self._neighbours(found.name) if deep else ()
        silent = [n for n in neighbours if n.pool.path is not None and self.host.servers.silent(n.pool.path)]
        neighbours = tuple(n for n in neighbours if n not in silent)
        unseen = tuple(f"the images in {n.pool.path}" for n in silent)
        visible = tuple(n for n in neighbours if n.pool.path is None or self._beside([n.pool.path]))
        found = replace(found, unseen=(*found.unseen, *unseen))
        found = self.host.observe_users(found, stakes, lambda: visible, lambda: guests_told(self.daemon))
        return overlays_told(found, stakes, [n.pool.name for n in neighbours if n not in visible], self.daemon)

    def _seen_here(self, found: Found, stakes: Mapping[str, str]) -> Found:
        """Adds who uses volumes of this host, of which the daemon alone tells what is in them."""
        from .far import with_overlays

        seen = self._looked_for(found, stakes)
        found = replace(found, users=seen.users, unseen=seen.unseen, beneath=seen.beneath, blind=seen.blind)
        return with_overlays(found, stakes, self.daemon)

    def _with_devices(self, found: Found) -> Found:
        """Adds the devices that the daemon would take, and who has them."""
        from .local import device_parts

        look = self.host.look()
        parts = device_parts(found, look)
        found = replace(found, storage=replace(found.storage, parts=parts))
        return self._looked_for(found, {SOURCE: EVERYTHING})

    def _with_above(self, found: Found) -> Found:
        """Adds the pools that run on its volumes."""
        neighbours = self._neighbours(found.name)
        if self._sees_volumes(found, dict.fromkeys(found.volumes, EVERYTHING)):
            from .native_users import with_above

            return with_above(found, neighbours, self.host.servers)
        from .far import pools_told

        return pools_told(found, neighbours)

    def _with_busy(self, found: Found) -> Found:
        """Adds who would keep the daemon from taking the pool down, where that is on this host. It is looked for among
        the mounts that the daemon sees.
        """
        pool = found.live or found.definition
        if pool is None or pool.path is None or self._pid is None or not peers.may_stand_in(self._pid):
            return found
        busy: tuple[User, ...] = ()
        unseen: tuple[str, ...] = ()
        if found.row.mounted:
            from ..host.mount_users import users_at

            busy, unseen = users_at(self._resolved(pool.path), str(self._pid))
        elif self._beside([pool.path]):
            try:
                busy, unseen = self.host.busy(pool, found.current)
            except StorageError as error:  # the daemon may have the tools that we lack
                unseen = (f"who uses {pool.path} ({error.message})",)
        return replace(found, current=replace(found.current, busy=busy), unseen=(*found.unseen, *unseen))

    def _looked_for(self, found: Found, stakes: Mapping[str, str]) -> Found:
        """Adds who is seen on this host to use what is at stake."""
        from .far import guests_told

        return self.host.observe_users(
            found, stakes, lambda: self._neighbours(found.name), lambda: guests_told(self.daemon)
        )

    def _sees_volumes(self, found: Found, stakes: Mapping[str, str]) -> bool:
        """Whether what is at stake are files or devices of this host, so that we can look at who uses them: volumes,
        and what they are cut from.
        """
        paths = [found.volumes[name].path or "" for name in stakes if name in found.volumes]
        paths += beneath_of(found, stakes)
        reached = all(path.startswith("/") and self.host.servers.silent(path) is None for path in paths)
        return reached and all(map(os.path.exists, paths)) and self._beside(paths)

    def observe_remains(self, found: Found, places: Mapping[str, Extent]) -> Found:
        return self.host.observe_remains(found, places)

    def find_sources(self, query: Query, seconds: float) -> Discovery:
        from .far import guests_told
        from .sources import look_through, settled

        look = self.host.look(seconds)
        self.daemon.timeout = seconds
        if not self.daemon.is_open:
            self.daemon.open(changing=True)
        at_hand = self._beside(["/dev"])
        supported = not self._unsupported(Pool("", query.type))
        discovery = look_through(query, self.daemon, look, at_hand, supported)
        self.daemon.timeout = look.rest
        pools = [parse_pool(text) for text, _runs in self.daemon.definitions("")]
        guests, unseen = guests_told(self.daemon) if row_of(query.type).on_devices else ((), ())
        return settled(query, discovery, pools, guests, unseen)

    # --- lowering ----------------------------------------------------------------------------------------------------

    def lower(self, changes: Sequence[Change], found: Found) -> list[Any]:
        if not changes and not found.restarting:
            return []
        from .calls import Calls

        calls = Calls(self.uri, self.host, found, changes)
        note = self.host.notes.started_path(restarting_key(found.name, self.uri))
        return with_note_of_restart(arrange(changes, calls.of_pool, calls.of_volumes), changes, found, note)

    def lacking(self, steps: Sequence[Any]) -> tuple[StorageError, ...]:
        return self.host.lacking(steps)

    # --- changing ----------------------------------------------------------------------------------------------------

    def broken(self, conditions: Mapping[int, Sequence[Condition]]) -> dict[int, StorageError]:
        """Of what only the daemon can look at there is no identity to compare."""
        if self._pid is None:
            return self.host.broken_by_guests(conditions)
        known = {
            index: [c for c in group if c.expected or c.kind not in _OF_IDENTITY] for index, group in conditions.items()
        }
        return self.host.broken(known)

    def prepare(self) -> None:
        self.host.prepare(self._locks)

    def execute(self, operation: Any) -> None:
        from ..model.daemon_calls import DaemonCall, SecretCall

        if not isinstance(operation, (DaemonCall, SecretCall)):
            self.host.execute(operation)
            return
        try:
            self.daemon.call(operation)
        except StorageError as error:
            if operation.verb in ("pool-refresh", "pool-start") and self._directory is not None:
                self._name_culprit(error, self._directory)
            raise

    @staticmethod
    def _name_culprit(error: StorageError, directory: str) -> None:
        """libvirt says of a cut-off image only that something went wrong (storage driver: header of qcow2)."""
        from ..backends.filetree import cut_off

        names = cut_off(directory)
        if names:
            error.message += f"; it can't read {', '.join(names)} in {directory}: cut-off qcow2 images"
            error.hint = "Move them away, and start the pool again (state: active)."


def _supported_types(capabilities: str | None) -> frozenset[str]:
    """Of the daemon's own list; all that libvirt has where it gives none (the test driver)."""
    from ..libvirt_xml.capabilities import supported_types

    return frozenset(POOL_TYPES) if capabilities is None else supported_types(capabilities)
