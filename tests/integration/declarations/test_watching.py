# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""That the watchers see what they are there to see, with each Python that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .watching import Recorder, but_locks, differences, less_locks, snapshot

RECORDER = Recorder()


def _on_descriptor(path: Path, call: Callable[[int], object]) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        call(descriptor)
    finally:
        os.close(descriptor)


CALLS: dict[str, Callable[[Path], object]] = {
    "open w": lambda f: f.open("w").close(),
    "open a": lambda f: f.open("ab").close(),
    "open r+": lambda f: f.open("r+b").close(),
    "os.open": lambda f: os.close(os.open(f, os.O_WRONLY)),
    "os.open read-write": lambda f: os.close(os.open(f, os.O_RDWR)),
    "creat": lambda f: os.close(os.open(f.with_name("new"), os.O_CREAT | os.O_EXCL, 0o600)),
    "rename": lambda f: f.rename(f.with_name("new")),
    "replace": lambda f: f.replace(f.with_name("new")),
    "link": lambda f: os.link(f, f.with_name("new")),
    "unlink": lambda f: f.unlink(),
    "mkdir": lambda f: f.with_name("new").mkdir(),
    "rmdir": lambda f: f.with_name("empty").rmdir(),
    "symlink": lambda f: f.with_name("new").symlink_to("file"),
    "chmod": lambda f: f.chmod(0o640),
    "fchmod": lambda f: _on_descriptor(f, lambda descriptor: os.fchmod(descriptor, 0o640)),
    "chown": lambda f: os.chown(f, -1, -1),
    "lchown": lambda f: os.chown(f, -1, -1, follow_symlinks=False),
    "fchown": lambda f: _on_descriptor(f, lambda descriptor: os.fchown(descriptor, -1, -1)),
    "truncate": lambda f: os.truncate(f, 1),
    "utime": os.utime,
    "Popen": lambda f: subprocess.run([sys.executable, "-c", ""], check=True),
    "system": lambda f: os.system("true"),
    "spawn": lambda f: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
}
READING: dict[str, Callable[[Path], object]] = {
    "read": lambda f: f.read_text(),
    "os.open": lambda f: os.close(os.open(f, os.O_RDONLY)),
    "stat": lambda f: f.stat(),
    "listdir": lambda f: os.listdir(f.parent),
    "readlink": lambda f: os.readlink(f.with_name("link")),
    "access": lambda f: os.access(f, os.W_OK),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_text("text")
    return tmp_path / "file"


@pytest.mark.parametrize("name", CALLS)
def test_the_recorder_hears_what_changes(file, name):
    with RECORDER.recording() as events:
        CALLS[name](file)
    assert events


@pytest.mark.parametrize("name", READING)
def test_the_recorder_does_not_hear_what_only_looks(file, name):
    with RECORDER.recording() as events:
        READING[name](file)
    assert not events


def test_ftruncate_raises_an_event_of_its_own(file):
    """Beside that of the descriptor's opening."""
    descriptor = os.open(file, os.O_RDWR)
    with RECORDER.recording() as events:
        os.ftruncate(descriptor, 1)
    os.close(descriptor)
    assert [event for event, _unused in events] == ["os.truncate"]


def test_nothing_is_recorded_outside(file):
    with RECORDER.recording() as events:
        pass
    file.unlink()
    assert not events


SEEN: dict[str, Callable[[Path], object]] = {
    "a byte": lambda f: f.write_text("Text"),
    "a zero byte behind the end": lambda f: os.truncate(f, 5),
    "a mode": lambda f: f.chmod(0o640),
    "a time": lambda f: os.utime(f, ns=(1, 1)),
    "another file of the same content": lambda f: (f.rename(f.with_name("new")), f.write_text("text")),
    "a hard link": lambda f: os.link(f, f.with_name("new")),
    "a FIFO, which has no audit event": lambda f: os.mkfifo(f.with_name("new")),
    "where a link points to": lambda f: (f.with_name("link").unlink(), f.with_name("link").symlink_to("empty")),
    "a name less": lambda f: f.with_name("empty").rmdir(),
    "far behind a hole": lambda f: _on_descriptor(f, lambda descriptor: os.pwrite(descriptor, b"x", 1 << 30)),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_snapshot_shows(file, name):
    before = snapshot(file.parent)
    assert not differences(before, snapshot(file.parent))
    SEEN[name](file)
    assert differences(before, snapshot(file.parent))


def test_what_locks_are_excepted_from(tmp_path):
    root = tmp_path / "host"
    before = snapshot(tmp_path)
    with RECORDER.recording() as events:
        (root / "run" / "lock" / "virt-storage").mkdir(parents=True)
        (root / "run" / "lock" / "virt-storage" / "pool-a.lock").write_text("")
    assert not but_locks(events, root)
    assert not less_locks(differences(before, snapshot(tmp_path)), "host")
    before = snapshot(tmp_path)
    with RECORDER.recording() as events:
        (root / "run" / "libvirt").mkdir()
        (root / "run" / "lock" / "other").write_text("")
    assert len(but_locks(events, root)) == 2
    assert set(less_locks(differences(before, snapshot(tmp_path)), "host")) == {
        "host/run/libvirt",
        "host/run/lock/other",
    }
    before = snapshot(tmp_path)
    (root / "run").chmod(0o700)
    assert less_locks(differences(before, snapshot(tmp_path)), "host")
