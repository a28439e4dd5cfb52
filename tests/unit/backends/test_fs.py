# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filesystem pools: what a device is taken for by what it holds, and how its filesystem is made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import filesystems, fs, lvm
from ansible_collections.virt.storage.plugins.module_utils.backends.filesystems import FILESYSTEMS, by_signature
from ansible_collections.virt.storage.plugins.module_utils.host import device_users, kernel, signatures, sources
from ansible_collections.virt.storage.plugins.module_utils.host.block import Device
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import Mount
from ansible_collections.virt.storage.plugins.module_utils.host.notes import Notes, boot
from ansible_collections.virt.storage.plugins.module_utils.host.signatures import Content, Signature
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import parse_pool, render_pool
from ansible_collections.virt.storage.plugins.module_utils.model.change import BRING_UP, Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.definition import defined, normal
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    FOREIGN,
    READY,
    UNKNOWN_STORAGE,
    Found,
    User,
)
from ansible_collections.virt.storage.plugins.module_utils.model.packages import PACKAGES
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool, Source, SourceDevice
from ansible_collections.virt.storage.plugins.module_utils.model.sources import tag_of_path, tag_path
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES

DEVICE = Device("/dev/disk/by-id/x", "/dev/sdx", (8, 16), 1 << 30, 512, False, "disk", serial="S1")
ROOT = Mount("/", "/", "ext4", "/dev/root", ("rw",), ("rw",), (8, 1), 1, 0)
PAGE = Path(__file__).resolve().parents[3] / "docs" / "pools" / "fs.md"


def holding(*names, usage="filesystem", **more):
    return Content(tuple(Signature(name, usage=usage, uuid=f"u-{name}") for name in names), **more)


BLANK, DATA = Content(), Content(data=True)


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """What is observed of the pool p at a directory that is not there, on a device with this content."""

    def observe(
        content=BLANK,
        kind="ext4",
        device=DEVICE,
        users=(),
        mount=None,
        holds=False,
        supported=True,
        unseen=(),
        root="/",
        options=("rw",),
    ):
        look = Look(5.0, str(tmp_path / "records"), str(tmp_path / "starts"))
        path = tmp_path / "pool"
        mounts = [ROOT]
        if mount is not None:
            path.mkdir(exist_ok=True)
            number = (0, 40) if mount == "btrfs" else device.number
            mounts.append(Mount(root, str(path), mount, device.node, options, ("rw",), number, 7, 1))
        look.once("mounts", lambda: mounts)

        def resolve(text, _look):
            if device is None:
                raise StorageError("source_missing", f"there is no {text}", hint="Name what is there.")
            return device

        monkeypatch.setattr(sources, "resolve", resolve)
        monkeypatch.setattr(signatures, "content_at", lambda path, seconds: content)
        monkeypatch.setattr(device_users, "users_of_device", lambda device: (tuple(users), tuple(unseen)))
        monkeypatch.setattr(kernel, "mounts_type", lambda name: supported)
        source = Source(devices=(SourceDevice("/dev/disk/by-id/x"),), format=kind)
        return fs.observe(Pool("p", "fs", path=str(path), source=source), look, holds)

    return observe


def part(storage):
    (found,) = [each for each in storage.parts if each.name == fs.FILESYSTEM]
    return found


def test_what_a_mounted_subvolume_does_not_show_is_not_lost_unseen(seen, monkeypatch):
    """The device is erased when the pool is deleted, with all of its subvolumes."""
    monkeypatch.setattr(fs, "number_at", lambda path: DEVICE.number)
    for root, expected in (("/", ()), ("/@images", ("what is beside its subvolume /@images",))):
        assert seen(holding("btrfs"), "btrfs", mount="btrfs", holds=True, root=root).holds == expected
        assert seen(holding("btrfs"), "btrfs", mount="btrfs", root=root).holds == ()


def test_a_btrfs_is_mounted_from_any_of_its_devices(seen, monkeypatch):
    """The kernel says which one it likes; erasing one of them would leave the others."""
    monkeypatch.setattr(fs, "number_at", lambda path: (8, 32))
    storage = seen(holding("btrfs"), "btrfs", mount="btrfs")
    assert (storage.up, storage.kind) == (False, FOREIGN)
    both = {DEVICE.number: DEVICE.node, (8, 32): "/dev/sdy"}
    monkeypatch.setattr(fs, "btrfs_devices", lambda number: both if number in both else {})
    storage = seen(holding("btrfs"), "btrfs", mount="btrfs", holds=True)
    assert (storage.up, storage.holds) == (True, ("what is on its other devices (/dev/sdy)",))


