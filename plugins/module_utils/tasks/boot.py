# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What the unit runs at boot: it starts the pools that are marked for autostart, as a task with ``build: never`` does.

What a pool stands on may be another pool, or come later: what can't be started is tried again, at once where something
else was started meanwhile, else after a look for units that are served only now. Only of what is mounted does the order
matter: below it there is a directory as well.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Optional

from ..converge import carry_out, converge
from ..decide.decision import Decision
from ..decide.pools import decide_pool
from ..engines.boot import daemon_at_boot
from ..engines.places import find_places
from ..engines.select import daemon_listens, native_engine
from ..host.mounts import mounts
from ..host.paths import resolved
from ..model.change import Change, Subject
from ..model.errors import StorageError
from ..model.found import Found
from ..model.goal import PoolGoal, Scope
from ..model.pool import Pool
from ..model.types import row_of
from .pool import aim_at

_URI = "native:///system"
_TIMEOUT = 30  # seconds, for each look at a pool
_SECONDS, _PAUSE = 120, 3  # so long, and so often, what is not there yet is waited for
_ERROR, _WARNING, _INFO = 3, 4, 6  # sd-daemon(3)

Start = Callable[[str], Optional[StorageError]]
Seek = Callable[[str], None]


def main(arguments: Sequence[str]) -> int:
    """``arguments``: another uri than the system's."""
    places = find_places(arguments[0] if arguments else _URI)
    if places is None:
        return _ends(2, f"{arguments[0]} is no uri of native pools")
    others = (*daemon_at_boot(), *daemon_listens()) if places.units else ()
    if others:
        say(_INFO, f"{others[0]}: that starts pools itself")
        return 0
    try:
        marked = native_engine(places, _TIMEOUT).marked_pools()
    except StorageError as unreadable:
        return _ends(1, str(unreadable))
    failed = start_all(
        marked,
        lambda name: start(name, native_engine(places, _TIMEOUT)),
        lambda name: seek(name, native_engine(places, _TIMEOUT)),
        _SECONDS,
        _PAUSE,
    )
    for name, error in failed.items():
        say(_ERROR, f"pool {name} is not started: {error}")
    return 1 if failed else 0


def _ends(status: int, text: str) -> int:
    say(_ERROR, text)
    return status


def say(level: int, text: str) -> None:
    prefix = f"<{level}>" if "JOURNAL_STREAM" in os.environ else ""
    sys.stderr.write(f"{prefix}{' '.join(text.splitlines())}\n")
    sys.stderr.flush()


def start_all(
    marked: Mapping[str, Pool], start_one: Start, seek_in: Seek, seconds: float, pause: float
) -> dict[str, StorageError]:
    """Those that could not be started, and why."""
    deadline = time.monotonic() + seconds
    waiting = dict(sorted(marked.items()))
    failed: dict[str, StorageError] = {}
    while waiting:
        before, failed = len(waiting), {}
        for name in list(waiting):
            error = _waits(name, waiting) or start_one(name)
            if error is None:
                del waiting[name]
            else:
                failed[name] = error
        if len(waiting) == before:
            if time.monotonic() >= deadline:
                break
            time.sleep(pause)
            for name in _below(marked, waiting):
                seek_in(name)
    return failed


def _below(marked: Mapping[str, Pool], waiting: Mapping[str, Pool]) -> list[str]:
    """The pools that were started, and may get what others wait for."""
    if not any(row_of(pool.type).on_devices for pool in waiting.values()):
        return []
    return [name for name, pool in marked.items() if name not in waiting and row_of(pool.type).served]


def _waits(name: str, waiting: Mapping[str, Pool]) -> StorageError | None:
    """Nothing is started in what another pool is still to be mounted on."""
    for other, pool in waiting.items():
        if other != name and row_of(pool.type).mounted and _is_inside(waiting[name].path, pool.path):
            what = f"its path is in that of pool {other}, which is not started"
            return StorageError("pool_inactive", what, subject=f"pool {name}", hint="See why that one is not.")
    return None


def _is_inside(path: str | None, directory: str | None) -> bool:
    if not path or not directory:
        return False
    table = mounts()
    return resolved(path, table).startswith(resolved(directory, table).rstrip("/") + "/")


def start(name: str, engine: Any) -> StorageError | None:
    """What a task does that declares the pool active. None when it is."""
    goal = PoolGoal(Pool(name), build="never")

    def decide(wanted: PoolGoal, found: Found) -> Decision:
        if engine.is_keyless(name) and not found.storage.up:
            what = "its password is kept nowhere"
            raise StorageError("login_missing", what, subject=f"pool {name}", hint="Run the task that has it.")
        return decide_pool(wanted, found)

    try:
        result = converge(replace(aim_at(goal), decide=decide), engine, False)
    except StorageError as error:
        return error
    except OSError as error:
        return StorageError("not_readable", str(error), subject=f"pool {name}", hint="Run a task with it to see more.")
    for warning in (*result.decision.warnings, *result.unmet):
        say(_WARNING, warning)
    if result.error is None:
        done = "; ".join(change.summary for change in result.decision.changes)
        say(_INFO, done or f"pool {name}: it is active")
    return result.error


def seek(name: str, engine: Any) -> None:
    """Lets the kernel look for the units of a pool: it does not see by itself what is served since then. Whether that
    helped is seen by those that wait.
    """
    change = Change(Subject(name), "refresh", f"pool {name}: look for units", {}, {}, ())
    with suppress(StorageError, OSError):
        carry_out(change, Scope(Pool(name)), engine)
