# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Pools on a filesystem of a server: an NFS export, a Gluster volume, a CIFS share (formatstorage: "Network filesystem
pool").

The mount table is all that is looked at to tell whether a pool is up; what is mounted is touched once it has answered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..host.files import read_small_file
from ..host.kernel import unable
from ..host.mounts import Mount, unescaped
from ..host.reach import plain_address
from ..model.change import Change
from ..model.found import Found, Storage
from ..model.pool import Pool
from ..model.types import row_of
from . import filetree, mounted

if TYPE_CHECKING:
    from ..host.look import Look
    from ..host.notes import Notes

NFS, GLUSTERFS, CIFS, AUTO = "nfs", "glusterfs", "cifs", "auto"
_TYPES = {NFS: ("nfs", "nfs4"), GLUSTERFS: ("fuse.glusterfs",), CIFS: ("cifs", "smb3")}
# mount.cifs(8): options that say who connects; without any of them it is a guest, as libvirt has it.
_WHO = ("user", "username", "cred", "credentials", "guest", "sec", "cruid")
# Options with which CIFS has the owners and modes of the server.
_WITH_OWNERS = ("unix", "posix", "posixpaths", "cifsacl", "modefromsid", "idsfromsid")
_FIXED = "a CIFS share shows what it is mounted with"
_NFS_PORT = 2049
_TOLD = "/run/mount/utab"


def observe(pool: Pool, look: Look, holds: bool) -> Storage:
    path = pool.path or ""
    place = mounted.place_of(pool, look, lambda mount: is_source(mount, pool, look))
    silent = look.servers.silent(path) if path else None
    if silent is not None and silent.point != place.path:
        return filetree.not_answering(path, silent, look)
    storage = mounted.observe(pool, place, look, holds, _words(pool), may_hang=True)
    if not storage.up:
        storage = replace(storage, unable=unable(row_of(pool.type), _kinds(pool)))
    return replace(storage, fixed=_FIXED) if _shows_all_alike(pool, place.mount if place.up else None) else storage


def _shows_all_alike(pool: Pool, mount: Mount | None) -> bool:
    """Whether owners and modes are those of the mount (mount.cifs(8): File and Directory Ownership and Permissions). Of
    what is not mounted yet its options are taken at their word.
    """
    if mount is not None and mount.fstype not in _TYPES[CIFS]:
        return False
    if mount is None and _format(pool) != CIFS:
        return False
    options = mount.super_options if mount is not None else pool.mount_options or ()
    return not any(option in _WITH_OWNERS for option in options)


observe_volumes = filetree.observe_volumes
busy = mounted.busy


def lower(change: Change, found: Found, notes: Notes) -> list[Any]:
    operations = mounted.lower(change, notes, mounting)
    have = found.storage.permissions
    if change.action != "permissions" or not found.root_is_nobody or not have.owner:
        return operations
    from ..model.operations import As

    group = change.wanted.permissions.group
    acting = (have.group or 0) if group is None else group  # an owner may give to a group of its own
    return [As(have.owner, acting, operation) for operation in operations]


lower_volumes = filetree.lower_volumes


# --- what is mounted -------------------------------------------------------------------------------------------------


def _host(pool: Pool) -> str:
    return pool.source.hosts[0].name if pool.source.hosts else ""


def _format(pool: Pool) -> str:
    return pool.source.format or AUTO


def _directory(pool: Pool) -> str:
    return (pool.source.dir or "").strip("/")


def _words(pool: Pool) -> str:
    return source_of(pool, NFS if _format(pool) == AUTO else _format(pool))


def source_of(pool: Pool, kind: str) -> str:
    """What mount is told to mount, in the words of each kind: nfs(5), mount.glusterfs(8), mount.cifs(8). libvirt finds
    its pool mounted only where the table of mounts has its own (storage_backend_fs.c), which names of directories
    are in as they were given.
    """
    host = _host(pool)
    if kind == CIFS:
        return f"//{host}/{_directory(pool)}"
    if kind == GLUSTERFS:
        return f"{host}:{pool.source.dir or '/'}"  # it takes an address of IPv6 without brackets only
    bracketed = f"[{host}]" if ":" in host else host
    return f"{bracketed}:{pool.source.dir or '/'}"


class _Shown(NamedTuple):
    """A source as the mount table shows it, taken apart."""

    host: str
    directory: str


def _shown(mount: Mount, kind: str) -> _Shown:
    source = mount.source
    if kind == CIFS:
        host, _slash, directory = source.replace("\\", "/").lstrip("/").partition("/")
    elif kind == NFS and source.startswith("["):
        host, _colon, directory = source[1:].partition("]:")
    elif kind == NFS:
        host, _colon, directory = source.partition(":")
    else:
        host, _colon, directory = source.rpartition(":")
    return _Shown(host, _plain(directory, kind))


def _plain(directory: str, kind: str) -> str:
    """One form of what means the same: slashes, and in names of shares the case of letters."""
    names = [name for name in directory.split("/") if name]
    if kind == CIFS and names:
        names[0] = names[0].casefold()
    return "/".join(names)


def is_source(mount: Mount, pool: Pool, look: Look) -> bool:
    """Whether that is mounted from the source of the pool."""
    for kind in _kinds(pool):
        if mount.fstype in _TYPES[kind]:
            shown = _shown(mount, kind)
            same = shown.directory == _plain(pool.source.dir or "", kind) and _is_all_of_it(
                mount, shown.directory, kind
            )
            return same and _same_host(shown.host, pool, mount, look)
    return False


def _is_all_of_it(mount: Mount, directory: str, kind: str) -> bool:
    """Whether it is what was mounted, rather than a directory of that by itself (mount(8): --bind). NFS shows that in
    the source; what is below a share CIFS may show in either.
    """
    below = _plain(directory, kind).partition("/")[2] if kind == CIFS else ""
    return kind == NFS or mount.root.strip("/") in ("", below)


