# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The life of a disk pool, as it goes on any disk; parted, sfdisk, blkid and sysfs tell what became of it. Called on
loop devices of this machine, and on every kind of disk in the lab.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

MIB = 2**20
CYLINDER = 255 * 63 * 512


def run(*words: object, check: bool = True, script: str | None = None) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, input=script)
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def ok(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("failed"), result.get("msg", result)
    assert not [text for text in result["warnings"] if text.startswith("verification")], result["warnings"]
    return result


def code(result: dict[str, Any]) -> str:
    assert result.get("failed"), result
    assert result["changed"] is False, result
    return result["error"]["code"]


def _masked(result: dict[str, Any]) -> Any:
    return result["plan"], result["diff"]


def head(device: str) -> bytes:
    """Where partition tables, labels of LVM and most signatures are, from the disk itself; no process is started."""
    descriptor = os.open(device, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 64 * 1024, os.POSIX_FADV_DONTNEED)
        return os.pread(descriptor, 64 * 1024, 0)
    finally:
        os.close(descriptor)


def _disk_of(host: Any, params: dict[str, Any]) -> Path:
    """The one that a call is about: as it declares it, else as the definition of the pool has it."""
    declared = params.get("source", {}).get("device", "")
    file = Path(host.uri.partition("root=")[2], "etc/libvirt/storage", f"{params.get('pool') or params['name']}.xml")
    if not declared and "root=" in host.uri and file.exists():
        declared = file.read_text(encoding="utf-8").partition("<device path='")[2].partition("'")[0]
    return Path(os.path.realpath(declared or "/dev/null"))


def _on(disk: Path) -> Any:
    """What a change of a disk changes: its head, and the kernel's partitions or maps of it."""
    if not disk.is_block_device():
        return None
    below = Path("/sys/class/block", disk.name)
    sizes = [*below.glob("*/size"), *below.glob("holders/*/size")]
    return head(str(disk)), {str(path): path.read_text(encoding="ascii") for path in sizes}


def converges(act: Any, **params: Any) -> dict[str, Any]:
    """The result of a real run: as check mode said, which changed nothing, and with nothing left to do after it."""
    disk = _disk_of(act.__self__, params)
    before = _on(disk)
    checked = ok(act(check=True, **params))
    assert _on(disk) == before
    made = ok(act(**params))
    assert made["changed"], made
    assert _masked(checked) == _masked(made)
    again = ok(act(**params))
    assert (again["changed"], again["plan"]) == (False, [])
    return made


def refuses(act: Any, expected: str, **params: Any) -> dict[str, Any]:
    """The error, the same in check mode and in a real run."""
    checked, real = act(check=True, **params), act(**params)
    assert (code(checked), code(real)) == (expected, expected), real["error"]
    assert checked["error"] == real["error"]
    return real["error"]


class Disk(NamedTuple):
    """``source`` is how a playbook names it, ``node`` the kernel's name, ``stem`` what names of partitions begin with,
    ``directory`` where their nodes are.
    """

    source: str
    node: str
    stem: str
    directory: str = "/dev"

    def name(self, number: int) -> str:
        return f"{self.stem}{number}"

    def path(self, number: int) -> str:
        return f"{self.directory}/{self.name(number)}"


class Seen(NamedTuple):
    start: int
    size: int
    type: str


def table(disk: Disk) -> dict[int, Seen]:
    """The partitions as sfdisk reads them, by number; as parted has them too, and as the kernel has them."""
    told = json.loads(run("sfdisk", "--json", disk.node))["partitiontable"]
    sector = told.get("sectorsize", 512)
    found = {}
    for row in told.get("partitions", ()):
        digits = row["node"][len(row["node"].rstrip("0123456789")) :]
        found[int(digits)] = Seen(row["start"] * sector, row["size"] * sector, row["type"].lower())
    lines = run("parted", "--script", "--machine", disk.node, "unit", "B", "print").splitlines()[2:]
    by_parted = {int(n): (int(s[:-1]), int(z[:-1])) for n, s, _e, z in (line.split(":")[:4] for line in lines)}
    assert by_parted == {number: (each.start, each.size) for number, each in found.items()}
    kernel = {}
    for number, each in found.items():
        name = os.path.basename(os.path.realpath(disk.path(number)))
        size = int(Path(f"/sys/class/block/{name}/size").read_text(encoding="ascii")) * 512
        kernel[number] = size if each.type not in ("5", "f") else each.size
    assert kernel == {number: each.size for number, each in found.items()}
    return found


def pool_of(disk: Disk, label: str | None = None, **more: Any) -> dict[str, Any]:
    source = {"device": disk.source, **({"format": label} if label else {}), **more}
    return {"name": "cut", "type": "disk", "path": "/dev", "source": source}


def gpt_life(host: Any, disk: Disk, **source: Any) -> None:
    """A gpt disk: made, cut, grown, shrunk, cut again, deleted."""
    pool = pool_of(disk, "gpt", **source)
    made = converges(host.pool, **pool)
    assert [entry["action"] for entry in made["plan"]] == ["define", "build", "start"]
    assert run("blkid", "-p", "-s", "PTTYPE", "-o", "value", disk.node) == "gpt"
    volumes = [
        {"name": disk.name(2), "capacity": "10MB", "format": "linux-lvm"},
        {"name": disk.name(1), "capacity": "8MiB"},
    ]
    made = converges(host.volume, pool="cut", volumes=volumes)
    seen = table(disk)
    assert {number: each.size for number, each in seen.items()} == {1: 8 * MIB, 2: 10 * MIB}
    assert all(each.start % MIB == 0 for each in seen.values())
    assert seen[2].type.startswith("e6d6d379")
    records = {record["name"]: record for record in host.volume_info(pool="cut")}
    assert {name: record["path"] for name, record in records.items()} == {
        disk.name(number): disk.path(number) for number in (1, 2)
    }
    assert (records[disk.name(2)]["format"], records[disk.name(2)]["capacity"]) == ("linux-lvm", 10 * MIB)
    assert os.path.exists(disk.path(1))
    refuses(host.volume, "no_space", pool="cut", name=disk.name(1), capacity="9MiB")
    converges(host.volume, pool="cut", name=disk.name(2), capacity="20MiB")
    refuses(host.volume, "shrink_refused", pool="cut", name=disk.name(2), capacity="10MiB")
    converges(host.volume, pool="cut", name=disk.name(2), capacity="9MiB", allow=["shrink"])
    assert {number: each.size for number, each in table(disk).items()} == {1: 8 * MIB, 2: 9 * MIB}
    run("mkfs.ext4", "-q", disk.path(2))
    converges(host.volume, pool="cut", name=disk.name(2), state="absent")
    assert sorted(table(disk)) == [1]
    shown = converges(host.volume, pool="cut", name=disk.name(5), capacity="9MiB")
    assert "ext4" in shown["plan"][0]["destroys"]
    assert sorted(table(disk)) == [1, 5]
    assert run("blkid", "-p", "-o", "value", "-s", "TYPE", disk.path(5), check=False) == ""
    extent = host.pool_info(name="cut")[0]["free_extents"][-1]
    error = refuses(host.volume, "no_space", pool="cut", name=disk.name(6), capacity=str(extent["size"] + 1))
    assert "free in" in error["message"]
    converges(host.volume, pool="cut", name=disk.name(6), capacity=str(extent["size"]))
    assert table(disk)[6].size == extent["size"]
    refuses(host.pool, "pool_nonempty", **pool, state="deleted")
    gone = converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    assert disk.name(5) in gone["plan"][1]["destroys"]
    assert run("wipefs", "--noheadings", disk.node) == ""
    assert not os.path.exists(disk.path(1))


def dos_life(host: Any, disk: Disk, **source: Any) -> None:
    """A dos disk, which is what is made by default, with logical partitions."""
    pool = pool_of(disk, **source)
    converges(host.pool, **pool, allow=["overwrite"])
    assert run("blkid", "-p", "-s", "PTTYPE", "-o", "value", disk.node) == "dos"
    volumes = [
        {"name": disk.name(7), "capacity": "5MiB"},
        {"name": disk.name(5), "capacity": "10MiB", "format": "linux-swap"},
        {"name": disk.name(6), "capacity": "4MiB", "format": "fat32"},
        {"name": disk.name(2), "capacity": "40MiB", "format": "extended"},
        {"name": disk.name(1), "capacity": "8000000", "format": "linux-raid"},
        {"name": disk.name(3), "capacity": "4MiB", "format": "fat16"},
        {"name": disk.name(4), "capacity": "4MiB", "format": "linux-lvm"},
    ]
    converges(host.volume, pool="cut", volumes=volumes)
    seen = table(disk)
    types = {number: each.type for number, each in seen.items()}
    assert types == {1: "fd", 2: "f", 3: "e", 4: "8e", 5: "82", 6: "c", 7: "83"}
    ok(host.volume(pool="cut", volumes=[{"name": disk.name(number), "state": "absent"} for number in (3, 4)]))
    assert (seen[5].size, seen[6].size, seen[7].size) == (10 * MIB, 4 * MIB, 5 * MIB)
    extended = next(record for record in host.volume_info(pool="cut") if record["format"] == "extended")
    assert (extended["capacity"], extended["allocation"]) == (40 * MIB, 19 * MIB)
    refuses(host.volume, "partition_renumbered", pool="cut", name=disk.name(6), state="absent")
    refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(2), state="absent")
    refuses(host.volume, "invalid_name", pool="cut", name=disk.name(9), capacity="1MiB")
    refuses(host.volume, "invalid_option", pool="cut", name=disk.name(3), capacity="1MiB", format="extended")
    converges(host.volume, pool="cut", name=disk.name(7), capacity="6MiB")
    seen = table(disk)
    upper = [{"name": disk.name(number), "state": "absent"} for number in (6, 7)]
    converges(host.volume, pool="cut", volumes=upper)
    assert table(disk) == {number: seen[number] for number in (1, 2, 5)}
    every = [{"name": disk.name(number), "state": "absent"} for number in (2, 5)]
    converges(host.volume, pool="cut", volumes=every)
    assert sorted(table(disk)) == [1]
    refuses(host.pool, "storage_foreign", name="other", type="disk", path="/dev", source={"device": "/dev/null"})
    converges(host.pool, **pool, state="deleted", allow=["nonempty"])
    assert run("wipefs", "--noheadings", disk.node) == ""


