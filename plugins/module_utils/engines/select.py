# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Which engine a uri names."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..host.peers import SYSTEM_SOCKETS, listener
from ..model.errors import StorageError
from .places import Places, automatic_places, find_places

if TYPE_CHECKING:
    from .native import NativeEngine

_DAEMONS = ("/usr/sbin/libvirtd", "/usr/sbin/virtstoraged", "/usr/bin/libvirtd", "/usr/bin/virtstoraged")
_DRIVER = re.compile(r"[a-z]+(\+[a-z0-9]+)?://[^\s]*\Z")  # libvirt: Connection URIs


def daemon() -> str:
    """What there is of a libvirt storage daemon, installed or running, in words; empty when there is none."""
    installed = next((f"{path} is installed" for path in _DAEMONS if os.path.exists(path)), "")
    return installed or next(iter(daemon_listens()), "")


def daemon_listens() -> tuple[str, ...]:
    """What there is of a running one, in words."""
    return tuple(f"a daemon listens at {path}" for path in SYSTEM_SOCKETS if listener(path))


def needs_daemon(uri: str) -> bool:
    """Whether a uri means a libvirt daemon."""
    return bool(daemon()) if uri == "auto" else not uri.startswith("native:")


def engine_for(uri: str, allow: Collection[str], timeout: float, reading: bool) -> Any:
    """The engine of a uri, see converge.Engine. ``reading``: nothing will be changed through it.

    Raises ``invalid_uri`` or ``beside_daemon``.
    """
    if not needs_daemon(uri):
        return _native(uri, allow, timeout, reading)
    from .libvirt import LibvirtEngine

    if uri != "auto":
        if not _DRIVER.match(uri):
            raise _not_understood(uri)
        _check_no_password(uri)
        return LibvirtEngine(uri, "the uri names it", timeout)
    scope = "system" if os.geteuid() == 0 else "session"
    return LibvirtEngine(f"qemu:///{scope}", daemon(), timeout)


def _check_no_password(uri: str) -> None:
    if ":" in urlsplit(uri).netloc.rpartition("@")[0]:
        raise StorageError(
            "invalid_uri",
            "the uri holds a password, which would be shown in plans and logs",
            subject="uri",
            hint="Leave it out; a key, a certificate or libvirt's auth.conf can authenticate the connection.",
        )


def _native(uri: str, allow: Collection[str], timeout: float, reading: bool) -> Any:
    places = automatic_places() if uri == "auto" else find_places(uri)
    if places is None:
        raise _not_understood(uri)
    guarded = places.uri == "native:///system" and not reading and "beside_daemon" not in allow
    installed = daemon() if guarded else ""
    if installed:
        raise StorageError(
            "beside_daemon",
            f"{installed}: it would not notice what is changed in its files behind its back",
            subject=uri,
            hint="Work through it (uri: qemu:///system), or add allow: [beside_daemon] if it is not running.",
            word="beside_daemon",
        )
    return native_engine(places, timeout)


def native_engine(places: Places, timeout: float) -> NativeEngine:
    from .native import NativeEngine

    return NativeEngine(places, timeout)


def _not_understood(uri: str) -> StorageError:
    return StorageError(
        "invalid_uri",
        f"{uri} is not understood",
        subject=uri,
        hint="Use a libvirt uri such as qemu:///system, or native:///system, native:///session, native:///?root=DIR, "
        "where DIR is absolute and not /.",
    )
