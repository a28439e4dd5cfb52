# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories of files: what is seen of them, and how changes become operations."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import dir as dir_backend
from ansible_collections.virt.storage.plugins.module_utils.backends import filetree, filetree_changes, netfs
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.notes import Notes
from ansible_collections.virt.storage.plugins.module_utils.images import qemu_img
from ansible_collections.virt.storage.plugins.module_utils.model import operations as ops
from ansible_collections.virt.storage.plugins.module_utils.model.change import Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, Found, Storage
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content, Volume
from ansible_collections.virt.storage.plugins.module_utils.report.result import plan

MIB = 2**20
STAGING = "/p/.virt-storage"


def qcow2(backing=b"", size=MIB, data_file=b""):
    """A qcow2 header (version 3) by docs/interop/qcow2.txt, with a raw backing file or an external data file."""
    formats = struct.pack(">II", 0xE2792ACA, 3) + b"raw".ljust(8, b"\0") if backing else b""
    data = struct.pack(">II", 0x44415441, len(data_file)) + data_file.ljust(-(-len(data_file) // 8) * 8, b"\0")
    extensions = formats + (data if data_file else b"") + bytes(8)
    offset = 112 + len(extensions) if backing else 0
    head = b"QFI\xfb" + struct.pack(">IQIIQ", 3, offset, len(backing), 16, size)
    head += struct.pack(">IIQQIIQ", 0, 1, 0x30000, 0x10000, 1, 0, 0)
    head += struct.pack(">QQQII", 4 if data_file else 0, 0, 0, 4, 112)
    return (head.ljust(112, b"\0") + extensions + backing).ljust(4 * 65536, b"\0")


def read(path, **more):
    return filetree.read_volume(str(path), path.name, **more)


# -- the directory ------------------------------------------------------------------------------------------------


def test_a_directory(tmp_path):
    tmp_path.chmod(0o750)
    status = os.stat(tmp_path)
    (tmp_path / "b").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / ".virt-storage").mkdir()
    seen = filetree.observe_directory(str(tmp_path), None, True)
    assert (seen.kind, seen.path, seen.holds) == ("ready", str(tmp_path), ("a", "b"))
    assert seen.permissions == Permissions(0o750, status.st_uid, status.st_gid)
    assert seen.identity == (status.st_dev, status.st_ino)
    assert not seen.made
    assert not seen.mount_point
    assert seen.writable
    assert filetree.observe_directory(str(tmp_path), None, False).holds == ()
    assert filetree.observe_directory(str(tmp_path), f"{status.st_ino} {tmp_path}", False).made
    assert not filetree.observe_directory(str(tmp_path), f"{status.st_ino + 1} {tmp_path}", False).made


def test_a_mount_point():
    assert filetree.observe_directory("/proc", None, False).mount_point


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("nothing", "absent"),
        ("below a file", "foreign"),
        ("file", "foreign"),
        ("dangling link", "foreign"),
        ("link to a file", "foreign"),
        ("link to a directory", "ready"),
        ("loop of links", "unknown"),
        ("fifo", "foreign"),
    ],
)
def test_what_may_stand_where_the_directory_should(tmp_path, kind, seen):
    path = tmp_path / "x"
    (tmp_path / "file").touch()
    if kind == "below a file":
        path = tmp_path / "file" / "x"
    elif kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    elif "link" in kind:
        targets = {"dangling link": "gone", "link to a file": "file", "link to a directory": ".", "loop of links": "x"}
        path.symlink_to(targets[kind])
    storage = filetree.observe_directory(str(path), None, True)
    assert storage.kind == seen
    assert seen == "ready" or storage.why
    if kind == "below a file":
        assert storage.why == f"below {tmp_path / 'file'}, which is not a directory"


@pytest.mark.parametrize("path", ["/proc/virt", "/proc/sys", "/sys/virt/images", "/proc/self/fdinfo/x"])
def test_the_kernels_own_filesystems_hold_no_pool(path, tmp_path):
    storage = dir_backend.observe(Pool("p", "dir", path=path), Look(5.0, str(tmp_path), str(tmp_path)), True)
    assert storage.kind == "foreign"
    assert "kernel's own (" in storage.why


