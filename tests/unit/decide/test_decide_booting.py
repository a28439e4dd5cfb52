# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mark for autostart, and the unit that starts what is marked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool
from ansible_collections.virt.storage.plugins.module_utils.model.change import UNKNOWN
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ENABLED,
    NO_UNIT,
    OUTDATED,
    Boot,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Login

from .building import DIRECTORY, actions, codes, defined, nothing, only, pool_goal, started

UNIT = "virt-storage-autostart.service"
NEEDED = Boot(unit=UNIT, needed=True)


def dir_goal(state="active", **more):
    return pool_goal(state, **{"type": "dir", "path": "/p", **more})


def boot(state, others=False, needed=True, **more):
    return replace(NEEDED, state=state, others=others, needed=needed, **more)


@pytest.mark.parametrize(
    ("declared", "have", "expected"),
    [
        (None, False, []),
        (None, True, []),
        (True, False, ["autostart"]),
        (True, True, []),
        (False, True, ["autostart"]),
        (False, False, []),
    ],
)
@pytest.mark.parametrize("state", ["present", "active"])
def test_the_mark(state, declared, have, expected):
    decision = decide_pool(dir_goal(state, autostart=declared), started(autostart=have))
    assert actions(decision) == expected
    for change in decision.changes:
        assert (change.before, change.after) == ({"autostart": have}, {"autostart": declared})
    assert len(decision.warnings) == (1 if declared else 0)


def test_a_new_pool_is_marked_last():
    assert actions(decide_pool(dir_goal(autostart=True), nothing())) == ["define", "build", "start", "autostart"]
    assert actions(decide_pool(dir_goal(autostart=False), nothing())) == ["define", "build", "start"]


@pytest.mark.parametrize(
    ("who", "warned"),
    [(Boot(), False), (NEEDED, False), (boot(ENABLED), False), (Boot(nobody="it is so"), True)],
)
def test_who_starts_nothing_is_warned_of(who, warned):
    warnings = decide_pool(dir_goal(autostart=True), started(autostart=True, boot=who)).warnings
    assert warnings == (
        ("pool p: autostart is marked, but it is so; run this task again after a boot",) if warned else ()
    )


@pytest.mark.parametrize(
    ("declared", "have", "who", "mark", "unit"),
    [
        (True, False, boot(NO_UNIT), True, ENABLED),
        (True, True, boot(NO_UNIT), False, ENABLED),
        (True, True, boot(OUTDATED), False, ENABLED),
        (True, False, boot(ENABLED), True, None),
        (True, False, boot(NO_UNIT, needed=False), True, None),
        (False, True, boot(ENABLED), True, NO_UNIT),
        (False, True, boot(ENABLED, needed=False), True, NO_UNIT),
        (False, True, boot(ENABLED, others=True), True, None),
        (False, False, boot(OUTDATED), False, NO_UNIT),
    ],
)
def test_the_unit_comes_with_the_first_mark_and_goes_with_the_last(declared, have, who, mark, unit):
    change = only(decide_pool(dir_goal(autostart=declared), started(autostart=have, boot=who)))
    before = {"autostart": have} if mark else {}
    after = {"autostart": declared} if mark else {}
    if unit is not None:
        before["boot_unit"], after["boot_unit"] = who.state, unit
    assert (change.action, change.before, change.after) == ("autostart", before, after)
    assert (UNIT in change.summary) == (unit is not None)
    assert ("mark it for autostart" in change.summary) == mark


@pytest.mark.parametrize(
    ("declared", "who"),
    [
        (True, boot(ENABLED)),
        (True, boot(OUTDATED, needed=False)),
        (False, boot(NO_UNIT)),
        (False, boot(ENABLED, others=True)),
        (None, boot(OUTDATED)),
        (None, boot(NO_UNIT)),
    ],
)
def test_what_is_as_it_should_be_stays(declared, who):
    assert decide_pool(dir_goal(autostart=declared), started(autostart=bool(declared), boot=who)).changes == ()


@pytest.mark.parametrize(
    ("who", "marked", "goes"),
    [(boot(ENABLED), True, True), (boot(ENABLED, others=True), True, False), (boot(ENABLED), False, False)],
)
def test_undefining_the_last_pool_that_is_marked(who, marked, goes):
    change = only(decide_pool(pool_goal("absent"), defined(autostart=marked, boot=who)))
    assert change.before.get("boot_unit") == (ENABLED if goes else None)
    assert (UNIT in change.summary) == goes


def test_a_pool_that_an_earlier_task_would_have_defined():
    decision = decide_pool(pool_goal("present", autostart=True), nothing(boot=boot(NO_UNIT)))
    assert codes(decision) == ["pool_missing"]
    (change,) = decision.changes
    assert change.before == {"autostart": UNKNOWN, "boot_unit": NO_UNIT}


@pytest.mark.parametrize(
    ("login", "who", "warned"),
    [
        (Login("u", "secret"), boot(ENABLED), True),
        (None, boot(ENABLED, keyless=True), True),
        (None, boot(ENABLED), False),
        (Login("u", "secret"), boot(NO_UNIT, needed=False), False),
    ],
)
def test_who_needs_a_password_is_not_started_at_boot(login, who, warned):
    warnings = decide_pool(dir_goal(autostart=True, login=login), started(autostart=True, boot=who)).warnings
    assert [text for text in warnings if "password" in text] == list(warnings)
    assert bool(warnings) == warned


# -- what starts it at boot without us ----------------------------------------------------------------------------


RECORD = "/etc/iscsi/nodes/some/record"


@pytest.mark.parametrize(
    ("declared", "have", "goes"), [(None, False, False), (True, True, False), (False, False, True), (False, True, True)]
)
def test_what_else_starts_it_at_boot_is_left_where_that_is_declared(declared, have, goes):
    storage = replace(DIRECTORY, comes_back=(RECORD,))
    decision = decide_pool(dir_goal(autostart=declared), started(storage, autostart=have))
    assert actions(decision) == (["autostart"] if goes else [])
    for change in decision.changes:
        assert (change.before["comes_back"], change.after["comes_back"]) == (RECORD, "")
        assert ("autostart" in change.after) == have
        assert RECORD in change.summary
