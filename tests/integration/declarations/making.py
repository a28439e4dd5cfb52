# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random hosts and random tasks for them, from a few names, so that tasks meet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from .declared import Backing, Hand, Options, PoolTask, Said, Source, VolumeTask
from .host_model import File, Host

Value = TypeVar("Value")

POOLS = ("alpha", "beta", "gamma")
VOLUMES = ("v0", "v1", "v2", "v3", "v4")
UUIDS = tuple(f"6f1ec92b-2b3c-4d2f-9d5f-00000000000{number}" for number in range(4))
WITHOUT_BACKEND = "vstorage"  # a type whose pools can be defined, and no more
BAD_POOL_NAMES = ("../alpha", "a/b", "", "..", "-alpha", "a\nb", "n" * 241)
BAD_VOLUME_NAMES = ("../v0", "a/b", "", ".", "..", "-v0", "v\n0", "v" * 256, ".virt-storage")
SIZES = (
    Said(2**20, 2**20), Said("1M", 2**20), Said("1000001", 1000001), Said(999937, 999937), Said("1MB", 10**6),
    Said("1 MiB", 2**20), Said("1025 KiB", 1025 * 1024), Said(511, 511), Said("512", 512), Said(513, 513),
    Said("64k", 65536), Said("2MiB", 2**21), Said(2**20 + 1, 2**20 + 1), Said(2**20 - 1, 2**20 - 1), Said("1 KB", 1000),
    Said(0, 0),
)  # fmt: skip
BAD_SIZES = (
    Said("1.5M", code="invalid_size"), Said("-1", code="invalid_size"), Said("12Q", code="invalid_size"),
    Said("", code="invalid_size"), Said("9EiB", code="capacity_too_large"),
)  # fmt: skip
MODES = (
    Said("0600", 0o600), Said(0o600, 0o600), Said("640", 0o640), Said(0o640, 0o640), Said("0644", 0o644),
    Said("0o660", 0o660),
)  # fmt: skip
POOL_MODES = (Said("0711", 0o711), Said(0o711, 0o711), Said("755", 0o755), Said(0o700, 0o700), Said("0750", 0o750))
BAD_MODES = (Said("0999", code="invalid_mode"), Said(0o7777, code="invalid_mode"), Said("rw", code="invalid_mode"))
BAD_PATHS = (Said("pools/a", code="invalid_path"), Said("/a/../b", code="invalid_path"), Said("/", code="invalid_path"))
CONTENTS = ("#cloud-config\n", "instance-id: a\nlocal-hostname: a\n", "é" * 300)


@dataclass(frozen=True)
class World:
    """Paths of one shard: ``images`` are sources outside the pools, by name."""

    root: str
    homes: tuple[str, ...]
    link: str
    plain: str
    images: dict[str, str]

    def home(self, pool: str) -> str:
        return self.homes[POOLS.index(pool)]


class Drawer:
    """Choices. To hypothesis the first of several, and no rather than yes, are the simplest."""

    def __init__(self, numbers: Random) -> None:
        self._numbers = numbers

    def number(self, least: int, most: int) -> int:
        return self._numbers.randint(least, most)

    def one(self, values: Sequence[Value]) -> Value:
        return values[self.number(0, len(values) - 1)]

    def weighted(self, *pairs: tuple[Value, int]) -> Value:
        number = self.number(0, sum(weight for _unused, weight in pairs) - 1)
        for value, weight in pairs:
            number -= weight
            if number < 0:
                return value
        raise AssertionError

    def chance(self, percent: int) -> bool:
        return self.number(0, 99) >= 100 - percent


def owners(uid: int) -> tuple[Said, ...]:
    own = (Said(str(uid), uid),)
    return (*own, Said("root", 0), Said("nobody", 65534), Said("65534", 65534)) if uid == 0 else own


def groups(gid: int, root: bool) -> tuple[Said, ...]:
    own = (Said(str(gid), gid),)
    return (*own, Said("daemon", 1), Said("1", 1)) if root else own


# -- what is there to begin with ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """``homes``: how much each directory holds; ``pools``: how far each pool is: none, defined or active."""

    homes: tuple[str, ...]
    pools: tuple[str, ...]


def start(draw: Drawer) -> Start:
    homes = tuple(draw.weighted(("none", 3), ("empty", 1), ("stocked", 5)) for _unused in POOLS)
    pools = tuple(
        draw.weighted(("active", 7), ("defined", 2), ("none", 1)) if home != "none"
        else draw.weighted(("none", 4), ("defined", 1))
        for home in homes
    )  # fmt: skip
    return Start(homes, pools)


