# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Pools whose storage only a daemon can look at: what starting one may build, and what deleting one would destroy.

Their devices may still be at hand: then what is on them is decided on here, as far as that tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..model.change import UNKNOWN, Change, Condition
from ..model.errors import StorageError
from ..model.facts import permissions_facts
from ..model.found import BLANK, DATA, UNREADABLE, Found
from ..model.goal import PoolGoal
from ..model.pool import Pool
from ..model.types import POOL_TYPES, spoken
from ..model.units import counted, format_size
from ..model.volume import LOST_AND_FOUND, Volume
from .building import check_all_unused
from .decision import change_of, subject_of
from .deleting import check_nobody_has, check_whole, delete_listed, listing, undeletable
from .pools import laid_over
from .running import stop


def _only_directory(pool: Pool) -> bool:
    """Whether building makes a directory and no more."""
    row = POOL_TYPES[pool.type or ""]
    return row.file_tree and not row.on_devices


def devices_of(pool: Pool) -> str:
    return ", ".join(device.path for device in pool.source.devices or ()) or f"pool {pool.name}"


def check_permissions(goal: PoolGoal, found: Found, wanted: Pool) -> None:
    """Raises where declared permissions can't be given: the daemon gives them to the directory that it builds, and not
    to what is mounted there.
    """
    row, have = POOL_TYPES[wanted.type or ""], permissions_facts(found.storage.permissions)
    want = permissions_facts(replace(goal.pool.permissions, label=None))
    names = [name for name in want if want[name] != have.get(name)]
    if not names or not row.file_tree or (not found.active and not row.mounted):
        return
    raise StorageError(
        "daemon_cannot",
        f"{', '.join(names)} of {wanted.path} can't be set through the daemon"
        + (" on what is mounted there" if row.mounted else " while the pool is active"),
        subject=str(subject_of(goal)),
        hint="Leave it out, and set it on that host."
        if row.mounted
        else "Change it on that host, or stop the pool first (state: inactive): it is set when the pool is started.",
    )


# --- starting --------------------------------------------------------------------------------------------------------


def start_unseen(
    goal: PoolGoal, found: Found, wanted: Pool, before: Mapping[str, Any], missing: list[StorageError]
) -> Change:
    """Starting is the only way to see whether it is built. It is built where it is not, unless that could lose what
    nobody allowed to be lost.
    """
    words, destroys, summary = frozenset({"check"}), "", "start it" + (f" on {wanted.path}" if wanted.path else "")
    requires: tuple[Condition, ...] = ()
    if "build" in POOL_TYPES[wanted.type or ""].daemon:
        words, destroys = _build_words(goal, found, wanted, missing)
        seen = _looked_at(found, wanted)
        requires = tuple(Condition("content", path, (content,)) for path, content in seen.items())
        check_all_unused(goal, found, "built" if "build" in words else "started")
        if "overwrite" in words and builds_over_itself(goal, found):
            check_whole(goal, replace(found, volumes=_held(found)), "lost")
        if "build" in words:
            requires += tuple(condition for part in found.storage.parts for condition in part.requires)
    if "build" in words:
        built = f"built on {devices_of(wanted)} first" if _all_seen(found, wanted) else "built first where it is not"
        summary += f", {built}"
    elif words & {"directory", "first"} and _only_directory(wanted):
        summary += ", a directory that is made where it is not there"
    elif "directory" in words:
        summary += f", with what is on {devices_of(wanted)}"
    return change_of(
        goal, "start", summary, before, {"state": "active"}, wanted, may=words, destroys=destroys, requires=requires
    )


def _looked_at(found: Found, wanted: Pool) -> dict[str, str]:
    paths = [device.path for device in wanted.source.devices or ()]
    return {path: found.devices[path] for path in paths if path in found.devices}


def takes_devices(goal: PoolGoal, found: Found) -> bool:
    """Whether starting the pool would write to devices at hand, or mount them: others may have them."""
    existing = found.definition or found.live
    wanted = goal.pool if existing is None else laid_over(existing, goal, found)
    builds = goal.build != "never" and not all(_fits(what, wanted) for what in _looked_at(found, wanted).values())
    return builds or POOL_TYPES[wanted.type or ""].mounted


def builds_over_itself(goal: PoolGoal, found: Found) -> bool:
    """Whether another storage may be built on a device that the pool runs on, in place of its volumes."""
    existing = found.definition or found.live
    if existing is None or found.live is None or not (found.active and found.row.file_tree and _held(found)):
        return False
    wanted = laid_over(existing, goal, found)
    have, want = (
        {found.resolved.get(device.path, device.path) for device in pool.source.devices or ()}
        for pool in (found.live, wanted)
    )
    return not have.isdisjoint(want) and not found.runs_on(wanted)


