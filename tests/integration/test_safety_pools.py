# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Deleting pools, and definitions that stand in each other's way."""

from __future__ import annotations

import os
import subprocess

import pytest

from .crash_support import CHECK, done, leftovers, names, raw, refused, snapshot, unchanged, without_locks

pytestmark = [pytest.mark.needs_ansible, pytest.mark.deadline(30)]

UUID = "11111111-2222-3333-4444-555555555555"


def deleted(host, check=False, **more):
    params = {"name": "images", "type": "dir", "path": str(host.images), "state": "deleted", **more}
    return host.pool(check, **params)


@pytest.fixture
def untouched(images):
    """The host must be as it was, whatever was asked of it."""
    before = without_locks(snapshot(images.root))
    yield images
    assert without_locks(snapshot(images.root)) == before


# -- deleting -----------------------------------------------------------------------------------------------------


def test_empty_pool(images):
    planned = deleted(images, check=True)
    result = done(deleted(images))
    assert planned["plan"] == result["plan"]
    assert not images.images.exists()
    unchanged(deleted(images))
    assert images.pool_info() == []
    assert leftovers(images.root) == []


@CHECK
@pytest.mark.parametrize("path", ["/proc/virt/images", "/sys/virt"])
def test_nothing_is_built_in_the_kernels_own_filesystems(host, path, check):
    error = refused(host.pool(check, name="p", type="dir", path=path), "storage_foreign")
    assert "kernel's own" in error["message"]


def test_adopted_directory_stays(host):
    host.images.mkdir(parents=True)
    host.start_images()
    result = done(deleted(host))
    assert all(not entry["destroys"] for entry in result["plan"]), result["plan"]
    assert host.images.is_dir()
    unchanged(deleted(host))
    assert host.images.is_dir()


def test_adopted_directory_with_volumes(host):
    host.images.mkdir(parents=True)
    raw(host.images / "old")
    host.start_images()
    refused(deleted(host), "pool_nonempty")
    done(deleted(host, allow=["nonempty"]))
    assert host.images.is_dir()
    assert os.listdir(host.images) == []


def test_directory_made_anew_by_somebody_else(images):
    """Ours was removed, and somebody made another one at its place: that one was not made by us."""
    images.images.rename(images.root / "kept")  # so that its inode is not given to the new one
    images.images.mkdir()
    done(deleted(images))
    assert images.images.is_dir()


def test_directory_that_we_made_and_stopped(images):
    """Stopping, undefining and defining again forgets nothing and adopts nothing wrongly."""
    done(images.pool(name="images", state="absent"))
    assert images.images.is_dir()
    images.start_images()
    done(deleted(images))
    assert not images.images.exists()


@CHECK
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_nonempty(images, image_format, check):
    done(images.volume(name="a", capacity="1M", format=image_format))
    before = without_locks(snapshot(images.root))
    error = refused(deleted(images, check), "pool_nonempty")
    assert "a" in error["message"]
    assert "nonempty" in error["hint"]
    assert without_locks(snapshot(images.root)) == before


def test_nonempty_and_allowed(images):
    done(images.volume(volumes=[{"name": name, "capacity": "1M"} for name in "abc"]))
    planned = deleted(images, check=True, allow=["nonempty"])
    result = done(deleted(images, allow=["nonempty"]))
    assert planned["plan"] == result["plan"]
    assert "content of" in str(result["plan"])
    assert not images.images.exists()
    assert images.pool_info() == []


@CHECK
@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "dangling link", "link to a directory"])
def test_foreign_content(images, kind, check):
    strange = images.images / "strange"
    if kind == "directory":
        strange.mkdir()
    elif kind == "fifo":
        os.mkfifo(strange)
    elif kind == "socket":
        os.mknod(strange, 0o140600)
    elif kind == "dangling link":
        strange.symlink_to("nowhere")
    else:
        strange.symlink_to(images.root)
    done(images.volume(name="a", capacity="1M"))
    before = without_locks(snapshot(images.root))
    error = refused(deleted(images, check, allow=["nonempty", "in_use"]), "pool_foreign_content")
    assert "strange" in error["message"]
    assert without_locks(snapshot(images.root)) == before


