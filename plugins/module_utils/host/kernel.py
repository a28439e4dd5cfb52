# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What the running kernel can do, with the modules that it could load."""

from __future__ import annotations

import os
from collections.abc import Collection

from ..model.errors import StorageError
from ..model.found import Problem
from ..model.types import PoolType
from .run import run

_SECONDS = 10.0
_HELPERS = ("/sbin", "/usr/sbin")  # mount(8): where it looks for helpers
_LISTS = ("/proc/filesystems", "/proc/misc")


def mounts_type(name: str) -> bool:
    """Whether filesystems of a type can be mounted, also where it can't be told. A helper may need no kernel."""
    if any(os.path.exists(f"{directory}/mount.{name}") for directory in _HELPERS):
        return True
    return has(name, f"fs-{name}")


def has(name: str, module: str) -> bool:
    """Whether a filesystem or a device of the kernel's own is there, or the module that brings it, also where it can't
    be told. Without modprobe nothing is loaded that is not there yet.
    """
    try:
        if any(name in _listed(path) for path in _LISTS):
            return True
    except OSError:
        return True
    try:
        run(["modprobe", "--dry-run", "--quiet", module], timeout=_SECONDS)
    except StorageError as error:
        return error.code not in ("command_failed", "tool_missing")
    return True


def _listed(path: str) -> list[str]:
    with open(path, encoding="ascii") as lines:
        return [line.split()[-1] for line in lines if line.strip()]


def unable(row: PoolType, formats: Collection[str]) -> Problem | None:
    """Why the kernel can run no pool of a type that has one of these formats; None where it can."""
    drivers = {name: module for format_, name, module in row.drivers if format_ in formats}
    if not drivers or any(has(name, module) for name, module in drivers.items()):
        return None
    what = f"the kernel of this host has no {' and no '.join(drivers)}: no module for that can be loaded"
    modules = ", ".join(module.rpartition("fs-")[2] for module in drivers.values())
    return Problem("not_supported", what, f"Install or load the module for the running kernel ({modules}).")
