# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a module returns: diff, plan and records, all made from the changes and from what was found."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..model.change import Change
from .yaml_text import to_yaml

if TYPE_CHECKING:  # nothing that runs needs it where there is nothing to change
    from ..model.operations import Step

_SAMPLE = 3
_AT_CREATION = ("allocation", "preallocation", "nocow", "content")


def _merge(into: dict[str, Any], facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            into[name] = {**into[name], **value}
        else:
            into[name] = value


def _side(changes: Iterable[Change], side: str) -> dict[str, Any]:
    subjects: dict[str, Any] = {}
    for change in changes:
        facts = getattr(change, side)
        subject = str(change.subject)
        if facts is None:
            subjects.setdefault(subject, None)
            if side == "after":
                subjects[subject] = None
            continue
        if subjects.get(subject) is None:
            if subject in subjects and side == "before":
                continue  # it was not there before the first change
            subjects[subject] = {}
        _merge(subjects[subject], dict(facts))
    return subjects


def diff(changes: Sequence[Change]) -> dict[str, str]:
    """Before and after as YAML, only what changes."""
    return {"before": to_yaml(_side(changes, "before")), "after": to_yaml(_side(changes, "after"))}


def _shape(change: Change) -> tuple:
    """Equal for changes that do the same to different volumes."""
    hide = ("path",)
    sides = (change.before, change.after)
    facts = tuple(None if s is None else repr({k: v for k, v in s.items() if k not in hide}) for s in sides)
    made = change.action in ("create", "recreate")
    made_with = tuple(getattr(change.wanted, name, None) for name in _AT_CREATION) if made else ()
    return (change.action, change.subject.pool, bool(change.destroys), facts, made_with)


def plan(changes: Sequence[Change], steps: Sequence[Step], halfway: Container[int] = ()) -> list[dict[str, Any]]:
    """One entry per group of like changes, in the order in which they are made. ``halfway``: the ids of those that
    failed in the middle.
    """
    commands = {id(step.change): _commands(step, steps) for step in steps if step.change is not None}
    groups: dict[tuple, list[Change]] = {}
    for change in changes:
        key = _shape(change) if change.subject.volume is not None else (id(change),)
        groups.setdefault(key, []).append(change)
    return [_group(group, commands, halfway) for group in groups.values()]


def _commands(step: Step, steps: Sequence[Step]) -> list[str]:
    """Those of the step, after those of what it shares with others."""
    if not step.operations:
        return []
    of_volume = step.change is not None and step.change.subject.volume is not None
    shared = [steps[need] for need in step.needs if of_volume and steps[need].change is None and not steps[need].always]
    return [operation.command for each in (*shared, step) for operation in each.operations]


def _group(group: Sequence[Change], commands: dict[int, list[str]], halfway: Container[int]) -> dict[str, Any]:
    first = group[0]
    entry: dict[str, Any] = {
        "action": first.action,
        "subject": str(first.subject),
        "summary": first.summary,
        "destroys": first.destroys,
        "commands": commands.get(id(first), []),
        "count": len(group),
    }
    if len(group) > 1:
        names = [change.subject.volume or "" for change in group]
        entry["subjects"] = [str(change.subject) for change in group]
        entry["summary"] += f"; the same for {len(group) - 1} more: " + _sample(names[1:])
        entry["destroys"] = "; ".join(change.destroys for change in group if change.destroys)
    begun = [str(change.subject) for change in group if id(change) in halfway]
    return {**entry, "halfway": begun} if begun else entry


def _sample(names: Sequence[str]) -> str:
    if len(names) <= 2 * _SAMPLE:
        return ", ".join(names)
    return ", ".join(names[:_SAMPLE]) + ", ..., " + names[-1]
