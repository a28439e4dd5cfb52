# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Disk pools: the storage is a disk with a partition table, volumes are its partitions; starting and stopping it is
only a note (formatstorage: "Disk volume pools").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..host.block import Device, device_at
from ..host.conditions import untouched
from ..host.partitions import (
    Seen,
    differences,
    is_damaged,
    kernel_partitions,
    label_of,
    loop_without_partitions,
    old_label,
    read_table,
    with_hybrid,
)
from ..model.change import UNKNOWN, Change
from ..model.errors import StorageError
from ..model.found import (
    ABSENT,
    BLANK,
    DATA,
    FOREIGN,
    READY,
    UNKNOWN_STORAGE,
    Found,
    Part,
    Problem,
    Storage,
    Usage,
    User,
)
from ..model.goal import Scope
from ..model.pool import Pool, SourceDevice
from ..model.tables import ALIGNMENT, Partition, Table, default_label, format_of, usage_of
from ..model.types import spoken
from ..model.units import listed
from ..model.volume import Extent, Volume
from .links import DEV, links_in

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes
    from ..host.signatures import Content
    from ..model.operations import Step

TABLE = "table"
_OTHER_LABELS = "lvm2"
_SETTLING = 10  # seconds, as libvirt waits for udev
_WHOLE = ("disk", "loop", "dm", "md", "other")


def source_of(pool: Pool) -> SourceDevice:
    return (pool.source.devices or (SourceDevice(""),))[0]


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    source, path = source_of(pool), pool.path or DEV
    if not source.path:
        return Storage(ABSENT, path, "no disk is named")
    try:
        device = device_at(source.path)
    except StorageError as error:
        return _storage(path, _unusable(source, pool.source.format, error))
    if device.partition is not None or device.kind not in _WHOLE:
        what = f"{source.path} is a partition" if device.partition is not None else f"{source.path} is read only media"
        hint = "Name the whole disk; a partition can hold a filesystem (type: fs) or a volume group (type: logical)."
        return _storage(path, Part(TABLE, _what(source.path), FOREIGN, what, Problem("storage_foreign", what, hint)))
    part, table = _part(pool, source, device, look)
    if table is not None:
        look.once(("table", source.path), lambda: (device, table))
    names = tuple(table.name(each.number) for each in table.partitions) if table is not None and holds else ()
    return replace(_storage(path, part), holds=names)


def _unusable(source: SourceDevice, declared: str | None, error: StorageError) -> Part:
    """Of a disk that is not there, or none. One that an earlier task makes gets its table then."""
    kind = {"source_missing": ABSENT, "storage_foreign": FOREIGN}.get(error.code, UNKNOWN_STORAGE)
    problem = Problem(error.code, error.message, error.hint)
    part = Part(TABLE, _what(source.path), kind, error.message, problem)
    if kind != ABSENT:
        return part
    label = declared if declared not in (None, "unknown") else ""
    making = f"make {f'a {label}' if label else 'a'} partition table on {source.path}"
    barred = _no_label() if label == _OTHER_LABELS else None
    return replace(part, making=making, barred=barred, facts={"label": label or UNKNOWN})


def _no_partitions(source: SourceDevice) -> Problem:
    what = f"the kernel makes no partitions of {source.path}"
    return Problem("not_supported", what, "Attach it with partitions: losetup --partscan.")


def _write_protected(source: SourceDevice) -> Problem:
    hint = "Make it writable (blockdev --setrw), or name another disk."
    return Problem("not_writable", f"{source.path} is read-only", hint)


def _no_label() -> Problem:
    what = f"partition tables of the kind {_OTHER_LABELS} are not made: volumes of LVM are cut from volume groups"
    return Problem("not_supported", what, "Use a pool of type logical, or another source.format.")


def _what(path: str) -> str:
    return f"the partition table of {path}"


def _storage(path: str, part: Part) -> Storage:
    return Storage(part.kind, path, part.why, parts=(part,), requires=part.requires)


