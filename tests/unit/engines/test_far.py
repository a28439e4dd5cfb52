# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a daemon tells of a pool that only it can look at, and who uses its volumes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import logical as logical_backend
from ansible_collections.virt.storage.plugins.module_utils.engines import calls, far
from ansible_collections.virt.storage.plugins.module_utils.engines.libvirt import LibvirtEngine
from ansible_collections.virt.storage.plugins.module_utils.engines.local import LocalHost
from ansible_collections.virt.storage.plugins.module_utils.engines.places import daemon_places
from ansible_collections.virt.storage.plugins.module_utils.host import mount_users
from ansible_collections.virt.storage.plugins.module_utils.model.change import Change, Condition, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.daemon_calls import DaemonCall
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    EVERYTHING,
    ITSELF,
    PIN,
    RUNNING,
    UNSEEN,
    Found,
    Storage,
    Usage,
    User,
)
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.operations import Run
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool, Source, SourceDevice
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Content, Volume

MIB = 2**20


def shown(name, image_format="raw", capacity=MIB, path=None, backing=""):
    below = f"<backingStore><path>{backing}</path></backingStore>" if backing else ""
    return (
        f"<volume type='file'><name>{name}</name><key>k</key><capacity>{capacity}</capacity>"
        f"<allocation>0</allocation><physical>4096</physical><target><path>{path or f'/p/{name}'}</path>"
        f"<format type='{image_format}'/></target>{below}</volume>"
    )


def guest(name, *paths, volumes=()):
    disks = "".join(f"<disk type='file'><source file='{path}'/></disk>" for path in paths)
    disks += "".join(
        f"<disk type='volume'><source pool='{pool}' volume='{volume}'/></disk>" for pool, volume in volumes
    )
    return f"<domain><name>{name}</name><devices>{disks}</devices></domain>"


class Daemon:
    timeout = 5
    """One pool p; ``asked`` notes what was asked for."""

    def __init__(self, *volumes, guests=(), elsewhere=None):
        self.texts = {text.partition("<name>")[2].partition("</name>")[0]: text for text in volumes}
        self.guest_texts, self.elsewhere = guests, elsewhere or {}
        self.asked, self.read_guests = [], 0

    def volumes(self, pool, names):
        self.asked.append(names)
        return [text for name, text in self.texts.items() if names is None or name in names]

    def volume_at(self, path):
        return self.elsewhere.get(path)

    def guests(self):
        self.read_guests += 1
        return None if self.guest_texts is None else list(self.guest_texts)

    def definitions(self, but):
        return []


def pool(kind="fs", path="/p"):
    return Pool("p", kind, path=path, source=Source(devices=(SourceDevice("/dev/sdx"),)))


def found(kind="fs", active=True, **more):
    defined = pool(kind)
    storage = Storage(UNSEEN, "/p")
    return Found(
        "p",
        definition=defined,
        live=defined if active else None,
        started=active,
        active=active,
        storage=storage,
        **more,
    )


# -- looking --------------------------------------------------------------------------------------------------------


def test_only_what_is_asked_for_is_looked_at():
    daemon = Daemon(shown("a"), shown("b"))
    assert far.observe_far(found(), Scope(Pool("p")), daemon).volumes == {}
    assert daemon.asked == []
    assert set(far.observe_far(found(), Scope(Pool("p"), volumes=("a", "c")), daemon).volumes) == {"a"}
    assert set(far.observe_far(found(), Scope(Pool("p"), volumes=None), daemon).volumes) == {"a", "b"}
    assert far.observe_far(found(active=False), Scope(Pool("p"), volumes=None), daemon).volumes == {}


def test_what_may_be_lost_by_a_restart_is_looked_at():
    rebuilt = Scope(Pool("p"), rebuilds=True)
    for kind, names in (("fs", {"a"}), ("netfs", set())):
        assert set(far.observe_far(found(kind), rebuilt, Daemon(shown("a"))).volumes) == names


