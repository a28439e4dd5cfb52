# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The QEMU that runs the guests: that of Debian's backports where the machine's source of packages has them, since it
emulates twice as fast as that of Debian 12; else the latter. It is unpacked beside the images; nothing is installed.
"""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from places import LOGS, Stop, say

from lab import bootstrap
from lab.holding import LAB, digest, environment, made_once, remove_tree, run_logged

NAME = "qemu-system-x86_64"
_SUITE = f"{bootstrap.SUITE}-backports"
_PACKAGES = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"]


@functools.cache
def command() -> tuple[str, ...]:
    """What starts it: the program, and where it finds its firmware."""
    directory = LAB / "emulators" / digest(Path(__file__).resolve())
    try:
        made_once(directory, _unpack, "the lab's emulator")
    except Stop as why:
        say(f"Guests are slow: {_SUITE} can't be had ({str(why).splitlines()[-1]})")
        return (NAME,)
    return _from(directory)


def _from(directory: Path) -> tuple[str, ...]:
    share = directory / "usr" / "share"
    return (str(directory / "usr" / "bin" / NAME), "-L", str(share / "qemu"), "-L", str(share / "seabios"))


@functools.cache
def version() -> str:
    return _version(command())


def _version(words: tuple[str, ...]) -> str:
    try:
        shown = subprocess.run(
            [words[0], "--version"], capture_output=True, text=True, env=environment(), check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as why:
        raise Stop(f"{words[0]} does not start ({why}); dev/setup lab installs what it needs.") from None
    return shown.splitlines()[0]


def _unpack(directory: Path) -> None:
    """By an apt with lists of its own, and the machine's settings."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / "lab-emulator.log"
    own = directory / "apt"
    (own / "lists" / "partial").mkdir(parents=True)
    (own / "sources.list").write_text(bootstrap.backports(log, _SUITE), encoding="utf-8")
    settings = {
        "Dir::Etc::sourcelist": own / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": own / "lists",
        "Dir::Cache": own,
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    apt = ["apt-get", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    run_logged([*apt, "update", "-q"], log, "Fetching the list of backports")
    fetch = [*apt, "download", *(f"{package}/{_SUITE}" for package in _PACKAGES)]
    run_logged(["env", "-C", str(own), *fetch], log, "Fetching the emulator")
    for package in sorted(own.glob("*.deb")):
        run_logged(["dpkg-deb", "--extract", str(package), str(directory)], log, "Unpacking the emulator")
    remove_tree(own)
    _version(_from(directory))
