# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps are carried out after those that they need; a failure stops nothing that is independent of it."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.engines.execute import DONE, FAILED, SKIPPED, execute
from ansible_collections.virt.storage.plugins.module_utils.model.change import Change, Condition, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.daemon_calls import DaemonCall
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.operations import (
    As,
    ChangeTable,
    FirstOf,
    Remove,
    Run,
    Step,
    Sync,
    WriteFile,
)


class Engine:
    """Notes what it is told to do; operations are names, and those of ``failing`` fail."""

    def __init__(self, failing=(), broken=(), parallel=False):
        self.failing, self.gone, self.parallel = set(failing), set(broken), parallel
        self.done, self.looked = [], []
        self.guard = threading.Lock()

    def broken(self, conditions):
        self.looked.append((sorted(conditions), list(self.done)))
        return {
            index: StorageError("changed_meanwhile", f"{index} changed")
            for index, group in conditions.items()
            if any(condition.path in self.gone for condition in group)
        }

    def prepare(self):
        pass

    def execute(self, operation):
        with self.guard:
            self.done.append(operation)
        if operation in self.failing:
            raise StorageError("operation_failed", f"{operation} failed")


def step(name, *needs, change=True, always=False, requires=False, operations=None):
    """A step whose one operation has its name."""
    conditions = (Condition("identity", name),) if requires else ()
    mine = Change(Subject("p", name), "x", f"summary of {name}", requires=conditions) if change else None
    return Step((name,) if operations is None else operations, mine, needs, always)


def statuses(steps, engine):
    return [outcome.status for outcome in execute(steps, engine)]


def test_nothing():
    assert execute([], Engine()) == ()


def test_a_step_waits_for_what_it_needs():
    engine = Engine()
    steps = [step("a"), step("b", 0), step("c", 1), step("d"), step("e", 0, 2)]
    assert statuses(steps, engine) == [DONE] * 5
    place = engine.done.index
    assert place("a") < place("b") < place("c") < place("e")
    assert sorted(engine.done) == list("abcde")


def test_operations_of_a_step_come_in_order_and_stop_at_a_failure():
    engine = Engine(failing=["2"])
    assert statuses([step("s", operations=("1", "2", "3"))], engine) == [FAILED]
    assert engine.done == ["1", "2"]


def test_a_failure_stops_only_what_needs_it():
    engine = Engine(failing=["b"])
    steps = [step("a"), step("b"), step("c", 1), step("d", 2), step("e", 0), step("f")]
    outcomes = execute(steps, engine)
    assert [outcome.status for outcome in outcomes] == [DONE, FAILED, SKIPPED, SKIPPED, DONE, DONE]
    assert outcomes[1].error.code == "operation_failed"
    assert outcomes[2].error.code == "not_done"
    assert "summary of b" in outcomes[2].error.message
    assert outcomes[2].error.subject == "volume p/c"
    assert outcomes[2].error.hint
    assert outcomes[0].error is None
    assert "c" not in engine.done
    assert "d" not in engine.done


@pytest.mark.parametrize("failing", [(), ("a",), ("b",)], ids=str)
def test_what_only_comes_after_a_step_is_done_whatever_became_of_that(failing):
    engine = Engine(failing, parallel=True)
    steps = [step("a"), step("b")._replace(after=(0,)), step("c")._replace(after=(1,)), step("d", 0)]
    outcomes = statuses(steps, engine)
    assert [name for name in engine.done if name != "d"] == ["a", "b", "c"]
    assert outcomes[:3] == [FAILED if name in failing else DONE for name in "abc"]
    assert outcomes[3] == (SKIPPED if "a" in failing else DONE)


def test_what_a_shared_step_fails_with_they_fail_with():
    engine = Engine(failing=["open"])
    outcomes = execute([step("open", change=False), step("a", 0), step("b", 0)], engine)
    assert [outcome.status for outcome in outcomes] == [FAILED] * 3
    assert {outcome.error.code for outcome in outcomes} == {"operation_failed"}
    assert engine.done == ["open"]


@pytest.mark.parametrize("failing", [(), ("a",), ("open",), ("a", "b")], ids=str)
def test_a_step_that_always_runs(failing):
    engine = Engine(failing)
    steps = [step("open", change=False), step("a", 0), step("b", 0), step("close", 0, 1, 2, change=False, always=True)]
    assert statuses(steps, engine)[3] == DONE
    assert engine.done[-1] == "close"