# -- the table ----------------------------------------------------------------------------------------------------


def test_every_format_has_its_row():
    row = POOL_TYPES["fs"]
    assert set(FILESYSTEMS) == {*row.formats, *row.own_formats} - {"auto"}
    assert {name for name, known in FILESYSTEMS.items() if not known.making} == set(row.found_only)
    assert not set(row.made_natively) & set(row.found_only)
    assert set(row.made_natively) <= set(FILESYSTEMS)
    for known in FILESYSTEMS.values():
        assert not known.making or any(PACKAGES[known.making[0]])


def test_no_tool_is_forced():
    for known in FILESYSTEMS.values():
        assert not {"-f", "-F", "--force"} & set(known.making)


def test_the_page_names_the_formats():
    text = PAGE.read_text(encoding="utf-8")
    for name in FILESYSTEMS:
        assert re.search(rf"\| [^|]*{re.escape(name)}", text), name


def test_what_is_found_only_is_known_too():
    assert by_signature("hfsplus") is FILESYSTEMS["hfs+"]
    assert by_signature("squashfs").read_only
    assert by_signature("ntfs").fixed
    assert filesystems.by_signature("f2fs").kernel == "f2fs"


# -- what a device is taken for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (BLANK, "ext4", (ABSENT, "")),
        (DATA, "ext4", (ABSENT, "data without a signature on /dev/disk/by-id/x")),
        (holding("ext4"), "ext4", (READY, "")),
        (holding("ext4"), "auto", (READY, "")),
        (holding("ntfs"), "auto", (READY, "")),
        (holding("xfs"), "ext4", (FOREIGN, "an xfs filesystem on /dev/disk/by-id/x")),
        (
            holding("ext4", "xfs"),
            "ext4",
            (FOREIGN, "an ext4 filesystem and an xfs filesystem on /dev/disk/by-id/x"),
        ),
        (holding("ext4", "xfs"), "auto", (FOREIGN, "")),
        (holding("LVM2_member", usage="raid"), "auto", (FOREIGN, "")),
        (holding("zfs_member"), "auto", (FOREIGN, "")),
        (holding("swap", usage="other"), "xfs", (FOREIGN, "swap on /dev/disk/by-id/x")),
        (holding("gpt", usage="partition-table"), "xfs", (FOREIGN, "a gpt partition table on /dev/disk/by-id/x")),
        (holding("iso9660", "udf"), "iso9660", (READY, "")),
        (holding("iso9660", "dos"), "auto", (READY, "")),
        (holding("hfsplus"), "hfs+", (READY, "")),
        (holding("ext4"), "vmfs", (FOREIGN, "")),
        (Content(problem="Input/output error"), "ext4", (UNKNOWN_STORAGE, "")),
    ],
)
def test_what_a_device_is_taken_for(seen, content, kind, expected):
    storage = seen(content, kind)
    assert (part(storage).kind, part(storage).destroys) == expected
    assert storage.kind == expected[0]
    assert not storage.up


@pytest.mark.parametrize(
    ("kind", "code"), [("auto", "missing_option"), ("ufs", "not_supported"), ("iso9660", "not_supported")]
)
def test_what_can_not_be_made_says_why(seen, kind, code):
    assert part(seen(BLANK, kind)).problem.code == code


def test_what_the_kernel_can_not_mount_is_neither_made_nor_started(seen):
    for content in (BLANK, holding("ocfs2")):
        assert part(seen(content, "ocfs2", supported=False)).problem.code == "not_supported"


def test_what_is_there_comes_before_what_can_not_be_made(seen):
    """And what can't be made is said where somebody wants to lose what is there."""
    for kind, supported in (("ufs", True), ("ocfs2", False)):
        found = part(seen(holding("vfat"), kind, supported=supported))
        assert (found.kind, found.problem, found.destroys) == (FOREIGN, None, "")
        assert found.barred.code == "not_supported"


