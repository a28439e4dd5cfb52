# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What LVM says of its groups, devices and volumes: all of it with one call (lvm-fullreport(8), lvmreport(7)), by which
nothing is written: no hints, no locks, no devices file.

LVM's own ``--readonly`` would not do: it can't tell which volumes are active. And whatever its options, a report that
finds a device under another name than the devices file has rewrites that file (lvmdevices(8); seen with lvm2 2.03.16).
So it reads a copy of the file, in a directory of its own that stands for /etc/lvm.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..model.errors import StorageError

if TYPE_CHECKING:
    from ..host.block import Device
    from ..host.look import Look

_DIRECTORY, _USUAL = "LVM_SYSTEM_DIR", "/etc/lvm"
_WRITTEN = ("devices", "archive", "backup", "cache")
_PLACE = "/run"  # of the copy, where we may write there: in memory, and gone with the next boot
_FIELDS = {
    "vg": "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_exported,vg_clustered,vg_lock_type,vg_permissions,"
    "vg_systemid,vg_missing_pv_count",
    "pv": "pv_name,pv_uuid,vg_name,vg_uuid,pv_major,pv_minor,pv_missing,pv_in_use,pv_size,dev_size",
    "lv": "lv_name,lv_uuid,lv_size,lv_attr,origin,origin_size,pool_lv,data_percent,lv_tags",
    "seg": "lv_uuid,segtype,seg_size,devices",
    "pvseg": "pvseg_start",
}
_REPORT = ("--nolocking", "--nohints", "--reportformat", "json", "--units", "b", "--nosuffix")
_OF_OTHERS = ("--shared", "--foreign")  # LVM leaves these out, and they are not absent
_NO_SEGMENTS = ("-S", "pvseg_start=-1")
_COPY = re.compile(r"Not using device (\S+) for PV (\S+?)\.?\Z")
_PLAIN = re.compile(r"[^A-Za-z0-9/_:-]")  # what could have a meaning in a pattern
_DEVICE = re.compile(r"(.*)\((\d+)\)\Z", re.DOTALL)
THIN_POOL, THIN, SNAPSHOT, MERGING = "t", "V", "s", "S"


class Member(NamedTuple):
    """A physical volume. ``path`` is empty where it is not there. ``used``: it says of itself that it is part of a
    group. ``copies``: other devices that say of themselves that they are the same one. ``size`` is that of the device,
    in bytes.
    """

    path: str
    uuid: str
    group: str
    number: tuple[int, int]
    missing: bool
    copies: tuple[str, ...]
    used: bool
    size: int


class Segment(NamedTuple):
    """``places``: devices or other volumes, with the first of their extents."""

    kind: str
    size: int
    places: tuple[tuple[str, int], ...]


class Logical(NamedTuple):
    """A logical volume; hidden ones are not reported. ``attributes`` are those of lvs(8), bytes are sizes; the virtual
    size of a snapshot is that of its origin. ``percent`` of it is allocated, None where that is not known.
    """

    name: str
    uuid: str
    size: int
    attributes: str
    origin: str
    origin_size: int
    pool: str
    percent: float | None
    tags: tuple[str, ...]
    segments: tuple[Segment, ...]

    @property
    def kind(self) -> str:
        return self.attributes[:1]

    @property
    def active(self) -> bool:
        return self.attributes[4:5] not in ("-", "X", "")

    @property
    def lost(self) -> bool:
        """Whether it is a snapshot that overflowed."""
        return self.attributes[4:5] in ("I", "S")

    @property
    def opened(self) -> bool:
        return self.attributes[5:6] == "o"

    @property
    def skipped(self) -> bool:
        """Whether it is not activated with its group."""
        return self.attributes[9:10] == "k"

    @property
    def partial(self) -> bool:
        return self.attributes[8:9] == "p"


class Group(NamedTuple):
    """A volume group; sizes in bytes. ``shared``: other hosts have it too. ``foreign``: the system ID of another host,
    which alone has it. ``missing``: how many devices are.
    """

    name: str
    uuid: str
    size: int
    free: int
    extent: int
    exported: bool
    shared: bool
    foreign: str
    writable: bool
    missing: int
    devices: tuple[Member, ...]
    volumes: tuple[Logical, ...]


class Report(NamedTuple):
    groups: tuple[Group, ...]
    devices: tuple[Member, ...]

    def named(self, name: str) -> tuple[Group, ...]:
        """The groups of that name: this host's, or where it has none those of others."""
        groups = tuple(group for group in self.groups if group.name == name)
        return tuple(group for group in groups if not group.foreign) or groups


