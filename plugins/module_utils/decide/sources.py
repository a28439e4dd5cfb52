# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Which of the sources that were found a pool has already, which are like what was asked for, and which of those that
are waited for are not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..model.discovery import ANY_FORMAT, CIFS, NFS, Discovery, FoundSource, SourcesGoal, Unanswered
from ..model.errors import StorageError
from ..model.pool import Adapter, Pool, Source
from ..model.types import VOLUME_GROUP, row_of


@dataclass(frozen=True)
class Judgement:
    """What is waited for, of the type ``kind``. ``missing`` is not there, ``other`` is there with another format,
    ``taken`` is there and used, ``unknown`` can't be told of.
    """

    missing: tuple[Source, ...] = ()
    taken: tuple[tuple[Source, FoundSource], ...] = ()
    unknown: tuple[tuple[Source, Unanswered], ...] = ()
    other: tuple[tuple[Source, FoundSource], ...] = ()
    kind: str | None = None

    @property
    def met(self) -> bool:
        return not (self.missing or self.taken or self.unknown or self.other)


# --- alike -----------------------------------------------------------------------------------------------------------


def is_like(declared: Source, found: Source, discovery: Discovery) -> bool:
    """Whether everything that is declared is so. Formats that say nothing, and what is not declared, fit all."""
    if declared.hosts and not _hosts(declared, discovery.port) & _hosts(found, discovery.port):
        return False
    if declared.format not in ANY_FORMAT and declared.format != found.format:
        return False
    if declared.dir is not None and _directory(declared.dir, found.format) != _directory(found.dir or "", found.format):
        return False
    if declared.name is not None and declared.name != found.name:
        return False
    if declared.adapter is not None and not _is_adapter(declared.adapter, found.adapter, discovery):
        return False
    return _devices(declared, discovery.resolved) <= _devices(found, discovery.resolved)


def _hosts(source: Source, port: int) -> set[tuple[str, int]]:
    """Names do not tell upper from lower case. ``port``: that of hosts without one, or 0 where none counts."""
    return {(host.name.lower(), port and (host.port or port)) for host in source.hosts or ()}


def _is_adapter(declared: Adapter, found: Adapter | None, discovery: Discovery) -> bool:
    from ..model.adapters import is_same

    return found is not None and is_same(declared, found, discovery.hosts)


def _directory(path: str, protocol: str | None) -> str:
    """Shares and Gluster volumes are named with or without a slash; of shares the case does not matter (MS-SMB2)."""
    if protocol in (NFS, None):
        return path.rstrip("/") or "/"
    plain = path.strip("/")
    return plain.casefold() if protocol == CIFS else plain


def _devices(source: Source, resolved: Mapping[str, str]) -> set[str]:
    return {resolved.get(device.path, device.path) for device in source.devices or ()}


# --- pools -----------------------------------------------------------------------------------------------------------


def offered(goal: SourcesGoal, discovery: Discovery) -> tuple[FoundSource, ...]:
    """Everything that was found, each with the pools that have it already."""
    return tuple(
        replace(
            source, pools=tuple(sorted({pool.name for pool in discovery.pools if _has(pool, source, goal, discovery)}))
        )
        for source in discovery.sources
    )


def listed(goal: SourcesGoal, discovery: Discovery, sources: Sequence[FoundSource]) -> tuple[FoundSource, ...]:
    """Those that were asked for."""
    return tuple(
        source
        for source in sources
        if is_like(goal.like, source.source, discovery) and (source.free or not goal.only_free)
    )


def _has(pool: Pool, found: FoundSource, goal: SourcesGoal, discovery: Discovery) -> bool:
    row = row_of(pool.type)
    if row.device_paths and _devices(pool.source, discovery.resolved) & set(found.devices):
        return True
    if row.group == VOLUME_GROUP:
        return found.group is not None and (pool.source.name or pool.name) == found.group
    if pool.type != goal.query.type:
        return False
    if row.one_of == ():
        return True
    if pool.source.adapter is not None:
        return _is_adapter(pool.source.adapter, found.source.adapter, discovery)
    if not pool.source.hosts:
        return False
    anywhere = row.one_of is not None and "hosts" not in row.one_of  # no other pool of it, by whatever server
    told = (*(() if anywhere else ("hosts",)), "format", *row.sources)
    source = Source(**{name: getattr(pool.source, name) for name in told})
    if row.named_by_pool and not source.name:
        source = replace(source, name=pool.name)
    return is_like(source, found.source, discovery)


# --- waiting ---------------------------------------------------------------------------------------------------------


def judge(goal: SourcesGoal, discovery: Discovery, sources: Sequence[FoundSource]) -> Judgement:
    """A source that a pool of that type has is what was waited for: the second run of a play finds it like that."""
    missing, taken, unknown, other = [], [], [], []
    for wanted in (each if each.hosts else replace(each, hosts=goal.like.hosts) for each in goal.wanted):
        alike = [source for source in sources if is_like(wanted, source.source, discovery)]
        blind = next((each for each in discovery.unanswered if _might_have(each, wanted, discovery.resolved)), None)
        if any(_is_there(source, goal, discovery) for source in alike):
            continue
        if alike and (blind is None or wanted.hosts):
            taken.append((wanted, alike[0]))
        elif blind is not None:
            unknown.append((wanted, blind))
        else:
            near = [each for each in sources if is_like(replace(wanted, format=None), each.source, discovery)]
            if wanted.devices and near:
                other.append((wanted, near[0]))
            else:
                missing.append(wanted)
    return Judgement(tuple(missing), tuple(taken), tuple(unknown), tuple(other), goal.query.type)


