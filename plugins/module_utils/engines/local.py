# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What this host's own eyes and hands do for an engine: pools' storage through their backends, who uses a volume, what
must still hold, and operations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..backends.by_type import backend_of
from ..host.files import seals
from ..host.identity import Pins, changed_meanwhile, identity_of
from ..host.look import Look
from ..host.notes import Notes, boot
from ..host.remote import Servers
from ..host.run import tool_missing
from ..model.change import ANYTHING, Change, Condition
from ..model.errors import StorageError
from ..model.found import (
    ABOVE,
    ABSENT,
    BLANK,
    ERASED,
    EVERYTHING,
    GROUND,
    ITSELF,
    KEEPING,
    PIN,
    SOURCE,
    UNKNOWN_STORAGE,
    Found,
    Neighbour,
    Part,
    Storage,
    User,
)
from ..model.goal import Scope
from ..model.pool import Pool
from ..model.types import row_of
from .places import Places

if TYPE_CHECKING:
    from ..backends.contract import Backend
    from ..libvirt_xml.guests import GuestDisks
    from ..model.adapters import Hosts
    from ..model.volume import Extent
    from .guest_watch import GuestWatch, Told

_ELSEWHERE = " as process "  # see host/device_users.py


def no_backend(pool_type: str | None) -> str:
    """Why pools of a type can't be worked on here; empty when they can."""
    return "" if pool_type is None or backend_of(pool_type) else f"pools of type {pool_type} have no backend yet"


def unwritable(path: str) -> str:
    """Why nothing can be written at ``path`` or, where it is not there, in its nearest parent; empty when it can."""
    while path.strip("/") and not os.path.exists(path):
        path = os.path.dirname(path)
    return "" if os.access(path or "/", os.W_OK | os.X_OK) else f"{path} is not writable"


def of_volumes(change: Change) -> bool:
    """Whether a change is made in the pool's volumes rather than in its definition and state."""
    return change.subject.volume is not None or change.action in ("clean", "refresh")


def arrange(
    changes: Sequence[Change],
    lower_pool: Callable[[Change], Sequence[Any]],
    lower_volumes: Callable[[Sequence[Change]], Sequence[Any]],
) -> list[Any]:
    """The steps of all changes: those of the pool one after the other, those of its volumes as they need each other."""
    from ..model.operations import Step

    steps: list[Any] = []
    volume_changes = [change for change in changes if of_volumes(change)]
    for change in changes:
        if not of_volumes(change):
            steps.append(Step(tuple(lower_pool(change)), change, tuple(range(len(steps)))))
        elif change is volume_changes[0]:
            offset = len(steps)
            for step in lower_volumes(volume_changes):
                needs = tuple(need + offset for need in step.needs) or ((offset - 1,) if offset else ())
                steps.append(step._replace(needs=needs, after=tuple(other + offset for other in step.after)))
    return steps


def with_note_of_restart(steps: Sequence[Any], changes: Sequence[Change], found: Found, path: str) -> list[Any]:
    """The steps, in which a restart is noted from its stop to the end of its start, at ``path``: what comes to its end
    only in another task is known for a restart by then. A note of what is no restart any more goes.
    """
    from ..model.operations import Remove, Step, WriteFile

    actions = {change.action for change in changes if not of_volumes(change)}
    restarts = {"stop", "start"} <= actions
    forget = Remove(path, note=True)
    noted = []
    for step in steps:
        action = None if step.change is None or of_volumes(step.change) else step.change.action
        operations = step.operations
        if restarts and action == "stop":
            operations = (WriteFile(path, boot(), note=True), *operations)
        if (restarts or found.restarting) and action == "start":
            operations = (*operations, forget)
        noted.append(step._replace(operations=operations))
    if found.restarting and "start" not in actions:
        noted.append(Step((forget,), needs=tuple(range(len(steps))), always=True))
    return noted


def paths_of(pools: Iterable[Pool | None]) -> list[str]:
    """The paths and devices that definitions name."""
    return [path for pool in pools if pool is not None for path in (pool.path, *device_paths(pool)) if path]


def hosts_of(pools: Iterable[Pool | None]) -> Hosts:
    """The SCSI hosts that the adapters of pools lead to."""
    found = (pool.source.adapter for pool in pools if pool is not None)
    adapters = {adapter for adapter in found if adapter is not None}
    if not adapters:
        return {}
    from ..host.adapters import hosts_of as look

    return look(adapters)


def initiator_of(pool: Pool) -> str:
    """The name by which this host logs in to targets, for pools that may do so."""
    if not row_of(pool.type).recorded:
        return ""
    from ..host.iscsi import own_name

    return own_name()


