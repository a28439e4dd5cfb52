# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What starts pools at boot where no daemon does: a unit of systemd that runs our own code, which it needs on the host
for that. See docs/autostart.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from ..host import systemd
from ..host.files import read_small_file
from ..host.own_code import OwnCode
from ..model.found import ENABLED, NO_UNIT, OUTDATED, Boot
from .places import Places

UNIT = "virt-storage-autostart.service"
_PROGRAM = "autostart.pyz"
_ENTRY = "tasks.boot"
_DAEMONS = ("libvirtd.service", "libvirtd.socket", "virtstoraged.service", "virtstoraged.socket")
_NOBODY = "nothing starts pools at boot"
_TEXT = """\
# Written by the Ansible collection virt.storage. It goes with the last pool that is marked for autostart.
[Unit]
Description=Storage pools that are marked for autostart
RequiresMountsFor={program} {config}
Wants=network-online.target
After=local-fs.target remote-fs.target network-online.target nss-lookup.target
After=iscsid.service iscsi.service open-iscsi.service multipathd.service zfs.target
After=nfs-client.target nfs-server.service glusterd.service
Before=libvirtd.service virtstoraged.service libvirt-guests.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={python} {program}
TimeoutStartSec=15min

[Install]
WantedBy=multi-user.target
"""


def daemon_at_boot() -> tuple[str, ...]:
    """The units of libvirt's that start pools at boot."""
    return systemd.enabled(_DAEMONS) if systemd.is_running() else ()


class BootUnit:
    """The unit of these places; there is none where they are not the system's."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._path = os.path.join(places.units, UNIT)
        self._wants = os.path.join(places.units, "multi-user.target.wants")
        self._link = os.path.join(self._wants, UNIT)
        self._program = os.path.join(places.program, _PROGRAM)

    @cached_property
    def _code(self) -> OwnCode:
        return OwnCode(_ENTRY)

    def look(self, others: bool, keyless: bool) -> Boot:
        if not self._places.units:
            return Boot(nobody="nothing starts pools of a user, or below a root of their own, at boot")
        if not systemd.is_running():
            return Boot(f"without a libvirt daemon or systemd {_NOBODY}", UNIT, False, self._state(), others, keyless)
        if os.path.islink(self._path):
            return Boot(f"{UNIT} is masked, so that {_NOBODY}")
        needed = not daemon_at_boot()
        return Boot("", UNIT, needed, self._state(), others, keyless)

    def _state(self) -> str:
        there = [os.path.lexists(path) for path in (self._path, self._link, self._program)]
        if not any(there):
            return NO_UNIT
        return ENABLED if all(there) and self._is_whole() else OUTDATED

    def _is_whole(self) -> bool:
        leads_there = os.path.exists(self._link) and os.path.samefile(self._link, self._path)
        return leads_there and read_small_file(self._path) == self._text().encode() and self._code.is_in(self._program)

    def _text(self) -> str:
        words = {"python": _python(), "program": self._program, "config": self._places.config}
        return _TEXT.format(**{name: systemd.quoted(word) for name, word in words.items()})

    def install(self) -> Iterator[Any]:
        """What it runs comes first."""
        from ..model import operations as ops

        yield ops.WriteFile(self._program, self._code.archive().decode("utf-8", "surrogateescape"))
        yield ops.WriteFile(self._path, self._text(), mode=0o644)
        yield ops.MakeDirectory(self._wants, 0o755)
        yield ops.MakeLink(self._link, self._path)

    def remove(self) -> Iterator[Any]:
        from ..model import operations as ops

        yield from map(ops.Remove, (self._link, self._path, self._program))


def _python() -> str:
    """The interpreter of this task, which has what our code needs: by the name that a newer version gets as well."""
    path = sys.executable
    plain = os.path.join(os.path.dirname(path), "python3")
    return plain if os.path.realpath(plain) == os.path.realpath(path) else path
