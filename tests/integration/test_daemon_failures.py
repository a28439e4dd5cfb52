# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A libvirtd that is not there, hangs, goes away in the middle, or is busy: each is an error of its own in time, and
nothing is taken for absent because of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import daemon_calls

from .test_daemon_types import MIB, code, ok

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.libvirt_binding,
    pytest.mark.xdist_group("daemon"),
]


@pytest.fixture
def pool(daemon_host):
    return {"name": daemon_host.name, "type": "dir", "path": str(daemon_host.images)}


@pytest.fixture
def stopped(daemon_host):
    """Stops the daemon's process when called; it goes on afterwards."""
    pids: list[int] = []

    def stop() -> None:
        pids.append(daemon_host.daemon.pid)
        os.kill(pids[-1], signal.SIGSTOP)

    yield stop
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def before_call(monkeypatch, verb, act):
    """Has ``act`` done right before the first call of that name."""
    call, done = daemon_calls.CALLS[verb], []

    def acting(library, connection, op):
        if not done:
            done.append(act())
        return call(library, connection, op)

    monkeypatch.setitem(daemon_calls.CALLS, verb, acting)


def test_a_daemon_that_is_not_running(daemon_host, pool):
    daemon_host.daemon.stop()
    for check in (True, False):
        assert code(daemon_host.pool(check=check, **pool)) == "daemon_down"
        assert code(daemon_host.volume(check=check, name="v", capacity=1)) == "daemon_down"
    daemon_host.daemon.start()
    ok(daemon_host.pool(**pool))


def test_a_daemon_that_hangs_before_anything_is_done(daemon_host, pool, stopped):
    stopped()
    start = time.monotonic()
    assert code(daemon_host.pool(timeout=1, **pool)) == "deadline"
    assert time.monotonic() - start < 3


def test_a_daemon_that_hangs_in_the_middle(daemon_host, pool, stopped, monkeypatch):
    ok(daemon_host.pool(**pool))
    before_call(monkeypatch, "vol-create", stopped)
    start = time.monotonic()
    failed = daemon_host.volume(timeout=1, name="v", capacity="1MiB")
    assert time.monotonic() - start < 6
    assert failed["error"]["code"] == "deadline", failed["error"]
    assert failed["changed"]  # it does what it was told once it goes on
    assert [step["halfway"] for step in failed["plan"]] == [[f"volume {pool['name']}/v"]], failed["plan"]


_RUN = """
import json, os, signal, sys
from ansible_collections.virt.storage.plugins.module_utils.host import daemon_calls
from ansible_collections.virt.storage.plugins.modules import storage_volume
from ansible.module_utils.testing import patch_module_args
call = daemon_calls.CALLS["vol-create"]
def stopping(*arguments):
    os.kill(int(sys.argv[2]), signal.SIGSTOP)
    return call(*arguments)
daemon_calls.CALLS["vol-create"] = stopping
with patch_module_args(json.loads(sys.argv[1])):
    storage_volume.main()
"""


@pytest.mark.thorough
def test_a_module_ends_though_the_daemon_hangs(daemon_host, pool, stopped):
    """To close a connection that hangs would hang too, also when Python does so at its end."""
    ok(daemon_host.pool(**pool))
    params = {"uri": daemon_host.uri, "pool": daemon_host.name, "name": "v", "capacity": "1MiB", "timeout": 1}
    argv = [sys.executable, "-c", _RUN, json.dumps(params), str(daemon_host.daemon.pid)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, env=environment)
    finally:
        os.kill(daemon_host.daemon.pid, signal.SIGCONT)
    assert json.loads(ended.stdout)["error"]["code"] == "deadline", ended.stderr


@pytest.mark.parametrize("verb", ["pool-define", "pool-build", "pool-start", "pool-autostart"])
def test_a_daemon_that_is_killed_in_the_middle_of_a_pool(daemon_host, pool, monkeypatch, verb):
    before_call(monkeypatch, verb, daemon_host.daemon.kill)
    failed = daemon_host.pool(**pool, autostart=True)
    assert failed["error"]["code"] == "daemon_lost", failed["error"]
    assert failed["error"]["command"]
    daemon_host.daemon.start()
    assert ok(daemon_host.pool(**pool, autostart=True))["pool"]["state"] == "active"
    assert ok(daemon_host.pool(**pool, autostart=True))["plan"] == []


def test_a_daemon_that_is_killed_in_the_middle_of_volumes(daemon_host, pool, monkeypatch):
    ok(daemon_host.pool(**pool, autostart=True))
    before_call(monkeypatch, "vol-create", daemon_host.daemon.kill)
    volumes = [{"name": f"v{number}", "capacity": "1MiB"} for number in range(5)]
    failed = daemon_host.volume(volumes=volumes)
    assert failed["error"]["code"] == "daemon_lost", failed["error"]
    daemon_host.daemon.start()
    ok(daemon_host.volume(volumes=volumes))
    assert ok(daemon_host.volume(volumes=volumes))["plan"] == []
    assert len(daemon_host.volume_info()) == 5


def images_being_made(pid) -> list[int]:
    """The processes of qemu-img that the daemon has started."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace").split()
            if words[1] == "(qemu-img)" and int(words[3]) == pid:
                found.append(int(entry))
    return found


@pytest.fixture
def busy(daemon_host, pool):
    """The pool copies an image for another connection, and stands still at that; goes on when called."""
    import libvirt

    ok(daemon_host.pool(**pool))
    (daemon_host.images / "source").write_bytes(b"\1" * 128 * MIB)
    connection = libvirt.open(daemon_host.uri)
    of = connection.storagePoolLookupByName(daemon_host.name)
    of.refresh(0)
    text = "<volume><name>copy</name><capacity>0</capacity><target><format type='qcow2'/></target></volume>"
    copying = threading.Thread(target=lambda: of.createXMLFrom(text, of.storageVolLookupByName("source"), 0))
    copying.start()
    deadline = time.monotonic() + 20
    while not (pids := images_being_made(daemon_host.daemon.pid)):
        assert time.monotonic() < deadline
    os.kill(pids[0], signal.SIGSTOP)

    def go_on() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGCONT)

    yield go_on
    go_on()
    copying.join(60)
    connection.close()


@pytest.mark.parametrize("what", ["pool", "volume"])
def test_what_is_busy_is_waited_for(daemon_host, pool, busy, what):
    went_on: list[float] = []
    timer = threading.Timer(1, lambda: (went_on.append(time.monotonic()), busy()))
    timer.start()
    if what == "pool":
        ok(daemon_host.pool(**pool, state="inactive"))
    else:
        ok(daemon_host.volume(name="source", state="absent", allow=["in_use"]))
    assert went_on
    timer.join()


def test_what_stays_busy_is_an_error(daemon_host, pool, busy):
    failed = daemon_host.pool(**pool, state="inactive", timeout=1)
    assert code(failed) == "daemon_failed"
    assert "asynchronous jobs" in failed["msg"]
    assert "timeout" in failed["error"]["hint"]


def test_what_takes_longer_than_the_deadline_is_no_error_while_the_daemon_answers(daemon_host, pool, monkeypatch):
    ok(daemon_host.pool(**pool))
    before_call(monkeypatch, "vol-create", lambda: time.sleep(2.5))
    ok(daemon_host.volume(timeout=1, name="v", capacity=MIB))
