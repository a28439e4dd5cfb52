# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Looking for what pools could be made from: with this host's own tools, or by asking a daemon."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..backends.by_type import finder_of
from ..host.block import nodes_below
from ..host.daemon import Daemon
from ..libvirt_xml.guests import GuestDisks
from ..model.discovery import ANY_FORMAT, CIFS, Discovery, FoundSource, Query, Unanswered
from ..model.errors import StorageError
from ..model.pool import Pool, Source, SourceHost
from ..model.types import POOL_TYPES

if TYPE_CHECKING:
    from ..host.look import Look
    from ..model.adapters import Hosts


def look_here(query: Query, look: Look) -> Discovery:
    """Raises StorageError where nothing could be looked at."""
    finder = finder_of(query.type)
    if finder is None:
        raise StorageError(
            "backend_missing",
            f"sources of pools of type {query.type} are not looked for here",
            subject=query.type,
            hint="Name the uri of a libvirt daemon that can.",
        )
    return finder.find(query, look)


def settled(
    query: Query,
    discovery: Discovery,
    pools: Iterable[Pool],
    guests: Iterable[GuestDisks] = (),
    unread: Iterable[str] = (),
) -> Discovery:
    """With the pools of the host, guests that have a device as a disk, and what all devices are that are named
    anywhere.
    """
    pools = tuple(pools)
    named = {device.path for pool in pools for device in pool.source.devices or ()}
    named.update(device.path for found in discovery.sources for device in found.source.devices or ())
    paths = {path for path in {*named, *query.paths} if path.startswith("/")}
    resolved = {**{path: os.path.realpath(path) for path in paths}, **discovery.resolved}
    disks = {os.path.realpath(path): guest.name for guest in guests for path in _devices(guest)}
    sources = tuple(_with_guests(found, disks) for found in discovery.sources)
    hosts = _hosts(query, [*(pool.source for pool in pools), *(found.source for found in discovery.sources)])
    return replace(discovery, sources=sources, pools=pools, unread=tuple(unread), resolved=resolved, hosts=hosts)


def _hosts(query: Query, sources: Iterable[Source]) -> Hosts:
    from ..host.adapters import hosts_of

    adapters = {*query.adapters, *(source.adapter for source in sources if source.adapter is not None)}
    return hosts_of(adapters) if adapters else {}


def _devices(guest: GuestDisks) -> list[str]:
    return [*(path for path in guest.paths if path.startswith("/dev/")), *nodes_below(guest.hardware)]


def _with_guests(found: FoundSource, disks: Mapping[str, str]) -> FoundSource:
    guests = dict.fromkeys(f"a disk of guest {disks[path]}" for path in found.devices if path in disks)
    return replace(found, users=(*found.users, *guests)) if guests else found


# --- through a daemon ------------------------------------------------------------------------------------------------


def look_through(query: Query, daemon: Daemon, look: Look, at_hand: bool, supported: bool) -> Discovery:
    """What the daemon finds. What is on its own host is looked at here where that is the same: it does not tell what
    keeps a group from being a pool, and is not asked for the rest. Raises ``daemon_cannot`` where nobody can look.
    """
    row = POOL_TYPES[query.type]
    finds = row.daemon_finds and supported
    if at_hand and not (finds and row.protocols):
        return look_here(query, look)
    if not finds:
        raise _cannot(query.type, daemon.uri)
    return _of_servers(query, daemon, look, at_hand) if row.protocols else _groups(query, daemon)


def _cannot(what: str, uri: str) -> StorageError:
    return StorageError(
        "daemon_cannot",
        f"the daemon of {uri} can't look for sources of {what}, and nobody else can see them from here",
        subject=uri,
        hint="Run the task on the daemon's own host (uri: auto there).",
    )


def _groups(query: Query, daemon: Daemon) -> Discovery:
    sources = []
    for source in _told(daemon, query.type, None):
        devices = tuple(device.path for device in source.devices or ())
        sources.append(FoundSource(source, devices=devices, group=source.name, kind="group"))
    return Discovery(tuple(sources))


def _told(daemon: Daemon, kind: str, host: str | None) -> tuple[Source, ...]:
    from ..libvirt_xml.sources import parse_sources, render_query

    row = POOL_TYPES[kind]
    query = None if host is None else render_query(Source(hosts=(SourceHost(host),)), row)
    return parse_sources(daemon.find_sources(kind, query), row)


def _of_servers(query: Query, daemon: Daemon, look: Look, at_hand: bool) -> Discovery:
    """The daemon knows NFS and Gluster; of CIFS is asked from here."""
    by_daemon = tuple(protocol for protocol in query.formats if protocol != CIFS)
    if not by_daemon and not at_hand:
        raise _cannot("CIFS", daemon.uri)
    found = _by_daemon(query, daemon, look, by_daemon) if by_daemon else Discovery(answered=False)
    if CIFS not in query.formats or not at_hand:
        return found
    here = look_here(replace(query, formats=(CIFS,)), look)
    return replace(
        here,
        sources=(*found.sources, *here.sources),
        unanswered=(*found.unanswered, *here.unanswered),
        answered=found.answered or here.answered,
    )


def _by_daemon(query: Query, daemon: Daemon, look: Look, protocols: tuple[str, ...]) -> Discovery:
    """One host after the other: the daemon has one connection. What it found by a protocol that was not asked for is
    left out.
    """
    sources: list[FoundSource] = []
    unanswered: list[Unanswered] = []
    for host in query.hosts:
        try:
            daemon.timeout = look.left(host)
            told = _told(daemon, query.type, host)
        except StorageError as error:
            if error.code not in ("daemon_failed", "deadline"):
                raise
            unanswered.append(Unanswered(host, protocols[0] if len(protocols) == 1 else "", error))
            continue
        sources += [FoundSource(source) for source in told if source.format in (*ANY_FORMAT, *protocols)]
    return Discovery(tuple(sources), tuple(unanswered), len(query.hosts) > len(unanswered))
