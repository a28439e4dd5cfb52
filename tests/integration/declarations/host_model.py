# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What should be: a small model of a host with directory pools, and what a declared task should do to it.

It is written from the design, and shares nothing with the modules. A prediction has either the codes that the task may
be refused with (where several faults meet, which of them is told first is left open), or the actions that should be
planned and the host that should be there afterwards.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from .declared import Backing, Hand, Options, PoolTask, Source, VolumeTask, means

MISSING = frozenset({"pool_missing", "pool_inactive", "backing_missing", "source_missing"})
DIRECTORY_MODE, VOLUME_MODE = 0o711, 0o600
QCOW2_UNIT = 512
QCOW2_OPTIONS = ("compat", "cluster_size", "lazy_refcounts", "extended_l2")


@dataclass
class File:
    """Something in a directory. ``content`` is how it reads, less the zeros at its end; None: that is not followed."""

    kind: str = "file"  # or fifo, dir
    format: str = "raw"
    capacity: int = 0
    mode: int = VOLUME_MODE
    uid: int = 0
    gid: int = 0
    backing: tuple[str, str] | None = None
    compat: str | None = None
    cluster_size: int | None = None
    lazy_refcounts: bool | None = None
    extended_l2: bool | None = None
    content: bytes | None = b""
    physical: int | None = None  # of qcow2 images: learned by looking
    rest: bool = False  # a qcow2 image that was shrunk to the middle of a cluster
    broken: bool = False  # what it is built on went away or was made anew, with leave
    pretends: bool = False  # raw, and begins as a qcow2 image does

    def read(self, length: int) -> bytes | None:
        return None if self.content is None else self.content[:length].ljust(min(length, self.capacity), b"\0")


@dataclass
class Directory:
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    made: bool = False
    files: dict[str, File] = field(default_factory=dict)


@dataclass
class Pool:
    type: str
    path: str
    uuid: str | None = None  # None: not known yet
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    autostart: bool = False
    started: bool = False


@dataclass
class Host:
    """``images`` are what lies outside the pools, by path; ``links`` lead from a path to a directory's."""

    pools: dict[str, Pool] = field(default_factory=dict)
    directories: dict[str, Directory] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    images: dict[str, File] = field(default_factory=dict)
    plain_files: tuple[str, ...] = ()  # paths that are not directories
    notes: set[str] = field(default_factory=set)  # paths of directories that we made and somebody else removed
    uid: int = field(default_factory=os.geteuid)
    gid: int = field(default_factory=os.getegid)

    def resolve(self, path: str | None) -> str | None:
        return None if path is None else self.links.get(path, path)

    def kind(self, path: str) -> str:
        """ready, absent or foreign."""
        if self.resolve(path) in self.directories:
            return "ready"
        return "foreign" if path in self.links or path in self.plain_files else "absent"

    def directory(self, path: str | None) -> Directory | None:
        return self.directories.get(self.resolve(path) or "")

    def active(self, pool: Pool | None) -> bool:
        return pool is not None and pool.type == "dir" and pool.started and self.directory(pool.path) is not None

    def file(self, path: str) -> File | None:
        if path in self.images:
            return self.images[path]
        head, tail = os.path.split(path)
        directory = self.directory(head)
        return None if directory is None else directory.files.get(tail)

    def same_file(self, one: str, other: str) -> bool:
        return self.real(one) == self.real(other)

    def real(self, path: str) -> str:
        head, tail = os.path.split(path)
        return os.path.join(self.resolve(head) or "", tail)

    def overlays(self, path: str) -> Iterator[str]:
        """The files, in directories of pools, whose headers name ``path`` as what they are built on."""
        for home in {self.resolve(pool.path) for pool in self.pools.values()} | {os.path.dirname(self.real(path))}:
            directory = self.directories.get(home or "")
            for name, file in directory.files.items() if directory else ():
                if file.backing is not None and self.same_file(file.backing[0], path):
                    yield os.path.join(home or "", name)


@dataclass
class Prediction:
    """``codes`` empty: it is done. ``actions`` count (action, subject). ``told`` is why nothing is foreseen but that
    check mode and real run agree. ``always``: it changes something on every run."""

    codes: frozenset[str]
    actions: Counter
    after: Host
    told: str = ""
    always: bool = False

    @property
    def refused(self) -> bool:
        return bool(self.codes)


