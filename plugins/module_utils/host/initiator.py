# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Logging in to targets of iSCSI and out again, by iscsiadm(8). Passwords are written into the records themselves: it
would take them in its command line only.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..model import operations as ops
from ..model.errors import StorageError
from ..model.types import ISCSI_PORT
from .directories import sync_path, unlink, write_file
from .files import read_small_file
from .iscsi import (
    DATABASES,
    DEFAULT,
    Node,
    Portal,
    Session,
    asking_record,
    fields_of,
    iface_for,
    is_at,
    new_iface,
    node_at,
    nodes,
    sessions,
    sessions_with,
)
from .reach import Names, ensure_listening
from .run import Ended, failure, finish
from .scanning import SECONDS, scan_units
from .scsi import units

_TOOL = "iscsiadm"
# Exit statuses: include/iscsi_err.h of open-iscsi.
_DATABASE, _TIMED_OUT, _NO_TRANSPORT, _EXISTS, _FATAL = 6, 8, 12, 15, 19
_NO_DAEMON, _NOTHING, _NO_SESSION, _REFUSED = 20, 21, 22, 24
_CODES = {_TIMED_OUT: "deadline", _NO_TRANSPORT: "not_supported", _REFUSED: "login_refused"}
_HINTS = {
    _DATABASE: "Where no iscsiadm runs, one that was killed may have left its lock: remove /run/lock/iscsi/lock.write.",
    _NO_TRANSPORT: "Install or load the module for the running kernel (iscsi_tcp).",
    _FATAL: "See what the target says of this initiator: whether it may log in, and with which credentials.",
    _NO_DAEMON: "Start iscsid (systemctl start iscsid) and see why it does not answer.",
    _REFUSED: "See whether username, secret and what is mutual are those of the target, and whether it lets this "
    "initiator in.",
}
_MANUAL = {"node.startup": "manual", "node.conn[0].startup": "manual"}
_APPEARING = 10.0  # seconds
_POLL_SECONDS = 0.1
_LONGEST_PAUSE = 2.0  # seconds
_LEAST = 0.5  # seconds, to take back what was made
_END = "# END RECORD"
_NODE, _IFACE, _ASKING = "node", "iface", "asking"
_OF_TARGET, _OF_PORTAL = "node.session.auth.", "discovery.sendtargets.auth."
_SHOWN = 5


def log_in(op: ops.LogIn, held: Sequence[int], timeout: float | None) -> None:
    """At one of the portals at least. Raises ``source_missing``, ``login_refused``, ``deadline``,
    ``operation_failed``, ``command_failed``.
    """
    attempt = _Attempt(op, held, time.monotonic() + (timeout or SECONDS))
    try:
        attempt.log_in()
    except BaseException:
        attempt.take_back()
        raise
    attempt.forget_others()
    attempt.await_units()


def log_out(op: ops.LogOut, held: Sequence[int], timeout: float | None) -> None:
    deadline = time.monotonic() + (timeout or SECONDS)
    if _session(op) is None:
        return
    ended = _run(("-m", "session", "-r", str(op.session), "--logout"), held, deadline)
    while _session(op) is not None:
        if ended.status not in (0, _NO_SESSION) or time.monotonic() >= deadline:
            raise _failed(ended)
        time.sleep(_POLL_SECONDS)


def _session(op: ops.LogOut) -> Session | None:
    return next((each for each in sessions() if (each.number, each.target) == (op.session, op.target)), None)


def forget_records(op: ops.ForgetRecords, held: Sequence[int], timeout: float | None) -> None:
    deadline = time.monotonic() + (timeout or SECONDS)
    _remove(_noted(op.records), held, deadline)
    unlink(op.records)


# --- logging in ------------------------------------------------------------------------------------------------------