def test_a_link_among_the_volumes(images):
    """The target of a link is not the pool's, and stays."""
    target = raw(images.root / "target", data=b"precious")
    (images.images / "link").symlink_to(target)
    result = deleted(images, allow=["nonempty"])
    if result.get("failed"):
        refused(result, "pool_foreign_content")
    assert target.read_bytes().startswith(b"precious")


@CHECK
def test_an_inactive_pool(images, check):
    """Its directory is looked at as well: not active is not empty."""
    done(images.volume(name="a", capacity="1M"))
    done(images.pool(name="images", state="inactive"))
    before = without_locks(snapshot(images.root))
    refused(deleted(images, check), "pool_nonempty")
    assert without_locks(snapshot(images.root)) == before


@CHECK
def test_undefined_pool_with_content(images, check):
    done(images.volume(name="a", capacity="1M"))
    done(images.pool(name="images", state="absent"))
    before = without_locks(snapshot(images.root))
    refused(deleted(images, check, allow=["nonempty", "in_use"]), "pool_undefined")
    assert without_locks(snapshot(images.root)) == before


@CHECK
def test_wrong_path(untouched, check):
    """A slip in the path deletes nothing, neither there nor here."""
    refused(deleted(untouched, check, path=str(untouched.root / "other")), "identity_change")
    refused(deleted(untouched, check, path=str(untouched.root)), "identity_change")


@CHECK
def test_wrong_type_and_uuid(untouched, check):
    refused(deleted(untouched, check, type="fs", source={"device": "/dev/null"}), "identity_change")
    refused(deleted(untouched, check, uuid=UUID), "uuid_conflict")


@CHECK
def test_name_alone(untouched, check):
    refused(untouched.pool(check, name="images", state="deleted"), "missing_option")
    refused(untouched.pool(check, name="images", type="dir", state="deleted"), "missing_option")


def test_directory_of_another_pool(images):
    """Another pool's directory is not deleted under this name."""
    other = images.root / "other"
    done(images.pool(name="other", type="dir", path=str(other)))
    done(images.volume(pool="other", name="a", capacity="1M"))
    before = without_locks(snapshot(images.root))
    unchanged(images.pool(name="third", type="dir", path=str(other), state="deleted", allow=["nonempty", "in_use"]))
    assert without_locks(snapshot(images.root)) == before
    done(images.volume(pool="other", name="a", state="absent"))
    unchanged(images.pool(name="third", type="dir", path=str(other), state="deleted"))
    assert other.is_dir()


def test_pool_inside_a_pool(images):
    """The outer pool's directory holds the inner one's: foreign content."""
    inner = images.images / "inner"
    done(images.pool(name="inner", type="dir", path=str(inner)))
    refused(deleted(images, allow=["nonempty"]), "pool_foreign_content")
    done(images.pool(name="inner", type="dir", path=str(inner), state="deleted"))
    done(deleted(images))


@pytest.fixture
def mounted(host):
    host.images.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", host.images], check=True)
    try:
        yield host
    finally:
        subprocess.run(["umount", host.images], check=True)


@pytest.mark.root
def test_mount_point_stays(mounted):
    mounted.start_images()
    done(mounted.volume(name="a", capacity="64K"))
    done(deleted(mounted, allow=["nonempty"]))
    assert os.path.ismount(mounted.images)
    assert os.listdir(mounted.images) == []


