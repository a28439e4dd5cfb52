# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Calls of a libvirt daemon, still data, as model/operations.py has what is done without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .operations import Secret, shell

if TYPE_CHECKING:
    from .volume import Sought

_BUILDING = {"first", "build", "directory"}  # a start that builds: see DaemonCall._start_command


class DaemonCall(NamedTuple):
    """A call of a libvirt daemon, by the name that virsh has for it (virsh(1)).

    ``words`` are virsh's options, ``value`` a size in bytes, ``data`` what is uploaded: bytes, or a path of this host.
    ``holds``: the names of the volumes that a pool must have once it was looked at anew, and how many bytes may be in
    use then, where that matters. ``sought``: volumes that it must have then, where it may have others. ``shown`` is
    what people see of the ``xml``, and ``told`` are options that may hold a password, which the daemon may print.
    """

    verb: str
    uri: str
    pool: str
    volume: str | None = None
    xml: str = ""
    words: tuple[str, ...] = ()
    value: int | None = None
    data: Any = None
    holds: tuple[tuple[str, ...], int | None] | None = None
    sought: tuple[Sought, ...] = ()
    shown: str = ""
    told: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """What formats or fills something may end halfway; of the rest a daemon takes back what failed."""
        return self.verb not in ("pool-build", "pool-delete", "vol-upload") and not _BUILDING & set(self.words)

    @property
    def command(self) -> str:
        if self.verb == "pool-start":
            return self._start_command()
        return self._virsh(self.verb, *self.words)

    def _virsh(self, verb: str, *words: str) -> str:
        subject = [self.pool] if self.volume is None else ["--pool", self.pool, self.volume]
        if verb == "pool-define":
            subject = ["/dev/stdin"]
        elif verb.startswith("vol-create"):
            subject = [self.pool, "/dev/stdin", *([] if self.volume is None else [self.volume])]
        value: list[object] = [] if self.value is None else [self.value]
        if self.data is not None:
            value = ["/dev/stdin" if isinstance(self.data, bytes) else self.data]
        text = shell("virsh", "-c", self.uri, verb, *subject, *value, *words)
        return f"{text} <<'XML'\n{self.shown or self.xml}XML" if self.xml else text

    def _start_command(self) -> str:
        """What is there is started; what is not is built first, over other content only where that is allowed."""
        start = self._virsh("pool-start")
        if "first" in self.words:
            return f"{self._virsh('pool-build')} && {start}"
        if not _BUILDING & set(self.words):
            return start
        build = self._virsh("pool-build", *(("--no-overwrite",) if "build" in self.words else ()))
        if "overwrite" in self.words:
            build = f"( {build} || {self._virsh('pool-build', '--overwrite')} )"
        return f"{start} || ( {build} && {start} )"


class SecretCall(NamedTuple):
    """A call of a libvirt daemon about a secret, by the name that virsh has for it; ``value`` is what it is to hold."""

    verb: str
    uri: str
    pool: str
    uuid: str
    xml: str = ""
    value: Secret | None = None

    @property
    def volume(self) -> None:
        return None

    @property
    def command(self) -> str:
        virsh = shell("virsh", "-c", self.uri, self.verb)
        if self.xml:
            return f"{virsh} /dev/stdin <<'XML'\n{self.xml}XML"
        return f"{virsh} {self.uuid}" + ("" if self.value is None else " --file /dev/stdin")
