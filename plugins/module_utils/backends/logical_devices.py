# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The devices of a volume group: those that it has, those that it is to be built of, and what is on them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ..host.block import Device
from ..model.change import UNKNOWN, Condition
from ..model.errors import StorageError
from ..model.found import ABSENT, BLANK, FOREIGN, READY, UNKNOWN_STORAGE, Part, Problem, User
from ..model.pool import Pool
from ..model.types import spoken
from ..model.units import listed
from . import lvm
from .logical import GROUP

if TYPE_CHECKING:
    from ..host.look import Look

LABELS = "physical volumes"
_MEMBER = "LVM2_member"
_VOLUME = "LVM-"  # how the device-mapper uuids of its volumes begin
_NAME = re.compile(r"(?!-)(?!\.{1,2}\Z)[a-zA-Z0-9+_.-]{1,127}\Z", re.ASCII)  # lvm(8): valid names


def _declared(pool: Pool) -> list[str]:
    return [device.path for device in pool.source.devices or ()]


def _resolved(paths: list[str], look: Look) -> tuple[dict[str, Device], list[Problem]]:
    """The devices that are there, by how they are declared, and what is wrong with the others."""
    from ..host.sources import resolve

    devices: dict[str, Device] = {}
    problems = []
    for path in paths:
        try:
            device = resolve(path, look)
        except StorageError as error:
            if error.code == "deadline":
                raise
            problems.append(Problem(error.code, error.message, error.hint))
            continue
        if any(device.number == other.number for other in devices.values()):
            problems.append(Problem("source_conflict", f"{path} is declared twice", "Name each device once."))
        else:
            devices[path] = device
    return devices, problems


def members(numbers: Iterable[tuple[int, int]]) -> list[Device]:
    """The devices of these numbers that the kernel has, sorted by its names."""
    from ..host.block import device_of

    found = []
    for number in numbers:
        with suppress(StorageError):
            found.append(device_of(number))
    return sorted(found, key=lambda device: device.node)


# --- a group that is there -------------------------------------------------------------------------------------------


def joined(
    group: lvm.Group, pool: Pool, told: lvm.Report, look: Look
) -> tuple[tuple[Part, ...], tuple[str, ...], Problem | None]:
    """A part for each declared device, be it in the group or to join it; what else is to be said; and why it is not the
    group that is meant.
    """
    paths = _declared(pool)
    devices, problems = _resolved(paths, look)
    numbers = {device.number for device in group.devices}
    members = [path for path, device in devices.items() if device.number in numbers]
    wanted = {device.number for device in devices.values()}
    strangers = [device.path for device in group.devices if device.path and device.number not in wanted]
    if not paths:
        return (), (), _inside(group)
    if not members and not group.missing:
        problem = Problem(
            "storage_foreign",
            f"the volume group {group.name} is there on other devices: {', '.join(strangers)}",
            "Declare its own devices (or none), or another name.",
        )
        return (), (), problem
    parts = [
        Part(f"device {path}", path, READY, facts={"device": path})
        if path in members
        else _joining(path, device, group.name, told, look)
        for path, device in devices.items()
    ]
    parts += [Part(LABELS, "its devices", ABSENT, problem=problem) for problem in problems]
    remark = f"volume group {group.name} keeps devices that are not declared: {', '.join(strangers)}"
    return tuple(parts), (remark,) if strangers else (), None


def _joining(path: str, device: Device, name: str, told: lvm.Report, look: Look) -> Part:
    seen = _look_at(path, device, told, look)
    return Part(
        f"device {path}",
        f"{path} as a device of the volume group {name}",
        seen.kind,
        seen.why,
        seen.problem,
        seen.destroys,
        seen.requires,
        seen.users,
        seen.unseen,
        (device.node,),
        making=f"extend the volume group {name} to {path}",
        facts={"device": path},
    )


