# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every operation on real files: what it does, and what it never does to what others made."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import filetree
from ansible_collections.virt.storage.plugins.module_utils.host import contents, publishing, renames
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier, identity_of
from ansible_collections.virt.storage.plugins.module_utils.model import operations as ops
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

MIB = 2**20


def do(*operations):
    applier = Applier()
    for operation in operations:
        applier.apply(operation)


def refused(operation, applier=None):
    with pytest.raises(StorageError) as caught:
        (applier or Applier()).apply(operation)
    assert caught.value.subject
    return caught.value.code


def identity(path):
    return identity_of(os.lstat(path))


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture
def umask():
    """A umask that takes away all that it can."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def files(tmp_path):
    """Two files, a and staged, with content."""
    (tmp_path / "a").write_text("theirs")
    (tmp_path / "staged").write_text("ours")
    return tmp_path


def operation_classes():
    return [
        value
        for value in vars(ops).values()
        if isinstance(value, type) and hasattr(value, "_fields") and value not in (ops.Step, ops.Taken)
    ]


def test_every_operation_can_be_carried_out():
    assert set(Applier()._table) == set(operation_classes())


# -- directories and definitions ----------------------------------------------------------------------------------


def test_a_directory_with_its_parents(tmp_path, umask):
    path, record = tmp_path / "x" / "y" / "z", tmp_path / "records" / "one"
    do(ops.MakeDirectory(str(path), 0o2 | 0o711, str(record)))
    assert mode(path) == 0o713
    assert record.read_text() == f"{os.stat(path).st_ino} {path}\n"


def test_parents_can_be_gone_through(tmp_path, umask):
    do(ops.MakeDirectory(str(tmp_path / "x" / "y" / "z"), 0o700))
    assert [mode(tmp_path / "x"), mode(tmp_path / "x" / "y")] == [0o755, 0o755]


def test_a_directory_that_is_there_is_left_alone(tmp_path):
    path = tmp_path / "x"
    path.mkdir(0o700)
    do(ops.MakeDirectory(str(path), 0o711, str(tmp_path / "record")))
    assert mode(path) == 0o700
    assert not (tmp_path / "record").exists()


def test_a_file_is_no_directory(files):
    assert refused(ops.MakeDirectory(str(files / "a"), 0o711)) == "changed_meanwhile"
    assert refused(ops.MakeDirectory(str(files / "a" / "b"), 0o711)) == "changed_meanwhile"
    assert (files / "a").read_text() == "theirs"


def test_a_file_is_replaced_whole(tmp_path, umask):
    path = tmp_path / "new" / "x.xml"
    do(ops.WriteFile(str(path), "ä\n", 0o644))
    assert (path.read_text(encoding="utf-8"), mode(path), mode(path.parent)) == ("ä\n", 0o644, 0o700)
    before = identity(path)
    do(ops.WriteFile(str(path), "b"))
    assert (path.read_text(), mode(path)) == ("b", 0o600)
    assert identity(path) != before
    assert os.listdir(path.parent) == ["x.xml"]


def test_what_an_interrupted_write_left_is_used_up(tmp_path):
    (tmp_path / "x.new").write_text("half a file that is longer")
    do(ops.WriteFile(str(tmp_path / "x"), "whole"))
    assert (tmp_path / "x").read_text() == "whole"
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_in_the_way_is_not_written_through(files):
    (files / "x.new").symlink_to(files / "a")
    assert refused(ops.WriteFile(str(files / "x"), "text")) == "changed_meanwhile"
    assert (files / "a").read_text() == "theirs"


def test_links(tmp_path):
    path = tmp_path / "autostart" / "p.xml"
    do(ops.MakeLink(str(path), "/one"))
    assert (os.readlink(path), mode(path.parent)) == ("/one", 0o700)
    (path.parent / "p.xml.new").symlink_to("/left")
    do(ops.MakeLink(str(path), "/two"))
    assert os.readlink(path) == "/two"
    assert os.listdir(path.parent) == ["p.xml"]


def test_removing(files):
    (files / "link").symlink_to(files / "a")
    do(ops.Remove(str(files / "link")), ops.Remove(str(files / "link")))
    assert (files / "a").exists()
    assert refused(ops.Remove(str(files))) in ("changed_meanwhile", "operation_failed", "not_writable")


def test_removing_a_directory(files):
    (files / "d").mkdir()
    do(ops.RemoveDirectory(str(files / "d")))
    assert not (files / "d").exists()
    assert refused(ops.RemoveDirectory(str(files))) == "changed_meanwhile"
    assert (files / "a").exists()


@pytest.mark.parametrize("bits", [0, 0o600, 0o777])
def test_modes(files, bits, umask):
    do(ops.SetPermissions(str(files / "a"), bits))
    assert mode(files / "a") == bits


@pytest.mark.root
def test_owners(files):
    do(ops.SetPermissions(str(files / "a"), None, 5, None), ops.SetPermissions(str(files / "a"), None, None, 7))
    status = os.stat(files / "a")
    assert (status.st_uid, status.st_gid) == (5, 7)


def test_what_is_so_already_is_not_set_again(files, monkeypatch):
    """A server that takes root for nobody refuses that too."""

    def forbidden(*_arguments):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    have = os.stat(files / "a")
    monkeypatch.setattr(os, "fchown", forbidden)
    monkeypatch.setattr(os, "fchmod", forbidden)
    do(ops.SetPermissions(str(files / "a"), mode(files / "a"), have.st_uid, have.st_gid))
    assert refused(ops.SetPermissions(str(files / "a"), None, have.st_uid + 1)) == "not_writable"


@pytest.mark.root
def test_a_mode_is_set_in_the_name_of_the_owner_where_root_may_not(files, monkeypatch):
    """Which a server that takes root for nobody lets happen; who asks for files is told by the kernel."""
    os.chown(files / "a", 5, 7)
    real, asked = os.fchmod, []

    def squashed(descriptor, bits):
        status = Path(f"/proc/self/task/{threading.get_native_id()}/status").read_text(encoding="ascii")
        words = {line.partition(":")[0]: line.split() for line in status.splitlines()}
        asked.append((words["Uid"][-1], words["Gid"][-1]))
        if asked[-1][0] == "0":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(descriptor, bits)

    monkeypatch.setattr(os, "fchmod", squashed)
    do(ops.SetPermissions(str(files / "a"), 0o640))
    assert (mode(files / "a"), asked) == (0o640, [("0", "0"), ("5", "7")])


@pytest.mark.root
def test_a_mode_outlives_another_owner(files):
    """Giving a file away takes bits of its mode."""
    os.chmod(files / "a", 0o4755)
    do(ops.SetPermissions(str(files / "a"), 0o4755, 5))
    assert mode(files / "a") == 0o4755


def test_permissions_do_not_follow_links(files):
    (files / "link").symlink_to(files / "a")
    os.chmod(files / "a", 0o644)
    assert refused(ops.SetPermissions(str(files / "link"), 0o777)) == "changed_meanwhile"
    assert mode(files / "a") == 0o644


# -- images -------------------------------------------------------------------------------------------------------


def test_a_raw_image(tmp_path):
    path = tmp_path / "x"
    do(ops.MakeRaw(str(path), 8 * MIB, MIB))
    status = os.stat(path)
    assert (status.st_size, mode(path)) == (8 * MIB, 0o600)
    assert MIB <= status.st_blocks * 512 < 2 * MIB
    do(ops.MakeRaw(str(tmp_path / "y"), 8 * MIB))
    assert os.stat(tmp_path / "y").st_blocks * 512 < MIB


@pytest.mark.parametrize(
    "make",
    [
        lambda path: ops.MakeRaw(path, 1),
        lambda path: ops.WriteContent(path, b"x", 1),
        lambda path: ops.CopySparse(__file__, path),
    ],
    ids=["raw", "content", "copy"],
)
def test_a_new_file_replaces_none(files, make):
    assert refused(make(str(files / "a"))) == "changed_meanwhile"
    assert (files / "a").read_text() == "theirs"
    (files / "link").symlink_to(files / "nowhere")
    assert refused(make(str(files / "link"))) == "changed_meanwhile"
    assert not (files / "nowhere").exists()


@pytest.mark.parametrize(("data", "capacity"), [(b"", 0), (b"abc", 3), (b"abc", 10), (b"", 5)])
def test_content(tmp_path, data, capacity):
    do(ops.WriteContent(str(tmp_path / "x"), data, capacity))
    assert (tmp_path / "x").read_bytes() == data.ljust(capacity, b"\0")
    assert mode(tmp_path / "x") == 0o600


def test_reserving(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    os.truncate(path, 4 * MIB)
    do(ops.Reserve(str(path), 2 * MIB))
    status = os.stat(path)
    assert status.st_size == 4 * MIB
    assert status.st_blocks * 512 >= 2 * MIB
    assert path.read_bytes()[:4] == b"abc\0"


@pytest.mark.parametrize(
    "extents",
    [
        pytest.param([], id="only-a-hole"),
        pytest.param([(0, 5)], id="start"),
        pytest.param([(0, 3 * MIB)], id="more-than-a-buffer"),
        pytest.param([(2 * MIB, 7), (6 * MIB, 4096)], id="between-holes"),
        pytest.param([(8 * MIB - 1, 1)], id="end"),
    ],
)
def test_a_copy_keeps_content_and_holes(tmp_path, extents):
    source, target = tmp_path / "a", tmp_path / "b"
    with open(source, "wb") as file:
        for number, (start, length) in enumerate(extents, 1):
            file.seek(start)
            file.write(bytes([number]) * length)
        file.truncate(8 * MIB)
    do(ops.CopySparse(str(source), str(target)))
    assert target.read_bytes() == source.read_bytes()
    assert os.stat(target).st_blocks <= os.stat(source).st_blocks + 16
    assert mode(target) == 0o600


def test_copies_of_nothing(tmp_path):
    (tmp_path / "a").touch()
    do(ops.CopySparse(str(tmp_path / "a"), str(tmp_path / "b")))
    assert (tmp_path / "b").read_bytes() == b""
    assert refused(ops.CopySparse(str(tmp_path / "gone"), str(tmp_path / "c"))) == "operation_failed"
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("size", [0, 3, 6, MIB])
def test_setting_the_size(files, size):
    path = files / "a"
    do(ops.Truncate(str(path), size, identity(path), 6))
    assert path.read_bytes() == b"theirs"[:size].ljust(size, b"\0")


def test_the_size_of_another_file_is_not_set(files):
    assert refused(ops.Truncate(str(files / "a"), 0, identity(files / "staged"), 6)) == "changed_meanwhile"
    assert (files / "a").read_text() == "theirs"
    (files / "link").symlink_to(files / "a")
    assert refused(ops.Truncate(str(files / "link"), 0, identity(files / "a"), 6)) == "changed_meanwhile"
    assert (files / "a").read_text() == "theirs"


def test_what_grew_since_it_was_looked_at_is_not_cut_off(files):
    """What was to be grown would be shrunk."""
    assert refused(ops.Truncate(str(files / "a"), 5, identity(files / "a"), 3)) == "changed_meanwhile"
    assert (files / "a").read_text() == "theirs"


@pytest.mark.root
def test_in_the_name_of_another_user():
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # pytest's own are closed to others
        os.chmod(directory, 0o711)
        acts_for_another(Path(directory))


def acts_for_another(tmp_path):
    (tmp_path / "source").write_text("content")
    os.chmod(tmp_path / "source", 0o600)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 4321, 4321)
    theirs.chmod(0o700)
    do(ops.As(4321, 4321, ops.MakeRaw(str(theirs / "a"), 4096)))
    do(ops.As(4321, 4321, ops.CopySparse(str(tmp_path / "source"), str(theirs / "b"))))
    do(ops.As(4321, 4321, ops.Publish(str(theirs / "b"), str(theirs / "c"))))
    assert [(os.stat(theirs / name).st_uid, os.stat(theirs / name).st_gid) for name in ("a", "c")] == [(4321, 4321)] * 2
    assert refused(ops.As(4321, 4321, ops.MakeRaw(str(tmp_path / "none"), 4096))) == "not_writable"
    assert os.stat(tmp_path / "source").st_uid == os.geteuid()  # and we are ourselves again
    do(ops.MakeRaw(str(tmp_path / "ours"), 4096))
    assert os.stat(tmp_path / "ours").st_uid == os.geteuid()


def command(script, **more):
    return ops.Run(("sh", "-c", script), bounded=True, **more)


def test_the_first_command_that_does_it(tmp_path):
    attempts = (command(f"echo no >&2; touch {tmp_path}/1; exit 32"), command(f"touch {tmp_path}/2"), command("false"))
    do(ops.FirstOf((ops.Run(("sh",), helper="mount.nothing"), *attempts)))
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_what_all_commands_said_when_none_does_it():
    with pytest.raises(StorageError) as caught:
        Applier((), 5).apply(ops.FirstOf((command("echo first >&2; exit 32"), command("echo second >&2; exit 1"))))
    assert (caught.value.code, caught.value.rc) == ("command_failed", 32)
    assert "first" in caught.value.stderr
    assert "second" in caught.value.stderr


def test_who_does_not_answer_is_not_passed_over(tmp_path):
    late = command("sleep 30", late="Look at it.")
    with pytest.raises(StorageError) as caught:
        Applier((), 0.2).apply(ops.FirstOf((late, command(f"touch {tmp_path}/2"))))
    assert (caught.value.code, caught.value.hint) == ("deadline", "Look at it.")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "noted"),
    [("test -e note", True), ("exit 1", False), ("kill -9 $$", True), ("exec sleep 30", True)],
)
def test_what_is_noted_before_it_is_done(tmp_path, monkeypatch, script, noted):
    """Killed, or not waited for any longer, it may be done: the note stays. What failed by itself takes it back."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(StorageError):
        Applier((), 0.5).apply(ops.Noted(command(script), str(tmp_path / "note"), "mount it"))
    assert (tmp_path / "note").exists() is noted
    assert ops.Noted(ops.Run(("mount", "x")), "/n", "").command == "mount x"


