# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What somebody else does between the look and the change: it is noticed, and what is theirs stays."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest

from .crash_support import MIB, done, image_info, leftovers, qcow2, qemu_img, raw, unchanged

pytestmark = [pytest.mark.needs_ansible, pytest.mark.deadline(60)]

_UTILS = "ansible_collections.virt.storage.plugins.module_utils"


@pytest.fixture
def after_decision(monkeypatch):
    """Lets somebody act once all is decided and before anything is done."""

    def arrange(act):
        from ansible_collections.virt.storage.plugins.module_utils.engines.native import NativeEngine

        lower = NativeEngine.lower
        acted = []

        def lower_and_act(self, changes, found):
            steps = lower(self, changes, found)
            if not acted:
                acted.append(act())
            return steps

        monkeypatch.setattr(NativeEngine, "lower", lower_and_act)

    return arrange


@pytest.fixture
def at_publication(monkeypatch):
    """Lets somebody act right before the system call that gives or takes a name. Says how often that was."""
    calls = []

    def arrange(path, *acts):
        def before(*paths):
            if str(path) in map(str, paths) and len(calls) < len(acts):
                act = acts[len(calls)]
                calls.append(paths)
                act()

        def wrapped(function):
            def call(source, target, *more, **options):
                before(source, target)
                return function(source, target, *more, **options)

            return call

        from ansible_collections.virt.storage.plugins.module_utils.host import renames

        for module, name in ((os, "link"), (os, "rename"), (os, "replace"), (renames, "_renameat2")):
            monkeypatch.setattr(module, name, wrapped(getattr(module, name)))
        return calls

    return arrange


def meanwhile(result):
    """The task failed, since the host changed under it."""
    assert result.get("failed"), result
    assert result["error"]["code"] == "changed_meanwhile", result["error"]
    assert result["error"]["hint"], result["error"]
    return result


def theirs(path):
    """Somebody's file, put in the place of whatever is there. Not through the module's eyes, nor by its calls."""
    staged = path.with_name("theirs")
    staged.write_bytes(b"theirs")
    subprocess.run(["mv", "-f", "-T", staged, path], check=True)


def assert_theirs(path):
    assert path.read_bytes() == b"theirs"
    assert path.stat().st_nlink == 1


CREATING = {
    "raw": {"capacity": "1M"},
    "allocated": {"capacity": "1M", "allocation": "1M"},
    "qcow2": {"capacity": "1M", "format": "qcow2"},
    "content": {"source": {"content": "ours"}},
    "clone": {"source": {"volume": "base"}},
    "overlay": {"format": "qcow2", "backing": {"volume": "base", "format": "qcow2"}},
}
CREATE = pytest.mark.parametrize("declared", CREATING.values(), ids=CREATING.keys())
MOMENTS = pytest.mark.parametrize("moment", ["after_decision", "at_publication"])


def arrange(request, moment, path, act):
    fixture = request.getfixturevalue(moment)
    return fixture(act) if moment == "after_decision" else fixture(path, act)


@CREATE
@MOMENTS
def test_create(images, request, moment, declared):
    done(images.volume(name="base", format="qcow2", capacity="1M"))
    path = images.images / "a"
    arrange(request, moment, path, lambda: theirs(path))
    result = meanwhile(images.volume(name="a", **declared))
    assert result["changed"] is False
    assert_theirs(path)
    assert sorted(os.listdir(images.images)) == ["a", "base"]


@MOMENTS
@pytest.mark.parametrize("kind", ["directory", "dangling link", "link", "fifo"])
def test_create_where_something_else_appears(images, request, moment, kind):
    path, outside = images.images / "a", images.root / "outside"
    outside.write_bytes(b"theirs")

    def act():
        if kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(outside if kind == "link" else images.root / "nowhere")

    arrange(request, moment, path, act)
    meanwhile(images.volume(name="a", capacity="1M"))
    assert os.listdir(images.images) == ["a"]
    assert outside.read_bytes() == b"theirs"
    assert not (images.root / "nowhere").exists()
    assert (path.is_dir(), path.is_symlink(), path.is_fifo()) == (
        kind == "directory", "link" in kind, kind == "fifo",
    )  # fmt: skip