def test_of_a_disk_all_partitions_count_and_no_format_is_known():
    daemon = Daemon(shown("sdx1", "none"), shown("sdx2", "none"))
    volumes = far.observe_far(found("disk"), Scope(Pool("p"), volumes=("sdx3",)), daemon).volumes
    assert {name: volume.format for name, volume in volumes.items()} == {"sdx1": None, "sdx2": None}


def test_what_is_declared_raw_is_raw():
    daemon = Daemon(shown("a", "qcow2", 8 * MIB))
    scope = Scope(Pool("p"), volumes=("a",), raw=frozenset({"a"}))
    volume = far.observe_far(found(), scope, daemon).volumes["a"]
    assert (volume.format, volume.capacity, volume.looks_like) == ("raw", 4096, "qcow2")


def test_backings_are_on_that_host_and_sources_on_this_one(tmp_path):
    here = tmp_path / "here"
    here.write_bytes(b"x" * 512)
    daemon = Daemon(shown("a"), elsewhere={"/there": shown("there", "qcow2", path="/there"), str(here): shown("no")})
    scope = Scope(Pool("p"), images=("a", "/there", "/none"), sources=(str(here), "/there/not", "a"))
    images = far.observe_far(found(), scope, daemon).images
    assert images["a"].volume.name == "a"
    assert images["/there"].volume.format == "qcow2"
    assert images["/none"].volume is None
    assert images[str(here)].volume.physical == 512
    assert images["/there/not"].volume is None


# -- users ----------------------------------------------------------------------------------------------------------


def users(stakes, daemon, host=None, **more):
    seen = far.observe_far(found(**more), Scope(Pool("p"), volumes=None), daemon)
    return far.far_users(seen, stakes, daemon, host or LocalHost(daemon_places(), 5))


def on_this_host(daemon, pid=None):
    """The engine of a daemon that sees our files."""
    engine = LibvirtEngine("qemu:///system", "", 5)
    engine.daemon, engine._pid = daemon, pid or os.getpid()
    return engine


def users_here(engine, stakes):
    return engine.observe_users(far.observe_far(found(), Scope(Pool("p"), volumes=None), engine.daemon), stakes)


def test_overlays_and_guests():
    texts = [shown("base"), shown("over", "qcow2", backing="/p/base"), shown("other")]
    guests = [guest("g", "/p/base"), guest("h", volumes=[("p", "other"), ("q", "base")]), "no xml"]
    seen = users({"base": EVERYTHING, "other": EVERYTHING}, Daemon(*texts, guests=guests))
    assert set(seen.users["base"]) == {User("overlay", "/p/over"), User("guest", "g")}
    assert seen.users["other"] == (User("guest", "h"),)
    assert any("processes" in text for text in seen.unseen)
    assert any("the definition of a guest" in text for text in seen.unseen)


def test_snapshots_and_directories_of_guests():
    share = "<domain><name>h</name><devices><filesystem><source dir='/p'/></filesystem></devices></domain>"
    memory = "<domainsnapshot><name>s</name><memory file='/p/a'/><domain><name>g</name></domain></domainsnapshot>"
    seen = users({"a": EVERYTHING, "b": EVERYTHING}, Daemon(shown("a"), shown("b"), guests=[memory, share]))
    assert seen.users["a"] == (User("guest", "g (snapshot s)"), User("guest", "h"))
    assert seen.users["b"] == (User("guest", "h"),)


@pytest.mark.parametrize("stake", [PIN, RUNNING])
def test_definitions_do_not_matter_for_what_is_only_changed(stake):
    seen = users({"a": stake}, Daemon(shown("a"), guests=[guest("g", "/p/a")]))
    assert seen.users["a"] == ()


def test_a_connection_without_guests_is_not_one_with_none():
    seen = users({"a": EVERYTHING}, Daemon(shown("a"), guests=None))
    assert any("guests" in text for text in seen.unseen)


