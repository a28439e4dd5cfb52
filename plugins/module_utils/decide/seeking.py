# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Volumes that others serve, so that they appear, grow and go without us: one that is not as declared may be so by now,
which a new look tells.
"""

from __future__ import annotations

import re

from ..model.goal import VolumeGoal
from ..model.volume import Sought, Volume
from .task import VolumesTask


def sought(entry: VolumeGoal, have: Volume | None, task: VolumesTask) -> Sought | None:
    """What is looked for; None where a new look would change nothing, or the declaration asks for more than that."""
    want = entry.volume
    if not re.match(task.found.row.appear, want.name, re.ASCII) or entry.recreate != "never":
        return None
    if want.content is not None or want.backing is not None or (have is not None and have.foreign):
        return None
    grown = have is not None and want.capacity is not None and (have.capacity or 0) < want.capacity
    if have is None or have.problem or grown:
        return Sought(want.name, want.capacity, want.at_least)
    return None
