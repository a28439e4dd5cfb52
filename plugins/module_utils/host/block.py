# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Block devices as sysfs shows them (the kernel's Documentation/ABI, sysfs-block and sysfs-dev); no process, and no
device is opened.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

from ..model.errors import StorageError

_SYS = "/sys"
_NOT_THERE = "Look at how it is spelled and whether it is attached (lsblk lists what is there), or name another."
_SECTOR = 512  # sizes and starts in sysfs are in these, whatever the device's own are
_PARTITION_OF = re.compile(r"part([0-9]+)-(.+)", re.DOTALL)  # kpartx(8): device-mapper's uuid of a partition
_LOOP, _MD, _ROM = 7, 9, 11  # the kernel's devices.txt
_OF_NETWORK = re.compile(r"/host[0-9]+/session[0-9]+/|/(?:nbd|rbd)[0-9]+\Z")  # where sysfs has them: iSCSI, nbd, rbd


class Device(NamedTuple):
    """``path`` is how it was asked for, ``node`` what it is called by the kernel (``/dev/sdb``, ``/dev/dm-0``).

    ``kind`` is disk, part, loop, dm, md, rom or other (RAM, network, zvol, bcache …). ``size`` and ``start`` are bytes,
    ``sector`` is the logical block size. ``disk`` is the node of the disk of a partition, also of one that kpartx made
    (whose ``start`` is not known); ``partition`` its number; ``partitions`` the nodes of a disk's, in order.
    ``disk_number`` is the disk's of a partition that the kernel made.
    ``serial`` and ``wwn`` are the hardware's as the kernel knows them, of a loop device the file.
    """

    path: str
    node: str
    number: tuple[int, int]
    size: int
    sector: int
    read_only: bool
    kind: str
    dm_name: str = ""
    dm_uuid: str = ""
    disk: str | None = None
    partition: int | None = None
    start: int | None = None
    partitions: tuple[str, ...] = ()
    wwn: str = ""
    serial: str = ""
    diskseq: str = ""
    disk_number: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """As in /sys/class/block."""
        return name_of(self.node)

    @property
    def identity(self) -> tuple:
        """What tells it from another device that gets its name or number later. ``diskseq`` is there since Linux 5.15;
        what udev finds out is left out, since that comes later than the device. What is device-mapper's gets another
        with each new table, as a volume does when a snapshot of it goes: it has a uuid. A partition is told by its
        disk: the kernel may give it another number whenever the table is read anew, as udev does after each writer
        (the kernel's devices.txt: 259, block extended major).
        """
        number = self.disk_number or self.number
        sequence = "" if self.dm_uuid else self.diskseq
        start, partition = self.start or 0, self.partition or 0
        return (*number, self.size, start, sequence, self.wwn, self.serial, self.dm_uuid, partition)


def name_of(node: str) -> str:
    return node[len("/dev/") :].replace("/", "!")


def number_at(path: str) -> tuple[int, int] | None:
    """That of the device at a path; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (os.major(status.st_rdev), os.minor(status.st_rdev)) if stat.S_ISBLK(status.st_mode) else None


def device_at(path: str) -> Device:
    """The block device that a path leads to. Raises ``source_missing``, ``storage_foreign`` (it is no block device) or
    ``not_readable``.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise source_missing(path) from None
    except OSError as error:
        raise not_readable(path, error.strerror or str(error)) from None
    if not stat.S_ISBLK(status.st_mode):
        raise StorageError(
            "storage_foreign", f"{path} is no block device", subject=path, hint="Name a disk, a partition or a volume."
        )
    return device_of((os.major(status.st_rdev), os.minor(status.st_rdev)), path)


def device_of(number: tuple[int, int], path: str = "") -> Device:
    """The block device of a number. Raises ``source_missing`` where the kernel has none, as after it was pulled out."""
    directory = os.path.realpath(f"{_SYS}/dev/block/{number[0]}:{number[1]}")
    name = os.path.basename(directory)
    size = attribute(directory, "size")
    part, start = attribute(directory, "partition"), attribute(directory, "start")
    if not size or (part and not start):  # or half gone, as a partition is while its table is read anew
        raise source_missing(path or f"device {number[0]}:{number[1]}")
    node = "/dev/" + name.replace("!", "/")
    whole = os.path.dirname(directory) if part else directory
    dm_uuid = attribute(directory, "dm/uuid")
    wwn, serial = _hardware(whole)
    disk, partition = ("/dev/" + os.path.basename(whole).replace("!", "/"), int(part)) if part else _mapped(dm_uuid)
    return Device(
        path or node,
        node,
        number,
        int(size) * _SECTOR,
        int(attribute(whole, "queue/logical_block_size") or _SECTOR),
        attribute(directory, "ro") == "1",
        _kind(directory, number[0], bool(part)),
        attribute(directory, "dm/name"),
        dm_uuid,
        disk,
        partition,
        int(start) * _SECTOR if part else None,
        _partitions(directory, dm_uuid),
        wwn,
        serial,
        attribute(whole, "diskseq"),
        _number(whole) if part else None,
    )


