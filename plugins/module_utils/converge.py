# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What every module does: look, decide, lower; then, unless in check mode, execute and look again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Protocol

from .decide.decision import Decision
from .model.change import UNKNOWN, Change, Condition
from .model.errors import StorageError
from .model.found import Found, Layer
from .model.goal import Scope

if TYPE_CHECKING:  # nothing that runs needs it where there is nothing to change
    from .model.discovery import Discovery, Query
    from .model.operations import Step
    from .model.pool import Pool, SourceVolume
    from .model.volume import Extent


_BLIND = "What was done is in the diff; look at what became of it, and run the task again."


class Engine(Protocol):
    """What pools and volumes are looked at and changed through: ``native`` or ``libvirt``.

    ``uri`` is the one that is used, ``why`` says how it came to be that one. ``parallel``: operations may be executed
    by several threads.
    """

    name: str
    uri: str
    why: str
    parallel: bool

    def pool_names(self) -> list[str]:
        """Every pool of the host, sorted."""

    def session(self, pool: str, definitions: bool, check: bool) -> AbstractContextManager[bool]:
        """Around one look and what follows from it. Gives whether the pool is locked, with all definitions where those
        change. It is not in check mode, nor where there can be no lock.
        """

    def observe(self, scope: Scope) -> Found:
        """One look at one pool, as deep as the scope asks; it changes nothing."""

    def layer(self, wanted: SourceVolume, upper: Pool) -> Layer:
        """A look at a volume of another pool that is to be the device of this one. Raises StorageError where it can't
        be one.
        """

    def observe_users(self, found: Found, stakes: Mapping[str, str]) -> Found:
        """Adds who uses the volumes at stake, as much as each stake asks (model/found.py: PIN, RUNNING, EVERYTHING)."""

    def observe_remains(self, found: Found, places: Mapping[str, Extent]) -> Found:
        """Adds what is left where volumes will be cut, by their names."""

    def find_sources(self, query: Query, seconds: float) -> Discovery:
        """What pools could be made from, and the pools that there are; it takes no longer than ``seconds``. Raises
        StorageError where nothing could be looked at.
        """

    def lower(self, changes: Sequence[Change], found: Found) -> Sequence[Step]:
        """The operations of each change, as data; runs nothing."""

    def lacking(self, steps: Sequence[Step]) -> tuple[StorageError, ...]:
        """The tools that the steps need and this host does not have."""

    def prepare(self) -> None:
        """Before the first operation is executed."""

    def broken(self, conditions: Mapping[int, Sequence[Condition]]) -> dict[int, StorageError]:
        """Which of the conditions, by step, hold no longer."""

    def execute(self, operation: Any) -> None:
        """Carries out one operation: the only method that changes anything. Raises StorageError."""


@dataclass(frozen=True)
class Aim:
    """A declaration with its rules: how far to look, what is at stake, what to change, and what is claimed to hold
    then. ``settled`` makes of one that names what has to be looked at first one that does not. ``places``: what volumes
    would be cut from.
    """

    goal: Any
    scope: Scope
    definitions: bool
    at_stake: Callable[[Any, Found], Mapping[str, str]]
    decide: Callable[[Any, Found], Decision]
    facts: Callable[[Change, Found], Any]
    settled: Callable[[Engine], Aim] | None = None
    places: Callable[[Any, Found], Mapping[str, Extent]] = lambda goal, found: {}


@dataclass(frozen=True)
class Result:
    """``outcomes`` go with ``steps``; both are empty for what was not done. ``unmet`` are claims that did not hold
    afterwards.
    """

    before: Found
    found: Found
    decision: Decision
    steps: tuple[Step, ...]
    outcomes: tuple[Any, ...] = ()
    error: StorageError | None = None
    unmet: tuple[str, ...] = ()


