# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What the native engine sees of a pool's volumes, and of the images that they are made from."""

from __future__ import annotations

import os
from dataclasses import replace

from ..backends import filetree
from ..images.headers import chain
from ..model.errors import StorageError
from ..model.found import Found, Image
from ..model.goal import Scope
from ..model.volume import Volume

_CODES = {"loop": "backing_loop"}


def observe_volumes(found: Found, scope: Scope) -> Found:
    """Adds volumes, images, leftovers and the limits of the filesystem to what was found of the pool."""
    directory = found.storage.path or ""
    try:
        volumes = filetree.list_volumes(directory, scope.volumes, scope.headers, scope.raw)
        leftovers, staging_problem = filetree.observe_staging(directory)
        usage = filetree.observe_usage(directory)
        limit = filetree.file_limit(directory, found.filesystem)
    except OSError as error:
        raise StorageError(
            "storage_unreadable",
            f"{directory}: {error.strerror}",
            subject=f"pool {found.name}",
            hint="Run as a user who may read it (become: true).",
        ) from error
    images = {key: _image(found, key, False) for key in scope.images}
    images.update({key: _image(found, key, True) for key in scope.sources})
    return replace(
        found,
        volumes=volumes,
        images=images,
        usage=usage,
        protected=_protected(volumes) if scope.volumes is not None else frozenset(),
        leftovers=leftovers,
        staging_problem=staging_problem,
        file_limit=limit,
        resolved={**found.resolved, **_resolved(found, volumes, images)},
        digests=_digests(volumes, scope),
    )


def _protected(volumes: dict[str, Volume]) -> frozenset[str]:
    return frozenset(n for n, v in volumes.items() if v.type == "file" and v.path and not os.access(v.path, os.W_OK))


def observe_images(found: Found, scope: Scope) -> Found:
    """For a pool that is not there yet: only what lies outside it can be looked at."""
    keys = [key for key in (*scope.images, *scope.sources) if key.startswith("/")]
    return replace(found, images={key: _image(found, key, key in scope.sources) for key in keys})


def _resolved(found: Found, volumes: dict[str, Volume], images: dict[str, Image]) -> dict[str, str]:
    paths = {volume.backing.path for volume in volumes.values() if volume.backing and volume.backing.path}
    paths.update((key if key.startswith("/") else found.volume_path(key)) or "" for key in images)
    return {path: os.path.realpath(path) for path in paths if path and path.startswith("/")}


def _digests(volumes: dict[str, Volume], scope: Scope) -> dict[str, str]:
    digests = {}
    for name, length in scope.contents:
        volume = volumes.get(name)
        if volume is not None and volume.type == "file" and volume.path:
            value = filetree.digest(volume.path, length)
            if value is not None:
                digests[name] = value
    return digests


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
