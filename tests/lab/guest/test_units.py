# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools of SCSI host adapters and of multipath maps; the guest's daemon on the same adapters as the oracle."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.integration.calling import call
from tests.integration.disk_scenarios import MIB, code, converges, ok, refuses

from .hosts import Host, run, sh

DEBUG = Path("/sys/bus/pseudo/drivers/scsi_debug")
BY_ID = "/dev/disk/by-id"


class Adapter:
    """A host adapter of scsi_debug, whose units are in memory."""

    @property
    def number(self) -> int:
        (host,) = (DEBUG / "adapter0").resolve().glob("host*")
        return int(host.name[4:])

    @property
    def name(self) -> str:
        return f"scsi_host{self.number}"

    def node(self, lun: int) -> str:
        (disk,) = Path(f"/sys/bus/scsi/devices/{self.number}:0:0:{lun}/block").iterdir()
        return f"/dev/{disk.name}"

    @staticmethod
    def say(name: str, value: object) -> None:
        (DEBUG / name).write_text(str(value), encoding="ascii")


@pytest.fixture
def adapter() -> Iterator[Adapter]:
    """One with two units of 64 MiB."""
    sh("modprobe scsi_debug dev_size_mb=64 max_luns=2 add_host=1 num_tgts=1; udevadm settle")
    yield Adapter()
    sh("""udevadm settle
        modprobe -r scsi_debug""")


def pool_of(name: str, path: str = "/dev", **more: Any) -> dict[str, Any]:
    source = {"adapter": {"type": "scsi_host", "name": name}}
    return {"name": "units", "type": "scsi", "path": path, "source": source, **more}


def sizes(host: Host, pool: str = "units") -> dict[str, int]:
    return {each["name"]: each["capacity"] for each in host.volume_info(pool=pool)}


def virsh(*words: str) -> str:
    return run("virsh", "-q", *words).strip()


def xml_of_pool(kind: str, source: str, path: str, name: str = "theirs") -> str:
    return f"<pool type='{kind}'><name>{name}</name>{source}<target><path>{path}</path></target></pool>"


def run_by_virsh(tmp_path: Path, xml: str) -> None:
    file = tmp_path / "pool.xml"
    file.write_text(xml)
    virsh("pool-define", str(file))
    virsh("pool-start", "theirs")