# -- volumes ------------------------------------------------------------------------------------------------------


def test_nothing(tmp_path):
    assert read(tmp_path / "gone") is None
    (tmp_path / "file").touch()
    assert read(tmp_path / "file" / "below") is None


def test_a_raw_volume(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(b"x" * 5000)
    path.chmod(0o640)
    status = os.stat(path)
    volume = read(path)
    assert (volume.name, volume.type, volume.path, volume.key) == ("v", "file", str(path), str(path))
    assert (volume.format, volume.capacity, volume.physical) == ("raw", 5000, 5000)
    assert volume.allocation == status.st_blocks * 512
    assert volume.permissions == Permissions(0o640, status.st_uid, status.st_gid)
    assert volume.identity == (status.st_dev, status.st_ino)
    assert dict(volume.timestamps)["mtime"] == status.st_mtime_ns
    assert (volume.foreign, volume.problem, volume.link_target, volume.backing) == ("", "", None, None)


@pytest.mark.parametrize("backing", ["base", "/abs/base"])
def test_a_qcow2_volume(tmp_path, backing):
    path = tmp_path / "v"
    path.write_bytes(qcow2(backing.encode()))
    volume = read(path)
    assert (volume.format, volume.capacity, volume.physical) == ("qcow2", MIB, 262144)
    assert (volume.compat, volume.cluster_size) == ("1.1", 65536)
    assert volume.backing.path == (str(tmp_path / "base") if backing == "base" else backing)
    assert volume.backing.format == "raw"
    assert volume.problem == ""


def test_without_headers_only_the_file_is_looked_at(tmp_path):
    (tmp_path / "v").write_bytes(qcow2())
    volume = read(tmp_path / "v", headers=False)
    assert (volume.format, volume.capacity, volume.physical) == (None, None, 262144)


def test_what_is_declared_raw_is_raw(tmp_path):
    (tmp_path / "v").write_bytes(qcow2(b"/etc/shadow"))
    volume = read(tmp_path / "v", declared="raw")
    assert (volume.format, volume.capacity, volume.backing, volume.looks_like) == ("raw", 262144, None, "qcow2")
    assert volume.looks_capacity == MIB


def test_a_data_file_is_seen(tmp_path):
    (tmp_path / "v").write_bytes(qcow2(data_file=b"/etc/shadow"))
    assert read(tmp_path / "v").data_file is not None


def test_a_broken_image_is_a_record(tmp_path):
    (tmp_path / "v").write_bytes(b"QFI\xfb" + b"\xff" * 200)
    volume = read(tmp_path / "v")
    assert volume.type == "file"
    assert volume.problem


@pytest.mark.parametrize("kind", ["fifo", "socket", "dangling", "loop", "device"])
def test_what_is_no_volume(tmp_path, kind):
    path = tmp_path / "v"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("v")
        finally:
            os.chdir(here)
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        path.symlink_to("gone" if kind == "dangling" else "v")
    volume = read(path)
    assert volume.foreign
    assert volume.type is None
    assert filetree.list_volumes(str(tmp_path), None, True) == {}
    assert filetree.list_volumes(str(tmp_path), ["v"], True)["v"].foreign
    assert filetree.list_volumes(str(tmp_path), None, True, also=["v", "w"])["v"].foreign


def test_a_directory_in_the_pool(tmp_path):
    (tmp_path / "v").mkdir()
    volume = read(tmp_path / "v")
    assert (volume.type, volume.format, volume.capacity) == ("dir", "dir", 0)


def test_a_link_to_an_image(tmp_path):
    (tmp_path / "real").write_bytes(b"x" * 1024)
    (tmp_path / "v").symlink_to("real")
    volume = read(tmp_path / "v")
    assert (volume.type, volume.capacity, volume.link_target) == ("file", 1024, "real")
    assert volume.identity[1] == os.lstat(tmp_path / "v").st_ino


def test_listing(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "c")
    (tmp_path / "d").write_bytes(b"QFI\xfb\xff")
    (tmp_path / ".virt-storage").mkdir()
    directory = str(tmp_path)
    assert list(filetree.list_volumes(directory, None, True)) == ["a", "b", "d"]
    assert list(filetree.list_volumes(directory, ["b", "gone", ".virt-storage"], True)) == ["b"]
    assert filetree.list_volumes(directory, (), True) == {}


def test_a_name_that_the_filesystem_takes_for_another_is_that_of_the_volume(tmp_path, monkeypatch):
    """Otherwise ``exclusive`` would remove the file of a volume that is listed: vfat folds the case of names."""
    for name in ("DATA", "other"):
        (tmp_path / name).touch()
    os.link(tmp_path / "DATA", tmp_path / "data")
    monkeypatch.setattr(os, "listdir", lambda path: ["DATA", "other"])
    assert sorted(filetree.list_volumes(str(tmp_path), None, True)) == ["DATA", "other"]
    assert sorted(filetree.list_volumes(str(tmp_path), None, True, also=["data", "gone"])) == ["data", "other"]
    assert sorted(filetree.list_volumes(str(tmp_path), None, True, also=["other"])) == ["DATA", "other"]


def test_references(tmp_path):
    (tmp_path / "raw").write_bytes(b"x" * 1024)
    (tmp_path / "relative").write_bytes(qcow2(b"raw"))
    (tmp_path / "absolute").write_bytes(qcow2(b"/img/base"))
    (tmp_path / "plain").write_bytes(qcow2())
    (tmp_path / "elsewhere").write_bytes(qcow2(b"nbd://host/x"))
    (tmp_path / "broken").write_bytes(b"QFI\xfb" + b"\xff" * 50)
    (tmp_path / "link").symlink_to("absolute")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/far").write_bytes(qcow2(b"raw"))
    for name in ("far", "on-a-dead-server"):
        (tmp_path / name).symlink_to("directory/far")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to-a-fifo").symlink_to("fifo")
    (tmp_path / "by-json").write_bytes(qcow2(b'json:{"driver": "raw", "file": {"filename": "/img/base"}}'))
    (tmp_path / "unknown").write_bytes(qcow2(b"fat:rw:/img"))
    unseen = set()
    found = filetree.references(str(tmp_path), lambda path: not path.endswith("server"), unseen)
    assert sorted((path[len(f"{tmp_path}/") :], below) for path, below in found) == [
        ("absolute", "/img/base"),
        ("absolute", "/img/base"),
        ("by-json", "/img/base"),
        ("directory/far", str(tmp_path / "raw")),
        ("relative", str(tmp_path / "raw")),
    ]
    assert unseen == {f"what {tmp_path}/unknown is built on"}


@pytest.mark.parametrize(
    ("fstype", "block", "limit"),
    [("ext3", 1024, 17247252480), ("ext2", 4096, 2196873666560), ("ext3", 65536, None), ("ext4", 4096, 2**44 - 4096)],
)
def test_the_largest_file_by_blocks(monkeypatch, fstype, block, limit):
    monkeypatch.setattr(filetree.os, "statvfs", lambda path: SimpleNamespace(f_bsize=block))
    assert filetree.file_limit("/p", fstype) == limit


@pytest.mark.parametrize("length", [0, 3, 5])
def test_digests(tmp_path, length):
    (tmp_path / "v").write_bytes(b"hello")
    assert filetree.digest(str(tmp_path / "v"), length) == hashlib.sha256(b"hello"[:length]).hexdigest()
    assert filetree.digest(str(tmp_path / "gone"), length) is None


@pytest.mark.parametrize(
    ("fstype", "limit"), [("vfat", 2**32 - 1), ("xfs", 2**63 - 1), ("tmpfs", 2**63 - 1), ("fuse.x", None), ("", None)]
)
def test_the_largest_file(tmp_path, fstype, limit):
    assert filetree.file_limit(str(tmp_path), fstype) == limit


def test_usage(tmp_path):
    usage = filetree.observe_usage(str(tmp_path))
    assert usage.capacity == usage.allocation + usage.available
    assert usage.capacity > 0


# -- what was left behind -----------------------------------------------------------------------------------------


def test_no_leftovers(tmp_path):
    assert filetree.observe_staging(str(tmp_path)) == ((), "")


def test_leftovers(tmp_path):
    (tmp_path / ".virt-storage").mkdir(0o700)
    assert filetree.observe_staging(str(tmp_path)) == ((".virt-storage",), "")
    for name in ("b", "a"):
        (tmp_path / ".virt-storage" / name).touch()
    assert filetree.observe_staging(str(tmp_path)) == ((".virt-storage", "a", "b"), "")


def test_what_another_task_prepares_is_no_leftover(tmp_path):
    (tmp_path / ".virt-storage").mkdir(0o700)
    descriptor = os.open(tmp_path / ".virt-storage", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert filetree.observe_staging(str(tmp_path)) == ((), "")
    finally:
        os.close(descriptor)
    assert filetree.observe_staging(str(tmp_path))[0]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_else_by_that_name(tmp_path, kind):
    path = tmp_path / ".virt-storage"
    path.touch() if kind == "file" else path.symlink_to(tmp_path)
    leftovers, problem = filetree.observe_staging(str(tmp_path))
    assert leftovers == ()
    assert str(path) in problem


@pytest.mark.root
def test_the_private_directory_of_another_user(tmp_path):
    (tmp_path / ".virt-storage").mkdir(0o700)
    os.chown(tmp_path / ".virt-storage", 5, 5)
    leftovers, problem = filetree.observe_staging(str(tmp_path))
    assert (leftovers, "another user" in problem) == ((), True)


# -- lowering -----------------------------------------------------------------------------------------------------

CONVERT = " ".join(qemu_img.convert("/s", "raw", Volume("v", format="qcow2"), f"{STAGING}/v"))
FOUND = Found("p", storage=Storage(READY, "/p"))


def wanted(name="v", image_format="qcow2", capacity=MIB, **more):
    return Volume(name, capacity=capacity, format=image_format, **{"path": f"/p/{name}", **more})


def change(action, volume, needs=(), **more):
    return Change(Subject("p", volume.name), action, "summary", wanted=volume, needs=needs, **more)


def lower(*changes):
    steps = filetree_changes.lower_volumes(changes, FOUND)
    for index, step in enumerate(steps):
        assert all(need < index for need in step.needs)
    return steps


def words(operation):
    return " ".join(operation.argv)


def test_nothing_to_lower():
    assert lower() == []


@pytest.mark.parametrize(
    ("volume", "made"),
    [
        pytest.param(wanted(image_format="raw"), [ops.MakeRaw(f"{STAGING}/v", MIB, 0, False)], id="raw"),
        pytest.param(
            wanted(image_format="raw", allocation=512, nocow=True),
            [ops.MakeRaw(f"{STAGING}/v", MIB, 512, True)],
            id="raw-allocated",
        ),
        pytest.param(
            wanted(image_format="raw", content=Content(data=b"hi")),
            [ops.WriteContent(f"{STAGING}/v", b"hi", MIB)],
            id="content",
        ),
        pytest.param(
            wanted(),
            [f"qemu-img create -q -f qcow2 -o compat=1.1 {STAGING}/v {MIB}"],
            id="qcow2",
        ),
        pytest.param(
            wanted(backing=Backing("/b", "raw")),
            [f"qemu-img create -q -f qcow2 -b /b -F raw -o compat=1.1 {STAGING}/v {MIB}"],
            id="overlay",
        ),
        pytest.param(
            wanted(allocation=4096),
            [f"qemu-img create -q -f qcow2 -o compat=1.1 {STAGING}/v {MIB}", ops.Reserve(f"{STAGING}/v", 4096)],
            id="qcow2-allocated",
        ),
        pytest.param(
            wanted(content=Content("/s", None, "raw", capacity=MIB)),
            [CONVERT],
            id="converted",
        ),
        pytest.param(
            wanted(content=Content("/s", None, "raw", capacity=512)),
            [
                CONVERT,
                f"qemu-img resize -q -f qcow2 {STAGING}/v {MIB}",
            ],
            id="converted-and-grown",
        ),
    ],
)
def test_creating(volume, made):
    opening, creating, closing = lower(change("create", replace(volume, permissions=Permissions(0o640, 5, None))))
    assert opening == ops.Step((ops.OpenStaging(STAGING),))
    assert closing == ops.Step((ops.CloseStaging(STAGING),), None, (0, 1), True)
    assert creating.needs == (0,)
    operations = [words(each) if isinstance(each, ops.Run) else each for each in creating.operations]
    assert operations == [
        *made,
        ops.SetPermissions(f"{STAGING}/v", 0o640, 5, None),
        ops.Sync(f"{STAGING}/v"),
        ops.Publish(f"{STAGING}/v", "/p/v"),
    ]


def test_the_mode_of_a_new_volume():
    operations = lower(change("create", wanted(image_format="raw")))[1].operations
    assert ops.SetPermissions(f"{STAGING}/v", 0o600, None, None) in operations


def test_making_anew_exchanges():
    """In a step of its own, so that its conditions are looked at when the new image is ready."""
    mine = change("recreate", wanted(image_format="raw", identity=(1, 2)))
    _opening, preparing, exchanging, closing = lower(mine)
    assert exchanging == ops.Step((ops.Exchange(f"{STAGING}/v", "/p/v", (1, 2)),), mine, (0, 1))
    assert (preparing.change, preparing.needs) == (None, (0,))
    assert preparing.operations[-1] == ops.Sync(f"{STAGING}/v")
    assert closing.needs == (0, 1, 2)
    (entry,) = plan([mine], lower(mine))
    assert [command.split()[0] for command in entry["commands"]] == ["mkdir", "truncate", "chmod", "sync", "mv"]


def test_making_equal_ones_anew_shows_all_commands():
    mine = [change("recreate", wanted(name, identity=(1, 2))) for name in ("a", "b")]
    (entry,) = plan(mine, lower(*mine))
    assert [command.split()[0] for command in entry["commands"]] == ["mkdir", "qemu-img", "cp", "chmod", "sync", "mv"]


def test_what_equal_ones_are_copied_from_waits_for_what_all_need_only():
    """b is made though the overlay of a could not be moved away."""
    moving = change("rebase", wanted("v", backing=Backing("/p/x", "raw")))
    steps = lower(moving, change("recreate", wanted("a", identity=(1, 2)), ("v",)), change("create", wanted("b")))
    assert [step.needs for step in steps if runs([step]) and step.change is None] == [(0,)]
    assert 1 not in next(step for step in steps if step.change is not None and step.change.subject.volume == "b").needs


@pytest.mark.parametrize(
    ("action", "volume", "more", "operations"),
    [
        pytest.param(
            "resize",
            wanted(image_format="raw", identity=(1, 2), physical=5),
            {},
            [ops.Truncate("/p/v", MIB, (1, 2), 5)],
            id="raw",
        ),
        pytest.param("resize", wanted(), {}, [f"qemu-img resize -q -f qcow2 /p/v {MIB}", ops.Sync("/p/v")], id="grow"),
        pytest.param(
            "resize",
            wanted(),
            {"destroys": "the end"},
            [f"qemu-img resize -q -f qcow2 --shrink /p/v {MIB}", ops.Sync("/p/v")],
            id="shrink",
        ),
        pytest.param(
            "amend",
            wanted(compat="0.10", lazy_refcounts=False),
            {},
            ["qemu-img amend -q -f qcow2 -o compat=0.10,lazy_refcounts=off /p/v", ops.Sync("/p/v")],
            id="amend",
        ),
        pytest.param(
            "rebase",
            wanted(backing=Backing("/b", "raw")),
            {},
            ["qemu-img rebase -q -f qcow2 -b /b -F raw /p/v", ops.Sync("/p/v")],
            id="rebase",
        ),
        pytest.param("rebase", wanted(backing=Backing(None, "raw", "b")), {}, [], id="rebase-unknown-path"),
        pytest.param("rebase", wanted(backing=Backing("/b")), {}, [], id="rebase-unknown-format"),
        pytest.param(
            "permissions",
            wanted(permissions=Permissions(0, 5, None)),
            {},
            [ops.SetPermissions("/p/v", 0, 5, None)],
            id="permissions",
        ),
    ],
)
def test_changing_in_place(action, volume, more, operations):
    (step,) = lower(change(action, volume, **more))
    assert [words(each) if isinstance(each, ops.Run) else each for each in step.operations] == operations


def test_deleting():
    opening, deleting, closing = lower(change("delete", wanted(identity=(1, 2))))
    (withdraw,) = deleting.operations
    assert (withdraw.path, withdraw.identity) == ("/p/v", (1, 2))
    assert os.path.dirname(withdraw.staged) == STAGING
    assert (opening.change, deleting.needs, closing.always) == (None, (0,), True)


def test_leftovers_go_with_the_opening():
    clean = Change(Subject("p"), "clean", "summary")
    opening, closing = lower(clean)
    assert opening == ops.Step((ops.OpenStaging(STAGING),), clean)
    assert closing.always


@pytest.mark.parametrize(
    "volume",
    [
        pytest.param(wanted(path=None), id="path"),
        pytest.param(wanted(image_format=None), id="format"),
        pytest.param(wanted(backing=Backing(None, "raw", "b")), id="backing-path"),
        pytest.param(wanted(backing=Backing("/b")), id="backing-format"),
        pytest.param(wanted(content=Content("/s")), id="source-format"),
        pytest.param(wanted(content=Content(None, "s", "raw")), id="source-path"),
    ],
)
@pytest.mark.parametrize("action", ["create", "recreate"])
def test_what_is_not_known_gives_no_operations(volume, action):
    assert lower(change(action, volume))[1].operations == ()


def test_a_volumes_changes_come_one_after_the_other():
    steps = lower(
        change("amend", wanted(compat="1.1")), change("resize", wanted()), change("amend", wanted("w", compat="1.1"))
    )
    assert [step.needs for step in steps] == [(), (0,), ()]


def test_what_is_needed_comes_first():
    steps = lower(
        change("create", wanted("base", "raw")),
        change("create", wanted("v", backing=Backing("/p/base", "raw")), ("base", "elsewhere")),
        change("delete", wanted("old"), ("v",)),
    )
    assert [step.needs for step in steps[1:4]] == [(0,), (0, 1), (0, 2)]
    assert steps[4].needs == (0, 1, 2, 3)


# -- identical images ---------------------------------------------------------------------------------------------


def copies(steps):
    return [operation for step in steps for operation in step.operations if isinstance(operation, ops.CopySparse)]


def runs(steps):
    return [operation for step in steps for operation in step.operations if isinstance(operation, ops.Run)]


def pair(**more):
    return [change("create", wanted(name, **more)) for name in ("a", "b")]


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        pytest.param(pair(), True, id="plain"),
        pytest.param(pair(backing=Backing("/b", "raw")), True, id="overlays"),
        pytest.param(pair(preallocation="off"), True, id="no-preallocation"),
        pytest.param(pair(cluster_size=4096, lazy_refcounts=True), True, id="options"),
        pytest.param(
            [change("create", wanted("a", permissions=Permissions(0o600))), change("create", wanted("b"))],
            True,
            id="other-permissions",
        ),
        pytest.param(
            [change("create", wanted("a")), change("recreate", wanted("b", identity=(1, 2)))], True, id="one-made-anew"
        ),
        pytest.param([change("create", wanted("a"))], False, id="alone"),
        pytest.param(pair(image_format="raw"), False, id="raw"),
        pytest.param(pair(preallocation="full"), False, id="preallocated"),
        pytest.param(pair(preallocation="metadata"), False, id="metadata"),
        pytest.param(pair(allocation=4096), False, id="allocated"),
        pytest.param(pair(nocow=True), False, id="nocow"),
        pytest.param(pair(content=Content("/s", None, "raw", capacity=MIB)), False, id="content"),
        pytest.param(
            [change("create", wanted("a")), change("create", wanted("b", capacity=512))], False, id="capacity"
        ),
        pytest.param(
            [change("create", wanted("a")), change("create", wanted("b", cluster_size=512))], False, id="other-options"
        ),
        pytest.param(
            [change("create", wanted(n, backing=Backing(b, "raw"))) for n, b in [("a", "/x"), ("b", "/y")]],
            False,
            id="other-backing",
        ),
        pytest.param(
            [change("create", wanted(n, backing=Backing("/x", f))) for n, f in [("a", "raw"), ("b", "qcow2")]],
            False,
            id="other-backing-format",
        ),
    ],
)
def test_when_images_are_made_once_and_copied(changes, shared):
    steps = lower(*changes)
    assert len(copies(steps)) == (len(changes) if shared else 0)
    if shared:
        assert len(runs(steps)) == 1
        (template,) = {operation.source for operation in copies(steps)}
        (making,) = [
            place for place, step in enumerate(steps) if any(isinstance(each, ops.Run) for each in step.operations)
        ]
        assert template in runs(steps)[0].argv
        assert steps[making].change is None
        for step in steps:
            if any(isinstance(each, ops.CopySparse) for each in step.operations):
                assert making in step.needs


