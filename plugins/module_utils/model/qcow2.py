# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What the qcow2 format can hold, and which options go together (QEMU's docs/interop/qcow2.txt, qemu-img(1))."""

from __future__ import annotations

from .units import format_size
from .volume import Volume

DEFAULT_COMPAT = "1.1"
DEFAULT_CLUSTER_SIZE = 65536
# What a new image has where nothing else is declared: qemu-img(1), but for compat, which is always given.
DEFAULTS = {
    "compat": DEFAULT_COMPAT,
    "cluster_size": DEFAULT_CLUSTER_SIZE,
    "lazy_refcounts": False,
    "extended_l2": False,
}
COMPATS = ("0.10", "1.1")
PREALLOCATIONS = ("off", "metadata", "falloc", "full")
_L1_LIMIT = 32 * 2**20


def qcow2_limit(cluster_size: int | None = None, extended_l2: bool | None = None) -> int:
    """The largest capacity: QEMU's L1 table has at most 32 MiB; each 8 bytes of it lead to a cluster of L2 entries."""
    cluster = cluster_size or DEFAULT_CLUSTER_SIZE
    return _L1_LIMIT // 8 * (cluster // (16 if extended_l2 else 8)) * cluster


def qcow2_problem(volume: Volume) -> str:
    """Why qemu-img can't make this combination of declared options, "" when it can. Its size is another matter."""
    compat = volume.compat or DEFAULT_COMPAT
    cluster = volume.cluster_size or DEFAULT_CLUSTER_SIZE
    if compat not in COMPATS:
        return f"compat is {compat}, and can be {' or '.join(COMPATS)}"
    if volume.cluster_size is not None and not (512 <= volume.cluster_size <= 2**21 and cluster & (cluster - 1) == 0):
        return f"cluster_size is {volume.cluster_size} bytes, and must be a power of two between 512 bytes and 2 MiB"
    if volume.preallocation is not None and volume.preallocation not in PREALLOCATIONS:
        return f"preallocation is {volume.preallocation}, and can be {', '.join(PREALLOCATIONS)}"
    if compat == "0.10":
        for name in ("lazy_refcounts", "extended_l2"):
            if getattr(volume, name):
                return f"{name} needs compat 1.1"
    if volume.extended_l2 and cluster < 16384:
        return f"extended_l2 needs a cluster_size of at least 16 KiB, not {format_size(cluster)}"
    # qemu-img(1) lists the modes and says nothing of backing files. The program does: "Backing file and preallocation
    # can only be used at the same time if extended_l2 is on" (before 5.2: never). Without subclusters a preallocated
    # cluster would hide what the backing file holds.
    if volume.backing is not None and volume.preallocation not in (None, "off") and not volume.extended_l2:
        return f"preallocation {volume.preallocation} on a backing file needs extended_l2"
    return ""
