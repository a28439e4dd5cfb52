# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Building what a pool's storage consists of, part by part, and who stands in the way of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..model.change import Change
from ..model.errors import MISSING_CODES, StorageError
from ..model.facts import permissions_facts
from ..model.found import ABSENT, DIRECTORY, FOREIGN, READY, Found, Part, Problem, Storage
from ..model.goal import PoolGoal
from ..model.pool import Permissions, Pool
from ..model.types import row_of
from ..model.units import listed
from .decision import change_of, subject_of
from .guards import check_ownership

_DIRECTORY_MODE = 0o711  # what libvirt gives the directory of a pool when none is declared
_IF_EMPTY = ", if it is empty then"  # what an earlier task of a play makes
_NOT_BUILT = "Name what is there: pools of this type are made of what others serve."
_FOREIGN_PATH = "Move it away, or give the pool another path."


def parts_of(storage: Storage) -> tuple[Part, ...]:
    """What a pool's storage is built of: of many it is a directory and nothing else."""
    return storage.parts or (directory_part(storage),)


def builds_over_itself(found: Found) -> bool:
    """Whether building what is wanted would lose the volumes of the pool as it runs."""
    return found.row.file_tree and bool(found.volumes) and found.storage.loses(found.current)


def directory_part(storage: Storage) -> Part:
    """The directory that volumes are in, or that something is mounted on; it goes only where we made it."""
    return Part(
        DIRECTORY,
        f"the directory {storage.path}",
        storage.kind,
        storage.why,
        removable=storage.made and not storage.mount_point,
        deleting=f"remove the directory {storage.path}",
        facts=permissions_facts(storage.permissions) if storage.kind == READY else None,
    )


def build(goal: PoolGoal, found: Found, wanted: Pool, missing: list[StorageError]) -> list[Change]:
    """The changes that make the parts that are not there. Raises where one can't be made, or only over what nobody
    allowed to be lost; adds to ``missing`` what an earlier task of a play may make.
    """
    changes: list[Change] = []
    for part in parts_of(found.storage):
        changes += _build_part(part, goal, found, wanted, missing)
    return changes


def _build_part(
    part: Part, goal: PoolGoal, found: Found, wanted: Pool, missing: list[StorageError]
) -> Sequence[Change]:
    subject, builds = str(subject_of(goal)), "build" in row_of(wanted.type).native
    if part.problem is not None:
        _meet(part, part.problem, subject, missing)
        makes = builds and goal.build != "never" and part.making
        return (_make(part, goal, wanted, _IF_EMPTY),) if makes else ()
    if part.kind == READY:
        return ()
    check_unused(part, goal, "built")
    if part.kind == FOREIGN:
        _check_foreign(part, goal, found, builds)
    elif part.kind != ABSENT:
        raise unreadable(goal, found.storage.path, part.why)
    if goal.build == "never" or not builds:
        missing.append(
            StorageError(
                "source_missing",
                f"{part.what} of pool {goal.pool.name} is not there",
                subject=subject,
                hint="Make it, or let the task do so (build: auto)." if builds else _NOT_BUILT,
            )
        )
        return ()
    if part.name == DIRECTORY:
        return (_make_directory(part, goal, found, wanted),)
    if part.destroys and "overwrite" not in goal.allow:
        raise _needs_overwrite(part, subject)
    if builds_over_itself(found):
        from .deleting import check_whole

        check_whole(goal, found, "lost")
    return (_make(part, goal, wanted),)


def _make(part: Part, goal: PoolGoal, wanted: Pool, where: str = "") -> Change:
    return change_of(
        goal,
        "build",
        (part.making or f"make {part.what}") + where,
        {part.name: None},
        {part.name: dict(part.facts or {})},
        wanted,
        destroys=part.destroys,
        requires=part.requires,
        part=part.name,
    )


def _meet(part: Part, problem: Problem, subject: str, missing: list[StorageError]) -> None:
    if problem.code not in (*MISSING_CODES, "tool_missing"):
        raise problem.error(subject)
    if part.barred is not None:
        raise part.barred.error(subject)
    missing.append(problem.error(subject))


def check_all_unused(goal: PoolGoal, found: Found, doing: str) -> None:
    for part in found.storage.parts:
        check_unused(part, goal, doing)


def check_unused(part: Part, goal: PoolGoal, doing: str) -> None:
    """Raises ``device_in_use`` where somebody else has what the part is made of, or where that can't be told."""
    if part.unseen and not part.users:
        raise StorageError(
            "device_in_use",
            f"pool {goal.pool.name} can't be {doing}: {part.what} may be in use, since {', '.join(part.unseen)} could "
            "not be looked at",
            subject=str(subject_of(goal)),
            hint="Run as a user who may look there (become: true), see why it does not answer, or name another source.",
        )
    if part.users:
        raise StorageError(
            "device_in_use",
            f"pool {goal.pool.name} can't be {doing}: {', '.join(part.devices) or part.what} is used by "
            f"{listed(part.users)}",
            subject=str(subject_of(goal)),
            hint="Free it there first, or name another source.",
        )


def _check_foreign(part: Part, goal: PoolGoal, found: Found, builds: bool) -> None:
    subject = str(subject_of(goal))
    if part.name == DIRECTORY:
        raise StorageError(
            "storage_foreign", f"{found.storage.path} is {part.why}", subject=subject, hint=_FOREIGN_PATH
        )
    if builds and part.barred is not None and "overwrite" in goal.allow:
        raise part.barred.error(subject)
    if not part.destroys or not builds:
        raise StorageError(
            "storage_foreign", f"{part.what}: {part.why}", subject=subject, hint="Name another source, or what it is."
        )
    if "overwrite" not in goal.allow or goal.build == "never":
        raise _needs_overwrite(part, subject)


def _needs_overwrite(part: Part, subject: str) -> StorageError:
    return StorageError(
        "storage_foreign",
        f"{part.why}; making {part.what} would lose {part.destroys}",
        subject=subject,
        hint="Name another source, declare what it is, or add allow: [overwrite] (with build: auto) to lose that.",
        word="overwrite",
    )


def unreadable(goal: PoolGoal, path: str | None, why: str) -> StorageError:
    return StorageError(
        "storage_unreadable",
        f"{path}: {why}" if path else why,
        subject=str(subject_of(goal)),
        hint="Run as a user who may read it (become: true), or look at what it is mounted from.",
    )


def _make_directory(part: Part, goal: PoolGoal, found: Found, wanted: Pool) -> Change:
    if found.storage.bring_up:
        return _make_mount_point(part, goal, wanted)
    check_ownership(wanted.permissions, None, found, str(subject_of(goal)))
    mode = _DIRECTORY_MODE if wanted.permissions.mode is None else wanted.permissions.mode
    permissions = replace(wanted.permissions, label=None, mode=mode)
    after: dict[str, Any] = {"target": permissions_facts(permissions)}
    return change_of(
        goal,
        "build",
        f"make {part.what}",
        {"target": None},
        after,
        replace(wanted, permissions=permissions),
        part=DIRECTORY,
    )


def _make_mount_point(part: Part, goal: PoolGoal, wanted: Pool) -> Change:
    """The declared permissions are for what is mounted on it."""
    wanted = replace(wanted, permissions=Permissions(_DIRECTORY_MODE))
    before, after = {DIRECTORY: None}, {DIRECTORY: dict(part.facts or {})}
    return change_of(goal, "build", f"make {part.what}", before, after, wanted, part=DIRECTORY)