def _held(found: Found) -> dict[str, Volume]:
    """What is listed, without what is a filesystem's own."""
    own = (LOST_AND_FOUND,) if found.row.file_tree else ()
    return {name: volume for name, volume in found.volumes.items() if name not in own}


def _all_seen(found: Found, wanted: Pool) -> bool:
    return bool(wanted.source.devices) and len(_looked_at(found, wanted)) == len(wanted.source.devices or ())


def _build_words(goal: PoolGoal, found: Found, wanted: Pool, missing: list[StorageError]) -> tuple[frozenset[str], str]:
    """What starting may include, and what that destroys."""
    row, never, overwrite = POOL_TYPES[wanted.type or ""], goal.build == "never", "overwrite" in goal.allow
    if found.runs_on(wanted):  # restarted: it is built
        return frozenset({"directory"} if row.file_tree and not never else {"check"}), ""
    if not _all_seen(found, wanted):
        if never or (row.device_paths and not wanted.source.devices):
            return frozenset({"check"}), ""
        if _only_directory(wanted):  # one that is there gets the declared permissions too
            first = not row.mounted and permissions_facts(goal.pool.permissions)
            return frozenset({"first" if first else "directory"}), ""
        if _unmade(wanted):
            return frozenset({"directory"} if row.file_tree else {"check"}), ""
        lost = f"what {devices_of(wanted)} holds, if it is of another kind" if overwrite else ""
        return frozenset({"build", *(["overwrite"] if overwrite else [])}), lost
    seen = _looked_at(found, wanted)
    unread = {path: content for path, content in seen.items() if content.startswith(UNREADABLE)}
    for path, content in unread.items():
        missing.append(
            StorageError(
                "source_missing",
                f"{path} of pool {goal.pool.name} can't be read: {content[len(UNREADABLE) :]}",
                subject=str(subject_of(goal)),
                hint="Name a device that is there, or run as a user who may read it (become: true).",
            )
        )
    foreign = {path: what for path, what in seen.items() if what and path not in unread and not _fits(what, wanted)}
    if foreign and (not overwrite or never):
        raise _foreign(goal, foreign, wanted, never)
    if foreign:
        _check_makable(goal, wanted)
        return frozenset({"build", "overwrite"}), ", ".join(
            f"{spoken(what)} on {path}" for path, what in foreign.items()
        )
    blank = [path for path, what in seen.items() if what == BLANK]
    if blank:
        _check_blank(goal, wanted, blank, never, missing)
    if never:
        return frozenset({"check"}), ""
    return frozenset({"build"} if blank else {"directory"} if row.file_tree else {"check"}), ""


def _fits(content: str, wanted: Pool) -> bool:
    """Whether what a device holds is what the pool would be built as."""
    row = POOL_TYPES[wanted.type or ""]
    if row.signature:
        return content == row.signature
    if _says_nothing(wanted) and not row.builds:
        return content != DATA
    return content == (row.builds if _says_nothing(wanted) else wanted.source.format)


def _says_nothing(wanted: Pool) -> bool:
    """Whether the declared format is none."""
    return wanted.source.format in (POOL_TYPES[wanted.type or ""].default_format, None)


def _check_blank(goal: PoolGoal, wanted: Pool, blank: list[str], never: bool, missing: list[StorageError]) -> None:
    row = POOL_TYPES[wanted.type or ""]
    if never:
        missing.append(
            StorageError(
                "source_missing",
                f"{', '.join(blank)} of pool {goal.pool.name} is empty",
                subject=str(subject_of(goal)),
                hint="Format it, or let the task do so (build: auto).",
            )
        )
    elif not row.signature and not row.builds and _says_nothing(wanted):
        raise StorageError(
            "missing_option",
            f"{', '.join(blank)} of pool {goal.pool.name} is empty, and nothing says as what to format it",
            subject=str(subject_of(goal)),
            hint="Give source.format, such as ext4 or xfs.",
        )
    else:
        _check_makable(goal, wanted)


def _unmade(wanted: Pool) -> bool:
    """Whether no daemon makes what is declared."""
    row = POOL_TYPES[wanted.type or ""]
    return wanted.source.format in (*row.found_only, *row.made_natively)


def _check_makable(goal: PoolGoal, wanted: Pool) -> None:
    if not _unmade(wanted):
        return
    row, kind = POOL_TYPES[wanted.type or ""], wanted.source.format
    if kind in row.found_only:
        code, what = "not_supported", f"nothing makes {kind} on {devices_of(wanted)}"
        hint = "Name a device that holds one, or another source.format."
    else:
        code, what = "daemon_cannot", f"no daemon makes {kind} on {devices_of(wanted)}"
        hint = "Make it first, or run the task natively on that host (uri: native:///system, allow: [beside_daemon])."
    raise StorageError(code, what, subject=str(subject_of(goal)), hint=hint)


