# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Guests' definitions, read when it is decided who uses what, and once more right before it is taken from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..host.identity import changed_meanwhile
from ..libvirt_xml.guests import GuestDisks
from ..model.change import Condition
from ..model.errors import StorageError
from ..model.found import User

Told = tuple[Sequence[GuestDisks], Sequence[str]]  # definitions, and what could not be read of them
UNUSED = ("unused", "device_unused")  # the conditions that a guest breaks


class GuestWatch:
    """``read`` gives the definitions as they are, ``users`` who of them uses what is watched: paths, each with a user.
    ``guests`` and ``unseen`` are what was read at first.
    """

    def __init__(
        self, read: Callable[[], Told], users: Callable[[Iterable[GuestDisks]], Iterable[tuple[str, User]]]
    ) -> None:
        self._read, self._users = read, users
        guests, unseen = read()
        self.guests, self.unseen = tuple(guests), tuple(unseen)

    def broken(self, conditions: Mapping[int, Sequence[Condition]]) -> dict[int, StorageError]:
        """Of the conditions that nobody uses something, by step, those that a guest breaks which was not defined at
        first, or was defined otherwise, or may: its definition can't be read.
        """
        watched = {i: each.path for i, group in conditions.items() for each in group if each.kind in UNUSED}
        if not watched:
            return {}
        guests, unseen = self._read()
        new = [guest for guest in guests if guest not in self.guests]
        blind = next((what for what in unseen if what not in self.unseen), "")
        taken = {path: f"was taken into use by {user}" for path, user in self._users(new)} if new else {}
        if blind:
            taken = {**dict.fromkeys(watched.values(), f"could not be checked for users ({blind})"), **taken}
        return {i: changed_meanwhile(path, taken[path]) for i, path in watched.items() if path in taken}
