# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may lie in a pool's directory beside images: it is listed without harm, and left alone."""

from __future__ import annotations

import os
import socket
import stat
import subprocess

import pytest

from .crash_support import (
    CHECK,
    MIB,
    done,
    leftovers,
    qcow2,
    qemu_img,
    raw,
    refused,
    snapshot,
    unchanged,
    without_locks,
)

pytestmark = [pytest.mark.needs_ansible, pytest.mark.deadline(30)]


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def make_directory(path):
    path.mkdir()
    (path / "inside").write_text("data")


def make_dangling(path):
    path.symlink_to(path.parent / "nowhere")


def make_loop(path):
    path.symlink_to(path.name)


def make_character_device(path):
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def make_block_device(path):
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 250))


def make_link_to_fifo(path):
    os.mkfifo(path.parent.parent / "fifo")
    path.symlink_to("../fifo")


def make_link_to_directory(path):
    (path.parent.parent / "folder").mkdir()
    path.symlink_to("../folder")


STRANGE = {
    "fifo": make_fifo,
    "socket": make_socket,
    "directory": make_directory,
    "dangling link": make_dangling,
    "looping link": make_loop,
    "link to a fifo": make_link_to_fifo,
    "link to a directory": make_link_to_directory,
    "character device": make_character_device,
    "block device": make_block_device,
}
KINDS = pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=pytest.mark.root if "device" in kind else ()) for kind, make in STRANGE.items()],
    ids=STRANGE.keys(),
)
DECLARED = {
    "raw": {"capacity": "1M"},
    "qcow2": {"capacity": "1M", "format": "qcow2"},
    "mode": {"mode": "0644"},
    "anew if needed": {"capacity": "1M", "recreate": "needed"},
    "anew": {"capacity": "1M", "recreate": "always"},
    "anew, all allowed": {"capacity": "1M", "recreate": "always", "allow": ["shrink", "in_use", "backing"]},
    "content": {"source": {"content": "text"}},
    "absent": {"state": "absent"},
    "absent, all allowed": {"state": "absent", "allow": ["in_use", "backing"]},
}


@CHECK
@KINDS
@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED.keys())
def test_left_alone_under_a_name(images, make, declared, check):
    make(images.images / "strange")
    before = without_locks(snapshot(images.root))
    result = images.volume(check, name="strange", **declared)
    assert result.get("failed"), result
    assert result["error"]["code"] in ("volume_foreign", "volume_malformed"), result["error"]
    assert without_locks(snapshot(images.root)) == before


@pytest.mark.parametrize(
    "make", [make for kind, make in STRANGE.items() if "device" not in kind], ids=lambda make: make.__name__
)
def test_as_backing_or_source(images, make):
    make(images.images / "strange")
    before = without_locks(snapshot(images.root))
    path = str(images.images / "strange")
    for reference in ({"volume": "strange"}, {"path": path}):
        for made_from in ({"backing": {**reference, "format": "raw"}}, {"source": reference}):
            result = images.volume(name="new", format="qcow2", capacity="1M", **made_from)
            assert result.get("failed"), result
            allowed = ("backing_refused", "source_refused", "backing_missing", "source_missing")
            assert result["error"]["code"] in allowed, result["error"]
    assert without_locks(snapshot(images.root)) == before


ODD_NAMES = [
    b"\xff\xfe.raw",
    b"new\nline",
    b"esc\x1b[31m",
    b"-dash",
    b"two  blanks ",
    b"*",
    b"'quote\"&<",
    b"\x01\x02",
    b"\xef\xbf\xbf",
]


@pytest.mark.root
def test_listing_with_everything_in_it(images):
    """Nothing in the directory makes a listing hang or fail, and every plain image is in it."""
    for number, make in enumerate(STRANGE.values()):
        make(images.images / f"strange{number}")
    for name in ODD_NAMES:
        with open(os.path.join(os.fsencode(images.images), name), "wb") as file:
            file.truncate(MIB)
    unreadable = raw(images.images / "unreadable")
    unreadable.chmod(0)
    done(images.volume(name="a", capacity="1M"))
    before = without_locks(snapshot(images.root))
    for volumes in (images.volume_info(pool="images"), images.volume_info(), images.volume_info(xml=True)):
        assert {"a", "unreadable"} <= {volume["name"] for volume in volumes}
        assert len(volumes) >= 2 + len(ODD_NAMES)
    (pool,) = images.pool_info(name="images", volumes="full", xml=True)
    assert {"a", "unreadable"} <= {volume["name"] for volume in pool["volumes"]}
    (pool,) = images.pool_info(name="images", volumes="names")
    assert {"a", "unreadable"} <= set(pool["volumes"])
    assert without_locks(snapshot(images.root)) == before
    unchanged(images.volume(name="a", capacity="1M"))
    done(images.volume(name="b", format="qcow2", capacity="1M"))
    done(images.volume(name="a", state="absent"))


