# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""iSCSI targets without the kernel: what the tools of libiscsi tell of them (iscsi-ls(1), iscsi-inq(1),
iscsi-readcapacity16). Each call logs in and out again, and leaves nothing behind.

A password is in the environment of the tools, which only root and who runs them can read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..model.errors import StorageError
from ..model.operations import AskUnits, Secret
from .iscsi import Portal
from .reach import ensure_listening
from .run import Ended, failure, finish

LIST, SIZE, INQUIRE = "iscsi-ls", "iscsi-readcapacity16", "iscsi-inq"
_TARGET = re.compile(r"Target:(\S+) Portal:(\S+)$")
_UNIT = re.compile(r"Lun:(\d+)\s+Type:(\w+)")
_BLOCK, _LAST = (
    re.compile(r"^LOGICAL BLOCK LENGTH IN BYTES:(\d+)$", re.M),
    re.compile(r"^RETURNED LOGICAL BLOCK ADDRESS:(\d+)$", re.M),
)
_DISK = "DIRECT_ACCESS"
_NUMBERS = range(256)  # SAM: units that have a number of one level
_WORKERS = 8
_SHARE = 0.3  # of the time that is left, where all targets are asked for their units: any of them may hang
# What the tools print of why a target refuses: its status (RFC 7143: login response).
_REFUSED = ("(513)", "(514)")
_NOT_FOUND = ("(515)", "(516)")
_NO_UNIT = "LOGICAL_UNIT_NOT_SUPPORTED"
_NO_SIZE = "failed to send readcapacity"


class Account(NamedTuple):
    """Whom a target is told that logs in (CHAP)."""

    username: str
    password: Secret


class Server(NamedTuple):
    """A portal, and as whom it is asked. ``initiator``: the name of who connects, empty for the tools' own."""

    portal: Portal
    initiator: str = ""
    account: Account | None = None


class Unit(NamedTuple):
    """A disk of a target. Bytes; ``problem``: why its size is not known."""

    number: int
    size: int = 0
    problem: str = ""


def offered(server: Server, left: Callable[[], float]) -> dict[str, tuple[int, ...] | None]:
    """The targets that a server offers to the initiator, with the numbers of the disks of each; None where it does not
    tell them to us. ``left``: the seconds that it may take. Raises StorageError.
    """
    ensure_listening(server.portal.host, server.portal.port, left())  # the tools don't say why they can't connect
    ended = _list(server, left())
    if ended.status != 0:
        raise _refusal(ended, server)
    told = _targets(ended.stdout)
    disks = _units_of_all(server, left() * _SHARE)
    return {name: disks.get(name) for name in told}


def units(server: Server, target: str, left: Callable[[], float]) -> list[Unit]:
    """The disks of a target. Raises StorageError.

    There is no tool that lists those of one target: all that the server offers are asked. Where another one of these
    refuses, or hangs, ours is asked for unit after unit.
    """
    from concurrent.futures import ThreadPoolExecutor

    ensure_listening(server.portal.host, server.portal.port, left())  # the tools don't say why they can't connect
    first = _ask(SIZE, server, left(), f"/{target}/0")
    if first.status != 0 and not _lets_in(first):
        raise _refusal(first, server, target)
    numbers = _units_of_all(server, left() * _SHARE).get(target, _NUMBERS)
    known = numbers is not _NUMBERS
    with ThreadPoolExecutor(_WORKERS) as workers:
        found = workers.map(lambda number: _unit(server, target, number, known, left), numbers)
        return [unit for unit in found if unit is not None]


def _lets_in(ended: Ended) -> bool:
    """Whether it is only the unit that does not answer."""
    return any(words in ended.stderr for words in (_NO_UNIT, _NO_SIZE, "SENSE KEY:"))


def _unit(server: Server, target: str, number: int, known: bool, left: Callable[[], float]) -> Unit | None:
    """A disk; None where there is none of that number. ``known``: one was listed."""
    place = f"/{target}/{number}"
    ended = _ask(SIZE, server, left(), place)
    last, block = _LAST.search(ended.stdout), _BLOCK.search(ended.stdout)
    if ended.status == 0 and last and block:
        return Unit(number, (int(last[1]) + 1) * int(block[1]))
    if not known and _NO_UNIT in ended.stderr:
        return None
    if not _lets_in(ended):
        raise _refusal(ended, server, target)
    if not known and _is_no_disk(_ask(INQUIRE, server, left(), place)):
        return None
    return Unit(number, problem=f"it does not tell its size: {_said(ended)}")


