# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Declarations as the tests make them up: what is written in a task, and beside it what it means.

So nothing has to be parsed to know what a task means, and no parser is shared with what is tested.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Said:
    """``given`` goes into the task, ``means`` is what it stands for. A ``code``: it is refused on every host."""

    given: Any
    means: Any = None
    code: str = ""

    def __repr__(self) -> str:
        return repr(self.given) if not self.code else f"{self.given!r} ({self.code})"


@dataclass(frozen=True)
class PoolTask:
    name: Said
    state: str | None = None
    type: str | None = None
    path: Said | None = None
    mode: Said | None = None
    owner: Said | None = None
    group: Said | None = None
    uuid: Said | None = None
    autostart: bool | None = None
    build: str | None = None
    allow: frozenset[str] = frozenset()
    source: tuple[tuple[str, str], ...] = ()
    as_xml: bool = False

    @property
    def module(self) -> str:
        return "storage_pool"

    @property
    def wanted_state(self) -> str:
        return {None: "active", "undefined": "absent"}.get(self.state, self.state or "")

    def values(self) -> list[Said]:
        given = (self.name, self.path, self.mode, self.owner, self.group, self.uuid)
        return [value for value in given if value is not None]

    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = {"name": self.name.given}
        for name in ("path", "mode", "owner", "group", "uuid"):
            value = getattr(self, name)
            if value is not None:
                params[name] = value.given
        for name in ("state", "type", "autostart", "build"):
            if getattr(self, name) is not None:
                params[name] = getattr(self, name)
        if self.allow:
            params["allow"] = sorted(self.allow)
        if self.source:
            params["source"] = dict(self.source)
        if self.as_xml:
            params["xml"] = pool_xml(
                self.type or "dir", params.pop("name"), params.pop("uuid", None), params.pop("path")
            )
            for name in ("type", "mode", "owner", "group", "source"):
                params.pop(name, None)
        return params


def pool_xml(kind: str, name: str, uuid: str | None, path: str) -> str:
    """The least that libvirt takes for a definition. The names of these tests need no quoting."""
    identity = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"<pool type='{kind}'><name>{name}</name>{identity}<target><path>{path}</path></target></pool>\n"


@dataclass(frozen=True)
class Source:
    """What a volume is filled from: exactly one of ``path``, ``volume`` and ``content``."""

    path: str | None = None
    volume: str | None = None
    content: str | None = None
    format: str | None = None

    def given(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ("path", "volume", "content", "format") if getattr(self, name)}


@dataclass(frozen=True)
class Backing:
    """``plain``: written as text alone."""

    path: str | None = None
    volume: str | None = None
    format: str | None = None
    plain: bool = False

    def given(self) -> Any:
        if self.plain:
            return self.path or self.volume
        return {name: getattr(self, name) for name in ("path", "volume", "format") if getattr(self, name)}


# The options of an entry of ``volumes`` and of the task itself, apart from name: Said, or values that mean themselves.
Options = dict[str, Any]


@dataclass(frozen=True)
class VolumeTask:
    """``entries`` are (name, options); ``common`` are the task's options, which entries take where they have none."""

    pool: Said
    entries: tuple[tuple[Said, Options], ...]
    common: Options = field(default_factory=dict)
    exclusive: str | None = None
    as_list: bool = False

    @property
    def module(self) -> str:
        return "storage_volume"

    def effective(self) -> list[tuple[Said, Options]]:
        return [(name, {**self.common, **own}) for name, own in self.entries]

    def values(self) -> list[Said]:
        pairs = [*self.effective()]
        return [self.pool, *(v for name, o in pairs for v in (name, *o.values()) if isinstance(v, Said))]

    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = {"pool": self.pool.given}
        if self.exclusive is not None:
            params["exclusive"] = self.exclusive
        if self.as_list:
            params.update(_given(self.common))
            params["volumes"] = [{"name": name.given, **_given(own)} for name, own in self.entries]
        else:
            for name, own in self.entries:
                params.update({"name": name.given, **_given({**self.common, **own})})
        return params


def _given(options: Options) -> dict[str, Any]:
    return {name: _as_given(value) for name, value in options.items()}


def _as_given(value: Any) -> Any:
    if isinstance(value, Said):
        return value.given
    if isinstance(value, (Source, Backing)):
        return value.given()
    if isinstance(value, dict):
        return _given(value)
    return sorted(value) if isinstance(value, frozenset) else value


def means(value: Any) -> Any:
    return value.means if isinstance(value, Said) else value


@dataclass(frozen=True)
class Hand:
    """Something that happens between tasks: ``what`` is done to ``path``, and to ``name`` in it."""

    what: str
    path: str
    name: str = ""
    mode: int = 0
