# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Secrets that pools log in with, as libvirt keeps them (formatsecret): an object with a uuid and a usage, which a
definition names by one of the two, and its value, which is nowhere but in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .errors import StorageError
from .pool import Auth, Pool

# What the object of a type of source.auth is for, in libvirt's words.
USAGES = {"chap": "iscsi", "ceph": "ceph"}
_BASE64 = ("ceph",)  # types whose secret is told as base64, and kept as what that stands for
_NAMES = "6c1b7f0e-52d0-5a0c-9d0a-2f5f4a7f9e31"  # the space of names that our uuids are made of


@dataclass(frozen=True)
class SecretObject:
    """A secret as the store has it. ``usage_type`` is one of libvirt's (iscsi, ceph), ``usage`` the name that is used
    by. ``ours``: the collection has made it. ``private``: a daemon tells nobody its value. ``value``: None where it has
    none, or where nobody may read it (``readable``). ``users``: who else names it, in words, as far as that was asked
    for; ``unseen``: what could not be looked at for that. ``pool`` is the one that ours was made for. ``begun``: a
    value was on its way to it when a task was ended.
    """

    uuid: str
    usage_type: str
    usage: str
    ours: bool = False
    private: bool = False
    value: bytes | None = field(default=None, repr=False)
    readable: bool = True
    users: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    pool: str = ""
    begun: bool = False


def account(username: str, secret: str | None) -> str:
    """The file that mount.cifs(8) and smbclient(1) read who connects from."""
    domain, separator, name = username.rpartition("\\")
    lines = [f"username={name}", f"password={secret}", *([f"domain={domain}"] if separator else [])]
    return "\n".join([*lines, ""])


def usage_type(auth: Auth) -> str:
    return USAGES[auth.type]


def own_usage(pool: str) -> str:
    """The usage of the object that is made for a pool which names none."""
    return f"virt.storage pool {pool}"


def object_uuid(kind: str, usage: str) -> str:
    """The uuid that an object of ours gets: the same each time."""
    import uuid

    return str(uuid.uuid5(uuid.UUID(_NAMES), f"{kind} {usage}"))


def with_reference(pool: Pool, existing: Pool | None = None) -> Pool:
    """The pool with the name of its secret: that of the definition where none is declared, else one of our own."""
    auth = pool.source.auth
    if pool.secret is None or auth is None or auth.secret_uuid or auth.secret_usage:
        return pool
    had = None if existing is None else existing.source.auth
    if had is not None and had.type == auth.type:
        auth = replace(auth, secret_uuid=had.secret_uuid, secret_usage=had.secret_usage)
    else:
        auth = replace(auth, secret_usage=own_usage(pool.name))
    return replace(pool, source=replace(pool.source, auth=auth))


def is_meant(auth: Auth | None, found: SecretObject) -> bool:
    """Whether a definition that says this names the object."""
    if auth is None:
        return False
    if auth.secret_uuid is not None:
        return auth.secret_uuid == found.uuid
    return (usage_type(auth), auth.secret_usage) == (found.usage_type, found.usage)


def object_of(auth: Auth | None, known: Sequence[SecretObject]) -> SecretObject | None:
    return next((each for each in known if is_meant(auth, each)), None)


def new_object(pool: Pool) -> SecretObject:
    """The object that a pool with its whole source needs, without a value."""
    auth = pool.source.auth
    if auth is None:
        raise ValueError(f"pool {pool.name} logs in nowhere")
    kind, usage = usage_type(auth), auth.secret_usage or own_usage(pool.name)
    if auth.secret_uuid is not None:  # the usage alone may be that of an earlier one: no two may have it
        usage = f"{usage} {auth.secret_uuid}"
    return SecretObject(auth.secret_uuid or object_uuid(kind, usage), kind, usage, ours=True, pool=pool.name)


def value_of(auth: Auth, text: str) -> bytes | None:
    """What the object holds for a secret as it is told; None for what is none."""
    if not text:
        return None
    if auth.type not in _BASE64:
        return text.encode("utf-8", "surrogateescape")
    import base64

    try:
        return base64.b64decode(text, validate=True) or None
    except ValueError:  # of which binascii.Error is one
        return None


def declared_value(pool: Pool) -> bytes | None:
    """What its secret is to hold; None where none is declared."""
    auth = pool.source.auth
    return None if auth is None or pool.secret is None else value_of(auth, pool.secret)


def text_of(auth: Auth, value: bytes) -> str:
    """The secret as who logs in tells it."""
    if auth.type in _BASE64:
        import base64

        return base64.b64encode(value).decode()
    return value.decode("utf-8", "surrogateescape")


def password(pool: Pool, known: Sequence[SecretObject]) -> str | None:
    """What a pool logs in with: the secret that is declared, else that of the object which its definition names. None
    for one that logs in nowhere. Raises ``secret_missing``.
    """
    auth = pool.source.auth
    if auth is None:
        return None
    if pool.secret is not None:
        return pool.secret
    found = object_of(auth, known)
    fits = found is not None and found.usage_type == usage_type(auth)
    if found is not None and found.value is not None and fits:
        return text_of(auth, found.value)
    named = auth.secret_uuid or f"with the usage {auth.secret_usage!r}"
    there = "is not there" if found is None else "has no value" if fits else f"is for {found.usage_type or 'no pool'}"
    raise StorageError(
        "secret_missing",
        f"the secret of pool {pool.name} ({usage_type(auth)}, {named}) {there}",
        subject=f"pool {pool.name}",
        hint="Give it as source.auth.secret, which is kept then.",
    )
