# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Where an engine's files are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

# Definitions and running guests of libvirt's drivers that have disks of this host: QEMU, LXC, Xen, Cloud Hypervisor.
_DRIVERS = ("qemu", "lxc", "libxl", "ch")
_SYSTEM_GUESTS = tuple(f"{top}/libvirt/{driver}" for driver in _DRIVERS for top in ("/etc", "/run"))
_SYSTEM_SNAPSHOTS = "/var/lib/libvirt/qemu/snapshot"


@dataclass(frozen=True)
class Places:
    """The directories of a native engine: libvirt's definitions and state, our locks, records of what we made and of
    what we started, guests' definitions, the systemd units and programs that we install, libvirt's secrets, and those
    that hold a directory for each guest with its snapshots.
    """

    uri: str
    why: str
    config: str
    run: str
    locks: str
    records: str
    starts: str
    guests: tuple[str, ...]
    units: str = ""
    program: str = ""
    secrets: str = ""
    snapshots: tuple[str, ...] = ()


def _system(why: str) -> Places:
    return Places(
        "native:///system",
        why,
        "/etc/libvirt/storage",
        "/run/libvirt/storage",
        "/run/lock/virt-storage",
        "/var/lib/virt-storage/made",
        "/run/virt-storage/started",
        _SYSTEM_GUESTS,
        "/etc/systemd/system",
        "/var/lib/virt-storage",
        "/etc/libvirt/secrets",
        (_SYSTEM_SNAPSHOTS,),
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
        f"{runtime}/virt-storage/started",
        (f"{config}/libvirt/qemu", f"{runtime}/libvirt/qemu/run", *_SYSTEM_GUESTS),
        secrets=f"{config}/libvirt/secrets",
        snapshots=(f"{config}/libvirt/qemu/lib/snapshot", _SYSTEM_SNAPSHOTS),
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
        f"{root}/run/virt-storage/started",
        (f"{root}/etc/libvirt/qemu", f"{root}/run/libvirt/qemu", *_SYSTEM_GUESTS),
        secrets=f"{root}/etc/libvirt/secrets",
        snapshots=(f"{root}{_SYSTEM_SNAPSHOTS}", _SYSTEM_SNAPSHOTS),
    )


def daemon_places() -> Places:
    """Where the locks and records are of who works through a daemon, and the definitions of this host's guests."""
    return _system("") if os.geteuid() == 0 else _session("")


def find_places(uri: str) -> Places | None:
    """The places that a native uri names; None for one that is not understood."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    query = parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme != "native" or parts.netloc or parts.fragment or set(query) - {"root"}:
        return None
    if not query:
        named = {"/session": _session, "/system": _system}.get(parts.path)
        return None if named is None else named("the uri names it")
    root = query["root"][-1]
    rooted = parts.path == "/" and root.startswith("/") and os.path.realpath(root) not in ("/", "//")
    return _rooted(root) if rooted else None


def automatic_places() -> Places:
    """Those of a host without a daemon."""
    return _system("no daemon is installed") if os.geteuid() == 0 else _session("no daemon is installed; not root")