def in_use(host: Any, disk: Disk, tmp_path: Path, **source: Any) -> None:
    """What is mounted, swapped to or held is left alone, and can grow."""
    pool = pool_of(disk, "dos", **source)
    ok(host.pool(**pool, allow=["overwrite"]))
    volumes = [{"name": disk.name(number), "capacity": "20MiB"} for number in (2, 1)]
    ok(host.volume(pool="cut", volumes=volumes))
    run("mkfs.ext4", "-q", disk.path(2))
    (tmp_path / "mounted").mkdir()
    mounted = f"mount {disk.path(2)} {tmp_path / 'mounted'} && echo mounted; read line; umount {disk.path(2)}"
    words = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", mounted]  # where nobody else copies it from
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "mounted\n"
        _while_mounted(host, disk, str(tmp_path / "mounted"), pool, source)
        holder.stdin.close()
    ok(host.pool(**pool, state="deleted", allow=["nonempty"]))


def _while_mounted(host: Any, disk: Disk, point: str, pool: dict[str, Any], source: dict[str, Any]) -> None:
    error = refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(2), state="absent")
    assert point in error["message"]
    allowed = {"capacity": "10MiB", "allow": ["shrink"]}
    refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(2), **allowed)
    for way in ({"state": "absent"}, {"recreate": "always", "capacity": "20MiB"}):
        error = refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(2), allow=["in_use"], **way)
        assert "whatever is allowed" in error["hint"]
    refuses(host.pool, "volume_in_use", **pool, state="deleted", allow=["nonempty", "in_use"])
    converges(host.volume, pool="cut", name=disk.name(2), capacity="30MiB")
    assert table(disk)[2].size == 30 * MIB
    refuses(host.pool, "volume_in_use", **pool, state="deleted", allow=["nonempty"])
    ok(host.pool(name="cut", state="absent"))
    refuses(host.pool, "device_in_use", **pool_of(disk, "gpt", **source), allow=["overwrite"])
    ok(host.pool(**pool))
    converges(host.volume, pool="cut", name=disk.name(1), state="absent")
    assert sorted(table(disk)) == [2]


