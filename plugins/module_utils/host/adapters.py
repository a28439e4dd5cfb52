# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""SCSI hosts, and those of Fibre Channel among them, as sysfs shows them (the kernel's Documentation/scsi,
scsi_fc_transport), and which of them an adapter of a pool means (formatstorage: "Source elements", adapter).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..model.adapters import FC_HOST, NOT_THERE, Hosts, number_of, world_wide_name
from ..model.found import Problem
from ..model.pool import Adapter
from ..model.sources import pci_numbers
from .block import attribute

_SYS = "/sys"
_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_HOST = re.compile(r"host([0-9]+)\Z")
_VPORT = "vport-"
_ONLINE = "Online"
_LIST = "See which ones are there: lsscsi --hosts, or storage_pool_sources with type: scsi."


class ScsiHost(NamedTuple):
    """``places`` are the PCI addresses of what it is on, the nearest first. ``wwnn`` and ``wwpn`` are those of a Fibre
    Channel host, else empty; ``parent`` is the number of the host that a virtual one is on. ``session``: it is that of
    an iSCSI session.
    """

    number: int
    unique_id: int | None
    places: tuple[str, ...]
    driver: str
    wwnn: str = ""
    wwpn: str = ""
    parent: int | None = None
    session: bool = False


def scsi_hosts() -> tuple[ScsiHost, ...]:
    """All of them, in the order of their numbers."""
    try:
        names = os.listdir(f"{_SYS}/class/scsi_host")
    except OSError:
        return ()
    return tuple(map(_scsi_host, sorted(number for number in map(number_of, names) if number is not None)))


def _scsi_host(number: int) -> ScsiHost:
    directory = f"{_SYS}/class/scsi_host/host{number}"
    parts = os.path.realpath(directory).split("/")
    unique = attribute(directory, "unique_id")
    fc = _fc_directory(number)
    return ScsiHost(
        number,
        int(unique) if unique.isdigit() else None,
        tuple(filter(_PCI.match, reversed(parts))),
        attribute(directory, "proc_name"),
        world_wide_name(attribute(fc, "node_name")),
        world_wide_name(attribute(fc, "port_name")),
        _parent(parts),
        os.path.exists(f"{_SYS}/class/iscsi_host/host{number}"),
    )


def _parent(parts: list[str]) -> int | None:
    """The host in whose directory that of its port is."""
    port = next((index for index, part in enumerate(parts) if part.startswith(_VPORT)), 0)
    match = _HOST.match(parts[port - 1]) if port else None
    return None if match is None else int(match.group(1))


def _fc_directory(number: int) -> str:
    return f"{_SYS}/class/fc_host/host{number}"


# --- which one is meant ----------------------------------------------------------------------------------------------


class Meant(NamedTuple):
    """``host`` is there, or a virtual one can be made on ``parent``; else ``problem`` says why not."""

    host: ScsiHost | None = None
    parent: int | None = None
    problem: Problem | None = None


def meant_by(adapter: Adapter, known: Iterable[ScsiHost] | None = None) -> Meant:
    hosts = tuple(scsi_hosts() if known is None else known)
    if adapter.type == FC_HOST:
        return _fc_host(adapter, hosts)
    return _by_name(adapter.name, hosts) if adapter.parent_address is None else _by_address(adapter, hosts)


def hosts_of(adapters: Iterable[Adapter]) -> Hosts:
    """See model/adapters.py."""
    known = scsi_hosts()
    return {adapter: _numbers(adapter, known) for adapter in adapters}


def _numbers(adapter: Adapter, known: tuple[ScsiHost, ...]) -> tuple[int, ...]:
    host, parent, _problem = meant_by(adapter, known)
    own = NOT_THERE if host is None else host.number
    above = host.parent if host is not None else parent if _says_parent(adapter) else None
    return (own,) if above is None else (own, above)


def _not_there(what: str) -> Problem:
    return Problem("source_missing", f"there is no {what} on this host", _LIST)


def _by_name(name: str | None, hosts: tuple[ScsiHost, ...]) -> Meant:
    number = number_of(name)
    if number is None:
        what = f"source.adapter.name: {name!r} is no name of a SCSI host"
        return Meant(problem=Problem("invalid_option", what, "Give one such as scsi_host2."))
    host = next((each for each in hosts if each.number == number), None)
    return Meant(host) if host is not None else Meant(problem=_not_there(f"SCSI host {name}"))


