# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which Pythons this machine has, and what each is used for."""

from __future__ import annotations

import glob
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

#: What a managed host may run: the collection's own promise.
TARGETS = [(3, minor) for minor in range(9, 15)]
#: What can run ansible-core 2.19 (3.11) or newer (3.12 and up).
CONTROLLERS = [(3, minor) for minor in range(11, 15)]

_PROBE = "import ctypes, ssl, sys, zlib; print(sys.version_info[0], sys.version_info[1], sys.version_info[2], sep='.')"


@dataclass(frozen=True)
class Python:
    path: str
    version: str

    @property
    def minor(self) -> tuple[int, int]:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def name(self) -> str:
        """The name of the environment made with it: py311."""
        return "py{}{}".format(*self.minor)

    @property
    def short(self) -> str:
        return "{}.{}".format(*self.minor)


@dataclass
class Choice:
    """What was found and what it is used for; newest last."""

    found: list[Python]
    suites: list[Python]
    target: Python | None
    notes: list[str] = field(default_factory=list)

    @property
    def main(self) -> Python:
        return self.suites[-1]

    @property
    def wanted(self) -> list[Python]:
        return self.suites + ([self.target] if self.target else [])

    def directories(self) -> list[str]:
        """The folders to put on PATH so that every Python that was found answers to its own name."""
        return [os.path.dirname(python.path) for python in self.found]


def _is_shim(path: str) -> bool:
    """Version managers put scripts under the names of Pythons, also of those that would not start."""
    try:
        with open(path, "rb") as stream:
            return stream.read(2) == b"#!"
    except OSError:
        return True


def _probe(path: str) -> Python | None:
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return Python(path, done.stdout.strip())


def _candidates(minor: tuple[int, int]) -> list[str]:
    name = "python{}.{}".format(*minor)
    directories = ["/usr/bin", "/usr/local/bin"]
    managers = {os.environ.get("PYENV_ROOT", ""), os.path.expanduser("~/.pyenv")}
    for entry in os.environ.get("PATH", os.defpath).split(os.pathsep):
        directories.append(entry)
        if os.path.basename(entry) == "shims":
            managers.add(os.path.dirname(entry))
    own = str(Path(__file__).resolve().parents[2] / ".venv")
    paths = [os.path.join(directory, name) for directory in directories if directory and not directory.startswith(own)]
    for manager in sorted(filter(None, managers)):
        versions = os.path.join(manager, "versions", "{}.{}.*".format(*minor), "bin", name)
        paths += sorted(glob.glob(versions), reverse=True)
    return list(dict.fromkeys(path for path in paths if os.access(path, os.X_OK) and not _is_shim(path)))


def find() -> list[Python]:
    found = []
    for minor in TARGETS:
        for path in _candidates(minor):
            python = _probe(path)
            if python and python.minor == minor:
                found.append(python)
                break
    return found


def choose() -> Choice:
    found = find()
    controllers = [python for python in found if python.minor in CONTROLLERS]
    suites = controllers if len(controllers) < 3 else [controllers[0], controllers[-1]]
    target = next((python for python in found if python.minor == (3, 9)), None)
    choice = Choice(found, suites, target)
    for python in controllers:
        if python not in suites:
            choice.notes.append(
                f"Python {python.short}: only compile and import tests (the suites run with the oldest and the newest)"
            )
    for python in found:
        if python.minor == (3, 10):
            choice.notes.append("Python 3.10: only compile and import tests (no current ansible-core runs on it)")
    missing = [minor for minor in TARGETS if minor not in [python.minor for python in found]]
    for minor in missing:
        choice.notes.append("Python {}.{}: not found on this machine".format(*minor))
    return choice
