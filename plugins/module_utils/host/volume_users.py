# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who uses volumes now, be they files or block devices."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from ..model.errors import StorageError
from ..model.found import User
from .users import users_of


def users_of_volumes(paths: Mapping[str, str]) -> tuple[dict[str, tuple[User, ...]], tuple[str, ...]]:
    """For each key the users of what is at its path, and what could not be looked at."""
    devices = {key: path for key, path in paths.items() if _is_device(path)}
    users, unseen = users_of({key: path for key, path in paths.items() if key not in devices})
    if not devices:
        return users, unseen
    from .device_users import users_of_path
    from .processes import Processes

    processes, more = Processes(), set(unseen)
    for key, path in devices.items():
        try:
            users[key], blind = users_of_path(path, processes)
            more.update(blind)
        except StorageError as error:
            users[key] = ()
            more.add(error.message)
    return users, tuple(sorted(more))


def writers_of(path: str) -> tuple[User, ...]:
    """Who may write to a file or block device now."""
    if not _is_device(path):
        return users_of({path: path}, writers_only=True)[0][path]
    from .block import device_at
    from .device_users import writers_of_device

    try:
        return writers_of_device(device_at(path))
    except StorageError:  # it went away
        return ()


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False
