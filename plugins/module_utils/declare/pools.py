# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Parameters of storage_pool as a goal, with every check that needs no host."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Callable

from ..model.definition import normal
from ..model.errors import StorageError
from ..model.goal import PoolGoal, Scope
from ..model.pool import Adapter, Auth, Login, Permissions, Pool, Source, SourceDevice, SourceHost, SourceVolume
from ..model.sources import Problem, device_problem, host_problem, misfit, misplaced, source_problem
from ..model.types import POOL_TYPES
from ..model.units import parse_mode
from .names import CONTROL, asked_name, checked_uuid, pool_name

_PORT = re.compile(r"[0-9]{1,5}\Z", re.ASCII)
_LAST_PORT = 65535
OwnerId = Callable[[Any], Any]
_STATES = {"undefined": "absent"}
_DESCRIBING = (
    "type", "uuid", "path", "owner", "group", "mode", "source", "mount_options", "config_options", "features",
)  # fmt: skip
_ADAPTER_FIELDS = tuple(field.name for field in fields(Adapter))
_PATHS = ("source.dir", "source.device", "source.devices")
_DECLARED = ("source", "mount_options", "config_options")
_SECRETS = ("source.auth.secret", "source.auth.mutual.secret")
_NOT_THE_SOURCE = ("bind", "rbind", "move", "remount", "loop", "offset", "sizelimit")  # mount(8)
_MUTUAL = "chap"
_LOGIN = "cifs"  # what needs a password at hand rather than a secret of libvirt


def pool_goal(params: Mapping[str, Any], owner_id: OwnerId, group_id: OwnerId) -> PoolGoal:
    """Raises StorageError for whatever is wrong with the parameters."""
    name = pool_name(params["name"]) if params["name"] is not None else None
    state = _STATES.get(params["state"], params["state"])
    pool = _from_xml(params, name) if params["xml"] else _from_options(params, name or "", owner_id, group_id)
    pool = normal(_placed(pool))
    if pool.mount_options or pool.config_options:
        _check_mount_options(pool)
        _check_not_secret(pool)
    row, source = POOL_TYPES.get(pool.type or ""), _whole_source(pool)
    _refuse(pool, host_problem(source) or source_problem(source, row) or device_problem(source, row))
    nowhere = pool.path is None and pool.source == Source() and pool.source_volume is None
    if state == "deleted" and (pool.type is None or nowhere):
        raise _wrong(
            "missing_option",
            pool,
            "state: deleted needs the type and the path or source of the pool",
            "Add them, so that a second run can look and find nothing left.",
        )
    return PoolGoal(pool, state, params["autostart"], params["build"], frozenset(params["allow"] or ()))


def pool_scope(goal: PoolGoal) -> Scope:
    deleting = goal.state == "deleted"
    undefining = goal.state in ("absent", "deleted")
    return Scope(
        goal.pool,
        volumes=None if deleting else (),
        neighbours=True,
        holds=deleting,
        boots=goal.autostart is not None or undefining,
        stops=goal.state == "inactive" or undefining or "restart" in goal.allow,
        rebuilds=goal.state in ("present", "active") and {"restart", "overwrite"} <= goal.allow,
    )


def _wrong(code: str, pool: Pool, message: str, hint: str) -> StorageError:
    return StorageError(code, message, subject=f"pool {pool.name}", hint=hint)


def _from_xml(params: Mapping[str, Any], name: str | None) -> Pool:
    from ..libvirt_xml.pool import parse_declared_pool

    given = [option for option in _DESCRIBING if params[option] is not None]
    pool = parse_declared_pool(params["xml"])
    if given:
        raise _wrong(
            "invalid_option", pool, f"xml and {', '.join(given)} exclude each other", "Say it in one of the two."
        )
    if name is not None and name != pool.name:
        raise _wrong("invalid_option", pool, f"the xml names the pool {pool.name}, the task {name}", "Make them agree.")
    pool_name(pool.name)
    return replace(pool, path=_path(pool.path, pool.name))


def _from_options(params: Mapping[str, Any], name: str, owner_id: OwnerId, group_id: OwnerId) -> Pool:
    _check_texts(params, name)
    source = source_of(params["source"] or {})
    row = POOL_TYPES.get(params["type"] or "")
    if not name and row is not None and row.named_by_source and source.name:
        name = pool_name(source.name)
    if not name:
        raise StorageError("missing_option", "the pool has no name", hint="Give name, or xml with one.")
    subject = f"pool {name}"
    mode = None if params["mode"] is None else parse_mode(params["mode"], "mode", subject)
    return Pool(
        name,
        params["type"],
        None if params["uuid"] is None else checked_uuid(params["uuid"], subject),
        _path(params["path"], name),
        Permissions(mode, owner_id(params["owner"]), group_id(params["group"])),
        source,
        (params["features"] or {}).get("cow"),
        None if params["mount_options"] is None else tuple(params["mount_options"]),
        None if params["config_options"] is None else _config_options(params["config_options"], name),
        login=_login((params["source"] or {}).get("auth"), source, params["type"], name),
        secret=_secret((params["source"] or {}).get("auth"), name),
        mutual=_mutual((params["source"] or {}).get("auth"), source, params["type"], name),
        source_volume=_source_volume(params["source"] or {}, name),
    )