class _Work:
    """Collects what a task comes to."""

    def __init__(self, host: Host) -> None:
        self.before, self.after = host, copy.deepcopy(host)
        self.codes: set[str] = set()
        self.actions: Counter = Counter()
        self.told = ""
        self.always = False

    def done(self) -> Prediction:
        if self.codes:
            return Prediction(frozenset(self.codes), Counter(), self.before, self.told)
        return Prediction(frozenset(), self.actions, self.after, self.told, self.always)


def predict(host: Host, task: PoolTask | VolumeTask) -> Prediction:
    work = _Work(host)
    work.codes = {value.code for value in task.values() if value.code}
    if isinstance(task, PoolTask):
        _pool(work, task)
    else:
        _volumes(work, task)
    return work.done()


def by_hand(host: Host, hand: Hand) -> None:
    directory = host.directories.get(hand.path)
    if hand.what == "reboot":
        for pool in host.pools.values():
            pool.started = False
    elif hand.what == "remove directory":
        if host.directories.pop(hand.path).made:
            host.notes.add(hand.path)
        _mark_broken(host)
    elif directory is not None:
        if hand.what == "chmod":
            directory.files[hand.name].mode = hand.mode
        elif hand.what == "remove":
            directory.files.pop(hand.name)
            _mark_broken(host)
        elif hand.what == "fifo":
            directory.files[hand.name] = File("fifo")
        elif hand.what == "mkdir":
            directory.files[hand.name] = File("dir")
        elif hand.what == "grow":
            directory.files[hand.name].capacity += hand.mode
        elif hand.what == "chmod directory":
            directory.mode = hand.mode


def _mark_broken(host: Host) -> None:
    for directory in host.directories.values():
        for file in directory.files.values():
            if file.backing is not None and (chain_end(host, file.backing[0]) != "whole" or below_broken(host, file)):
                file.broken, file.content = True, None


def below_broken(host: Host, file: File) -> bool:
    below = host.file(file.backing[0]) if file.backing else None
    return below is not None and below.broken


def chain_end(host: Host, path: str, above: str = "") -> str:
    """whole, missing, or loop (when ``above`` is met on the way down)."""
    for _unused in range(20):
        if above and host.same_file(path, above):
            return "loop"
        file = host.file(path)
        if file is None:
            return "missing"
        if file.backing is None:
            return "whole"
        path = file.backing[0]
    return "loop"


# -- pools --------------------------------------------------------------------------------------------------------


def _pool(work: _Work, task: PoolTask) -> None:
    host, name, state = work.before, task.name.means, task.wanted_state
    path = task.path.means if task.path else None
    if state == "deleted" and (task.type is None or (path is None and not task.source)):
        work.codes.add("missing_option")
    if task.type == "dir" and task.source:
        work.codes.add("invalid_option")
    if work.codes:
        return
    pool = host.pools.get(name)
    uuid = task.uuid.means if task.uuid else None
    if pool is None and uuid and any(other.uuid == uuid for other in host.pools.values()):
        work.codes.add("uuid_conflict")
    if pool is not None and uuid and uuid != pool.uuid:
        work.codes.add("uuid_conflict")
    if pool is not None and task.type and task.type != pool.type:
        work.codes.add("identity_change")
    if state == "absent":
        _stop(work, name)
        _undefine(work, name)
    elif state == "deleted":
        _pool_deleted(work, task, path)
    elif pool is None and task.type is None:
        work.codes.add("pool_missing")
    else:
        _pool_defined(work, task, path, uuid)


def _act(work: _Work, action: str, name: str) -> None:
    work.actions[(action, f"pool {name}")] += 1


def _stop(work: _Work, name: str) -> None:
    pool = work.after.pools.get(name)
    if pool is not None and pool.started:
        pool.started = False
        _act(work, "stop", name)


def _undefine(work: _Work, name: str) -> None:
    if work.after.pools.pop(name, None) is not None:
        _act(work, "undefine", name)


