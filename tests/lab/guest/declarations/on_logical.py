# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random declarations of logical pools: volume groups on loop devices, read by pvs and lvs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

from .declaring import MIB, Declaring, bytes_of, content
from .machine import HELD, Disks, settle, tool
from .steps import Reading, Records, Seen, Task

EXTENT = 4 * MIB
NAMES = ("va", "vb")


class LogicalKind(Declaring):
    type = "logical"
    names = NAMES
    chance_of_change = 0.55

    def __init__(self, directory: Path) -> None:
        self.disks = Disks(directory, [64 * MIB, 64 * MIB, 48 * MIB])

    def clean(self) -> None:
        super().clean()
        for name in NAMES:
            shutil.rmtree(f"/dev/{name}", ignore_errors=True)

    # -- what is there --------------------------------------------------------------------------------------------

    def start(self, numbers: Random) -> str:
        first, second, third = self.disks.nodes
        kind = numbers.choice(("blank", "blank", "group", "group", "thin", "pv", "ext4", "gpt", "data"))
        if kind in ("group", "thin"):
            members = [first, second] if numbers.random() < 0.5 else [first]
            tool("vgcreate", "-q", NAMES[0], *members)
            tool("lvcreate", "-q", "-y", "-an" if numbers.random() < 0.3 else "-ay", "-L", "8M", "-n", "old", NAMES[0])
        if kind == "thin":
            tool("lvcreate", "-q", "-y", "--type", "thin-pool", "-L", "16M", "-n", "tp", NAMES[0])
            tool("lvcreate", "-q", "-y", "-V", "32M", "--thinpool", "tp", "-n", "thinold", NAMES[0])
        elif kind == "pv":
            tool("pvcreate", "-q", first)
        elif kind == "ext4":
            tool("mke2fs", "-q", "-F", "-t", "ext4", first)
        elif kind == "gpt":
            tool("sfdisk", "--quiet", first, text="label: gpt\nstart=2048,size=16384\n")
        elif kind == "data":
            self.disks.write(first, {5 * MIB: numbers.randbytes(4096)})
        other = numbers.choice(("blank", "blank", "swap", "other"))
        if other == "swap":
            tool("mkswap", third)
        elif other == "other":
            tool("vgcreate", "-q", NAMES[1], third)
        return f"{first}: {kind}, {second}: -, {third}: {other}"

    def hand(self, numbers: Random, reading: Reading) -> str:
        mapped = [volume for volume in reading.volumes.values() if volume.at]
        volumes = [volume for volume in reading.volumes.values() if volume.facts["kind"] == "linear"]
        if HELD in self.disks.mapped():
            tool("dmsetup", "remove", HELD)
            return "let go"
        kind = numbers.choice(
            ["swap"] + ["hold", "hold"] * bool(mapped) + ["remove", "deactivate", "extend"] * bool(volumes)
        )
        if kind == "hold":
            volume = numbers.choice(mapped)
            tool("dmsetup", "create", HELD, "--table", f"0 2048 linear {volume.facts['path']} 0", check=False)
        elif kind == "swap":
            free = [node for node in self.disks.nodes if node not in reading.facts["members"]]
            if not free:
                return "nothing"
            tool("mkswap", "-f", free[0], check=False)
            return f"mkswap {free[0]}"
        else:
            volume = numbers.choice(volumes)
            full = f"{volume.facts['pool']}/{volume.name}"
            words = {
                "remove": ["lvremove", "-q", "-y"],
                "deactivate": ["lvchange", "-an"],
                "extend": ["lvextend", "-q", "-L", "+4M"],
            }
            tool(*words[kind], full, check=False)
        return f"{kind} {volume.facts['pool']}/{volume.name}"

    def read(self) -> Reading:
        reading = Reading(facts={"groups": {}, "members": {}})
        for row in _rows("pvs", "pv", "pv_name,vg_name"):
            reading.facts["members"][row["pv_name"]] = row["vg_name"]
            if row["vg_name"]:
                reading.facts["groups"].setdefault(row["vg_name"], set()).add(row["pv_name"])
        fields = "vg_name,lv_name,lv_uuid,lv_size,lv_active,origin,origin_size,pool_lv,segtype,lv_dm_path"
        for row in _rows("lvs", "lv", fields) if reading.facts["groups"] else []:
            group = row["vg_name"]
            on = (group, *sorted(reading.facts["groups"].get(group, ())))
            reading.volumes[f"{group}/{row['lv_name']}"] = _seen(row, group, on)
        return reading

    def put(self, volume: Seen, marks: dict[int, bytes]) -> None:
        descriptor = os.open(volume.facts["path"], os.O_WRONLY)
        try:
            for offset, mark in marks.items():
                os.pwrite(descriptor, mark, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        settle()

    def get(self, volume: Seen, offset: int, size: int) -> bytes:
        if not volume.at:
            return b""
        descriptor = os.open(volume.facts["path"], os.O_RDONLY)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def scenario(self) -> list[Task]:
        """Tasks that follow each other, the last of which leaves nothing."""
        first, second, _third = self.disks.nodes
        pool = {"name": "va", "type": "logical", "source": {"name": "va", "devices": [first]}}
        more = {**pool, "source": {"name": "va", "devices": [first, second]}}
        made = (
            {"name": "l1", "capacity": "8MiB"},
            {"name": "l2", "capacity": "8MiB", "source": {"content": "content\n" * 1000}},
            {"name": "tp", "capacity": "16MiB", "format": "thin-pool"},
            {"name": "l3", "capacity": "32MiB", "options": {"thin_pool": "tp"}},
        )
        changed = ({"name": "l1", "capacity": "16MiB"}, {"name": "l4", "backing": "l2", "allocation": "4MiB"})
        gone = tuple({"name": name, "state": "absent"} for name in ("l2", "l4"))
        return [
            Task("storage_pool", {**pool, "autostart": True}),
            Task("storage_volume", {"pool": "va", "volumes": list(made)}, made),
            Task("storage_pool", more),
            Task("storage_volume", {"pool": "va", "volumes": list(changed)}, changed),
            Task("storage_volume", {"pool": "va", "volumes": list(gone)}, gone),
            Task("storage_pool", {"name": "va", "state": "inactive", "allow": ["stop_adopted"]}),
            Task("storage_pool", more),
            Task("storage_pool", {**more, "state": "deleted", "allow": ["nonempty", "stop_adopted"]}),
        ]

    # -- tasks ----------------------------------------------------------------------------------------------------

    def opening(self, numbers: Random) -> Task:
        """What mostly gives an active pool."""
        source = {"name": "va", "devices": self.disks.nodes[: numbers.choice((1, 2))]}
        return Task("storage_pool", {"name": "va", "type": "logical", "source": source, "allow": ["overwrite"]})

    def declared(self, numbers: Random, name: str) -> dict[str, Any]:
        first, second, third = self.disks.nodes
        source: dict[str, Any] = {"name": name}
        if name == NAMES[1]:
            devices = [[third], [third], [first]]
        else:
            devices = [[first], [first], [first, second], [first, second], [second], [first, second, third]]
        if numbers.random() < 0.9:
            source["devices"] = numbers.choice(devices)
        return {"source": source}

    def runs(self, name: str, reading: Reading, records: Records) -> bool:
        return name in records.started and name in reading.facts["groups"]

    def new(self, numbers: Random, where: str, there: list[Seen], taken: set[str]) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": numbers.choice(("l1", "l2", "l3", "l4"))}
        if numbers.random() < 0.1:
            return {**entry, "state": "absent"}
        entry["capacity"] = numbers.choice(("4MiB", "8MiB", "12MiB", "5000000", "40MiB", "1GiB"))
        pools = [volume.name for volume in there if volume.format == "thin-pool"]
        origins = [volume.name for volume in there if volume.format in ("linear", "thin")]
        kind = numbers.choice(("linear", "linear", "linear", "content", "thin-pool", "thin", "snapshot", "clone"))
        if kind == "content":
            entry["source"] = content(numbers)
        elif kind == "thin-pool":
            entry.update(name="tp", capacity="16MiB", format="thin-pool")
        elif kind == "thin" and pools:
            entry["options"] = {"thin_pool": pools[0]}
        elif kind == "snapshot" and origins:
            entry["backing"] = numbers.choice(origins)
            entry["allocation"] = entry.pop("capacity") if numbers.random() < 0.7 else "4MiB"
        elif kind == "clone" and origins:
            entry["source"] = {"volume": numbers.choice(origins)}
            entry.pop("capacity")
        return entry

    def same(self, numbers: Random, have: Seen) -> dict[str, Any]:
        return {"name": have.name, "capacity": str(have.size - numbers.choice((0, 0, 1, MIB)))}

    def change(self, numbers: Random, have: Seen) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": have.name}
        kind = numbers.choice((*["same"] * 3, *["grow", "shrink", "absent"] * 2, "recreate"))
        if kind == "absent":
            entry["state"] = "absent"
        elif kind == "same":
            entry = self.same(numbers, have)
        elif kind == "grow":
            entry["capacity"] = str(have.size + numbers.choice((1, EXTENT, 2 * EXTENT)))
        else:
            entry["capacity"] = str(max(EXTENT, have.size - EXTENT))
        if kind == "recreate":
            entry["recreate"] = "needed"
        allow = [word for word in ("shrink",) if numbers.random() < 0.5]
        allow += [word for word in ("in_use", "backing") if numbers.random() < 0.1]
        return {**entry, **({"allow": allow} if allow else {})}

    # -- what was declared ----------------------------------------------------------------------------------------

    def holds(self, task: Task, done: dict[str, Any], reading: Reading, records: Records) -> list[str]:
        left = [volume.name for volume in reading.volumes.values() if "virt-storage" in volume.name]
        return [f"half made: {left}"] * bool(left) + super().holds(task, done, reading, records)

    def _pool_holds(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        params, name = task.params, task.params["name"]
        state, group = params.get("state", "active"), reading.facts["groups"].get(name)
        wrong = []
        mine = [volume for volume in reading.volumes.values() if volume.facts["pool"] == name]
        if state == "active":
            if group is None:
                return [f"active, but there is no volume group {name}"]
            more = set(params.get("source", {}).get("devices", ())) - group
            wrong += [f"{', '.join(more)} are not in {name}"] * bool(more)
            usable = [volume for volume in mine if volume.facts["kind"] in ("linear", "thin")]
            wrong += [f"none of {name} is active"] * (bool(usable) and not any(v.facts["active"] for v in usable))
        if state == "deleted" and changed and group is not None:
            wrong.append(f"deleted, but {name} has {group}")
        return wrong

    def _volume_holds(self, entry: dict[str, Any], have: Seen, changed: bool) -> list[str]:
        wrong, name = [], entry["name"]
        want = bytes_of(entry["capacity"]) if "capacity" in entry and "backing" not in entry else have.size
        if not want <= have.size < want + EXTENT:
            wrong.append(f"{name} has {have.size} bytes, not {want}")
        if "format" in entry and have.format != entry["format"]:
            wrong.append(f"{name} is {have.format}")
        thin = entry.get("options", {}).get("thin_pool", "")
        if thin and have.facts["thin pool"] != thin:
            wrong.append(f"{name} is in the thin pool {have.facts['thin pool']}")
        if "backing" in entry and have.facts["origin"] != entry["backing"]:
            wrong.append(f"{name} is a snapshot of {have.facts['origin']}")
        return wrong + self._content_differs(entry, have)


def _rows(program: str, kind: str, fields: str) -> list[dict[str, str]]:
    told = tool(program, "--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields)
    rows: list[dict[str, str]] = json.loads(told)["report"][0][kind]
    return rows


def _seen(row: dict[str, str], group: str, on: tuple[str, ...]) -> Seen:
    active, kind, path = row["lv_active"] == "active", row["segtype"], row["lv_dm_path"]
    copying = row["origin"] and not row["pool_lv"]  # then its own size is the room that it has for differences
    return Seen(
        row["lv_name"],
        row["lv_uuid"],
        int(row["origin_size"] if copying else row["lv_size"]),
        kind,
        (path, 0) if active and kind != "thin-pool" else None,
        facts={
            "pool": group, "path": path, "origin": row["origin"], "thin pool": row["pool_lv"], "kind": kind,
            "active": active,
        },
        on=on,
    )  # fmt: skip
