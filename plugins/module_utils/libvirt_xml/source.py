# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The ``<source>`` element of a pool: one reader and one writer per field, in the order in which libvirt prints them.

A reader gives the value of the field, None when it is not there; a writer puts a value into the tree. What a writer
doesn't know (other attributes, other children) stays as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable

from ..model.pool import Adapter, Auth, Source, SourceDevice, SourceHost
from ..model.sources import normal_source, pci_numbers, source_problem
from ..model.types import ALWAYS_READ, PoolType
from . import _tree
from .fields import as_yes_no, attribute_of, number, text_of, yes_no

_PORT_LIMIT = 2**31 - 1
_PCI_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})\Z")
_PCI_PARTS = (("domain", 0xFFFF, 4), ("bus", 0xFF, 2), ("slot", 0x1F, 2), ("function", 7, 1))
_FC_ATTRIBUTES = ("parent", "parent_wwnn", "parent_wwpn", "parent_fabric_wwn", "managed", "wwnn", "wwpn")
_NEEDS_TYPE = ("wwnn", "wwpn", "parent")


@dataclass(frozen=True)
class _Field:
    """A field of Source: its element, how it is read from ``<source>`` and how it is written into it."""

    name: str
    tag: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None]


def uses(row: PoolType, name: str) -> bool:
    """Whether libvirt reads and prints this field of Source for this type of pool."""
    if name == "format":
        return bool(row.formats)
    return name in row.required or name in row.optional or name in ALWAYS_READ


def tags_of(row: PoolType) -> tuple[str, ...]:
    """The elements that a source of this type holds."""
    return tuple(field.tag for field in _FIELDS if uses(row, field.name))


def read_source(element: Any, row: PoolType) -> Source:
    """The fields that this type uses. ``element`` may be None."""
    if element is None:
        return Source()
    source = normal_source(Source(**{field.name: field.read(element) for field in _FIELDS if uses(row, field.name)}))
    problem = source_problem(source, row, own=False)
    if problem is not None:
        raise _tree.invalid(problem[1], problem[2])
    return source


def write_source(element: Any, source: Source, row: PoolType) -> None:
    """Put the declared fields that this type uses into ``element``; those that it doesn't use go."""
    for field in _FIELDS:
        value = getattr(source, field.name)
        if field.name == "format" and value in row.own_formats:
            value = row.default_format
        if not uses(row, field.name):
            _tree.drop(element, field.tag)
        elif value is not None:
            field.write(element, value)
    _tree.arrange(element, tuple(field.tag for field in _FIELDS))


def _required(element: Any, name: str) -> str:
    value: str | None = element.get(name)
    if not value:
        raise _tree.invalid(f"source/{element.tag}: the attribute {name} is missing")
    return value


# ---- lists


def _read_hosts(source: Any) -> tuple[SourceHost, ...] | None:
    return tuple(_read_host(node) for node in source.findall("host")) or None


def _read_host(node: Any) -> SourceHost:
    return SourceHost(_required(node, "name"), _port(node.get("port")))


def _port(text: str | None) -> int | None:
    """0 is how libvirt says that there is none."""
    return None if text is None else number(text, "source/host/port", high=_PORT_LIMIT) or None


def _write_hosts(source: Any, hosts: tuple[SourceHost, ...]) -> None:
    for node, host in _matched(source, "host", "name", hosts, lambda host: host.name):
        _tree.set_attributes(node, {"name": host.name, "port": str(host.port) if host.port else None})


def _read_devices(source: Any) -> tuple[SourceDevice, ...] | None:
    return tuple(_read_device(node) for node in source.findall("device")) or None


def _read_device(node: Any) -> SourceDevice:
    return SourceDevice(_required(node, "path"), yes_no(node.get("part_separator"), "source/device/part_separator"))


def _write_devices(source: Any, devices: tuple[SourceDevice, ...]) -> None:
    for node, device in _matched(source, "device", "path", devices, lambda device: device.path):
        _tree.set_attributes(node, {"path": device.path, "part_separator": as_yes_no(device.part_separator)})


def _matched(source: Any, tag: str, key: str, values: tuple, key_of: Callable[[Any], str]) -> list[tuple[Any, Any]]:
    """An element per value, in this order: the one that has its key already, else a new one. The others go."""
    old = source.findall(tag)
    _tree.drop(source, tag)
    pairs = []
    for value in values:
        node = next((node for node in old if node.get(key) == key_of(value)), None)
        if node is None:
            node = _tree.new_child(source, tag)
        else:
            old.remove(node)
            source.append(node)
        pairs.append((node, value))
    return pairs


# ---- adapters


def _read_adapter(source: Any) -> Adapter | None:
    node = source.find("adapter")
    if node is None:
        return None
    kind = node.get("type")
    if kind is None:
        return _read_legacy_adapter(node)
    return _ADAPTERS[kind][0](node) if kind in _ADAPTERS else Adapter(type=kind)


def _read_legacy_adapter(node: Any) -> Adapter:
    """Before adapters had a type they were SCSI hosts with a name."""
    needing = [name for name in _NEEDS_TYPE if node.get(name)]
    if needing or node.find("parentaddr") is not None:
        raise _tree.invalid(f"source/adapter: {(needing or ['parentaddr'])[0]} is given without a type")
    return Adapter(type="scsi_host", name=_required(node, "name"))


