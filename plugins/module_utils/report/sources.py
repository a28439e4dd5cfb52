# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Records of what pools could be made from. ``source`` is in the words of the option of storage_pool."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..model.discovery import FoundSource, Unanswered
from ..model.facts import noun_facts
from ..model.pool import Source, SourceHost, at_port
from ..model.types import POOL_TYPES

# What a record can have. The documentation of the module lists the same.
SOURCE_FIELDS = (
    "type", "source", "free", "why_not", "kind", "path", "size", "available", "content", "label", "uuid", "volumes",
    "clients", "comment",
)  # fmt: skip
_FACTS = SOURCE_FIELDS[4:]


def source_record(kind: str, found: FoundSource) -> dict[str, Any]:
    record: dict[str, Any] = {"type": kind, "source": as_option(_of_pool(found.source, kind)), "free": found.free}
    if not found.free:
        record["why_not"] = list(found.why_not)
    for name in _FACTS:
        value = getattr(found, name)
        if value is not None:
            record[name] = list(value) if isinstance(value, tuple) else value
    return record


def _of_pool(source: Source, kind: str) -> Source:
    """What a pool of the type says of it: one that has all there is of its kind says nothing."""
    row = POOL_TYPES[kind]
    known = (*row.required, *row.optional)
    return Source(**{field.name: getattr(source, field.name) for field in fields(Source) if field.name in known})


def as_option(source: Source) -> dict[str, Any]:
    """One host or device is said as such; several are a list."""
    option: dict[str, Any] = {}
    devices = [device.path for device in source.devices or ()]
    are_paths = all(text.startswith("/") for text in devices)
    for one, many, texts in (
        ("host", "hosts", [_host(host) for host in source.hosts or ()]),
        ("device" if are_paths else "iqn", "devices", devices),
    ):
        if texts:
            option.update({one: texts[0]} if len(texts) == 1 else {many: texts})
    for name in ("dir", "name", "initiator", "format"):
        if getattr(source, name) is not None:
            option[name] = getattr(source, name)
    if source.adapter is not None:
        option["adapter"] = noun_facts(source.adapter)
    return option


def _host(host: SourceHost) -> str:
    return host.name if host.port is None else at_port(host.name, host.port)


def missing_record(source: Source, why: str) -> dict[str, Any]:
    return {"source": as_option(source), "why": why}


def unanswered_record(silent: Unanswered) -> dict[str, Any]:
    """A server, and the protocol that it was asked by; or a device."""
    if silent.host.startswith("/"):
        return {"device": silent.host, **silent.error.as_dict()}
    return {"host": silent.host, "format": silent.format, **silent.error.as_dict()}
