# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What storage_pool_sources does: look, once or until what is waited for is there, and never change anything."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..decide.sources import Judgement, holding, judge, listed, nobody, offered, unmet, warnings
from ..declare.sources import sources_goal
from ..engines.select import engine_for
from ..model.discovery import Discovery, SourcesGoal, Unanswered
from ..model.errors import StorageError
from ..report.sources import missing_record, source_record, unanswered_record
from .outcome import described, watched

_PAUSE = 1.0  # between two looks
_LEAST = 0.1
_SHORTEST = 5.0  # what a look gets that is not the last one, at least
# What an earlier task of the play may make: a warning in check mode.
_MAY_COME = ("source_missing", "tool_missing")
# What passes by itself while servers start; a missing tool does not.
_PASSING = ("command_failed", "operation_failed", "source_missing", "deadline", "daemon_failed")


def run_sources(module: AnsibleModule) -> None:
    goal = sources_goal(module.params)
    engine = watched(module, engine_for(module.params["uri"], (), module.params["timeout"], reading=True))
    discovery = _until_there(engine, goal, module.params["timeout"], module.check_mode)
    sources = offered(goal, discovery)
    judgement = judge(goal, discovery, sources)
    values = {
        "changed": False,
        "sources": [source_record(goal.query.type, each) for each in listed(goal, discovery, sources)],
        "unanswered": [unanswered_record(each) for each in discovery.unanswered],
        "missing": _missing(judgement),
        "engine": described(engine),
    }
    error = _error(goal, discovery, judgement, 0 if module.check_mode else module.params["timeout"])
    if error is not None and not (module.check_mode and error.code in _MAY_COME):
        module.fail_json(msg=str(error), error=error.as_dict(), **values)
    for warning in warnings(discovery):
        module.warn(warning)
    if error is not None:
        module.warn(f"{error.message}: an earlier task may change that")
    module.exit_json(**values)


def run_unlooked(module: AnsibleModule, missing: StorageError) -> None:
    goal = sources_goal(module.params)
    module.warn(f"{missing.message}: an earlier task may change that")
    waited = [missing_record(source, missing.message) for source in goal.wanted]
    module.exit_json(changed=False, sources=[], unanswered=[], missing=waited)


def _until_there(engine: Any, goal: SourcesGoal, seconds: float, check: bool) -> Discovery:
    """The last look that was not cut off, if there is one. Check mode waits for nothing: what an earlier task would
    make does not come.
    """
    end = time.monotonic() + seconds
    waiting = bool(goal.wanted) and not check
    last: Discovery | None = None
    while True:
        left = max(_LEAST, end - time.monotonic())
        discovery = _look(engine, goal, left if not waiting or left / 2 < _SHORTEST else left / 2)
        if last is not None and _cut_off(discovery) and not _cut_off(last):
            discovery = last
        if not waiting or judge(goal, discovery, offered(goal, discovery)).met or end - time.monotonic() <= _PAUSE:
            return discovery
        if _hopeless(discovery):
            return discovery
        last = discovery
        time.sleep(_PAUSE)


def _cut_off(discovery: Discovery) -> bool:
    return any(each.error.code == "deadline" for each in discovery.unanswered)


def _look(engine: Any, goal: SourcesGoal, seconds: float) -> Discovery:
    """An error is one of every host that was to be asked."""
    try:
        discovery: Discovery = engine.find_sources(goal.query, seconds)
    except StorageError as error:
        if not goal.wanted or error.code not in _PASSING:
            raise
        silent = tuple(Unanswered(host, "", error) for host in goal.query.hosts or ("",))
        return Discovery(unanswered=silent, answered=False)
    return discovery


def _hopeless(discovery: Discovery) -> bool:
    """Whether nobody answered, and waiting will not help."""
    return not discovery.answered and not {each.error.code for each in discovery.unanswered} & set(_PASSING)


def _missing(judgement: Judgement) -> list[dict[str, Any]]:
    records = [missing_record(source, "it is not there") for source in judgement.missing]
    records += [missing_record(source, f"it {holding(source, found)}") for source, found in judgement.other]
    records += [missing_record(source, ", ".join(found.why_not)) for source, found in judgement.taken]
    return records + [missing_record(source, silent.error.message) for source, silent in judgement.unknown]


def _error(goal: SourcesGoal, discovery: Discovery, judgement: Judgement, seconds: float) -> StorageError | None:
    """What is waited for and not there; or that nobody answered who was asked."""
    if not judgement.met:
        return unmet(judgement, seconds)
    return None if discovery.answered else nobody(discovery.unanswered)
