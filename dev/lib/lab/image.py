# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guest's image: built once per definition, kept outside the clone, never written to afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from places import LOGS, Stop, say

from lab import bootstrap, initrd, zfs
from lab.holding import LAB, alone, digest, environment, made_once, remove_tree, run_logged

HERE = Path(__file__).resolve().parent
DEFINITION = [
    HERE / "guest" / "packages.txt",
    HERE / "guest" / "customize.sh",
    HERE / "bootstrap.py",
    HERE / "image.py",
    HERE / "initrd.py",
    HERE / "zfs.py",
]
SIZE = "8G"


@dataclass(frozen=True)
class Image:
    """What a virtual machine starts from."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.gz"

    @property
    def key(self) -> Path:
        """The private key of the guest's root; it opens nothing else."""
        return self.directory / "key"


def packages() -> list[str]:
    lines = (HERE / "guest" / "packages.txt").read_text(encoding="utf-8").splitlines()
    return [package for line in lines if not line.startswith("#") for package in line.split()]


def get() -> Image:
    """The image of today's definition, built if it is not there."""
    directory = LAB / "images" / digest(*DEFINITION)
    made_once(directory, _build, "the lab's image")
    return Image(directory)


def _build(directory: Path) -> None:
    if os.geteuid() != 0:
        raise Stop("Building the lab's image needs root (it unpacks a Debian system): run it as root, once.")
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / "lab-image.log"
    log.unlink(missing_ok=True)
    started = time.monotonic()
    say(f"Building the lab's image: Debian 12 with {len(packages())} packages and what they need")
    tree = directory / "tree"
    bootstrap.unpack(tree, packages(), log)
    say(f"Debian is unpacked after {time.monotonic() - started:.0f} s")
    kernel = _kernel(tree)
    zfs.install(tree, kernel)
    image = Image(directory)
    _customize(tree, image, log)
    shutil.copy(tree / "boot" / f"vmlinuz-{kernel}", image.kernel)
    initrd.write(tree, kernel, image.initrd)
    _write_filesystem(tree, image.root, log)
    remove_tree(tree)
    say(f"The lab's image took {time.monotonic() - started:.0f} s")


def _kernel(tree: Path) -> str:
    found = sorted(path.name[len("vmlinuz-") :] for path in (tree / "boot").glob("vmlinuz-*"))
    if len(found) != 1:
        raise Stop(f"The guest should have one kernel, it has {found or 'none'}.")
    return found[0]


def _customize(tree: Path, image: Image, log: Path) -> None:
    generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(image.key)]
    subprocess.run(generate, check=True, env=environment(), stdin=subprocess.DEVNULL)
    authorized = tree / "root" / ".ssh" / "authorized_keys"
    authorized.parent.mkdir(exist_ok=True)
    shutil.copy(f"{image.key}.pub", authorized)
    script = (HERE / "guest" / "customize.sh").read_text(encoding="utf-8")
    run_logged(alone(["chroot", str(tree), "sh", "-s"]), log, "Customizing the guest", script)


def _write_filesystem(tree: Path, target: Path, log: Path) -> None:
    run_logged(["truncate", "-s", SIZE, str(target)], log, "Making the image's file")
    options = ["-t", "ext4", "-L", "root", "-m", "0", "-O", "^metadata_csum", "-E", "lazy_itable_init=1,nodiscard"]
    run_logged(["mke2fs", "-q", "-F", *options, "-d", str(tree), str(target)], log, "Writing the image")