@pytest.mark.parametrize("name", [name for name, known in FILESYSTEMS.items() if known.least])
def test_a_device_that_is_too_small_is_said_before(seen, name):
    least = FILESYSTEMS[name].least
    assert part(seen(BLANK, name, device=DEVICE._replace(size=least))).problem is None
    small = DEVICE._replace(size=least - 512)
    assert part(seen(BLANK, name, device=small)).problem.code == "not_supported"
    assert part(seen(holding("swap"), name, device=small)).barred.code == "not_supported"
    assert part(seen(holding(FILESYSTEMS[name].signature), name, device=small)).problem is None  # it is there


def test_a_device_of_large_sectors_is_too_small_earlier(seen):
    for name, least in (("ext4", 224 << 10), ("ext3", 8 << 20)):
        small = DEVICE._replace(size=least - 4096, sector=4096)
        assert part(seen(BLANK, name, device=small)).problem.code == "not_supported"
        assert part(seen(BLANK, name, device=small._replace(size=least))).problem is None


@pytest.mark.parametrize(("name", "fits"), [("ext2", False), ("ext3", False), ("ext4", True), ("xfs", True)])
def test_a_device_that_is_too_large_is_said_before(seen, name, fits):
    large = DEVICE._replace(size=16 << 40)
    assert part(seen(BLANK, name, device=large._replace(size=large.size - 512))).problem is None
    problems = part(seen(BLANK, name, device=large)).problem, part(seen(holding("swap"), name, device=large)).barred
    assert [each and each.code for each in problems] == [None if fits else "not_supported"] * 2
    assert part(seen(holding(FILESYSTEMS[name].signature), name, device=large)).problem is None  # it is there


def test_no_modprobe_loads_nothing(monkeypatch):
    def failing(code):
        def run(argv, timeout):
            raise StorageError(code, "")

        return run

    for code, possible in (("tool_missing", False), ("command_failed", False), ("deadline", True)):
        monkeypatch.setattr(kernel, "run", failing(code))
        assert kernel.mounts_type("nosuchfs") is possible
    assert kernel.mounts_type("proc")


def test_what_the_kernel_has_of_its_own(monkeypatch, tmp_path):
    (tmp_path / "filesystems").write_text("nodev\tproc\n\text4\n")
    (tmp_path / "misc").write_text("236 device-mapper\n")
    monkeypatch.setattr(kernel, "_LISTS", (str(tmp_path / "filesystems"), str(tmp_path / "misc")))
    asked = []

    def run(argv, timeout):
        asked.append(argv[-1])
        raise StorageError("command_failed", "")

    monkeypatch.setattr(kernel, "run", run)
    assert kernel.has("device-mapper", "dm-mod")
    assert kernel.has("ext4", "fs-ext4")
    assert not asked
    assert not kernel.has("nfs", "fs-nfs")
    assert asked == ["fs-nfs"]


def test_who_uses_what_can_not_be_read_is_said(seen):
    user = User("mount", "/")
    found = part(seen(Content(problem="Operation not permitted"), users=[user]))
    assert (found.kind, found.users) == (UNKNOWN_STORAGE, (user,))


def test_a_device_that_is_not_there_yet_is_formatted_then(seen):
    found = part(seen(device=None))
    assert found.making == "make an ext4 filesystem on /dev/disk/by-id/x"
    assert lowered(seen(device=None), "build", part=fs.FILESYSTEM) == ["mkfs.ext4 -q /dev/disk/by-id/x"]
    assert not part(seen(kind="ufs", device=None)).making
    assert part(seen(device=None, supported=False)).barred.code == "not_supported"
    assert not part(seen(kind="auto", device=None)).making


def test_what_is_named_after_its_content_is_not_formatted_when_it_comes(seen, monkeypatch):
    monkeypatch.setattr(fs, "tag_of_path", lambda path: ("UUID", "x"))
    assert not part(seen(device=None)).making


def test_a_device_that_is_read_only_is_not_formatted_and_mounted_read_only(seen):
    device = DEVICE._replace(read_only=True)
    assert part(seen(BLANK, device=device)).problem.code == "not_writable"
    assert seen(holding("ext4"), device=device).read_only_source


def test_a_device_that_is_not_there_is_not_an_empty_one(seen):
    for device in (None, DEVICE._replace(size=0)):
        storage = seen(device=device)
        assert (storage.kind, part(storage).problem.code) == (UNKNOWN_STORAGE, "source_missing")


def test_who_has_the_device_is_said(seen):
    user = User("swap", "/dev/sdx")
    assert part(seen(holding("swap"), users=[user])).users == (user,)
    assert part(seen(holding("ext4"), users=[user])).users == (user,)