def device_paths(pool: Pool | None) -> list[str]:
    """The source devices of a pool that are named by paths."""
    devices = () if pool is None else pool.source.devices or ()
    return [device.path for device in devices if device.path.startswith("/")]


def process() -> tuple[int, frozenset[int]] | None:
    """User and groups that we run as; None when we may give files to anybody."""
    return None if os.geteuid() == 0 else (os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


class LocalHost:
    """``execute`` is the only method that changes the host; everything else looks, or makes data."""

    def __init__(self, places: Places, timeout: float) -> None:
        self.places = places
        self.timeout = timeout
        self._applier: Any = None
        self._pins = Pins()
        self._watches: list[GuestWatch] = []
        self.servers = Servers(timeout)

    def release(self) -> None:
        self._pins.release()

    # --- looking -----------------------------------------------------------------------------------------------------

    @cached_property
    def notes(self) -> Notes:
        return Notes(self.places.records, self.places.starts)

    def look(self, seconds: float | None = None) -> Look:
        """What one observation remembers: made anew for each. It may take ``seconds``, or what the task gives it."""
        self.servers.look_again()
        return Look(seconds or self.timeout, self.places.records, self.places.starts, self.servers)

    def storage(self, pool: Pool, look: Look, holds: bool = False) -> Storage:
        backend = backend_of(pool.type)
        if backend is None:
            return Storage(UNKNOWN_STORAGE, pool.path, no_backend(pool.type))
        storage = backend.observe(pool, look, holds)
        if not storage.bring_up:
            return storage
        ours = storage.ours or look.started(pool.name) == start_note(storage)
        told = look.made(emptied_key(pool.name))
        return replace(storage, ours=ours, emptied=told is not None and _is_emptied(storage, told, look))

    def is_restarting(self, key: str) -> bool:
        """Whether it is noted since the last boot that a pool is being restarted; who may not look does not know."""
        with suppress(StorageError):
            return self.notes.started(key) == boot()
        return False

    def contents(self, found: Found, wanted: Pool, scope: Scope, look: Look) -> Found:
        """Adds the volumes and what they are made from, as deep as the scope asks."""
        backend = backend_of(wanted.type)
        row = row_of(wanted.type)
        may_go = scope.neighbours and row.taken_away
        if may_go or (scope.stops and row.volumes == "block"):
            scope = replace(scope, volumes=None)  # the pool may be stopped
        if backend is not None:
            found = replace(found, filesystem=found.storage.filesystem)
            goes = may_go and found.current.open  # which another storage of it need not be yet
            if scope.rebuilds and row.file_tree and found.storage.loses(found.current):
                found = _with_volumes_that_go(found, scope, look, backend)
            elif found.storage.open or goes or (scope.holds and found.storage.listed):
                found = backend.observe_volumes(found, scope, look)
        if scope.images or scope.sources or any(volume.backing for volume in found.volumes.values()):
            from .native_images import observe_images

            found = observe_images(found, scope, self.servers)
        return found

    def observe_users(
        self,
        found: Found,
        stakes: Mapping[str, str],
        neighbours: Callable[[], Sequence[Neighbour]],
        told: Callable[[], Told] = lambda: ((), ()),
    ) -> Found:
        """Holds on to the volumes at stake, and adds to what was found who uses them, as much as each stake asks.
        ``told`` gives the guests that are known beside the definitions in files, and what could not be told of them.
        """
        if not stakes:
            return found
        pool = found.running
        if ITSELF in stakes and pool is not None:
            busy, blind = self.busy(pool, found.current)
            found = replace(found, current=replace(found.current, busy=busy), unseen=(*found.unseen, *blind))
        others: Sequence[Neighbour] = ()
        guests: Sequence[Any] = ()
        if ABOVE in stakes:
            from .native_users import with_above

            found = with_above(found, neighbours(), self.servers)
        if EVERYTHING in stakes.values():
            others = neighbours()
            guests, unseen = self._watch_guests(found, stakes, others, told)
            found = replace(found, unseen=(*found.unseen, *unseen))
        if SOURCE in stakes:
            from .native_users import with_guests

            found = with_guests(found, others, guests, self.servers)
        beneath = beneath_of(found, stakes)
        if beneath:
            from .native_users import with_beneath

            found = with_beneath(found, beneath, others, guests, self.servers)
        stakes = {name: stake for name, stake in stakes.items() if name not in (ITSELF, SOURCE, ERASED, GROUND, ABOVE)}
        self._pins.make_room(len(stakes))
        found = replace(found, sealed=_sealed(found, stakes))
        pinned = () if found.filesystem in KEEPING else stakes
        for name in pinned:
            volume = found.volumes.get(name)
            if volume is not None and volume.type != "block" and volume.path and volume.identity:
                self._pins.pin(volume.path, volume.identity)
        if all(stake == PIN for stake in stakes.values()):
            return found
        from .native_images import observe_chains
        from .native_users import observe_users

        found = observe_chains(found, stakes, self.servers)
        return observe_users(found, stakes, others, guests, self.servers)

    def observe_remains(self, found: Found, places: Mapping[str, Extent]) -> Found:
        """Adds what is left where volumes will be cut."""
        from ..host.signatures import region_at

        look, remains = self.look(), {}
        for name, place in places.items():
            content = region_at(place.device, look.left(place.device), place.start, place.end - place.start)
            if content.text != BLANK:
                remains[name] = content.problem or content.text
        return replace(found, remains=remains)

    def _watch_guests(
        self, found: Found, stakes: Mapping[str, str], neighbours: Sequence[Neighbour], told: Callable[[], Told]
    ) -> Told:
        """The guests' definitions as they are now. They are read again before anything is destroyed."""
        from .native_users import Files, guest_definitions, guests_beneath, guests_on_devices, guests_on_volumes

        deep = (name for name, stake in stakes.items() if stake == EVERYTHING and name in found.volumes)
        paths = {name: found.volumes[name].path or "" for name in deep}

        def read() -> Told:
            unseen: set[str] = set()
            guests, more = told()
            return (*guests, *guest_definitions(self.places, unseen)), (*more, *sorted(unseen))

        def users(guests: Iterable[GuestDisks]) -> Iterator[tuple[str, User]]:
            look, guests = Files(self.servers), tuple(guests)
            if SOURCE in stakes:
                yield from guests_on_devices(found, neighbours, guests, look)
            yield from guests_beneath(beneath_of(found, stakes), neighbours, guests, look)
            for name, user in guests_on_volumes(found, paths, neighbours, guests, look):
                yield paths[name], user

        return self.watch(read, users)

    def watch(
        self, read: Callable[[], Told], users: Callable[[Iterable[GuestDisks]], Iterable[tuple[str, User]]]
    ) -> Told:
        """What is read of the guests now; see GuestWatch."""
        from .guest_watch import GuestWatch

        watch = GuestWatch(read, users)
        self._watches.append(watch)
        return watch.guests, watch.unseen

    def busy(self, pool: Pool, storage: Storage) -> tuple[tuple[User, ...], tuple[str, ...]]:
        """Who uses the storage on which a pool runs, and what could not be looked at for that."""
        backend = backend_of(pool.type)
        return ((), ()) if backend is None else backend.busy(pool, storage, self.look())

    # --- lowering ----------------------------------------------------------------------------------------------------

    @staticmethod
    def lacking(steps: Sequence[Any]) -> tuple[StorageError, ...]:
        """The tools that the steps need and this host does not have: an earlier task of a play may install them."""
        if not steps:
            return ()
        from ..host.run import lacks
        from ..model.operations import As, FirstOf, Noted

        tools: dict[str, None] = {}
        for operation in (operation for step in steps for operation in step.operations):
            plain = operation.operation if isinstance(operation, (As, Noted)) else operation
            attempts = plain.attempts if isinstance(plain, FirstOf) else (plain,)
            if getattr(attempts[0], "argv", ()) and all(map(lacks, attempts)):
                tools[lacks(attempts[0])] = None
        return tuple(map(tool_missing, tools))

    # --- changing ----------------------------------------------------------------------------------------------------

    def broken(self, conditions: Mapping[int, Sequence[Condition]]) -> dict[int, StorageError]:
        """Which of the conditions, by step, hold no longer; all are looked at together."""
        failed: dict[int, StorageError] = {}
        unused: list[tuple[int, Condition]] = []
        checks = None
        for index, group in conditions.items():
            for condition in group:
                if condition.kind == "unused":
                    unused.append((index, condition))
                    continue
                if condition.kind == "identity":
                    what = _file_became(condition)
                else:
                    checks = checks or self._checks()
                    what = checks.broken(condition)
                if what:
                    failed[index] = changed_meanwhile(condition.path, what)
        failed.update(_taken([(index, each) for index, each in unused if os.path.lexists(each.path)]))
        return {**self.broken_by_guests(conditions), **failed}

    def broken_by_guests(self, conditions: Mapping[int, Sequence[Condition]]) -> dict[int, StorageError]:
        return {index: error for watch in self._watches for index, error in watch.broken(conditions).items()}

    def _checks(self) -> Any:
        """Of what tasks on files never ask about."""
        from ..host.conditions import Checks

        return Checks(self.timeout)

    def prepare(self, locks: tuple[int, ...]) -> None:
        """Before the first operation is executed, under these locks."""
        from ..host.apply import Applier

        self._applier = Applier(locks, self.timeout)

    def execute(self, operation: Any) -> None:
        if getattr(operation, "lets_go", False):
            self._pins.release()
        self._applier.apply(operation)


def _with_volumes_that_go(found: Found, scope: Scope, look: Look, backend: Backend) -> Found:
    """Adds the volumes of the storage on which the pool runs, and which is to be built anew."""
    seen = backend.observe_volumes(replace(found, storage=found.current), replace(scope, volumes=None), look)
    return replace(seen, storage=found.storage)


def _sealed(found: Found, names: Collection[str]) -> dict[str, str]:
    """The volumes of these with attributes that keep them as they are, and which."""
    files = [each for name, each in found.volumes.items() if name in names and each.type == "file"]
    told = {each.name: seals(each.path) for each in files if each.path and each.link_target is None}
    return {name: letters for name, letters in told.items() if letters}


def beneath_of(found: Found, stakes: Mapping[str, str]) -> tuple[str, ...]:
    """The devices at stake of which it matters who has all of one."""
    erased = found.erased if ERASED in stakes else ()
    return tuple(dict.fromkeys((*erased, *(found.ground if GROUND in stakes else ()))))


def start_note(storage: Storage) -> str:
    """What is noted of storage that we have brought up: it holds until the next boot."""
    return f"{boot()} {storage.noted_as}"


def emptied_note(storage: Storage) -> str:
    """What is noted of storage that was emptied."""
    return f"{storage.noted_as}\n{storage.mark}"


def _is_emptied(storage: Storage, told: str, look: Look) -> bool:
    """Whether it still is as it was left. It may have been mounted since then, and hold something: what its device
    holds tells that; without a mark nothing does.
    """
    if storage.up or not storage.mark:
        return False
    from ..host.contents import imprint_of
    from ..host.patience import in_child

    node = storage.ground[0]
    imprint = in_child(lambda: imprint_of(node), look.left(node))
    return bool(imprint) and told == f"{emptied_note(storage)}\n{imprint}"


def restarting_key(pool: str, uri: str = "") -> str:
    """What the note is called that a pool, of the daemon of a uri, is being restarted."""
    return f"restarting {pool} {uri}"


def login_key(pool: str) -> str:
    """What the note is called that a pool was started with a login, which is kept nowhere."""
    return f"login {pool}"


def emptied_key(pool: str) -> str:
    """What the note is called that a pool was emptied, to be deleted."""
    return f"emptied {pool}"


def device_parts(found: Found, look: Look) -> tuple[Part, ...]:
    """The devices of a pool that a daemon would take, as parts of its storage: what they are and hold, and who has
    them. That the pool itself is mounted already is no use by others, nor that it runs on another path, which it leaves
    first.
    """
    from ..backends.holding import users_of
    from ..host.block import device_at
    from ..host.conditions import untouched
    from ..host.signatures import content_at

    own = found.resolved.get(found.storage.path or "", "")
    runs = look.servers.resolved(found.live.path) if found.live is not None and found.live.path else ""
    parts = []
    for path in found.devices:
        try:
            device = device_at(path)
        except StorageError:  # its content says so
            continue
        content = content_at(device.node, look.left(path))
        users, unseen = users_of(device, content, look)
        others = tuple(user for user in users if not _is_own(user, own, runs))
        requires = untouched(device, content)
        lasting = () if device.read_only else (device.node,)
        parts.append(
            Part(f"device {path}", path, ABSENT, requires=requires, users=others, unseen=unseen, devices=lasting)
        )
    return tuple(parts)


def _is_own(user: User, path: str, runs: str) -> bool:
    """Whether that is the mount of a pool at its path, or where it runs, which only its daemon may see."""
    return user.kind == "mount" and (user.who == path or user.who.partition(_ELSEWHERE)[0] == runs)


def _taken(unused: Sequence[tuple[int, Condition]]) -> dict[int, StorageError]:
    """Of these conditions that volumes are unused, by step, those that hold no longer or can't be told to hold."""
    if not unused:
        return {}
    from ..host.volume_users import users_of_volumes

    users, unseen = users_of_volumes({condition.path: condition.path for _index, condition in unused})
    failed = {}
    for index, condition in unused:
        new = [what for what in unseen if what not in condition.expected and condition.expected != ANYTHING]
        if users[condition.path]:
            what = f"was taken into use by {users[condition.path][0]}"
        elif new:
            what = f"could not be checked for users ({new[0]})"
        else:
            continue
        failed[index] = changed_meanwhile(condition.path, what)
    return failed


def _file_became(condition: Condition) -> str:
    """What became of a file, in words; empty while it is the same."""
    try:
        same = identity_of(os.lstat(condition.path)) == condition.expected
    except OSError:
        same = False
    return "" if same else "was replaced or went away"
