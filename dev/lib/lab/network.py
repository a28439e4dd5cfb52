# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wire between guests: a hub on a socket of the filesystem, which nothing else can reach.

python network.py SOCKET    the hub's own process; it ends when its last guest is gone
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

_FIRST = 120.0  # so long the hub waits for its first guest
NAME = "hub"
_LENGTH = 4  # bytes before each frame that say how long it is
_PENDING = 4 << 20  # what a guest has not read yet; more is dropped, as by any switch


class Hub:
    """Passes each frame on to all other guests."""

    def __init__(self, listener: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._arriving: dict[socket.socket, bytearray] = {}
        self._leaving: dict[socket.socket, bytearray] = {}

    def run(self) -> None:
        deadline = time.monotonic() + _FIRST
        seen = False
        while self._arriving or (not seen and time.monotonic() < deadline):
            for key, events in self._selector.select(1.0):
                if key.fileobj is self._listener:
                    self._accept()
                    seen = True
                    continue
                guest = key.fileobj
                assert isinstance(guest, socket.socket)
                if events & selectors.EVENT_WRITE:
                    self._write(guest)
                if events & selectors.EVENT_READ and guest in self._arriving:
                    self._read(guest)

    def _accept(self) -> None:
        """All that wait: a guest that is connected hears what the others say from then on."""
        while True:
            try:
                guest, _address = self._listener.accept()
            except BlockingIOError:
                return
            guest.setblocking(False)
            self._arriving[guest], self._leaving[guest] = bytearray(), bytearray()
            self._selector.register(guest, selectors.EVENT_READ)

    def _drop(self, guest: socket.socket) -> None:
        if self._arriving.pop(guest, None) is not None:
            self._leaving.pop(guest)
            self._selector.unregister(guest)
            guest.close()

    def _read(self, guest: socket.socket) -> None:
        try:
            data = guest.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(guest)
            return
        buffer = self._arriving[guest]
        buffer += data
        whole = self._whole_frames(buffer)
        if whole:
            frames = bytes(buffer[:whole])
            del buffer[:whole]
            for other in list(self._arriving):
                if other is not guest:
                    self._send(other, frames)

    @staticmethod
    def _whole_frames(buffer: bytearray) -> int:
        """How many bytes at its beginning are frames that have arrived completely."""
        end = 0
        while len(buffer) - end >= _LENGTH:
            size = _LENGTH + int.from_bytes(buffer[end : end + _LENGTH], "big")
            if len(buffer) - end < size:
                break
            end += size
        return end

    def _send(self, guest: socket.socket, frames: bytes) -> None:
        if len(self._leaving[guest]) < _PENDING:
            self._leaving[guest] += frames
            self._write(guest)

    def _write(self, guest: socket.socket) -> None:
        pending = self._leaving.get(guest)
        if pending is None:
            return
        try:
            sent = guest.send(pending) if pending else 0
            del pending[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(guest)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if pending else 0)
        self._selector.modify(guest, events)


def hold(directory: Path) -> socket.socket:
    """A connection that keeps the hub of the directory alive, started if need be, until guests are connected to it."""
    from lab.holding import lock, spawn
    from lab.qemu import connect_unix

    path = directory / NAME
    with lock(directory / f"{NAME}.lock"):
        with contextlib.suppress(OSError):
            return connect_unix(path)
        path.unlink(missing_ok=True)
        spawn([sys.executable, "-S", "-E", os.path.abspath(__file__), NAME], directory, subprocess.DEVNULL)
        while True:
            with contextlib.suppress(OSError):
                return connect_unix(path)
            time.sleep(0.02)


def serve(name: str) -> None:
    """Be the hub of the directory that this process is in. Who connects holds the lock: nobody comes too late."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen(16)
    while True:
        Hub(listener).run()
        with open(f"{name}.lock", "w", encoding="utf-8") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not select.select([listener], [], [], 0)[0]:
                os.unlink(name)
                return


if __name__ == "__main__":
    serve(sys.argv[1])