def test_credentials_are_in_a_file_that_has_no_name(tmp_path):
    seen = tmp_path / "seen"
    script = f"cat ${{1#credentials=}} > {seen}; readlink ${{1#credentials=}} >> {seen}"
    do(ops.Run(("sh", "-c", script, "sh", ops.CREDENTIALS), credentials=ops.Secret("password=x\n")))
    assert seen.read_text() == "password=x\n/memfd:credentials (deleted)\n"


def test_what_a_mount_leaves_behind_holds_no_lock(tmp_path):
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    script = f"test ! -e /proc/self/fd/{lock} || touch {tmp_path}/held"
    Applier((lock,), 5).apply(command(script, leaves=True))
    assert not (tmp_path / "held").exists()
    Applier((lock,), 5).apply(command(script))
    assert (tmp_path / "held").exists()
    os.close(lock)


# -- names --------------------------------------------------------------------------------------------------------


def fail_with(number):
    def failing(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(args[0]))

    return failing


@pytest.fixture(params=["link", "rename", "claim"])
def filesystem(request, monkeypatch):
    """What the filesystem can do: hard links, RENAME_NOREPLACE, or neither."""
    if request.param != "link":
        monkeypatch.setattr(publishing.os, "link", fail_with(errno.EPERM))
    if request.param == "claim":
        monkeypatch.setattr(publishing, "rename_noreplace", fail_with(errno.EINVAL))


