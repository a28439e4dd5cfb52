# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Nouns as plain facts: the words and values of diffs, plans and records. Only what is known is in them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from .change import UNKNOWN
from .pool import Permissions, Pool, Source
from .units import format_mode
from .volume import Backing, Volume


def permissions_facts(permissions: Permissions) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if permissions.mode is not None:
        facts["mode"] = format_mode(permissions.mode)
    for name in ("owner", "group", "label"):
        if getattr(permissions, name) is not None:
            facts[name] = getattr(permissions, name)
    return facts


def noun_facts(noun: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not None, nested ones alike."""
    facts = {}
    for field in fields(noun):
        value = getattr(noun, field.name)
        if value is None:
            continue
        if isinstance(value, tuple):
            value = [noun_facts(item) if hasattr(item, "__dataclass_fields__") else item for item in value]
        elif hasattr(value, "__dataclass_fields__"):
            value = noun_facts(value)
        facts[field.name] = value
    return facts


def source_facts(source: Source) -> dict[str, Any]:
    return noun_facts(source)


def definition_facts(pool: Pool) -> dict[str, Any]:
    """What a definition says, in the words of the module's options."""
    facts: dict[str, Any] = {}
    for name in ("type", "uuid", "path"):
        if getattr(pool, name) is not None:
            facts[name] = getattr(pool, name)
    facts.update(permissions_facts(pool.permissions))
    source = source_facts(pool.source)
    if source:
        facts["source"] = source
    if pool.cow is not None:
        facts["features"] = {"cow": pool.cow}
    if pool.mount_options or pool.config_options:
        facts.update(_option_facts(pool))
    if pool.refresh_allocation is not None:
        facts["refresh_allocation"] = pool.refresh_allocation
    if pool.extras:
        facts["extras"] = list(pool.extras)
    return facts


def _option_facts(pool: Pool) -> dict[str, Any]:
    """As they are shown: a secret that is in them stays in the definition."""
    from .private import shown_option, shown_value

    facts: dict[str, Any] = {}
    if pool.mount_options:
        facts["mount_options"] = [shown_option(option) for option in pool.mount_options]
    if pool.config_options:
        facts["config_options"] = {name: shown_value(name, value) for name, value in pool.config_options}
    return facts


def backing_facts(backing: Backing) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": UNKNOWN if backing.path is None else backing.path}
    if backing.format is not None:
        facts["format"] = backing.format
    return facts


def volume_facts(volume: Volume) -> dict[str, Any]:
    """What can be declared of a volume and read back from it. Allocation is left out: it moves by itself."""
    facts: dict[str, Any] = {}
    for name in ("format", "capacity", "thin_pool", "compat", "cluster_size", "lazy_refcounts", "extended_l2"):
        if getattr(volume, name) is not None:
            facts[name] = getattr(volume, name)
    if volume.backing is not None:
        facts["backing"] = backing_facts(volume.backing)
    if volume.encryption is not None:
        facts["encryption"] = volume.encryption.format
    facts.update(permissions_facts(volume.permissions))
    return facts
