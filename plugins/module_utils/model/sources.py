# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Sources of pools: their normal form, and what no source may say; what a type of pool has no use for."""

from __future__ import annotations

import re
from dataclasses import fields, replace

from .definition import fixed_path, plain_uuid, sanitise_path
from .pool import Adapter, Auth, Pool, Source
from .types import ALWAYS_OPTIONAL, PoolType

# libvirt asks for auto or nfs by their position in the list of formats, whatever the list.
_PROTOCOL_FORMATS = 2
_TEXTS = ("name", "initiator", "format", "protocol_version", "vendor", "product")
_AUTH_TYPES = ("chap", "ceph")
_WWN = re.compile(r"(?:0x)?[0-9a-fA-F]{16}\Z")
_WWNS = ("wwnn", "wwpn", "parent_wwnn", "parent_wwpn", "parent_fabric_wwn")
_PCI_TEXT = re.compile(r"([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])\Z")
_LAST_SLOT = 0x1F
_LAST_ID = 2**32 - 1
# What each kind of adapter is described by.
_ADAPTERS = {
    "scsi_host": ("name", "parent_address", "unique_id"),
    "fc_host": ("parent", "parent_wwnn", "parent_wwpn", "parent_fabric_wwn", "managed", "wwnn", "wwpn"),
}
# Names of content, and the links that udev makes for them (systemd, src/basic/device-nodes.c).
_TAGS = ("UUID", "LABEL", "PARTUUID", "PARTLABEL")
_DEVICES = "/dev/"
_BY = "/dev/disk/by-"
_NO_HOST = re.compile(r"[\s/\\]")
_UNSAFE = re.compile(r"[^0-9A-Za-z#+\-.:=@_\u0080-\U0010ffff]|[\ud800-\udfff]")
_ESCAPES = re.compile(r"(?:\\x[0-9a-f]{2})+")
# What gets into addresses, paths and the records of open-iscsi.
_ISCSI_NAME = re.compile(r"[^\s/%?#\x00-\x1f\x7f]+\Z")
_ISCSI_HINT = "Correct it (iqn.2026-01.com.example:x)."
# An error code, what is wrong, what to do.
Problem = tuple[str, str, str]


def normal_source(source: Source) -> Source:
    """What is empty is not there; devices are named by paths."""
    devices = source.devices and tuple(replace(device, path=tag_path(device.path)) for device in source.devices)
    return replace(
        source,
        devices=devices,
        dir=sanitise_path(source.dir) if source.dir else None,
        adapter=source.adapter and _normal_adapter(source.adapter),
        auth=source.auth and _normal_auth(source.auth),
        **{name: getattr(source, name) or None for name in _TEXTS},
    )


def tag_path(text: str) -> str:
    """The path of what is named as in fstab(5) (``UUID=…``, ``LABEL=…``), as udev makes it; another text as it is."""
    name, equals, value = text.partition("=")
    if not equals or name not in _TAGS:
        return text
    value = value[1:-1] if value[:1] == value[-1:] == '"' else value
    return f"{_BY}{name.lower()}/{_UNSAFE.sub(_escaped, value)}"


def tag_of_path(path: str) -> tuple[str, str] | None:
    """Name and value of what such a path stands for; None for other paths."""
    name, slash, value = path[len(_BY) :].partition("/")
    if not path.startswith(_BY) or not slash or name.upper() not in _TAGS:
        return None
    return name.upper(), _ESCAPES.sub(
        lambda match: bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", "surrogateescape"), value
    )


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode("utf-8", "surrogateescape"))


def _normal_adapter(adapter: Adapter) -> Adapter:
    """Before adapters had a type they were SCSI hosts."""
    values = {field.name: getattr(adapter, field.name) for field in fields(Adapter)}
    values = {name: None if value == "" else value for name, value in values.items()}
    numbers = pci_numbers(values["parent_address"] or "")
    if numbers is not None:
        values["parent_address"] = "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)
    return Adapter(**{**values, "type": values["type"] or "scsi_host"})


def _normal_auth(auth: Auth) -> Auth:
    uuid = (plain_uuid(auth.secret_uuid) or auth.secret_uuid) if auth.secret_uuid else None
    return replace(auth, secret_uuid=uuid, secret_usage=auth.secret_usage or None)


