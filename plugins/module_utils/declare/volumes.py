# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Parameters of storage_volume as a goal, with every check that needs no host."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Callable

from ..model.errors import StorageError
from ..model.goal import Scope, VolumeGoal, VolumesGoal
from ..model.pool import Permissions, Pool
from ..model.types import POOL_TYPES, THIN_POOL, VOLUME_FORMATS
from ..model.units import parse_mode, parse_size, plain_number
from ..model.volume import Backing, Content, Volume
from .names import CONTROL, pool_name, volume_name

_LEAST_PLAIN = 1024 * 1024  # a smaller number of bytes is hardly meant as that
OwnerId = Callable[[Any], Any]
_DEFAULTS = {"state": "present", "capacity_policy": "exact", "recreate": "never"}
_DESCRIBING = (
    "capacity",
    "allocation",
    "format",
    "owner",
    "group",
    "mode",
    "backing",
    "source",
    "options",
    "capacity_policy",
)


def volumes_goal(params: Mapping[str, Any], owner_id: OwnerId, group_id: OwnerId) -> VolumesGoal:
    """Raises StorageError for whatever is wrong with the parameters."""
    pool = pool_name(params["pool"])
    accounts = (_cached(owner_id), _cached(group_id))
    entries = params["volumes"]
    if entries is None:
        given = [params] if params["name"] is not None or params["xml"] else []
        if not given and params["exclusive"] is None:
            raise StorageError(
                "missing_option",
                "no volume is named",
                subject=f"pool {pool}",
                hint="Give name, xml, volumes or exclusive.",
            )
    else:
        if params["name"] is not None or params["xml"] is not None:
            raise StorageError(
                "invalid_option",
                "name or xml and volumes exclude each other",
                subject=f"pool {pool}",
                hint="Name it in volumes.",
            )
        given = [_inherited(entry, params) for entry in entries]
    goals = tuple(_volume_goal(each, pool, *accounts) for each in given)
    if params["exclusive"] is not None and not goals:
        raise StorageError(
            "invalid_option",
            f"exclusive without a volume to keep would delete all volumes that match {params['exclusive']}",
            subject=f"pool {pool}",
            hint="List the volumes to keep; delete volumes by name with state: absent.",
        )
    _check_unique(goals, pool)
    doubts = (*_tiny(zip(given, goals), pool), *_keeping_none(goals, params["exclusive"], pool))
    return VolumesGoal(pool, goals, params["exclusive"], doubts)


def _tiny(entries: Iterable[tuple[Mapping[str, Any], VolumeGoal]], pool: str) -> Iterator[str]:
    """Sizes of new volumes that look as if they lacked a unit."""
    tiny: dict[tuple[str, int], list[str]] = {}
    for params, goal in entries:
        for option in ("capacity", "allocation") if goal.state == "present" else ():
            size = plain_number(params[option])
            if size and size < _LEAST_PLAIN:
                tiny.setdefault((option, size), []).append(goal.volume.name)
    for (option, size), names in tiny.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"volume {pool}/{names[0]}{more}: {option} is {size} bytes: did you mean {size}G? "
            f"If not, {size}B says so without this warning"
        )


def _keeping_none(goals: Iterable[VolumeGoal], exclusive: str | None, pool: str) -> Iterator[str]:
    """A pattern for other volumes than those that are listed."""
    kept = [goal.volume.name for goal in goals if goal.state != "absent"]
    if exclusive is not None and not any(fnmatch.fnmatchcase(name, exclusive) for name in kept):
        yield f"pool {pool}: exclusive: {exclusive} matches none of the volumes to keep, so that all that match go"


def volumes_scope(goal: VolumesGoal) -> Scope:
    """Only the named volumes and what they are made from; all of them where ``exclusive`` asks."""
    volumes = [entry.volume for entry in goal.volumes if entry.state == "present"]
    names = {entry.volume.name for entry in goal.volumes}
    return Scope(
        Pool(goal.pool),
        volumes=None if goal.exclusive is not None else tuple(sorted(names)),
        named=tuple(sorted(names)),
        raw=frozenset(volume.name for volume in volumes if _is_raw(volume)),
        images=_keys(volume.backing for volume in volumes),
        sources=_keys(volume.content for volume in volumes),
        contents=tuple((v.name, len(v.content.data)) for v in volumes if v.content and v.content.data is not None),
    )


