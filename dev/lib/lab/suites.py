# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tests that run inside a guest: the collection and they are pushed there, and Debian's pytest runs them. And groups
of these, and of those that use guests from outside.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import places
from places import ROOT, Stop, say

from lab import compiled, guests, image, saved, skips
from lab.guests import Guest
from lab.holding import environment

LAB_TESTS = ROOT / "tests" / "lab"
GROUPS = ROOT / "tests" / "lab" / "groups.txt"
COLLECTION = "/root/ansible_collections/virt/storage"
_REPORT = "/root/report.xml"
_THOROUGH = "[thorough]"  # the groups that follow are
_GROUP_SECONDS = 30 * 60
_PASSED_ON = (
    "CI",
    "HYPOTHESIS_PROFILE",
    "DECLARATIONS_SEED",
    "DECLARATIONS_SEQUENCES",
    "DECLARATIONS_SHOW",
    "DECLARATIONS_ONLY",
    "CRASH_SAMPLE",
)
_NO_TESTS = 5  # pytest's exit status
_FAILED = {"failure", "error"}
_TRIES = 2 if os.environ.get("CI") else 1


@contextlib.contextmanager
def clean_guest(name: str = "guest") -> Iterator[Guest]:
    """A guest in which nothing was done yet; it ends with the block."""
    with guests.private_network() as network:
        yield resumed(network, name)


def resumed(network: Path, name: str) -> Guest:
    """A clean guest in this network. When it does not come up, nothing of it is left."""
    made = image.get()
    state = saved.get(made)
    guest = guests.place(network, name, made)
    try:
        guest.resume(state)
    except BaseException:
        guest.stop()
        raise
    return guest


def push_collection(guest: Guest) -> None:
    """The clone as it is, with what is not committed yet."""
    listed = "git ls-files -z --cached --others --exclude-standard"
    pack = "tar --null --files-from=- --ignore-failed-read --warning=no-failed-read --create"
    with compiled.workspace() as top:
        tree = top / COLLECTION.lstrip("/")
        tree.mkdir(parents=True)
        unpack = f"tar --extract --directory {shlex.quote(str(tree))}"
        subprocess.run(["bash", "-c", f"set -o pipefail; {listed} | {pack} | {unpack}"], cwd=ROOT, check=True)
        compiled.compile_tree(tree, top / compiled.DIRECTORY.lstrip("/"))
        guest.push(top)


def test_command(paths: list[str], arguments: list[str]) -> str:
    """A shell script for the guest that runs the tests and leaves a report."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    settings = {"PYTHONPATH": f"/root:{saved.ANSIBLE}", "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1", **passed_on}
    settings["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # importing those that are installed takes seconds
    exported = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    own = ["-c", "tests/lab/guest/pytest.ini", "--rootdir=.", "--confcutdir=tests/lab/guest", f"--junitxml={_REPORT}"]
    run = shlex.join(["python3", "-m", "pytest", *own, *arguments, *paths])
    return f"cd {COLLECTION} && exec env {exported} {run}"


def relative(path: str) -> str:
    """A test's path as the guest knows it; what follows "::" stays."""
    file, separator, rest = path.partition("::")
    absolute = Path(file).absolute()
    if not absolute.exists() or ROOT not in absolute.parents:
        raise Stop(f"{file} is no test of this clone.")
    return f"{absolute.relative_to(ROOT)}{separator}{rest}"


def run_tests(guest: Guest, paths: list[str], arguments: list[str], report: Path, live: bool) -> tuple[int, str]:
    """pytest's exit status and, unless it is shown as it comes, its output."""
    push_collection(guest)
    report.unlink(missing_ok=True)
    command = guest.ssh(test_command(paths, arguments))
    done = subprocess.run(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=None if live else subprocess.PIPE,
        stderr=None if live else subprocess.STDOUT,
        check=False,
    )
    with contextlib.suppress(Stop):
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_bytes(guest.read(_REPORT))
    return done.returncode, "" if live else done.stdout.decode(errors="replace")


# -- groups -------------------------------------------------------------------------------------------------------


@dataclass
class Group:
    """Tests that share a guest, or that start guests themselves; ``thorough`` ones are left out of a quick run."""

    name: str
    paths: list[str]
    thorough: bool = False
    status: int = -1
    output: str = ""
    seconds: float = 0.0
    tries: int = 0

    @property
    def passed(self) -> bool:
        return self.status in (0, _NO_TESTS)

    @property
    def outside(self) -> bool:
        return all(path.startswith("tests/lab/host/") for path in self.paths)

    @property
    def report(self) -> Path:
        return places.LOCAL / "reports" / "lab" / f"{self.name}.xml"


def groups() -> list[Group]:
    found, thorough = [], False
    for line in GROUPS.read_text(encoding="utf-8").splitlines():
        if line == _THOROUGH:
            thorough = True
        elif line.strip() and not line.startswith("#"):
            name, *paths = line.split()
            found.append(Group(name, [f"tests/lab/{path}" for path in paths], thorough))
    _check_complete(found)
    return found


def _check_complete(found: list[Group]) -> None:
    """A test that is in no group would never run, and nobody would notice."""
    listed = Counter(
        file for group in found for path in group.paths for file in _test_files(ROOT / path) or _missing(path)
    )
    there = _test_files(LAB_TESTS)
    wrong = [f"{file.relative_to(ROOT)} is in {listed[file]} groups" for file in there if listed[file] != 1]
    if wrong:
        raise Stop(f"{GROUPS.relative_to(ROOT)}: " + "; ".join(wrong))


