# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for udev never fails a task; the kernel's partitions follow the table, as partx tells it."""

from __future__ import annotations

import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import udev
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Makes a udevadm or partx that runs a script."""
    control, tools = tmp_path / "control", tmp_path / "tools"
    control.touch()
    tools.mkdir()
    monkeypatch.setattr(udev, "_CONTROL", str(control))
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin:/usr/sbin:/sbin")

    def make(script, name="udevadm"):
        path = tools / name
        path.write_text(f"#!/bin/sh\necho $0 $* >> {tmp_path}/log\n{script}\n")
        path.chmod(0o755)
        return tmp_path / "log"

    return make


@pytest.mark.parametrize(("script", "settled"), [("exit 0", True), ("exit 1", False), ("exec sleep 60", False)])
def test_settling(tool, script, settled):
    log = tool(script)
    start = time.monotonic()
    assert udev.settle(0.5) is settled
    assert time.monotonic() - start < 5
    assert log.read_text().split()[1:] == ["settle", "--timeout=1"]


def test_without_udev_nothing_is_run(tool, tmp_path, monkeypatch):
    log = tool("exit 1")
    (tmp_path / "control").unlink()
    assert udev.settle(5)
    assert not log.exists()
    (tmp_path / "control").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert udev.settle(5)


@pytest.mark.parametrize(
    ("script", "calls"),
    [
        ("case $1 in --raw) printf ' 1\\n 3\\n';; esac", ["delete 2", "delete 7", "update"]),
        ("case $1 in --raw) exit 0;; esac", ["delete 1", "delete 2", "delete 7"]),
        (
            "case $1 in --raw) echo 'partx: /dev/x: failed to read partition table' >&2; exit 1;; esac",
            ["delete 1", "delete 2", "delete 7"],
        ),
    ],
)
def test_the_kernel_follows_the_table(tool, monkeypatch, script, calls):
    monkeypatch.setattr(udev, "_in_kernel", lambda disk: {1, 2, 7})
    log = tool(script, "partx")
    udev.reread("/dev/x", 10)
    done = [line.split(" ", 1)[1] for line in log.read_text().splitlines()][1:]
    assert [line.replace("--", "").replace("nr ", "").replace(" /dev/x", "") for line in done] == calls


@pytest.mark.parametrize("script", ["echo 'partx: /dev/x: Input/output error' >&2; exit 1", "exec sleep 60"])
def test_a_table_that_can_not_be_read_is_no_missing_one(tool, script):
    tool(script, "partx")
    with pytest.raises(StorageError):
        udev.reread("/dev/x", 0.5)


def test_what_udev_was_quicker_with_is_done(tool, monkeypatch):
    """It reads a table anew, too, as soon as somebody has written."""
    log = tool("case $1 in --raw) echo 1;; *) exit 1;; esac", "partx")
    kernel = iter([{2}, set(), {1}])
    monkeypatch.setattr(udev, "_in_kernel", lambda disk: next(kernel))
    udev.reread("/dev/x", 10)
    assert len(log.read_text().splitlines()) == 3


def test_a_partition_that_stays_is_said(tool, monkeypatch):
    tool("case $1 in --raw) echo 1;; *) echo busy >&2; exit 1;; esac", "partx")
    monkeypatch.setattr(udev, "_in_kernel", lambda disk: {1, 2})
    with pytest.raises(StorageError) as caught:
        udev.reread("/dev/x", 10)
    assert caught.value.stderr == "busy"
