# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who stands in the way of destroying or rewriting a volume, and which word lets it happen all the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ..model.change import Condition
from ..model.errors import StorageError
from ..model.found import UNSEEN, Found, User
from ..model.goal import VolumeGoal
from ..model.pool import Permissions
from ..model.units import listed
from ..model.volume import Volume
from .task import VolumesTask

_WITH_IT = "Remove those first, or with it in the same task: they can't be without it."
_KEPT = "Free it first: the kernel takes no device away that is open, whatever is allowed."


def guard_unused(
    subject: str,
    users: Iterable[User],
    allow: Collection[str],
    doing: str,
    task: VolumesTask | None = None,
    backing_word: str = "backing",
    name: str = "",
    goes: bool = True,
) -> None:
    """Raises ``volume_backing`` or ``volume_in_use`` unless the word for it is allowed. Overlays of the volume ``name``
    that the same task removes, or puts on something else first, do not count. ``goes``: the volume goes, or is made
    anew: no word lets that happen to a device that is open.
    """
    standing = list(users)
    if task is not None and any(user.kind == "overlay" for user in standing):
        from .order import leaving

        going = task.doomed_paths | leaving(name, task)
        standing = [user for user in standing if not (user.kind == "overlay" and user.who in going)]
    have = None if task is None else task.found.volumes.get(name)
    overlays = [user for user in standing if user.kind == "overlay"]
    others = [user for user in standing if user.kind != "overlay"]
    opened = goes and task is not None and stays_while_open(have, task.found) and any(user.running for user in others)
    bound = have is not None and have.type == "block" and have.link_target is None
    for code, word, group, hint in (
        ("volume_backing", backing_word, overlays, _WITH_IT if bound else ""),
        ("volume_in_use", "in_use", others, _KEPT if opened else ""),
    ):
        if group and (hint or word not in allow):
            raise StorageError(
                code,
                f"{subject} would be {doing}, but is used by {listed(group)}",
                subject=subject,
                hint=hint or f"Free it first, or add allow: [{word}] if you know that it is safe.",
                word="" if hint else word,
            )


def standing_on(found: Found, allow: frozenset[str], erased: bool = False) -> tuple[str, str, str]:
    """Who has devices as a whole and so stands in the way, in words that are empty where nobody does, what helps, and
    the word for it: none lets go what is open, nor has erased what could not be looked at.
    """
    standing = [user for user in found.beneath if user.running or "in_use" not in allow]
    if standing:
        words, way_out = f"is used by {listed(standing)}", "Free it there first"
        bound = any(user.running for user in standing)
    elif found.blind and (erased or "in_use" not in allow):
        words = f"may be in use, since {', '.join(found.blind)} could not be looked at"
        way_out, bound = "Run as a user who may look there (become: true)", erased
    else:
        return "", "", ""
    if bound:
        return words, f"{way_out}.", ""
    return words, f"{way_out}, or add allow: [in_use] if you know that it is safe.", "in_use"


def check_ground_is_free(entry: VolumeGoal, doing: str, task: VolumesTask) -> None:
    """Raises ``device_in_use`` where somebody has, as a whole, the devices that a volume is cut from: what is free
    there for us may be theirs. What they have open stays whatever is allowed.
    """
    standing, way_out, word = standing_on(task.found, entry.allow)
    if standing:
        raise task.refuse(
            "device_in_use",
            entry.volume.name,
            f"volume {task.goal.pool}/{entry.volume.name} would be {doing}, but what it is cut from {standing}",
            way_out,
            word,
        )


def stays_while_open(have: Volume | None, found: Found) -> bool:
    """Whether the kernel keeps a volume as long as it is open: it is a device that we ourselves would take away
    (BLKPG_DEL_PARTITION of ioctl(2), lvremove(8)).
    """
    return have is not None and have.type == "block" and have.link_target is None and found.storage.kind != UNSEEN


def same_file(have: Volume) -> tuple[Condition, ...]:
    kind = "device" if have.type == "block" and have.link_target is None else "identity"
    return (Condition(kind, have.path or "", have.identity or ()),)


