# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look, decide, lower; then, unless in check mode, execute, look again, and hold the claims against what is there."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.converge import Aim, converge
from ansible_collections.virt.storage.plugins.module_utils.decide.decision import Decision
from ansible_collections.virt.storage.plugins.module_utils.model.change import UNKNOWN, Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import Found
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.operations import Step
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool

FOUND = Found("p")
REFUSAL = StorageError("not_writable", "no")
MISSING = StorageError("pool_missing", "no pool")


class Engine:
    """Notes what is asked of it, and whether it was asked under the lock."""

    parallel = False

    def __init__(self, failing=(), can_lock=True):
        self.calls, self.locked, self.failing, self.can_lock = [], False, failing, can_lock

    def note(self, what):
        self.calls.append(f"{what} locked" if self.locked else what)

    @contextmanager
    def session(self, pool, definitions, check):
        self.locked = self.can_lock and not check
        if self.locked:
            self.calls.append(f"lock {pool} {definitions}")
        yield self.locked
        self.locked = False

    def observe(self, scope):
        self.note("observe")
        return FOUND

    def observe_users(self, found, stakes):
        self.note("users")
        return found

    def lower(self, changes, found):
        self.note("lower")
        return [Step((change.action,), change) for change in changes]

    def broken(self, conditions):
        return {}

    def lacking(self, steps):
        return ()

    def prepare(self):
        pass

    def execute(self, operation):
        self.note(operation)
        if operation in self.failing:
            raise StorageError("operation_failed", operation)


def change(action, after=None, name="v"):
    return Change(Subject("p", name), action, action, None, after)


def run(decision, check=False, facts=None, failing=(), can_lock=True):
    engine = Engine(failing, can_lock)
    aim = Aim(
        None, Scope(Pool("p")), True, lambda goal, found: {}, lambda goal, found: decision, lambda change, found: facts
    )
    return converge(aim, engine, check), engine.calls


LOOK = ["observe", "users", "lower"]
LOOK_LOCKED = ["lock p True", *(f"{each} locked" for each in LOOK)]


@pytest.mark.parametrize("check", [True, False])
def test_what_a_declaration_names_is_looked_at_first_under_the_lock(check):
    """What is decided on is the declaration that comes out of it."""
    decided = []

    def decide(goal, found):
        decided.append(goal)
        return Decision()

    def settled(engine):
        engine.note("layer")
        return replace(aim, goal="settled", settled=None)

    aim = Aim("named", Scope(Pool("p")), True, lambda *_: {}, decide, lambda *_: None, settled)
    engine = Engine()
    converge(aim, engine, check)
    assert (engine.calls[:2] if check else engine.calls[1:3]) == (
        ["layer", "observe"] if check else ["layer locked", "observe locked"]
    )
    assert decided == ["settled"]


@pytest.mark.parametrize("check", [True, False])
def test_where_nothing_changes_it_is_looked_at_once(check):
    result, calls = run(Decision(), check)
    assert calls == (LOOK if check else LOOK_LOCKED)
    assert (result.outcomes, result.error, result.unmet) == ((), None, ())


def test_check_mode_takes_no_lock_and_executes_nothing():
    result, calls = run(Decision((change("a"),)), True)
    assert calls == LOOK
    assert len(result.steps) == 1


def test_without_a_lock_nothing_can_be_changed():
    result, calls = run(Decision((change("a"),)), can_lock=False)
    assert calls == LOOK
    assert result.error.code == "not_writable"
    assert result.error.hint
    assert run(Decision(), can_lock=False)[0].error is None


def test_a_real_run_executes_and_looks_again():
    result, calls = run(Decision((change("a"), change("b"))))
    assert calls == [*LOOK_LOCKED, "a locked", "b locked", "observe locked"]
    assert [outcome.status for outcome in result.outcomes] == ["done", "done"]


@pytest.mark.parametrize("check", [True, False])
def test_a_refusal_stops_both(check):
    result, calls = run(Decision((change("a"),), refusal=REFUSAL), check)
    assert calls == (LOOK if check else LOOK_LOCKED)
    assert result.error is REFUSAL


@pytest.mark.parametrize(("check", "error"), [(True, None), (False, MISSING)])
def test_what_an_earlier_task_may_make_stops_only_a_real_run(check, error):
    result, calls = run(Decision((change("a"),), (MISSING,)), check)
    assert result.error is error
    assert "a locked" not in calls


def test_a_failure_is_in_the_result():
    result, calls = run(Decision((change("a"), change("b"))), failing=["a"])
    assert result.error.code == "operation_failed"
    assert calls[-1] == "observe locked"


@pytest.mark.parametrize(
    ("changes", "facts", "unmet"),
    [
        pytest.param([change("a", {"x": 1})], {"x": 1, "y": 2}, 0, id="holds"),
        pytest.param([change("a", {"x": 1})], {"x": 2}, 1, id="does-not-hold"),
        pytest.param([change("a", {"x": 1})], None, 1, id="is-not-there"),
        pytest.param([change("a", {"x": UNKNOWN})], {"x": 5}, 0, id="unknown-holds"),
        pytest.param([change("a", None)], None, 0, id="gone"),
        pytest.param([change("a", None)], {"x": 1}, 1, id="not-gone"),
        pytest.param([change("a", {"x": 1}), change("b", {"x": 2})], {"x": 2}, 0, id="the-last-counts"),
        pytest.param([change("a", {"x": 1}), change("b", {"x": 2})], {"x": 1}, 1, id="the-first-does-not"),
        pytest.param([change("a", {"x": 1}), change("b", None)], None, 0, id="then-gone"),
        pytest.param([change("a", None), change("b", {"x": 1})], {"x": 1}, 0, id="then-back"),
        pytest.param(
            [change("a", {"target": {"mode": "0711"}})], {"target": {"mode": "0711", "owner": 0}}, 0, id="nested"
        ),
        pytest.param([change("a", {"target": {"mode": "0711"}})], {"target": {"mode": "0700"}}, 1, id="nested-not"),
        pytest.param([change("a", {"target": None})], {"target": None}, 0, id="nested-gone"),
        pytest.param(
            [change("a", {"backing": {"path": UNKNOWN, "format": "raw"}})],
            {"backing": {"path": "/b", "format": "raw"}},
            0,
            id="unknown-below",
        ),
        pytest.param([change("a", {"backing": {"format": "raw"}})], {"backing": None}, 1, id="nothing-below"),
    ],
)
def test_claims_are_held_against_what_is_there(changes, facts, unmet):
    result, _calls = run(Decision(tuple(changes)), facts=facts)
    assert len(result.unmet) == unmet
    assert all("volume p/v" in claim for claim in result.unmet)


def test_the_claims_of_what_failed_are_not_held_against_it():
    result, _calls = run(Decision((change("a", {"x": 1}),)), facts={"x": 2}, failing=["a"])
    assert result.unmet == ()