def _kinds(pool: Pool) -> tuple[str, ...]:
    """The kinds of servers that may be meant. A version is one of NFS."""
    if _format(pool) != AUTO:
        return (_format(pool),)
    return (NFS,) if pool.source.protocol_version else (NFS, GLUSTERFS, CIFS)


def _same_host(shown: str, pool: Pool, mount: Mount, look: Look) -> bool:
    """By name; else by address: that which the mount is of, as its options tell, or which the shown name has."""
    declared = _host(pool)
    if plain_address(shown) == plain_address(declared):
        return True
    addresses = {plain_address(option[len("addr=") :]) for option in mount.super_options if option.startswith("addr=")}
    theirs = addresses or {*look.addresses(shown)}
    return bool(theirs & {*look.addresses(declared)}) or _was_told(pool, mount)


def _was_told(pool: Pool, mount: Mount) -> bool:
    """Whether mount(8) noted that it was told this host there. Of a server that is known by several addresses NFS shows
    the one by which it was mounted first (fs/nfs/nfs4client.c: trunking).
    """
    if mount.fstype != "nfs4":
        return False
    for line in (read_small_file(_TOLD) or b"").decode("utf-8", "surrogateescape").splitlines():
        noted = dict(word.partition("=")[::2] for word in line.split(" "))
        if unescaped(noted.get("TARGET", "")) == mount.point:
            told = _shown(mount._replace(source=unescaped(noted.get("SRC", ""))), NFS)
            same = told.directory == _plain(pool.source.dir or "", NFS)
            return same and plain_address(told.host) == plain_address(_host(pool))
    return False


# --- mounting --------------------------------------------------------------------------------------------------------


def mounting(pool: Pool) -> list[Any]:
    """The operation that mounts: NFS first where nobody said what it is, then Gluster, then CIFS, as each says no."""
    from ..model.operations import FirstOf

    kinds = [kind for kind in _kinds(pool) if _may_be(pool, kind)]
    if len(kinds) == 1:
        return [_attempt(pool, kinds[0])]
    attempts = [_attempt(pool, kind) for kind in kinds]
    attempts[0] = attempts[0]._replace(asks=(_host(pool), _NFS_PORT))
    return [FirstOf(tuple(attempts))]


def _may_be(pool: Pool, kind: str) -> bool:
    """Volumes of Gluster have plain names."""
    return _format(pool) != AUTO or kind != GLUSTERFS or "/" not in _directory(pool)


def _attempt(pool: Pool, kind: str) -> Any:
    source, target = source_of(pool, kind), pool.path or ""
    operation = mounted.mount(kind, options_of(pool, kind), source, target)
    return operation._replace(
        helper=f"mount.{kind}",
        credentials=_credentials(pool, kind),
        hint=f"See what {_host(pool)} offers to this host (storage_pool_sources lists it), whether the options fit, "
        "and whether the kernel has nfs, fuse or cifs.",
        late=f"See whether {_host(pool)} is up and can be reached, or give the task a longer timeout.",
    )


def options_of(pool: Pool, kind: str) -> tuple[str, ...]:
    """In libvirt's order: its own, those of the kind, then the pool's, which so have the last word. Passwords among
    these are left out: of CIFS they are in its file of credentials, and the others know none.
    """
    from ..model.private import public_options

    own = public_options(pool.mount_options or ())
    if kind == NFS:
        more: tuple[str, ...] = (f"nfsvers={pool.source.protocol_version}",) if pool.source.protocol_version else ()
    elif kind == GLUSTERFS:
        more = ("direct-io-mode=1",)
        if ":" in _host(pool):
            more += ("xlator-option=transport.address-family=inet6",)
    else:
        more = (*_who(pool), "nobrl")  # QEMU writes to bytes that it has locked, which CIFS then lets nobody do
        if pool.login is not None:
            own = _without_account(own)
    return (*mounted.OPTIONS, *more, *own)


def _who(pool: Pool) -> tuple[str, ...]:
    """The option of CIFS that says who connects, where the pool's own do not."""
    if _account(pool):
        from ..model.operations import CREDENTIALS

        return (CREDENTIALS,)
    return () if any(word.partition("=")[0] in _WHO for word in pool.mount_words) else ("guest",)


def _without_account(options: tuple[str, ...]) -> tuple[str, ...]:
    """The account that a task declares takes the place of theirs."""
    from ..model.private import names_account

    words = (word for option in options for word in option.split(","))
    return tuple(word for word in words if not names_account(word))


def _credentials(pool: Pool, kind: str) -> Any:
    """What mount.cifs(8) reads from its file of credentials."""
    account = _account(pool) if kind == CIFS else ""
    if not account:
        return None
    from ..model.operations import Secret

    return Secret(account)


def _account(pool: Pool) -> str:
    """That file: the account that is declared, else the passwords in the options of the definition."""
    if pool.login is None:
        return _own_passwords(pool)
    from ..model.secrets import account

    return account(pool.login.username, pool.login.secret)


def _own_passwords(pool: Pool) -> str:
    """As mount.cifs takes them: the first one counts, but for one behind the name of a user. A second one
    (``password2``) is to come first, since an older mount.cifs takes the last line of a file for the only one.
    """
    from ..model.private import passwords

    found: dict[str, str] = {}
    for name, password in passwords(pool.mount_options or ()):
        line = "password2" if name.startswith("password2") else "password"
        found[line] = password if name.startswith("user") else found.get(line, password)
    return "".join(f"{line}={found[line]}\n" for line in ("password2", "password") if line in found)
