# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""LVM's reports, read so that nothing is written: no hints, no locks, no devices file.

``--readonly`` takes no locks (lvm(8)), but a report that finds a device under another name than the devices file has
still rewrites that file (lvmdevices(8); seen with lvm2 2.03.16). So it reads a copy of the file, in a directory of its
own that stands for /etc/lvm.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..host.clock import Deadline
from ..host.run import failure, finish
from ..model.errors import StorageError

_DIRECTORY = "LVM_SYSTEM_DIR"
_OPTIONS = ("--readonly", "--nohints", "--reportformat", "json", "--units", "b", "--nosuffix")
_GROUP_FIELDS = (
    "vg_name", "vg_uuid", "vg_size", "vg_free", "vg_exported", "vg_missing_pv_count", "lv_count",
)  # fmt: skip
_DEVICE_FIELDS = (
    "pv_name", "pv_uuid", "vg_name", "vg_uuid", "pv_size", "dev_size", "pv_missing", "pv_in_use", "pv_duplicate",
)  # fmt: skip


class Group(NamedTuple):
    """A volume group. Sizes are bytes. ``missing``: how many of its devices are not there."""

    name: str
    uuid: str
    size: int
    free: int
    exported: bool
    missing: int
    volumes: int


class Device(NamedTuple):
    """A physical volume; ``path`` is None where the device is not there. ``used``: it says of itself that it belongs
    to a group, also where that is not known.
    """

    path: str | None
    uuid: str
    group: str
    group_uuid: str
    size: int
    used: bool
    duplicate: bool


def groups(deadline: Deadline) -> list[Group]:
    return parse_groups(_report("vgs", _GROUP_FIELDS, deadline))


def devices(deadline: Deadline) -> list[Device]:
    return parse_devices(_report("pvs", _DEVICE_FIELDS, deadline))


def _report(tool: str, fields: tuple[str, ...], deadline: Deadline) -> str:
    with _system_directory() as directory:
        environment = {"LVM_SUPPRESS_FD_WARNINGS": "1"}
        config: tuple[str, ...] = ()
        if directory is not None:
            environment[_DIRECTORY] = directory
            config = ("--config", f'global/locking_dir="{directory}"')
        argv = (tool, *_OPTIONS, *config, "-o", ",".join(fields))
        ended = finish(argv, timeout=deadline.left, environment=environment)
    if ended.status != 0:
        raise failure(tool, ended.command, ended.status, ended.stderr.strip())
    return ended.stdout


@contextmanager
def _system_directory() -> Iterator[str | None]:
    """What stands for /etc/lvm where the host has a devices file; None where it has none, and nothing would be
    written.
    """
    real = os.environ.get(_DIRECTORY) or "/etc/lvm"
    files = _devices_files(os.path.join(real, "devices"))
    if not files:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="virt-storage-") as private:
        for entry in os.listdir(real):
            if entry not in ("devices", "archive", "backup", "cache"):
                os.symlink(os.path.join(os.path.abspath(real), entry), os.path.join(private, entry))
        os.mkdir(os.path.join(private, "devices"))
        for file in files:
            shutil.copy(file, os.path.join(private, "devices"))
        yield private


def _devices_files(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [os.path.join(directory, name) for name in names if name.endswith(".devices")]


# --- reading ---------------------------------------------------------------------------------------------------------


def _rows(printed: str, kind: str) -> list[dict[str, str]]:
    """The rows of a report (lvmreport(7): JSON)."""
    try:
        return [row for report in json.loads(printed)["report"] for row in report[kind]]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            "command_failed",
            f"LVM printed what is no report: {error}",
            subject="lvm2",
            hint="Look what pvs and vgs print with --reportformat json.",
        ) from None


def _number(row: dict[str, Any], name: str) -> int:
    text = str(row.get(name) or 0)
    return int(text) if text.isdigit() else 0


def parse_groups(printed: str) -> list[Group]:
    return [
        Group(
            row["vg_name"],
            row["vg_uuid"],
            _number(row, "vg_size"),
            _number(row, "vg_free"),
            bool(row["vg_exported"]),
            _number(row, "vg_missing_pv_count"),
            _number(row, "lv_count"),
        )
        for row in _rows(printed, "vg")
    ]


def parse_devices(printed: str) -> list[Device]:
    return [
        Device(
            row["pv_name"] if row["pv_name"].startswith("/") and not row["pv_missing"] else None,
            row["pv_uuid"],
            row["vg_name"],
            row["vg_uuid"],
            _number(row, "dev_size") or _number(row, "pv_size"),
            bool(row["pv_in_use"]),
            bool(row["pv_duplicate"]),
        )
        for row in _rows(printed, "pv")
    ]
