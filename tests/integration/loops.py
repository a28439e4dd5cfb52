# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Loop devices for tests, many processes of which make them at once: a number that one gives up is the next one's."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import time
from collections.abc import Iterator

CONTROL = "/dev/loop-control"

_attached: set[str] = set()


def _losetup(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["losetup", *map(str, words)], check=check, capture_output=True, text=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other test is given a loop device meanwhile."""
    with open(CONTROL, "rb") as control:
        fcntl.flock(control, fcntl.LOCK_EX)
        yield


def attach(file: object, *options: object) -> str:
    """Return the device that has the file now."""
    with alone():
        node = _losetup("--find", "--show", *options, file).stdout.strip()
    _attached.add(node)
    return node


def detach(node: str) -> None:
    """Of a device that was given up already, nothing: it may be another test's by now."""
    if node in _attached:
        _attached.discard(node)
        _losetup("--detach", node)


@contextlib.contextmanager
def detached(node: str) -> Iterator[None]:
    """The device has no file, also for those who looked into it, such as blkid; and nobody else gives it one."""
    with alone():
        while _losetup(node, check=False).returncode == 0:
            _losetup("--detach", node, check=False)
            time.sleep(0.05)
        _attached.discard(node)
        yield


def attach_anew(node: str, file: object, *options: object) -> None:
    """Give the device this file instead."""
    with detached(node):
        _losetup(*options, node, file)
        _attached.add(node)
