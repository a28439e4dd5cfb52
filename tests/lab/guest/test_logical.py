# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Logical pools on real volume groups, judged by LVM's own tools and by the guest's libvirtd."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.model.operations import MakeOn
from tests.integration.calling import call
from tests.integration.disk_scenarios import head

from .hosts import Host, run, run_json

MIB = 2**20
GROUP = "vgt"
_CONFIG = Path("/etc/lvm/lvm.conf")
_SYSTEM_DEVICES = Path("/etc/lvm/devices/system.devices")


def clean() -> None:
    _SYSTEM_DEVICES.unlink(missing_ok=True)
    for row in report("vgs", "vg_uuid,vg_name", "vg"):
        run("vgimport", row["vg_name"], check=False)
        run("vgremove", "-ff", "-y", "--select", f"vg_uuid={row['vg_uuid']}", check=False)
    for row in report("pvs", "pv_name", "pv"):
        run("pvremove", "-ff", "-y", row["pv_name"], check=False)


@pytest.fixture
def empty(disks: list[str]) -> Iterator[list[str]]:
    """The disks, from which volume groups are taken after the test."""
    yield disks
    clean()


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[list[str]]:
    """Three loop devices of 64 MiB."""
    nodes = []
    for name in "abc":
        run("truncate", "-s", "64M", str(tmp_path / name))
        nodes.append(run("losetup", "--find", "--show", str(tmp_path / name)).strip())
    yield nodes
    clean()
    for node in nodes:
        run("losetup", "-d", node, check=False)


def report(tool: str, fields: str, kind: str, *words: str) -> list[dict[str, str]]:
    return run_json(tool, "--units", "b", "--nosuffix", "--reportformat", "json", "-o", fields, *words)["report"][0][
        kind
    ]


def lvs(group: str = GROUP) -> dict[str, dict[str, str]]:
    rows = report("lvs", "lv_name,lv_size,lv_attr,origin,pool_lv,lv_uuid,lv_tags,segtype", "lv", group)
    return {row["lv_name"]: row for row in rows}