@pytest.mark.parametrize("missing", ["link", "link and renameat2"])
def test_create_on_a_filesystem_without_links(images, monkeypatch, missing):
    """vfat has no hard links; some network filesystems have no RENAME_NOREPLACE either."""
    from ansible_collections.virt.storage.plugins.module_utils.host import renames

    def no_link(source, target, **_unused):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    def no_rename(source, target, flags):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), source, None, target)

    monkeypatch.setattr(os, "link", no_link)
    if missing != "link":
        monkeypatch.setattr(renames, "_renameat2", no_rename)
    path = images.images / "a"
    done(images.volume(name="a", format="qcow2", capacity="1M"))
    qemu_img("check", "-q", "-f", "qcow2", path)
    unchanged(images.volume(name="a", format="qcow2", capacity="1M"))
    done(images.volume(volumes=[{"name": f"v{n}", "format": "qcow2", "capacity": "1M"} for n in range(4)]))
    result = images.volume(name="a", format="qcow2", capacity="1M", recreate="always")
    if result.get("failed"):
        assert result["error"]["code"] not in ("changed_meanwhile", "operation_failed"), result["error"]
        assert result["error"]["hint"]
    qemu_img("check", "-q", "-f", "qcow2", path)
    done(images.volume(name="a", state="absent"))
    assert leftovers(images.root) == []


@pytest.mark.parametrize("missing", ["link", "link and renameat2"])
def test_no_links_and_a_file_appears(images, after_decision, monkeypatch, missing):
    from ansible_collections.virt.storage.plugins.module_utils.host import renames

    def refuse(number):
        def call(source, target, *_unused, **__):
            raise OSError(number, os.strerror(number), source, None, target)

        return call

    monkeypatch.setattr(os, "link", refuse(errno.EOPNOTSUPP))
    if missing != "link":
        monkeypatch.setattr(renames, "_renameat2", refuse(errno.EINVAL))
    after_decision(lambda: theirs(images.images / "a"))
    meanwhile(images.volume(name="a", capacity="1M"))
    assert_theirs(images.images / "a")
    assert os.listdir(images.images) == ["a"]


@MOMENTS
def test_bulk_with_one_that_appears(images, request, moment):
    """The others are done; the statuses say which is which."""
    path = images.images / "v2"
    arrange(request, moment, path, lambda: theirs(path))
    volumes = [{"name": f"v{n}", "format": "qcow2", "capacity": "1M"} for n in range(5)]
    over = {"name": "over", "format": "qcow2", "backing": {"volume": "v2", "format": "qcow2"}}
    result = meanwhile(images.volume(volumes=[*volumes, over]))
    assert result["changed"] is True
    statuses = {entry["name"]: entry["status"] for entry in result["volumes"]}
    assert statuses == {
        "v0": "changed",
        "v1": "changed",
        "v2": "failed",
        "v3": "changed",
        "v4": "changed",
        "over": "skipped",
    }
    assert_theirs(path)
    assert sorted(os.listdir(images.images)) == [f"v{n}" for n in range(5)]


CHANGING = {
    "delete": {"state": "absent"},
    "grow": {"capacity": "4M"},
    "shrink": {"capacity": "1M", "allow": ["shrink"]},
    "recreate": {"capacity": "2M", "recreate": "always"},
    "mode": {"mode": "0644"},
}
QCOW2_CHANGING = {
    "amend": {"options": {"lazy_refcounts": True}},
    "rebase": {"backing": {"volume": "base", "format": "qcow2"}, "allow": ["backing"]},
}
EVERY_CHANGE = [
    *(pytest.param("raw", declared, id=f"{name} raw") for name, declared in CHANGING.items()),
    *(pytest.param("qcow2", declared, id=name) for name, declared in {**CHANGING, **QCOW2_CHANGING}.items()),
]


