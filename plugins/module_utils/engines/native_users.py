# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who uses a volume: running programs, guests' definitions, overlays in any pool, pools built on it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from ..backends import filetree
from ..backends.by_type import backend_of
from ..host.files import read_small_file
from ..host.look import Look
from ..host.mounts import mount_at
from ..host.remote import Servers
from ..host.volume_users import users_of_volumes
from ..libvirt_xml.guests import GuestDisks, is_in, parse_guest
from ..model.errors import StorageError
from ..model.found import EVERYTHING, Found, Neighbour, User
from ..model.goal import Scope
from ..model.pool import Pool
from ..model.types import row_of
from ..model.volume import Volume

if TYPE_CHECKING:
    from .places import Places

_CHAIN_LIMIT = 64
_SECONDS = 10.0


def observe_users(
    found: Found,
    stakes: Mapping[str, str],
    neighbours: Sequence[Neighbour],
    guests: Sequence[GuestDisks],
    servers: Servers,
) -> Found:
    """Adds the users of the volumes at stake. What could not be looked at is said in ``unseen``."""
    look = Files(servers)
    paths = {name: found.volumes[name].path or "" for name in stakes if name in found.volumes}
    running, unseen_files = users_of_volumes(paths)
    users = {name: list(found_users) for name, found_users in running.items()}
    unseen = look.unseen
    unseen |= {*found.unseen, *unseen_files}
    deep = {name: path for name, path in paths.items() if stakes[name] == EVERYTHING}
    if deep:
        identities = {look.identity(path): name for name, path in deep.items()}
        identities.pop(None, None)
        for source in (
            _guests(found, deep, identities, neighbours, guests, look),
            _overlays(found, identities, neighbours, look),
            _built(found, deep),
            _pools(found, deep, identities, neighbours, look),
            _members(found, deep, look),
            _beneath(found, deep, neighbours, guests, look),
        ):
            for name, user in source:
                if user not in users[name]:
                    users[name].append(user)
    return replace(found, users={name: tuple(group) for name, group in users.items()}, unseen=tuple(sorted(unseen)))


def with_guests(found: Found, neighbours: Sequence[Neighbour], guests: Sequence[GuestDisks], servers: Servers) -> Found:
    """Adds the guests that have a device as a disk, running or shut off, to the users of the parts of the pool's
    storage that would take it, and the pools that are on a part of it, running or not.
    """
    look = Files(servers)
    look.unseen |= {*found.unseen}
    users: dict[str, list[User]] = {}
    known = chain(guests_on_devices(found, neighbours, guests, look), _pools_above(found, neighbours, look))
    for node, user in known:
        users.setdefault(node, []).append(user)
    parts = []
    for part in found.storage.parts:
        theirs = (user for node in part.devices for user in users.get(node, ()))
        parts.append(replace(part, users=tuple(dict.fromkeys((*part.users, *theirs)))))
    return replace(found, storage=replace(found.storage, parts=tuple(parts)), unseen=tuple(sorted(look.unseen)))


def with_above(found: Found, neighbours: Sequence[Neighbour], servers: Servers) -> Found:
    """Adds the pools that were started on a volume of the pool, or on what is built on one."""
    from ..host.block import bases, device_at

    look, paths = Files(servers), {name: volume.path or "" for name, volume in found.volumes.items()}
    by_path = _by_path(found, paths)
    own = {look.device(path) for path in paths.values()}
    users = []
    for neighbour in neighbours:
        for device in neighbour.pool.source.devices or () if neighbour.started else ():
            numbers = set()
            with suppress(StorageError):
                there = device_at(device.path)
                numbers = {each.number for each in (there, *bases(there))}
            if device.path in by_path or numbers & own:
                users.append(User("pool", neighbour.pool.name))
    return replace(found, above=tuple(dict.fromkeys(users)))


def guests_on_devices(
    found: Found, neighbours: Sequence[Neighbour], guests: Iterable[GuestDisks], look: Files
) -> Iterator[tuple[str, User]]:
    """The devices that the pool's storage would take, by the kernel's names, each with a guest that has it as a disk. A
    device is another one's as well where it is a part of it, or built on it.
    """
    from ..host.block import device_at
    from ..host.device_users import touched

    taken = {}
    for node in (node for part in found.storage.parts for node in part.devices):
        with suppress(StorageError):
            taken[node] = touched(device_at(node))
    for guest in guests:
        own = _disks_of(guest, neighbours, look)
        for node, theirs in taken.items():
            if own & theirs:
                yield node, User("guest", guest.name)


