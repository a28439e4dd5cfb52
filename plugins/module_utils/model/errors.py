# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The one error type of the collection and its stable codes."""

from __future__ import annotations

from typing import Any

# Codes on which check mode and a real run may differ: an earlier task of the play may make what is missing.
MISSING_CODES = ("pool_missing", "pool_inactive", "backing_missing", "source_missing")


class StorageError(Exception):
    """A refusal or a failure that a user can act on.

    ``code`` is stable and listed in docs/errors.md, ``subject`` says which pool, volume or device, ``hint`` what to
    do next. ``word``: that of ``allow`` which lets it happen all the same; the hint names it. ``command``, ``rc`` and
    ``stderr`` are set when a command failed, ``doing``, what it was for, when a change did.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        subject: str = "",
        hint: str = "",
        word: str = "",
        command: str = "",
        rc: int | None = None,
        stderr: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.subject = subject
        self.hint = hint
        self.word = word
        self.doing = ""
        self.command = command
        self.rc = rc
        self.stderr = stderr

    @property
    def told(self) -> str:
        """What went wrong, and in doing what."""
        return f"{self.doing}: {self.message}" if self.doing else self.message

    def as_dict(self) -> dict[str, Any]:
        """The ``error`` value of a module's result."""
        error: dict[str, Any] = {"code": self.code, "subject": self.subject, "message": self.told, "hint": self.hint}
        if self.command:
            error.update(command=self.command, rc=self.rc, stderr=self.stderr)
        return error

    def __str__(self) -> str:
        text = self.told
        if self.command:
            ended = "" if self.rc is None else f"; exit status {self.rc}; {self.stderr.strip() or 'no message'}"
            text += f" (command: {self.command.splitlines()[0]}{ended})"
        return f"{text}. {self.hint}" if self.hint else text
