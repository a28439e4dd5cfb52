# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""From a result to what Ansible prints: the same fields for every module."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable

from ..converge import Result
from ..engines.select import needs_daemon
from ..host.patience import watch
from ..model.errors import StorageError
from ..report.result import diff, plan

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

_EARLIER = {
    "pool_inactive": "started it",
    "pool_missing": "defined it",
    "tool_missing": "installed it",
    "library_missing": "installed it",
}
_PATIENCE, _LEAST_PATIENCE = 4, 60
_STUCK = "See which mount or device does not answer."
_LOOK = "Run as a user who may read it (become: true), or look at what it is mounted from."


def arguments(**own: Any) -> dict[str, Any]:
    """The argument spec of a module: its own options and those that every module takes."""
    return {"uri": {"type": "str", "default": "auto"}, "timeout": {"type": "int", "default": 30}, **own}


def run_guarded(
    module: AnsibleModule,
    task: Callable[[AnsibleModule], None],
    unlooked: Callable[[AnsibleModule, StorageError], None] | None = None,
) -> None:
    """Runs a task; a StorageError ends the module with its code, and nothing changed. ``unlooked`` is what it comes to
    in check mode where nothing can be looked at for lack of a library, which an earlier task of the play may install.
    """
    try:
        if unlooked is None or not module.check_mode:
            _run(module, task)
        else:
            _run_or_go_on(module, task, unlooked)
    except StorageError as error:
        _refuse(module, error)
    except OSError as error:
        _refuse(module, not_readable(error))


def not_readable(error: OSError) -> StorageError:
    """What looking failed with where nothing else says what that means."""
    return StorageError("not_readable", str(error), subject=str(error.filename or ""), hint=_LOOK)


def _run(module: AnsibleModule, task: Callable[[AnsibleModule], None]) -> None:
    if module.params["timeout"] < 1:
        raise StorageError("invalid_option", "timeout is not a positive number of seconds", hint="Give one.")
    if needs_daemon(module.params["uri"]):
        from .binding import ensure_libvirt

        ensure_libvirt(module)
    task(module)


def _run_or_go_on(
    module: AnsibleModule,
    task: Callable[[AnsibleModule], None],
    unlooked: Callable[[AnsibleModule, StorageError], None],
) -> None:
    try:
        _run(module, task)
    except StorageError as error:
        if error.code != "library_missing":
            raise
        unlooked(module, error)


def watched(module: AnsibleModule, engine: Any) -> Any:
    """The engine; where looking through it hangs for good, although what may hang is asked for in children, the module
    says so and ends. Several steps of a look may each take their time until then. What must still hold is looked at
    between changes, when none is under way.
    """
    seconds = max(_LEAST_PATIENCE, _PATIENCE * module.params["timeout"])

    begun: list[bool] = []

    def stuck() -> None:
        error = StorageError("deadline", f"looking at the host has not ended within {seconds} s", hint=_STUCK)
        with suppress(BaseException):
            _refuse(module, error, bool(begun))
        sys.stdout.flush()
        os._exit(1)

    def wrapped(look: Callable[..., Any]) -> Callable[..., Any]:
        def patient(*arguments: Any) -> Any:
            with watch(seconds, stuck):
                return look(*arguments)

        return patient

    for name in ("observe", "observe_users", "observe_remains", "find_sources", "broken"):
        setattr(engine, name, wrapped(getattr(engine, name)))
    carry_out = engine.execute

    def noted(operation: Any) -> None:
        begun.append(True)
        carry_out(operation)

    engine.execute = noted
    return engine


def _refuse(module: AnsibleModule, error: StorageError, changed: bool = False) -> None:
    module.fail_json(msg=str(error), error=error.as_dict(), changed=changed, diff={"before": "", "after": ""}, plan=[])


def described(engine: Any) -> dict[str, str]:
    """Which engine was used, and why."""
    return {"name": engine.name, "uri": engine.uri, "why": engine.why}


def done_changes(result: Result, check: bool) -> tuple[Any, ...]:
    """The changes that were made, those that failed in the middle among them; in check mode those that would be."""
    if check and result.error is None:
        return result.decision.changes
    return tuple(
        step.change.halfway() if outcome.halfway else step.change
        for step, outcome in zip(result.steps, result.outcomes)
        if step.change is not None and (outcome.status == "done" or outcome.halfway)
    )


def _halfway(result: Result) -> frozenset[int]:
    """The changes that failed in the middle, by id."""
    return frozenset(id(step.change) for step, outcome in zip(result.steps, result.outcomes) if outcome.halfway)


def finish(module: AnsibleModule, result: Result, engine: Any, records: dict[str, Any], message: str = "") -> None:
    """Ends the module with everything that a result has. ``records`` are the module's own fields."""
    changes = done_changes(result, module.check_mode)
    for warning in _warnings(result, module.check_mode):
        module.warn(warning)
    values = {
        "changed": bool(changes),
        "diff": diff(changes),
        "plan": plan(result.decision.changes, result.steps, _halfway(result)),
        "engine": described(engine),
        **records,
    }
    if result.error is not None:
        module.fail_json(msg=message or str(result.error), error=result.error.as_dict(), **values)
    module.exit_json(**values)


def finish_unlooked(module: AnsibleModule, changes: Sequence[Any], missing: StorageError, **records: Any) -> None:
    """As ``finish``, where nothing could be looked at, so that the changes are those from whatever is there by then."""
    module.warn(_planned_all_the_same(missing))
    module.exit_json(changed=bool(changes), diff=diff(changes), plan=plan(changes, ()), **records)


def _planned_all_the_same(missing: StorageError) -> str:
    return f"{missing.message}: planned as if an earlier task had {_EARLIER.get(missing.code, 'made it')}"


def _warnings(result: Result, check: bool) -> list[str]:
    warnings = list(result.decision.warnings)
    if check and result.error is None:
        warnings += map(_planned_all_the_same, result.decision.missing)
    if any(change.destroys for change in result.decision.changes):
        warnings += [f"could not look at {what} for users of what is destroyed" for what in result.before.unseen]
    return warnings + [f"verification: {claim}" for claim in result.unmet]
