# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A thousand qcow2 overlays declared in one task, beside an empty task and beside a shell loop of virsh.

Run it with the environment of the tests: dev/run python tests/benchmarks/bulk.py
"""

from __future__ import annotations

import argparse
import json
import statistics
from contextlib import ExitStack

import libvirt_peer
from harness import HEAD, POOL, Failed, Samples, Workspace, machine, main, parser, run, table, timed, workspace

FIRST_TARGET, AGAIN_TARGET = 3.0, 1.0


def _entries(count: int) -> list[dict[str, str]]:
    return [{"name": f"vm{index}"} for index in range(count)]


def _check(place: Workspace, count: int) -> None:
    """An independent look: qemu-img's word on some of the overlays, and their number."""
    there = sorted(place.pool.glob("vm*"))
    if len(there) != count:
        raise Failed(f"{len(there)} of {count} overlays are there")
    for path in there[:: max(1, count // 5)]:
        told = json.loads(run(["qemu-img", "info", "--output=json", str(path)]))
        if told["virtual-size"] != 20 * 2**30 or told["backing-filename"] != str(place.pool / "base.qcow2"):
            raise Failed(f"{path.name} is not what was declared: {told}")


def measure(arguments: argparse.Namespace) -> None:
    count, sample, samples = arguments.count, arguments.sample, Samples()
    first, again = f"{count:,} overlays, first run", f"{count:,} overlays, second run"
    loop = f"virsh vol-create-as, loop of {sample}"
    with workspace(arguments) as place, ExitStack() as stack:
        place.define()
        backing = {"volume": "base.qcow2", "format": "qcow2"}
        play = place.storage(
            "bulk", "storage_volume", pool=POOL, format="qcow2", capacity="20G", backing=backing,
            volumes=_entries(count),
        )  # fmt: skip
        payload, empty = place.payload(play), place.payload(place.empty)
        why = "it was left out" if arguments.no_peer else libvirt_peer.missing()
        peer = None if why else stack.enter_context(libvirt_peer.daemon(place.path / "libvirt"))
        if peer is not None:
            theirs = place.path / "theirs"
            theirs.mkdir()
            (theirs / "base.qcow2").write_bytes((place.pool / "base.qcow2").read_bytes())
            peer.start_pool(theirs)
        for _round in range(arguments.rounds):
            for how, runner, task, nothing in (
                ("play", place.run_play, play, place.empty),
                ("module alone", place.run_payload, payload, empty),
            ):
                if how == "play" and arguments.no_plays:
                    continue
                samples.add(f"empty, {how}", timed(runner, nothing))
                place.remove("vm*")
                samples.add(f"{first}, {how}", timed(runner, task))
                _check(place, count)
                samples.add(f"{again}, {how}", timed(runner, task))
            if peer is not None:
                samples.add(loop, timed(peer.create_in_loop, sample))
                for volume in theirs.glob("vm*"):
                    volume.unlink()
                peer.call("pool-refresh", POOL)
        print(machine(place.pool), end="\n\n")
    rows = []
    for how in ("module alone",) if arguments.no_plays else ("play", "module alone"):
        empty_row = f"empty, {how}"
        targets = (FIRST_TARGET, AGAIN_TARGET) if how == "play" else (None, None)
        rows.append(samples.row(empty_row))
        rows.append(samples.row(f"{first}, {how}", empty_row, targets[0]))
        rows.append(samples.row(f"{again}, {how}", empty_row, targets[1]))
    if peer is not None:
        rows.append(samples.row(loop))
    print(table(HEAD, rows))
    if peer is None:
        print(f"\nNo peer: {why}.")
        return
    how = "module alone" if arguments.no_plays else "play"
    ratios = [
        (theirs_s / sample) / (ours_s / count)
        for theirs_s, ours_s in zip(samples.seconds[loop], samples.seconds[f"{first}, {how}"])
    ]
    print(
        f"\nPer volume, virsh takes {statistics.median(ratios):.0f} times as long "
        f"({min(ratios):.0f} to {max(ratios):.0f}) as one task, all of the {how} counted."
    )


def entry() -> None:
    options = parser(str(__doc__).partition("\n")[0], 5)
    options.add_argument("--count", type=int, default=1000, help="volumes in the task (%(default)s)")
    options.add_argument("--sample", type=int, default=200, help="volumes that virsh makes (%(default)s)")
    measure(options.parse_args())


if __name__ == "__main__":
    main(entry)
