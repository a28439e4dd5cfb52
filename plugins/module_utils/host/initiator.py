# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Logging in to targets of iSCSI and out again, by iscsiadm(8)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from ..model import operations as ops
from ..model.errors import StorageError
from ..model.units import listed
from . import iscsiadm
from .files import read_small_file
from .iscsi import (
    DATABASES,
    Node,
    Portal,
    Session,
    asking_record,
    fields_of,
    iface_for,
    is_at,
    new_iface,
    node_at,
    sessions,
    sessions_with,
)
from .iscsi_records import (
    ASKING,
    IFACE,
    LOGIN_SECONDS,
    MANUAL,
    TRIES,
    Made,
    asking_settings_of,
    give_back,
    given_to,
    is_kept,
    made_of,
    note,
    noted,
    remove,
    rewrite,
    settings_of,
)
from .iscsiadm import LEAST, TOOL, asking, offers_at, offers_by_record, portal_of
from .reach import Names, ensure_listening
from .scanning import SECONDS, scan_units
from .scsi import units

_APPEARING = 10.0  # seconds
_POLL_SECONDS = 0.1
_LONGEST_PAUSE = 2.0  # seconds
_UNDOING = 5.0  # seconds, for a login to come up that nobody waits for any more
_LOGIN_SECONDS = 15  # open-iscsi's own, for one try to log in
_GOES_ON = (
    " iscsid may go on with it for a while. What is logged in to then is the pool's: its next start uses that, and "
    "state: inactive logs out of it."
)


def log_in(op: ops.LogIn, held: Sequence[int], timeout: float | None) -> None:
    """At one of the portals at least. Raises ``source_missing``, ``login_refused``, ``deadline``,
    ``operation_failed``, ``command_failed``.
    """
    attempt = _Attempt(op, held, time.monotonic() + (timeout or SECONDS))
    try:
        attempt.log_in()
    except StorageError as error:
        attempt.take_back()
        error.hint += _GOES_ON if attempt.goes_on else ""
        raise
    except BaseException:
        attempt.take_back()
        raise
    attempt.forget_others()
    attempt.await_units()


def log_out(op: ops.LogOut, held: Sequence[int], timeout: float | None) -> None:
    deadline = time.monotonic() + (timeout or SECONDS)
    if _session(op) is None:
        return
    ended = iscsiadm.run(("-m", "session", "-r", str(op.session), "--logout"), held, deadline)
    while _session(op) is not None:
        if ended.status not in (0, iscsiadm.NO_SESSION) or time.monotonic() >= deadline:
            raise iscsiadm.failed(ended)
        time.sleep(_POLL_SECONDS)


def _session(op: ops.LogOut) -> Session | None:
    return next((each for each in sessions() if (each.number, each.target) == (op.session, op.target)), None)


def forget_records(op: ops.ForgetRecords, held: Sequence[int], timeout: float | None) -> None:
    deadline = time.monotonic() + (timeout or SECONDS)
    remove(noted(op.records), held, deadline)
    note(op.records, ())


# --- logging in ------------------------------------------------------------------------------------------------------


