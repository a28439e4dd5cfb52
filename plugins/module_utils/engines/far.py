# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes as a daemon tells of them, where we can't look ourselves, and the guests that use them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..host.daemon import Daemon
from ..host.remote import Servers
from ..libvirt_xml.guests import GuestDisks, is_in, parse_guest
from ..libvirt_xml.volume import parse_found_volume
from ..model.errors import StorageError
from ..model.extents import told_extent
from ..model.found import EVERYTHING, UNSEEN, Found, Image, Neighbour, User
from ..model.goal import Scope
from ..model.pool import Pool
from ..model.volume import Volume, passing_name

if TYPE_CHECKING:
    from .local import LocalHost

_UNSEEN = "the processes, mounts and devices of the daemon's host"


def observe_far(found: Found, scope: Scope, daemon: Daemon) -> Found:
    """Adds the volumes that the scope asks for, and what they are made from."""
    if not found.active or found.storage.kind != UNSEEN:
        return found
    names = scope.volumes
    if found.row.partitions and names:
        names = None  # a new partition is named after those that there are
    elif (found.row.taken_away and scope.neighbours) or (scope.stops and found.row.volumes == "block"):
        names = None  # the pool may be stopped
    elif scope.rebuilds and found.row.file_tree and found.row.on_devices:
        names = None  # it may be built anew
    elif found.row.by_path and names:
        names = None  # they have other names for it
    texts = () if names == () else daemon.volumes(found.name, names)
    seen = map(parse_found_volume, texts)
    told = _by_path(seen, scope) if found.row.by_path else seen
    volumes = {volume.name: _as_declared(volume, scope, found) for volume in told}
    images = {key: _image(found, key, daemon) for key in scope.images}
    images.update({key: _source(found, key, daemon) for key in scope.sources})
    pool, usage = found.live or found.definition, found.usage
    sizes = (None, None) if usage is None else (usage.capacity, usage.available)
    extent = None if pool is None else told_extent(pool, *sizes)
    return replace(found, volumes=volumes, images=images, extent=extent)


def _by_path(told: Iterable[Volume], scope: Scope) -> Iterator[Volume]:
    """By the names that they keep. Who asks for one by the daemon's is told."""
    for volume in told:
        name = os.path.basename(volume.path or "") or volume.name
        if scope.volumes is None or name in scope.volumes:
            yield replace(volume, name=name)
        elif volume.name in scope.volumes:
            yield replace(volume, foreign=passing_name(name))


def _as_declared(volume: Volume, scope: Scope, found: Found) -> Volume:
    """What is declared raw is raw, whatever the daemon has read in its header. Of a partition it reads nothing."""
    if found.row.partitions:
        return replace(volume, format=None)
    if volume.name not in scope.raw or volume.format in (None, "raw"):
        return volume
    return replace(volume, format="raw", capacity=volume.physical, looks_like=volume.format or "")


def _image(found: Found, key: str, daemon: Daemon) -> Image:
    if key.startswith("/"):
        text = daemon.volume_at(key)
    else:
        text = next(iter(daemon.volumes(found.name, (key,))), None)
    return Image(None if text is None else parse_found_volume(text))


def _source(found: Found, key: str, daemon: Daemon) -> Image:
    """A volume of the pool; a path is one of this host, from which it is uploaded."""
    if not key.startswith("/"):
        return _image(found, key, daemon)
    from .native_images import observe_images

    scope, servers = Scope(Pool(found.name), sources=(key,)), Servers(daemon.timeout)
    return observe_images(Found(found.name), scope, servers).images[key]


# --- users -----------------------------------------------------------------------------------------------------------


def far_users(found: Found, stakes: Mapping[str, str], daemon: Daemon, host: LocalHost) -> Found:
    """Adds the overlays in the same pool and the guests, which ``host`` goes on watching. What else there may be on the
    daemon's host is ``unseen``.
    """
    users: dict[str, tuple[User, ...]] = dict.fromkeys(stakes, ())
    seen = replace(found, users=users, unseen=(*found.unseen, _UNSEEN))
    seen = with_overlays(seen, stakes, daemon)
    paths = _destroyed(found, stakes)
    if not paths:
        return seen
    at = {name: path or "" for path, name in paths.items()}
    guests, blind = host.watch(
        lambda: guests_told(daemon), lambda new: ((at[name], user) for name, user in _by_guests(new, found, paths))
    )
    return with_users(seen, _by_guests(guests, found, paths), blind)