def guarded(have: Volume, allow: Collection[str], unseen: tuple[str, ...], kept: bool = False) -> tuple[Condition, ...]:
    """The volume must still be the same file, and unused where its use is not allowed, or it is ``kept`` then.
    ``unseen``: what could not be looked at for that, which is warned of.
    """
    unused = () if "in_use" in allow and not kept else (Condition("unused", have.path or "", unseen),)
    return (*same_file(have), *unused)


def check_copy_on_write(option: str, value: bool | None, found: Found, subject: str) -> None:
    """Raises ``not_supported`` where copying on write is to be set on a filesystem that has no such thing."""
    if value is not None and found.filesystem not in ("", "btrfs"):
        raise StorageError(
            "not_supported",
            f"{option}: the filesystem is {found.filesystem}, and only btrfs can set it",
            subject=subject,
            hint=f"Leave {option} out.",
        )


def check_ownership(permissions: Permissions, have: Permissions | None, found: Found, subject: str) -> None:
    """Raises ``not_permitted`` where we can't give a file that owner, group or mode: see chown(2), chmod(2).
    ``have`` is None for a new file."""
    if found.storage.open:
        shown = have or replace(found.storage.permissions, mode=None)
        names = ("mode", "owner", "group")
        other = (name for name in names if getattr(permissions, name) not in (None, getattr(shown, name)))
        check_not_fixed(other, found.storage.fixed, subject)
    if found.process is None:
        _check_not_squashed(permissions, have, found, subject)
        return
    user, groups = found.process
    current = have or Permissions(owner=user)
    wrong = []
    if permissions.owner is not None and permissions.owner != current.owner:
        wrong.append(f"owner {permissions.owner}")
    if permissions.group is not None and permissions.group != current.group and permissions.group not in groups:
        wrong.append(f"group {permissions.group}")
    if have is not None and have.owner != user:
        wrong.append(f"the permissions of what belongs to {have.owner}")
    if wrong:
        raise StorageError(
            "not_permitted",
            f"user {user} can't set {' and '.join(wrong)}",
            subject=subject,
            hint="Run as root (become: true), or leave owner and group out.",
        )


def check_not_fixed(names: Iterable[str], fixed: str, subject: str) -> None:
    """Raises ``not_supported`` where these can't be set; ``fixed`` says why, and is empty where they can."""
    names = list(names)
    if names and fixed:
        raise StorageError(
            "not_supported",
            f"{', '.join(names)} can't be set: {fixed}",
            subject=subject,
            hint="Leave it out; what the kernel shows there can often be chosen with mount_options.",
        )


def _check_not_squashed(permissions: Permissions, have: Permissions | None, found: Found, subject: str) -> None:
    """Raises ``not_permitted`` where a server does not take root for root, and nobody is named who may make a file, or
    a file is to be given away, which no owner may do either.
    """
    storage = found.storage
    if not found.root_is_nobody:
        return
    if have is not None:
        if permissions.owner not in (None, have.owner):
            raise StorageError(
                "not_permitted",
                f"root may not give to owner {permissions.owner} what belongs to {have.owner}: the server of "
                f"{storage.path} takes it for somebody else",
                subject=subject,
                hint="Leave owner out, set it on the server, or export it without squashing root (no_root_squash).",
            )
        return
    group = storage.permissions.group or 0
    if permissions.owner and storage.may_write(
        permissions.owner, group if permissions.group is None else permissions.group
    ):
        return
    who = f"user {permissions.owner} may not write there either" if permissions.owner else "no other owner is declared"
    theirs = storage.permissions.owner
    named = theirs and storage.may_write(theirs, group)
    raise StorageError(
        "not_permitted",
        f"root may not write to {storage.path}, which its server takes for somebody else, and {who}",
        subject=subject,
        hint=("Declare an owner who may" + (f" (owner: {theirs})" if named else ""))
        + ", or export it without squashing root (no_root_squash).",
    )
