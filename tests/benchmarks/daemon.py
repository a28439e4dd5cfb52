# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hundred volumes through a libvirt daemon, in one task, beside loops of community.libvirt and virsh; a large pool.

Everything goes through the same daemon, which is the script's own. Both collections run in the same interpreter.
Run it with the environment of the tests: dev/run python tests/benchmarks/daemon.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import community_peer
import libvirt_peer
from harness import HEAD, POOL, Failed, Samples, Workspace, machine, main, parser, run, table, timed, workspace

LARGE, THEIRS, SHELL = "large", "theirs", "shell"
ONE_TARGET = 0.2
KINDS = {"qcow2": False, "overlays": True}  # on a backing image?
RUNS = ("first run", "second run")
_XML = """\
<volume>
  <name>{{ item }}</name>
  <capacity unit='B'>%d</capacity>
  <allocation unit='B'>0</allocation>
  <target><format type='qcow2'/></target>
  %s
</volume>
"""
_BACKING_XML = "<backingStore><path>%s</path><format type='qcow2'/></backingStore>"


class Side(NamedTuple):
    """Who makes the volumes, in a pool of its own."""

    name: str
    pool: str
    runs: tuple[Callable[[], Any], Callable[[], Any]]


def _interpreter() -> str:
    """One that has libvirt's binding and lxml, so that no module runs again in another. Raises Failed."""
    for path in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run([path, "-c", "import libvirt, lxml.etree"], capture_output=True, check=False)
        if done.returncode == 0:
            return path
    raise Failed("no Python here has libvirt and lxml (Debian: apt-get install python3-libvirt python3-lxml)")


class Benchmark:
    def __init__(self, place: Workspace, daemon: libvirt_peer.Daemon, arguments: argparse.Namespace) -> None:
        self.place, self.daemon, self.arguments = place, daemon, arguments
        self.count = arguments.count
        self.names = [f"vm{index}" for index in range(self.count)]
        self.samples = Samples()
        self.directories = {name: place.path / name for name in (THEIRS, SHELL, LARGE)}
        self.directories[POOL] = place.pool
        place.uri = daemon.uri
        place.define()
        for name in (THEIRS, SHELL):
            self.directories[name].mkdir()
            (self.directories[name] / "base.qcow2").write_bytes((place.pool / "base.qcow2").read_bytes())
            daemon.start_pool(self.directories[name], name)
        self.empty = place.payload(place.empty)

    def sides(self, kind: str, collections: Path | None) -> list[Side]:
        """Those that make one kind of volumes."""
        backed, sides, arguments = KINDS[kind], [], self.arguments
        backing = {"backing": {"volume": "base.qcow2", "format": "qcow2"}} if backed else {}
        entries = [{"name": name} for name in self.names]
        play = self.place.storage(
            kind, "storage_volume", pool=POOL, format="qcow2", capacity="20G", volumes=entries, **backing
        )  # fmt: skip
        payload = self.place.payload(play)  # which runs it
        self.clear(POOL)
        alone = partial(self.place.run_payload, payload)
        if not arguments.no_plays:
            sides.append(Side("storage_volume, play", POOL, (self._played(play, 1), self._played(play, 0))))
        sides.append(Side("storage_volume, module alone", POOL, (alone, alone)))
        if collections is not None:
            loop, seen = self._looped(kind, backed), {"ANSIBLE_COLLECTIONS_PATH": str(collections)}
            runs = (self._played(loop, 1, seen), self._played(loop, 0, seen))
            sides.append(Side("virt_volume in a loop, play", THEIRS, runs))
        if not arguments.no_peer:
            runs = (
                lambda: self.daemon.create_in_loop(self.count, SHELL, backed),
                lambda: self.daemon.look_in_loop(self.count, SHELL),
            )
            sides.append(Side("virsh in a loop", SHELL, runs))
        return sides

    def _looped(self, kind: str, backed: bool) -> Path:
        below = _BACKING_XML % (self.directories[THEIRS] / "base.qcow2") if backed else ""
        options = {"uri": self.daemon.uri, "pool": THEIRS, "state": "present", "xml": _XML % (20 * 2**30, below)}
        return self.place.play(f"{kind}-theirs", "community.libvirt.virt_volume", options, loop=self.names)

    def _played(self, play: Path, changed: int, env: dict[str, str] | None = None) -> Callable[[], None]:
        def played() -> None:
            told = self.place.run_play(play, **(env or {}))
            if f"changed={changed} " not in told:
                raise Failed(f"{play.stem}: not changed={changed}:\n{told[-2000:]}")

        return played

    def volumes(self, kind: str, sides: list[Side]) -> None:
        """One round. The second run is that of the same volumes again."""
        self.empties(f"{self.count} {kind}")
        for side in sides:
            self.clear(side.pool)
            for when, function in zip(RUNS, side.runs):
                self.samples.add(f"{self.count} {kind}, {side.name}, {when}", timed(function))
                self._check(side.pool, KINDS[kind])

    def clear(self, pool: str) -> None:
        """Removes the volumes, and tells the daemon."""
        for volume in self.directories[pool].glob("vm*"):
            volume.unlink()
        self.daemon.call("pool-refresh", pool)

    def _check(self, pool: str, backed: bool) -> None:
        """An independent look: the daemon's own list, and qemu-img's word on some of the volumes."""
        listed = {line.split()[0] for line in self.daemon.call("vol-list", pool).splitlines() if line.strip()}
        if listed != {*self.names, "base.qcow2"}:
            raise Failed(f"pool {pool}: the daemon lists {len(listed)} volumes")
        for name in self.names[:: max(1, self.count // 5)]:
            told = json.loads(run(["qemu-img", "info", "--output=json", str(self.directories[pool] / name)]))
            if (told["virtual-size"], told["format"], "backing-filename" in told) != (20 * 2**30, "qcow2", backed):
                raise Failed(f"{name} of pool {pool} is not what was declared: {told}")

    def empties(self, group: str) -> None:
        """Before each group anew: the load of a machine changes."""
        if not self.arguments.no_plays:
            self.samples.add(f"{group}: empty, play", timed(self.place.run_play, self.place.empty))
        self.samples.add(f"{group}: empty, module alone", timed(self.place.run_payload, self.empty))

    def one(self, payload: Path) -> None:
        self.clear(POOL)
        self.empties("one volume")
        for name in ("created", "again"):
            self.samples.add(f"one volume {name}, module alone", timed(self.place.run_payload, payload))

    def large(self, plays: dict[str, tuple[Path, Path]]) -> None:
        self.empties(self.images)
        for name, (play, payload) in plays.items():
            if not self.arguments.no_plays:
                self.samples.add(f"{name}, play", timed(self.place.run_play, play))
            self.samples.add(f"{name}, module alone", timed(self.place.run_payload, payload))
        if not self.arguments.no_peer:
            self.samples.add(self.listing, timed(self.daemon.listing, LARGE))

    @property
    def images(self) -> str:
        return f"{self.arguments.others:,} images"

    @property
    def listing(self) -> str:
        return f"{self.images}, pool-refresh and vol-list --details"

    def records(self) -> dict[str, tuple[Path, Path]]:
        """The plays on the large pool, which is filled, and what they send to the host."""
        self.directories[LARGE].mkdir()
        self.place.fill(self.arguments.others, self.directories[LARGE])
        self.daemon.start_pool(self.directories[LARGE], LARGE)
        what = f"{self.images}, storage_volume_info"
        plays = {
            what: self.place.storage("all", "storage_volume_info", pool=LARGE),
            f"{what} of names and capacities": self.place.storage(
                "some", "storage_volume_info", pool=LARGE, fields=["capacity"]
            ),
        }
        return {name: (play, self.place.payload(play)) for name, play in plays.items()}

    def ratios(self, theirs: str, ours: str) -> str:
        found = [a / b for a, b in zip(self.samples.seconds[theirs], self.samples.seconds[ours])]
        times = f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})"
        return f"* {theirs}: {times} times as long as {ours.split(', ', 1)[1]}"