def _test_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("test_*.py"))


def _missing(path: str) -> list[Path]:
    raise Stop(f"{GROUPS.relative_to(ROOT)}: there are no tests in {path}.")


def passes_at(run: Callable[[], bool]) -> int:
    """At which try it passes, 0 where it does not. In CI what fails is tried once more, in new guests, and said to be
    unsteady where it passes then: an emulated machine that shares its processors can stall for long.
    """
    return next((number for number in range(1, _TRIES + 1) if run()), 0)


def say_unsteady(names: list[str]) -> None:
    if names:
        say(f"Unsteady, since they passed at their second try only: {', '.join(names)}")


class Runner:
    """Runs groups, some at a time, each in a clean guest."""

    def __init__(self, waiting: list[Group], arguments: list[str]) -> None:
        self._waiting, self._arguments = list(waiting), arguments
        self._taking, self._speaking = threading.Lock(), threading.Lock()

    def run(self, at_once: int) -> None:
        workers = [threading.Thread(target=self._work, daemon=True) for _each in range(at_once)]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.5)

    def _work(self) -> None:
        while True:
            with self._taking:
                if not self._waiting:
                    return
                group = self._waiting.pop(0)
            passes_at(partial(self._try, group))

    def _try(self, group: Group) -> bool:
        started = time.monotonic()
        group.tries += 1
        try:
            group.status, group.output = self._outside(group) if group.outside else self._in_guest(group)
        except (Stop, OSError) as why:
            group.output = f"{why}\n"
        group.seconds = time.monotonic() - started
        with self._speaking:
            outcome = "passed" if group.passed else "FAILED"
            again = ", at its second try" if group.tries > 1 else ""
            say(f"----- group {group.name}: {outcome} in {group.seconds:.1f} s{again}")
            say(group.output.rstrip("\n"))
        return group.passed

    def _outside(self, group: Group) -> tuple[int, str]:
        group.report.unlink(missing_ok=True)
        base = places.LOCAL / "tmp" / f"lab-{group.name}"
        own = [f"--junitxml={group.report}", f"--basetemp={base}"]
        command = [str(ROOT / "dev" / "run"), "python", "-m", "pytest", *group.paths, *own, *self._arguments]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_GROUP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:  # its guests end with it
            said = (late.stdout or b"").decode(errors="replace")
            return -signal.SIGKILL, f"{said}\nIt was ended after {_GROUP_SECONDS} seconds.\n"
        return done.returncode, done.stdout.decode(errors="replace")

    def _in_guest(self, group: Group) -> tuple[int, str]:
        with clean_guest(group.name) as guest:
            alarm = threading.Timer(_GROUP_SECONDS, guest.cut_power)
            alarm.start()
            try:
                status, output = run_tests(guest, group.paths, self._arguments, group.report, live=False)
            finally:
                alarm.cancel()
            ended = "" if guest.alive() else f"\nIts guest was ended after {_GROUP_SECONDS} seconds, or died.\n"
            return status, output + ended


def run_groups(chosen: list[Group], arguments: list[str], at_once: int, report: Path) -> bool:
    """One report of all groups. A group whose tests did not get to their end counts as a failure in it."""
    started = time.monotonic()
    saved.get(image.get())
    Runner(chosen, arguments).run(at_once)
    counts = _merge(chosen, report)
    left = _not_allowed(report) if os.environ.get("CI") else []
    for line in left:
        say(f"FAILED (skipped, and not on the list tests/allowed_skips.txt) {line}")
    say_unsteady([group.name for group in chosen if group.tries > 1 and group.passed])
    text = ", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "no tests"
    say(f"{'=' * 20} {text} in {time.monotonic() - started:.2f}s {'=' * 20}")
    return not left and all(group.passed for group in chosen) and bool(counts["passed"])


def _suites_of(group: Group) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.parse(group.report).iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return []


def _merge(chosen: list[Group], report: Path) -> Counter[str]:
    merged = ElementTree.Element("testsuites")
    for group in chosen:
        told = _suites_of(group)
        merged.extend(told)
        ended = group.passed or any(suite.find(f"testcase/{kind}") is not None for suite in told for kind in _FAILED)
        if not told or not ended:
            suite = ElementTree.SubElement(merged, "testsuite", name=group.name)
            case = ElementTree.SubElement(suite, "testcase", classname=group.name, name="the group gets to its end")
            ElementTree.SubElement(case, "error", message=group.output[-1000:])
    counts: Counter[str] = Counter()
    for case in merged.iter("testcase"):
        kinds = {child.tag for child in case}
        counts["failed" if kinds & _FAILED else "skipped" if "skipped" in kinds else "passed"] += 1
    report.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(merged).write(report, encoding="unicode")
    return counts


def _not_allowed(report: Path) -> list[str]:
    """Skipped tests that tests/allowed_skips.txt does not list."""
    patterns = skips.patterns(ROOT / "tests" / "allowed_skips.txt")
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None and skipped.get("type") != "pytest.xfail":
            name, reason = f"{case.get('classname')}.{case.get('name')}", skipped.get("message", "")
            if not skips.allowed(patterns, name, reason):
                found.append(f"{name}: {reason}")
    return found
