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
_MOST_LINKS = 40  # as the kernel follows (path_resolution(7))
SYSTEM_SOCKETS = tuple(f"/run/libvirt/{name}" for name in _SOCKETS)


def is_remote(uri: str) -> bool:
    """Whether the uri of a daemon names another host, or a way to reach one (libvirt: Connection URIs)."""
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    return bool(parts.netloc) or transport not in ("", "unix")


def uri_of_secrets(uri: str) -> str:
    """Where the secrets are for who connects there: a connection to the storage driver alone has none."""
    driver, rest = uri.split(":", 1)
    plain, plus, transport = driver.partition("+")
    return f"secret{plus}{transport}:{rest}" if plain == "storage" else uri


def daemon_process(uri: str) -> int | None:
    """The process of the daemon at a local uri; None where it has none or can't be told. Only one that is connected to
    is there for sure: it may have been started for the connection.
    """
    if is_remote(uri) or urlsplit(uri).scheme.partition("+")[0] == "test":
        return None
    for path in _sockets(uri):
        pid = listener(path)
        if pid is not None:
            return pid if _name(pid) in _DAEMONS else _activated(path) if pid == 1 else None
    return None


def _sockets(uri: str) -> Iterable[str]:
    parts = urlsplit(uri)
    given = parse_qs(parts.query).get("socket")
    if given:
        return given
    if parts.path == "/session" and os.geteuid() != 0:  # root has no session of its own
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


def _activated(path: str) -> int | None:
    """The daemon that was handed a listening socket which systemd had opened for it (systemd.socket(5))."""
    links = {f"socket:[{inode}]" for inode in _listening(path)}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _name(int(entry)) in _DAEMONS and links & set(_descriptors(entry)):
            return int(entry)
    return None


def _listening(path: str) -> Iterable[str]:
    """The inodes of sockets at a path (proc_net(5): unix)."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split()
            if len(words) == 8 and os.path.realpath(words[7]) == os.path.realpath(path):
                yield words[6]


def _descriptors(pid: str) -> Iterable[str]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue


def may_stand_in(pid: int) -> bool:
    """Whether we may do on its files what the daemon may."""
    try:
        return os.geteuid() in (0, os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return False


def same_files(pid: int, path: str) -> bool:
    """Whether what is at ``path``, or will be, is the same for the process as for us (proc_pid_root(5))."""
    ours, theirs = _resolved("", path), _resolved(f"/proc/{pid}/root", path)
    if ours is None or theirs is None or ours[1] != theirs[1]:
        return False
    try:
        return os.path.samestat(os.stat(ours[0]), os.stat(theirs[0]))
    except OSError:
        return False


def _resolved(root: str, path: str) -> tuple[str, tuple[str, ...]] | None:
    """The last directory or file that is there on the way to a path below ``root``, its links followed there, and the
    names that are not there; None where nothing can be told.
    """
    waiting, at, links = [name for name in reversed(path.split("/")) if name], "", 0
    while waiting:
        name = waiting.pop()
        if name in (".", ".."):
            at = at if name == "." else os.path.dirname(at)
            continue
        here = f"{root}{at}/{name}"
        try:
            target = os.readlink(here) if os.path.islink(here) else None
        except OSError:
            return None
        if target is not None:
            links += 1
            if links > _MOST_LINKS:
                return None
            at = "" if target.startswith("/") else at
            waiting += [part for part in reversed(target.split("/")) if part]
        elif os.path.lexists(here):
            at = f"{at}/{name}"
        else:
            return f"{root}{at}/", (name, *reversed(waiting))
    return f"{root}{at}" or "/", ()
