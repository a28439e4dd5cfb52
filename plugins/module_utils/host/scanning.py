# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Words for the kernel, in files of sysfs: some it takes long to come back from, so that another process says them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ..model.errors import StorageError
from ..model.operations import ScanUnits
from ..model.units import format_size
from ..model.volume import Sought
from .run import run
from .scsi import directory_of, host_directory, units
from .udev import settle

SECONDS = 60.0  # where nothing else is said
_APPEARING = 10.0  # seconds, as long as libvirt waits for a link
_POLL_SECONDS = 0.05
_LEAST = 0.1


def tell(paths: Iterable[str], word: str, held: Sequence[int], seconds: float) -> None:
    """Writes a word to files of sysfs, one after the other. Raises ``command_failed`` and ``deadline``."""
    run(("tee", *paths), held, seconds, stdin=f"{word}\n".encode())


def scan_units(op: ScanUnits, held: Sequence[int], timeout: float | None) -> None:
    """A unit that takes no commands is not asked for its size, since it would not answer."""
    deadline = time.monotonic() + (timeout or SECONDS)
    there = [unit for unit in units(op.host, op.target) if unit.device is not None and not unit.away]
    try:
        tell([f"{host_directory(op.host)}/scan"], op.word, held, _left(deadline))
        if there:
            tell([f"{directory_of(unit.address)}/rescan" for unit in there], "1", held, _left(deadline))
    except StorageError as error:
        if error.code == "deadline":
            error.hint = "See which unit does not answer (lsscsi), or give the task a longer timeout."
        raise
    _wait_for_devices(op, min(deadline, time.monotonic() + _APPEARING))
    settle(_left(deadline))
    for wanted in op.sought:
        _check_there(wanted, op)


def _wait_for_devices(op: ScanUnits, deadline: float) -> None:
    """The kernel makes block devices of what it has found a little later."""
    while any(unit.device is None for unit in units(op.host, op.target)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _check_there(wanted: Sought, op: ScanUnits) -> None:
    unit = next((each for each in units(op.host, op.target) if each.name == wanted.name), None)
    size = None if unit is None else unit.device.size if unit.device is not None else 0
    check_sought(wanted, f"host{op.host}", size, unit.problem if unit is not None else "")


def check_sought(wanted: Sought, where: str, size: int | None, problem: str = "") -> None:
    """Raises ``source_missing`` where a volume is not as it has to be. ``size`` is None where it is not there."""
    if size is None:
        problem = "is not there, after looking for it"
    elif problem:
        problem = f"can't be used: {problem}"
    elif wanted.capacity not in (None, size) and not (wanted.at_least and size > (wanted.capacity or 0)):
        problem = f"has {format_size(size)}, not {format_size(wanted.capacity or 0)}"
    if problem:
        hint = "Have it served like that, then run the task again, or declare what is there."
        raise StorageError("source_missing", f"{wanted.name} of {where} {problem}", subject=wanted.name, hint=hint)


def _left(deadline: float) -> float:
    return max(_LEAST, deadline - time.monotonic())