def _pools_above(found: Found, neighbours: Sequence[Neighbour], look: Files) -> Iterator[tuple[str, User]]:
    """The devices that the pool's storage would take, each with a pool that is on a part of it."""
    from ..host.block import device_at
    from ..host.device_users import family

    above = {}
    for node in (node for part in found.storage.parts for node in part.devices):
        with suppress(StorageError):
            above[node] = {each.number for each in family(device_at(node))[1:]}
    for neighbour in neighbours:
        numbers = {look.device(device.path) for device in neighbour.pool.source.devices or ()}
        yield from ((node, User("pool", neighbour.pool.name)) for node, parts in above.items() if numbers & parts)


def guests_on_volumes(
    found: Found, paths: dict[str, str], neighbours: Sequence[Neighbour], guests: Iterable[GuestDisks], look: Files
) -> Iterator[tuple[str, User]]:
    """The volumes of these names and paths, each with a guest that uses it."""
    identities = {look.identity(path): name for name, path in paths.items()}
    identities.pop(None, None)
    return _guests(found, paths, identities, neighbours, guests, look)


class Files:
    """Files wherever they are, but nothing on a server or a device that does not answer: that is in ``unseen``."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.unseen: set[str] = set()
        self._look = Look(_SECONDS, "", "", servers)

    def reachable(self, path: str) -> bool:
        mount = self.servers.silent(path)
        if mount is not None:
            self.unseen.add(f"{mount.point}, whose server does not answer,")
        return mount is None

    def readable(self, path: str) -> bool:
        """The same, of what is in a file or device."""
        if not self.reachable(path):
            return False
        why = self.servers.unread(path)
        if why:
            self.unseen.add(f"what is on {path}, which does not answer,")
        return not why

    def _status(self, path: str) -> os.stat_result | None:
        if not self.reachable(path):
            return None
        try:
            return os.stat(path)
        except OSError:
            return None

    def identity(self, path: str) -> tuple[int, ...] | None:
        """A block device is the same under every node that has its number."""
        status = self._status(path)
        if status is None:
            return None
        return (status.st_rdev,) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)

    def device(self, path: str) -> tuple[int, int] | None:
        """The number of a block device."""
        status = self._status(path)
        if status is None or not stat.S_ISBLK(status.st_mode):
            return None
        return os.major(status.st_rdev), os.minor(status.st_rdev)

    def is_there(self, neighbour: Neighbour) -> bool:
        """Whether the files of another pool can be seen, as far as that is known; of a dead server that is said by
        itself.
        """
        pool, path = neighbour.pool, neighbour.resolved or ""
        if not self.reachable(path):
            return True
        if not row_of(pool.type).mounted:
            return os.path.isdir(path)
        if mount_at(path, self.servers.table()) is None:
            return False
        backend = backend_of(pool.type)
        try:
            return backend is None or backend.observe(pool, self._look, False).up
        except StorageError as error:
            self.unseen.add(f"what is mounted on {path} ({error.message})")
            return True

    def volume(self, pool: Pool, name: str) -> str | None:
        """The path of a volume of another pool. Those of units have paths that their names don't tell."""
        if not row_of(pool.type).served or backend_of(pool.type) is None:
            return os.path.join(pool.path or "", name)
        volume = self._served(pool, (name,), f"volume {pool.name}/{name}").get(name)
        return None if volume is None else volume.path

    def _served(self, pool: Pool, names: tuple[str, ...] | None, what: str) -> Mapping[str, Volume]:
        """The volumes of these names, or all, of a pool whose volumes are served to this host."""
        backend = backend_of(pool.type)
        if backend is None:
            return {}
        try:
            storage = backend.observe(pool, self._look, False)
            found = Found(pool.name, definition=pool, storage=storage)
            return backend.observe_volumes(found, Scope(pool, volumes=names), self._look).volumes
        except StorageError as error:
            self.unseen.add(f"{what} ({error.message})")
            return {}

    def devices(self, pool: Pool) -> list[str]:
        """The volumes of a pool of devices that are there now."""
        from ..host.block import device_at

        row, nodes = row_of(pool.type), []
        if row.served:
            volumes = self._served(pool, None, f"the volumes of pool {pool.name}").values()
            return [volume.path for volume in volumes if volume.path]
        if not row.partitions:  # their names are links in a directory of their own
            with suppress(OSError):
                nodes = [os.path.join(pool.path or "", name) for name in os.listdir(pool.path or "")]
        for source in pool.source.devices or () if row.partitions else ():
            with suppress(StorageError):
                nodes += device_at(source.path).partitions
        return sorted(nodes)

    def below_devices(self, pool: Pool) -> dict[str, list[str]]:
        """What the images are built on that lie on the volumes of a pool of devices. A device may never answer."""
        from ..host.patience import in_child
        from ..host.silent import silent_devices

        there, away = self.devices(pool), {device.node for device in silent_devices()}
        nodes = [node for node in there if os.path.realpath(node) not in away]
        self.unseen.update(f"what is on {node}, which does not answer," for node in there if node not in nodes)

        def read() -> tuple[dict[str, tuple[str, ...]], list[str]]:
            unseen: set[str] = set()
            return {node: filetree.below(node, unseen) for node in nodes}, sorted(unseen)

        told = None
        with suppress(StorageError):
            told = in_child(read, min(_SECONDS, self.servers.timeout)) if nodes else ({}, ())
        if told is None:
            self.unseen.add(f"the images on the volumes of pool {pool.name}")
            return {}
        self.unseen.update(told[1])
        below: dict[str, list[str]] = told[0]
        return below

    def chain(self, path: str, ends: Callable[[str], bool] = lambda path: False) -> Iterator[str]:
        """An image and the files below it, as far as its headers tell; nothing is told of those below one that
        ``ends`` it.
        """
        waiting = [path]
        for _member in range(_CHAIN_LIMIT):
            if not waiting:
                return
            path = waiting.pop(0)
            if self.reachable(path):
                yield path
                waiting += filetree.below(path, self.unseen) if not ends(path) and self.readable(path) else ()