def _pool_deleted(work: _Work, task: PoolTask, path: str) -> None:
    host, name = work.before, task.name.means
    pool, kind = host.pools.get(name), host.kind(path)
    if task.type != "dir" or (pool is not None and pool.type != "dir"):
        work.codes.add("backend_missing")
        return
    if pool is None and (kind == "foreign" or _claimed(host, name, path)):
        return  # it is gone, and something else is there by now
    if pool is not None and host.resolve(pool.path) != host.resolve(path):
        work.codes.add("identity_change")
    if kind == "foreign":
        work.codes.add("storage_foreign")
        if pool is not None and pool.path != path:
            work.codes.add("identity_change")
        return
    directory = host.directory(path)
    if _claimed(host, name, path):
        work.codes.add("source_conflict")
    _stop(work, name)
    if directory is not None:
        home = host.resolve(path) or ""
        if directory.files:
            if pool is None:
                work.codes.add("pool_undefined")
            if any(file.kind != "file" for file in directory.files.values()):
                work.codes.add("pool_foreign_content")
            if "nonempty" not in task.allow:
                work.codes.add("pool_nonempty")
            users = {user for file in directory.files for user in host.overlays(os.path.join(home, file))}
            if any(os.path.dirname(user) != home for user in users):
                work.codes.add("volume_backing")
        for file in directory.files:
            work.actions[("delete", f"volume {name}/{file}")] += 1
        left = work.after.directories[home]
        left.files.clear()
        if directory.made and path == home:
            del work.after.directories[home]
            _act(work, "delete", name)
    elif path in host.notes:  # all that is left of it
        work.after.notes.discard(path)
        _act(work, "delete", name)
    _undefine(work, name)
    _mark_broken(work.after)


def _claimed(host: Host, name: str, path: str) -> bool:
    """Whether it is the directory of another pool."""
    others = (pool for other, pool in host.pools.items() if other != name)
    return any(host.resolve(pool.path) == host.resolve(path) for pool in others)


def _pool_defined(work: _Work, task: PoolTask, path: str | None, uuid: str | None) -> None:
    host, name, state = work.before, task.name.means, task.wanted_state
    have = host.pools.get(name)
    if have is None and path is None:
        work.codes.add("missing_option")
        return
    if have is None and task.type == "vstorage" and not task.source:
        work.codes.add("missing_option")
    want = copy.copy(have) if have is not None else Pool(task.type or "", path or "", uuid)
    for field_name, said in (("mode", task.mode), ("uid", task.owner), ("gid", task.group)):
        if said is not None:
            setattr(want, field_name, said.means)
    moved = have is not None and path is not None and host.resolve(path) != host.resolve(have.path)
    if have is not None and path is not None and path != have.path and not moved and host.kind(path) != "ready":
        work.told = "the same directory by another path, while it is not there"
    if moved:
        want.path = path or ""
    if (have is None or moved) and _claimed(host, name, want.path):
        work.codes.add("source_conflict")
    restart = moved and have.started and state != "inactive"
    if restart and host.active(have) and "restart" not in task.allow:
        work.codes.add("restart_needed")
    if restart or state == "inactive":
        _stop(work, name)
    work.after.pools[name] = want
    if have is None:
        _act(work, "define", name)
    elif (want.mode, want.uid, want.gid, want.path) != (have.mode, have.uid, have.gid, have.path):
        _act(work, "redefine", name)
    if have is not None:
        want.started = have.started
    up = state == "active" or (restart and state == "present")
    if up and want.type != "dir":
        work.codes.add("backend_missing")
        return
    if up:
        _build(work, task, want)
    if up or (state == "present" and host.active(have) and not moved):
        _directory_permissions(work, name, want)
    if up and (restart or not host.active(have)):
        _act(work, "start", name)
    if state == "inactive":
        want.started = False
    elif up:
        want.started = True
    if task.autostart is not None and task.autostart != want.autostart:
        want.autostart = task.autostart
        _act(work, "autostart", name)


def _build(work: _Work, task: PoolTask, want: Pool) -> None:
    kind = work.before.kind(want.path)
    if kind == "foreign":
        work.codes.add("storage_foreign")
    elif kind == "absent" and task.build == "never":
        work.codes.add("source_missing")
    elif kind == "absent":
        _act(work, "build", task.name.means)
        work.after.notes.discard(want.path)
        work.after.directories[want.path] = Directory(
            DIRECTORY_MODE if want.mode is None else want.mode,
            work.before.uid if want.uid is None else want.uid,
            work.before.gid if want.gid is None else want.gid,
            made=True,
        )


