# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tables of docs/pools/README.md say what the table of types says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pools" / "README.md"
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def table(*columns: str) -> dict[str, list[str]]:
    """The rows of the table that has these columns, by their first cell."""
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    head = f"| {' | '.join(columns)} |"
    assert head in lines, head
    next(lines)
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        name, *cells = (_LINK.sub(r"\1", cell.strip()) for cell in line.strip("|").split("|"))
        assert name not in rows
        rows[name] = cells
    return rows


def listed(words: tuple[str, ...]) -> str:
    return ", ".join(words)


def test_what_they_are():
    found = table("type", "what it is", "volumes", "through a daemon", "natively")
    assert all(what for what, *_rest in found.values())
    assert {name: rest for name, (_what, *rest) in found.items()} == {
        name: [row.volumes, listed(row.daemon), listed(row.native)] for name, row in POOL_TYPES.items()
    }


def test_what_they_need():
    assert table("type", "required", "optional", "path") == {
        name: [listed(row.required), listed(row.optional), row.target] for name, row in POOL_TYPES.items()
    }


def test_formats():
    expected = {
        name: [listed((row.default_format, *(each for each in row.formats if each != row.default_format)))]
        for name, row in POOL_TYPES.items()
        if row.default_format is not None
    }
    assert table("type", "source.format") == expected


def test_when_they_are_active():
    assert table("type", "active means") == {name: [row.active] for name, row in POOL_TYPES.items()}


@pytest.mark.parametrize("option", ["mount_options", "config_options", "features"])
def test_options_of_some_types(option):
    """All types of an option are named after it."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    sentence = re.search(rf"`{option}` to ((?:[a-z-]+ and )?[a-z-]+)", text)
    feature = "cow" if option == "features" else option
    assert sentence is not None
    assert sentence[1].split(" and ") in (
        names := [name for name, row in POOL_TYPES.items() if feature in row.features],
        names[::-1],
    )
