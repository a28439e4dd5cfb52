# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes: what libvirt's XML declares, what a daemon shows, and any volume as the XML that libvirt shows for it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from typing import Any

from ..model.pool import Pool
from ..model.types import POOL_TYPES
from ..model.units import SIZE_LIMIT, parse_size
from ..model.volume import Backing, Encryption, Extent, Volume
from . import _tree
from .encryption import read_encryption, read_found_encryption, write_encryption
from .fields import attribute_of, number, read_permissions, text_of, write_permissions

_TYPES = ("file", "block", "dir", "network", "netdir", "ploop")
_NUMBER = re.compile(r"\s*[0-9]+\Z", re.ASCII)
_COMPAT = re.compile(r"[0-9]+\.[0-9]+\Z", re.ASCII)
_FORMATS = tuple(dict.fromkeys(name for row in POOL_TYPES.values() for name in row.volume_formats))
_FEATURES = ("lazy_refcounts", "extended_l2")
_FEATURES_COMPAT = "1.1"
_TIMES = ("atime", "mtime", "ctime", "btime")
_TIME = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?\Z", re.ASCII)
_NANOSECONDS = 10**9
# What libvirt shows of a qcow2 image of the older format: nothing, neither its version nor features.
_OLDER_COMPAT = "0.10"
_BIRTH = "btime"
_REMOTE = ("network", "netdir")
_ENDS = ("start", "end")
_SHOWN_MODE = 0o777
# Every element that a definition may hold, by the path of its parent; what is only ever shown is read over.
_KNOWN = {
    ".": ("name", "key", "source", "capacity", "allocation", "physical", "target", "backingStore"),
    "target": (
        "path",
        "format",
        "permissions",
        "timestamps",
        "encryption",
        "compat",
        "nocow",
        "clusterSize",
        "features",
    ),
    "target/permissions": ("mode", "owner", "group", "label"),
    "target/features": _FEATURES,
    "target/encryption": ("secret", "cipher", "ivgen"),
    "source": ("device",),
    "source/device": ("extent",),
    "backingStore": ("path", "format", "permissions", "timestamps"),
    "backingStore/permissions": ("mode", "owner", "group", "label"),
}


# ---- reading


def parse_volume(text: bytes | str) -> Volume:
    """What a ``<volume>`` document declares. Raises ``invalid_xml`` and ``invalid_size``.

    Key, path, type, extents, physical size and timestamps are only ever shown, so they are read over. Anything that we
    have no word for is refused, as it would be lost.
    """
    root, name = _volume_element(text)
    if (root.get("type") or _TYPES[0]) not in _TYPES:
        raise _tree.invalid(f"{root.get('type')!r} is not a type of volume", f"Use one of: {', '.join(_TYPES)}.")
    _check_known(root, name)
    features = _read_features(root)
    return Volume(
        name=name,
        capacity=_size(root, "capacity", name),
        allocation=_size(root, "allocation", name),
        format=_known_format(attribute_of(root, "target/format", "type"), name),
        permissions=read_permissions(root.find("target")),
        backing=_read_backing(root, name),
        compat=_compat(root, features),
        cluster_size=_size(root, "target/clusterSize", name) or None,
        encryption=read_encryption(root.find("target")),
        nocow=True if root.find("target/nocow") is not None else None,
        **features,
    )


def _volume_element(text: bytes | str) -> tuple[Any, str]:
    """The outermost element, and the name in it."""
    root = _tree.parse(text)
    if root.tag != "volume":
        raise _tree.invalid(f"The XML is not a volume: its outermost element is {root.tag}")
    name = text_of(root, "name")
    if name is None:
        raise _tree.invalid("The volume has no name")
    return root, name


def _check_known(root: Any, name: str) -> None:
    unknown = [
        (path + "/" + node.tag).replace("./", "")
        for path, known in _KNOWN.items()
        for parent in root.findall(path)
        for node in parent
        if _tree.is_element(node) and node.tag not in known
    ]
    if unknown:
        raise _tree.invalid(
            f"Not supported in the XML of a volume: {', '.join(sorted(set(unknown)))}",
            "Remove it; nothing that is declared is dropped silently.",
            subject=name,
        )


def _size(root: Any, path: str, subject: str) -> int | None:
    text = text_of(root, path)
    if text is None:
        return None
    unit = attribute_of(root, path, "unit") or ""
    # The unit has an attribute of its own: in libvirt's XML the text is a bare number.
    right = _NUMBER.match(text) and unit == unit.strip()
    return parse_size(f"{text} {unit}" if right else f"{text}{unit!r}", path, subject)