def pci_numbers(text: str) -> tuple[int, ...] | None:
    """Domain, bus, slot and function of an address such as 0000:00:1f.2; None when it is none."""
    match = _PCI_TEXT.match(text)
    numbers = tuple(int(part, 16) for part in match.groups()) if match else None
    return None if numbers is None or numbers[2] > _LAST_SLOT else numbers


def misfit(pool: Pool, row: PoolType, also: tuple[str, ...] = ()) -> Problem | None:
    """What is declared of a pool, that its type has no use for: it would be dropped. None when there is nothing.
    ``also``: further fields of its source that may be said.
    """
    known = (*row.required, *row.optional, *ALWAYS_OPTIONAL, *also)
    given = [field.name for field in fields(Source) if getattr(pool.source, field.name) not in (None, (), "")]
    extra = [f"source.{name}" for name in given if name not in known]
    if pool.source_volume is not None and not row.on_devices:
        extra.append("source.volume")
    for name, option in (("cow", "features"), ("mount_options", "mount_options"), ("config_options", "config_options")):
        if getattr(pool, name) is not None and name not in row.features:
            extra.append(option)
    if row.target == "none":
        extra += ["path"] if pool.path is not None else []
        extra += [name for name in ("owner", "group", "mode") if getattr(pool.permissions, name) is not None]
    what = f"pools of type {row.name} have no {', '.join(extra)}"
    return ("invalid_option", what, "Leave it out, or check the type.") if extra else None


def misplaced(pool: Pool, row: PoolType, source_name: str | None) -> Problem | None:
    """Whether a path is declared that is not the one that the type fixes, or where its devices can't be."""
    if row.of_devices and pool.path is not None and not f"{sanitise_path(pool.path)}/".startswith(_DEVICES):
        what = f"path: {pool.path} is not below /dev, where the devices of {row.name} pools are looked up"
        return "invalid_path", what, "Give /dev, or a directory of links to devices, such as /dev/disk/by-id."
    fixed = fixed_path(row, source_name)
    if pool.path is None or row.target in ("declared", "none") or pool.path == fixed:
        return None
    what = f"path: {row.name} pools are where their source.name says, which is {fixed}, not {pool.path}"
    return "invalid_option", what, "Leave path out, or correct source.name."


def source_problem(source: Source, row: PoolType | None, own: bool = True) -> Problem | None:
    """What libvirt would refuse of a source in normal form, as far as it is declared; None when there is nothing.
    ``own``: it is declared to us: it may have formats that only we have a word for, and no name that is none.
    """
    problem = _format_problem(source, row, own) or _adapter_problem(source.adapter) or _auth_problem(source.auth)
    return problem or (iscsi_problem(source) if own and row is not None and row.port else None)


def iscsi_problem(source: Source) -> Problem | None:
    """A target's or an initiator's name that is none: it would be taken for several, or for a path (RFC 3722)."""
    named = (("source.iqn", source.target), ("source.initiator", source.initiator))
    for option, name in named:
        if name and not _ISCSI_NAME.match(name):
            return "invalid_option", f"{option}: {name!r} is no name of iSCSI", _ISCSI_HINT
    return None


def host_problem(source: Source) -> Problem | None:
    """Whether a host is named that is none: tools would take it for an option, a list or a path (mount(8) hands it to
    mount.nfs as the first of its arguments).
    """
    for host in source.hosts or ():
        name = host.name or ""
        if name.startswith("-") or _NO_HOST.search(name):
            return "invalid_option", f"source.host: {name!r} is not a host", "Give a name or an address."
    return None


def _format_problem(source: Source, row: PoolType | None, own: bool) -> Problem | None:
    name, version = source.format, source.protocol_version
    known = () if row is None else (*row.formats, *(row.own_formats if own else ()))
    if row is not None and name is not None and name not in known:
        what = f"source.format: {name!r} is not a format of {row.name} pools"
        return "invalid_option", what, f"Use one of: {', '.join(known)}."
    if version is None:
        return None
    if row is not None and name is not None and name not in row.formats[:_PROTOCOL_FORMATS]:
        what = f"source.protocol_version: a version can't be given for the format {name}"
        return "invalid_option", what, "Leave it out, or give it with the mount options."
    if "," in version:
        return "invalid_option", f"source.protocol_version: {version!r} holds a comma", "Give a version such as 4.2."
    return None


