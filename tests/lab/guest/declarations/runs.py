# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Many random sequences of one type, and whether they were worth running.

DECLARATIONS_SEED=N repeats a run, DECLARATIONS_SEQUENCES=N sets how many sequences there are: 8 otherwise, and 200 with
HYPOTHESIS_PROFILE=long. DECLARATIONS_ONLY=N runs the N-th alone, DECLARATIONS_SHOW=1 tells each step as it happens.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from .machine import quick_udev
from .steps import STEPS, Kind, Sequence

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SEQUENCES = int(os.environ.get("DECLARATIONS_SEQUENCES") or (200 if LONG else 8))
MOST_FAILURES = 5
ENOUGH = 8 * STEPS


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="decl-", dir="/dev/shm") as directory, quick_udev():
        yield Path(directory)


def random_declarations(kind: Kind, top: Path) -> None:
    seed = int(os.environ.get("DECLARATIONS_SEED") or random.SystemRandom().getrandbits(32))
    only = os.environ.get("DECLARATIONS_ONLY")
    counts: Counter = Counter()
    failures: list[str] = []
    began = time.monotonic()
    print(f"DECLARATIONS_SEED={seed}")
    for number in [int(only)] if only else range(2 * SEQUENCES):
        if number >= SEQUENCES and not only and not too_rare(counts):
            break  # a few more may be needed for enough of each outcome
        failure = _run_one(kind, seed, number, top / f"sequence{number}", counts)
        if failure:
            print(failure, flush=True)
            failures.append(failure)
        if len(failures) >= MOST_FAILURES:
            break
    print(table(kind.type, counts, time.monotonic() - began))
    assert not failures, f"DECLARATIONS_SEED={seed}\n" + "\n\n".join(failures)
    assert not (rare := too_rare(counts)), f"DECLARATIONS_SEED={seed}: too rare: {rare}"


def _run_one(kind: Kind, seed: int, number: int, top: Path, counts: Counter) -> str:
    top.mkdir()
    sequence = Sequence(kind, Random(seed * 1000 + number), top, counts)
    try:
        sequence.run()
        counts["sequences"] += 1
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-1:] if isinstance(error, AssertionError) else None
        where = "".join(traceback.format_list(frames)) if frames else traceback.format_exc()
        return "\n  ".join([f"sequence {number} (DECLARATIONS_ONLY={number}):", *sequence.notes, str(error), where])
    finally:
        kind.clean()
    return ""


def too_rare(counts: Counter) -> list[str]:
    steps = counts["steps"]
    if steps < ENOUGH:
        return []
    return [outcome for outcome in ("changed", "refused", "no-op") if counts[outcome] < 0.2 * steps]


def table(title: str, counts: Counter, seconds: float) -> str:
    steps = counts["steps"] or 1
    lines = [f"\n{title}: {counts['sequences']} sequences of {steps} steps in all, {seconds:.0f} s"]
    for head in ("", "action: ", "refused: "):
        names = sorted(name for name in counts if (name.startswith(head) if head else ": " not in name))
        shown = ", ".join(f"{name[len(head) :]} {counts[name]} ({100 * counts[name] / steps:.0f} %)" for name in names)
        lines.append(f"  {head.strip() or 'outcomes:'} {shown}")
    return "\n".join(lines)