def test_a_template_waits_for_what_its_images_are_built_on():
    base = change("create", wanted("base", "raw"))
    overlays = [change("create", wanted(name, backing=Backing("/p/base", "raw")), ("base",)) for name in ("a", "b")]
    steps = lower(base, *overlays)
    (making,) = [
        step for step in steps if step.change is None and any(isinstance(each, ops.Run) for each in step.operations)
    ]
    assert 1 in making.needs


def test_no_two_files_in_the_private_directory_have_one_name():
    steps = lower(*pair(), change("delete", wanted("-template-0", identity=(1, 2))))
    made = [runs(steps)[0].argv[-2], *(operation.path for operation in copies(steps))]
    (withdrawn,) = [each.staged for step in steps for each in step.operations if isinstance(each, ops.Withdraw)]
    assert withdrawn not in made
    assert len(set(made)) == 3


# -- directory pools ----------------------------------------------------------------------------------------------


NOTES = Notes("/records", "/starts")
NOTE = NOTES.record_path("/p")


@pytest.mark.parametrize(
    ("action", "permissions", "operations"),
    [
        ("build", Permissions(0o711), [ops.MakeDirectory("/p", 0o711, NOTE)]),
        (
            "build",
            Permissions(0, 0, 5),
            [ops.MakeDirectory("/p", 0, NOTE), ops.SetPermissions("/p", None, 0, 5, True)],
        ),
        ("permissions", Permissions(0o700, 1, 2), [ops.SetPermissions("/p", 0o700, 1, 2, True)]),
        ("delete", Permissions(), [ops.RemoveDirectory("/p"), ops.Remove(NOTE)]),
    ],
)
def test_lowering_a_directory_pool(action, permissions, operations):
    mine = Change(Subject("p"), action, "summary", wanted=Pool("p", "dir", path="/p", permissions=permissions))
    assert dir_backend.lower(mine, Found("p"), NOTES) == operations