@pytest.mark.parametrize(
    ("told", "users", "unseen"),
    [
        (DEVICE.number, ("holder volume group vg",), ()),
        ((8, 99), (), ()),
        (StorageError("tool_missing", "no lvm"), (), ()),
        (StorageError("command_failed", "lvm failed"), (), ("the volume groups on /dev/sdx (lvm failed)",)),
    ],
)
def test_the_volume_group_of_a_device_is_asked_of_lvm(seen, monkeypatch, told, users, unseen):
    def report(look):
        if isinstance(told, StorageError):
            raise told
        return lvm.Report((), (lvm.Member("/dev/sdx", "u", "vg", told, False, (), True, 1),))

    monkeypatch.setattr(lvm, "report", report)
    found = part(seen(holding("LVM2_member", usage="raid")))
    assert (tuple(map(str, found.users)), found.unseen) == (users, unseen)


def test_what_could_not_be_looked_at_is_kept(seen):
    for content in (BLANK, holding("swap"), holding("ext4")):
        assert part(seen(content, unseen=["x"])).unseen == ("x",)
    assert part(seen(holding("ext4"), mount="ext4")).unseen == ()


def test_what_a_task_was_making_is_made_again(seen, tmp_path):
    note = _note(tmp_path, DEVICE.identity)
    note.write_text(f"{boot()}\np\n", encoding="ascii")
    assert (part(seen(DATA)).kind, part(seen(DATA)).destroys) == (ABSENT, "")
    assert part(seen(holding("xfs"))).destroys  # somebody else's by now
    for other in ("another-boot\np\n", f"{boot()}\nq\n", f"{boot()}\n"):
        note.write_text(other, encoding="ascii")
        assert part(seen(DATA)).destroys


def test_what_a_task_was_making_on_another_device_of_that_name_tells_nothing(seen, tmp_path):
    other = DEVICE._replace(diskseq="77").identity
    _note(tmp_path, other).write_text(f"{boot()}\np\n", encoding="ascii")
    assert part(seen(DATA)).destroys


def _note(top, identity):
    """The file of the note that a filesystem is being made on a device."""
    notes = top / "starts"
    notes.mkdir()
    return Path(Notes("", str(notes)).started_path(fs.making_key(DEVICE.node, identity)))


def test_what_is_named_after_its_content_is_not_overwritten(tmp_path, seen, monkeypatch):
    monkeypatch.setattr(fs, "tag_of_path", lambda path: ("LABEL", "x"))
    assert (part(seen(holding("xfs"))).kind, part(seen(holding("xfs"))).destroys) == (FOREIGN, "")


def test_a_mount_is_asked_of_the_table_alone(seen, monkeypatch):
    storage = seen(Content(problem="not asked"), mount="ext4")
    assert (storage.up, part(storage).kind, part(storage).facts) == (True, READY, {"format": "ext4"})
    assert seen(holding("xfs"), "ext4", mount="xfs").parts[1].kind == FOREIGN
    assert seen(holding("vfat"), "vfat", mount="vfat").fixed


# -- lowering -----------------------------------------------------------------------------------------------------


def lowered(storage, action, kind="ext4", **more):
    source = Source(devices=(SourceDevice("/dev/disk/by-id/x"),), format=kind)
    wanted = Pool("p", "fs", path="/p", source=source, **more.pop("pool", {}))
    change = Change(Subject("p"), action, "", wanted=wanted, **more)
    operations = fs.lower(change, Found("p", storage=storage, current=storage), Notes("/made", "/started"))
    return [operation.command for operation in operations if not hasattr(operation, "text")]


def test_old_signatures_are_wiped_first(seen):
    made = lowered(seen(holding("xfs")), "build", destroys="xfs", part=fs.FILESYSTEM)
    assert made == ["wipefs --all --quiet -- /dev/sdx && mkfs.ext4 -q /dev/sdx"]
    assert lowered(seen(BLANK), "build", part=fs.FILESYSTEM)[0] == "mkfs.ext4 -q /dev/sdx"


def test_it_is_looked_at_again_right_before(seen):
    kinds = [condition.kind for condition in part(seen(holding("xfs"))).requires]
    assert kinds == ["device", "signatures", "device_unused"]
    assert [condition.kind for condition in seen(holding("ext4")).requires] == ["device", "signatures"]
    assert [condition.kind for condition in seen(BLANK).requires] == ["device"]