def _check_texts(params: Mapping[str, Any], name: str) -> None:
    """What can't be written, or would be read back as nothing."""
    for option, text in _texts("", {key: params[key] for key in _DECLARED}):
        if CONTROL.search(text) or (not text and option in (*_PATHS[1:], "mount_options", "source.iqn")):
            raise StorageError(
                "invalid_path" if option in _PATHS else "invalid_option",
                (f"{option} " if _is_private(option, text) else f"{option}: {text!r} ")
                + ("has a control character in it" if text else "is empty"),
                subject=f"pool {name}",
                hint="Correct it, or leave it out.",
            )


def _is_private(option: str, text: str) -> bool:
    """Whether no error may show it."""
    from ..model.private import has_password, is_secret

    if option == "mount_options":
        return any(map(has_password, text.split(",")))
    return option in _SECRETS or is_secret(option.partition("config_options.")[2])


def _texts(option: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text in the value of an option, with the name of its own option."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(f"{option}.{key}" if option else str(key), inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(option, inner)
    elif isinstance(value, str):
        yield option, value


def _config_options(given: Mapping[Any, Any], name: str) -> tuple[tuple[str, str], ...]:
    """As text, which is what they are in a definition and to Ceph."""
    from ..model.private import shown_value

    options = []
    for key, value in given.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(value, (str, int, float)) or not text or CONTROL.search(str(key)) or not str(key):
            raise StorageError(
                "invalid_option",
                f"config_options: {key}: {shown_value(str(key), repr(value))} is not a value of an option",
                subject=f"pool {name}",
                hint="Give a text or a number, or leave it out.",
            )
        options.append((str(key), text))
    return tuple(sorted(options))


def _path(text: str | None, name: str) -> str | None:
    if text is None:
        return None
    path = os.path.normpath(text) if text.startswith("/") else ""
    if not path or path.startswith("//") or path == "/" or CONTROL.search(text) or ".." in text.split("/"):
        raise StorageError(
            "invalid_path",
            f"path: {text!r} is not an absolute path below /",
            subject=f"pool {name}",
            hint="Give an absolute path without '..', such as /var/lib/libvirt/images.",
        )
    return path


# --- source ----------------------------------------------------------------------------------------------------------


def source_of(given: Mapping[str, Any]) -> Source:
    pick = {key: value for key, value in given.items() if value is not None}
    return Source(
        hosts=_hosts(pick),
        devices=_devices(pick),
        dir=pick.get("dir"),
        adapter=_adapter(pick.get("adapter")),
        name=pick.get("name"),
        initiator=pick.get("initiator"),
        format=pick.get("format"),
        auth=_auth(pick.get("auth")),
        protocol_version=pick.get("protocol_version"),
        vendor=pick.get("vendor"),
        product=pick.get("product"),
    )


def _host(text: str) -> SourceHost:
    """``name``, ``name:port``, ``[address]:port``; a bare IPv6 address has no port."""
    head, colon, port = text.rpartition(":")
    if not colon or (":" in head and not head.endswith("]")):
        head, port = text, ""
    elif not _PORT.match(port) or not 0 < int(port) <= _LAST_PORT:
        head = ""
    name = head.strip("[]")
    if not name or CONTROL.search(name):
        raise StorageError(
            "invalid_option",
            f"source.host: {text!r} is not a host",
            hint="Give it as name, name:port or [address]:port.",
        )
    return SourceHost(name, int(port) if port else None)


def _hosts(pick: Mapping[str, Any]) -> tuple[SourceHost, ...] | None:
    texts = pick.get("hosts") or ([pick["host"]] if "host" in pick else None)
    return None if texts is None else tuple(_host(text) for text in texts)


def _devices(pick: Mapping[str, Any]) -> tuple[SourceDevice, ...] | None:
    paths = pick.get("devices") or [pick[key] for key in ("device", "iqn") if key in pick]
    return tuple(SourceDevice(path, pick.get("part_separator")) for path in paths) or None


def _source_volume(given: Mapping[str, Any], name: str) -> SourceVolume | None:
    text = given.get("volume")
    if text is None:
        return None
    pool, slash, volume = text.partition("/")
    if not slash or pool == name:
        raise StorageError(
            "invalid_option",
            f"source.volume: {text!r} " + ("is one of the pool itself" if slash else "names no pool and volume"),
            subject=f"pool {name}",
            hint="Give it as POOL/VOLUME, of another pool.",
        )
    return SourceVolume(asked_name(pool, "pool"), asked_name(volume, "volume"), given.get("part_separator"))


def _adapter(given: Mapping[str, Any] | None) -> Adapter | None:
    return None if given is None else Adapter(**{key: given.get(key) for key in _ADAPTER_FIELDS if key in given})


def _auth(given: Mapping[str, Any] | None) -> Auth | None:
    if given is None or given["type"] == _LOGIN:
        return None
    return Auth(given["type"], given["username"], given.get("secret_uuid"), given.get("secret_usage"))


def _check_mount_options(pool: Pool) -> None:
    """With some of them it is not the source that is mounted, so that the pool would never be found active."""
    names = [word.partition("=")[0].strip() for word in pool.mount_words]
    other = [name for name in names if name in _NOT_THE_SOURCE]
    if other:
        raise _wrong(
            "invalid_option",
            pool,
            f"mount_options: with {', '.join(other)} something else than the source would be mounted",
            "Leave it out, and name as the source what is to be mounted.",
        )


def _check_not_secret(pool: Pool) -> None:
    """Options are in the definition, those of a mount also in command lines and in the list of mounts."""
    from ..model.private import has_password, is_secret

    if any(map(has_password, pool.mount_words)):
        raise _wrong(
            "invalid_option",
            pool,
            "mount_options: a password there could be read by anybody",
            "Give it as source.auth (type: cifs, username, secret).",
        )
    secret = [name for name, _value in pool.config_options or () if is_secret(name)]
    if secret:
        raise _wrong(
            "invalid_option",
            pool,
            f"config_options: the {secret[0]} there could be read by anybody",
            "Give it as source.auth.secret (type: ceph), or name a file that has it (keyring).",
        )


def _login(given: Mapping[str, Any] | None, source: Source, kind: str | None, name: str) -> Login | None:
    """The account of a CIFS share: it is no part of a definition, and so is needed whenever the pool is started."""
    if given is None:
        return None
    row, subject, what = POOL_TYPES.get(kind or ""), f"pool {name}", ""
    if given["type"] != _LOGIN:
        return None
    if (row is not None and row.login != _LOGIN) or source.format not in (None, "auto", _LOGIN):
        what = "the type cifs is for pools of type netfs and the format cifs"
    elif given.get("secret_uuid") is not None or given.get("secret_usage") is not None:
        what = "the password of a CIFS share is given as secret"
    elif given.get("secret") is None:
        raise StorageError(
            "missing_option", "source.auth: the secret is missing", subject=subject, hint="Add the password as secret."
        )
    elif not given["username"]:
        what = "the username is empty"
    elif CONTROL.search(given["username"]) or CONTROL.search(given["secret"]):
        what = "a line break or another control character is in the username or in the secret"
    if what:
        raise StorageError("invalid_option", f"source.auth: {what}", subject=subject, hint="Correct it.")
    return Login(given["username"], given["secret"])


def _secret(given: Mapping[str, Any] | None, name: str) -> str | None:
    """What the secret is to hold that the definition names: a text of one line, or what Ceph prints of a key."""
    if given is None or given["type"] == _LOGIN or given.get("secret") is None:
        return None
    from ..model.secrets import USAGES, value_of

    auth = _auth(given)
    if auth is not None and auth.type in USAGES and value_of(auth, given["secret"]) is None:
        what = "is empty" if not given["secret"] else "is no key as Ceph prints it (base64)"
        raise StorageError(
            "invalid_option", f"source.auth.secret {what}", subject=f"pool {name}", hint="Give the secret itself."
        )
    return str(given["secret"])


def _whole_source(pool: Pool) -> Source:
    """With the name of the secret that is declared."""
    if pool.secret is None:
        return pool.source
    from ..model.secrets import with_reference

    return with_reference(pool).source


def _mutual(given: Mapping[str, Any] | None, source: Source, kind: str | None, name: str) -> Login | None:
    """As whom the target has to show itself to who logs in: no part of a definition, and kept by open-iscsi alone."""
    told = (given or {}).get("mutual")
    if given is None or told is None:
        return None
    row, what = POOL_TYPES.get(kind or ""), ""
    if given["type"] != _MUTUAL or (row is not None and not row.recorded):
        what = "is for chap, and for pools of a target that the host itself logs in to"
    elif any(not text or text != text.strip() or CONTROL.search(text) for text in told.values()):
        what = "has an empty value, one with white space at an end, or one with a control character"
    elif source.auth is not None and told["username"] == source.auth.username:
        what = "has the username of the initiator: they must differ"
    if what:
        raise StorageError(
            "invalid_option", f"source.auth.mutual {what}", subject=f"pool {name}", hint="Correct it, or leave it out."
        )
    return Login(told["username"], told["secret"])


# --- checks ----------------------------------------------------------------------------------------------------------


def _placed(pool: Pool) -> Pool:
    """The pool, if its type has a use for all that is said of it. Who gives the path of a type that fixes it says the
    name of the source with it.
    """
    row = POOL_TYPES.get(pool.type or "")
    if row is None:
        return pool
    name = pool.source.name or (pool.name if row.named_by_pool else None)
    _refuse(pool, misfit(pool, row) or misplaced(pool, row, name))
    if pool.path is None or row.target == "declared":
        return pool
    return replace(pool, source=replace(pool.source, name=name))


def _refuse(pool: Pool, problem: Problem | None) -> None:
    if problem is not None:
        code, what, hint = problem
        raise _wrong(code, pool, what, hint)
