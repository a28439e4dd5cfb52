# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What storage_volume does."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..converge import Aim, Result, converge
from ..decide.decision import Decision
from ..decide.volumes import decide_volumes, places_at_stake, volumes_at_stake
from ..declare.volumes import volumes_goal, volumes_scope
from ..engines.select import engine_for
from ..host.accounts import accounts_of
from ..model.change import Change, Subject, known
from ..model.errors import StorageError
from ..model.facts import volume_facts
from ..model.found import Found
from ..report.records import pool_record, volume_record
from .outcome import finish, finish_unlooked, watched


def run(module: AnsibleModule) -> None:
    params = module.params
    goal = volumes_goal(params, *accounts_of(params["uri"]))
    allow = frozenset(word for entry in goal.volumes for word in entry.allow) | set(params["allow"] or ())
    engine = watched(module, engine_for(params["uri"], allow, params["timeout"], reading=False))
    aim = Aim(goal, volumes_scope(goal), False, volumes_at_stake, decide_volumes, facts, places=places_at_stake)
    result = converge(aim, engine, module.check_mode)
    entries = _entries(goal, result, module.check_mode)
    finish(module, result, engine, {"pool": pool_record(result.found), "volumes": entries}, _message(entries, result))


def run_unlooked(module: AnsibleModule, missing: StorageError) -> None:
    goal = volumes_goal(module.params, *accounts_of(module.params["uri"]))
    found = Found(goal.pool)
    decision = decide_volumes(goal, found)
    entries = _entries(goal, Result(found, found, decision, ()), check=True)
    finish_unlooked(module, decision.changes, missing, pool={"name": goal.pool, "state": "unknown"}, volumes=entries)


def facts(change: Change, found: Found) -> Any:
    """What a change claims, as it was found afterwards."""
    if change.subject.volume is None:
        return {"leftovers": ", ".join(found.leftovers), "unlisted": ", ".join(found.unlisted)}
    volume = found.volumes.get(change.subject.volume)
    return None if volume is None else {"path": volume.path, "backing": None, **volume_facts(volume)}


def _message(entries: list[dict[str, Any]], result: Result) -> str:
    bad = [entry for entry in entries if entry["status"] in ("failed", "skipped")]
    if len(entries) < 2 or not bad or not result.outcomes:
        return ""
    subject = "" if result.error is None else f"{result.error.subject}: "
    return f"{len(bad)} of {len(entries)} volumes failed or were skipped, the first: {subject}{result.error}"


def _entries(goal: Any, result: Result, check: bool) -> list[dict[str, Any]]:
    """One record per declared volume, and per one that ``exclusive`` removed, with what became of it."""
    changes: dict[str, list[Change]] = {}
    for change in result.decision.changes:
        if change.subject.volume is not None:
            changes.setdefault(change.subject.volume, []).append(change)
    outcomes = {
        id(step.change): outcome for step, outcome in zip(result.steps, result.outcomes) if step.change is not None
    }
    names = [entry.volume.name for entry in goal.volumes]
    declared = set(names)
    names += [name for name in changes if name not in declared]
    return [_entry(name, changes.get(name, []), outcomes, result, check) for name in names]


def _entry(name: str, changes: list[Change], outcomes: dict, result: Result, check: bool) -> dict[str, Any]:
    volume = result.found.volumes.get(name)
    record: dict[str, Any] = {"name": name, "state": "absent"}
    if volume is not None:
        record = {**volume_record(volume), "state": "present"}
    if result.error is not None and not result.outcomes:
        return {**record, **_refused(str(Subject(result.found.name, name)), changes, result.decision, result.error)}
    if check:
        return _predicted(record, changes)
    status = "changed" if changes else "ok"
    for change in changes:
        outcome = outcomes.get(id(change))
        if outcome is not None and outcome.error is not None:
            return {**record, "status": outcome.status, "error": outcome.error.as_dict()}
    return {**record, "status": status}


def _refused(subject: str, changes: list[Change], decision: Decision, error: StorageError) -> dict[str, Any]:
    """What became of a volume in a task that was refused. Where nothing was decided nobody knows whether it is as
    declared.
    """
    if error.subject != subject and decision.changes and not changes:
        return {"status": "ok"}
    return {"status": "failed" if error.subject == subject else "skipped", "error": error.as_dict()}


def _predicted(record: dict[str, Any], changes: list[Change]) -> dict[str, Any]:
    """The record as the changes would leave it; what only doing reveals is left as it is or left out."""
    for change in changes:
        if change.after is None:
            record = {"name": record["name"], "state": "absent"}
        else:
            facts = known(change.after)
            merged = {**record, **facts, "state": "present"}
            record = {name: value for name, value in merged.items() if value is not None or name not in facts}
    return {**record, "status": "changed" if changes else "ok"}
