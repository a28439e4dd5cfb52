# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task with one volume beside an empty module, in a pool with nothing else in it and in one of ten thousand images.

Run it with the environment of the tests: dev/run python tests/benchmarks/single.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness import HEAD, POOL, Samples, Workspace, machine, main, parser, run, table, timed, workspace

TARGET = 0.2
NAME = "one.qcow2"
FURTHER = 5


def _prepare(place: Workspace, capacity: str | None) -> None:
    """The volume as it is before the task: absent, or of that capacity."""
    path = place.pool / NAME
    path.unlink(missing_ok=True)
    if capacity is not None:
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=1.1", str(path), capacity])
        path.chmod(0o600)


def _actions(place: Workspace) -> list[tuple[str, str | None, Path]]:
    """What is timed: its name, the volume's capacity before, and the play."""

    def task(name: str, **options: Any) -> Path:
        return place.storage(name, "storage_volume", pool=POOL, name=NAME, **options)

    return [
        ("create", None, task("create", format="qcow2", capacity="10GiB")),
        ("no-op", "10G", task("again", format="qcow2", capacity="10GiB")),
        ("grow", "10G", task("grow", format="qcow2", capacity="11GiB")),
        ("shrink", "10G", task("shrink", format="qcow2", capacity="9GiB", allow=["shrink"])),
        ("delete", "10G", task("delete", state="absent")),
    ]  # fmt: skip


def _further(place: Workspace, samples: Samples, rounds: int, tasks: dict[str, Path]) -> None:
    """What each task after the first adds to a play. Ansible packs a module once in a play, for its first task."""
    for _round in range(rounds):
        for name, play in tasks.items():
            once = timed(place.run_play, play)
            samples.add(name, (timed(place.run_play, place.repeated(play, 1 + FURTHER)) - once) / FURTHER)


def measure(arguments: argparse.Namespace) -> None:
    samples, rows = Samples(), []
    with workspace(arguments) as place:
        place.define()
        actions = []
        for name, before, play in _actions(place):
            _prepare(place, before)
            actions.append((name, before, play, place.payload(play)))
        empty = place.payload(place.empty)
        for others in (0, arguments.others):
            where = f"pool of {others:,}" if others else "empty pool"
            place.fill(others)
            for _round in range(arguments.rounds):
                for how in ("module alone",) if arguments.no_plays else ("play", "module alone"):
                    runner, nothing = (place.run_play, place.empty) if how == "play" else (place.run_payload, empty)
                    samples.add(f"empty module, {where}, {how}", timed(runner, nothing))
                    for name, before, play, payload in actions:
                        _prepare(place, before)
                        seconds = timed(runner, play if how == "play" else payload)
                        samples.add(f"{name}, {where}, {how}", seconds)
            for how in ("module alone",) if arguments.no_plays else ("play", "module alone"):
                base = f"empty module, {where}, {how}"
                rows.append(samples.row(base))
                rows += [samples.row(f"{name}, {where}, {how}", base, TARGET) for name, *_rest in actions]
            if not others and not arguments.no_plays:
                _prepare(place, "10G")
                base, again = "empty module, each further task", "no-op, each further task"
                _further(place, samples, arguments.rounds, {base: place.empty, again: actions[1][2]})
                rows += [samples.row(base), samples.row(again, base, TARGET)]
        print(machine(place.pool), end="\n\n")
    print(table(HEAD, rows))


def entry() -> None:
    options = parser(str(__doc__).partition("\n")[0], 7)
    options.add_argument("--others", type=int, default=10_000, help="images in the large pool (%(default)s)")
    measure(options.parse_args())


if __name__ == "__main__":
    main(entry)
