# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guest that all others are resumed from: booted once, warmed up, and kept as its memory and its disks."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import places
from places import Stop, say

from lab import compiled, qemu
from lab.guests import Guest
from lab.holding import digest, environment, made_once
from lab.image import HERE, Image

PREWARM = HERE / "guest" / "prewarm.sh"
SITE = HERE / "guest" / "sitecustomize.py"
#: What Debian's Python runs first.
SETTINGS = "/etc/python3.11/sitecustomize.py"
#: Where the guest has the part of ansible-core that modules need.
ANSIBLE = "/root/ansible-core"


def get(image: Image) -> Path:
    """The saved state that belongs to the image, to this QEMU and to the pinned ansible-core."""
    core = _ansible_core()
    ours = (PREWARM, SITE, Path(compiled.__file__).resolve(), Path(__file__).resolve())
    name = f"saved-{digest(qemu.shape(), _core_version(core), *ours)}"
    return made_once(image.directory / name, lambda directory: _save(image, core, directory), "the lab's saved state")


def _ansible_core() -> Path:
    found = sorted((places.VENVS / "main" / "lib").glob("python3*/site-packages/ansible/release.py"))
    if not found:
        raise Stop("There is no environment with ansible-core: dev/setup lab makes it.")
    return found[-1].parent


def _core_version(core: Path) -> str:
    return (core / "release.py").read_text(encoding="utf-8")


def _save(image: Image, core: Path, target: Path) -> None:
    started = time.monotonic()
    say("Booting the lab's first guest")
    guest = Guest(target / "first", image, 0, passing=True)
    guest.directory.mkdir()
    for disk in qemu.DISKS:
        _make_disk(guest.directory / f"{disk}.qcow2", image.root if disk == "root" else None)
    try:
        guest.boot()
        booted = time.monotonic()
        say(f"It booted in {booted - started:.1f} s; warming it up")
        _push_ansible(guest, core)
        told = guest.run(PREWARM.read_text(encoding="utf-8"))
        (target / "prewarm.log").write_bytes(told.stdout + told.stderr)
        warm = time.monotonic()
        _write_memory(guest, target / "memory")
    finally:
        guest.cut_power()
    final = target.with_name(target.name.removesuffix(".unfinished"))
    for disk in qemu.DISKS:
        (guest.directory / f"{disk}.qcow2").rename(target / f"{disk}.qcow2")
        # An empty layer on top of it, which each guest gets a copy of.
        _make_disk(target / f"{disk}.clean", target / f"{disk}.qcow2")
        _rebase(target / f"{disk}.clean", final / f"{disk}.qcow2")
    shutil.rmtree(guest.directory)
    size = (target / "memory").stat().st_size >> 20
    say(f"Warmed up in {warm - booted:.1f} s, saved in {time.monotonic() - warm:.1f} s ({size} MiB of memory)")


def _qemu_img(*words: str) -> None:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, env=environment(), check=False)
    if done.returncode != 0:
        raise Stop(f"qemu-img {' '.join(words)} failed: {done.stderr.strip()}")


def _make_disk(path: Path, below: Path | None) -> None:
    if below is None:
        _qemu_img("create", "-q", "-f", "qcow2", str(path), qemu.DISK_SIZE)
        return
    form = "raw" if below.suffix == ".img" else "qcow2"
    _qemu_img("create", "-q", "-f", "qcow2", "-b", str(below), "-F", form, str(path))


def _rebase(path: Path, below: Path) -> None:
    """Say where the layer below will be once the directory has its final name."""
    _qemu_img("rebase", "-u", "-f", "qcow2", "-b", str(below), "-F", "qcow2", str(path))


def _push_ansible(guest: Guest, core: Path) -> None:
    """What modules import; and compiled, also the modules, which tasks bring."""
    with compiled.workspace() as top:
        tree = top / ANSIBLE.lstrip("/") / "ansible"
        for part in ("_vendor", "module_utils"):
            shutil.copytree(core / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("__init__.py", "release.py"):
            shutil.copy(core / part, tree / part)
        kept = top / compiled.DIRECTORY.lstrip("/")
        compiled.compile_tree(tree, kept)
        compiled.compile_tree(core / "modules", kept, beside=False)
        settings = top / SETTINGS.lstrip("/")
        settings.parent.mkdir(parents=True)
        shutil.copy(SITE, settings)
        guest.push(top)


def _write_memory(guest: Guest, target: Path) -> None:
    with guest.monitor() as monitor:
        monitor.ask("stop")
        monitor.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        monitor.ask("migrate", uri=f"exec:cat > '{target}'")
        while True:
            status = monitor.ask("query-migrate").get("status")
            if status == "completed":
                break
            if status == "failed":
                raise Stop("QEMU could not save the guest's memory.")
            time.sleep(0.1)
        monitor.ask("quit")
    guest.process.wait()
