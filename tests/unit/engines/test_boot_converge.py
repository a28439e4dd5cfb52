# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole tasks of the native engine on files that have a place for units, as the system's have."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.converge import converge
from ansible_collections.virt.storage.plugins.module_utils.engines import boot
from ansible_collections.virt.storage.plugins.module_utils.engines.boot import UNIT
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.engines.select import native_engine
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool
from ansible_collections.virt.storage.plugins.module_utils.report.result import diff
from ansible_collections.virt.storage.plugins.module_utils.tasks.pool import aim_at


class Killed(BaseException):
    pass


class Host:
    def __init__(self, top, places):
        self.top, self.places = top, places

    def __call__(self, name, check=False, kill_after=None, **declared):
        engine = native_engine(self.places, 5)
        if kill_after is not None:
            engine.execute = _killed(engine.execute, kill_after)
        pool = Pool(name, "dir", path=str(self.top / name)) if declared.pop("whole", True) else Pool(name)
        result = converge(aim_at(PoolGoal(pool, **declared)), engine, check)
        assert (result.error, result.unmet) == (None, ())
        return result

    @property
    def files(self):
        """Of the unit, with its link and its program."""
        names = (UNIT, f"multi-user.target.wants/{UNIT}")
        paths = [os.path.join(self.places.units, name) for name in names]
        return sum(map(os.path.exists, (*paths, os.path.join(self.places.program, "autostart.pyz"))))

    def marked(self, name):
        return os.path.exists(os.path.join(self.places.config, "autostart", f"{name}.xml"))


def _killed(execute, count):
    left = [count]

    def execute_some(operation):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        execute(operation)

    return execute_some


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(boot.systemd, "is_running", lambda: True)
    monkeypatch.setattr(boot.systemd, "enabled", lambda units: ())
    places = find_places(f"native:///?root={tmp_path / 'root'}")
    return Host(tmp_path, replace(places, units=str(tmp_path / "units"), program=str(tmp_path / "lib")))


def actions(result):
    return [change.action for change in result.decision.changes]


def test_the_unit_comes_with_the_first_mark_and_goes_with_the_last(host):
    planned = host("a", check=True, autostart=True)
    assert (host.files, host.marked("a")) == (0, False)
    made = host("a", autostart=True)
    assert "boot_unit: enabled" in diff(made.decision.changes)["after"]
    masked = [diff(each.decision.changes[1:]) for each in (planned, made)]
    assert masked[0] == masked[1]
    assert (host.files, host.marked("a")) == (3, True)
    assert made.decision.warnings == ()
    assert actions(host("a", autostart=True)) == []
    assert "boot_unit" not in diff(host("b", autostart=True).decision.changes)["after"]
    host("a", autostart=False)
    assert host.files == 3
    gone = host("b", state="absent")
    assert "boot_unit: enabled" in diff(gone.decision.changes)["before"]
    assert (host.files, host.marked("b")) == (0, False)
    assert actions(host("b", state="absent")) == []


def test_it_goes_with_a_pool_that_is_deleted(host):
    host("a", autostart=True)
    host("a", state="deleted")
    assert host.files == 0


def test_what_was_disabled_is_enabled_again(host):
    host("a", autostart=True)
    os.unlink(os.path.join(host.places.units, f"multi-user.target.wants/{UNIT}"))
    assert actions(host("a", whole=False)) == []  # nothing is declared of it
    assert actions(host("a", autostart=True)) == ["autostart"]
    assert host.files == 3


@pytest.mark.parametrize("kill_after", range(5))
def test_a_mark_that_was_not_completed_is_completed(host, kill_after):
    host("a")
    with pytest.raises(Killed):
        host("a", autostart=True, kill_after=kill_after)
    assert not host.marked("a")
    host("a", autostart=True)
    assert (host.files, host.marked("a"), actions(host("a", autostart=True))) == (3, True, [])


@pytest.mark.parametrize("declared", [{"autostart": False}, {"state": "absent"}])
@pytest.mark.parametrize("kill_after", range(4))
def test_one_that_was_not_taken_away_is_taken_away(host, declared, kill_after):
    host("a", autostart=True, state="inactive")
    with pytest.raises(Killed):
        host("a", kill_after=kill_after, **declared)
    host("a", **declared)
    assert (host.files, host.marked("a"), actions(host("a", **declared))) == (0, False, [])


def test_where_the_unit_can_not_be_written_nothing_is_marked(host):
    host("a")
    with open(host.places.units, "w", encoding="utf-8"):
        pass
    engine = native_engine(host.places, 5)
    goal = PoolGoal(Pool("a"), autostart=True)
    result = converge(aim_at(goal), engine, False)
    assert isinstance(result.error, StorageError)
    assert not host.marked("a")
