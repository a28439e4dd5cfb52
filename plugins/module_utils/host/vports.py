# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Virtual Fibre Channel hosts, made and removed (the kernel's Documentation/scsi, scsi_fc_transport: NPIV)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..model.errors import StorageError
from ..model.operations import ChangeVport, ScanUnits
from .adapters import ScsiHost, scsi_hosts, vport_file
from .identity import changed_meanwhile
from .scanning import SECONDS, scan_units, tell
from .scsi import units

_POLL_SECONDS = 0.1
_LOGGING_IN = 10.0  # seconds in which a new port gets to know its targets; libvirt takes them twice five


def change_vport(op: ChangeVport, held: Sequence[int], timeout: float | None) -> None:
    """Raises ``command_failed`` where the hardware or the fabric refuses, and ``deadline``."""
    path, seconds = vport_file(op.parent, op.doing), timeout or SECONDS
    if path is None:
        raise changed_meanwhile(f"host{op.parent}", "went away, or has no virtual hosts any more,")
    deadline = time.monotonic() + seconds
    tell([path], op.word, held, seconds)
    while (_there(op) is None) == (op.doing == "create"):
        if time.monotonic() >= deadline:
            raise StorageError(
                "deadline",
                f"the virtual host adapter {op.port} did not {'appear' if op.doing == 'create' else 'go'} within "
                f"{seconds:g} s",
                subject=f"host{op.parent}",
                hint="Look at what the kernel says of it (dmesg), or give the task a longer timeout.",
            )
        time.sleep(_POLL_SECONDS)
    host = _there(op)
    if host is not None:
        _await_units(host.number, held, deadline)


def _await_units(host: int, held: Sequence[int], deadline: float) -> None:
    """There may be none for it."""
    patience = min(deadline, time.monotonic() + _LOGGING_IN)
    while True:
        scan_units(ScanUnits(host), held, max(_POLL_SECONDS, deadline - time.monotonic()))
        if units(host) or time.monotonic() >= patience:
            return
        time.sleep(_POLL_SECONDS)


def _there(op: ChangeVport) -> ScsiHost | None:
    return next((each for each in scsi_hosts() if (each.wwnn, each.wwpn) == (op.node, op.port)), None)
