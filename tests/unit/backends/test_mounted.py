# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools that are mounted: what the mount table alone says of them, and what is done to bring them up."""

from __future__ import annotations

import os

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import mounted
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import Mount
from ansible_collections.virt.storage.plugins.module_utils.host.notes import Notes
from ansible_collections.virt.storage.plugins.module_utils.host.paths import resolved
from ansible_collections.virt.storage.plugins.module_utils.model.change import BRING_UP, TAKE_DOWN, Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    FOREIGN,
    READY,
    UNKNOWN_STORAGE,
    Part,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import LOST_AND_FOUND


def mount(point, source="/dev/sdx", identity=7, parent=1, options=("rw",)):
    return Mount("/", str(point), "ext4", source, options, ("rw",), (8, 16), identity, parent)


ROOT = Mount("/", "/", "ext4", "/dev/root", ("rw",), ("rw",), (8, 1), 1, 0)


@pytest.fixture
def look(tmp_path):
    made = Look(5.0, str(tmp_path / "records"), str(tmp_path / "starts"))
    made.once("mounts", lambda: [ROOT])
    return made


def with_mounts(look, *mounts):
    look._seen["mounts"] = ([ROOT, *mounts], None)
    return look


def is_ours(candidate):
    return candidate.source == "/dev/sdx"


def observed(path, look, holds=False, **more):
    pool = Pool("p", "fs", path=str(path))
    place = mounted.place_of(pool, look, is_ours)
    return mounted.observe(pool, place, look, holds, "/dev/sdx", **more)


# -- paths --------------------------------------------------------------------------------------------------------


def test_a_mount_point_is_never_followed(tmp_path, monkeypatch):
    point = tmp_path / "far"
    point.mkdir()
    asked = []
    read = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: asked.append(path) or read(path))
    assert resolved(str(point), [mount(point)]) == str(point)
    assert str(point) not in asked


def test_links_lead_on_as_they_do_for_the_kernel(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "far").symlink_to(tmp_path / "link")
    (tmp_path / "up").symlink_to("../" + tmp_path.name + "/./there")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("link", "far", "up", "there", "none/at/all", "link/inside"):
        assert resolved(str(tmp_path / name), []) == os.path.realpath(tmp_path / name)
    assert resolved("/", []) == "/"
    assert resolved(str(tmp_path / "loop"), []).endswith("loop")


# -- looking ------------------------------------------------------------------------------------------------------


def test_a_bare_mount_point_is_not_up(tmp_path, look):
    storage = observed(tmp_path, look)
    assert (storage.kind, storage.up) == (READY, False)
    assert storage.bring_up == f"mount /dev/sdx on {tmp_path}"
    assert storage.take_down == f"unmount {tmp_path}"


def test_what_a_mount_would_hide_is_counted(tmp_path, look):
    assert observed(tmp_path, look).hides == 0
    (tmp_path / "a").touch()
    (tmp_path / "b").mkdir()
    assert observed(tmp_path, look).hides == 2
    assert observed(tmp_path, with_mounts(look, mount(tmp_path))).hides == 0


def test_a_mount_of_the_source_is_up(tmp_path, look):
    (tmp_path / "a").touch()
    storage = observed(tmp_path, with_mounts(look, mount(tmp_path)), holds=True)
    assert (storage.kind, storage.up, storage.open, storage.holds) == (READY, True, True, ("a",))
    assert (storage.filesystem, storage.identity) == ("ext4", (os.stat(tmp_path).st_dev, os.stat(tmp_path).st_ino))


def test_a_mount_of_something_else_is_foreign(tmp_path, look):
    storage = observed(tmp_path, with_mounts(look, mount(tmp_path, "/dev/other")))
    assert (storage.kind, storage.up) == (FOREIGN, False)
    assert storage.parts[0].why == "a mount of /dev/other (ext4)"


@pytest.mark.parametrize("name", ["new", "there", "there/new"])
def test_nothing_is_mounted_where_nothing_can_be_made(tmp_path, look, name):
    (tmp_path / "there").mkdir()
    own = mount(tmp_path, "cgroup2")._replace(fstype="cgroup2")
    storage = observed(tmp_path / name, with_mounts(look, own))
    assert (storage.kind, storage.up) == (FOREIGN, False)
    assert "cgroup2" in storage.why
    assert observed(tmp_path / name, with_mounts(look, own._replace(fstype="tmpfs"))).kind != FOREIGN


def test_the_topmost_mount_counts(tmp_path, look):
    over = mount(tmp_path, "/dev/other", 8, 7)
    assert not observed(tmp_path, with_mounts(look, mount(tmp_path), over)).up


def test_a_mount_that_leaves_is_in_nobodys_way(tmp_path, look):
    look.leaving = str(tmp_path)
    storage = observed(tmp_path, with_mounts(look, mount(tmp_path, "/dev/other")))
    assert (storage.kind, storage.up, storage.parts[0].kind) == (READY, False, READY)


