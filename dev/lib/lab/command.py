# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests with real storage, for tests and for a look by hand.

dev/lab build                         the image, and the saved state that guests are resumed from
dev/lab start [NAME]                  a guest (lab); it runs until it is stopped
dev/lab stop [NAME...]                these guests, or all of this clone's
dev/lab shell [NAME] [COMMAND...]     a shell there, or a command
dev/lab push [NAME]                   the collection as it is here, into a guest that runs
dev/lab list                          the guests of this clone
dev/lab prune                         removes images that neither this clone nor a running guest needs
dev/lab test PATH... [--keep]         these tests of tests/lab/guest, in a clean guest; what follows "--" goes to pytest
dev/lab groups [GROUP...] [--quick]   all test groups (tests/lab/groups.txt), or some; after "--" as above
dev/lab molecule [SCENARIO...]        the scenarios of tests/molecule, or some; after "--" other words than "test"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import environments
import places
from places import Stop, say

from lab import guests, image, saved, suites
from lab.guests import Guest
from lab.holding import LAB, digest, remove_tree

SCENARIOS = places.ROOT / "tests" / "molecule"
NETWORK = "VIRT_STORAGE_LAB_NETWORK"  # where a run of molecule has its guests
#: The network of the guests that a person starts.
STANDING = Path(os.environ.get(NETWORK) or guests.OURS / "standing")
_USUAL = "lab"


def _prepare() -> None:
    environments.prepare("lab")


def _find(name: str) -> Guest | None:
    return next((guest for guest in guests.of_network(STANDING) if guest.name == name), None)


def build(_arguments: list[str]) -> int:
    _prepare()
    say(f"The saved state is in {saved.get(image.get())}")
    return 0


def _started(name: str) -> Guest:
    guest = _find(name)
    if guest and guest.alive():
        return guest
    _prepare()
    if guest:
        guest.stop()
    started = time.monotonic()
    guest = suites.resumed(STANDING, name)
    suites.push_collection(guest)
    say(f"The guest {name} is ready after {time.monotonic() - started:.1f} s")
    return guest


def start(arguments: list[str]) -> int:
    for name in arguments or [_USUAL]:
        guest = _started(name)
        say(f"{name}: {guest.address} among the guests; ssh port {guest.port} here; dev/lab shell {name}")
    return 0


def stop(arguments: list[str]) -> int:
    found = {guest.name: guest for guest in guests.of_network(STANDING)}
    for name in arguments or list(found):
        if name not in found:
            raise Stop(f"There is no guest {name}.")
        found[name].stop()
        say(f"{name} is stopped")
    guests.remove_abandoned()
    return 0


def shell(arguments: list[str]) -> int:
    name, *words = arguments or [_USUAL]
    if name != _USUAL and not _find(name):
        raise Stop(f"There is no guest {name}; dev/lab start {name} starts one.")
    guest = _started(name)
    command = guest.ssh(*words)
    if not words:
        command.insert(1, "-t")
    sys.stdout.flush()
    os.execvp(command[0], command)


def push(arguments: list[str]) -> int:
    suites.push_collection(_started(arguments[0] if arguments else _USUAL))
    return 0


def show(_arguments: list[str]) -> int:
    for network in sorted(guests.OURS.glob("*/")):
        for guest in guests.of_network(network):
            state = f"runs, ssh port {guest.port}" if guest.alive() else "is dead"
            say(f"{guest.name:<16} {guest.address:<12} {state:<24} {network.name}")
    return 0


def prune(_arguments: list[str]) -> int:
    """Each definition ever built is kept until then: other clones, or another branch, may have it."""
    everyone = [guest for network in (LAB / "guests").glob("*/*/") for guest in guests.of_network(network)]
    needed = {guest.image.directory for guest in everyone if guest.alive()}
    needed.add(LAB / "images" / digest(*image.DEFINITION))
    for directory in sorted((LAB / "images").glob("*/")):
        if directory not in needed:
            say(f"Removing {directory}")
            remove_tree(directory)
    return 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:cut], arguments[cut + 1 :]


