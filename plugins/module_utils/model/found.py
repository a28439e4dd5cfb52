# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""One look at the host, made of the same nouns as the declaration. Nothing in it is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .change import Condition
from .errors import StorageError
from .pool import UNDECLARED, Adapter, Permissions, Pool, is_elsewhere
from .tables import Table
from .types import PoolType, row_of
from .volume import Volume

if TYPE_CHECKING:  # only pools that log in have any
    from .secrets import SecretObject

# Filesystems of servers, in the kernel's words: those that may take root for nobody (exports(5)), and those that keep a
# copy under another name of a file that is held open when it is removed.
SQUASHING = ("nfs", "nfs4", "fuse.glusterfs", "glusterfs")
KEEPING = ("nfs", "nfs4")
# The name of the part that volumes are in, or that something is mounted on.
DIRECTORY = "directory"
ABSENT, READY, FOREIGN, UNKNOWN_STORAGE, UNSEEN = "absent", "ready", "foreign", "unknown", "unseen"

# What a device holds: nothing, something without a signature, or a text that starts with UNREADABLE and says why.
BLANK, DATA, UNREADABLE, NOT_THERE = "", "data without a signature", "?", "it is not there"


@dataclass(frozen=True)
class User:
    """Something that uses a volume or a device. ``kind`` is process, lock, loop, mount, swap, holder (another device or
    a volume group that is built on it), member (its content says that it is one of something), guest, overlay or pool.
    """

    kind: str
    who: str

    @property
    def running(self) -> bool:
        """Whether the volume is open now, rather than named by a definition."""
        return self.kind not in ("guest", "overlay", "pool", "member")

    def __str__(self) -> str:
        return f"{self.kind} {self.who}"


@dataclass(frozen=True)
class Problem:
    """Why something can't be used as it is: a stable error code, what is wrong, what to do."""

    code: str
    what: str
    hint: str

    def error(self, subject: str) -> StorageError:
        return StorageError(self.code, self.what, subject=subject, hint=self.hint)


@dataclass(frozen=True)
class Part:
    """One of the things that a pool's storage is built of, in their order: a directory, a filesystem, a volume group.

    ``name`` is the backend's word for it, ``what`` says it to people, with its article. ``kind`` is absent, ready,
    foreign (``why`` says what is there instead) or unknown (``why`` says why it can't be told). ``problem``: why it can
    be neither used nor made; with one of the codes of what an earlier task may mend, it is refused in a real run only.
    ``destroys``: what making it would lose, which has to be allowed (overwrite); a foreign part with nothing to lose
    can't be made at all. ``requires``: what must still hold when it is made. ``users``: who has what it is made of, so
    that it can be neither made nor started; ``unseen``: what could not be looked at for them, which stands in the way
    likewise. ``devices``: those that making or starting it would take, by the kernel's names. ``removable``: it goes
    when the pool's storage is deleted, with what ``deleting`` says. ``making``: how it is made, where that is more than
    "make ..."; where an earlier task may mend its problem, it is made then if nothing is there. ``facts``: what is
    there of it. ``barred``: why it can't be made in the place of something foreign, or of what an earlier task may
    make, whatever is allowed.
    """

    name: str
    what: str
    kind: str
    why: str = ""
    problem: Problem | None = None
    destroys: str = ""
    requires: tuple[Condition, ...] = ()
    users: tuple[User, ...] = ()
    unseen: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    removable: bool = False
    deleting: str = ""
    making: str = ""
    facts: Mapping[str, object] | None = None
    barred: Problem | None = None


