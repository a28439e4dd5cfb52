# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""System calls that may never come back, as on a server, a FUSE process or a device that is dead: such a call can't be
interrupted from within, so that it is made by a child that can be left behind, or watched by a thread.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Callable

from ..model.errors import StorageError

_SECONDS_TO_DIE = 0.5
_FAILED = "Run the task again; see whether the host has memory left."
_POLL_SECONDS = 0.01


def answers(path: str, seconds: float) -> os.statvfs_result | OSError | None:
    """statvfs(3) of a path, which asks the filesystem itself. None where it does not answer in time."""
    try:
        answer = in_child(lambda: _statvfs(path), seconds)
    except StorageError as error:
        return OSError(errno.EIO, error.message, path)
    if answer is None:
        return None
    if "errno" in answer:
        return OSError(answer["errno"], os.strerror(answer["errno"]), path)
    return os.statvfs_result(answer["statvfs"])


def _statvfs(path: str) -> dict[str, Any]:
    try:
        return {"statvfs": list(os.statvfs(path))}
    except OSError as error:
        return {"errno": error.errno}


def in_child(function: Callable[[], Any], seconds: float) -> Any:
    """What a function returns in a child process, as far as JSON can say it; None where it takes longer. It may only
    look: the child is killed when its time is over. Raises ``operation_failed`` where the child fails or dies, which is
    no matter of time.
    """
    import json

    deadline = time.monotonic() + seconds
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child makes no use of what other threads may hold
        child = os.fork()
    if child == 0:
        status = 1
        try:
            _leave(writer, seconds)
            _write(writer, _told(function))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    data = None
    try:
        data = _read_until(reader, deadline)
    finally:
        os.close(reader)
        _end(child, data is not None)
    if data is None:
        return None
    try:
        told = json.loads(data)
    except ValueError:  # it came to its end before its answer, or in the middle of it
        if time.monotonic() >= deadline:  # by its own alarm, which rang before this process had its turn again
            return None
        told = {"failed": "the process that looked was ended"}
    if "failed" in told:
        raise StorageError("operation_failed", f"looking failed: {told['failed']}", subject="this host", hint=_FAILED)
    return told["answer"]


def _told(function: Callable[[], Any]) -> bytes:
    import json

    try:
        return json.dumps({"answer": function()}).encode()
    except Exception as error:  # whatever it is, it is told
        return json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode()


def _leave(descriptor: int, seconds: float) -> None:
    """Keeps nothing of its parent's: locks would be held by a child that hangs, and whoever reads the output of the
    parent would wait for its end. It ends by itself where the parent is gone before.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, descriptor):
            with suppress(OSError):
                os.close(int(name))
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + _SECONDS_TO_DIE)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read_until(descriptor: int, deadline: float) -> bytes | None:
    """All that is written; None when it does not end in time."""
    data = b""
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        more = os.read(descriptor, 1 << 16)
        if not more:
            return data
        data += more
    return None


def _end(child: int, finished: bool) -> None:
    """Waits for its end, but not for long: what has answered may take its time on a busy machine, and one that hangs in
    the kernel dies when that lets it, and is init's then.
    """
    if not finished:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + _SECONDS_TO_DIE
    while True:
        try:
            ended = os.waitpid(child, os.WNOHANG)[0]
        except ChildProcessError:  # somebody else waited for it
            return
        if ended or time.monotonic() >= deadline:
            return
        time.sleep(_POLL_SECONDS)


@contextmanager
def watch(seconds: float, stuck: Callable[[], None]) -> Iterator[None]:
    """Calls ``stuck`` from a thread of its own when what is done here takes longer. For a call that hangs for good it
    is to say so and end the process (os._exit): nothing else gets it out. That ends a wait for a server (NFS, FUSE),
    but none for a disk, which the kernel does not break off: see in_child.
    """
    done = threading.Event()

    def wait() -> None:
        if not done.wait(seconds):
            stuck()

    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        done.set()