def told_by_virsh(pool: str = "theirs") -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Sizes of the pool; name, key, sizes, path and format of its volumes."""
    info = ElementTree.fromstring(virsh("pool-dumpxml", pool))
    names = [line.split()[0] for line in virsh("vol-list", pool).splitlines()]
    texts = ("key", "capacity", "allocation", "target/path", "target/format")
    volumes = {}
    for name in names:
        root = ElementTree.fromstring(virsh("vol-dumpxml", "--pool", pool, name))
        volumes[name] = {text.rpartition("/")[2]: root.findtext(text) or "" for text in texts}
    return {name: info.findtext(name) or "" for name in ("capacity", "allocation", "available")}, volumes


def told_by_us(host: Host, pool: str = "units") -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    (record,) = host.pool_info(name=pool)
    names = ("key", "capacity", "allocation", "path", "format")
    volumes = {v["name"]: {name: str(v[name] or "") for name in names} for v in host.volume_info(pool=pool)}
    return {name: str(record[name]) for name in ("capacity", "allocation", "available")}, volumes


# -- pools of an adapter ------------------------------------------------------------------------------------------


def test_started_stopped_and_undefined(host: Host, adapter: Adapter) -> None:
    pool = pool_of(adapter.name)
    made = converges(host.pool, **pool)
    assert [change["action"] for change in made["plan"]] == ["define", "start"]
    (command,) = (c for change in made["plan"] for c in change["commands"] if "scan" in c)
    assert f"echo '- - -' > /sys/class/scsi_host/host{adapter.number}/scan && " in command
    (record,) = host.pool_info(name="units")
    assert (record["state"], record["capacity"], record["available"]) == ("active", 128 * MIB, 0)
    assert sizes(host) == {"unit:0:0:0": 64 * MIB, "unit:0:0:1": 64 * MIB}
    converges(host.pool, name="units", state="inactive")
    assert host.volume_info(pool="units") == []
    converges(host.pool, name="units", state="active")
    refuses(host.pool, "not_supported", **pool, state="deleted", allow=["nonempty"])
    converges(host.pool, name="units", state="absent")
    assert os.path.exists(adapter.node(0))


def test_an_adapter_that_is_not_there(host: Host, adapter: Adapter) -> None:
    gone = host.pool(**pool_of("scsi_host99"))
    assert code(gone) == "source_missing"
    assert ok(host.pool(check=True, **pool_of("scsi_host99")))["warnings"]
    refuses(host.pool, "invalid_path", **pool_of(adapter.name, path="/srv"))
    ok(host.pool(**pool_of(adapter.name)))
    sh("modprobe -r scsi_debug")
    (record,) = host.pool_info(name="units")
    assert record["state"] == "inactive"
    assert code(host.pool(name="units")) == "source_missing"


def test_units_that_appear_grow_and_go(host: Host, adapter: Adapter) -> None:
    ok(host.pool(**pool_of(adapter.name)))
    adapter.say("max_luns", 4)
    assert sizes(host) == {"unit:0:0:0": 64 * MIB, "unit:0:0:1": 64 * MIB}  # looking tells the kernel nothing
    found = converges(host.volume, pool="units", name="unit:0:0:3")
    assert [change["action"] for change in found["plan"]] == ["refresh"]
    assert found["volumes"][0]["state"] == "present"
    assert sorted(sizes(host)) == [f"unit:0:0:{lun}" for lun in range(4)]
    adapter.say("virtual_gb", 2)
    grown = converges(host.volume, pool="units", name="unit:0:0:1", capacity="2GiB")
    assert grown["volumes"][0]["capacity"] == 2048 * MIB
    assert run("blockdev", "--getsize64", adapter.node(1)).strip() == str(2048 * MIB)
    adapter.say("max_luns", 2)
    gone = host.volume(pool="units", name="unit:0:0:3", capacity="3GiB")
    assert gone["error"]["code"] == "source_missing"
    assert ok(host.volume(check=True, pool="units", name="unit:0:0:3"))["changed"]
    records = {each["name"]: each.get("problem") for each in host.volume_info(pool="units")}
    assert [name for name, problem in records.items() if problem] == ["unit:0:0:2", "unit:0:0:3"]
    lost = host.volume(pool="units", name="unit:0:0:3")
    assert (lost["error"]["code"], "size" in lost["error"]["message"]) == ("source_missing", True)
    assert code(host.volume(pool="units", name="unit:0:0:0", state="absent")) == "not_supported"
    adapter.say("max_luns", 3)
    ok(host.pool(name="units", state="inactive"))
    ok(host.pool(name="units"))
    assert [each["name"] for each in host.volume_info(pool="units") if each.get("problem")] == ["unit:0:0:3"]


def test_what_is_served_is_only_listed(host: Host, adapter: Adapter, tmp_path: Path) -> None:
    """Also while it is mounted; nothing is made, changed or taken away."""
    ok(host.pool(**pool_of(adapter.name)))
    point = tmp_path / "mnt"
    point.mkdir()
    sh(f"mkfs.ext4 -q {adapter.node(0)}; mount {adapter.node(0)} {point}")
    try:
        declared = {"pool": "units", "name": "unit:0:0:0"}
        assert not ok(host.volume(**declared, capacity="64MiB"))["changed"]
        refuses(host.volume, "not_supported", **declared, state="absent", allow=["in_use"])
        refuses(host.volume, "not_supported", **declared, capacity="32MiB", allow=["shrink"])
        refuses(host.volume, "not_supported", **declared, recreate="always")
        refuses(host.volume, "not_supported", pool="units", name="other", capacity="1MiB")
        refuses(host.volume, "not_supported", pool="units", volumes=[{"name": "unit:0:0:0"}], exclusive="*")
        ok(host.pool(name="units", state="inactive"))
        assert run("findmnt", "-n", "-o", "SOURCE", str(point)).strip() == adapter.node(0)
    finally:
        run("umount", str(point))


def test_one_that_does_not_answer(host: Host, adapter: Adapter) -> None:
    """Listing asks it nothing; starting ends in time."""
    ok(host.pool(**pool_of(adapter.name)))
    ok(host.pool(name="units", state="inactive"))
    sh(f"for each in /sys/bus/scsi/devices/{adapter.number}:*/timeout; do echo 4 > $each; done")
    adapter.say("opts", "0x4")
    adapter.say("every_nth", 1)  # each command is dropped
    try:
        started = time.monotonic()
        hung = host.pool(name="units", timeout=2)
        assert (hung["error"]["code"], "lsscsi" in hung["error"]["hint"]) == ("deadline", True)
        assert len(host.pool_info(volumes="names")) == 1
        assert time.monotonic() - started < 15
    finally:
        adapter.say("every_nth", 0)
        adapter.say("opts", 0)
    deadline = time.monotonic() + 120
    while host.pool(name="units").get("failed"):
        assert time.monotonic() < deadline
        time.sleep(2)


def test_it_looks_like_the_daemons(host: Host, daemon_host: Host, adapter: Adapter, tmp_path: Path) -> None:
    """Sizes, names, keys, paths; the keys are those of scsi_id."""
    ok(host.pool(**pool_of(adapter.name)))
    run_by_virsh(tmp_path, xml_of_pool("scsi", f"<source><adapter name='host{adapter.number}'/></source>", "/dev"))
    ours, theirs = told_by_us(host), told_by_virsh()
    assert ours == theirs
    for record in ours[1].values():
        said = run("/lib/udev/scsi_id", "--replace-whitespace", "--whitelisted", "--device", record["path"])
        assert record["key"] == said.strip() != ""
    (record, _other) = host.volume_info(pool="units", xml=True)
    root = ElementTree.fromstring(record["xml"])
    assert (root.get("type"), root.findtext("target/path")) == ("block", record["path"])


def test_it_looks_like_the_daemons_by_links(
    host: Host, daemon_host: Host, scsi_disks: list[str], tmp_path: Path
) -> None:
    """On a controller with a place, and by links that are the only ones."""
    by_path = "/dev/disk/by-path"
    found = call("storage_pool_sources", uri=host.uri, type="scsi")["sources"]
    (controller,) = (each for each in found if each.get("comment") == "virtio_scsi")
    assert controller["source"]["adapter"]["parent_address"]
    ok(host.pool(name="units", type="scsi", path=by_path, source=controller["source"]))
    name = os.path.basename(controller["path"])
    run_by_virsh(tmp_path, xml_of_pool("scsi", f"<source><adapter name='{name}'/></source>", by_path))
    ours = told_by_us(host)
    assert ours == told_by_virsh()
    assert len(ours[1]) == 2
    assert {os.path.realpath(each["path"]) for each in ours[1].values()} == set(map(os.path.realpath, scsi_disks))
    assert all(each["path"].startswith(by_path) for each in ours[1].values())


def test_other_words_for_an_adapter(host: Host, adapter: Adapter, scsi_disks: list[str]) -> None:
    """They mean the same pool, and no other one can have it."""
    found = call("storage_pool_sources", uri=host.uri, type="scsi")["sources"]
    (controller,) = (each for each in found if each.get("comment") == "virtio_scsi")
    name = os.path.basename(controller["path"])
    ok(host.pool(name="units", type="scsi", path="/dev", source=controller["source"]))
    for other in (name, f"scsi_{name}"):
        assert not ok(host.pool(**pool_of(other)))["changed"]
        refuses(host.pool, "source_conflict", **{**pool_of(other), "name": "again"})
    refuses(host.pool, "identity_change", **pool_of(adapter.name))
    ok(host.pool(**{**pool_of(adapter.name), "name": "again"}))
    found = call("storage_pool_sources", uri=host.uri, type="scsi")["sources"]
    pools = {each["comment"]: each.get("why_not") for each in found if not each["free"]}
    assert pools == {
        "virtio_scsi": ["part of pool units already"],
        "scsi_debug": ["part of pool again already"],
    }
    wanted = [controller["source"], {"adapter": {"name": adapter.name}}]
    waited = call("storage_pool_sources", uri=host.uri, type="scsi", wait_for=wanted, timeout=5)
    assert not waited.get("failed"), waited
    gone = call(
        "storage_pool_sources", uri=host.uri, type="scsi", wait_for=[{"adapter": {"name": "host99"}}], timeout=2
    )
    assert (gone["error"]["code"], gone["missing"][0]["why"]) == ("source_missing", "it is not there")


def test_through_the_daemon(daemon_host: Host, adapter: Adapter) -> None:
    """The same tasks, with units that it has not seen yet."""
    made = converges(daemon_host.pool, **pool_of(adapter.name))
    assert [change["action"] for change in made["plan"]] == ["define", "start"]
    assert sorted(sizes(daemon_host)) == ["unit:0:0:0", "unit:0:0:1"]
    adapter.say("max_luns", 3)
    found = converges(daemon_host.volume, pool="units", name="unit:0:0:2")
    assert [change["commands"] for change in found["plan"]] == [["virsh -c qemu:///system pool-refresh units"]]
    missing = daemon_host.volume(pool="units", name="unit:0:0:7")
    assert missing["error"]["code"] == "source_missing"
    refuses(daemon_host.volume, "daemon_cannot", pool="units", name="unit:0:0:0", state="absent")
    refuses(daemon_host.pool, "source_conflict", **{**pool_of(f"host{adapter.number}"), "name": "again"})
    assert not ok(daemon_host.pool(**pool_of(f"host{adapter.number}")))["changed"]
    converges(daemon_host.pool, name="units", state="inactive")
    converges(daemon_host.pool, name="units", state="absent")


def test_a_daemon_takes_over(system_host: Host, daemon_host: Host, adapter: Adapter) -> None:
    run("systemctl", "stop", "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
    ok(system_host.pool(**pool_of(adapter.name)))
    ours = told_by_us(system_host)
    run("systemctl", "start", "libvirtd.service")
    assert virsh("pool-list", "--name").split() == ["units"]
    assert told_by_virsh("units") == ours
    assert not ok(daemon_host.pool(**pool_of(adapter.name)))["changed"]


# -- multipath ----------------------------------------------------------------------------------------------------


def test_maps_and_their_paths(host: Host, multipath: Callable[[str], str]) -> None:
    name = multipath("")
    made = converges(host.pool, name="maps", type="mpath", path="/dev/mapper")
    assert [change["action"] for change in made["plan"]] == ["define", "start"]
    (record,) = host.volume_info(pool="maps")
    assert (record["name"], record["path"], record["capacity"]) == (name, f"/dev/mapper/{name}", 64 * MIB)
    assert not ok(host.volume(pool="maps", name=name, capacity="64MiB"))["changed"]
    node = os.path.basename(os.path.realpath(record["path"]))
    assert name in refuses(host.volume, "volume_foreign", pool="maps", name=node)["message"]
    for declared in ({"name": name, "state": "absent"}, {"name": "new", "capacity": "1MiB"}):
        refuses(host.volume, "not_supported", pool="maps", **declared)
    refuses(host.pool, "source_conflict", name="again", type="mpath", path="/dev/mapper")
    refuses(host.pool, "not_supported", name="maps", type="mpath", path="/dev/mapper", state="deleted")
    for number, host_name in enumerate(sorted(each.name for each in DEBUG.glob("adapter*/host*"))):
        ok(host.pool(**{**pool_of(host_name), "name": f"units{number}"}))
        assert host.volume_info(pool=f"units{number}") == []
        (path,) = (each.name for each in Path("/sys/bus/scsi/devices").glob(f"{host_name[4:]}:0:0:*"))
        unit = f"unit:{path.partition(':')[2]}"
        assert name in refuses(host.volume, "volume_foreign", pool=f"units{number}", name=unit)["message"]
    converges(host.pool, name="maps", state="inactive")
    converges(host.pool, name="maps", state="absent")
    assert os.path.exists(record["path"])


def test_maps_look_like_the_daemons(
    host: Host, daemon_host: Host, multipath: Callable[[str], str], tmp_path: Path
) -> None:
    """But for their names, which are not those of the next boot there."""
    name = multipath("")
    ok(host.pool(name="maps", type="mpath", path="/dev/mapper"))
    run_by_virsh(tmp_path, xml_of_pool("mpath", "<source/>", "/dev/mapper"))
    (pool, volumes), (their_pool, theirs) = told_by_us(host, "maps"), told_by_virsh()
    assert pool == their_pool
    assert list(volumes) == [name]
    assert list(volumes.values()) == list(theirs.values())
    assert list(theirs) == [os.path.basename(os.path.realpath(f"/dev/mapper/{name}"))]
    through = daemon_host.volume_info(pool="theirs")
    assert [each["name"] for each in through] == [name]
    assert [each["path"] for each in daemon_host.volume_info(pool="theirs", name=name)] == [f"/dev/mapper/{name}"]
    assert not ok(daemon_host.volume(pool="theirs", name=name, capacity="64MiB"))["changed"]
    number = next(iter(theirs))
    assert name in refuses(daemon_host.volume, "volume_foreign", pool="theirs", name=number)["message"]
    refuses(daemon_host.pool, "source_conflict", name="again", type="mpath", path="/dev/mapper")


def test_maps_that_are_waited_for(host: Host, multipath: Callable[[str], str]) -> None:
    ask = {"uri": host.uri, "type": "mpath"}
    assert call("storage_pool_sources", **ask)["sources"] == []
    name = multipath("")
    (source,) = call("storage_pool_sources", **ask, wait_for=[{"device": f"/dev/disk/by-id/dm-name-{name}"}])["sources"]
    assert (source["source"], source["path"], source["free"]) == ({}, f"/dev/mapper/{name}", True)
    assert f"mpath-{source['uuid']}" == run("dmsetup", "info", "-c", "--noheadings", "-o", "uuid", name).strip()
    ok(host.pool(name="maps", type="mpath", path="/dev/mapper", source=source["source"]))
    (source,) = call("storage_pool_sources", **ask)["sources"]
    assert source["why_not"] == ["part of pool maps already"]
    gone = call("storage_pool_sources", **ask, wait_for=[{"device": "/dev/mapper/other"}], timeout=2)
    assert gone["error"]["code"] == "source_missing"
