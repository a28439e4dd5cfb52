# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Secrets, without their values (formatsecret)."""

from __future__ import annotations

from ..model.secrets import SecretObject
from . import _tree
from .fields import normal_uuid, text_of

# What the name of a usage is in, by its type.
_USED_BY = {"iscsi": "target", "ceph": "name"}
_OURS = "made by virt.storage"
_FOR_POOL = f"{_OURS} for pool "


def parse_secret(text: bytes | str) -> SecretObject:
    """What is for no pool has no usage that one could name. Raises ``invalid_xml``."""
    root = _tree.parse(text)
    usage = root.find("usage")
    kind = "" if usage is None else usage.get("type") or ""
    name, uuid = text_of(usage, _USED_BY[kind]) if kind in _USED_BY else "", text_of(root, "uuid")
    if uuid is None:
        raise _tree.invalid("The secret has no uuid")
    description = text_of(root, "description") or ""
    ours, private = description.startswith(_OURS), root.get("private") == "yes"
    pool = description[len(_FOR_POOL) :] if description.startswith(_FOR_POOL) else ""
    return SecretObject(normal_uuid(uuid), kind, name or "", ours, private, pool=pool)


def render_secret(secret: SecretObject, pool: str) -> str:
    """A private one, whose value the daemon tells nobody. What says that it is ours is its description."""
    root = _tree.new_root("secret")
    _tree.set_attributes(root, {"ephemeral": "no", "private": "yes"})
    _tree.set_text(_tree.child(root, "uuid"), secret.uuid)
    _tree.set_text(_tree.child(root, "description"), f"{_FOR_POOL}{pool}")
    usage = _tree.child(root, "usage")
    _tree.set_attributes(usage, {"type": secret.usage_type})
    _tree.set_text(_tree.child(usage, _USED_BY[secret.usage_type]), secret.usage)
    return _tree.to_text(root)