def test_a_guest_that_was_defined_since_stands_in_the_way():
    host, daemon = LocalHost(daemon_places(), 5), Daemon(shown("a"), shown("b"), guests=[guest("g", "/p/b")])
    users({"a": EVERYTHING}, daemon, host=host)
    conditions = {2: (Condition("identity", "/p/a"), Condition("unused", "/p/a")), 4: (Condition("unused", "/p/b"),)}
    daemon.guest_texts = [guest("g", "/p/b"), guest("other", "/p/c")]
    assert host.broken_by_guests(conditions) == {}
    for new in (guest("new", "/p/a"), guest("new", volumes=[("p", "a")])):
        daemon.guest_texts = [guest("g", "/p/b"), new]
        broken = host.broken_by_guests(conditions)
        assert set(broken) == {2}
        assert (broken[2].code, "guest new" in broken[2].message) == ("changed_meanwhile", True)
        several = {0: (Condition("device_unused", "/p/a"), Condition("device_unused", "/p/c"))}
        assert set(host.broken_by_guests(several)) == {0}
    assert host.broken_by_guests({0: (Condition("identity", "/p/a"),)}) == {}


@pytest.mark.parametrize("stake", [RUNNING, EVERYTHING])
def test_who_has_a_file_open_is_looked_at_where_it_is_on_this_host(tmp_path, stake):
    file = tmp_path / "a"
    file.touch()
    with file.open("rb") as stdin, subprocess.Popen(["sleep", "60"], stdin=stdin) as reader:
        seen = users_here(on_this_host(Daemon(shown("a", path=str(file)))), {"a": stake})
        reader.kill()
    assert [user.kind for user in seen.users["a"]] == ["process"]
    assert not any("processes, mounts" in text for text in seen.unseen)


def test_what_is_on_this_host_is_asked_for_once_and_watched_once(tmp_path):
    files = {name: str(tmp_path / name) for name in ("a", "b")}
    for path in files.values():
        open(path, "w", encoding="ascii").close()
    texts = [shown("a", path=files["a"]), shown("b", "qcow2", path=files["b"], backing=files["a"])]
    engine = on_this_host(Daemon(*texts, guests=[guest("g", files["a"]), guest("h", volumes=[("p", "a")])]))
    seen = users_here(engine, {"a": EVERYTHING})
    assert set(seen.users["a"]) == {User("guest", "g"), User("guest", "h"), User("overlay", files["b"])}
    assert engine.daemon.read_guests == 1
    engine.daemon.guest_texts = [*engine.daemon.guest_texts, guest("new", files["a"])]
    broken = engine.broken({0: (Condition("unused", files["a"]),)})
    assert "guest new" in broken[0].message
    assert engine.daemon.read_guests == 2


def test_of_what_does_not_answer_no_volume_is_touched(monkeypatch):
    engine = on_this_host(Daemon(shown("a", path="/dead/a")))
    engine.host.servers = SimpleNamespace(silent=lambda path: path)
    monkeypatch.setattr(os.path, "exists", lambda path: pytest.fail(f"{path} was touched"))
    seen = users_here(engine, {"a": RUNNING})
    assert any("processes, mounts" in text for text in seen.unseen)


def logical():
    """A group of which the daemon runs volumes."""
    storage = Storage(UNSEEN, "/dev/vg")
    group = Pool("p", "logical", path="/dev/vg", source=Source(name="vg"))
    return Found("p", definition=group, live=group, started=True, active=True, storage=storage, current=storage)


BUSY = ((User("process", "x"),), ("what is hidden",))


def test_who_keeps_a_mount_is_looked_for_where_it_runs_and_as_the_daemon_sees_it(monkeypatch):
    asked = []
    monkeypatch.setattr(mount_users, "users_at", lambda *words: asked.append(words) or BUSY)
    engine = on_this_host(Daemon())
    runs = replace(found(), live=replace(pool(), path="/old"))
    seen = engine.observe_users(runs, {ITSELF: RUNNING})
    assert (seen.current.busy, seen.unseen) == BUSY
    assert asked == [("/old", str(os.getpid()))]


def test_who_has_volumes_of_a_group_open_is_looked_for_as_without_a_daemon(monkeypatch):
    monkeypatch.setattr(logical_backend, "busy", lambda pool, storage, look: BUSY)
    seen = on_this_host(Daemon()).observe_users(logical(), {ITSELF: RUNNING})
    assert (seen.current.busy, seen.unseen) == BUSY


