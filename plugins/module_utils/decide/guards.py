# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who stands in the way of destroying or rewriting a volume, and which word lets it happen all the same."""

from __future__ import annotations

from typing import Collection

from ..model.errors import StorageError
from ..model.found import Found, User


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


def running_users(found: Found, name: str) -> list[User]:
    return [user for user in found.users.get(name, ()) if user.running]
