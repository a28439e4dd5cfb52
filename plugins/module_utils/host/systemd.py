# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What is known of systemd on this host."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .run import finish

_RUNNING = "/run/systemd/system"  # sd_booted(3)
_SECONDS = 10.0
_STATES = ("enabled", "enabled-runtime", "alias")


def is_running() -> bool:
    """Whether it is what this host was booted with."""
    return os.path.isdir(_RUNNING)


def enabled(units: Sequence[str]) -> tuple[str, ...]:
    """Those of the units that are started at boot (systemctl(1): list-unit-files). Raises ``deadline``."""
    told = finish(("systemctl", "list-unit-files", "--no-legend", "--no-pager", "--", *units), timeout=_SECONDS)
    words = (line.split() for line in told.stdout.splitlines())
    return tuple(each[0] for each in words if len(each) > 1 and each[1] in _STATES)


def quoted(word: str) -> str:
    """A word of a command line in a unit (systemd.service(5): Command lines)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != word or not word.isprintable() or " " in word else word
