# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Whether a daemon sees the same files as we do: its socket tells its process, and that its mount namespace."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

_DAEMONS = ("libvirtd", "virtstoraged", "virtqemud", "virtlxcd", "virtxend")
_SOCKETS = ("libvirt-sock", "virtstoraged-sock", "virtqemud-sock")
SYSTEM_SOCKETS = tuple(f"/run/libvirt/{name}" for name in _SOCKETS)


def is_remote(uri: str) -> bool:
    """Whether the uri of a daemon names another host, or a way to reach one (libvirt: Connection URIs)."""
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    return bool(parts.netloc) or transport not in ("", "unix")


def daemon_process(uri: str) -> int | None:
    """The process of the daemon at a local uri; None where it has none or can't be told."""
    if is_remote(uri) or urlsplit(uri).scheme.partition("+")[0] == "test":
        return None
    for path in _sockets(uri):
        pid = listener(path)
        if pid is not None:
            return pid if _name(pid) in _DAEMONS else _only_daemon()
    return None


def _sockets(uri: str) -> Iterable[str]:
    parts = urlsplit(uri)
    given = parse_qs(parts.query).get("socket")
    if given:
        return given
    if parts.path == "/session":
        runtime = os.environ.get("XDG_RUNTIME_DIR") or os.path.expanduser("~/.cache")
        return [f"{runtime}/libvirt/{name}" for name in _SOCKETS]
    return SYSTEM_SOCKETS


def listener(path: str) -> int | None:
    """Who listens on a Unix socket (unix(7): SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(path)
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    return int(struct.unpack("3i", credentials)[0])


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _only_daemon() -> int | None:
    """The one daemon that runs here, where its socket was opened for it by another process (systemd.socket(5))."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _name(int(entry)) in _DAEMONS]
    return pids[0] if len(pids) == 1 else None


def may_stand_in(pid: int) -> bool:
    """Whether we may do on its files what the daemon may."""
    try:
        return os.geteuid() in (0, os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return False


def same_files(pid: int, path: str) -> bool:
    """Whether what is at ``path``, or will be, is the same for the process as for us (proc_pid_root(5))."""
    missing = ""
    path = os.path.realpath(path)
    while path != "/" and not os.path.lexists(path):
        missing, path = path, os.path.dirname(path)
    try:
        ours, theirs = os.stat(path), os.stat(f"/proc/{pid}/root{path}")
    except OSError:
        return False
    return os.path.samestat(ours, theirs) and not (missing and os.path.lexists(f"/proc/{pid}/root{missing}"))