# -- tasks --------------------------------------------------------------------------------------------------------


def task(draw: Drawer, host: Host, world: World, earlier: list[PoolTask | VolumeTask]) -> PoolTask | VolumeTask:
    aimed: PoolTask | VolumeTask | None = None
    if draw.chance(15 if earlier else 30):
        aimed = aimed_at_a_pool(draw, host, world)
    elif draw.chance(32):
        aimed = aimed_at_volumes(draw, host, world)
    if aimed is not None:
        return aimed
    kind = draw.weighted(("volumes", 36), ("pool", 40), ("as it is", 14), ("again", 10))
    if kind == "again" and earlier:
        return draw.one(earlier)
    if kind == "as it is":
        return as_it_is(draw, host)
    return pool_task(draw, host, world) if kind == "pool" else volume_task(draw, host, world)


def aimed_at_a_pool(draw: Drawer, host: Host, world: World) -> PoolTask | None:
    """What random tasks come to too rarely: a pool built by us, and one that was built by us deleted."""
    made = [name for name, pool in sorted(host.pools.items()) if getattr(host.directory(pool.path), "made", False)]
    if made and draw.chance(75):
        name = draw.one(made)
        path = host.pools[name].path
        return PoolTask(Said(name, name), "deleted", "dir", Said(path, path), allow=frozenset({"nonempty"}))
    free = [name for name in POOLS if name not in host.pools and host.kind(world.home(name)) == "absent"]
    if not free:
        return None
    name = draw.one(free)
    return PoolTask(Said(name, name), "active", "dir", Said(world.home(name), world.home(name)))


def aimed_at_volumes(draw: Drawer, host: Host, world: World) -> VolumeTask | None:
    """Changes of existing volumes that can be made."""
    pools = [name for name, pool in sorted(host.pools.items()) if host.active(pool)]
    if not pools:
        return None
    pool = draw.one(pools)
    path = host.pools[pool].path
    directory = host.directory(path)
    files = {n: f for n, f in sorted(directory.files.items()) if f.kind == "file"} if directory is not None else {}
    entries = {}
    for _unused in range(min(len(files), 1 if draw.chance(45) else 5)):
        name = draw.one(list(files))
        aim = draw.weighted(
            ("shrink", 4), ("amend", 5), ("rebase", 13), ("recreate", 6), ("grow", 2), ("mode", 5), ("absent", 3)
        )
        options = _aim(draw, aim, files, name, path)
        if options:
            entries[name] = options
    if not entries:
        return None
    return VolumeTask(Said(pool, pool), tuple((Said(n, n), o) for n, o in entries.items()), as_list=True)


def _aim(draw: Drawer, aim: str, files: dict[str, File], name: str, path: str) -> Options:
    have = files[name]
    if aim in ("shrink", "grow"):
        sizes = [size for size in SIZES if (size.means < have.capacity) == (aim == "shrink")]
        return {"capacity": draw.one(sizes), "allow": frozenset({"shrink", "backing"})} if sizes else {}
    if aim == "absent":
        return {"state": "absent", "allow": frozenset({"backing"})}
    if aim == "mode":
        return {"mode": draw.one(MODES)}
    if aim == "recreate":
        options: Options = {"format": draw.one(("raw", "qcow2")), "capacity": draw.one(SIZES)}
        return {**options, "recreate": draw.one(("needed", "always")), "allow": frozenset({"backing"})}
    if have.format != "qcow2" or have.broken:
        return {}
    if aim == "amend":
        lazy = have.compat == "1.1" and not have.lazy_refcounts and draw.chance(50)
        other = "0.10" if have.compat == "1.1" else "1.1"
        return {"options": {"lazy_refcounts": True} if lazy else {"lazy_refcounts": False, "compat": other}}
    others = [n for n, f in files.items() if n != name and not f.broken and not (f.backing and draw.chance(70))]
    if not others:
        return {"mode": draw.one(MODES)}
    below = draw.one(others)
    backing = Backing(volume=below, format=files[below].format)
    return {"backing": backing, "format": "qcow2", "allow": frozenset({"backing"})}


def as_it_is(draw: Drawer, host: Host) -> PoolTask | VolumeTask:
    """Declares what is there already."""
    names = sorted(host.pools)
    if not names:
        return PoolTask(Said("alpha", "alpha"), "absent")
    name = draw.one(names)
    pool = host.pools[name]
    directory = host.directory(pool.path)
    if host.active(pool) and directory is not None and directory.files and draw.chance(50):
        files = [(n, f) for n, f in sorted(directory.files.items()) if f.kind == "file"]
        entries = tuple((Said(n, n), file_as_it_is(f)) for n, f in files[: draw.number(1, 3)])
        return VolumeTask(Said(name, name), entries, as_list=True)
    state = "active" if host.active(pool) else draw.one(("present", "inactive") if not pool.started else ("present",))
    mode = None if pool.mode is None else Said(pool.mode, pool.mode)
    return PoolTask(Said(name, name), state, pool.type, Said(pool.path, pool.path), mode, autostart=pool.autostart)


