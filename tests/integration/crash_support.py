# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the safety and crash tests share: refusals, images made by hand, and a look at a host that owes nothing to ours."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40


def refused(result: dict[str, Any], code: str) -> dict[str, Any]:
    """A task that was refused, or failed, with this code and without having changed anything. Returns its error."""
    assert result.get("failed"), result
    assert result["error"]["code"] == code, result["error"]
    assert result["error"].get("subject"), result["error"]
    assert result["changed"] is False, result
    return result["error"]


def done(result: dict[str, Any]) -> dict[str, Any]:
    """A task that changed something, as it claimed to."""
    assert not result.get("failed"), result
    assert result["changed"] is True, result
    assert not [text for text in result["warnings"] if text.startswith("verification")], result["warnings"]
    return result


def unchanged(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("failed"), result
    assert result["changed"] is False, result
    return result


def qemu_img(*words: object) -> str:
    return subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, text=True).stdout


def image_info(path: Path) -> dict[str, Any]:
    return json.loads(qemu_img("info", "-U", "--output=json", path))


def qcow2(path: Path, size: object = "1M", *options: object) -> Path:
    qemu_img("create", "-q", "-f", "qcow2", *options, path, size)
    return path


def raw(path: Path, size: int = MIB, data: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)
    return path


def snapshot(top: Path) -> dict[str, tuple[Any, ...]]:
    """Every entry below a directory: its kind, mode, owner, identity, time and content."""
    entries: dict[str, tuple[Any, ...]] = {}
    for directory, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: Any = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest() if status.st_size < 64 * MIB else ""
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            fixed = (status.st_mode, status.st_uid, status.st_gid, status.st_ino)
            entries[os.path.relpath(path, top)] = (*fixed, status.st_mtime_ns, status.st_size, content)
    return entries


def without_locks(entries: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """A real run may take locks, and these are files."""
    return {name: entry for name, entry in entries.items() if not name.startswith("run") or "libvirt" in name}


def names(top: Path) -> set[str]:
    """The names of everything below a directory, less the locks."""
    return set(without_locks(snapshot(top)))


def leftovers(top: Path) -> list[str]:
    """What no task may leave behind."""
    return sorted(name for name in names(top) if name.endswith(".new") or ".virt-storage" in name)


def define_guest(root: Path, name: str, disks: str, running: bool = False, where: str = "etc/libvirt/qemu") -> Path:
    """A guest's definition, as libvirt keeps it, or the status file of a running one."""
    text = f"<domain type='kvm'><name>{name}</name><memory>65536</memory><devices>{disks}</devices></domain>"
    if running:
        text = f"<domstatus state='running' reason='booted' pid='1'>\n{text}\n</domstatus>"
    path = root / where / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def disk_file(path: Path) -> str:
    return f"<disk type='file' device='disk'><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"


def disk_volume(pool: str, volume: str) -> str:
    return f"<disk type='volume' device='disk'><source pool='{pool}' volume='{volume}'/><target dev='vda'/></disk>"


@contextlib.contextmanager
def deadline(seconds: int = 30) -> Iterator[None]:
    """What hangs fails, instead of holding up the whole suite."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
