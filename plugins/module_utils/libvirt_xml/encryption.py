# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The ``<encryption>`` of a volume (formatstorageencryption). Secrets are named by it, never held in it."""

from __future__ import annotations

import re
from typing import Any

from ..model.volume import Cipher, Encryption, InitVector, SecretReference
from . import _tree
from .fields import attribute_of, normal_uuid

FORMATS = ("default", "qcow", "luks", "luks2")
_ENGINES = ("qemu", "librbd")
_WITH_CIPHER = "luks"  # Under any other format libvirt reads neither cipher nor ivgen.
_NUMBER = re.compile(r"\s*\+?[0-9]{1,10}\Z", re.ASCII)
_SIZE_LIMIT = 2**32 - 1


def read_encryption(target: Any) -> Encryption | None:
    """What the target declares. Raises ``invalid_xml`` where libvirt does, and for what it would drop."""
    node = None if target is None else target.find("encryption")
    if node is None:
        return None
    form = _one_of(node, "format", FORMATS)
    engine = _one_of(node, "engine", _ENGINES) if "engine" in node.attrib else None
    cipher, ivgen = _read_cipher(node.find("cipher")), _read_ivgen(node.find("ivgen"))
    if ivgen is not None and cipher is None:
        raise _unreadable("an ivgen needs a cipher")
    if cipher is not None and form != _WITH_CIPHER:
        raise _unreadable(f"a cipher is for the format {_WITH_CIPHER}, not for {form}")
    return Encryption(form, engine, tuple(_read_secret(secret) for secret in node.findall("secret")), cipher, ivgen)


def read_found_encryption(target: Any) -> Encryption | None:
    """What a daemon shows, whatever formats it knows that we don't."""
    node = None if target is None else target.find("encryption")
    if node is None:
        return None
    secrets = node.findall("secret")
    return Encryption(
        node.get("format") or FORMATS[0],
        node.get("engine"),
        tuple(SecretReference(secret.get("uuid"), secret.get("usage")) for secret in secrets),
        _read_cipher(node.find("cipher")),
        _read_ivgen(node.find("ivgen")),
    )


def write_encryption(target: Any, encryption: Encryption | None) -> None:
    if encryption is None:
        return
    node = _tree.child(target, "encryption")
    _tree.set_attributes(node, {"format": encryption.format, "engine": encryption.engine})
    for secret in encryption.secrets:
        values = {"type": "passphrase", "uuid": secret.uuid, "usage": secret.usage}
        _tree.set_attributes(_tree.new_child(node, "secret"), values)
    cipher, ivgen = encryption.cipher, encryption.ivgen
    if cipher is not None:
        values = {"name": cipher.name, "size": str(cipher.size), "mode": cipher.mode, "hash": cipher.hash}
        _tree.set_attributes(_tree.child(node, "cipher"), values)
    if ivgen is not None:
        _tree.set_attributes(_tree.child(node, "ivgen"), {"name": ivgen.name, "hash": ivgen.hash})


def _unreadable(message: str) -> Exception:
    return _tree.invalid(f"target/encryption: {message}")


def _one_of(node: Any, name: str, values: tuple[str, ...]) -> str:
    value: str | None = node.get(name)
    if value not in values:
        raise _unreadable(f"the {name} {value!r} is not one of {', '.join(values)}")
    return value


def _read_secret(node: Any) -> SecretReference:
    if node.get("type") != "passphrase":
        raise _unreadable(f"the type {node.get('type')!r} of a secret is not passphrase")
    uuid, usage = node.get("uuid") or None, node.get("usage") or None
    if (uuid is None) == (usage is None):
        raise _unreadable("a secret needs one of uuid and usage")
    if (node.text or "").strip() or len(node):
        raise _unreadable("a secret is named by uuid or usage, its value has no place here")
    return SecretReference(uuid and normal_uuid(uuid, "target/encryption/secret/uuid"), usage)


def _read_cipher(node: Any) -> Cipher | None:
    if node is None:
        return None
    size = node.get("size") or ""
    if not _NUMBER.match(size) or int(size) > _SIZE_LIMIT:
        raise _unreadable(f"the size {size!r} of the cipher is not a whole number up to {_SIZE_LIMIT}")
    return Cipher(_name(node), int(size), node.get("mode") or None, node.get("hash") or None)


def _read_ivgen(node: Any) -> InitVector | None:
    return None if node is None else InitVector(_name(node), node.get("hash") or None)


def _name(node: Any) -> str:
    name: str | None = attribute_of(node, ".", "name")
    if name is None:
        raise _unreadable(f"the {node.tag} has no name")
    return name
