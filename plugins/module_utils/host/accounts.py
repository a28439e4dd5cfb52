# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""User and group names of this host."""

from __future__ import annotations

import grp
import pwd
from typing import Any, Callable

from ..model.errors import StorageError

OwnerId = Callable[[Any], Any]


def _resolve(value: int | str | None, kind: str, lookup: Callable[[str], int]) -> int | None:
    if value is None:
        return None
    text = str(value)
    if text.isascii() and text.isdecimal() and len(text) < 20:
        number = int(text)
        if number < 2**32 - 1:
            return number
    else:
        try:
            return lookup(text)
        except KeyError:
            pass
    raise StorageError(
        f"unknown_{kind}",
        f"{kind}: there is no {text} on this host",
        subject=text,
        hint="Give a name or id of this host.",
    )


def owner_id(value: int | str | None) -> int | None:
    """A user name or number as an id. Raises ``unknown_owner``."""
    return _resolve(value, "owner", lambda name: pwd.getpwnam(name).pw_uid)


def group_id(value: int | str | None) -> int | None:
    """A group name or number as an id. Raises ``unknown_group``."""
    return _resolve(value, "group", lambda name: grp.getgrnam(name).gr_gid)


def accounts_of(uri: str) -> tuple[OwnerId, OwnerId]:
    """How the host behind a uri takes owners and groups: another host has other names, so it takes numbers only."""
    if uri == "auto" or uri.startswith("native:"):
        return owner_id, group_id
    from .peers import is_remote

    if not is_remote(uri):
        return owner_id, group_id

    def number(value: int | str | None, kind: str) -> int | None:
        if value is None or str(value).isdecimal():
            return owner_id(value)
        raise StorageError(
            f"unknown_{kind}",
            f"{kind}: {value} is a name of this host, which means nothing on that of {uri}",
            subject=str(value),
            hint="Give a number, or run the task on that host itself.",
        )

    return lambda value: number(value, "owner"), lambda value: number(value, "group")
