# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Names of servers, and whether somebody listens at a port of one: neither looking up a name nor connecting has an end
of its own that could be relied on.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable

from ..model.errors import StorageError

# The way to it is not there, as far as the kernel knows: a cable, a switch, or the server itself (connect(2), ip(7)).
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
_HINT = "See whether its service runs there and this host may reach it, or give the task a longer timeout."


def ensure_listening(host: str, port: int, seconds: float) -> None:
    """Raises ``operation_failed`` where nobody does, and ``deadline`` where that can't be told: the kernel gives up on
    a host that is gone by a time of its own, which these seconds may be before or after.
    """
    error = reached(host, port, seconds)
    if isinstance(error, TimeoutError):
        what = f"{host} did not answer at port {port} within {seconds:g} s"
        raise StorageError("deadline", what, subject=host, hint=_HINT)
    if error is not None and error.errno in _UNREACHABLE:
        what = f"{host} can't be reached: {error.strerror}"
        raise StorageError("deadline", what, subject=host, hint=_HINT)
    if error is not None:
        what = f"nobody answers at port {port} of {host}: {error.strerror or error}"
        raise StorageError("operation_failed", what, subject=host, hint=_HINT)


def refusal(host: str, port: int, seconds: float) -> str:
    """How a server refuses to be connected to at a port; empty where it does not, nor where that can't be told."""
    error = reached(host, port, seconds)
    return error.strerror or str(error) if isinstance(error, ConnectionRefusedError) else ""


def reached(host: str, port: int, seconds: float) -> OSError | None:
    """What connecting ends with; None where somebody listens."""
    told: list[OSError | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), seconds).close()
            told.append(None)
        except OSError as error:
            told.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return told[0] if told else TimeoutError()


def plain_address(text: str) -> str:
    """One form of an address, or of a name."""
    plain = text.strip("[]")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, plain))
        except OSError:
            continue
    return plain.rstrip(".").casefold()


def is_address(text: str) -> bool:
    plain = plain_address(text)
    return ":" in plain or plain.replace(".", "").isdigit()


def look_up(name: str) -> list[str]:
    """The addresses of a name, however long that takes."""
    try:
        found = socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({plain_address(str(each[4][0])) for each in found})


class Names:
    """Addresses by name, each looked up once. Who resolves names may be as dead as a server: all that is not answered
    takes no longer together than one name may.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self._left = seconds
        self._known: dict[str, tuple[str, ...]] = {}

    def addresses(self, name: str, seconds: float, look_up: Callable[[], list[str]]) -> tuple[str, ...]:
        """Those of a name, none where it has none or nobody answers; a child looks it up, in these seconds at most."""
        if name not in self._known:
            self._known[name] = self._ask(min(seconds, self._left), look_up)
        return self._known[name]

    def of(self, name: str, seconds: float) -> tuple[str, ...]:
        """The same; an address has itself."""
        if is_address(name):
            return (plain_address(name),)
        return self.addresses(name, seconds, lambda: look_up(name))

    def _ask(self, seconds: float, look_up: Callable[[], list[str]]) -> tuple[str, ...]:
        from .patience import in_child

        began = time.monotonic()
        try:
            told = in_child(look_up, seconds) if seconds > 0 else None
        except StorageError:
            told = ()
        if told is None:
            self._left = max(0.0, self._left - (time.monotonic() - began))
        return tuple(told or ())
