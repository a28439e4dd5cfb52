# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that are, or lie on, the volumes of guests: a tree like that of sysfs stands for it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import nested

#: Device: (uuid of device-mapper, the disk of a partition, what it lies on).
DEVICES = {
    "sda": ("", "", ()),
    "sda1": ("", "sda", ()),
    "loop3": ("", "", ()),
    "loop3p1": ("", "loop3", ()),
    "nbd0": ("", "", ()),
    "zd16": ("", "", ()),
    "dm-0": ("LVM-abc", "", ("sda1",)),
    "dm-1": ("CRYPT-LUKS2-abc", "", ("sda",)),
    "dm-2": ("CRYPT-LUKS2-def", "", ("dm-0",)),
    "dm-3": ("part1-LVM-abc", "", ("dm-0",)),
    "dm-4": ("mpath-abc", "", ("sda",)),
    "md0": ("", "", ("sda", "loop3")),
    "md1": ("", "", ("sda1",)),
}


@pytest.fixture
def sysfs(tmp_path, monkeypatch):
    """Gives what to look at: the path of a device, whose number is its place in the table."""
    root = tmp_path / "sys"
    (root / "dev" / "block").mkdir(parents=True)

    def place(name):
        disk = DEVICES[name][1]
        return root / "devices" / disk / name if disk else root / "devices" / name

    for number, (name, (uuid, disk, below)) in enumerate(DEVICES.items()):
        place(name).mkdir(parents=True, exist_ok=True)
        (root / "dev" / "block" / f"8:{number}").symlink_to(place(name))
        (place(name) / "slaves").mkdir()
        if uuid:
            (place(name) / "dm").mkdir()
            (place(name) / "dm" / "uuid").write_text(f"{uuid}\n")
        if disk:
            (place(name) / "partition").write_text("1\n")
        for other in below:
            (place(name) / "slaves" / other).symlink_to(place(other))
    numbers = {f"/nodev/{name}": os.makedev(8, number) for number, name in enumerate(DEVICES)}
    real = os.stat
    monkeypatch.setattr(
        nested.os,
        "stat",
        lambda path, **more: SimpleNamespace(st_rdev=numbers[path]) if path in numbers else real(path, **more),
    )
    return str(root)


@pytest.mark.parametrize(
    ("name", "of_guests"),
    [
        ("sda", False),
        ("sda1", False),
        ("dm-1", False),
        ("dm-4", False),
        ("md1", False),
        ("loop3", True),
        ("loop3p1", True),
        ("nbd0", True),
        ("zd16", True),
        ("dm-0", True),
        ("dm-2", True),
        ("dm-3", True),
        ("md0", True),
    ],
)
def test_volumes_of_guests(sysfs, name, of_guests):
    assert nested.holds_guests(f"/nodev/{name}", sysfs) is of_guests


def test_what_is_not_there(sysfs):
    assert nested.holds_guests("/nodev/sdz", sysfs) is False