def report(look: Look) -> Report:
    """All groups that LVM shows on this host, devices without one included. Hints of an earlier scan are not believed.
    Raises ``tool_missing``, ``command_failed`` or ``deadline``.
    """
    argv = ["lvm", "fullreport", *_REPORT, *_OF_OTHERS]
    for kind, fields in _FIELDS.items():
        argv += ["--configreport", kind, "-o", fields]
    argv += _NO_SEGMENTS
    parsed: Report = look.once("lvm", lambda: _ask((*argv, *apart(look)), look))
    return parsed


def _ask(argv: Sequence[str], look: Look) -> Report:
    try:
        with _system_directory() as environment:
            told, warnings = _json(argv, look, environment)
            own = _own(told, look, environment)
            return parse(told, warnings, own)
    except (KeyError, AttributeError, TypeError) as error:
        from ..host.run import misprinted

        raise misprinted(argv, f"report: {error}") from None
    except OSError as error:
        raise _not_copied(error) from error


def _not_copied(error: OSError) -> StorageError:
    if isinstance(error, PermissionError):
        code, hint = "not_readable", "Run as a user who may read it (become: true)."
    else:
        code, hint = "operation_failed", f"See that there is room in {_PLACE}, and that it can be written."
    return StorageError(code, f"LVM can't be asked, with a copy of its devices file: {error}", subject="lvm", hint=hint)


def _own(told: Any, look: Look, environment: Mapping[str, str]) -> frozenset[str]:
    """The uuids of groups with a system ID that are this host's: LVM shows them without being asked for others'. Asked
    for only where there is such an ID, which by default there is not (lvmsystemid(7)).
    """
    if not any(row["vg_systemid"] for part in told["report"] for row in part.get("vg", ())):
        return frozenset()
    shown = _json(("lvm", "vgs", *_REPORT, "-o", "vg_uuid", *apart(look)), look, environment)[0]
    return frozenset(row["vg_uuid"] for part in shown["report"] for row in part["vg"])


def _json(argv: Sequence[str], look: Look, environment: Mapping[str, str]) -> tuple[Any, list[str]]:
    """What a report says, and its warnings."""
    import json

    from ..host.run import failure, finish, misprinted

    ended = finish(argv, timeout=look.left("lvm"), environment=environment)
    if ended.status != 0:
        raise failure("lvm", ended.command, ended.status, ended.stderr.strip())
    try:
        return json.loads(ended.stdout), ended.stderr.splitlines()
    except ValueError as error:
        raise misprinted(argv, f"report: {error}") from None


def looks_into_volumes(look: Look) -> bool:
    """Whether LVM takes a logical volume as a physical one, which by default it does not (lvm.conf: scan_lvs). Where it
    does not say, it is to be tried.
    """
    try:
        said = look.run(("lvm", "lvmconfig", "--typeconfig", "full", "devices/scan_lvs"))
    except StorageError as error:
        if error.code == "deadline":
            raise
        return True
    return said.strip() != "scan_lvs=0"


# --- devices that do not answer --------------------------------------------------------------------------------------


def silent(look: Look) -> tuple[str, ...]:
    """The nodes of the devices that LVM is kept from, since it would wait for each that it can see."""
    return tuple(device.node for device in _silent(look))


def _silent(look: Look) -> tuple[Device, ...]:
    from ..host.silent import silent_devices

    found: tuple[Device, ...] = look.once("silent", silent_devices)
    return found


def apart(look: Look) -> tuple[str, ...]:
    """What each command of LVM is told beside, so that it looks at none of those: the host's own filter goes on to
    hold. LVM takes a device that one of its names lets pass (lvm.conf: global_filter; with a devices file it looks at
    no other device than those of the file, and at no filter).
    """
    devices = _silent(look)
    if not devices:
        return ()
    from ..host.sources import aliases

    names = [name for device in devices for name in aliases(device)]
    patterns = [f'"r|^{_PLAIN.sub(".", name)}$|"' for name in names]
    return ("--config", f"devices/global_filter=[{','.join([*patterns, *_own_filter(look)])}]")


def _own_filter(look: Look) -> list[str]:
    try:
        said = look.run(("lvm", "lvmconfig", "--typeconfig", "current", "devices/global_filter"))
    except StorageError as error:
        if error.code == "deadline":
            raise
        return []
    return [said.partition("=")[2].strip().lstrip("[").rstrip("]")]


