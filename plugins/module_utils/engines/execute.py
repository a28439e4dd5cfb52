# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The only place where something changes: steps are carried out in waves, each step after those that it needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ..model.errors import StorageError
from ..model.operations import Step

DONE, FAILED, SKIPPED = "done", "failed", "skipped"
# What is refused before anything is done.
_REFUSALS = ("tool_missing", "changed_meanwhile", "locked")
_FAILED = "Look at what is there, and at the memory that is left; run the task again."
_WORKERS = max(2, min(8, 2 * (os.cpu_count() or 1)))


@dataclass(frozen=True)
class Outcome:
    """What became of a step. ``halfway``: it failed, and may have changed something all the same."""

    status: str
    error: StorageError | None = None
    halfway: bool = False


def execute(steps: Sequence[Step], engine: Any) -> tuple[Outcome, ...]:
    """One outcome per step. A failure stops what needs the failed step and nothing else; a step marked ``always``
    runs after those that it needs whatever became of them. Needs point to earlier steps, and so does ``after``."""
    engine.prepare()
    outcomes: dict[int, Outcome] = {}
    pending = list(range(len(steps)))
    while pending:
        ready = [index for index in pending if outcomes.keys() >= {*steps[index].needs, *steps[index].after}]
        if not ready:
            raise ValueError(f"the steps {pending} need each other, or some that are not there")
        blocked = {index: _blocked(steps[index], steps, outcomes) for index in ready}
        outcomes.update({index: outcome for index, outcome in blocked.items() if outcome is not None})
        outcomes.update(_run_wave([index for index in ready if index not in outcomes], steps, engine))
        pending = [index for index in pending if index not in outcomes]
    return tuple(outcomes[index] for index in range(len(steps)))


def _blocked(step: Step, steps: Sequence[Step], outcomes: dict[int, Outcome]) -> Outcome | None:
    for need in () if step.always else step.needs:
        outcome = outcomes[need]
        if outcome.status == DONE:
            continue
        if steps[need].change is None:
            if outcome.error is not None and _is_for_one(need, steps):
                _say_what_for(outcome.error, step)
            return Outcome(FAILED, outcome.error)
        error = StorageError(
            "not_done",
            f"not done, since {steps[need].change.summary} failed",
            subject=str(step.change.subject) if step.change is not None else "",
            hint="Run the task again when the cause is gone.",
        )
        return Outcome(SKIPPED, error)
    return None


def _is_for_one(index: int, steps: Sequence[Step]) -> bool:
    """Whether a step prepares one change only, so that what it fails with is that one's."""
    return sum(index in step.needs for step in steps if step.change is not None) == 1


def _say_what_for(error: StorageError, step: Step) -> None:
    """A command that failed knows only its tool."""
    if error.command and step.change is not None:
        error.doing, error.subject = step.change.summary, str(step.change.subject)


def _run_wave(indices: Sequence[int], steps: Sequence[Step], engine: Any) -> dict[int, Outcome]:
    broken = _conditions_broken(indices, steps, engine)

    def one(index: int) -> Outcome:
        if index in broken:
            return Outcome(FAILED, broken[index])
        return _run_step(steps[index], engine)

    first = sorted(indices, key=lambda index: not _destroys(steps[index]))  # its conditions hold now, not in a while
    return dict(zip(first, _map(one, first, engine.parallel)))


def _destroys(step: Step) -> bool:
    return step.change is not None and bool(step.change.destroys)


def _map(function: Callable[[int], Outcome], items: Sequence[int], parallel: bool) -> list[Outcome]:
    if len(items) < 2 or not parallel:
        return [function(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_WORKERS) as pool:
        return list(pool.map(function, items))


def _conditions_broken(indices: Sequence[int], steps: Sequence[Step], engine: Any) -> dict[int, StorageError]:
    """What must still hold is looked at once for the whole wave, right before it."""
    conditions = {
        index: steps[index].change.requires
        for index in indices
        if steps[index].change is not None and steps[index].change.requires
    }
    return engine.broken(conditions) if conditions else {}


def _run_step(step: Step, engine: Any) -> Outcome:
    done = 0
    try:
        for operation in step.operations:
            engine.execute(operation)
            done += 1
    except StorageError as error:
        _say_what_for(error, step)
        return Outcome(FAILED, error, _halfway(step, done, error))
    except (ValueError, MemoryError) as error:
        what = "" if step.change is None else str(step.change.subject)
        failure = StorageError("operation_failed", f"{type(error).__name__}: {error}", subject=what, hint=_FAILED)
        return Outcome(FAILED, failure, _halfway(step, done, failure))
    return Outcome(DONE)


def _halfway(step: Step, done: int, error: StorageError) -> bool:
    """Whether something may be different after so many operations, and one more that failed. One that was not waited
    for any longer may come to its end yet.
    """
    private = 0 if step.seen is None else len(step.operations) - step.seen
    if any(not getattr(operation, "note", False) for operation in step.operations[private:done]):
        return True
    if done < private or error.code in _REFUSALS:
        return False
    return error.code == "deadline" or not getattr(step.operations[done], "whole", True)
