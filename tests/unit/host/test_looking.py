# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks, commands, mounts, accounts, and who uses a file: with real processes."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import signal
import struct
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import mounts as mounts_module
from ansible_collections.virt.storage.plugins.module_utils.host.accounts import group_id, owner_id
from ansible_collections.virt.storage.plugins.module_utils.host.locks import locked
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import (
    Mount,
    filesystem_of,
    mount_at,
    mounts,
    mounts_below,
)
from ansible_collections.virt.storage.plugins.module_utils.host.processes import OpenFile
from ansible_collections.virt.storage.plugins.module_utils.host.run import run
from ansible_collections.virt.storage.plugins.module_utils.host.users import _Targets, users_of
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


@contextmanager
def child(program, *arguments):
    """A Python process that has said "ready"; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program) + "\nprint('ready', flush=True)\nimport time\ntime.sleep(60)"]
        + [str(argument) for argument in arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def refusal(function, *args, **kwargs):
    with pytest.raises(StorageError) as caught:
        function(*args, **kwargs)
    return caught.value


# -- locks --------------------------------------------------------------------------------------------------------

HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
"""


def take(directory, timeout=0.0, names=(("a.lock", "pool a"),)):
    with locked(str(directory), names, timeout) as descriptors:
        return descriptors


def test_a_lock_is_held_and_let_go(tmp_path):
    directory = tmp_path / "run" / "locks"
    with locked(str(directory), [("a.lock", "pool a"), ("b.lock", "pool b")], 0) as descriptors:
        assert len(descriptors) == 2
        assert all(not os.get_inheritable(descriptor) for descriptor in descriptors)
        error = refusal(take, directory)
        assert (error.code, error.subject) == ("locked", "pool a")
        assert error.hint
        assert refusal(take, directory, names=(("b.lock", "pool b"),)).subject == "pool b"
        assert take(directory, names=(("c.lock", "pool c"),))
    assert take(directory)


def test_a_lock_is_let_go_when_what_was_done_under_it_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path), [("a.lock", "pool a")], 0):
        raise ZeroDivisionError
    assert take(tmp_path)


def test_where_the_second_lock_is_taken_the_first_is_let_go(tmp_path):
    with locked(str(tmp_path), [("b.lock", "pool b")], 0):
        assert refusal(take, tmp_path, names=(("a.lock", "a"), ("b.lock", "pool b"))).subject == "pool b"
        assert take(tmp_path)


def test_another_process_waits(tmp_path):
    with child(HOLD, tmp_path / "a.lock") as process:
        start = time.monotonic()
        assert refusal(take, tmp_path, 0.3).code == "locked"
        assert time.monotonic() - start >= 0.3
        process.send_signal(signal.SIGKILL)
        assert take(tmp_path, 10)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_lock_directory_that_can_not_be_used(tmp_path, kind):
    directory = tmp_path / "locks"
    if kind == "file":
        directory.touch()
    else:
        directory.mkdir()
        (directory / "a.lock").symlink_to(tmp_path / "elsewhere")
    error = refusal(take, directory)
    assert error.code == "not_writable"
    assert error.hint
    assert not (tmp_path / "elsewhere").exists()


# -- commands -----------------------------------------------------------------------------------------------------


def test_what_a_command_says():
    assert run(["printf", "%s", "a b"]) == "a b"
    assert run([sys.executable, "-c", "import os; os.write(1, b'\\xff')"]) == "\ufffd"


def test_a_command_gets_no_input():
    assert run(["cat"], timeout=10) == ""


def test_no_shell_reads_the_words():
    assert run(["printf", "%s|", "$HOME", "`id`", ";", "*", "a\nb"]) == "$HOME|`id`|;|*|a\nb|"