def file_as_it_is(file: File) -> Options:
    options: Options = {
        "format": file.format,
        "capacity": Said(file.capacity, file.capacity),
        "mode": Said(file.mode, file.mode),
    }
    if file.backing is not None:
        options["backing"] = Backing(path=file.backing[0], format=file.backing[1])
    if file.format == "qcow2":
        options["options"] = {"compat": file.compat, "lazy_refcounts": file.lazy_refcounts}
    return options


def pool_task(draw: Drawer, host: Host, world: World) -> PoolTask:
    name = draw.one(POOLS)
    pool = host.pools.get(name)
    states = [
        ("active", 20), ("inactive", 18), ("present", 19), ("absent", 13), ("undefined", 10), ("deleted", 15),
        (None, 5),
    ]  # fmt: skip
    state = draw.weighted(*states)
    home = host.directory(pool.path) if pool is not None else None
    if home is not None and home.made and draw.chance(35):
        state = "deleted"
    if draw.chance(2):
        bad = draw.one(BAD_POOL_NAMES)
        return PoolTask(Said(bad, bad, "invalid_name"), state, "dir", Said(world.homes[0], world.homes[0]))
    said: dict[str, Any] = {}
    path = _pool_path(draw, host, world, name, state)
    kind = draw.weighted(("dir", 90), (WITHOUT_BACKEND, 4), (None, 6))
    if pool is not None and state != "deleted":
        kind = draw.weighted((None, 50), (pool.type, 48), (WITHOUT_BACKEND, 2))
    if kind == WITHOUT_BACKEND:
        said["source"] = (("name", f"cluster-{name}"),)
    if draw.chance(48):
        said["mode"] = draw.one(POOL_MODES)
    if draw.chance(2):
        said["mode"] = draw.one(BAD_MODES)
    if draw.chance(8):
        said["owner"] = draw.one(owners(host.uid))
    if draw.chance(8):
        said["group"] = draw.one(groups(host.gid, host.uid == 0))
    if draw.chance(8):
        known = [p.uuid for p in host.pools.values() if p.uuid]
        uuid = draw.one([*known, *UUIDS])
        said["uuid"] = Said(uuid.upper(), uuid) if draw.chance(30) else Said(uuid, uuid)
    if draw.chance(1):
        said["uuid"] = Said("no uuid", code="invalid_uuid")
    if draw.chance(42):
        said["autostart"] = draw.chance(60)
    if draw.chance(5):
        said["build"] = draw.one(("auto", "never"))
    allow = {
        word
        for word, percent in (("restart", 35), ("nonempty", 55 if state == "deleted" else 5))
        if draw.chance(percent)
    }
    task = PoolTask(Said(name, name), state, kind, path, allow=frozenset(allow), **said)
    if task.type == "dir" and task.path and not task.path.code and draw.chance(6):
        uuid = said.get("uuid")
        uuid = None if uuid is not None and uuid.code else uuid
        task = PoolTask(Said(name, name), state, kind, path, uuid=uuid, allow=frozenset(allow), as_xml=True)
    return task


def _pool_path(draw: Drawer, host: Host, world: World, name: str, state: str | None) -> Said | None:
    pool = host.pools.get(name)
    own = pool.path if pool is not None else world.home(name)
    if draw.chance(1):
        return draw.one(BAD_PATHS)
    if state == "deleted":
        which = draw.weighted(("own", 88), ("other", 8), ("none", 4))
    elif pool is not None:
        which = draw.weighted(("none", 55), ("own", 25), ("other", 20))
    else:
        which = draw.weighted(("own", 78), ("other", 20), ("none", 2))
    if which == "none":
        return None
    other = draw.weighted(
        (world.homes[0], 5), (world.homes[1], 5), (world.homes[2], 5), (world.link, 4), (world.plain, 1)
    )
    path = own if which == "own" else other
    return Said(path, path)


