# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Pools that are mounted on their path: what they share, whatever it is that is mounted.

Only the mount table says whether a pool is up. Nothing is asked of a mount point that may hang, and nothing is written
into one on which nothing is mounted.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..host.conditions import is_mounted
from ..host.mounts import Mount, filesystem_of, is_below, mount_at
from ..host.paths import resolved
from ..model.change import BRING_UP, TAKE_DOWN, Change, Condition
from ..model.found import ABSENT, DIRECTORY, FOREIGN, READY, UNKNOWN_STORAGE, Part, Problem, Storage, User
from ..model.pool import Pool
from . import filetree

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes

OPTIONS = ("nodev", "nosuid", "noexec")  # what libvirt mounts with on Linux, before what a pool says


class Place(NamedTuple):
    """Where a pool is to be mounted. ``mount`` is the topmost one there, ``up``: it is that of the pool's source.
    ``leaving``: it is that of the running pool, which goes before another takes its place. ``path`` has symbolic links
    followed, ``note`` is that of a mount point that we made. ``within`` is where the running pool is mounted, if the
    path is in that.
    """

    path: str
    mount: Mount | None
    up: bool
    leaving: bool
    note: str | None
    within: str = ""


def place_of(pool: Pool, look: Look, is_source: Callable[[Mount], bool]) -> Place:
    """Looks at the mount table only."""
    declared = pool.path or ""
    path = resolved(declared, look.mounts()) if declared else ""
    mount = mount_at(path, look.mounts()) if path else None
    left = resolved(look.leaving, look.mounts()) if look.leaving else ""
    leaving = mount is not None and path == left
    up = mount is not None and not leaving and is_source(mount)
    within = left if path != left and left and is_below(path, left) else ""
    return Place(path, mount, up, leaving, look.made(declared) if declared else None, within)


def observe(
    pool: Pool,
    place: Place,
    look: Look,
    holds: bool,
    source: str,
    may_hang: bool = False,
    parts: tuple[Part, ...] = (),
    own: tuple[str, ...] = (),
) -> Storage:
    """The storage of a mounted pool. ``source`` says in words what is mounted, ``parts`` are what must be there beside
    the mount point. ``own``: what a filesystem has of its own: empty directories of these names are no content.
    """
    directory, hides = _mount_point(pool, place, look)
    whole = (directory, *parts)
    path = pool.path
    bring_up, take_down = f"mount {source} on {path}", f"unmount {path}"
    if not place.up or place.mount is None:
        kind, why = _state_of(whole)
        return Storage(
            kind,
            path,
            why,
            made=place.note is not None,
            parts=whole,
            up=False,
            bring_up=bring_up,
            take_down=take_down,
            hides=hides,
        )
    inside = _inside(pool, place.mount, holds, look, may_hang)
    read_only = "ro" in place.mount.options or "ro" in place.mount.super_options
    held = tuple(name for name in inside.holds if not (name in own and _is_empty(os.path.join(path or "", name))))
    return replace(
        inside,
        holds=held,
        made=place.note is not None,
        mount_point=True,
        read_only=inside.read_only or read_only,
        filesystem=place.mount.fstype,
        parts=inside.parts or whole,
        bring_up=bring_up,
        take_down=take_down,
        leaves=(is_mounted(place.path, place.mount),),  # umount(8) takes what is on top
    )


def _state_of(parts: tuple[Part, ...]) -> tuple[str, str]:
    """Kind and reason of what is not mounted: it is there when all is there that can't be made anew without loss."""
    for kind in (FOREIGN, UNKNOWN_STORAGE):
        for part in parts:
            if part.kind == kind:
                return kind, part.why
    holding = [part for part in parts if part.name != DIRECTORY] or list(parts)
    absent = next((part for part in holding if part.kind != READY), None)
    return (READY, "") if absent is None else (ABSENT, absent.why)


def _inside(pool: Pool, mount: Mount, holds: bool, look: Look, may_hang: bool) -> Storage:
    """The root of what is mounted."""
    path = pool.path or ""
    if may_hang and not look.servers.answers(mount):
        problem = look.servers.problem(mount)
        part = Part(DIRECTORY, f"the directory {path}", UNKNOWN_STORAGE, problem.what, problem)
        return Storage(UNKNOWN_STORAGE, path, problem.what, parts=(part,))
    try:
        found = filetree.observe_directory(path, None, holds)
    except OSError as error:
        return Storage(UNKNOWN_STORAGE, path, error.strerror or str(error))
    return found if found.kind == READY else replace(found, kind=UNKNOWN_STORAGE)