def _inside(group: lvm.Group) -> Problem | None:
    """A group whose devices are volumes or files of this host may be a guest's own, seen from outside: it is taken
    only by who names its devices.
    """
    from ..host.nested import holds_guests

    member = next((each for each in group.devices if each.path and holds_guests(each.path)), None)
    if member is None:
        return None
    return Problem(
        "vg_inside_volume",
        f"the volume group {group.name} is on {member.path}, which is or lies on a logical volume, a volume of ZFS, a "
        "loop device or an nbd device: it may be a guest's own",
        "If it is this host's, say so by naming its devices (source.devices).",
    )


# --- a group that is not there ---------------------------------------------------------------------------------------


def active_of(group: str) -> list[str]:
    """The names in device-mapper of the volumes of a group that are active (libdevmapper: dm_build_dm_name)."""
    from ..host.block import mapped

    start = group.replace("-", "--") + "-"
    return [name for name in mapped(_VOLUME, start) if not name.startswith(start + "-")]


def unshown(name: str, active: Sequence[str], lacking: StorageError | None) -> Problem:
    """Of a group that is active and that LVM does not show, or of which there is no LVM to ask."""
    what = f"volumes of the volume group {name} are active ({listed(active)})"
    if lacking is not None:
        return Problem(lacking.code, f"{lacking.message}, and {what}", lacking.hint)
    hint = f"Show it its devices ({_SHOW}, or its filters), or take away what is left of them (dmsetup remove NAME)."
    return Problem("vg_hidden", f"{what}, but LVM does not show it", hint)


def parts_to_build(
    name: str, pool: Pool, told: lvm.Report, look: Look, lacking: StorageError | None = None
) -> tuple[Part, ...]:
    """What a group is to be built of; a part of the kind ``UNKNOWN_STORAGE`` where it may be there all the same.
    ``lacking``: there is no LVM that could tell.
    """
    what, paths = f"the volume group {name}", _declared(pool)
    if not paths:
        return (Part(GROUP, what, ABSENT, problem=_nowhere(what, lacking)),)
    problem = _name_problem(name)
    devices, problems = _resolved(paths, look)
    looked = {path: _look_at(path, device, told, look) for path, device in devices.items()}
    hidden = next((path for path, each in looked.items() if each.hidden), None)
    if hidden is not None:
        return (_untold(what, hidden, looked[hidden], lacking),)
    making, nodes = f"make {what} of {', '.join(paths)}", sorted(device.node for device in devices.values())
    if problem is None and problems:
        problem = next((each for each in problems if each.code != "source_missing"), None)
        if problem is None:
            return (Part(GROUP, what, ABSENT, problem=problems[0], making=making, facts={"devices": UNKNOWN}),)
    if problem is not None:
        return (Part(GROUP, what, ABSENT, problem=problem),)
    group = replace(_to_make(what, looked), devices=tuple(nodes), making=making, facts={"devices": nodes})
    orphans = sorted((each for each in devices.values() if _orphan(each, told)), key=lambda device: device.node)
    return (group, _labels(orphans)) if orphans else (group,)


def _nowhere(what: str, lacking: StorageError | None) -> Problem:
    if lacking is not None:
        return Problem(lacking.code, lacking.message, lacking.hint)
    shown = f", or show LVM where it is: {_SHOW}." if lvm.has_devices_file() else "."
    return Problem("source_missing", f"there is no {what[4:]} here", f"Give source.devices to make it{shown}")


def _untold(what: str, path: str, seen: _Seen, lacking: StorageError | None) -> Part:
    """It may be there: a device of it is a physical volume that LVM does not show."""
    problem = seen.problem
    if lacking is not None:
        problem = Problem(lacking.code, f"{lacking.message}, and {path} is a physical volume", lacking.hint)
    return Part(GROUP, what, UNKNOWN_STORAGE, f"{path} is a physical volume that LVM does not show", problem)


def _to_make(what: str, looked: Mapping[str, _Seen]) -> Part:
    """The group, of what is on all of its devices."""
    lost = [f"{path}: {each.why}" for path, each in looked.items() if each.kind == FOREIGN]
    blind = [f"{path}: {each.why}" for path, each in looked.items() if each.kind == UNKNOWN_STORAGE]
    seen = looked.values()
    return Part(
        GROUP,
        what,
        UNKNOWN_STORAGE if blind else FOREIGN if lost else ABSENT,
        "; ".join(blind or lost),
        next((each.problem for each in seen if each.problem is not None), None),
        " and ".join(each.destroys for each in seen if each.destroys),
        tuple(condition for each in seen for condition in each.requires),
        tuple(user for each in seen for user in each.users),
        tuple(dict.fromkeys(unseen for each in seen for unseen in each.unseen)),
    )


