# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two tests of each type, which the files of the types import."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kills import killed_anywhere
from .runs import random_declarations
from .steps import Kind


def test_random_declarations(kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        random_declarations(kind, tmp_path)


def test_killed_anywhere(kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        killed_anywhere(kind, tmp_path, kind.scenario())