def _named(guest: GuestDisks, neighbours: Sequence[Neighbour], look: Files) -> Iterator[str]:
    """What a guest's definition names, by path, as a volume of another pool, or as hardware."""
    from ..host.block import nodes_below

    yield from guest.paths
    yield from nodes_below(guest.hardware)
    if guest.hardware:
        from ..host.scsi import nodes_at

        yield from nodes_at(guest.hardware)  # of tapes too
    for of, volume in guest.volumes:
        pools = (each.pool for each in neighbours if each.pool.name == of and each.pool.path is not None)
        yield from filter(None, (look.volume(pool, volume) for pool in pools))


def _disks_of(guest: GuestDisks, neighbours: Sequence[Neighbour], look: Files) -> set[tuple[int, ...]]:
    """What tells the devices and files that a guest has, and that its images are built on."""
    told = (look.identity(member) for path in _named(guest, neighbours, look) for member in look.chain(path))
    return {identity for identity in told if identity is not None}


def _guests(
    found: Found,
    paths: dict[str, str],
    identities: dict,
    neighbours: Sequence[Neighbour],
    guests: Iterable[GuestDisks],
    look: Files,
) -> Iterator[tuple[str, User]]:
    by_path = _by_path(found, paths)
    for guest in guests:
        for pool, volume in guest.volumes:
            if pool == found.name and volume in paths:
                yield volume, User("guest", guest.name)
        if guest.directories and found.row.file_tree and _has_all_of(found, guest, look):
            yield from ((name, User("guest", guest.name)) for name in paths)
        for path in _named(guest, neighbours, look):
            for member in look.chain(path):
                name = identities.get(look.identity(member)) or by_path.get(member)
                if name is not None:
                    yield name, User("guest", guest.name)


def _has_all_of(found: Found, guest: GuestDisks, look: Files) -> bool:
    """Whether the directory of the pool is, or is in, one that a guest is given."""
    return is_in(f"{look.servers.resolved(found.storage.path or '')}/", map(look.servers.resolved, guest.directories))


