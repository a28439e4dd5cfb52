# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Multipath maps in a made-up sysfs: which ones are volumes, and by which names."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import mpath as backend
from ansible_collections.virt.storage.plugins.module_utils.backends import mpath_sources
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.model.discovery import Query
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, Found, Usage
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool

from .scsi_tree import MIB, Tree

POOL = Pool("maps", "mpath", path="/dev/mapper")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    made = Tree(tmp_path, monkeypatch)
    made.host(2)
    for unit in range(2):
        made.unit(f"2:0:{unit}:0")
    made.map(7, "mpatha", "sdb", "sdc", size=4 * MIB)
    made.map(3, "3600140500a1b2c3d4", size=MIB)
    made.map(1, "mpatha-part1", uuid="part1-mpath-3mpatha")
    made.map(2, "vg-lv", uuid="LVM-abc")
    return made


def look():
    return Look(10, "/nowhere/records", "/nowhere/started")


def observed(volumes=None):
    return backend.observe_volumes(Found("maps", definition=POOL), Scope(POOL, volumes=volumes), look())


def test_all_maps_are_volumes_by_the_names_that_stay(tree):
    found = observed()
    assert list(found.volumes) == ["3600140500a1b2c3d4", "mpatha"]
    assert found.usage == Usage(5 * MIB, 5 * MIB, 0)
    volume = found.volumes["mpatha"]
    assert (volume.type, volume.path, volume.key) == ("block", "/dev/mapper/mpatha", "/dev/mapper/mpatha")
    assert (volume.capacity, volume.allocation, volume.physical) == (4 * MIB, 4 * MIB, 4 * MIB)
    assert "mpath-3mpatha" in volume.identity


def test_only_those_that_are_asked_for(tree):
    found = observed(volumes=("mpatha", "mpathz", "vg-lv"))
    assert list(found.volumes) == ["mpatha"]
    assert found.usage.capacity == 5 * MIB


def test_who_asks_by_the_number_is_told_the_name(tree):
    (volume,) = observed(volumes=("dm-7",)).volumes.values()
    assert (volume.name, volume.path) == ("dm-7", "/dev/mapper/mpatha")
    assert volume.foreign == "the name that mpatha has until the next boot"


def test_one_without_a_size_is_told(tree):
    tree.map(9, "mpathb", size=0)
    volumes = observed().volumes
    assert volumes["mpathb"].problem
    assert not volumes["mpatha"].problem


def test_a_host_without_any(tmp_path, monkeypatch):
    Tree(tmp_path, monkeypatch)
    storage = backend.observe(POOL, look(), False)
    assert (storage.kind, storage.up, storage.bring_up, storage.take_down) == (READY, True, "", "")
    assert (observed().volumes, observed().usage) == ({}, Usage(0, 0, 0))


def test_what_is_found(tree):
    found = mpath_sources.find(Query("mpath"), look()).sources
    assert [(each.path, each.size, each.uuid, each.kind) for each in found] == [
        ("/dev/mapper/3600140500a1b2c3d4", MIB, "33600140500a1b2c3d4", "dm"),
        ("/dev/mapper/mpatha", 4 * MIB, "3mpatha", "dm"),
    ]
    assert [each.source.devices[0].path for each in found] == [each.path for each in found]
