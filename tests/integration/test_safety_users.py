# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A volume in use is not deleted, shrunk or made anew without its word; its owner and mode are left alone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import remote

from . import loops
from .crash_support import (
    CHECK,
    MIB,
    define_guest,
    disk_file,
    disk_volume,
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
from .disk_scenarios import pool_of

pytestmark = [pytest.mark.needs_ansible, pytest.mark.deadline(60)]


DESTROYING = {
    "delete": {"state": "absent"},
    "shrink": {"format": "qcow2", "capacity": "1M", "allow": ["shrink"]},
    "recreate": {"format": "qcow2", "capacity": "2M", "recreate": "always"},
    "recreate if needed": {"capacity": "2M", "options": {"cluster_size": "4K"}, "recreate": "needed"},
}
DESTROY = pytest.mark.parametrize("declared", DESTROYING.values(), ids=DESTROYING.keys())


def make_disk(images):
    done(images.volume(name="disk", format="qcow2", capacity="2M"))
    return images.images / "disk"


def allowing(declared, *words):
    return {**declared, "allow": [*declared.get("allow", []), *words]}


# -- guests' definitions ------------------------------------------------------------------------------------------


def guest_by_path(images, disk):
    define_guest(images.root, "guest", disk_file(disk))


def guest_by_volume(images, disk):
    define_guest(images.root, "guest", disk_volume("images", disk.name))


def guest_running(images, disk):
    define_guest(images.root, "guest", disk_file(disk), running=True)


def guest_transient(images, disk):
    """A transient guest has a status file only."""
    define_guest(images.root, "guest", disk_file(disk), running=True, where="run/libvirt/qemu")


def guest_through_a_link(images, disk):
    (images.root / "link").symlink_to(images.images)
    define_guest(images.root, "guest", disk_file(images.root / "link" / disk.name))


def guest_through_a_hard_link(images, disk):
    os.link(disk, images.root / "hard")
    define_guest(images.root, "guest", disk_file(images.root / "hard"))


def guest_on_an_overlay(images, disk):
    """The overlay lies in no pool: only its header leads to the volume."""
    over = images.root / "over"
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", over)
    define_guest(images.root, "guest", disk_file(over))


def guest_on_a_chain(images, disk):
    below, image_format = disk, "qcow2"
    for number in range(3):
        over = images.root / f"over{number}"
        qemu_img("create", "-q", "-f", "qcow2", "-b", below, "-F", image_format, over)
        below = over
    define_guest(images.root, "guest", disk_file(below))


def guest_on_an_overlay_by_json(images, disk):
    over = images.root / "over"
    overlay_by_json(images, disk, over)
    define_guest(images.root, "guest", disk_file(over))


def guest_with_backing_store_in_its_xml(images, disk):
    disks = (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/elsewhere/top'/>"
        f"<backingStore type='file'><format type='qcow2'/><source file='{disk}'/><backingStore/></backingStore>"
        "<target dev='vda'/></disk>"
    )
    define_guest(images.root, "guest", disks, running=True)


def guest_as_firmware(images, disk):
    path = define_guest(images.root, "guest", "")
    text = path.read_text().replace("<devices>", f"<os><nvram>{disk}</nvram></os><devices>")
    path.write_text(text)


def guest_with_a_device_tree(images, disk):
    path = define_guest(images.root, "guest", "")
    path.write_text(path.read_text().replace("<devices>", f"<os><dtb>{disk}</dtb></os><devices>"))


def guest_with_a_tpm(images, disk):
    backend = f"<backend type='emulator'><source type='file' path='{disk}'/></backend>"
    define_guest(images.root, "guest", f"<tpm model='tpm-crb'>{backend}</tpm>")


def guest_with_the_directory(images, disk):
    (images.root / "link").symlink_to(disk.parent)
    share = f"<filesystem type='mount'><source dir='{images.root}/link/'/><target dir='x'/></filesystem>"
    define_guest(images.root, "guest", share)


def guest_with_arguments(images, disk):
    path = define_guest(images.root, "guest", "")
    space, argument = "http://libvirt.org/schemas/domain/qemu/1.0", f"if=virtio,file={disk},format=qcow2"
    words = f"<q:commandline xmlns:q='{space}'><q:arg value='-drive'/><q:arg value='{argument}'/></q:commandline>"
    path.write_text(path.read_text().replace("</domain>", f"{words}</domain>"))


def guest_with_a_snapshot_in_it(images, disk):
    define_snapshot(images, f"<memory snapshot='external' file='{disk}'/>")


def guest_whose_snapshot_has_an_overlay(images, disk):
    over = images.root / "over"
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", over)
    define_snapshot(images, f"<disks><disk name='vda' snapshot='external'><source file='{over}'/></disk></disks>")


def define_snapshot(images, text):
    path = images.root / "var/lib/libvirt/qemu/snapshot/guest/s1.xml"
    path.parent.mkdir(parents=True)
    path.write_text(f"<domainsnapshot><name>s1</name>{text}</domainsnapshot>")


def guest_mirroring(images, disk):
    """A block copy is under way to the volume."""
    disks = (
        "<disk type='file' device='disk'><source file='/elsewhere/top'/>"
        f"<mirror type='file' job='copy'><format type='qcow2'/><source file='{disk}'/></mirror>"
        "<target dev='vda'/></disk>"
    )
    define_guest(images.root, "guest", disks, running=True)


def guest_with_cdrom(images, disk):
    disks = f"<disk type='file' device='cdrom'><source file='{disk}'/><target dev='sda'/><readonly/></disk>"
    define_guest(images.root, "guest", disks)


def guest_after_an_unreadable_one(images, disk):
    path = define_guest(images.root, "a-bad-one", "")
    path.write_text("<domain>")
    define_guest(images.root, "guest", disk_file(disk))


GUESTS = [
    guest_by_path,
    guest_by_volume,
    guest_running,
    guest_transient,
    guest_through_a_link,
    guest_through_a_hard_link,
    guest_on_an_overlay,
    guest_on_a_chain,
    guest_on_an_overlay_by_json,
    guest_with_backing_store_in_its_xml,
    guest_as_firmware,
    guest_with_a_device_tree,
    guest_with_a_tpm,
    guest_with_the_directory,
    guest_with_arguments,
    guest_with_a_snapshot_in_it,
    guest_whose_snapshot_has_an_overlay,
    guest_mirroring,
    guest_with_cdrom,
    guest_after_an_unreadable_one,
]


@DESTROY
@pytest.mark.parametrize("use", GUESTS, ids=lambda use: use.__name__)
def test_guest(images, use, declared):
    disk = make_disk(images)
    use(images, disk)
    before = without_locks(snapshot(images.root))
    for check in (True, False):
        error = refused(images.volume(check, name="disk", **declared), "volume_in_use")
        assert "guest" in error["message"], error
        assert "in_use" in error["hint"], error
        assert without_locks(snapshot(images.root)) == before
    done(images.volume(name="disk", **allowing(declared, "in_use")))
    assert leftovers(images.root) == []


@CHECK
def test_exclusive_and_pool_deletion_spare_what_a_guest_has(images, check):
    disk = make_disk(images)
    done(images.volume(name="other", capacity="1M"))
    guest_by_path(images, disk)
    before = without_locks(snapshot(images.root))
    keep = [{"name": "other", "capacity": "1M"}]
    refused(images.volume(check, volumes=keep, exclusive="*"), "volume_in_use")
    pool = {"name": "images", "type": "dir", "path": str(images.images), "state": "deleted", "allow": ["nonempty"]}
    refused(images.pool(check, **pool), "volume_in_use")
    assert without_locks(snapshot(images.root)) == before


def test_what_a_guest_does_not_forbid(images):
    """A definition is not a running guest: growth, owner and mode are free."""
    disk = make_disk(images)
    guest_by_path(images, disk)
    done(images.volume(name="disk", format="qcow2", capacity="3M", mode="0640"))
    define_guest(images.root, "unrelated", disk_file(images.root / "elsewhere") + disk_volume("others", "disk"))
    done(images.volume(name="free", capacity="1M"))
    done(images.volume(name="free", state="absent"))


def test_an_unreadable_definition_is_said(images):
    """What could not be looked at is named in a warning when something is destroyed."""
    make_disk(images)
    bad = define_guest(images.root, "bad", "")
    bad.write_text("<domain><name>bad")
    result = done(images.volume(name="disk", state="absent"))
    assert any(str(bad) in text for text in result["warnings"]), result["warnings"]


# -- processes ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(argv, ready=None):
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        if ready is None:
            assert child.stdout.readline()
        else:
            end = time.monotonic() + 20
            while not ready():
                assert child.poll() is None, child.stdout.read()
                assert time.monotonic() < end
                time.sleep(0.02)
        yield child
    finally:
        child.stdin.close()
        child.kill()
        child.wait()
        child.stdout.close()


def opened(disk, mode):
    text = f"import sys; file = open({str(disk)!r}, {mode!r}); print('ready', flush=True); sys.stdin.read()"
    return process([sys.executable, "-c", text])


@contextlib.contextmanager
def opened_by_a_name_that_is_gone(disk):
    other = disk.parent.parent / "gone"
    os.link(disk, other)
    with opened(other, "r+b"):
        other.unlink()
        yield


def mapped(disk):
    """Closed, but mapped into memory."""
    text = (
        f"import mmap, sys\nwith open({str(disk)!r}, 'r+b') as file: area = mmap.mmap(file.fileno(), 0)\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    return process([sys.executable, "-c", text])


def locks_held(path):
    status = os.stat(path)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with open("/proc/locks", encoding="ascii") as file:
        return any(wanted in line for line in file)


def qemu_io(disk):
    return process(["qemu-io", "-f", "qcow2", str(disk)], lambda: locks_held(disk))


def qemu_nbd(disk):
    socket = f"{disk.parent.parent}/nbd"
    return process(
        ["qemu-nbd", "-f", "qcow2", "-k", socket, "-t", str(disk)], lambda: os.path.exists(socket) and locks_held(disk)
    )


def qemu_nbd_on_an_overlay(disk):
    over = disk.parent.parent / "over"
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", over)
    socket = f"{disk.parent.parent}/nbd"
    return process(
        ["qemu-nbd", "-f", "qcow2", "-k", socket, "-t", str(over)], lambda: os.path.exists(socket) and locks_held(disk)
    )


@contextlib.contextmanager
def loop_device(disk):
    device = loops.attach(disk)
    try:
        yield device
    finally:
        loops.detach(device)


@contextlib.contextmanager
def bind_mount(disk):
    place = disk.parent.parent / "mounts"
    place.mkdir()
    (place / "disk").touch()
    subprocess.run(["mount", "--bind", disk, place / "disk"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place / "disk"], check=True)


@contextlib.contextmanager
def in_mounts_of_its_own(script):
    """What the script does is undone with the process, whose mounts nobody else sees."""
    argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", f"{script}; echo ready; exec sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def bind_mount_elsewhere(disk):
    """As a container gets a single file."""
    target = disk.parent.parent / "theirs"
    target.touch()
    with in_mounts_of_its_own(f"mount --bind {disk} {target}; exec 3<{target}"):
        yield


@contextlib.contextmanager
def loop_device_elsewhere(disk):
    """Attached under a path that is another file for us."""
    target, told = disk.parent.parent / "theirs", disk.parent.parent / "node"
    target.touch()
    script = f"mount --bind {disk} {target}; losetup --find --show {target} > {told}"
    with contextlib.ExitStack() as stack:
        with loops.alone():
            stack.enter_context(in_mounts_of_its_own(script))
        try:
            yield
        finally:
            subprocess.run(["losetup", "--detach", told.read_text().strip()], check=True)


@contextlib.contextmanager
def swap(disk):
    """A swap file needs all of its blocks; the volume is made one."""
    data = disk.read_bytes()
    disk.write_bytes(b"\0" * 2 * MIB)
    subprocess.run(["mkswap", "-q", disk], check=True, capture_output=True)
    turned_on = subprocess.run(["swapon", disk], check=False, capture_output=True, text=True)
    if turned_on.returncode:
        pytest.skip(f"no swap here: {turned_on.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["swapoff", disk], check=True)
        disk.write_bytes(data)


OPENERS = {
    "reader": lambda disk: opened(disk, "rb"),
    "writer": lambda disk: opened(disk, "r+b"),
    "by a name that is gone": opened_by_a_name_that_is_gone,
    "mapped": mapped,
    "qemu-io": qemu_io,
    "qemu-nbd": qemu_nbd,
    "qemu-nbd on an overlay": qemu_nbd_on_an_overlay,
}
ROOT_OPENERS = {
    "loop device": loop_device,
    "loop device elsewhere": loop_device_elsewhere,
    "bind mount": bind_mount,
    "bind mount elsewhere": bind_mount_elsewhere,
}
EVERY_OPENER = [
    *(pytest.param(use, id=name) for name, use in OPENERS.items()),
    *(pytest.param(use, id=name, marks=pytest.mark.root) for name, use in ROOT_OPENERS.items()),
]


@pytest.mark.parametrize("use", EVERY_OPENER)
def test_open(images, use):
    disk = make_disk(images)
    with use(disk):
        before = without_locks(snapshot(images.root))
        for check in (True, False):
            for declared in DESTROYING.values():
                refused(images.volume(check, name="disk", **declared), "volume_in_use")
        assert without_locks(snapshot(images.root)) == before
    for declared in DESTROYING.values():
        done(images.volume(True, name="disk", **declared))


def test_the_other_names_of_what_is_shrunk_are_said(images):
    disk = raw(images.images / "disk", MIB, b"a" * MIB)
    os.link(disk, images.images / "backup")
    shrunk = done(images.volume(name="disk", capacity="4K", allow=["shrink"]))
    assert shrunk["plan"][0]["destroys"].endswith("whose file has 1 more name")


@pytest.mark.parametrize("use", EVERY_OPENER)
def test_open_allows_no_rewriting(images, use):
    """qemu-img must not write into an image that somebody has open: growth and other changes of qcow2 in place."""
    disk = make_disk(images)
    base = qcow2(images.root / "base")
    with use(disk):
        before = without_locks(snapshot(images.root))
        for check in (True, False):
            for declared in (
                {"capacity": "4M"},
                {"options": {"lazy_refcounts": True}},
                {"options": {"compat": "0.10"}},
                {"backing": {"path": str(base), "format": "qcow2"}, "allow": ["backing"]},
            ):
                refused(images.volume(check, name="disk", format="qcow2", **declared), "volume_in_use")
        assert without_locks(snapshot(images.root)) == before


@pytest.mark.parametrize("use", EVERY_OPENER)
def test_open_leaves_owner_and_mode_alone(images, use):
    disk = make_disk(images)
    with use(disk):
        before = without_locks(snapshot(images.root))
        for check in (True, False):
            result = unchanged(images.volume(check, name="disk", mode="0644"))
            assert any("in use" in text and "mode" in text for text in result["warnings"]), result["warnings"]
        assert without_locks(snapshot(images.root)) == before
    assert not unchanged(images.volume(name="disk", mode="0600"))["warnings"]
    done(images.volume(name="disk", mode="0644"))


@pytest.mark.root
def test_owner_of_an_open_volume(images):
    disk = make_disk(images)
    with opened(disk, "rb"):
        result = unchanged(images.volume(name="disk", owner="nobody", group=65534))
        assert any("owner" in text and "group" in text for text in result["warnings"]), result["warnings"]
    assert disk.stat().st_uid == 0


@pytest.mark.root
def test_swap(images):
    done(images.volume(name="disk", format="raw", capacity="2M", allocation="2M"))
    with swap(images.images / "disk"):
        refused(images.volume(name="disk", state="absent"), "volume_in_use")


def test_allowed_though_open(images):
    disk = make_disk(images)
    with opened(disk, "rb"):
        for name in ("shrink", "recreate", "delete"):
            done(images.volume(name="disk", **allowing(DESTROYING[name], "in_use")))
    assert os.listdir(images.images) == []


def test_a_source_that_is_being_written(images):
    source = qcow2(images.root / "source")
    for use in (lambda: opened(source, "r+b"), lambda: qemu_io(source)):
        with use():
            for check in (True, False):
                refused(images.volume(check, name="a", source={"path": str(source)}), "source_in_use")
    with opened(source, "rb"):
        done(images.volume(name="a", source={"path": str(source)}))


@pytest.mark.root
def test_a_source_under_a_loop_device(images):
    """Attached for writing, it may change while it is copied."""
    source = raw(images.root / "source")
    with loop_device(source):
        refused(images.volume(name="a", source={"path": str(source)}), "source_in_use")
    done(images.volume(name="a", source={"path": str(source)}))


def test_another_file_of_the_same_name_is_no_user(images):
    make_disk(images)
    (images.root / "elsewhere").mkdir()
    other = raw(images.root / "elsewhere" / "disk")
    with opened(other, "r+b"):
        done(images.volume(name="disk", state="absent"))


def test_open_under_another_name(images):
    """By a hard link and by a link: it is the same file."""
    disk = make_disk(images)
    os.link(disk, images.root / "hard")
    with opened(images.root / "hard", "rb"):
        refused(images.volume(name="disk", state="absent"), "volume_in_use")


def test_deleting_a_pool_with_an_open_volume(images):
    disk = make_disk(images)
    pool = {"name": "images", "type": "dir", "path": str(images.images), "state": "deleted"}
    with opened(disk, "rb"):
        before = without_locks(snapshot(images.root))
        for check in (True, False):
            refused(images.pool(check, allow=["nonempty"], **pool), "volume_in_use")
        assert without_locks(snapshot(images.root)) == before
        done(images.pool(allow=["nonempty", "in_use"], **pool))
    assert not images.images.exists()


# -- overlays -----------------------------------------------------------------------------------------------------


def overlay_in_this_pool(images, disk):
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", images.images / "over")


def overlay_by_a_relative_name(images, disk):
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk.name, "-F", "qcow2", images.images / "over")


def overlay_in_another_pool(images, disk):
    path = images.root / "others"
    done(images.pool(name="others", type="dir", path=str(path)))
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", path / "over")


def overlay_in_a_stopped_pool(images, disk):
    overlay_in_another_pool(images, disk)
    done(images.pool(name="others", state="inactive"))


def overlay_of_an_overlay_elsewhere(images, disk):
    """The file between lies in no pool."""
    middle = images.root / "middle"
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", middle)
    qemu_img("create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", images.images / "over")


def overlay_by_json(images, disk, over=None):
    named = {"driver": "qcow2", "file": {"driver": "file", "filename": str(disk)}}
    over = over or images.images / "over"
    qemu_img("create", "-q", "-f", "qcow2", "-b", f"json:{json.dumps(named)}", "-F", "qcow2", over)


def overlay_by_json_with_dots(images, disk):
    named = json.dumps({"file.filename": str(disk), "driver": "qcow2", "file.driver": "file"})
    qemu_img("create", "-q", "-f", "qcow2", "-b", f"json:{named}", "-F", "qcow2", images.images / "over")


def overlay_by_protocol(images, disk):
    qemu_img("create", "-q", "-f", "qcow2", "-b", f"file:{disk}", "-F", "qcow2", images.images / "over")


def overlay_elsewhere_with_a_link_here(images, disk):
    (images.root / "big").mkdir()
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", images.root / "big/over")
    (images.images / "over").symlink_to(images.root / "big/over")


def overlay_elsewhere_that_a_link_leads_on_from(images, disk):
    """As QEMU finds it: a relative name starts from the directory of the link."""
    (images.root / "big").mkdir()
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", disk.name, "-F", "qcow2", images.root / "big/over", "2M")
    (images.images / "over").symlink_to("../big/over")


def overlay_with_data_in_it(images, disk):
    """The volume holds the data of another image."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={disk}", images.images / "over", "2M")


OVERLAYS = [
    overlay_in_this_pool,
    overlay_by_a_relative_name,
    overlay_in_another_pool,
    overlay_in_a_stopped_pool,
    overlay_of_an_overlay_elsewhere,
    overlay_by_json,
    overlay_by_json_with_dots,
    overlay_by_protocol,
    overlay_elsewhere_with_a_link_here,
    overlay_elsewhere_that_a_link_leads_on_from,
]


@DESTROY
@pytest.mark.parametrize("use", OVERLAYS, ids=lambda use: use.__name__)
def test_backing(images, use, declared):
    disk = make_disk(images)
    use(images, disk)
    before = without_locks(snapshot(images.root))
    for check in (True, False):
        error = refused(images.volume(check, name="disk", **declared), "volume_backing")
        assert "backing" in error["hint"], error
    refused(images.volume(name="disk", **allowing(declared, "in_use")), "volume_backing")
    assert without_locks(snapshot(images.root)) == before
    done(images.volume(name="disk", **allowing(declared, "backing")))


@CHECK
@pytest.mark.parametrize(("backing", "told"), [("fat:rw:/p", True), ("nbd://localhost/disk", False)])
def test_an_overlay_of_what_can_not_be_told(images, check, backing, told):
    """Said where a volume is destroyed, and only where it may be a file of this host."""
    make_disk(images)
    over = images.images / "over"
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", over, "2M")
    result = done(images.volume(check, name="disk", state="absent"))
    assert any(f"what {over} is built on" in text for text in result["warnings"]) == told, result["warnings"]
    assert unchanged(images.volume(check, name="over", format="qcow2", mode="0644"))["warnings"] == []


def test_the_data_of_a_guest(images):
    disk, over = images.images / "disk", images.root / "over"
    done(images.volume(name="disk", capacity="2M"))
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={disk}", over, "2M")
    define_guest(images.root, "guest", disk_file(over))
    refused(images.volume(name="disk", state="absent"), "volume_in_use")


def test_data_file_of_another_image(images):
    done(images.volume(name="disk", capacity="2M"))
    overlay_with_data_in_it(images, images.images / "disk")
    before = without_locks(snapshot(images.root))
    refused(images.volume(name="disk", state="absent"), "volume_backing")
    refused(images.volume(name="disk", capacity="1M", allow=["shrink"]), "volume_backing")
    assert without_locks(snapshot(images.root)) == before


def test_growing_or_rewriting_a_backing(images):
    """Growth shows nothing new to an overlay; putting it on another backing keeps what it reads."""
    disk = make_disk(images)
    overlay_in_this_pool(images, disk)
    done(images.volume(name="disk", format="qcow2", capacity="4M"))


def test_overlays_that_go_along(images):
    """Deleting backing and overlays in one task needs no word; the overlays go first."""
    disk = make_disk(images)
    overlay_in_this_pool(images, disk)
    volumes = [{"name": "disk", "state": "absent"}, {"name": "over", "state": "absent"}]
    done(images.volume(volumes=volumes))
    assert os.listdir(images.images) == []


def test_an_overlay_stays_where_only_a_link_to_it_goes(images):
    disk = make_disk(images)
    overlay_elsewhere_with_a_link_here(images, disk)
    volumes = [{"name": "disk", "state": "absent"}, {"name": "over", "state": "absent"}]
    assert str(images.root / "big/over") in refused(images.volume(volumes=volumes), "volume_backing")["message"]


def test_an_overlay_with_a_link_beside_it_goes_along(images):
    disk = make_disk(images)
    overlay_in_this_pool(images, disk)
    (images.images / "link").symlink_to("over")
    done(images.volume(volumes=[{"name": "disk", "state": "absent"}, {"name": "over", "state": "absent"}]))


@pytest.mark.root
def test_overlays_on_devices(images, loop):
    """Also where the volumes of the own pool are devices; one that goes along needs no word."""
    disk, cut = make_disk(images), loop()
    done(images.pool(**pool_of(cut, "gpt")))
    parts = [{"name": cut.name(number), "capacity": "20MiB"} for number in (1, 2)]
    done(images.volume(pool="cut", volumes=parts))
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", cut.path(1))
    for check in (True, False):
        error = refused(images.volume(check, name="disk", state="absent"), "volume_backing")
        assert f"overlay {cut.path(1)}" in error["message"]
    qemu_img("create", "-q", "-f", "qcow2", "-b", cut.path(2), "-F", "raw", cut.path(1))
    done(images.volume(True, name="disk", state="absent"))
    refused(images.volume(pool="cut", name=cut.name(2), state="absent"), "volume_backing")
    done(images.volume(pool="cut", volumes=[{**part, "state": "absent"} for part in parts]))


@pytest.mark.root
def test_a_pool_that_is_not_mounted_is_said(images, loop, tmp_path):
    """Whether it holds an overlay nobody knows: a warning where a volume is destroyed, and nowhere else."""
    disk, source, path = make_disk(images), {"device": loop(partitions=False).node, "format": "ext4"}, tmp_path / "fast"
    done(images.pool(name="fast", type="fs", path=str(path), source=source))
    try:
        qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", path / "over")
        refused(images.volume(name="disk", state="absent"), "volume_backing")
        done(images.pool(name="fast", state="inactive"))
        assert done(images.volume(name="disk", format="qcow2", capacity="3M"))["warnings"] == []
        said = "could not look at the images of pool fast, which is not mounted, for users of what is destroyed"
        for check in (True, False):
            assert said in done(images.volume(check, name="disk", state="absent"))["warnings"]
    finally:
        subprocess.run(["umount", "-q", path], check=False)


@pytest.mark.root
def test_a_device_that_does_not_answer_is_said(images, loop, monkeypatch):
    """Nothing waits for it but a child, once: neither for a guest's disk nor for what a link leads to."""
    make_disk(images)
    silent, link = loop(partitions=False).node, images.images / "link"
    define_guest(images.root, "guest", disk_file(silent))
    link.symlink_to(silent)
    monkeypatch.setattr(remote, "_touched", lambda path: time.sleep(60))
    began = time.monotonic()
    for check in (True, False):
        warnings = done(images.volume(check, name="disk", state="absent", timeout=1))["warnings"]
        assert any(f"what is on {silent}, which does not answer," in text for text in warnings), warnings
        assert any(f"what is on {link}, which does not answer," in text for text in warnings), warnings
    assert time.monotonic() - began < 30
    refused(images.volume(name="new", source={"path": silent}, timeout=1), "source_refused")


@CHECK
def test_a_pool_whose_directory_is_gone_is_said(images, check):
    disk = make_disk(images)
    overlay_in_another_pool(images, disk)
    (images.root / "others").rename(images.root / "away")
    warnings = done(images.volume(check, name="disk", state="absent"))["warnings"]
    assert any("the images of pool others, which is not there," in text for text in warnings), warnings


def test_exclusive_spares_a_backing(images):
    disk = make_disk(images)
    overlay_in_another_pool(images, disk)
    refused(images.volume(volumes=[{"name": "other", "capacity": "1M"}], exclusive="*"), "volume_backing")
    assert os.listdir(images.images) == ["disk"]
    pool = {"name": "images", "type": "dir", "path": str(images.images), "state": "deleted", "allow": ["nonempty"]}
    refused(images.pool(**pool), "volume_backing")
    assert disk.exists()
