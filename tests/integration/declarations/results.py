# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every result of a module has, and what is compared of the results of check mode and of the real run."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

_KNOWN_AFTER = re.compile(r"\(known after apply\)")


def check_result(result: dict[str, Any]) -> None:
    """What every result has."""
    assert isinstance(result.get("plan"), list), result
    assert set(result["diff"]) == {"before", "after"}, result
    assert isinstance(result["changed"], bool), result
    assert not any(text.startswith("verification:") for text in result["warnings"]), result["warnings"]
    if "failed" in result:
        assert result["error"]["code"], result
        assert result["error"]["hint"] or result["error"]["code"] == "storage_unreadable", result
    else:
        assert "error" not in result, result


def code_of(result: dict[str, Any]) -> str:
    return str(result["error"]["code"]) if "failed" in result else ""


def masked(like: dict[str, str], diff: dict[str, str]) -> dict[str, list[str]]:
    """A diff without the values that check mode could not know: those that it marks so."""
    shown = {}
    for side, text in diff.items():
        marked = [line.split(": ")[0] if _KNOWN_AFTER.search(line) else None for line in like[side].splitlines()]
        lines = text.splitlines()
        pairs = zip(lines, marked, strict=True) if len(lines) == len(marked) else [(line, None) for line in lines]
        shown[side] = [f"{mark}: ..." if mark is not None and line.startswith(mark) else line for line, mark in pairs]
    return shown


def actions(plan: list[dict[str, Any]]) -> Counter:
    """(action, subject), those of grouped changes one by one."""
    return Counter(
        (entry["action"], subject) for entry in plan for subject in entry.get("subjects", [entry["subject"]])
    )
