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

from .machine import Disks, tool
from .steps import Canary, Reading, Records, Seen, Task

MIB = 2**20
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


class FilesKind:
    """``type`` and the methods below ``# --`` are those of each type."""

    type = ""
    disks: Disks
    tops: tuple[Path, ...] = (TOP,)

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
                mine = entry.path if kind == "raw" else ""
                reading.volumes[f"{pool}/{entry.name}"] = Seen(
                    entry.name, key, size, kind, file=mine,
                    facts={
                        "pool": pool, "path": entry.path, "mode": stat.S_IMODE(status.st_mode), "inode": status.st_ino,
                        "source": reading.facts["mounts"][path][0], "filesystem": filesystem,
                    },
                )  # fmt: skip
        return reading

    def put(self, volume: Seen, offset: int, mark: bytes) -> None:
        with open(volume.file, "r+b") as stream:
            stream.seek(offset)
            stream.write(mark)

    def get(self, volume: Seen, offset: int, size: int) -> bytes:
        with open(volume.facts["path"], "rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def hides(self, canary: Canary) -> bool:
        """Whether it is there still where nothing is mounted now."""
        raise NotImplementedError

    def scenario(self) -> list[Task]:
        """Tasks that follow each other, the last of which leaves nothing."""
        pool = {"name": "a", "type": self.type, "path": PATHS["a"], "source": self.made_source()}
        made = (
            {"name": "v1", "capacity": "2MiB"},
            {"name": "v2", "capacity": "2MiB", "format": "qcow2"},
            {"name": "v3", "capacity": "1MiB", "source": {"content": "content\n" * 1000}},
        )
        grown = ({"name": "v1", "capacity": "3MiB"}, {"name": "v3", "state": "absent"})
        again = {**pool, "mount_options": ["noatime"], "allow": ["restart"]}
        return [
            Task("storage_pool", {**pool, "autostart": True}),
            Task("storage_volume", {"pool": "a", "volumes": list(made)}, made),
            Task("storage_volume", {"pool": "a", "volumes": list(grown)}, grown),
            Task("storage_pool", again),
            Task("storage_pool", {"name": "a", "state": "inactive"}),
            Task("storage_pool", {"name": "a"}),
            Task("storage_pool", {**pool, "state": "deleted", "allow": ["nonempty"]}),
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
        file = numbers.choice(volumes).facts["path"]
        if kind == "remove":
            os.unlink(file)
        elif kind == "chmod":
            os.chmod(file, 0o640)
        elif header(file)[0] == "raw":
            os.truncate(file, os.stat(file).st_size + MIB)
        return f"{kind} {file}"

    def task(self, numbers: Random, reading: Reading, pools: dict[str, ElementTree.Element]) -> Task:
        name = NAMES[0] if numbers.random() < 0.8 else NAMES[1]
        active = PATHS[name] in reading.facts["mounts"]
        if not active and numbers.random() < 0.85:
            return self._pool(numbers, name, ("active", None, None, "present", "deleted", "inactive"))
        if numbers.random() < 0.4:
            return self._pool(numbers, name, (None, "active", "inactive", "absent", "deleted", "deleted", "present"))
        return self._volumes(numbers, name, reading)

    def _pool(self, numbers: Random, name: str, states: tuple[str | None, ...]) -> Task:
        params: dict[str, Any] = {"name": name}
        state = numbers.choice(states)
        if state is not None:
            params["state"] = state
        if state not in ("inactive", "absent") or numbers.random() < 0.3:
            other = NAMES[1 - NAMES.index(name)]
            params.update(type=self.type, path=PATHS[name if numbers.random() < 0.96 else other])
            params["source"] = self.source(numbers, name)
        if numbers.random() < 0.12:
            params["build"] = "never"
        if numbers.random() < 0.2:
            params["autostart"] = numbers.random() < 0.6
        if numbers.random() < 0.1 and "type" in params:
            params["mount_options"] = numbers.choice((["noatime"], ["sync"]))
        if numbers.random() < 0.1 and "type" in params:
            params["mode"] = numbers.choice(("0711", "0755"))
        allow = [word for word in ("overwrite", "nonempty", "stop_adopted") if numbers.random() < 0.4]
        allow += [word for word in ("in_use", "restart") if numbers.random() < 0.1]
        return Task("storage_pool", {**params, **({"allow": allow} if allow else {})})

    def _volumes(self, numbers: Random, pool: str, reading: Reading) -> Task:
        there = [volume for volume in reading.volumes.values() if volume.facts["pool"] == pool]
        entries: dict[str, dict[str, Any]] = {}
        for _each in range(numbers.choice((1, 1, 2, 3, 4))):
            if there and numbers.random() < 0.6:
                entry = self._change(numbers, numbers.choice(there))
            else:
                entry = self._new(numbers)
            entries.setdefault(entry["name"], entry)
        wanted = list(entries.values())
        params: dict[str, Any] = {"pool": pool}
        if numbers.random() < 0.12:
            params["exclusive"] = "*"
        if len(wanted) == 1 and "exclusive" not in params:
            params.update(wanted[0])
        else:
            params["volumes"] = wanted
        return Task("storage_volume", params, tuple(wanted))

    def _new(self, numbers: Random) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": numbers.choice(("v1", "v2", "v3", "v4"))}
        if numbers.random() < 0.12:
            return {**entry, "state": "absent"}
        entry["capacity"] = numbers.choice(("1MiB", "3MiB", "1000001", "2MiB"))
        if numbers.random() < 0.35:
            entry["format"] = "qcow2"
        elif numbers.random() < 0.2:
            entry["source"] = {"content": "content of a volume\n" * numbers.randint(1, 100)}
        if numbers.random() < 0.2:
            entry["mode"] = "0640"
        if numbers.random() < 0.05:
            entry["name"] = numbers.choice(("../v1", ".hidden", "-dash"))
        return entry

    def _change(self, numbers: Random, have: Seen) -> dict[str, Any]:
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

    def holds(self, task: Task, done: dict[str, Any], reading: Reading, records: Records) -> list[str]:
        if task.module == "storage_pool":
            return self._pool_holds(task, reading, records)
        return self._volumes_hold(task, done, reading)

    def _pool_holds(self, task: Task, reading: Reading, records: Records) -> list[str]:
        params, name = task.params, task.params["name"]
        pool = records.defined.get(name)
        words = self.words_of(pool) if pool is not None else params.get("source")
        path = params.get("path") or (pool is not None and pool.findtext("target/path"))
        if not path or not words:
            return []
        wrong = []
        for word, value in (params.get("source") or {}).items():
            if pool is not None and words.get(word) != value:
                wrong.append(f"the definition says {word} {words.get(word)}, declared is {value}")
        mount, state = reading.facts["mounts"].get(path), params.get("state", "active")
        mine = mount is not None and self.mounted_from(mount, words)
        if state == "active" and not mine:
            wrong.append(f"active, but on {path} is {mount}")
        if state in ("inactive", "deleted") and mine:
            wrong.append(f"{state}, but on {path} is {mount}")
        if state == "active" and "noatime" in params.get("mount_options", ()) and done_mounts(mount, "noatime"):
            wrong.append(f"mounted without noatime: {mount}")
        if "mode" in params and state == "active" and stat.S_IMODE(os.stat(path).st_mode) != int(params["mode"], 8):
            wrong.append(f"{path} has another mode than {params['mode']}")
        return wrong

    def _volumes_hold(self, task: Task, done: dict[str, Any], reading: Reading) -> list[str]:
        wrong = []
        pool = task.params["pool"]
        for entry in task.wanted:
            name, have = entry["name"], reading.volumes.get(f"{pool}/{entry['name']}")
            if (entry.get("state") == "absent") != (have is None):
                wrong.append(f"{name} is {'not ' * (have is None)}there")
            elif have is not None:
                wrong += self._volume_holds(entry, have, bool(done["changed"]))
        listed = {entry["name"] for entry in task.wanted}
        if "exclusive" in task.params:
            more = [v.name for v in reading.volumes.values() if v.facts["pool"] == pool and v.name not in listed]
            wrong += [f"beside what is listed there are {more}"] * bool(more)
        left = [name for name in os.listdir(PATHS[pool]) if name.endswith(".new")]
        return wrong + [f"left behind: {left}"] * bool(left)

    def _volume_holds(self, entry: dict[str, Any], have: Seen, changed: bool) -> list[str]:
        wrong, path = [], have.facts["path"]
        size, kind = have.size, have.format
        if changed and kind == "qcow2":
            told = json.loads(tool("qemu-img", "info", "-U", "--output=json", path))
            size, kind = told["virtual-size"], told["format"]
        want = _bytes(entry["capacity"]) if "capacity" in entry else size
        if not want <= size < want + (512 if kind == "qcow2" else 1):
            wrong.append(f"{path} has {size} bytes, not {want}")
        if entry.get("format", kind) != kind:
            wrong.append(f"{path} is {kind}")
        if "mode" in entry and have.facts["mode"] != int(entry["mode"], 8):
            wrong.append(f"{path} has mode {have.facts['mode']:o}")
        content = entry.get("source", {}).get("content", "").encode()
        if content and self.get(have, 0, len(content)) != content:
            wrong.append(f"{path} does not begin with its content")
        return wrong


def done_mounts(mount: tuple[str, str, str, str] | None, option: str) -> bool:
    return mount is not None and option not in mount[3].split(",")


def _name(entry: os.DirEntry) -> str:
    return entry.name


def _bytes(text: str) -> int:
    return int(text[:-3]) * MIB if text.endswith("MiB") else int(text)