def _is_there(found: FoundSource, goal: SourcesGoal, discovery: Discovery) -> bool:
    """Whether a pool could be made from it, or was. What a pool has cut out of its disk or group is another one's."""
    if found.free:
        return True
    own = _devices(found.source, discovery.resolved)
    named = [
        (pool.type, _devices(pool.source, discovery.resolved)) for pool in discovery.pools if pool.name in found.pools
    ]
    if any(kind == goal.query.type and (not devices or devices & own) for kind, devices in named):
        return True
    return not found.users and not any(devices & own for _kind, devices in named)


def _might_have(silent: Unanswered, wanted: Source, resolved: Mapping[str, str]) -> bool:
    if silent.host in _devices(wanted, resolved):
        return True
    asked = {host.name for host in wanted.hosts or ()}
    return silent.host in asked and (wanted.format in ANY_FORMAT or silent.format in ("", wanted.format))


def named(source: Source, kind: str | None) -> str:
    """A source of pools of a type in a few words."""
    devices = ", ".join(device.path for device in source.devices or ())
    if source.hosts and source.devices:
        return f"{devices} at {' or '.join(host.name for host in source.hosts)}"
    if source.hosts:
        host = " or ".join(host.name for host in source.hosts)
        return f"{host}:{source.name or source.dir}" + (f" ({source.format})" if source.format else "")
    if source.adapter is not None:
        from ..model.adapters import spoken

        return spoken(source.adapter)
    if source.name:
        return f"{row_of(kind).group} {source.name}".strip() + (f" on {devices}" if devices else "")
    return devices


def unmet(judgement: Judgement, seconds: float) -> StorageError:
    """The error that names everything that is not as waited for. A server that refuses to list has nothing there; one
    that does not answer may.
    """
    kind = judgement.kind
    said = [f"{named(source, kind)} is not there" for source in judgement.missing]
    said += [f"{named(source, kind)} {holding(source, found)}" for source, found in judgement.other]
    said += [f"{named(source, kind)} is not free: {', '.join(found.why_not)}" for source, found in judgement.taken]
    for source, silent in judgement.unknown:
        lists = silent.error.code in _REFUSED
        what = f"{named(source, kind)} is not listed" if lists else f"of {named(source, kind)} can't be told"
        said.append(f"{what}: {_told(silent)}")
    message = (f"waited for {seconds:g} s, and " if seconds else "") + "; ".join(said)
    pairs = (*judgement.other, *judgement.taken, *judgement.unknown)
    subjects = [*judgement.missing, *(pair[0] for pair in pairs)]
    subject = ", ".join(named(source, kind) for source in subjects)
    silent_errors = [silent.error for _source, silent in judgement.unknown if silent.error.code not in _REFUSED]
    if silent_errors:
        return StorageError(silent_errors[0].code, message, subject=subject, hint=silent_errors[0].hint or _SILENT)
    if judgement.missing or judgement.unknown or judgement.other:
        hint = "Make it there, look at its spelling (without wait_for all that is there is listed), or raise timeout."
        if not (judgement.missing or judgement.other):
            hint = judgement.unknown[0][1].error.hint or _SILENT
        return StorageError("source_missing", message, subject=subject, hint=hint)
    return StorageError(
        "source_not_free", message, subject=subject, hint="Take it out of that use, or name another source."
    )


def holding(wanted: Source, found: FoundSource) -> str:
    """What is on a device that is there, and not what was waited for."""
    return f"holds {found.content or 'nothing'}, not {wanted.format}"


_REFUSED = ("command_failed", "operation_failed", "daemon_failed", "source_missing")
_SILENT = "Look at the server and the way to it, or raise timeout."


def nobody(unanswered: Sequence[Unanswered]) -> StorageError:
    """The error of who asked and got no answer at all: where one took too long, that; a tool is what was missing only
    where there was none.
    """
    first = min((each.error for each in unanswered), key=lambda error: _ORDER.get(error.code, 0))
    if len(unanswered) == 1:
        return first
    hints = dict.fromkeys(each.error.hint for each in unanswered if each.error.code == first.code)
    return StorageError(
        first.code,
        "; ".join(dict.fromkeys(_told(each) for each in unanswered)),
        subject=", ".join(dict.fromkeys(each.host for each in unanswered)),
        hint=" ".join(filter(None, hints)) or _SILENT,
    )


_ORDER = {
    "deadline": 1,
    "command_failed": 2,
    "operation_failed": 2,
    "daemon_failed": 2,
    "source_missing": 2,
    "tool_missing": 3,
}


def _told(silent: Unanswered) -> str:
    error = silent.error
    if error.code == "tool_missing":
        return error.message
    said = error.stderr.strip().splitlines()
    where = "" if silent.host in error.message else f"{silent.host}: "
    return f"{where}{error.message}" + (f" ({said[-1]})" if said else "")


def warnings(discovery: Discovery) -> list[str]:
    """What the user should know of a look that got some answers. That a server does not speak a protocol is no news,
    unless it spoke none.
    """
    told = [f"{text}, and left out" for text in discovery.left_out]
    talked = {host.name for source in discovery.sources for host in source.source.hosts or ()}
    for silent in discovery.unanswered if discovery.answered else ():
        if silent.error.code not in _REFUSED or silent.host not in talked:
            told.append(f"not all was looked at: {_told(silent)}")
    told += [f"whether one of these sources is used there is not known: {text}" for text in discovery.unread]
    return list(dict.fromkeys(told))
