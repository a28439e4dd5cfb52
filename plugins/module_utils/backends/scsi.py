# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Pools of a SCSI host adapter: its units are the volumes (formatstorage: "SCSI volume pools"). Starting one looks for
units that are new. A virtual adapter of Fibre Channel is made when the pool is started and removed when it is stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..host.adapters import Meant, ScsiHost, meant_by, vport_file
from ..host.identity import changed_meanwhile
from ..host.scsi import units
from ..model.adapters import FC_HOST, spoken, world_wide_name
from ..model.change import Change
from ..model.found import ABSENT, READY, UNKNOWN_STORAGE, Found, Part, Problem, Storage, User
from ..model.goal import Scope
from ..model.operations import ChangeVport, Step
from ..model.pool import Adapter, Pool, overlay
from .links import DEV
from .units import observe_units, rescan

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes

ADAPTER = "adapter"
_NOT_ROOT = Problem("not_writable", "only root can have units looked for", "Run as root (become: true).")
_KINDS = {"source_missing": ABSENT}


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    adapter, path = pool.source.adapter, pool.path or DEV
    if adapter is None:
        return Storage(ABSENT, path, "no host adapter is named")
    meant = _meant(adapter, look)
    if meant.problem is not None:
        kind, problem = _KINDS.get(meant.problem.code, UNKNOWN_STORAGE), meant.problem
        return Storage(kind, path, problem.what, parts=(Part(ADAPTER, spoken(adapter), kind, problem.what, problem),))
    storage = Storage(READY, path, parts=(Part(ADAPTER, spoken(adapter), READY),), unable=_unable())
    if adapter.type == FC_HOST:
        return _of_fc_host(storage, adapter, meant.host)
    return replace(storage, idle=True, bring_up=_look_for(adapter))


def _of_fc_host(storage: Storage, adapter: Adapter, host: ScsiHost | None) -> Storage:
    """A virtual one that is there is used as it is: the fabric tells it of new units. ``managed`` says whether it goes
    with the pool, whoever made it; without that it goes where our own start made it.
    """
    name = world_wide_name(adapter.wwpn)
    storage = replace(storage, up=host is not None, bring_up=f"make the virtual host adapter {name}")
    if host is None:
        return storage
    if host.parent is None:  # a port of the hardware's
        return replace(storage, idle=True, bring_up=_look_for(adapter))
    if adapter.managed is False or vport_file(host.parent, "delete") is None:
        return storage
    return replace(storage, ours=adapter.managed is True, take_down=f"remove the virtual host adapter {name}")


def _look_for(adapter: Adapter) -> str:
    return f"look for units of {spoken(adapter)}"


def _meant(adapter: Adapter, look: Look) -> Meant:
    meant: Meant = look.once(("adapter", adapter), lambda: meant_by(adapter))
    return meant


def _unable() -> Problem | None:
    return None if os.geteuid() == 0 else _NOT_ROOT


def observe_volumes(found: Found, scope: Scope, look: Look) -> Found:
    existing = found.running
    pool = scope.pool if existing is None else overlay(existing, scope.pool)
    adapter = pool.source.adapter
    host = _meant(adapter, look).host if adapter is not None else None
    if adapter is None or host is None:
        return found
    return observe_units(found, scope, look, units(host.number), pool.path, ports=adapter.type == FC_HOST)


def busy(pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    return (), ()  # who has its units is asked for all volumes that would be taken away


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    adapter = change.wanted.source.adapter
    host, parent, _problem = meant_by(adapter)
    names = world_wide_name(adapter.wwnn), world_wide_name(adapter.wwpn)
    if change.action == "stop" and host is not None and host.parent is not None:
        return [ChangeVport("delete", host.parent, *names)]
    restarted = found.active and bool(found.current.take_down)  # then it is gone by now
    if change.action == "start" and host is not None and not restarted:
        return [rescan(host.number)]
    if restarted and host is not None:
        parent = host.parent
    if change.action == "start" and parent is not None:
        return [ChangeVport("create", parent, *names)]
    raise changed_meanwhile(spoken(adapter), "went away")


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> Sequence[Step]:
    """All that can be done for a unit here is to look for it."""
    pool = found.running
    adapter = None if pool is None else pool.source.adapter
    host = None if adapter is None else meant_by(adapter).host
    if host is None:  # an earlier task would have brought it
        return ()
    return [Step((rescan(host.number, sought=change.wanted),), change) for change in changes]