def test_what_needs_a_step_that_always_runs_is_stopped_by_it_alone():
    steps = [step("a"), step("close", 0, change=False, always=True), step("b", 1)]
    assert statuses(steps, Engine(["a"])) == [FAILED, DONE, DONE]
    assert statuses(steps, Engine(["close"])) == [DONE, FAILED, FAILED]


def test_a_broken_condition_stops_its_step_before_anything_is_done():
    engine = Engine(broken=["b"])
    steps = [step("a", requires=True), step("b", requires=True), step("c", 1), step("d")]
    outcomes = execute(steps, engine)
    assert [outcome.status for outcome in outcomes] == [DONE, FAILED, SKIPPED, DONE]
    assert outcomes[1].error.code == "changed_meanwhile"
    assert "b" not in engine.done


def test_conditions_are_looked_at_together_and_right_before():
    engine = Engine()
    execute([step("a", requires=True), step("b", requires=True), step("c", 0, requires=True), step("d")], engine)
    assert [looked for looked, _done in engine.looked] == [[0, 1], [2]]
    assert engine.looked[0][1] == []
    assert "a" in engine.looked[1][1]


def test_what_destroys_comes_first_while_its_conditions_hold():
    engine = Engine()
    condition = (Condition("unused", "b"),)
    last = Step(("b",), Change(Subject("p", "b"), "x", "summary", destroys="all of it", requires=condition))
    execute([step("a"), step("long", change=False), last], engine)
    assert engine.done == ["b", "a", "long"]


def test_where_there_are_no_conditions_nothing_is_looked_at():
    engine = Engine()
    execute([step("a"), step("b", 0)], engine)
    assert engine.looked == []


def test_independent_steps_run_at_the_same_time():
    both = threading.Barrier(2, timeout=10)

    class Meeting(Engine):
        def execute(self, operation):
            both.wait()

    assert statuses([step("a"), step("b")], Meeting(parallel=True)) == [DONE, DONE]


def test_an_engine_that_is_not_parallel_runs_one_after_the_other():
    threads = []

    class Noting(Engine):
        def execute(self, operation):
            threads.append(threading.current_thread())

    execute([step("a"), step("b"), step("c")], Noting(parallel=False))
    assert set(threads) == {threading.main_thread()}


@contextmanager
def seconds(limit):
    def late(_signal, _frame):
        raise TimeoutError("it does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@st.composite
def graphs(draw):
    count = draw(st.integers(0, 8))
    steps = []
    for index in range(count):
        needs, after = (
            draw(st.frozensets(st.integers(0, index - 1), max_size=3)) if index else () for _each in range(2)
        )
        steps.append(
            step(
                str(index),
                *sorted(needs),
                change=draw(st.booleans()),
                always=draw(st.sampled_from([False, False, True])),
                requires=draw(st.booleans()),
            )._replace(after=tuple(sorted(after)))
        )
    subsets = st.frozensets(st.sampled_from([str(index) for index in range(count)] or ["x"]))
    return steps, draw(subsets), draw(subsets), draw(st.booleans())


@given(graphs())
def test_any_graph(drawn):
    steps, failing, broken, parallel = drawn
    engine = Engine(failing, broken, parallel)
    with seconds(20):
        outcomes = execute(steps, engine)
    assert len(outcomes) == len(steps)
    assert len(set(engine.done)) == len(engine.done)
    for index, (each, outcome) in enumerate(zip(steps, outcomes)):
        name = str(index)
        assert (outcome.error is None) == (outcome.status == DONE)
        stopped = not each.always and any(outcomes[need].status != DONE for need in each.needs)
        changed = name in broken and each.change is not None and bool(each.change.requires)
        if stopped:
            assert outcome.status != DONE
            assert name not in engine.done
        elif changed:
            assert outcome.status == FAILED
            assert name not in engine.done
        else:
            assert outcome.status == (FAILED if name in failing else DONE)
            assert name in engine.done
        if name in engine.done:
            before = engine.done[: engine.done.index(name)]
            assert all(str(one) in before for one in (*each.needs, *each.after) if outcomes[one].status == DONE)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([step("a", 0)], id="itself"),
        pytest.param([step("a", 1), step("b", 0)], id="each-other"),
        pytest.param([step("a", 1), step("b")], id="a-later-one"),
        pytest.param([step("a", 7)], id="one-that-is-not-there"),
    ],
)
def test_needs_that_can_not_be_met_end_too(steps):
    """Needs point to earlier steps; should they not, the run ends all the same."""
    with seconds(5):
        try:
            outcomes = execute(steps, Engine())
        except TimeoutError:
            raise
        except Exception:
            return
    assert len(outcomes) == len(steps)