def device_problem(source: Source, row: PoolType | None) -> Problem | None:
    """What is declared as a device and is none that could be found, of the types whose devices are known by their
    paths: zpools take short names, targets have others.
    """
    if row is None or not row.device_paths:
        return None
    wrong = next((device.path for device in source.devices or () if not device.path.startswith("/")), None)
    if wrong is None:
        return None
    return (
        "invalid_path",
        f"source.devices: {wrong!r} is not an absolute path",
        "Give a path such as /dev/disk/by-id/….",
    )


def _adapter_problem(adapter: Adapter | None) -> Problem | None:
    if adapter is None:
        return None
    kind = adapter.type or ""
    if kind not in _ADAPTERS:
        what = f"source.adapter: the type {kind!r} is neither {' nor '.join(_ADAPTERS)}"
        return "invalid_option", what, "Give one of these."
    known = ("type", *_ADAPTERS[kind])
    extra = [f.name for f in fields(Adapter) if f.name not in known and getattr(adapter, f.name) is not None]
    if extra:
        what = f"source.adapter: a {kind} has no {', '.join(extra)}"
        return "invalid_option", what, "Leave it out, or check the type of the adapter."
    return _scsi_host_problem(adapter) if kind == "scsi_host" else _fc_host_problem(adapter)


def _scsi_host_problem(adapter: Adapter) -> Problem | None:
    address, number = adapter.parent_address, adapter.unique_id
    if adapter.name is None and address is None:
        what = "source.adapter: a scsi_host needs one of name and parent_address"
        return "missing_option", what, "Add its name, such as scsi_host2, or its parent_address and unique_id."
    if adapter.name is not None and (address is not None or number is not None):
        what = "source.adapter: name and parent_address exclude each other"
        return "invalid_option", what, "Give the name, or parent_address and unique_id."
    if address is not None and pci_numbers(address) is None:
        what = f"source.adapter.parent_address: {address!r} is not a PCI address"
        return "invalid_option", what, "Give it as in sysfs, such as 0000:00:1f.2."
    if address is not None and number is None:
        what = "source.adapter: unique_id is missing beside parent_address"
        return "missing_option", what, "Add unique_id, the number in /sys/class/scsi_host/hostN/unique_id."
    if number is not None and not 0 <= number <= _LAST_ID:
        what = f"source.adapter.unique_id: {number} is not a number from 0 to {_LAST_ID}"
        return "invalid_option", what, "Give the number in /sys/class/scsi_host/hostN/unique_id."
    return None


def _fc_host_problem(adapter: Adapter) -> Problem | None:
    absent = [name for name in ("wwnn", "wwpn") if getattr(adapter, name) is None]
    if absent:
        what = f"source.adapter: an fc_host needs wwnn and wwpn; {', '.join(absent)} missing"
        return "missing_option", what, f"Add {', '.join(absent)}."
    for name in _WWNS:
        text = getattr(adapter, name)
        if text is not None and not _WWN.match(text):
            what = f"source.adapter.{name}: {text!r} is not 16 hexadecimal digits"
            return "invalid_option", what, "Give it as in /sys/class/fc_host; quote it where it is all digits."
    if (adapter.parent_wwnn is None) != (adapter.parent_wwpn is None):
        what = "source.adapter: parent_wwnn and parent_wwpn are given together or not at all"
        return "missing_option", what, "Add the other one."
    return None


def _auth_problem(auth: Auth | None) -> Problem | None:
    if auth is None:
        return None
    if auth.type not in _AUTH_TYPES:
        what = f"source.auth: the type {auth.type!r} is neither {' nor '.join(_AUTH_TYPES)}"
        return "invalid_option", what, "Give one of these."
    if not auth.username:
        return "missing_option", "source.auth: the username is missing", "Add username."
    if (auth.secret_uuid is None) == (auth.secret_usage is None):
        what = "source.auth needs a secret, by exactly one of secret_uuid and secret_usage"
        return "invalid_option", what, "Name the libvirt secret that holds the password, or give that as secret."
    if auth.secret_uuid is not None and plain_uuid(auth.secret_uuid) is None:
        what = f"source.auth.secret_uuid: {auth.secret_uuid!r} is not a UUID"
        return "invalid_uuid", what, "Give the uuid of the secret, or its usage instead."
    return None
