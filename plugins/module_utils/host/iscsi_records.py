# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What we change in the database of open-iscsi, and the notes by which that is taken back. Passwords are written into
the records themselves: iscsiadm(8) would take them in its command line only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..model import operations as ops
from . import iscsiadm
from .directories import sync_path, unlink, write_file
from .files import read_small_file
from .iscsi import DATABASES, DEFAULT, Node, Portal, asking_record, fields_of, nodes, sessions

NODE, IFACE, ASKING, _GIVEN = "node", "iface", "asking", "given"
MANUAL = {"node.startup": "manual", "node.conn[0].startup": "manual"}
LOGIN_SECONDS, TRIES = "node.conn[0].timeo.login_timeout", "node.session.initial_login_retry_max"
_AUTH, _ASKING_AUTH = "node.session.auth.", "discovery.sendtargets.auth."
_CREDENTIALS = tuple(_AUTH + name for name in ("authmethod", "username", "password", "username_in", "password_in"))
_END = "# END RECORD"


class Made(NamedTuple):
    """A record that we have made: of an interface by its name, of a node also its target, its portal and the group of
    that; one of asking a portal has that as its name. Or one of somebody else that we have given credentials, with the
    settings that it ``had`` instead, and what tells ``ours`` by which it is known that nobody changed them since.
    """

    kind: str
    iface: str
    target: str = ""
    portal: str = ""
    tag: str = ""
    had: str = ""
    ours: str = ""

    def is_of(self, node: Node) -> bool:
        return self[1:5] == made_of(node)[1:5]

    @property
    def given(self) -> bool:
        return self.kind == _GIVEN


def made_of(node: Node) -> Made:
    return Made(NODE, node.iface, node.target, str(node.portal), str(node.tag))


def given_to(node: Node, settings: Mapping[str, str], before: Made | None) -> Made:
    """The note of credentials, before they are written. Those of an earlier start are not what the record had."""
    have = fields_of(node.path)
    if before is not None and _digest(have) in before.ours.split(","):
        return before._replace(ours=f"{_digest(have)},{_digest(settings)}")
    had = json.dumps({name: have.get(name) for name in _CREDENTIALS})
    packed = base64.b64encode(had.encode("utf-8", "surrogateescape")).decode()
    return Made(_GIVEN, *made_of(node)[1:5], packed, _digest(settings))


def _digest(settings: Mapping[str, str]) -> str:
    """Who logs in, and as whom."""
    told = "\0".join(settings.get(name, "") for name in _CREDENTIALS[:3])
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


# --- notes -----------------------------------------------------------------------------------------------------------


def noted(path: str) -> list[Made]:
    """What is noted as changed by us."""
    data = read_small_file(path) or b""
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    return [Made(*line.split(" ")) for line in lines if line]


def note(path: str, known: Sequence[Made]) -> None:
    """For root alone, as the records are."""
    if known:
        lines = (" ".join(filter(None, each)) for each in known)
        write_file(ops.WriteFile(path, "".join(f"{line}\n" for line in lines)))
    else:
        unlink(path)


# --- taking back -----------------------------------------------------------------------------------------------------


def remove(made: Sequence[Made], held: Sequence[int], deadline: float) -> None:
    """Nodes first; iscsiadm keeps those of running sessions."""
    for each in sorted(made, key=lambda made: made.kind, reverse=True):
        if each.kind == ASKING:
            _remove_asking(iscsiadm.portal_of(each.iface), held, deadline)
        elif each.kind != IFACE:
            node = next((node for node in nodes(each.target) if each.is_of(node)), None)
            if node is not None and each.given:
                _put_back(node, each)
            elif node is not None:
                unlink(_staged(node.path))
                _checked_removal(iscsiadm.run((*node.words, "-o", "delete"), held, deadline))
        elif each.iface != DEFAULT and not _is_used(each.iface) and _has(each.iface):
            _checked_removal(iscsiadm.run(("-m", "iface", "-I", each.iface, "-o", "delete"), held, deadline))


def _remove_asking(portal: Portal, held: Sequence[int], deadline: float) -> None:
    path = asking_record(portal)
    if path:
        unlink(_staged(path))
        _checked_removal(iscsiadm.run((*iscsiadm.asking(portal), "-o", "delete"), held, deadline))


def _put_back(node: Node, given: Made) -> None:
    """What it had before it got our credentials, unless somebody gave it others since."""
    unlink(_staged(node.path))
    if _digest(fields_of(node.path)) in given.ours.split(","):
        rewrite(node.path, json.loads(base64.b64decode(given.had)))


def is_kept(made: Made) -> bool:
    """Whether a node is there still: iscsid is not done with it, and it goes with the definition."""
    return made.kind == NODE and any(made_of(node) == made for node in nodes(made.target))


def _checked_removal(ended: Any) -> None:
    if ended.status not in (iscsiadm.EXISTS, iscsiadm.NOTHING):
        iscsiadm.check(ended)


def _is_used(iface: str) -> bool:
    return any(node.iface == iface for node in nodes()) or any(each.iface == iface for each in sessions())


def _has(iface: str) -> bool:
    return any(os.path.exists(f"{database}/ifaces/{iface}") for database in DATABASES)


# --- writing ---------------------------------------------------------------------------------------------------------


def settings_of(credentials: Any) -> dict[str, str]:
    if credentials is None:
        return {}
    lines = credentials.data.decode("utf-8", "surrogateescape").splitlines()
    return {name: value for name, _equals, value in (line.partition(" = ") for line in lines)}


def asking_settings_of(credentials: Any) -> dict[str, str]:
    """The same account, for asking a portal."""
    return {name.replace(_AUTH, _ASKING_AUTH): value for name, value in settings_of(credentials).items()}


def rewrite(path: str, settings: Mapping[str, str | None]) -> None:
    """Replaces settings of a record, whole or not at all, for root alone; those that are None go. The new one is not
    beside it until it is whole: what is there counts as a record.
    """
    told = fields_of(path)
    if all(told.get(name) == value for name, value in settings.items()):
        return
    data = (read_small_file(path) or b"").decode("utf-8", "surrogateescape")
    lines = []
    missing = {name: value for name, value in settings.items() if value is not None}
    for line in data.splitlines():
        name = line.partition("=")[0].strip()
        if name in missing:
            lines.append(f"{name} = {missing.pop(name)}")
        elif line.strip() == _END:
            break
        elif line.strip() and name not in settings:
            lines.append(line)
    lines += [*(f"{name} = {value}" for name, value in missing.items()), _END]
    _replace(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def give_back(path: str, had: bytes) -> None:
    """The whole record as it was, where it is there still."""
    if os.path.exists(path):
        with suppress(OSError):
            _replace(path, had)


def _replace(path: str, data: bytes) -> None:
    staged = _staged(path)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.rename(staged, path)
    sync_path(os.path.dirname(path))


def _staged(path: str) -> str:
    database = next((each for each in DATABASES if path.startswith(f"{each}/")), os.path.dirname(path))
    return f"{database}/.virt-storage-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
