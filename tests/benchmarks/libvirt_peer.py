# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peer: a libvirt daemon of our own, with private sockets, definitions and state, that ends with the benchmark."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import POOL, Failed, run

_PRIVATE = ("/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")


def missing() -> str:
    """Why there is no peer here; empty when there is one."""
    for tool in ("virsh", "libvirtd", "unshare"):
        if not shutil.which(tool):
            return f"{tool} is not installed (Debian: apt-get install libvirt-daemon-system libvirt-clients util-linux)"
    return "" if os.geteuid() == 0 else "a private libvirt daemon needs root"


class Daemon:
    def __init__(self, uri: str) -> None:
        self.virsh = ["virsh", "-q", "-c", uri]

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
    directory.mkdir()
    binds = []
    for index, hidden in enumerate(_PRIVATE):
        if os.path.isdir(hidden):
            (directory / str(index)).mkdir()
            binds.append(f"mount --bind '{directory / str(index)}' {hidden} && ")
    settings = directory / "libvirtd.conf"
    settings.write_text(
        f'unix_sock_dir = "{directory}"\nunix_sock_rw_perms = "0700"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n',
        encoding="utf-8",
    )
    command = "".join(binds) + f"exec libvirtd -f '{settings}' -p '{directory / 'pid'}'"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    peer = Daemon(f"storage:///system?socket={directory / 'libvirt-sock'}")
    try:
        _wait(peer, process, directory)
        yield peer
    finally:
        process.terminate()
        process.wait(30)


def _wait(peer: Daemon, process: subprocess.Popen, directory: Path) -> None:
    for _attempt in range(200):
        if process.poll() is not None:
            break
        if (directory / "libvirt-sock").exists():
            try:
                peer.call("pool-list")
                return
            except Failed:
                pass
        time.sleep(0.1)
    raise Failed(f"libvirtd does not answer: {(directory / 'log').read_text(errors='replace')[-2000:]}")
