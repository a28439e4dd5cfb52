# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A filesystem whose server never answers: what asks it hangs, and we don't."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host.mount_users import users_at, users_of_mount
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import filesystem_of, mount_at, mounts
from ansible_collections.virt.storage.plugins.module_utils.host.patience import answers, watch
from ansible_collections.virt.storage.plugins.module_utils.host.run import run
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

pytestmark = [pytest.mark.root, pytest.mark.deadline(60)]

#: A FUSE filesystem (fuse(4)) that is mounted and answers nothing. With "hello" it answers the very first request and
#: takes the others without a word, so that who waits can't even be killed.
SERVER = """
import ctypes, os, struct, sys, time
point, hello = sys.argv[1], sys.argv[2] == "hello"
device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"dead", os.fsencode(point), b"fuse", 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
if hello:
    (unique,) = struct.unpack_from("<Q", os.read(device, 1 << 17), 8)
    reply = struct.pack("<IIIIHHIIHH32x", 7, 31, 0, 0, 0, 0, 1 << 16, 1, 1, 0)
    os.write(device, struct.pack("<IiQ", 16 + len(reply), 0, unique) + reply)
print("ready", flush=True)
while hello:
    os.read(device, 1 << 17)
time.sleep(60)
"""


@pytest.fixture(params=["silent", "hello"])
def dead(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no FUSE")
    point = tmp_path / "dead"
    point.mkdir()
    words = [sys.executable, "-c", SERVER, str(point), request.param]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield point
        finally:
            server.kill()  # whoever waits is told that it is gone
            subprocess.run(["umount", "--lazy", "--no-canonicalize", "-i", point], check=True)


@contextlib.contextmanager
def no_child_left(at_most: int = 0) -> Iterator[None]:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    before = set(path.read_text().split())
    yield
    assert len(set(path.read_text().split()) - before) <= at_most


def unkillable(request: pytest.FixtureRequest) -> bool:
    return "hello" in request.node.name


def test_it_hangs_indeed(dead: Path, request: pytest.FixtureRequest) -> None:
    with subprocess.Popen(["stat", "-f", dead], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
        if unkillable(request):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            os.kill(server_of(dead), signal.SIGKILL)
        process.wait(10)


def server_of(point: Path) -> int:
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if SERVER.encode() in words and os.fsencode(point) in words:
                return int(entry)
    raise AssertionError("the server is gone")


def test_it_does_not_answer(dead: Path, request: pytest.FixtureRequest) -> None:
    start = time.monotonic()
    with no_child_left(at_most=int(unkillable(request))):
        assert answers(str(dead), 0.5) is None
    assert 0.5 <= time.monotonic() - start < 5


def test_what_hangs_holds_no_lock_and_no_output(dead: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    program = f"""
import fcntl, sys
sys.path[:0] = {sys.path!r}
from {answers.__module__} import answers
held = open({str(lock)!r}, "w")
fcntl.flock(held, fcntl.LOCK_EX)
print(answers({str(dead)!r}, 0.5), flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert ended.stdout == "None\n"
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_command_that_hangs_is_left_behind(dead: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StorageError) as caught:
        run(["stat", "-f", str(dead)], timeout=0.5)
    assert caught.value.code == "deadline"
    assert time.monotonic() - start < 5


def test_looking_at_mounts_and_their_users_asks_no_server(dead: Path) -> None:
    start = time.monotonic()
    mount = mount_at(str(dead), mounts())
    assert mount is not None
    assert (mount.fstype, mount.source) == ("fuse", "dead")
    assert filesystem_of(f"{dead}/x/y", mounts()) == mount
    assert users_of_mount(mount) == ((), ())
    assert users_at(str(dead)) == ((), ())
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("dead", ["silent"], indirect=True)
def test_a_watch_ends_what_hangs(dead: Path) -> None:
    program = f"""
import json, os, sys
sys.path[:0] = {sys.path!r}
from {watch.__module__} import watch
def stuck():
    print(json.dumps({{"failed": True}}), flush=True)
    os._exit(3)
with watch(0.5, stuck):
    os.statvfs({str(dead)!r})
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, json.loads(ended.stdout)) == (3, {"failed": True})
