# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Starting and stopping a pool: what of its storage goes up and down with it, and what keeps it from that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..model.adapters import goes_with_pool
from ..model.change import ANYTHING, BRING_UP, EMPTIED, HALFWAY, TAKE_DOWN, Change, Condition
from ..model.errors import StorageError
from ..model.facts import permissions_facts
from ..model.found import ABSENT, DIRECTORY, FOREIGN, READY, UNSEEN, Found, Neighbour, Storage, User
from ..model.goal import PoolGoal
from ..model.pool import Pool
from ..model.types import VOLUME_GROUP, row_of
from ..model.units import listed
from .decision import change_of, subject_of
from .guards import check_not_fixed, stays_while_open


def goes_down(goal: PoolGoal, found: Found) -> bool:
    """Whether stopping the pool takes its storage down: what was up before it was started is only released."""
    if not _is_up(goal, found):
        return False
    current = found.current
    return current.up and bool(current.take_down) and (current.ours or "stop_adopted" in goal.allow)


def takes_away(goal: PoolGoal, found: Found) -> bool:
    """Whether stopping the pool takes its volumes away, whoever uses them."""
    if not (found.started or _came_up_late(found)) or not found.row.taken_away:
        return False
    pool = found.live or found.definition
    daemon = found.current.kind == UNSEEN and pool is not None and goes_with_pool(pool.source.adapter)
    return daemon or goes_down(goal, found)


def daemon_takes_down(found: Found) -> str:
    """What a daemon does when it stops the pool, whoever brought it up, in words; empty where it only forgets."""
    pool, row = found.live or found.definition, found.row
    if not found.started or found.current.kind != UNSEEN or pool is None:
        return ""
    if row.mounted:
        return f"unmount {pool.path}"
    return f"deactivate the volumes of {pool.source.name}" if row.group == VOLUME_GROUP else ""


def _in_the_way(goal: PoolGoal, found: Found) -> bool:
    """Whether storage that is to be deleted is mounted, though its pool was not started."""
    mounted = found.row.file_tree and found.current.up and bool(found.current.take_down)
    return mounted and goal.state == "deleted" and not found.started


def _is_up(goal: PoolGoal, found: Found) -> bool:
    return found.started or _in_the_way(goal, found) or _came_up_late(found)


def _came_up_late(found: Found) -> bool:
    """Whether a login of ours that was given up came to its end all the same: it would stay for good otherwise."""
    current = found.current
    return found.row.recorded and not found.started and current.up and current.ours and bool(current.take_down)


def start(goal: PoolGoal, found: Found, wanted: Pool, missing: list[StorageError], restart: bool) -> Change:
    storage, state = found.storage, "active" if found.active else "inactive"
    adopted = storage.kind == READY and not storage.made and found.definition is None
    summary = "start it" + (f" on {wanted.path}" if wanted.path else "")
    if storage.kind == UNSEEN:
        from .unseen_pools import start_unseen

        return start_unseen(goal, found, wanted, {"state": state}, missing)
    may: frozenset[str] = frozenset()
    after: dict[str, Any] = {"state": "active"}
    if storage.bring_up and ((restart and not _stays_up(found)) or not storage.up or storage.idle):
        _check_source_unused(goal, found)
        _check_hides_no_pool(goal, found, storage.path or "")
        _check_cow_can_be_set(goal, found, wanted)
        given = _given(goal, found, wanted) if row_of(wanted.type).file_tree else {}
        may, summary = frozenset({BRING_UP}), f"start it: {storage.bring_up}"
        after.update({"target": given} if given else {})
    elif storage.take_down:
        summary += ", which is up already"
    elif adopted and not storage.parts:
        summary += ", a directory that was there before"
    return change_of(
        goal, "start", summary, {"state": state}, after, wanted, may=may, requires=storage.requires if may else ()
    )


def _given(goal: PoolGoal, found: Found, wanted: Pool) -> dict[str, Any]:
    """The owner, group and mode that what is mounted gets, whether the task or only the definition says them. Where it
    can get none, what the task says is refused, unless that is seen there already.
    """
    fixed = _fixed(found.storage, wanted)
    if not fixed:
        return permissions_facts(replace(wanted.permissions, label=None))
    said = permissions_facts(replace(goal.pool.permissions, label=None))
    seen = permissions_facts(found.storage.permissions) if found.storage.open else {}
    check_not_fixed([name for name in said if said[name] != seen.get(name)], fixed, str(subject_of(goal)))
    return {}


def _check_cow_can_be_set(goal: PoolGoal, found: Found, wanted: Pool) -> None:
    """Raises ``not_supported`` where it would be set in a new filesystem that is mounted read-only."""
    made = any(part.name != DIRECTORY and part.kind in (ABSENT, FOREIGN) for part in found.storage.parts)
    if made and wanted.cow is False and wanted.mounts_read_only:
        raise StorageError(
            "not_supported",
            "features.cow can't be set in a new filesystem: with ro among mount_options it is mounted read-only",
            subject=str(subject_of(goal)),
            hint="Leave one of them out; ro can be added once the filesystem is there.",
        )


def _fixed(storage: Storage, wanted: Pool) -> str:
    """Why owner, group and mode of what will be mounted can't be set."""
    if storage.read_only_source:
        return "what is mounted there is read-only"
    return "with ro among mount_options it is mounted read-only" if wanted.mounts_read_only else storage.fixed


