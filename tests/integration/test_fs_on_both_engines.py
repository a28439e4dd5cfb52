# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filesystem pools judged as directories are in test_both_engines.py: random tasks through the native engine and a
private libvirtd, each with a loop device of its own, plan and refuse the same, and check mode says so before.

DECLARATIONS_SEED=N repeats a run: what fails prints its seed, and the tasks so far. FS_SECONDS=N is how long it takes.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time

import pytest

from . import loops
from .conftest import Host
from .crash_support import MIB
from .test_fs_pools import run  # where nothing can be mounted, that leaves these out too

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.libvirt_binding,
    pytest.mark.deadline(300),
    pytest.mark.thorough,
]

SECONDS, LEAST = int(os.environ.get("FS_SECONDS") or 20), 8
OF_ONE = {"build", "delete"}  # steps that the daemon makes as a part of others, or not at all
HOLD = "import os, sys; os.chdir(sys.argv[1]); print('there', flush=True); sys.stdin.read()"


class Side:
    """What one engine works on. ``inside`` is how a command comes to see what it has mounted."""

    def __init__(self, host, top, inside=()):
        self.host, self.top, self.inside, self.holder = host, top, inside, None
        top.mkdir(exist_ok=True)
        (top / "disk").touch()
        os.truncate(top / "disk", 64 * MIB)
        self.device = loops.attach(top / "disk")

    def task(self, check, where, kind, **how):
        source = {"device": self.device, "format": kind}
        return self.host.pool(check, name=self.host.name, type="fs", path=str(self.top / where), source=source, **how)

    def hold(self):
        """A program works where the pool is mounted. It makes no file, which the daemon would not list."""
        (record,) = self.host.pool_info(name=self.host.name)
        argv = [*self.inside, sys.executable, "-c", HOLD, record["path"]]
        self.holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "there\n"

    def let_go(self):
        if self.holder is not None:
            self.holder.communicate()
            self.holder = None

    def told(self):
        """State of the pool, and what the device holds."""
        states = [record["state"] for record in self.host.pool_info(name=self.host.name)]
        return states, run("blkid", "-p", "-o", "value", "-s", "TYPE", self.device, check=False), self.holder is None


def said(result):
    """What of a result both engines have to say alike."""
    if result.get("failed"):
        return result["error"]["code"]
    assert not [text for text in result["warnings"] if "verification" in text], result["warnings"]
    return [entry["action"] for entry in result["plan"] if entry["action"] not in OF_ONE]


@pytest.fixture
def sides(daemon_host, tmp_path):
    top = tmp_path / "native"
    top.mkdir()
    with contextlib.ExitStack() as after:
        inside = ["nsenter", "--mount", "--target", str(daemon_host.daemon.pid)]
        made = [Side(Host(tmp_path / "host"), top), Side(daemon_host, tmp_path / "theirs", inside)]
        for side in made:
            after.callback(loops.detach, side.device)
        after.callback(daemon_host.daemon.remove_pools)
        after.callback(lambda: [run("umount", top / where, check=False) for where in "ab"])
        after.callback(lambda: [side.let_go() for side in made])
        yield made


def a_task(draw):
    """Mostly of what is there; each word is allowed now and then."""
    words = [word for word in ("overwrite", "restart", "nonempty", "in_use") if draw.random() < 0.25]
    state = draw.choices(["active", "inactive", "present", "absent", "deleted"], [4, 3, 1, 1, 2])[0]
    where, kind = draw.choices(["a", "b"], [4, 1])[0], draw.choices(["ext4", "ext2", "auto"], [8, 1, 1])[0]
    return {"where": where, "kind": kind, "state": state, "allow": words}


def test_filesystem_pools(sides):
    seed = int(os.environ.get("DECLARATIONS_SEED") or random.SystemRandom().getrandbits(32))
    draw, story, end = random.Random(seed), [f"DECLARATIONS_SEED={seed}"], time.monotonic() + SECONDS
    for side in sides:
        assert said(side.task(False, "a", "ext4", state="active")) == ["define", "start"]
    while time.monotonic() < end or len(story) <= LEAST:
        if sides[0].told()[0] == ["active"] and draw.random() < 0.4:
            story.append("by hand: hold or let go")
            for side in sides:
                side.hold() if side.holder is None else side.let_go()
        task = a_task(draw)
        if task["state"] == "deleted" and not sides[0].told()[0]:
            continue  # natively what is there shows that nobody deleted it; a daemon leaves the filesystem
        story.append(str(task))
        checked = [said(side.task(True, **task)) for side in sides]
        assert checked[0] == checked[1], story
        if task["state"] != "deleted":  # natively the filesystem goes, too
            assert [said(side.task(False, **task)) for side in sides] == checked, story
        assert sides[0].told() == sides[1].told(), story
