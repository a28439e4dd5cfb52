# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units of SCSI hosts in a made-up sysfs: which ones are volumes, how they are called, and how they are looked for."""

from __future__ import annotations

import os

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import links
from ansible_collections.virt.storage.plugins.module_utils.backends.units import observe_units, rescan
from ansible_collections.virt.storage.plugins.module_utils.host import scanning, scsi, udev
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import Found, Usage
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.operations import ScanUnits
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool

from .scsi_tree import MIB, Tree, designator, page80, page83

NAA_5 = bytes.fromhex("5000c500a1b2c3d4")
NAA_6 = bytes.fromhex("600140500a1b2c3d4e5f60718293a4b5")
NAA_2 = bytes.fromhex("2000000000000001")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    return Tree(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def _without_udev(monkeypatch):
    monkeypatch.setattr(udev, "_CONTROL", "/nowhere/control")


def look():
    return Look(10, "/nowhere/records", "/nowhere/started")


def observed(directory="/dev", volumes=None, host=2, target="", **more):
    scope = Scope(Pool("units"), volumes=volumes)
    return observe_units(Found("units"), scope, look(), scsi.units(host, target), directory, **more)


def key(tree, **pages):
    tree.host(2)
    tree.unit("2:0:0:0", **pages)
    return observed().volumes["unit:0:0:0"].key


def test_the_disks_of_a_host_are_its_volumes(tree):
    tree.host(2)
    tree.host(20)
    for address in ("20:0:0:0", "2:0:10:1", "2:0:2:1", "2:1:0:0"):
        tree.unit(address)
    tree.unit("2:0:0:0", kind=5)  # a rom
    tree.unit("2:0:0:1", kind=3, disk=False)
    found = observed()
    assert list(found.volumes) == ["unit:0:2:1", "unit:0:10:1", "unit:1:0:0"]
    assert found.usage == Usage(3 * MIB, 3 * MIB, 0)
    volume = found.volumes["unit:0:10:1"]
    assert (volume.type, volume.path, volume.key, volume.format) == ("block", "/dev/sdc", "/dev/sdc", None)
    assert (volume.capacity, volume.allocation, volume.physical, volume.problem) == (MIB, MIB, MIB, "")
    assert volume.identity[:3] == (8, 32, MIB)


def test_the_disks_of_one_target(tree):
    tree.host(2)
    for address in ("2:0:0:0", "2:0:1:0", "2:0:1:7", "2:0:11:0"):
        tree.unit(address)
    assert list(observed(target="2:0:1").volumes) == ["unit:0:1:0", "unit:0:1:7"]


def test_only_those_that_are_asked_for(tree):
    tree.host(2)
    for address in ("2:0:0:0", "2:0:0:1"):
        tree.unit(address)
    found = observed(volumes=("unit:0:0:1", "unit:0:0:9"))
    assert list(found.volumes) == ["unit:0:0:1"]
    assert found.usage.capacity == 2 * MIB


def test_a_host_without_anything(tree):
    tree.host(2)
    assert (observed().volumes, observed().usage) == ({}, Usage(0, 0, 0))


# -- paths --------------------------------------------------------------------------------------------------------


def test_paths_are_links_of_the_pool(tree, tmp_path):
    tree.host(2)
    tree.unit("2:0:0:0")
    tree.unit("2:0:0:1")
    by_path = tmp_path / "by-path"
    by_path.mkdir()
    for name, node in (("pci-2-lun-0", "/dev/sdb"), ("also-lun-0", "/dev/sdb"), ("other", "/dev/null")):
        (by_path / name).symlink_to(node)
    volumes = observed(str(by_path)).volumes
    assert volumes["unit:0:0:0"].path == volumes["unit:0:0:0"].key == f"{by_path}/also-lun-0"
    without = volumes["unit:0:0:1"]
    assert (without.path, without.key, without.capacity) == (None, None, MIB)
    assert without.problem == f"no link in {by_path} leads to /dev/sdc"


def test_links_that_udev_is_making_are_waited_for(tree, tmp_path, monkeypatch):
    tree.host(2)
    tree.unit("2:0:0:0")
    waited = []

    def settle(seconds):
        waited.append(seconds)
        (tmp_path / "a").symlink_to("/dev/sdb")

    monkeypatch.setattr(udev, "settle", settle)
    assert observed(str(tmp_path)).volumes["unit:0:0:0"].path == f"{tmp_path}/a"
    assert observed(str(tmp_path)).volumes["unit:0:0:0"].path == f"{tmp_path}/a"
    assert len(waited) == 1
    assert 0 < waited[0] <= 10


def test_nobody_waits_for_links_in_dev(tree, monkeypatch):
    tree.host(2)
    tree.unit("2:0:0:0")
    monkeypatch.setattr(udev, "settle", lambda seconds: pytest.fail("settled"))
    for directory in (None, "/dev", "/dev/"):
        assert observed(directory).volumes["unit:0:0:0"].path == "/dev/sdb"


def test_links_are_read_once(tmp_path):
    one = look()
    (tmp_path / "a").symlink_to("/dev/sdb")
    assert links.links_in(str(tmp_path), one) == {"/dev/sdb": f"{tmp_path}/a"}
    (tmp_path / "a").unlink()
    assert links.links_in(str(tmp_path), one)
    assert links.links_in("/nowhere", one) == {}


# -- what can't be used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "problem"),
    [
        ({"state": "offline"}, "the kernel has no way to it: its state is offline"),
        ({"state": "transport-offline"}, "the kernel has no way to it: its state is transport-offline"),
        ({"disk": False}, "the kernel has made no block device of it"),
        ({"size": 0}, "it does not tell its size, as one that is not served any more"),
        ({"state": "running"}, ""),
    ],
)
def test_one_that_can_not_be_used_is_told(tree, unit, problem):
    tree.host(2)
    tree.unit("2:0:0:0", **unit)
    tree.unit("2:0:0:1")
    volumes = observed().volumes
    assert volumes["unit:0:0:0"].problem == problem
    assert volumes["unit:0:0:1"].problem == ""


