# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What the native engine sees of the images that volumes are made from, wherever they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from ..backends import filetree
from ..images.headers import chain
from ..model.found import Found, Image
from ..model.goal import Scope

_CODES = {"loop": "backing_loop"}


def observe_images(found: Found, scope: Scope) -> Found:
    """Adds what volumes are made from. Of a pool that is not there yet only what lies outside can be looked at."""
    keys = [key for key in (*scope.images, *scope.sources) if found.looked or key.startswith("/")]
    images = {key: _image(found, key, key in scope.sources) for key in keys}
    return replace(found, images=images, resolved={**found.resolved, **_resolved(found, images)})


def broken_chains(found: Found, names: Iterable[str]) -> dict[str, str]:
    """The files that are not there, of those that the named volumes are built on."""
    broken = {}
    for name in names:
        volume = found.volumes.get(name)
        walked = chain(volume.path) if volume is not None and volume.backing is not None and volume.path else None
        if walked is not None and walked.end == "missing":
            broken[name] = walked.at
    return broken


def _resolved(found: Found, images: dict[str, Image]) -> dict[str, str]:
    paths = {volume.backing.path for volume in found.volumes.values() if volume.backing and volume.backing.path}
    paths.update((key if key.startswith("/") else found.volume_path(key)) or "" for key in images)
    return {path: os.path.realpath(path) for path in paths if path and path.startswith("/")}


def _image(found: Found, key: str, source: bool) -> Image:
    path = key if key.startswith("/") else found.volume_path(key)
    volume = None if path is None else filetree.read_volume(path, os.path.basename(path))
    if volume is None or path is None:
        return Image(None)
    walked = chain(path)
    missing = (walked.at,) if walked.end == "missing" else ()
    code, problem = (
        ("", "") if walked.end in ("whole", "missing") else (_CODES.get(walked.end, "backing_refused"), walked.problem)
    )
    guessed = [member.path for member in walked.members[1:] if member.probed and member.header.format != "raw"]
    if guessed and not problem:
        code, problem = "backing_format", f"nobody declared the format of {guessed[0]}, which it is built on"
    return Image(volume, walked.identities, missing, problem, code, _writers(path) if source else ())


def _writers(path: str) -> tuple[str, ...]:
    from ..host.users import users_of

    users = users_of({path: path}, writers_only=True)[0]
    return tuple(str(user) for user in users[path])
