# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lock files pin every package by version and hash and say nothing of where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOCKS = sorted((Path(__file__).resolve().parents[2] / "requirements").glob("*.txt"))
ALLOWED = re.compile(
    r"""
      \s*\#\ .*                                            # which package asked for it
    | [a-z0-9][a-z0-9.-]*(\[[a-z,]+\])?==[^\s;]+(\ ;\ .*)?\ \\   # name==version
    | \ {4}--hash=sha256:[0-9a-f]{64}(\ \\)?
    """,
    re.VERBOSE,
)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_versions_and_hashes_only(lock: Path) -> None:
    lines = lock.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not ALLOWED.fullmatch(line)] == []
    assert not any("://" in line for line in lines)


def test_there_are_locks() -> None:
    assert LOCKS
