# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks share: a place of their own, plays and modules that are timed from outside, and tables.

A machine that does other things too gives other figures each time. So what is compared is timed in turn, round by
round, and quoted as a minimum and a median.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POOL = "images"
_EMPTY_MODULE = """\
from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(argument_spec={"name": {"type": "str"}}, supports_check_mode=True)
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
"""


class Failed(Exception):
    """What was to be timed did not work."""


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--rounds", type=int, default=rounds, help="how often each thing is timed (%(default)s)")
    made.add_argument("--directory", help="where to work: a filesystem with some 500 MB left (the temporary directory)")
    made.add_argument("--no-plays", action="store_true", help="time the modules alone, without ansible-playbook")
    made.add_argument("--no-peer", action="store_true", help="leave the peers out")
    return made


def run(argv: list[str], env: dict[str, str] | None = None) -> str:
    """Standard output. Raises Failed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


class Workspace:
    """A directory with an embedded engine's root, a pool's directory, and plays. It is removed in the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pool = path / "pool"
        self.uri = f"native:///?root={path / 'root'}"
        self.interpreter = sys.executable
        library = path / "library"
        library.mkdir()
        (library / "empty.py").write_text(_EMPTY_MODULE, encoding="utf-8")
        self.empty = self.play("empty", "empty", {"name": "x"})

    def play(self, name: str, module: str, arguments: dict[str, Any], **keywords: Any) -> Path:
        """A play of one task, which may have keywords such as a loop; YAML reads JSON."""
        path = self.path / f"{name}.yml"
        play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"name": name, module: arguments, **keywords}]}
        path.write_text(json.dumps([play]), encoding="utf-8")
        return path

    def repeated(self, play: Path, times: int) -> Path:
        """A play of the same task several times."""
        (whole,) = json.loads(play.read_text(encoding="utf-8"))
        path = play.with_suffix(f".{times}.yml")
        path.write_text(json.dumps([{**whole, "tasks": whole["tasks"] * times}]), encoding="utf-8")
        return path

    def storage(self, play: str, module: str, /, **options: Any) -> Path:
        return self.play(play, f"virt.storage.{module}", {"uri": self.uri, **options})

    def run_play(self, play: Path, **env: str) -> str:
        """What ansible-playbook prints. Raises Failed."""
        interpreter = f"ansible_python_interpreter={self.interpreter}"
        settings = {"ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_REMOTE_TMP": str(self.path / "remote")}
        return run(
            ["ansible-playbook", "-i", "localhost,", "-c", "local", "-e", interpreter, str(play)],
            {**os.environ, **settings, **env},
        )

    def payload(self, play: Path) -> Path:
        """Runs a play and keeps what Ansible sends to the host for its task: a Python program."""
        shutil.rmtree(self.path / "remote", ignore_errors=True)
        self.run_play(play, ANSIBLE_KEEP_REMOTE_FILES="1")
        (made,) = (self.path / "remote").glob("*/AnsiballZ_*.py")
        kept = self.path / f"{play.stem}.payload.py"
        made.rename(kept)
        return kept

    def run_payload(self, payload: Path) -> None:
        result = json.loads(run([self.interpreter, str(payload)]))
        if result.get("failed") or result.get("warnings"):
            raise Failed(f"{payload.stem}: {result.get('msg')} {result.get('warnings')}")

    def define(self) -> None:
        """The pool, active, and a base image in it."""
        play = self.storage("pool", "storage_pool", name=POOL, type="dir", path=str(self.pool))
        base = self.storage("base", "storage_volume", pool=POOL, name="base.qcow2", format="qcow2", capacity="10GiB")
        self.run_play(play)
        self.run_play(base)

    def remove(self, pattern: str) -> None:
        for path in self.pool.glob(pattern):
            path.unlink()

    def fill(self, count: int, directory: Path | None = None) -> None:
        """Many images in the pool or in another directory, of the bytes of one that qemu-img made."""
        template = self.path / "template.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(template), "10G"])
        data = template.read_bytes()
        blocks = [(at, data[at : at + 4096]) for at in range(0, len(data), 4096) if data[at : at + 4096].strip(b"\0")]
        for index in range(count):
            with ((directory or self.pool) / f"many{index:05}").open("wb") as file:
                file.truncate(len(data))
                for at, block in blocks:
                    file.seek(at)
                    file.write(block)
        os.sync()


@contextmanager
def workspace(arguments: argparse.Namespace) -> Iterator[Workspace]:
    path = Path(tempfile.mkdtemp(prefix="benchmark-", dir=arguments.directory))
    try:
        yield Workspace(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Samples:
    """Seconds by name, one per round."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def over(self, name: str, base: str) -> tuple[float, float]:
        """What ``name`` takes more than ``base``: of the quickest rounds, and the median of all rounds."""
        pairs = zip(self.seconds[name], self.seconds[base])
        return (
            min(self.seconds[name]) - min(self.seconds[base]),
            statistics.median(mine - other for mine, other in pairs),
        )

    def row(self, name: str, base: str = "", target: float | None = None) -> list[str]:
        """name, minimum, median, and the same over ``base`` with the target that this is held against."""
        mine = self.seconds[name]
        row = [name, f"{min(mine):.2f}", f"{statistics.median(mine):.2f}"]
        if not base:
            return [*row, "", "", ""]
        least, middle = self.over(name, base)
        verdict = "" if target is None else f"{target:g}: {'met' if middle <= target else 'missed'}"
        return [*row, f"{least:.2f}", f"{middle:.2f}", verdict]


HEAD = ["seconds", "min", "median", "over empty: min", "median", "target (median)"]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |" for line in lines)


def compared(plans: dict[str, Callable[[], Any]], rounds: int, undo: Callable[[], Any] = lambda: None) -> None:
    """Times each plan in turn, with ``undo`` after each. Prints seconds, and how many times as long as the first one
    the others take: the median of the rounds, and their range.
    """
    samples = Samples()
    for _round in range(rounds):
        for name, plan in plans.items():
            samples.add(name, timed(plan))
            undo()
    first = next(iter(plans))
    rows = []
    for name in plans:
        ratios = [other / ours for other, ours in zip(samples.seconds[name], samples.seconds[first])]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([*samples.row(name)[:3], "" if name == first else ratio])
    print(table(["seconds", "min", "median", "times the first"], rows), end="\n\n", flush=True)


def machine(path: Path) -> str:
    """The machine in a line, without its name."""
    kind = run(["stat", "-f", "-c", "%T", str(path)]).strip()
    ansible = run(["ansible", "--version"]).split("]")[0].split("[")[-1]
    return (
        f"{os.cpu_count()} processors, {kind}, Python {sys.version.split()[0]}, ansible-{ansible}, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def main(function: Callable[[], None]) -> None:
    try:
        function()
    except Failed as why:
        sys.exit(f"failed: {why}")
