# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The table of pool types and volume formats: data only, and the one place that says what each can do.

Facts are those of libvirt 9.0 (formatstorage, storage driver). Argument checks, error hints and the tables in docs/
come from here.
"""

from __future__ import annotations

from dataclasses import dataclass

# What may change in an existing pool, for most types: fields of Pool, and with a dot those of its source.
_LIVE = ("uuid", "permissions", "refresh_allocation", "extras", "source.vendor", "source.product")
_RESTART = (
    "path",
    "cow",
    "mount_options",
    "config_options",
    "source.hosts",
    "source.devices",
    "source.dir",
    "source.initiator",
    "source.format",
    "source.auth",
    "source.protocol_version",
)


VOLUME_GROUP = "volume group"


@dataclass(frozen=True)
class PoolType:
    """What libvirt and we know of a type. Who needs to know asks for one of these facts, never for the name.

    Declaring: ``required`` and ``optional`` name fields of Source. ``named_by_source``: a pool without a name is called
    like its source; ``named_by_pool``: the other way round. ``target`` says where the path comes from: declared, a
    template of the source name, or none for network types; ``default_path`` is that of a pool which declares none.
    ``own_formats`` are formats that libvirt has no word for: a definition has the default one instead. ``login`` is the
    type of source.auth, and the format, for which the secret itself is given with the pool.

    Changing: ``live``, ``restart`` class what may change in an existing pool; every other field is its identity.
    ``grows``: fields that may change in an active pool where we look ourselves.

    The source: ``on_devices``: it has its source devices for itself, ``device_paths``: which are named by paths alone.
    ``signature``: what these hold then, in blkid's words, whatever the pool's format; where there is none, it is the
    format, and ``builds`` that of a pool whose format says nothing. ``found_only`` are formats that nothing makes, and
    ``made_natively`` those that no daemon makes, beside them. ``group``: what the devices make together, which has the
    source's name. ``one_of``: no two pools agree in all of these fields of Source, of hosts in the first; without any
    there is but one pool of the type. ``taken_away``: its devices go away when it is stopped, whoever uses them.
    ``recorded``: this host keeps records of how it is logged in to, also of as whom it shows itself; those that were
    made for the pool go with its definition.

    The target: ``file_tree``: a directory of files, ``mounted``: on which something is mounted. ``of_devices``: it is
    where devices are looked up, /dev or a directory of links below it. ``active`` is the line of the documentation that
    says what "active" means.

    Volumes: ``volumes`` are files, block devices or network images. ``granule`` is the number of bytes that their sizes
    are multiples of; it may be another power of two up to ``largest_granule``. ``partitions``: they are those of one
    disk, called by their numbers. ``snapshots``: devices that may be made from another one, as a daemon makes each that
    has less space than it needs. ``whole``: they go with the pool as one. ``made_here`` are formats of volumes that
    only its backend makes, ``names`` is the pattern of names of new ones, as far as they are not those of files.
    ``elsewhere`` says where what can't be done with them can be. ``appear`` is the pattern of the names of those that
    appear, grow and go where they are served: one that is not as declared is looked for anew. ``by_path``: they are
    called by the ends of their paths, whatever a daemon calls them.

    A daemon: ``daemon`` lists what libvirt's storage driver can do with it: build and delete a pool, create, clone,
    remove and resize its volumes; ``native`` what its backend can, likewise. ``beside``: what a daemon on this host has
    no call for may be done on its files beside it. ``daemon_mounts`` is the format of what it mounts where the format
    is the default one, if that is always the same. ``unlisted``: what it may hold that a daemon does not list, and the
    command that does. ``starts_on_nothing``: a daemon starts it, though its source is not there. ``as_printed``: a
    daemon knows its devices only by the names that its tool prints. ``tools``: packages that the daemon's host needs
    for it.

    Finding sources: ``sources`` are fields that tell one from another; without any none are looked for.
    ``protocols``: by which servers are asked. ``port``: where, unless another port is named. ``daemon_finds``: a daemon
    can look for them too.

    The kernel: ``drivers`` are what it has to have for a format, as /proc/filesystems or /proc/misc shows it, and the
    module that brings it.
    """

    name: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    target: str = "declared"
    formats: tuple[str, ...] = ()
    default_format: str | None = None
    own_formats: tuple[str, ...] = ()
    default_dir: str | None = None
    default_path: str | None = None
    named_by_source: bool = False
    named_by_pool: bool = False
    features: tuple[str, ...] = ()
    login: str = ""
    live: tuple[str, ...] = _LIVE
    restart: tuple[str, ...] = _RESTART
    grows: tuple[str, ...] = ()
    on_devices: bool = False
    device_paths: bool = False
    signature: str = ""
    builds: str = ""
    found_only: tuple[str, ...] = ()
    made_natively: tuple[str, ...] = ()
    group: str = ""
    one_of: tuple[str, ...] | None = None
    taken_away: bool = False
    recorded: bool = False
    file_tree: bool = False
    mounted: bool = False
    of_devices: bool = False
    active: str = ""
    volumes: str = "file"
    volume_formats: tuple[str, ...] = ()
    granule: int = 1
    largest_granule: int = 0
    partitions: bool = False
    snapshots: bool = False
    whole: bool = False
    made_here: tuple[str, ...] = ()
    names: str = ""
    elsewhere: str = ""
    appear: str = ""
    by_path: bool = False
    daemon: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    beside: bool = False
    daemon_mounts: str = ""
    unlisted: tuple[str, str] = ("", "")
    starts_on_nothing: bool = False
    as_printed: bool = False
    tools: str = ""
    sources: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    port: int = 0
    daemon_finds: bool = False
    drivers: tuple[tuple[str, str, str], ...] = ()

    @property
    def served(self) -> bool:
        """Whether its volumes are devices that others serve, called otherwise than the ends of their paths."""
        return self.volumes == "block" and (bool(self.appear) or self.by_path)


FILE_FORMATS = (
    "raw",
    "dir",
    "bochs",
    "cloop",
    "dmg",
    "iso",
    "vpc",
    "vdi",
    "fat",
    "vhd",
    "ploop",
    "cow",
    "qcow",
    "qcow2",
    "qed",
    "vmdk",
)
_FS_FORMATS = (
    "auto",
    "ext2",
    "ext3",
    "ext4",
    "ufs",
    "iso9660",
    "udf",
    "gfs",
    "gfs2",
    "vfat",
    "hfs+",
    "xfs",
    "ocfs2",
    "vmfs",
)
_LABELS = ("unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2")
_PARTITIONS = ("none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended")
_POOLS = ("build", "delete")
_FILES = (*_POOLS, "create", "clone", "remove", "resize")
_CUT = (*_POOLS, "create", "clone", "remove")
_MIB = 1024 * 1024
THIN_POOL = "thin-pool"
_LOOK_AGAIN = ", then let the daemon look again (virsh pool-refresh)."
_AT_THE_TARGET = "Do it where the target is served from."
_AT_THE_UNITS = "Do it where the units are served from."
ISCSI_PORT = 3260  # RFC 7143: the one that is assigned
_UNITS = r"unit:[0-9]+:[0-9]+:[0-9]+\Z"
# lvm(8): valid names; what is reserved for inner volumes may not be in them. Ours are being made: see the backend.
_LOGICAL_NAMES = (
    r"(?!-|virt-storage\.|snapshot|pvmove|\.{1,2}\Z)"
    r"(?!.*_(?:cdata|cmeta|corig|cpool|cvol|imeta|iorig|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|wcorig))"
    r"[a-zA-Z0-9+_.-]{1,127}\Z"
)

POOL_TYPES: dict[str, PoolType] = {
    row.name: row
    for row in (
        PoolType(
            "dir",
            features=("cow",),
            file_tree=True,
            active="the pool was started since boot (its state file is there) and its directory exists",
            volume_formats=FILE_FORMATS,
            daemon=_FILES,
            native=_FILES,
            beside=True,
        ),
        PoolType(
            "fs",
            ("devices",),
            ("format",),
            formats=_FS_FORMATS,
            default_format="auto",
            own_formats=("btrfs",),
            features=("cow", "mount_options"),
            on_devices=True,
            device_paths=True,
            found_only=("ufs", "iso9660", "gfs", "vmfs"),
            made_natively=("btrfs", "hfs+"),
            file_tree=True,
            mounted=True,
            active="its device is mounted on its path",
            volume_formats=FILE_FORMATS,
            daemon=_FILES,
            native=_FILES,
            sources=("devices",),
        ),
        PoolType(
            "netfs",
            ("hosts", "dir"),
            ("format", "protocol_version"),
            formats=("auto", "nfs", "glusterfs", "cifs"),
            default_format="auto",
            features=("mount_options",),
            login="cifs",
            one_of=("dir", "hosts"),
            file_tree=True,
            mounted=True,
            active="its export is mounted on its path",
            volume_formats=FILE_FORMATS,
            daemon=_FILES,
            daemon_mounts="nfs",  # it gives mount(8) no type then, and HOST:PATH, which is taken for NFS
            native=_FILES,
            tools="nfs-common or cifs-utils",
            sources=("dir",),
            protocols=("nfs", "glusterfs", "cifs"),
            daemon_finds=True,
            drivers=(("nfs", "nfs", "fs-nfs"), ("glusterfs", "fuse", "fs-fuse"), ("cifs", "cifs", "fs-cifs")),
        ),
        PoolType(
            "logical",
            ("name",),
            ("devices", "format"),
            target="/dev/{name}",
            formats=("unknown", "lvm2"),
            default_format="lvm2",
            named_by_source=True,
            named_by_pool=True,
            grows=("source.devices",),
            on_devices=True,
            device_paths=True,
            signature="LVM2_member",
            group=VOLUME_GROUP,
            one_of=("name",),
            active="the pool was started, its volume group is there and has an active logical volume, or none at all",
            volumes="block",
            granule=4 * _MIB,  # lvm.conf(5): the extent size of a volume group, unless another was given
            largest_granule=256 * _MIB,
            snapshots=True,
            made_here=(THIN_POOL,),
            names=_LOGICAL_NAMES,
            elsewhere="Do it on that host (lvextend and the like)" + _LOOK_AGAIN,
            daemon=_CUT,
            native=_FILES,
            unlisted=("thin or inactive volumes", "lvs -a"),
            as_printed=True,
            tools="lvm2",
            sources=("name", "devices"),
            daemon_finds=True,
            drivers=(("lvm2", "device-mapper", "dm-mod"),),
        ),
        PoolType(
            "disk",
            ("devices",),
            ("format",),
            formats=_LABELS,
            default_format="unknown",
            on_devices=True,
            device_paths=True,
            builds="dos",
            found_only=("lvm2",),
            of_devices=True,
            active="its disk has the declared partition table, and the pool was started",
            volumes="block",
            volume_formats=_PARTITIONS,
            granule=2 * 255 * 63 * 512,  # cylinders, to which the daemon rounds partitions of dos labels
            partitions=True,
            whole=True,
            elsewhere="Do it on that host (parted)" + _LOOK_AGAIN,
            daemon=_CUT,
            native=_FILES,
            tools="parted",
            sources=("devices",),
        ),
        PoolType(
            "iscsi",
            ("hosts", "devices"),
            ("initiator", "auth"),
            default_path="/dev/disk/by-path",
            one_of=("devices", "initiator"),
            taken_away=True,
            recorded=True,
            of_devices=True,
            active="the pool was started, and there is a session with its target",
            volumes="block",
            elsewhere=_AT_THE_TARGET,
            appear=_UNITS,
            tools="open-iscsi",
            sources=("devices",),
            port=ISCSI_PORT,
        ),
        PoolType(
            "iscsi-direct",
            ("hosts", "devices", "initiator"),
            ("auth",),
            target="none",
            active="the pool was started and its target answered",
            volumes="network",
            elsewhere=_AT_THE_TARGET,
            appear=_UNITS,
            sources=("devices",),
            port=ISCSI_PORT,
        ),
        PoolType(
            "scsi",
            ("adapter",),
            live=(*_LIVE, "source.adapter.managed"),
            one_of=("adapter",),
            taken_away=True,
            of_devices=True,
            active="its host adapter is there, and the pool was started",
            volumes="block",
            elsewhere=_AT_THE_UNITS,
            appear=_UNITS,
            sources=("adapter",),
        ),
        PoolType(
            "mpath",
            one_of=(),
            active="the pool was started",
            volumes="block",
            elsewhere=_AT_THE_UNITS,
            by_path=True,
            sources=("devices",),
        ),
        PoolType(
            "rbd",
            ("hosts", "name"),
            ("auth",),
            target="none",
            named_by_source=True,
            features=("config_options", "refresh_allocation"),
            active="the pool was started and its cluster answered",
            volumes="network",
            volume_formats=("raw",),
            daemon=("create", "clone", "remove", "resize"),
        ),
        PoolType(
            "sheepdog",
            ("hosts", "name"),
            target="none",
            named_by_source=True,
            named_by_pool=True,
            active="the pool was started and its cluster answered",
            volumes="network",
        ),
        PoolType(
            "gluster",
            ("hosts", "name"),
            ("dir",),
            target="none",
            default_dir="/",
            named_by_source=True,
            named_by_pool=True,
            one_of=("name", "dir", "hosts"),
            active="the pool was started and its Gluster volume answered",
            volumes="network",
            volume_formats=FILE_FORMATS,
            elsewhere="Do it in a netfs pool on the same Gluster volume (source.format: glusterfs).",
            daemon=("remove",),
            sources=("name",),
            protocols=("glusterfs",),
            daemon_finds=True,
        ),
        PoolType(
            "zfs",
            ("name",),
            ("devices",),
            target="/dev/zvol/{name}",
            named_by_source=True,
            named_by_pool=True,
            on_devices=True,
            signature="zfs_member",
            group="zpool",
            active="its zpool is imported and has a volume",
            volumes="block",
            granule=128 * 1024,  # zfsprops(7): the largest volblocksize of old versions
            whole=True,
            elsewhere="Do it on that host (zfs set volsize and the like)" + _LOOK_AGAIN,
            daemon=(*_POOLS, "create", "remove"),
            unlisted=("file systems and snapshots", "zfs list -t all"),
            starts_on_nothing=True,
            tools="zfsutils",
        ),
        PoolType(
            "vstorage",
            ("name",),
            named_by_source=True,
            named_by_pool=True,
            one_of=("name",),
            file_tree=True,
            mounted=True,
            active="its cluster is mounted on its path",
            volume_formats=FILE_FORMATS,
            daemon=_FILES,
        ),
    )
}


def row_of(name: str | None) -> PoolType:
    """The row of a type; what has none yet is taken for a directory."""
    return POOL_TYPES[name or "dir"]


# What a volume is, in libvirt's word for its type.
_KINDS = {"file": "a file", "block": "a block device", "dir": "a directory", "network": "a volume on the network"}


def kind_of_volume(name: str | None) -> str:
    """What a volume of a type is, in words."""
    return _KINDS.get(name or "", f"a volume of type {name}")


def spoken(content: str) -> str:
    """What a device holds, in blkid's words, in those of people: ``an ext4 filesystem``, ``a gpt partition table``."""
    return " and ".join(map(_spoken, content.split(" and ")))


