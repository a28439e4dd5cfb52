# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices are offered for which pools, under which name; with real ones: tests/integration/
test_sources_devices.py. What needs device-mapper is here only, made up after what sysfs and udev show.
"""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import device_sources, lvm
from ansible_collections.virt.storage.plugins.module_utils.host.block import Device
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.signatures import Content, Signature
from ansible_collections.virt.storage.plugins.module_utils.model.discovery import Query
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import User

GIB = 2**30
LV = "LVM-" + 64 * "a"


def device(node, kind="disk", size=GIB, read_only=False, **more):
    return Device(node, node, (8, 0), size, 512, read_only, kind, **more)


def signature(name, usage="filesystem", **more):
    return Signature(name, 0, usage, **more)


DISK = device("/dev/sda", partitions=("/dev/sda1",))
PART = device("/dev/sda1", "part", disk="/dev/sda", partition=1)
EXT4 = Content((signature("ext4", uuid="u", label="l"),))
GPT = Content((signature("gpt", "partition-table"), signature("PMBR", "partition-table")))
DEVICES = {
    "disk": DISK,
    "part": PART,
    "empty": device("/dev/sdb"),
    "volume": device("/dev/dm-0", "dm", dm_name="v--g-lv", dm_uuid=LV),
    "inner": device("/dev/dm-1", "dm", dm_name="vg-thin_tdata", dm_uuid=f"{LV}-tdata"),
    "crypt": device("/dev/dm-2", "dm", dm_name="secret", dm_uuid="CRYPT-LUKS2-abc-secret"),
    "multipath": device("/dev/dm-3", "dm", dm_name="mpatha", dm_uuid="mpath-3600"),
    "its part": device("/dev/dm-4", "dm", dm_name="mpatha-part1", dm_uuid="part1-mpath-3600", partition=1),
    "array": device("/dev/md0", "md"),
}
CONTENTS = {"/dev/sda": GPT, "/dev/sda1": EXT4}


@pytest.fixture
def look(monkeypatch):
    """What is found; ``users`` and ``contents`` by node."""
    monkeypatch.setattr(device_sources.os, "geteuid", lambda: 0)
    monkeypatch.setattr(device_sources, "aliases", lambda each: ALIASES.get(each.node, (each.node,)))
    member = lvm.Member("/dev/sdb", "u", "vg0", (8, 16), False, (), True, GIB)
    monkeypatch.setattr(lvm, "report", lambda look: lvm.Report((), (member,)))

    def run(kind, devices, contents=None, users=None):
        monkeypatch.setattr(device_sources, "_devices", lambda: list(devices))
        monkeypatch.setattr(
            device_sources,
            "_look_at",
            lambda each, processes, deadline: (
                {**CONTENTS, **(contents or {})}.get(each.node, Content()),
                (users or {}).get(each.node, []),
            ),
        )
        return device_sources.find(Query(kind), Look(10, "", "")).sources

    return run


ALIASES = {
    "/dev/sda": ("/dev/disk/by-id/ata-X", "/dev/disk/by-id/wwn-0x5000", "/dev/disk/by-path/pci-1", "/dev/sda"),
    "/dev/sda1": ("/dev/disk/by-id/ata-X-part1", "/dev/disk/by-partuuid/1", "/dev/sda1"),
    "/dev/sdb": ("/dev/disk/by-id/lvm-pv-uuid-abc", "/dev/disk/by-path/pci-2", "/dev/sdb"),
    "/dev/dm-0": ("/dev/disk/by-id/dm-uuid-LVM", "/dev/dm-0", "/dev/mapper/v--g-lv", "/dev/v-g/lv"),
    "/dev/dm-2": ("/dev/dm-2",),
}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("disk", ["disk", "empty", "multipath", "array"]),
        ("fs", ["part", "empty", "volume", "crypt", "multipath", "its part", "array"]),
    ],
)
def test_what_is_offered(look, kind, names):
    assert [each.path for each in look(kind, DEVICES.values())] == [DEVICES[name].node for name in names]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("disk", "/dev/disk/by-id/wwn-0x5000"),
        ("part", "/dev/disk/by-id/ata-X-part1"),
        ("empty", "/dev/disk/by-path/pci-2"),
        ("volume", "/dev/mapper/v--g-lv"),
        ("crypt", "/dev/dm-2"),
        ("array", "/dev/md0"),
    ],
)
def test_names_that_stay(look, name, path):
    assert device_sources.stable_path(DEVICES[name]) == path


def test_a_filesystem(look):
    (found,) = look("fs", [PART])
    assert (found.source.format, found.content, found.uuid, found.label) == ("ext4", "ext4", "u", "l")
    assert (found.free, found.devices) == (True, ("/dev/sda1", "/dev/sda"))


@pytest.mark.parametrize(
    ("kind", "signatures", "expected"),
    [
        ("disk", GPT.signatures, "gpt"),
        ("disk", (signature("sgi", "partition-table"),), "dvh"),
        ("disk", (signature("atari", "partition-table"),), None),
        ("disk", EXT4.signatures, None),
        ("fs", (signature("btrfs"),), None),
        ("fs", (signature("vfat"),), "vfat"),
        ("fs", (signature("ext4"), signature("xfs")), None),
    ],
)
def test_formats_in_the_words_of_pools(look, kind, signatures, expected):
    (found,) = look(kind, [DEVICES["empty"]], {"/dev/sdb": Content(tuple(signatures))})
    assert found.source.format == expected
    assert found.content


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (Content((signature("LVM2_member", "raid"),)), "member of volume group vg0"),
        (Content((signature("zfs_member"),)), "it has the signature zfs_member of a part of something"),
        (Content((signature("bcache", "other"),)), "it has the signature bcache of a part of something"),
        (Content(problem="Input/output error"), "it can't be looked at: Input/output error"),
    ],
)
def test_what_is_a_part_of_something_or_broken_is_not_free(look, content, why):
    (found,) = look("fs", [DEVICES["empty"]], {"/dev/sdb": content})
    assert found.why_not == (why,)
    assert found.source.format is None


def test_without_lvm2_the_signature_has_to_do(look, monkeypatch):
    def missing(look):
        raise StorageError("tool_missing", "lvm is not installed")

    monkeypatch.setattr(lvm, "report", missing)
    (found,) = look("fs", [DEVICES["empty"]], {"/dev/sdb": Content((signature("LVM2_member", "raid"),))})
    assert found.why_not == ("physical volume of LVM",)


def test_what_can_not_be_written_is_no_disk(look):
    only_read = device("/dev/sdr", read_only=True)
    assert look("disk", [only_read])[0].why_not == ("it is read-only",)
    assert look("fs", [only_read])[0].free


def test_a_volume_belongs_to_its_group(look):
    assert look("fs", [DEVICES["volume"]])[0].group == "v-g"


def test_users_in_words():
    users = [
        User("mount", "/srv of /dev/sda1"),
        User("mount", "/etc as process 12 sees it"),
        User("swap", "/dev/sda2"),
        User("holder", "volume group vg0 (/dev/mapper/vg0-a)"),
        User("process", "qemu (pid 7)"),
        User("loop", "/dev/loop0"),
    ]
    assert [device_sources._in_words(user) for user in device_sources._nearest(users)] == [
        "mounted at /srv of /dev/sda1",
        "used as swap /dev/sda2",
        "part of volume group vg0 (/dev/mapper/vg0-a)",
        "used by process qemu (pid 7)",
        "used by loop /dev/loop0",
    ]
    assert device_sources._nearest(users[1:2]) == users[1:2]


def test_a_device_that_does_not_answer_holds_up_no_other(look, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(device_sources, "in_child", lambda function, seconds: None)
    content, users = device_sources._look_at(DISK, None, Look(10, "", ""))
    assert (content.problem, users) == ("it did not answer", [])


def test_a_device_that_does_not_answer_is_told(look, monkeypatch):
    assert look("disk", [DISK])[0].free
    monkeypatch.setattr(device_sources, "_look_at", lambda *args: (Content(problem="it did not answer"), []))
    found = device_sources.find(Query("disk"), Look(10, "", ""))
    assert [each.free for each in found.sources] == [False]
    assert [(each.host, each.error.code) for each in found.unanswered] == [("/dev/sda", "deadline")]


def test_only_root_can_look(monkeypatch):
    monkeypatch.setattr(device_sources.os, "geteuid", lambda: 1000)
    with pytest.raises(StorageError) as caught:
        device_sources.find(Query("disk"), Look(10, "", ""))
    assert caught.value.code == "not_readable"


def test_the_order_is_that_of_people():
    names = ["sdb", "sda10", "sda", "sda2", "nvme0n1", "dm-10", "dm-9"]
    assert sorted(names, key=device_sources._in_order) == ["dm-9", "dm-10", "nvme0n1", "sda", "sda2", "sda10", "sdb"]


@pytest.mark.parametrize("name", ["ram0", "zram1", "nbd0", "nbd0p1", "zd16", "sr0", "fd0"])
def test_what_is_never_offered(name):
    assert device_sources._NEVER.match(name)


@pytest.mark.parametrize("name", ["sda", "loop0", "dm-0", "rbd0", "zpath", "nvme0n1", "ramdisk"])
def test_what_may_be(name):
    assert not device_sources._NEVER.match(name)
