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


@dataclass(frozen=True)
class PoolType:
    """``required`` and ``optional`` name fields of Source. ``named_by_source``: a pool without a name is called like
    its source; ``named_by_pool``: the other way round. ``target`` says where the path comes from: declared, a
    template of the source name, or none for network types. ``live``, ``restart`` class what may change in an
    existing pool; every other field is its identity. ``volumes`` are files, block devices or network images;
    ``own_formats`` are formats that libvirt has no word for: a definition has the default one instead. ``found_only``
    are those that nothing makes, and ``made_natively`` those that no daemon makes, beside them.
    ``granule`` is the number of bytes that their sizes are multiples of. ``file_tree``: its target is a directory of
    files, ``mounted``: on which something is mounted. ``on_devices``: it has its source devices for itself;
    ``signature``: what these hold then, in blkid's words, whatever the pool's format. ``whole``: its volumes go with it
    as one. ``beside``: what a daemon on this host has no call for may be done on its files beside it. ``daemon`` lists
    what libvirt's storage driver can do with it: build and delete a pool, create, clone, remove and resize its
    volumes; ``native`` what its backend can, likewise. ``made_here`` are formats of volumes that only its backend
    makes, ``names`` is the pattern of names of new ones, as far as they are not those of files. ``grows``: fields that
    may change in an active pool where we look ourselves. ``active`` is the line of the documentation that says what
    "active" means.
    """

    name: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    target: str = "declared"
    formats: tuple[str, ...] = ()
    default_format: str | None = None
    own_formats: tuple[str, ...] = ()
    found_only: tuple[str, ...] = ()
    made_natively: tuple[str, ...] = ()
    default_dir: str | None = None
    named_by_source: bool = False
    named_by_pool: bool = False
    features: tuple[str, ...] = ()
    volume_formats: tuple[str, ...] = ()
    live: tuple[str, ...] = _LIVE
    restart: tuple[str, ...] = _RESTART
    volumes: str = "file"
    granule: int = 1
    file_tree: bool = False
    mounted: bool = False
    on_devices: bool = False
    signature: str = ""
    whole: bool = False
    beside: bool = False
    daemon: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    made_here: tuple[str, ...] = ()
    names: str = ""
    grows: tuple[str, ...] = ()
    active: str = ""


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
            volume_formats=FILE_FORMATS,
            file_tree=True,
            beside=True,
            daemon=_FILES,
            native=_FILES,
            active="the pool was started since boot (its state file is there) and its directory exists",
        ),
        PoolType(
            "fs",
            ("devices",),
            ("format",),
            formats=_FS_FORMATS,
            default_format="auto",
            own_formats=("btrfs",),
            found_only=("ufs", "iso9660", "gfs", "vmfs"),
            made_natively=("btrfs", "hfs+"),
            features=("cow", "mount_options"),
            volume_formats=FILE_FORMATS,
            file_tree=True,
            mounted=True,
            on_devices=True,
            daemon=_FILES,
            native=_FILES,
            active="its device is mounted on its path",
        ),
        PoolType(
            "netfs",
            ("hosts", "dir"),
            ("format", "protocol_version"),
            formats=("auto", "nfs", "glusterfs", "cifs"),
            default_format="auto",
            features=("mount_options",),
            volume_formats=FILE_FORMATS,
            file_tree=True,
            mounted=True,
            daemon=_FILES,
            native=_FILES,
            active="its export is mounted on its path",
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
            volumes="block",
            granule=4 * _MIB,  # lvm.conf(5): the extent size of a volume group, unless another was given
            on_devices=True,
            signature="LVM2_member",
            daemon=_CUT,
            native=_FILES,
            made_here=(THIN_POOL,),
            names=_LOGICAL_NAMES,
            grows=("source.devices",),
            active="the pool was started, its volume group is there and has an active logical volume, or none at all",
        ),
        PoolType(
            "disk",
            ("devices",),
            ("format",),
            formats=_LABELS,
            found_only=("lvm2",),
            default_format="unknown",
            volume_formats=_PARTITIONS,
            volumes="block",
            granule=2 * 255 * 63 * 512,  # cylinders, to which the daemon rounds partitions of dos labels
            on_devices=True,
            whole=True,
            daemon=_CUT,
            native=_FILES,
            active="its disk has the declared partition table, and the pool was started",
        ),
        PoolType(
            "iscsi",
            ("hosts", "devices"),
            ("initiator", "auth"),
            volumes="block",
            active="a session with its target is logged in",
        ),
        PoolType(
            "iscsi-direct",
            ("hosts", "devices", "initiator"),
            ("auth",),
            target="none",
            volumes="network",
            active="the pool was started and its target answered",
        ),
        PoolType("scsi", ("adapter",), volumes="block", active="its host adapter is there, and the pool was started"),
        PoolType("mpath", volumes="block", active="the pool was started"),
        PoolType(
            "rbd",
            ("hosts", "name"),
            ("auth",),
            target="none",
            named_by_source=True,
            features=("config_options", "refresh_allocation"),
            volume_formats=("raw",),
            volumes="network",
            daemon=("create", "clone", "remove", "resize"),
            active="the pool was started and its cluster answered",
        ),
        PoolType(
            "sheepdog",
            ("hosts", "name"),
            target="none",
            named_by_source=True,
            named_by_pool=True,
            volumes="network",
            active="the pool was started and its cluster answered",
        ),
        PoolType(
            "gluster",
            ("hosts", "name"),
            ("dir",),
            target="none",
            default_dir="/",
            named_by_source=True,
            named_by_pool=True,
            volume_formats=FILE_FORMATS,
            volumes="network",
            daemon=("remove",),
            active="the pool was started and its Gluster volume answered",
        ),
        PoolType(
            "zfs",
            ("name",),
            ("devices",),
            target="/dev/zvol/{name}",
            named_by_source=True,
            named_by_pool=True,
            volumes="block",
            granule=128 * 1024,  # zfsprops(7): the largest volblocksize of old versions
            on_devices=True,
            signature="zfs_member",
            whole=True,
            daemon=(*_POOLS, "create", "remove"),
            active="its zpool is imported and has a volume",
        ),
        PoolType(
            "vstorage",
            ("name",),
            named_by_source=True,
            named_by_pool=True,
            volume_formats=FILE_FORMATS,
            file_tree=True,
            mounted=True,
            daemon=_FILES,
            active="its cluster is mounted on its path",
        ),
    )
}

# Types whose devices go away when a pool is stopped, whoever uses them.
TAKEN_AWAY = ("iscsi", "scsi")

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
