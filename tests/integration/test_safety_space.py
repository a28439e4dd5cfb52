# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filesystems that are full, and directories that can't be written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from .crash_support import (
    CHECK,
    MIB,
    done,
    image_info,
    leftovers,
    names,
    qemu_img,
    raw,
    refused,
    snapshot,
    unchanged,
    without_locks,
)

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root, pytest.mark.deadline(60)]

NOBODY = 65534


def mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True)


def unmount(path):
    subprocess.run(["umount", path], check=True)


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request, host):
    """The pool images is active on a filesystem of 8 MiB."""
    host.images.mkdir(parents=True)
    if request.param == "tmpfs":
        mount("-t", "tmpfs", "-o", "size=8m", "none", host.images)
    else:
        image = raw(host.root / "filesystem", 8 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image], check=True)
        mount("-o", "loop", image, host.images)
        (host.images / "lost+found").rmdir()
    try:
        host.start_images()
        yield host
    finally:
        unmount(host.images)


def noise(path, size):
    path.write_bytes(os.urandom(size))
    return path


def fill(path):
    """Takes all the space that there is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while True:
            os.write(descriptor, b"x" * 512)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)


# -- full ---------------------------------------------------------------------------------------------------------


@CHECK
def test_reserved_space_is_counted_beforehand(small, check):
    for declared in (
        {"capacity": "100M", "allocation": "100M"},
        {"capacity": "100M", "format": "qcow2", "options": {"preallocation": "falloc"}},
        {"capacity": "100M", "format": "qcow2", "options": {"preallocation": "full"}},
    ):
        refused(small.volume(check, name="a", **declared), "no_space")
    each = [{"name": name, "capacity": "3M", "allocation": "3M"} for name in "abc"]
    refused(small.volume(check, volumes=each), "no_space")
    assert os.listdir(small.images) == []


def test_sparse_volumes_may_be_larger(small):
    done(small.volume(name="a", capacity="1G"))
    done(small.volume(name="b", capacity="1G", format="qcow2"))
    unchanged(small.volume(name="a", capacity="1G"))


def test_import_that_does_not_fit(small):
    source = noise(small.root / "source", 10 * MIB)
    for image_format in ("raw", "qcow2"):
        declared = {"name": "a", "format": image_format, "source": {"path": str(source)}}
        result = small.volume(**declared)
        refused(result, "no_space")
        for told in (result, small.volume(True, **declared)):
            assert any("what does not fit will fail" in text for text in told["warnings"]), told["warnings"]
        assert os.listdir(small.images) == []
    source.write_bytes(os.urandom(MIB))
    done(small.volume(name="a", format="qcow2", source={"path": str(source)}))
    qemu_img("compare", "-f", "raw", "-F", "qcow2", source, small.images / "a")
    assert leftovers(small.root) == []


def test_reservation_that_does_not_fit_after_all(small, monkeypatch):
    """Somebody takes the space between the decision and the making."""
    from ansible_collections.virt.storage.plugins.module_utils.engines.native import NativeEngine

    lower, filler = NativeEngine.lower, small.images / "filler"

    def lower_and_fill(*arguments):
        steps = lower(*arguments)
        filler.write_bytes(b"x" * 5 * MIB)
        return steps

    monkeypatch.setattr(NativeEngine, "lower", lower_and_fill)
    for declared in (
        {"capacity": "4M", "allocation": "4M"},
        {"capacity": "4M", "format": "qcow2", "options": {"preallocation": "falloc"}},
        {"capacity": "4M", "format": "qcow2", "options": {"preallocation": "full"}},
        {"source": {"content": "x" * 4 * MIB}},
    ):
        refused(small.volume(name="a", **declared), "no_space")
        assert os.listdir(small.images) == ["filler"]
        filler.unlink()
    monkeypatch.undo()
    done(small.volume(name="a", capacity="4M", allocation="4M"))


def test_bulk_with_one_that_does_not_fit(small):
    """The others are done, each one's status is right, and the next run does the rest."""
    source = noise(small.root / "source", 10 * MIB)
    volumes = [
        {"name": "a", "capacity": "100M"},
        {"name": "big", "format": "raw", "source": {"path": str(source)}},
        {"name": "over", "format": "qcow2", "backing": {"volume": "big", "format": "raw"}},
        {"name": "b", "capacity": "100M"},
    ]
    result = small.volume(volumes=volumes)
    assert result["failed"], result
    assert result["changed"], result
    assert result["error"]["code"] == "no_space", result["error"]
    statuses = {entry["name"]: entry["status"] for entry in result["volumes"]}
    assert statuses == {"a": "changed", "big": "failed", "over": "skipped", "b": "changed"}
    assert "2 of 4" in result["msg"]
    assert sorted(os.listdir(small.images)) == ["a", "b"]
    assert "big" not in result["diff"]["after"]
    again = small.volume(volumes=volumes)
    statuses = {entry["name"]: entry["status"] for entry in again["volumes"]}
    assert statuses == {"a": "ok", "big": "failed", "over": "skipped", "b": "ok"}
    assert again["changed"] is False
    raw(source, MIB, b"content")
    done(small.volume(volumes=volumes))
    unchanged(small.volume(volumes=volumes))
    assert sorted(os.listdir(small.images)) == ["a", "b", "big", "over"]


