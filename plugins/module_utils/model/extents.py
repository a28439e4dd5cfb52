# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""How sizes of volumes are rounded where only a daemon can look at the pool."""

from __future__ import annotations

import math

from .pool import Pool
from .types import row_of

_CYLINDERS = (None, "unknown", "dos")  # labels of which the daemon cuts partitions at cylinders


def told_extent(pool: Pool, capacity: int | None, available: int | None) -> int | None:
    """The number of bytes that sizes of its volumes are multiples of, as the pool's own sizes tell; None where only
    its type does. Extents of volume groups are powers of two (vgcreate(8)).
    """
    row = row_of(pool.type)
    if row.partitions and pool.source.format not in _CYLINDERS:
        return 1
    if row.largest_granule and capacity is not None and available is not None:
        common = math.gcd(capacity, available)
        return min(common & -common, row.largest_granule) or row.granule
    return None