# -- on servers ---------------------------------------------------------------------------------------------------


def far(fstype="nfs4", writable=False, owner=107, mode=0o755, read_only=False, **more):
    permissions = Permissions(mode, owner, 5)
    storage = Storage(READY, "/p", permissions=permissions, writable=writable, read_only=read_only, filesystem=fstype)
    return Found("p", storage=storage, filesystem=fstype, **more)


def test_each_host_has_a_private_directory_of_its_own_on_a_server(monkeypatch):
    monkeypatch.setattr(filetree, "this_host", lambda: "aa")
    assert filetree.staging_name("ext4") == ".virt-storage"
    assert filetree.staging_name("nfs4") == ".virt-storage-aa"


def test_that_of_another_host_is_no_volume_and_no_leftover(tmp_path, monkeypatch):
    monkeypatch.setattr(filetree, "this_host", lambda: "aa")
    for name in (".virt-storage-bb", ".virt-storage-aa", ".virt-storage-aa-107"):
        (tmp_path / name).mkdir(0o700)
    assert filetree.list_volumes(str(tmp_path), None, True) == {}
    assert filetree.observe_staging(str(tmp_path), "nfs4") == ((".virt-storage-aa",), "")
    assert filetree.observe_directory(str(tmp_path), None, True).holds == (".virt-storage-bb",)