@pytest.mark.root
def test_deleting_a_pool_with_odd_names(images):
    """A name that no task could give is still an image; the refusal can be printed."""
    for name in ODD_NAMES:
        with open(os.path.join(os.fsencode(images.images), name), "wb") as file:
            file.truncate(MIB)
    pool = {"name": "images", "type": "dir", "path": str(images.images), "state": "deleted"}
    refused(images.pool(**pool), "pool_nonempty")
    done(images.pool(allow=["nonempty"], **pool))
    assert not images.images.exists()


def test_listing_does_not_open_what_can_hang(images):
    """Under a deadline of its own: a FIFO would stop a reader for good."""
    make_fifo(images.images / "fifo")
    make_link_to_fifo(images.images / "link")
    raw(images.images / "a")
    assert [volume["name"] for volume in images.volume_info(pool="images")] == ["a"]
    assert images.volume_info(pool="images", name="fifo") == []


@pytest.mark.thorough
def test_an_unreadable_image_is_a_record(images):
    """Cut off, full of lies or empty: every file is in the listing, whatever its header says."""
    whole = qcow2(images.root / "whole.qcow2").read_bytes()
    files = {
        "cut": whole[:50],
        "empty": b"",
        "backing far away": whole[:8] + (2**63).to_bytes(8, "big") + (1000).to_bytes(4, "big") + whole[20:],
        "version": whole[:4] + b"\0\0\0\x63" + whole[8:],
        "cluster bits": whole[:20] + b"\xff\xff\xff\xff" + whole[24:],
        "size": whole[:24] + b"\xff" * 8 + whole[32:],
        "random": b"QFI\xfb" + os.urandom(2000),
        "vmdk": b"KDMV" + os.urandom(2000),
        "text": b'# Disk DescriptorFile\nRW 999999999999999999999 FLAT "/etc/shadow" 0\n',
        "luks": b"LUKS\xba\xbe" + os.urandom(100),
    }
    for name, data in files.items():
        (images.images / name).write_bytes(data)
    listed = {volume["name"]: volume for volume in images.volume_info(pool="images", xml=True)}
    assert set(listed) == set(files)
    before = without_locks(snapshot(images.root))
    for name in ("cut", "version", "cluster bits"):
        for check in (True, False):
            refused(images.volume(check, name=name, capacity="2M", format="qcow2"), "volume_malformed")
            refused(images.volume(check, name="new", source={"volume": name}), "source_refused")
            backing = {"volume": name, "format": "qcow2"}
            result = images.volume(check, name="new", format="qcow2", backing=backing, capacity="1M")
            refused(result, "backing_refused")
    assert without_locks(snapshot(images.root)) == before
    for name in files:
        done(images.volume(name=name, state="absent"))
    assert os.listdir(images.images) == []


# -- symbolic links -----------------------------------------------------------------------------------------------


@CHECK
@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize(
    "declared",
    [
        {"capacity": "2M"},
        {"capacity": "512K", "allow": ["shrink", "in_use", "backing"]},
        {"format": "qcow2", "recreate": "needed", "capacity": "1M"},
        {"capacity": "1M", "recreate": "always"},
        {"mode": "0644"},
        {"owner": 65534, "group": 65534},
        {"source": {"content": "text"}, "recreate": "needed"},
    ],
    ids=str,
)
def test_target_of_a_link_is_not_changed(images, where, declared, check):
    target = raw((images.images if where == "inside" else images.root) / "target", data=b"precious")
    target.chmod(0o600)
    (images.images / "link").symlink_to(target)
    before = without_locks(snapshot(images.root))
    refused(images.volume(check, name="link", **declared), "volume_foreign")
    assert without_locks(snapshot(images.root)) == before


def test_target_of_a_qcow2_link_is_not_changed(images):
    target = qcow2(images.root / "target")
    (images.images / "link").symlink_to(target)
    base = qcow2(images.root / "base")
    before = without_locks(snapshot(images.root))
    for declared in (
        {"capacity": "2M"},
        {"options": {"compat": "0.10"}},
        {"options": {"lazy_refcounts": True}},
        {"backing": {"path": str(base), "format": "qcow2"}, "allow": ["backing"]},
    ):
        refused(images.volume(name="link", format="qcow2", **declared), "volume_foreign")
    unchanged(images.volume(name="link", format="qcow2", capacity="1M"))
    assert without_locks(snapshot(images.root)) == before


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_removing_a_link_keeps_its_target(images, where):
    target = raw((images.images if where == "inside" else images.root) / "target", data=b"precious")
    (images.images / "link").symlink_to(target)
    before = target.stat()
    planned = images.volume(True, name="link", state="absent")
    assert os.path.islink(images.images / "link")
    result = done(images.volume(name="link", state="absent"))
    assert planned["plan"] == result["plan"]
    assert result["plan"][0]["destroys"] == ""
    assert not os.path.lexists(images.images / "link")
    after = target.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_size) == (after.st_ino, after.st_mtime_ns, after.st_size)
    assert target.read_bytes().startswith(b"precious")


