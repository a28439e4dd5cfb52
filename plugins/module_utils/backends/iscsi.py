# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Pools of an iSCSI target that the host itself logs in to: its units are the volumes (formatstorage: "iSCSI volume
pools"). A pool is up as long as there is a session with the target, at one of its portals, under its initiator's name.
The records of open-iscsi that are made for it go with its definition.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..host.block import by_name
from ..host.conditions import has_devices
from ..host.iscsi import Addresses, Node, Portal, Session, fields_of, iface_for, is_at, new_iface, nodes, sessions_with
from ..host.scsi import Unit, nodes_of, units
from ..model.change import TAKE_DOWN, Change
from ..model.errors import StorageError
from ..model.found import ABSENT, READY, UNKNOWN_STORAGE, Found, Part, Problem, Storage, User
from ..model.goal import Scope
from ..model.operations import ForgetRecords, LogIn, LogOut, Run, Secret, Step
from ..model.pool import Pool, overlay
from ..model.secrets import password
from ..model.sources import iscsi_problem
from ..model.types import ISCSI_PORT
from ..model.volume import Volume
from .units import observe_units, rescan

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes
    from ..model.secrets import SecretObject

DIRECTORY = "/dev/disk/by-path"
_TARGET = "target"
_NOT_ROOT = Problem("not_writable", "only root can log in to targets", "Run as root (become: true).")
_STARTUP, _MANUAL = "node.startup", "manual"
_SECONDS = 5.0  # for a name of a portal


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    path, target, portals = pool.path or DIRECTORY, pool.source.target, _portals(pool)
    if not target or not portals:
        return Storage(ABSENT, path, "no target and portal are named")
    problem = iscsi_problem(pool.source)
    if problem is not None:  # a definition of somebody else's
        told = Problem(*problem)
        part = Part(_TARGET, f"the target {target}", UNKNOWN_STORAGE, told.what, told)
        return Storage(UNKNOWN_STORAGE, path, told.what, parts=(part,), up=False)
    there = _sessions(pool, look)
    return Storage(
        READY,
        path,
        parts=(Part(_TARGET, f"the target {target}", READY),),
        up=bool(there),
        bring_up=f"log in to {target} at {', '.join(map(str, portals))}",
        key=target,
        take_down=f"log out of {target}",
        unable=None if there else _unable(pool, look),
        remarks=tuple(_remarks(pool, there, look)),
        comes_back=_comes_back(pool, look),
        leaves=tuple(has_devices(each.number, each.target, nodes_of(each.host, each.within)) for each in there),
    )


def _portals(pool: Pool) -> tuple[Portal, ...]:
    return tuple(Portal(host.name.strip("[]"), host.port or ISCSI_PORT) for host in pool.source.hosts or ())


def _sessions(pool: Pool, look: Look) -> tuple[Session, ...]:
    found: tuple[Session, ...] = look.once(("sessions", pool.source), lambda: _at_portals(pool, look.addresses))
    return found


def _at_portals(pool: Pool, addresses: Addresses) -> tuple[Session, ...]:
    """Those with its target at its portals, in the order of these."""
    known = sessions_with(pool.source.target, pool.source.initiator or "")
    found = (each for portal in _portals(pool) for each in known if is_at(each.portals, portal, addresses))
    return tuple(dict.fromkeys(found))


def _now(pool: Pool) -> tuple[Session, ...]:
    from ..host.reach import Names

    names = Names()
    return _at_portals(pool, lambda name: names.of(name, _SECONDS))


def _unable(pool: Pool, look: Look) -> Problem | None:
    if os.geteuid() != 0:
        return _NOT_ROOT
    try:
        _password(pool, look.secrets)
    except StorageError as error:
        return Problem(error.code, error.message, error.hint)
    return None


def _password(pool: Pool, known: Sequence[SecretObject]) -> str | None:
    """None where nobody asks for one. Raises ``secret_missing``, and ``not_supported`` for what a record can't hold:
    white space at an end, and control characters.
    """
    told = password(pool, known)
    if told is not None and (told != told.strip() or not told.isprintable()):
        raise StorageError(
            "not_supported",
            f"the secret of pool {pool.name} has white space at an end, or a control character",
            subject=f"pool {pool.name}",
            hint="open-iscsi can't keep such a one: give the target another one.",
        )
    return told


def _remarks(pool: Pool, there: Sequence[Session], look: Look) -> Iterable[str]:
    target = pool.source.target
    for portal in _portals(pool) if there else ():
        here = [each for each in there if is_at(each.portals, portal, look.addresses)]
        if not here:
            yield f"pool {pool.name} has no session with {target} at {portal}: it logs in there when it is started"
        elif not here[0].logged_in:
            yield f"pool {pool.name}: {target} at {portal} does not answer; the kernel goes on trying to reach it"


def _comes_back(pool: Pool, look: Look) -> tuple[str, ...]:
    """The records by which open-iscsi itself logs in to the target at boot."""
    if os.geteuid() != 0:
        return ()
    iface = iface_for(pool.source.initiator or "")
    known = [node for node in nodes(pool.source.target) if node.iface == iface]
    here = [node for node in known if any(is_at([node.portal], each, look.addresses) for each in _portals(pool))]
    return tuple(node.path for node in here if fields_of(node.path).get(_STARTUP, _MANUAL) != _MANUAL)


