# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the test suites and checks.

dev/test                        everything but the lab: what "make test" does
dev/test lint docs              some groups: lint, docs, sanity, unit, integration, lab
dev/test unit --python 3.11     the groups' steps for one Python only
dev/test unit -- -k name        what follows "--" goes to pytest
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import environments
import places
import pythons
from places import COLLECTIONS, LOCAL, LOGS, ROOT, Stop, say

ANSIBLE_LINT = "ansible-lint"
PROGRESS = ("----- group", "FAILED ")  # what the lab says of each of its groups, shown as it comes
LAB = "lab"  # its guests take both cores: it runs only when it is asked for
GROUPS = ("sanity", "integration", "unit", "lint", "docs", LAB)
STEP_TIMEOUT, LAB_TIMEOUT = 30 * 60, 80 * 60
# What is random is the same in each run, so that a red run is the fault of a change; the long mode draws anew.
REPEATABLE = {} if os.environ.get("HYPOTHESIS_PROFILE") == "long" else {"DECLARATIONS_SEED": "20261121"}
# Several Pythons: the newest runs all integration tests that it can, the oldest (of the distribution, as is libvirt's
# binding) those that need the binding, and those whose outcome could depend on the Python or on ansible-core.
OLDEST_RUNS = "libvirt_binding or each_python"
# Who waits for it goes without what takes long and is seldom the only one to find something.
QUICK_RUNS = "not thorough"
OLDEST_RUNS_QUICK = "libvirt_binding and not thorough"
# Of the unit tests, those that use ansible-core: what else the oldest would run, the Python of managed hosts runs.
NEED_ANSIBLE = "needs_ansible"
WORKERS = "4"  # on two processors: half of the time the integration tests wait for tools and for the kernel
SHORTER = {"DECLARATIONS_SEQUENCES": "100"}
# With CI set, so few failing tests of a step are run once more, alone: a machine that has much else to do can stall for
# longer than a test allows for. What passes then is named in the summary, and is to be looked into all the same.
FEW = 3


@dataclass
class Step:
    """One line of the summary: commands that run one after the other, all of them, whatever comes out."""

    group: str
    title: str
    python: pythons.Python
    commands: list[list[str]]
    directory: Path = ROOT
    pytest: bool = False
    passed: bool | None = None
    seconds: float = 0.0
    output: str = ""
    extra_env: dict[str, str] = field(default_factory=dict)
    unsteady: list[str] = field(default_factory=list)

    @property
    def slug(self) -> str:
        return "".join(char if char.isalnum() else "-" for char in self.title.lower())

    @property
    def report(self) -> Path:
        return LOCAL / "reports" / f"{self.slug}.xml"