def _directory_permissions(work: _Work, name: str, want: Pool) -> None:
    if work.before.kind(want.path) != "ready":
        return
    directory = work.after.directories[work.after.resolve(want.path) or ""]
    differs = False
    for field_name in ("mode", "uid", "gid"):
        value = getattr(want, field_name)
        if value is not None and value != getattr(directory, field_name):
            setattr(directory, field_name, value)
            differs = True
    if differs:
        _act(work, "permissions", name)


# -- volumes ------------------------------------------------------------------------------------------------------


@dataclass
class _Entry:
    name: str
    state: str
    format: str | None
    capacity: int | None
    at_least: bool
    permissions: dict[str, int]
    backing: Backing | None
    source: Source | None
    options: dict[str, Any]
    allow: frozenset[str]
    recreate: str
    allocation: int | None


def _entry(name: str, options: Options) -> _Entry:
    said = {key: means(value) for key, value in options.items()}
    inner = {key: means(value) for key, value in (said.get("options") or {}).items()}
    permissions = {"mode": said.get("mode"), "uid": said.get("owner"), "gid": said.get("group")}
    return _Entry(
        name, said.get("state") or "present", said.get("format"), said.get("capacity"),
        said.get("capacity_policy") == "at_least", {k: v for k, v in permissions.items() if v is not None},
        said.get("backing"), said.get("source"), inner, said.get("allow") or frozenset(),
        said.get("recreate") or "never", said.get("allocation"),
    )  # fmt: skip


class _Volumes:
    """One task on the volumes of one pool."""

    def __init__(self, work: _Work, task: VolumeTask) -> None:
        self.work, self.pool = work, task.pool.means
        pool = work.before.pools.get(self.pool)
        self.known = pool is not None
        self.path = pool.path if pool is not None else ""
        directory = work.before.directory(self.path)
        self.files = directory.files if directory is not None else {}
        self.entries = {name.means: _entry(name.means, options) for name, options in task.effective()}
        self.extra = sorted(
            name for name, file in self.files.items()
            if task.exclusive is not None and name not in self.entries and file.kind == "file"
            and fnmatchcase(name, task.exclusive)
        )  # fmt: skip
        self.doomed = {name for name, entry in self.entries.items() if entry.state == "absent"} | set(self.extra)
        after = work.after.directory(self.path)
        self.after = after.files if after is not None else {}
        self.done: set[str] = set()
        self.destroyed: dict[str, frozenset[str]] = {}  # shrunk, made anew or removed, with the words for it
        self.moved: dict[str, str] = {}  # what is made, made anew or rebased
        self.copied: set[str] = set()  # made from a source

    def refuse(self, *codes: str) -> None:
        self.work.codes.update(codes)

    def act(self, action: str, name: str) -> None:
        self.work.actions[(action, f"volume {self.pool}/{name}")] += 1

    def named(self, reference: Backing | Source) -> str:
        """The name, where the reference leads to a volume of the pool, be it by its path."""
        if reference.path is not None and self.known:
            head, tail = os.path.split(self.work.before.real(reference.path))
            return tail if head == self.work.before.resolve(self.path) else ""
        return reference.volume or ""

    def at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def users(self, name: str) -> list[str]:
        """Overlays that stay."""
        going = {self.work.before.real(self.at(other)) for other in self.doomed}
        going |= {self.work.before.real(self.at(other)) for other in self.moved if not self.ends_on(other, name)}
        return [user for user in self.work.before.overlays(self.at(name)) if user not in going]

    def ends_on(self, name: str, other: str, host: Host | None = None) -> bool:
        """Whether a volume is built on another one, in the end, or on ``host``."""
        host = host or self.work.after
        path = self.at(name)
        for _unused in range(20):
            file = host.file(path)
            if file is None or file.backing is None:
                return False
            path = file.backing[0]
            if host.same_file(path, self.at(other)):
                return True
        return True


