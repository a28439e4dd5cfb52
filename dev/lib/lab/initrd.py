# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The initial RAM disk: busybox and the modules that the root filesystem needs. A generated one would be ten times as
big, and slow to unpack without hardware virtualisation.
"""

from __future__ import annotations

import gzip
import re
import stat
import subprocess
from pathlib import Path

from lab.holding import environment

WANTED = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
DIRECTORIES = ("proc", "sys", "dev", "root")
SCRIPT = """\
#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs dev /dev
for module in MODULES; do $busybox insmod $module; done
turn=0
while [ ! -b /dev/vda ] && [ $turn -lt 300 ]; do $busybox sleep 0.1; turn=$((turn + 1)); done
$busybox mount -t ext4 -o rw,noatime /dev/vda /root
$busybox umount /proc /sys
$busybox mount -o move /dev /root/dev
exec $busybox switch_root /root /sbin/init
"""


class Archive:
    """A cpio archive in the format that the kernel unpacks ("newc")."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._names: set[str] = set()

    def directory(self, name: str) -> None:
        if name and name not in self._names:
            self.directory(name.rpartition("/")[0])
            self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes) -> None:
        self.directory(name.rpartition("/")[0])
        self._add(name, stat.S_IFREG | 0o755, content)

    def finish(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return bytes(self._data)

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._names.add(name)
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (len(self._names), mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        self._append(b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0")
        self._append(content)

    def _append(self, data: bytes) -> None:
        self._data += data + b"\0" * (-len(data) % 4)


def modules(tree: Path, kernel: str) -> list[str]:
    """The paths of the modules in the order in which they can be loaded. What is built in is in no list."""
    needs = {}
    for line in (tree / f"lib/modules/{kernel}/modules.dep").read_text(encoding="utf-8").splitlines():
        module, _colon, others = line.partition(":")
        name = Path(module).name.split(".ko")[0].replace("-", "_")
        needs[name] = [*reversed(others.split()), module]
    order = [module for name in WANTED for module in needs.get(name, [])]
    return [f"/lib/modules/{kernel}/{module}" for module in dict.fromkeys(order)]


def _libraries(tree: Path, program: str) -> list[str]:
    listed = subprocess.run(
        ["chroot", str(tree), "ldd", program], capture_output=True, text=True, env=environment(), check=False
    )
    return re.findall(r"(/\S+) \(0x", listed.stdout)  # nothing where it is linked statically


def write(tree: Path, kernel: str, target: Path) -> None:
    """Make ``target`` of the files of the guest's ``tree``."""
    archive = Archive()
    for name in DIRECTORIES:
        archive.directory(name)
    wanted = modules(tree, kernel)
    for path in [*wanted, "/bin/busybox", *_libraries(tree, "/bin/busybox")]:
        archive.file(path.lstrip("/"), (tree / path.lstrip("/")).read_bytes())
    archive.file("init", SCRIPT.replace("MODULES", " ".join(wanted)).encode())
    target.write_bytes(gzip.compress(archive.finish(), 1))