def _is_empty(path: str) -> bool:
    try:
        return not os.path.islink(path) and not os.listdir(path)
    except OSError:
        return False


def _mount_point(pool: Pool, place: Place, look: Look) -> tuple[Part, int]:
    """The directory that the pool is mounted on, as if our mount were gone, and how many entries it has. One that is
    covered can't be looked at: its note tells which one it is, and that is held against it when it is removed.
    """
    path, what = pool.path or "", f"the directory {pool.path}"
    inode = filetree.noted_inode(place.note)
    requires = () if inode is None else _identity(place, inode)
    if place.up or place.leaving:
        return _part(path, READY, bool(requires), requires), 0
    if place.within:
        why = f"{path} is in what is mounted on {place.within}, which is unmounted first"
        problem = Problem("invalid_path", why, "Give it a path outside, or stop the pool first (state: inactive).")
        return Part(DIRECTORY, what, UNKNOWN_STORAGE, why, problem), 0
    if place.mount is not None:
        return Part(DIRECTORY, what, FOREIGN, f"a mount of {place.mount.source} ({place.mount.fstype})"), 0
    holding = filesystem_of(place.path, look.mounts()) if path else None
    unfit = None if holding is None else filetree.unfit(path, holding.fstype)
    there = unfit or filetree.observe_directory(path, place.note, False)
    removable = there.made and bool(requires) if there.kind == READY else there.made
    return _part(path, there.kind, removable, requires, there.why), _entries(path)


def _entries(path: str) -> int:
    """How many a directory has, where that can be told."""
    try:
        return len(os.listdir(path))
    except OSError:
        return 0


def _part(path: str, kind: str, removable: bool, requires: tuple[Condition, ...], why: str = "") -> Part:
    """Of what is below a mount no more is known than where it is."""
    return Part(
        DIRECTORY,
        f"the directory {path}",
        kind,
        why,
        requires=requires,
        removable=removable,
        deleting=f"remove the directory {path}",
        facts={"path": path},
    )


def _identity(place: Place, inode: int) -> tuple[Condition, ...]:
    """The directory below a mount is on the same filesystem as the one that it is in."""
    try:
        device = os.stat(os.path.dirname(place.path)).st_dev
    except OSError:
        return ()
    return (Condition("identity", place.path, (device, inode)),)


def busy(pool: Pool, storage: Storage, look: Look) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """Who keeps it from being unmounted, and what could not be looked at for that."""
    from ..host.mount_users import users_at

    return users_at(resolved(storage.path or "", look.mounts()))


def lower(change: Change, notes: Notes, mounting: Callable[[Pool], list[Any]]) -> list[Any]:
    """The operations on the mount point and on what is mounted there; ``mounting`` gives those that mount it."""
    from ..model.operations import Run, SetPermissions

    pool: Pool = change.wanted
    if change.action == "start":
        operations = mounting(pool) if BRING_UP in change.may else []
        if operations and "target" in (change.after or {}):
            given = pool.permissions
            operations.append(SetPermissions(pool.path or "", given.mode, given.owner, given.group, follow=True))
        return operations
    if change.action == "stop":
        path = pool.path or ""
        late = (
            f"If its server is dead for good, umount -f {path} gives up what was not written there, and "
            f"umount -l {path} hides it until nobody uses it any more; then run the task again."
        )
        unmount = Run(("umount", "--", path), bounded=True, late=late, lets_go=True, unmounts=path, whole=True)
        return [unmount] if TAKE_DOWN in change.may else []
    if change.action == "permissions" or change.part == DIRECTORY:
        from .filetree_changes import lower_directory

        return lower_directory(change, notes)
    return []


def mount(fstype: str, options: tuple[str, ...], source: str, target: str) -> Any:
    """The operation that mounts; without a type mount finds out itself."""
    from ..model.operations import Run

    kind = ("-t", fstype) if fstype else ()
    chosen = ("-o", ",".join(options)) if options else ()
    return Run(("mount", *kind, *chosen, "--", source, target), bounded=True, leaves=True, whole=True)
