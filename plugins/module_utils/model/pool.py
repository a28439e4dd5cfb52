# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The pool, as libvirt's pool XML has it: the same noun for what is declared and what is found.

``None`` means "not declared" or "not there". Sizes are bytes, modes are bits, owners are ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, cast


@dataclass(frozen=True)
class Permissions:
    """Owner and group as numeric ids, mode as bits, label as SELinux text."""

    mode: int | None = None
    owner: int | None = None
    group: int | None = None
    label: str | None = None


UNDECLARED = Permissions()


def at_port(host: str, port: int) -> str:
    """``HOST:PORT``; an address of IPv6 is in brackets there."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class SourceHost:
    name: str
    port: int | None = None


@dataclass(frozen=True)
class SourceDevice:
    path: str
    part_separator: bool | None = None


@dataclass(frozen=True)
class Adapter:
    """A SCSI or FC host adapter. ``parent_address`` is ``DDDD:BB:SS.F`` as in sysfs; wwnn and wwpn are hex text."""

    type: str | None = None
    name: str | None = None
    parent: str | None = None
    parent_address: str | None = None
    unique_id: int | None = None
    wwnn: str | None = None
    wwpn: str | None = None
    parent_wwnn: str | None = None
    parent_wwpn: str | None = None
    parent_fabric_wwn: str | None = None
    managed: bool | None = None


@dataclass(frozen=True)
class Auth:
    """``type`` is chap or ceph; the secret itself is never here, only a reference to it (one of uuid and usage)."""

    type: str
    username: str
    secret_uuid: str | None = None
    secret_usage: str | None = None


@dataclass(frozen=True)
class Login:
    """As whom one end shows itself to the other: to mount a share, where ``username`` may begin with a domain and a
    backslash, or to whom logs in to a target. It is in no definition.
    """

    username: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class SourceVolume:
    """A volume of another pool as the device of this one."""

    pool: str
    volume: str
    part_separator: bool | None = None

    def __str__(self) -> str:
        return f"{self.pool}/{self.volume}"


@dataclass(frozen=True)
class Source:
    hosts: tuple[SourceHost, ...] | None = None
    devices: tuple[SourceDevice, ...] | None = None
    dir: str | None = None
    adapter: Adapter | None = None
    name: str | None = None
    initiator: str | None = None
    format: str | None = None
    auth: Auth | None = None
    protocol_version: str | None = None
    vendor: str | None = None
    product: str | None = None

    @property
    def target(self) -> str:
        """The name of an iSCSI target, which is the path of its device in a definition; empty where none is named."""
        return self.devices[0].path if self.devices else ""


@dataclass(frozen=True)
class Pool:
    """A definition. ``extras`` are elements that the collection has no word for, each as canonical XML text. ``login``
    is no part of it, and makes no difference; nor is ``source_volume``, which is the path of a device in a definition,
    nor ``secret``: what the secret that source.auth names is to hold, nor ``mutual``: as whom the source has to show
    itself.
    """

    name: str
    type: str | None = None
    uuid: str | None = None
    path: str | None = None
    permissions: Permissions = UNDECLARED
    source: Source = Source()
    cow: bool | None = None
    mount_options: tuple[str, ...] | None = None
    config_options: tuple[tuple[str, str], ...] | None = None
    refresh_allocation: str | None = None
    extras: tuple[str, ...] = ()
    login: Login | None = field(default=None, repr=False, compare=False)
    source_volume: SourceVolume | None = field(default=None, compare=False)
    secret: str | None = field(default=None, repr=False, compare=False)
    mutual: Login | None = field(default=None, repr=False, compare=False)

    @property
    def mount_words(self) -> tuple[str, ...]:
        """Its mount options one by one."""
        return tuple(word.strip() for option in self.mount_options or () for word in option.split(","))

    @property
    def mounts_read_only(self) -> bool:
        """Whether its mount options say so: the last of them counts (mount(8))."""
        names = [word.partition("=")[0] for word in self.mount_words]
        return [name for name in names if name in ("ro", "rw")][-1:] == ["ro"]


# What storage a pool is on, rather than how that is used.
PLACE = ("path", "source.hosts", "source.dir", "source.devices", "source.name", "source.initiator", "source.adapter")


def is_elsewhere(live: Pool | None, definition: Pool | None, port: int | None = None) -> bool:
    """Whether a pool runs on other storage than its definition says, which was changed since it was started. ``port``
    is the one that is meant where none is said.
    """
    return None not in (live, definition) and _place(live, port) != _place(definition, port)


def _place(pool: Any, port: int | None) -> tuple[Any, ...]:
    source = pool.source
    hosts = tuple((host.name, host.port or port) for host in source.hosts or ())
    devices = tuple(device.path for device in source.devices or ())
    return (pool.path, hosts, devices, source.dir, source.name, source.initiator, source.adapter)


def overlay(base: Pool, declared: Pool) -> Pool:
    """``base`` with every declared field of ``declared`` laid over it; nested nouns are laid field by field. An empty
    list takes away what is there, and says nothing where there is nothing.
    """
    return cast(Pool, _overlay(base, declared))


def _overlay(base: Any, declared: Any) -> Any:
    changed: dict[str, Any] = {}
    for each in fields(declared):
        value = getattr(declared, each.name)
        if value is None or (value == () and not getattr(base, each.name)) or (each.name == "extras" and not value):
            continue
        if isinstance(value, (Permissions, Source)):
            value = _overlay(getattr(base, each.name), value)
        changed[each.name] = value
    return replace(base, **changed)