def test_publishing(files, filesystem):
    mine = identity(files / "staged")
    do(ops.Publish(str(files / "staged"), str(files / "new")))
    assert identity(files / "new") == mine
    assert (files / "new").read_text() == "ours"
    assert not (files / "staged").exists()


@pytest.mark.parametrize("kind", ["file", "empty", "link", "directory"])
def test_publishing_never_replaces(files, filesystem, kind):
    path = files / "taken"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere")
    else:
        path.write_text("theirs" if kind == "file" else "")
    before = identity(path)
    assert refused(ops.Publish(str(files / "staged"), str(path))) == "changed_meanwhile"
    assert identity(path) == before
    assert (files / "staged").read_text() == "ours"


def test_publishing_where_links_are_refused_for_another_reason(files, monkeypatch):
    monkeypatch.setattr(publishing.os, "link", fail_with(errno.ENOSPC))
    assert refused(ops.Publish(str(files / "staged"), str(files / "new"))) == "no_space"
    assert not (files / "new").exists()


def test_publishing_that_is_answered_twice(files, monkeypatch):
    """Whose answer was lost asks the NFS server again, which says that the name is taken: by the same file."""
    link = os.link

    def linking(source, target, **more):
        link(source, target, **more)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source)

    mine = identity(files / "staged")
    monkeypatch.setattr(publishing.os, "link", linking)
    do(ops.Publish(str(files / "staged"), str(files / "new")))
    assert identity(files / "new") == mine
    assert not (files / "staged").exists()