def source_missing(path: str) -> StorageError:
    return StorageError("source_missing", f"there is no {path} on this host", subject=path, hint=_NOT_THERE)


def not_readable(path: str, why: str) -> StorageError:
    return StorageError(
        "not_readable", f"{path}: {why}", subject=path, hint="Run as a user who may read it (become: true)."
    )


def attribute(directory: str, name: str) -> str:
    """A file of sysfs; empty where there is none. What is asked of hardware that went away fails too."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""


def _kind(directory: str, major: int, part: bool) -> str:
    if part:
        return "part"
    for kind in ("dm", "md"):
        if os.path.isdir(os.path.join(directory, kind)):
            return kind
    if major in (_LOOP, _MD, _ROM):
        return {_LOOP: "loop", _MD: "md", _ROM: "rom"}[major]
    return "disk" if os.path.lexists(os.path.join(directory, "device")) else "other"


def _hardware(whole: str) -> tuple[str, str]:
    """World wide name and serial number of a disk: of SCSI, NVMe, virtio, MMC; of a loop device its file."""
    wwn = attribute(whole, "wwid") or attribute(whole, "device/wwid")
    for name in ("serial", "device/serial", "device/cid", "loop/backing_file"):
        serial = attribute(whole, name)
        if serial:
            return wwn, serial
    return wwn, _unit_serial(whole)


def _unit_serial(whole: str) -> str:
    """SCSI's vital product data page 0x80: two bytes, its length, the number (SPC-4: 7.8.15)."""
    try:
        with open(os.path.join(whole, "device/vpd_pg80"), "rb") as file:
            page = file.read(4 + 255)
    except OSError:
        return ""
    return page[4 : 4 + int.from_bytes(page[2:4], "big")].decode("ascii", "replace").strip("\0 ")


def _mapped(dm_uuid: str) -> tuple[str | None, int | None]:
    """Disk and number of a partition that kpartx made."""
    match = _PARTITION_OF.fullmatch(dm_uuid)
    if match is None:
        return None, None
    for name in sorted(os.listdir(f"{_SYS}/class/block")):
        if name.startswith("dm-") and attribute(f"{_SYS}/class/block/{name}", "dm/uuid") == match.group(2):
            return f"/dev/{name}", int(match.group(1))
    return None, int(match.group(1))


def mapped(uuid: str, name: str) -> list[str]:
    """The names in device-mapper of what is active there and has a uuid and a name that begin so."""
    places = [f"{_SYS}/class/block/{each}" for each in _names(f"{_SYS}/class/block") if each.startswith("dm-")]
    names = [attribute(place, "dm/name") for place in places if attribute(place, "dm/uuid").startswith(uuid)]
    return sorted(each for each in names if each.startswith(name))


def _partitions(directory: str, dm_uuid: str) -> tuple[str, ...]:
    found = []
    try:
        names = os.listdir(directory)
    except FileNotFoundError:  # a partition is taken away for a moment while its table is read anew
        names = []
    for name in names:
        number = attribute(directory, f"{name}/partition")
        if number:
            found.append((int(number), "/dev/" + name.replace("!", "/")))
    if dm_uuid:
        for name in holder_names(directory):
            match = _PARTITION_OF.fullmatch(attribute(f"{_SYS}/class/block/{name}", "dm/uuid"))
            if match is not None and match.group(2) == dm_uuid:
                found.append((int(match.group(1)), f"/dev/{name}"))
    return tuple(node for _number, node in sorted(found))