def converge(aim: Aim, engine: Engine, check: bool) -> Result:
    """Raises StorageError for what could not be looked at; refusals and failures are in the result."""
    with engine.session(aim.scope.pool.name, aim.definitions, check) as locked:
        aim = aim if aim.settled is None else aim.settled(engine)
        found = engine.observe(aim.scope)
        found = engine.observe_users(found, aim.at_stake(aim.goal, found))
        places = aim.places(aim.goal, found)
        found = engine.observe_remains(found, places) if places else found
        try:
            decision = aim.decide(aim.goal, found)
        except StorageError as refusal:
            return Result(found, found, Decision(refusal=refusal), (), error=refusal)
        steps = tuple(engine.lower(decision.changes, found))
        decision = replace(decision, missing=(*decision.missing, *engine.lacking(steps)))
        stop = decision.refusal or (None if check else next(iter(decision.missing), None))
        if not check and not locked and steps and stop is None:
            stop = StorageError(
                "not_writable",
                "the lock of the pool can't be taken",
                subject=f"pool {aim.scope.pool.name}",
                hint="Run as a user who may write there (become: true).",
            )
        if stop is not None or check or not steps:
            return Result(found, found, decision, steps, error=stop)
        return _apply(aim, engine, found, decision, steps)


def carry_out(change: Change, scope: Scope, engine: Engine) -> None:
    """What does not depend on what is found, in a pool that is there. Raises StorageError; without the lock of the pool
    it does nothing.
    """
    from .engines.execute import execute

    with engine.session(scope.pool.name, False, False) as locked:
        if locked:
            execute(tuple(engine.lower((change,), engine.observe(scope))), engine)


def _apply(aim: Aim, engine: Engine, found: Found, decision: Decision, steps: tuple[Step, ...]) -> Result:
    from .engines.execute import execute

    outcomes = execute(steps, engine)
    error = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
    try:
        after = engine.observe(aim.scope)
    except (StorageError, OSError) as blind:
        if isinstance(blind, OSError):
            blind = StorageError("not_readable", str(blind), subject=str(blind.filename or ""), hint=_BLIND)
        return Result(found, found, decision, steps, outcomes, error or blind)
    done = [
        step.change for step, outcome in zip(steps, outcomes) if step.change is not None and outcome.status == "done"
    ]
    unmet = tuple(claim for claim in _unmet(done, after, aim.facts))
    return Result(found, after, decision, steps, outcomes, error, unmet)


def _unmet(changes: Sequence[Any], after: Found, facts: Callable[[Change, Found], Any]) -> list[str]:
    """The claims of the last change of each subject and fact, held against what is there now."""
    claims: dict[tuple[str, str], Any] = {}
    seen: dict[str, Any] = {}
    for change in changes:
        subject = str(change.subject)
        seen[subject] = facts(change, after)
        if change.after is None:
            claims = {key: value for key, value in claims.items() if key[0] != subject}
            claims[(subject, "")] = None
            continue
        claims.pop((subject, ""), None)
        claims.update({(subject, name): value for name, value in _flat(change.after)})
    return [
        f"{subject}: {name or 'it'} should be {value!r}, but is {_get(seen[subject], name)!r}"
        for (subject, name), value in claims.items()
        if not _holds(value, _get(seen[subject], name))
    ]


def _holds(claim: Any, fact: Any) -> bool:
    if isinstance(claim, dict) and isinstance(fact, dict):
        return all(_holds(value, fact.get(name)) for name, value in claim.items())
    return claim is UNKNOWN or claim == fact


def _flat(facts: Any) -> list[tuple[str, Any]]:
    flat = []
    for name, value in facts.items():
        if isinstance(value, dict) and name in ("definition", "target"):
            flat += [(f"{name}.{inner}", deeper) for inner, deeper in value.items()]
        else:
            flat.append((name, value))
    return flat


def _get(facts: Any, name: str) -> Any:
    for part in name.split(".", 1) if name else ():
        facts = facts.get(part) if isinstance(facts, dict) else None
    return facts
