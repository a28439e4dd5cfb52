# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who uses a block device now: mounts, swap, what is built on it, and processes, of its partitions too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from ..model.errors import StorageError
from ..model.found import User
from .block import (
    Device,
    bases,
    btrfs_devices,
    by_name,
    device_at,
    holder_names_of,
    is_partition_of,
    name_of,
    number_at,
    wholes,
)
from .mounts import Mount
from .patience import in_child
from .processes import OpenFile, Processes, is_udev, process_user
from .users import attachments, held, loops, qemu_lock, swaps, writable, writers_beside

_SECONDS = 5.0
_OF_LVM = "LVM-"
_HELD = "the kernel: it is mounted, swapped to, or part of another device"
# Prefixes of device-mapper's uuids (lvm2, cryptsetup, multipath-tools, dmraid, stratis).
_MAPPED = (
    (_OF_LVM, "volume group"),
    ("CRYPT-", "dm-crypt"),
    ("mpath-", "multipath map"),
    ("DMRAID-", "dmraid set"),
    ("stratis-", "stratis"),
)


def users_of_device(
    device: Device, processes: Processes | None = None, seconds: float = _SECONDS
) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """The users, and what could not be looked at. A member of a volume group with no active volume, or of an array that
    is not assembled, has no users: only its signature tells.
    """
    processes = processes or Processes()
    above = family(device)
    numbers = {member.number: member for member in above}
    found: dict[User, None] = {}
    named = (_mounts(numbers, device, processes), _swaps(numbers, device), _served(numbers, device, processes))
    for source in (_built(device, above), *named):
        found.update(dict.fromkeys(source))
    opened = {file: member for file in processes.files() for member in _opened(file, numbers)}
    for file in processes.lasting(list(opened)):
        user, member = process_user(file.pid), opened[file]
        found[user if member is device else User(user.kind, f"{user.who} with {member.node}")] = None
    unseen = set(processes.unseen)
    found.update(dict.fromkeys(_writers_of_wholes(device, processes, unseen)))
    if not found:
        found.update(dict.fromkeys(_last_word(device, unseen, seconds)))
    return tuple(found), tuple(sorted(unseen))


def users_beneath(device: Device, processes: Processes | None = None) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """Who has as a whole what volumes are cut from, past its partitions and its volumes of LVM, and so those too: who
    opens it, loop devices, other devices. What could not be looked at beside.
    """
    processes = processes or Processes()
    own = {device.number: device}
    found: dict[User, None] = dict.fromkeys(standing_on(device))
    for source in (_mounts(own, device, processes), _swaps(own, device), _served(own, device, processes)):
        found.update(dict.fromkeys(source))
    opened = [file for file in processes.files() if _opened(file, own)]
    for file in processes.lasting(opened):
        found[process_user(file.pid)] = None
    unseen = set(processes.unseen)
    theirs = [*_writers_of_wholes(device, processes, unseen)]
    return (*(User(user.kind, f"{user.who} on {device.node}") for user in found), *theirs), tuple(sorted(unseen))


def _writers_of_wholes(device: Device, processes: Processes, unseen: set[str]) -> Iterator[User]:
    """Who may write to what the device is a part of or attached to: what it holds is theirs as well."""
    above = wholes(device)
    numbers = {each.number: each for each in above}
    opened = {file: each for file in processes.files() for each in _opened(file, numbers) if writable(file.link)}
    for file in processes.lasting(list(opened)):
        yield User("process", f"{process_user(file.pid).who} with {opened[file].node}")
    for loop in (each for each in (device, *above) if each.kind == "loop"):
        yield from writers_beside(loop.node, processes, unseen)


def writers_of_device(
    device: Device, processes: Processes | None = None, seconds: float = _SECONDS
) -> tuple[User, ...]:
    """Who may write to the device now, to what is built on it, or to what it is on. A mount that is read-only, who has
    it open for reading, and what is built on it and not in use are none of them.
    """
    processes = processes or Processes()
    above = family(device)
    numbers = {member.number: member for member in (*above, *bases(device))}
    mounted = list(_mounts(numbers, device, processes))
    found: dict[User, None] = dict.fromkeys(_mounts(numbers, device, processes, writable=True))
    attached = [each for each in above[1:] if each.kind == "loop" and not each.read_only]
    found.update(dict.fromkeys(User("loop", each.node) for each in attached))
    for source in (_swaps(numbers, device), _served(numbers, device, processes)):
        found.update(dict.fromkeys(source))
    opened = [file for file in processes.files() if _opened(file, numbers) and writable(file.link)]
    found.update(dict.fromkeys(process_user(file.pid) for file in processes.lasting(opened)))
    if not found and not mounted and len(above) == 1:  # such as one of several that a filesystem is on
        found.update(dict.fromkeys(_last_word(device, set(), seconds, writers_only=True)))
    return tuple(found)


def standing_on(device: Device) -> Iterator[User]:
    """Devices that have all of one for themselves, rather than being parts of it."""
    loop_nodes = [node for node, path in loops() if path.startswith("/dev/") and number_at(path) == device.number]
    names = [*holder_names_of(device), *map(name_of, loop_nodes)]
    above = [each for each in map(by_name, names) if each is not None and not each.dm_uuid.startswith(_OF_LVM)]
    return _built(device, [device, *above])


