# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a device holds; files stand for devices, which blkid reads alike."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import devices, signatures
from ansible_collections.virt.storage.plugins.module_utils.host.users import held
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import BLANK, DATA, NOT_THERE, UNREADABLE

MIB = 2**20
pytestmark = pytest.mark.skipif(shutil.which("blkid") is None, reason="blkid is not installed")


@pytest.fixture
def device(tmp_path):
    path = tmp_path / "device"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    return path


def content(path):
    return devices.content_of(str(path), 10)


@pytest.mark.parametrize("place", [0, MIB - 1, 15 * MIB, 16 * MIB - 1])
def test_data_at_either_end(device, place):
    assert content(device) == BLANK
    with device.open("r+b") as file:
        file.seek(place)
        file.write(b"\1")
    assert content(device) == DATA


def test_signatures(device):
    subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
    assert content(device) == "ext4"
    with device.open("r+b") as file:
        file.write(b"\0" * 1080 + b"\0" * 8)
    assert content(device) == DATA


def test_partition_tables(device):
    partition = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\3\0", 2048, 2048)  # one of Linux, from 1 MiB on
    with device.open("r+b") as file:
        file.seek(446)
        file.write(partition + b"\0" * 48 + b"\x55\xaa")
    assert content(device) == "dos"


def test_small_devices(tmp_path):
    for size, data in ((0, b""), (512, b"\0" * 512)):
        (tmp_path / f"d{size}").write_bytes(data)
        assert content(tmp_path / f"d{size}") == BLANK
    (tmp_path / "d").write_bytes(b"x")
    assert content(tmp_path / "d") == DATA


def test_what_cannot_be_told(device, tmp_path, monkeypatch):
    assert content(tmp_path / "none") == UNREADABLE + NOT_THERE
    assert content(tmp_path).startswith(UNREADABLE)
    os.mkfifo(tmp_path / "fifo")
    assert content(tmp_path / "fifo").startswith(UNREADABLE)

    def ends(rc):
        def run(*arguments, **more):
            raise StorageError("command_failed", "blkid failed", rc=rc)

        return run

    monkeypatch.setattr(signatures, "run", ends(4))
    assert content(device) == f"{UNREADABLE}blkid failed"
    monkeypatch.setattr(signatures, "run", ends(8))
    assert content(device) == "several signatures"


def test_what_is_no_device_is_not_held(device, tmp_path):
    assert not held(str(device))
    assert not held(str(tmp_path / "none"))
