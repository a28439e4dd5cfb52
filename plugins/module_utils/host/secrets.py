# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Files of libvirt's secrets (its secret driver): DIRECTORY/UUID.xml says what one is for, UUID.base64 is its value."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

from ..model import operations as ops
from .directories import make_directory, sync_path, write_file
from .files import read_small_file

_OBJECT, _VALUE = ".xml", ".base64"


def objects(directory: str) -> Iterator[tuple[str, bytes]]:
    """Uuids, and the XML of each. Raises ``not_readable``."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        read_small_file(directory)  # says why
        return
    for name in names:
        text = read_small_file(os.path.join(directory, name)) if name.endswith(_OBJECT) else None
        if text is not None:
            yield name[: -len(_OBJECT)], text


def value(directory: str, uuid: str) -> bytes | None:
    """The value of an object; None where it has none, or what is there is no base64. Raises ``not_readable``."""
    data = read_small_file(os.path.join(directory, uuid + _VALUE))
    if data is None:
        return None
    try:
        return base64.b64decode(data)
    except ValueError:  # of which binascii.Error is one
        return None


def is_kept(directory: str, uuid: str) -> bool:
    """Whether the object is there, as one that a daemon has only in its memory is not."""
    return os.path.exists(os.path.join(directory, uuid + _OBJECT))


def kept_otherwise(directory: str, uuid: str) -> bool:
    """Whether there is a value in another form than this one, such as encrypted."""
    try:
        names = os.listdir(directory)
    except OSError:
        return True
    return any(name.startswith(f"{uuid}.") and not name.endswith((_OBJECT, _VALUE, ".new")) for name in names)


def left_by_killed(directory: str, uuid: str) -> tuple[str, ...]:
    """What a task that was killed has left of a value, under the name that it has until it is whole; without an object,
    the value itself as well.
    """
    names = (f"{_VALUE}.new",) if is_kept(directory, uuid) else (_VALUE, f"{_VALUE}.new")
    paths = (os.path.join(directory, uuid + name) for name in names)
    return tuple(path for path in paths if os.path.lexists(path))


def write_secret(op: ops.WriteSecret) -> None:
    value = ops.WriteFile(op.value_path, base64.b64encode(op.value.data).decode())
    if os.path.lexists(f"{op.value_path}.new") or not _made_whole(value):
        write_file(value)  # one that is there can be replaced by one with a name only
    if op.xml:
        write_file(ops.WriteFile(op.object_path, op.xml))


def _made_whole(op: ops.WriteFile) -> bool:
    """Makes a file that has no name until it is whole: who is killed leaves nothing (open(2): O_TMPFILE). False where
    there is one, or the filesystem has no such thing.
    """
    directory = os.path.dirname(op.path)
    make_directory(ops.MakeDirectory(directory, 0o700))
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, op.mode)
    except OSError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, op.mode)
        file.write(op.text.encode())
        file.flush()
        os.fsync(descriptor)
        try:  # without a descriptor Python calls link(2), which does not follow
            os.link(f"/proc/self/fd/{descriptor}", op.path, src_dir_fd=descriptor, follow_symlinks=True)
        except OSError:
            return False
    sync_path(directory)
    return True
