# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a backend is: one module per pool type, with these functions. It looks at the host, and says as data how a
change is made; it decides nothing and changes nothing. Finding what pools could be made from is another module's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Protocol

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes
    from ..model.change import Change
    from ..model.discovery import Discovery, Query
    from ..model.found import Found, Storage, User
    from ..model.goal import Scope
    from ..model.operations import Step
    from ..model.pool import Pool


class Backend(Protocol):
    def observe(self, pool: Pool, look: Look, holds: bool) -> Storage:
        """What there is of the storage of a pool, or of a definition that may be incomplete: the parts it is built of,
        and whether it is up. Of what can't be told, ``kind`` or a part's ``problem`` says why; nothing is raised but
        ``deadline``. ``holds``: list all that it holds, volumes or not, where it is up.
        """

    def observe_volumes(self, found: Found, scope: Scope, look: Look) -> Found:
        """Adds volumes, usage and limits to what was found of a pool that is up, as deep as the scope asks. One bad
        volume is a record, never the end of the listing. Raises ``storage_unreadable``.
        """

    def busy(self, pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
        """Who keeps the storage from being taken down, and what could not be looked at for that; asked only where there
        is something to take down.
        """

    def lower(self, change: Change, found: Found, notes: Notes) -> list[Any]:
        """The operations of a change of the pool: build and delete (of the part ``change.part``), permissions, start
        (with BRING_UP in ``change.may``, else nothing), stop (with TAKE_DOWN), undefine (its own records and notes).
        Definition, state and the notes of what was started are the engine's.
        """

    def lower_volumes(
        self, changes: Sequence[Change], found: Found, instead: Callable[[Change], Any]
    ) -> Sequence[Step]:
        """The steps of the changes of volumes, and of what they share; ``instead`` gives the operations of a change
        that another engine makes itself, or None.
        """


class Finder(Protocol):
    def find(self, query: Query, look: Look) -> Discovery:
        """What pools of the type asked for could be made from. Raises StorageError where nothing could be looked at."""
