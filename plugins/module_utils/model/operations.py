# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""How a change is done, still data. Only host/apply.py turns these into system calls.

Named tuples, since a task makes all these classes anew each time it runs, and dataclasses take four times as long.

``command`` is the nearest shell command, for people: it shows up in the plan. ``whole``: where it fails, it has changed
nothing, which holds for all that don't say otherwise. ``note``: it only notes something for later tasks.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .pool import at_port
from .units import format_mode

if TYPE_CHECKING:
    from .volume import Sought


def shell(*words: object) -> str:
    """Words as a shell takes them."""
    return " ".join(shlex.quote(str(word)) for word in words)


class Secret:
    """Bytes that nobody is shown."""

    def __init__(self, text: str | bytes) -> None:
        self.data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return "Secret()"


# Stands for the option that names a file of credentials, which is there while the command runs, and has no name.
CREDENTIALS = "credentials=(private)"


class Run(NamedTuple):
    """A command. ``bounded``: it only asks or tells somebody who
    may not answer, and so has to end within the task's timeout; ``late`` says what to do if it does not, ``hint`` what
    to look at where it fails. ``helper``:
    another command that it runs. ``credentials``: what CREDENTIALS stands for in its words. ``unmounts``: the path that
    is not mounted any more when it is done, whatever it waits for then. ``asks``: host and port of a server that, where
    it refuses to be connected to, needs not be asked. ``lets_go``: it takes down what volumes are on, so that none may
    be held open any more. ``leaves``: it may leave a process behind, which serves what it mounted: that gets no locks.
    ``stdin`` is what it reads; it is not shown. ``whole``: as above; a command may have done half of its work.
    """

    argv: tuple[str, ...]
    bounded: bool = False
    late: str = ""
    hint: str = ""
    helper: str = ""
    credentials: Secret | None = None
    unmounts: str = ""
    asks: tuple[str, int] | None = None
    leaves: bool = False
    lets_go: bool = False
    stdin: bytes = b""
    whole: bool = False

    @property
    def command(self) -> str:
        return shell(*self.argv) + (f" < {len(self.stdin)} bytes" if self.stdin else "")


class As(NamedTuple):
    """An operation in the name of another user, where a server does not take root for root."""

    owner: int
    group: int
    operation: Any

    @property
    def whole(self) -> bool:
        return getattr(self.operation, "whole", True)

    @property
    def command(self) -> str:
        words = f"setpriv --reuid={self.owner} --regid={self.group} --clear-groups"
        command = self.operation.command
        return f"{words} sh -c {shlex.quote(command)}" if " && " in command else f"{words} {command}"


class Noted(NamedTuple):
    """An operation that is noted before it is done, in the file ``path`` as ``text``: one that is killed leaves the
    note, one that fails by itself takes it back. Its command is the operation's: who does that by hand notes nothing.
    """

    operation: Any
    path: str
    text: str

    @property
    def whole(self) -> bool:
        return getattr(self.operation, "whole", True)

    @property
    def command(self) -> str:
        command: str = self.operation.command
        return command


class FirstOf(NamedTuple):
    """Commands of which the next one is tried where one fails; those whose tools are not there are left out."""

    attempts: tuple[Run, ...]

    @property
    def whole(self) -> bool:
        return all(attempt.whole for attempt in self.attempts)

    @property
    def command(self) -> str:
        return " || ".join(attempt.command for attempt in self.attempts)


class MakeDirectory(NamedTuple):
    """Makes a directory with exactly this mode, and its parents (0755); an existing one is left alone.

    ``record`` is the file in which it is noted that we made it.
    """

    path: str
    mode: int
    record: str = ""

    @property
    def command(self) -> str:
        return shell("mkdir", "-p", "-m", format_mode(self.mode), self.path)


