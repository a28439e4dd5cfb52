# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partition tables as tools print them, and the names of partitions on disks of every kind."""

from __future__ import annotations

import fcntl
import json
import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import partitioning, partitions
from ansible_collections.virt.storage.plugins.module_utils.host.block import Device
from ansible_collections.virt.storage.plugins.module_utils.host.partitions import Seen, differences, read_table, stem_of
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.operations import ChangeTable
from ansible_collections.virt.storage.plugins.module_utils.model.tables import Partition, Table

MIB = 2**20


def device(node, kind="disk", size=512 * MIB, **more) -> Device:
    return Device(node, node, (8, 16), size, 512, False, kind, **more)


@pytest.mark.parametrize(
    ("node", "stem"),
    [
        ("/dev/sdb", "sdb"),
        ("/dev/vdaa", "vdaa"),
        ("/dev/nvme0n1", "nvme0n1p"),
        ("/dev/mmcblk0", "mmcblk0p"),
        ("/dev/loop12", "loop12p"),
        ("/dev/md127", "md127p"),
    ],
)
def test_the_kernels_names(node, stem):
    for separator in (None, True, False):
        assert stem_of(device(node), separator) == (stem, "/dev")


@pytest.mark.parametrize(
    ("name", "separator", "stem"),
    [
        ("mpatha", None, "mpatha"),
        ("mpatha", False, "mpatha"),
        ("mpatha", True, "mpathap"),
        ("mpath1", False, "mpath1p"),
        ("3600508b1", None, "3600508b1p"),
    ],
)
def test_names_of_device_mapper(name, separator, stem):
    assert stem_of(device("/dev/dm-3", "dm", dm_name=name), separator) == (stem, "/dev/mapper")


def test_names_as_those_that_are_there(monkeypatch):
    """udev's rules for multipath maps put -part before the number, kpartx a p or nothing."""
    monkeypatch.setattr(partitions, "read_small_file", lambda path: b"mpatha-part1\n")
    mapped = device("/dev/dm-3", "dm", dm_name="mpatha", partitions=("/dev/dm-4",))
    assert stem_of(mapped, True) == ("mpatha-part", "/dev/mapper")


RULE = 'KERNEL!="dm-*", GOTO="end"\nRUN+="/sbin/kpartx -un -p -part /dev/$name"\nLABEL="end"\n'


@pytest.fixture
def udev(tmp_path, monkeypatch):
    """Directories of udev's rules, the first of which comes first, and of its records."""
    places = [tmp_path / name for name in ("etc", "usr", "data")]
    for place in places:
        place.mkdir()
    monkeypatch.setattr(partitions, "_RULES", (str(tmp_path / "none"), *map(str, places[:2])))
    monkeypatch.setattr(partitions, "_UDEV", str(places[2]))
    return places


MULTIPATH = {"kind": "dm", "dm_name": "mpatha", "dm_uuid": "mpath-3600a"}


@pytest.mark.parametrize(
    ("files", "stem"),
    [
        pytest.param({"usr/60-kpartx.rules": RULE}, "mpatha-part", id="Debian, SUSE"),
        pytest.param({"usr/62-multipath.rules": RULE.replace("-p -part ", "")}, "mpatha", id="kpartx's own"),
        pytest.param({"usr/60-kpartx.rules": RULE, "etc/60-kpartx.rules": "# none\n"}, "mpathap", id="replaced"),
        pytest.param({"usr/60-kpartx.rules": RULE.replace("RUN", "# RUN")}, "mpathap", id="comment"),
        pytest.param(
            {"usr/60-kpartx.rules": RULE, "data/b8:16": "E:DM_SUBSYSTEM_UDEV_FLAG1=1\n"}, "mpathap", id="skip"
        ),
        pytest.param({}, "mpathap", id="no rules"),
    ],
)
def test_names_that_udev_gives_to_partitions_of_multipath_maps(udev, tmp_path, files, stem):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    assert stem_of(device("/dev/dm-3", **MULTIPATH), True) == (stem, "/dev/mapper")
    other = {**MULTIPATH, "dm_uuid": "LVM-x"}
    assert stem_of(device("/dev/dm-3", **other), True) == ("mpathap", "/dev/mapper")