def test_paths_of_a_multipath_map_are_no_volumes(tree):
    tree.host(2)
    path, other = tree.unit("2:0:0:0"), tree.unit("2:0:0:1")
    tree.map(0, "mpatha", path)
    tree.map(1, "vg-lv", other, uuid="LVM-x")
    assert list(observed().volumes) == ["unit:0:0:1"]
    assert observed().usage == Usage(MIB, MIB, 0)
    asked = observed(volumes=("unit:0:0:0",)).volumes["unit:0:0:0"]
    whole = Scope(Pool("units"), volumes=None, neighbours=True)
    assert list(observe_units(Found("units"), whole, look(), scsi.units(2), "/dev").volumes) == [
        asked.name,
        "unit:0:0:1",
    ]
    assert asked.foreign == "a path of the multipath map mpatha (/dev/mapper/mpatha)"


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ([designator(3, NAA_5), designator(3, NAA_6)], "3" + NAA_6.hex()),
        ([designator(3, NAA_2), designator(3, NAA_5)], "3" + NAA_5.hex()),
        ([designator(1, b"Maker   x", 2), designator(3, NAA_2)], "3" + NAA_2.hex()),
        ([designator(1, b"Maker   x y ", 2), designator(2, bytes(8))], "2" + "0" * 16),
        ([designator(1, b"Maker   x y ", 2)], "1Maker_x_y"),
        ([designator(0, b"n/1", 2)], "0Maker_Model_n_1"),
        ([designator(3, NAA_5, of=1), designator(1, b"unit", 2)], "1unit"),
        ([designator(8, b"iqn.2026-01.org", 3)], "/dev/sdb"),
    ],
)
def test_the_best_name_that_a_unit_tells_is_its_key(tree, page, expected):
    assert key(tree, vpd_pg83=page83(*page)) == expected


def test_else_its_number_is(tree):
    assert key(tree, vpd_pg80=page80(b"  A 1 ")) == "SMaker_Model_A_1"


