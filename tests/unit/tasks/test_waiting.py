# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How storage_pool_sources looks again and again: with an engine and a clock that stand in for real ones."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.discovery import (
    Discovery,
    FoundSource,
    Query,
    SourcesGoal,
    Unanswered,
)
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Source, SourceHost

pytestmark = pytest.mark.needs_ansible

EXPORT = Source(hosts=(SourceHost("nas1"),), dir="/a", format="nfs")
THERE = Discovery((FoundSource(EXPORT),))
NOT_THERE = Discovery()


def silent(code):
    return Discovery(unanswered=(Unanswered("nas1", "nfs", StorageError(code, code)),), answered=False)


class Engine:
    """Each look takes a second, or where it is cut off all that it is given."""

    def __init__(self, clock, *looks):
        self.clock, self.looks, self.given = clock, list(looks), []

    def find_sources(self, query, seconds):
        self.given.append(seconds)
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        cut_off = isinstance(look, Discovery) and any(each.error.code == "deadline" for each in look.unanswered)
        self.clock.now += seconds if cut_off else 1
        if isinstance(look, StorageError):
            raise look
        return look


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def wait(monkeypatch):
    """The last look, the engine, and how long it took."""
    from ansible_collections.virt.storage.plugins.module_utils.tasks import sources

    def run(*looks, seconds=30, wanted=(EXPORT,), check=False):
        clock = Clock()
        monkeypatch.setattr(sources.time, "monotonic", clock.monotonic)
        monkeypatch.setattr(sources.time, "sleep", clock.sleep)
        engine = Engine(clock, *looks)
        goal = SourcesGoal(Query("netfs", ("nas1",), ("nfs",)), wanted=wanted)
        try:
            return sources._until_there(engine, goal, seconds, check), engine, clock.now
        finally:
            monkeypatch.undo()

    return run


def test_one_look_where_all_is_there(wait):
    found, engine, took = wait(THERE)
    assert (found, len(engine.given), took) == (THERE, 1, 1)


def test_it_looks_until_all_is_there(wait):
    found, engine, took = wait(NOT_THERE, silent("command_failed"), NOT_THERE, THERE)
    assert (found, len(engine.given), took) == (THERE, 4, 7)


def test_it_ends_with_the_time(wait):
    found, _engine, took = wait(NOT_THERE, seconds=10)
    assert found == NOT_THERE
    assert 8 <= took <= 10


def test_a_look_leaves_time_for_another(wait):
    """A server that hangs while it starts is asked again."""
    found, engine, took = wait(silent("deadline"), THERE, seconds=30)
    assert (found, engine.given[0], took) == (THERE, 15, 17)


def test_a_look_that_is_cut_off_hides_none_that_was_not(wait):
    found, _engine, took = wait(NOT_THERE, silent("deadline"), seconds=10)
    assert found == NOT_THERE
    assert took <= 11


def test_what_never_answers(wait):
    found, _engine, took = wait(silent("deadline"), seconds=10)
    assert found.unanswered[0].error.code == "deadline"
    assert took <= 11


@pytest.mark.parametrize("code", ["command_failed", "operation_failed", "source_missing", "daemon_failed"])
def test_an_error_that_passes_is_waited_for(wait, code):
    assert wait(StorageError(code, "not yet"), THERE)[0] == THERE


@pytest.mark.parametrize("code", ["not_readable", "daemon_cannot", "invalid_uri"])
def test_an_error_that_does_not_is_raised(wait, code):
    with pytest.raises(StorageError, match="never"):
        wait(StorageError(code, "never"), THERE)


def test_nobody_waits_for_a_tool(wait):
    _found, engine, took = wait(silent("tool_missing"))
    assert (len(engine.given), took) == (1, 1)


@pytest.mark.parametrize("more", [{"check": True}, {"wanted": ()}])
def test_check_mode_and_a_plain_look_are_one_look(wait, more):
    _found, engine, took = wait(NOT_THERE, THERE, **more)
    assert (engine.given, took) == ([30], 1)
