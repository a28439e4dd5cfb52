# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Sizes and modes, parsed once at the edge, and how sizes, numbers and lists are told.

Sizes are bytes inside. The unit rules are libvirt's (formatstorage: "scaledInteger"): one letter or ``XiB`` scales by
powers of 1024, ``XB`` by powers of 1000; units are case-insensitive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import StorageError

SIZE_LIMIT = 2**63 - 1
_LETTERS = "KMGTPE"
_SCALES = {"": 1, "B": 1, "BYTE": 1, "BYTES": 1}
for _power, _letter in enumerate(_LETTERS, start=1):
    _SCALES[_letter] = _SCALES[_letter + "IB"] = 1024**_power
    _SCALES[_letter + "B"] = 1000**_power
_READABLE = 5  # digits
_SIZE = re.compile(r"\s*([0-9]{1,40})\s*([A-Za-z]*)\s*\Z")
_MODE_DIGITS = 3
_UNQUOTED = (400, 440, 444)  # as bits they are 0620, 0670 and 0674, which nobody means
_OCTAL = re.compile(r"(0o)?[0-7]{1,5}\Z")


def parse_size(value: int | str, option: str, subject: str = "") -> int:
    """Bytes of ``10G``, ``10GiB``, ``512 MiB``, ``10GB`` (10^9) or a plain number. Raises ``invalid_size``."""
    match = None if isinstance(value, bool) else _SIZE.match(str(value))
    scale = _SCALES.get(match.group(2).upper()) if match else None
    if match is None or scale is None:
        raise StorageError(
            "invalid_size",
            f"{option}: {value!r} is not a size",
            subject=subject,
            hint="Give a whole number of bytes, or one with a unit such as 10G, 10GiB, 512 MiB or 10GB.",
        )
    size = int(match.group(1)) * scale
    if size > SIZE_LIMIT:
        raise StorageError(
            "capacity_too_large", f"{option}: {value} is more than 2^63-1 bytes", subject=subject, hint="Ask for less."
        )
    return size


def plain_number(value: object) -> int | None:
    """The bytes of a size that has no unit; None for other sizes."""
    text = str(value).strip()
    return int(text) if text.isdecimal() else None


def format_size(size: int) -> str:
    """The shortest exact text of a size: ``10 GiB``, ``1536 MiB``, ``1000001 bytes``."""
    for power in range(len(_LETTERS), 0, -1):
        scale = 1024**power
        if size and size % scale == 0:
            return f"{size // scale} {_LETTERS[power - 1]}iB"
    return f"{size} bytes"


def spoken_size(size: int) -> str:
    """The same, with a round figure beside one that nobody can read."""
    text = format_size(size)
    power = max((power for power in range(len(_LETTERS) + 1) if size >= 1024**power), default=0)
    if power == 0 or len(text.split()[0]) <= _READABLE:
        return text
    return f"{text} (about {size / 1024**power:.1f} {_LETTERS[power - 1]}iB)"


def counted(number: int, noun: str) -> str:
    """``1 volume``, ``2 volumes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Iterable[object], most: int = 5) -> str:
    """``a, b``, or the first of many: ``a, b, c, d, e and 3 more``."""
    told = [str(name) for name in names]
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return ", ".join(told[:most]) + more


def parse_mode(value: int | str, option: str, subject: str = "") -> int:
    """Permission bits of an integer (the bits themselves) or of a string (octal). Raises ``invalid_mode``."""
    bits = -1
    if isinstance(value, int) and not isinstance(value, bool) and value not in _UNQUOTED:
        bits = value
    elif isinstance(value, str) and _OCTAL.match(value.strip()):
        bits = int(value.strip(), 8)
    if not 0 <= bits <= 0o777:
        digits = str(value)
        meant = isinstance(value, int) and len(digits) == _MODE_DIGITS and _OCTAL.match(digits)  # as in mode: 755
        raise StorageError(
            "invalid_mode",
            f"{option}: {value!r} is not a mode between 0000 and 0777"
            + (f": without quotes it is a number, {value:#o} in octal" if meant else ""),
            subject=subject,
            hint=f'Quote it as octal text{":" if meant else ", such as"} {option}: "0{digits if meant else 711}".',
        )
    return bits


def format_mode(bits: int) -> str:
    """Octal text as libvirt prints it: ``0711``."""
    return f"0{bits:o}"


def round_up(size: int, granule: int) -> int:
    """The smallest multiple of ``granule`` (bytes) that holds ``size``."""
    return -(-size // granule) * granule
