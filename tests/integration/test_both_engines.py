# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The native engine judged: random sequences of tasks through it and through a private libvirtd give equal results,
equal records and equal files, but for what docs/compatibility.md lists ("Where the engines differ").

DECLARATIONS_SEED=N repeats a run (what fails prints its seed), ENGINES_SEQUENCES=N sets how many sequences there are
in all (300 otherwise, and 5,000 with HYPOTHESIS_PROFILE=long), ENGINES_SEQUENCE=I runs one of them alone.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from .conftest import keep_private
from .daemon import Daemon
from .declarations import making
from .declarations.making import Drawer
from .declarations.running import Unforeseen
from .declarations.shares import table, too_rare

if TYPE_CHECKING:
    from .declarations.twins import Twins

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root, pytest.mark.libvirt_binding, pytest.mark.thorough]

SHARDS = 6
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SEQUENCES = int(os.environ.get("ENGINES_SEQUENCES") or (5000 if LONG else 300))
ENOUGH = 300  # for the shares of states and actions to mean something
ALONE = os.environ.get("ENGINES_SEQUENCE")


def run_sequence(numbers: Random, twins: Twins, counts: Counter, story: list[str]) -> None:
    """``story`` is told what happens."""
    from .declarations.twins import TwinSequence

    draw = Drawer(numbers)
    start = making.start(draw)
    story.append(f"start: {start}")
    sequence = TwinSequence(twins, start, counts)
    try:
        for _unused in range(draw.number(3, 5)):
            if draw.chance(14):
                hand = making.hand(draw, sequence.host)
                if hand is not None:
                    story.append(f"by hand: {hand}")
                    sequence.by_hand(hand)
            task = making.task(draw, sequence.host, twins.shop.world, sequence.earlier)
            if getattr(task, "type", None) == making.WITHOUT_BACKEND:
                continue  # nor does Debian's daemon support it
            story.append(f"{task.module}: {task.params()}")
            sequence.do(task)
    except Unforeseen:
        story.append("nobody foresees what is there now: the sequence ends")
    sequence.end()


@pytest.fixture
def twins(session_daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Twins]:
    from .declarations.twins import Twins

    session_daemon.start()
    made = Twins(tmp_path, session_daemon)
    keep_private(made.daemon, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if hasattr(request.config, "workerinput") else base) / "both-engines"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.mark.parametrize("shard", range(SHARDS))
def test_the_engines_do_the_same(shard: int, twins: Twins, counted: Path) -> None:
    seed = int(os.environ.get("DECLARATIONS_SEED") or random.SystemRandom().getrandbits(32))
    counts, began, passed = Counter(), time.monotonic(), False
    mine = range(shard, SEQUENCES, SHARDS) if ALONE is None else [int(ALONE)] * (shard == 0)
    try:
        for number in mine:
            story: list[str] = []
            try:
                run_sequence(Random(f"{seed}/{number}"), twins, counts, story)
            except Exception as error:
                again = f"DECLARATIONS_SEED={seed} ENGINES_SEQUENCE={number}"
                raise AssertionError("\n".join([again, *story, f"{type(error).__name__}: {error}"])) from error
        passed = True
    finally:
        told = {"passed": passed, "seconds": time.monotonic() - began, "counts": counts}
        (counted / f"{shard}.new").write_text(json.dumps(told))
        (counted / f"{shard}.new").rename(counted / f"{shard}.json")


def test_the_sequences_were_worth_running(request: pytest.FixtureRequest, counted: Path, capsys) -> None:
    """Waits for the shards that other workers run, prints what all of them did, and asks whether that is enough."""
    mine = {item.name for item in request.session.items}
    if ALONE is not None or not all(f"test_the_engines_do_the_same[{shard}]" in mine for shard in range(SHARDS)):
        pytest.skip("not all of the sequences are run")
    shards = _gathered(counted)
    counts: Counter = Counter()
    for shard in shards:
        counts.update(shard["counts"])
    with capsys.disabled():
        # of a worker, only stderr is seen
        print(table("both engines", counts, sum(shard["seconds"] for shard in shards)), file=sys.stderr)
        print(f"  not compared, since only the daemon can: {counts['only the daemon can']} steps", file=sys.stderr)
    assert all(shard["passed"] for shard in shards), "a shard failed: see there"
    assert counts["sequences"] >= SEQUENCES
    assert not too_rare(counts) or SEQUENCES < ENOUGH


def _gathered(directory: Path) -> list[dict]:
    limit = time.monotonic() + (7200 if LONG else 900)
    files = [directory / f"{shard}.json" for shard in range(SHARDS)]
    while not all(file.exists() for file in files):
        assert time.monotonic() < limit, "not all shards came to their end"
        time.sleep(0.2)
    return [json.loads(file.read_text()) for file in files]
