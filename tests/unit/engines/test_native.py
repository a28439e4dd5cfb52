# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The other pools of a host without a daemon, by their files."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines.native import NativeEngine
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import render_definition, render_state
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool

HERE, THERE = (Pool("o", "dir", "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10", path) for path in ("/here", "/there"))


@pytest.fixture
def files(tmp_path):
    """Writes what pool o is defined as, and what it was started as."""
    folders = tmp_path / "etc/libvirt/storage", tmp_path / "run/libvirt/storage"

    def write(definition, state):
        for folder, text in zip(folders, (definition, state)):
            folder.mkdir(parents=True)
            if text is not None:
                (folder / "o.xml").write_text(text)
        return tmp_path

    return write


def others(root):
    engine = NativeEngine(find_places(f"native:///?root={root}"), 5)
    found = engine.observe(Scope(Pool("p", "dir", path="/p"), volumes=(), neighbours=True))
    return [(each.pool.path, each.started) for each in found.neighbours], found.unread


@pytest.mark.parametrize(
    ("definition", "state", "expected"),
    [
        pytest.param(HERE, None, [("/here", False)], id="defined"),
        pytest.param(HERE, HERE, [("/here", True)], id="runs as defined"),
        pytest.param(None, HERE, [("/here", True)], id="transient"),
        pytest.param(THERE, HERE, [("/here", True), ("/there", False)], id="defined elsewhere since it was started"),
    ],
)
def test_another_pool_has_the_place_where_it_runs_and_the_one_where_it_will(files, definition, state, expected):
    root = files(definition and render_definition(definition, None), state and render_state(state, None))
    assert others(root) == (expected, ())


def test_a_state_that_can_not_be_read_hides_no_definition(files):
    told, (unread,) = others(files(render_definition(HERE, None), "<pool"))
    assert (told, unread.startswith("o (")) == ([("/here", True)], True)
