# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Parameters of storage_pool_sources as a goal, with every check that needs no host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..model.discovery import ANY_FORMAT, CIFS, GLUSTERFS, NFS, Query, SourcesGoal
from ..model.errors import StorageError
from ..model.pool import Pool, Source
from ..model.sources import host_problem, misfit, normal_source, source_problem
from ..model.types import POOL_TYPES
from .names import CONTROL
from .pools import source_of

_PROTOCOLS = (NFS, GLUSTERFS, CIFS)
# What names a source of a type: at least one of these.
_NAMED_BY = {
    "netfs": ("dir",),
    "gluster": ("name",),
    "logical": ("name", "devices"),
    "fs": ("devices",),
    "disk": ("devices",),
}
_OF_SERVERS = ("netfs", "gluster")
# What smbclient would read as something else in its file of credentials: it takes spaces off both ends of a value.
_STRANGE_TEXT = "is empty, has a control character in it, or white space at an end"


def sources_goal(params: Mapping[str, Any]) -> SourcesGoal:
    """Raises StorageError for whatever is wrong with the parameters."""
    kind = params["type"]
    like = _source(params["source"] or {}, "source", kind)
    wanted = tuple(_source(given, "wait_for", kind) for given in params["wait_for"] or ())
    for source in wanted:
        _check_named(source, like, kind)
    hosts = _hosts((like, *wanted))
    if kind in _OF_SERVERS and not hosts:
        raise StorageError(
            "missing_option", f"sources of type {kind} are those of a server", hint="Name it as source.host."
        )
    formats = _formats(like, wanted, kind)
    _check_account(params, formats)
    query = Query(kind, hosts, formats, _paths((like, *wanted)), params["username"], params["password"])
    return SourcesGoal(query, like, wanted, bool(params["free"]))


def _source(given: Mapping[str, Any], option: str, kind: str) -> Source:
    for name, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if text is not None and (not text or CONTROL.search(text)):
                raise _unusable(
                    f"{option}.{name}: {text!r} " + ("has a control character in it" if text else "is empty")
                )
    source = normal_source(source_of(given))
    row = POOL_TYPES[kind]
    problem = misfit(Pool("", kind, source=source), row) or host_problem(source) or source_problem(source, row)
    if problem is not None:
        code, what, hint = problem
        raise StorageError(code, f"{option}: {what}", hint=hint)
    for host in source.hosts or ():
        if host.port is not None:
            raise _unusable(
                f"{option}.host: {host.name} has a port: servers are asked at the ports of their protocols",
                "Leave the port out.",
            )
    for device in source.devices or ():
        if not device.path.startswith("/"):
            raise StorageError(
                "invalid_path",
                f"{option}.devices: {device.path!r} is not an absolute path",
                hint="Give a path such as /dev/disk/by-id/….",
            )
    return source


def _unusable(message: str, hint: str = "Correct it, or leave it out.") -> StorageError:
    return StorageError("invalid_option", message, hint=hint)


def _check_named(source: Source, like: Source, kind: str) -> None:
    """A source that is waited for must say which one it is."""
    if not any(getattr(source, name) for name in _NAMED_BY[kind]):
        raise StorageError(
            "missing_option",
            f"wait_for: one of its sources of type {kind} has no {' or '.join(_NAMED_BY[kind])}",
            hint="Say which one is meant.",
        )
    if kind in _OF_SERVERS and not (source.hosts or like.hosts):
        raise StorageError(
            "missing_option", "wait_for: one of its sources has no host", hint="Name it there, or as source.host."
        )


def _hosts(sources: Iterable[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host.name for source in sources for host in source.hosts or ()))


def _paths(sources: Iterable[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(device.path for source in sources for device in source.devices or ()))


def _formats(like: Source, wanted: Sequence[Source], kind: str) -> tuple[str, ...]:
    """The protocols that servers are asked by: those that the declaration names, else all."""
    if kind not in _OF_SERVERS:
        return ()
    if kind == "gluster":
        return (GLUSTERFS,)
    named = {source.format for source in (like, *wanted)} - set(ANY_FORMAT)
    if like.format in ANY_FORMAT and (like.hosts or any(source.format in ANY_FORMAT for source in wanted)):
        return _PROTOCOLS
    return tuple(protocol for protocol in _PROTOCOLS if protocol in named)


def _check_account(params: Mapping[str, Any], formats: tuple[str, ...]) -> None:
    if params["username"] is None and params["password"] is None:
        return
    if params["type"] != "netfs" or CIFS not in formats:
        raise _unusable("username and password are for CIFS, which is not asked", "Leave them out.")
    if params["username"] is None or params["password"] is None:
        raise StorageError(
            "missing_option", "username and password go together", hint="Give both, or none to ask as a guest."
        )
    for name in ("username", "password"):
        text = params[name]
        if not text or CONTROL.search(text) or text != text.strip():
            raise _unusable(f"{name} {_STRANGE_TEXT}", "Give another one.")
