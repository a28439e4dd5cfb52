# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tests on this side of the guests share: guests, and Ansible over ssh."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "dev" / "lib"))

from lab import guests as lab_guests  # noqa: E402
from lab import suites  # noqa: E402
from lab.guests import Guest  # noqa: E402

Guests = Callable[[int], list[Guest]]


@pytest.fixture
def guests() -> Iterator[Guests]:
    """``guests(2)``: clean guests guest1 and guest2, which see each other by name, and nothing else. They end with the
    test.

    ``guest.text("lsblk")`` is what a shell script prints there; ``guest.cut_power()`` kills the machine,
    ``guest.power_off()`` shuts it down, and ``guest.boot()`` starts it again on the same disks; so does
    ``guest.reboot()``.
    """
    numbers = itertools.count(1)
    with lab_guests.private_network() as network:
        yield lambda count: [suites.resumed(network, f"guest{next(numbers)}") for _each in range(count)]


@pytest.fixture
def guest(guests: Guests) -> Guest:
    """One clean guest; it ends with the test."""
    return guests(1)[0]


class Ansible:
    """Ansible of the clone's environment, with the clone as the collection, against guests."""

    def __init__(self, directory: Path, sockets: str) -> None:
        self._directory = directory
        self._environment = {
            **os.environ,
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
            "ANSIBLE_HOST_KEY_CHECKING": "0",
            "ANSIBLE_NOCOLOR": "1",
        }

    def playbook(self, playbook: str | Path, hosts: list[Guest], *more: str, check: bool = True) -> Played:
        """Run a playbook, a file or the text of one. One that fails is an error, unless ``check`` is false."""
        if isinstance(playbook, str):
            file = self._directory / "playbook.yml"
            file.write_text(playbook, encoding="utf-8")
        else:
            file = playbook
        done = self._run(["ansible-playbook", *self._inventory(hosts), str(file), *more])
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return Played(done)

    def module(self, module: str, host: Guest, check: bool = False, **params: Any) -> dict[str, Any]:
        """The result of one module run, also of one that failed."""
        words = ["ansible", *self._inventory([host]), "all", "-m", module]
        words += ["-a", json.dumps(params)] if params else []
        done = self._run(words + (["--check"] if check else []))
        found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
        assert found, done.stdout + done.stderr
        result = json.loads(found.group(1))
        assert isinstance(result, dict)
        return result

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, capture_output=True, text=True, env=self._environment, stdin=subprocess.DEVNULL, check=False
        )

    def _inventory(self, hosts: list[Guest]) -> list[str]:
        file = self._directory / "inventory.json"
        file.write_text(json.dumps({"all": {"hosts": {host.name: host.variables() for host in hosts}}}))
        return ["-i", str(file)]


class Played:
    """How a playbook went: its output, and the counts of its recap for each host."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.output = done.stdout + done.stderr

    def count(self, host: Guest, what: str) -> int:
        """``what``: ok, changed, unreachable, failed, skipped, rescued or ignored."""
        found = re.search(rf"^{re.escape(host.name)} .*\b{what}=(\d+)", self.output, re.MULTILINE)
        assert found, self.output
        return int(found.group(1))


@pytest.fixture
def ansible(tmp_path: Path) -> Iterator[Ansible]:
    """``ansible.playbook(text, [guest])``, ``ansible.module("ansible.builtin.ping", guest)``."""
    sockets = tempfile.mkdtemp(prefix="lab-", dir="/tmp")  # the address of a socket has to be short
    yield Ansible(tmp_path, sockets)
    shutil.rmtree(sockets, ignore_errors=True)
