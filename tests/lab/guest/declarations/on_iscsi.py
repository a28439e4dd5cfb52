# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random declarations of iscsi pools: two targets of the guest's own kernel, on loop devices. Sessions are read from
sysfs, records from the files of open-iscsi.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from xml.etree import ElementTree

from ..iscsi_target import Target
from .declaring import MIB, Declaring, bytes_of
from .machine import Disks, settle, tool
from .steps import Canary, Reading, Records, Seen, Task

NAMES = ("a", "b")
IQNS = {name: f"iqn.2026-01.lab.test:{name}{name}" for name in NAMES}
NONE = "iqn.2026-01.lab.test:none"
INITIATOR = "iqn.2026-01.lab.test:guests"
PORTALS = ("127.0.0.1", "127.0.0.2")
LUNS = (0, 1, 2)  # the last one is served only at times
DATABASE = Path("/etc/iscsi")
TOPS = (DATABASE / "nodes", DATABASE / "ifaces")


class Login(NamedTuple):
    """A session, by what tells it from others. Without ``own`` it is that of the host's own name."""

    iqn: str
    portal: str
    own: bool


def sessions() -> dict[Login, tuple[int, int]]:
    """The number of each session and that of its SCSI host."""
    found = {}
    for path in glob.glob("/sys/class/iscsi_session/session*"):
        number = int(path.rpartition("session")[2])
        try:
            iqn, name = (Path(path, each).read_text().strip() for each in ("targetname", "initiatorname"))
            at = Path(f"/sys/class/iscsi_connection/connection{number}:0/persistent_address").read_text().strip()
        except OSError:
            continue
        host = re.search(r"/host(\d+)/", os.path.realpath(path))
        assert host is not None
        found[Login(iqn, at, name == INITIATOR)] = (number, int(host[1]))
    return found


class Served(Disks):
    """What is logged in to, and which units there are of that, counts with the devices."""

    def partitions(self) -> dict[str, str]:
        return {}

    def mapped(self) -> dict[str, str]:
        found = {}
        for login, (number, host) in sessions().items():
            found[f"session {login}"] = f"{number} {sorted(units(host))}"
        return found

    def _tops(self) -> list[str]:
        return []


def units(host: int) -> dict[int, tuple[str, int]]:
    """Name and size in bytes of the disk of each unit."""
    found = {}
    for path in glob.glob(f"/sys/bus/scsi/devices/{host}:0:0:*/block/*"):
        lun = int(path.split("/")[5].rpartition(":")[2])
        found[lun] = (os.path.basename(path), int(Path(path, "size").read_text()) * 512)
    return found