@dataclass(frozen=True)
class Storage:
    """What a pool's volumes live in. ``kind`` is absent, ready, foreign (something else is there), unknown (not
    readable, no backend) or unseen (only a daemon can look at it); ``why`` says it in words. ``parts``: what it is
    built of, if that is more than a directory. ``up``: its volumes are there to be used: it is mounted, activated;
    ``bring_up`` and ``take_down`` say in words how, and are empty where there is nothing to do. ``ours``: our own start
    brought it up, or it is declared to go with the pool. ``requires``: what must still hold when it is brought up,
    ``leaves`` when it goes down. ``emptied``: an interrupted task has deleted what it held; ``mark`` tells what was
    deleted from what shows up there later, and is empty where nothing would tell that. ``busy``: who uses it, if asked
    for. ``fixed``: why owner, group and mode of its directory can't be set; empty where they can. ``idle``: it is up
    for having nothing to bring up, so that starting makes it ours. ``frozen``: why nothing of it may be changed, though
    it can be looked at. ``remarks``: what else is to be said of it. ``hides``: how many entries bringing it up hides.
    ``listable``: what it holds can be looked at even where it is not up. ``unable``: why this host can't bring it up,
    or make anything in it. ``comes_back``: the settings of others for which it is brought up at boot without us.
    ``read_only``: nothing can be written there now; ``read_only_source``: nor however it is mounted, since its device
    or its filesystem can only be read. ``remote``: its device is a unit of another host, through whatever lies between.
    ``words``: what each command on it is told beside, which is so on this host now.
    ``key``: what notes of it go by, where its path does not tell it from other storage: never what is said to people,
    which may come to be put otherwise.

    ``made``: our own build made the directory, or would have it on record still when it is gone. ``holds``: its
    entries, if asked for. ``filesystem``: the type of the one that holds it, or will; empty if not known.
    """

    kind: str
    path: str | None = None
    why: str = ""
    permissions: Permissions = UNDECLARED
    made: bool = False
    mount_point: bool = False
    writable: bool = True
    read_only: bool = False
    holds: tuple[str, ...] = ()
    identity: tuple[int, ...] | None = None
    filesystem: str = ""
    parts: tuple[Part, ...] = ()
    up: bool = True
    bring_up: str = ""
    take_down: str = ""
    ours: bool = False
    requires: tuple[Condition, ...] = ()
    leaves: tuple[Condition, ...] = ()
    emptied: bool = False
    mark: str = ""
    busy: tuple[User, ...] = ()
    fixed: str = ""
    idle: bool = False
    frozen: Problem | None = None
    remarks: tuple[str, ...] = ()
    hides: int = 0
    listable: bool = False
    unable: Problem | None = None
    comes_back: tuple[str, ...] = ()
    read_only_source: bool = False
    remote: bool = False
    words: tuple[str, ...] = ()
    key: str = ""

    @property
    def noted_as(self) -> str:
        """What it is called in notes of what was done to it."""
        return self.key or self.path or ""

    def same_as(self, other: Storage) -> bool:
        """Whether both are known to be one and the same thing that is there."""
        return self.kind == READY == other.kind and self.identity is not None and self.identity == other.identity

    def may_write(self, owner: int, group: int) -> bool:
        """Whether its mode lets a user make files in it, who is not root."""
        mode, both = self.permissions.mode or 0, 0o3
        if owner == self.permissions.owner:
            return mode >> 6 & both == both
        return (mode >> 3 if group == self.permissions.group else mode) & both == both

    @property
    def ground(self) -> tuple[str, ...]:
        """The devices that it is on, by the kernel's names."""
        conditions = (condition for part in self.parts for condition in part.requires if condition.kind == "device")
        return tuple(dict.fromkeys(condition.path for condition in conditions))

    @property
    def erased(self) -> tuple[str, ...]:
        """Those that lose what they hold when it is deleted."""
        parts = (part for part in self.parts if part.kind == READY and part.removable)
        conditions = (condition for part in parts for condition in part.requires if condition.kind == "device")
        return tuple(dict.fromkeys(condition.path for condition in conditions))

    def loses(self, running: Storage) -> bool:
        """Whether building it would lose what is on the devices of one that is up."""
        taken = {
            condition.path
            for part in self.parts
            for condition in part.requires
            if part.destroys and condition.kind == "device"
        }
        return running.open and not taken.isdisjoint(running.ground)

    @property
    def open(self) -> bool:
        """Whether its volumes are there to be used."""
        return self.kind == READY and self.up

    @property
    def listed(self) -> bool:
        """Whether its volumes can be looked at here."""
        return self.kind == READY and (self.up or self.listable)

    @property
    def directory(self) -> str:
        """The kind of the directory that it is, or that it is mounted on."""
        return next((part.kind for part in self.parts if part.name == DIRECTORY), self.kind)

    @property
    def problem(self) -> Problem | None:
        """The first of its parts'."""
        return next((part.problem for part in self.parts if part.problem is not None), None)


@dataclass(frozen=True)
class Usage:
    """Bytes."""

    capacity: int
    allocation: int
    available: int


@dataclass(frozen=True)
class Neighbour:
    """Another definition of this host. ``resolved`` is its target path with symbolic links followed, ``devices`` are
    its source devices likewise. ``started``: it was, as far as that is known. ``identity`` tells its target, where that
    is there, under whatever name: by links, or mounted in two places.
    """

    pool: Pool
    resolved: str | None
    devices: tuple[str, ...] = ()
    started: bool = False
    identity: tuple[int, ...] | None = None


# What there is of the unit that starts pools at boot.
NO_UNIT, OUTDATED, ENABLED = "absent", "outdated", "enabled"


