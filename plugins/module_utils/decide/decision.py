# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What deciding comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..model.change import Change, Subject
from ..model.errors import StorageError
from ..model.found import Found
from ..model.goal import PoolGoal
from ..model.pool import Pool
from ..model.volume import Sought


@dataclass(frozen=True)
class Decision:
    """``changes`` in the order in which they are made.

    ``missing``: what an earlier task of a play may make; an error in a real run, a warning in check mode.
    ``refusal``: the changes are known but can't be made on this host; nothing is done in either mode.
    """

    changes: tuple[Change, ...] = ()
    missing: tuple[StorageError, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: StorageError | None = None


def subject_of(goal: PoolGoal) -> Subject:
    return Subject(goal.pool.name)


def change_of(
    goal: PoolGoal, action: str, summary: str, before: Any, after: Any, wanted: Pool | None = None, **more: Any
) -> Change:
    return Change(
        subject_of(goal), action, f"pool {goal.pool.name}: {summary}", before, after, wanted or goal.pool, **more
    )


def unwritable(changes: tuple[Change, ...], reason: str, subject: str) -> StorageError | None:
    """The refusal of changes where they can't be written; None when there are none or they can."""
    if not changes or not reason:
        return None
    return StorageError(
        "not_writable", reason, subject=subject, hint="Run as a user who may write there (become: true)."
    )


def sealed_refusal(changes: tuple[Change, ...], found: Found) -> StorageError | None:
    """The refusal of changes of volumes that their attributes keep as they are."""
    for change in changes if found.sealed else ():
        letters = found.sealed.get(change.subject.volume or "")
        if letters:
            path = found.volumes[change.subject.volume or ""].path
            return StorageError(
                "not_writable",
                f"{path} is kept as it is by its attributes (lsattr shows {letters})",
                subject=str(change.subject),
                hint=f"Take them away first (chattr -{letters} {path}), if nobody wants it kept.",
            )
    return None


def staging_refusal(changes: tuple[Change, ...], found: Found, subject: str) -> StorageError | None:
    """The refusal of changes where the private directory in which volumes are prepared is somebody else's."""
    if not changes or not found.staging_problem:
        return None
    return StorageError(
        "staging_foreign",
        found.staging_problem,
        subject=subject,
        hint="Move out of it what is to be kept, remove it, and run the task again.",
    )


def refresh(pool: str, found: Found, sought: Sequence[Sought] = ()) -> list[Change]:
    """A new look at the volumes that are sought, or a daemon's at those of which it does not know."""
    if sought:
        names = ", ".join(each.name for each in sought)
        before, after = {"unlisted": names}, {"unlisted": ""}
        return [Change(Subject(pool), "refresh", f"pool {pool}: look for {names}", before, after, tuple(sought))]
    if not found.unlisted:
        return []
    names = ", ".join(found.unlisted)
    summary = f"pool {pool}: let the daemon look again at {names}"
    return [Change(Subject(pool), "refresh", summary, {"unlisted": names}, {"unlisted": ""})]


def clean(pool: str, found: Found) -> list[Change]:
    """The removal of what an interrupted task left behind."""
    if not found.leftovers:
        return []
    before, after = {"leftovers": ", ".join(found.leftovers)}, {"leftovers": ""}
    summary = f"pool {pool}: remove what an interrupted task left behind"
    return [Change(Subject(pool), "clean", summary, before, after)]
