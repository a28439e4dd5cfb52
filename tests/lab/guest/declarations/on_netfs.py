# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random declarations of netfs pools: two exports of the guest's own NFS server, whose directories the reader sees."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

from .machine import Disks, tool
from .on_files import NAMES, PATHS, TOP, FilesKind
from .steps import Canary, Reading

HOST = "127.0.0.1"
NONE = "-none"  # behind the path of an export: there is no such one
EXPORTS = {name: str(TOP / f"export-{name}") for name in NAMES}


class NetfsKind(FilesKind):
    type = "netfs"

    def __init__(self, directory: Path) -> None:
        self.disks = Disks(directory, [], str(TOP))
        for number, export in enumerate(EXPORTS.values()):
            os.makedirs(export)
            options = f"rw,no_root_squash,insecure,no_subtree_check,fsid={number + 1}"
            tool("systemctl", "start", "rpcbind", "nfs-server")
            tool("exportfs", "-o", options, f"{HOST}:{export}")

    def end(self) -> None:
        self.clean()
        tool("exportfs", "-ua")
        tool("systemctl", "stop", "nfs-server")
        shutil.rmtree(TOP)

    def clean(self) -> None:
        self.disks.free()
        for path in PATHS.values():
            shutil.rmtree(path, ignore_errors=True)
            if os.path.lexists(path):
                os.unlink(path)
        for export in EXPORTS.values():
            for entry in os.scandir(export):
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)

    def start(self, numbers: Random) -> str:
        told = []
        for name in NAMES:
            self.stock(numbers, EXPORTS[name])
            kind = numbers.choice((*["nothing", "directory", "mounted"] * 3, "other", "full", "file"))
            path = PATHS[name]
            if kind == "file":
                Path(path).write_text("in the way")
            elif kind != "nothing":
                os.mkdir(path)
            if kind == "full":
                Path(path, "file").write_text("below the mount point")
            if kind in ("mounted", "other"):
                other = NAMES[1 - NAMES.index(name)]
                self._mount(EXPORTS[name if kind == "mounted" else other], path)
            told.append(f"{name}: {kind}")
        return ", ".join(told)

    def hides(self, canary: Canary) -> bool:
        export = canary.volume.facts["source"].partition(":")[2]
        for entry in os.scandir(export):
            if entry.inode() == canary.volume.facts["inode"]:
                have = self.bytes_in(entry.path, canary.volume.format, canary.offset, len(canary.mark))
                return have == canary.mark
        return False

    def _mount(self, export: str, path: str) -> None:
        tool("mount", "-t", "nfs", "-o", "nodev,nosuid,noexec", f"{HOST}:{export}", path)
        self.mounted(path)

    def unforeseen(self, error: dict[str, Any]) -> bool:
        """A server says what it does not serve when that is mounted."""
        return error.get("command", "").startswith("mount ") and f"{NONE} " in f"{error['command']} "

    def hand(self, numbers: Random, reading: Reading) -> str:
        name = numbers.choice(NAMES)
        path = PATHS[name]
        if numbers.random() < 0.6:
            return self.hand_on_files(numbers, reading)
        if path in reading.facts["mounts"]:
            tool("umount", path)
            return f"umount {path}"
        if os.path.isdir(path):
            self._mount(EXPORTS[name], path)
            return f"mount {path}"
        return "nothing"

    def source(self, numbers: Random, name: str) -> dict[str, Any]:
        export = EXPORTS[name if numbers.random() < 0.92 else NAMES[1 - NAMES.index(name)]]
        source: dict[str, Any] = {"host": HOST, "dir": export if numbers.random() < 0.95 else export + NONE}
        if numbers.random() < 0.8:
            source["format"] = "nfs"
        if numbers.random() < 0.2:
            source["protocol_version"] = numbers.choice(("4.2", "4.1"))
        return source

    def made_source(self) -> dict[str, Any]:
        return {"host": HOST, "dir": EXPORTS["a"], "format": "nfs"}

    def words_of(self, pool: ElementTree.Element) -> dict[str, Any]:
        source = pool.find("source")
        found: dict[str, Any] = {}
        if source is not None:
            for word, tag, attribute in (
                ("host", "host", "name"), ("dir", "dir", "path"), ("format", "format", "type"),
                ("protocol_version", "protocol", "ver"),
            ):  # fmt: skip
                element = source.find(tag)
                if element is not None:
                    found[word] = element.get(attribute)
        return found

    def mounted_from(self, mount: tuple[str, str, str, str], words: dict[str, Any]) -> bool:
        return mount[0] == f"{words['host']}:{words['dir']}" and mount[2] in ("nfs", "nfs4")
