# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What one observation of the host remembers. Made anew for each: nothing of it outlives the look."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

from ..model.errors import StorageError
from .mounts import Mount, mounts
from .notes import Notes
from .remote import Servers
from .run import misprinted, run

if TYPE_CHECKING:
    from ..model.secrets import SecretObject

_LEAST = 0.1


class Look(Notes):
    """One look: what it may take, and what it has seen. ``leaving`` is the path of the pool as it runs, where it is
    another storage of it that is looked at, for which that one goes down first. ``secrets`` are those that the pool
    names. ``servers`` outlive it.
    """

    def __init__(self, timeout: float, records: str, starts: str, servers: Servers | None = None) -> None:
        super().__init__(records, starts)
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.leaving = ""
        self.secrets: tuple[SecretObject, ...] = ()
        self.servers = servers or Servers(timeout)
        self._seen: dict[Any, tuple[Any, StorageError | None]] = {}

    @property
    def rest(self) -> float:
        """Seconds until the deadline, to a tenth; never less than one of those, which a command may be given."""
        return max(_LEAST, round(self.deadline - time.monotonic(), 1))

    def left(self, subject: str = "") -> float:
        """The same. Raises ``deadline`` when it is over."""
        if time.monotonic() < self.deadline:
            return self.rest
        raise StorageError(
            "deadline",
            f"looking at {subject or 'the host'} took longer than {self.timeout:g} s",
            subject=subject,
            hint="See what does not answer there, or give it a longer timeout.",
        )

    def once(self, key: Any, look: Callable[[], Any]) -> Any:
        """What ``look`` returns or raises; it is called the first time only."""
        if key not in self._seen:
            try:
                self._seen[key] = (look(), None)
            except StorageError as why:
                self._seen[key] = (None, why)
        found, error = self._seen[key]
        if error is not None:
            raise error.with_traceback(None)
        return found

    def addresses(self, name: str) -> tuple[str, ...]:
        """Those of the name of a server, as far as they are told within its time."""
        return self.servers.names.of(name, self.left(name))

    def mounts(self) -> list[Mount]:
        """The mount table, read once."""
        found: list[Mount] = self.once("mounts", mounts)
        return found

    def run(self, argv: Sequence[str]) -> str:
        """Standard output of a command that only looks, run once for these words."""
        words = tuple(argv)
        printed: str = self.once(words, lambda: run(words, timeout=self.left(words[0])))
        return printed

    def json(self, argv: Sequence[str]) -> Any:
        """What a command prints as JSON, read once: not to be changed. None where it prints nothing."""
        return self.once(("json", *argv), lambda: _parsed(argv, self.run(argv)))


def _parsed(argv: Sequence[str], printed: str) -> Any:
    import json

    if not printed.strip():
        return None
    try:
        return json.loads(printed)
    except ValueError as error:
        raise misprinted(argv, f"JSON: {error}") from None