def volume_task(draw: Drawer, host: Host, world: World) -> VolumeTask:
    active = [name for name in POOLS if host.active(host.pools.get(name))]
    pool = draw.one(active) if active and draw.chance(90) else draw.one(POOLS)
    if draw.chance(1):
        bad = draw.one(BAD_POOL_NAMES)
        return VolumeTask(Said(bad, bad, "invalid_name"), ((Said("v0", "v0"), {"capacity": SIZES[0]}),))
    defined = host.pools.get(pool)
    directory = host.directory(defined.path) if defined is not None else None
    files = directory.files if directory is not None else {}
    number = draw.weighted((1, 52), (2, 26), (3, 16), (0, 6))
    there = [name for name in VOLUMES if name in files]
    names = [draw.one(there) if there and draw.chance(60) else draw.one(VOLUMES) for _unused in range(number)]
    if not draw.chance(4):
        names = list(dict.fromkeys(names))
    as_list = len(names) != 1 or draw.chance(20)
    common: Options = {}
    if as_list and draw.chance(40):
        common = _common(draw)
    home = defined.path if defined is not None else world.home(pool)
    entries = tuple((Said(name, name), _options(draw, host, world, files, name, home)) for name in names)
    if draw.chance(3) and entries:
        bad = draw.one(BAD_VOLUME_NAMES)
        entries = ((Said(bad, bad, "invalid_name"), entries[0][1]), *entries[1:])
    exclusive = draw.one(("v*", "v[01]", "*", "v4")) if as_list and draw.chance(22) else None
    return VolumeTask(Said(pool, pool), entries, common, exclusive, as_list)


def _common(draw: Drawer) -> Options:
    common: Options = {}
    if draw.chance(60):
        common["format"] = draw.one(("raw", "qcow2"))
    if draw.chance(60):
        common["capacity"] = draw.one(SIZES)
    if draw.chance(30):
        common["mode"] = draw.one(MODES)
    if draw.chance(30):
        common["allow"] = frozenset({draw.one(("shrink", "backing"))})
    if draw.chance(15):
        common["state"] = draw.one(("absent", "present"))
    if draw.chance(15):
        common["options"] = {"compat": draw.one(("1.1", "0.10"))}
    return common


def _options(draw: Drawer, host: Host, world: World, files: dict[str, File], name: str, home: str) -> Options:
    have = files.get(name)
    if draw.chance(27 if have is not None else 15):
        options: Options = {"state": "absent"}
        if draw.chance(25):
            options["allow"] = frozenset({"backing"})
        return options
    if have is not None and have.kind == "file" and draw.chance(12):
        return file_as_it_is(have)
    return _existing(draw, world, files, have, name, home) if have is not None else _new(draw, world, files, name, home)


