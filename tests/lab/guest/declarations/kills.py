# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tasks that are killed anywhere: the same task again completes the work, and nothing is lost or left half made.

The tasks of a scenario follow each other in rounds. In each round each task is killed at another point: before or after
one of its operations, or together with a command that it had just started. CRASH_SAMPLE=N sets how many rounds there
are: 2 otherwise, and 50 with HYPOTHESIS_PROFILE=long. DECLARATIONS_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.integration.calling import call
from tests.integration.declarations.results import check_result, code_of

from .machine import settle
from .steps import PATIENCE, SHOW, Kind, Records, Task, lives, marks, named

ROUNDS = int(os.environ.get("CRASH_SAMPLE") or (50 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 2))
_BEFORE, _AFTER, _INSIDE = "before", "after", "inside"
_APPLY = "ansible_collections.virt.storage.plugins.module_utils.host.apply"


class _Killer:
    """Counts the operations of a task, and kills its process at one of them."""

    def __init__(self, point: tuple[str, int] | None, told: int) -> None:
        self._point, self._told = point, told
        self._count = 0
        self._lock = threading.Lock()

    def install(self) -> None:
        import importlib

        applier = importlib.import_module(_APPLY).Applier
        whole = applier.apply

        def apply(this: Any, operation: Any) -> None:
            with self._lock:
                number = self._count
                self._count += 1
                os.write(self._told, b".")
            if self._point == (_BEFORE, number):
                os.kill(os.getpid(), signal.SIGKILL)
            if self._point == (_INSIDE, number):
                with _killing_what_starts():
                    whole(this, operation)
                os.killpg(0, signal.SIGKILL)
            whole(this, operation)
            if self._point == (_AFTER, number):
                os.kill(os.getpid(), signal.SIGKILL)

        applier.apply = apply


@contextlib.contextmanager
def _killing_what_starts() -> Iterator[None]:
    """The first command that is started dies a moment later, with who started it."""
    started = subprocess.Popen

    class Doomed(started):  # type: ignore[misc, valid-type]
        def communicate(self, *arguments: Any, **more: Any) -> Any:
            threading.Timer(random.SystemRandom().random() * 0.03, os.killpg, (0, signal.SIGKILL)).start()
            return super().communicate(*arguments, **more)

    subprocess.Popen = Doomed  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = started  # type: ignore[misc]


def run_killed(task: Task, uri: str, point: tuple[str, int] | None) -> tuple[bool, int]:
    """Whether the task was killed, and how many operations it had begun."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        os.close(reading)
        status = 99
        with contextlib.suppress(BaseException):
            _Killer(point, writing).install()
            call(task.module, uri=uri, timeout=PATIENCE, **task.params)
            status = 0
        os._exit(status)
    os.close(writing)
    begun = 0
    while data := os.read(reading, 100):  # also what it has started has to end
        begun += len(data)
    os.close(reading)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), f"{task} ended with {status}"
    return status != 0, begun


class Kills:
    def __init__(self, kind: Kind, top: Path, tasks: list[Task], numbers: Random) -> None:
        self.kind, self.numbers, self.tasks = kind, numbers, tasks
        self.root = top / "root"
        self.records = Records(self.root)
        self.uri = f"native:///?root={self.root}"
        self.known: dict[int, int] = {}
        self.counts: Counter = Counter()

    def round(self) -> None:
        for number, task in enumerate(self.tasks):
            self._killed(number, task)
        self.kind.clean()  # what was there has left its traces, which nobody may overwrite unasked

    def _point(self, number: int, plan: list[dict[str, Any]]) -> tuple[str, int]:
        """Anywhere in the task: how many operations it has is known once it was not killed, until then estimated."""
        operations = self.known.get(number) or sum(len(entry["commands"]) * entry["count"] for entry in plan)
        return (self.numbers.choice((_BEFORE, _AFTER, _INSIDE, _INSIDE)), self.numbers.randrange(max(1, operations)))

    def _killed(self, number: int, task: Task) -> None:
        canaries = marks(self.kind, self.numbers, self.kind.read(), set())
        foreseen = call(task.module, True, uri=self.uri, timeout=PATIENCE, **task.params)
        assert not code_of(foreseen), f"{task} is refused: {foreseen['error']}"
        point = self._point(number, foreseen["plan"])
        if SHOW:
            print(f"  [{time.monotonic():.1f}] {point}: {task}")
        killed, begun = run_killed(task, self.uri, point)
        settle()
        self.counts[f"killed {point[0]}" if killed else "not killed"] += 1
        if not killed:
            self.known[number] = begun
        where = f"killed {point} {task}" if killed else str(task)
        done = self._again(task)
        assert not code_of(done), f"{where}: then it failed: {done['error']}"
        check_result(done)
        settle()
        reading = self.kind.read()
        self.kind.disks.flush()
        wrong = self.kind.holds(task, {**done, "changed": True}, reading, self.records) + self._left()
        wrong += [
            f"lost {canary.where} of {canary.volume.name}"
            for canary in canaries
            if not named(foreseen["plan"], canary) and not lives(self.kind, canary, reading)
        ]
        again = call(task.module, True, uri=self.uri, timeout=PATIENCE, **task.params)
        wrong += [f"a third run would {again['plan']}"] * bool(again["changed"])
        assert not wrong, f"{where}: {'; '.join(wrong)}"

    def _again(self, task: Task) -> dict[str, Any]:
        """What was unmounted and not noted as empty before the task was killed has to be looked into first."""
        done = call(task.module, uri=self.uri, timeout=PATIENCE, **task.params)
        if task.params.get("state") != "deleted" or code_of(done) != "pool_inactive":
            return done
        started = call(task.module, uri=self.uri, timeout=PATIENCE, name=task.params["name"])
        assert not code_of(started), f"it could not be started: {started['error']}"
        return call(task.module, uri=self.uri, timeout=PATIENCE, **task.params)

    def _left(self) -> list[str]:
        left = [str(path) for path in self.root.rglob("*") if path.name.endswith(".new")]
        return [f"left behind: {left}"] * bool(left)


def killed_anywhere(kind: Kind, top: Path, tasks: list[Task]) -> None:
    seed = int(os.environ.get("DECLARATIONS_SEED") or random.SystemRandom().getrandbits(32))
    print(f"DECLARATIONS_SEED={seed}")
    began = time.monotonic()
    kills = Kills(kind, top, tasks, Random(seed))
    try:
        for _round in range(ROUNDS):
            kills.round()
    finally:
        told = ", ".join(f"{name}: {count}" for name, count in sorted(kills.counts.items()))
        print(f"{kind.type}: {told}; operations of what was not: {kills.known}; {time.monotonic() - began:.0f} s")
        kind.clean()
    assert kills.counts["not killed"] <= ROUNDS * len(tasks) / 2, "most of the tasks were not killed"
