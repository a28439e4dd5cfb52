# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""iSCSI targets in user space: a real tgtd, which serves files on the loopback device."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_TOOLS = {"tgtd": "tgt", "tgtadm": "tgt", "iscsi-ls": "libiscsi-bin"}
_controls = itertools.count(1)


def missing() -> str:
    """Why there can be none here; empty when there can be."""
    if os.geteuid() != 0:
        return "needs root"
    gone = [tool for tool in _TOOLS if shutil.which(tool) is None]
    packages = " ".join(sorted({_TOOLS[tool] for tool in gone}))
    return f"{' and '.join(gone)} is not installed (Debian: apt-get install {packages})" if gone else ""


def free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Targets:
    """One server, at one port of ``host``. It ends with ``close``. ``into``: what it is started with, such as into a
    network.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1", into: Sequence[str] = ()) -> None:
        self._into = tuple(into)
        self.host, self.port = host, free_port(host)
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._directory = directory
        self._control = str(1000 + (os.getpid() * 50 + next(_controls)) % 30000)  # a number of 15 bits
        self._numbers = itertools.count(1)
        self._known: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """It serves nothing then."""
        argv = [*self._into, "tgtd", "-f", "-C", self._control, "--iscsi", f"portal={self.address}"]
        self._server = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _try in range(200):
            if self._tell("--op", "show", "--mode", "sys", check=False):
                return
            if self._server.poll() is not None:
                break
            time.sleep(0.05)
        self.close()
        raise OSError("tgtd does not answer")

    def _tell(self, *words: object, check: bool = True) -> bool:
        argv = ["tgtadm", "-C", self._control, "--lld", "iscsi", *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode != 0:
            raise OSError(f"{argv}: {done.stderr}")
        return done.returncode == 0

    def serve(self, name: str, units: dict[int, int], account: tuple[str, str] | None = None) -> None:
        """A target with units of these sizes in bytes. The account is one of this test alone."""
        number = self._known[name] = next(self._numbers)
        self._tell("--op", "new", "--mode", "target", "--tid", number, "-T", name)
        for unit, size in units.items():
            self.add(name, unit, size)
        self._tell("--op", "bind", "--mode", "target", "--tid", number, "-I", "ALL")
        if account is not None:
            self._tell("--op", "new", "--mode", "account", "--user", account[0], "--password", account[1])
            self._tell("--op", "bind", "--mode", "account", "--tid", number, "--user", account[0])

    def add(self, name: str, unit: int, size: int) -> None:
        file = self._directory / f"{self._known[name]}-{unit}"
        file.touch()
        os.truncate(file, size)
        self._tell("--op", "new", "--mode", "logicalunit", "--tid", self._known[name], "--lun", unit, "-b", file)

    def remove(self, name: str, unit: int) -> None:
        self._tell("--op", "delete", "--mode", "logicalunit", "--tid", self._known[name], "--lun", unit)

    @property
    def pid(self) -> int:
        return self._server.pid

    def close(self) -> None:
        self._server.kill()
        self._server.wait(10)
        for name in (f"socket.{self._control}", f"socket.{self._control}.lock"):
            Path("/var/run/tgtd", name).unlink(missing_ok=True)
