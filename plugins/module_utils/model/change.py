# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What will be different, as data: made by decide, shown by report, lowered by an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


class _Unknown:
    """A value that only doing reveals."""

    _text = "known after apply"

    def __repr__(self) -> str:
        return f"({self._text})"


class _Halfway(_Unknown):
    """A value that was on its way when something failed: the old one, the new one, or neither."""

    _text = "begun, not completed"


UNKNOWN, HALFWAY = _Unknown(), _Halfway()


def known(facts: Any) -> Any:
    """Facts without what is UNKNOWN, at any depth."""
    if isinstance(facts, Mapping):
        return {name: known(value) for name, value in facts.items() if value is not UNKNOWN}
    return facts


@dataclass(frozen=True)
class Subject:
    """What a change is about: a pool, or a volume of a pool."""

    pool: str
    volume: str | None = None

    def __str__(self) -> str:
        return f"pool {self.pool}" if self.volume is None else f"volume {self.pool}/{self.volume}"


@dataclass(frozen=True)
class Condition:
    """Something that must still hold just before a destructive change is executed.

    ``kind`` is "identity" (the file at ``path`` is still the one that was looked at, ``expected``), "unused" (nothing
    has begun to use it; ``expected`` is what could not be looked at for that before either, or ``ANYTHING``), or one of
    those of host/conditions.py, such as "device" (the block device at ``path`` is still that one) and "signatures" (it
    still holds what it held, and nothing else).
    """

    kind: str
    path: str
    expected: tuple = ()


ANYTHING = ("anything",)  # may be unseen by now: of what does not answer, each look sees something else
# What starting and stopping does to a pool's storage, beside the note of it; and that the pool was emptied before.
BRING_UP, TAKE_DOWN, EMPTIED = "bring up", "take down", "emptied"


@dataclass(frozen=True)
class Change:
    """One difference between what is and what is declared.

    ``before`` and ``after`` hold facts (see model/facts.py for their names) and only those that this change
    touches; None means that the subject is not there. ``after`` claims identity and declared fields, everything else
    is UNKNOWN or left out. ``wanted`` is the noun that lowering needs. ``needs`` names volumes of the same task that
    must be there first. ``may``: words of what doing it includes: BRING_UP, TAKE_DOWN and EMPTIED, and for a daemon
    what it may include where only doing shows whether it is needed. ``part``: the part of a pool's storage that is
    built or deleted, by its name.
    """

    subject: Subject
    action: str
    summary: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    wanted: Any = None
    destroys: str = ""
    requires: tuple[Condition, ...] = ()
    needs: tuple[str, ...] = ()
    may: frozenset[str] = frozenset()
    part: str = ""

    def halfway(self) -> Change:
        """As it is where something failed in the middle of it: nothing is known of what it was to change."""
        facts = self.after or self.before or {self.action: None}
        return replace(self, after=_each(facts, HALFWAY))


def _each(facts: Any, value: Any) -> Any:
    """Facts of these names that are all this value."""
    return {name: _each(inner, value) for name, inner in facts.items()} if isinstance(facts, Mapping) else value