class SetPermissions(NamedTuple):
    """``follow``: a symbolic link stands for what it leads to; otherwise it is refused."""

    path: str
    mode: int | None = None
    owner: int | None = None
    group: int | None = None
    follow: bool = False

    @property
    def command(self) -> str:
        commands = []
        if self.owner is not None or self.group is not None:
            owner = "" if self.owner is None else self.owner
            group = "" if self.group is None else f":{self.group}"
            commands.append(shell("chown", f"{owner}{group}", self.path))
        if self.mode is not None:
            commands.append(shell("chmod", format_mode(self.mode), self.path))
        return " && ".join(commands)


class SetNocow(NamedTuple):
    """New files of a directory are not copied on write (btrfs(5))."""

    path: str

    @property
    def command(self) -> str:
        return shell("chattr", "+C", self.path)


class WriteFile(NamedTuple):
    """Replaces a whole file atomically: written beside it as PATH.new, synced, renamed over it. Its directory is made
    (0700) where it is not there."""

    path: str
    text: str
    mode: int = 0o600
    note: bool = False

    @property
    def command(self) -> str:
        return f"write {shlex.quote(self.path)}"


class WriteSecret(NamedTuple):
    """Keeps a secret as libvirt does, for root alone: its value in UUID.base64, and in UUID.xml what it is for, unless
    ``xml`` is empty: then only the value is another one. The value comes first, so that no object is without it.
    """

    directory: str
    uuid: str
    xml: str
    value: Secret

    @property
    def value_path(self) -> str:
        return f"{self.directory}/{self.uuid}.base64"

    @property
    def object_path(self) -> str:
        return f"{self.directory}/{self.uuid}.xml"

    @property
    def whole(self) -> bool:
        return not self.xml

    @property
    def command(self) -> str:
        paths = [self.value_path, *([self.object_path] if self.xml else [])]
        return f"write {' and '.join(map(shlex.quote, paths))}"


class NoteContent(NamedTuple):
    """Writes a note as WriteFile does, with what tells what a device holds by then in a second line."""

    path: str
    text: str
    node: str
    note: bool = True

    @property
    def command(self) -> str:
        return f"write {shlex.quote(self.path)}"


class MakeLink(NamedTuple):
    """Replaces a symbolic link atomically. Its directory is made (0700) where it is not there."""

    path: str
    target: str

    @property
    def command(self) -> str:
        return shell("ln", "-sfn", self.target, self.path)


class Remove(NamedTuple):
    """Unlinks one file or link; that it is gone already is no error."""

    path: str
    note: bool = False

    @property
    def command(self) -> str:
        return shell("rm", "-f", self.path)


class RemoveDirectory(NamedTuple):
    """Removes an empty directory; that it is gone already is no error."""

    path: str

    @property
    def command(self) -> str:
        return shell("rmdir", self.path)


class ScanUnits(NamedTuple):
    """Lets the kernel look for units of a SCSI host, or of one of its targets (``H:B:T``), and for the sizes of those
    that it has; waits until there is a device for each. Within the task's timeout. Fails where the volumes that are
    ``sought`` are not there then.
    """

    host: int
    target: str = ""
    sought: tuple[Sought, ...] = ()
    whole: bool = False

    @property
    def word(self) -> str:
        """Bus, target and unit."""
        return " ".join((*self.target.split(":")[1:], "-")) if self.target else "- - -"

    @property
    def command(self) -> str:
        scan = f"echo {shlex.quote(self.word)} > /sys/class/scsi_host/host{self.host}/scan"
        return f"{scan} && echo 1 | tee /sys/bus/scsi/devices/{self.target or self.host}:*/rescan"


class AskUnits(NamedTuple):
    """Asks an iSCSI target for its units, without the kernel. Fails where it does not tell them, or where the volumes
    that are ``sought`` are not among them. ``username`` and ``password`` are those that it wants to know, if any.
    """

    host: str
    port: int
    target: str
    initiator: str = ""
    username: str = ""
    password: Secret | None = None
    sought: tuple[Sought, ...] = ()
    note: bool = True  # nothing is different after it

    @property
    def argv(self) -> tuple[str, ...]:
        named = (f"--initiator-name={self.initiator}",) if self.initiator else ()
        return ("iscsi-ls", "--show-luns", *named, f"iscsi://{at_port(self.host, self.port)}")

    @property
    def command(self) -> str:
        return shell(*self.argv)


