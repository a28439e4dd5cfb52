# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The virtual machine: its devices, its process and its monitor.

A saved state can be resumed only by the same QEMU with the same devices, so all guests have the same ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from places import Stop

from lab import emulator
from lab.holding import bound, digest, spawn
from lab.image import Image

MEMORY = 1536  # MiB
DISK_SIZE = "1G"
VIRTIO_DISKS = tuple(f"disk{number}" for number in range(1, 7))
SCSI_DISKS = ("scsi1", "scsi2")
DISKS = ("root", *VIRTIO_DISKS, *SCSI_DISKS)
KERNEL_COMMAND = (
    "root=/dev/vda rw console=ttyS0 quiet mitigations=off tsc=reliable random.trust_cpu=on nokaslr audit=0 apparmor=0 "
    "net.ifnames=0 init_on_alloc=0 randomize_kstack_offset=off hardened_usercopy=off psi=0"
)
# Without what is dear where it is emulated: string moves byte by byte, checks at each way into the kernel, a fifth
# level of page tables; a fifth of the work of starting a process. Wide vectors, of which libraries would make use, and
# the long state that is saved with them at each switch: a tenth of what Python takes.
DEAR = ("erms", "fsrm", "smap", "smep", "umip", "la57", "pku", "pks", "avx", "avx2", "f16c", "fma", "xsave")
PROCESSOR = ",".join(["max", *(f"{feature}=off" for feature in DEAR)])


@dataclass(frozen=True)
class Process:
    """A process by its id and the moment of its start: an id is given again to others."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, _started(pid))

    def alive(self) -> bool:
        return bool(self.started) and _started(self.pid) == self.started

    def kill(self) -> None:
        """End it at once, and return when it is gone. Nothing else is hit, even if the id has a new owner."""
        self._end(by_signal=True)

    def wait(self) -> None:
        """Return when it is gone; it was asked to go."""
        self._end(by_signal=False)

    def _end(self, by_signal: bool) -> None:
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            if self.alive():
                if by_signal:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], 60)
        finally:
            os.close(handle)


NOBODY = Process(0, "")


def _started(pid: int) -> str:
    """Field 22 of /proc/PID/stat; empty for a process that is gone or that only waits to be counted."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def command(image: Image, name: str, port: int, number: int, wire: str, incoming: str = "") -> list[str]:
    """Started in the guest's directory: the paths in it are short and relative, as sockets want them. With ``wire``, a
    socket, the second network card is connected to other guests.
    """
    lan = f"stream,id=lan,server=off,addr.type=unix,addr.path={wire}" if wire else "hubport,id=lan,hubid=1"
    words = [*emulator.command(), "-name", name, "-nodefaults", "-no-user-config", "-display", "none"]
    words += [
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi,tb-size=256",
        "-cpu",
        PROCESSOR,
        # One: the kernel and QEMU leave out what keeps several in step, a quarter of all work.
        "-smp",
        "1",
        "-m",
        str(MEMORY),
    ]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    words += ["-append", f"{KERNEL_COMMAND} lab.number={number}" if number else KERNEL_COMMAND]
    words += ["-serial", "file:console.log", "-qmp", "unix:monitor,server=on,wait=off"]
    words += ["-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random"]
    words += ["-netdev", f"user,id=host,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    words += ["-device", "virtio-net-pci,netdev=host,romfile=,mac=52:54:00:00:00:01"]
    words += ["-netdev", lan, "-device", "virtio-net-pci,netdev=lan,romfile=,mac=52:54:00:09:00:00"]
    words += ["-device", "virtio-scsi-pci,id=scsi"]
    for index, disk in enumerate(DISKS):
        # unsafe: a flush reaches the host's memory and not its disk. A guest whose QEMU is killed keeps what it
        # flushed; it loses its own memory, and of newly allocated blocks those that it had not flushed.
        words += ["-drive", f"id={disk},file={disk}.qcow2,if=none,format=qcow2,cache=unsafe,discard=unmap"]
        if disk in SCSI_DISKS:
            wwn = f"wwn=0x5000c500a00000{index:02x}"
            words += ["-device", f"scsi-hd,bus=scsi.0,drive={disk},serial=lab-{disk},{wwn}"]
        else:
            words += ["-device", f"virtio-blk-pci,drive={disk},serial=lab-{disk}"]
    return words + (["-incoming", incoming] if incoming else [])


def shape() -> str:
    """A short name for all that has to be equal where a state is saved and where it is resumed."""
    nobody = Image(Path("/"))
    return digest(emulator.version(), command(nobody, "name", 0, 0, ""))


def start(words: list[str], directory: Path, passing: bool) -> subprocess.Popen[bytes]:
    """The machine's process, in a session of its own: who started it may be gone, unless it is a ``passing`` one."""
    with (directory / "qemu.log").open("ab") as log:
        return spawn(bound(words) if passing else words, directory, log)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connect_unix(path: Path) -> socket.socket:
    """A connection to a socket whose whole path may be longer than an address can hold."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


class Monitor:
    """Commands for a running QEMU (its machine protocol)."""

    def __init__(self, directory: Path, process: Process) -> None:
        self._connection = self._connect(directory, process)
        self._connection.settimeout(300)
        self._stream = self._connection.makefile("rw", encoding="utf-8")
        self._stream.readline()
        self.ask("qmp_capabilities")

    @staticmethod
    def _connect(directory: Path, process: Process) -> socket.socket:
        while True:
            try:
                return connect_unix(directory / "monitor")
            except OSError:
                if not process.alive():
                    log = (directory / "qemu.log").read_text(encoding="utf-8", errors="replace")
                    raise Stop(f"QEMU ended at once: {log.strip()[-800:]}") from None
                time.sleep(0.02)

    def ask(self, execute: str, **arguments: Any) -> Any:
        self._stream.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
        self._stream.flush()
        for line in self._stream:
            answer = json.loads(line)
            if "error" in answer:
                raise Stop(f"QEMU refuses {execute}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise Stop(f"QEMU ended while it was asked for {execute}.")

    def close(self) -> None:
        self._stream.close()
        self._connection.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_why: object) -> None:
        self.close()
