# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers that do not answer: who they are is found out in children, all at once, and nothing of theirs is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import patience
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import Mount
from ansible_collections.virt.storage.plugins.module_utils.host.remote import Servers, is_remote
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


def mount(point, fstype="nfs4", number=40):
    return Mount("/", str(point), fstype, f"nas:{point}", ("rw",), ("rw",), (0, number), number, 1)


@pytest.fixture
def servers(monkeypatch):
    """Those with "dead" in their path do not answer."""
    asked = []

    def answers(path, seconds):
        asked.append(path)
        time.sleep(0.1)
        return None if "dead" in path else os.statvfs("/")

    monkeypatch.setattr(patience, "answers", answers)
    made = Servers(3)
    made.asked = asked
    made.with_mounts = lambda *table: setattr(made, "_table", [mount("/", "ext4", 1), *table])
    return made


@pytest.mark.parametrize("fstype", ["nfs", "nfs4", "cifs", "fuse.glusterfs", "fuse.sshfs", "fuse", "ceph"])
def test_who_may_hang(fstype):
    assert is_remote(fstype)


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "fuseblk", "tmpfs", "btrfs"])
def test_who_does_not(fstype):
    assert not is_remote(fstype)


def test_nothing_is_asked_where_nothing_is_remote(servers):
    servers.with_mounts(mount("/srv", "xfs"))
    assert servers.silent("/srv/a") is None
    assert servers.asked == []


def test_what_does_not_answer_is_found_below_links_and_not_touched(servers, tmp_path, monkeypatch):
    dead = tmp_path / "dead"
    dead.mkdir()
    (tmp_path / "link").symlink_to(dead)
    servers.with_mounts(mount(dead))
    read = os.readlink
    touched = []
    monkeypatch.setattr(os, "readlink", lambda path: touched.append(str(path)) or read(path))
    assert servers.silent(f"{tmp_path}/link/images/a").point == str(dead)
    assert servers.resolved(f"{tmp_path}/link/images/a") == f"{dead}/images/a"
    assert not [path for path in touched if path.startswith(str(dead))]
    with pytest.raises(StorageError) as caught:
        servers.check(str(dead), "pool p")
    assert (caught.value.code, caught.value.subject) == ("deadline", "pool p")


def test_all_are_asked_together_and_once(servers, tmp_path):
    points = [tmp_path / f"dead{number}" for number in range(8)]
    servers.with_mounts(*(mount(point, number=50 + number) for number, point in enumerate(points)))
    begin = time.monotonic()
    assert [servers.silent(str(point)).point for point in points] == [str(point) for point in points]
    assert time.monotonic() - begin < 0.6
    assert sorted(servers.asked) == sorted(map(str, points))


def test_who_answers_is_looked_at(servers, tmp_path):
    (tmp_path / "alive").mkdir()
    (tmp_path / "alive" / "link").symlink_to("there")
    servers.with_mounts(mount(tmp_path / "alive"))
    assert servers.resolved(f"{tmp_path}/alive/link") == f"{tmp_path}/alive/there"


def test_a_child_that_hangs_keeps_no_output_open_and_no_lock():
    """Who waits for the end of a module's output does not wait for it."""
    program = """
        import os, sys, time
        from ansible_collections.virt.storage.plugins.module_utils.host import patience
        patience._SECONDS_TO_DIE = 0
        patience.os.kill = lambda pid, number: None
        print(patience.in_child(lambda: time.sleep(5), 0.1), flush=True)
        os._exit(0)
    """
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "None\n"
    assert time.monotonic() - begin < 4
