# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random sequences of declared states: check mode tells the truth, a second run does nothing, what was declared holds.

DECLARATIONS_SEED=N repeats a shard (each prints its seed when it fails), DECLARATIONS_SEQUENCES=N sets how many
sequences there are in all: 500 otherwise, and 5,000 with HYPOTHESIS_PROFILE=long. DECLARATIONS_SHRINK=1 makes what
fails smaller.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from . import making
from .making import Drawer
from .running import Call, Sequence, Unforeseen, Workshop
from .shares import table, too_rare

pytestmark = [pytest.mark.needs_ansible, pytest.mark.each_python, pytest.mark.thorough]

SHARDS = 10
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SEQUENCES = int(os.environ.get("DECLARATIONS_SEQUENCES") or (5000 if LONG else 500))
ENOUGH = 500  # for the shares of states and actions to mean something
# Sequences are short enough to be read as they are; to shrink one takes minutes.
SETTINGS = hypothesis.settings(
    deadline=None, database=None, print_blob=False, report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, *([Phase.shrink] if os.environ.get("DECLARATIONS_SHRINK") else [])],
)  # fmt: skip


def run_sequence(numbers: Random, shop: Workshop, counts: Counter, check: Call | None = None) -> None:
    draw = Drawer(numbers)
    start = making.start(draw)
    hypothesis.note(f"start: {start}")
    sequence = Sequence(shop, start, counts, check)
    try:
        for _unused in range(draw.number(3, 5)):
            if draw.chance(14):
                hand = making.hand(draw, sequence.host)
                if hand is not None:
                    hypothesis.note(f"by hand: {hand}")
                    sequence.by_hand(hand)
            task = making.task(draw, sequence.host, shop.world, sequence.earlier)
            hypothesis.note(f"{task.module}: {task.params()}")
            sequence.do(task)
    except Unforeseen:
        pass
    sequence.end()


@pytest.fixture
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent
    directory = base / "declarations"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_declarations(shard: int, tmp_path: Path, counted: Path) -> None:
    seed = int(os.environ.get("DECLARATIONS_SEED") or random.SystemRandom().getrandbits(32))
    print(f"shard {shard} of {SHARDS}: DECLARATIONS_SEED={seed}")
    shop, counts, began = Workshop(tmp_path), Counter(), time.monotonic()

    @hypothesis.seed(seed + shard if "DECLARATIONS_SEED" in os.environ else seed)
    @hypothesis.settings(SETTINGS, max_examples=max(1, SEQUENCES // SHARDS))
    @given(st.randoms(use_true_random=False))
    def sequences(numbers: Random) -> None:
        run_sequence(numbers, shop, counts)

    passed = False
    try:
        sequences()
        passed = True
    finally:
        told = {"passed": passed, "seconds": time.monotonic() - began, "counts": counts}
        (counted / f"{shard}.new").write_text(json.dumps(told))
        (counted / f"{shard}.new").rename(counted / f"{shard}.json")


@pytest.mark.thorough
@pytest.mark.root
def test_check_mode_on_a_read_only_mount(tmp_path: Path, collections_path: Path) -> None:
    """Where nothing can be written check mode neither breaks nor tries: it has the plan of the real run, which is made
    where the same directory can be written. It says not_writable where there is something to write, and only there."""
    seed = int(os.environ.get("DECLARATIONS_SEED") or random.SystemRandom().getrandbits(32))
    print(f"DECLARATIONS_SEED={seed}")
    shop, counts = Workshop(tmp_path), Counter()
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        sys.executable,
        str(Path(__file__).with_name("in_read_only.py")),
        str(shop.host_top),
    ]
    environment = {**os.environ, "PYTHONPATH": str(collections_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as child:

        def check(module: str, **params: object) -> dict:
            assert child.stdin is not None
            assert child.stdout is not None
            print(json.dumps([module, params]), file=child.stdin, flush=True)
            result: dict = json.loads(child.stdout.readline())
            if result.get("error", {}).get("code") == "not_writable":
                counts["not writable"] += 1
            return result

        @hypothesis.seed(seed)
        @hypothesis.settings(SETTINGS, max_examples=max(25, SEQUENCES // 20))
        @given(st.randoms(use_true_random=False))
        def sequences(numbers: Random) -> None:
            run_sequence(numbers, shop, counts, check)

        sequences()
    assert child.returncode == 0
    assert counts["not writable"] >= counts["changed"] > 0
    assert counts["no-op"] > 0


def test_the_sequences_were_worth_running(request: pytest.FixtureRequest, counted: Path, capsys) -> None:
    """Waits for the shards that other workers run, prints what all of them did, and asks whether that is enough."""
    mine = {item.name for item in request.session.items}
    if not all(f"test_random_declarations[{shard}]" in mine for shard in range(SHARDS)):
        pytest.skip("not all of the sequences are run")
    shards = _gathered(counted)
    counts: Counter = Counter()
    for shard in shards:
        counts.update(shard["counts"])
    with capsys.disabled():
        # of a worker, only stderr is seen
        print(table("random declarations", counts, sum(shard["seconds"] for shard in shards)), file=sys.stderr)
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