@pytest.fixture(params=["exchange", "two renames"])
def exchanging(request, monkeypatch):
    """Whether the filesystem can exchange two files; NFS, CIFS and FUSE can't."""
    if request.param != "exchange":
        monkeypatch.setattr(publishing, "rename_exchange", fail_with(errno.EINVAL))


def test_exchanging(files, exchanging):
    mine = identity(files / "staged")
    do(ops.Exchange(str(files / "staged"), str(files / "a"), identity(files / "a")))
    assert identity(files / "a") == mine
    assert os.listdir(files) == ["a"]


def test_exchanging_what_was_replaced_puts_it_back(files, exchanging):
    theirs = identity(files / "a")
    assert refused(ops.Exchange(str(files / "staged"), str(files / "a"), (0, 0))) == "changed_meanwhile"
    assert identity(files / "a") == theirs
    assert (files / "a").read_text() == "theirs"
    assert (files / "staged").read_text() == "ours"


def test_exchanging_what_went_away(files, exchanging):
    operation = ops.Exchange(str(files / "staged"), str(files / "gone"), (0, 0))
    assert refused(operation) == "changed_meanwhile"
    assert sorted(os.listdir(files)) == ["a", "staged"]


def test_withdrawing(files):
    do(ops.Withdraw(str(files / "a"), str(files / "away"), identity(files / "a")))
    assert os.listdir(files) == ["staged"]
    do(ops.Withdraw(str(files / "a"), str(files / "away"), (0, 0)))


