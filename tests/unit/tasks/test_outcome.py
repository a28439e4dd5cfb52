# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module never says that nothing changed where something may have."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.converge import Result
from ansible_collections.virt.storage.plugins.module_utils.decide.decision import Decision
from ansible_collections.virt.storage.plugins.module_utils.engines.execute import DONE, FAILED, SKIPPED, Outcome
from ansible_collections.virt.storage.plugins.module_utils.model.change import HALFWAY, Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import Found
from ansible_collections.virt.storage.plugins.module_utils.model.operations import Step
from ansible_collections.virt.storage.plugins.module_utils.tasks import outcome

pytestmark = pytest.mark.needs_ansible

LOOKS = ("observe", "observe_users", "observe_remains", "find_sources", "broken")
FAILURE = StorageError("command_failed", "mkfs failed")


class Module:
    check_mode = False

    def __init__(self):
        self.params, self.said = {"timeout": 1}, {}

    def fail_json(self, **said):
        self.said = said

    exit_json = fail_json

    def warn(self, text):
        raise AssertionError(text)


def _finished(*outcomes):
    changes = [Change(Subject("p", str(n)), "x", "do it", {"a": 1}, {"a": 2}) for n in range(len(outcomes))]
    steps = tuple(Step((), change) for change in changes)
    result = Result(Found("p"), Found("p"), Decision(tuple(changes)), steps, outcomes, FAILURE)
    module = Module()
    engine = SimpleNamespace(name="native", uri="native", why="")
    outcome.finish(module, result, engine, {})
    return outcome.done_changes(result, False), module.said


def test_what_failed_in_the_middle_counts_as_changed():
    done, said = _finished(Outcome(FAILED, FAILURE, halfway=True), Outcome(SKIPPED, FAILURE))
    assert said["changed"] is True
    assert [change.after for change in done] == [{"a": HALFWAY}]
    assert "begun, not completed" in said["diff"]["after"]
    assert [entry.get("halfway") for entry in said["plan"]] == [["volume p/0"]]


def test_what_failed_before_it_changed_anything_does_not():
    done, said = _finished(Outcome(FAILED, FAILURE), Outcome(SKIPPED, FAILURE))
    assert (done, said["changed"], said["diff"]) == ((), False, {"before": "", "after": ""})


def test_what_was_done_before_counts_as_it_is():
    done, said = _finished(Outcome(DONE), Outcome(FAILED, FAILURE))
    assert ([change.after for change in done], said["changed"]) == ([{"a": 2}], True)


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_that_hangs_after_something_was_done(monkeypatch, look, executed):
    """A later look hangs: what was done before it is not denied."""
    hanging = {}

    def watch(seconds, stuck):
        hanging["stuck"] = stuck
        return os.scandir(".")  # any context

    monkeypatch.setattr(outcome, "watch", watch)
    monkeypatch.setattr(outcome.os, "_exit", lambda status: None)
    module = Module()
    looks = {name: lambda: 1 for name in LOOKS}
    engine = outcome.watched(module, SimpleNamespace(**looks, execute=lambda operation: None))
    if executed:
        engine.execute("something")
    assert getattr(engine, look)() == 1
    hanging["stuck"]()
    assert (module.said["error"]["code"], module.said["changed"]) == ("deadline", executed)


@pytest.mark.parametrize(
    ("code", "done"),
    [
        ("pool_inactive", "had started it"),
        ("pool_missing", "had defined it"),
        ("tool_missing", "had installed it"),
        ("source_missing", "had made it"),
    ],
)
def test_what_an_earlier_task_is_taken_to_have_done(code, done):
    result = Result(Found("p"), Found("p"), Decision(missing=(StorageError(code, "it is not there"),)), ())
    (warning,) = outcome._warnings(result, check=True)
    assert warning == f"it is not there: planned as if an earlier task {done}"
