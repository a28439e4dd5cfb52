# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Which package brings a tool, by distribution. Data only; docs/packages.md shows the same."""

from __future__ import annotations

FAMILIES = (("Debian", "Ubuntu"), ("Fedora", "RHEL"), ("SUSE",), ("Arch Linux",))

_UTIL_LINUX = ("util-linux",) * 4
_LVM = [
    "lvm",
    "lvchange",
    "lvcreate",
    "lvextend",
    "lvreduce",
    "lvremove",
    "lvrename",
    "pvremove",
    "pvs",
    "vgchange",
    "vgcreate",
    "vgextend",
    "vgremove",
]
_LIBISCSI = ["iscsi-inq", "iscsi-ls", "iscsi-readcapacity16"]
_NFS = ("nfs-common", "nfs-utils", "nfs-client", "nfs-utils")

# By tool, one name for each of the families; empty where the distribution has none.
PACKAGES: dict[str, tuple[str, str, str, str]] = {
    "libvirt for Python": ("python3-libvirt", "python3-libvirt", "python3-libvirt-python", "libvirt-python"),
    "lxml for Python": ("python3-lxml", "python3-lxml", "python3-lxml", "python-lxml"),
    "qemu-img": ("qemu-utils", "qemu-img", "qemu-img (before Leap 15.6: qemu-tools)", "qemu-img"),
    "mount": ("mount", "util-linux", "util-linux", "util-linux"),
    "umount": ("mount", "util-linux", "util-linux", "util-linux"),
    "wipefs": _UTIL_LINUX,
    "blkid": _UTIL_LINUX,
    "partx": _UTIL_LINUX,
    "sfdisk": ("fdisk", "util-linux", "util-linux", "util-linux"),
    "parted": ("parted",) * 4,
    "kpartx": ("kpartx", "kpartx", "kpartx", "multipath-tools"),
    "udevadm": ("udev", "systemd-udev", "udev", "systemd"),
    "systemctl": ("systemd",) * 4,
    "modprobe": ("kmod",) * 4,
    "dd": ("coreutils",) * 4,
    "tee": ("coreutils",) * 4,
    **dict.fromkeys(_LVM, ("lvm2",) * 4),
    "thin_check": (
        "thin-provisioning-tools",
        "device-mapper-persistent-data",
        "thin-provisioning-tools",
        "thin-provisioning-tools",
    ),
    "mkfs.ext2": ("e2fsprogs",) * 4,
    "mkfs.ext3": ("e2fsprogs",) * 4,
    "mkfs.ext4": ("e2fsprogs",) * 4,
    "mkfs.xfs": ("xfsprogs",) * 4,
    "mkfs.btrfs": ("btrfs-progs", "btrfs-progs", "btrfsprogs", "btrfs-progs"),
    "mkfs.vfat": ("dosfstools",) * 4,
    "mkfs.udf": ("udftools",) * 4,
    "mkfs.gfs2": ("gfs2-utils", "gfs2-utils", "gfs2-utils", ""),
    "mkfs.ocfs2": ("ocfs2-tools", "", "ocfs2-tools", ""),
    "mkfs.hfsplus": ("hfsprogs", "hfsplus-tools", "hfsutils", ""),
    "mount.nfs": _NFS,
    "showmount": _NFS,
    "exportfs": ("nfs-kernel-server", "nfs-utils", "nfs-kernel-server", "nfs-utils"),
    "mount.glusterfs": ("glusterfs-client", "glusterfs-fuse", "glusterfs", "glusterfs"),
    "gluster": ("glusterfs-cli", "glusterfs-cli", "glusterfs", "glusterfs"),
    "iscsiadm": ("open-iscsi", "iscsi-initiator-utils", "open-iscsi", "open-iscsi"),
    "multipathd": ("multipath-tools", "device-mapper-multipath", "multipath-tools", "multipath-tools"),
    "targetctl": ("targetcli-fb", "targetcli", "python3-targetcli-fb", ""),
    "mount.cifs": ("cifs-utils",) * 4,
    **dict.fromkeys(_LIBISCSI, ("libiscsi-bin", "libiscsi-utils", "libiscsi-utils", "libiscsi")),
    "smbclient": ("smbclient", "samba-client", "samba-client", "smbclient"),
}


def installing(tool: str) -> str:
    """What to install, as "package A on Debian and Ubuntu, B on SUSE"; empty where nobody knows."""
    names = PACKAGES.get(tool, ())
    if names and len(set(names)) == 1:
        return f"package {names[0]}"
    where: dict[str, list[str]] = {}
    for name, family in zip(names, FAMILIES):
        if name:
            where.setdefault(name, []).extend(family)
    told = [f"{name} on {' and '.join(filter(None, (', '.join(who[:-1]), who[-1])))}" for name, who in where.items()]
    return f"package {', '.join(told)}" if told else ""
