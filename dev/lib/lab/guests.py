# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A guest: resumed from the saved state or booted, asked over ssh, cut off, stopped.

Guests that belong together are directories in one directory, their network. Only they see each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import places
from places import Stop

from lab import network, qemu
from lab.holding import LAB, digest, environment, lock, reap
from lab.image import Image
from lab.qemu import Monitor, Process

if TYPE_CHECKING:
    Ran = subprocess.CompletedProcess[bytes]

#: The guests of this clone; those of others are in directories beside it.
OURS = LAB / "guests" / digest(str(places.ROOT))
_START_ATTEMPTS = 5  # another program may take the port that was free
_BOOT_SECONDS = 600
_SSH_OPTIONS = (
    *("BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"),
    *("ConnectTimeout=60", "ServerAliveInterval=30", "ServerAliveCountMax=20"),
)
_SSH = ["-F", "none", "-q", *(word for option in _SSH_OPTIONS for word in ("-o", option))]


@dataclass
class Guest:
    """One virtual machine; what is known of it is kept in its directory, so that another run can stop it."""

    directory: Path
    image: Image
    number: int
    port: int = 0
    process: Process = qemu.NOBODY
    passing: bool = False  # the kernel ends it together with the thread that starts it

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def address(self) -> str:
        """Where the other guests of its network find it."""
        return f"10.9.0.{self.number}"

    def alive(self) -> bool:
        return self.process.alive()

    # -- on and off -----------------------------------------------------------------------------------------------

    def resume(self, saved: Path) -> None:
        """Go on from a saved state, with a new clock, name, address and ids."""
        for disk in saved.glob("*.clean"):
            shutil.copy(disk, self.directory / f"{disk.stem}.qcow2")
        self._launch(f"exec:cat {shlex.quote(str(saved / 'memory'))}")
        with self.monitor() as monitor:
            while monitor.ask("query-status")["status"] == "inmigrate":
                time.sleep(0.05)
            monitor.ask("cont")  # it was saved while it was stopped
        self._become_itself()

    def boot(self) -> None:
        """Start on its disks as they are."""
        self._launch("")
        self._become_itself(booted=True)

    def _become_itself(self, booted: bool = False) -> None:
        """The clock is the saved one's or QEMU's; the guest that is saved is nobody. One that was booted knows who it
        is, unless its name was not on its disk yet: its connections are left alone then.
        """
        self._wait_for_ssh()
        name = shlex.quote(self.name)
        known = f'test "$(hostname)" = {name} || ' if booted else ""
        identity = f"{known}lab-identity {self.number} {name}" if self.number else ""
        self.run(f"date -s @{time.time():.0f} >/dev/null; {identity}")

    def reboot(self) -> None:
        """Its own systemd shuts it down and starts it again. Its clock is wrong until it is back."""
        before = self.boot_id()
        self.run("systemctl reboot --no-block", check=False)
        self._wait_until(lambda: self.boot_id() not in ("", before), "come back")
        self._become_itself(booted=True)

    def power_off(self) -> None:
        """Its own systemd shuts it down; ``boot`` starts it again."""
        self.run("systemctl poweroff --no-block", check=False)
        self._wait_until(lambda: not self.alive(), "end")
        reap()

    def _wait_until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise Stop(f"The guest {self.name} does not {what}; its console: {self.directory / 'console.log'}")
            time.sleep(0.5)

    def boot_id(self) -> str:
        """As the journal has it (``_BOOT_ID``); empty where the guest does not answer."""
        told = self.run("cat /proc/sys/kernel/random/boot_id", check=False).stdout.decode()
        return told.strip().replace("-", "")

    def cut_power(self) -> None:
        """What the guest did not flush to its disks is lost, as far as a killed QEMU loses it (see docs/lab.md)."""
        self.process.kill()
        reap()

    def stop(self) -> None:
        """End it, and remove its directory: nothing of it is kept."""
        self.cut_power()
        shutil.rmtree(self.directory, ignore_errors=True)

    def monitor(self) -> Monitor:
        return Monitor(self.directory, self.process)

    def _launch(self, incoming: str) -> None:
        with contextlib.closing(network.hold(self.directory.parent)) if self.number else contextlib.nullcontext():
            for attempt in range(1, _START_ATTEMPTS + 1):
                self.port = qemu.free_port()
                wire = f"../{network.NAME}" if self.number else ""
                words = qemu.command(self.image, self.name, self.port, self.number, wire, incoming)
                (self.directory / "monitor").unlink(missing_ok=True)
                (self.directory / "qemu.log").unlink(missing_ok=True)
                child = qemu.start(words, self.directory, self.passing)
                self.process = Process.of(child.pid)
                self._write_down()
                try:
                    self.monitor().close()
                    return
                except Stop:
                    child.wait()
                    log = (self.directory / "qemu.log").read_text(encoding="utf-8", errors="replace")
                    if "host forwarding rule" not in log or attempt == _START_ATTEMPTS:
                        raise

    def _wait_for_ssh(self) -> None:
        """The port is QEMU's own and always open: only what sshd says means that it is there."""
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.settimeout(30)
                if connection.recv(4):
                    return
            if not self.alive():
                raise Stop(f"The guest {self.name} ended while it was awaited: see {self.directory}")
            time.sleep(0.1)
        raise Stop(f"The guest {self.name} does not answer; its console: {self.directory / 'console.log'}")

    # -- what is known of it --------------------------------------------------------------------------------------

    def _write_down(self) -> None:
        known = {
            "image": str(self.image.directory),
            "number": self.number,
            "port": self.port,
            "pid": self.process.pid,
            "started": self.process.started,
        }
        (self.directory / "guest.json").write_text(json.dumps(known), encoding="utf-8")

    @classmethod
    def known(cls, directory: Path) -> Guest:
        known = json.loads((directory / "guest.json").read_text(encoding="utf-8"))
        process = Process(known["pid"], known["started"])
        return cls(directory, Image(Path(known["image"])), known["number"], known["port"], process)

    # -- inside ---------------------------------------------------------------------------------------------------

    def ssh(self, *words: str) -> list[str]:
        """The command that runs ``words`` in the guest, or a shell of the user's."""
        return ["ssh", *_SSH, "-i", str(self.image.key), "-p", str(self.port), "root@127.0.0.1", *words]

    def variables(self) -> dict[str, Any]:
        """What Ansible's inventory says about it."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.image.key),
            "ansible_ssh_common_args": shlex.join(_SSH),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_remote_tmp": "/root/.ansible/tmp",
            "lab_address": self.address,
        }

    def run(self, script: str, check: bool = True, stdin: IO[bytes] | int | None = None) -> Ran:
        """Run a shell script there. One that fails is an error, unless ``check`` is false."""
        done = subprocess.run(
            self.ssh(script), env=environment(), stdin=stdin or subprocess.DEVNULL, capture_output=True, check=False
        )
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise Stop(f"On the guest {self.name}, {script!r} ended with {done.returncode}:\n{said[-4000:]}")
        return done

    def text(self, script: str) -> str:
        """What a shell script prints there."""
        return self.run(script).stdout.decode()

    def push(self, top: Path) -> None:
        """All files below ``top`` go there, to the same paths below the guest's root."""
        pack = ["tar", "-c", "-C", str(top), "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE, env=environment()) as packing:
            self.run("tar -x --no-same-owner --no-overwrite-dir -C /", stdin=packing.stdout)
        if packing.returncode != 0:
            raise Stop(f"{shlex.join(pack)} failed")

    def read(self, path: str) -> bytes:
        return self.run(f"cat {shlex.quote(path)}").stdout


# -- networks ---------------------------------------------------------------------------------------------------------


def place(directory: Path, name: str, image: Image) -> Guest:
    """A new guest of a network, not running yet, with the lowest number that is free in it."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise Stop(f"A guest is named by small letters, digits and '-', not {name!r}.")
    with lock(directory / "numbers.lock"):
        others = list(of_network(directory))
        taken = {guest.number for guest in others}
        if any(guest.name == name for guest in others):
            raise Stop(f"There is a guest {name} already.")
        own = directory / name
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        guest = Guest(own, image, min(set(range(1, 200)) - taken))
        guest._write_down()
        return guest


def of_network(directory: Path) -> Iterator[Guest]:
    for known in sorted(directory.glob("*/guest.json")):
        with contextlib.suppress(OSError, ValueError):
            yield Guest.known(known.parent)


@contextlib.contextmanager
def private_network() -> Iterator[Path]:
    """A network that ends with the block, and all guests in it; also when this process is killed."""
    remove_abandoned()
    OURS.mkdir(parents=True, exist_ok=True)
    owner = Process.of(os.getpid())
    directory = Path(tempfile.mkdtemp(prefix=f"run-{owner.pid}-{owner.started}-", dir=OURS))
    watcher = _watch(directory)
    try:
        yield directory
    finally:
        remove_network(directory)
        watcher.communicate()


def _watch(directory: Path) -> subprocess.Popen[bytes]:
    """A process that removes the network when its owner, the only one that could write to it, is gone."""
    return subprocess.Popen(
        [sys.executable, "-E", "-S", str(places.ROOT / "dev" / "lib" / "lab_command.py"), "watch", str(directory)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def remove_network(directory: Path) -> None:
    for guest in of_network(directory):
        guest.stop()
    shutil.rmtree(directory, ignore_errors=True)


def remove_abandoned() -> None:
    """What is left of runs whose watcher was killed too."""
    for directory in OURS.glob("run-*-*-*"):
        _run, pid, started = directory.name.split("-")[:3]
        if not Process(int(pid), started).alive():
            remove_network(directory)
