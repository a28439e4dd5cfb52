# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Paths as libvirt keeps them."""

from __future__ import annotations

import re

_SLASHES = re.compile("/+")


def sanitise_path(path: str) -> str:
    """``path`` with runs of slashes collapsed and the trailing one dropped; ``..`` and symlinks are left alone.

    Exactly two leading slashes stay, as POSIX has it, and so does a URI (``://`` before any other slash).
    """
    scheme = path.find("://")
    if scheme >= 0 and path.find("/") > scheme:
        return path
    head = "//" if path.startswith("//") and not path.startswith("///") else ""
    cleaned = head + _SLASHES.sub("/", path[len(head) :])
    return cleaned if cleaned in ("/", "//") else cleaned.rstrip("/")
