# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who has a file open to keep it, and who only looks into it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import processes
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import Mount
from ansible_collections.virt.storage.plugins.module_utils.host.processes import Processes

OPENER = "import os, sys, time; os.open(sys.argv[1], int(sys.argv[2])); print(); sys.stdout.flush(); time.sleep(60)"


@pytest.fixture
def opener(tmp_path):
    children = []

    def start(flags):
        file = tmp_path / f"file{len(children)}"
        file.touch()
        child = subprocess.Popen(
            [sys.executable, "-c", OPENER, str(file), str(flags)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        child.stdout.readline()
        children.append(child)
        return child, str(file)

    yield start
    for child in children:
        child.kill()
        child.communicate()


def listed(path):
    processes = Processes()
    return processes, [file for file in processes.files() if file.shown == path]


def test_who_has_let_go_is_not_waited_for(opener):
    child, path = opener(2)
    processes, files = listed(path)
    child.kill()
    child.wait()
    started = time.monotonic()
    assert len(files) == 1
    assert processes.lasting(files) == []
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("flags", [0, 2])
def test_who_keeps_it_open_lasts(opener, flags):
    _child, path = opener(flags)
    processes, files = listed(path)
    assert processes.lasting(files) == files
    started = time.monotonic()
    assert processes.lasting(files) == files  # the list is old by now
    assert time.monotonic() - started < 1


def test_who_has_long_had_it_for_writing_is_not_waited_for(opener):
    _child, path = opener(2)
    time.sleep(2.1)
    processes, files = listed(path)
    started = time.monotonic()
    assert processes.lasting(files) == files
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("option", "may", "hidden"),
    [
        ("rw", False, False),
        ("hidepid=1", False, False),  # listed, and then nobody may look at them
        ("hidepid=2", False, True),
        ("hidepid=invisible", False, True),
        ("hidepid=ptraceable", False, True),
        ("hidepid=invisible", True, False),
    ],
)
def test_processes_that_are_not_listed_are_not_seen(monkeypatch, option, may, hidden):
    proc = Mount("/", "/proc", "proc", "proc", ("rw",), ("rw", option), (0, 21), 22, 27)
    monkeypatch.setattr(processes, "mounts", lambda: [proc])
    monkeypatch.setattr(processes, "_may_look_at_all", lambda: may)
    looked = Processes()
    monkeypatch.setattr(looked, "pids", list)
    assert looked.files() == []
    assert bool(looked.unseen) is hidden


@pytest.mark.parametrize(
    ("pid", "may", "there", "hidden"),
    [
        ("7", True, True, True),
        ("7", True, False, False),  # it has ended
        ("1", True, True, False),
        ("1", False, True, True),
    ],
)
def test_descriptors_that_are_listed_and_may_not_be_read(monkeypatch, pid, may, there, hidden):
    """As root without CAP_SYS_PTRACE has it, such as in a container (proc_pid_fd(5))."""

    def denied(link):
        raise PermissionError(13, "Permission denied", link)

    looked = Processes()
    monkeypatch.setattr(looked, "pids", lambda: [pid])
    monkeypatch.setattr(processes, "_may_look_at_all", lambda: may)
    monkeypatch.setattr(processes.os, "listdir", lambda path: ["0"])
    monkeypatch.setattr(processes.os.path, "exists", lambda path: there)
    monkeypatch.setattr(processes.os, "readlink", denied)
    assert looked.files() == []
    assert bool(looked.unseen) is hidden


def test_who_may_look_at_all():
    told = Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(told.partition("CapEff:")[2].split()[0], 16)
    assert processes._may_look_at_all() is bool(effective >> 19 & 1)