def test_rules_that_are_put_out_of_force(udev):
    (udev[1] / "60-kpartx.rules").write_text(RULE, encoding="ascii")
    (udev[0] / "60-kpartx.rules").symlink_to("/dev/null")
    assert stem_of(device("/dev/dm-3", **MULTIPATH), None) == ("mpatha", "/dev/mapper")


def test_what_sfdisk_prints():
    told = {
        "label": "gpt", "device": "/dev/nvme0n1", "firstlba": 34, "lastlba": 1000, "sectorsize": 4096,
        "partitions": [
            {"node": "/dev/nvme0n1p12", "start": 512, "size": 256, "type": "0FC63DAF-8483-4772-8E79-3D69D8477DE4"},
            {"node": "/dev/nvme0n1p2", "start": 256, "size": 256, "type": "x"},
        ],
    }  # fmt: skip
    asked = []

    def run(argv):
        asked.append(argv)
        return json.dumps({"partitiontable": told})

    table = read_table(device("/dev/nvme0n1"), "gpt", None, run)
    assert asked == [["sfdisk", "--json", "/dev/nvme0n1"]]
    assert (table.first, table.end, table.sector, table.entries) == (34 * 4096, 1001 * 4096, 4096, 128)
    told["table-length"] = "4"
    assert read_table(device("/dev/nvme0n1"), "gpt", None, run).entries == 4
    assert [(each.number, each.start, each.end) for each in table.partitions] == [
        (2, MIB, 2 * MIB),
        (12, 2 * MIB, 3 * MIB),
    ]
    for printed in ("", "{}", "warning"):
        with pytest.raises(StorageError) as raised:
            read_table(device("/dev/nvme0n1"), "gpt", None, lambda argv, text=printed: text)
        assert raised.value.code == "command_failed"


def test_what_parted_prints():
    printed = (
        "BYT;\n/dev/sdb:209715200B:scsi:512:512:mac:A disk:;\n1:512B:32767B:32256B::Apple:;\n"
        "1:32768B:20971519B:20938752B:free;\n2:20971520B:31457279B:10485760B::ext2:;\n"
        "1:31457280B:209715199B:178257920B:free;\n"
    )
    table = read_table(device("/dev/sdb"), "mac", None, lambda argv: printed)
    assert table.partitions == (Partition(2, 20971520, 31457280),)
    assert table.first == 32768  # behind the map itself


def test_what_the_kernel_has_to_be_told():
    seen = [Seen("sdb1", 1, MIB, MIB), Seen("sdb2", 2, 4 * MIB, MIB), Seen("sdb3", 3, 6 * MIB, 1024)]
    wanted = (
        Partition(1, MIB, 3 * MIB, "83"),
        Partition(2, 5 * MIB, 6 * MIB, "83"),
        Partition(3, 6 * MIB, 90 * MIB, "f"),
        Partition(5, 7 * MIB, 8 * MIB, "83"),
    )
    table = Table("dos", "/dev/sdb", "sdb", 512, 1024, 512 * MIB, wanted)
    gone, new, sized = differences(table, seen)
    assert [each.number for each in gone] == [2]
    assert [each.number for each in new] == [2, 5]
    assert [each.number for each in sized] == [1]
    assert differences(table._replace(partitions=()), []) == ([], [], [])


def test_labels_that_blkid_does_not_know(tmp_path):
    def label(**places) -> str:
        sector = bytearray(512)
        for place, text in places.items():
            sector[int(place[1:]) : int(place[1:]) + len(text)] = text
        (tmp_path / "disk").write_bytes(sector)
        return partitions.old_label(str(tmp_path / "disk"))

    assert label() == label(_510=b"\x55\xaa") == ""
    assert label(_64=b"\x57\x45\x56\x82") == "bsd"
    assert label(_4=b"IPL1", _510=b"\x55\xaa") == "pc98"
    assert label(_4=b"IPL1") == ""


