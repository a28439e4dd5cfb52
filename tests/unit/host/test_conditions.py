# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must still hold of a device that is to be taken: where that can't be told, it does not."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import block, conditions, device_users, udev
from ansible_collections.virt.storage.plugins.module_utils.model.change import Condition
from ansible_collections.virt.storage.plugins.module_utils.model.found import User

MOUNT, BLIND = User("mount", "/mnt"), "whether the kernel uses /dev/sdx, which does not answer"


@pytest.mark.parametrize(
    ("users", "unseen", "expected"),
    [
        ((), (), ""),
        ((MOUNT,), (), "was taken into use by mount /mnt"),
        ((), (BLIND,), f"could not be checked for users ({BLIND})"),
        ((MOUNT,), (BLIND,), "was taken into use by mount /mnt"),
    ],
)
def test_a_device_is_unused_only_where_all_could_be_looked_at(monkeypatch, users, unseen, expected):
    monkeypatch.setattr(device_users, "users_of_path", lambda path, processes, seconds: (users, unseen))
    assert conditions.Checks(1).broken(conditions.device_unused("/dev/sdx")) == expected


def test_known_users_do_not_count_and_do_not_hide_what_is_not_seen(monkeypatch):
    condition = conditions.device_unused("/dev/sdx", (MOUNT,))
    for unseen, what in (((), ""), ((BLIND,), f"could not be checked for users ({BLIND})")):
        monkeypatch.setattr(device_users, "users_of_path", lambda path, processes, seconds, u=unseen: ((MOUNT,), u))
        assert conditions.Checks(1).broken(condition) == what


SIZE = 1 << 20
LINK = "/dev/vg/volume"


class Node:
    identity = (253, 3, SIZE, 0, "", "", "", "LVM-volume")


@pytest.mark.parametrize(
    ("away_for", "expected", "what", "settled"),
    [
        (0, Node.identity, "", 0),
        (0, (253, 3, 2 * SIZE, *Node.identity[3:]), f"was replaced (size {SIZE}, not {2 * SIZE})", 1),
        (0, (), "was replaced (it was not there)", 0),
        (1, Node.identity, "", 1),
        (2, Node.identity, "went away", 1),
        (2, (), "", 0),
    ],
)
def test_a_link_that_udev_makes_anew_is_waited_for(monkeypatch, away_for, expected, what, settled):
    looks, waits = [], []

    def device_at(path):
        looks.append(path)
        if len(looks) <= away_for:
            raise block.source_missing(path)
        return Node

    for module in (conditions, udev):
        monkeypatch.setattr(module, "device_at", device_at)
    monkeypatch.setattr(udev, "settle", waits.append)
    assert conditions.Checks(7).broken(Condition("device", LINK, expected)) == what
    assert waits == [7] * settled