@pytest.mark.thorough
def test_many_equal_images_of_which_not_all_fit(small):
    """Each is made of one template; some find no room."""
    options = {"preallocation": "metadata", "cluster_size": "4K"}
    volumes = [{"name": f"v{n}", "format": "qcow2", "capacity": "64M", "options": options} for n in range(40)]
    result = small.volume(volumes=volumes)
    statuses = {entry["name"]: entry["status"] for entry in result["volumes"]}
    here = set(os.listdir(small.images))
    if result.get("failed"):
        assert result["error"]["code"] == "no_space", result["error"]
        assert set(statuses.values()) <= {"changed", "failed"}
    assert here == {name for name, status in statuses.items() if status == "changed"}
    for name in here:
        qemu_img("check", "-q", "-f", "qcow2", small.images / name)


def test_recreation_that_does_not_fit_keeps_the_old_one(small):
    done(small.volume(name="a", source={"content": "precious"}, capacity="1M"))
    source = noise(small.root / "source", 10 * MIB)
    before = snapshot(small.images)
    result = small.volume(name="a", format="raw", source={"path": str(source)}, recreate="always")
    refused(result, "no_space")
    assert snapshot(small.images) == before


def test_growth_that_does_not_fit_keeps_the_old_one(small):
    """A qcow2 image whose tables must grow, on a filesystem without a free block."""
    done(small.volume(name="a", format="qcow2", capacity="1M", options={"cluster_size": "512"}))
    fill(small.images / "filler")
    result = small.volume(name="a", format="qcow2", capacity="8G")
    if result.get("failed"):
        refused(result, "no_space")
        assert image_info(small.images / "a")["virtual-size"] == MIB
    qemu_img("check", "-q", "-f", "qcow2", "-r", "leaks", small.images / "a")
    (small.images / "filler").unlink()
    small.volume(name="a", format="qcow2", capacity="8G")
    assert image_info(small.images / "a")["virtual-size"] == 8 * 2**30
    qemu_img("check", "-q", "-f", "qcow2", "-r", "leaks", small.images / "a")


def test_definitions_on_a_full_filesystem(small):
    """The root itself lies there: no half definition, no file beside it."""
    inner = type(small)(small.images / "root")
    inner.start_images()
    before = names(inner.root)
    definition = (inner.root / "etc/libvirt/storage/images.xml").read_bytes()
    fill(small.images / "filler")
    result = inner.pool(name="images", mode="0700")
    if result.get("failed"):
        assert result["error"]["code"] == "no_space", result["error"]
        assert (inner.root / "etc/libvirt/storage/images.xml").read_bytes() == definition
    result = inner.pool(name="second", type="dir", path=str(inner.root / "second"))
    if result.get("failed"):
        assert result["error"]["code"] == "no_space", result["error"]
    assert leftovers(inner.root) == []
    (small.images / "filler").unlink()
    inner.pool(name="images", mode="0700")
    unchanged(inner.pool(name="images", mode="0700"))
    inner.pool(name="second", type="dir", path=str(inner.root / "second"))
    unchanged(inner.pool(name="second", type="dir", path=str(inner.root / "second")))
    assert leftovers(inner.root) == []
    assert before <= names(inner.root)