def test_units_from_before_spc_3_have_a_name_of_another_form(tree):
    assert key(tree, vpd_pg83=page83(NAA_6)) == f"3{NAA_6.hex()}"


def test_what_tells_nothing_has_its_path(tree):
    assert key(tree) == "/dev/sdb"


@pytest.mark.parametrize("page", [b"", b"\0\x83", page83(designator(3, b"")), page83(designator(3, NAA_5))[:9]])
def test_a_page_that_is_cut_off_says_what_it_says(tree, page):
    assert key(tree, vpd_pg83=page) in ("/dev/sdb", "3", "350")


def test_one_that_is_there_by_several_ports_has_a_key_for_each(tree):
    tree.host(2)
    for port in (1, 0x1A):
        group = designator(5, bytes([0, 0, 0, port]), of=1)
        tree.unit(f"2:0:{port}:0", vpd_pg83=page83(designator(3, NAA_5), group))
    tree.unit("2:0:3:0", vpd_pg83=page83(designator(3, NAA_5)))
    keys = [volume.key for volume in observed(ports=True).volumes.values()]
    assert keys == [f"3{NAA_5.hex()}_PORT1", "/dev/sdd", f"3{NAA_5.hex()}_PORT1a"]


# -- looking for new ones -----------------------------------------------------------------------------------------


def test_looking_tells_the_kernel_nothing(tree):
    tree.host(2)
    tree.unit("2:0:0:0")
    observed()
    said = [*tree.sys.glob("class/scsi_host/*/scan"), *tree.sys.glob("bus/scsi/devices/*/rescan")]
    assert [file.read_text() for file in said] == ["\n", "\n"]


@pytest.mark.parametrize(("target", "word"), [("", "- - -"), ("2:0:7", "0 7 -")])
def test_a_scan_asks_for_new_units_and_new_sizes(tree, target, word):
    tree.host(2)
    for address in ("2:0:7:0", "2:0:8:0"):
        tree.unit(address)
    tree.unit("2:0:7:1", state="blocked")
    operation = rescan(2, target)
    assert operation.command == (
        f"echo '{word}' > /sys/class/scsi_host/host2/scan && echo 1 | tee /sys/bus/scsi/devices/{target or 2}:*/rescan"
    )
    Applier(timeout=10).apply(operation)
    assert (tree.sys / "class/scsi_host/host2/scan").read_text() == f"{word}\n"
    said = {file.parent.name for file in tree.sys.glob("bus/scsi/devices/*/rescan") if file.read_text() == "1\n"}
    assert said == ({"2:0:7:0"} if target else {"2:0:7:0", "2:0:8:0"})


def test_a_scan_waits_for_devices(tree, monkeypatch):
    tree.host(2)
    monkeypatch.setattr(scanning, "tell", lambda *args: tree.unit("2:0:0:0", disk=False))
    monkeypatch.setattr(scanning.time, "sleep", lambda seconds: _finish(tree))
    Applier(timeout=10).apply(rescan(2))
    assert [unit.device.node for unit in scsi.units(2)] == ["/dev/sdb"]


def _finish(tree):
    (tree.sys / "bus/scsi/devices/2:0:0:0").unlink()
    tree.unit("2:0:0:0")


def test_a_host_that_went_away_can_not_be_scanned(tree):
    with pytest.raises(StorageError) as caught:
        Applier(timeout=10).apply(ScanUnits(9))
    assert caught.value.code == "command_failed"
    assert "host9/scan" in caught.value.stderr


def test_a_unit_that_does_not_answer_ends_at_the_deadline(tree):
    tree.host(2)
    scan = tree.sys / "class/scsi_host/host2/scan"
    scan.unlink()
    os.mkfifo(scan)  # opening it waits for a reader
    with pytest.raises(StorageError) as caught:
        Applier(timeout=0.2).apply(ScanUnits(2))
    assert (caught.value.code, "lsscsi" in caught.value.hint) == ("deadline", True)
