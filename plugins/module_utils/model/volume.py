# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The volume, as libvirt's volume XML has it: the same noun for what is declared and what is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .pool import UNDECLARED, Permissions

STAGING = ".virt-storage"  # where volumes are prepared, inside the pool's directory: the same filesystem
LOST_AND_FOUND = "lost+found"  # a filesystem's own directory, where it is empty: mke2fs(8)


def is_staging(name: str) -> bool:
    """Whether a directory of that name is, or is another host's, in which volumes are prepared."""
    return name == STAGING or name.startswith(f"{STAGING}-")


@dataclass(frozen=True)
class Backing:
    """What an image is backed by. ``path`` is absolute; ``volume`` is set when it is a volume of the same pool.

    ``format`` is what was declared or what the image's header says, never probed; None when neither says.
    ``permissions`` are those of the backing file as a daemon shows them: never set, never compared.
    """

    path: str | None = None
    format: str | None = None
    volume: str | None = None
    permissions: Permissions = UNDECLARED


@dataclass(frozen=True)
class SecretReference:
    """A secret of libvirt's, by one of its uuid and its usage; never the secret itself."""

    uuid: str | None = None
    usage: str | None = None


@dataclass(frozen=True)
class Cipher:
    name: str
    size: int
    mode: str | None = None
    hash: str | None = None


@dataclass(frozen=True)
class InitVector:
    name: str
    hash: str | None = None


@dataclass(frozen=True)
class Encryption:
    """``format`` is default, qcow, luks or luks2; ``engine`` is qemu or librbd."""

    format: str
    engine: str | None = None
    secrets: tuple[SecretReference, ...] = ()
    cipher: Cipher | None = None
    ivgen: InitVector | None = None


def passing_name(name: str) -> str:
    """What stands under a name that a volume has only for a while, in words."""
    return f"the name that {name} has until the next boot"


class Sought(NamedTuple):
    """A volume that is served elsewhere, and has to be there with this capacity in bytes, or with any."""

    name: str
    capacity: int | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Extent:
    """A part of a device that a volume lies on, in bytes."""

    device: str
    start: int
    end: int


@dataclass(frozen=True)
class Content:
    """What a new volume starts with: exactly one of an absolute ``path`` on the host, a ``volume`` of the same pool,
    or inline ``data``.
    """

    path: str | None = None
    volume: str | None = None
    format: str | None = None
    data: bytes | None = None
    capacity: int | None = None


@dataclass(frozen=True)
class Volume:
    """Sizes in bytes. ``type`` is file, dir, block, network or character. ``foreign`` says what stands under the name
    when that is no volume, ``problem`` what is wrong with its header, ``identity`` tells the file from any other.
    ``looks_like`` is what a header in a volume that is declared raw pretends, ``looks_capacity`` the size that it
    tells. ``timestamps`` are nanoseconds since the epoch, which a float would not hold. ``thin_pool``: the volume of
    the same pool that its space comes from, as it is written. ``aliases``: other paths that lead to it while it is
    active. ``links``: how many names its file has. ``snapshots`` and ``beyond_0_10`` are those of its header: see
    images/headers.py.
    """

    name: str
    capacity: int | None = None
    allocation: int | None = None
    format: str | None = None
    permissions: Permissions = UNDECLARED
    backing: Backing | None = None
    compat: str | None = None
    cluster_size: int | None = None
    lazy_refcounts: bool | None = None
    extended_l2: bool | None = None
    encryption: Encryption | None = None
    thin_pool: str | None = None
    # declared only
    content: Content | None = None
    preallocation: str | None = None
    nocow: bool | None = None
    at_least: bool = False
    # found only
    type: str | None = None
    path: str | None = None
    key: str | None = None
    physical: int | None = None
    data_file: str | None = None
    encrypted: bool = False
    links: int = 1
    snapshots: int = 0
    beyond_0_10: tuple[str, ...] = ()
    link_target: str | None = None
    foreign: str = ""
    problem: str = ""
    looks_like: str = ""
    looks_capacity: int | None = None
    identity: tuple[int, ...] | None = None
    timestamps: tuple[tuple[str, int], ...] = ()
    extents: tuple[Extent, ...] = ()
    aliases: tuple[str, ...] = ()