class IscsiKind(Declaring):
    type = "iscsi"
    names = NAMES
    tops = TOPS
    chance_of_change = 0.8

    def __init__(self, directory: Path) -> None:
        tool("systemctl", "start", "iscsid")
        self.disks = Served(directory, [8 * MIB, 12 * MIB, 16 * MIB, 8 * MIB, 12 * MIB, 16 * MIB])
        self.nodes = {(n, lun): self.disks.nodes[3 * index + lun] for index, n in enumerate(NAMES) for lun in LUNS}
        self.targets = {name: Target(IQNS[name], directory, *(f"{p}:3260" for p in PORTALS)) for name in NAMES}
        for name, target in self.targets.items():
            for lun in LUNS[:2]:
                target.serve_device(lun, self.nodes[name, lun])
            target.up()
        self.foreign: set[Login] = set()  # sessions that no task has begun
        self.mounted = ""
        self.clean()

    def end(self) -> None:
        self.clean()
        for target in self.targets.values():
            target.end()
        self.disks.detach()
        tool("systemctl", "stop", "iscsid.service", "iscsid.socket")

    def clean(self) -> None:
        self._let_go()
        tool("iscsiadm", "-m", "session", "--logout", check=False)
        tool("iscsiadm", "-m", "node", "-o", "delete", check=False)
        for path in TOPS[1].glob("*"):
            path.unlink()
        self.foreign.clear()
        for name, target in self.targets.items():
            if LUNS[2] in target.served:
                target.withdraw(LUNS[2])
            for lun in LUNS:
                file = self.disks.files[self.nodes[name, lun]]
                file.write_bytes(b"")
                os.truncate(file, self.disks.sizes[self.nodes[name, lun]])
        self.disks.flush()
        settle()

    def _let_go(self) -> None:
        if self.mounted:
            tool("umount", self.mounted, check=False)
            self.mounted = ""

    # -- what is there --------------------------------------------------------------------------------------------

    def _login(self, name: str, portal: str, startup: str = "manual") -> None:
        node = ("iscsiadm", "-m", "node", "-T", IQNS[name], "-p", f"{portal}:3260,1", "-I", "default")
        tool(*node, "-o", "new")
        tool(*node, "-o", "update", "-n", "node.startup", "-v", startup)
        tool(*node, "--login", check=False)
        self.foreign.add(Login(IQNS[name], portal, False))
        settle()

    def start(self, numbers: Random) -> str:
        told = []
        for name in NAMES:
            kind = numbers.choice(("nothing", "nothing", "logged in", "automatic", "other portal"))
            if kind != "nothing":
                self._login(name, PORTALS[kind == "other portal"], "automatic" if kind == "automatic" else "manual")
            told.append(f"{name}: {kind}")
        return ", ".join(told)

    def hand(self, numbers: Random, reading: Reading) -> str:
        name = numbers.choice(NAMES)
        kind = numbers.choice(("login", "logout", "serve", "mount"))
        there = [login for login in sessions() if login.iqn == IQNS[name]]
        if self.mounted:
            self._let_go()
            return "umount"
        if kind == "login" and Login(IQNS[name], PORTALS[0], False) not in there:
            self._login(name, PORTALS[0])
        elif kind == "logout" and there:
            login = numbers.choice(there)
            tool("iscsiadm", "-m", "session", "-r", str(sessions()[login][0]), "--logout")
            self.foreign.discard(login)
        elif kind == "serve" and LUNS[2] not in self.targets[name].served:
            self.targets[name].serve_device(LUNS[2], self.nodes[name, LUNS[2]])
        elif kind == "mount" and there:
            disk = units(sessions()[numbers.choice(there)][1])[1][0]
            tool("mke2fs", "-q", "-F", f"/dev/{disk}")
            tool("mount", f"/dev/{disk}", "/mnt")
            self.mounted = "/mnt"
        else:
            return "nothing"
        return f"{kind} {name}"

    def forgotten(self) -> None:
        self.foreign |= set(sessions())

    def read(self) -> Reading:
        """A unit is the same by whichever session."""
        reading = Reading(facts={"sessions": sessions()})
        self.foreign &= reading.facts["sessions"].keys()
        for login, (_number, host) in reading.facts["sessions"].items():
            name = next(name for name in NAMES if IQNS[name] == login.iqn)
            for lun, (disk, size) in units(host).items():
                key, node = f"{name}/unit:0:0:{lun}", self.nodes[name, lun]
                used = self.mounted and lun == 1
                at = None if used else (node, 0)
                facts = {"pool": name, "disk": disk}
                reading.volumes[key] = Seen(f"unit:0:0:{lun}", key, size, at=at, facts=facts, on=(login.iqn,))
        return reading

    def put(self, volume: Seen, marks: dict[int, bytes]) -> None:
        self.disks.write(volume.at[0] if volume.at else "", marks)

    def get(self, volume: Seen, offset: int, size: int) -> bytes:
        return self.disks.read(volume.at[0], offset, size) if volume.at else b""

    def hides(self, canary: Canary) -> bool:
        name, _slash, unit = canary.volume.key.partition("/")
        node = self.nodes[name, int(unit.rpartition(":")[2])]
        return self.disks.read(node, canary.offset, len(canary.mark)) == canary.mark

    def unforeseen(self, error: dict[str, Any]) -> bool:
        """What a portal offers, and which units there are, only asking tells."""
        return error["code"] == "source_missing" and ("offer" in error["message"] or "unit:" in error["message"])

    # -- tasks ----------------------------------------------------------------------------------------------------

    def scenario(self) -> list[Task]:
        pool = {"name": "a", "type": self.type, "source": {"host": PORTALS[0], "iqn": IQNS["a"]}}
        named = {**pool, "source": {"hosts": list(PORTALS), "iqn": IQNS["a"], "initiator": INITIATOR}}
        allow = ["restart", "stop_adopted"]
        same = ({"name": "unit:0:0:0", "capacity": "8MiB"},)
        return [
            Task("storage_pool", {**pool, "autostart": True}),
            Task("storage_pool", {"name": "a", "state": "inactive", "allow": allow}),
            Task("storage_pool", {**pool, "autostart": False}),
            Task("storage_volume", {"pool": "a", **same[0]}, same),
            Task("storage_pool", {**named, "allow": allow}),
            Task("storage_pool", {"name": "a", "state": "absent", "allow": allow}),
        ]

    def opening(self, numbers: Random) -> Task:
        return Task("storage_pool", {"name": "a", "type": self.type, **self._source(IQNS["a"], numbers)})

    def _source(self, iqn: str, numbers: Random) -> dict[str, Any]:
        source: dict[str, Any] = {"iqn": iqn}
        if numbers.random() < 0.2:
            source["hosts"] = list(PORTALS)
        else:
            source["host"] = PORTALS[numbers.random() < 0.1]
        if numbers.random() < 0.2:
            source["initiator"] = INITIATOR
        return {"source": source}

    def declared(self, numbers: Random, name: str) -> dict[str, Any]:
        other = NAMES[1 - NAMES.index(name)]
        iqn = numbers.choice((*[IQNS[name]] * 12, IQNS[other], NONE))
        declared = self._source(iqn, numbers)
        if numbers.random() < 0.2:
            declared["path"] = numbers.choice(("/dev/disk/by-path", "/dev/disk/by-id", "/dev", "/srv"))
        return declared

    def where(self, name: str, defined: dict[str, ElementTree.Element]) -> str:
        device = defined[name].find("source/device") if name in defined else None
        iqn = None if device is None else device.get("path")
        return next((each for each in NAMES if IQNS[each] == iqn), name)

    def runs(self, name: str, reading: Reading, records: Records) -> bool:
        iqn = IQNS[self.where(name, records.defined)]
        return name in records.started and any(login.iqn == iqn for login in reading.facts["sessions"])

    def every(self, where: str) -> str:
        return "unit:*"

    def new(self, numbers: Random, where: str, there: list[Seen], taken: set[str]) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": numbers.choice(("unit:0:0:2", "unit:0:0:2", "unit:0:0:9", "data"))}
        if numbers.random() < 0.3:
            return {**entry, "state": "absent"}
        return {**entry, "capacity": numbers.choice(("16MiB", "1GiB"))}

    def change(self, numbers: Random, have: Seen) -> dict[str, Any]:
        kind = numbers.choice((*["same"] * 4, "smaller", "larger", "absent", "recreate"))
        entry: dict[str, Any] = {"name": have.name, "capacity": str(have.size)}
        if kind == "absent":
            return {"name": have.name, "state": "absent"}
        if kind == "smaller":
            entry.update(capacity=str(have.size - MIB), allow=["shrink"])
        elif kind == "larger":
            entry["capacity"] = str(have.size + MIB)
        elif kind == "recreate":
            entry["recreate"] = "always"
        return entry

    # -- what was declared ----------------------------------------------------------------------------------------

    def _wanted(self, pool: ElementTree.Element) -> list[Login]:
        """The sessions that a definition asks for."""
        initiator, device = pool.find("source/initiator/iqn"), pool.find("source/device")
        iqn = "" if device is None else device.get("path", "")
        own = initiator is not None
        return [Login(iqn, host.get("name", ""), own) for host in pool.iterfind("source/host")]

    def _pool_holds(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        name, wrong, there = task.params["name"], [], set(reading.facts["sessions"])
        defined = records.defined
        kept = {login for each in records.started.values() for login in self._wanted(each)}
        state = task.params.get("state", "active")
        if state == "active" and name in records.started and not there & set(self._wanted(records.started[name])):
            wrong.append(f"active, but not logged in: {there}")
        strays = there - kept - self.foreign
        wrong += [f"still logged in: {strays}"] * bool(strays)
        made = [path.name for path in TOPS[1].glob("virt-storage-*")] + [
            str(path) for path in TOPS[0].glob("*/*/virt-storage-*")
        ]
        if not any(login.own for each in defined.values() for login in self._wanted(each)):
            wrong += [f"left behind: {made}"] * bool(made)
        return wrong

    def _volume_holds(self, entry: dict[str, Any], have: Seen, changed: bool) -> list[str]:
        want = bytes_of(entry["capacity"]) if "capacity" in entry else have.size
        return [f"{have.name} has {have.size} bytes, not {want}"] * (have.size != want)