def _part(pool: Pool, source: SourceDevice, device: Device, look: Look) -> tuple[Part, Table | None]:
    """The table of a disk, and what is known of it where it can be used."""
    from ..host.signatures import content_at

    declared = pool.source.format if pool.source.format != "unknown" else None
    content = content_at(device.node, look.left(source.path))
    if content.problem:
        from .holding import users_of

        why, users = f"{source.path}: {content.problem}", users_of(device, content, look)[0]
        return Part(TABLE, _what(source.path), UNKNOWN_STORAGE, why, users=users), None
    try:
        table = _read(content, device, source, look)
    except StorageError as error:
        if error.code != "command_failed":
            raise
        why = f"{source.path} has a damaged partition table: {error.stderr or error.message}"
        return _foreign(declared, source, device, content, why, (), look), None
    beside = _beside(content, table)
    if table is None:
        part = _foreign(declared, source, device, content, f"{source.path} holds {spoken(content.text)}", (), look)
        if content.text in (BLANK, DATA):  # nothing of a pool's: one that was deleted leaves that, too
            part = replace(part, kind=ABSENT, destroys=part.destroys if content.text == DATA else "")
        return part, None
    damaged = is_damaged(table)
    if damaged or beside or declared not in (None, table.label):
        names = tuple(table.name(each.number) for each in table.partitions)
        holds = " and ".join([f"a {table.label} partition table", *beside])
        why = f"{source.path} has {holds}" + (f", which is damaged: {damaged}" if damaged else "")
        return _foreign(declared, source, device, content, why, names, look), None
    return _ready(source, device, content, table), table


def _read(content: Content, device: Device, source: SourceDevice, look: Look) -> Table | None:
    """None where there is no table."""
    names = [label_of(each) for each in content.names]
    old = old_label(device.node, look.left(source.path))
    label = old or next((name for name in names if name in ("dos", "gpt", "dvh", "mac", "sun")), "")
    if not label:
        return None
    table = read_table(device, label, source.part_separator, look.run, look.left(source.path))
    return with_hybrid(table, look.left(source.path))


def _beside(content: Content, table: Table | None) -> list[str]:
    """Signatures of the whole disk beside its table; those inside of partitions are the partitions' own."""
    if table is None:
        return []
    found = {
        each.name: None
        for each in content.signatures
        if each.usage != "partition-table"
        and label_of(each.name) != table.label
        and not any(part.start <= each.offset < part.end for part in table.partitions)
    }
    return list(found)


def _making(declared: str | None, device: Device) -> str:
    return declared or default_label(device.size, device.sector)


def _new(declared: str | None, source: SourceDevice, device: Device, content: Content) -> Part:
    label = _making(declared, device)
    return Part(
        TABLE,
        _what(source.path),
        ABSENT,
        f"{source.path} has no partition table",
        _problem(label, source, device),
        requires=untouched(device, content),
        making=f"make a {label} partition table on {source.path}",
        facts={"label": label},
    )


def _problem(label: str, source: SourceDevice, device: Device) -> Problem | None:
    """Why no table can be made there, however empty the disk is."""
    if loop_without_partitions(device):
        return _no_partitions(source)
    if label == _OTHER_LABELS:
        return _no_label()
    if device.read_only:
        return _write_protected(source)
    if label == "dos" and default_label(device.size, device.sector) != "dos":
        return Problem("not_supported", f"a dos label can't count all of {source.path}", "Declare source.format: gpt.")
    return None


def _foreign(
    declared: str | None,
    source: SourceDevice,
    device: Device,
    content: Content,
    why: str,
    partitions: Sequence[str],
    look: Look,
) -> Part:
    from .holding import users_of

    users, unseen = users_of(device, content, look)
    lost = f"{spoken(content.text)} on {source.path}" + (f" with {', '.join(partitions)}" if partitions else "")
    return replace(
        _new(declared, source, device, content),
        kind=FOREIGN,
        why=why,
        destroys=lost,
        devices=(device.node,),
        users=users,
        unseen=unseen,
    )


def _ready(source: SourceDevice, device: Device, content: Content, table: Table) -> Part:
    part = Part(
        TABLE,
        _what(source.path),
        READY,
        requires=untouched(device, content),
        removable=True,
        deleting=f"remove the {table.label} partition table of {source.path}",
        facts={"label": table.label},
    )
    if not loop_without_partitions(device):
        return part
    problem = _no_partitions(source)
    return replace(part, kind=UNKNOWN_STORAGE, why=problem.what, problem=problem)


# --- volumes ---------------------------------------------------------------------------------------------------------