def _report(bench: Benchmark, sides: dict[str, list[Side]], records: dict[str, Any]) -> None:
    how = ["module alone"] if bench.arguments.no_plays else ["play", "module alone"]
    samples, rows, ratios = bench.samples, [], []

    def empty(group: str, name: str) -> str:
        return next((f"{group}: empty, {each}" for each in how if each in name), "")

    rows.append(samples.row("one volume: empty, module alone"))
    for name in ("created", "again"):
        rows.append(samples.row(f"one volume {name}, module alone", "one volume: empty, module alone", ONE_TARGET))
    for kind, group in sides.items():
        title = f"{bench.count} {kind}"
        rows += [samples.row(f"{title}: empty, {each}") for each in how]
        for when in RUNS:
            for side in group:
                name = f"{title}, {side.name}, {when}"
                rows.append(samples.row(name, empty(title, name)))
                if side.pool == POOL:
                    continue
                for ours in group:
                    if ours.pool == POOL and (side.pool == SHELL or ours.name.endswith("play")):
                        ratios.append(bench.ratios(name, f"{title}, {ours.name}, {when}"))
    rows += [samples.row(f"{bench.images}: empty, {each}") for each in how]
    for name in records:
        rows += [samples.row(f"{name}, {each}", f"{bench.images}: empty, {each}") for each in how]
    if not bench.arguments.no_peer:
        rows.append(samples.row(bench.listing))
        ratios.append(bench.ratios(bench.listing, f"{next(iter(records))}, module alone"))
    print(table(HEAD, rows))
    if ratios:
        print("\nThe median of the rounds, and their range:\n")
        print("\n".join(ratios))


def _community(arguments: argparse.Namespace) -> tuple[Path | None, str]:
    """The collections to take virt_volume from, if any, and a line about it."""
    if arguments.no_peer or arguments.no_plays:
        return None, "community.libvirt was left out."
    try:
        collections = community_peer.collection()
    except community_peer.Unavailable as why:
        return None, f"community.libvirt was left out: {why}."
    return collections, f"Beside {community_peer.version(collections)}."


def measure(arguments: argparse.Namespace) -> None:
    why = libvirt_peer.missing()
    if why:
        raise Failed(f"there can be no daemon here: {why}")
    interpreter = _interpreter()
    collections, line = _community(arguments)
    with workspace(arguments) as place, ExitStack() as stack:
        place.interpreter = interpreter
        bench = Benchmark(place, stack.enter_context(libvirt_peer.daemon(place.path / "libvirt")), arguments)
        sides = {kind: bench.sides(kind, collections) for kind in KINDS}
        one = place.payload(
            place.storage("one", "storage_volume", pool=POOL, name="vm", format="qcow2", capacity="10GiB")
        )
        records = bench.records()
        for _round in range(arguments.rounds):
            for kind, group in sides.items():
                bench.volumes(kind, group)
            bench.one(one)
            bench.large(records)
        told = run([interpreter, "-c", "import platform; print(platform.python_version())"]).strip()
        print(f"{machine(place.pool)}; modules in Python {told}. {line}", end="\n\n")
        _report(bench, sides, records)


def entry() -> None:
    options = parser(str(__doc__).partition("\n")[0], 3)
    options.add_argument("--count", type=int, default=100, help="volumes (%(default)s)")
    options.add_argument("--others", type=int, default=10_000, help="images in the large pool (%(default)s)")
    measure(options.parse_args())


if __name__ == "__main__":
    main(entry)