@pytest.mark.parametrize(
    ("found", "volume", "expected"),
    [
        (far(), wanted(permissions=Permissions(None, 107, 107)), (107, 107)),
        (far(), wanted(permissions=Permissions(None, 107)), (107, 5)),
        (far(), wanted(permissions=Permissions(None, 108, 5)), None),
        (far(mode=0o775), wanted(permissions=Permissions(None, 108, 5)), (108, 5)),
        (far(mode=0o777, writable=True), wanted(permissions=Permissions(None, 108, 9)), (108, 9)),
        (far(mode=0o777, writable=True), wanted(), None),
        (far("ext4"), wanted(permissions=Permissions(None, 107, 107)), None),
        (far("cifs"), wanted(permissions=Permissions(None, 107, 107)), None),
        (far(process=(1000, frozenset())), wanted(permissions=Permissions(None, 107, 107)), None),
    ],
)
def test_in_whose_name_a_volume_is_made(found, volume, expected):
    assert filetree_changes.actor_of(change("create", volume), found) == expected


def test_in_whose_name_a_volume_is_changed_and_removed():
    volume = wanted(permissions=Permissions(0o600, 9, 9))
    found = far(volumes={"v": volume}, protected=frozenset({"v"}))
    assert filetree_changes.actor_of(change("resize", volume), found) == (9, 9)
    assert filetree_changes.actor_of(change("delete", volume), found) == (107, 5)
    found = far(volumes={"v": volume}, mode=0o777, writable=True)
    assert filetree_changes.actor_of(change("resize", volume), found) is None
    assert filetree_changes.actor_of(change("delete", volume), found) is None


