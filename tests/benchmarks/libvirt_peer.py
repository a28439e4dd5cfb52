# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peer: a libvirt daemon of our own, with private sockets, definitions and state, that ends with the benchmark."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from harness import POOL, Failed, run

_BACKING = ("--backing-vol", "base.qcow2", "--backing-vol-format", "qcow2")
# $1: how many; the rest: a command that ends where the name of a volume goes.
_LOOP = """
count=$1; shift; i=0
while [ "$i" -lt "$count" ]; do
    "$@" "vm$i" || exit 1
    i=$((i+1))
done
"""


def _private_daemon() -> ModuleType:
    """The tests' own; a script here has the same name."""
    path = Path(__file__).resolve().parents[1] / "integration" / "daemon.py"
    spec = importlib.util.spec_from_file_location("private_daemon", path)
    if spec is None or spec.loader is None:
        raise Failed(f"{path} can't be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


private_daemon = _private_daemon()
missing = private_daemon.missing


class Daemon:
    def __init__(self, uri: str, virsh: list[str]) -> None:
        self.uri = uri
        self.virsh = virsh

    def call(self, *arguments: str) -> str:
        return run([*self.virsh, *arguments])

    def start_pool(self, directory: Path, pool: str = POOL) -> None:
        self.call("pool-create-as", pool, "dir", "--target", str(directory))

    def listing(self, pool: str = POOL) -> None:
        self.call("pool-refresh", pool)
        self.call("vol-list", pool, "--details")

    def create_in_loop(self, count: int, pool: str = POOL, backing: bool = True) -> None:
        """The peer of a task with many volumes: a shell loop of virsh."""
        more = _BACKING if backing else ()
        self._loop(count, "vol-create-as", pool, "--capacity", "20G", "--format", "qcow2", *more, "--name")

    def look_in_loop(self, count: int, pool: str = POOL) -> None:
        """The peer of the same task with nothing to do."""
        self._loop(count, "vol-info", "--pool", pool, "--vol")

    def _loop(self, count: int, *command: str) -> None:
        run(["sh", "-c", _LOOP, "loop", str(count), *self.virsh, *command])


@contextmanager
def daemon(directory: Path) -> Iterator[Daemon]:
    """A daemon that sees nothing of the host's own pools and guests, and that they do not see."""
    peer = private_daemon.Daemon(directory)
    try:
        peer.start()
        yield Daemon(peer.uri, peer.virsh_command)
    except private_daemon.DaemonFailed as why:
        raise Failed(str(why)) from why
    finally:
        peer.close()
