# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The secrets that pools name: in files, or as a daemon has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from ..host import secrets as files
from ..host.daemon import Daemon
from ..libvirt_xml.guests import GuestDisks
from ..libvirt_xml.secret import parse_secret, render_secret
from ..model.change import Change
from ..model.errors import StorageError
from ..model.found import Found, Neighbour
from ..model.operations import Secret
from ..model.pool import Auth, Pool
from ..model.secrets import (
    USAGES,
    SecretObject,
    declared_value,
    is_meant,
    new_object,
    object_of,
    own_usage,
    usage_type,
    with_reference,
)


def auths_of(pools: Iterable[Pool | None]) -> tuple[Auth, ...]:
    """How pools log in, each with the secret that it names or will name."""
    named = (with_reference(pool).source.auth for pool in pools if pool is not None)
    return tuple(dict.fromkeys(auth for auth in named if auth is not None))


def kept_in(directory: str, auths: Sequence[Auth], pool: str = "") -> tuple[SecretObject, ...]:
    """Those in libvirt's files, and those that were made for a pool, whoever names them. One that libvirt would not
    read is none. Raises ``not_readable``.
    """
    found = (_with_value(directory, each) for each in _objects(directory, auths, pool))
    return tuple(found)


def _objects(directory: str, auths: Sequence[Auth], pool: str) -> Iterator[SecretObject]:
    for uuid, text in files.objects(directory) if auths or pool else ():
        try:
            secret = parse_secret(text)
        except StorageError as error:
            if error.code == "library_missing":
                raise
            continue
        own = secret.ours and bool(pool) and secret.pool == pool
        if secret.uuid == uuid and (own or any(is_meant(auth, secret) for auth in auths)):
            yield secret


def _with_value(directory: str, secret: SecretObject) -> SecretObject:
    value = files.value(directory, secret.uuid)
    readable = value is not None or not files.kept_otherwise(directory, secret.uuid)
    begun = value is not None and bool(files.left_by_killed(directory, secret.uuid))
    return replace(secret, value=value, readable=readable, begun=begun)


def own_auths(pool: str) -> tuple[Auth, ...]:
    """How the secrets are named that a pool gets which names none."""
    return tuple(Auth(kind, "", secret_usage=own_usage(pool)) for kind in USAGES)


def told_by(daemon: Daemon, auths: Sequence[Auth], directory: str) -> tuple[SecretObject, ...]:
    """Those of a daemon. Of a private one it tells no value: that is read from its files in ``directory``, where they
    are those of this host and we may. Raises ``daemon_cannot`` where it keeps none.
    """
    found: dict[str, SecretObject] = {}
    for auth in auths:
        text = daemon.secret(usage_type(auth), auth.secret_uuid, auth.secret_usage)
        secret = None if text is None else parse_secret(text)
        if secret is not None and secret.uuid not in found:
            found[secret.uuid] = _with_told_value(daemon, secret, directory)
    return tuple(found.values())


def _with_told_value(daemon: Daemon, secret: SecretObject, directory: str) -> SecretObject:
    if directory:
        with suppress(StorageError):
            kept = _with_value(directory, secret)
            if kept.readable and (kept.value is not None or files.is_kept(directory, secret.uuid)):
                return kept
    if secret.private:
        return replace(secret, readable=False)
    value, readable = daemon.secret_value(secret.uuid)
    return replace(secret, value=value, readable=readable)


def with_users(
    secrets: Sequence[SecretObject],
    neighbours: Sequence[Neighbour],
    unread: Sequence[str],
    guests: Callable[[], tuple[Iterable[GuestDisks], Sequence[str]]],
) -> tuple[SecretObject, ...]:
    """Adds to those of ours the other pools and the guests that name them, and what of these can't be read: that may
    name them. Guests are asked for only then.
    """
    if not any(secret.ours for secret in secrets):
        return tuple(secrets)
    known, unseen = guests()
    known, unseen = tuple(known), (*(f"pool {name}" for name in unread), *unseen)
    return tuple(
        replace(each, users=_users(each, neighbours, known), unseen=unseen) if each.ours else each for each in secrets
    )


def _users(secret: SecretObject, neighbours: Sequence[Neighbour], guests: Sequence[GuestDisks]) -> tuple[str, ...]:
    pools = [f"pool {each.pool.name}" for each in neighbours if is_meant(each.pool.source.auth, secret)]
    told = [f"guest {each.name}" for each in guests if {secret.uuid, secret.usage} & set(each.secrets)]
    return tuple(dict.fromkeys((*pools, *told)))


def directory_of_daemon(pid: int, uri: str, own: str) -> str:
    """Where a daemon of this host keeps its secrets, as we see that (proc_pid_root(5)). ``own``: where ours are, of a
    user's own daemon.
    """
    path = own if uri.partition("?")[0].endswith("/session") else "/etc/libvirt/secrets"
    return f"/proc/{pid}/root{os.path.realpath(path) if path == own else path}"


# --- lowering --------------------------------------------------------------------------------------------------------


def object_for(pool: Pool, found: Found) -> tuple[str, str]:
    """Uuid and XML of the object that holds what is declared; without XML where it is there."""
    there = object_of(pool.source.auth, found.secrets)
    if there is not None:
        return there.uuid, ""
    new = new_object(pool)
    return new.uuid, render_secret(new, pool.name)


def value_for(pool: Pool) -> Secret:
    return Secret(declared_value(pool) or b"")


def unmade(found: Found) -> tuple[str, ...]:
    """The uuid of the object that the definition would have, where it is not there."""
    pool = found.definition
    if pool is None or pool.source.auth is None or object_of(pool.source.auth, found.secrets) is not None:
        return ()
    return (new_object(pool).uuid,)


def forgotten_by(change: Change, found: Found) -> tuple[SecretObject, ...]:
    """The objects that a change removes."""
    told = (change.before or {}).get("secret" if change.action == "undefine" else "old_secret")
    names = (told,) if isinstance(told, str) else told or ()
    return tuple(each for each in found.secrets if each.ours and each.usage in names)