def _stays_up(found: Found) -> bool:
    """Whether what a restart would log in to is logged in to already, and not what is logged out of for it: somebody
    else's, which is adopted.
    """
    storage = found.storage
    return found.row.recorded and storage.up and not set(storage.leaves) & set(found.current.leaves)


def _check_hides_no_pool(goal: PoolGoal, found: Found, path: str) -> None:
    """Raises ``pool_in_use`` where mounting would hide the directory of another pool that was started: that would go on
    in what is mounted, without its volumes.
    """
    hidden = [user for user, neighbour in _standing_on(found, path) if neighbour.identity is not None]
    if hidden:
        raise StorageError(
            "pool_in_use",
            f"pool {goal.pool.name} can't be started: it would be mounted over the directory of "
            f"{', '.join(map(str, hidden))}",
            subject=str(subject_of(goal)),
            hint="Stop or undefine these first, or give the pool another path.",
        )


def _check_source_unused(goal: PoolGoal, found: Found) -> None:
    if any(part.users or part.unseen for part in found.storage.parts):
        from .building import check_all_unused

        check_all_unused(goal, found, "started")


def stop(goal: PoolGoal, found: Found, restart: bool = False, deleting: bool = False) -> list[Change]:
    """What our own start brought up is taken down, unless somebody uses it; what was up before is left as it is."""
    if not _is_up(goal, found):
        return []
    _check_told(found)
    check_nothing_above(goal, found)
    if takes_away(goal, found):
        from .deleting import guard_all

        # A member of what is not assembled, such as a group of LVM, goes away and comes back as it is.
        guard_all(goal, found, "taken away", harmless="member")
    current, pool = found.current, found.running  # what it was started with
    summary = "stop it"
    may: frozenset[str] = frozenset()
    if goes_down(goal, found):
        _check_not_busy(goal, found, current.take_down, current.path)
        may = frozenset({TAKE_DOWN, *([EMPTIED] if deleting else [])})
        summary += f": {current.take_down}"
    elif current.take_down and current.up:
        if restart or deleting:
            raise _adopted(goal, found, "stopped for that" if restart else "deleted")
        summary += f", without this: {current.take_down}, since it was up before the pool was started"
    elif daemon_takes_down(found):
        _check_not_busy(goal, found, daemon_takes_down(found), (found.live or pool or goal.pool).path)
    state = HALFWAY if _came_up_late(found) else "active" if found.active else "inactive"
    after = {"state": "inactive"}
    requires = (*(current.leaves if may else ()), *_still_unused(goal, found))
    return [change_of(goal, "stop", summary, {"state": state}, after, pool, may=may, requires=requires)]


def _check_told(found: Found) -> None:
    """Raises where nobody can tell what a start has mounted or activated: it would stay up, with nothing to say so."""
    unreadable = found.unreadable
    brought_up = found.row.mounted or found.row.group == VOLUME_GROUP
    if unreadable is not None and brought_up and not found.current.take_down:
        raise unreadable


def _still_unused(goal: PoolGoal, found: Found) -> tuple[Condition, ...]:
    """What is taken away may have got a user since it was looked at; what is allowed to be in use may get one."""
    if not takes_away(goal, found):
        return ()
    there = [each for each in found.volumes.values() if each.path]
    kept = [each for each in there if "in_use" not in goal.allow or stays_while_open(each, found)]
    unseen = ANYTHING if found.unseen else ()
    return tuple(Condition("unused", each.path or "", unseen) for each in kept)


def _check_not_busy(goal: PoolGoal, found: Found, how: str, path: str | None) -> None:
    busy = (*found.current.busy, *(user for user, _neighbour in _standing_on(found, path or "")))
    if busy:
        raise StorageError(
            "pool_in_use",
            f"pool {goal.pool.name} can't be stopped ({how}): it is used by {listed(busy)}",
            subject=str(subject_of(goal)),
            hint="End or move these first.",
        )


def check_nothing_above(goal: PoolGoal, found: Found) -> None:
    """What runs on a volume of the pool would lose it, or be left with what nobody answers for."""
    if found.above and "in_use" not in goal.allow:
        raise StorageError(
            "pool_in_use",
            f"pool {goal.pool.name} can't be stopped: on its volumes run {listed(found.above)}",
            subject=str(subject_of(goal)),
            hint="Stop that first (state: inactive), or add allow: [in_use] if you know that it is safe.",
            word="in_use",
        )


def _standing_on(found: Found, path: str) -> Iterator[tuple[User, Neighbour]]:
    """Other pools that have their directory in what is taken down: they would go on, in the bare directory below it."""
    inside = found.resolved.get(path, path).rstrip("/") + "/"
    for neighbour in found.neighbours if found.row.file_tree and path else ():
        if (
            neighbour.started
            and row_of(neighbour.pool.type).file_tree
            and (neighbour.resolved or "").startswith(inside)
        ):
            yield User("pool", neighbour.pool.name), neighbour


def _adopted(goal: PoolGoal, found: Found, doing: str) -> StorageError:
    return StorageError(
        "pool_adopted",
        f"pool {goal.pool.name} can't be {doing}: it was up before the pool was started, so that it is not taken down "
        f"({found.current.take_down})",
        subject=str(subject_of(goal)),
        hint="Add allow: [stop_adopted] to do that all the same.",
        word="stop_adopted",
    )