def test_what_we_lack_to_look_at_a_group_keeps_no_daemon_from_stopping_it(monkeypatch):
    def lacking(pool, storage, look):
        raise StorageError("tool_missing", "there is no lvm")

    monkeypatch.setattr(logical_backend, "busy", lacking)
    seen = on_this_host(Daemon()).observe_users(logical(), {ITSELF: RUNNING})
    assert (seen.current.busy, seen.unseen) == ((), ("who uses /dev/vg (there is no lvm)",))


@pytest.mark.parametrize("there", [found(), logical()], ids=["mount", "group"])
def test_who_uses_what_is_on_another_host_is_not_looked_for_here(monkeypatch, there):
    monkeypatch.setattr(mount_users, "users_at", lambda *words: BUSY)
    monkeypatch.setattr(logical_backend, "busy", lambda pool, storage, look: BUSY)
    engine = LibvirtEngine("qemu+ssh://h/system", "", 5)
    engine.daemon = Daemon()
    assert engine.observe_users(there, {ITSELF: RUNNING}) == there


# -- calls ----------------------------------------------------------------------------------------------------------


def lowered(*changes, kind="fs", device="/dev/sdx", label=None, **more):
    seen = found(kind, **more)
    source = Source(devices=(SourceDevice(device),), format=label)
    seen = replace(seen, definition=replace(seen.definition, source=source))
    return calls.Calls("test:///x", None, seen, changes).of_volumes(changes)


def change(action, name="v", destroys="", needs=(), **wanted):
    return Change(Subject("p", name), action, "", None, None, Volume(name, **wanted), destroys=destroys, needs=needs)


def verbs(steps):
    return [[getattr(op, "verb", None) or op.argv[0] for op in step.operations] for step in steps]


@pytest.mark.parametrize(
    ("kind", "made", "expected"),
    [
        ("fs", change("create", capacity=MIB, format="raw"), ["vol-create"]),
        ("fs", change("create", capacity=1536, format="qcow2"), ["vol-create", "vol-resize"]),
        ("fs", change("create", capacity=MIB, format="raw", content=Content(data=b"x")), ["vol-create", "vol-upload"]),
        ("fs", change("recreate", capacity=MIB, format="raw"), ["vol-delete", "vol-create"]),
        (
            "fs",
            change("create", capacity=2 * MIB, format="qcow2", content=Content(volume="b", capacity=MIB)),
            ["vol-create-from", "vol-resize"],
        ),
        (
            "fs",
            change("create", capacity=2 * MIB, format="raw", content=Content(volume="b", capacity=MIB)),
            ["vol-create-from"],
        ),
        (
            "rbd",
            change("create", capacity=2 * MIB, format="raw", content=Content(volume="b", capacity=MIB)),
            ["vol-create-from", "vol-resize"],
        ),
        (
            "rbd",
            change("create", capacity=MIB, format="raw", content=Content(volume="b", capacity=MIB)),
            ["vol-create-from"],
        ),
        ("logical", change("create", capacity=2 * MIB, content=Content(volume="b", capacity=MIB)), ["vol-create-from"]),
        ("fs", change("resize", capacity=MIB), ["vol-resize"]),
        ("fs", change("delete"), ["vol-delete"]),
        ("disk", change("delete", "sdx1"), ["vol-delete"]),
    ],
)
def test_the_calls_of_a_change(kind, made, expected):
    assert verbs(lowered(made, kind=kind)) == [expected]


def test_partitions_that_libvirt_cannot_delete():
    (step,) = lowered(change("delete", "nvme0n1p3"), kind="disk", device="/dev/nvme0n1")
    run, refresh = step.operations
    assert isinstance(run, Run)
    assert run.argv == ("parted", "--script", "/dev/nvme0n1", "rm", "3")
    assert isinstance(refresh, DaemonCall)
    assert refresh.verb == "pool-refresh"


