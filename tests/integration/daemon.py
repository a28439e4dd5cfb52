# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real libvirtd of our own: it sees nothing of the host's pools and guests, and they see nothing of it.

It runs in a mount namespace where libvirt's directories are directories of ours, and listens on a private socket.
All else, such as /tmp, it shares with the host. The benchmarks use it too. On a machine that never had libvirt's
directories it leaves them there, empty: they are what the private ones are mounted on.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

_PRIVATE = ("/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")

# $1: files, $2: sockets, the rest: libvirt's directories. Debian makes the user that its QEMU driver insists on only
# with a package that would start a daemon. The daemon dies with the process that started it.
_START = """
set -e
files=$1 sockets=$2; shift 2
for place in "$@"; do
    mkdir -p "$place" "$files$place"
    mount --bind "$files$place" "$place"
done
grep -q ^libvirt-qemu: /etc/passwd || {
    { cat /etc/passwd; echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin; } > "$sockets/passwd"
    { cat /etc/group; echo libvirt-qemu:x:64055:; } > "$sockets/group"
    mount --bind "$sockets/passwd" /etc/passwd
    mount --bind "$sockets/group" /etc/group
}
exec setpriv --pdeathsig TERM libvirtd -f "$sockets/libvirtd.conf" -p "$sockets/pid"
"""
_TOOLS = {"libvirtd": "libvirt-daemon", "virsh": "libvirt-clients", "unshare": "util-linux", "setpriv": "util-linux"}


class DaemonFailed(Exception):
    """The daemon, or a command of virsh, did not work."""


def missing() -> str:
    """Why there can be no daemon here; empty when there can be one."""
    if os.geteuid() != 0:
        return "needs root"
    gone = [tool for tool in _TOOLS if shutil.which(tool) is None]
    packages = sorted({_TOOLS[tool] for tool in gone})
    return f"{' and '.join(gone)} is not installed (Debian: apt-get install {' '.join(packages)})" if gone else ""


class Daemon:
    """``files`` is the root that a native engine takes for the same pools: ``native:///?root=FILES``."""

    def __init__(self, files: Path) -> None:
        self.files = files
        files.mkdir(parents=True, exist_ok=True)
        self.log = files / "libvirtd.log"
        self._sockets = Path(tempfile.mkdtemp(prefix="libvirtd-", dir="/tmp"))  # the path of a socket is short
        self._socket = self._sockets / "libvirt-sock"
        settings = {"unix_sock_dir": self._sockets, "unix_sock_rw_perms": "0700"}
        settings.update(auth_unix_rw="none", auth_unix_ro="none")
        text = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
        (self._sockets / "libvirtd.conf").write_text(text, encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"qemu:///system?socket={self._socket}"
        self.native_uri = f"native:///?root={files}"
        self.prefix: list[str] = []  # what it is started with, such as into a network

    @property
    def pid(self) -> int:
        """Of the daemon itself: /proc/PID/root shows what it sees."""
        if self._process is None:
            raise DaemonFailed("the daemon does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        if self._process is not None:
            return
        self._socket.unlink(missing_ok=True)
        argv = [*self.prefix, "unshare", "--mount", "--propagation", "slave", "sh", "-c", _START, "libvirtd"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, str(self.files), str(self._sockets), *_PRIVATE],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while not self._listens():
            if self._process is not None and self._process.poll() is not None:
                raise DaemonFailed(f"libvirtd ended: {self._last_words()}")
            if time.monotonic() > deadline:
                raise DaemonFailed(f"libvirtd does not listen: {self._last_words()}")
            time.sleep(0.01)
        try:
            self.virsh("pool-list")
        except DaemonFailed:
            self.uri = f"storage:///system?socket={self._socket}"  # it has no QEMU driver
            self.virsh("pool-list")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self._socket))
            except OSError:
                return False
        return True

    def _last_words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def stop(self) -> None:
        """Orderly; pools stay as they are, as they do when a host's daemon is restarted."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(30)
            self._process = None
            self._mend_links()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
            self._mend_links()

    def _mend_links(self) -> None:
        """The daemon's autostart links name its own /etc/libvirt. Outside they have to lead to the same file, as they
        do on a host; what counts for the daemon is the file too.
        """
        for link in self.files.glob("etc/libvirt/storage/autostart/*.xml"):
            target = os.readlink(link)
            if target.startswith("/etc/libvirt/"):
                link.unlink()
                link.symlink_to(f"{self.files}{target}")

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def virsh_command(self) -> list[str]:
        return ["virsh", "-q", "-c", self.uri]

    def virsh(self, *arguments: str | Path) -> str:
        """Standard output. Raises DaemonFailed."""
        argv = [*self.virsh_command, *map(str, arguments)]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip
        if done.returncode != 0:
            raise DaemonFailed(f"{' '.join(argv)}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def pools(self, *options: str) -> list[str]:
        """Names of the active pools, or of others with ``--all`` or ``--inactive``."""
        return [line.strip() for line in self.virsh("pool-list", "--name", *options).splitlines() if line.strip()]

    def remove_pools(self) -> None:
        """Definitions and state; what the pools hold stays."""
        for name in self.pools():
            self.virsh("pool-destroy", name)
        for name in self.pools("--all"):
            self.virsh("pool-undefine", name)

    def secrets(self) -> list[str]:
        """Uuids of all that it keeps."""
        return [line.split()[0] for line in self.secret("secret-list").splitlines() if line.strip()]

    def remove_secrets(self) -> None:
        for uuid in self.secrets():
            self.secret("secret-undefine", uuid)

    def secret(self, *arguments: str | Path) -> str:
        """A command of virsh about secrets."""
        uri = f"secret:///system?socket={self._socket}"
        argv = ["virsh", "-q", "-c", uri, *map(str, arguments)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout.strip()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)
