# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What several runs share on one machine: locks that die with their owner, results that appear whole or not at all,
and processes that end with the one that started them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import places
from places import CACHE, Stop, say

LAB = CACHE / "lab"
DEBIANS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


@contextlib.contextmanager
def lock(path: Path, waiting: str = "") -> Iterator[None]:
    """Held by one process at a time; the kernel lets go of it when its owner dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                say(waiting)
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def made_once(result: Path, make: Callable[[Path], None], what: str) -> Path:
    """``result``, which ``make`` makes in a directory of its own; half of it is never taken for the whole."""
    if result.is_dir():
        return result
    with lock(result.with_name(result.name + ".lock"), f"Waiting for another run that makes {what}"):
        if not result.is_dir():
            unfinished = result.with_name(result.name + ".unfinished")
            remove_tree(unfinished)
            unfinished.mkdir(parents=True)
            make(unfinished)
            unfinished.rename(result)
    return result


def remove_tree(tree: Path) -> None:
    """Never through a mount: a tree that a system was unpacked in may have had the host's /dev in it."""
    below = f"{os.path.realpath(tree)}/"
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    inside = [mount for mount in mounts if f"{mount}/".startswith(below)]
    if inside:
        raise Stop(f"{tree} is not removed: something is mounted in it ({', '.join(inside)}).")
    shutil.rmtree(tree, ignore_errors=True)


def digest(*parts: object) -> str:
    """A short name for a definition: files count by name and content, anything else by its text."""
    summed = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            summed.update(f"{part.name}\0".encode() + part.read_bytes())
        else:
            summed.update(str(part).encode())
        summed.update(b"\0")
    return summed.hexdigest()[:16]


def bound(command: list[str]) -> list[str]:
    """The command, which the kernel ends together with the thread that starts it, however that ends."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


_children: list[subprocess.Popen[bytes]] = []


def spawn(command: list[str], directory: Path, output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """A process in a session of its own, which may outlive this one."""
    child = subprocess.Popen(
        command,
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    _children.append(child)
    return child


def reap() -> None:
    """Forget those of our children that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]


def run_logged(command: list[str], log: Path, what: str, text: str | None = None) -> None:
    """Run what takes long; its output goes to ``log``, the end of it into the message when it fails."""
    with log.open("ab") as stream:
        stream.write(f"\n+ {' '.join(command)}\n".encode())
        stream.flush()
        child = subprocess.Popen(
            bound(command),
            stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment(),
        )
        child.communicate(text.encode() if text is not None else None)
    if child.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
        raise Stop("\n".join([*lines, f"{what} failed (exit status {child.returncode}); all of it: {log}"]))


def alone(command: list[str]) -> list[str]:
    """The command with mounts and processes of its own: when it is killed, nothing of either is left behind."""
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    return [*isolated, "--", *command]


def environment() -> dict[str, str]:
    """For Debian's tools: the C locale, no questions, and Debian's own programs first, also for a plain user: some of
    those tools are Python programs, and another python3 on PATH may be too old for them. In a tree of its own, a
    directory of this machine for temporary files is not there.
    """
    env = dict(os.environ, LC_ALL="C", DEBIAN_FRONTEND="noninteractive")
    env.pop("TMPDIR", None)
    ours = [*DEBIANS, *map(str, places.VENVS.glob("*/bin"))]
    path = [entry for entry in env.get("PATH", os.defpath).split(os.pathsep) if entry not in ours]
    env["PATH"] = os.pathsep.join([*DEBIANS, *path])
    return env