@pytest.mark.parametrize("can_rename", [True, False], ids=["noreplace", "no-noreplace"])
def test_withdrawing_what_was_replaced_puts_it_back(files, monkeypatch, can_rename):
    if not can_rename:
        monkeypatch.setattr(publishing, "rename_noreplace", fail_with(errno.EINVAL))
    theirs = identity(files / "a")
    assert refused(ops.Withdraw(str(files / "a"), str(files / "away"), (0, 0))) == "changed_meanwhile"
    assert identity(files / "a") == theirs
    assert not (files / "away").exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", ["withdraw", "exchange", "two renames"])
@pytest.mark.parametrize("replaced", [True, False])
def test_who_is_killed_while_a_file_is_out_of_the_pool_loses_none_of_others(files, monkeypatch, kind, replaced):
    """The next task keeps what took the place of the volume, and removes only what was to go."""
    staging = files / ".virt-storage"
    staging.mkdir(0o700)
    os.rename(files / "staged", staging / "staged")
    expected = (0, 1) if replaced else identity(files / "a")

    def killed(*_arguments):
        raise Killed

    def exchanged(*paths):
        renames.rename_exchange(*paths)
        raise Killed

    exchanging = fail_with(errno.EINVAL) if kind == "two renames" else exchanged
    monkeypatch.setattr(publishing, "rename_exchange", exchanging)
    monkeypatch.setattr(publishing, "_give_back", killed)
    monkeypatch.setattr(publishing.os, "unlink", killed)
    if kind == "withdraw":
        operation = ops.Withdraw(str(files / "a"), str(staging / "-removed-1"), expected)
    else:
        operation = ops.Exchange(str(staging / "staged"), str(files / "a"), expected)
    with pytest.raises(Killed):
        do(operation)
    monkeypatch.undo()
    assert bool(filetree.observe_staging(str(files))[1]) == replaced
    if replaced:
        assert refused(ops.OpenStaging(str(staging)), Applier()) == "staging_foreign"
        assert "theirs" in [each.read_text() for each in staging.iterdir()]
    else:
        applier = Applier()
        applier.apply(ops.OpenStaging(str(staging)))
        applier.apply(ops.CloseStaging(str(staging)))
        assert (files / "a").exists() == (kind != "withdraw")
        assert not staging.exists()


def test_what_can_not_be_given_back_is_kept(files, monkeypatch):
    """Where its names are taken by then: the private directory stays, with it."""
    staging, applier = files / ".virt-storage", Applier()
    applier.apply(ops.OpenStaging(str(staging)))
    monkeypatch.setattr(publishing, "_give_back", lambda staged, path: None)
    assert refused(ops.Withdraw(str(files / "a"), str(staging / "-removed-1"), (0, 1)), applier) == "changed_meanwhile"
    assert refused(ops.CloseStaging(str(staging)), applier) == "staging_foreign"
    (kept,) = staging.iterdir()
    assert kept.read_text() == "theirs"