def _halfway(operations, failing, code="operation_failed", seen=None):
    """Whether a step that fails with one of its operations may have changed something."""

    class Failing(Engine):
        def execute(self, operation):
            if operation == failing:
                raise StorageError(code, "failed")

    made = step("s", operations=operations)._replace(seen=seen)
    return execute([made], Failing())[0].halfway


REMOVE, OTHER, NOTE = Remove("/a"), Remove("/b"), WriteFile("/note", "", note=True)
TABLE = ChangeTable("/dev/vdz", ())
CALL, BUILD = DaemonCall("pool-start", "", "p"), DaemonCall("pool-start", "", "p", words=("build",))
COMMAND, MOUNT = Run(("mkfs",)), Run(("mount",), whole=True)


@pytest.mark.parametrize(
    ("operations", "failing", "code", "expected"),
    [
        pytest.param((REMOVE, OTHER), REMOVE, "operation_failed", False, id="all or nothing"),
        pytest.param((REMOVE, OTHER), OTHER, "operation_failed", True, id="something before it is done"),
        pytest.param((NOTE, Sync("/a"), MOUNT), MOUNT, "command_failed", False, id="only a note before it"),
        pytest.param((COMMAND,), COMMAND, "command_failed", True, id="a command may have done half"),
        pytest.param((COMMAND,), COMMAND, "tool_missing", False, id="a command that was not there"),
        pytest.param((MOUNT,), MOUNT, "deadline", True, id="it may come to its end yet"),
        pytest.param((FirstOf((MOUNT, MOUNT)),), FirstOf((MOUNT, MOUNT)), "command_failed", False, id="any of these"),
        pytest.param((As(1, 1, COMMAND),), As(1, 1, COMMAND), "command_failed", True, id="for another user"),
        pytest.param((As(1, 1, MOUNT),), As(1, 1, MOUNT), "command_failed", False, id="whole for another user"),
        pytest.param((TABLE,), TABLE, "command_failed", True, id="a table"),
        pytest.param((TABLE,), TABLE, "changed_meanwhile", False, id="a table that was refused"),
        pytest.param((CALL,), CALL, "operation_failed", False, id="a daemon takes back what failed"),
        pytest.param((BUILD,), BUILD, "operation_failed", True, id="a daemon that builds"),
    ],
)
def test_what_failed_says_whether_something_may_be_different(operations, failing, code, expected):
    assert _halfway(operations, failing, code) is expected


def test_what_is_prepared_in_private_changes_nothing():
    operations = (COMMAND, OTHER, REMOVE)
    assert [_halfway(operations, failing, seen=1) for failing in operations] == [False, False, False]
    assert [_halfway(operations, failing, seen=2) for failing in operations] == [False, False, True]


def test_a_step_that_was_not_begun_changed_nothing():
    engine = Engine(failing=["a"], broken=["c"])
    outcomes = execute([step("a"), step("b", 0), step("c", requires=True), step("d")], engine)
    assert not any(outcome.halfway for outcome in outcomes)


def test_a_command_that_failed_says_what_it_was_for():
    class Failing(Engine):
        def execute(self, operation):
            raise StorageError("command_failed", "mount failed", subject="mount", command="mount /a", rc=32)

    made = step("s", operations=(MOUNT,))
    (outcome,) = execute([made], Failing())
    assert outcome.error.subject == str(made.change.subject)
    assert outcome.error.as_dict()["message"] == f"{made.change.summary}: mount failed"
    assert str(outcome.error) == f"{made.change.summary}: mount failed (command: mount /a; exit status 32; no message)"


@pytest.mark.parametrize(("others", "subject"), [(1, "volume p/0"), (2, "tool")])
def test_a_command_that_failed_in_preparing_one_change_says_so_too(others, subject):
    """What is prepared for several is none of them."""

    class Failing(Engine):
        def execute(self, operation):
            raise StorageError("command_failed", "tool failed", subject="tool", command="tool /a", rc=1)

    steps = [step("prepare", change=False), *(step(str(index), 0) for index in range(others))]
    outcomes = execute([*steps, step("close", *range(len(steps)), change=False, always=True)], Failing())
    assert {outcome.error.subject for outcome in outcomes[:-1]} == {subject}
