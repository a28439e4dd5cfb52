# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What QEMU's own words for a disk name, beside plain paths: ``PROTOCOL:…`` and ``json:…`` (qemu(1), "-drive";
qemu-qmp-ref(7), BlockdevOptions).
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

_OF_FILES = ("file", "host_device", "host_cdrom")
# What servers have is no file of this host.
_OF_SERVERS = (
    "nbd", "nbd+tcp", "nbd+unix", "http", "https", "ftp", "ftps", "ssh", "iscsi", "iser", "nfs", "rbd", "sheepdog",
    "gluster", "gluster+tcp", "gluster+rdma", "gluster+unix",
)  # fmt: skip


class NamedFiles(NamedTuple):
    """``paths`` are files and devices of this host, absolute; ``all``: there are no others."""

    paths: tuple[str, ...]
    all: bool = True


def files_of_words(words: str) -> NamedFiles:
    """The files of what begins with ``json:`` or another protocol."""
    protocol, _colon, rest = words.partition(":")
    if protocol == "json":
        return files_of_json(rest)
    if protocol in _OF_SERVERS:
        return NamedFiles(())
    return _file(rest) if protocol in _OF_FILES else NamedFiles((), False)


def files_of_json(text: str) -> NamedFiles:
    """The files of a JSON object, wherever in it they are named."""
    try:
        waiting = [json.loads(text)]
    except (ValueError, RecursionError):  # such as thousands of brackets
        return NamedFiles((), False)
    names, drivers = [], []
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        for key, inner in value.items() if isinstance(value, dict) else ():
            option = key.rpartition(".")[2]
            if option == "filename":
                names.append(_file(inner))
            elif option == "driver":
                drivers.append(inner)
            else:
                waiting.append(inner)
    served = any(driver in _OF_SERVERS for driver in drivers)
    known = all(name.all for name in names) and (bool(names) or served)
    return NamedFiles(tuple(path for name in names for path in name.paths), known)


def _file(name: Any) -> NamedFiles:
    """A relative name starts where QEMU was started, which nobody knows."""
    if not isinstance(name, str) or not name.startswith("/") or "\0" in name:
        return NamedFiles((), False)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return NamedFiles((), False)
    return NamedFiles((name,))
