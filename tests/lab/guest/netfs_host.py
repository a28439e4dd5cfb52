# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Other hosts that share an export: each makes a volume of each name that it is told, and tells what came of it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any, TextIO

from .hosts import Host, run

_NEWNS, _NEWUTS, _NEWNET = 0x00020000, 0x04000000, 0x40000000  # linux/sched.h


class Far:
    """A child of the test in network, mount and UTS namespaces of its own: a network has its own NFS client, which
    knows no other's locks. ``name`` is that of the network's namespace and of the host.
    """

    def __init__(self, name: str, source: dict[str, str], image: Path, top: Path) -> None:
        told, telling = os.pipe()
        heard, hearing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                _keep_only(told, hearing)
                _enter(name)
                with os.fdopen(told, encoding="utf-8") as orders, os.fdopen(hearing, "w", encoding="utf-8") as answers:
                    _serve(Host(f"native:///?root={top}"), source, str(image), orders, answers)
                status = 0
            finally:
                os._exit(status)
        os.close(told)
        os.close(hearing)
        self._orders, self._answers = os.fdopen(telling, "w", encoding="utf-8"), os.fdopen(heard, encoding="utf-8")

    def tell(self, name: str) -> None:
        self._orders.write(f"{name}\n")
        self._orders.flush()

    def answer(self) -> list[Any]:
        line: list[Any] = json.loads(self._answers.readline())
        return line

    def finish(self) -> int:
        """Its exit status, once it has nothing more to do."""
        self._orders.close()
        self._answers.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def _keep_only(*descriptors: int) -> None:
    """Without those of other children, who would wait for the end of their orders."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in descriptors:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _enter(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}", encoding="utf-8") as network:
        if libc.setns(network.fileno(), _NEWNET) or libc.unshare(_NEWNS | _NEWUTS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    run("mount", "--make-rprivate", "/")
    socket.sethostname(name)


def _serve(host: Host, source: dict[str, str], image: str, orders: TextIO, answers: TextIO) -> None:
    started = host.pool(name="shared", type="netfs", path="/srv/pool", source=source)
    print(json.dumps([started["changed"], started.get("msg", "")]), file=answers, flush=True)
    for line in orders:
        made = host.volume(pool="shared", name=line.strip(), source={"path": image, "format": "raw"}, format="raw")
        print(json.dumps([made["changed"], made.get("error", {}).get("code", "")]), file=answers, flush=True)
    host.pool(name="shared", state="absent")