@pytest.mark.parametrize("there", [True, False])
def test_a_pool_does_not_move_into_its_own_mount(tmp_path, look, there):
    """What is seen there goes with it, and what is below it can't be seen."""
    inner = tmp_path / "inner"
    if there:
        inner.mkdir()
    with_mounts(look, mount(tmp_path))
    look.leaving = str(tmp_path)
    (found,) = observed(inner, look).parts
    assert (found.problem.code, found.kind) == ("invalid_path", UNKNOWN_STORAGE)
    assert observed(f"{tmp_path}-inner", look).parts[0].problem is None
    assert observed(os.path.dirname(tmp_path), look).parts[0].problem is None


def test_a_read_only_mount_is_read_only_and_lacks_no_right(tmp_path, look):
    storage = observed(tmp_path, with_mounts(look, mount(tmp_path, options=("ro",))))
    assert (storage.read_only, storage.writable) == (True, True)


def test_what_a_filesystem_has_of_its_own_is_no_content(tmp_path, look):
    (tmp_path / "lost+found").mkdir()
    with_mounts(look, mount(tmp_path))
    assert observed(tmp_path, look, True, own=(LOST_AND_FOUND,)).holds == ()
    (tmp_path / "lost+found" / "#12").touch()
    assert observed(tmp_path, look, True, own=(LOST_AND_FOUND,)).holds == ("lost+found",)


def test_a_mount_that_does_not_answer_is_unknown(tmp_path, look, monkeypatch):
    from ansible_collections.virt.storage.plugins.module_utils.host import patience

    monkeypatch.setattr(patience, "answers", lambda path, seconds: None)
    dead = mount(tmp_path)._replace(fstype="nfs4")
    storage = observed(tmp_path, with_mounts(look, dead), may_hang=True)
    assert (storage.kind, storage.up, storage.open) == (UNKNOWN_STORAGE, True, False)
    assert "did not answer within 5 s" in storage.why
    assert storage.problem.code == "deadline"
    assert storage.take_down == f"unmount {tmp_path}"


def test_the_kind_is_that_of_what_can_not_be_made_anew_without_loss(tmp_path, look):
    for kind, expected in ((READY, READY), (ABSENT, ABSENT), (FOREIGN, FOREIGN), (UNKNOWN_STORAGE, UNKNOWN_STORAGE)):
        assert observed(tmp_path / "none", look, parts=(Part("filesystem", "it", kind),)).kind == expected


def note(look, path, text):
    record = look.record_path(str(path))
    os.makedirs(os.path.dirname(record), exist_ok=True)
    with open(record, "w", encoding="utf-8") as file:
        file.write(text)


def test_a_mount_point_goes_where_we_made_it(tmp_path, look):
    point = tmp_path / "point"
    point.mkdir()
    assert not observed(point, look).parts[0].removable
    status = os.stat(point)
    note(look, point, f"{status.st_ino} {point}\n")
    for mounts in ((), (mount(point),)):
        part = observed(point, with_mounts(look, *mounts)).parts[0]
        assert part.removable
        assert part.requires[0].expected == (status.st_dev, status.st_ino)
    note(look, point, f"{status.st_ino + 1} {point}\n")
    assert not observed(point, with_mounts(look)).parts[0].removable


def test_a_pool_without_a_path_is_looked_at(look):
    pool = Pool("p", "fs")
    place = mounted.place_of(pool, look, is_ours)
    assert mounted.observe(pool, place, look, False, "/dev/sdx").up is False


# -- lowering -----------------------------------------------------------------------------------------------------


def lowered(action, may=(), part="", after=None, **pool):
    wanted = Pool("p", "fs", path="/p", **pool)
    change = Change(Subject("p"), action, "", after=after, wanted=wanted, may=frozenset(may), part=part)
    operations = mounted.lower(
        change,
        Notes("/records", "/starts"),
        lambda pool: [mounted.mount("ext4", ("nodev", "ro"), "/dev/sdx", pool.path)],
    )
    return [operation.command for operation in operations]


def test_starting_mounts_and_gives_the_permissions_to_what_is_mounted():
    """As far as the change says that it has them then."""
    given, mount_it = Permissions(0o750, 5), "mount -t ext4 -o nodev,ro -- /dev/sdx /p"
    shown = {"state": "active", "target": {"mode": "0750", "owner": 5}}
    assert lowered("start", [BRING_UP], after=shown, permissions=given) == [mount_it, "chown 5 /p && chmod 0750 /p"]
    assert lowered("start", [BRING_UP], after={"state": "active"}, permissions=given) == [mount_it]
    assert lowered("start", after=shown, permissions=given) == []


def test_stopping_unmounts_only_where_that_is_to_be_done():
    assert lowered("stop", [TAKE_DOWN]) == ["umount -- /p"]
    assert lowered("stop") == []


def test_the_mount_point_is_made_and_removed():
    assert "mkdir -p -m 0711 /p" in lowered("build", part="directory", permissions=Permissions(0o711))
    assert "rmdir /p" in lowered("delete", part="directory")
    assert lowered("delete", part="filesystem") == []


def test_a_mount_point_is_told_by_its_path(tmp_path, look):
    with_mounts(look)
    (directory,) = observed(tmp_path, look).parts
    assert directory.facts == {"path": str(tmp_path)}
