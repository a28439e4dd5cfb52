# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which changes a daemon's own calls make just as they are declared."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines.calls import _can_resize
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume


@pytest.mark.parametrize(
    ("format_", "capacity", "allocation", "shrinks", "possible"),
    [
        ("raw", 2**20, 0, False, True),
        ("raw", 1515, 0, False, True),
        ("raw", 1515, 4096, False, False),  # it grows, and is still smaller than its one block
        ("raw", 8192, 4096, True, True),
        ("raw", 2048, 4096, True, False),
        ("qcow2", 2**20, 2**19, False, True),
        ("qcow2", 2**16, 2**18, False, False),
        ("qcow2", 2**20 + 1, 0, False, False),
    ],
)
def test_sizes_that_the_daemon_gives(format_, capacity, allocation, shrinks, possible):
    volume = Volume("v", format=format_, capacity=capacity, allocation=allocation)
    assert _can_resize(volume, shrinks) is possible


def test_what_looks_like_an_image_is_not_resized_by_who_looks():
    assert not _can_resize(Volume("v", format="raw", capacity=2**20, looks_like="qcow2"), False)
