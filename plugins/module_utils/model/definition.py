# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a pool says in the one form in which its definition keeps it, so that what is declared and what is found compare
as they are; what a definition has besides, and what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .pool import UNDECLARED, Pool, Source, SourceHost
from .types import POOL_TYPES, PoolType

if TYPE_CHECKING:
    from .adapters import Hosts

_SLASHES = re.compile("/+")
_UUID = re.compile(r"\s*(?:[- ]*[0-9a-fA-F]{2}){16}\s*\Z", re.ASCII)
_NOT_HEX = re.compile(r"[^0-9a-fA-F]")


def sanitise_path(path: str) -> str:
    """``path`` with runs of slashes collapsed and the trailing one dropped; ``..`` and symlinks are left alone.

    Exactly two leading slashes stay, as POSIX has it, and so does a URI (``://`` before any other slash).
    """
    scheme = path.find("://")
    if scheme >= 0 and path.find("/") > scheme:
        return path
    head = "//" if path.startswith("//") and not path.startswith("///") else ""
    cleaned = head + _SLASHES.sub("/", path[len(head) :])
    return cleaned if cleaned in ("/", "//") else cleaned.rstrip("/")


def plain_uuid(text: str) -> str | None:
    """A UUID in lower case with its four dashes, read as liberally as libvirt reads it; None when it is none."""
    if not _UUID.match(text):
        return None
    digits = _NOT_HEX.sub("", text).lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def fixed_path(row: PoolType, source_name: str | None) -> str | None:
    """Where pools of a type with a fixed target are; None for types without one."""
    if row.target in ("declared", "none") or not source_name:
        return None
    return row.target.format(name=source_name)


def normal(pool: Pool) -> Pool:
    """The same said in the form of a definition. Nothing is added but what follows from what is said; an empty list
    stays, since it says that there are none.
    """
    row = POOL_TYPES.get(pool.type or "")
    source, path, permissions = pool.source, pool.path or None, pool.permissions
    if source != Source():
        from .sources import normal_source

        source = normal_source(source)
    if row is not None and row.target != "declared":
        path = fixed_path(row, source.name)
        permissions = UNDECLARED if row.target == "none" else permissions
    uuid = (plain_uuid(pool.uuid) or pool.uuid) if pool.uuid else None
    said: dict[str, Any] = {
        "uuid": uuid,
        "path": path and sanitise_path(path),
        "permissions": permissions,
        "source": source,
    }
    return pool if all(getattr(pool, name) == value for name, value in said.items()) else replace(pool, **said)


def whole(pool: Pool) -> Pool:
    """A whole definition in normal form: a source that is called like the pool has its name, and a secret has one."""
    if POOL_TYPES[pool.type or ""].named_by_pool and not pool.source.name:
        pool = replace(pool, source=replace(pool.source, name=pool.name))
    return normal(_with_reference(pool))


def with_usual(pool: Pool) -> Pool:
    """A new definition with the usual path and ports where it is declared without."""
    row = POOL_TYPES[pool.type or ""]
    if row.default_path and not pool.path:
        pool = replace(pool, path=row.default_path)
    if row.port and pool.source.hosts:
        pool = replace(pool, source=replace(pool.source, hosts=_with_ports(pool.source, row)))
    return pool


def _with_ports(source: Source, row: PoolType) -> tuple[SourceHost, ...]:
    """Its hosts, each with its port, as a daemon writes them when it starts the pool."""
    return tuple(replace(host, port=host.port or row.port or None) for host in source.hosts or ())


def _with_reference(pool: Pool, existing: Pool | None = None) -> Pool:
    if pool.secret is None:
        return pool
    from .secrets import with_reference

    return with_reference(pool, existing)


def defined(pool: Pool) -> Pool:
    """A pool as its definition has it, which knows no formats but libvirt's."""
    row = POOL_TYPES.get(pool.type or "")
    if row is None or pool.source.format not in row.own_formats:
        return pool
    return replace(pool, source=replace(pool.source, format=row.default_format))


def keep_names(wanted: Pool, existing: Pool, resolved: Mapping[str, str], adapters: Hosts) -> Pool:
    """A device by another path is the same device, a host adapter by another name the same adapter, the usual port the
    one that is left out: the definition keeps its own, and its name of a secret where none is declared. ``resolved``:
    what paths lead to, ``adapters``: see adapters.py.
    """
    wanted = _with_reference(wanted, existing)
    row = POOL_TYPES.get(existing.type or "")
    if row is not None and row.port and wanted.source.hosts:
        hosts = _with_ports(wanted.source, row)
        same = hosts == _with_ports(existing.source, row)
        wanted = replace(wanted, source=replace(wanted.source, hosts=existing.source.hosts if same else hosts))
    if wanted.source.adapter is not None and existing.source.adapter is not None:
        from .adapters import keep_adapter

        adapter = keep_adapter(wanted.source.adapter, existing.source.adapter, adapters)
        wanted = replace(wanted, source=replace(wanted.source, adapter=adapter))
    names = {resolved[device.path]: device.path for device in existing.source.devices or () if device.path in resolved}
    if not names or not wanted.source.devices:
        return wanted
    devices = tuple(
        replace(device, path=names.get(resolved.get(device.path, ""), device.path)) for device in wanted.source.devices
    )
    return replace(wanted, source=replace(wanted.source, devices=devices))


def with_defaults(pool: Pool) -> Pool:
    """A whole definition with what libvirt fills in when it reads one: format and directory."""
    row, source = POOL_TYPES[pool.type or ""], pool.source
    if (source.dir or not row.default_dir) and (source.format or not row.default_format):
        return pool
    filled = replace(source, dir=source.dir or row.default_dir, format=source.format or row.default_format)
    return replace(pool, source=filled)


def unordered(options: tuple[tuple[str, str], ...] | None) -> list[tuple[str, str]]:
    """Options of Ceph by their names: a definition keeps an order of them that says nothing."""
    return sorted(options or (), key=lambda option: option[0])


def lacking(pool: Pool, starting: bool = True) -> tuple[str, ...]:
    """What a pool needs and does not say. ``starting``: also what libvirt asks for only when the pool is started, which
    is devices beside other requirements.
    """
    row = POOL_TYPES[pool.type or ""]
    names = [f"source.{name}" for name in row.required if getattr(pool.source, name) in (None, ())]
    if row.named_by_pool:
        names = [name for name in names if name != "source.name"]
    if not starting and row.required != ("devices",):
        names = [name for name in names if name != "source.devices"]
    if row.target == "declared" and pool.path is None:
        names.append("path")
    return tuple(names)