class _Attempt:
    """One try to log in, and what it has made."""

    def __init__(self, op: ops.LogIn, held: Sequence[int], deadline: float) -> None:
        self._op, self._held, self._deadline = op, held, deadline
        self._names = Names()
        self._noted = _noted(op.records)
        self._had = set(self._noted)
        self._used: set[_Made] = set()
        self._begun: list[Node] = []
        self._theirs: dict[str, bytes] = {}

    def log_in(self) -> None:
        iface = self._iface()
        errors = []
        for left, portal in zip(range(len(self._op.portals), 0, -1), map(portal_of, self._op.portals)):
            end = time.monotonic() + self._left() / left
            try:
                self._log_in_at(portal, iface, end)
            except StorageError as error:
                errors.append(error)
        if len(errors) == len(self._op.portals):
            raise errors[0]

    def _left(self) -> float:
        return max(_LEAST, self._deadline - time.monotonic())

    def _iface(self) -> str:
        """The interface with the initiator's name, made where there is none."""
        name = iface_for(self._op.initiator)
        if name:
            self._used.add(_Made(_IFACE, name))
            return name
        name = new_iface(self._op.initiator)
        self._note(_Made(_IFACE, name))
        words = ("-m", "iface", "-I", name)
        named = ("-o", "update", "-n", "iface.initiatorname", "-v", self._op.initiator)
        for more in (("-o", "new"), named):
            _check(_run((*words, *more), self._held, self._deadline))
        return name

    def _log_in_at(self, portal: Portal, iface: str, end: float) -> None:
        if self._session_at(portal) is not None:
            self._await_login(portal, end)
            return
        tag = self._offered(portal, iface, end)
        node = self._node(portal, tag, iface, end)
        try:
            self._begin(node, end)
            self._await_login(portal, end)
        except BaseException:
            self._give_back(node)
            raise

    def _begin(self, node: Node, end: float) -> None:
        """A login that somebody else has on its way is theirs."""
        self._begun.append(node)
        ended = _run((*node.words, "--login"), self._held, end)
        if ended.status == _EXISTS:
            self._begun.remove(node)
        else:
            _check(ended)

    def _give_back(self, node: Node) -> None:
        """What somebody else's record had before it got credentials that did not help."""
        had = self._theirs.pop(node.path, None)
        if had is not None and os.path.exists(node.path):
            with suppress(OSError):
                _replace(node.path, had)

    def _session_at(self, portal: Portal) -> Session | None:
        known = sessions_with(self._op.target, self._op.initiator)
        return next((each for each in known if is_at(each.portals, portal, self._addresses)), None)

    def _addresses(self, name: str) -> Sequence[str]:
        return self._names.of(name, self._left())

    def _await_login(self, portal: Portal, end: float) -> None:
        while True:
            session = self._session_at(portal)
            if session is not None and session.logged_in:
                return
            if time.monotonic() >= end:
                what = f"{self._op.target} at {portal} is not logged in to by now"
                hint = "See what iscsid says of it (journalctl -u iscsid), or give the task a longer timeout."
                raise StorageError("deadline", what, subject=self._op.target, hint=hint)
            time.sleep(_POLL_SECONDS)

    def _offered(self, portal: Portal, iface: str, end: float) -> int:
        """The group of the portal, as it tells it. It has to name the target."""
        ensure_listening(portal.host, portal.port, max(_LEAST, end - time.monotonic()))
        offers = self._offers(portal, iface, end)
        there = [offer for offer in offers if offer.target == self._op.target]
        if not there:
            raise _not_offered(self._op.target, portal, [offer.target for offer in offers])
        here = [offer for offer in there if is_at([offer.portal], portal, self._addresses)]
        return (here or there)[0].tag

    def _offers(self, portal: Portal, iface: str, end: float) -> list[Offer]:
        """A portal that lets nobody ask without a password is given that of the target."""
        try:
            return offers_at(portal, max(_LEAST, end - time.monotonic()), iface, self._held)
        except StorageError as error:
            if error.code != "login_refused" or self._op.credentials is None:
                raise
        made = _Made(_ASKING, str(portal))
        if asking_record(portal) and made not in self._noted:  # it is theirs, and may know another password
            return _offers_by_record(portal, iface, self._held, end)
        try:
            self._note(made)
            if not asking_record(portal):
                _check(_run((*_asking(portal), "-o", "new"), self._held, end))
            settings = _settings(self._op.credentials).items()
            _rewrite(asking_record(portal), {name.replace(_OF_TARGET, _OF_PORTAL): value for name, value in settings})
            return _offers_by_record(portal, iface, self._held, end)
        finally:
            self._forget([made], self._deadline)
            self._noted.remove(made)

    def _node(self, portal: Portal, tag: int, iface: str, end: float) -> Node:
        """Its record, with the credentials. One of ours is made anew where there are none, to forget the old ones."""
        node = node_at(self._op.target, portal, iface, self._addresses)
        new = Node("", self._op.target, portal, tag, iface)
        ours = node is None or _made_of(node) in self._had
        if node is None or (ours and self._op.credentials is None):
            self._note(_made_of(node or new))
            _check(_run((*(node or new).words, "-o", "new"), self._held, end))
            node = node_at(self._op.target, portal, iface, self._addresses)
            if node is None:
                where = " and ".join(DATABASES)
                what = f"{_TOOL} made no record of {self._op.target} that is found in {where}"
                raise StorageError("operation_failed", what, subject=_TOOL, hint="See where its database is.")
        self._used |= {_made_of(node), _made_of(new)}
        if not ours and self._op.credentials is not None:
            self._theirs[node.path] = read_small_file(node.path) or b""
        _rewrite(node.path, {**(_MANUAL if ours else {}), **_settings(self._op.credentials)})
        return node

    def _note(self, made: _Made) -> None:
        """Before it is made: so it is known for ours, whatever happens then."""
        self._used.add(made)
        if made not in self._noted:
            self._noted.append(made)
            write_file(ops.WriteFile(self._op.records, _text(self._noted)))

    def take_back(self) -> None:
        """What it began may come up yet: who ends a session has to see it first."""
        deadline = max(self._deadline, time.monotonic() + _LEAST)
        for node in self._begun:
            for session in sessions_with(self._op.target, self._op.initiator):
                if is_at(session.portals, node.portal, self._addresses):
                    with suppress(StorageError):
                        log_out(ops.LogOut(session.number, session.target), self._held, deadline - time.monotonic())
        with suppress(StorageError, OSError):
            self._forget([made for made in self._noted if made not in self._had], deadline)

    def forget_others(self) -> None:
        """Records of portals and names that the pool had before."""
        self._forget([made for made in self._noted if made not in self._used], self._deadline)

    def _forget(self, made: Sequence[_Made], deadline: float) -> None:
        if not made:
            return
        _remove(made, self._held, deadline)
        left = [each for each in self._noted if each not in made or _is_kept(each)]
        if left:
            write_file(ops.WriteFile(self._op.records, _text(left)))
        else:
            unlink(self._op.records)

    def await_units(self) -> None:
        """There may be none: so each look for them comes later than the one before, since it takes processes."""
        patience, pause = min(self._deadline, time.monotonic() + _APPEARING), _POLL_SECONDS
        while True:
            known = [each for each in sessions_with(self._op.target, self._op.initiator) if each.logged_in]
            for session in known:
                scan_units(ops.ScanUnits(session.host, session.within), self._held, self._left())
            if any(units(session.host, session.within) for session in known) or time.monotonic() >= patience:
                return
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def portal_of(text: str) -> Portal:
    """What is written as ``HOST:PORT``."""
    host, _colon, port = text.rpartition(":")
    return Portal(host.strip("[]"), int(port) if port else ISCSI_PORT)


