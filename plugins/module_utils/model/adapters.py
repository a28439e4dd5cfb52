# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""When two host adapters are one (libvirt, storage driver: duplicates): there are several ways to say which is meant.
``hosts``: by adapter, the number of the SCSI host that it leads to, or NOT_THERE, and of a virtual one also that of the
host that it is on, or is to be on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace

from .pool import Adapter

FC_HOST = "fc_host"
_NAME = re.compile(r"(?:scsi_|fc_)?host([0-9]{1,9})\Z", re.ASCII)
NOT_THERE = -1

Hosts = Mapping[Adapter, tuple[int, ...]]


def number_of(name: str | None) -> int | None:
    """The number of the SCSI host that is called so: ``scsi_host2``, ``fc_host2`` or ``host2``."""
    match = _NAME.match(name or "")
    return None if match is None else int(match.group(1))


def world_wide_name(text: str | None) -> str:
    """As it is written to the kernel: 16 digits."""
    return (text or "").lower().removeprefix("0x")


def spoken(adapter: Adapter) -> str:
    """Which one is meant, in words."""
    if adapter.type == FC_HOST:
        return f"the Fibre Channel host {world_wide_name(adapter.wwpn)}"
    if adapter.name is not None:
        return f"the SCSI host {adapter.name}"
    return f"the SCSI host at {adapter.parent_address} with the unique id {adapter.unique_id}"


def goes_with_pool(adapter: Adapter | None) -> bool:
    """Whether a daemon takes it down with its pool, as it takes down what is none: it notes those that it has made."""
    return adapter is None or (adapter.type == FC_HOST and adapter.managed is True)


def is_same(one: Adapter, other: Adapter, hosts: Hosts) -> bool:
    """Whether both are the same SCSI host, as far as that is known."""
    if one.type == other.type == FC_HOST:
        return _names(one) == _names(other)
    mine, theirs = _host(one, hosts), _host(other, hosts)
    return one == other or (mine == theirs != NOT_THERE)


def in_conflict(one: Adapter, other: Adapter, hosts: Hosts) -> bool:
    """Whether no two pools may have them: the same host, or a virtual one and the host that it is on."""
    if is_same(one, other, hosts):
        return True
    both_fc = one.type == other.type == FC_HOST
    return not both_fc and bool(({*hosts.get(one, ())} & {*hosts.get(other, ())}) - {NOT_THERE})


def keep_adapter(wanted: Adapter, existing: Adapter, hosts: Hosts) -> Adapter:
    """The wanted one as a definition has it that says the same in other words: these stay, with what else is said."""
    if not is_same(wanted, existing, hosts):
        return wanted
    if wanted.type != FC_HOST or existing.type != FC_HOST:
        return existing
    said = {field.name: getattr(wanted, field.name) for field in fields(Adapter)}
    more = {name: value for name, value in said.items() if value is not None and name not in ("wwnn", "wwpn")}
    return replace(existing, **more)


def _host(adapter: Adapter, hosts: Hosts) -> int:
    """Without a look at the host its name tells."""
    named = number_of(adapter.name)
    return hosts[adapter][0] if adapter in hosts else NOT_THERE if named is None else named


def _names(adapter: Adapter) -> tuple[str, str]:
    return world_wide_name(adapter.wwnn), world_wide_name(adapter.wwpn)
