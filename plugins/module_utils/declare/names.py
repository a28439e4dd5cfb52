# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Names of pools and volumes: what can be a file name here, in libvirt and on a command line."""

from __future__ import annotations

import re

from ..model.errors import StorageError

CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_LONGEST_VOLUME = 255  # NAME_MAX
_LONGEST_POOL = 240  # leaves room for the suffixes of its files


def _problem(name: str, longest: int) -> str:
    if not name.strip():
        return "is empty"
    if name in (".", ".."):
        return "names a directory"
    if "/" in name:
        return "has a slash in it"
    if CONTROL.search(name):
        return "has a control character in it"
    if name.startswith("-"):
        return "starts with a dash"
    if len(name.encode()) > longest:
        return f"is longer than {longest} bytes"
    return ""


def _check(name: str, kind: str, longest: int) -> str:
    problem = _problem(name, longest)
    if problem:
        raise StorageError(
            "invalid_name",
            f"the {kind} name {name!r} {problem}",
            subject=f"{kind} {name}",
            hint="Give it another name.",
        )
    return name


def pool_name(name: str) -> str:
    """Raises ``invalid_name``."""
    return _check(name, "pool", _LONGEST_POOL)


def volume_name(name: str, reserved: str = ".virt-storage") -> str:
    """Raises ``invalid_name``. ``reserved`` is the directory in which volumes are prepared."""
    if name == reserved:
        raise StorageError(
            "invalid_name",
            f"the volume name {name!r} is reserved",
            subject=f"volume {name}",
            hint="Give it another name.",
        )
    return _check(name, "volume", _LONGEST_VOLUME)
