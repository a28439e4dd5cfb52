# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and numbers of partitions, as the kernel and parted give them."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.partitions import (
    daemon_deletes,
    disk_of,
    expected_number,
    number_of,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool, Source, SourceDevice


def on(device, label=None):
    return Pool("p", "disk", path="/dev", source=Source(devices=(SourceDevice(device),), format=label))


@pytest.mark.parametrize(
    ("device", "name", "number"),
    [
        ("/dev/sda", "sda1", 1),
        ("/dev/sda", "sda12", 12),
        ("/dev/sda", "sdb1", None),
        ("/dev/sda", "sda", None),
        ("/dev/sda", "sdaa1", None),
        ("/dev/nvme0n1", "nvme0n1p2", 2),
        ("/dev/nvme0n1", "nvme0n12", None),
        ("/dev/loop0", "loop0p1", 1),
        ("/dev/mapper/mpatha", "mpatha3", 3),
        ("/dev/disk/by-id/x", "anything4", 4),
        ("/dev/disk/by-id/x", "anything", None),
    ],
)
def test_the_number_in_a_name(device, name, number):
    assert number_of(name, on(device), {}) == number


def test_a_link_to_a_disk():
    assert number_of("sda1", on("/dev/disk/by-id/x"), {"/dev/disk/by-id/x": "/dev/sda"}) == 1
    assert number_of("sdb1", on("/dev/disk/by-id/x"), {"/dev/disk/by-id/x": "/dev/sda"}) is None


@pytest.mark.parametrize(
    ("label", "names", "extended", "number"),
    [
        ("gpt", [], False, 1),
        ("gpt", ["sda1", "sda2"], False, 3),
        ("gpt", ["sda1", "sda3"], False, 2),
        ("gpt", [f"sda{number}" for number in range(1, 8)], False, 8),
        ("dos", ["sda1"], True, 2),
        (None, ["sda1", "sda2", "sda3", "sda4"], False, 5),
        ("unknown", ["sda1", "sda2", "sda3", "sda4", "sda5"], False, 6),
        ("dos", ["sda1", "sda2", "sda3", "sda4"], True, None),
    ],
)
def test_the_next_number(label, names, extended, number):
    assert expected_number(on("/dev/sda", label), names, extended) == number


@pytest.mark.parametrize(
    ("device", "can"),
    [
        ("/dev/sda", True),
        ("/dev/vdb", True),
        ("/dev/nvme0n1", False),
        ("/dev/loop0", False),
        ("/dev/mapper/mpatha", True),
        ("/dev/disk/by-id/x", False),
    ],
)
def test_what_the_daemon_can_delete(device, can):
    assert daemon_deletes(on(device)) == can


def test_no_disk():
    assert disk_of(Pool("p", "disk")) == ""
