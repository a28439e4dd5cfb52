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

from .declaring import MIB, Declaring, bytes_of, content
from .machine import HELD, Disks, settle, tool
from .steps import Reading, Records, Seen, Task

FORMATS = ("none", "linux", "fat32", "linux-swap", "linux-lvm", "linux-raid")
TYPES = {
    "linux": {"83", "0FC63DAF-8483-4772-8E79-3D69D8477DE4"},
    "fat32": {"b", "c", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"},
    "linux-swap": {"82", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"},
    "linux-lvm": {"8e", "E6D6D379-F507-44C2-A23C-238F2A3DF928"},
    "linux-raid": {"fd", "A19D880F-05FC-4D3B-A006-743F0F84911E"},
    "extended": {"5", "f", "85"},
}


class DiskKind(Declaring):
    type = "disk"
    names = ("d", "other")

    def __init__(self, directory: Path) -> None:
        self.disks = Disks(directory, [96 * MIB, 64 * MIB])
        self.link = directory / "disk-a"
        self.link.symlink_to(self.disks.nodes[0])

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
            self.disks.write(node, {5 * MIB: numbers.randbytes(4096)})
        elif kind == "two":
            self._table(node, "label: dos\nstart=2048,size=16384\n")
            self.disks.write(node, {65536 + 64: b"_BHRfS_M"})
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
                stem, number = name.rpartition("p")[0] + "p", int(name.rpartition("p")[2])
                extended = table["label"] == "dos" and each["type"] in TYPES["extended"]
                start, size = each["start"] * 512, each["size"] * 512
                reading.volumes[f"{stem}/{name}"] = Seen(
                    name,
                    f"{node}@{start}",
                    size,
                    each["type"],
                    None if extended else (node, start),
                    facts={"pool": stem, "number": number, "extended": extended},
                    on=self._names_of(node),
                )
                shown = f"{each['start']} {2 if extended else each['size']}"
                if kernel.pop(name, None) != shown:
                    reading.facts.setdefault("kernel differs", []).append(name)
        if kernel:
            reading.facts.setdefault("kernel differs", []).extend(kernel)
        return reading

    def _names_of(self, node: str) -> tuple[str, ...]:
        return (node, str(self.link)) if node == self.disks.nodes[0] else (node,)

    def put(self, volume: Seen, marks: dict[int, bytes]) -> None:
        node, start = volume.at or ("", 0)
        self.disks.write(node, {start + offset: mark for offset, mark in marks.items()})

    def get(self, volume: Seen, offset: int, size: int) -> bytes:
        node, start = volume.at or ("", 0)
        return self.disks.read(node, start + offset, size)

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
            Task("storage_pool", {"name": "d", "state": "inactive", "allow": ["stop_adopted"]}),
            Task("storage_pool", pool),
            Task("storage_pool", {**pool, "state": "deleted", "allow": ["nonempty", "stop_adopted"]}),
        ]

    # -- tasks ----------------------------------------------------------------------------------------------------

    def opening(self, numbers: Random) -> Task:
        """What mostly gives an active pool."""
        source = {"device": self.disks.nodes[0], **numbers.choice(({}, {"format": "gpt"}, {"format": "dos"}))}
        pool = {"name": "d", "type": "disk", "path": "/dev", "source": source}
        return Task("storage_pool", {**pool, "allow": ["overwrite"]})

    def where(self, name: str, defined: dict[str, ElementTree.Element]) -> str:
        """What the names of its partitions begin with."""
        device = defined[name].find("source/device") if name in defined else None
        path = self.disks.nodes[0] if device is None else device.get("path", "")
        return os.path.basename(os.path.realpath(path)) + "p"

    def every(self, where: str) -> str:
        return f"{where}*"

    def declared(self, numbers: Random, name: str) -> dict[str, Any]:
        node = self.disks.nodes[0 if (name == self.names[0]) == (numbers.random() < 0.93) else 1]
        if node == self.disks.nodes[0] and numbers.random() < 0.2:
            node = str(self.link)
        source = {"device": node}
        label = numbers.choice((None, None, None, "gpt", "dos", "sun"))
        if label:
            source["format"] = label
        return {"path": "/dev", "source": source}

    def may(self, numbers: Random) -> list[str]:
        allow = [word for word in ("overwrite", "nonempty") if numbers.random() < 0.4]
        return allow + [word for word in ("in_use", "restart", "stop_adopted") if numbers.random() < 0.05]

    def new(self, numbers: Random, where: str, there: list[Seen], taken: set[str]) -> dict[str, Any]:
        free = next(number for number in range(1, 20) if f"{where}{number}" not in taken)
        number = free if numbers.random() < 0.85 else numbers.randint(1, 9)
        odd = numbers.choice(("data", f"{where}0", f"{where}x", "sda1"))
        name = f"{where}{number}" if numbers.random() < 0.95 else odd
        entry: dict[str, Any] = {"name": name, "capacity": f"{numbers.choice((1, 2, 5, 8, 12, 20, 60, 90))}MiB"}
        if numbers.random() < 0.1:
            entry["capacity"] = str(numbers.randint(1, 8 * MIB))
        if numbers.random() < 0.4:
            entry["format"] = numbers.choice((*FORMATS, "extended"))
        elif numbers.random() < 0.15:
            entry["source"] = content(numbers)
        if numbers.random() < 0.1:
            entry["state"] = "absent"
            entry.pop("capacity")
        return entry

    def same(self, numbers: Random, have: Seen) -> dict[str, Any]:
        return {"name": have.name, "capacity": str(have.size - numbers.choice((0, 0, 1, 511)))}

    def change(self, numbers: Random, have: Seen) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": have.name}
        kind = numbers.choice(
            ("same", "same", "grow", "grow", "shrink", "shrink", "absent", "absent", "format", "recreate")
        )
        if kind == "absent":
            entry["state"] = "absent"
        elif kind == "format":
            entry["format"] = numbers.choice(FORMATS)
        elif kind == "same":
            entry = self.same(numbers, have)
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
        return wrong + super().holds(task, done, reading, records)

    def _pool_holds(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        params = task.params
        state, source = params.get("state", "active"), params.get("source")
        pool = records.defined.get(params["name"])
        if source is None and pool is None:
            return []
        device = str(source["device"] if source else pool.find("source/device").get("path"))  # type: ignore[union-attr]
        label = (source or {}).get("format")
        wrong = []
        if pool is not None and source:
            said = str(pool.find("source/device").get("path"))  # type: ignore[union-attr]
            if os.path.realpath(said) != os.path.realpath(device):
                wrong.append(f"the definition has another device than {device}")
            if label and pool.find("source/format").get("type") != label:  # type: ignore[union-attr]
                wrong.append(f"the definition has another format than {label}")
        table = reading.facts[os.path.realpath(device)]
        if state == "active" and (table is None or label not in (None, table["label"])):
            wrong.append(f"active, but the table of {device} is {table and table['label']}")
        if state == "deleted" and changed and table is not None:
            wrong.append(f"deleted, but {device} has a {table['label']} table")
        return wrong

    def _volume_holds(self, entry: dict[str, Any], have: Seen, changed: bool) -> list[str]:
        wrong = []
        want = bytes_of(entry["capacity"]) if "capacity" in entry else have.size
        if not want <= have.size < want + MIB:
            wrong.append(f"{have.name} has {have.size} bytes, not {want}")
        kind = entry.get("format", "none")
        if kind != "none" and have.format not in TYPES[kind]:
            wrong.append(f"{have.name} has the type {have.format}, not {kind}")
        return wrong + self._content_differs(entry, have)