# --- volumes ---------------------------------------------------------------------------------------------------------


def observe_volumes(found: Found, scope: Scope, look: Look) -> Found:
    pool = _as_asked(found, scope)
    there = _sessions(pool, look)
    served = [unit for session in there for unit in units(session.host, session.within)]
    told = _once_each(served)
    found = observe_units(found, scope, look, told, pool.path or DIRECTORY)
    if not _may_take_away(scope):
        return found
    found = _with_other_ways(found, scope, [unit for unit in served if unit not in told], look, pool)
    return _with_all_devices(found, there)


def _as_asked(found: Found, scope: Scope) -> Pool:
    """Tasks about the pool itself may take away the units that it has, not those that it would have by then."""
    existing = found.running
    if existing is None or _may_take_away(scope):
        return existing or scope.pool
    return overlay(existing, scope.pool)


def _may_take_away(scope: Scope) -> bool:
    return scope.neighbours and scope.volumes is None


def _once_each(served: Sequence[Unit]) -> list[Unit]:
    """Several sessions lead to the same units: each is told by the first of them that has a way to it."""
    best: dict[str, Unit] = {}
    for unit in served:
        have = best.get(unit.name)
        if have is None or (have.problem and not unit.problem):
            best[unit.name] = unit
    return list(best.values())


def _with_other_ways(found: Found, scope: Scope, others: Sequence[Unit], look: Look, pool: Pool) -> Found:
    """To tasks about the pool itself, which may take them away, the devices of the other sessions are told too."""
    if not others:
        return found
    more = observe_units(replace(found, volumes={}), scope, look, others, pool.path or DIRECTORY)
    ways = {volume.name: volume for volume in more.volumes.values()}
    volumes = dict(found.volumes)
    for unit in others:
        name = f"{unit.name} by host{unit.address.partition(':')[0]}"
        volumes[name] = replace(ways[unit.name], name=name, foreign=f"another way to {unit.name}")
    return replace(found, volumes=volumes)


def _with_all_devices(found: Found, there: Sequence[Session]) -> Found:
    """So is whatever else goes with the sessions: drives and tapes, disks that no link leads to, and the nodes by which
    a unit is given commands past its disk.
    """
    listed = {os.path.realpath(each.path) for each in found.volumes.values() if each.path}
    volumes = dict(found.volumes)
    for node in (node for session in there for node in nodes_of(session.host, session.within)):
        name = node[len("/dev/") :]
        if node not in listed:
            kind = "character" if by_name(name) is None else "block"
            volumes[name] = Volume(name, type=kind, path=node, foreign="a device of the target that is no volume")
    return replace(found, volumes=volumes)


def busy(pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    return (), ()  # who has its units is asked for all volumes that would be taken away


# --- lowering --------------------------------------------------------------------------------------------------------


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    pool = change.wanted
    records = notes.record_path(_key(pool))
    if change.action == "start":
        return [_log_in(pool, found, records)]
    if change.action == "stop":
        return _log_out(change)
    if change.action == "undefine":
        return [ForgetRecords(pool.source.target, records)] if notes.made(_key(pool)) is not None else []
    if change.action == "autostart":
        return [_by_hand(node) for node in nodes(pool.source.target) if node.path in found.storage.comes_back]
    return []


def _key(pool: Pool) -> str:
    """What the note of the records is called that we have made for a pool."""
    return f"records {pool.name}"


def _log_in(pool: Pool, found: Found, records: str) -> LogIn:
    target, portals, initiator = pool.source.target, tuple(map(str, _portals(pool))), pool.source.initiator or ""
    known = iface_for(initiator)
    iface = known or new_iface(initiator)
    recorded = tuple(str(node.portal) for node in nodes(target) if node.iface == iface)
    return LogIn(target, portals, records, initiator, _credentials(pool, found), iface, not known, recorded)


def _log_out(change: Change) -> list[LogOut]:
    """Of the sessions that were looked at, and of no others."""
    known = [each for each in change.requires if each.kind == "session"] if TAKE_DOWN in change.may else []
    return [LogOut(int(each.path), str(each.expected[0])) for each in known]


def _credentials(pool: Pool, found: Found) -> Secret | None:
    """As settings of a record. What is mutual is left as it is in one that is there, where it is not declared."""
    auth, secret = pool.source.auth, _password(pool, found.secrets)
    if auth is None or secret is None:
        return None
    settings = {"authmethod": "CHAP", "username": auth.username, "password": secret}
    if pool.mutual is not None:
        settings.update(username_in=pool.mutual.username, password_in=pool.mutual.secret)
    return Secret("".join(f"node.session.auth.{name} = {value}\n" for name, value in settings.items()))


def _by_hand(node: Node) -> Run:
    """Nobody but who marks pools brings it up at boot then."""
    words = ("iscsiadm", *node.words, "-o", "update", "-n", _STARTUP, "-v", _MANUAL)
    return Run(words, bounded=True, whole=True)


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> Sequence[Step]:
    """All that can be done for a unit here is to look for it."""
    pool = found.running
    there = () if pool is None else _now(pool)
    there = tuple(each for each in there if each.logged_in) or there[:1]
    if not there:  # an earlier task would have logged in
        return ()
    first, *others = there
    more = tuple(rescan(each.host, each.within) for each in others)
    return [Step((*more, rescan(first.host, first.within, sought=change.wanted)), change) for change in changes]
