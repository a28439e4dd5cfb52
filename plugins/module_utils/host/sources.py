# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Which device a source means: a path, or what names its content (UUID=, LABEL=, PARTUUID=, PARTLABEL=: fstab(5)); and
by what other names a device is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..model.errors import StorageError
from .block import Device, device_at, device_of, holders, not_readable, number_at, source_missing
from .look import Look

_UDEV = "/run/udev/data"
# What udev calls them in its records (systemd, rules.d/60-persistent-storage.rules).
_TAGS = {
    "UUID": "ID_FS_UUID_ENC",
    "LABEL": "ID_FS_LABEL_ENC",
    "PARTUUID": "ID_PART_ENTRY_UUID",
    "PARTLABEL": "ID_PART_ENTRY_NAME",
}
_ESCAPE = re.compile(r"(?:\\x[0-9a-f]{2})+")
_NOTHING = 2  # blkid(8): exit status


def tag_of(text: str) -> tuple[str, str] | None:
    """Name and value of ``UUID=…`` and the like; None for a path."""
    name, equals, value = text.partition("=")
    return (name, value.strip('"')) if equals and name in _TAGS else None


def resolve(text: str, look: Look) -> Device:
    """The device that a source means, its ``path`` being what was asked for, or of a tag the node. Raises
    ``source_missing``, ``source_conflict`` (several devices answer to it), ``storage_foreign`` (no block device) or
    ``not_readable``.
    """
    tag = tag_of(text)
    if tag is None:
        return device_at(text)
    found = _topmost(_by_udev(*tag, look) or _by_blkid(*tag, look))
    if not found:
        raise source_missing(text)
    if len(found) > 1:
        nodes = " and ".join(sorted(device.node for device in found))
        raise StorageError(
            "source_conflict", f"{text} is said of {nodes}", subject=text, hint="Name the device by its path."
        )
    return found[0]


def aliases(device: Device) -> tuple[str, ...]:
    """All paths under /dev that lead to a device now: its node, device-mapper's name, udev's links."""
    paths = {device.node, device.path}
    if device.dm_name:
        paths.add(f"/dev/mapper/{device.dm_name}")
    paths |= {f"/dev/{name}" for name in _noted(f"{_UDEV}/b{device.number[0]}:{device.number[1]}", "S:")}
    return tuple(path for path in sorted(paths) if number_at(path) == device.number)


def _by_udev(name: str, value: str, look: Look) -> list[Device]:
    """Links under /dev/disk show one device each; udev's records show all that claim it."""
    wanted = _TAGS[name]
    found: list[Device] = []
    members: set[str] = set()
    for number, told in look.once("udev", lambda: list(_all_properties())):
        device = _still_there(number) if unescaped(told.get(wanted, "")) == value else None
        if device is not None and not _is_member(told, members):
            found.append(device)
    return found


def _is_member(told: dict[str, str], members: set[str]) -> bool:
    """Whether that is one more device of a btrfs: all of them name the whole, and each has an identity of its own
    (mkfs.btrfs(8)), which a copy of it shares. ``members`` are those that were met.
    """
    own = told.get("ID_FS_UUID_SUB") if told.get("ID_FS_TYPE") == "btrfs" else None
    if not own:
        return False
    is_one_more = bool(members) and own not in members
    members.add(own)
    return is_one_more


def _by_blkid(name: str, value: str, look: Look) -> list[Device]:
    """Reads every device, so only where udev knows of none. Without the cache, which may be old (blkid(8): -c)."""
    try:
        printed = look.run(["blkid", "-c", "/dev/null", "-t", f"{name}={value}", "-o", "export"])
    except StorageError as error:
        if error.rc != _NOTHING:
            raise
        if os.geteuid() == 0:
            return []
        raise not_readable(f"{name}={value}", "who may not read devices can't look for it") from None
    found: list[Device] = []
    members: set[str] = set()
    for block in printed.split("\n\n"):
        told = dict(line.partition("=")[::2] for line in block.splitlines())
        told = {"ID_FS_TYPE": told.get("TYPE", ""), "ID_FS_UUID_SUB": told.get("UUID_SUB", ""), **told}
        if "DEVNAME" in told and not _is_member(told, members):
            found.append(device_at(told["DEVNAME"]))
    return found


def _topmost(found: list[Device]) -> list[Device]:
    """Without those that others of them are built on: a multipath map shows what its paths do."""
    if len(found) < 2:
        return found
    built = {device.number: {above.number for above in holders(device)} for device in found}
    numbers = {device.number for device in found}
    return [device for device in found if not built[device.number] & numbers]


def _still_there(number: tuple[int, int]) -> Device | None:
    try:
        return device_of(number)
    except StorageError:
        return None


def _all_properties() -> Iterator[tuple[tuple[int, int], dict[str, str]]]:
    try:
        names = sorted(os.listdir(_UDEV))
    except OSError:
        return
    for name in names:
        match = re.fullmatch(r"b([0-9]+):([0-9]+)", name)
        if match is not None:
            yield (int(match.group(1)), int(match.group(2))), _properties(f"{_UDEV}/{name}")


def _properties(path: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in _noted(path, "E:"))
    return {name: value for name, _equals, value in pairs}


def _noted(path: str, kind: str) -> list[str]:
    """Lines of one kind of a record of udev's (systemd, src/libsystemd/sd-device/device-private.c)."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line[len(kind) :].rstrip("\n") for line in file if line.startswith(kind)]
    except OSError:
        return []


def unescaped(text: str) -> str:
    """Text without udev's escapes (\\x20 for a space)."""

    def plain(match: re.Match[str]) -> str:
        return bytes.fromhex(match.group(0).replace("\\x", "")).decode("utf-8", "surrogateescape")

    return _ESCAPE.sub(plain, text)