def guest_definitions(places: Places, unseen: set[str]) -> Iterator[GuestDisks]:
    """Those of guests and of their snapshots in files; what can't be read is added to ``unseen``."""
    for directory in places.guests:
        yield from _definitions(directory, _entries(directory, "guests' definitions", unseen), "", unseen)
    for top in places.snapshots:
        for guest in _entries(top, "guests' snapshots", unseen):
            directory = os.path.join(top, guest)
            yield from _definitions(directory, _entries(directory, "guests' snapshots", unseen), guest, unseen)


def _entries(directory: str, what: str, unseen: set[str]) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        unseen.add(f"{what} in {directory}")
        return []


def _definitions(directory: str, entries: Iterable[str], guest: str, unseen: set[str]) -> Iterator[GuestDisks]:
    """``guest`` is the one that they are snapshots of."""
    for path in (os.path.join(directory, entry) for entry in entries if entry.endswith(".xml")):
        try:
            text = read_small_file(path)
            if text is not None:
                yield parse_guest(text, guest)
        except StorageError:
            unseen.add(f"the guest's definition {path}" if not guest else f"the snapshot {path} of guest {guest}")


def _overlays(
    found: Found, identities: dict, neighbours: Sequence[Neighbour], look: Files
) -> Iterator[tuple[str, User]]:
    trees = [each for each in neighbours if each.resolved and row_of(each.pool.type).file_tree]
    directories = {each.resolved for each in trees if each.resolved}
    if found.row.file_tree:
        directories.add(look.servers.resolved(found.storage.path or ""))
    look.unseen |= {*_away(trees, look)}
    for overlay, below in chain(_in_directories(directories, look), _on_devices(found, neighbours, look)):
        for path in _until_known(below, directories, look):
            name = identities.get(look.identity(path))
            if name is not None:
                yield name, User("overlay", _as_named(found, overlay, look))


def _away(trees: Iterable[Neighbour], look: Files) -> Iterator[str]:
    """The images that nobody sees now, since their directory is not there, or nothing is mounted on it."""
    hidden = [each for each in trees if not look.is_there(each)]
    seen = [each.pool.source for each in trees if each not in hidden]
    for pool in (each.pool for each in hidden):
        mounted = row_of(pool.type).mounted
        if not mounted or pool.source not in seen:  # else it runs on another path
            yield f"the images of pool {pool.name}, which is not {'mounted' if mounted else 'there'},"


def _in_directories(directories: Collection[str], look: Files) -> Iterator[tuple[str, str]]:
    """The images in directories, each with a file that it is built on."""
    for directory in filter(look.reachable, sorted(directories)):
        try:
            yield from filetree.references(directory, look.readable, look.unseen)
        except FileNotFoundError:
            continue
        except OSError:
            look.unseen.add(f"the images in {directory}")


def _on_devices(found: Found, neighbours: Sequence[Neighbour], look: Files) -> Iterator[tuple[str, str]]:
    """The images on volumes that are devices, each with a file or device that it is built on."""
    for pool in (found.running, *(neighbour.pool for neighbour in neighbours)):
        if pool is not None and row_of(pool.type).volumes == "block":
            for node, paths in look.below_devices(pool).items():
                yield from ((node, path) for path in paths)


def _built(found: Found, paths: Mapping[str, str]) -> Iterator[tuple[str, User]]:
    """Volumes of a pool of devices that can't be without another one."""
    if found.row.volumes != "block":
        return
    by_path = {path: name for name, path in paths.items()}
    for volume in found.volumes.values():
        below = None if volume.backing is None else by_path.get(volume.backing.path or "")
        for name in (below, volume.thin_pool if volume.thin_pool in paths else None):
            if name is not None:
                yield name, User("overlay", volume.path or volume.name)


def _until_known(path: str, directories: Collection[str], look: Files) -> Iterator[str]:
    """A backing file and, while outside of the directories, the files below it: those inside are seen anyway."""
    return look.chain(path, lambda member: os.path.dirname(os.path.realpath(member)) in directories)


def _as_named(found: Found, overlay: str, look: Files) -> str:
    """The path of an overlay, in the pool's own words where it is one of the pool's volumes."""
    if found.row.volumes == "block":
        identity = look.identity(overlay)
        own = (volume.path for volume in found.volumes.values() if volume.path and identity is not None)
        return next((path for path in own if look.identity(path) == identity), overlay)
    directory, name = os.path.split(overlay)
    same = directory == os.path.realpath(found.storage.path or "")
    return (found.volume_path(name) if same else None) or overlay


