# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which tests may be skipped in CI, for those that ran inside a guest (tests/conftest.py says it for all others)."""

from __future__ import annotations

import fnmatch
from pathlib import Path


def patterns(listed: Path) -> list[str]:
    lines = listed.read_text(encoding="utf-8").splitlines()
    return [line.partition("|")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def allowed(listed: list[str], *texts: str) -> bool:
    """Whether a pattern fits the test's name or the reason that it gives."""
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in listed for text in texts)