@dataclass(frozen=True)
class Boot:
    """Who starts the pools that are marked for autostart: a daemon, where nothing else is said. ``nobody`` says why
    nobody does. ``unit`` is the unit of systemd that starts them where it is ``needed``, and ``state`` what there is of
    it. ``others``: other pools are marked as well. ``keyless``: the pool can't be started then, since the login that it
    was started with is kept nowhere.
    """

    nobody: str = ""
    unit: str = ""
    needed: bool = False
    state: str = NO_UNIT
    others: bool = False
    keyless: bool = False


# How much must be known of a volume before it is decided on: only that it stays the same file, also who has it open, or
# also which definitions and overlays use it.
PIN, RUNNING, EVERYTHING = "pin", "running", "everything"
# Beside the names of volumes: the pool's own storage, and who would keep it from being taken down; the devices that it
# would be made of or started on, those that are erased with it, and those that new volumes are cut from, and who has
# them; and the pools that run on its volumes.
ITSELF, SOURCE, ERASED, GROUND = "", "/", "/erased", "/ground"
ABOVE = "/above"


@dataclass(frozen=True)
class Layer:
    """A volume of another pool that is to be the device of this one: its path, as far as it is known, and what there is
    to be done before it can be one.
    """

    path: str | None = None
    missing: StorageError | None = None