def test(arguments: list[str]) -> int:
    ours, for_pytest = _split(arguments)
    parser = argparse.ArgumentParser(prog="dev/lab test")
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--keep", action="store_true", help="leave the guest running, for a look")
    parser.add_argument("--report", type=Path, default=places.LOCAL / "reports" / "lab-test.xml")
    options = parser.parse_args(ours)
    paths = [suites.relative(path) for path in options.paths]
    _prepare()
    if options.keep:
        name = f"kept{os.getpid()}"
        guest = suites.resumed(STANDING, name)
        status, _output = suites.run_tests(guest, paths, for_pytest, options.report, live=True)
        say(f"The guest is left: dev/lab shell {name}, dev/lab stop {name}. There, the tests were run by\n")
        say(f"  {suites.test_command(paths, for_pytest)}")
        return status
    with suites.clean_guest() as guest:
        status, _output = suites.run_tests(guest, paths, for_pytest, options.report, live=True)
    return status


def groups(arguments: list[str]) -> int:
    ours, for_pytest = _split(arguments)
    parser = argparse.ArgumentParser(prog="dev/lab groups")
    parser.add_argument("names", nargs="*", metavar="GROUP")
    parser.add_argument("--quick", action="store_true", help="all but those that take long")
    parser.add_argument("--at-once", type=int, default=2, help="so many guests at a time")
    parser.add_argument("--report", type=Path, default=places.LOCAL / "reports" / "lab-guests.xml")
    options = parser.parse_args(ours)
    found = suites.groups()
    unknown = set(options.names) - {group.name for group in found}
    if unknown:
        raise Stop(f"No group {', '.join(unknown)}; there are: {', '.join(group.name for group in found)}")
    chosen = [group for group in found if not options.names or group.name in options.names]
    if options.quick:
        left_out = [group.name for group in chosen if group.thorough]
        say(f"Left out, since they take long: {', '.join(left_out)}")
        chosen = [group for group in chosen if not group.thorough]
    _prepare()
    return 0 if suites.run_groups(chosen, for_pytest, options.at_once, options.report) else 1


def molecule(arguments: list[str]) -> int:
    """Its playbooks start guests by ``dev/lab start``; they end with the run."""
    ours, words = _split(arguments)
    found = sorted(file.parent.name for file in SCENARIOS.glob("*/molecule.yml"))
    for name in ours:
        if name not in found:
            raise Stop(f"No scenario {name}; there are: {', '.join(found)}")
    _prepare()
    saved.get(image.get())
    passed = {name: suites.passes_at(partial(_scenario, name, words)) for name in ours or found}
    suites.say_unsteady([name for name, tries in passed.items() if tries > 1])
    failed = [name for name, tries in passed.items() if not tries]
    for name in failed:
        say(f"FAILED: molecule scenario {name}")
    return 1 if failed else 0


def _scenario(name: str, words: list[str]) -> bool:
    with guests.private_network() as network, tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp") as sockets:
        env = places.tool_environment("main")
        env.update(
            MOLECULE_GLOB=f"{SCENARIOS.relative_to(places.ROOT)}/*/molecule.yml",
            MOLECULE_EPHEMERAL_DIRECTORY=str(network / "molecule"),
            ANSIBLE_SSH_CONTROL_PATH_DIR=sockets,
            **{NETWORK: str(network)},
        )
        base = SCENARIOS / "shared" / "base.yml"
        run = ["molecule", "--base-config", str(base), *(words or ["test"]), "-s", name]
        return subprocess.run(run, cwd=places.ROOT, env=env, stdin=subprocess.DEVNULL, check=False).returncode == 0


def facts(arguments: list[str]) -> int:
    """For molecule: how each guest is reached."""
    told = []
    for name in arguments:
        guest = _find(name)
        if not guest:
            raise Stop(f"There is no guest {name}.")
        where = {"address": "127.0.0.1", "port": guest.port, "user": "root", "identity_file": str(guest.image.key)}
        told.append({"instance": name, **where})
    say(json.dumps(told))
    return 0


def watch(arguments: list[str]) -> int:
    """Wait for the end of who started this; then remove the network that was theirs."""
    while sys.stdin.buffer.read(4096):
        pass
    guests.remove_network(Path(arguments[0]))
    return 0


COMMANDS = {
    "build": build,
    "start": start,
    "stop": stop,
    "shell": shell,
    "push": push,
    "list": show,
    "prune": prune,
    "test": test,
    "groups": groups,
    "molecule": molecule,
    "facts": facts,
    "watch": watch,
}


def entry(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        raise Stop(str(__doc__))
    return COMMANDS[arguments[0]](arguments[1:])
