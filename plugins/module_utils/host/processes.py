# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""All processes' open files, directories and mount tables, and what the kernel itself has open, read once
(proc_pid_fd(5), proc_pid_mountinfo(5)).
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ..model.found import User
from .mounts import Mount, mount_at, mounts
from .served import served

_OTHERS = "open files of other users' processes"
_HIDING = {"hidepid=2", "hidepid=4", "hidepid=invisible", "hidepid=ptraceable"}
_CAP_SYS_PTRACE = 1 << 19
_PLACES = ("cwd", "root", "exe")
SELF = "self"  # the process that we are, as /proc calls it
# Seconds: losetup, blkid, LVM and others look into every device for a moment. Who is older, or has it open still after
# that, means to keep it.
_LASTING, _MOMENT = 2.0, 0.1


class OpenFile(NamedTuple):
    """``link`` is the path of the descriptor in /proc, ``shown`` what it points to as the kernel shows it: never opened
    up here, since it may be on a server that is dead.
    """

    pid: str
    link: str
    shown: str


class Processes:
    """Every process but this one, and the kernel. Lists are made when first asked for, and stay as they were."""

    def __init__(self) -> None:
        self.unseen: set[str] = set()
        self._files: list[OpenFile] | None = None
        self._tables: dict[str, tuple[str, list[Mount]]] | None = None
        self._namespaces: dict[str, str] = {}
        self._mounts: dict[int, Mount] | None = None
        self._served: list[tuple[str, User]] | None = None
        self._listed = 0.0

    @staticmethod
    def pids() -> list[str]:
        own = str(os.getpid())
        return [name for name in os.listdir("/proc") if name.isdigit() and name != own]

    def files(self) -> list[OpenFile]:
        """All open descriptors."""
        if self._files is None:
            if _hides_others():
                self.unseen.add(_OTHERS)
            self._files = [file for pid in self.pids() for file in self._descriptors(pid)]
            self._listed = time.monotonic()
        return self._files

    def lasting(self, opened: list[OpenFile]) -> list[OpenFile]:
        """Those of the listed descriptors that are no passing look. Waits until the list is two seconds old at most."""
        while True:
            opened = [file for file in opened if _target(file.link) == (file.shown,)]
            if time.monotonic() > self._listed + _LASTING or not any(map(_may_be_passing, opened)):
                return opened
            time.sleep(_MOMENT)

    def _descriptors(self, pid: str) -> list[OpenFile]:
        directory = f"/proc/{pid}/fd"
        try:
            names = os.listdir(directory)
        except PermissionError:
            self.unseen.add(_OTHERS)
            return []
        except OSError:
            return []
        found = []
        for link in (f"{directory}/{name}" for name in names):
            try:
                found.append(OpenFile(pid, link, os.readlink(link)))
            except PermissionError:
                self.unseen |= {_OTHERS} if _is_hidden(pid, link) else set()
                break
            except OSError:
                continue
        return found

    def places(self) -> list[OpenFile]:
        """Working directories, roots and programs of all processes."""
        links = ((pid, f"/proc/{pid}/{name}") for pid in self.pids() for name in _PLACES)
        return [OpenFile(pid, link, shown) for pid, link in links for shown in _target(link)]

    def tables(self) -> dict[str, tuple[str, list[Mount]]]:
        """For each mount namespace one of its processes and the mounts that it sees; "self" is ours (namespaces(7))."""
        if self._tables is None:
            found = {SELF: (SELF, mounts())}
            ours = _target("/proc/self/ns/mnt")
            for pid in self.pids():
                for name in _target(f"/proc/{pid}/ns/mnt"):
                    namespace = SELF if (name,) == ours else name
                    if namespace in found or _add_table(found, namespace, pid):
                        self._namespaces[pid] = namespace
            self._tables = found
        return self._tables

    def served(self) -> list[tuple[str, User]]:
        """(path, user) of what the kernel itself has open, which no process tells of."""
        if self._served is None:
            self._served = list(served(self.unseen))
        return self._served

    def table_of(self, pid: str) -> list[Mount]:
        """The mounts that a process sees; ours where that can't be told."""
        tables = self.tables()
        return tables.get(self._namespaces.get(pid, SELF), tables[SELF])[1]

    def mount_of(self, file: OpenFile) -> Mount | None:
        """The mount on which a file was opened, whoever sees it; None where that can't be told, or is none any more."""
        if self._mounts is None:
            self._mounts = {mount.id: mount for _pid, table in self.tables().values() for mount in table}
        try:
            with open(file.link.replace("/fd/", "/fdinfo/"), encoding="ascii", errors="replace") as told:
                number = next((int(line.split()[1]) for line in told if line.startswith("mnt_id:")), 0)
        except OSError:
            return None
        return self._mounts.get(number)


def _hides_others() -> bool:
    """Whether processes of others are not even listed: proc(5), hidepid; capabilities(7), CAP_SYS_PTRACE."""
    proc = mount_at("/proc", mounts())
    return proc is not None and bool(_HIDING & {*proc.super_options, *proc.options}) and not _may_look_at_all()


def _is_hidden(pid: str, link: str) -> bool:
    """Whether a process may have open what we may not look at, as root without CAP_SYS_PTRACE may list descriptors and
    no more. One that has ended says the same; so may the first one, which is kept even from those who may look at all,
    and for a moment what it starts.
    """
    if not _may_look_at_all():
        return os.path.exists(f"/proc/{pid}/fd")
    end = time.monotonic() + _LASTING
    while pid != "1" and os.path.exists(f"/proc/{pid}/fd"):
        try:
            os.readlink(link)
        except PermissionError:
            if time.monotonic() > end:
                return True
            time.sleep(_MOMENT)
        except OSError:
            break
        else:
            break
    return False


def _may_look_at_all() -> bool:
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as told:
            mask = next((line.split()[1] for line in told if line.startswith("CapEff:")), "0")
    except OSError:
        return False
    return bool(int(mask, 16) & _CAP_SYS_PTRACE)


def _add_table(tables: dict[str, tuple[str, list[Mount]]], namespace: str, pid: str) -> bool:
    try:
        tables[namespace] = (pid, mounts(pid))
    except (OSError, ValueError):
        return False
    return True


def _may_be_passing(file: OpenFile) -> bool:
    """A process that has just started, or only reads."""
    try:
        with open(f"/proc/{file.pid}/stat", encoding="utf-8", errors="replace") as told:
            started = int(told.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        with open(file.link.replace("/fd/", "/fdinfo/"), encoding="ascii") as told:
            flags = next((int(line.split()[1], 8) for line in told if line.startswith("flags:")), 0)
    except OSError:
        return True
    young = time.clock_gettime(time.CLOCK_BOOTTIME) - started < _LASTING
    return young or flags & os.O_ACCMODE == os.O_RDONLY


def _target(link: str) -> tuple[str, ...]:
    try:
        return (os.readlink(link),)
    except OSError:
        return ()


def process_user(pid: str) -> User:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
    except OSError:
        name = "?"
    return User("process", f"{name} (pid {pid})")


def is_udev(pid: str) -> bool:
    """Whether it belongs to udev, which looks at a device after each change of it, and lets go soon (cgroups(7))."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            return "/systemd-udevd.service" in file.read()
    except OSError:
        return False