def test_quota_of_open_files_is_no_full_disk(small):
    """A limit on the size of files (RLIMIT_FSIZE) is told from a full filesystem and leaves nothing behind."""
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        refused(small.volume(name="a", capacity="2M"), "capacity_too_large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(small.images) == []


# -- not writable -------------------------------------------------------------------------------------------------


def assert_same_refusal(real, planned, code="not_writable"):
    for result in (real, planned):
        refused(result, code)
        assert result["error"]["hint"]
    assert real["error"] == planned["error"]
    assert real["msg"] == planned["msg"]


@pytest.fixture
def read_only(images):
    """Two volumes are there; then the pool's directory is mounted read-only over itself."""
    done(images.volume(name="a", capacity="1M"))
    done(images.volume(name="q", capacity="1M", format="qcow2"))
    mount("--bind", images.images, images.images)
    try:
        mount("-o", "remount,bind,ro", images.images)
        yield images
    finally:
        unmount(images.images)


CHANGES = {
    "create": {"name": "new", "capacity": "1M"},
    "create qcow2": {"name": "new", "capacity": "1M", "format": "qcow2"},
    "content": {"name": "new", "source": {"content": "text"}},
    "delete": {"name": "a", "state": "absent"},
    "grow": {"name": "a", "capacity": "2M"},
    "grow qcow2": {"name": "q", "capacity": "2M"},
    "amend": {"name": "q", "options": {"lazy_refcounts": True}},
    "shrink": {"name": "a", "capacity": "512K", "allow": ["shrink"]},
    "recreate": {"name": "a", "capacity": "1M", "recreate": "always"},
    "mode": {"name": "a", "mode": "0644"},
    "owner": {"name": "a", "owner": 1},
    "bulk": {"volumes": [{"name": "new", "capacity": "1M"}, {"name": "a", "capacity": "2M"}]},
    "exclusive": {"volumes": [{"name": "a"}], "exclusive": "*"},
}
CHANGE = pytest.mark.parametrize("declared", CHANGES.values(), ids=CHANGES.keys())


@CHANGE
def test_read_only_mount(read_only, declared):
    before = without_locks(snapshot(read_only.root))
    planned = read_only.volume(True, **declared)
    assert_same_refusal(read_only.volume(**declared), planned)
    assert without_locks(snapshot(read_only.root)) == before


def test_nothing_to_do_on_a_read_only_mount(read_only):
    for check in (True, False):
        unchanged(read_only.volume(check, name="a", capacity="1M", mode="0600"))
        unchanged(read_only.volume(check, name="none", state="absent"))
        unchanged(read_only.pool(check, name="images", type="dir", path=str(read_only.images)))
    assert {volume["name"] for volume in read_only.volume_info()} == {"a", "q"}


@pytest.mark.parametrize(
    "declared", [{"mode": "0700"}, {"owner": 1}, {"state": "deleted", "allow": ["nonempty"]}], ids=str
)
def test_pool_on_a_read_only_mount(read_only, declared):
    before = without_locks(snapshot(read_only.root))
    pool = {"name": "images", "type": "dir", "path": str(read_only.images), **declared}
    planned = read_only.pool(True, **pool)
    assert_same_refusal(read_only.pool(**pool), planned)
    assert without_locks(snapshot(read_only.root)) == before


def test_root_on_a_read_only_mount(images):
    """Nothing at all can be written: neither definitions nor locks. What needs no change still is no error."""
    done(images.volume(name="a", capacity="1M"))
    before = without_locks(snapshot(images.root))
    mount("--bind", images.root, images.root)
    try:
        mount("-o", "remount,bind,ro", images.root)
        pools = (
            {"name": "new", "type": "dir", "path": str(images.root / "new")},
            {"name": "images", "state": "inactive"},
            {"name": "images", "state": "absent"},
            {"name": "images", "autostart": True},
            {"name": "images", "mode": "0700"},
        )
        for params in pools:
            planned = images.pool(True, **params)
            assert_same_refusal(images.pool(**params), planned)
        planned = images.volume(True, name="new", capacity="1M")
        assert_same_refusal(images.volume(name="new", capacity="1M"), planned)
        unchanged(images.volume(True, name="a", capacity="1M"))
        unchanged(images.volume(name="a", capacity="1M"))
        unchanged(images.pool(name="images", type="dir", path=str(images.images)))
        assert len(images.volume_info()) == 1
        assert without_locks(snapshot(images.root)) == before
    finally:
        unmount(images.root)


def test_one_directory_that_is_mounted_in_two_places_is_one_pool(images):
    """What lies below such a mount, too: no path tells that the other pool would lose its volumes."""
    done(images.volume(name="a", capacity="1M"))
    bound = images.root.parent / "bound"
    bound.mkdir()
    mount("--bind", images.root, bound)
    try:
        for check in (True, False):
            for state in ("present", "active"):
                declared = {"name": "other", "type": "dir", "path": str(bound / images.images.name), "state": state}
                assert "images" in refused(images.pool(check, **declared), "source_conflict")["message"]
        unchanged(images.pool(name="images", type="dir", path=str(bound / images.images.name)))
        done(images.pool(name="third", type="dir", path=str(bound / "third")))
    finally:
        unmount(bound)


def test_new_pool_directory_on_a_read_only_mount(host):
    """The definition could be written, the directory not: neither is done."""
    place = host.root / "place"
    place.mkdir(parents=True)
    mount("--bind", place, place)
    try:
        mount("-o", "remount,bind,ro", place)
        before = names(host.root)
        for path in (place / "pool", place / "deeper" / "pool"):
            planned = host.pool(True, name="p", type="dir", path=str(path))
            assert_same_refusal(host.pool(name="p", type="dir", path=str(path)), planned)
        assert names(host.root) == before
    finally:
        unmount(place)


# -- another user -------------------------------------------------------------------------------------------------


class Nobody:
    """A user without rights, with a root of its own."""

    def __init__(self, server, root):
        self.server, self.root, self.images = server, root, root / "images"

    def call(self, module, check=False, **params):
        uri = f"native:///?root={self.root}"
        status, result = self.server.run(module, {"uri": uri, **params}, check=check, uid=NOBODY)
        assert status in (0, 1), result
        texts = result.get("warnings", [])
        result["warnings"] = [text if isinstance(text, str) else text["event"]["msg"] for text in texts]
        return result

    def pool(self, check=False, **params):
        return self.call("storage_pool", check, **params)

    def volume(self, check=False, **params):
        return self.call("storage_volume", check, pool="images", **params)

    def start_images(self):
        done(self.pool(name="images", type="dir", path=str(self.images)))


@pytest.fixture
def nobody(server):
    """The folders of the tests are root's alone: this one is elsewhere."""
    top = Path(tempfile.mkdtemp(prefix="virt-storage-"))
    os.chown(top, NOBODY, NOBODY)
    try:
        yield Nobody(server, top / "host")
    finally:
        shutil.rmtree(top)


@pytest.mark.thorough
def test_a_user_without_rights(nobody):
    """All that needs no rights works without them."""
    nobody.start_images()
    done(nobody.volume(name="a", capacity="1M"))
    done(nobody.volume(name="q", capacity="1M", format="qcow2", mode="0640"))
    unchanged(nobody.volume(name="q", capacity="1M", format="qcow2", mode="0640"))
    done(nobody.volume(name="q", capacity="2M"))
    done(nobody.volume(name="q", recreate="always", capacity="1M"))
    done(nobody.volume(volumes=[{"name": name, "state": "absent"} for name in "aq"]))
    assert nobody.images.stat().st_uid == NOBODY
    assert leftovers(nobody.root) == []


@pytest.fixture
def sealed():
    """Gives a file an attribute (chattr) for the test."""
    given = []

    def seal(letter, path):
        given.append((letter, path))
        if subprocess.run(["chattr", f"+{letter}", path], capture_output=True, check=False).returncode:
            pytest.skip("the filesystem has no such attributes")

    yield seal
    for letter, path in given:
        subprocess.run(["chattr", f"-{letter}", path], capture_output=True, check=False)


@pytest.mark.root
@pytest.mark.parametrize("letter", ["i", "a"])
@pytest.mark.parametrize(
    "declared",
    [
        {"name": "a", "state": "absent"},
        {"name": "a", "capacity": "1M", "recreate": "always"},
        {"name": "a", "capacity": "2M"},
        {"name": "a", "mode": "0644"},
        {"exclusive": "a", "volumes": [{"name": "b"}]},
    ],
    ids=str,
)
def test_file_that_its_attributes_keep(images, sealed, declared, letter):
    done(images.volume(volumes=[{"name": name, "capacity": "1M"} for name in "ab"]))
    sealed(letter, images.images / "a")
    before = snapshot(images.root)
    planned, real = images.volume(True, **declared), images.volume(**declared)
    assert snapshot(images.root) == before
    assert_same_refusal(real, planned)
    assert f"chattr -{letter}" in real["error"]["hint"]
    unchanged(images.volume(name="a", capacity="1M"))


@pytest.mark.root
def test_pool_of_a_file_that_its_attributes_keep(images, sealed):
    done(images.volume(name="a", capacity="1M"))
    sealed("i", images.images / "a")
    declared = {"name": "images", "type": "dir", "path": str(images.images), "state": "deleted", "allow": ["nonempty"]}
    planned, real = images.pool(True, **declared), images.pool(**declared)
    assert_same_refusal(real, planned)
    assert (images.images / "a").exists()


@pytest.mark.root
@pytest.mark.parametrize("declared", [{"name": "a", "state": "absent"}, {"name": "b", "capacity": "1M"}], ids=str)
def test_directory_of_which_nothing_may_be_removed(images, sealed, declared):
    """What is prepared in it could not be taken away again."""
    done(images.volume(name="a", capacity="1M"))
    sealed("a", images.images)
    planned, real = images.volume(True, **declared), images.volume(**declared)
    assert_same_refusal(real, planned)
    assert os.listdir(images.images) == ["a"]


@CHANGE
def test_directory_without_the_right_to_write(nobody, declared):
    nobody.start_images()
    done(nobody.volume(name="a", capacity="1M"))
    done(nobody.volume(name="q", capacity="1M", format="qcow2"))
    os.chown(nobody.images, 0, 0)
    nobody.images.chmod(0o555)
    before = without_locks(snapshot(nobody.root))
    planned = nobody.volume(True, **declared)
    real = nobody.volume(**declared)
    assert without_locks(snapshot(nobody.root)) == before
    assert_same_refusal(real, planned, "not_permitted" if "owner" in declared else "not_writable")


@pytest.mark.parametrize(
    "declared",
    [{"name": "a", "capacity": "2M"}, {"name": "q", "capacity": "2M"}, {"name": "a", "mode": "0644"}],
    ids=str,
)
def test_file_of_somebody_else(nobody, declared):
    """The directory is ours, the file is root's."""
    nobody.start_images()
    done(nobody.volume(name="a", capacity="1M"))
    done(nobody.volume(name="q", capacity="1M", format="qcow2"))
    for name in "aq":
        os.chown(nobody.images / name, 0, 0)
        (nobody.images / name).chmod(0o604)
    before = without_locks(snapshot(nobody.root))
    planned = nobody.volume(True, **declared)
    real = nobody.volume(**declared)
    assert without_locks(snapshot(nobody.root)) == before
    assert_same_refusal(real, planned, "not_permitted" if "mode" in declared else "not_writable")


def test_giving_a_volume_away(nobody):
    """chown needs rights; the refusal comes before anything is made."""
    nobody.start_images()
    done(nobody.volume(name="a", capacity="1M"))
    before = without_locks(snapshot(nobody.root))
    for declared in (
        {"name": "a", "owner": "root"},
        {"name": "new", "capacity": "1M", "owner": "root"},
        {"name": "a", "group": 0},
    ):
        planned = nobody.volume(True, **declared)
        real = nobody.volume(**declared)
        assert_same_refusal(real, planned, "not_permitted")
    assert without_locks(snapshot(nobody.root)) == before


def test_root_without_the_right_to_write(nobody):
    """Neither definitions nor locks can be written."""
    nobody.start_images()
    done(nobody.volume(name="a", capacity="1M"))
    for directory, folders, files in os.walk(nobody.root):
        for name in (*folders, *files):
            os.chown(os.path.join(directory, name), 0, 0)
            os.chmod(os.path.join(directory, name), 0o555 if name in folders else 0o444)
    os.chown(nobody.root, 0, 0)
    nobody.root.chmod(0o555)
    before = snapshot(nobody.root)
    for params in (
        {"name": "new", "type": "dir", "path": str(nobody.root / "new")},
        {"name": "images", "state": "absent"},
        {"name": "images", "autostart": True},
    ):
        planned = nobody.pool(True, **params)
        assert_same_refusal(nobody.pool(**params), planned)
    planned = nobody.volume(True, name="new", capacity="1M")
    assert_same_refusal(nobody.volume(name="new", capacity="1M"), planned)
    unchanged(nobody.volume(True, name="a", capacity="1M"))
    unchanged(nobody.volume(name="a", capacity="1M"))
    assert snapshot(nobody.root) == before


def test_directory_without_the_right_to_read(nobody):
    """Unknown is not absent: a directory that can't be read holds nothing that could be made anew."""
    nobody.start_images()
    done(nobody.volume(name="a", capacity="1M"))
    os.chown(nobody.images, 0, 0)
    nobody.images.chmod(0o700)
    before = without_locks(snapshot(nobody.root))
    for check in (True, False):
        for declared in ({"name": "a", "capacity": "1M"}, {"name": "a", "state": "absent"}):
            result = nobody.volume(check, **declared)
            assert result.get("failed"), result
            assert result["error"]["code"] in ("storage_unreadable", "not_readable", "not_writable"), result["error"]
        pool = {"name": "images", "type": "dir", "path": str(nobody.images)}
        assert nobody.pool(check, state="deleted", allow=["nonempty"], **pool).get("failed")
    assert without_locks(snapshot(nobody.root)) == before