def _spoken(name: str) -> str:
    for row in POOL_TYPES.values():
        if row.on_devices and name in (*row.formats, *row.own_formats):
            kind = "partition table" if row.partitions else "filesystem" if row.file_tree else ""
            return f"{article(name)} {name} {kind}" if kind else name
    return name


def article(name: str) -> str:
    """That of a name that is spoken as it is spelled: an ext4, an xfs, a gpt."""
    return "an" if name[:1] in "aehiox" else "a"


# Fields of Source that every type may have, for information, and those that libvirt reads and prints for every type,
# used or not.
ALWAYS_OPTIONAL = ("vendor", "product")
ALWAYS_READ = (*ALWAYS_OPTIONAL, "auth", "protocol_version")


@dataclass(frozen=True)
class VolumeFormat:
    """What a volume format can hold and how it rounds. ``granule`` is bytes: a size is met when it is held within one
    granule. ``in_place`` lists the facts that can be changed on an existing volume (qemu-img(1): resize, amend,
    rebase).
    """

    name: str
    granule: int = 1
    options: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ("capacity", "mode", "owner", "group")


VOLUME_FORMATS: dict[str, VolumeFormat] = {
    "raw": VolumeFormat("raw", options=("nocow",)),
    "qcow2": VolumeFormat(
        "qcow2",
        granule=512,
        options=("backing", "compat", "cluster_size", "lazy_refcounts", "extended_l2", "preallocation", "nocow"),
        in_place=("capacity", "mode", "owner", "group", "backing", "compat", "lazy_refcounts"),
    ),
}
