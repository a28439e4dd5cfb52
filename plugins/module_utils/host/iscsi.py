# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Sessions with iSCSI targets as sysfs shows them (the kernel's scsi_transport_iscsi), and the records of open-iscsi in
its database: by which interface, and so under which initiator's name, and how each portal of a target is reached
(open-iscsi's README). Nothing here asks a target, or starts a process.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ..model.errors import StorageError
from ..model.pool import at_port
from ..model.types import ISCSI_PORT
from .block import attribute
from .files import read_small_file
from .reach import plain_address

_SYS = "/sys"
# Where distributions have the database; those of the second one keep its settings in the first.
DATABASES = ("/etc/iscsi", "/var/lib/iscsi")
_OWN_NAME = "/etc/iscsi/initiatorname.iscsi"
DEFAULT = "default"  # the interface that has the host's own name, and no record
LOGGED_IN, _FREE = "LOGGED_IN", "FREE"
_SESSION = re.compile(r"session([0-9]+)\Z")
_HOST = re.compile(r"/host([0-9]+)/session[0-9]+/")
_WITHIN = re.compile(r"target([0-9]+:[0-9]+:[0-9]+)\Z")
_PORTAL = re.compile(r"([^/]+),([0-9]+),(-?[0-9]+)\Z")
_DIGITS = 12  # of what tells our interfaces apart


class Portal(NamedTuple):
    """``host`` is a name, or an address without brackets."""

    host: str
    port: int = ISCSI_PORT

    def __str__(self) -> str:
        return at_port(self.host, self.port)


class Session(NamedTuple):
    """``number`` is the session's (SID), ``state`` the kernel's word for it. ``portals``: what it was told to connect
    to, and what it is connected to. ``host`` is the number of its SCSI host, ``within`` its target there (``H:B:T``),
    empty as long as there is none.
    """

    number: int
    target: str
    initiator: str
    iface: str
    state: str
    portals: tuple[Portal, ...]
    host: int
    within: str

    @property
    def logged_in(self) -> bool:
        return self.state in (LOGGED_IN, "")  # kernels before 2.6.27 don't tell

    @property
    def there(self) -> bool:
        """Whether it was logged in: one that lost its target comes back by itself. It is free before its first login,
        and again when its target was given up (scsi_transport_iscsi.c: session_recovery_timedout), where it keeps its
        units.
        """
        return self.state != _FREE or bool(self.within)


def sessions() -> tuple[Session, ...]:
    """All of them, in the order of their numbers."""
    try:
        names = os.listdir(f"{_SYS}/class/iscsi_session")
    except OSError:
        return ()
    numbers = sorted(int(match[1]) for match in map(_SESSION.match, names) if match)
    return tuple(each for each in map(_session, numbers) if each is not None)


def _session(number: int) -> Session | None:
    directory = os.path.realpath(f"{_SYS}/class/iscsi_session/session{number}")
    host, target = _HOST.search(directory), attribute(directory, "targetname")
    if host is None or not target:  # it goes away right now
        return None
    within = filter(None, map(_WITHIN.match, _names(os.path.dirname(os.path.dirname(directory)))))
    return Session(
        number,
        target,
        attribute(directory, "initiatorname"),
        attribute(directory, "ifacename"),
        attribute(directory, "state"),
        tuple(_portals(number)),
        int(host[1]),
        next((match[1] for match in within), ""),
    )


def _portals(number: int) -> Iterator[Portal]:
    directory = f"{_SYS}/class/iscsi_connection/connection{number}:0"
    for kind in ("persistent_", ""):
        host, port = attribute(directory, f"{kind}address"), attribute(directory, f"{kind}port")
        if host and port.isdigit():
            yield Portal(host.strip("[]"), int(port))


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


# --- which ones are meant --------------------------------------------------------------------------------------------

Addresses = Callable[[str], Iterable[str]]


def own_name() -> str:
    """The initiator's name of this host; empty where it has none, or may not be read."""
    for line in _lines(_OWN_NAME):
        name, equals, value = line.partition("=")
        if equals and name.strip() == "InitiatorName":
            return value.strip()
    return ""


def sessions_with(target: str, initiator: str) -> tuple[Session, ...]:
    """Those with a target as this initiator, or as the host itself where that is empty."""
    named = [session for session in sessions() if session.target == target and session.there]
    if initiator:
        return tuple(session for session in named if session.initiator == initiator)
    own = own_name()
    return tuple(each for each in named if each.iface in ("", DEFAULT) or (own and each.initiator == own))


def is_at(portals: Iterable[Portal], wanted: Portal, addresses: Addresses) -> bool:
    """Whether one of the portals is the wanted one, by its name or by the addresses that this has."""
    there = {plain_address(portal.host) for portal in portals if portal.port == wanted.port}
    return bool(there) and (plain_address(wanted.host) in there or bool(there & set(addresses(wanted.host))))


# --- the database ----------------------------------------------------------------------------------------------------


class Node(NamedTuple):
    """A record of how a portal of a target is reached by an interface; ``tag`` is that of the portal's group."""

    path: str
    target: str
    portal: Portal
    tag: int
    iface: str

    @property
    def words(self) -> tuple[str, ...]:
        """What it is for iscsiadm(8)."""
        return ("-m", "node", "-T", self.target, "-p", f"{self.portal},{self.tag}", "-I", self.iface)


def nodes(target: str = "") -> Iterator[Node]:
    """The records of a target, or of all. Records of open-iscsi before 2.0-871 are files of another form: left out."""
    for database in DATABASES:
        for name in [target] if target else _names(f"{database}/nodes"):
            for portal in _names(f"{database}/nodes/{name}"):
                yield from _nodes(f"{database}/nodes/{name}/{portal}", name)


def _nodes(directory: str, target: str) -> Iterator[Node]:
    match = _PORTAL.search(directory)
    if match is not None:
        portal, tag = Portal(match[1], int(match[2])), int(match[3])
        yield from (Node(f"{directory}/{iface}", target, portal, tag, iface) for iface in _names(directory))


def node_at(target: str, portal: Portal, iface: str, addresses: Addresses) -> Node | None:
    """The record by which a portal is reached; one that names it in the same words comes first."""
    known = [node for node in nodes(target) if node.iface == iface]
    exact = [node for node in known if node.portal == portal]
    return next(iter(exact or (node for node in known if is_at([node.portal], portal, addresses))), None)


def asking_record(portal: Portal) -> str:
    """The record of how a portal is asked for its targets; empty where there is none."""
    paths = (f"{database}/send_targets/{portal.host},{portal.port}/st_config" for database in DATABASES)
    return next(filter(os.path.exists, paths), "")


def fields_of(path: str) -> dict[str, str]:
    """The settings of a record; none where it is not there, or may not be read."""
    pairs = (line.partition("=")[::2] for line in _lines(path) if not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def iface_for(initiator: str) -> str:
    """The interface that logs in under this name, or under the host's own; empty where none does."""
    if not initiator or initiator == own_name():
        return DEFAULT
    own, found = new_iface(initiator), []
    for database in DATABASES:
        for name in _names(f"{database}/ifaces"):
            settings = fields_of(f"{database}/ifaces/{name}")
            is_tcp = settings.get("iface.transport_name", "tcp") == "tcp"
            if is_tcp and settings.get("iface.initiatorname") == initiator:
                found.append(name)
    return own if own in found else next(iter(found), "")


def new_iface(initiator: str) -> str:
    """What the interface is called that is made for a name: always the same."""
    return f"virt-storage-{hashlib.sha256(initiator.encode()).hexdigest()[:_DIGITS]}"


def _lines(path: str) -> list[str]:
    """None where it is not there, or may not be read."""
    data = b""
    with suppress(StorageError):
        data = read_small_file(path) or b""
    return data.decode("utf-8", "surrogateescape").splitlines()
