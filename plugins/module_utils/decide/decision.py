# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What deciding comes to."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.change import Change
from ..model.errors import StorageError


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


def unwritable(changes: tuple[Change, ...], reason: str, subject: str) -> StorageError | None:
    """The refusal of changes where they can't be written; None when there are none or they can."""
    if not changes or not reason:
        return None
    return StorageError(
        "not_writable", reason, subject=subject, hint="Run as a user who may write there (become: true)."
    )
