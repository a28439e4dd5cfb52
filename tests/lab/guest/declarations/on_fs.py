# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random declarations of fs pools: filesystems on devices, some of which hold something else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

from .declaring import MIB, realpath
from .machine import Disks, tool
from .on_files import NAMES, PATHS, TOP, FilesKind
from .steps import Canary, Reading, Records, Task

UUIDS = ("5eed0000-0000-4000-8000-000000000001", "5eed0000-0000-4000-8000-000000000002")
MADE = ("ext4", "ext2", "vfat")


class FsKind(FilesKind):
    type = "fs"

    def __init__(self, directory: Path) -> None:
        self.disks = Disks(directory, [64 * MIB, 48 * MIB], str(TOP))
        TOP.mkdir()
        self.nodes = dict(zip(NAMES, self.disks.nodes, strict=True))

    def end(self) -> None:
        super().end()
        shutil.rmtree(TOP)

    def clean(self) -> None:
        super().clean()
        for path in PATHS.values():
            shutil.rmtree(path, ignore_errors=True)
            if os.path.lexists(path):
                os.unlink(path)

    def start(self, numbers: Random) -> str:
        told = []
        for name, node in self.nodes.items():
            kind = numbers.choice(
                ("blank", "blank", "ext4", "ext4", "stocked", "mounted", "vfat", "swap", "gpt", "data")
            )
            if kind in ("ext4", "stocked", "mounted"):
                tool("mke2fs", "-q", "-F", "-t", "ext4", "-U", UUIDS[NAMES.index(name)], node)
            elif kind == "vfat":
                tool("mkfs.vfat", node)
            elif kind == "swap":
                tool("mkswap", node)
            elif kind == "gpt":
                tool("sfdisk", "--quiet", node, text="label: gpt\nstart=2048,size=16384\n")
            elif kind == "data":
                self.disks.write(node, {5 * MIB: numbers.randbytes(4096)})
            if kind in ("stocked", "mounted"):
                os.mkdir(PATHS[name])
                tool("mount", "-o", "nodev,nosuid,noexec", node, PATHS[name])
                self.mounted(PATHS[name])
                self.stock(numbers, PATHS[name])
                if kind == "stocked":
                    tool("umount", PATHS[name])
            told.append(f"{node}: {kind}")
        return ", ".join(told)

    def filesystem(self, path: str) -> object:
        return self.uuid(self.mounts()[path][0])

    def hides(self, canary: Canary) -> bool:
        node = canary.volume.facts["source"]
        mounted = [mount for mount in self.disks.mounts() if mount[0] == node]
        return not mounted and self.uuid(node) == canary.volume.facts["filesystem"]

    def uuid(self, node: str) -> str:
        return tool("blkid", "-p", "-s", "UUID", "-o", "value", node, check=False).strip()

    def hand(self, numbers: Random, reading: Reading) -> str:
        name = numbers.choice(NAMES)
        path, node = PATHS[name], self.nodes[name]
        if numbers.random() < 0.5:
            return self.hand_on_files(numbers, reading)
        if path in reading.facts["mounts"]:
            tool("umount", path)
            return f"umount {path}"
        if any(mount[0] == node for mount in self.disks.mounts()):
            return "nothing"
        if os.path.isdir(path) and numbers.random() < 0.5:
            tool("mount", node, path, check=False)
            self.mounted(path)
            return f"mount {path}"
        tool("mke2fs", "-q", "-F", "-t", "ext2", node)
        return f"mke2fs {node}"

    def source(self, numbers: Random, name: str) -> dict[str, Any]:
        node = self.nodes[name if numbers.random() < 0.7 else NAMES[1 - NAMES.index(name)]]
        if numbers.random() < 0.1:
            node = f"UUID={UUIDS[NAMES.index(name)]}"
        source: dict[str, Any] = {"device": node}
        kind = numbers.choice((*MADE, "ext4", "ext4", "ext4", "auto", None, "iso9660"))
        if kind:
            source["format"] = kind
        return source

    def made_source(self) -> dict[str, Any]:
        return {"device": self.nodes["a"], "format": "ext4"}

    def words_of(self, pool: ElementTree.Element) -> dict[str, Any]:
        device, kind = pool.find("source/device"), pool.find("source/format")
        found = {"device": device.get("path", "")} if device is not None else {}
        return {**found, "format": kind.get("type")} if kind is not None else found

    def mounted_from(self, mount: tuple[str, str, str, str], words: dict[str, Any]) -> bool:
        return mount[0] == realpath(words["device"]) and words.get("format", "auto") in ("auto", mount[2])

    def names_of(self, source: str) -> tuple[str, ...]:
        uuid = self.uuid(source)
        return (source, f"UUID={uuid}", f"/dev/disk/by-uuid/{uuid}") if uuid else (source,)

    def _pool_holds(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        wrong = super()._pool_holds(task, changed, reading, records)
        source = task.params.get("source")
        if task.params.get("state") == "deleted" and changed and source and source["device"].startswith("/"):
            told = tool("blkid", "-p", "-o", "export", source["device"], check=False)
            wrong += [f"deleted, but there is {told}"] * ("TYPE=" in told)
        return wrong
