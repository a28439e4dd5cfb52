# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Whether somebody listens at a port of a server."""

from __future__ import annotations

import socket
import threading

from ..model.errors import StorageError


def ensure_listening(host: str, port: int, seconds: float) -> None:
    """Raises ``operation_failed`` where nobody does, and ``deadline``: neither looking up a name nor connecting has an
    end of its own that could be relied on.
    """
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
    if not told or isinstance(told[0], TimeoutError):
        raise StorageError("deadline", f"{host} did not answer at port {port} within {seconds:g} s", subject=host)
    if told[0] is not None:
        why = told[0].strerror or str(told[0])
        raise StorageError("operation_failed", f"nobody answers at port {port} of {host}: {why}", subject=host)
