# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Pools of the units of an iSCSI target, to which guests connect themselves (formatstorage: "iSCSI direct"): this host
has no devices of them, and is never logged in for longer than it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..host.iscsi import Portal
from ..host.libiscsi import LIST, Account, Server, Unit, unit_name, units
from ..model.change import Change
from ..model.errors import StorageError
from ..model.found import ABSENT, READY, UNKNOWN_STORAGE, Found, Part, Problem, Storage, Usage, User
from ..model.goal import Scope
from ..model.operations import AskUnits, Secret, Step
from ..model.pool import Pool, at_port, overlay
from ..model.secrets import password, with_reference
from ..model.sources import iscsi_problem
from ..model.types import ISCSI_PORT
from ..model.volume import Sought, Volume

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes

TARGET = "target"


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    """Whether the target answers, and lets us in, is all. Starting it asks the same once more: there is nothing that
    would stay up.
    """
    what = f"the target {pool.source.target}"
    ready = Storage(
        READY, parts=(Part(TARGET, what, READY),), idle=True, bring_up=f"ask {pool.source.target} for its units"
    )
    problem = _misfit(pool)
    if problem is None:
        try:
            _units(pool, look)
            return ready
        except StorageError as error:
            if error.code == "tool_missing":  # which an earlier task may install; starting says it again
                return replace(ready, kind=UNKNOWN_STORAGE, why=error.message)
            said = f" ({error.stderr})" if error.code == "command_failed" else ""
            problem = Problem(error.code, f"{error.told}{said}", error.hint)
    kind = ABSENT if problem.code == "source_missing" else UNKNOWN_STORAGE
    return Storage(kind, why=problem.what, parts=(Part(TARGET, what, kind, problem.what, problem),))


def _misfit(pool: Pool) -> Problem | None:
    """What keeps it from being asked at all. Definitions of others may lack anything."""
    source, name = pool.source, pool.source.target
    if len(source.hosts or ()) != 1 or not name or len(source.devices or ()) != 1:
        what = "such a pool has one host and one target"
        return Problem("not_supported", what, "Name one of each (source.host, source.iqn); make a pool for each other.")
    problem = iscsi_problem(source)
    return None if problem is None else Problem(*problem)


def _server(pool: Pool, known: Sequence[Any]) -> Server:
    source, word = pool.source, password(pool, known)
    account = Account(source.auth.username, Secret(word)) if source.auth is not None and word is not None else None
    host = (source.hosts or ())[0]
    return Server(Portal(host.name, host.port or ISCSI_PORT), source.initiator or "", account)


def _units(pool: Pool, look: Look) -> list[Unit]:
    pool = with_reference(pool)
    server, target = _server(pool, look.secrets), pool.source.target
    key = (LIST, server[:2], target, pool.source.auth)
    found: list[Unit] = look.once(key, lambda: units(server, target, lambda: look.left(target)))
    return found


def observe_volumes(found: Found, scope: Scope, look: Look) -> Found:
    existing = found.definition or found.live
    pool = scope.pool if existing is None else overlay(existing, scope.pool)
    there = _units(pool, look)
    asked = None if scope.volumes is None else {*scope.volumes, *scope.named}
    volumes = [_volume(unit, pool) for unit in there if asked is None or unit_name(unit) in asked]
    total = sum(unit.size for unit in there)
    return replace(found, volumes={volume.name: volume for volume in volumes}, usage=Usage(total, total, 0))


def _volume(unit: Unit, pool: Pool) -> Volume:
    """Keys and paths are libvirt's words for what a guest connects to."""
    path = f"ip-{_portal_words(pool)}-iscsi-{pool.source.target}-lun-{unit.number}"
    return Volume(
        unit_name(unit),
        capacity=unit.size,
        allocation=unit.size,
        physical=unit.size,
        type="network",
        path=path,
        key=path,
        problem=unit.problem,
    )


def _portal_words(pool: Pool) -> str:
    host = (pool.source.hosts or ())[0]
    return at_port(host.name, host.port or ISCSI_PORT)


def busy(pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    return (), ()


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    return [_asking(change.wanted, found)] if change.action == "start" else []


def _asking(pool: Pool, found: Found, sought: tuple[Sought, ...] = ()) -> AskUnits:
    portal, initiator, account = _server(with_reference(pool), found.secrets)
    word, name = (account.password, account.username) if account else (None, "")
    return AskUnits(portal.host, portal.port, pool.source.target, initiator, name, word, sought)


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> Sequence[Step]:
    """All that can be done for a unit here is to ask for it."""
    pool = found.definition or found.live
    if pool is None:  # an earlier task would have made it
        return ()
    return [Step((_asking(pool, found, change.wanted),), change) for change in changes]
