# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The modules of each pool type, by its name: Ansible sends a host only the files whose imports it can read. They are
imported only when needed: see docs/architecture.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import Backend, Finder


def backend_of(pool_type: str | None) -> Backend | None:
    """None where there is none yet."""
    if pool_type == "dir":
        from . import dir as backend

        return backend
    if pool_type == "fs":
        from . import fs

        return fs
    if pool_type == "disk":
        from . import disk

        return disk
    if pool_type == "logical":
        from . import logical

        return logical
    if pool_type == "netfs":
        from . import netfs

        return netfs
    if pool_type == "scsi":
        from . import scsi

        return scsi
    if pool_type == "mpath":
        from . import mpath

        return mpath
    if pool_type == "iscsi":
        from . import iscsi

        return iscsi
    if pool_type == "iscsi-direct":
        from . import iscsi_direct

        return iscsi_direct
    return None


def finder_of(pool_type: str) -> Finder | None:
    """None for types whose sources nobody looks for here."""
    if pool_type == "logical":
        from . import logical_sources

        return logical_sources
    if pool_type in ("fs", "disk"):
        from . import device_sources

        return device_sources
    if pool_type in ("netfs", "gluster"):
        from . import netfs_sources

        return netfs_sources
    if pool_type == "scsi":
        from . import scsi_sources

        return scsi_sources
    if pool_type == "mpath":
        from . import mpath_sources

        return mpath_sources
    if pool_type in ("iscsi", "iscsi-direct"):
        from . import iscsi_sources

        return iscsi_sources
    return None
