# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What pools could be made from: what is asked for, and what one look has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import StorageError
from .pool import Adapter, Pool, Source, SourceHost

# The protocols of netfs, in the words of source.format.
NFS, GLUSTERFS, CIFS = "nfs", "glusterfs", "cifs"
# Formats that say nothing: whatever is there is meant.
ANY_FORMAT = (None, "auto", "unknown")
EVERYTHING = Source()


@dataclass(frozen=True)
class Query:
    """``hosts`` are those to ask, and ``formats`` the protocols to ask them by. ``paths``: devices of the declaration,
    of which is wanted what they resolve to, and ``adapters`` likewise. ``portals``: the hosts with their ports, of
    servers that may be at any, and ``initiator`` the name of who asks there.
    """

    type: str
    hosts: tuple[str, ...] = ()
    formats: tuple[str, ...] = (NFS, GLUSTERFS, CIFS)
    paths: tuple[str, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    portals: tuple[SourceHost, ...] = ()
    initiator: str | None = None


@dataclass(frozen=True)
class SourcesGoal:
    """``like``: what is listed is like this. ``wanted``: what has to be there, and ``only_free``: list nothing else
    than what is free.
    """

    query: Query
    like: Source = EVERYTHING
    wanted: tuple[Source, ...] = ()
    only_free: bool = False


@dataclass(frozen=True)
class FoundSource:
    """Something that a pool could be made from. ``pools`` have it already; ``users`` are all others that stand in the
    way, in words. ``devices``: the resolved paths of what it is and of what it is a part of, to compare with the
    devices of pools. ``group``: the volume group that its device belongs to.

    Sizes are bytes. ``content`` is a signature in blkid's words, empty where there is none; ``clients`` are those whom
    an export lets in. What is None is not known, or has no meaning here.
    """

    source: Source
    pools: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    group: str | None = None
    path: str | None = None
    kind: str | None = None
    size: int | None = None
    available: int | None = None
    content: str | None = None
    label: str | None = None
    uuid: str | None = None
    volumes: int | None = None
    clients: tuple[str, ...] | None = None
    comment: str | None = None

    @property
    def free(self) -> bool:
        return not self.pools and not self.users

    @property
    def why_not(self) -> tuple[str, ...]:
        """Who has it; empty when it is free."""
        return (*(f"part of pool {name} already" for name in self.pools), *self.users)


@dataclass(frozen=True)
class Unanswered:
    """What could not be looked at: a host, by one protocol where there are several, or a device; and why."""

    host: str
    format: str
    error: StorageError


@dataclass(frozen=True)
class Discovery:
    """``answered``: whether anybody did who was asked. ``pools`` are those that are defined or run here, ``unread``
    those that can't be read. ``left_out``: what is not offered, in words. ``resolved``: paths to what they resolve to,
    ``hosts``: adapters to the SCSI hosts that they lead to. ``port``: the one that is meant where none is said; 0 where
    ports tell nothing.
    """

    sources: tuple[FoundSource, ...] = ()
    unanswered: tuple[Unanswered, ...] = ()
    answered: bool = True
    pools: tuple[Pool, ...] = ()
    unread: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    resolved: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[Adapter, tuple[int, ...]] = field(default_factory=dict)
    port: int = 0