POOL_XML = """<pool type='disk'><name>theirs</name><target><path>/dev</path></target>
<source><device path='{device}' {more}/><format type='{label}'/></source></pool>"""


@contextlib.contextmanager
def daemons_pool(virsh: Any, disk: Disk, label: str, more: str = "") -> Iterator[None]:
    """Called theirs; ``more`` are attributes of its device."""
    device = disk.node if disk.directory == "/dev" else disk.source  # maps have names of their own
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(POOL_XML.format(device=device, label=label, more=more))
        file.flush()
        virsh("pool-define", file.name)
    with contextlib.ExitStack() as after:
        after.callback(virsh, "pool-undefine", "theirs")
        virsh("pool-start", "theirs")
        after.callback(virsh, "pool-destroy", "theirs")
        yield


def the_daemon_sees_the_same(host: Any, virsh: Any, disk: Disk) -> None:
    """Capacity, allocation, what is available, where there is room, volumes, their sizes, paths and keys. ``virsh``
    takes words, and gives what it prints; its pool is called theirs.
    """
    virsh("pool-refresh", "theirs")
    told = ElementTree.fromstring(virsh("pool-dumpxml", "theirs"))
    ours = host.pool_info(name="cut")[0]
    less = CYLINDER + MIB if ours["partition_table"] == "dos" else 0  # which it counts in whole cylinders and tracks
    for name in ("capacity", "allocation", "available"):
        size = int(told.findtext(name))
        assert 0 <= ours[name] - size <= (0 if name == "allocation" else less), (name, size, ours)
    _the_same_room(ours["free_extents"], told, less)
    records = {record["name"]: record for record in host.volume_info(pool="cut")}
    assert set(records) == {line.split()[0] for line in virsh("vol-list", "theirs").splitlines() if "/" in line}
    for name, record in records.items():
        shown = ElementTree.fromstring(virsh("vol-dumpxml", "--pool", "theirs", name))
        for fact, place in {**dict.fromkeys(("key", "capacity", "allocation")), "path": "target/path"}.items():
            assert shown.findtext(place or fact) == str(record[fact]), (name, fact, record)
        assert shown.find("target/format").get("type") == "none"  # whatever the table says


def _the_same_room(ours: list[dict[str, Any]], told: ElementTree.Element, less: int) -> None:
    """Ours is in whole MiB: what it lacks is less than one at each end, and none of it is taken for the daemon, which
    leaves out ``less`` at the end of the disk.
    """
    theirs = [(int(each.get("start")), int(each.get("end"))) for each in told.iterfind("source/device/freeExtent")]
    for start, end in theirs:
        inside = [each for each in ours if start <= each["start"] and each["end"] <= end + 512 + less]
        assert sum(each["size"] for each in inside) > end - start - 2 * MIB, (ours, theirs)
