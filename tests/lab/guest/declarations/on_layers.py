# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random declarations of pools on volumes of other pools: a volume group on a unit of an iSCSI target, a filesystem on
one of its volumes. Read by pvs, iscsiadm and lsblk; what is in a volume is read from the file that the unit is on, also
while nobody is logged in.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import shutil
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from ..iscsi_target import Target
from .declaring import MIB, Declaring, bytes_of, content
from .machine import BLKFLSBUF, HELD, Disks, settle, tool
from .on_iscsi import DATABASE, units
from .steps import Canary, Reading, Records, Seen, Task

LOW, MID, TOP = "low", "mid", "top"
TYPES = {LOW: "iscsi", MID: "logical", TOP: "fs"}
IQN, PORTAL = "iqn.2026-01.lab.test:layers", "127.0.0.1"
GROUP = "vlay"
EXTENT = 4 * MIB
ABOVE = Path("/srv/decl-layers")
PATH = str(ABOVE / "top")
VOLUME = {MID: f"{LOW}/unit:0:0:0", TOP: f"{MID}/data"}
_SUPERBLOCK, _MAGIC, _UUID = 1024, 0x38, 0x68  # ext4's, and what is where in it
_SEGMENT = "pv_name,vg_name,pe_start,pvseg_start,pvseg_size,lv_name,lv_uuid,lv_size,lv_active,seg_start,lv_dm_path"


class Segment(NamedTuple):
    """Where bytes of a volume are: at which offset of which unit. Bytes."""

    start: int
    size: int
    node: str
    at: int


def logged_in() -> dict[int, int]:
    """The SCSI host of each session, by its number."""
    found = {}
    for line in tool("iscsiadm", "-m", "session", check=False).splitlines():
        number = int(line.partition("[")[2].partition("]")[0])
        host = re.search(r"/host(\d+)/", os.path.realpath(f"/sys/class/iscsi_session/session{number}"))
        found[number] = int(host[1]) if host else -1
    return found


class Units(Disks):
    """The units of a target, by libvirt's names, on files in memory. They have devices while somebody is logged in;
    that counts with them.
    """

    def __init__(self, files: dict[str, Path], size: int) -> None:
        self.top, self.files, self.nodes = str(ABOVE), files, list(files)
        self.sizes = dict.fromkeys(files, size)

    def disks(self) -> dict[str, str]:
        """The kernel's names of the units, as sysfs has them: no process is started for that."""
        hosts = (re.search(r"/host(\d+)/", os.path.realpath(each)) for each in _sessions())
        return {f"unit:0:0:{lun}": disk for host in hosts if host for lun, (disk, _size) in units(int(host[1])).items()}

    def partitions(self) -> dict[str, str]:
        return {}

    def _mapping(self) -> list[str]:
        """All there are: what lies on a device that is gone would not be found by it."""
        return glob.glob("/sys/block/dm-*")

    def mapped(self) -> dict[str, str]:
        return {**super().mapped(), **{os.path.basename(each): f"{self.disks()}" for each in _sessions()}}

    def flush(self) -> None:
        os.sync()
        for disk in self.disks().values():
            descriptor = os.open(f"/dev/{disk}", os.O_RDONLY)
            try:
                fcntl.ioctl(descriptor, BLKFLSBUF)
            finally:
                os.close(descriptor)

    def content(self, node: str) -> str:
        """What is mounted is written to at any time: then it is what LVM knows that counts."""
        if not self.mounts():
            return super().content(node)
        return str(hash(self.read(node, 0, MIB)))

    def blank(self) -> None:
        self.free()
        tool("iscsiadm", "-m", "session", "--logout", check=False)
        for node, file in self.files.items():
            os.truncate(file, 0)
            os.truncate(file, self.sizes[node])
        settle()


def _sessions() -> list[str]:
    return sorted(glob.glob("/sys/class/iscsi_session/session*"))