def order(*changes, **pool):
    """What each step needs, and what it only comes after."""
    return [(step.needs, step.after) for step in lowered(*changes, **pool)]


def test_what_is_cut_from_one_device_is_cut_in_order():
    """A daemon numbers new partitions by itself; without one that failed, the next would be another one."""
    names = ("sdx1", "sdx2", "sdx3")
    made = [change("create", name, capacity=MIB) for name in names]
    assert order(*made, kind="disk") == [((), ()), ((0,), (0,)), ((0, 1), (1,))]
    assert order(*made, kind="logical") == [((), ()), ((), (0,)), ((), (1,))]
    gone = [change("delete", name) for name in names]
    assert order(*gone, kind="disk") == [((), ()), ((0,), (0,)), ((0, 1), (1,))]
    assert order(*gone, kind="disk", label="gpt") == [((), ()), ((), (0,)), ((), (1,))]
    assert order(made[0], gone[1], made[2], kind="disk", label="gpt") == [((), ()), ((), (0,)), ((0, 1), (1,))]
    files = lowered(*(change("create", name, capacity=MIB) for name in names))
    assert [step.needs for step in files] == [(), (), ()]
    chain = lowered(change("create", "a", capacity=MIB), change("create", "b", capacity=MIB, needs=("a",)))
    assert [step.needs for step in chain] == [(), (0,)]


@pytest.mark.parametrize(("kind", "words"), [("zfs", ("build", "sized")), ("logical", ("build",))])
def test_what_a_daemon_starts_on_nothing_must_have_a_size(kind, words):
    pool = Pool("p", kind, source=Source(name="tank"))
    found = Found("p", definition=pool, storage=Storage(UNSEEN, None, ""))
    start = Change(Subject("p"), "start", "start it", {}, {}, pool, may=frozenset({"build"}))
    (call,) = calls.Calls("u", None, found, [start]).of_pool(start)
    assert call.words == words


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ((), "virsh -c u pool-start p"),
        (("check",), "virsh -c u pool-start p"),
        (("first",), "virsh -c u pool-build p && virsh -c u pool-start p"),
        (("directory",), "virsh -c u pool-start p || ( virsh -c u pool-build p && virsh -c u pool-start p )"),
        (
            ("build",),
            "virsh -c u pool-start p || ( virsh -c u pool-build p --no-overwrite && virsh -c u pool-start p )",
        ),
        (
            ("build", "overwrite"),
            "virsh -c u pool-start p || ( ( virsh -c u pool-build p --no-overwrite || "
            "virsh -c u pool-build p --overwrite ) && virsh -c u pool-start p )",
        ),
    ],
)
def test_starting_as_a_command(words, command):
    assert DaemonCall("pool-start", "u", "p", words=words).command == command


@pytest.mark.parametrize(
    ("kind", "removed", "holds"),
    [
        ("logical", (), (("a", "b"), 3 * MIB)),
        ("logical", ("a",), (("b",), 2 * MIB)),
        ("zfs", (), (("a", "b"), None)),  # the bytes in use change all the time
        ("dir", (), None),  # nothing but what is listed is removed
    ],
)
def test_what_a_pool_that_goes_must_hold_is_looked_at_just_before(kind, removed, holds):
    """A daemon deletes a whole volume group, and remembers only what was in it when it last looked."""
    volumes = {name: Volume(name, type="block", path=f"/dev/v/{name}", allocation=MIB) for name in ("a", "b")}
    seen = replace(found(kind), volumes=volumes, usage=Usage(9 * MIB, 3 * MIB, 6 * MIB))
    stop, delete = (Change(Subject("p"), action, "", wanted=pool(kind)) for action in ("stop", "delete"))
    gone = [Change(Subject("p", name), "delete", "", wanted=volumes[name]) for name in removed]
    changes = [*gone, stop, *([delete] if kind != "dir" else [])]
    done = calls.Calls("test:///x", None, seen, changes).of_pool(stop)
    expected = [] if holds is None else [("pool-refresh", holds)]
    assert [(call.verb, call.holds) for call in done] == [*expected, ("pool-destroy", None)]