@pytest.mark.parametrize(("image_format", "declared"), EVERY_CHANGE)
def test_replaced_after_the_decision(images, after_decision, image_format, declared):
    """Another file stands under the name: it is not deleted, written, truncated or given another mode."""
    done(images.volume(name="base", format="qcow2", capacity="1M"))
    done(images.volume(name="a", format=image_format, capacity="2M"))
    path = images.images / "a"
    after_decision(lambda: theirs(path))
    result = meanwhile(images.volume(name="a", format=image_format, **declared))
    assert result["changed"] is False
    assert_theirs(path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    assert sorted(os.listdir(images.images)) == ["a", "base"]


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(("image_format", "declared"), EVERY_CHANGE)
def test_replaced_by_a_link_after_the_decision(images, after_decision, image_format, declared):
    """A link to a file outside of the pool: that file is not touched."""
    done(images.volume(name="base", format="qcow2", capacity="1M"))
    done(images.volume(name="a", format=image_format, capacity="2M"))
    path, outside = images.images / "a", images.root / "outside"
    if image_format == "raw":
        raw(outside, 2 * MIB, b"theirs")
    else:
        qcow2(outside, 2 * MIB)
    before = outside.read_bytes(), outside.stat().st_mode

    def act():
        path.unlink()
        path.symlink_to(outside)

    after_decision(act)
    meanwhile(images.volume(name="a", format=image_format, **declared))
    assert (outside.read_bytes(), outside.stat().st_mode) == before
    assert path.is_symlink()


@pytest.mark.parametrize(("image_format", "declared"), EVERY_CHANGE)
def test_gone_after_the_decision(images, after_decision, image_format, declared):
    done(images.volume(name="base", format="qcow2", capacity="1M"))
    done(images.volume(name="a", format=image_format, capacity="2M"))
    after_decision((images.images / "a").unlink)
    result = images.volume(name="a", format=image_format, **declared)
    if declared != CHANGING["delete"] or result.get("failed"):
        meanwhile(result)
    assert sorted(os.listdir(images.images)) == ["base"]


@pytest.mark.parametrize("declared", [CHANGING["delete"], CHANGING["recreate"]], ids=["delete", "recreate"])
def test_replaced_at_the_last_moment(images, at_publication, declared):
    """Even between the last look and the system call: what came out is looked at, and put back."""
    done(images.volume(name="a", capacity="2M"))
    path = images.images / "a"
    calls = at_publication(path, lambda: theirs(path))
    meanwhile(images.volume(name="a", **declared))
    assert len(calls) == 1
    assert_theirs(path)
    assert os.listdir(images.images) == ["a"]


@pytest.mark.parametrize("declared", [CHANGING["delete"], CHANGING["recreate"]], ids=["delete", "recreate"])
def test_replaced_twice(images, at_publication, declared):
    """Taken out, it is not ours; and before it is put back, a third file has its name. None of the two is lost."""
    done(images.volume(name="a", capacity="2M"))
    path = images.images / "a"

    def third():
        path.with_name("third").write_bytes(b"third")
        subprocess.run(["mv", "-f", "-T", path.with_name("third"), path], check=True)

    calls = at_publication(path, lambda: theirs(path), third)
    assert images.volume(name="a", **declared).get("failed")
    assert len(calls) == 2
    images.volume(name="other", capacity="1M")  # which cleans up
    found = [file.read_bytes() for file in images.root.rglob("*") if file.is_file() and file.stat().st_size < 100]
    assert b"third" in found
    if declared == CHANGING["delete"]:
        # The exchange puts the third one out of its place, and back with the other one: that one it can't keep.
        assert b"theirs" in found


@pytest.mark.parametrize(
    "declared",
    [CHANGING["delete"], CHANGING["shrink"], CHANGING["recreate"]],
    ids=["delete", "shrink", "recreate"],
)
def test_taken_into_use_after_the_decision(images, after_decision, declared):
    done(images.volume(name="a", capacity="2M"))
    path = images.images / "a"
    children = []

    def act():
        text = f"import sys; f = open({str(path)!r}, 'rb'); print('ready', flush=True); sys.stdin.read()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        children.append(subprocess.Popen([sys.executable, "-c", text], **pipes))
        assert children[0].stdout.readline()

    after_decision(act)
    inode = path.stat().st_ino
    try:
        meanwhile(images.volume(name="a", **declared))
    finally:
        children[0].stdin.close()
        children[0].wait()
        children[0].stdout.close()
    assert (path.stat().st_ino, path.stat().st_size) == (inode, 2 * MIB)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_taken_into_use_while_the_new_one_is_prepared(images, monkeypatch, image_format):
    """That may take minutes; what counts is who uses the volume when it would be exchanged."""
    from ansible_collections.virt.storage.plugins.module_utils.engines.native import NativeEngine

    done(images.volume(name="a", capacity="2M"))
    path = images.images / "a"
    inode, children, execute = path.stat().st_ino, [], NativeEngine.execute

    def execute_and_open(self, operation):
        execute(self, operation)
        if type(operation).__name__ in ("MakeRaw", "Run"):
            text = f"import sys; f = open({str(path)!r}, 'rb'); print('ready', flush=True); sys.stdin.read()"
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            children.append(subprocess.Popen([sys.executable, "-c", text], **pipes))
            assert children[-1].stdout.readline()

    monkeypatch.setattr(NativeEngine, "execute", execute_and_open)
    try:
        meanwhile(images.volume(name="a", format=image_format, capacity="1M", recreate="always"))
    finally:
        for child in children:
            child.communicate()
    assert len(children) == 1
    assert (path.stat().st_ino, path.stat().st_size) == (inode, 2 * MIB)
    assert leftovers(images.root) == []


# -- sources and backings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["backing", "source"])
def test_what_it_is_made_from_is_replaced(images, after_decision, reference):
    """The image that was looked at has become one that leads to a secret file: its content must not come in."""
    secret = raw(images.root / "secret", data=b"TOP SECRET" * 100)
    base = qcow2(images.root / "base")

    def act():
        bad = images.root / "bad"
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", secret, "-F", "raw", bad, "1M")
        os.replace(bad, base)

    after_decision(act)
    images.volume(name="a", format="qcow2", **{reference: {"path": str(base), "format": "qcow2"}})
    path = images.images / "a"
    if path.exists() and reference == "source":
        qemu_img("convert", "-f", "qcow2", "-O", "raw", path, images.root / "read")
        assert b"TOP SECRET" not in (images.root / "read").read_bytes()
    assert leftovers(images.root) == []


def test_source_goes_away(images, after_decision):
    base = qcow2(images.root / "base")
    after_decision(base.unlink)
    result = images.volume(name="a", source={"path": str(base)})
    assert result.get("failed"), result
    assert result["error"]["code"] in ("command_failed", "changed_meanwhile", "source_missing"), result["error"]
    assert os.listdir(images.images) == []


# -- pools --------------------------------------------------------------------------------------------------------


def test_file_appears_while_a_pool_is_deleted(images, after_decision):
    done(images.volume(name="a", capacity="1M"))
    after_decision(lambda: theirs(images.images / "b"))
    pool = {"name": "images", "type": "dir", "path": str(images.images), "state": "deleted", "allow": ["nonempty"]}
    meanwhile(images.pool(**pool))
    assert_theirs(images.images / "b")


def test_volume_replaced_while_a_pool_is_deleted(images, after_decision):
    done(images.volume(name="a", capacity="1M"))
    after_decision(lambda: theirs(images.images / "a"))
    pool = {"name": "images", "type": "dir", "path": str(images.images), "state": "deleted", "allow": ["nonempty"]}
    meanwhile(images.pool(**pool))
    assert_theirs(images.images / "a")


def test_directory_appears_while_a_pool_is_built(host, after_decision):
    """Somebody else made it: it is adopted as it is, and never deleted as ours."""

    def act():
        host.images.mkdir(parents=True, mode=0o750)

    after_decision(act)
    result = host.pool(name="images", type="dir", path=str(host.images))
    if result.get("failed"):
        meanwhile(result)
    assert host.images.stat().st_mode & 0o777 == 0o750 & ~umask()
    host.pool(name="images", type="dir", path=str(host.images), state="deleted")
    assert host.images.is_dir()


def test_file_appears_where_a_pool_is_built(host, after_decision):
    host.root.mkdir()
    after_decision(lambda: theirs(host.images))
    result = host.pool(name="images", type="dir", path=str(host.images))
    assert result.get("failed"), result
    assert result["error"]["code"] in ("changed_meanwhile", "storage_foreign", "operation_failed"), result["error"]
    assert result["error"]["hint"], result["error"]
    assert_theirs(host.images)
    assert leftovers(host.root) == []


def test_the_result_tells_what_is_there(images, after_decision):
    """After a failure the records are what is there, not what was planned."""
    path = images.images / "a"

    def act():
        qcow2(path, 5 * MIB)

    after_decision(act)
    result = meanwhile(images.volume(name="a", format="qcow2", capacity="1M"))
    (entry,) = result["volumes"]
    assert entry["status"] == "failed"
    assert entry["capacity"] == image_info(path)["virtual-size"] == 5 * MIB
    assert result["diff"] == {"before": "", "after": ""} or "a" not in result["diff"]["after"]


# -- descriptors --------------------------------------------------------------------------------------------------


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_are_closed(images):
    """What keeps a file from being replaced unseen is let go with the task, after a refusal too."""
    before = descriptors()
    for _unused in range(3):
        done(images.volume(volumes=[{"name": f"v{n}", "capacity": "1M"} for n in range(5)]))
        done(images.volume(volumes=[{"name": f"v{n}", "capacity": "2M"} for n in range(5)]))
        assert images.volume(name="v0", capacity="1M").get("failed")
        assert images.volume(True, name="v0", state="absent")["changed"]
        done(images.volume(volumes=[{"name": f"v{n}", "state": "absent"} for n in range(5)]))
    assert descriptors() <= before


@pytest.mark.thorough
def test_more_volumes_than_descriptors(images):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(300):
        raw(images.images / f"v{number}", 512)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 100, hard))
    try:
        done(images.volume(volumes=[{"name": f"v{n}", "capacity": "1K"} for n in range(300)]))
        done(images.volume(volumes=[{"name": f"v{n}", "capacity": "1K", "recreate": "always"} for n in range(300)]))
        done(images.volume(volumes=[{"name": f"v{n}", "state": "absent"} for n in range(300)]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.listdir(images.images) == []