def test_what_the_kernel_finds_in_a_partition_is_left_alone():
    table = Table("dos", "/dev/sdb", "sdb", 512, 0, 100 * MIB, (Partition(1, MIB, 50 * MIB, "a5"),))
    seen = [Seen("sdb1", 1, MIB, 49 * MIB), Seen("sdb5", 5, 2 * MIB, 8 * MIB)]
    assert differences(table, seen) == ([], [], [])
    plain = table._replace(partitions=(Partition(1, MIB, 50 * MIB, "83"),))
    assert differences(plain, seen) == (seen[1:], [], [])


def test_a_disk_that_does_not_answer(monkeypatch, tmp_path):
    """It is read in a child, which is left behind."""
    monkeypatch.setattr(partitions, "_old_label", lambda path: time.sleep(60))
    with pytest.raises(StorageError) as caught:
        partitions.old_label(str(tmp_path / "disk"), 0.1)
    assert caught.value.code == "deadline"


@pytest.mark.parametrize(
    ("number", "start", "size", "why"),
    [
        pytest.param(1, 2048, 2048, "", id="as the table says"),
        pytest.param(1, 2048, 4096, "", id="larger in the table"),
        pytest.param(1, 2048, 1024, "ends", id="smaller in the table"),
        pytest.param(2, 4096, 2048, "is no longer", id="gone"),
        pytest.param(1, 4096, 2048, "is no longer", id="elsewhere by now"),
    ],
)
def test_what_only_the_kernel_still_has(monkeypatch, number, start, size, why):
    disk = device("/dev/sdb", partitions=("/dev/sdb1",))
    monkeypatch.setattr(partitions, "device_at", lambda path: disk)
    monkeypatch.setattr(partitions, "kernel_partitions", lambda disk: [Seen("sdb1", 1, MIB, MIB)])
    told = [{"node": f"/dev/sdb{number}", "start": start, "size": size}]
    printed = json.dumps({"partitiontable": {"label": "gpt", "partitions": told}})
    part = device("/dev/sdb1", "part", disk="/dev/sdb", partition=1)._replace(size=MIB)
    found = partitions.unreliable(part, lambda argv: printed)
    assert found.startswith(why)
    assert bool(found) == bool(why)
    assert not partitions.unreliable(part, lambda argv: "")  # no table that can be read: it can't be told
    assert not partitions.unreliable(disk, lambda argv: printed)


@pytest.mark.parametrize(("program", "shared"), [("parted", True), ("sfdisk", False)])
def test_a_program_that_waits_for_udev_leaves_it_a_shared_lock(tmp_path, monkeypatch, program, shared):
    """And nobody gets the lock that it takes to read the table anew."""
    disk, got = tmp_path / "disk", {}
    disk.write_bytes(bytes(512))

    def run(argv, *_more):
        for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
            with disk.open("rb") as stream:
                try:
                    fcntl.flock(stream, kind | fcntl.LOCK_NB)
                    got[kind] = True
                except BlockingIOError:
                    got[kind] = False

    monkeypatch.setattr(partitioning, "run", run)
    with disk.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        work = partitioning._Held(held.fileno(), (), 10.0)
        partitioning._edit(ChangeTable(str(disk), (), argv=(program,)), work)
    assert got == {fcntl.LOCK_SH: shared, fcntl.LOCK_EX: False}


@pytest.mark.parametrize("made", [[], [(MIB, 3 * MIB)]])
def test_a_partition_that_was_not_made_is_a_failure(made):
    there = tuple(Partition(number, *place) for number, place in enumerate([(8 * MIB, 9 * MIB), *made], 1))
    table = Table("gpt", "/dev/sdb", "sdb", 512, MIB, 512 * MIB, there)
    operation = ChangeTable("/dev/sdb", (), argv=("sfdisk",), free=(MIB, 2 * MIB))
    with pytest.raises(StorageError) as caught:
        partitioning._check_made(operation, table)
    assert caught.value.code == "operation_failed"
    partitioning._check_made(operation, table.with_partition(Partition(3, MIB, 2 * MIB)))
    partitioning._check_made(operation._replace(free=None), table)