def with_overlays(found: Found, stakes: Mapping[str, str], daemon: Daemon) -> Found:
    """Adds the overlays in the same pool."""
    paths = _destroyed(found, stakes)
    return with_users(found, _overlays(found.name, paths, daemon)) if paths else found


def pools_told(found: Found, neighbours: Iterable[Neighbour]) -> Found:
    """Adds the pools that run on volumes of the pool, as their definitions name these."""
    paths = {volume.path for volume in found.volumes.values()}
    running = [neighbour.pool for neighbour in neighbours if neighbour.started]
    above = [pool.name for pool in running if paths & {device.path for device in pool.source.devices or ()}]
    return replace(found, above=tuple(User("pool", name) for name in dict.fromkeys(above)))


def _by_guests(
    guests: Iterable[GuestDisks], found: Found, paths: Mapping[str | None, str]
) -> Iterator[tuple[str, User]]:
    """What is to be destroyed, each with a guest of the connection that uses it, running or shut off."""
    names = set(paths.values())
    for guest in guests:
        yield from ((name, User("guest", guest.name)) for name in _used(guest, found, paths) if name in names)


def overlays_told(found: Found, stakes: Mapping[str, str], pools: Iterable[str], daemon: Daemon) -> Found:
    """Adds the overlays in pools of which only the daemon sees the files."""
    paths, overlays, unseen = _destroyed(found, stakes), [], []
    for pool in dict.fromkeys(pools):
        try:
            overlays += list(_overlays(pool, paths, daemon))
        except StorageError:  # it is not active
            unseen.append(f"the images of pool {pool}")
    return with_users(found, overlays, unseen)


def _destroyed(found: Found, stakes: Mapping[str, str]) -> dict[str | None, str]:
    """The volumes of which everything must be known, by their paths."""
    deep = (name for name, stake in stakes.items() if stake == EVERYTHING and name in found.volumes)
    return {found.volumes[name].path: name for name in deep}


def _overlays(pool: str, paths: Mapping[str | None, str], daemon: Daemon) -> Iterator[tuple[str, User]]:
    """The images of an active pool that are built on one of the paths, each with the volume that is there."""
    for overlay in map(parse_found_volume, daemon.volumes(pool, None)):
        below = None if overlay.backing is None else paths.get(overlay.backing.path)
        if overlay.backing is not None and below is not None and overlay.backing.path != overlay.path:
            yield below, User("overlay", overlay.path or overlay.name)


def with_users(found: Found, more: Iterable[tuple[str, User]], unseen: Iterable[str] = ()) -> Found:
    users = {name: list(group) for name, group in found.users.items()}
    for name, user in more:
        if user not in users.setdefault(name, []):
            users[name].append(user)
    groups = {name: tuple(group) for name, group in users.items()}
    return replace(found, users=groups, unseen=tuple(sorted({*found.unseen, *unseen})))


def guests_told(daemon: Daemon) -> tuple[tuple[GuestDisks, ...], tuple[str, ...]]:
    """The guests of the connection, and what could not be told of them."""
    texts = daemon.guests()
    if texts is None:
        return (), ("the guests: this connection has none",)
    guests, unseen = [], []
    for text in texts:
        try:
            guests.append(parse_guest(text.encode()))
        except StorageError as error:
            unseen.append(f"the definition of a guest ({error.message})")
    return tuple(guests), tuple(unseen)


def _used(guest: GuestDisks, found: Found, paths: Mapping[str | None, str]) -> Iterator[str]:
    for pool, volume in guest.volumes:
        if pool == found.name:
            yield volume
    for path in guest.paths:
        name = paths.get(path)
        if name is not None:
            yield name
    if guest.directories and found.row.file_tree:
        yield from (name for path, name in paths.items() if path and is_in(path, guest.directories))
