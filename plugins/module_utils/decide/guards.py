# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who stands in the way of destroying or rewriting a volume, and which word lets it happen all the same."""

from __future__ import annotations

from collections.abc import Collection

from ..model.errors import StorageError
from ..model.found import Found, User
from ..model.pool import Permissions


def _relevant(found: Found, name: str, doomed: Collection[str]) -> list[User]:
    """The users of a volume, less the overlays that go in the same task."""
    going = {found.volume_path(other) for other in doomed}
    return [user for user in found.users.get(name, ()) if not (user.kind == "overlay" and user.who in going)]


def guard_unused(
    pool: str,
    name: str,
    found: Found,
    allow: Collection[str],
    doing: str,
    doomed: Collection[str] = (),
    backing_word: str = "backing",
) -> None:
    """Raises ``volume_backing`` or ``volume_in_use`` unless the word for it is allowed."""
    users = _relevant(found, name, doomed)
    groups = (
        ("volume_backing", backing_word, [user for user in users if user.kind == "overlay"]),
        ("volume_in_use", "in_use", [user for user in users if user.kind != "overlay"]),
    )
    for code, word, group in groups:
        if group and word not in allow:
            shown = ", ".join(str(user) for user in group[:5]) + (", ..." if len(group) > 5 else "")
            raise StorageError(
                code,
                f"volume {pool}/{name} would be {doing}, but is used by {shown}",
                subject=f"volume {pool}/{name}",
                hint=f"Free it first, or add allow: [{word}] if you know that it is safe.",
            )


def check_ownership(permissions: Permissions, have: Permissions | None, found: Found, subject: str) -> None:
    """Raises ``not_permitted`` where we can't give a file that owner, group or mode: see chown(2), chmod(2).
    ``have`` is None for a new file."""
    if found.process is None:
        return
    user, groups = found.process
    current = have or Permissions(owner=user)
    wrong = []
    if permissions.owner is not None and permissions.owner != current.owner:
        wrong.append(f"owner {permissions.owner}")
    if permissions.group is not None and permissions.group != current.group and permissions.group not in groups:
        wrong.append(f"group {permissions.group}")
    if have is not None and have.owner != user:
        wrong.append(f"the permissions of what belongs to {have.owner}")
    if wrong:
        raise StorageError(
            "not_permitted",
            f"user {user} can't set {' and '.join(wrong)}",
            subject=subject,
            hint="Run as root (become: true), or leave owner and group out.",
        )


def running_users(found: Found, name: str) -> list[User]:
    return [user for user in found.users.get(name, ()) if user.running]