# --- the devices file ------------------------------------------------------------------------------------------------


def _usual_directory() -> str:
    return os.path.abspath(os.environ.get(_DIRECTORY) or _USUAL)


def has_devices_file() -> bool:
    """Whether LVM may look at the devices of its file only (lvmdevices(8)); so it may where nobody can tell."""
    try:
        return bool(_devices_files(_usual_directory()))
    except OSError:
        return True


def _devices_files(directory: str) -> list[str]:
    place = os.path.join(directory, "devices")
    try:
        names = os.listdir(place)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [os.path.join(place, name) for name in names if name.endswith(".devices")]


@contextmanager
def _system_directory() -> Iterator[dict[str, str]]:
    """The environment that makes LVM take a copy for /etc/lvm, on a host with a devices file; without one, nothing
    would be written.
    """
    usual = _usual_directory()
    files = _devices_files(usual)
    if not files:
        yield {}
        return
    import shutil
    import tempfile

    place = _PLACE if os.access(_PLACE, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="virt-storage-", dir=place) as private:
        for entry in os.listdir(usual):
            if entry not in _WRITTEN:
                os.symlink(os.path.join(usual, entry), os.path.join(private, entry))
        os.mkdir(os.path.join(private, "devices"))
        for file in files:
            shutil.copy(file, os.path.join(private, "devices"))
        yield {_DIRECTORY: private}


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(told: Any, warnings: Sequence[str] = (), own: Collection[str] = ()) -> Report:
    """Of the JSON of a full report, which has no word of copies of a device: only a warning tells of them. ``own`` are
    the uuids of groups that are this host's although they have a system ID.
    """
    copies: dict[str, list[str]] = {}
    for match in map(_COPY.search, warnings):
        if match is not None:
            copies.setdefault(match.group(2), []).append(match.group(1))
    groups: list[Group] = []
    devices: list[Member] = []
    for part in told["report"]:
        members = tuple(_device(row, copies) for row in part.get("pv", ()))
        devices += members
        segments: dict[str, list[Segment]] = {}
        for row in part.get("seg", ()):
            segments.setdefault(row["lv_uuid"], []).append(_segment(row))
        volumes = tuple(_logical(row, segments) for row in part.get("lv", ()))
        groups += [_group(row, members, volumes, own) for row in part.get("vg", ()) if row["vg_uuid"]]
    return Report(tuple(groups), tuple(devices))


def _number(text: str) -> int:
    return int(text) if text.lstrip("-").isdigit() else 0


def _device(row: dict[str, str], copies: dict[str, list[str]]) -> Member:
    return Member(
        row["pv_name"] if row["pv_name"].startswith("/") and not row["pv_missing"] else "",
        row["pv_uuid"],
        row["vg_name"],
        (_number(row["pv_major"]), _number(row["pv_minor"])),
        bool(row["pv_missing"]),
        tuple(copies.get(row["pv_uuid"], ())),
        bool(row["pv_in_use"]),
        _number(row["dev_size"]) or _number(row["pv_size"]),
    )


def _segment(row: dict[str, str]) -> Segment:
    matches = [_DEVICE.match(text) for text in row["devices"].split(",")]
    places = tuple((match.group(1), int(match.group(2))) for match in matches if match is not None)
    return Segment(row["segtype"], _number(row["seg_size"]), places)


def _logical(row: dict[str, str], segments: dict[str, list[Segment]]) -> Logical:
    percent = row["data_percent"]
    return Logical(
        row["lv_name"],
        row["lv_uuid"],
        _number(row["lv_size"]),
        row["lv_attr"],
        row["origin"],
        _number(row["origin_size"]),
        row["pool_lv"],
        float(percent) if percent else None,
        tuple(filter(None, row["lv_tags"].split(","))),
        tuple(segments.get(row["lv_uuid"], ())),
    )


def _group(
    row: dict[str, str], devices: tuple[Member, ...], volumes: tuple[Logical, ...], own: Collection[str]
) -> Group:
    return Group(
        row["vg_name"],
        row["vg_uuid"],
        _number(row["vg_size"]),
        _number(row["vg_free"]),
        _number(row["vg_extent_size"]),
        bool(row["vg_exported"]),
        bool(row["vg_clustered"]) or row["vg_lock_type"] not in ("", "none"),
        "" if row["vg_uuid"] in own else row["vg_systemid"],
        row["vg_permissions"] != "read-only",
        _number(row["vg_missing_pv_count"]),
        devices,
        volumes,
    )