def _opened(file: OpenFile, numbers: dict[tuple[int, int], Device]) -> list[Device]:
    """The device of these that a descriptor is of."""
    member = numbers.get(number_at(file.link) or (-1, -1)) if "/dev/" in file.shown else None
    return [] if member is None or is_udev(file.pid) else [member]


def family(device: Device) -> list[Device]:
    """The device, its partitions, and all that is built on any of them, loop devices included."""
    attached = [(node, number_at(path)) for node, path in loops() if path.startswith("/dev/")]
    found = {device.number: device}
    waiting = [device]
    while waiting:
        below = waiting.pop(0)
        names = [*holder_names_of(below), *(name_of(node) for node in below.partitions)]
        names += [name_of(node) for node, number in attached if number == below.number]
        for above in filter(None, map(by_name, names)):
            if above.number not in found:
                found[above.number] = above
                waiting.append(above)
    return list(found.values())


def touched(device: Device) -> set[tuple[int, ...]]:
    """What tells all of which something is changed with this device: besides what is built on it, what it is on."""
    return identities((*family(device), *bases(device)))


def identities(devices: Iterable[Device]) -> set[tuple[int, ...]]:
    """What tells devices, and the files that they are attached to, under whatever names."""
    known = list(devices)
    told = attachments(each.node for each in known if each.kind == "loop")
    files = {each.identity for each in (told or {}).values()}
    return files | {(os.makedev(*each.number),) for each in known}


def _built(device: Device, family: list[Device]) -> Iterator[User]:
    """What stands on it; partitions by themselves are no users."""
    for above in family:
        if above is not device and not is_partition_of(above, family):
            yield User("loop" if above.kind == "loop" else "holder", described(above))


def described(above: Device) -> str:
    """A device in the words of those who made it."""
    if above.kind == "md":
        return f"mdraid {above.node}"
    if above.kind == "loop":
        return above.node
    mapped = f"/dev/mapper/{above.dm_name}"
    for prefix, what in _MAPPED:
        if above.dm_uuid.startswith(prefix):
            return f"{what} {group_of(above.dm_name) if prefix == _OF_LVM else above.dm_name} ({mapped})"
    return f"device-mapper {mapped}" if above.kind == "dm" else above.node


def group_of(dm_name: str) -> str:
    """The volume group in the name that LVM gives (dm_build_dm_name of libdevmapper: a hyphen is doubled)."""
    return dm_name.replace("--", "\0").split("-")[0].replace("\0", "-")


def _of(member: Device, device: Device) -> str:
    return "" if member is device else f" of {member.node}"


def _mounts(
    numbers: dict[tuple[int, int], Device], device: Device, processes: Processes, writable: bool = False
) -> Iterator[User]:
    told = set()
    for pid, table in processes.tables().values():
        for mount in table:
            if writable and "ro" in mount.super_options:
                continue
            member = next((numbers[number] for number in _mounted(mount) if number in numbers), None)
            if member is not None and mount.point not in told:
                told.add(mount.point)
                where = "" if pid == "self" else f" as process {pid} sees it"
                yield User("mount", f"{mount.point}{_of(member, device)}{where}")


def _mounted(mount: Mount) -> Iterable[tuple[int, int]]:
    """The devices that a filesystem is on; of btrfs the mount table names one of them."""
    if mount.number[0] or not mount.source.startswith("/dev/"):
        return (mount.number,)
    named = number_at(mount.source) or mount.number
    return (named, *btrfs_devices(named))


def _swaps(numbers: dict[tuple[int, int], Device], device: Device) -> Iterator[User]:
    for path in swaps():
        member = numbers.get(number_at(path) or (-1, -1)) if path.startswith("/dev/") else None
        if member is not None:
            yield User("swap", path)


def _served(numbers: dict[tuple[int, int], Device], device: Device, processes: Processes) -> Iterator[User]:
    for path, user in processes.served():
        member = numbers.get(number_at(path) or (-1, -1)) if path.startswith("/dev/") else None
        if member is not None:
            yield User(user.kind, f"{user.who}{_of(member, device)}")


def _last_word(device: Device, unseen: set[str], seconds: float, writers_only: bool = False) -> Iterator[User]:
    """What nothing above explains: open(2) with O_EXCL, which the kernel refuses for what it uses itself. Partitions
    that kpartx made are such a use of their disk, so that they are asked instead.
    """
    for path in device.partitions if device.kind == "dm" and device.partitions else (device.path,):
        try:
            told = in_child(partial(_asked, path, writers_only), seconds)  # a disk that is dead does not even open
        except StorageError as error:
            unseen.add(f"whether the kernel uses {path} ({error.message})")
            continue
        if told is None:
            unseen.add(f"whether the kernel uses {path}, which does not answer")
        elif told["held"]:
            yield User("holder", _HELD)
        elif told["lock"]:
            yield User("lock", told["lock"])
        elif not told["readable"]:
            unseen.add(f"whether the kernel uses {path}")


def _asked(path: str, writers_only: bool) -> dict[str, Any]:
    lock = qemu_lock(path, writers_only)
    return {"held": held(path), "lock": lock.who if lock else "", "readable": os.access(path, os.R_OK)}


def users_of_path(
    path: str, processes: Processes | None = None, seconds: float = _SECONDS
) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """The same of the device at a path."""
    return users_of_device(device_at(path), processes, seconds)
