# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What storage_pool does."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..converge import Aim, Engine, Result, converge
from ..decide.pools import decide_pool, pool_at_stake, unlooked_pool
from ..declare.pools import pool_goal, pool_scope
from ..engines.select import engine_for
from ..host.accounts import accounts_of
from ..model.change import Change, known
from ..model.errors import StorageError
from ..model.facts import definition_facts, permissions_facts, volume_facts
from ..model.found import READY, Found
from ..model.goal import PoolGoal
from ..report.records import pool_record
from .outcome import done_changes, finish, finish_unlooked, watched

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from . import boot  # noqa: F401  (so that it is sent to the host, where the module may have to leave it)


_BESIDE = ("boot_unit", "secret", "old_secret", "comes_back")  # facts of what is no part of a pool


def run(module: AnsibleModule) -> None:
    params = module.params
    goal = pool_goal(params, *accounts_of(params["uri"]))
    engine = watched(module, engine_for(params["uri"], goal.allow, params["timeout"], reading=False))
    result = converge(aim_at(goal), engine, module.check_mode)
    say_what_stays(result)
    record = pool_record(result.found)
    if module.check_mode:
        record = _predicted(record, done_changes(result, True))
    finish(module, result, engine, {"pool": record})


def run_unlooked(module: AnsibleModule, missing: StorageError) -> None:
    goal = pool_goal(module.params, *accounts_of(module.params["uri"]))
    changes = unlooked_pool(goal)
    record = {"name": goal.pool.name, "state": "unknown"}
    finish_unlooked(module, changes, missing, pool=_predicted(record, changes))


def aim_at(goal: PoolGoal) -> Aim:
    aim = Aim(goal, pool_scope(goal), True, pool_at_stake, decide_pool, facts)
    return aim if goal.pool.source_volume is None else replace(aim, settled=partial(_on_layer, goal))


def _on_layer(goal: PoolGoal, engine: Engine) -> Aim:
    from ..decide.layers import settled

    wanted = goal.pool.source_volume
    if wanted is None:
        return aim_at(goal)
    return aim_at(settled(goal, engine.layer(wanted, goal.pool), goal.pool.name in engine.pool_names()))


def say_what_stays(result: Result) -> None:
    """Adds to the hint of what failed what was done of the pool before that, and is not taken back: run again, the task
    goes on from there.
    """
    error, stays = result.error, []
    done = {
        step.change.action
        for step, outcome in zip(result.steps, result.outcomes)
        if outcome.status == "done" and step.change is not None
    }
    if "define" in done:
        stays.append("The pool stays defined (state: absent undefines it).")
    elif "redefine" in done:
        stays.append("The definition of the pool stays changed.")
    if "stop" in done and any(change.action == "start" for change in result.decision.changes):
        stays.append("The pool was stopped to be started again: run the task again for that.")
    if error is not None and stays:
        error.hint = " ".join(filter(None, (error.hint, *stays)))


def facts(change: Change, found: Found) -> Any:
    """What a change claims, as it was found afterwards."""
    if change.subject.volume is not None:
        volume = found.volumes.get(change.subject.volume)
        return None if volume is None else {"path": volume.path, **volume_facts(volume)}
    if change.after is None:
        return None if found.definition is None else "defined"
    ready = found.storage.open
    parts = {part.name: dict(part.facts or {}) if part.kind == READY else None for part in found.storage.parts}
    return {
        **parts,
        "definition": definition_facts(found.definition) if found.definition else None,
        "target": permissions_facts(found.storage.permissions) if ready else None,
        "state": "active" if found.active else "inactive",
        "autostart": found.autostart,
        "boot_unit": found.boot.state,
        "comes_back": ", ".join(found.storage.comes_back),
        "leftovers": ", ".join(found.leftovers),
        **_secret_facts(change, found),
    }


def _secret_facts(change: Change, found: Found) -> dict[str, Any]:
    if getattr(change.wanted, "secret", None) is None:
        return {}
    from ..decide.secrets import fact

    return {"secret": fact(change.wanted, found)}


def _predicted(record: dict[str, Any], changes: Any) -> dict[str, Any]:
    """The record as the changes would leave it; what only doing reveals is left as it is or left out."""
    record = dict(record)
    for change in changes:
        if change.subject.volume is not None:
            continue
        if change.after is None:
            return {"name": record["name"], "state": "absent"}
        for name, value in known(change.after).items():
            if name not in (change.part, *_BESIDE):  # what a part is made as shows up once it is used
                record.update(value if isinstance(value, dict) else {name: value})
    return record