def _by_address(adapter: Adapter, hosts: tuple[ScsiHost, ...]) -> Meant:
    """Below a bridge there may be several hosts of one id: then those right at the address are meant."""
    alike = [each for each in hosts if each.unique_id == adapter.unique_id and each.parent is None]
    wanted = pci_numbers(adapter.parent_address or "")
    near = [each for each in alike if each.places and pci_numbers(each.places[0]) == wanted]
    found = near or [each for each in alike if wanted in map(pci_numbers, each.places)]
    what = f"SCSI host at {adapter.parent_address} with the unique id {adapter.unique_id}"
    if len(found) > 1:
        names = ", ".join(f"host{each.number}" for each in found)
        problem = Problem("storage_foreign", f"there are several of the {what}: {names}", "Give one of them by name.")
        return Meant(problem=problem)
    return Meant(found[0]) if found else Meant(problem=_not_there(what))


def _fc_host(adapter: Adapter, hosts: tuple[ScsiHost, ...]) -> Meant:
    wanted = world_wide_name(adapter.wwnn), world_wide_name(adapter.wwpn)
    host = next((each for each in hosts if (each.wwnn, each.wwpn) == wanted), None)
    parent = _parent_of(adapter, hosts)
    if host is None:
        return parent
    if _says_parent(adapter) and parent.parent != host.parent and host.parent is not None:
        what = f"the virtual host adapter {wanted[1]} is on host{host.parent}, not on the parent that is declared"
        return Meant(problem=Problem("storage_foreign", what, "Leave the parent out, or name that one."))
    return Meant(host)


# --- where virtual ones can be ---------------------------------------------------------------------------------------


def _says_parent(adapter: Adapter) -> bool:
    return bool(adapter.parent or adapter.parent_wwnn or adapter.parent_fabric_wwn)


def _parent_of(adapter: Adapter, hosts: tuple[ScsiHost, ...]) -> Meant:
    if not _says_parent(adapter):
        free = next((each.number for each in hosts if _is_free(each)), None)
        return Meant(parent=free) if free is not None else Meant(problem=_not_there(_none_free(adapter)))
    named = next((each for each in hosts if _is_parent(each, adapter)), None)
    if named is None:
        return Meant(problem=_not_there("Fibre Channel host that is declared as the parent"))
    if vport_file(named.number, "create") is None:
        what = f"host{named.number} can have no virtual host adapters"
        return Meant(problem=Problem("not_supported", what, "Name another parent, or the adapter that is there."))
    return Meant(parent=named.number)


def _none_free(adapter: Adapter) -> str:
    name = world_wide_name(adapter.wwpn)
    return f"Fibre Channel host {name}, and none that is online and can have it as another virtual host adapter,"


def _is_parent(host: ScsiHost, adapter: Adapter) -> bool:
    """By its name, its own names, or that of its fabric."""
    if not host.wwpn or host.parent is not None:
        return False
    if adapter.parent is not None:
        return host.number == number_of(adapter.parent)
    if adapter.parent_wwnn is not None:
        wanted = world_wide_name(adapter.parent_wwnn), world_wide_name(adapter.parent_wwpn)
        return (host.wwnn, host.wwpn) == wanted
    fabric = world_wide_name(attribute(_fc_directory(host.number), "fabric_name"))
    return fabric == world_wide_name(adapter.parent_fabric_wwn)


def _is_free(host: ScsiHost) -> bool:
    if host.parent is not None or vport_file(host.number, "create") is None:
        return False
    fc = _fc_directory(host.number)
    most, used = (attribute(fc, name) for name in ("max_npiv_vports", "npiv_vports_inuse"))
    room = most.isdigit() and used.isdigit() and int(used) < int(most)
    return room and attribute(fc, "port_state") == _ONLINE


def vport_file(number: int, doing: str) -> str | None:
    """Where the kernel is told to create or delete a virtual host adapter; drivers have it in one of two places."""
    places = (f"{_SYS}/class/{kind}/host{number}/vport_{doing}" for kind in ("fc_host", "scsi_host"))
    return next(filter(os.path.exists, places), None)
