# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a libvirt daemon says went wrong, as errors of ours. ``error`` is libvirt's own, of its Python library."""

from __future__ import annotations

import re
from typing import Any

from ..model.errors import StorageError
from ..model.types import POOL_TYPES

_BUSY = ("asynchronous jobs running", "is still in use", "is still being allocated")
_LOG = "The message is the daemon's own; its log may say more (journalctl -u libvirtd or virtstoraged)."
_EXISTS = 90
_UNLISTED = (
    "It was made meanwhile, or the daemon did not list it: let it look again (virsh pool-refresh), look at what is "
    "there, and run the task again."
)
# The drivers that a uri can name (libvirt: Connection URIs). For any other one the daemon itself would have to know it.
_DRIVERS = (
    *("bhyve", "ch", "esx", "gsx", "hyperv", "lxc", "openvz", "parallels", "qemu", "storage", "test", "vbox"),
    *("vmwarefusion", "vmwareplayer", "vmwarews", "vpx", "vz", "xen"),
)
# libvirt's error numbers (virterror.h): they are part of its interface.
_CODES = {
    3: ("daemon_cannot", "The daemon has no such function for this type."),
    84: ("daemon_cannot", "The daemon has no such function for this type."),
    49: ("changed_meanwhile", "Look at what is there and run the task again."),
    75: ("daemon_failed", "Let the task build what is not there (build: auto)."),
    76: ("storage_foreign", "Look at what is there; if it may be lost, add allow: [overwrite]."),
    29: ("not_permitted", "Run as a user whom the daemon lets do it (become: true)."),
    88: ("not_permitted", "Run as a user whom the daemon lets do it (become: true)."),
    50: ("changed_meanwhile", "Look at what is there and run the task again."),
}


def is_busy(error: Any) -> bool:
    """Whether a pool or volume has to be waited for."""
    return any(words in str(error) for words in _BUSY)


def refusal(error: Any, subject: str, command: str) -> StorageError:
    """What a daemon that answers says to a call."""
    code, hint = _CODES.get(error.get_error_code() or 0, ("daemon_failed", _LOG))
    if "already exists" in str(error) or error.get_error_code() == _EXISTS:
        code, hint = "changed_meanwhile", _UNLISTED
    if is_busy(error):
        hint = "Wait until that is done and run the task again, or give it a longer timeout."
    if "No space left on device" in str(error):
        code, hint = "no_space", "Free some space and run the task again."
    word = "overwrite" if code == "storage_foreign" else ""
    message = f"the daemon refused: {str(error).strip()}"
    return StorageError(code, message, subject=subject, hint=hint, word=word, command=command)


def not_started() -> str:
    """What to do about a pool that a daemon does not start, for whatever reason."""
    tools = ", ".join(f"{row.name}: {row.tools}" for row in POOL_TYPES.values() if row.tools)
    return (
        f"Look whether its source is there, and whether the host of the daemon has the tools of its type ({tools}). "
        "The pool stays defined."
    )


def no_connection(library: Any, uri: str, why: str, error: Any) -> StorageError:
    """``why`` says how the uri came to be the one that is used."""
    code = error.get_error_code()
    refused = (
        library.VIR_ERR_AUTH_FAILED,
        library.VIR_ERR_AUTH_CANCELLED,
        library.VIR_ERR_AUTH_UNAVAILABLE,
        library.VIR_ERR_ACCESS_DENIED,
    )
    if code in refused or "Permission denied" in str(error):
        return StorageError(
            "not_permitted",
            f"{uri}: {error}",
            subject=uri,
            hint="Run as a user whom the daemon lets in (become: true).",
        )
    unknown = code in (library.VIR_ERR_NO_CONNECT, library.VIR_ERR_INVALID_ARG)
    unknown = unknown or re.split("[+:]", uri, maxsplit=1)[0] not in _DRIVERS
    if unknown or "URI path" in str(error):
        return StorageError(
            "invalid_uri",
            f"{uri}: {error}",
            subject=uri,
            hint="Name a uri that virsh -c understands, or native:///system.",
        )
    return StorageError(
        "daemon_down",
        f"the daemon of {uri} does not answer: {error}" + (f" ({why})" if why else ""),
        subject=uri,
        hint="Start it (for instance systemctl start libvirtd or virtstoraged.socket), or name another uri: "
        "native:///system with allow: [beside_daemon] if it stays off, native:///?root=DIR to try things out.",
    )