@dataclass(frozen=True)
class Image:
    """An image file that a declaration refers to: a backing file or a source.

    ``volume`` is None when it is not there. ``chain``: identities of the files it is built on, itself first.
    ``problem``
    and ``code`` say why it can't be relied on; ``writers`` are processes that have it open for writing, and what else
    may write to it, such as a mount of a device.
    """

    volume: Volume | None
    chain: tuple[tuple[int, ...], ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""
    code: str = ""
    writers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """``storage`` is that of the pool as declared, ``current`` that of the pool as defined: they differ when a path
    changes.

    ``definition_text``: the definition file as it is, for patching. ``unread``: other pools whose definitions can't be
    read. ``unsupported``: why pools of its type can't be run here, empty if they can; ``defines_all``: they can be
    defined all the same. ``boot``: who starts
    what is marked for autostart. ``keeps_unknown``: whether a definition keeps elements that libvirt
    has no word for. ``learned``: whether the permissions in a definition may be those that the directory had, rather
    than declared ones. ``unlisted``: volumes that a daemon does not list as they are.
    ``users``: an entry for each volume that was asked about; ``unseen``: what could not be looked at for them.
    ``beneath``: who has, as a whole, the devices that are erased with the pool, or that new volumes are cut from, if
    that was asked for; ``blind``: what could not be looked at for that. ``above``: who runs on its volumes, if that was
    asked for.
    ``protected``: named volumes that we may not write. ``sealed``: volumes at stake that nobody may change or remove,
    with the letters of the attributes (chattr(1)) for which that is so.
    ``broken``: volumes at stake that are built on a file that is not there, and which. ``unlike``:
    those built on one that is not of the format they name, in words. ``chains``: identities of what
    volumes are built on, themselves first, where that matters.
    ``filesystem``: its type, empty if not known.
    ``restarting``: a task that was restarting the pool did not come to its end, since the last boot.
    ``devices``: what the pool's source devices hold, of those that we can look at: see host/devices.py. ``beside``:
    what the daemon can't do may be done here beside it. ``extent``: the number of bytes that sizes of its volumes are
    multiples of, None where its type tells. ``table``: the partition table that its volumes are in.
    ``secrets``: those that its definition or declaration names.
    ``hosts``: the SCSI hosts that the adapters of all these pools lead to: see model/adapters.py. ``initiator``: the
    name by which this host logs in to targets where no other one is said, empty if not known.
    ``remains``: what is left where a volume of that name will be cut: it is cleared.
    ``file_limit``: the largest file in bytes, None if not known. ``process``: user and groups that we run as, None when
    we may give files to anybody. ``resolved``: paths to what they resolve to. ``digests``: volume names to the SHA-256
    of their first bytes.
    """

    name: str
    definition: Pool | None = None
    definition_text: str | None = None
    live: Pool | None = None
    autostart: bool = False
    started: bool = False
    active: bool = False
    restarting: bool = False
    storage: Storage = Storage(ABSENT)
    current: Storage = Storage(ABSENT)
    usage: Usage | None = None
    neighbours: tuple[Neighbour, ...] = ()
    unread: tuple[str, ...] = ()
    unwritable: str = ""
    unsupported: str = ""
    defines_all: bool = True
    boot: Boot = Boot()
    learned: bool = False
    keeps_unknown: bool = True
    unlisted: tuple[str, ...] = ()
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    users: Mapping[str, tuple[User, ...]] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    beneath: tuple[User, ...] = ()
    above: tuple[User, ...] = ()
    blind: tuple[str, ...] = ()
    protected: frozenset[str] = frozenset()
    sealed: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    unlike: Mapping[str, str] = field(default_factory=dict)
    chains: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    staging_problem: str = ""
    filesystem: str = ""
    file_limit: int | None = None
    process: tuple[int, frozenset[int]] | None = None
    resolved: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    beside: bool = False
    extent: int | None = None
    table: Table | None = None
    hosts: Mapping[Adapter, tuple[int, ...]] = field(default_factory=dict)
    initiator: str = ""
    remains: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[SecretObject, ...] = ()

    @property
    def looked(self) -> bool:
        """Whether the pool's volumes could be looked at; an earlier task of the play may still make the pool."""
        return self.storage.open or (self.storage.kind == UNSEEN and self.active)

    @property
    def squashes(self) -> bool:
        """Whether we are root, and a server may not take root for root."""
        return self.process is None and self.filesystem in SQUASHING and not self.storage.fixed

    @property
    def root_is_nobody(self) -> bool:
        """Whether a server is seen not to take us, who are root, for root."""
        return self.squashes and self.storage.open and not self.storage.writable and not self.storage.read_only

    @property
    def unreadable(self) -> StorageError | None:
        """Why nobody can tell whether a started pool is active; None when it can be told, or was not started."""
        if not self.started or self.current.kind != UNKNOWN_STORAGE:
            return None
        problem = self.current.problem
        if problem is not None:
            return problem.error(f"pool {self.name}")
        return StorageError(
            "backend_missing" if self.unsupported else "storage_unreadable",
            f"{self.current.path}: {self.current.why}" if self.current.path else self.current.why,
            subject=f"pool {self.name}",
            hint="Name another uri." if self.unsupported else "Run as a user who may read it (become: true).",
        )

    @property
    def down(self) -> bool:
        """Whether a pool that was started is known not to run any more: it was unmounted, or its storage is gone."""
        return self.started and not self.active and self.current.kind not in (UNKNOWN_STORAGE, UNSEEN)

    @property
    def row(self) -> PoolType:
        """What its type can do; a pool that an earlier task would have made is taken for a directory."""
        pool = self.definition or self.live
        return row_of(None if pool is None else pool.type)

    @property
    def moved(self) -> bool:
        """Whether it runs on other storage than its definition says."""
        return self.started and is_elsewhere(self.live, self.definition, self.row.port)

    @property
    def running(self) -> Pool | None:
        """As it was started, where its definition was changed to other storage since; else as it is defined."""
        return self.live if self.moved else self.definition or self.live

    def runs_on(self, wanted: Pool) -> bool:
        """Whether the pool runs on the storage that is wanted."""
        if self.live is None:
            return False
        have, want = self.live.source, wanted.source
        return (have.devices, have.name, have.format) == (want.devices, want.name, want.format)

    @property
    def granule(self) -> int:
        """The number of bytes that sizes of the pool's volumes are multiples of, as far as it is known."""
        return self.row.granule if self.extent is None else self.extent

    @property
    def ground(self) -> tuple[str, ...]:
        """The devices that volumes are cut from; none where they are files. Of what only a daemon can look at they are
        those that it names.
        """
        if self.row.volumes != "block":
            return ()
        pool = (self.live or self.definition) if self.storage.kind == UNSEEN else None
        named = (device.path for device in (pool.source.devices or () if pool else ()) if device.path.startswith("/"))
        told = (extent.device for volume in self.volumes.values() for extent in volume.extents)
        return tuple(dict.fromkeys((*self.storage.ground, *named, *told)))

    @property
    def erased(self) -> tuple[str, ...]:
        """The devices that lose what they hold when the pool is deleted, by whomever."""
        if self.storage.kind != UNSEEN:
            return self.storage.erased
        return self.ground if "delete" in self.row.daemon else ()

    @property
    def can(self) -> tuple[str, ...]:
        """What can be done with the pool and its volumes, in the words of the table of types."""
        return self.row.daemon if self.storage.kind == UNSEEN else self.row.native

    def rounds(self, capacity: int) -> bool:
        """Whether a new volume may get another size than the one that is asked for, as only a daemon knows."""
        if self.storage.kind != UNSEEN:
            return False
        return self.granule > 1 and (self.row.partitions or capacity % self.granule != 0)

    def is_volume(self, volume: Volume) -> bool:
        """Whether that is a volume of the pool's kind, rather than something else under the name of one."""
        return volume.type == self.row.volumes and not volume.foreign

    def volume_path(self, name: str) -> str | None:
        """The path that a volume of this name has or would have; None where the pool's own path is not known."""
        return f"{self.storage.path.rstrip('/')}/{name}" if self.storage.path else None
