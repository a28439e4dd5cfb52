# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pool that could not be started says what became of its definition."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.converge import Result
from ansible_collections.virt.storage.plugins.module_utils.decide.decision import Decision
from ansible_collections.virt.storage.plugins.module_utils.engines.execute import DONE, FAILED, SKIPPED, Outcome
from ansible_collections.virt.storage.plugins.module_utils.model.change import Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import Found
from ansible_collections.virt.storage.plugins.module_utils.model.operations import Step
from ansible_collections.virt.storage.plugins.module_utils.tasks.pool import say_what_stays

pytestmark = pytest.mark.needs_ansible

DEFINED, CHANGED, STOPPED = "stays defined", "definition of the pool stays changed", "was stopped to be started again"


@pytest.mark.parametrize(
    ("actions", "done", "said"),
    [
        (("define", "build", "start"), 2, [DEFINED]),
        (("define", "start"), 0, []),
        (("stop", "redefine", "start"), 2, [CHANGED, STOPPED]),
        (("stop", "redefine", "start"), 1, [STOPPED]),
        (("stop", "undefine"), 1, []),
    ],
)
def test_what_failed_says_what_stays(actions, done, said):
    failure = StorageError("command_failed", "mount failed", hint="Mend it.")
    changes = tuple(Change(Subject("p"), action, action) for action in actions)
    rest = (Outcome(FAILED, failure), *[Outcome(SKIPPED, failure)] * len(actions))
    outcomes = (*[Outcome(DONE)] * done, *rest)[: len(actions)]
    steps = tuple(Step((), change) for change in changes)
    say_what_stays(Result(Found("p"), Found("p"), Decision(changes), steps, outcomes, failure))
    assert failure.hint.startswith("Mend it.")
    assert [words for words in (DEFINED, CHANGED, STOPPED) if words in failure.hint] == said


def test_where_nothing_failed_there_is_nothing_to_say():
    steps = (Step((), Change(Subject("p"), "define", "")), Step(()))
    result = Result(Found("p"), Found("p"), Decision(), steps, (Outcome(DONE), Outcome(DONE)))
    say_what_stays(result)
    assert result.error is None