class _Attempt:
    """One try to log in, and what it has made."""

    def __init__(self, op: ops.LogIn, held: Sequence[int], deadline: float) -> None:
        self._op, self._held, self._deadline = op, held, deadline
        self._names = Names()
        self._noted = noted(op.records)
        self._had = tuple(self._noted)
        self._used: set[Made] = set()
        self._before = {each.number for each in sessions()}
        self._begun: list[Node] = []
        self._abandoned: list[Node] = []
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
            raise _all_of(errors, self._op.portals)

    def _left(self) -> float:
        return max(LEAST, self._deadline - time.monotonic())

    def _iface(self) -> str:
        """The interface with the initiator's name, made where there is none."""
        name = iface_for(self._op.initiator)
        if name:
            self._used.add(Made(IFACE, name))
            return name
        name = new_iface(self._op.initiator)
        self._note(Made(IFACE, name))
        words = ("-m", "iface", "-I", name)
        named = ("-o", "update", "-n", "iface.initiatorname", "-v", self._op.initiator)
        for more in (("-o", "new"), named):
            iscsiadm.check(iscsiadm.run((*words, *more), self._held, self._deadline))
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
        except BaseException as error:
            if isinstance(error, StorageError) and error.code == "deadline" and error.rc is None:
                self._abandoned += [each for each in self._begun if each == node]
            self._give_back(node)
            raise

    def _begin(self, node: Node, end: float) -> None:
        """A login that somebody else has on its way is theirs."""
        self._begun.append(node)
        ended = iscsiadm.run((*node.words, "--login"), self._held, end)
        if ended.status == iscsiadm.EXISTS:
            self._begun.remove(node)
        else:
            iscsiadm.check(ended)

    def _give_back(self, node: Node) -> None:
        """What somebody else's record had before it got credentials that did not help."""
        had = self._theirs.pop(node.path, None)
        if had is None:
            return
        give_back(node.path, had)
        before = [each for each in self._had if each.given and each.is_of(node)]
        self._noted = [*(each for each in self._noted if not (each.given and each.is_of(node))), *before]
        self._used -= {each for each in self._used if each.given and each.is_of(node)}
        self._used |= {*before}
        with suppress(OSError):
            note(self._op.records, self._noted)

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
        ensure_listening(portal.host, portal.port, max(LEAST, end - time.monotonic()))
        offers = self._offers(portal, iface, end)
        there = [offer for offer in offers if offer.target == self._op.target]
        if not there:
            raise _not_offered(self._op.target, portal, [offer.target for offer in offers])
        here = [offer for offer in there if is_at([offer.portal], portal, self._addresses)]
        return (here or there)[0].tag

    def _offers(self, portal: Portal, iface: str, end: float) -> list[iscsiadm.Offer]:
        """A portal that lets nobody ask without a password is given that of the target."""
        try:
            return offers_at(portal, max(LEAST, end - time.monotonic()), iface, self._held)
        except StorageError as error:
            if error.code != "login_refused" or self._op.credentials is None:
                raise
        made = Made(ASKING, str(portal))
        if asking_record(portal) and made not in self._noted:  # it is theirs, and may know another password
            return offers_by_record(portal, iface, self._held, end)
        try:
            self._note(made)
            if not asking_record(portal):
                iscsiadm.check(iscsiadm.run((*asking(portal), "-o", "new"), self._held, end))
            rewrite(asking_record(portal), asking_settings_of(self._op.credentials))
            return offers_by_record(portal, iface, self._held, end)
        finally:
            self._forget([made], self._deadline)
            self._noted.remove(made)

    def _node(self, portal: Portal, tag: int, iface: str, end: float) -> Node:
        """Its record, with the credentials. One of ours is made anew where there are none, to forget the old ones."""
        node = node_at(self._op.target, portal, iface, self._addresses)
        new = Node("", self._op.target, portal, tag, iface)
        ours = node is None or made_of(node) in self._had
        if node is None or (ours and self._op.credentials is None):
            self._note(made_of(node or new))
            iscsiadm.check(iscsiadm.run((*(node or new).words, "-o", "new"), self._held, end))
            node = node_at(self._op.target, portal, iface, self._addresses)
            if node is None:
                where = " and ".join(DATABASES)
                what = f"{TOOL} made no record of {self._op.target} that is found in {where}"
                raise StorageError("operation_failed", what, subject=TOOL, hint="See where its database is.")
        self._used |= {made_of(node), made_of(new)}
        settings = settings_of(self._op.credentials)
        if not ours and settings:
            self._note_given(node, settings)
        rewrite(node.path, {**(MANUAL if ours else {}), **(_patience(node, end) if ours else {}), **settings})
        return node

    def _note_given(self, node: Node, settings: dict[str, str]) -> None:
        self._theirs[node.path] = read_small_file(node.path) or b""
        before = next((each for each in self._noted if each.given and each.is_of(node)), None)
        if before is not None:
            self._noted.remove(before)
        self._note(given_to(node, settings, before))

    def _note(self, made: Made) -> None:
        """Before it is made: so it is known for ours, whatever happens then."""
        self._used.add(made)
        if made not in self._noted:
            self._noted.append(made)
            note(self._op.records, self._noted)

    # --- taking back -------------------------------------------------------------------------------------------------

    @property
    def goes_on(self) -> bool:
        """Whether iscsid may still be logging in where nobody waits for it any more."""
        return bool(self._abandoned)

    def take_back(self) -> None:
        """What it began may come up yet: who ends a session has to see it first."""
        deadline = max(self._deadline, time.monotonic() + LEAST)
        patience = time.monotonic() + _UNDOING
        for node in self._begun:
            self._end(node, deadline)
        while self._abandoned and time.monotonic() < patience:
            time.sleep(_POLL_SECONDS)
            self._abandoned = [node for node in self._abandoned if not self._end(node, patience)]
        with suppress(StorageError, OSError):
            self._forget([made for made in self._noted if made not in self._had], deadline)

    def _end(self, node: Node, deadline: float) -> bool:
        """Logs out of what came up by that record, and tells whether something did. iscsid ends nothing that it has
        only begun.
        """
        new = [each for each in sessions() if each.number not in self._before and each.target == node.target]
        ended = False
        for session in new:
            if session.iface == node.iface and is_at(session.portals, node.portal, self._addresses):
                with suppress(StorageError):
                    log_out(ops.LogOut(session.number, session.target), self._held, deadline - time.monotonic())
                    ended = True
        return ended

    def forget_others(self) -> None:
        """Records of portals and names that the pool had before."""
        self._forget([made for made in self._noted if made not in self._used], self._deadline)

    def _forget(self, made: Sequence[Made], deadline: float) -> None:
        if made:
            remove(made, self._held, deadline)
            note(self._op.records, [each for each in self._noted if each not in made or is_kept(each)])

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


def _patience(node: Node, end: float) -> dict[str, str]:
    """iscsid itself is to give up about when the task does: it goes on for so many times the time of one try."""
    told = fields_of(node.path).get(LOGIN_SECONDS, "")
    one = int(told) if told.isdigit() and int(told) else _LOGIN_SECONDS
    return {TRIES: str(max(1, int((end - time.monotonic()) // one)))}


def _all_of(errors: Sequence[StorageError], portals: Sequence[str]) -> StorageError:
    """One error of several portals: what was not answered in time first, since nobody knows what comes of it."""
    told = next((error for error in errors if error.code == "deadline"), errors[0])
    if len(errors) > 1:
        told.message = "; ".join(f"at {portal}: {_said(error)}" for portal, error in zip(portals, errors))
    return told


def _said(error: StorageError) -> str:
    return f"{error.message} ({error.stderr})" if error.stderr else error.message


def _not_offered(target: str, portal: Portal, offered: Sequence[str]) -> StorageError:
    return StorageError(
        "source_missing",
        f"{portal} does not offer {target} to this initiator; it offers {listed(dict.fromkeys(offered)) or 'nothing'}",
        subject=target,
        hint="Name one that it offers, or have it served, and this initiator let in, where the target is.",
    )
