# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What pools and volumes are called: names that can be file names here, in libvirt and on a command line, and uuids;
and what they are asked for by.
"""

from __future__ import annotations

import re

from ..model.errors import StorageError
from ..model.volume import is_staging

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


def volume_name(name: str) -> str:
    """Raises ``invalid_name``, also for the directories in which volumes are prepared."""
    if is_staging(name):
        raise StorageError(
            "invalid_name",
            f"the volume name {name!r} is reserved",
            subject=f"volume {name}",
            hint="Give it another name.",
        )
    return _check(name, "volume", _LONGEST_VOLUME)


def checked_uuid(text: str, subject: str = "") -> str:
    """In lower case, with its dashes. Raises ``invalid_uuid``."""
    import uuid

    try:
        return str(uuid.UUID(text.strip()))
    except ValueError:
        raise StorageError(
            "invalid_uuid",
            f"uuid: {text!r} is not a uuid",
            subject=subject,
            hint="Leave it out, or give its 32 hexadecimal digits, with dashes or without.",
        ) from None


def asked_name(text: str, kind: str) -> str:
    """A name or a shell pattern, also of what others have made, which may be called what we would not. Raises
    ``invalid_name`` for what nothing is called.
    """
    problem = "is empty" if not text else "has a slash in it" if "/" in text else ""
    if problem:
        raise StorageError(
            "invalid_name",
            f"the {kind} name {text!r} {problem}",
            subject=f"{kind} {text}",
            hint=f"Give a name or a shell pattern, or leave it out for every {kind}.",
        )
    return text


def asked_path(text: str, network: bool = False) -> str:
    """``network``: it may be that of a network volume, which is no path of a host. Raises ``invalid_path``."""
    if not text.startswith("" if network and text else "/"):
        raise StorageError(
            "invalid_path", f"path: {text!r} is not an absolute path", hint="Give an absolute path, or leave it out."
        )
    return text