class LayersKind(Declaring):
    type = "layers"
    names = (LOW, MID, TOP)
    tops = (DATABASE / "nodes", DATABASE / "ifaces", ABOVE)

    def __init__(self, directory: Path) -> None:
        tool("systemctl", "start", "iscsid")
        ABOVE.mkdir()
        self.target = Target(IQN, directory)
        for lun in (0, 1):
            self.target.serve(lun, 48 * MIB)
        self.target.up()
        self.disks = self.units = Units({f"unit:0:0:{lun}": self.target.file(lun) for lun in (0, 1)}, 48 * MIB)
        self.foreign: set[str] = set()  # layers that are up, and no task is known to have brought them up
        self.now = Reading()
        self.clean()

    def end(self) -> None:
        self.clean()
        self.target.end()
        ABOVE.rmdir()
        tool("systemctl", "stop", "iscsid.service", "iscsid.socket")

    def clean(self) -> None:
        self.disks.blank()
        tool("iscsiadm", "-m", "node", "-o", "delete", check=False)
        for directory in (f"/dev/{GROUP}", PATH):
            shutil.rmtree(directory, ignore_errors=True)
        self.foreign.clear()

    # -- what is there --------------------------------------------------------------------------------------------

    def _log_in(self) -> None:
        node = ("iscsiadm", "-m", "node", "-T", IQN, "-p", f"{PORTAL}:3260,1", "-I", "default")
        tool(*node, "-o", "new")
        tool(*node, "-o", "update", "-n", "node.startup", "-v", "manual")
        tool(*node, "--login")
        settle()
        self.foreign.add(LOW)

    def start(self, numbers: Random) -> str:
        kind = numbers.choice(("blank", "blank", "blank", "data", "in", "group", "filesystem"))
        if kind == "data":
            self.disks.write("unit:0:0:0", {5 * MIB: numbers.randbytes(4096)})
        if kind in ("in", "group", "filesystem"):
            self._log_in()
        if kind in ("group", "filesystem"):
            device = f"/dev/{self.units.disks()['unit:0:0:0']}"
            tool("vgcreate", "-q", GROUP, device)
            tool("lvcreate", "-q", "-y", "-L", "16M", "-n", "data", GROUP)
        if kind == "filesystem":
            tool("mke2fs", "-q", "-F", "-t", "ext4", f"/dev/{GROUP}/data")
        return kind

    def groundwork(self, numbers: Random) -> list[Task]:
        """Mostly more than one layer is there: four tasks alone would seldom come so far."""
        return self._stack()[: numbers.choice((0, 1, 2, 3, 3, 4, 4, 5))]

    def _stack(self) -> list[Task]:
        """Each layer on the one below. Marks are on what is taken, which is as good as anybody's data."""
        logical = ({"name": "data", "capacity": "16MiB"}, {"name": "l1", "capacity": "4MiB"})
        file = ({"name": "v1", "capacity": "1MiB"},)
        return [
            Task("storage_pool", {"name": LOW, "type": "iscsi", **_declared(LOW)}),
            Task("storage_pool", {"name": MID, "type": "logical", **_declared(MID), "allow": ["overwrite"]}),
            Task("storage_volume", {"pool": MID, "volumes": list(logical)}, logical),
            Task("storage_pool", {"name": TOP, "type": "fs", **_declared(TOP), "allow": ["overwrite"]}),
            Task("storage_volume", {"pool": TOP, **file[0]}, file),
        ]

    def hand(self, numbers: Random, reading: Reading) -> str:
        volumes = [each for each in reading.volumes.values() if each.facts["pool"] == MID]
        mounted = {mount[0] for mount in self.disks.mounts()}
        idle = [each for each in volumes if each.facts["path"] not in mounted]
        mapped = [each for each in volumes if each.facts["active"]]
        if HELD in self.disks.mapped():
            tool("dmsetup", "remove", HELD)
            return "let go"
        kinds = ["log in"] if not reading.facts["sessions"] else ["log out"] * (not self.units._mapping())
        kinds += ["hold"] * bool(mapped) + ["remove", "deactivate"] * bool(idle) + ["make"] * bool(volumes)
        kind = numbers.choice([*kinds, "nothing"])
        if kind == "log in":
            self._log_in()
        elif kind == "log out":
            tool("iscsiadm", "-m", "session", "--logout")
            self.foreign.discard(LOW)
        elif kind == "make":
            tool("lvcreate", "-q", "-y", "-an", "-L", "4M", "-n", "l2", GROUP, check=False)
        elif kind != "nothing":
            volume = numbers.choice(mapped if kind == "hold" else idle)
            words = {
                "hold": ["dmsetup", "create", HELD, "--table", f"0 2048 linear {volume.facts['path']} 0"],
                "remove": ["lvremove", "-q", "-y", f"{GROUP}/{volume.name}"],
                "deactivate": ["lvchange", "-an", f"{GROUP}/{volume.name}"],
            }
            tool(*words[kind], check=False)
            return f"{kind} {volume.name}"
        return kind

    def forgotten(self) -> None:
        self.foreign = {LOW} if self.units.disks() else set()
        self.foreign |= {TOP} if self._mount() else set()

    def _mount(self) -> tuple[str, str, str, str] | None:
        return next((mount for mount in self.disks.mounts() if mount[1] == PATH), None)

    def read(self) -> Reading:
        mount = self._mount()
        reading = self.now = Reading(facts={"sessions": logged_in(), "mount": mount, "members": {}})
        self.foreign -= ({LOW} if not reading.facts["sessions"] else set()) | ({TOP} if mount is None else set())
        disks = {f"/dev/{disk}": node for node, disk in self.units.disks().items()}
        volumes = _read_group(disks, reading.facts["members"]) if disks else {}
        for name, volume in volumes.items():
            reading.volumes[f"{MID}/{name}"] = self._with_filesystem(volume)
        for device, node in disks.items():
            at = None if device in reading.facts["members"] else (node, 0)
            on = (IQN, device, *_links(device))
            facts = {"pool": LOW, "segments": [Segment(0, self.disks.sizes[node], node, 0)]}
            reading.volumes[f"{LOW}/{node}"] = Seen(node, node, self.disks.sizes[node], at=at, facts=facts, on=on)
        if mount is not None:
            self._read_files(mount[0], reading)
        return reading

    def _with_filesystem(self, volume: Seen) -> Seen:
        uuid = self._uuid(volume.facts["segments"])
        return Seen(
            volume.name, volume.key, volume.size, "linear", None if uuid else volume.at,
            facts={**volume.facts, "filesystem": uuid}, on=volume.on,
        )  # fmt: skip

    def _uuid(self, segments: list[Segment]) -> str:
        block = self._below(segments, _SUPERBLOCK, 1024)
        return block[_UUID : _UUID + 16].hex() if block[_MAGIC : _MAGIC + 2] == b"\x53\xef" else ""

    def _read_files(self, source: str, reading: Reading) -> None:
        within = reading.volumes[f"{MID}/{source.removeprefix(f'/dev/mapper/{GROUP}-')}"]
        for entry in os.scandir(PATH):
            status = entry.stat(follow_symlinks=False)
            if entry.is_file(follow_symlinks=False):
                key = f"{within.facts['filesystem']}:{status.st_ino}"
                reading.volumes[f"{TOP}/{entry.name}"] = Seen(
                    entry.name, key, status.st_size, "raw", file=entry.path,
                    facts={"pool": TOP, "segments": within.facts["segments"], "uuid": within.key},
                    on=within.on, within=within.name,
                )  # fmt: skip

    def put(self, volume: Seen, marks: dict[int, bytes]) -> None:
        if volume.file:
            with open(volume.file, "r+b") as stream:
                for offset, mark in marks.items():
                    stream.seek(offset)
                    stream.write(mark)
            return
        for offset, mark in marks.items():
            each = _segment(volume.facts["segments"], offset)
            self.disks.write(each.node, {each.at + offset - each.start: mark})
        if volume.facts.get("active"):  # what it has in memory is old
            descriptor = os.open(volume.facts["path"], os.O_RDONLY)
            fcntl.ioctl(descriptor, BLKFLSBUF)
            os.close(descriptor)

    def get(self, volume: Seen, offset: int, size: int) -> bytes:
        if volume.file:
            with open(volume.file, "rb") as stream:
                stream.seek(offset)
                return stream.read(size)
        return self._below(volume.facts["segments"], offset, size)

    def _below(self, segments: list[Segment], offset: int, size: int) -> bytes:
        each = _segment(segments, offset)
        return self.disks.read(each.node, each.at + offset - each.start, size)

    def hides(self, canary: Canary) -> bool:
        """Not logged in, or not mounted. What can be seen is seen as it is."""
        volume, segments = canary.volume, canary.volume.facts["segments"]
        sessions, mount = self.now.facts["sessions"], self.now.facts["mount"]
        if volume.file:
            on = any(each.key == volume.facts["uuid"] for each in self.now.volumes.values())
            same = self._uuid(segments) == volume.key.partition(":")[0]
            return mount is None and same and (on or not sessions)
        return not sessions and self._below(segments, canary.offset, len(canary.mark)) == canary.mark

    def unforeseen(self, error: dict[str, Any]) -> bool:
        """Which units there are, only asking tells: a layer that is named in vain is seen before."""
        told = error["message"]
        return error["code"] == "source_missing" and "unit:" in told and "there is no volume" not in told

    # -- tasks ----------------------------------------------------------------------------------------------------

    def scenario(self) -> list[Task]:
        """All is made from the bottom up, and taken away from the top down."""
        gone = ["nonempty", "stop_adopted"]
        grown = ({"name": "l1", "capacity": "8MiB"},)
        whole = {name: {"name": name, "type": kind, **_declared(name)} for name, kind in TYPES.items()}
        return [
            *self._stack(),
            Task("storage_volume", {"pool": MID, **grown[0]}, grown),
            Task("storage_pool", {**whole[TOP], "state": "deleted", "allow": gone}),
            Task("storage_pool", {**whole[MID], "state": "deleted", "allow": gone}),
            Task("storage_pool", {"name": LOW, "state": "absent", "allow": gone}),
        ]

    def opening(self, numbers: Random) -> Task:
        """What mostly gives a layer more, or says one that is there."""
        return numbers.choice(self._stack()[:4])

    def kind_of(self, name: str) -> str:
        return TYPES[name]

    def pick(self, numbers: Random) -> str:
        return numbers.choice((LOW, LOW, MID, MID, MID, TOP, TOP))

    def pick_settled(self, numbers: Random, running: list[str]) -> str:
        return numbers.choice(running)

    def declared(self, numbers: Random, name: str) -> dict[str, Any]:
        declared = _declared(name)
        chance = numbers.random()
        if name == LOW and chance < 0.2:
            declared["path"] = numbers.choice(("/dev/disk/by-path", "/dev/disk/by-id", "/srv"))
        elif name == MID and chance < 0.3:
            path = f"/dev/disk/by-path/ip-{PORTAL}:3260-iscsi-{IQN}-lun-0"
            other: tuple[dict[str, Any], ...] = (
                {},
                {"device": path},
                {"volume": f"{LOW}/unit:0:0:{1 if chance < 0.1 else 9}"},
            )
            declared["source"] = {"name": GROUP, **numbers.choice(other)}
        elif name == TOP and chance < 0.3:
            source = numbers.choice(
                ({"device": f"/dev/{GROUP}/data"}, {"volume": f"{MID}/l1"}, {"volume": f"{MID}/no"})
            )
            declared["source"] = {**source, "format": "ext4"}
        return declared

    def may(self, numbers: Random) -> list[str]:
        """Never ``in_use``: with it the target goes away below what is on it, as it says."""
        allow = [word for word in ("overwrite", "nonempty", "stop_adopted") if numbers.random() < 0.4]
        return allow + ["restart"] * (numbers.random() < 0.2)

    def every(self, where: str) -> str:
        return "unit:*" if where == LOW else "*"

    def new(self, numbers: Random, where: str, there: list[Seen], taken: set[str]) -> dict[str, Any]:
        names = {LOW: ("unit:0:0:9",), MID: ("data", "l1", "l2"), TOP: ("v1", "v2")}[where]
        entry: dict[str, Any] = {"name": numbers.choice(names)}
        if numbers.random() < 0.12:
            return {**entry, "state": "absent"}
        sizes = {LOW: ("48MiB",), MID: ("4MiB", "8MiB", "16MiB", "1GiB"), TOP: ("1MiB", "2MiB")}[where]
        entry["capacity"] = numbers.choice(sizes)
        if where != LOW and numbers.random() < 0.2:
            entry["source"] = content(numbers)
        return entry

    def change(self, numbers: Random, have: Seen) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": have.name}
        kind = numbers.choice(("same", "same", "grow", "shrink", "absent", "absent", "recreate"))
        step = MIB if have.facts["pool"] == TOP else EXTENT
        if kind == "absent":
            return {**entry, "state": "absent"}
        if kind == "recreate":
            entry["recreate"] = "needed"
        entry["capacity"] = str({"grow": have.size + step, "same": have.size}.get(kind, max(step, have.size - step)))
        return {**entry, **({"allow": ["shrink"]} if numbers.random() < 0.5 else {})}

    # -- what was declared ----------------------------------------------------------------------------------------

    def runs(self, name: str, reading: Reading, records: Records) -> bool:
        up = {LOW: reading.facts["sessions"], MID: reading.facts["members"], TOP: reading.facts["mount"]}
        return name in records.started and bool(up[name])

    def holds(self, task: Task, done: dict[str, Any], reading: Reading, records: Records) -> list[str]:
        wrong = self._stands(reading) + super().holds(task, done, reading, records)
        left = [name for name in _names(reading) if "virt-storage" in name or name.endswith(".new")]
        return wrong + [f"half made: {left}"] * bool(left)

    def _stands(self, reading: Reading) -> list[str]:
        """What is on a layer has that below it, as the kernel tells."""
        mapped = [name for name in self.disks.mapped() if name.startswith(f"{GROUP}-")]
        if mapped and not reading.facts["sessions"]:
            return [f"{mapped} are there, but nobody is logged in"]
        mount = reading.facts["mount"]
        if mount is None:
            return []
        (tree,) = json.loads(tool("lsblk", "--json", "--inverse", "--output", "NAME,TYPE,MOUNTPOINT", mount[0]))[
            "blockdevices"
        ]
        below = {each["type"] for each in tree.get("children", ())}
        wrong = tree["type"] != "lvm" or tree["mountpoint"] != PATH or below != {"disk"}
        return [f"{mount} is mounted, of which lsblk says {tree}"] * wrong

    def _pool_holds(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        params, name, state = task.params, task.params["name"], task.params.get("state", "active")
        source = params.get("source") or {}
        if name == LOW:
            return self._low_holds(state, reading, records)
        if name == MID:
            return self._mid_holds(state, source, changed, reading)
        return self._top_holds(state, source, changed, reading)

    def _low_holds(self, state: str, reading: Reading, records: Records) -> list[str]:
        there = reading.facts["sessions"]
        wrong = [f"active, and there are {len(there)} sessions"] * (state == "active" and len(there) != 1)
        stray = there and LOW not in records.started and LOW not in self.foreign
        return wrong + [f"still logged in: {there}"] * bool(stray)

    def _mid_holds(self, state: str, source: dict[str, Any], changed: bool, reading: Reading) -> list[str]:
        members = set(reading.facts["members"].values())
        if state == "deleted" and changed:
            return [f"deleted, but {GROUP} has {members}"] * bool(members)
        if state != "active":
            return []
        wrong = [f"active, but there is no group {GROUP}"] * (not members)
        unit = source.get("volume", "").partition("/")[2]
        wrong += [f"{unit} is not in {GROUP}, but {members}"] * bool(unit and unit not in members)
        volumes = [each for each in reading.volumes.values() if each.facts["pool"] == MID]
        return wrong + ["none of it is active"] * (bool(volumes) and not any(v.facts["active"] for v in volumes))

    def _top_holds(self, state: str, source: dict[str, Any], changed: bool, reading: Reading) -> list[str]:
        mount = reading.facts["mount"]
        name = (source.get("volume") or source.get("device") or "/").rpartition("/")[2]
        if state == "active":
            wrong = mount is None or mount[2] != "ext4" or (name and mount[0] != f"/dev/mapper/{GROUP}-{name}")
            return [f"active, but on {PATH} is {mount}"] * bool(wrong)
        if state in ("inactive", "deleted") and mount is not None and TOP not in self.foreign:
            return [f"{state}, but on {PATH} is {mount}"]
        have = reading.volumes.get(f"{MID}/{name}")
        left = state == "deleted" and changed and have is not None and have.facts["filesystem"]
        return [f"deleted, but {name} has a filesystem"] * bool(left)

    def _volume_holds(self, entry: dict[str, Any], have: Seen, changed: bool) -> list[str]:
        want = bytes_of(entry["capacity"]) if "capacity" in entry else have.size
        room = EXTENT if have.facts["pool"] == MID else 1
        wrong = [f"{have.name} has {have.size} bytes, not {want}"] * (not want <= have.size < want + room)
        return wrong + self._content_differs(entry, have)


def _declared(name: str) -> dict[str, Any]:
    if name == LOW:
        return {"source": {"host": PORTAL, "iqn": IQN}}
    if name == MID:
        return {"source": {"name": GROUP, "volume": VOLUME[MID]}}
    return {"path": PATH, "source": {"volume": VOLUME[TOP], "format": "ext4"}}


def _names(reading: Reading) -> list[str]:
    return [volume.name for volume in reading.volumes.values()]


def _links(device: str) -> list[str]:
    """Its other names."""
    return [each for each in glob.glob("/dev/disk/by-*/*") if os.path.realpath(each) == device]


def _segment(segments: list[Segment], offset: int) -> Segment:
    return next(each for each in segments if each.start <= offset < each.start + each.size)


def _read_group(disks: dict[str, str], members: dict[str, str]) -> dict[str, Seen]:
    """The volumes of the group by their names; ``members`` gets its units by their devices."""
    told = tool("pvs", "--segments", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", _SEGMENT)
    found: dict[str, Seen] = {}
    for row in json.loads(told)["report"][0]["pvseg"]:
        if row["vg_name"] != GROUP or row["pv_name"] not in disks:
            continue
        node = members[row["pv_name"]] = disks[row["pv_name"]]
        if not row["lv_name"]:
            continue
        have = found.setdefault(row["lv_name"], _volume(row, tuple(disks)))
        at = int(row["pe_start"]) + int(row["pvseg_start"]) * EXTENT
        have.facts["segments"].append(Segment(int(row["seg_start"]), int(row["pvseg_size"]) * EXTENT, node, at))
    return found


def _volume(row: dict[str, str], devices: tuple[str, ...]) -> Seen:
    name, path = row["lv_name"], row["lv_dm_path"]
    facts = {"pool": MID, "path": path, "active": row["lv_active"] == "active", "segments": []}
    on = (GROUP, path, f"/dev/{GROUP}/{name}", *devices)
    return Seen(name, row["lv_uuid"], int(row["lv_size"]), "linear", ("", 0), facts=facts, on=on)