class Offer(NamedTuple):
    """A portal at which a target can be logged in to; ``tag`` is that of its group."""

    portal: Portal
    tag: int
    target: str


def offers_at(portal: Portal, seconds: float, iface: str = DEFAULT, held: Sequence[int] = ()) -> list[Offer]:
    """What a portal offers to the initiator of an interface. Raises ``command_failed``, ``deadline``,
    ``tool_missing``.
    """
    ended = finish((*ops.discovery(str(portal)), "-I", iface), held, seconds)
    if ended.status != _NOTHING:
        _check(ended)
    return list(_offers(ended.stdout))


def _asking(portal: Portal) -> tuple[str, ...]:
    return ("-m", "discoverydb", "-t", "sendtargets", "-p", str(portal))


def _offers_by_record(portal: Portal, iface: str, held: Sequence[int], end: float) -> list[Offer]:
    """What a portal offers to who asks as its record says. Nothing is noted of that."""
    ended = _run((*_asking(portal), "-I", iface, "--discover", "-o", "nonpersistent"), held, end)
    if ended.status != _NOTHING:
        _check(ended)
    return list(_offers(ended.stdout))


def _offers(printed: str) -> Iterator[Offer]:
    """Lines such as ``192.0.2.1:3260,1 iqn.2024-01.com.example:disks``."""
    for line in printed.splitlines():
        where, space, target = line.strip().partition(" ")
        portal, comma, tag = where.rpartition(",")
        if space and comma and tag.lstrip("-").isdigit() and portal.rpartition(":")[2].isdigit():
            yield Offer(portal_of(portal), int(tag), target.strip())


def _not_offered(target: str, portal: Portal, offered: Sequence[str]) -> StorageError:
    names = list(dict.fromkeys(offered))
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return StorageError(
        "source_missing",
        f"{portal} does not offer {target} to this initiator; it offers {shown or 'nothing'}",
        subject=target,
        hint="Name one that it offers, or have it served, and this initiator let in, where the target is.",
    )


