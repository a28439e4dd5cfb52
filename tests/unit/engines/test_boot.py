# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The unit that starts pools at boot, and the code that it runs."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines import boot
from ansible_collections.virt.storage.plugins.module_utils.engines.boot import UNIT, BootUnit
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.model.found import ENABLED, NO_UNIT, OUTDATED


@pytest.fixture
def asked(monkeypatch):
    """What systemd says: whether it runs, and which units of a daemon are enabled."""
    says = {"running": True, "enabled": ()}
    monkeypatch.setattr(boot.systemd, "is_running", lambda: says["running"])
    monkeypatch.setattr(boot.systemd, "enabled", lambda units: says["enabled"])
    return says


@pytest.fixture
def places(tmp_path, asked):
    rooted = find_places(f"native:///?root={tmp_path}")
    return replace(rooted, units=str(tmp_path / "units"), program=str(tmp_path / "lib"))


def carry_out(operations):
    for operation in operations:
        Applier().apply(operation)


def look(places):
    return BootUnit(places).look(others=False, keyless=False)


def test_it_is_installed_and_removed(places):
    assert (look(places).needed, look(places).state) == (True, NO_UNIT)
    carry_out(BootUnit(places).install())
    assert look(places).state == ENABLED
    text = Path(places.units, UNIT).read_text(encoding="utf-8")
    assert f"\nExecStart={boot._python()} {places.program}/autostart.pyz\n" in text
    assert os.stat(f"{places.units}/multi-user.target.wants").st_mode & 0o777 == 0o755
    carry_out(BootUnit(places).remove())
    assert look(places).state == NO_UNIT
    assert os.listdir(places.units) == ["multi-user.target.wants"]
    assert os.listdir(places.program) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_one_that_was_not_completed_is_renewed(places, count):
    carry_out(list(BootUnit(places).install())[:count])
    assert look(places).state == (ENABLED if count == 4 else OUTDATED)
    carry_out(BootUnit(places).install())
    assert look(places).state == ENABLED


@pytest.mark.parametrize("count", [1, 2])
def test_one_that_was_not_wholly_removed_is_still_there(places, count):
    carry_out(BootUnit(places).install())
    carry_out(list(BootUnit(places).remove())[:count])
    assert look(places).state == OUTDATED


@pytest.mark.parametrize("part", [UNIT, f"multi-user.target.wants/{UNIT}", "../lib/autostart.pyz"])
def test_what_somebody_changed_is_renewed(places, part):
    carry_out(BootUnit(places).install())
    path = os.path.join(places.units, part)
    os.unlink(path)
    with open(path, "w", encoding="utf-8") as file:
        file.write("other")
    assert look(places).state == OUTDATED
    carry_out(BootUnit(places).install())
    assert look(places).state == ENABLED


def test_another_interpreter_is_another_unit(places, monkeypatch):
    carry_out(BootUnit(places).install())
    monkeypatch.setattr(sys, "executable", "/opt/python/bin/python3.99")
    assert look(places).state == OUTDATED


def test_the_name_that_outlives_an_upgrade(tmp_path, monkeypatch):
    (tmp_path / "python3.9").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3.9"))
    assert boot._python() == str(tmp_path / "python3.9")
    (tmp_path / "python3").symlink_to("python3.9")
    assert boot._python() == str(tmp_path / "python3")


def test_where_a_daemon_starts_pools_it_stands_back(places, asked):
    carry_out(BootUnit(places).install())
    asked["enabled"] = ("libvirtd.service",)
    found = look(places)
    assert (found.nobody, found.needed, found.state) == ("", False, ENABLED)


def test_without_systemd_nobody_does(places, asked):
    asked["running"] = False
    found = look(places)
    assert (found.needed, boot.daemon_at_boot()) == (False, ())
    assert "systemd" in found.nobody


def test_one_that_is_masked_stays_so(places):
    os.mkdir(places.units)
    os.symlink("/dev/null", os.path.join(places.units, UNIT))
    found = look(places)
    assert (found.needed, found.state) == (False, NO_UNIT)
    assert "masked" in found.nobody


@pytest.mark.parametrize("uri", ["native:///session", "native:///?root=/srv/x"])
def test_other_pools_than_the_systems_have_none(uri, asked):
    found = look(find_places(uri))
    assert (found.unit, found.needed) == ("", False)
    assert "below a root of their own" in found.nobody


def test_the_systems_pools_have_one():
    places = find_places("native:///system")
    assert (places.units, places.program) == ("/etc/systemd/system", "/var/lib/virt-storage")
