# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random declarations of disk pools: partition tables and partitions, read by sfdisk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

from .machine import Disks, settle, tool
from .steps import Canary, Reading, Records, Seen, Task

MIB = 2**20
NAMES = ("d", "other")
FORMATS = ("none", "linux", "fat32", "linux-swap", "linux-lvm", "linux-raid")
TYPES = {
    "linux": {"83", "0FC63DAF-8483-4772-8E79-3D69D8477DE4"},
    "fat32": {"b", "c", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"},
    "linux-swap": {"82", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"},
    "linux-lvm": {"8e", "E6D6D379-F507-44C2-A23C-238F2A3DF928"},
    "linux-raid": {"fd", "A19D880F-05FC-4D3B-A006-743F0F84911E"},
    "extended": {"5", "f", "85"},
}
HELD = "decl-holder"


class DiskKind:
    type = "disk"

    def __init__(self, directory: Path) -> None:
        self.disks = Disks(directory, [96 * MIB, 64 * MIB])
        self.tops: tuple[Path, ...] = ()
        self.links = directory / "links"
        self.links.mkdir()
        (self.links / "disk-a").symlink_to(self.disks.nodes[0])

    # -- what is there --------------------------------------------------------------------------------------------

    def start(self, numbers: Random) -> str:
        told = [self._stock(numbers, self.disks.nodes[0], ("blank", "blank", "gpt", "gpt", "dos", "ext4", "data"))]
        told.append(self._stock(numbers, self.disks.nodes[1], ("blank", "gpt", "swap", "two")))
        return ", ".join(told)

    def _stock(self, numbers: Random, node: str, kinds: tuple[str, ...]) -> str:
        kind = numbers.choice(kinds)
        if kind == "gpt":
            self._table(node, "label: gpt\nstart=2048,size=16384\nstart=40960,size=20480,type=swap\n")
        elif kind == "dos":
            script = (
                "label: dos\nstart=2048,size=16384\nstart=20480,size=102400,type=5\n"
                "start=22528,size=16384\nstart=43008,size=16384\nstart=63488,size=12288\n"
            )
            self._table(node, script)
        elif kind == "ext4":
            tool("mke2fs", "-q", "-F", "-t", "ext4", node)
        elif kind == "swap":
            tool("mkswap", node)
        elif kind == "data":
            self.disks.write(node, 5 * MIB, numbers.randbytes(4096))
        elif kind == "two":
            self._table(node, "label: dos\nstart=2048,size=16384\n")
            self.disks.write(node, 65536 + 64, b"_BHRfS_M")
        return f"{node} {kind}"

    def _table(self, node: str, script: str) -> None:
        tool("sfdisk", "--quiet", "--wipe", "always", node, text=script)
        settle()

    def hand(self, numbers: Random, reading: Reading) -> str:
        node = self.disks.nodes[0]
        mine = [volume for volume in reading.volumes.values() if volume.key.startswith(node)]
        kinds = ["append", "destroy"]
        kinds += ["remove", "swap", "hold", "hold", "resize"] * bool(mine) + ["let go"] * 3 * (
            HELD in self.disks.mapped()
        )
        kind = numbers.choice(kinds)
        if kind == "let go" or HELD in self.disks.mapped():
            tool("dmsetup", "remove", HELD)
            return "let go"
        volume = numbers.choice(mine) if mine else None
        if volume is None or kind == "append":
            tool("sfdisk", "--quiet", "--append", node, text=f",{numbers.randint(2, 8)}M\n", check=False)
            return "sfdisk --append"
        number = str(volume.facts["number"])
        if kind == "destroy":
            tool("wipefs", "--quiet", "--all", "--force", node)
            self.disks.reread(node)
        elif kind == "remove":
            tool("sfdisk", "--quiet", "--delete", node, number)
        elif kind == "resize":
            tool("sfdisk", "--quiet", "-N", number, node, text=",4M\n", check=False)
        elif kind == "swap":
            tool("mkswap", f"/dev/{volume.name}", check=False)
        else:
            tool("dmsetup", "create", HELD, "--table", f"0 2048 linear /dev/{volume.name} 0", check=False)
        return f"{kind} {volume.name}"

    def read(self) -> Reading:
        reading = Reading()
        kernel = self.disks.partitions()
        for node in self.disks.nodes:
            text = tool("sfdisk", "--json", node, check=False)
            table = json.loads(text)["partitiontable"] if text else None
            reading.facts[node] = table
            for each in table.get("partitions", []) if table else []:
                name = os.path.basename(each["node"])
                extended = table["label"] == "dos" and each["type"] in TYPES["extended"]
                start, size = each["start"] * 512, each["size"] * 512
                reading.volumes[name] = Seen(
                    name,
                    f"{node}@{start}",
                    size,
                    each["type"],
                    None if extended else (node, start),
                    facts={"number": int(name.rpartition("p")[2]), "extended": extended},
                )
                shown = f"{each['start']} {2 if extended else each['size']}"
                if kernel.pop(name, None) != shown:
                    reading.facts.setdefault("kernel differs", []).append(name)
        if kernel:
            reading.facts.setdefault("kernel differs", []).extend(kernel)
        return reading

    def put(self, volume: Seen, offset: int, mark: bytes) -> None:
        node, start = volume.at or ("", 0)
        self.disks.write(node, start + offset, mark)

    def get(self, volume: Seen, offset: int, size: int) -> bytes:
        node, start = volume.at or ("", 0)
        return self.disks.read(node, start + offset, size)

    def clean(self) -> None:
        self.disks.blank()

    def end(self) -> None:
        self.disks.detach()

    def hides(self, canary: Canary) -> bool:
        return False

    def scenario(self) -> list[Task]:
        """Tasks that follow each other, the last of which leaves nothing."""
        node = self.disks.nodes[0]
        stem = os.path.basename(node) + "p"
        pool = {"name": "d", "type": "disk", "source": {"device": node, "format": "gpt"}, "path": "/dev"}
        made = (
            {"name": f"{stem}1", "capacity": "8MiB"},
            {"name": f"{stem}2", "capacity": "8MiB", "format": "linux-swap"},
            {"name": f"{stem}3", "capacity": "8MiB", "source": {"content": "content\n" * 1000}},
        )
        grown = ({"name": f"{stem}3", "capacity": "12MiB"},)
        gone = tuple({"name": f"{stem}{number}", "state": "absent"} for number in (1, 2))
        return [
            Task("storage_pool", {**pool, "autostart": True}),
            Task("storage_volume", {"pool": "d", "volumes": list(made)}, made),
            Task("storage_volume", {"pool": "d", "volumes": list(grown)}, grown),
            Task("storage_volume", {"pool": "d", "volumes": list(gone)}, gone),
            Task("storage_pool", {"name": "d", "state": "inactive"}),
            Task("storage_pool", pool),
            Task("storage_pool", {**pool, "state": "deleted", "allow": ["nonempty"]}),
        ]

    # -- tasks ----------------------------------------------------------------------------------------------------

    def opening(self, numbers: Random) -> Task:
        """What mostly gives an active pool."""
        source = {"device": self.disks.nodes[0], **numbers.choice(({}, {"format": "gpt"}, {"format": "dos"}))}
        return Task(
            "storage_pool", {"name": "d", "type": "disk", "path": "/dev", "source": source, "allow": ["overwrite"]}
        )

    def task(self, numbers: Random, reading: Reading, pools: dict[str, ElementTree.Element]) -> Task:
        name = NAMES[0] if numbers.random() < 0.85 else NAMES[1]
        if name not in pools and numbers.random() < 0.9:
            return self._pool(numbers, name, ("active", None, "present", "deleted"))
        if numbers.random() < 0.35:
            return self._pool(numbers, name, (None, "active", "inactive", "absent", "deleted", "deleted", "present"))
        return self._volumes(numbers, name, reading, pools)

    def _pool(self, numbers: Random, name: str, states: tuple[str | None, ...]) -> Task:
        params: dict[str, Any] = {"name": name}
        state = numbers.choice(states)
        if state is not None:
            params["state"] = state
        if state not in ("inactive", "absent") or numbers.random() < 0.3:
            node = self.disks.nodes[0 if (name == NAMES[0]) == (numbers.random() < 0.93) else 1]
            if node == self.disks.nodes[0] and numbers.random() < 0.2:
                node = str(self.links / "disk-a")
            params.update(type="disk", path="/dev", source={"device": node})
            label = numbers.choice((None, None, None, "gpt", "dos", "sun"))
            if label:
                params["source"]["format"] = label
        if numbers.random() < 0.15:
            params["build"] = "never"
        if numbers.random() < 0.2:
            params["autostart"] = numbers.random() < 0.6
        allow = [word for word in ("overwrite", "nonempty") if numbers.random() < 0.4]
        allow += [word for word in ("in_use", "restart", "stop_adopted") if numbers.random() < 0.05]
        return Task("storage_pool", {**params, **({"allow": allow} if allow else {})})

    def _volumes(self, numbers: Random, pool: str, reading: Reading, pools: dict[str, ElementTree.Element]) -> Task:
        path = pools[pool].find("source/device").get("path") if pool in pools else self.disks.nodes[0]  # type: ignore[union-attr]
        node = os.path.realpath(path or "")
        stem = os.path.basename(node) + "p"
        there = [volume for volume in reading.volumes.values() if volume.name.startswith(stem)]
        new = [number for number in range(1, 9) if f"{stem}{number}" not in reading.volumes]
        entries: dict[str, dict[str, Any]] = {}
        for _each in range(numbers.choice((1, 1, 2, 3, 4))):
            if there and numbers.random() < 0.55:
                entry = self._change(numbers, numbers.choice(there))
            else:
                entry = self._new(numbers, stem, new)
            entries.setdefault(entry["name"], entry)
        params: dict[str, Any] = {"pool": pool}
        wanted = list(entries.values())
        if numbers.random() < 0.12:
            params["exclusive"] = f"{stem}*"
        if len(wanted) == 1 and "exclusive" not in params:
            params.update(wanted[0])
        else:
            params["volumes"] = wanted
        return Task("storage_volume", params, tuple(wanted))

    def _new(self, numbers: Random, stem: str, new: list[int]) -> dict[str, Any]:
        number = new.pop(0) if numbers.random() < 0.85 else numbers.randint(1, 9)
        name = (
            f"{stem}{number}" if numbers.random() < 0.95 else numbers.choice(("data", f"{stem}0", f"{stem}x", "sda1"))
        )
        entry: dict[str, Any] = {"name": name, "capacity": f"{numbers.choice((1, 2, 5, 8, 12, 20, 60, 90))}MiB"}
        if numbers.random() < 0.1:
            entry["capacity"] = str(numbers.randint(1, 8 * MIB))
        if numbers.random() < 0.4:
            entry["format"] = numbers.choice((*FORMATS, "extended"))
        elif numbers.random() < 0.15:
            entry["source"] = {"content": "content of a new partition\n" * numbers.randint(1, 100)}
        if numbers.random() < 0.1:
            entry["state"] = "absent"
            entry.pop("capacity")
        return entry

    def _change(self, numbers: Random, have: Seen) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": have.name}
        kind = numbers.choice(
            ("same", "same", "grow", "grow", "shrink", "shrink", "absent", "absent", "format", "recreate")
        )
        if kind == "absent":
            entry["state"] = "absent"
        elif kind == "format":
            entry["format"] = numbers.choice(FORMATS)
        elif kind == "same":
            entry["capacity"] = str(have.size - numbers.choice((0, 0, 1, 511)))
        elif kind == "grow":
            entry["capacity"] = str(have.size + numbers.choice((1, 1, 2, 30)) * MIB)
        else:
            entry["capacity"] = str(max(MIB, have.size - numbers.choice((1, 2, 4)) * MIB))
        if kind == "recreate":
            entry["recreate"] = "needed"
        allow = ["shrink"] if numbers.random() < 0.5 else []
        allow += ["in_use"] if numbers.random() < 0.05 else []
        return {**entry, **({"allow": allow} if allow else {})}

    # -- what was declared ----------------------------------------------------------------------------------------

    def holds(self, task: Task, done: dict[str, Any], reading: Reading, records: Records) -> list[str]:
        differs = reading.facts.get("kernel differs", []) if done["changed"] and task.module == "storage_volume" else []
        wrong = [f"the kernel and the table differ on {', '.join(differs)}"] if differs else []
        return wrong + (self._pool_holds if task.module == "storage_pool" else self._volumes_hold)(
            task, reading, records
        )

    def _pool_holds(self, task: Task, reading: Reading, records: Records) -> list[str]:
        params = task.params
        state, source = params.get("state", "active"), params.get("source")
        pool = records.defined.get(params["name"])
        if source is None and pool is None:
            return []
        device = source["device"] if source else pool.find("source/device").get("path")  # type: ignore[union-attr]
        label = (source or {}).get("format")
        wrong = []
        if pool is not None and source:
            if pool.find("source/device").get("path") != device:  # type: ignore[union-attr]
                wrong.append(f"the definition has another device than {device}")
            if label and pool.find("source/format").get("type") != label:  # type: ignore[union-attr]
                wrong.append(f"the definition has another format than {label}")
        table = reading.facts[os.path.realpath(device)]
        if state == "active" and (table is None or label not in (None, table["label"])):
            wrong.append(f"active, but the table of {device} is {table and table['label']}")
        if state == "deleted" and table is not None:
            wrong.append(f"deleted, but {device} has a {table['label']} table")
        return wrong

    def _volumes_hold(self, task: Task, reading: Reading, records: Records) -> list[str]:
        wrong = []
        for entry in task.wanted:
            name, have = entry["name"], reading.volumes.get(entry["name"])
            if entry.get("state") == "absent":
                if have is not None:
                    wrong.append(f"{name} is there")
                continue
            if have is None:
                wrong.append(f"{name} is not there")
                continue
            want = _bytes(entry["capacity"]) if "capacity" in entry else have.size
            if not want <= have.size < want + MIB:
                wrong.append(f"{name} has {have.size} bytes, not {want}")
            kind = entry.get("format", "none")
            if kind != "none" and have.format not in TYPES[kind]:
                wrong.append(f"{name} has the type {have.format}, not {kind}")
            content = entry.get("source", {}).get("content", "").encode()
            if content and have.at and self.disks.read(have.at[0], have.at[1], len(content)) != content:
                wrong.append(f"{name} does not begin with its content")
        pattern = task.params.get("exclusive", "")
        listed = {entry["name"] for entry in task.wanted}
        more = [name for name in reading.volumes if pattern and name.startswith(pattern[:-1]) and name not in listed]
        return wrong + ([f"beside what is listed there are {more}"] if more else [])


def _bytes(text: str) -> int:
    return int(text[:-3]) * MIB if text.endswith("MiB") else int(text)
