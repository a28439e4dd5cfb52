# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Host adapters that pools can be made of: all SCSI hosts but those of iSCSI sessions, each by what it keeps."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..host.adapters import ScsiHost, scsi_hosts
from ..host.scsi import host_directory, units
from ..model.adapters import FC_HOST
from ..model.discovery import Discovery, FoundSource, Query
from ..model.pool import Adapter, Source

if TYPE_CHECKING:
    from ..host.look import Look

_SCSI_HOST = "scsi_host"


def find(query: Query, look: Look) -> Discovery:
    hosts = [host for host in scsi_hosts() if not host.session]
    places = Counter(map(_place, hosts))
    return Discovery(tuple(_found(host, stays=places[_place(host)] == 1) for host in hosts))


def _place(host: ScsiHost) -> tuple[str, int | None]:
    return (host.places[0] if host.places else "", host.unique_id)


def _found(host: ScsiHost, stays: bool) -> FoundSource:
    """``stays``: its place tells it from all others."""
    adapter = _adapter(host, stays)
    served = units(host.number)
    return FoundSource(
        Source(adapter=adapter),
        kind=adapter.type,
        path=host_directory(host.number),
        size=sum(unit.device.size for unit in served if unit.device is not None),
        volumes=len(served),
        comment=host.driver or None,
    )


def _adapter(host: ScsiHost, stays: bool) -> Adapter:
    if host.wwpn:
        return Adapter(FC_HOST, wwnn=host.wwnn, wwpn=host.wwpn)
    if stays and host.places and host.unique_id is not None:
        return Adapter(_SCSI_HOST, parent_address=host.places[0], unique_id=host.unique_id)
    return Adapter(_SCSI_HOST, name=f"host{host.number}")
