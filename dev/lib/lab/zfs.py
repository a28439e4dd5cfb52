# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ZFS module. Debian has it as source only (contrib): it is built once for each version of it and of the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from places import LOGS, say

from lab import bootstrap
from lab.holding import LAB, alone, environment, made_once, remove_tree, run_logged


def _installed(tree: Path, package: str) -> str:
    asked = ["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", "-f", "${Version}", package]
    return subprocess.run(asked, capture_output=True, text=True, env=environment(), check=True).stdout


def modules(tree: Path, kernel: str) -> Path:
    """A directory with the modules that belong to the kernel and to the ZFS tools in ``tree``."""
    versions = (kernel, _installed(tree, f"linux-image-{kernel}"), _installed(tree, "zfsutils-linux"))
    name = "_".join(versions).replace(":", ".")

    def make(directory: Path) -> None:
        started = time.monotonic()
        say(f"Building the ZFS module {versions[2]} for the kernel {kernel}")
        _build(directory, kernel, versions[2])
        say(f"The ZFS module took {time.monotonic() - started:.0f} s")

    return made_once(LAB / "zfs" / name, make, "the ZFS module")


def _build(target: Path, kernel: str, version: str) -> None:
    """In a tree of its own, so that compilers and headers don't get into the image."""
    log = LOGS / "lab-zfs.log"
    log.unlink(missing_ok=True)
    tree = target / "tree"
    packages = [f"linux-headers-{kernel}", "gcc", "make", "dkms", "libc6-dev", "kmod"]
    bootstrap.unpack(tree, packages, log, keep_apt=True)
    # The package's own script looks at the kernel that runs and gives up: it is unpacked, and dkms asked by hand.
    download = f"cd /tmp && apt-get -q download zfs-dkms={version} && dpkg-deb -x zfs-dkms_*.deb /"
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", tree / "etc" / name)
    source = f"zfs/{version.partition('-')[0]}"
    build = f"dkms build {source} -k {kernel} -j {os.cpu_count()} --no-depmod"
    for script in (download, f"dkms add {source}", build):
        run_logged(alone(["chroot", str(tree), "sh", "-ec", script]), log, "Building the ZFS module")
    for module in tree.glob(f"var/lib/dkms/{source}/{kernel}/*/module/*.ko*"):
        shutil.copy(module, target / module.name)
    remove_tree(tree)


def install(tree: Path, kernel: str) -> None:
    """Put the modules into the guest's tree."""
    target = tree / "lib" / "modules" / kernel / "updates" / "dkms"
    target.mkdir(parents=True, exist_ok=True)
    for module in modules(tree, kernel).glob("*.ko*"):
        shutil.copy(module, target / module.name)
