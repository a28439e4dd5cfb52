# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Plain facts as YAML text for diffs. Targets need no YAML library for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/(][A-Za-z0-9 /_.,()+:@-]*\Z")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    text = value if isinstance(value, str) else repr(value)
    plain = _PLAIN.match(text) and text.lower() not in _WORDS and ": " not in text and text == text.strip()
    if plain and not text.endswith(":"):
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    """As YAML's double-quoted style has it (YAML 1.1, 5.6)."""
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key in value:
            yield from _entry(f"{indent}{_scalar(str(key))}:", value[key], indent + "  ")
    else:
        for item in value:
            if isinstance(item, (dict, list, tuple)) and item:
                nested = list(_lines(item, indent + "  "))
                yield f"{indent}- {nested[0].strip()}"
                yield from nested[1:]
            else:
                yield from _entry(f"{indent}-", item, indent + "  ")


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, (dict, list, tuple)):
        if value:
            yield head
            yield from _lines(value, indent)
        else:
            yield f"{head} {'{}' if isinstance(value, dict) else '[]'}"
    else:
        yield f"{head} {_scalar(value)}"


def to_yaml(value: dict[str, Any] | None) -> str:
    """Text with one fact a line, ends with a newline; empty for nothing."""
    return "" if not value else "\n".join(_lines(value, "")) + "\n"