def holder_names(directory: str) -> list[str]:
    """The kernel's names of what is built right on a device."""
    return _names(os.path.join(directory, "holders"))


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def disks_in_state(states: Collection[str]) -> tuple[Device, ...]:
    """The SCSI disks that the kernel says to be so (drivers/scsi/scsi_sysfs.c: sdev_states)."""
    found = []
    for name in _names(f"{_SYS}/class/block"):
        with suppress(OSError), open(f"{_SYS}/class/block/{name}/device/state", encoding="ascii") as file:
            if file.read().strip() in states:
                found.append(by_name(name))
    return tuple(disk for disk in found if disk is not None)


def nodes_below(addresses: Iterable[str]) -> list[str]:
    """The block devices that are, or belong to, pieces of hardware, as sysfs calls these: see GuestDisks."""
    wanted = set(addresses)
    if not wanted:
        return []
    names = sorted(os.listdir(f"{_SYS}/class/block"))
    return [
        "/dev/" + name.replace("!", "/")
        for name in names
        if wanted & set(os.path.realpath(f"{_SYS}/class/block/{name}").split("/"))
    ]


def _number(directory: str) -> tuple[int, int] | None:
    major, _colon, minor = attribute(directory, "dev").partition(":")
    return (int(major), int(minor)) if minor else None


def btrfs_devices(number: tuple[int, int]) -> dict[tuple[int, int], str]:
    """The devices of the mounted btrfs that one is of, with their nodes; none where it is of none that is mounted
    (fs/btrfs/sysfs.c: devices).
    """
    top = f"{_SYS}/fs/btrfs"
    for filesystem in _names(top):
        directory = f"{top}/{filesystem}/devices"
        found = {_number(f"{directory}/{name}"): "/dev/" + name.replace("!", "/") for name in _names(directory)}
        if number in found:
            return {each: node for each, node in found.items() if each is not None}
    return {}


def by_name(name: str) -> Device | None:
    """The device that the kernel calls so; None where it is gone already."""
    number = _number(f"{_SYS}/class/block/{name}")
    if number is None:
        return None
    try:
        return device_of(number)
    except StorageError:
        return None


def holder_names_of(device: Device) -> list[str]:
    return holder_names(f"{_SYS}/class/block/{device.name}")


def slave_names(device: Device) -> list[str]:
    """What it is built on directly, by the kernel's names."""
    return _names(f"{_SYS}/class/block/{device.name}/slaves")


def bases(device: Device) -> tuple[Device, ...]:
    """All devices that it is on: the disk of a partition, and what is below a device that is built of others."""
    found: dict[str, Device] = {}
    waiting = [device]
    while waiting:
        above = waiting.pop()
        parts = filter(None, map(by_name, slave_names(above)))
        for below in (*parts, *_whole(above)):
            if below.name not in found:
                found[below.name] = below
                waiting.append(below)
    return tuple(found.values())


def on_network(device: Device) -> bool:
    """Whether it is, or is on, a device that is gone once the network is: a unit of iSCSI, an nbd or an rbd."""
    places = (os.path.realpath(f"{_SYS}/class/block/{each.name}") for each in (device, *bases(device)))
    return any(map(_OF_NETWORK.search, places))


def wholes(device: Device) -> tuple[Device, ...]:
    """The devices whose bytes it has: the disk of a partition, what a loop device is attached to, and so on."""
    found: list[Device] = []
    above = _whole(device)
    while above and above[0].number not in [each.number for each in found]:
        found += above
        above = _whole(above[0])
    return tuple(found)


def _whole(device: Device) -> list[Device]:
    if device.disk:
        disk = by_name(name_of(device.disk))
        return [] if disk is None else [disk]
    if device.kind == "loop" and device.serial.startswith("/dev/"):
        with suppress(StorageError):
            return [device_at(device.serial)]
    return []


def is_partition_of(device: Device, disks: Iterable[Device]) -> bool:
    """Whether it is a partition of one of these, as the kernel or kpartx made it."""
    return device.partition is not None and any(device.disk == disk.node for disk in disks)


def holders(device: Device) -> tuple[Device, ...]:
    """All devices that are built on it or on its partitions, and on those in turn: nearest first. What only opens it,
    as a loop device does, is not among them: see device_users.py.
    """
    found: dict[str, Device] = {}
    waiting = [device]
    while waiting:
        below = waiting.pop(0)
        for name in (*holder_names_of(below), *map(name_of, below.partitions)):
            above = by_name(name) if name not in found else None
            if above is not None and above.number != device.number:
                found[name] = above
                waiting.append(above)
    family = [device, *found.values()]
    return tuple(above for above in found.values() if not is_partition_of(above, family))
