# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Parameters of storage_pool_sources as a goal, with every check that needs no host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..model.discovery import ANY_FORMAT, CIFS, Query, SourcesGoal
from ..model.errors import StorageError
from ..model.pool import Pool, Source
from ..model.sources import host_problem, misfit, normal_source, source_problem
from ..model.types import POOL_TYPES, PoolType
from .names import CONTROL
from .pools import source_of

# What smbclient would read as something else in its file of credentials: it takes spaces off both ends of a value.
_STRANGE_TEXT = "is empty, has a control character in it, or white space at an end"


def sources_goal(params: Mapping[str, Any]) -> SourcesGoal:
    """Raises StorageError for whatever is wrong with the parameters."""
    kind, row = params["type"], POOL_TYPES[params["type"]]
    like = _source(params["source"] or {}, "source", row)
    wanted = tuple(_source(given, "wait_for", row) for given in params["wait_for"] or ())
    for source in wanted:
        _check_named(source, like, row)
    hosts = _hosts((like, *wanted))
    if _of_servers(row) and not hosts:
        raise StorageError(
            "missing_option", f"sources of type {kind} are those of a server", hint="Name it as source.host."
        )
    formats = _formats(like, wanted, row)
    _check_account(params, formats, row)
    adapters = tuple(source.adapter for source in (like, *wanted) if source.adapter is not None)
    query = Query(
        kind,
        hosts,
        formats,
        _paths((like, *wanted)),
        adapters,
        params["username"],
        params["password"],
        tuple(dict.fromkeys(host for source in (like, *wanted) for host in source.hosts or ())),
        _initiator((like, *wanted), row),
    )
    return SourcesGoal(query, like, wanted, bool(params["free"]))


def _source(given: Mapping[str, Any], option: str, row: PoolType) -> Source:
    for name, value in given.items():
        for text in value if isinstance(value, list) else () if isinstance(value, dict) else [value]:
            if text is not None and (not text or CONTROL.search(text)):
                raise _unusable(
                    f"{option}.{name}: {text!r} " + ("has a control character in it" if text else "is empty")
                )
    source = normal_source(source_of(given))
    problem = misfit(Pool("", row.name, source=source), row, row.sources)
    problem = problem or host_problem(source) or source_problem(source, row)
    if problem is not None:
        code, what, hint = problem
        raise StorageError(code, f"{option}: {what}", hint=hint)
    for host in source.hosts or ():
        if host.port is not None and not row.port:
            raise _unusable(
                f"{option}.host: {host.name} has a port: servers are asked at the ports of their protocols",
                "Leave the port out.",
            )
    for device in (source.devices or ()) if not row.port else ():
        if not device.path.startswith("/"):
            raise StorageError(
                "invalid_path",
                f"{option}.devices: {device.path!r} is not an absolute path",
                hint="Give a path such as /dev/disk/by-id/….",
            )
    return source


def _of_servers(row: PoolType) -> bool:
    return bool(row.protocols or row.port)


def _initiator(sources: Sequence[Source], row: PoolType) -> str | None:
    """In whose name servers are asked: they may offer others something else."""
    names = list(dict.fromkeys(source.initiator for source in sources if source.initiator))
    if len(names) > 1:
        raise _unusable(f"several initiators are named: {', '.join(names)}", "Ask for each in a task of its own.")
    if not names and "initiator" in row.required:
        what = f"sources of type {row.name} are offered to an initiator"
        raise StorageError("missing_option", what, hint="Name it as source.initiator.")
    return names[0] if names else None


def _unusable(message: str, hint: str = "Correct it, or leave it out.") -> StorageError:
    return StorageError("invalid_option", message, hint=hint)


def _check_named(source: Source, like: Source, row: PoolType) -> None:
    """A source that is waited for must say which one it is."""
    if not any(getattr(source, name) for name in row.sources):
        raise StorageError(
            "missing_option",
            f"wait_for: one of its sources of type {row.name} has no {' or '.join(row.sources)}",
            hint="Say which one is meant.",
        )
    if _of_servers(row) and not (source.hosts or like.hosts):
        raise StorageError(
            "missing_option", "wait_for: one of its sources has no host", hint="Name it there, or as source.host."
        )


def _hosts(sources: Iterable[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host.name for source in sources for host in source.hosts or ()))


def _paths(sources: Iterable[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(device.path for source in sources for device in source.devices or ()))


def _formats(like: Source, wanted: Sequence[Source], row: PoolType) -> tuple[str, ...]:
    """The protocols that servers are asked by: those that the declaration names, else all."""
    if not row.protocols or "format" not in row.optional:
        return row.protocols
    named = {source.format for source in (like, *wanted)} - set(ANY_FORMAT)
    if like.format in ANY_FORMAT and (like.hosts or any(source.format in ANY_FORMAT for source in wanted)):
        return row.protocols
    return tuple(protocol for protocol in row.protocols if protocol in named)


def _check_account(params: Mapping[str, Any], formats: tuple[str, ...], row: PoolType) -> None:
    if params["username"] is None and params["password"] is None:
        return
    if CIFS not in formats and "auth" not in row.optional:
        raise _unusable("username and password are for CIFS and iSCSI, which are not asked", "Leave them out.")
    if params["username"] is None or params["password"] is None:
        raise StorageError(
            "missing_option", "username and password go together", hint="Give both, or none to ask without them."
        )
    for name in ("username", "password"):
        text = params[name]
        if not text or CONTROL.search(text) or text != text.strip():
            raise _unusable(f"{name} {_STRANGE_TEXT}", "Give another one.")