def _read_features(root: Any) -> dict[str, Any]:
    """A features element says all of them: what is not in it is off."""
    block = root.find("target/features")
    return {} if block is None else {name: block.find(name) is not None for name in _FEATURES}


def _compat(root: Any, features: dict[str, Any]) -> str | None:
    compat = text_of(root, "target/compat")
    if compat is None:
        return _FEATURES_COMPAT if features else None
    if not _COMPAT.match(compat):
        raise _tree.invalid(f"target/compat: {compat!r} is not a version such as 1.1")
    return compat


def _known_format(name: str | None, subject: str) -> str | None:
    """Which of them a pool's type has is asked where the pool is known."""
    if name is not None and name not in _FORMATS:
        raise _tree.invalid(f"{name!r} is not a format of volumes", f"Use one of: {', '.join(_FORMATS)}.", subject)
    return name


def _read_backing(root: Any, subject: str) -> Backing | None:
    """Without a path there is no backing, as in libvirt."""
    backing = _backing_shown(root)
    if backing is not None:
        _known_format(backing.format, subject)
    return backing


def _backing_shown(root: Any) -> Backing | None:
    path = text_of(root, "backingStore/path")
    if path is None:
        return None
    form = attribute_of(root, "backingStore/format", "type")
    return Backing(path, form, permissions=read_permissions(root.find("backingStore")))


# ---- what a daemon shows


def parse_found_volume(text: bytes | str) -> Volume:
    """The volume that a daemon shows (vol-dumpxml), as the native engine would have found it.

    What we have no word for is read over: the daemon may be newer. Raises ``invalid_xml`` and ``invalid_size``.
    """
    root, name = _volume_element(text)
    kind = root.get("type", _TYPES[0])
    target = root.find("target")
    return Volume(
        name=name,
        capacity=_size(root, "capacity", name),
        allocation=_size(root, "allocation", name),
        format=attribute_of(target, "format", "type"),
        permissions=read_permissions(target),
        backing=_read_found_backing(root),
        cluster_size=_size(root, "target/clusterSize", name) or None,
        type=kind,
        path=text_of(target, "path"),
        key=text_of(root, "key"),
        physical=_found_physical(root, kind, name),
        encrypted=target is not None and target.find("encryption") is not None,
        encryption=read_found_encryption(target),
        extents=tuple(_read_extent(node) for node in root.findall("source/device/extent")),
        timestamps=_read_timestamps(root, name),
        **_found_version(root),
    )


def _found_version(root: Any) -> dict[str, Any]:
    """Version and features of a qcow2 image: each is on or off, and all are off in the older format."""
    if attribute_of(root, "target/format", "type") != "qcow2":
        return {}
    flags = {name: root.find(f"target/features/{name}") is not None for name in _FEATURES}
    return {"compat": text_of(root, "target/compat") or _OLDER_COMPAT, **flags}


def _found_physical(root: Any, kind: str, name: str) -> int | None:
    """Libvirt leaves out a size of 0, which a local file or directory can have."""
    size = _size(root, "physical", name)
    return 0 if size is None and kind not in _REMOTE else size


def _read_found_backing(root: Any) -> Backing | None:
    """What is no local file libvirt calls raw whatever its parent's header says, so that says nothing.

    Where the header has no format, libvirt looks at the file and shows what it saw.
    """
    backing = _backing_shown(root)
    local = backing is None or (backing.path or "").startswith("/")
    return backing if local or backing is None else replace(backing, format=None)


def _read_extent(node: Any) -> Extent:
    start, end = (number(node.get(name) or "", f"source/device/extent/{name}", high=SIZE_LIMIT) for name in _ENDS)
    return Extent(node.getparent().get("path") or "", start, end)


def _read_timestamps(root: Any, subject: str) -> tuple[tuple[str, int], ...]:
    """Nanoseconds. A birth of 0 is one that libvirt doesn't know."""
    texts = {name: text_of(root, f"target/timestamps/{name}") for name in _TIMES}
    times = {name: _nanoseconds(text, name, subject) for name, text in texts.items() if text is not None}
    return tuple((name, time) for name, time in times.items() if time or name != _BIRTH)


