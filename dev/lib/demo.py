# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs examples/quickstart.yml on this machine, out of the pinned environment."""

from __future__ import annotations

import os

import environments
import places
from places import LOCAL, ROOT, VENVS


def entry(arguments: list[str]) -> int:
    python = environments.prepare("demo").main
    env = places.tool_environment(python.name)
    env.setdefault("ANSIBLE_CALLBACK_RESULT_FORMAT", "yaml")
    bin_dir = VENVS / python.name / "bin"
    command = [
        str(bin_dir / "ansible-playbook"),
        "--inventory=localhost,",
        "--connection=local",
        f"--extra-vars=ansible_python_interpreter={bin_dir / 'python'}",
        f"--extra-vars=demo_dir={LOCAL / 'demo'}",
        str(ROOT / "examples" / "quickstart.yml"),
        *arguments,
    ]
    os.chdir(ROOT)
    os.execve(command[0], command, env)


if __name__ == "__main__":
    places.main(entry)
