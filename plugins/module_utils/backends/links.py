# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Stable names of devices in a directory of links, such as /dev/disk/by-id (libvirt, storage driver: stable paths)."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..host.look import Look

DEV = "/dev"
_SETTLING = 10.0  # seconds


def links_in(directory: str, look: Look) -> dict[str, str]:
    """Nodes to the first link that leads there; none in /dev itself."""
    if os.path.normpath(directory) == DEV:
        return {}
    found: dict[str, str] = look.once(("links", directory), lambda: _links(directory))
    return found


def links_to(nodes: Collection[str], directory: str, look: Look) -> dict[str, str]:
    """The same, with those that udev is still making for the nodes."""
    found = links_in(directory, look)
    if os.path.normpath(directory) == DEV or all(node in found for node in nodes):
        return found
    from ..host.udev import settle

    settle(min(_SETTLING, look.left(directory)))
    return _links(directory)


def _links(directory: str) -> dict[str, str]:
    try:
        names = sorted(os.listdir(directory), reverse=True)
    except OSError:
        return {}
    return {os.path.realpath(os.path.join(directory, name)): os.path.join(directory, name) for name in names}
