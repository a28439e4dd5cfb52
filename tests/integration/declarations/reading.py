# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is there, as others tell it: definitions read with xml.etree, files with stat, images with qemu-img.

Nothing of it comes from the modules; what they say of themselves is not believed here.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from .host_model import Directory, File, Host, Pool

_KINDS = {"file": stat.S_ISREG, "fifo": stat.S_ISFIFO, "dir": stat.S_ISDIR}


class Reader:
    """``scratch`` is a directory for what is read out of images; everything found wrong is returned in words."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch = root, scratch
        self.config = root / "etc" / "libvirt" / "storage"
        self.run = root / "run" / "libvirt" / "storage"

    # -- pools ----------------------------------------------------------------------------------------------------

    def pools(self, host: Host) -> list[str]:
        """Also learns the uuids that were made up."""
        wrong = []
        found = {path.stem for path in self.config.glob("*.xml")} if self.config.is_dir() else set()
        started = {path.stem for path in self.run.glob("*.xml")} if self.run.is_dir() else set()
        marked = {path.stem for path in (self.config / "autostart").glob("*")}
        for what, names, wanted in (
            ("defined", found, set(host.pools)),
            ("started", started, {name for name, pool in host.pools.items() if pool.started}),
            ("marked for autostart", marked, {name for name, pool in host.pools.items() if pool.autostart}),
        ):
            if names != wanted:
                wrong.append(f"{what} are {sorted(names)}, should be {sorted(wanted)}")
        for name in found & set(host.pools):
            wrong += self._pool(name, host.pools[name])
        return wrong

    def _pool(self, name: str, pool: Pool) -> list[str]:
        path = self.config / f"{name}.xml"
        told = _told(ElementTree.parse(path).getroot())
        if pool.uuid is None:
            pool.uuid = told["uuid"]
        wanted = {
            "name": name, "type": pool.type, "uuid": pool.uuid, "path": pool.path,
            "mode": pool.mode, "owner": pool.uid, "group": pool.gid,
        }  # fmt: skip
        wrong = [
            f"pool {name}: {key} is {told[key]}, should be {value}"
            for key, value in wanted.items()
            if told[key] != value
        ]
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != 0o600:
            wrong.append(f"{path} has the mode {path.stat().st_mode:o}")
        link = self.config / "autostart" / f"{name}.xml"
        if pool.autostart and not (link.is_symlink() and link.resolve() == path.resolve()):
            wrong.append(f"{link} does not lead to {path}")
        state = self.run / f"{name}.xml"
        if state.exists():
            top = ElementTree.parse(state).getroot()
            inner = top.find("pool")
            live = {} if inner is None else _told(inner)
            if top.tag != "poolstate" or live != told:
                wrong.append(f"the state of pool {name} is {live}, its definition {told}")
        return wrong

    # -- directories and volumes ----------------------------------------------------------------------------------

    def directories(self, host: Host, touched: set[str]) -> list[str]:
        """``touched`` are paths of files that are not what they were: they are looked at whole."""
        wrong: list[str] = []
        images: list[tuple[str, File]] = []
        for path, directory in host.directories.items():
            if not os.path.isdir(path):
                wrong.append(f"{path} is not there")
                continue
            status = os.stat(path)
            wrong += _owned(path, status, directory)
            names = set(os.listdir(path))
            if names != set(directory.files):
                wrong.append(f"{path} holds {sorted(names)}, should hold {sorted(directory.files)}")
            for name in sorted(names & set(directory.files)):
                file, inner = directory.files[name], os.path.join(path, name)
                wrong += _file(inner, file)
                if inner in touched and file.kind == "file":
                    images.append((inner, file))
        return wrong + self._images(images)

    def _images(self, images: Iterable[tuple[str, File]]) -> list[str]:
        wrong = []
        asked = [(p, f, _start("info", "--output=json", "-f", f.format, p)) for p, f in images if f.format == "qcow2"]
        read = [(p, f, self._start_reading(p, f, i)) for i, (p, f) in enumerate(images) if _worth_reading(f)]
        for path, file, process in asked:
            wrong += _info(path, file, json.loads(_output(process)))
        for path, file, (process, copy) in read:
            if process is not None:
                _output(process)
            wrong += _content(path, file, copy)
        return wrong

    def _start_reading(self, path: str, file: File, number: int) -> tuple[subprocess.Popen | None, str]:
        if file.format == "raw":
            return None, path
        copy = str(self.scratch / f"read-{number}")
        return _start("convert", "-f", file.format, "-O", "raw", path, copy), copy

    # -- the rest -------------------------------------------------------------------------------------------------

    def strangers(self, host: Host) -> list[str]:
        """What is there and belongs to nothing."""
        known = {
            str(self.root / name) for name in ("etc", "etc/libvirt", "etc/libvirt/storage", "run", "var", "var/lib")
        }
        known |= {
            str(self.root / name) for name in ("etc/libvirt/storage/autostart", "run/libvirt", "run/libvirt/storage")
        }
        known |= {
            str(self.root / name) for name in ("run/lock", "run/lock/virt-storage", "var/lib/virt-storage", "pools")
        }
        known |= {str(self.root / name) for name in ("run/virt-storage", "run/virt-storage/started")}  # and no note
        known |= {str(self.root / "var/lib/virt-storage/made"), *host.links, *host.plain_files, *host.directories}
        for name in host.pools:
            known |= {
                str(directory / f"{name}.xml") for directory in (self.config, self.config / "autostart", self.run)
            }
        for path, directory in host.directories.items():
            known |= {os.path.join(path, name) for name in directory.files}
        free = tuple(str(self.root / name) + "/" for name in ("run/lock/virt-storage", "var/lib/virt-storage/made"))
        there = (str(path) for path in self.root.rglob("*"))
        return [f"{path} belongs to nothing" for path in there if path not in known and not path.startswith(free)]


def _told(pool: ElementTree.Element) -> dict[str, object]:
    def text(path: str) -> str | None:
        return (pool.findtext(path) or "").strip() or None

    def number(path: str, base: int = 10) -> int | None:
        value = text(path)
        return None if value in (None, "-1") else int(str(value), base)

    return {
        "name": text("name"), "type": pool.get("type"), "uuid": text("uuid"), "path": text("target/path"),
        "mode": number("target/permissions/mode", 8), "owner": number("target/permissions/owner"),
        "group": number("target/permissions/group"),
    }  # fmt: skip


def _owned(path: str, status: os.stat_result, wanted: File | Directory) -> list[str]:
    found = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    should = (wanted.mode, wanted.uid, wanted.gid)
    shown = "{:o} {}:{}".format
    return [] if found == should else [f"{path} is {shown(*found)}, should be {shown(*should)}"]


def _file(path: str, file: File) -> list[str]:
    status = os.lstat(path)
    if not _KINDS[file.kind](status.st_mode):
        return [f"{path} is no {file.kind}"]
    if file.kind != "file":
        return []
    wrong = _owned(path, status, file)
    if file.format == "raw" and status.st_size != file.capacity:
        wrong.append(f"{path} has {status.st_size} bytes, should have {file.capacity}")
    if file.format == "qcow2":
        file.physical = status.st_size
    return wrong


def _start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(["qemu-img", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _output(process: subprocess.Popen) -> str:
    out, error = process.communicate()
    assert process.returncode == 0, f"{process.args}: {error}"
    return str(out)


def _info(path: str, file: File, told: dict) -> list[str]:
    data = told.get("format-specific", {}).get("data", {})
    found = {
        "format": told.get("format"), "capacity": told.get("virtual-size"), "compat": data.get("compat"),
        "cluster_size": told.get("cluster-size"), "lazy_refcounts": bool(data.get("lazy-refcounts")),
        "extended_l2": bool(data.get("extended-l2")), "backing": told.get("full-backing-filename"),
        "backing format": told.get("backing-filename-format"), "corrupt": data.get("corrupt", False),
    }  # fmt: skip
    wanted = {
        "format": "qcow2", "capacity": file.capacity, "compat": file.compat, "cluster_size": file.cluster_size,
        "lazy_refcounts": file.lazy_refcounts, "extended_l2": file.extended_l2,
        "backing": file.backing[0] if file.backing else None,
        "backing format": file.backing[1] if file.backing else None,
        "corrupt": False,
    }  # fmt: skip
    if file.compat == "0.10":
        found["corrupt"] = False
    return [f"{path}: {key} is {found[key]}, should be {value}" for key, value in wanted.items() if found[key] != value]


def _worth_reading(file: File) -> bool:
    """An empty qcow2 image without a backing has nothing to read."""
    return file.content is not None and (file.format == "raw" or bool(file.content) or file.backing is not None)


def _content(path: str, file: File, copy: str) -> list[str]:
    with open(copy, "rb") as opened:
        data = opened.read()
    if len(data) == file.capacity and data.rstrip(b"\0") == file.content:
        return []
    return [
        f"{path} does not read as it should ({len(data)} bytes, {len(data.rstrip(bytes(1)))} before its end of zeros)"
    ]
