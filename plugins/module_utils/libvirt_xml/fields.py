# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What pools and volumes have in common: single values and permissions."""

from __future__ import annotations

import re
from typing import Any

from ..model.definition import plain_uuid
from ..model.pool import Permissions
from . import _tree

PERMISSIONS_ORDER = ("mode", "owner", "group", "label")
_NUMBER = re.compile(r"\s*[-+]?[0-9]{1,20}\Z", re.ASCII)
_MODE = re.compile(r"\s*[0-7]{1,12}\Z", re.ASCII)
_YES_NO = {"yes": True, "no": False}
_ID_LIMIT = 2**32 - 1
_ID_LOWEST = -(2**31)


def text_of(element: Any, path: str) -> str | None:
    """The text at ``path``; None when it is empty or not there."""
    found = None if element is None else element.find(path)
    if found is None:
        return None
    return (found.xpath("string()") if len(found) else found.text) or None


def attribute_of(element: Any, path: str, name: str) -> str | None:
    """An attribute of the element at ``path``; None when it is empty or not there."""
    found = None if element is None else element.find(path)
    return None if found is None else found.get(name) or None


def yes_no(text: str | None, what: str) -> bool | None:
    if text is None:
        return None
    if text not in _YES_NO:
        raise _tree.invalid(f"{what}: {text!r} is neither yes nor no")
    return _YES_NO[text]


def as_yes_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def number(text: str, what: str, low: int = 0, high: int = _ID_LIMIT) -> int:
    """A decimal number between ``low`` and ``high``."""
    value = int(text) if _NUMBER.match(text) else low - 1
    if not low <= value <= high:
        raise _tree.invalid(f"{what}: {text!r} is not a whole number from {low} to {high}")
    return value


def normal_uuid(text: str, what: str = "uuid") -> str:
    """A UUID in lower case with its four dashes, read as liberally as libvirt reads it."""
    uuid = plain_uuid(text)
    if uuid is None:
        raise _tree.invalid(f"{what}: {text!r} is not a UUID")
    return uuid


def read_permissions(target: Any) -> Permissions:
    """The permissions of a target; -1 for an owner or group says nothing about it."""
    found = None if target is None else target.find("permissions")
    if found is None:
        return Permissions()
    return Permissions(
        mode=_mode(text_of(found, "mode")),
        owner=_owner(found, "owner"),
        group=_owner(found, "group"),
        label=text_of(found, "label"),
    )


def _mode(text: str | None) -> int | None:
    if text is None:
        return None
    bits = int(text, 8) if _MODE.match(text) else -1
    if not 0 <= bits <= 0o777:
        raise _tree.invalid(f"permissions/mode: {text!r} is not an octal mode between 0 and 0777")
    return bits


def _owner(permissions: Any, name: str) -> int | None:
    if permissions.find(name) is None:
        return None
    # libvirt prints numbers of 2^31 and more as negative ones, though it can't read them then.
    value = number(text_of(permissions, name) or "", f"permissions/{name}", low=_ID_LOWEST) % (_ID_LIMIT + 1)
    return None if value == _ID_LIMIT else value


def write_permissions(target: Any, permissions: Permissions) -> None:
    """Make these the permissions of a target element; what says nothing (an owner of -1) goes, as with libvirt."""
    values = {
        "mode": None if permissions.mode is None else f"0{permissions.mode:o}",
        "owner": None if permissions.owner is None else str(permissions.owner),
        "group": None if permissions.group is None else str(permissions.group),
        "label": permissions.label,
    }
    if target.find("permissions") is None and not any(values.values()):
        return
    block = _tree.child(target, "permissions")
    for tag, text in values.items():
        if text is None:
            _tree.drop(block, tag)
        else:
            _tree.set_text(_tree.child(block, tag), text)
    _tree.arrange(block, PERMISSIONS_ORDER)
    if not len(block) and not block.attrib:
        _tree.drop(target, "permissions")
