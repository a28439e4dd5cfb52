# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Commands: no shell, no inherited environment that changes output, an end for every one that only looks."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..model.errors import StorageError

# LVM complains of descriptors that it inherits (lvm(8)), such as those of locks.
_ENVIRONMENT = {"LC_ALL": "C", "LANGUAGE": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
_SECONDS_TO_DIE = 1.0
_FULL = ("No space left on device", "Disk quota exceeded", "insufficient free space")


class Ended(NamedTuple):
    """A command that has ended."""

    command: str
    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    keep_fds: Sequence[int] = (),
    timeout: float | None = None,
    stdin: bytes = b"",
    user: tuple[int, int] | None = None,
) -> str:
    """Standard output of a command. Raises ``tool_missing``, ``command_failed`` or ``deadline``.

    ``keep_fds`` are the locks that the command works under: it holds them too, so that they are free only once it is
    gone. ``stdin`` is what it reads, ``user`` as whom it runs: user and group.
    """
    ended = finish(argv, keep_fds, timeout, stdin=stdin, user=user)
    if ended.status != 0:
        raise failure(argv[0], ended.command, ended.status, ended.stderr.strip())
    return ended.stdout


def finish(
    argv: Sequence[str],
    keep_fds: Sequence[int] = (),
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    user: tuple[int, int] | None = None,
) -> Ended:
    """A command and what it said, whatever its exit status. ``keep_fds`` are open files that it gets, under the same
    numbers. Raises ``tool_missing`` or ``deadline``.
    """
    as_user: dict[str, Any] = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
    command = " ".join(shlex.quote(word) for word in argv)
    try:
        # run_command of AnsibleModule knows no deadline, and nothing below the modules knows AnsibleModule.
        child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})},
            pass_fds=tuple(keep_fds),
            start_new_session=timeout is not None,
            **as_user,
        )
    except FileNotFoundError:
        raise tool_missing(argv[0]) from None
    try:
        stdout, stderr = child.communicate(stdin or None, timeout=timeout)
    except subprocess.TimeoutExpired:
        _abandon(child)
        raise StorageError(
            "deadline",
            f"{argv[0]} did not answer within {timeout:.3g} s",
            subject=argv[0],
            hint="See what it waits for (a device, a server), or give the task a longer timeout.",
            command=command,
        ) from None
    except BaseException:
        _abandon(child)
        raise
    return Ended(command, child.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _abandon(child: subprocess.Popen) -> None:
    """Kills it, with what it has started if it has a time limit: mount(8) leaves the work to helpers. One that hangs in
    a system call does not even die of that, and is not waited for.
    """
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(child.pid) == child.pid:
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()
    try:
        child.wait(_SECONDS_TO_DIE)
    except subprocess.TimeoutExpired:
        child.returncode = -signal.SIGKILL  # its end is left to init


def lacks(command: Any) -> str:
    """The tool of a command that is not there, or its helper: mount(8) looks for that where system programs are. Empty
    when all is there.
    """
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/sbin", "/usr/sbin"))
    helper = getattr(command, "helper", "")
    wanted = (command.argv[0], *([helper] if helper else ()))
    return next((tool for tool in wanted if shutil.which(tool, path=places) is None), "")


def tool_missing(tool: str) -> StorageError:
    from ..model.packages import installing

    package = installing(tool) or "look for the package that has it"
    return StorageError(
        "tool_missing", f"{tool} is not installed on this host", subject=tool, hint=f"Install it: {package}."
    )


def misprinted(argv: Sequence[str], what: str, subject: str = "") -> StorageError:
    """Of a command that ended well and printed what can't be read."""
    return StorageError(
        "command_failed",
        f"{argv[0]} printed what is no {what}",
        subject=subject or argv[0],
        hint="See what it prints when it is run by hand, and whether something else is installed under its name.",
        command=" ".join(argv),
    )


def failure(tool: str, command: str, status: int, stderr: str) -> StorageError:
    full = any(words in stderr for words in _FULL)
    return StorageError(
        "no_space" if full else "command_failed",
        f"{tool} failed" + (": there is no space left" if full else ""),
        subject=tool,
        hint="Free some space and run the task again." if full else f"Mend what {tool} says, and run the task again.",
        command=command,
        rc=status,
        stderr=stderr,
    )
