# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What the native engine sees of the images that volumes are made from, wherever they are."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace

from ..backends import filetree
from ..host.remote import Servers
from ..images.headers import Chain, ImageHeader, chain, open_header
from ..model.found import EVERYTHING, Found, Image
from ..model.goal import Scope
from ..model.volume import Volume

_CODES = {"loop": "backing_loop"}


def observe_images(found: Found, scope: Scope, servers: Servers) -> Found:
    """Adds what volumes are made from. Of a pool that is not there yet only what lies outside can be looked at."""
    keys = [key for key in (*scope.images, *scope.sources) if found.looked or key.startswith("/")]
    images = {key: _image(found, key, key in scope.sources, servers) for key in keys}
    return replace(found, images=images, resolved={**found.resolved, **_resolved(found, images, servers)})


def observe_chains(found: Found, stakes: Mapping[str, str], servers: Servers) -> Found:
    """Adds what the volumes at stake are built on, and which of that is not there; where one is to be destroyed, what
    all of them are built on.
    """
    names = found.volumes if EVERYTHING in stakes.values() else stakes
    broken, unlike, chains = {}, {}, {}
    for name in names:
        volume = found.volumes.get(name)
        if volume is None or volume.backing is None or not volume.path or found.row.volumes == "block":
            continue  # what a device is built on is not in its content
        walked = _chain(volume.path, servers)
        chains[name] = walked.identities
        if walked.end == "missing" and name in stakes:
            broken[name] = walked.at
        if walked.end == "mismatch" and name in stakes:
            unlike[name] = walked.problem
    return replace(found, broken=broken, unlike=unlike, chains=chains)


def _chain(path: str, servers: Servers) -> Chain:
    """What can't be reached is unreadable, and not waited for."""

    def opener(path: str, declared: str | None) -> tuple[ImageHeader, tuple[int, ...]]:
        why = servers.unread(path)
        if why:
            raise OSError(errno.ETIMEDOUT, why, path)
        return open_header(path, declared)

    return chain(path, opener)


def _resolved(found: Found, images: dict[str, Image], servers: Servers) -> dict[str, str]:
    paths = {volume.backing.path for volume in found.volumes.values() if volume.backing and volume.backing.path}
    paths.update((key if key.startswith("/") else found.volume_path(key)) or "" for key in images)
    return {path: servers.resolved(path) for path in paths if path and path.startswith("/")}


def _image(found: Found, key: str, source: bool, servers: Servers) -> Image:
    path = key if key.startswith("/") else found.volume_path(key)
    why = "" if path is None else servers.unread(path)
    if why:
        return Image(Volume(os.path.basename(key), path=path, problem=why), problem=why, code="deadline")
    volume = None if path is None else filetree.read_volume(path, os.path.basename(path))
    if volume is None or path is None:
        return Image(None)
    if volume.type == "block":
        from ..host.block import device_at

        # a device is itself by whatever link: udev makes those of a group's volumes anew when it likes
        volume = replace(volume, identity=device_at(path).identity, link_target=None)
    walked = _chain(path, servers)
    missing = (walked.at,) if walked.end == "missing" else ()
    code, problem = (
        ("", "") if walked.end in ("whole", "missing") else (_CODES.get(walked.end, "backing_refused"), walked.problem)
    )
    guessed = [member.path for member in walked.members[1:] if member.probed and member.header.format != "raw"]
    if guessed and not problem:
        code, problem = "backing_format", f"nobody declared the format of {guessed[0]}, which it is built on"
    return Image(volume, walked.identities, missing, problem, code, _writers(path) if source else ())


def _writers(path: str) -> tuple[str, ...]:
    from ..host.volume_users import writers_of

    return tuple(map(str, writers_of(path)))
