# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several devices are taken as one is: all are looked at again, locked and held, and nothing is done to any of them
where one is not as it was. Files stand for devices; what the kernel says of them is told here.
"""

from __future__ import annotations

import fcntl
import os

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import taking
from ansible_collections.virt.storage.plugins.module_utils.host.block import Device
from ansible_collections.virt.storage.plugins.module_utils.host.signatures import Content, Signature
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import User
from ansible_collections.virt.storage.plugins.module_utils.model.operations import MakeOn, Taken

EMPTY = Content()


class Host:
    """Two partitions of a disk and another disk."""

    def __init__(self, top):
        self.top = top
        self.disks = {"a1": "a", "a2": "a", "b": None}
        self.numbers = {"a1": 1, "a2": 2, "b": 3}
        self.users: dict[str, User] = {}
        self.contents: dict[str, Content] = {}
        self.held: list[str] = []
        for name in ("a", *self.disks):
            (top / name).touch()

    def path(self, name):
        return str(self.top / name)

    def device(self, path):
        name = os.path.basename(path)
        disk = self.disks[name]
        number = (8, self.numbers[name])
        partitions = tuple(self.path(each) for each, of in self.disks.items() if of == name)
        return Device(
            path, path, number, 1 << 20, 512, False, "disk", disk=disk and self.path(disk), partitions=partitions
        )

    def taken(self, *names):
        devices = [self.device(self.path(name)) for name in names]
        return tuple(Taken(device.node, device.identity, EMPTY.facts) for device in devices)

    def log(self):
        log = self.top / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def host(tmp_path, monkeypatch):
    it = Host(tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("wipefs", "vgcreate"):
        (tools / tool).write_text(f'#!/bin/sh\necho "{tool} $*" >> {tmp_path}/log\n')
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    hold = taking._hold
    monkeypatch.setattr(taking, "settled_device", lambda node, *_more: it.device(node))
    monkeypatch.setattr(taking, "_hold", lambda node: it.held.append(os.path.basename(node)) or hold(node))

    def used(device, *_more):
        return tuple(filter(None, [it.users.get(os.path.basename(device.node))])), ()

    def content(node, _seconds):
        return it.contents.get(os.path.basename(node), EMPTY)

    monkeypatch.setattr("ansible_collections.virt.storage.plugins.module_utils.host.device_users.users_of_device", used)
    monkeypatch.setattr("ansible_collections.virt.storage.plugins.module_utils.host.signatures.content_at", content)
    return it


def make(host, *names, timeout=1, **more):
    taking.make_on(MakeOn(host.taken(*names), ("vgcreate", "vg1"), **more), (), timeout)


def test_all_of_them_are_wiped_and_given_to_the_command(host):
    make(host, "b", "a1", "a2", wipe=True)
    nodes = " ".join(map(host.path, ("b", "a1", "a2")))
    assert host.log() == [f"wipefs --all --force --quiet -- {nodes}", "vgcreate vg1"]
    assert host.held == ["b", "a1", "a2"]


def _replaced(host):
    host.numbers["b"] = 9


def _used(host):
    host.users["b"] = User("mount", "/mnt")


def _filled(host):
    host.contents["b"] = Content((Signature("ext4"),))


@pytest.mark.parametrize("meanwhile", [_replaced, _used, _filled])
def test_nothing_is_done_to_any_where_one_is_not_as_it_was(host, meanwhile):
    devices = host.taken("a1", "b")
    meanwhile(host)
    with pytest.raises(StorageError) as caught:
        taking.make_on(MakeOn(devices, ("vgcreate", "vg1"), wipe=True), (), 1)
    assert (caught.value.code, caught.value.subject) == ("changed_meanwhile", host.path("b"))
    assert host.log() == []


def test_who_works_on_any_of_their_disks_is_waited_for(host):
    with open(host.path("a"), "rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_SH)
        with pytest.raises(StorageError) as caught:
            make(host, "b", "a2", timeout=0.2)
    assert caught.value.code == "locked"
    assert host.log() == []


def test_a_command_that_fails_says_where_to_look(host):
    (host.top / "tools" / "vgcreate").write_text("#!/bin/sh\nexit 5\n")
    with pytest.raises(StorageError) as caught:
        make(host, "b", hint="Ask LVM.")
    assert (caught.value.code, caught.value.hint) == ("command_failed", "Ask LVM.")


# -- the note that what is there is of our making ---------------------------------------------------------------------


def _no_partx(disk, seconds):
    raise StorageError("tool_missing", "partx is not installed on this host")


def _late(disk, seconds):
    raise StorageError("deadline", "partx did not answer within 1 s")


@pytest.mark.parametrize(
    ("tool", "ends", "reread", "stays"),
    [
        ("wipefs", "exit 1", None, False),
        ("wipefs", "kill -9 $$", None, True),
        ("vgcreate", "exit 5", None, False),
        ("vgcreate", "kill -9 $$", None, True),
        ("partx", "", _no_partx, False),
        ("partx", "", _late, False),
        ("none", "", None, False),
    ],
)
def test_only_what_was_killed_leaves_the_note(host, monkeypatch, tool, ends, reread, stays):
    """What failed by itself while the old content went leaves data of others, which no later task may take for ours."""
    (host.top / "tools" / tool).write_text(f"#!/bin/sh\n{ends}\n")
    (host.top / "tools" / tool).chmod(0o755)
    monkeypatch.setattr(taking, "reread", reread or (lambda disk, seconds: None))
    host.disks["a"], host.numbers["a"] = None, 0
    note = host.top / "notes" / "making"
    try:
        make(host, "a", wipe=True, note=str(note), noted="here")
    except StorageError:
        assert tool != "none"
    assert note.exists() is stays


def test_a_note_of_an_earlier_task_stays_where_nothing_is_done(host):
    note = host.top / "making"
    note.touch()
    host.contents["b"] = Content((Signature("ext4"),))
    with pytest.raises(StorageError):
        make(host, "b", wipe=True, note=str(note), noted="here")
    assert note.exists()
