# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The mark that a pool is to be started at boot, and what starts it then where there is no daemon."""

from __future__ import annotations

from typing import Any

from ..model.change import Change
from ..model.found import ENABLED, NO_UNIT, OUTDATED, Found
from ..model.goal import PoolGoal
from ..model.pool import Pool
from .decision import change_of


def autostart(goal: PoolGoal, found: Found, before: Any, wanted: Pool | None) -> list[Change]:
    """The change that makes the mark and the unit what is declared; ``before`` tells of the mark as it is."""
    boot, marks = found.boot, before != goal.autostart
    installs = goal.autostart is True and boot.needed and boot.state != ENABLED
    removes = goal.autostart is False and unit_goes(found)
    stays_down = goal.autostart is False and bool(found.storage.comes_back)
    if not marks and not installs and not removes and not stays_down:
        return []
    was: dict[str, Any] = {"autostart": before} if marks else {}
    claimed: dict[str, Any] = {"autostart": goal.autostart} if marks else {}
    words = [f"{'mark' if goal.autostart else 'unmark'} it for autostart"] if marks else []
    if installs or removes:
        was["boot_unit"], claimed["boot_unit"] = boot.state, ENABLED if installs else NO_UNIT
        verb = "renew" if boot.state == OUTDATED else "install"
        words.append(removal_of_unit(found) if removes else f"{verb} {boot.unit}, which starts it at boot")
    if stays_down:
        was["comes_back"], claimed["comes_back"] = ", ".join(found.storage.comes_back), ""
        words.append(f"let nothing else start it at boot ({was['comes_back']})")
    return [change_of(goal, "autostart", "; ".join(words), was, claimed, wanted)]


def unit_goes(found: Found) -> bool:
    """Whether the unit has nothing left to start once this pool is not marked any more."""
    return found.boot.state != NO_UNIT and not found.boot.others


def removal_of_unit(found: Found) -> str:
    return f"remove {found.boot.unit}, since no other pool is marked"


def warnings(goal: PoolGoal, found: Found) -> tuple[str, ...]:
    """Why a pool is not started at boot although that is declared."""
    said = []
    if found.boot.nobody:
        said.append(f"autostart is marked, but {found.boot.nobody}; run this task again after a boot")
    elif found.boot.needed and (goal.pool.login is not None or found.boot.keyless):
        said.append(
            "autostart is marked, but its password is kept nowhere, so that it is not started at boot; name a file "
            "that has it in mount_options (credentials=FILE) instead of source.auth"
        )
    return tuple(f"pool {goal.pool.name}: {each}" for each in said)