def test_withdrawing_a_link_leaves_its_target(files):
    (files / "link").symlink_to(files / "a")
    do(ops.Withdraw(str(files / "link"), str(files / "away"), identity(files / "link")))
    assert (files / "a").read_text() == "theirs"
    assert not os.path.lexists(files / "link")


# -- the private directory ----------------------------------------------------------------------------------------


def test_staging(tmp_path, umask):
    path, applier = tmp_path / ".virt-storage", Applier()
    applier.apply(ops.OpenStaging(str(path)))
    assert mode(path) == 0o700
    (path / "left").write_text("x")
    applier.apply(ops.CloseStaging(str(path)))
    assert not path.exists()
    applier.apply(ops.CloseStaging(str(path)))


def test_staging_of_a_task_that_was_killed_is_taken_over(tmp_path):
    path, applier = tmp_path / ".virt-storage", Applier()
    path.mkdir(0o700)
    (path / "half").write_text("x")
    applier.apply(ops.OpenStaging(str(path)))
    assert os.listdir(path) == []


def taken(path):
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_staging_in_use_is_left_alone(tmp_path):
    path, applier = tmp_path / ".virt-storage", Applier()
    path.mkdir(0o700)
    (path / "theirs").write_text("x")
    held = taken(path)
    try:
        assert refused(ops.OpenStaging(str(path)), applier) == "locked"
        applier.apply(ops.CloseStaging(str(path)))
        assert os.listdir(path) == ["theirs"]
    finally:
        os.close(held)


@pytest.mark.parametrize("bits", [0o750, 0o701, 0o777])
def test_staging_that_others_can_reach_is_not_ours(tmp_path, bits):
    path, applier = tmp_path / ".virt-storage", Applier()
    path.mkdir()
    path.chmod(bits)
    (path / "theirs").write_text("x")
    assert refused(ops.OpenStaging(str(path)), applier) == "staging_foreign"
    applier.apply(ops.CloseStaging(str(path)))
    assert os.listdir(path) == ["theirs"]


@pytest.mark.root
def test_staging_of_another_user_is_not_ours(tmp_path):
    path, applier = tmp_path / ".virt-storage", Applier()
    path.mkdir(0o700)
    os.chown(path, 5, 5)
    assert refused(ops.OpenStaging(str(path)), applier) == "staging_foreign"
    applier.apply(ops.CloseStaging(str(path)))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_staging_that_is_no_directory(tmp_path, kind):
    path = tmp_path / ".virt-storage"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "theirs").touch()
    if kind == "file":
        path.touch()
    else:
        path.symlink_to("elsewhere")
    applier = Applier()
    assert refused(ops.OpenStaging(str(path)), applier) in ("changed_meanwhile", "operation_failed", "staging_foreign")
    applier.apply(ops.CloseStaging(str(path)))
    assert os.path.lexists(path)
    assert (tmp_path / "elsewhere" / "theirs").exists()


def test_staging_is_locked_while_it_is_open(tmp_path):
    path, first, second = tmp_path / ".virt-storage", Applier(), Applier()
    first.apply(ops.OpenStaging(str(path)))
    assert refused(ops.OpenStaging(str(path)), second) == "locked"
    first.apply(ops.CloseStaging(str(path)))
    second.apply(ops.OpenStaging(str(path)))


# -- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "no_space"),
        (errno.EDQUOT, "no_space"),
        (errno.EFBIG, "capacity_too_large"),
        (errno.EACCES, "not_writable"),
        (errno.EPERM, "not_writable"),
        (errno.EROFS, "not_writable"),
        (errno.EIO, "operation_failed"),
        (errno.ENOENT, "operation_failed"),
    ],
)
def test_codes(tmp_path, monkeypatch, number, code):
    monkeypatch.setattr(contents.os, "ftruncate", fail_with(number))
    with pytest.raises(StorageError) as caught:
        do(ops.MakeRaw(str(tmp_path / "x"), 5))
    assert caught.value.code == code
    assert "truncate -s 5" in caught.value.message
    assert caught.value.hint