def _foreign(goal: PoolGoal, foreign: Mapping[str, str], wanted: Pool, never: bool) -> StorageError:
    holds = ", ".join(f"{path} holds {spoken(what)}" for path, what in foreign.items())
    kind = POOL_TYPES[wanted.type or ""].signature or wanted.source.format
    way = "add allow: [overwrite] to lose that" if not never else "let it be built (build: auto, allow: [overwrite])"
    return StorageError(
        "storage_foreign",
        f"{holds}, not {spoken(kind or 'what is declared')}",
        subject=str(subject_of(goal)),
        hint=f"Name another device, declare what it is, or {way}.",
        word="overwrite",
    )


def warnings(changes: tuple[Change, ...], found: Found) -> tuple[str, ...]:
    """What a user has to know of guards that only the daemon could apply."""
    for change in changes:
        if change.action == "start" and "build" in change.may and not _all_seen(found, change.wanted):
            return (
                f"{change.subject}: only the daemon can look at {devices_of(change.wanted)}; it takes what has no "
                "signature for empty",
            )
    return ()


# --- deleting --------------------------------------------------------------------------------------------------------


def delete_unseen(goal: PoolGoal, found: Found, existing: Pool | None) -> list[Change]:
    """Only what the daemon lists is deleted, and no directory, since nobody noted there whether it is ours."""
    if existing is None:
        return []
    row, subject = POOL_TYPES[existing.type or ""], str(subject_of(goal))
    if "remove" not in row.daemon:
        raise undeletable("daemon_cannot", row, goal)
    if not found.active:
        if _is_gone(found, existing):
            return stop(goal, found)
        raise StorageError(
            "pool_inactive",
            f"pool {goal.pool.name} is not active: what it holds can't be listed, and so would be lost unseen",
            subject=subject,
            hint="Start it first (state: active), or undefine it and keep everything (state: absent).",
        )
    _check_all_listed(goal, found, existing)
    held = _held(found)
    strange = [name for name, volume in held.items() if not found.is_volume(volume)]
    if strange:
        raise StorageError(
            "pool_foreign_content",
            f"pool {goal.pool.name} holds what is not a volume: {listing(strange)}",
            subject=subject,
            hint="Move it away first, or undefine the pool and keep everything (state: absent).",
        )
    listed = replace(found, volumes=held)
    whole = row.whole
    changes = delete_listed(goal, listed) if held and not whole else []
    if "delete" not in row.daemon or row.file_tree:
        return [*changes, *stop(goal, found)]
    check_nobody_has(goal, found)
    deletion = _delete_storage(goal, listed, existing, whole)
    return [*changes, *stop(goal, found), deletion]


def _is_gone(found: Found, existing: Pool) -> bool:
    """Whether an interrupted task has deleted the storage already: its devices are there, and hold nothing of it."""
    if not found.row.on_devices or found.row.file_tree or not _all_seen(found, existing):
        return False
    return all(what in (BLANK, DATA) for what in _looked_at(found, existing).values())


def _check_all_listed(goal: PoolGoal, found: Found, existing: Pool) -> None:
    """Raises where the pool holds more than the daemon lists. What would go with a pool that goes as one may be
    allowed to; of others the sizes tell.
    """
    row, called = found.row, existing.source.name
    unlisted, command = row.unlisted
    if unlisted and not row.whole and found.usage is not None:
        listed = sum(volume.allocation or 0 for volume in found.volumes.values())
        if found.usage.allocation > listed:
            raise StorageError(
                "pool_foreign_content",
                f"{row.group} {called} holds {format_size(found.usage.allocation - listed)} more than the volumes that "
                "the daemon lists",
                subject=str(subject_of(goal)),
                hint=f"Look at it on that host ({command}): it may be {unlisted}. Remove them there, or undefine the "
                "pool and keep everything (state: absent).",
            )
    if unlisted and row.whole and "nonempty" not in goal.allow:
        raise StorageError(
            "pool_nonempty",
            f"with {counted(len(found.volumes), 'volume')}, {unlisted} of {called} would be lost, which the daemon "
            "does not list",
            subject=str(subject_of(goal)),
            hint=f"Look at it on that host ({command}), then add allow: [nonempty].",
            word="nonempty",
        )


def _delete_storage(goal: PoolGoal, found: Found, existing: Pool, whole: bool) -> Change:
    what = f"the storage of pool {goal.pool.name}" + (
        f" on {devices_of(existing)}" if existing.source.devices else f" ({existing.source.name})"
    )
    if whole and found.volumes:
        check_whole(goal, found)
        what += f", with {listing(found.volumes)}"
    if whole and found.row.unlisted[0]:
        what += f", and all {found.row.unlisted[0]} in it"
    return change_of(
        goal, "delete", f"delete {what}", {"target": UNKNOWN}, {"target": UNKNOWN}, existing, destroys=what
    )
