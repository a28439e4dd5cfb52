# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Notes of what we made and of what we started: small files, named after what they are about."""

from __future__ import annotations

import hashlib
import os

from .files import read_small_file


class Notes:
    """``records`` and ``starts`` are the directories of notes on what we made (it outlives a boot) and on what we
    started (it does not).
    """

    def __init__(self, records: str, starts: str) -> None:
        self._records = records
        self._starts = starts

    def record_path(self, key: str) -> str:
        """The file in which it is noted that we made what ``key`` names: a path, a volume group."""
        return os.path.join(self._records, _digest(key))

    def started_path(self, key: str) -> str:
        """The file in which it is noted that we started what ``key`` names."""
        return os.path.join(self._starts, _digest(key))

    def made(self, key: str) -> str | None:
        """The note that we made it, as it was written; None where there is none."""
        return _text(self.record_path(key))

    def started(self, key: str) -> str | None:
        """The note that we started it, as it was written; None where there is none."""
        return _text(self.started_path(key))


def boot() -> str:
    """What tells this boot from all others (random(4))."""
    return (read_small_file("/proc/sys/kernel/random/boot_id") or b"").decode().strip()


def _digest(key: str) -> str:
    return hashlib.sha256(os.fsencode(key)).hexdigest()


def _text(path: str) -> str | None:
    data = read_small_file(path)
    return None if data is None else data.decode("utf-8", "surrogateescape")