class ChangeVport(NamedTuple):
    """Creates or deletes a virtual Fibre Channel host on another one, by the names of its node and its port; a new one
    is there when that is done, with what units it has by then.
    """

    doing: str
    parent: int
    node: str
    port: str

    @property
    def word(self) -> str:
        return f"{self.port}:{self.node}"

    @property
    def command(self) -> str:
        return f"echo {self.word} > /sys/class/fc_host/host{self.parent}/vport_{self.doing}"


def discovery(portal: str) -> tuple[str, ...]:
    """The command that asks a portal (``HOST:PORT``) which targets it offers, and notes nothing of that."""
    return ("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal, "-o", "nonpersistent")


class LogIn(NamedTuple):
    """Logs in to a target of iSCSI at its portals (``HOST:PORT``), under the name ``initiator`` or the host's own: by
    the portal's word it has to be there, it gets the records that it lacks, and its units are waited for. What is noted
    of the records that we make is in the file ``records``. ``credentials``: lines for the record of each portal, which
    nobody but root reads. Where it fails, it takes back what it made. Within the task's timeout. Its command needs to
    know the interface, whether that is made, and which portals have a record (``recorded``); it has words of the shell
    in the place of passwords.
    """

    target: str
    portals: tuple[str, ...]
    records: str
    initiator: str = ""
    credentials: Secret | None = None
    iface: str = "default"
    makes_iface: bool = False
    recorded: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        return ("iscsiadm",)

    @property
    def command(self) -> str:
        commands = [command for portal in self.portals for command in self._commands(portal)]
        if self.makes_iface:
            iface = ("iscsiadm", "-m", "iface", "-I", self.iface, "-o")
            named = ("update", "-n", "iface.initiatorname", "-v", self.initiator)
            commands = [shell(*iface, "new"), shell(*iface, *named), *commands]
        return " && ".join(commands)

    def _commands(self, portal: str) -> list[str]:
        iface = ("-I", self.iface)
        node = ("iscsiadm", "-m", "node", "-T", self.target, "-p", portal, *iface)
        setting = shell(*node, "-o", "update", "-n")
        new = [shell(*node, "-o", "new"), f"{setting} node.startup -v manual"] if portal not in self.recorded else []
        given = [f"{setting} {name} -v {value}" for name, value in self._credentials()]
        return [shell(*discovery(portal), *iface), *new, *given, shell(*node, "--login")]

    def _credentials(self) -> Iterator[tuple[str, str]]:
        lines = self.credentials.data.decode("utf-8", "surrogateescape") if self.credentials is not None else ""
        for name, _equals, value in (line.partition(" = ") for line in lines.splitlines()):
            word = name.rpartition(".")[2]
            yield name, f'"${word.upper()}"' if word.startswith("password") else shlex.quote(value)


class LogOut(NamedTuple):
    """Ends a session with a target, by its number; that it is gone already is no error."""

    session: int
    target: str
    lets_go: bool = True

    @property
    def argv(self) -> tuple[str, ...]:
        return ("iscsiadm",)

    @property
    def command(self) -> str:
        return shell("iscsiadm", "-m", "session", "-r", self.session, "--logout")


class ForgetRecords(NamedTuple):
    """Removes the records of targets and interfaces that the file ``records`` names as made by us, but for those that
    somebody else uses by now.
    """

    target: str
    records: str
    note: bool = True

    @property
    def argv(self) -> tuple[str, ...]:
        return ("iscsiadm",)

    @property
    def command(self) -> str:
        return shell("iscsiadm", "-m", "node", "-T", self.target, "-o", "delete")


class OpenStaging(NamedTuple):
    """Makes the private directory in which volumes are prepared, or takes over and empties one whose owner is gone.
    ``inside``: the identity of the directory that it is made in, which must be that one still, and not what shows up
    when a mount goes away. As long as it is open, it can't. ``shared``: its filesystem shows what owner and mode it
    likes, so that these tell nothing. ``far``: it is on a server, which may take us for somebody else.
    """

    path: str
    inside: tuple[int, ...] = ()
    shared: bool = False
    far: bool = False

    @property
    def command(self) -> str:
        return shell("mkdir", "-m", "0700", self.path)


class CloseStaging(NamedTuple):
    """Removes the private directory with whatever is left in it, then syncs the directory it was in."""

    path: str

    @property
    def command(self) -> str:
        return shell("rm", "-r", self.path)


class MakeRaw(NamedTuple):
    """A new raw image: ``capacity`` bytes, the first ``allocation`` of them reserved on disk."""

    path: str
    capacity: int
    allocation: int = 0
    nocow: bool = False

    @property
    def command(self) -> str:
        commands = [shell("truncate", "-s", self.capacity, self.path)]
        if self.nocow:
            commands.insert(0, shell("touch", self.path) + " && " + shell("chattr", "+C", self.path))
        if self.allocation:
            commands.append(shell("fallocate", "-l", self.allocation, self.path))
        return " && ".join(commands)


class Reserve(NamedTuple):
    """Reserves disk space for the first ``allocation`` bytes of a file."""

    path: str
    allocation: int

    @property
    def command(self) -> str:
        return shell("fallocate", "-l", self.allocation, self.path)


class WriteContent(NamedTuple):
    """Inline content at the start of a new file of at least ``capacity`` bytes."""

    path: str
    data: bytes
    capacity: int

    @property
    def command(self) -> str:
        return f"write {len(self.data)} bytes to {shlex.quote(self.path)}"


class CopySparse(NamedTuple):
    """Copies a file or device with its holes, as a new file of at least ``size`` bytes."""

    source: str
    path: str
    size: int = 0

    @property
    def command(self) -> str:
        copy = shell("cp", "--sparse=always", self.source, self.path)
        return f"{copy} && {shell('truncate', '-s', f'>{self.size}', self.path)}" if self.size else copy


class Sync(NamedTuple):
    path: str
    note: bool = True  # nothing is different after it

    @property
    def command(self) -> str:
        return shell("sync", self.path)


class Publish(NamedTuple):
    """Gives a prepared file its name, and never replaces one that is there (link(2), RENAME_NOREPLACE)."""

    staged: str
    path: str

    @property
    def command(self) -> str:
        return shell("mv", "--no-clobber", self.staged, self.path)


class Exchange(NamedTuple):
    """Puts a prepared file in the place of the one that was looked at, and removes that one (RENAME_EXCHANGE)."""

    staged: str
    path: str
    identity: tuple[int, ...]

    @property
    def command(self) -> str:
        return shell("mv", self.staged, self.path)


class Withdraw(NamedTuple):
    """Takes a file out of the pool, makes sure that it is the one that was looked at, and removes it."""

    path: str
    staged: str
    identity: tuple[int, ...]

    @property
    def command(self) -> str:
        return shell("rm", self.path)


class Truncate(NamedTuple):
    """Sets the size of an existing raw image in place, which has ``was`` bytes until then."""

    path: str
    size: int
    identity: tuple[int, ...]
    was: int

    @property
    def command(self) -> str:
        return shell("truncate", "-s", self.size, self.path)


class Step(NamedTuple):
    """The operations of one change. ``needs`` are indices of earlier steps; ``always``: run after them whatever failed.
    ``after`` are those of steps that it must not run beside, whatever becomes of them.

    A step without a change prepares something for others; what it fails with, they fail with. ``seen``: so many of
    its operations, the last ones, are all that others see of it; what is before them works where nothing stays.
    """

    operations: tuple[Any, ...]
    change: Any = None
    needs: tuple[int, ...] = ()
    always: bool = False
    seen: int | None = None
    after: tuple[int, ...] = ()


class NoteDirectory(NamedTuple):
    """Notes in the file ``record`` that we made the directory."""

    path: str
    record: str
    note: bool = True

    @property
    def command(self) -> str:
        return f"note in {shlex.quote(self.record)} that {shlex.quote(self.path)} was made here"


class Taken(NamedTuple):
    """A device as it was looked at: its node, its identity (Device.identity), and what it holds (Content.facts; None:
    whatever it is).
    """

    node: str
    identity: tuple
    content: tuple | None = None


class MakeOn(NamedTuple):
    """Makes something on devices by ``argv``, or only wipes them, where all of them are still what was looked at, and
    nobody uses them: looked at under the lock that udev waits for, and held until the command begins. ``wipe``: what
    has a signature goes first. ``note`` is the file in which it is noted meanwhile, as ``noted``, that what is there is
    of our making. ``hint``: what to look at where the command fails.
    """

    devices: tuple[Taken, ...]
    argv: tuple[str, ...] = ()
    wipe: bool = False
    note: str = ""
    noted: str = ""
    hint: str = ""

    @property
    def whole(self) -> bool:
        return False

    @property
    def helper(self) -> str:
        return "wipefs" if self.wipe else ""

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(device.node for device in self.devices)

    @property
    def wiping(self) -> tuple[str, ...]:
        """--force: the devices are held by us."""
        return ("wipefs", "--all", "--force", "--quiet", "--", *self.nodes)

    @property
    def command(self) -> str:
        commands = [shell(*(word for word in self.wiping if word != "--force"))] if self.wipe else []
        return " && ".join([*commands, *([shell(*self.argv)] if self.argv else [])])


class ChangeTable(NamedTuple):
    """Changes the partition table of a disk, and tells the kernel of it, under the lock that udev waits for (flock(2)):
    a partition that is to be made anew is taken out of it by ``drop``, zeros are written to ``clear`` (offset, bytes),
    then ``content`` (bytes, or a command) from ``at`` on, last the table by ``argv``, which reads ``script``. Without
    ``argv`` the kernel is only told what the table says.

    ``disk`` is its node, ``label`` that of the table as it was looked at, empty where what is there does not count:
    then there is none after it but the one that ``argv`` makes, ``made``. ``was``: partitions (number, start, end) that
    must be there; ``free``: a region (start, end) that must be in none but these; ``unused``: whether the kernel must
    have none of them in use. Nobody may have the disk as a whole either, as far as that can be told: but for what is
    ``unseen``, which was known when it was decided. ``settle``: udev's links are waited for.
    """

    disk: str
    identity: tuple
    label: str = ""
    argv: tuple[str, ...] = ()
    script: str = ""
    clear: tuple[tuple[int, int], ...] = ()
    content: Any = None
    at: int = 0
    was: tuple[tuple[int, int, int], ...] = ()
    free: tuple[int, int] | None = None
    made: str = ""
    drop: tuple[str, ...] = ()
    unused: bool = False
    separator: bool | None = None
    settle: bool = False
    unseen: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return False

    @property
    def command(self) -> str:
        disk = shlex.quote(self.disk)
        commands = [shell(*self.drop)] if self.drop else []
        if self.clear:
            sizes = " and ".join(f"{size} bytes at {offset}" for offset, size in self.clear)
            commands.append(f"clear {sizes} of {disk}")
        if isinstance(self.content, bytes):
            commands.append(f"write {len(self.content)} bytes at {self.at} of {disk}")
        elif self.content:
            commands.append(shell(*self.content))
        if self.argv:
            commands.append((f"echo {shlex.quote(self.script)} | " if self.script else "") + shell(*self.argv))
        return " && ".join(commands) or shell("partx", "--update", self.disk)
