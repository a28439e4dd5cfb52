# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random declarations of pools that are mounted, whose volumes are files: what fs and netfs share."""

from __future__ import annotations

import json
import os
import stat
import struct
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

from . import qcow2
from .declaring import MIB, Declaring, by_path, bytes_of, content
from .machine import tool
from .steps import Reading, Records, Seen, Task

TOP = Path("/srv/decl")
NAMES = ("a", "b")
PATHS = {name: str(TOP / f"pool-{name}") for name in NAMES}


def header(path: str) -> tuple[str, int]:
    """Format and size that a guest sees (QEMU: interop/qcow2.txt). What a task made is looked at by qemu-img."""
    with open(path, "rb") as stream:
        begin = stream.read(32)
    if begin[:4] == b"QFI\xfb" and len(begin) == 32:
        return "qcow2", struct.unpack(">Q", begin[24:32])[0]
    return "raw", os.stat(path).st_size


class FilesKind(Declaring):
    names = NAMES
    tops = (TOP,)
    chance_of_change = 0.6
    foreign: frozenset[str] = frozenset()  # paths on which no task is known to have mounted what is mounted there

    def source(self, numbers: Random, name: str) -> dict[str, Any]:
        raise NotImplementedError

    def words_of(self, pool: ElementTree.Element) -> dict[str, Any]:
        """What a definition says of its source."""
        raise NotImplementedError

    def mounted_from(self, mount: tuple[str, str, str, str], words: dict[str, Any]) -> bool:
        raise NotImplementedError

    def filesystem(self, path: str) -> object:
        """What tells the filesystem on a path from one that takes its place."""
        return None

    # -- what is there --------------------------------------------------------------------------------------------

    def mounts(self) -> dict[str, tuple[str, str, str, str]]:
        """The topmost mount on each path of a pool."""
        return {mount[1]: mount for mount in self.disks.mounts() if mount[1] in PATHS.values()}

    def mounted(self, path: str) -> None:
        """By hand."""
        self.foreign |= {path}

    def forgotten(self) -> None:
        self.foreign |= self.mounts().keys()

    def stock(self, numbers: Random, directory: str) -> None:
        """Volumes that nobody here made."""
        if numbers.random() < 0.7:
            Path(directory, "old.raw").write_bytes(b"old content " * 1000)
            os.truncate(Path(directory, "old.raw"), 2 * MIB)
        if numbers.random() < 0.3:
            tool("qemu-img", "create", "-q", "-f", "qcow2", str(Path(directory, "old.qcow2")), "4M")
        if numbers.random() < 0.1:
            os.mkfifo(Path(directory, "fifo"))

    def read(self) -> Reading:
        reading = Reading(facts={"mounts": self.mounts()})
        self.foreign &= reading.facts["mounts"].keys()
        for pool, path in PATHS.items():
            if path not in reading.facts["mounts"]:
                continue
            filesystem = self.filesystem(path)
            for entry in sorted(os.scandir(path), key=_name):
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    continue
                kind, size = header(entry.path)
                key = f"{reading.facts['mounts'][path][0]}:{status.st_ino}"
                reading.volumes[f"{pool}/{entry.name}"] = Seen(
                    entry.name, key, size, kind, file=entry.path,
                    facts={
                        "pool": pool, "mode": stat.S_IMODE(status.st_mode), "inode": status.st_ino,
                        "source": reading.facts["mounts"][path][0], "filesystem": filesystem,
                    },
                    on=self.names_of(reading.facts["mounts"][path][0]),
                )  # fmt: skip
        return reading

    def put(self, volume: Seen, marks: dict[int, bytes]) -> None:
        if volume.format == "qcow2":
            qcow2.write(volume.file, marks)
            return
        with open(volume.file, "r+b") as stream:
            for offset, mark in marks.items():
                stream.seek(offset)
                stream.write(mark)

    def get(self, volume: Seen, offset: int, size: int) -> bytes:
        return self.bytes_in(volume.file, volume.format, offset, size)

    def bytes_in(self, path: str, kind: str, offset: int, size: int) -> bytes:
        """What a guest would read there."""
        with open(path, "rb") as stream:
            if kind == "qcow2":
                return qcow2.read(stream, offset, size)
            stream.seek(offset)
            return stream.read(size)

    def names_of(self, source: str) -> tuple[str, ...]:
        """What a plan may call what is mounted."""
        return (source,)

    def scenario(self) -> list[Task]:
        """Tasks that follow each other, the last of which leaves nothing."""
        pool = {"name": "a", "type": self.type, "path": PATHS["a"], "source": self.made_source()}
        made = (
            {"name": "v1", "capacity": "2MiB"},
            {"name": "v2", "capacity": "2MiB", "format": "qcow2"},
            {"name": "v3", "capacity": "1MiB", "source": {"content": "content\n" * 1000}},
        )
        grown = ({"name": "v1", "capacity": "3MiB"}, {"name": "v3", "state": "absent"})
        again = {**pool, "mount_options": ["noatime"], "allow": ["restart", "stop_adopted"]}
        return [
            Task("storage_pool", {**pool, "autostart": True}),
            Task("storage_volume", {"pool": "a", "volumes": list(made)}, made),
            Task("storage_volume", {"pool": "a", "volumes": list(grown)}, grown),
            Task("storage_pool", again),
            Task("storage_pool", {"name": "a", "state": "inactive", "allow": ["stop_adopted"]}),
            Task("storage_pool", {"name": "a"}),
            Task("storage_pool", {**pool, "state": "deleted", "allow": ["nonempty", "stop_adopted"]}),
        ]

    def made_source(self) -> dict[str, Any]:
        raise NotImplementedError

    # -- tasks ----------------------------------------------------------------------------------------------------

    def opening(self, numbers: Random) -> Task:
        """What mostly gives an active pool."""
        pool = {"name": "a", "type": self.type, "path": PATHS["a"], "source": self.made_source()}
        return Task("storage_pool", {**pool, "allow": ["overwrite"]})

    def hand_on_files(self, numbers: Random, reading: Reading) -> str:
        volumes = list(reading.volumes.values())
        path = numbers.choice(list(reading.facts["mounts"]) or [""])
        kind = numbers.choice(["file", "fifo", "remove", "grow", "chmod"])
        if not path:
            return "nothing"
        if kind in ("file", "fifo") or not volumes:
            new = f"{path}/{numbers.choice(('v1', 'v2', 'found'))}"
            if not os.path.lexists(new):
                if kind == "fifo":
                    os.mkfifo(new)
                else:
                    Path(new).write_bytes(b"by hand\n" * 1000)
            return f"{kind} {new}"
        file = numbers.choice(volumes).file
        if kind == "remove":
            os.unlink(file)
        elif kind == "chmod":
            os.chmod(file, 0o640)
        elif header(file)[0] == "raw":
            os.truncate(file, os.stat(file).st_size + MIB)
        return f"{kind} {file}"

    def declared(self, numbers: Random, name: str) -> dict[str, Any]:
        path = PATHS[name if numbers.random() < 0.96 else NAMES[1 - NAMES.index(name)]]
        return {"path": path, "source": self.source(numbers, name)}

    def where(self, name: str, defined: dict[str, ElementTree.Element]) -> str:
        path = defined[name].findtext("target/path") if name in defined else None
        return next((each for each in NAMES if PATHS[each] == path), name)

    def runs(self, name: str, reading: Reading, records: Records) -> bool:
        return name in records.started and PATHS[self.where(name, records.defined)] in reading.facts["mounts"]

    def more(self, numbers: Random, whole: bool) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if numbers.random() < 0.1 and whole:
            more["mount_options"] = numbers.choice((["noatime"], ["sync"]))
        if numbers.random() < 0.1 and whole:
            more["mode"] = numbers.choice(("0711", "0755"))
        return more

    def new(self, numbers: Random, where: str, there: list[Seen], taken: set[str]) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": numbers.choice(("v1", "v2", "v3", "v4"))}
        if numbers.random() < 0.12:
            return {**entry, "state": "absent"}
        entry["capacity"] = numbers.choice(("1MiB", "3MiB", "1000001", "2MiB"))
        if numbers.random() < 0.35:
            entry["format"] = "qcow2"
        elif numbers.random() < 0.2:
            entry["source"] = content(numbers)
        if numbers.random() < 0.2:
            entry["mode"] = "0640"
        if numbers.random() < 0.08:
            entry["name"] = numbers.choice(("../v1", ".hidden", "-dash"))
        return entry

    def same(self, numbers: Random, have: Seen) -> dict[str, Any]:
        entry = super().same(numbers, have)
        return {**entry, "format": "qcow2"} if have.format == "qcow2" else entry

    def change(self, numbers: Random, have: Seen) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": have.name}
        kind = numbers.choice(("same", "same", "same", "grow", "shrink", "absent", "mode", "recreate"))
        if have.format == "qcow2" and kind != "absent" and numbers.random() < 0.9:
            entry["format"] = "qcow2"
        if kind == "absent":
            entry["state"] = "absent"
        elif kind == "mode":
            entry["mode"] = numbers.choice(("0600", "0640"))
        elif kind == "same":
            entry["capacity"] = str(have.size)
        elif kind == "grow":
            entry["capacity"] = str(have.size + MIB)
        else:
            entry["capacity"] = str(max(512 * 1024, have.size - MIB))
        if kind == "recreate":
            entry["recreate"] = "needed"
        return {**entry, **({"allow": ["shrink"]} if numbers.random() < 0.5 else {})}

    # -- what was declared ----------------------------------------------------------------------------------------

    def _pool_holds(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        params, name = task.params, task.params["name"]
        pool = records.defined.get(name)
        words = self.words_of(pool) if pool is not None else params.get("source")
        path = params.get("path") or (pool is not None and pool.findtext("target/path"))
        if not path or not words:
            return []
        wrong = []
        for word, value in (params.get("source") or {}).items():
            if pool is not None and not _same(word, words.get(word), by_path(value)):
                wrong.append(f"the definition says {word} {words.get(word)}, declared is {value}")
        mount, state = reading.facts["mounts"].get(path), params.get("state", "active")
        mine = mount is not None and self.mounted_from(mount, words)
        if state == "active" and not mine:
            wrong.append(f"active, but on {path} is {mount}")
        if state in ("inactive", "deleted") and mine and not (state == "inactive" and path in self.foreign):
            wrong.append(f"{state}, but on {path} is {mount}")
        adopted = path in self.foreign  # its options stay as they are
        declared = () if adopted or state != "active" else params.get("mount_options", ())
        if "noatime" in declared and done_mounts(mount, "noatime"):
            wrong.append(f"mounted without noatime: {mount}")
        if "mode" in params and state == "active" and stat.S_IMODE(os.stat(path).st_mode) != int(params["mode"], 8):
            wrong.append(f"{path} has another mode than {params['mode']}")
        return wrong

    def _volumes_hold(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        path = PATHS[self.where(task.params["pool"], records.defined)]
        left = [name for name in os.listdir(path) if name.endswith(".new")]
        return [f"left behind: {left}"] * bool(left) + super()._volumes_hold(task, changed, reading, records)

    def _volume_holds(self, entry: dict[str, Any], have: Seen, changed: bool) -> list[str]:
        wrong, path = [], have.file
        size, kind = have.size, have.format
        if changed and kind == "qcow2":
            told = json.loads(tool("qemu-img", "info", "-U", "--output=json", path))
            size, kind = told["virtual-size"], told["format"]
        want = bytes_of(entry["capacity"]) if "capacity" in entry else size
        if not want <= size < want + (512 if kind == "qcow2" else 1):
            wrong.append(f"{path} has {size} bytes, not {want}")
        if entry.get("format", kind) != kind:
            wrong.append(f"{path} is {kind}")
        if "mode" in entry and have.facts["mode"] != int(entry["mode"], 8):
            wrong.append(f"{path} has mode {have.facts['mode']:o}")
        return wrong + self._content_differs(entry, have)


def _same(word: str, said: object, declared: str) -> bool:
    """A definition keeps the path by which it says a device."""
    return said == declared or (word == "device" and os.path.realpath(str(said)) == os.path.realpath(declared))


def done_mounts(mount: tuple[str, str, str, str] | None, option: str) -> bool:
    return mount is not None and option not in mount[3].split(",")


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