def _is_raw(volume: Volume) -> bool:
    """Whether the volume is declared raw, also by content that is taken byte for byte."""
    if volume.encryption is not None:
        return False  # what is in it is not what it looks like
    if volume.format is not None or volume.content is None:
        return volume.format == "raw"
    return volume.content.format == "raw" or volume.content.data is not None


def _keys(references: Any) -> tuple[str, ...]:
    keys = {reference.path or reference.volume for reference in references if reference is not None}
    return tuple(sorted(key for key in keys if key))


def _cached(resolve: OwnerId) -> OwnerId:
    known: dict[Any, Any] = {}

    def resolved(value: Any) -> Any:
        if value not in known:
            known[value] = resolve(value)
        return known[value]

    return resolved


def _inherited(entry: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with every option that it does not give taken from the task; dicts replace, they are not merged."""
    merged = {name: value for name, value in entry.items() if value is not None}
    return {**params, "volumes": None, "exclusive": None, "name": None, "xml": None, **merged}


def _check_unique(goals: tuple[VolumeGoal, ...], pool: str) -> None:
    seen = set()
    for goal in goals:
        if goal.volume.name in seen:
            raise StorageError(
                "duplicate_volume",
                f"the volume {goal.volume.name} is listed twice",
                subject=f"volume {pool}/{goal.volume.name}",
                hint="Say everything about a volume in one entry.",
            )
        seen.add(goal.volume.name)


def _volume_goal(params: Mapping[str, Any], pool: str, owner_id: OwnerId, group_id: OwnerId) -> VolumeGoal:
    if params["xml"]:
        volume = _from_xml(params, pool)
    elif params["name"] is None:
        raise StorageError(
            "missing_option", "an entry of volumes has no name", subject=f"pool {pool}", hint="Give it one."
        )
    else:
        volume = _from_options(params, pool, owner_id, group_id)
    settings = {name: params[name] or default for name, default in _DEFAULTS.items()}
    if settings["state"] == "present" and volume.backing is not None and volume.content is not None:
        raise StorageError(
            "invalid_option",
            "a volume starts from a backing or from a source, not from both",
            subject=f"volume {pool}/{volume.name}",
            hint="Give one of them.",
        )
    return VolumeGoal(volume, settings["state"], settings["recreate"], frozenset(params["allow"] or ()))


def _from_xml(params: Mapping[str, Any], pool: str) -> Volume:
    from ..libvirt_xml.volume import parse_volume

    volume = parse_volume(params["xml"])
    subject = f"volume {pool}/{volume.name}"
    given = [name for name in _DESCRIBING if params[name] is not None]
    if given:
        raise StorageError(
            "invalid_option",
            f"xml and {', '.join(given)} exclude each other",
            subject=subject,
            hint="Say it in one of the two.",
        )
    if params["name"] is not None and params["name"] != volume.name:
        raise StorageError(
            "invalid_option",
            f"the xml names the volume {volume.name}, the task {params['name']}",
            subject=subject,
            hint="Make them agree.",
        )
    volume_name(volume.name)
    if volume.permissions.label is not None:
        raise StorageError(
            "invalid_option", "labels are not set here", subject=subject, hint="Leave <label> out of the xml."
        )
    backing = volume.backing
    if backing is None:
        return volume
    path, _volume = _reference(backing.path, None, "backingStore/path", subject)
    return replace(volume, backing=replace(backing, path=path))


def _from_options(params: Mapping[str, Any], pool: str, owner_id: OwnerId, group_id: OwnerId) -> Volume:
    name = volume_name(params["name"])
    subject = f"volume {pool}/{name}"
    options = params["options"] or {}

    def size(option: str, value: Any) -> int | None:
        return None if value is None else parse_size(value, option, subject)

    capacity = size("capacity", params["capacity"])
    _check_format(params["format"], subject)
    return Volume(
        name,
        capacity=capacity,
        allocation=size("allocation", params["allocation"]),
        format=params["format"],
        permissions=Permissions(
            None if params["mode"] is None else parse_mode(params["mode"], "mode", subject),
            owner_id(params["owner"]),
            group_id(params["group"]),
        ),
        backing=_backing(params["backing"], subject),
        compat=options.get("compat"),
        cluster_size=size("options.cluster_size", options.get("cluster_size")),
        lazy_refcounts=options.get("lazy_refcounts"),
        extended_l2=options.get("extended_l2"),
        thin_pool=None
        if options.get("thin_pool") is None
        else _named(options["thin_pool"], "options.thin_pool", subject),
        content=_content(params["source"], subject),
        preallocation=options.get("preallocation"),
        nocow=options.get("nocow"),
        at_least=params["capacity_policy"] == "at_least",
    )


def _check_format(name: str | None, subject: str) -> None:
    """Raises ``format_unsupported`` for what no type of pool makes. Which type it is nobody has looked at yet."""
    partitions = [each for row in POOL_TYPES.values() if row.partitions for each in row.volume_formats]
    if name is not None and name not in (*VOLUME_FORMATS, *partitions, THIN_POOL):
        raise StorageError(
            "format_unsupported",
            f"format: {name!r} is no format of a volume",
            subject=subject,
            hint=f"Leave it out, or give {' or '.join(VOLUME_FORMATS)} for an image. A partition's says what it is for "
            f"(nothing is formatted): {', '.join(partitions)} (linux for ext4, xfs and the like). "
            f"Logical pools have {THIN_POOL}.",
        )


def _named(name: Any, option: str, subject: str) -> str:
    """The name of another volume in the value of an option."""
    try:
        return volume_name(str(name))
    except StorageError as error:
        hint = "Name a volume of the same pool, or leave it out."
        raise StorageError(error.code, f"{option}: {error.message}", subject=subject, hint=hint) from None


def _reference(path: Any, volume: Any, option: str, subject: str) -> tuple[str | None, str | None]:
    """(absolute path, volume name): exactly one of them."""
    if (path is None) == (volume is None):
        raise StorageError(
            "invalid_option",
            f"{option} needs exactly one of path and volume",
            subject=subject,
            hint="Give one of them.",
        )
    if volume is not None:
        return None, _named(volume, option, subject)
    if not str(path).startswith("/") or CONTROL.search(str(path)):
        raise StorageError(
            "invalid_path",
            f"{option}: {path!r} is not an absolute path",
            subject=subject,
            hint="Give an absolute path, or the name of a volume of the same pool.",
        )
    return _tidied(str(path)), None


def _tidied(path: str) -> str:
    """Without what means nothing. Where ``..`` leads to is the kernel's to say: what is before it may be a link."""
    return "/" + "/".join(name for name in path.split("/") if name not in ("", "."))


def _dict_of(text: str) -> dict[str, str] | None:
    """What an ad-hoc command gives as a dict: JSON, or key=value pairs separated by commas; None for plain text."""
    if text.lstrip().startswith("{"):
        try:
            given = json.loads(text.replace("'", '"'))
        except ValueError:
            return None
        return given if isinstance(given, dict) else None
    if text.partition("=")[0] not in ("volume", "path", "format"):
        return None
    return dict(pair.partition("=")[::2] for pair in text.split(","))


def _backing(given: Any, subject: str) -> Backing | None:
    """Plain text (a path, or the name of a volume of the same pool) or a dict of path or volume, and format."""
    if given is None:
        return None
    if isinstance(given, str):
        given = _dict_of(given) or given
    if isinstance(given, str):
        given = {"path": given} if "/" in given else {"volume": given}
    strange = sorted(set(given) - {"path", "volume", "format"}) if isinstance(given, Mapping) else ["its type"]
    if strange:
        raise StorageError(
            "invalid_option",
            f"backing: {', '.join(map(str, strange))} is not understood",
            subject=subject,
            hint="Give plain text, or a dict of path or volume, and format.",
        )
    path, volume = _reference(given.get("path"), given.get("volume"), "backing", subject)
    return Backing(path, given.get("format"), volume)


def _content(given: Mapping[str, Any] | None, subject: str) -> Content | None:
    if given is None:
        return None
    if given.get("content") is not None:
        if given.get("path") is not None or given.get("volume") is not None or given.get("format") is not None:
            raise StorageError(
                "invalid_option",
                "source.content excludes path, volume and format",
                subject=subject,
                hint="Give one of them.",
            )
        return Content(data=given["content"].encode("utf-8", "surrogateescape"))
    path, volume = _reference(given.get("path"), given.get("volume"), "source", subject)
    return Content(path, volume, given.get("format"))
