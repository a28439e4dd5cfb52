# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Who uses volumes now, be they files or block devices."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from ..model.errors import StorageError
from ..model.found import User
from .users import users_of

if TYPE_CHECKING:
    from .processes import OpenFile, Processes


def users_of_volumes(paths: Mapping[str, str]) -> tuple[dict[str, tuple[User, ...]], tuple[str, ...]]:
    """For each key the users of what is at its path, and what could not be looked at."""
    devices = {key: path for key, path in paths.items() if _is_device(path)}
    characters = {key: path for key, path in paths.items() if _is_device(path, stat.S_ISCHR)}
    plain = {key: path for key, path in paths.items() if key not in devices and key not in characters}
    users, unseen = users_of(plain)
    if not devices and not characters:
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
    users.update(_openers(characters, processes))
    return users, tuple(sorted({*more, *processes.unseen}))


def _openers(paths: Mapping[str, str], processes: Processes) -> dict[str, tuple[User, ...]]:
    """Who has character devices open. None is opened for that: a tape would be wound back by it."""
    from .processes import is_udev, process_user

    numbers = {os.stat(path).st_rdev: key for key, path in paths.items()}
    found: dict[str, list[OpenFile]] = {key: [] for key in paths}
    for file in processes.files() if paths else ():
        with suppress(OSError, KeyError):
            if "/dev/" in file.shown and not is_udev(file.pid):
                status = os.stat(file.link)
                if stat.S_ISCHR(status.st_mode):
                    found[numbers[status.st_rdev]].append(file)
    lasting = {key: processes.lasting(files) for key, files in found.items()}
    return {key: tuple(dict.fromkeys(process_user(file.pid) for file in files)) for key, files in lasting.items()}


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


def _is_device(path: str, is_one: Callable[[int], bool] = stat.S_ISBLK) -> bool:
    try:
        return is_one(os.stat(path).st_mode)
    except OSError:
        return False
