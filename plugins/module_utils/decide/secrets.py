# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The secret that a pool logs in with, against what is kept of it. No value is in what comes of it."""

from __future__ import annotations

from ..model.change import Change
from ..model.errors import StorageError
from ..model.found import Found
from ..model.goal import PoolGoal
from ..model.pool import Pool
from ..model.secrets import SecretObject, declared_value, new_object, object_of, usage_type, with_reference
from .decision import change_of, subject_of

AS_DECLARED = "the one declared"
_OTHER, _NONE, _UNREADABLE = "another one", "none", "can't be read"
_BEGUN = "begun by a task that was ended"


def keep(goal: PoolGoal, found: Found, wanted: Pool, starts: bool) -> list[Change]:
    """The change that makes the secret what is declared. One that can't be read is set when the pool
    ``starts``, which is when it is needed.
    """
    value = declared_value(wanted)
    if value is None:
        return []
    there = object_of(wanted.source.auth, found.secrets)
    if there is not None:
        _check_is_for_it(goal, wanted, there)
    if there is not None and not there.begun and (there.value == value or not (there.readable or starts)):
        return []
    secret = there or new_object(wanted)
    called = f"the {secret.usage_type} secret {secret.usage!r}"
    summary = f"make {called}" if there is None else f"set the value of {called}"
    return [change_of(goal, "secret", summary, {"secret": _fact(there)}, {"secret": AS_DECLARED}, wanted)]


def _check_is_for_it(goal: PoolGoal, wanted: Pool, there: SecretObject) -> None:
    """Raises ``uuid_conflict``: what others are encrypted with would be lost."""
    auth = wanted.source.auth
    if auth is None or there.usage_type == usage_type(auth):
        return
    raise StorageError(
        "uuid_conflict",
        f"the secret {there.uuid} is for {there.usage_type or 'nothing that is told'}, not for {usage_type(auth)}",
        subject=str(subject_of(goal)),
        hint="Leave source.auth.secret_uuid out to have one made, or give the uuid of another one.",
    )


def _fact(there: SecretObject | None) -> str:
    if there is not None and there.begun:
        return _BEGUN
    if there is None or (there.readable and there.value is None):
        return _NONE
    return _OTHER if there.readable else _UNREADABLE


def fact(wanted: Pool, found: Found) -> str:
    """What is kept of it, after it was set: what can't be read is taken for what was written."""
    wanted = with_reference(wanted, found.definition)
    there = object_of(wanted.source.auth, found.secrets)
    same = there is not None and (not there.readable or there.value == declared_value(wanted))
    return AS_DECLARED if same else _fact(there)


def going(found: Found, wanted: Pool | None) -> tuple[SecretObject, ...]:
    """Those of the pool's own that nobody needs once it is defined as wanted, or not at all: what its definition names
    by now, and what an earlier one did. Only those that the collection has made, and nobody else may name.
    """
    return tuple(each for each in _unnamed(found, wanted) if not each.unseen)


def kept_unseen(found: Found, wanted: Pool | None) -> tuple[str, ...]:
    """What is said of those that stay, since it can't be told who names them."""
    return tuple(
        f"pool {found.name}: its secret {each.usage!r} is kept, since {', '.join(each.unseen)} can't be read and may "
        f"name it; where nobody does, remove it by hand (its uuid is {each.uuid})"
        for each in _unnamed(found, wanted)
        if each.unseen
    )


def _unnamed(found: Found, wanted: Pool | None) -> tuple[SecretObject, ...]:
    named = None if wanted is None else object_of(wanted.source.auth, found.secrets)
    defined = None if found.definition is None else object_of(found.definition.source.auth, found.secrets)
    ours = (each for each in found.secrets if each.ours and not each.users and each != named)
    return tuple(each for each in ours if each == defined or each.pool == found.name)


def usages(secrets: tuple[SecretObject, ...]) -> str | list[str]:
    """As a fact: the one, or all of them."""
    names = [each.usage for each in secrets]
    return names[0] if len(names) == 1 else names


def removal(secrets: tuple[SecretObject, ...]) -> str:
    return "remove its secret" + ("s " if len(secrets) > 1 else " ") + ", ".join(repr(each.usage) for each in secrets)


def forget(goal: PoolGoal, found: Found, wanted: Pool) -> list[Change]:
    """The removal of those that an earlier definition named, where nothing else is to be changed about it."""
    secrets = going(found, wanted)
    if not secrets:
        return []
    before, after = {"old_secret": usages(secrets)}, {"old_secret": None}
    return [change_of(goal, "secret", removal(secrets), before, after, wanted)]