def test_its_words_are_not_translated(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("KEPT", "yes")
    assert run(["sh", "-c", "echo $LC_ALL $LANGUAGE $KEPT"]) == "C C yes\n"


def test_a_tool_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refusal(run, ["mkfs.xfs", "x"])
    assert (error.code, error.subject) == ("tool_missing", "mkfs.xfs")
    assert "package xfsprogs" in error.hint


def test_a_command_that_fails():
    error = refusal(run, ["sh", "-c", "echo out; echo 'what is wrong' >&2; exit 3"])
    assert (error.code, error.rc, error.stderr) == ("command_failed", 3, "what is wrong")
    assert error.command == "sh -c 'echo out; echo '\"'\"'what is wrong'\"'\"' >&2; exit 3'"


def test_a_command_that_is_killed():
    assert refusal(run, ["sh", "-c", "kill -9 $$"]).rc == -9


@pytest.mark.parametrize("text", ["No space left on device", "Disk quota exceeded"])
def test_a_command_that_finds_no_space(text):
    error = refusal(run, ["sh", "-c", f"echo 'write: {text}' >&2; exit 1"])
    assert error.code == "no_space"
    assert error.hint


def test_a_command_that_does_not_end(tmp_path):
    mark = tmp_path / "pid"
    start = time.monotonic()
    error = refusal(run, ["sh", "-c", f"echo $$ > {mark}; exec sleep 60"], timeout=0.5)
    assert error.code == "deadline"
    assert time.monotonic() - start < 20
    assert not os.path.exists(f"/proc/{int(mark.read_text())}")


def test_a_command_inherits_the_descriptors_it_is_given_and_no_others(tmp_path):
    given, other = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(other, True)
    try:
        seen = run([sys.executable, "-c", "import os; print(*os.listdir('/proc/self/fd'))"], keep_fds=[given]).split()
    finally:
        os.close(given)
        os.close(other)
    assert str(given) in seen
    assert str(other) not in seen


# -- mounts -------------------------------------------------------------------------------------------------------

LINES = (
    rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /srv/a\040b rw - tmpfs none rw
31 22 254:1 /sub\134dir /srv/new\012line\011tab rw,nosuid master:1 propagate_from:2 - xfs /dev/mapper/x\040y rw
32 30 0:27 / /srv/a\040b/deep rw - nfs4 server:/export\040dir rw
33 22 0:28 / /srv/no"""
    + "\u00a0".encode()
    + rb"""break rw - tmpfs t rw
34 22 0:29 / /srv/"""
    + b"\xff"
    + rb"""byte rw - tmpfs t rw
35 22 0:30 / /srv/carriage"""
    + b"\r"
    + rb"""return rw - tmpfs t rw
"""
)


@pytest.fixture
def table(tmp_path, monkeypatch):
    path = tmp_path / "mountinfo"
    path.write_bytes(LINES)
    monkeypatch.setattr(mounts_module, "open", lambda _path, *more, **named: path.open(*more, **named), raising=False)
    return mounts()


def test_mounts_with_odd_names(table):
    assert [tuple(mount)[:4] for mount in table] == [
        ("/", "/", "ext4", "/dev/vda"),
        ("/", "/srv/a b", "tmpfs", "none"),
        ("/sub\\dir", "/srv/new\nline\ttab", "xfs", "/dev/mapper/x y"),
        ("/", "/srv/a b/deep", "nfs4", "server:/export dir"),
        ("/", "/srv/no\u00a0break", "tmpfs", "t"),
        ("/", "/srv/\udcffbyte", "tmpfs", "t"),
        ("/", "/srv/carriage\rreturn", "tmpfs", "t"),
    ]


def test_options_and_numbers_of_mounts(table):
    found = table[2]
    assert (found.options, found.super_options) == (("rw", "nosuid"), ("rw",))
    assert (found.number, found.id, found.parent) == ((254, 1), 31, 22)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("rw,relatime", ("rw", "relatime")),
        ('rw,context="u:r:t:s0:c1,c2",seclabel', ("rw", 'context="u:r:t:s0:c1,c2"', "seclabel")),
        (r"rw,lowerdir=/a\054b:/c\040d", ("rw", "lowerdir=/a,b:/c d")),
        ("", ()),
    ],
)
def test_options_with_commas(text, options):
    assert mounts_module._options(text) == options


def mount(number, parent, point, source="s", root="/"):
    return Mount(root, point, "ext4", source, (), (), (0, number), number, parent)


TABLE = [
    mount(20, 1, "/", "a"),
    mount(21, 20, "/srv", "b"),
    mount(22, 21, "/srv/deep", "c"),
    mount(23, 21, "/srv", "d"),
    mount(24, 20, "/mnt", "e"),
    mount(25, 24, "/mnt/deep", "f"),
]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/", "a"),
        ("/x", "a"),
        ("/srv", "d"),
        ("/srv/x", "d"),
        ("/srvx", "a"),
        ("/srv/deep", "d"),  # what was mounted there is covered
        ("/mnt/deep", "f"),
        ("/mnt/deep/x/y", "f"),
        ("/mnt/deeper", "e"),
    ],
)
@pytest.mark.parametrize("turn", [1, -1])
def test_which_mount_holds_a_path(path, source, turn):
    assert filesystem_of(path, TABLE[::turn]).source == source


@pytest.mark.parametrize(("path", "source"), [("/srv", "d"), ("/mnt", "e"), ("/srv/deep", None), ("/mnt/x", None)])
def test_what_is_mounted_at_a_path(path, source):
    found = mount_at(path, TABLE)
    assert (found.source if found else None) == source


def test_in_a_changed_root_no_mount_is_at_the_top():
    assert filesystem_of("/srv/x", TABLE[1:2]).source == "b"
    assert filesystem_of("/x", TABLE[1:2]) is None


def test_mounts_below_a_mount():
    assert [found.source for found in mounts_below(TABLE[1], TABLE)] == ["c", "d"]
    assert [found.source for found in mounts_below(TABLE[0], TABLE)] == ["b", "e", "c", "d", "f"]
    assert mounts_below(TABLE[5], TABLE) == []


def test_without_mounts_none_holds_it():
    assert filesystem_of("/x", []) is None


def test_the_mounts_of_this_machine():
    assert any(mount.point == "/" for mount in mounts())


# -- accounts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "number"), [(None, None), (0, 0), ("0", 0), ("4294967294", 2**32 - 2), ("root", 0)])
def test_accounts(value, number):
    assert owner_id(value) == number
    assert group_id(value) == number


def test_names_are_looked_up():
    user, group = pwd.getpwall()[-1], grp.getgrall()[-1]
    assert owner_id(user.pw_name) == pwd.getpwnam(user.pw_name).pw_uid
    assert group_id(group.gr_name) == grp.getgrnam(group.gr_name).gr_gid


@pytest.mark.parametrize(
    "value", ["", "no-such-name", "-1", str(2**32 - 1), str(2**64), "9" * 5000, "²", "1.5", "root "]
)
def test_accounts_that_there_are_not(value):
    assert refusal(owner_id, value).code == "unknown_owner"
    assert refusal(group_id, value).code == "unknown_group"


# -- users --------------------------------------------------------------------------------------------------------

OPEN = "import os, sys\nfd = os.open(sys.argv[1], int(sys.argv[2]))"
LOCK = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
kind = fcntl.F_RDLCK if sys.argv[2] == "shared" else fcntl.F_WRLCK
fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, 0, int(sys.argv[3]), 1, 0))
os.rename(sys.argv[1], sys.argv[1] + ".x")
os.rename(sys.argv[1] + ".x", sys.argv[1])
"""


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image with space"
    path.write_bytes(b"x" * 4096)
    return path


def users(path, writers_only=False):
    found, _unseen = users_of({"it": str(path)}, writers_only)
    return [(user.kind, user.who) for user in found["it"]]


def test_nobody(image, tmp_path):
    assert users(image) == []
    assert users(tmp_path / "gone") == []
    assert users_of({}) == ({}, users_of({})[1])


@pytest.mark.parametrize(
    ("flags", "writes"), [(os.O_RDONLY, False), (os.O_WRONLY, True), (os.O_RDWR, True)], ids=["reads", "writes", "both"]
)
def test_a_process(image, flags, writes):
    with child(OPEN, image, flags) as process:
        ((kind, who),) = users(image)
        assert kind == "process"
        assert f"(pid {process.pid})" in who
        assert len(users(image, writers_only=True)) == writes
    assert users(image) == []


@pytest.mark.parametrize("name", ["link", "hard"])
def test_a_process_that_calls_it_otherwise(image, tmp_path, name):
    other = tmp_path / name
    if name == "link":
        other.symlink_to(image)
    else:
        other.hardlink_to(image) if hasattr(other, "hardlink_to") else os.link(image, other)
    with child(OPEN, other, os.O_RDONLY):
        assert len(users(image)) == 1
    with child(OPEN, image, os.O_RDONLY):
        assert len(users(other)) == 1


def test_a_file_of_the_same_name_elsewhere(image, tmp_path):
    (tmp_path / "d").mkdir()
    other = tmp_path / "d" / image.name
    other.touch()
    with child(OPEN, other, os.O_RDWR):
        assert users(image) == []


def test_a_file_that_took_its_name(image):
    with child(OPEN, image, os.O_RDWR):
        os.unlink(image)
        image.write_bytes(b"new")
        assert users(image) == []


def test_a_process_that_has_it_under_a_name_that_is_gone(image, tmp_path):
    os.link(image, tmp_path / "other")
    with child(OPEN, tmp_path / "other", os.O_RDWR):
        os.unlink(tmp_path / "other")
        assert len(users(image)) == 1
    assert users(image) == []


@pytest.mark.parametrize(
    ("fstype", "here", "found"),
    [("ext4", False, "it"), ("nfs4", True, "it"), ("nfs4", False, None), (None, False, None)],
)
def test_what_has_no_name_any_more_on_another_server_is_not_opened_up(image, fstype, here, found):
    """That one may be dead."""
    device = image.stat().st_dev
    number = (os.major(device), os.minor(device)) if here else (0, 9999)
    mount = Mount("/", "/m", fstype, "h:/e", (), (), number, 1, 0) if fstype else None
    file = OpenFile("1", str(image), "/m/other (deleted)")
    assert _Targets({"it": str(image)}).find_gone(file, SimpleNamespace(mount_of=lambda file: mount)) == found


def test_many_files_at_once(image, tmp_path):
    other = tmp_path / "other"
    other.touch()
    with child(OPEN, other, os.O_RDONLY):
        found, _unseen = users_of({"a": str(image), "b": str(other)})
    assert (len(found["a"]), len(found["b"])) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "byte", "seen", "writes"),
    [
        pytest.param("shared", 100, True, False, id="reader"),
        pytest.param("shared", 101, True, True, id="writer"),
        pytest.param("exclusive", 101, True, True, id="exclusive"),
        pytest.param("shared", 203, True, False, id="denies-resizing"),
        pytest.param("shared", 50, False, False, id="another-byte"),
    ],
)
def test_the_locks_of_qemu(image, monkeypatch, kind, byte, seen, writes):
    """A holder whose process can't be seen, as one in another pid namespace."""
    from ansible_collections.virt.storage.plugins.module_utils.host import users as users_module

    monkeypatch.setattr(users_module.Processes, "files", lambda self: [])
    with child(LOCK, image, kind, byte):
        assert [each for each, _who in users(image)] == (["lock"] if seen else [])
        assert [each for each, _who in users(image, writers_only=True)] == (["lock"] if writes else [])
    assert users(image) == []


def test_looking_leaves_no_lock_behind(image):
    users(image)
    with open(image, "r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))


def test_a_fifo_is_no_trap(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert users(tmp_path / "fifo") == []
