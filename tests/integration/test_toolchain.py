# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the other integration tests build on: the tools are there, and Ansible finds this clone as the collection."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_ansible, pytest.mark.each_python]


def test_ansible_finds_the_collection_in_this_clone(repository: Path, collections_path: Path) -> None:
    done = subprocess.run(
        ["ansible-galaxy", "collection", "list", "--format", "json", "virt.storage"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = json.loads(done.stdout)
    assert listed == {
        str(collections_path / "ansible_collections"): {"virt.storage": {"version": _version(repository)}}
    }


def _version(repository: Path) -> str:
    lines = (repository / "galaxy.yml").read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("version:"))


@pytest.mark.parametrize(
    "command", [["qemu-img", "--version"], ["strace", "--version"]], ids=lambda command: command[0]
)
def test_a_tool_runs(command: list[str]) -> None:
    assert subprocess.run(command, capture_output=True, check=True).stdout