def _permissions(draw: Drawer, host_uid: int, percent: int) -> Options:
    options: Options = {}
    if draw.chance(percent):
        options["mode"] = draw.one(MODES)
    if draw.chance(2):
        options["mode"] = draw.one(BAD_MODES)
    if draw.chance(percent // 4):
        options["owner"] = draw.one(owners(host_uid))
    if draw.chance(percent // 4):
        options["group"] = draw.one(groups(os.getegid(), host_uid == 0))
    return options


def _new(draw: Drawer, world: World, files: dict[str, File], name: str, home: str) -> Options:
    options = _permissions(draw, os.geteuid(), 25)
    fmt = draw.weighted(("raw", 42), ("qcow2", 46), (None, 12))
    if fmt is not None:
        options["format"] = fmt
    made_from = draw.weighted((None, 60), ("backing", 26 if fmt == "qcow2" else 2), ("source", 16))
    if made_from == "backing":
        options["backing"] = _backing(draw, world, files, name, home)
    elif made_from == "source":
        options["source"] = _source(draw, world, files, name)
    if draw.chance(94 if made_from is None else 45):
        options["capacity"] = draw.one(SIZES)
    if draw.chance(2):
        options["capacity"] = draw.one(BAD_SIZES)
    if draw.chance(10):
        options["capacity_policy"] = draw.one(("exact", "at_least"))
    if draw.chance(20 if fmt == "qcow2" else 2):
        options["options"] = _format_options(draw, True)
    if draw.chance(5):
        options["allocation"] = draw.one(SIZES)
    if draw.chance(4):
        options["recreate"] = draw.one(("needed", "always"))
    return options


def _format_options(draw: Drawer, new: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if draw.chance(55):
        options["compat"] = draw.one(("1.1", "0.10"))
    if draw.chance(55):
        options["lazy_refcounts"] = draw.chance(65)
    if draw.chance(25 if new else 8):
        options["cluster_size"] = draw.one((Said("64k", 65536), Said(4096, 4096), Said("2 MiB", 2**21)))
    if draw.chance(12 if new else 4):
        options["extended_l2"] = draw.chance(60)
    if draw.chance(10):
        options["preallocation"] = draw.one(("off", "metadata"))
    return options


def _backing(draw: Drawer, world: World, files: dict[str, File], name: str, home: str) -> Backing:
    others = [other for other in VOLUMES if other != name] if not draw.chance(3) else list(VOLUMES)
    there = [other for other in others if other in files]
    other = draw.one(there) if there and draw.chance(75) else draw.one(others)
    fmt = files[other].format if other in files and draw.chance(75) else draw.one((None, "raw", "qcow2"))
    if draw.chance(12):
        outside = draw.one(("raw", "qcow2", "missing"))
        return Backing(
            path=world.images[outside], format=fmt if outside == "missing" else draw.one((outside, outside, None))
        )
    if draw.chance(12):
        return Backing(path=os.path.join(draw.one((home, *world.homes)), other), format=fmt)
    return Backing(volume=other, format=fmt, plain=fmt is None and draw.chance(50))


def _source(draw: Drawer, world: World, files: dict[str, File], name: str) -> Source:
    kind = draw.weighted(("content", 4), ("path", 5), ("volume", 3))
    if kind == "content":
        return Source(content=draw.one(CONTENTS))
    fmt = draw.weighted((None, 6), ("raw", 1), ("qcow2", 1))
    if kind == "path":
        which = draw.weighted(("raw", 4), ("qcow2", 4), ("odd", 2), ("backed", 1), ("missing", 1))
        return Source(path=world.images[which], format=fmt)
    return Source(
        volume=draw.one([other for other in VOLUMES if other != name or draw.chance(5)] or list(VOLUMES)), format=fmt
    )


def _existing(draw: Drawer, world: World, files: dict[str, File], have: File, name: str, home: str) -> Options:
    options: Options = {}
    wish = draw.weighted(
        ("resize", 34), ("permissions", 12), ("amend", 20 if have.format == "qcow2" else 1), ("recreate", 15),
        ("rebase", 26 if have.format == "qcow2" else 1), ("content", 3), ("format", 3),
    )  # fmt: skip
    if wish == "resize" or draw.chance(12):
        options["capacity"] = draw.one(SIZES) if draw.chance(65) else _near(draw, have.capacity)
        if draw.chance(65):
            options["allow"] = frozenset({"shrink"} if draw.chance(50) else {"shrink", "backing"})
    if draw.chance(12):
        options["capacity_policy"] = draw.one(("at_least", "exact"))
    if wish == "permissions" or draw.chance(8):
        options.update(_permissions(draw, os.geteuid(), 80))
    if wish == "amend":
        options["options"] = _format_options(draw, False)
    if wish == "rebase":
        options["backing"] = _backing(draw, world, files, name, home)
        if draw.chance(90):
            options["allow"] = options.get("allow", frozenset()) | {"backing"}
    if wish == "content":
        options["source"] = Source(content=draw.one(CONTENTS))
    if wish == "format" or draw.chance(30):
        options["format"] = have.format if draw.chance(70) else draw.one(("raw", "qcow2"))
    if wish == "recreate":
        options.update(_new(draw, world, files, name, home))
        options["recreate"] = draw.weighted(("needed", 3), ("always", 3))
        if draw.chance(35):
            options["allow"] = frozenset({"backing"})
    if wish == "amend" and "capacity" not in options:
        options.pop("format", None)
    return options


def _near(draw: Drawer, capacity: int) -> Said:
    size = max(0, capacity + draw.one((0, 1, -1, 511, 512, 513, -511, -512)))
    return Said(size, size)


# -- hands --------------------------------------------------------------------------------------------------------


def hand(draw: Drawer, host: Host) -> Hand | None:
    """What somebody else does between two tasks."""
    if draw.chance(15):
        return Hand("reboot", "")
    homes = sorted(host.directories)
    if not homes:
        return None
    home = draw.one(homes)
    if draw.chance(8):
        return Hand("remove directory", home)
    if draw.chance(15):
        return Hand("chmod directory", home, mode=draw.one((0o700, 0o755, 0o711)))
    files = host.directories[home].files
    if draw.chance(20):
        free = [name for name in VOLUMES if name not in files]
        return Hand(draw.one(("fifo", "mkdir")), home, draw.one(free)) if free else None
    plain = [name for name, file in sorted(files.items()) if file.kind == "file"]
    if not plain:
        return None
    name = draw.one(plain)
    if files[name].format == "raw" and draw.chance(30):
        return Hand("grow", home, name, 4096)
    return Hand("chmod", home, name, draw.one((0o600, 0o644))) if draw.chance(65) else Hand("remove", home, name)