def _pools(
    found: Found, paths: Mapping[str, str], identities: dict, neighbours: Sequence[Neighbour], look: Files
) -> Iterator[tuple[str, User]]:
    by_path = _by_path(found, paths)
    for neighbour in neighbours:
        for device in neighbour.pool.source.devices or ():
            name = identities.get(look.identity(device.path)) or by_path.get(device.path)
            if name is not None:
                yield name, User("pool", neighbour.pool.name)


def _by_path(found: Found, paths: Mapping[str, str]) -> dict[str, str]:
    """What is not active has no device to be known by, only the paths that it has when it is."""
    return {path: name for name, own in paths.items() for path in (own, *found.volumes[name].aliases)}


def _beneath(
    found: Found,
    paths: Mapping[str, str],
    neighbours: Sequence[Neighbour],
    guests: Iterable[GuestDisks],
    look: Files,
) -> Iterator[tuple[str, User]]:
    """Who has the very devices that volumes are cut from has all of these volumes."""
    users = _having(found.ground, neighbours, guests, look, look.unseen)
    yield from ((name, user) for user in users for name in paths)


def with_beneath(
    found: Found,
    nodes: Iterable[str],
    neighbours: Sequence[Neighbour],
    guests: Sequence[GuestDisks],
    servers: Servers,
) -> Found:
    """Adds who has devices as a whole, but for the pool that is mounted from one."""
    look = Files(servers)
    look.unseen |= {*found.unseen}
    path = found.storage.path or ""
    own = {f"{found.resolved.get(path, path)} on {node}" for node in nodes} if found.storage.up else ()
    blind: set[str] = set()
    users = _having(nodes, neighbours, guests, look, blind)
    others = tuple(user for user in users if user.kind != "mount" or user.who not in own)
    unseen = tuple(sorted({*look.unseen, *blind}))
    return replace(found, beneath=others, blind=tuple(sorted(blind)), unseen=unseen)


def _having(
    nodes: Iterable[str], neighbours: Sequence[Neighbour], guests: Iterable[GuestDisks], look: Files, blind: set[str]
) -> list[User]:
    """Who has devices as a whole, past what is cut from them. What could not be looked at of them is added to
    ``blind``.
    """
    from ..host.block import device_at
    from ..host.device_users import users_beneath
    from ..host.processes import Processes

    processes = Processes()
    users: dict[User, None] = {}
    for path in nodes:
        try:
            told, unseen = users_beneath(device_at(path), processes)
        except StorageError:  # that it is missing has its own error
            continue
        users.update(dict.fromkeys(told))
        blind |= {*unseen}
    users.update(dict.fromkeys(user for _node, user in guests_beneath(nodes, neighbours, guests, look)))
    return list(users)


def guests_beneath(
    nodes: Iterable[str], neighbours: Sequence[Neighbour], guests: Iterable[GuestDisks], look: Files
) -> Iterator[tuple[str, User]]:
    """These devices, each with a guest that has it, or what it is on, as a disk."""
    from ..host.block import bases, device_at
    from ..host.device_users import identities

    beneath = {}
    for node in nodes:
        with suppress(StorageError):
            device = device_at(node)
            beneath[node] = identities((device, *bases(device)))
    for guest in guests if beneath else ():
        theirs = _disks_of(guest, neighbours, look)
        yield from ((node, User("guest", guest.name)) for node, own in beneath.items() if own & theirs)


def _members(found: Found, paths: Mapping[str, str], look: Files) -> Iterator[tuple[str, User]]:
    """What makes a block volume a member of something larger, which may not be assembled now."""
    for name, path in paths.items():
        if found.volumes[name].type != "block" or found.volumes[name].capacity is None:  # such as a drive, maybe empty
            continue
        if not look.readable(path):
            continue
        from ..host.signatures import MEMBERS, content_at

        content = content_at(path, _SECONDS)
        if content.problem and os.path.lexists(path):  # what is not active is not there
            look.unseen.add(f"what {path} holds ({content.problem})")
        for signature in content.names:
            if signature in MEMBERS:
                yield name, User("member", MEMBERS[signature])
