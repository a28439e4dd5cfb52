# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Commands that are operations: what they get beside their words, how long they may take, which of several is run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..model import operations as ops
from ..model.errors import StorageError
from .files import in_memory
from .mounts import mount_at, mounts
from .paths import resolved
from .run import lacks, run

_SECONDS_FOR_ASKING = 1.0


def _check_not_refused(op: ops.Run) -> None:
    """Raises where nobody listens: mount(8) would ask for long."""
    if op.asks is None:
        return
    from .reach import refusal

    refused = refusal(*op.asks, _SECONDS_FOR_ASKING)
    if refused:
        why = f"{op.asks[0]}, port {op.asks[1]}: {refused}"
        raise StorageError(
            "command_failed", "mount failed", subject="mount", hint=op.hint, command=op.command, stderr=why
        )


@contextmanager
def _credentials(op: ops.Run) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The words of a command and the open files that it gets."""
    if op.credentials is None:
        yield op.argv, ()
        return
    with in_memory(op.credentials.data) as (descriptor, path):
        yield tuple(word.replace(ops.CREDENTIALS, f"credentials={path}") for word in op.argv), (descriptor,)


def _is_mounted(path: str) -> bool:
    table = mounts()
    return mount_at(resolved(path, table), table) is not None


def run_command(op: ops.Run, held: Sequence[int], timeout: float | None) -> None:
    """Runs it with the open files ``held``, its locks. ``timeout``: seconds, if it is bounded. Raises as ``run``."""
    _run(op, held, timeout if op.bounded else None)


def _run(op: ops.Run, held: Sequence[int], timeout: float | None) -> None:
    with _credentials(op) as (argv, descriptors):
        try:
            locks = () if op.leaves else tuple(held)
            run(argv, keep_fds=(*locks, *descriptors), timeout=timeout, stdin=op.stdin)
        except StorageError as error:
            if error.code == "command_failed":
                error.hint = op.hint or error.hint
            if error.code != "deadline":
                raise
            if op.unmounts and not _is_mounted(op.unmounts):
                return
            error.hint = op.late or error.hint
            raise


def run_first_of(op: ops.FirstOf, held: Sequence[int], timeout: float | None) -> None:
    """They share the time of one. Who does not answer says nothing: then no other is tried."""
    end = None if timeout is None else time.monotonic() + timeout
    errors: list[StorageError] = []
    for attempt in op.attempts:
        if lacks(attempt):
            continue
        try:
            _check_not_refused(attempt)
            _run(attempt, held, None if end is None else max(0.1, end - time.monotonic()))
            return
        except StorageError as error:
            if error.code != "command_failed":
                raise
            errors.append(error)
    if not errors:
        run_command(op.attempts[0], held, timeout)
        return
    raise _all_failed(op, errors)


def _all_failed(op: ops.FirstOf, errors: Sequence[StorageError]) -> StorageError:
    first = errors[0]
    return StorageError(
        first.code,
        first.message,
        subject=first.subject,
        hint=first.hint,
        command=op.command,
        rc=first.rc,
        stderr="\n".join(f"{error.command}: {error.stderr}" for error in errors),
    )
