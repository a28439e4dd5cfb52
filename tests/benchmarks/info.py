# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of ten thousand images, beside libvirt's own listing of the same directory.

Run it with the environment of the tests: dev/run python tests/benchmarks/info.py
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack

import libvirt_peer
from harness import HEAD, POOL, Samples, machine, main, parser, table, timed, workspace


def measure(arguments: argparse.Namespace) -> None:
    samples, count = Samples(), arguments.count
    listing = f"pool-refresh and vol-list --details of {count:,}"
    with workspace(arguments) as place, ExitStack() as stack:
        place.define()
        place.fill(count)
        plays = {
            "all fields": place.storage("all", "storage_volume_info", pool=POOL),
            "names and capacities": place.storage("some", "storage_volume_info", pool=POOL, fields=["capacity"]),
            "one by name": place.storage("one", "storage_volume_info", pool=POOL, name="many00000"),
        }
        payloads = {name: place.payload(play) for name, play in plays.items()}
        empty = place.payload(place.empty)
        why = "it was left out" if arguments.no_peer else libvirt_peer.missing()
        peer = None if why else stack.enter_context(libvirt_peer.daemon(place.path / "libvirt"))
        if peer is not None:
            peer.start_pool(place.pool)
        for _round in range(arguments.rounds):
            if not arguments.no_plays:
                samples.add("empty, play", timed(place.run_play, place.empty))
                for name, play in plays.items():
                    samples.add(f"{name}, play", timed(place.run_play, play))
            samples.add("empty, module alone", timed(place.run_payload, empty))
            for name, payload in payloads.items():
                samples.add(f"{name}, module alone", timed(place.run_payload, payload))
            if peer is not None:
                start = timed(peer.call, "pool-refresh", POOL)
                samples.add(listing, start + timed(peer.call, "vol-list", POOL, "--details"))
        print(machine(place.pool), end="\n\n")
    rows = []
    for how in ("module alone",) if arguments.no_plays else ("play", "module alone"):
        rows.append(samples.row(f"empty, {how}"))
        rows += [samples.row(f"{name}, {how}", f"empty, {how}") for name in plays]
    if peer is not None:
        rows.append(samples.row(listing))
    print(table(HEAD, rows))
    if peer is None:
        print(f"\nNo peer: {why}.")
        return
    ours = samples.seconds["all fields, module alone"]
    ratios = [theirs / mine for theirs, mine in zip(samples.seconds[listing], ours)]
    print(f"\nlibvirt takes {statistics.median(ratios):.1f} times as long ({min(ratios):.1f} to {max(ratios):.1f})"
          " as the module with all fields.")  # fmt: skip


def entry() -> None:
    options = parser(str(__doc__).partition("\n")[0], 5)
    options.add_argument("--count", type=int, default=10_000, help="images (%(default)s)")
    measure(options.parse_args())


if __name__ == "__main__":
    main(entry)
