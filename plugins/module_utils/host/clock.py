# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""How long something may still take."""

from __future__ import annotations

import time

_LEAST = 0.1


class Deadline:
    """Begins when it is made."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, to a tenth; never less than one of those, which a command may be given."""
        return max(_LEAST, round(self._end - time.monotonic(), 1))

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._end