def sizes(group: str = GROUP) -> dict[str, int]:
    """MiB."""
    return {name: int(row["lv_size"]) // MIB for name, row in lvs(group).items()}


def declared(devices: list[str], **more: Any) -> dict[str, Any]:
    return {"name": GROUP, "type": "logical", "source": {"devices": devices}, **more}


def done(result: dict[str, Any], changed: bool = True) -> dict[str, Any]:
    assert not result.get("failed"), result
    assert result["changed"] is changed, result["plan"]
    assert not [text for text in result["warnings"] if "should be" in text], result["warnings"]
    return result


def untouched() -> tuple[Any, ...]:
    """What LVM would change: labels and metadata of devices, their backups, and the volumes that are active."""
    disks = [*glob.glob("/dev/disk/by-id/virtio-lab-disk*"), *glob.glob("/dev/loop[0-9]*")]
    maps = [(path / "dm/name", path / "size") for path in Path("/sys/block").glob("dm-*")]
    kept = [os.stat(path).st_mtime_ns for path in ("/etc/lvm/archive", "/etc/lvm/backup") if os.path.exists(path)]
    return [head(disk) for disk in disks], kept, sorted([each.read_text() for each in pair] for pair in maps)


def same(host: Host, kind: str, **params: Any) -> dict[str, Any]:
    """Done, after check mode has said the same and done nothing; a second run does nothing."""
    act = getattr(host, kind)
    before = untouched()
    foreseen = act(check=True, **params)
    assert untouched() == before
    result = done(act(**params))
    assert foreseen["plan"] == result["plan"]
    assert foreseen["diff"]["before"] == result["diff"]["before"]
    assert done(act(**params), changed=False)["plan"] == []
    return result


def meanwhile(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Has something done right before devices are taken: after all else that was looked at."""
    plain, waiting = Applier.apply, [what]

    def apply(self: Applier, operation: Any) -> None:
        if isinstance(operation, MakeOn) and waiting:
            waiting.pop()()
        plain(self, operation)

    monkeypatch.setattr(Applier, "apply", apply)


def refused(result: dict[str, Any], code: str) -> dict[str, Any]:
    assert result.get("failed"), result
    assert (result["error"]["code"], result["changed"]) == (code, False), result["error"]
    return result["error"]


VOLUMES = [
    {"name": "plain", "capacity": "10M"},
    {"name": "tp", "capacity": "64M", "format": "thin-pool"},
    {"name": "thin", "capacity": "100M", "options": {"thin_pool": "tp"}},
    {"name": "thinsnap", "backing": "thin"},
    {"name": "snap", "backing": {"volume": "plain"}, "allocation": "8M"},
]


def test_built_used_deleted(host: Host, empty: list[str]) -> None:
    assert same(host, "pool", **declared(empty[:2]))["pool"]["state"] == "active"
    made = same(host, "volume", pool=GROUP, volumes=VOLUMES)
    assert any("promised" in text for text in made["warnings"])
    assert sizes() == {"plain": 12, "tp": 64, "thin": 100, "thinsnap": 100, "snap": 8}
    found = lvs()
    assert {name: (found[name]["origin"], found[name]["pool_lv"]) for name in ("thin", "thinsnap", "snap")} == {
        "thin": ("", "tp"),
        "thinsnap": ("thin", "tp"),
        "snap": ("plain", ""),
    }
    refused(host.volume(pool=GROUP, name="plain", state="absent"), "volume_backing")
    refused(host.volume(pool=GROUP, name="plain", state="absent", allow=["backing"]), "volume_backing")
    refused(host.volume(pool=GROUP, name="tp", state="absent"), "volume_backing")
    refused(host.volume(pool=GROUP, name="plain", capacity="40M"), "volume_backing")
    refused(host.volume(pool=GROUP, name="tp", capacity="32M", format="thin-pool", allow=["shrink"]), "volume_differs")
    refused(host.volume(pool=GROUP, name="sparse", capacity="40M", allocation="0"), "invalid_option")
    refused(host.volume(pool=GROUP, name="x_tdata", capacity="4M"), "invalid_name")
    refused(host.volume(pool=GROUP, name="huge", capacity="1T"), "no_space")
    refused(host.pool(**declared(empty[:2], state="deleted")), "pool_nonempty")
    gone = done(host.pool(**declared(empty[:2], state="deleted", allow=["nonempty"])))
    order = [step["subject"] for step in gone["plan"] if step["action"] == "delete"]
    assert {"volume vgt/snap", "volume vgt/tp"} < set(order)
    assert report("vgs", "vg_name", "vg") == []
    assert report("pvs", "pv_name", "pv") == []
    done(host.pool(**declared(empty[:2], state="deleted", allow=["nonempty"])), changed=False)


def _volume_xml(name: str) -> dict[str, Any]:
    root = ElementTree.fromstring(run("virsh", "vol-dumpxml", "--pool", GROUP, name))
    return facts_of(root)


def facts_of(root: ElementTree.Element) -> dict[str, Any]:
    extents = [
        (device.get("path"), extent.get("start"), extent.get("end"))
        for device in root.iterfind("source/device")
        for extent in device.iterfind("extent")
    ]
    texts = ("name", "key", "capacity", "allocation", "target/path", "target/permissions/mode", "backingStore/path")
    return {"extents": extents, **{name: root.findtext(name) for name in texts}}


def told_to_both(system_host: Host) -> None:
    """The group is a pool of ours, and of the daemon, which finds it as it starts."""
    done(system_host.pool(name=GROUP, type="logical"))
    run("systemctl", "restart", "libvirtd")


def as_the_daemon_shows(system_host: Host) -> dict[str, dict[str, Any]]:
    """Our records, after what the daemon shows of pool and volumes was found to be equal."""
    ours = {record["name"]: record for record in system_host.volume_info(pool=GROUP, xml=True)}
    (pool,) = system_host.pool_info(name=GROUP)
    info = ElementTree.fromstring(run("virsh", "pool-dumpxml", GROUP))
    assert run("virsh", "pool-list", "--name").split() == [GROUP]
    assert {name: str(pool[name]) for name in ("capacity", "allocation", "available")} == {
        name: info.findtext(name) for name in ("capacity", "allocation", "available")
    }
    theirs = [line.split()[0] for line in run("virsh", "vol-list", GROUP).splitlines()[2:] if line]
    assert theirs == sorted(name for name, record in ours.items() if record["timestamps"])
    for name in theirs:
        assert facts_of(ElementTree.fromstring(ours[name]["xml"])) == _volume_xml(name)
    return ours


def test_like_the_daemon(system_host: Host, daemon_host: Host, empty: list[str]) -> None:
    """The same group by libvirtd: what it shows of pool and volumes is equal; it leaves out thin volumes."""
    run("vgcreate", GROUP, *empty[:2])
    run("lvcreate", "-y", "-L", "12M", "-n", "plain", GROUP)
    run("lvcreate", "-y", "-L", "16M", "-i2", "-n", "striped", GROUP)
    run("lvcreate", "-y", "-s", "-L", "8M", "-n", "snap", f"{GROUP}/plain")
    run("lvcreate", "-y", "-an", "-Zn", "-L", "8M", "-n", "off", GROUP)
    told_to_both(system_host)
    assert sorted(as_the_daemon_shows(system_host)) == ["off", "plain", "snap", "striped"]
    done(system_host.pool(name=GROUP, state="absent"))
    assert lvs()["plain"]["lv_attr"][4] == "a"


def test_volumes_that_virsh_makes(system_host: Host, daemon_host: Host, empty: list[str]) -> None:
    """A sparse one is a snapshot of an origin that LVM hides, and that goes with it."""
    run("vgcreate", GROUP, empty[0])
    run("lvcreate", "-y", "-L", "12M", "-n", "plain", GROUP)
    told_to_both(system_host)
    run("virsh", "vol-create-as", GROUP, "sparse", "40M", "--allocation", "0")
    run("virsh", "vol-create-as", GROUP, "snap", "12M", "--backing-vol", "plain")
    run("virsh", "pool-refresh", GROUP)
    ours = as_the_daemon_shows(system_host)
    assert (ours["sparse"]["capacity"], ours["sparse"]["allocation"]) == (40 * MIB, 4 * MIB)
    assert (ours["sparse"].get("backing"), ours["snap"]["backing"]["path"]) == (None, f"/dev/{GROUP}/plain")
    assert "[sparse_vorigin]" in hidden()
    volumes = [
        {"name": "plain", "capacity": "12M"},
        {"name": "sparse", "capacity": "40M"},
        {"name": "snap", "backing": "plain"},
    ]
    done(system_host.volume(pool=GROUP, volumes=volumes), changed=False)
    refused(system_host.volume(pool=GROUP, name="plain", state="absent"), "volume_backing")
    same(system_host, "volume", pool=GROUP, name="sparse", state="absent")
    assert hidden() == ["plain", "snap"]
    done(system_host.pool(name=GROUP, state="absent"))


def hidden() -> list[str]:
    """All volumes; those that LVM shows to nobody who does not ask, in brackets."""
    return sorted(row["lv_name"] for row in report("lvs", "lv_name", "lv", "--all", GROUP))


def test_resized_filled_in_use(host: Host, empty: list[str], tmp_path: Path) -> None:
    done(host.pool(**declared(empty[:1])))
    image = tmp_path / "image"
    image.write_bytes(os.urandom(5 * MIB))
    run("qemu-img", "convert", "-O", "qcow2", str(image), f"{image}.qcow2")
    same(
        host,
        "volume",
        pool=GROUP,
        volumes=[
            {"name": "raw", "source": {"path": str(image)}},
            {"name": "cow", "source": {"path": f"{image}.qcow2"}, "capacity": "20M"},
            {"name": "text", "source": {"content": "hello"}, "capacity": "4M"},
            {"name": "copy", "source": {"volume": "raw"}},
        ],
    )
    assert sizes() == {"raw": 8, "cow": 20, "text": 4, "copy": 8}
    for name in ("raw", "cow", "copy"):
        run("cmp", "-n", str(5 * MIB), str(image), f"/dev/{GROUP}/{name}")
    assert Path(f"/dev/{GROUP}/text").read_bytes().startswith(b"hello")
    run("mkfs.ext4", "-q", f"/dev/{GROUP}/cow")
    run("mount", f"/dev/{GROUP}/cow", "/mnt")
    try:
        same(host, "volume", pool=GROUP, name="cow", capacity="29M")
        assert "/mnt" in refused(host.volume(pool=GROUP, name="cow", state="absent"), "volume_in_use")["message"]
        smaller = {"pool": GROUP, "name": "cow", "capacity": "8M"}
        refused(host.volume(**smaller), "shrink_refused")
        refused(host.volume(**smaller, allow=["shrink"]), "volume_in_use")
        busy = refused(host.pool(name=GROUP, state="inactive"), "pool_in_use")
        assert "/mnt" in busy["message"]
    finally:
        run("umount", "/mnt")
    same(host, "volume", pool=GROUP, name="copy", capacity="4M", allow=["shrink"])
    assert sizes() == {"raw": 8, "cow": 32, "text": 4, "copy": 4}
    same(host, "pool", name=GROUP, state="inactive")
    assert {row["lv_attr"][4] for row in lvs().values()} == {"-"}
    same(host, "pool", name=GROUP)
    assert {row["lv_attr"][4] for row in lvs().values()} == {"a"}


def test_adopted_extended_overwritten(host: Host, empty: list[str]) -> None:
    run("vgcreate", GROUP, empty[0])
    run("lvcreate", "-y", "-L", "4M", "-n", "theirs", GROUP)
    same(host, "pool", name=GROUP, type="logical")
    done(host.pool(name=GROUP, state="inactive"))
    assert lvs()["theirs"]["lv_attr"][4] == "a"
    refused(host.pool(**declared([empty[1]])), "storage_foreign")
    run("mkfs.ext4", "-q", empty[1])
    refused(host.pool(**declared(empty[:2])), "storage_foreign")
    same(host, "pool", **declared(empty[:2], allow=["overwrite"]))
    assert len(report("pvs", "pv_name", "pv")) == 2
    fewer = done(host.pool(**declared(empty[:1])))
    assert any("not declared" in text for text in fewer["warnings"])
    assert len(report("pvs", "pv_name", "pv")) == 2
    other = {"name": "other", "type": "logical", "source": {"name": "vgo", "device": empty[1]}}
    refused(host.pool(**other), "device_in_use")
    run("sgdisk", "-n", "1:0:0", empty[2], check=False) or run("sfdisk", empty[2], text=",,L\n")
    refused(host.pool(**{**other, "source": {"name": "vgo", "device": empty[2]}}), "storage_foreign")
    refused(host.pool(name="none", type="logical"), "source_missing")


def test_in_the_way(host: Host, loops: list[str]) -> None:
    """Groups that are not taken, and what is said of them."""
    run("vgcreate", GROUP, *loops[:2])
    refused(host.pool(name=GROUP, type="logical"), "vg_inside_volume")
    done(host.pool(**declared(loops[:2], state="present")))
    run("vgexport", GROUP)
    refused(host.pool(name=GROUP), "vg_exported")
    run("vgimport", GROUP)
    run("dd", f"if={loops[0]}", f"of={loops[2]}", "bs=1M", "status=none")
    assert "vgimportclone" in refused(host.pool(name=GROUP), "vg_duplicate")["hint"]
    run("wipefs", "-a", loops[2])
    done(host.pool(name=GROUP))
    run("losetup", "-d", loops[0])
    lost = refused(host.volume(pool=GROUP, name="v", capacity="4M"), "vg_partial")
    assert report("vgs", "vg_missing_pv_count", "vg")[0]["vg_missing_pv_count"] == "1", lost
    (record,) = host.pool_info(name=GROUP)
    assert record["error"]["code"] == "vg_partial"
    done(host.pool(name=GROUP, state="absent"))


def test_on_volumes_and_partitions(host: Host, empty: list[str]) -> None:
    """Partitions of one disk make a group as disks do; on a volume there is one only where LVM looks for it."""
    run("sfdisk", "--quiet", empty[0], text="label: gpt\nsize=100M\nsize=100M\n")
    run("udevadm", "settle")
    same(host, "pool", **declared([f"{empty[0]}-part1", f"{empty[0]}-part2"]))
    assert report("vgs", "pv_count", "vg", GROUP)[0]["pv_count"] == "2"
    same(host, "volume", pool=GROUP, name="inner", capacity="150M")
    above = {"name": "above", "type": "logical", "source": {"name": "vgo", "device": f"/dev/{GROUP}/inner"}}
    for check in (True, False):
        assert "scan_lvs" in refused(host.pool(check=check, **above), "not_supported")["hint"]
    config = _CONFIG.read_text(encoding="utf-8")
    try:
        _CONFIG.write_text(f"{config}\ndevices/scan_lvs=1\n", encoding="utf-8")
        same(host, "pool", **above)
        same(host, "volume", pool="above", name="v", capacity="8M")
        done(host.pool(name="above", state="absent"))
        taken = {"name": "taken", "type": "logical", "source": {"name": "vgo"}}
        refused(host.pool(**taken), "vg_inside_volume")
        run("vgremove", "--force", "--yes", "vgo")
    finally:
        _CONFIG.write_text(config, encoding="utf-8")


def shared(group: str, place: Path) -> None:
    """As lvmlockd makes it, which needs a lock manager that runs on all hosts."""
    backup = place / "backup"
    run("vgcfgbackup", "-f", str(backup), group)
    text = backup.read_text(encoding="utf-8")
    lock = '\tlock_type = "sanlock"\n\tlock_args = "1.0.0:lvmlock"\n'
    backup.write_text(text.replace("\tflags = []\n", f"\tflags = []\n{lock}", 1).replace(', "WRITE"]', "]", 1))
    run("vgcfgrestore", "-f", str(backup), group)


def test_of_other_hosts(host: Host, empty: list[str], tmp_path: Path) -> None:
    """LVM does not show them by itself: they are neither absent nor taken."""
    run("vgcreate", "everybody", empty[0])
    run("vgcreate", "other", empty[1])
    try:
        shared("everybody", tmp_path)
        run("vgchange", "-y", "--systemid", "elsewhere", "other")
        assert run("vgs", "--noheadings") == ""
        for name, device, code in (("everybody", empty[0], "vg_shared"), ("other", empty[1], "vg_foreign")):
            for source in ({"name": name}, {"name": name, "device": device}):
                refused(host.pool(name=name, type="logical", source=source), code)
            refused(host.pool(**declared([device], allow=["overwrite"])), "device_in_use")
    finally:
        run("wipefs", "--all", *empty[:2])


def test_two_of_one_name(host: Host, loops: list[str]) -> None:
    run("vgcreate", GROUP, loops[0])
    uuid = report("vgs", "vg_uuid", "vg")[0]["vg_uuid"]
    run("losetup", "-d", loops[0])
    run("vgcreate", GROUP, loops[1])
    back = f"{os.path.dirname(run('losetup', '-n', '-O', 'BACK-FILE', loops[1]).strip())}/a"
    run("losetup", loops[0], back)
    run("pvscan", "--cache", check=False)
    assert uuid in refused(host.pool(**declared(loops[:1])), "vg_duplicate")["message"]


@pytest.fixture
def devices_file(empty: list[str]) -> Iterator[list[str]]:
    """The disks, on a host where LVM looks only at what its devices file has."""
    config = _CONFIG.read_text(encoding="utf-8")
    _SYSTEM_DEVICES.parent.mkdir(exist_ok=True)
    yield empty
    _CONFIG.write_text(config, encoding="utf-8")
    clean()


def switch_on() -> None:
    with _CONFIG.open("a", encoding="utf-8") as config:
        config.write("\ndevices/use_devicesfile=1\n")


def test_devices_file(host: Host, devices_file: list[str]) -> None:
    """What the devices file hides is neither taken nor overwritten; what we make gets into it."""
    empty = devices_file
    run("vgcreate", "hidden", empty[0])
    switch_on()
    run("lvm", "lvmdevices", "--yes", "--adddev", empty[1])
    run("vgcreate", "seen", empty[1])
    assert [row["vg_name"] for row in report("vgs", "vg_name", "vg")] == ["seen"]
    over = declared(empty[:1], allow=["overwrite"])
    assert "lvmdevices --adddev" in refused(host.pool(**over), "vg_hidden")["hint"]
    assert "lvmdevices" in refused(host.pool(name="hidden", type="logical"), "source_missing")["hint"]
    same(host, "pool", **declared(empty[2:3]))
    assert os.path.realpath(empty[2]) in run("lvm", "lvmdevices")


# Where LVM and libblkid keep what they remember, and what both look at.
_KEPT = ("/etc/lvm", "/run/lvm", "/run/lock/lvm", "/run/blkid", "/etc/blkid.tab", "/run/virt-storage")


def kept() -> dict[str, tuple[int, bytes]]:
    """All of that, with when it was written."""
    paths = [path for top in map(Path, _KEPT) for path in (top, *top.rglob("*")) if path.exists()]
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in paths
        if not path.is_socket()
    }


def made_stale(node: str, by: str) -> None:
    """What the devices file says of a device after it got another name; or without anything else to know it by."""
    lines = _SYSTEM_DEVICES.read_text(encoding="utf-8").splitlines()
    number = next(index for index, line in enumerate(lines) if f"DEVNAME={node} " in line)
    lines[number] = lines[number].replace(f"DEVNAME={node} ", "DEVNAME=/dev/vdq ")
    if by == "devname":
        pvid = lines[number].partition("PVID=")[2]
        lines[number] = f"IDTYPE=devname IDNAME=/dev/vdq DEVNAME=/dev/vdq PVID={pvid}"
    _SYSTEM_DEVICES.write_text("\n".join([*lines, ""]), encoding="utf-8")


@pytest.mark.parametrize("by", ["sys_serial", "devname"])
def test_looking_writes_nothing(host: Host, devices_file: list[str], by: str) -> None:
    """LVM's own reports would write to the devices file; what changes something leaves that to LVM."""
    disks = devices_file
    nodes = [os.path.realpath(disk) for disk in disks]
    run("vgcreate", "hidden", disks[2])
    switch_on()
    run("lvm", "lvmdevices", "--yes", "--adddev", disks[0])
    done(host.pool(**declared(disks[:1])))
    done(host.volume(pool=GROUP, name="v", capacity="8M"))
    made_stale(nodes[0], by)
    stale = _SYSTEM_DEVICES.read_bytes()
    before = kept()
    assert host.pool(check=True, **declared(disks[:2]))["changed"]
    assert host.volume(check=True, pool=GROUP, name="w", capacity="8M")["changed"]
    done(host.volume(check=True, pool=GROUP, name="v", capacity="8M"), changed=False)
    assert [pool["state"] for pool in host.pool_info(name=GROUP)] == ["active"]
    assert [volume["name"] for volume in host.volume_info(pool=GROUP)] == ["v"]
    found = call("storage_pool_sources", uri=host.uri, type="logical")["sources"]
    assert [each["source"]["name"] for each in found] == [GROUP]
    for kind in ("fs", "disk"):
        call("storage_pool_sources", uri=host.uri, type=kind)
    assert kept() == before
    same(host, "volume", pool=GROUP, name="w", capacity="8M")
    same(host, "pool", **declared(disks[:2]))
    assert sizes() == {"v": 8, "w": 8}
    written = _SYSTEM_DEVICES.read_bytes()
    assert f"DEVNAME={nodes[1]} ".encode() in written
    assert nodes[2].encode() not in written
    _SYSTEM_DEVICES.write_bytes(stale)
    run("lvs")
    assert _SYSTEM_DEVICES.read_bytes() != stale  # so it would have been written


def killable(tasks: list[tuple[str, dict[str, Any]]], environment: dict[str, str]) -> list[dict[str, Any]] | None:
    """The results of modules that are called in a child, whose commands may kill it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.environ.update(environment)
            with os.fdopen(writer, "w", encoding="utf-8") as answer:
                json.dump([call(module, **params) for module, params in tasks], answer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


@pytest.mark.parametrize("extending", [False, True])
@pytest.mark.parametrize("mounting", [False, True])
def test_what_comes_to_a_device_after_the_look_stays(
    host: Host, empty: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounting: bool, extending: bool
) -> None:
    """Nothing is done to the others either: neither wiped nor labelled."""
    run("mkfs.ext4", "-q", empty[1])
    if extending:
        done(host.pool(**declared(empty[2:3])))
    devices = [*(empty[2:3] if extending else empty[:1]), empty[1]]
    last = empty[1]
    meanwhile(monkeypatch, lambda: run("mount", last, str(tmp_path)) if mounting else run("mkfs.xfs", "-qf", last))
    try:
        failed = host.pool(**declared(devices, allow=["overwrite"]))
    finally:
        run("umount", str(tmp_path), check=False)
    assert failed["error"]["code"] == "changed_meanwhile", failed
    assert run("blkid", "-p", "-o", "value", "-s", "TYPE", last).strip() == ("ext4" if mounting else "xfs")
    assert [row["pv_name"] for row in report("pvs", "pv_name", "pv")] == [
        os.path.realpath(each) for each in empty[2:3] if extending
    ]
    same(host, "pool", **declared(devices, allow=["overwrite"]))
    assert {row["pv_name"] for row in report("pvs", "pv_name", "pv")} == {os.path.realpath(each) for each in devices}


@pytest.mark.parametrize("kills", [(1, 3, 5, 8)])
def test_killed(host: Host, empty: list[str], tmp_path: Path, kills: tuple[int, ...]) -> None:
    """Killed at the nth command of LVM, the next run completes the work and nothing is left over."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("vgcreate", "lvcreate", "lvrename", "vgchange", "vgextend"):
        script = tools / name
        script.write_text(
            f'#!/bin/sh\necho x >> {tmp_path}/count\n/usr/sbin/{name} "$@"\nended=$?\n'
            f'[ "$(wc -l < {tmp_path}/count)" = "$KILL" ] && kill -9 $PPID\nexit $ended\n'
        )
        script.chmod(0o755)
    volumes = [{"name": "a", "capacity": "8M"}, {"name": "b", "backing": "a", "allocation": "4M"}]
    tasks = [
        ("storage_pool", {"uri": host.uri, **declared(empty[:1])}),
        ("storage_volume", {"uri": host.uri, "pool": GROUP, "volumes": volumes}),
    ]
    for kill in (*kills, 0):
        (tmp_path / "count").write_text("")
        results = killable(tasks, {"PATH": f"{tools}:{os.environ['PATH']}", "KILL": str(kill)})
        assert results is not None or kill
    assert not any(result.get("failed") for result in results), results
    assert {name: row["origin"] for name, row in lvs().items()} == {"a": "", "b": "a"}
    done(host.volume(pool=GROUP, volumes=volumes), changed=False)
