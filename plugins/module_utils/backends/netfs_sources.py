# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""NFS exports, Gluster volumes and CIFS shares of servers: each server is asked by each protocol, all at once.

Neither showmount(8), gluster(8) with its log in /dev/null, nor smbclient(1) keeps anything of what it is told.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable

from ..host.files import in_memory
from ..host.reach import ensure_listening
from ..host.run import Ended, failure, finish, run, tool_missing
from ..model.discovery import CIFS, GLUSTERFS, NFS, Discovery, FoundSource, Query, Unanswered
from ..model.errors import StorageError
from ..model.pool import Source, SourceHost
from ..model.secrets import account
from ..model.types import POOL_TYPES
from . import netfs_answers as answers

if TYPE_CHECKING:
    from ..host.look import Look

_WORKERS = 16
_GLUSTER_PORT = 24007
_TOOLS = {NFS: "showmount", GLUSTERFS: "gluster", CIFS: "smbclient"}
# strerror(3), rpc(3), and the codes of SMB: nobody is there, or the way to it is not.
_SILENT = (
    "timed out", "no route to host", "network is unreachable", "host is down", "host is unreachable",
    "nt_status_io_timeout", "nt_status_host_unreachable", "nt_status_network_unreachable", "nt_status_host_down",
)  # fmt: skip
Answer = tuple[list[FoundSource], list[str]]


def find(query: Query, look: Look) -> Discovery:
    """Everything that the servers offer, and who of them did not answer by what."""
    from concurrent.futures import ThreadPoolExecutor

    asked = [(host, protocol) for host in query.hosts for protocol in query.formats]
    with ThreadPoolExecutor(min(_WORKERS, max(1, len(asked)))) as workers:
        told = list(workers.map(lambda each: _asked(each[0], each[1], query, look), asked))
    sources: list[FoundSource] = []
    left_out: list[str] = []
    unanswered: list[Unanswered] = []
    for (host, protocol), answer in zip(asked, told):
        if isinstance(answer, StorageError):
            unanswered.append(Unanswered(host, protocol, answer))
        else:
            sources += answer[0]
            left_out += [f"{host}: {name!r} can't be a source: it holds what is no text" for name in answer[1]]
    return Discovery(tuple(sources), tuple(unanswered), len(asked) > len(unanswered), left_out=tuple(left_out))


def _asked(host: str, protocol: str, query: Query, look: Look) -> Answer | StorageError:
    tool = _TOOLS[protocol]
    try:
        if shutil.which(tool) is None:
            raise tool_missing(tool)
        found = _ASK[protocol](host, query, look)
    except StorageError as told:
        error = _silence(host, told) or told
        error.subject = host if error.code != "tool_missing" else error.subject
        if error.code in ("deadline", "operation_failed", "source_missing"):
            error.hint = f"Look whether {host} serves {protocol} and lets this host ask."
        return error
    good = [source for name, source in found if answers.usable(name)]
    return good, [name for name, _source in found if not answers.usable(name)]


def _silence(host: str, told: StorageError) -> StorageError | None:
    """The tools have time limits of their own, and say so in their words: whoever can't be reached says nothing, which
    is no word on what is there.
    """
    words = f"{told.message} {told.stderr}".casefold()
    if told.code not in ("command_failed", "operation_failed") or not any(word in words for word in _SILENT):
        return None
    what = f"{host} does not answer" + ("" if told.stderr else f": {told.message}")
    more: dict[str, Any] = {"command": told.command, "rc": told.rc, "stderr": told.stderr}
    return StorageError("deadline", what, subject=host, hint=told.hint, **more)


Named = list[tuple[str, FoundSource]]


def _exports(host: str, query: Query, look: Look) -> Named:
    printed = run(("showmount", "--no-headers", "--exports", "--", host), timeout=look.left(host))
    return [
        (export.path, FoundSource(_source(host, NFS, export.path), clients=export.clients))
        for export in answers.exports(printed)
    ]


def _source(host: str, protocol: str, directory: str) -> Source:
    return Source(hosts=(SourceHost(host),), dir=directory, format=protocol)


# --- Gluster ---------------------------------------------------------------------------------------------------------


def _volumes(host: str, query: Query, look: Look) -> Named:
    ensure_listening(host, _GLUSTER_PORT, look.left(host))  # gluster itself takes up to ten seconds to see that
    argv = ("gluster", f"--remote-host={host}", "--mode=script", "--xml", "--log-file=/dev/null")
    ended = finish((*argv, "volume", "info", "all"), timeout=look.left(host))
    if ended.status != 0:
        raise _refused(ended, "gluster")  # says it on standard output
    try:
        volumes = answers.gluster_volumes(ended.stdout)
    except answers.Unreadable as error:
        raise failure("gluster", ended.command, ended.status, str(error)) from None
    return [(volume.name, _volume(host, query.type, volume)) for volume in volumes]


def _volume(host: str, kind: str, volume: answers.GlusterVolume) -> FoundSource:
    """A volume that is not started can't be mounted (Gluster's administrator guide: Starting Volumes)."""
    row = POOL_TYPES[kind]
    if "name" in row.sources:
        source = Source(hosts=(SourceHost(host),), name=volume.name, dir=row.default_dir)
    else:
        source = _source(host, GLUSTERFS, volume.name)
    users = () if volume.status == "Started" else (f"the volume is not started ({volume.status})",)
    return FoundSource(source, users=users, uuid=volume.uuid)


# --- CIFS ------------------------------------------------------------------------------------------------------------


def _shares(host: str, query: Query, look: Look) -> Named:
    argv = ("smbclient", "--grepable", "--option=name resolve order=host", f"--list={host}")
    with _credentials(query) as (option, descriptors):
        ended = finish((*argv, option), descriptors, look.left(host))
    shares = answers.shares(ended.stdout)
    if shares is None:  # of an IPv6 address it lists all, and ends with 1 all the same
        raise _refused(ended, "smbclient")
    return [
        (share.name, FoundSource(_source(host, CIFS, share.name), comment=share.comment or None)) for share in shares
    ]


@contextmanager
def _credentials(query: Query) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The option that names the account, and the open file that holds it, which nobody else can see; a guest has
    none.
    """
    if query.username is None:
        yield "--no-pass", ()
        return
    told = account(query.username, query.password).encode("utf-8", "surrogateescape")
    with in_memory(told) as (descriptor, path):
        yield f"--authentication-file={path}", (descriptor,)


def _refused(ended: Ended, tool: str) -> StorageError:
    """Both tools tell on standard output what went wrong."""
    said = ended.stderr.strip() or ended.stdout.strip()
    return failure(tool, ended.command, ended.status, said)


_ASK: dict[str, Callable[[str, Query, Any], Named]] = {NFS: _exports, GLUSTERFS: _volumes, CIFS: _shares}
