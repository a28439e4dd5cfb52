# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs examples/quickstart.yml on this machine, out of the pinned environment, in a fresh folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import environments
import places
from places import CACHE, LOCAL, ROOT, VENVS, Stop, say

DEMO = LOCAL / "demo"
PACKAGE = "memtest86+"  # 120 KB, and it holds a disk image of 6 MB that boots


def _download(directory: Path) -> Path:
    """The package file. Nothing is installed, so that no root is needed; where the machine has no package lists, or old
    ones, we fetch our own."""
    own = CACHE / "apt"
    (own / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    ours = ["-o", f"Dir::State={own}", "-o", f"Dir::Cache={own}"]
    attempts = (["download", PACKAGE], [*ours, "update"], [*ours, "download", PACKAGE])
    directory.mkdir(parents=True, exist_ok=True)
    places.LOGS.mkdir(parents=True, exist_ok=True)
    log = places.LOGS / "demo-apt.log"
    with log.open("w", encoding="utf-8") as stream:
        for arguments in attempts:
            subprocess.run(
                ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                check=False,
            )
            found = sorted(directory.glob(f"{PACKAGE}_*.deb"))
            if found:
                return found[-1]
    raise Stop(
        f"apt-get could not download {PACKAGE}, the package with the demo's disk image (what it said: {log}).\n"
        "Name another raw disk image instead: DEMO_IMAGE=/path/to/disk.img make demo"
    )


def disk_image() -> Path:
    """A bootable disk image out of a Debian package, in the cache folder."""
    if os.environ.get("DEMO_IMAGE"):
        return Path(os.environ["DEMO_IMAGE"]).absolute()
    directory = CACHE / "demo"
    image = directory / "memtest86plus.img"
    if not image.exists():
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise Stop("This is no Debian: name a raw disk image, DEMO_IMAGE=/path/to/disk.img make demo")
        say(f"Fetching a bootable disk image (package {PACKAGE}, which is not installed)")
        unpacked = directory / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        package = _download(directory)
        environments.run(["dpkg-deb", "-x", str(package), str(unpacked)], dict(os.environ), f"Unpacking {package.name}")
        images = sorted(unpacked.rglob("*.iso"))
        if not images:
            raise Stop(f"{package} holds no disk image. Name another one: DEMO_IMAGE=/path/to/disk.img make demo")
        images[-1].rename(image)  # the one for 64 bits
        shutil.rmtree(unpacked)
    return image


def entry(arguments: list[str]) -> int:
    python = environments.prepare("demo").main
    image = disk_image()
    env = places.tool_environment(python.name)
    env.setdefault("ANSIBLE_CALLBACK_RESULT_FORMAT", "yaml")
    env.setdefault("ANSIBLE_DISPLAY_SKIPPED_HOSTS", "false")
    bin_dir = VENVS / python.name / "bin"
    shutil.rmtree(DEMO, ignore_errors=True)
    command = [
        str(bin_dir / "ansible-playbook"),
        "--inventory=localhost,",
        f"--extra-vars=ansible_python_interpreter={bin_dir / 'python'}",
        f"--extra-vars=demo_dir={DEMO}",
        f"--extra-vars=demo_image={image}",
        str(ROOT / "examples" / "quickstart.yml"),
        *arguments,
    ]
    os.chdir(ROOT)
    os.execve(command[0], command, env)


if __name__ == "__main__":
    places.main(entry)