def _volumes(work: _Work, task: VolumeTask) -> None:
    names = [name.means for name, _unused in task.effective()]
    if len(set(names)) != len(names):
        work.codes.add("duplicate_volume")
    if not names and task.exclusive is not None:
        work.codes.add("invalid_option")
    if work.codes:
        return
    pool = work.before.pools.get(task.pool.means)
    volumes = _Volumes(work, task)
    if pool is None:
        if task.exclusive is not None or any(entry.state != "absent" for entry in volumes.entries.values()):
            work.codes.add("pool_missing")
    elif pool.type != "dir":
        work.codes.add("backend_missing")
        return
    elif not work.before.active(pool):
        work.codes.add("pool_inactive")
    for name in volumes.entries:
        _visit(volumes, name, ())
    for name in volumes.extra:
        _volume_absent(volumes, name, frozenset())
    _settle_bases(volumes)
    if pool is None:  # what could not be looked at is no reason to refuse
        work.codes.discard("capacity_missing")
    _mark_broken(work.after)


def _visit(volumes: _Volumes, name: str, above: tuple[str, ...]) -> None:
    """What it is made from before it; a loop is refused."""
    if name in above:
        volumes.refuse("backing_loop")
        return
    if name in volumes.done or name not in volumes.entries:
        return
    entry = volumes.entries[name]
    if entry.state == "present":
        for below in (entry.backing, entry.source):
            if below is not None and volumes.named(below):
                _visit(volumes, volumes.named(below), (*above, name))
    if name in volumes.done:
        return
    volumes.done.add(name)
    if entry.state == "absent":
        _volume_absent(volumes, name, entry.allow)
    else:
        _volume_present(volumes, entry)


def _volume_absent(volumes: _Volumes, name: str, allow: frozenset[str]) -> None:
    file = volumes.files.get(name)
    if file is None:
        return
    if file.kind != "file":
        volumes.refuse("volume_foreign")
        return
    volumes.destroyed[name] = allow
    volumes.act("delete", name)
    volumes.after.pop(name, None)


def _settle_bases(volumes: _Volumes) -> None:
    """What is built on what loses its content, once all is known that the task moves: those overlays go first."""
    work, before = volumes.work, volumes.work.before
    leaving = [name for name in volumes.moved if name in volumes.files and volumes.files[name].backing is not None]
    if volumes.destroyed and leaving and (volumes.copied or (len(volumes.destroyed) > 1 and len(leaving) > 1)):
        work.told = "bases that change under overlays that move, in an order that is not foreseen"
    for name, allow in volumes.destroyed.items():
        if "backing" not in allow and (volumes.users(name) or (work.codes and any(before.overlays(volumes.at(name))))):
            volumes.refuse("volume_backing")
        for moved, action in volumes.moved.items():
            if not volumes.ends_on(moved, name):
                continue
            if volumes.ends_on(moved, moved):  # and so on all that is below it
                volumes.refuse("backing_loop")
            if name in volumes.doomed:
                volumes.refuse("parent_removed")
            elif action == "rebase" and volumes.ends_on(moved, name, before):
                volumes.refuse("no_order")
        _spoil_overlays(volumes, name, volumes.moved.get(name) == "recreate", set())