def plan(choice: pythons.Choice, pytest_arguments: list[str], quick: bool) -> list[Step]:
    """All steps; those that take longest first, so that two at a time end at about the same time."""
    main = choice.main
    steps = []
    for python in reversed(choice.suites):
        arguments = ["-n", WORKERS if python is main else "2", "--dist", "loadgroup", "--max-worker-restart=0"]
        if python is not main:
            arguments += ["-m", OLDEST_RUNS_QUICK if quick else OLDEST_RUNS]
        elif quick:
            arguments += ["-m", QUICK_RUNS]
        step = _pytest("integration", python, arguments + pytest_arguments)
        fewer = {} if python is main else SHORTER
        step.extra_env.update({**REPEATABLE, **{name: n for name, n in fewer.items() if name not in os.environ}})
        steps.append(step)
    sanity = [str(ROOT / "dev" / "ansible_test"), *(["--quick"] if quick else [])]
    steps.insert(1, Step("sanity", "ansible-test sanity", main, [sanity]))
    for python in reversed(choice.wanted):
        oldest = ["-m", NEED_ANSIBLE] if python in choice.suites[:-1] and choice.target else []
        steps.append(_pytest("unit", python, oldest + pytest_arguments))
    build = str(LOCAL / "build")
    install = f'ansible-galaxy collection install --force --offline -p "{build}/tree" "{build}"/virt-storage-*.tar.gz'
    steps += [
        Step(
            "lint",
            "ruff (style and format)",
            main,
            [["ruff", "check", "."], ["ruff", "format", "--check", "--diff", "."]],
        ),
        Step(
            "lint",
            "mypy (types)",
            main,
            [["mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "ansible_collections.virt.storage.plugins"]],
            directory=COLLECTIONS,
        ),
        Step("lint", ANSIBLE_LINT, main, [["ansible-lint", "--offline", "--profile", "production", "--nocolor"]]),
        Step(
            "docs",
            "docs and changelog",
            main,
            [
                ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "all", "."],
                ["antsibull-changelog", "lint"],
            ],
        ),
        Step(
            "lint",
            "the collection can be built and installed",
            main,
            [
                ["ansible-galaxy", "collection", "build", "--force", "--output-path", build],
                ["sh", "-c", install],
            ],
        ),
    ]
    return steps


def plan_guest(main: pythons.Python) -> Step:
    """What the lab's other steps wait for."""
    title = "lab: the guest that all others are resumed from"
    return Step(LAB, title, main, [[str(ROOT / "dev" / "lab"), "build"]])


def plan_lab(main: pythons.Python, pytest_arguments: list[str]) -> list[Step]:
    command = str(ROOT / "dev" / "lab")
    tests = Step(LAB, "lab: tests in and with guests", main, [], pytest=True)
    tests.commands = [[command, "groups", f"--report={tests.report}", "--", *pytest_arguments]]
    tests.extra_env.update(REPEATABLE)
    return [tests, Step(LAB, "lab: molecule", main, [[command, "molecule"]])]


def _pytest_command(step: Step, tests: str, temporary: str, arguments: list[str]) -> list[str]:
    base = f"--basetemp={LOCAL / 'tmp' / temporary}"
    return ["python", "-m", "pytest", tests, f"--junitxml={step.report}", base, *arguments]


def _pytest(group: str, python: pythons.Python, arguments: list[str]) -> Step:
    step = Step(group, f"{group} tests, Python {python.short}", python, [], pytest=True)
    step.commands = [_pytest_command(step, f"tests/{group}", f"{group}-{python.name}", arguments)]
    return step


class Runner:
    def __init__(self, choice: pythons.Choice, steps: list[Step], at_once: int, live: bool) -> None:
        self.choice, self.waiting, self.at_once, self.live = choice, list(steps), at_once, live
        self.speaking = threading.Lock()
        self.taking = threading.Lock()
        self.children: set[subprocess.Popen] = set()
        self.number, self.ended = len(steps), 0

    def run(self) -> None:
        workers = [threading.Thread(target=self._work, daemon=True) for _worker in range(self.at_once)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                while worker.is_alive():
                    worker.join(0.5)
        except KeyboardInterrupt:
            self.waiting.clear()
            for child in list(self.children):
                _stop(child)
            raise

    def _work(self) -> None:
        while True:
            with self.taking:
                if not self.waiting:
                    return
                step = self.waiting.pop(0)
            if not self.live:
                with self.speaking:
                    say(f"... {step.title}")
            started = time.monotonic()
            if step.pytest:
                step.report.unlink(missing_ok=True)
            try:
                results = [self._command(step, command) for command in step.commands]
                step.passed = not any(results) or self._passes_alone(step)
            except OSError as why:
                step.output += f"{why}\n"
                step.passed = False
            step.seconds = time.monotonic() - started
            (LOGS / f"{step.slug}.log").write_text(step.output, encoding="utf-8")
            if not self.live:
                with self.speaking:
                    self.ended += 1
                    outcome = "passed" if step.passed else "FAILED"
                    _headline(f"[{self.ended}/{self.number}] {step.title}: {outcome} in {step.seconds:.1f} s")
                    say(step.output.rstrip("\n"))

    def _passes_alone(self, step: Step) -> bool:
        """Whether the few tests that failed pass when they are run again with nothing beside them in their step."""
        failing = _failing(step)
        if "CI" not in os.environ or step.group == LAB or not 0 < len(failing) <= FEW:
            return False
        step.output += "\nOnce more, alone:\n"
        base = f"--basetemp={LOCAL / 'tmp' / step.slug}"
        if self._command(step, ["python", "-m", "pytest", base, *failing]):
            return False
        step.unsteady = failing
        return True

    def _command(self, step: Step, command: list[str]) -> int:
        env = places.tool_environment(step.python.name, self.choice.directories())
        env.update(step.extra_env)
        env.update(PYTHONUNBUFFERED="1", NO_COLOR="1")
        child = subprocess.Popen(
            command,
            cwd=step.directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self.children.add(child)
        alarm = threading.Timer(LAB_TIMEOUT if step.group == LAB else STEP_TIMEOUT, _stop, [child])
        alarm.start()
        try:
            for line in child.stdout or ():
                step.output += line
                if self.live or (step.group == LAB and line.startswith(PROGRESS)):
                    sys.stdout.write(line)
                    sys.stdout.flush()
            status = child.wait()
        finally:
            alarm.cancel()
            self.children.discard(child)
        if status < 0:
            step.output += f"ended by signal {-status}\n"
        return status


def _stop(child: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _headline(text: str) -> None:
    say(f"\n===== {text} " + "=" * max(0, 90 - len(text)))


def _cases(step: Step) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.parse(step.report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []


def _has_failed(case: ElementTree.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None


def _failing(step: Step) -> list[str]:
    """The failing tests, as pytest's command line names them."""
    failing = [case for case in _cases(step) if _has_failed(case)]
    return sorted({f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}" for case in failing})


def _counts(step: Step) -> tuple[Counter, Counter]:
    """How many tests passed, failed and were skipped, and the reasons of those that were skipped."""
    counts: Counter = Counter()
    reasons: Counter = Counter()
    for case in _cases(step):
        skipped = case.find("skipped")
        if _has_failed(case):
            counts["unsteady" if step.unsteady else "failed"] += 1
        elif skipped is not None:
            counts["skipped"] += 1
            reasons[skipped.get("message", "")] += 1
        else:
            counts["passed"] += 1
    return counts, reasons


def summarise(choice: pythons.Choice, steps: list[Step], set_up: float, total: float, notes: list[str]) -> bool:
    left_out = list(notes)
    sums: Counter = Counter()
    closing = []
    _headline("Summary")
    say(f"  passed  {set_up:7.1f} s  set-up")
    for step in steps:
        counts: Counter = Counter()
        if step.pytest:
            counts, reasons = _counts(step)
            sums += counts
            left_out += [f"{step.title}: {number} skipped: {reason}" for reason, number in sorted(reasons.items())]
            for line in step.output.splitlines():
                if line.startswith("left out: "):
                    left_out.append(f"{step.title}: {line[len('left out: ') :]}")
            if not counts:
                step.passed = False
            lines = [line for line in step.output.splitlines() if re.fullmatch(r"=+ .* in [0-9.]+s.* =+", line)]
            closing.append((step.title, lines[0] if lines else "pytest did not get to its end"))
        say(f"  {'passed' if step.passed else 'FAILED'}  {step.seconds:7.1f} s  {step.title}")
    say(f"          {total:7.1f} s  in all")
    say("\nPythons found: " + ", ".join(f"{python.version} ({python.path})" for python in choice.found))
    say("Python and ansible-core that ran the suites: " + ", ".join(_versions(python) for python in choice.wanted))
    if left_out:
        say("\nLeft out:")
        for line in left_out:
            say(f"  - {line}")
    failed = [step for step in steps if not step.passed]
    for step in failed:
        say(f"\nFAILED: {step.title}; its output is above and in {(LOGS / (step.slug + '.log')).relative_to(ROOT)}")
    if closing:
        say("")
        for title, line in closing:
            say(f"{title}:\n{line}")
        unsteady = [f"{test} ({step.title})" for step in steps for test in step.unsteady]
        if unsteady:
            say("\nUnsteady, since they passed at their second try only:")
            for line in unsteady:
                say(f"  - {line}")
        again = f", {sums['unsteady']} at the second try only" if unsteady else ""
        say(f"\n{sums['passed']} passed{again}, {sums['failed']} failed, {sums['skipped']} skipped")
    say(f"{'All steps passed' if not failed else f'{len(failed)} of {len(steps)} steps FAILED'}")
    return not failed


def _versions(python: pythons.Python) -> str:
    site = places.VENVS / python.name / "lib" / f"python{python.short}" / "site-packages"
    core = [path.name[len("ansible_core-") : -len(".dist-info")] for path in site.glob("ansible_core-*.dist-info")]
    if not core:
        return f"{python.version} without ansible-core (code that runs on managed hosts)"
    return f"{python.version} with ansible-core {core[0]}"


def _is_thorough(step: Step, choice: pythons.Choice) -> bool:
    """What seldom finds what the other steps did not, and takes its time."""
    return step.title == ANSIBLE_LINT or (step.group == "unit" and step.python is not choice.main)


def entry(arguments: list[str]) -> int:
    pytest_arguments: list[str] = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, pytest_arguments = arguments[:cut], arguments[cut + 1 :]
    parser = argparse.ArgumentParser(
        prog="dev/test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="group", help=" ".join(GROUPS))
    parser.add_argument("--python", help="only the steps for this Python, such as 3.11")
    options = parser.parse_args(arguments)
    unknown = [group for group in options.groups if group not in GROUPS]
    if unknown:
        raise Stop(f"No group {', '.join(unknown)}; there are: {', '.join(GROUPS)}")

    started = time.monotonic()
    with_lab = LAB in options.groups
    choice = environments.prepare("test")
    if with_lab:
        environments.install_packages("lab")
    set_up = time.monotonic() - started
    quick = not options.groups and "CI" not in os.environ
    steps = plan(choice, pytest_arguments, quick) + plan_lab(choice.main, pytest_arguments)
    chosen = options.groups or [group for group in GROUPS if group != LAB]
    steps = [step for step in steps if step.group in chosen]
    notes = [] if options.groups else list(choice.notes)
    for marked in (OLDEST_RUNS, NEED_ANSIBLE):
        notes += [f"{step.title}: all but {marked}" for step in steps if marked in step.commands[-1]]
    for marked in (QUICK_RUNS, OLDEST_RUNS_QUICK):
        notes += [
            f"{step.title}: all but {marked}: with CI, or make integration"
            for step in steps
            if marked in step.commands[-1]
        ]
    if len(chosen) < len(GROUPS):
        left = ", ".join(group for group in GROUPS if group not in chosen)
        notes.append(f"the other groups: {left}" if options.groups else "the lab: make test-lab")
    if quick:
        notes.append("ansible-test sanity: of dev/ and tests/, and imports with each Python: with CI, or make sanity")
        left_out = [step for step in steps if _is_thorough(step, choice)]
        notes += [f"{step.title}: run with CI set, or by make {step.group}" for step in left_out]
        steps = [step for step in steps if step not in left_out]
    if options.python:
        steps = [step for step in steps if step.python.short == options.python]
        notes.append(f"all Pythons but {options.python}")
    if not steps:
        raise Stop("Nothing to run for that choice.")
    if os.geteuid() != 0:
        notes.append("tests that need root (mounts, loop devices, other users' files): run as root to have them too")
    places.clear_temporary()
    (LOCAL / "reports").mkdir(parents=True, exist_ok=True)
    if with_lab:
        guest = plan_guest(choice.main)
        Runner(choice, [guest], at_once=1, live=False).run()
        if not guest.passed:
            summarise(choice, [guest], set_up, time.monotonic() - started, notes)
            return 1
    Runner(choice, steps, at_once=1 if len(steps) == 1 else 2, live=len(steps) == 1).run()
    steps = [guest, *steps] if with_lab else steps
    return 0 if summarise(choice, steps, set_up, time.monotonic() - started, notes) else 1


if __name__ == "__main__":
    places.main(entry)