def test_mounting(seen):
    may = frozenset({BRING_UP})
    (command,) = lowered(seen(holding("ext4")), "start", may=may, pool={"mount_options": ("noatime",)})
    assert command == "mount -t ext4 -o nodev,nosuid,noexec,noatime -- /dev/sdx /p"
    (command,) = lowered(seen(holding("ext4")), "start", may=may, pool={"mount_options": ("noatime,pass=s3cret",)})
    assert command == "mount -t ext4 -o nodev,nosuid,noexec,noatime -- /dev/sdx /p"
    (command,) = lowered(seen(holding("iso9660"), "auto"), "start", "auto", may=may)
    assert command == "mount -t auto -o nodev,nosuid,noexec,ro -- /dev/sdx /p"
    (command,) = lowered(seen(holding("hfsplus"), "hfs+"), "start", "hfs+", may=may)
    assert command.startswith("mount -t hfsplus ")


def test_what_is_on_the_network_is_unmounted_before_that_goes(seen, monkeypatch):
    monkeypatch.setattr(fs, "on_network", lambda device: device == DEVICE)
    pool = {"mount_options": ("noatime",)}
    (command,) = lowered(seen(holding("ext4")), "start", may=frozenset({BRING_UP}), pool=pool)
    assert command == "mount -t ext4 -o nodev,nosuid,noexec,_netdev,noatime -- /dev/sdx /p"


@pytest.mark.parametrize(
    ("kind", "device", "stays"),
    [("ext4", DEVICE, False), ("ext4", DEVICE._replace(read_only=True), True), ("iso9660", DEVICE, True)],
)
def test_a_restart_mounts_it_read_only_only_where_nothing_else_can_be(seen, kind, device, stays):
    """Whatever the mount is that goes down for it."""
    storage = seen(holding(kind), kind, device, mount=kind, options=("ro",))
    assert storage.read_only
    (command,) = lowered(storage, "start", kind, may=frozenset({BRING_UP}), pool={"mount_options": ("noatime",)})
    assert (",ro," in command) is stays


def test_copying_on_write_is_set_on_a_new_filesystem_only(seen):
    may = frozenset({BRING_UP})
    assert lowered(seen(BLANK, "btrfs"), "start", "btrfs", may=may, pool={"cow": False})[-1] == "chattr +C /p"
    assert len(lowered(seen(holding("btrfs"), "btrfs"), "start", "btrfs", may=may, pool={"cow": False})) == 1


def test_what_a_task_was_making_is_forgotten_with_the_pool(seen):
    for storage in (seen(DATA), seen(holding("ext4"), mount="ext4")):
        (command,) = lowered(storage, "undefine")
        assert command == f"rm -f {Notes('', '/started').started_path(fs.making_key(DEVICE.node, DEVICE.identity))}"
    assert lowered(seen(device=None), "undefine") == []


def test_deleting_erases_the_signatures(seen):
    assert lowered(seen(holding("ext4")), "delete", part=fs.FILESYSTEM) == ["wipefs --all --quiet -- /dev/sdx"]
    assert part(seen(holding("ext4"))).removable


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("UUID=12-AB", "/dev/disk/by-uuid/12-AB"),
        ('LABEL="my disk"', r"/dev/disk/by-label/my\x20disk"),
        ("LABEL=a/b", r"/dev/disk/by-label/a\x2fb"),
        ("PARTLABEL=Fläche", "/dev/disk/by-partlabel/Fläche"),
        ("PARTUUID=1", "/dev/disk/by-partuuid/1"),
    ],
)
def test_names_of_content_are_the_links_of_udev(text, path):
    assert tag_path(text) == path
    name, value = tag_of_path(path)
    assert f"{name}={value}" == text.replace('"', "")
    assert tag_path(path) == path


def test_other_paths_are_no_names_of_content():
    for text in ("/dev/sdb", "/dev/disk/by-id/x", "NAME=x", "/dev/disk/by-uuid", "/dev/disk/by-path/pci"):
        assert tag_path(text) == text
        assert tag_of_path(text) is None


def test_a_definition_knows_no_format_but_libvirts():
    pool = normal(Pool("p", "fs", path="/p", source=Source(devices=(SourceDevice("/dev/x"),), format="btrfs")))
    assert defined(pool).source.format == "auto"
    text = render_pool(pool)
    assert "<format type='auto'/>" in text
    assert parse_pool(text).source.format == "auto"
