# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Multipath maps: all of them are in the one pool that a host can have of them, whoever else uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..host.multipath import maps, node_of
from ..host.scsi import MULTIPATH
from ..model.discovery import Discovery, FoundSource, Query
from ..model.pool import Source, SourceDevice

if TYPE_CHECKING:
    from ..host.look import Look


def find(query: Query, look: Look) -> Discovery:
    return Discovery(
        tuple(
            FoundSource(
                Source(devices=(SourceDevice(node_of(device)),)),
                kind=device.kind,
                path=node_of(device),
                size=device.size,
                uuid=device.dm_uuid[len(MULTIPATH) :],
            )
            for device in maps()
        )
    )
