# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task says of each volume that it declares."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.converge import Result
from ansible_collections.virt.storage.plugins.module_utils.decide.decision import Decision
from ansible_collections.virt.storage.plugins.module_utils.model.change import Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import Found
from ansible_collections.virt.storage.plugins.module_utils.model.goal import VolumeGoal, VolumesGoal
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume
from ansible_collections.virt.storage.plugins.module_utils.tasks import volume

pytestmark = pytest.mark.needs_ansible

GOAL = VolumesGoal("p", tuple(VolumeGoal(Volume(name)) for name in ("a", "b", "c")))


@pytest.mark.parametrize(
    ("subject", "changed", "expected"),
    [
        pytest.param("volume p/b", "", ("skipped", "failed", "skipped"), id="one is bad"),
        pytest.param("pool p", "", ("skipped", "skipped", "skipped"), id="the pool is not there"),
        pytest.param("pool p", "ac", ("skipped", "ok", "skipped"), id="decided, and no space for it"),
        pytest.param("volume p/b", "bc", ("ok", "failed", "skipped"), id="decided, and one can't be made"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_what_becomes_of_each_volume_of_a_refused_task(check, subject, changed, expected):
    refusal, found = StorageError("c", "m", subject=subject), Found("p")
    changes = tuple(Change(Subject("p", name), "create", name, after={}) for name in changed)
    result = Result(found, found, Decision(changes, refusal=refusal), (), error=refusal)
    entries = volume._entries(GOAL, result, check)
    assert tuple(entry["status"] for entry in entries) == expected
    assert [entry.get("error") for entry in entries] == [
        None if status == "ok" else refusal.as_dict() for status in expected
    ]
    assert volume._message(entries, result) == ""
