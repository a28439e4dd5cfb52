# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Which engine a uri names, and where its files are."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from ..model.errors import StorageError

_DAEMONS = ("/usr/sbin/libvirtd", "/usr/sbin/virtstoraged", "/usr/bin/libvirtd", "/usr/bin/virtstoraged")
_SYSTEM_GUESTS = ("/etc/libvirt/qemu", "/run/libvirt/qemu", "/etc/libvirt/lxc")


@dataclass(frozen=True)
class Places:
    """The directories of a native engine: libvirt's definitions and state, our locks and records, guests'
    definitions.
    """

    uri: str
    why: str
    config: str
    run: str
    locks: str
    records: str
    guests: tuple[str, ...]


def _system(why: str) -> Places:
    return Places(
        "native:///system",
        why,
        "/etc/libvirt/storage",
        "/run/libvirt/storage",
        "/run/lock/virt-storage",
        "/var/lib/virt-storage/made",
        _SYSTEM_GUESTS,
    )


def _session(why: str) -> Places:
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"{home}/.cache"
    state = os.environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
    return Places(
        "native:///session",
        why,
        f"{config}/libvirt/storage",
        f"{runtime}/libvirt/storage/run",
        f"{runtime}/virt-storage",
        f"{state}/virt-storage/made",
        (f"{config}/libvirt/qemu", f"{runtime}/libvirt/qemu/run", *_SYSTEM_GUESTS),
    )


def _rooted(root: str) -> Places:
    root = "/" + os.path.normpath(root).strip("/")
    return Places(
        f"native:///?root={root}",
        "the uri names its root",
        f"{root}/etc/libvirt/storage",
        f"{root}/run/libvirt/storage",
        f"{root}/run/lock/virt-storage",
        f"{root}/var/lib/virt-storage/made",
        (f"{root}/etc/libvirt/qemu", f"{root}/run/libvirt/qemu", *_SYSTEM_GUESTS),
    )


def daemon() -> str:
    """The path of an installed libvirt storage daemon; empty when there is none."""
    return next((path for path in _DAEMONS if os.path.exists(path)), "")


def _no_engine(uri: str, message: str, hint: str) -> StorageError:
    return StorageError("engine_missing", message, subject=uri, hint=hint)


def _not_understood(uri: str) -> StorageError:
    return StorageError(
        "invalid_uri",
        f"{uri} is not understood",
        subject=uri,
        hint="Use native:///system, native:///session or native:///?root=DIR, where DIR is absolute and not /.",
    )


def find_places(uri: str, allow: Collection[str], reading: bool) -> Places:
    """Raises ``invalid_uri``, ``engine_missing`` or ``beside_daemon``."""
    if uri == "auto":
        return _automatic()
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise _not_understood(uri) from None
    query = parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme != "native":
        raise _no_engine(
            uri, f"there is no engine for {uri} yet", "Use native:///system, native:///session or native:///?root=DIR."
        )
    if parts.netloc or parts.fragment or set(query) - {"root"}:
        raise _not_understood(uri)
    if parts.path == "/session" and not query:
        return _session("the uri names it")
    if parts.path == "/system" and not query:
        installed = daemon()
        if installed and not reading and "beside_daemon" not in allow:
            raise StorageError(
                "beside_daemon",
                f"{installed} is installed: it would not notice what is changed in its files behind its back",
                subject=uri,
                hint="Add allow: [beside_daemon] if it is not running, and restart it afterwards.",
            )
        return _system("the uri names it")
    root = query.get("root", [""])[-1]
    if parts.path == "/" and root.startswith("/") and os.path.realpath(root) not in ("/", "//"):
        return _rooted(root)
    raise _not_understood(uri)


def _automatic() -> Places:
    installed = daemon()
    if installed:
        raise _no_engine(
            "auto",
            f"{installed} is installed on this host, and there is no engine that works through it yet",
            "Name a native one: native:///session, native:///?root=DIR, "
            "or native:///system with allow: [beside_daemon] while the daemon is stopped.",
        )
    return _system("no daemon is installed") if os.geteuid() == 0 else _session("no daemon is installed; not root")
