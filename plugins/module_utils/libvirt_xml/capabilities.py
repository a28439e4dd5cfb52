# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a daemon says of itself (libvirt: formatstoragecaps)."""

from __future__ import annotations

from ._tree import parse


def supported_types(text: bytes | str) -> frozenset[str]:
    """The pool types that the daemon has a backend for. Raises ``invalid_xml``."""
    pools = parse(text).findall("pool")
    return frozenset(pool.get("type", "") for pool in pools if pool.get("supported") == "yes")
