# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What showmount, gluster and smbclient print, read. Nothing is run here.

What a server calls its exports is its own choice: a name that can't be a source (control characters, what is no UTF-8)
is left out and told.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree import ElementTree

_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffd-\uffff]")
# Shares that a Windows host has by itself, and Samba's drivers for printers: nothing to keep images in.
_ADMINISTRATIVE = re.compile(r"(?:[A-Z]|ADMIN|print|IPC)\$\Z", re.IGNORECASE)


class Export(NamedTuple):
    path: str
    clients: tuple[str, ...]


class Share(NamedTuple):
    name: str
    comment: str


class GlusterVolume(NamedTuple):
    name: str
    uuid: str | None
    status: str


class Unreadable(Exception):
    """An answer that is not what the tool is known to print."""


def usable(name: str) -> bool:
    """Whether a server's name for something can be a source."""
    return bool(name) and not _UNUSABLE.search(name)


def exports(printed: str) -> list[Export]:
    """``showmount --no-headers --exports``: a path, padded with spaces to the longest one, and after it the clients,
    without spaces (nfs-utils, showmount.c). Paths may hold spaces; those at the end of one can't be told from padding.
    """
    found = []
    for line in printed.split("\n"):
        path, separator, clients = line.rstrip().rpartition(" ")
        if separator and path.startswith("/"):
            everyone = clients in ("(everyone)", "*")
            found.append(Export(path.rstrip(" "), () if everyone else tuple(clients.split(","))))
    return found


def gluster_volumes(printed: str) -> list[GlusterVolume]:
    """``gluster --xml volume info all``. Raises Unreadable, also with what the server says went wrong: the exit status
    is 0 then too.
    """
    if "<!DOCTYPE" in printed:
        raise Unreadable("a document type in the answer of gluster")
    try:
        root = ElementTree.fromstring(printed)
    except ElementTree.ParseError as error:
        raise Unreadable(f"no XML in the answer of gluster: {error}") from None
    if root.findtext("opRet") != "0":
        raise Unreadable(root.findtext("opErrstr") or f"error {root.findtext('opErrno')} of the server")
    return [
        GlusterVolume(volume.findtext("name") or "", volume.findtext("id"), volume.findtext("statusStr") or "")
        for volume in root.iterfind("volInfo/volumes/volume")
    ]


def shares(printed: str) -> list[Share] | None:
    """``smbclient --grepable --list``: ``Disk|NAME|COMMENT``, among messages. No share has a ``|`` in its name
    (MS-SRVS, names of shares), but a comment may. None where nothing was listed: every server lists IPC$ at least.
    """
    lines = [line.split("|", 2) for line in printed.split("\n")]
    listed = [line for line in lines if len(line) == 3 and line[0] in ("Disk", "IPC", "Printer", "Device")]
    disks = [Share(name, comment) for kind, name, comment in listed if kind == "Disk"]
    return [share for share in disks if not _ADMINISTRATIVE.match(share.name)] if listed else None
