# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The targets that iSCSI servers offer to an initiator, each with how many disks it has, where it tells them.

They are asked by the tools of libiscsi, which keep nothing of it. Where these are missing, that of the kernel's
sessions (iscsiadm(8)) asks for what pools of these could be made from: it is told to keep nothing, and can't be told
who asks.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ..host.iscsi import Portal, own_name
from ..host.libiscsi import LIST, Account, Server, offered
from ..host.reach import ensure_listening
from ..model.discovery import Discovery, FoundSource, Query, Unanswered
from ..model.errors import StorageError
from ..model.operations import Secret
from ..model.pool import Source, SourceDevice, SourceHost
from ..model.types import ISCSI_PORT, POOL_TYPES

if TYPE_CHECKING:
    from ..host.look import Look

_WORKERS = 16
_KERNELS_TOOL = "iscsiadm"
_Answer = dict[str, "tuple[int, ...] | None"]


def find(query: Query, look: Look) -> Discovery:
    """Everything that the servers offer, and who of them did not answer."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_WORKERS, max(1, len(query.portals)))) as workers:
        told = list(workers.map(lambda host: _asked(host, query, look), query.portals))
    sources: list[FoundSource] = []
    unanswered: list[Unanswered] = []
    for host, answer in zip(query.portals, told):
        if isinstance(answer, StorageError):
            unanswered.append(Unanswered(host.name, "", answer))
        else:
            sources += [_found(host, name, disks, query) for name, disks in answer.items()]
    return Discovery(tuple(sources), tuple(unanswered), len(told) > len(unanswered), port=ISCSI_PORT)


def _found(host: SourceHost, name: str, disks: tuple[int, ...] | None, query: Query) -> FoundSource:
    source = Source(hosts=(host,), devices=(SourceDevice(name),), initiator=query.initiator)
    return FoundSource(source, volumes=None if disks is None else len(disks))


def _asked(host: SourceHost, query: Query, look: Look) -> _Answer | StorageError:
    named = query.initiator is not None or query.username is not None
    try:
        if shutil.which(LIST) is None and _is_of_the_kernel(query.type) and not named and shutil.which(_KERNELS_TOOL):
            return _by_the_kernels_tool(host, look)
        return offered(_server(host, query), lambda: look.left(host.name))
    except StorageError as error:
        return error


def _is_of_the_kernel(kind: str) -> bool:
    return POOL_TYPES[kind].volumes == "block"


def _server(host: SourceHost, query: Query) -> Server:
    """The kernel's sessions are those of the host's own initiator, unless another one is named."""
    initiator = query.initiator or (own_name() if _is_of_the_kernel(query.type) else "")
    account = None if query.username is None else Account(query.username, Secret(query.password or ""))
    return Server(Portal(host.name, host.port or ISCSI_PORT), initiator, account)


def _by_the_kernels_tool(host: SourceHost, look: Look) -> _Answer:
    from ..host import iscsiadm

    portal = Portal(host.name, host.port or ISCSI_PORT)
    ensure_listening(portal.host, portal.port, look.left(host.name))
    offers = iscsiadm.offers_at(portal, look.left(host.name))
    return {offer.target: None for offer in offers}