def _round(size: int, fmt: str) -> int:
    return -(-size // QCOW2_UNIT) * QCOW2_UNIT if fmt == "qcow2" else size


def _volume_present(volumes: _Volumes, entry: _Entry) -> None:
    have = volumes.files.get(entry.name)
    if have is None:
        _create(volumes, entry, "create")
        return
    if have.kind != "file":
        volumes.refuse("volume_foreign")
        return
    after = volumes.after[entry.name]
    if have.pretends and entry.format != "raw":
        volumes.work.told = "a raw volume that looks like another format"
    if have.format == "qcow2" and entry.format == "raw":
        # What is declared raw is taken for raw, whatever it begins with: a guest may have written that.
        have = replace(
            have, format="raw", capacity=have.physical or 0, backing=None, content=None, compat=None, cluster_size=None,
            lazy_refcounts=None, extended_l2=None,
        )  # fmt: skip
    stuck = _stuck(volumes, entry, have)
    if entry.recreate == "always" or (entry.recreate == "needed" and stuck):
        volumes.destroyed[entry.name] = entry.allow
        volumes.moved[entry.name] = "recreate"
        volumes.work.always = volumes.work.always or entry.recreate == "always"
        if have.pretends:
            volumes.work.told = "a raw volume that looks like another format"
        _create(volumes, entry, "recreate", replace(have, capacity=volumes.files[entry.name].capacity))
    elif stuck:
        volumes.refuse("volume_differs")
        if entry.format == "raw" and any(value is not None for value in entry.options.values()):
            volumes.refuse("invalid_option")
    else:
        _adjust(volumes, entry, have, after if have.format == after.format else replace(have))
        if volumes.work.actions[("resize", f"volume {volumes.pool}/{entry.name}")]:
            if have.format != after.format:
                volumes.refuse("format_mismatch")
            elif have.pretends:
                volumes.work.told = "a raw volume that looks like another format"
        for field_name, value in entry.permissions.items():
            setattr(volumes.after[entry.name], field_name, value)


def _spoil_overlays(volumes: _Volumes, name: str, broken: bool, met: set[str]) -> None:
    """They were built on what is there no more, and still are."""
    was = {volumes.work.before.real(path) for path in volumes.work.before.overlays(volumes.at(name))}
    for path in list(volumes.work.after.overlays(volumes.at(name))):
        file, overlay = volumes.work.after.file(path), os.path.basename(path)
        home = os.path.dirname(path) == volumes.work.before.resolve(volumes.path)
        new = home and volumes.moved.get(overlay) == "recreate"
        if file is None or path not in was or path in met or new:
            continue
        file.content = None
        file.broken = file.broken or broken
        _spoil_overlays(volumes, overlay, broken, met | {path})


def _stuck(volumes: _Volumes, entry: _Entry, have: File) -> bool:
    """Whether something differs that can't be changed on the volume as it is."""
    if entry.format is not None and entry.format != have.format:
        return True
    for name in QCOW2_OPTIONS:
        want, has = entry.options.get(name), getattr(have, name)
        in_place = have.format == "qcow2" and name in ("compat", "lazy_refcounts")
        if want is not None and not in_place and (bool(has) if isinstance(want, bool) else has) != want:
            return True
    if entry.backing is not None and have.format != "qcow2":
        return True
    if entry.source is not None and entry.source.content is not None:
        data = entry.source.content.encode()
        if have.format == "qcow2":
            return True
        found = have.read(len(data))
        if found is None:
            volumes.work.told = "content that is not followed"
            return False
        return found != data
    return False


def _adjust(volumes: _Volumes, entry: _Entry, have: File, after: File) -> None:
    work, whole = volumes.work, True
    changes = []
    if have.format == "qcow2":
        target = {name: entry.options.get(name) for name in ("compat", "lazy_refcounts")}
        if any(value is not None and value != getattr(have, name) for name, value in target.items()):
            changes.append("amend")
            for name, value in target.items():
                if value is not None:
                    setattr(after, name, value)
            if after.compat == "0.10" and (after.lazy_refcounts or after.extended_l2):
                volumes.refuse("invalid_option")
        if entry.backing is not None and not _same_backing(volumes, entry.backing, have):
            changes.append("rebase")
            volumes.moved.setdefault(entry.name, "rebase")
            if "backing" not in entry.allow:
                volumes.refuse("volume_differs")
            below = _below(volumes, entry, after)
            if below is not None:
                after.backing = below[:2]
                _check_taken_for_what_it_is(volumes, entry.backing, below)
        whole = have.backing is None or chain_end(work.before, have.backing[0]) == "whole"
    capacity = entry.capacity
    if capacity is not None and not _capacity_met(entry, have):
        changes.append("resize")
        size = _round(capacity, have.format)
        if size < have.capacity:
            if "shrink" not in entry.allow:
                volumes.refuse("shrink_refused")
            if size == 0 and have.format == "qcow2":
                volumes.refuse("invalid_size")
            if "shrink" in entry.allow:
                volumes.destroyed[entry.name] = entry.allow
        if size > have.capacity and have.rest:
            after.content = None  # qemu-img kept the rest of what was the last cluster, and shows it again
        after.rest = have.format == "qcow2" and size < have.capacity and size % (have.cluster_size or 65536) > 0
        after.capacity = size
        if after.content is not None:
            after.content = after.content[:size].rstrip(b"\0")
    if changes and have.format == "qcow2":
        if not whole:
            volumes.refuse("backing_missing")
        elif have.broken:
            work.told = "an overlay whose backing was changed under it"
    if any(getattr(have, name) != value for name, value in entry.permissions.items()):
        changes.append("permissions")
        for name, value in entry.permissions.items():
            setattr(after, name, value)
    for action in changes:
        volumes.act(action, entry.name)


def _check_taken_for_what_it_is(volumes: _Volumes, backing: Backing, below: tuple[str, str, int | None]) -> None:
    """What the volume is built on already, qemu-img takes for what it was: no other format will do."""
    there = volumes.work.before.file(below[0])
    if there is not None and below[1] == "raw" and (there.format != "raw" or there.pretends):
        declared = volumes.entries.get(volumes.named(backing))
        if there.pretends or (declared is not None and declared.format == "raw"):
            volumes.work.told = "a backing that looks like another format"
        else:
            volumes.refuse("format_mismatch")


def _capacity_met(entry: _Entry, have: File) -> bool:
    if entry.at_least:
        return have.capacity >= (entry.capacity or 0)
    unit = QCOW2_UNIT if have.format == "qcow2" else 1
    return (entry.capacity or 0) <= have.capacity < (entry.capacity or 0) + unit


def _same_backing(volumes: _Volumes, backing: Backing, have: File) -> bool:
    if have.backing is None:
        return False
    path = backing.path or volumes.at(backing.volume or "")
    return volumes.work.before.same_file(path, have.backing[0]) and backing.format in (None, have.backing[1])


def _below(volumes: _Volumes, entry: _Entry, own: File) -> tuple[str, str, int | None] | None:
    """(path, format, capacity) of what the volume is to be built on; None where that is refused."""
    backing, host = entry.backing, volumes.work.before
    assert backing is not None
    path = backing.path or volumes.at(backing.volume or "")
    declared = volumes.entries.get(volumes.named(backing))
    there = host.file(path) if backing.path or volumes.known else None
    if volumes.named(backing) in volumes.extra:
        volumes.refuse("parent_removed", "volume_backing")
    if declared is not None and declared.state == "absent":
        volumes.refuse("parent_removed")
        return None
    if declared is not None and there is None:
        made = volumes.after.get(declared.name)
        if made is None:  # refused itself; what was said of it may not fit either
            volumes.refuse("format_mismatch", "capacity_too_small")
            return None
        if backing.format not in (None, made.format):
            volumes.refuse("format_mismatch")
        return path, made.format, made.capacity
    if there is None:
        volumes.refuse("backing_missing")
        if host.same_file(path, volumes.at(entry.name)):
            volumes.refuse("backing_loop")
        return None
    return _existing_below(volumes, entry, path, there, declared)


def _existing_below(
    volumes: _Volumes, entry: _Entry, path: str, there: File, declared: _Entry | None
) -> tuple[str, str, int | None] | None:
    assert entry.backing is not None
    if there.kind != "file":
        volumes.refuse("backing_refused")
        return None
    if declared is not None and volumes.after.get(declared.name) != there:
        volumes.work.told = "a backing that the same task changes"
    said = entry.backing.format or (declared.format if declared is not None else None)
    if said == "raw":
        return path, "raw", there.physical if there.format != "raw" else there.capacity
    if said is None and there.format != "raw":
        volumes.refuse("backing_format")
        return None
    if said is not None and said != there.format:
        volumes.refuse("format_mismatch")
        return None
    end = chain_end(volumes.work.before, path, above=volumes.at(entry.name))
    if end != "whole":
        volumes.refuse("backing_missing" if end == "missing" else "backing_loop")
    if there.broken or there.pretends:
        volumes.work.told = "a backing whose own backing was changed under it, or that looks like another format"
    return path, there.format, there.capacity


@dataclass
class _Origin:
    format: str
    capacity: int | None
    content: bytes | None
    pretends: bool = False


def _origin(volumes: _Volumes, entry: _Entry) -> _Origin | None:
    """What the content comes from; None where that is refused."""
    source, host = entry.source, volumes.work.before
    assert source is not None
    if volumes.named(source) in volumes.doomed:
        volumes.refuse("parent_removed")
    declared = volumes.entries.get(volumes.named(source))
    path = source.path or volumes.at(source.volume or "")
    there = host.file(path) if source.path or volumes.known else None
    if declared is not None and declared.state == "present" and there is None:
        there = volumes.after.get(declared.name)
        if there is None:
            return None
    elif declared is not None and volumes.after.get(declared.name) != there:
        volumes.work.told = "a source that the same task changes"
    if there is None:
        volumes.refuse("source_missing")
        return None
    if there.kind != "file":
        volumes.refuse("source_refused")
        return None
    if source.format == "raw" and there.format == "qcow2":
        return _Origin("raw", there.physical, None, True)
    if there.pretends or (declared is not None and declared.format not in (None, there.format)):
        volumes.work.told = "a source that looks like another format"
    if there.backing is not None:
        volumes.refuse("source_refused")
    if source.format not in (None, there.format):
        volumes.refuse("format_mismatch")
    if there.broken:
        volumes.work.told = "a source whose backing was changed under it"
    return _Origin(there.format, there.capacity, there.content)


def _create(volumes: _Volumes, entry: _Entry, action: str, have: File | None = None) -> None:
    """``have`` is what is made anew: it keeps what is not declared of it."""
    work, refused = volumes.work, len(volumes.work.codes)
    volumes.moved.setdefault(entry.name, action)
    if entry.source is not None and entry.source.content is None:
        volumes.copied.add(entry.name)
    old = volumes.files.get(entry.name) or File(uid=work.before.uid, gid=work.before.gid)
    fmt, capacity, content = entry.format, entry.capacity, b""
    if have is not None and entry.source is None:
        fmt = fmt or have.format
        capacity = have.capacity if capacity is None and entry.backing is None else capacity
    least: int | None = None
    pretends = False
    if entry.source is not None and entry.source.content is not None:
        content = entry.source.content.encode()
        least = len(content)
        content = content.rstrip(b"\0")
        if fmt not in (None, "raw"):
            volumes.refuse("invalid_option")
        fmt = "raw"
    elif entry.source is not None:
        origin = _origin(volumes, entry)
        if origin is not None:
            fmt, least, content = fmt or origin.format, origin.capacity, origin.content
            pretends = origin.pretends and fmt == "raw"
    if fmt is None and not (entry.source is not None and work.codes):
        fmt = "raw"
    new = File("file", fmt or "raw", mode=old.mode, uid=old.uid, gid=old.gid, content=content, pretends=pretends)
    for field_name, value in entry.permissions.items():
        setattr(new, field_name, value)
    if entry.backing is not None:
        if volumes.named(entry.backing) in volumes.doomed:
            volumes.refuse("parent_removed")
        if fmt == "raw":
            volumes.refuse("invalid_option")
        else:
            below = _below(volumes, entry, new)
            if below is not None:
                new.backing, least = below[:2], max(least or 0, below[2] or 0) if below[2] is not None else least
                base = work.after.file(below[0])
                new.content = None if base is None or below[1] != base.format else base.content
    if fmt == "raw" and any(entry.options.get(name) is not None for name in (*QCOW2_OPTIONS, "preallocation")):
        volumes.refuse("invalid_option")
    if capacity is not None and least is not None and capacity < least:
        if not entry.at_least:
            volumes.refuse("capacity_too_small")
        capacity = least
    if capacity is None:
        capacity = least
    if capacity is None and entry.backing is None and entry.source is None:
        volumes.refuse("capacity_missing")
    if entry.allocation is not None and capacity is not None and entry.allocation > capacity:
        volumes.refuse("invalid_option")
    if fmt == "qcow2":
        _qcow2(volumes, entry, new)
    volumes.act(action, entry.name)
    if len(work.codes) > refused:
        # Nothing may be made from it here; that it was declared is still known.
        volumes.after.pop(entry.name, None)
        return
    new.capacity = _round(capacity or 0, new.format)
    if new.content is not None:
        new.content = new.content[: new.capacity].rstrip(b"\0")
    volumes.after[entry.name] = new


def _qcow2(volumes: _Volumes, entry: _Entry, new: File) -> None:
    new.compat = entry.options.get("compat") or "1.1"
    new.cluster_size = entry.options.get("cluster_size") or 65536
    new.lazy_refcounts = bool(entry.options.get("lazy_refcounts"))
    new.extended_l2 = bool(entry.options.get("extended_l2"))
    if new.compat == "0.10" and (new.lazy_refcounts or new.extended_l2):
        volumes.refuse("invalid_option")
    if new.extended_l2 and new.cluster_size < 16384:
        volumes.refuse("invalid_option")
    if entry.backing is not None and entry.options.get("preallocation") not in (None, "off") and not new.extended_l2:
        volumes.refuse("invalid_option")
