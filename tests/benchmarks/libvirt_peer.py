# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peer: a libvirt daemon of our own, with private sockets, definitions and state, that ends with the benchmark."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import POOL, Failed, run

sys.path.append(str(Path(__file__).resolve().parents[1] / "integration"))
import daemon as private_daemon

missing = private_daemon.missing


class Daemon:
    def __init__(self, virsh: list[str]) -> None:
        self.virsh = virsh

    def call(self, *arguments: str) -> str:
        return run([*self.virsh, *arguments])

    def start_pool(self, directory: Path) -> None:
        self.call("pool-create-as", POOL, "dir", "--target", str(directory))

    def create_in_loop(self, count: int) -> None:
        """The peer of a task with many volumes: a shell loop of virsh."""
        script = (
            'count=$1; shift; i=0; while [ "$i" -lt "$count" ]; do '
            f'"$@" vol-create-as {POOL} "vm$i" 20G --format qcow2 --backing-vol base.qcow2 --backing-vol-format qcow2'
            " || exit 1; i=$((i+1)); done"
        )
        run(["sh", "-c", script, "loop", str(count), *self.virsh])


@contextmanager
def daemon(directory: Path) -> Iterator[Daemon]:
    """A daemon that sees nothing of the host's own pools and guests, and that they do not see."""
    peer = private_daemon.Daemon(directory)
    try:
        peer.start()
        yield Daemon(peer.virsh_command)
    except private_daemon.DaemonFailed as why:
        raise Failed(str(why)) from why
    finally:
        peer.close()
