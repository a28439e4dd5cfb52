# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Commands: no shell, no inherited environment that changes output, an end for every one that only looks."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence

from ..model.errors import StorageError

_ENVIRONMENT = {"LC_ALL": "C", "LANGUAGE": "C"}
_SECONDS_TO_DIE = 1.0


def run(argv: Sequence[str], keep_fds: Sequence[int] = (), timeout: float | None = None, package: str = "") -> str:
    """Standard output of a command. Raises ``tool_missing``, ``command_failed`` or ``deadline``.

    ``keep_fds`` are the locks that the command works under: it holds them too, so that they are free only once it is
    gone.
    """
    command = " ".join(shlex.quote(word) for word in argv)
    try:
        # run_command of AnsibleModule knows no deadline, and nothing below the modules knows AnsibleModule.
        child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            pass_fds=tuple(keep_fds),
        )
    except FileNotFoundError:
        raise tool_missing(argv[0], package) from None
    try:
        stdout, stderr = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _abandon(child)
        raise StorageError(
            "deadline", f"{argv[0]} did not answer within {timeout:.3g} s", subject=argv[0], command=command
        ) from None
    except BaseException:
        _abandon(child)
        raise
    if child.returncode != 0:
        raise _failure(argv[0], command, child.returncode, stderr.decode(errors="replace").strip())
    return stdout.decode(errors="replace")


def _abandon(child: subprocess.Popen) -> None:
    """Kills it. One that hangs in a system call does not even die of that, and is not waited for."""
    child.kill()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()
    try:
        child.wait(_SECONDS_TO_DIE)
    except subprocess.TimeoutExpired:
        child.returncode = -signal.SIGKILL  # its end is left to init


def tool_missing(tool: str, package: str) -> StorageError:
    return StorageError(
        "tool_missing", f"{tool} is not installed on this host", subject=tool, hint=f"Install it: {package}."
    )


def _failure(tool: str, command: str, status: int, stderr: str) -> StorageError:
    full = "No space left on device" in stderr or "Disk quota exceeded" in stderr
    return StorageError(
        "no_space" if full else "command_failed",
        f"{tool} failed" + (": the filesystem is full" if full else ""),
        subject=tool,
        hint="Free some space and run the task again." if full else "",
        command=command,
        rc=status,
        stderr=stderr,
    )
