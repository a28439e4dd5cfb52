# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of a volume group: whether there is room for them, and for more of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.volumes import decide_volumes
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, Found, Storage, Usage
from ansible_collections.virt.storage.plugins.module_utils.model.goal import VolumeGoal, VolumesGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool, Source
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume

MIB = 2**20
POOL = Pool("vg", "logical", path="/dev/vg", source=Source(name="vg"))


def group(available, *there):
    storage = Storage(READY, "/dev/vg")
    volumes = {name: Volume(name, 8 * MIB, format="thin-pool", type="block", path=f"/dev/vg/{name}") for name in there}
    return Found(
        "vg", POOL, live=POOL, started=True, active=True, storage=storage, current=storage, volumes=volumes,
        usage=Usage(4096 * MIB, 0, available * MIB), extent=4 * MIB,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("there", "sizes", "available", "fits"),
    [
        ((), (16,), 16, False),
        ((), (16,), 20, False),
        ((), (16,), 24, True),  # its metadata, and as much once more for a repair
        (("t",), (16,), 20, True),
        ((), (16, 16), 44, True),
        ((), (16, 16), 40, False),
        ((), (8192,), 8192 + 16, True),
        ((), (8192,), 8192 + 12, False),
    ],
)
def test_a_thin_pool_takes_more_than_its_size(there, sizes, available, fits):
    """LVM makes none without that room, so that check mode has to know."""
    entries = [VolumeGoal(Volume(f"p{i}", size * MIB, format="thin-pool"), "present") for i, size in enumerate(sizes)]
    decision = decide_volumes(VolumesGoal("vg", tuple(entries)), group(available, *there))
    assert len(decision.changes) == len(sizes)
    assert (decision.refusal is None) is fits
    assert fits or decision.refusal.code == "no_space"


@pytest.mark.parametrize(
    ("hidden", "leftovers", "available", "fits"),
    [
        (0, (), 20, False),
        (4, (), 20, True),  # the room for a repair is there
        (4, (), 16, False),
        (8, ("virt-storage.1",), 16, True),  # what is half made goes first
    ],
)
def test_what_is_left_of_a_task_that_was_ended_takes_no_room_twice(hidden, leftovers, available, fits):
    have = Volume("v", 8 * MIB, allocation=8 * MIB, type="block", path="/dev/vg/v")
    used = Usage(4096 * MIB, (8 + hidden) * MIB, available * MIB)
    found = replace(group(available), volumes={"v": have}, usage=used, leftovers=leftovers)
    entry = VolumeGoal(Volume("p", 16 * MIB, format="thin-pool"), "present")
    assert (decide_volumes(VolumesGoal("vg", (entry,)), found).refusal is None) is fits


@pytest.mark.parametrize(
    ("growing", "made", "fits"),
    [
        ({"a": 72}, {}, True),
        ({"a": 72, "b": 72}, {}, False),
        ({"a": 72, "b": 44}, {}, True),
        ({"a": 72}, {"new": 40}, False),
        ({"a": 72, "b": 4}, {"new": 36}, True),  # what shrinks gives back nothing that is there before
        ({"a": 72, "b": 4}, {"new": 40}, False),
        ({"a": 72, "thin": 1024}, {}, True),
    ],
)
def test_volumes_that_grow_need_room_together(growing, made, fits):
    """LVM takes one after the other, so that check mode has to know that it refuses the last."""
    there = {name: Volume(name, 8 * MIB, type="block", path=f"/dev/vg/{name}") for name in ("a", "b", "thin")}
    there["thin"] = replace(there["thin"], thin_pool="tp")
    sizes = {**growing, **made}
    entries = [VolumeGoal(Volume(n, s * MIB), "present", allow=frozenset({"shrink"})) for n, s in sizes.items()]
    decision = decide_volumes(VolumesGoal("vg", tuple(entries)), replace(group(100), volumes=there))
    assert len(decision.changes) == len(sizes)
    assert (decision.refusal is None) is fits
    assert fits or decision.refusal.code == "no_space"