@pytest.mark.root
def test_mount_point_over_a_directory_that_we_made(images):
    """We made the directory, somebody mounted over it: neither the mount nor the directory is ours to remove."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", images.images], check=True)
    try:
        done(deleted(images))
        assert os.path.ismount(images.images)
    finally:
        subprocess.run(["umount", images.images], check=True)


@pytest.mark.root
def test_mount_inside_the_directory(images):
    inner = images.images / "inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", inner], check=True)
    try:
        (inner / "precious").write_text("data")
        refused(deleted(images, allow=["nonempty", "in_use"]), "pool_foreign_content")
        assert (inner / "precious").read_text() == "data"
    finally:
        subprocess.run(["umount", inner], check=True)


# -- conflicts ----------------------------------------------------------------------------------------------------


@CHECK
def test_same_uuid(images, check):
    done(images.pool(name="other", type="dir", path=str(images.root / "other"), uuid=UUID))
    before = without_locks(snapshot(images.root))
    error = refused(
        images.pool(check, name="third", type="dir", path=str(images.root / "t"), uuid=UUID), "uuid_conflict"
    )
    assert "other" in error["message"]
    error = refused(images.pool(check, name="images", uuid=UUID), "uuid_conflict")
    xml = f"<pool type='dir'><name>third</name><uuid>{UUID}</uuid><target><path>/srv/x</path></target></pool>"
    refused(images.pool(check, xml=xml), "uuid_conflict")
    assert without_locks(snapshot(images.root)) == before
    unchanged(images.pool(name="other", type="dir", uuid=UUID.upper()))


@CHECK
@pytest.mark.parametrize("way", ["same", "slashes", "link", "link above", "inactive", "transient", "moved"])
def test_same_directory(images, way, check):
    path = str(images.images)
    if way == "slashes":
        path = path.replace("/images", "//images/")
    elif way == "link":
        (images.root / "link").symlink_to(images.images)
        path = str(images.root / "link")
    elif way == "link above":
        (images.root.parent / "above").symlink_to(images.root)
        path = str(images.root.parent / "above" / "images")
    elif way == "inactive":
        done(images.pool(name="images", state="inactive"))
    elif way == "transient":
        (images.root / "etc/libvirt/storage/images.xml").unlink()
    elif way == "moved":  # it runs there until it is stopped
        definition = images.root / "etc/libvirt/storage/images.xml"
        definition.write_text(definition.read_text().replace(path, f"{path}-later"))
    before = without_locks(snapshot(images.root))
    for state in ("present", "active", "inactive"):
        error = refused(images.pool(check, name="second", type="dir", path=path, state=state), "source_conflict")
        assert "images" in error["message"], error
        assert "name: images" in error["hint"], error
    done(images.pool(True, name="other", type="dir", path=str(images.root / "other")))
    assert without_locks(snapshot(images.root)) == before


@CHECK
def test_moving_to_the_directory_of_another_pool(images, check):
    done(images.pool(name="other", type="dir", path=str(images.root / "other")))
    before = without_locks(snapshot(images.root))
    refused(images.pool(check, name="other", path=str(images.images), allow=["restart"]), "source_conflict")
    refused(images.pool(check, name="other", path=str(images.root / "third")), "restart_needed")
    assert without_locks(snapshot(images.root)) == before


@CHECK
def test_the_place_of_a_directory_that_is_not_there_yet(images, check):
    """Two definitions of one directory before it exists; also when it would come to be through a link."""
    (images.root / "real").mkdir()
    (images.root / "link").symlink_to("real")
    done(images.pool(name="first", type="dir", path=str(images.root / "real" / "pool"), state="present"))
    path = str(images.root / "link" / "pool")
    refused(images.pool(check, name="second", type="dir", path=path), "source_conflict")


def test_a_pool_with_its_link_is_the_same_pool(images):
    """The same directory through a link is no change of the path."""
    (images.root / "link").symlink_to(images.images)
    unchanged(images.pool(name="images", type="dir", path=str(images.root / "link")))


def test_another_type(untouched):
    source = {"host": "server", "dir": "/export"}
    for check in (True, False):
        refused(untouched.pool(check, name="images", type="netfs", source=source, path="/mnt"), "identity_change")


def test_no_traces_of_a_refused_definition(images):
    before = names(images.root)
    for check in (True, False):
        refused(images.pool(check, name="second", type="dir", path=str(images.images)), "source_conflict")
        refused(images.pool(check, name="third", type="zfs", source={"name": "tank"}), "backend_missing")
        refused(images.pool(check, name="fourth", type="dir"), "missing_option")
    assert names(images.root) == before
