# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The storage of the guest that random declarations meet: loop devices in memory, and what is on them.

``fingerprint`` tells whether anything changed at all, by contents and by the kernel's own lists: it is cheap, as tools
are not in a slow guest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.integration.declarations.watching import Entry, content_of, snapshot

from ..hosts import run

_BLKRRPART, BLKFLSBUF = 0x125F, 0x1261
HELD = "decl-holder"  # a device that hands use to hold others

Fingerprint = dict[str, object]


class Failed(Exception):
    """A tool that the test itself needs did not do what it was told."""


def tool(*words: str, text: str | None = None, check: bool = True) -> str:
    """What a tool of the test prints."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise Failed(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


class Disks:
    """Loop devices with partitions, on files in memory. What is mounted below ``top`` counts with them."""

    def __init__(self, directory: Path, sizes: list[int], top: str = "") -> None:
        self.top = top
        self.files: dict[str, Path] = {}
        for number, size in enumerate(sizes):
            file = directory / f"disk{number}"
            with file.open("wb") as stream:
                stream.truncate(size)
            node = run("losetup", "--partscan", "--find", "--show", str(file)).strip()
            self.files[node] = file
        self.nodes = list(self.files)
        self.sizes = dict(zip(self.nodes, sizes, strict=True))

    def detach(self) -> None:
        self.free()
        for node in self.nodes:
            run("losetup", "--detach", node, check=False)

    # -- looking --------------------------------------------------------------------------------------------------

    def mounts(self) -> list[tuple[str, str, str, str]]:
        """(source, path, type, options) of what is mounted below ``top`` or from one of the devices, in order."""
        found, mine = [], (*self.nodes, *(f"/dev/mapper/{name}" for name in self.mapped()))
        with open("/proc/self/mountinfo", encoding="utf-8") as stream:
            for line in stream:
                head, _dash, tail = line.partition(" - ")
                kind, source, _super = tail.split(" ")[:3]
                path = head.split(" ")[4]
                if (self.top and path.startswith(f"{self.top}/")) or _whole(source) in mine:
                    found.append((source, path, kind, head.split(" ")[5]))
        return found

    def _mapping(self) -> list[str]:
        """The directories of the devices of device-mapper that are built on ours."""
        below = {path: _entries(f"{path}/slaves") for path in glob.glob("/sys/block/dm-*")}
        mine, count = {os.path.basename(node) for node in self.nodes}, -1
        while count != len(mine):
            count = len(mine)
            mine |= {os.path.basename(path) for path, on in below.items() if {_whole(name) for name in on} & mine}
        return [path for path in below if os.path.basename(path) in mine]

    def mapped(self) -> dict[str, str]:
        """Devices of device-mapper: size, uuid and whether it is suspended, by name."""
        found = {}
        for directory in self._mapping():
            try:
                name, uuid, suspended = (
                    Path(directory, "dm", each).read_text().strip() for each in ("name", "uuid", "suspended")
                )
                found[name] = f"{Path(directory, 'size').read_text().strip()} {uuid} {suspended}"
            except OSError:
                continue
        return found

    def partitions(self) -> dict[str, str]:
        """What the kernel has as partitions of the devices: start and size in sectors, by name."""
        found = {}
        for node in self.nodes:
            name = os.path.basename(node)
            for directory in glob.glob(f"/sys/block/{name}/{name}p*"):
                start, size = (Path(directory, each).read_text().strip() for each in ("start", "size"))
                found[os.path.basename(directory)] = f"{start} {size}"
        return found

    def flush(self) -> None:
        """All that was written is in the files, and nothing old is remembered of the devices."""
        os.sync()
        for node in [*self.nodes, *(f"/dev/{name}" for name in self.partitions())]:
            descriptor = os.open(node, os.O_RDONLY)
            try:
                fcntl.ioctl(descriptor, BLKFLSBUF)
            finally:
                os.close(descriptor)

    def content(self, node: str) -> str:
        file = str(self.files[node])
        return content_of(file, os.stat(file))

    # -- changing -------------------------------------------------------------------------------------------------

    def blank(self) -> None:
        """As new: no users, no partitions, nothing but zeros."""
        self.free()
        self.flush()
        for node, file in self.files.items():
            os.truncate(file, 0)
            os.truncate(file, self.sizes[node])
            self.reread(node)
        self.flush()
        settle()

    def reread(self, node: str) -> None:
        """udev may be looking at a partition still."""
        for turn in range(20):
            try:
                self._reread(node)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or turn == 19:
                    raise
                settle()
                time.sleep(0.05)

    def _reread(self, node: str) -> None:
        descriptor = os.open(node, os.O_RDWR)
        try:
            fcntl.ioctl(descriptor, BLKFLSBUF)
            fcntl.ioctl(descriptor, _BLKRRPART)
        finally:
            os.close(descriptor)

    def free(self) -> None:
        for _source, path, _kind, _options in reversed(self.mounts()):
            tool("umount", path, check=False)
        with open("/proc/swaps", encoding="utf-8") as stream:
            for line in stream:
                if _whole(line.split()[0]) in self.nodes:
                    tool("swapoff", line.split()[0], check=False)
        for turn in range(8):
            names = self._tops()
            if not names:
                break
            tool("dmsetup", "remove", *["--force"] * (turn > 4), *names, check=False)

    def _tops(self) -> list[str]:
        """Devices of device-mapper on which no others are built."""
        found = [path for path in self._mapping() if not _entries(f"{path}/holders")]
        return [Path(path, "dm", "name").read_text().strip() for path in found]

    def write(self, node: str, marks: dict[int, bytes]) -> None:
        """Below the device: one that is opened for writing is looked at by udev when it is closed, which takes long."""
        with self.files[node].open("r+b") as stream:
            for offset, data in marks.items():
                stream.seek(offset)
                stream.write(data)
        self.flush()

    def read(self, node: str, offset: int, size: int) -> bytes:
        """From the file that the device is on, after a flush."""
        with self.files[node].open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)


def _entries(directory: str) -> set[str]:
    try:
        return set(os.listdir(directory))
    except OSError:  # it went away
        return set()


def _whole(device: str) -> str:
    """The loop device that a partition is of."""
    return re.sub(r"(loop\d+)p\d+$", r"\1", device)


# Rules that look for what is not here, in shell scripts, at each event; and the one that activates a volume group that
# appears: what is activated when is up to the test.
_RULES = ("69-lvm.rules", "69-vdev.rules", "69-bcache.rules", "60-zvol.rules", "90-zfs.rules")


@contextlib.contextmanager
def quick_udev() -> Iterator[None]:
    made = [Path("/etc/udev/rules.d", name) for name in _RULES]
    made = [path for path in made if not os.path.lexists(path)]
    for path in made:
        path.symlink_to("/dev/null")
    tool("udevadm", "control", "--reload")
    try:
        yield
    finally:
        for path in made:
            path.unlink()
        tool("udevadm", "control", "--reload")


def settle() -> None:
    tool("udevadm", "settle", "--timeout=20", check=False)


def fingerprint(disks: Disks, *tops: Path) -> Fingerprint:
    """Devices that are mounted count by the files on them, since the kernel writes to them when it likes."""
    disks.flush()
    mounts = disks.mounts()
    found: Fingerprint = {f"partition {name}": value for name, value in disks.partitions().items()}
    for node in disks.nodes:
        if not any(source == node or source.startswith(f"{node}p") for source, *_rest in mounts):
            found[f"content of {node}"] = disks.content(node)
    found.update({f"mapped {name}": value for name, value in disks.mapped().items()})
    found.update({f"mount {number}": mount for number, mount in enumerate(mounts)})
    for top in tops:
        found.update({f"{top}/{name}": value for name, value in (snapshot(top) if top.is_dir() else {}).items()})
    return found


def changes(before: Fingerprint, after: Fingerprint) -> dict[str, str]:
    """What differs, in words."""
    found = dict.fromkeys(before.keys() - after.keys(), "is gone")
    found.update(dict.fromkeys(after.keys() - before.keys(), "is new"))
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if old != new and isinstance(old, Entry) and isinstance(new, Entry):
            found[name] = "other " + ", ".join(
                f for f in Entry.__dataclass_fields__ if getattr(old, f) != getattr(new, f)
            )
        elif old != new:
            found[name] = f"was {old}, is {new}"
    return found