def observe_volumes(found: Found, scope: Scope, look: Look) -> Found:
    from .filetree import digests

    pool = _running(found, scope)
    source = source_of(pool)
    device, table = look.once(("table", source.path), lambda: (None, None))
    if table is None:
        return found
    device, seen = _seen(device, table, look)
    gone, new, sized = differences(table, seen)
    stale = [f"{each.name} of the kernel" for each in gone]
    stale += [f"{table.name(each.number)} of the table" for each in (*new, *sized)]
    nodes = {each.number: f"/dev/{each.name}".replace("!", "/") for each in seen if each not in gone}
    links = links_in(pool.path or DEV, look)
    volumes = {}
    asked = _asked(scope, table)
    for partition in table.partitions:
        name = table.name(partition.number)
        if asked is None or name in asked:
            volumes[name] = _volume(name, partition, table, nodes.get(partition.number), links)
    frozen = _write_protected(source) if device.read_only else _taken(device) or _kept(gone, table, look)
    return replace(
        found,
        storage=replace(found.storage, frozen=frozen or found.storage.frozen),
        volumes=volumes,
        usage=Usage(*usage_of(table)),
        leftovers=tuple(stale) if not device.read_only else (),
        extent=ALIGNMENT,
        table=table,
        digests=digests(volumes, scope),
    )


def _seen(device: Device, table: Table, look: Look) -> tuple[Device, list[Seen]]:
    """The kernel's partitions. While udev has a table read anew they are not all there: that is waited for."""
    seen = kernel_partitions(device)
    if not any(differences(table, seen)):
        return device, seen
    from ..host.udev import settle

    settle(min(_SETTLING, look.left(device.node)))
    device = device_at(device.node)
    return device, kernel_partitions(device)


def _taken(device: Device) -> Problem | None:
    """Somebody else has all of the disk, and may have its partitions by other names."""
    from ..host.device_users import standing_on

    users = list(standing_on(device))
    if not users:
        return None
    what = f"{device.node} is used as a whole by {listed(users)}"
    return Problem("device_in_use", what, "Free it there, or name that as the disk of the pool.")


def _kept(gone: Sequence[Seen], table: Table, look: Look) -> Problem | None:
    """A partition that the kernel would have to forget and can't: nothing of the disk can be changed before."""
    if not gone:
        return None
    from ..host.device_users import users_of_path

    for each in gone:
        node = f"/dev/{each.name}".replace("!", "/")
        try:
            users = users_of_path(node, seconds=look.left(node))[0]
        except StorageError:  # it went away meanwhile
            continue
        if users:
            what = (
                f"the kernel still has {node}, which is no longer in the partition table of {table.device}, and can't "
                f"forget it while it is used by {listed(users)}"
            )
            return Problem("device_in_use", what, f"Free {node}, then run the task again.")
    return None


def _asked(scope: Scope, table: Table) -> set[str] | None:
    """The names that are looked at: those that are asked for, and those that would change with them."""
    if scope.volumes is None:
        return None
    asked = {*scope.volumes, *scope.named}
    numbers = [table.number(name) or 0 for name in asked]
    concerned = [each for number in numbers for each in (*table.moved_by(number), *table.inside(number))]
    return asked | {table.name(each.number) for each in concerned}


def _running(found: Found, scope: Scope) -> Pool:
    from ..model.pool import overlay

    existing = found.running
    return scope.pool if existing is None else overlay(existing, scope.pool)


def _volume(name: str, partition: Partition, table: Table, node: str | None, links: dict[str, str]) -> Volume:
    path = f"{table.directory}/{name}" if node is None else node
    if node is not None and table.directory != os.path.dirname(node):
        path = f"{table.directory}/{name}"  # device-mapper's own name
    extended = table.is_extended(partition)
    inside = sum(each.size for each in table.inside(partition.number))
    volume = Volume(
        name,
        capacity=partition.size,
        allocation=inside if extended else partition.size,
        format=format_of(table.label, partition.type),
        type="block",
        path=links.get(os.path.realpath(path), path),
        extents=(Extent(table.device, partition.start, partition.end),),
    )
    volume = replace(volume, key=volume.path, physical=partition.size)
    if node is None:
        return volume
    try:
        return replace(volume, identity=device_at(node).identity)
    except StorageError as error:
        return replace(volume, problem=error.message)


def busy(pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    return (), ()


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    from . import disk_changes

    return disk_changes.lower_pool(change, found)


def lower_volumes(
    changes: Sequence[Change], found: Found, instead: Callable[[Change], Any] = lambda change: None
) -> Sequence[Step]:
    from . import disk_changes

    return disk_changes.lower_volumes(changes, found, instead)