def _labels(orphans: Sequence[Device]) -> Part:
    from ..host.conditions import is_device

    nodes = [device.node for device in orphans]
    return Part(
        LABELS,
        f"the labels of {', '.join(nodes)}",
        READY,
        removable=True,
        requires=tuple(map(is_device, orphans)),
        deleting=f"remove the labels of {', '.join(nodes)}, which an interrupted task left",
        facts={"devices": nodes},
    )


_SHOW = "lvmdevices --adddev DEVICE"


def _name_problem(name: str) -> Problem | None:
    if _NAME.match(name) and not os.path.lexists(f"/dev/{name}"):
        return None
    why = "is a name in /dev already" if _NAME.match(name) else "is no name that LVM takes"
    return Problem("invalid_name", f"source.name: {name!r} {why}", "Letters, digits and + _ . - make another name.")


def _orphan(device: Device, told: lvm.Report) -> bool:
    return any(
        each.number == device.number and not each.group and not each.used and not each.copies for each in told.devices
    )


class _Seen(NamedTuple):
    """What is on a device that a group is to take, as a Part (model/found.py) has it. ``hidden``: a physical volume
    that LVM does not show.
    """

    kind: str = ABSENT
    why: str = ""
    destroys: str = ""
    problem: Problem | None = None
    users: tuple[User, ...] = ()
    requires: tuple[Condition, ...] = ()
    unseen: tuple[str, ...] = ()
    hidden: bool = False


def _look_at(path: str, device: Device, told: lvm.Report, look: Look) -> _Seen:
    from ..host.conditions import untouched
    from ..host.signatures import content_at
    from .holding import users_of

    member = next((each for each in told.devices if each.number == device.number), None)
    if member is not None and member.group:
        return _Seen(users=(User("holder", f"volume group {member.group}"),))
    content = content_at(device.node, look.left(path))
    users, unseen = users_of(device, content, look)
    if content.problem:
        return _Seen(UNKNOWN_STORAGE, f"can't be read ({content.problem})", users=users, unseen=unseen)
    names = set(content.names)
    hidden = member is None and _MEMBER in names
    seen = _Seen(users=users, requires=untouched(device, content), unseen=unseen, hidden=hidden)
    problem = _unfit(path, device, look)
    if hidden:
        return seen._replace(kind=FOREIGN, why="is a physical volume", problem=problem or _hidden(path, device))
    if problem is not None:
        return seen._replace(problem=problem)
    if content.text == BLANK or (names <= {_MEMBER} and _orphan(device, told)):
        return seen
    held = spoken(content.text)
    return seen._replace(kind=FOREIGN, why=f"holds {held}", destroys=f"what {path} holds ({held})")


def _unfit(path: str, device: Device, look: Look) -> Problem | None:
    """Why LVM can't take a device, whatever is on it."""
    from .holding import unreliable

    if device.read_only:
        return Problem("not_writable", f"{path} is read-only", "Name a device that can be written.")
    if device.dm_uuid.startswith(_VOLUME) and not lvm.looks_into_volumes(look):
        return Problem(
            "not_supported",
            f"{path} is a logical volume, and LVM takes none as a physical volume",
            "Name another device, or let LVM do that (devices/scan_lvs=1 in lvm.conf).",
        )
    return unreliable(path, device, look)


def _hidden(path: str, device: Device) -> Problem:
    why = "its devices file, or a filter" if lvm.has_devices_file() else "a filter, or another one like it"
    return Problem(
        "vg_hidden",
        f"{path} is a physical volume that LVM does not show: {why} hides it",
        f"See what is on it (lvmdevices --adddev {device.node}), or remove its label (wipefs -a {device.node}).",
    )