def _is_no_disk(ended: Ended) -> bool:
    return ended.status == 0 and f"Peripheral Device Type:{_DISK}" not in ended.stdout


def _units_of_all(server: Server, seconds: float) -> dict[str, tuple[int, ...]]:
    """The disks of each target whose units were listed to their end: the tool stops at the first that refuses."""
    try:
        ended = _list(server, seconds, "--show-luns")
    except StorageError as error:
        if error.code != "deadline":
            raise
        return {}
    whole: dict[str, tuple[int, ...]] = {}
    name = ""
    disks: list[int] = []
    for line in [*ended.stdout.splitlines(), *(["Target:- Portal:-"] if ended.status == 0 else [])]:
        target, unit = _TARGET.match(line), _UNIT.match(line)
        if target:
            if name:
                whole.setdefault(name, tuple(disks))  # it is listed once for each of its portals
            name, disks = target[1], []
        elif unit and unit[2] == _DISK:
            disks.append(int(unit[1]))
    return whole


def _targets(printed: str) -> Iterable[str]:
    """Each once; they are listed for each of their portals."""
    return dict.fromkeys(match[1] for match in map(_TARGET.match, printed.splitlines()) if match)


# --- asking ----------------------------------------------------------------------------------------------------------


def _list(server: Server, seconds: float, *options: str) -> Ended:
    return _ask(LIST, server, seconds, "", *options)


def _ask(tool: str, server: Server, seconds: float, place: str, *options: str) -> Ended:
    """Raises ``tool_missing`` and ``deadline``."""
    named = [f"--initiator-name={server.initiator}"] if server.initiator else []
    argv = (tool, *options, *named, f"iscsi://{server.portal}{place}")
    try:
        return finish(argv, timeout=seconds, environment=_environment(server.account))
    except StorageError as error:
        if error.code == "deadline":
            raise _silence(server, f"did not answer within {seconds:.3g} s", error.command) from None
        raise


def _environment(account: Account | None) -> Mapping[str, str]:
    if account is None:
        return {}
    password = account.password.data.decode("utf-8", "surrogateescape")
    return {"LIBISCSI_CHAP_USERNAME": account.username, "LIBISCSI_CHAP_PASSWORD": password}


def _silence(server: Server, what: str, command: str = "") -> StorageError:
    return StorageError(
        "deadline",
        f"{server.portal} {what}",
        subject=server.portal.host,
        hint="Look at the target and the way to it, or give the task a longer timeout.",
        command=command,
    )


def _said(ended: Ended) -> str:
    """What a tool says of what went wrong, some of it on standard output."""
    lines = [line for line in ended.stdout.splitlines() if not (_TARGET.match(line) or _UNIT.match(line))]
    return " ".join([*ended.stderr.split("\n"), *lines]).strip()


def _refusal(ended: Ended, server: Server, target: str = "") -> StorageError:
    said = _said(ended)
    code, what, hint = "", "", ""
    if any(words in said for words in _REFUSED):
        code = "login_refused"
        what = f"{target or 'the server'} at {server.portal} refuses the login: {said.rpartition('Status: ')[2]}"
        hint = "Look at source.auth and source.initiator, and whom the target lets in."
    elif any(words in said for words in _NOT_FOUND):
        code, what = "source_missing", f"there is no target {target} at {server.portal}"
        hint = "Look at its spelling (storage_pool_sources lists what there is), or make it there first."
    if not code:
        return failure(ended.command.split()[0], ended.command, ended.status, said)
    return StorageError(
        code, what, subject=target or server.portal.host, hint=hint, command=ended.command, rc=ended.status, stderr=said
    )


# --- looking again ---------------------------------------------------------------------------------------------------


def ask_units(op: AskUnits, timeout: float | None) -> None:
    """Raises what keeps it from telling them, or ``source_missing`` where the volumes that are sought are not there."""
    from .scanning import SECONDS, check_sought

    deadline = time.monotonic() + (timeout or SECONDS)
    account = Account(op.username, op.password) if op.password is not None else None
    server = Server(Portal(op.host, op.port), op.initiator, account)
    there = {unit_name(unit): unit for unit in units(server, op.target, lambda: max(0.1, deadline - time.monotonic()))}
    for wanted in op.sought:
        unit = there.get(wanted.name)
        check_sought(wanted, op.target, unit and unit.size, unit.problem if unit is not None else "")


def unit_name(unit: Unit) -> str:
    """libvirt's (storage driver: iscsi-direct)."""
    return f"unit:0:0:{unit.number}"
