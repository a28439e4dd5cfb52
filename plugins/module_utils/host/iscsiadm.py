# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""iscsiadm(8): how it is run, what its failures mean, and what portals offer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..model import operations as ops
from ..model.errors import StorageError
from ..model.types import ISCSI_PORT
from .iscsi import DEFAULT, Portal
from .run import Ended, failure, finish

TOOL = "iscsiadm"
LEAST = 0.5  # seconds that it gets at least
# Exit statuses: include/iscsi_err.h of open-iscsi.
EXISTS, NOTHING, NO_SESSION = 15, 21, 22
_DATABASE, _TIMED_OUT, _NO_TRANSPORT, _FATAL, _NO_DAEMON, _REFUSED = 6, 8, 12, 19, 20, 24
_CODES = {_TIMED_OUT: "deadline", _NO_TRANSPORT: "not_supported", _REFUSED: "login_refused"}
_HINTS = {
    _DATABASE: "Where no iscsiadm runs, one that was killed may have left its lock: remove /run/lock/iscsi/lock.write.",
    _NO_TRANSPORT: "Install or load the module for the running kernel (iscsi_tcp).",
    _FATAL: "See what the target says of this initiator: whether it may log in, and with which credentials.",
    _NO_DAEMON: "Start iscsid (systemctl start iscsid) and see why it does not answer.",
    _REFUSED: "See whether username, secret and what is mutual are those of the target, and whether it lets this "
    "initiator in.",
}


def run(words: Sequence[str], held: Sequence[int], deadline: float) -> Ended:
    return finish((TOOL, *words), held, max(LEAST, deadline - time.monotonic()))


def check(ended: Ended) -> None:
    if ended.status:
        raise failed(ended)


def failed(ended: Ended) -> StorageError:
    error = failure(TOOL, ended.command, ended.status, ended.stderr.strip())
    error.hint = _HINTS.get(ended.status, error.hint)
    error.code = _CODES.get(ended.status, error.code)
    return error


# --- what portals offer ----------------------------------------------------------------------------------------------


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
    return _told(finish((*ops.discovery(str(portal)), "-I", iface), held, seconds))


def asking(portal: Portal) -> tuple[str, ...]:
    """The words of the record of how a portal is asked."""
    return ("-m", "discoverydb", "-t", "sendtargets", "-p", str(portal))


def offers_by_record(portal: Portal, iface: str, held: Sequence[int], deadline: float) -> list[Offer]:
    """What a portal offers to who asks as its record says. Nothing is noted of that."""
    return _told(run((*asking(portal), "-I", iface, "--discover", "-o", "nonpersistent"), held, deadline))


def _told(ended: Ended) -> list[Offer]:
    if ended.status != NOTHING:
        check(ended)
    return list(_offers(ended.stdout))


def _offers(printed: str) -> Iterator[Offer]:
    """Lines such as ``192.0.2.1:3260,1 iqn.2024-01.com.example:disks``."""
    for line in printed.splitlines():
        where, space, target = line.strip().partition(" ")
        portal, comma, tag = where.rpartition(",")
        if space and comma and tag.lstrip("-").isdigit() and portal.rpartition(":")[2].isdigit():
            yield Offer(portal_of(portal), int(tag), target.strip())