def test_in_whose_name_the_directory_of_a_server_is_changed():
    def lowered(found, permissions):
        mine = Change(Subject("p"), "permissions", "", wanted=Pool("p", "netfs", path="/p", permissions=permissions))
        return netfs.lower(mine, found, NOTES)

    plain = ops.SetPermissions("/p", 0o750, None, 6, True)
    assert lowered(far(), Permissions(0o750, None, 6)) == [ops.As(107, 6, plain)]
    assert lowered(far(), Permissions(0o750)) == [ops.As(107, 5, plain._replace(group=None))]
    for found in (far(writable=True), far(read_only=True), far(owner=0), far("ext4")):
        assert lowered(found, Permissions(0o750, None, 6)) == [plain]


def test_who_acts_for_others_has_a_directory_for_each(monkeypatch):
    monkeypatch.setattr(filetree_changes, "staging_name", lambda fstype: ".virt-storage-aa")
    one, two = wanted("one", permissions=Permissions(None, 107)), wanted("two", permissions=Permissions(None, 108))
    steps = filetree_changes.lower_volumes([change("create", one), change("create", two)], far(mode=0o777))
    opened = [
        op.operation.path for step in steps for op in step.operations if isinstance(op.operation, ops.OpenStaging)
    ]
    closed = [
        op.operation.path for step in steps for op in step.operations if isinstance(op.operation, ops.CloseStaging)
    ]
    assert opened == closed == ["/p/.virt-storage-aa-107", "/p/.virt-storage-aa-108"]
    published = [op for step in steps for op in step.operations if isinstance(op.operation, ops.Publish)]
    assert [(op.owner, op.group, op.operation.staged) for op in published] == [
        (107, 5, "/p/.virt-storage-aa-107/one"),
        (108, 5, "/p/.virt-storage-aa-108/two"),
    ]