def _nanoseconds(text: str, name: str, subject: str) -> int:
    match = _TIME.match(text)
    if match is None:
        raise _tree.invalid(f"target/timestamps/{name}: {text!r} is not a time", subject=subject)
    seconds = int(match.group(1))
    # Seconds before 1970 are printed as the unsigned number of 64 bits that they are in memory.
    seconds -= 2**64 if seconds >= 2**63 else 0
    return seconds * _NANOSECONDS + int((match.group(2) or "").ljust(9, "0"))


# ---- writing


def render_found_volume(volume: Volume, pool: Pool) -> str:
    """What was found of a volume as a daemon shows it. Two things can't be known here: the permissions of its backing,
    and the format of a backing whose overlay doesn't say it, which libvirt guesses.
    """
    mode, backing, encryption = volume.permissions.mode, volume.backing, volume.encryption
    if volume.encrypted and encryption is None:
        encryption = Encryption("qcow" if volume.format == "qcow" else "luks")
    if backing is not None and not (backing.path or "/").startswith("/"):
        backing = replace(backing, format="raw")
    if volume.compat == _OLDER_COMPAT:
        volume = replace(volume, compat=None, lazy_refcounts=None, extended_l2=None)
    permissions = replace(volume.permissions, mode=None if mode is None else mode & _SHOWN_MODE)
    return render_volume(replace(volume, permissions=permissions, backing=backing, encryption=encryption), pool)


def render_volume(volume: Volume, pool: Pool) -> str:
    """The volume as a daemon is told to make it: what is None is left out."""
    root = _tree.new_root("volume")
    _tree.set_attributes(root, {"type": volume.type})
    _text(root, "name", volume.name)
    _text(root, "key", volume.key)
    _write_extents(root, volume.extents)
    _bytes(root, "capacity", volume.capacity)
    _bytes(root, "allocation", volume.allocation)
    _bytes(root, "physical", volume.physical or None)
    _write_target(_tree.child(root, "target"), volume, pool)
    if volume.backing is not None:
        _write_backing(root, volume.backing, pool)
    return _tree.to_text(root)


def _text(parent: Any, tag: str, text: str | None) -> None:
    if text is not None:
        _tree.set_text(_tree.child(parent, tag), text)


def _bytes(parent: Any, tag: str, size: int | None, unit: str = "bytes") -> None:
    if size is not None:
        _text(parent, tag, str(size))
        _tree.set_attributes(_tree.child(parent, tag), {"unit": unit})


def _write_format(parent: Any, name: str | None, pool: Pool) -> None:
    row = POOL_TYPES.get(pool.type or "")
    if name is not None and (row is None or row.volume_formats):
        _tree.set_attributes(_tree.child(parent, "format"), {"type": name})


def _write_target(target: Any, volume: Volume, pool: Pool) -> None:
    _text(target, "path", volume.path)
    _write_format(target, volume.format, pool)
    write_permissions(target, volume.permissions)
    _write_timestamps(target, dict(volume.timestamps))
    write_encryption(target, volume.encryption)
    _text(target, "compat", volume.compat)
    if volume.nocow:
        _tree.child(target, "nocow")
    _bytes(target, "clusterSize", volume.cluster_size or None, "B")
    flags = {name: getattr(volume, name) for name in _FEATURES}
    if any(value is not None for value in flags.values()):
        block = _tree.child(target, "features")
        for name in [name for name, value in flags.items() if value]:
            _tree.child(block, name)


def _write_extents(root: Any, extents: tuple[Extent, ...]) -> None:
    """Those of one device that follow each other are in one element."""
    for path, of_device in groupby(extents, lambda extent: extent.device):
        device = _tree.new_child(_tree.child(root, "source"), "device")
        _tree.set_attributes(device, {"path": path})
        for extent in of_device:
            values = {"start": str(extent.start), "end": str(extent.end)}
            _tree.set_attributes(_tree.new_child(device, "extent"), values)


def _write_timestamps(target: Any, times: dict[str, int]) -> None:
    for name in [name for name in _TIMES if times and (name in times or name == _BIRTH)]:
        seconds, fraction = divmod(times.get(name, 0), _NANOSECONDS)
        text = f"{seconds % 2**64}.{fraction:09}" if fraction else str(seconds % 2**64)
        _text(_tree.child(target, "timestamps"), name, text)


def _write_backing(root: Any, backing: Backing, pool: Pool) -> None:
    path = backing.path
    if path is None and backing.volume is not None and pool.path is not None:
        path = f"{pool.path}/{backing.volume}"
    block = _tree.child(root, "backingStore")
    _text(block, "path", path)
    _write_format(block, backing.format, pool)
    write_permissions(block, backing.permissions)
