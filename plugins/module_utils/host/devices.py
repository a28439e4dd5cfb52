# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a block device holds in the words of libvirt, which asks libblkid what it most likely is."""

from __future__ import annotations

from .signatures import likely_signatures, look_at


def content_of(path: str, timeout: float) -> str:
    """``BLANK``, ``DATA`` (something without a signature), or the signature in blkid's words; where it can't be told,
    a text that starts with ``UNREADABLE``.
    """
    return look_at(path, timeout, lambda left: likely_signatures(path, left)).text
