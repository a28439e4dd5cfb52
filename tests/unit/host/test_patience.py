# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Children that answer, fail or hang, and the watch; for a dead server see the integration tests."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import patience
from ansible_collections.virt.storage.plugins.module_utils.host.patience import answers, in_child, watch
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


def children():
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@pytest.fixture(autouse=True)
def _no_child_left():
    before = children()
    yield
    assert children() <= before


def test_what_answers(tmp_path):
    found = answers(str(tmp_path), 10)
    assert (found.f_bsize, found.f_blocks) == (os.statvfs(tmp_path).f_bsize, os.statvfs(tmp_path).f_blocks)


def test_an_error_is_an_answer(tmp_path):
    found = answers(str(tmp_path / "none"), 10)
    assert isinstance(found, FileNotFoundError)
    assert (found.errno, found.filename) == (errno.ENOENT, str(tmp_path / "none"))


def test_what_does_not_answer():
    start = time.monotonic()
    assert in_child(lambda: time.sleep(60), 0.5) is None
    assert time.monotonic() - start < 5


def test_what_does_not_answer_while_this_process_has_no_turn(monkeypatch):
    """The child ends by its own alarm then, which is a matter of time too."""
    read = patience._read_until
    monkeypatch.setattr(patience, "_SECONDS_TO_DIE", 0.1)
    monkeypatch.setattr(patience, "_read_until", lambda *given: [time.sleep(0.6), read(*given)][1])
    assert in_child(lambda: time.sleep(60), 0.1) is None


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: os._exit(0), "was ended"),
        (lambda: os.kill(os.getpid(), 9), "was ended"),
        (object, "TypeError"),
    ],
    ids=["fails", "ends", "dies", "no JSON"],
)
def test_what_fails_is_not_taken_for_slow(function, why):
    with pytest.raises(StorageError, match=why) as caught:
        in_child(function, 30)
    assert caught.value.code == "operation_failed"


def test_a_mount_of_which_the_look_fails_does_answer(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "statvfs", lambda path: 1 / 0)
    assert "ZeroDivisionError" in answers(str(tmp_path), 30).strerror


def test_one_that_can_not_be_told_to_end():
    def stubborn():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    assert in_child(stubborn, 0.2) is None


def test_a_long_answer():
    assert in_child(lambda: ["x" * 1000] * 1000, 10) == ["x" * 1000] * 1000


def test_a_child_has_nothing_of_ours(capfd, tmp_path):
    kept = os.open(tmp_path, os.O_RDONLY)
    try:
        assert in_child(lambda: [os.write(1, b"said"), len(os.listdir("/proc/self/fd"))][1], 10) <= 5
        os.fstat(kept)
    finally:
        os.close(kept)
    assert capfd.readouterr().out == ""


def test_a_child_while_threads_run():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert in_child(lambda: 7, 10) == 7
    finally:
        done.set()
        thread.join()


def test_the_watch():
    called = []
    with watch(0.1, lambda: called.append(1)):
        time.sleep(0.5)
    assert called == [1]
    with watch(0.3, lambda: called.append(2)):
        pass
    with pytest.raises(ZeroDivisionError), watch(0.3, lambda: called.append(3)):
        raise ZeroDivisionError
    time.sleep(0.5)
    assert called == [1]