# --- running ---------------------------------------------------------------------------------------------------------


def _run(words: Sequence[str], held: Sequence[int], deadline: float) -> Ended:
    return finish((_TOOL, *words), held, max(_LEAST, deadline - time.monotonic()))


def _check(ended: Ended) -> None:
    if ended.status:
        raise _failed(ended)


def _failed(ended: Ended) -> StorageError:
    error = failure(_TOOL, ended.command, ended.status, ended.stderr.strip())
    error.hint = _HINTS.get(ended.status, error.hint)
    error.code = _CODES.get(ended.status, error.code)
    return error


# --- records ---------------------------------------------------------------------------------------------------------


class _Made(NamedTuple):
    """A record that we have made: of an interface by its name, of a node also its target, its portal and the group of
    that. One of asking a portal has that as its name.
    """

    kind: str
    iface: str
    target: str = ""
    portal: str = ""
    tag: str = ""


def _made_of(node: Node) -> _Made:
    return _Made(_NODE, node.iface, node.target, str(node.portal), str(node.tag))


def _text(noted: Sequence[_Made]) -> str:
    return "".join(f"{' '.join(filter(None, each))}\n" for each in noted)


def _noted(path: str) -> list[_Made]:
    """What is noted as made by us."""
    data = read_small_file(path) or b""
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    return [_Made(*line.split(" ")) for line in lines if line]


def _remove(noted: Sequence[_Made], held: Sequence[int], deadline: float) -> None:
    """Nodes first; iscsiadm keeps those of running sessions."""
    for each in sorted(noted, key=lambda made: made.kind, reverse=True):
        if each.kind == _NODE:
            node = next((node for node in nodes(each.target) if _made_of(node) == each), None)
            if node is not None:
                unlink(_staged(node.path))
                _checked_removal(_run((*node.words, "-o", "delete"), held, deadline))
        elif each.kind == _ASKING:
            _remove_asking(portal_of(each.iface), held, deadline)
        elif each.iface != DEFAULT and not _is_used(each.iface) and _has(each.iface):
            _checked_removal(_run(("-m", "iface", "-I", each.iface, "-o", "delete"), held, deadline))


def _remove_asking(portal: Portal, held: Sequence[int], deadline: float) -> None:
    path = asking_record(portal)
    if path:
        unlink(_staged(path))
        _checked_removal(_run((*_asking(portal), "-o", "delete"), held, deadline))


def _is_kept(made: _Made) -> bool:
    """Whether a node is there still: iscsid is not done with it, and it goes with the definition."""
    return made.kind == _NODE and any(_made_of(node) == made for node in nodes(made.target))


def _checked_removal(ended: Ended) -> None:
    if ended.status not in (_EXISTS, _NOTHING):
        _check(ended)


def _is_used(iface: str) -> bool:
    return any(node.iface == iface for node in nodes()) or any(each.iface == iface for each in sessions())


def _has(iface: str) -> bool:
    return any(os.path.exists(f"{database}/ifaces/{iface}") for database in DATABASES)


def _settings(credentials: Any) -> dict[str, str]:
    if credentials is None:
        return {}
    lines = credentials.data.decode("utf-8", "surrogateescape").splitlines()
    return {name: value for name, _equals, value in (line.partition(" = ") for line in lines)}


def _rewrite(path: str, settings: dict[str, str]) -> None:
    """Replaces settings of a record, whole or not at all, for root alone. The new one is not beside it until it is
    whole: what is there counts as a record.
    """
    told = fields_of(path)
    if all(told.get(name) == value for name, value in settings.items()):
        return
    data = (read_small_file(path) or b"").decode("utf-8", "surrogateescape")
    lines = []
    missing = dict(settings)
    for line in data.splitlines():
        name = line.partition("=")[0].strip()
        if name in missing:
            lines.append(f"{name} = {missing.pop(name)}")
        elif line.strip() == _END:
            break
        elif line.strip() and name not in settings:
            lines.append(line)
    lines += [*(f"{name} = {value}" for name, value in missing.items()), _END]
    _replace(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def _replace(path: str, data: bytes) -> None:
    staged = _staged(path)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.rename(staged, path)
    sync_path(os.path.dirname(path))


def _staged(path: str) -> str:
    database = next((each for each in DATABASES if path.startswith(f"{each}/")), os.path.dirname(path))
    return f"{database}/.virt-storage-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