def test_exclusive_removes_images_only(images):
    outside = raw(images.root / "outside", data=b"precious")
    (images.images / "link").symlink_to(outside)
    for name, make in STRANGE.items():
        if "device" not in name:
            make(images.images / name.replace(" ", "-"))
    raw(images.images / "old")
    kept = set(os.listdir(images.images)) - {"old", "link"}
    done(images.volume(volumes=[{"name": "new", "capacity": "1M"}], exclusive="*"))
    left = set(os.listdir(images.images)) - {"link"}
    assert left == kept | {"new"}
    assert outside.read_bytes().startswith(b"precious")


@CHECK
@pytest.mark.parametrize("kind", ["link", "file", "other owner"])
def test_staging_directory_of_somebody_else(images, kind, check):
    """The private directory is not followed and not taken over where it is not ours."""
    staging = images.images / ".virt-storage"
    elsewhere = images.root / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "precious").write_text("data")
    if kind == "link":
        staging.symlink_to(elsewhere)
    elif kind == "file":
        staging.write_text("data")
    else:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        staging.mkdir(mode=0o700)
        (staging / "precious").write_text("data")
        os.chown(staging, 65534, 65534)
    before = without_locks(snapshot(images.root))
    refused(images.volume(check, name="a", capacity="1M"), "staging_foreign")
    assert without_locks(snapshot(images.root)) == before
    assert images.volume_info(pool="images") == []


def test_staging_directory_holding_a_directory(images):
    """Left by nobody of us: not a traceback, and no loss."""
    staging = images.images / ".virt-storage"
    (staging / "folder").mkdir(parents=True)
    staging.chmod(0o700)
    (staging / "folder" / "precious").write_text("data")
    result = images.volume(name="a", capacity="1M")
    assert result.get("failed"), result
    assert result["error"]["code"] in ("staging_foreign", "operation_failed"), result["error"]
    assert result["error"]["hint"], result["error"]
    assert (staging / "folder" / "precious").read_text() == "data"


# -- pools --------------------------------------------------------------------------------------------------------


@CHECK
@pytest.mark.parametrize("kind", ["fifo", "socket", "dangling link", "looping link", "file", "below a file"])
def test_pool_directory_that_is_something_else(host, kind, check):
    host.root.mkdir()
    path = host.images
    if kind == "file":
        path.write_text("data")
    elif kind == "below a file":
        path.write_text("data")
        path = path / "pool"
    else:
        STRANGE[kind](path)
    before = without_locks(snapshot(host.root))
    result = host.pool(check, name="images", type="dir", path=str(path))
    assert result.get("failed"), result
    codes = (
        ("storage_foreign", "storage_unreadable", "not_writable")
        if kind == "below a file"
        else ("storage_foreign", "storage_unreadable")
    )
    assert result["error"]["code"] in codes, result["error"]
    assert result["changed"] is False
    assert without_locks(snapshot(host.root)) == before


def test_malformed_definition_of_another_pool(images):
    """One bad file hides no other pool, and is not overwritten."""
    config = images.root / "etc/libvirt/storage"
    (config / "bad.xml").write_text("<pool type='dir'><name>bad")
    (config / "entity.xml").write_text(
        "<!DOCTYPE p [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><pool type='dir'><name>&x;</name></pool>"
    )
    make_fifo(config / "fifo.xml")
    (config / "folder.xml").mkdir()
    before = (config / "bad.xml").read_text()
    records = {pool["name"]: pool for pool in images.pool_info()}
    assert records["images"]["state"] == "active"
    assert records["bad"]["state"] == "unknown"
    assert records["bad"]["error"]["code"]
    unchanged(images.pool(name="images", type="dir", path=str(images.images)))
    result = images.pool(name="bad", type="dir", path=str(images.root / "bad"))
    assert result.get("failed"), result
    assert (config / "bad.xml").read_text() == before
    assert leftovers(images.root) == []


@pytest.mark.thorough
def test_qemu_img_is_never_given_an_option(images):
    """Paths are absolute, so that no name looks like an option or a protocol."""
    for name in ("json:{}", "nbd:x", "a,b=c", "a=b", "fat:rw:x", "%s", "a b'c\"", "ö"):
        done(images.volume(name=name, format="qcow2", capacity="1M"))
        qemu_img("check", "-q", "-f", "qcow2", images.images / name)
        backing = {"volume": name, "format": "qcow2"}
        done(images.volume(name="over", format="qcow2", backing=backing))
        unchanged(images.volume(name="over", format="qcow2", backing=backing))
        done(images.volume(name="clone", source={"volume": name}))
        done(images.volume(name="over", state="absent"))
        done(images.volume(name="clone", state="absent"))
        done(images.volume(name=name, format="qcow2", capacity="2M"))
        done(images.volume(name=name, state="absent"))
    assert os.listdir(images.images) == []


def test_fifo_check_has_a_witness(images):
    """The FIFO of the tests above does stop a reader."""
    make_fifo(images.images / "fifo")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["cat", images.images / "fifo"], timeout=0.3, check=False)
