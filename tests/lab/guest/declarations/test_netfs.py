# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random sequences of declared states of netfs pools, and tasks on them that are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .kills import killed_anywhere
from .on_netfs import NetfsKind
from .runs import in_memory, random_declarations


@pytest.fixture
def kind() -> Iterator[NetfsKind]:
    with in_memory() as directory:
        made = NetfsKind(directory)
        try:
            yield made
        finally:
            made.end()


def test_random_declarations(kind: NetfsKind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        random_declarations(kind, tmp_path)


def test_killed_anywhere(kind: NetfsKind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        killed_anywhere(kind, tmp_path, kind.scenario())