def _read_scsi_host(node: Any) -> Adapter:
    name, parent = node.get("name") or None, node.find("parentaddr")
    if parent is None:
        return Adapter(type="scsi_host", name=name)
    address = parent.find("address")
    if address is None:
        raise _tree.invalid("source/adapter/parentaddr: the address is missing")
    unique_id = number(_required(parent, "unique_id"), "source/adapter/parentaddr/unique_id")
    return Adapter(type="scsi_host", name=name, parent_address=_read_pci_address(address), unique_id=unique_id)


def _read_pci_address(node: Any) -> str:
    values = tuple(_pci_number(node, name, limit) for name, limit, _width in _PCI_PARTS)
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*values)


def _pci_number(node: Any, name: str, limit: int) -> int:
    text = node.get(name) or "0"
    value = _c_number(text) if _PCI_NUMBER.match(text) else -1
    if not 0 <= value <= limit:
        raise _tree.invalid(f"source/adapter/parentaddr/address: {name} {text!r} is not a number up to {limit:#x}")
    return value


def _c_number(text: str) -> int:
    """As in C: 0x is hexadecimal, a leading zero octal. -1 when it is neither of these nor decimal."""
    octal = text.startswith("0") and text.isdigit()
    try:
        return int(text, 8 if octal else 0)
    except ValueError:
        return -1


def _write_scsi_host(node: Any, adapter: Adapter) -> None:
    _tree.set_attributes(node, {"type": "scsi_host", "name": adapter.name, **dict.fromkeys(_FC_ATTRIBUTES)})
    if adapter.parent_address is None:
        _tree.drop(node, "parentaddr")
        return
    parent = _tree.child(node, "parentaddr")
    _tree.set_attributes(parent, {"unique_id": None if adapter.unique_id is None else str(adapter.unique_id)})
    _tree.set_attributes(_tree.child(parent, "address"), _pci_attributes(adapter.parent_address))


def _pci_attributes(text: str) -> dict[str, str | None]:
    numbers = pci_numbers(text)
    if numbers is None:
        raise _tree.invalid(f"source/adapter: {text!r} is not a PCI address such as 0000:00:1f.2")
    return {name: f"0x{value:0{width}x}" for (name, _limit, width), value in zip(_PCI_PARTS, numbers)}


def _read_fc_host(node: Any) -> Adapter:
    values: dict[str, Any] = {name: node.get(name) or None for name in _FC_ATTRIBUTES}
    return Adapter(type="fc_host", **{**values, "managed": yes_no(node.get("managed"), "source/adapter/managed")})


def _write_fc_host(node: Any, adapter: Adapter) -> None:
    _tree.drop(node, "parentaddr")
    values = {name: getattr(adapter, name) for name in _FC_ATTRIBUTES}
    _tree.set_attributes(node, {"type": "fc_host", **values, "managed": as_yes_no(adapter.managed), "name": None})


_ADAPTERS: dict[str, tuple[Callable[[Any], Adapter], Callable[[Any, Adapter], None]]] = {
    "scsi_host": (_read_scsi_host, _write_scsi_host),
    "fc_host": (_read_fc_host, _write_fc_host),
}


def _write_adapter(source: Any, adapter: Adapter) -> None:
    kind = adapter.type or ""
    if kind not in _ADAPTERS:
        raise _tree.invalid(f"source/adapter: the type {kind!r} is neither {' nor '.join(_ADAPTERS)}")
    _ADAPTERS[kind][1](_tree.child(source, "adapter"), adapter)


# ---- authentication


def _read_auth(source: Any) -> Auth | None:
    node = source.find("auth")
    if node is None:
        return None
    uuid, usage = attribute_of(node, "secret", "uuid"), attribute_of(node, "secret", "usage")
    return Auth(_required(node, "type"), _required(node, "username"), secret_uuid=uuid, secret_usage=usage)


def _write_auth(source: Any, auth: Auth) -> None:
    node = _tree.child(source, "auth")
    _tree.set_attributes(node, {"type": auth.type, "username": auth.username})
    secret = _tree.child(node, "secret")
    _tree.set_attributes(secret, {"uuid": auth.secret_uuid, "usage": auth.secret_usage})


# ---- single values


def _read_dir(source: Any) -> str | None:
    return attribute_of(source, "dir", "path")


def _write_dir(source: Any, path: str) -> None:
    _tree.set_attributes(_tree.child(source, "dir"), {"path": path})


def _write_name(source: Any, name: str) -> None:
    _tree.set_text(_tree.child(source, "name"), name)


def _write_initiator(source: Any, iqn: str) -> None:
    _tree.set_attributes(_tree.child(_tree.child(source, "initiator"), "iqn"), {"name": iqn})


def _attribute(name: str, tag: str, key: str) -> _Field:
    """A field that is one attribute of one element."""

    def write(source: Any, value: str) -> None:
        _tree.set_attributes(_tree.child(source, tag), {key: value})

    return _Field(name, tag, lambda source: attribute_of(source, tag, key), write)


_FIELDS = (
    _Field("hosts", "host", _read_hosts, _write_hosts),
    _Field("devices", "device", _read_devices, _write_devices),
    _Field("dir", "dir", _read_dir, _write_dir),
    _Field("adapter", "adapter", _read_adapter, _write_adapter),
    _Field("name", "name", lambda source: text_of(source, "name"), _write_name),
    _Field("initiator", "initiator", lambda source: attribute_of(source, "initiator/iqn", "name"), _write_initiator),
    _attribute("format", "format", "type"),
    _Field("auth", "auth", _read_auth, _write_auth),
    _attribute("protocol_version", "protocol", "ver"),
    _attribute("vendor", "vendor", "name"),
    _attribute("product", "product", "name"),
)
