# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian 12 unpacked into a directory, from the package sources that this machine itself uses."""

from __future__ import annotations

import subprocess
from pathlib import Path

from places import Stop

from lab.holding import alone, environment, run_logged

SUITE = "bookworm"
COMPONENTS = "main contrib"
# What nobody reads there, and drivers for hardware that the virtual machine has not.
LEFT_OUT = [
    *(f"/usr/share/{name}/*" for name in ("man", "doc", "info", "locale", "icons", "lintian")),
    *(
        f"/lib/modules/*/kernel/{name}/*"
        for name in ("sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/iio", "drivers/staging")
    ),
    *(f"/lib/modules/*/kernel/drivers/net/{name}/*" for name in ("wireless", "ethernet", "can", "wwan")),
]
# Settings of the machine's apt that decide whether the sources can be reached and are taken for good.
_PASSED_ON = ("acquire::http", "acquire::https", "acquire::check-", "acquire::retries", "acquire::max-validto")


def _apt(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    return done.stdout.splitlines()


def _targets() -> list[tuple[str, str]]:
    shown = _apt("apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI) $(RELEASE)")
    pairs = set()
    for line in shown:
        words = line.split()
        if len(words) == 4 and words[0] == "Debian" and words[1].startswith(SUITE) and "backports" not in words[1]:
            pairs.add((words[2], words[3]))
    return sorted(pairs)


def _known(log: Path) -> list[tuple[str, str]]:
    """This machine's own sources of Debian 12. apt knows them only after it fetched their lists."""
    targets = _targets()
    if not targets:
        run_logged(["apt-get", "update", "-q"], log, "Fetching the package lists")
        targets = _targets()
    if not targets:
        raise Stop(f"apt has no source of Debian 12 ({SUITE}): the lab builds its guest from it.")
    return targets


def sources(log: Path) -> str:
    """Those, with contrib."""
    return "".join(f"deb {site} {suite} {COMPONENTS}\n" for site, suite in _known(log))


def backports(log: Path, suite: str) -> str:
    """Where they would have ``suite``, and what packages of it may depend on."""
    mains = sorted({site for site, each in _known(log) if each == SUITE})
    return "".join(f"deb {site} {each} main\n" for site in mains for each in (SUITE, suite))


def _settings() -> list[str]:
    """The guest's apt would not see this machine's settings."""
    found = []
    for line in _apt("apt-config", "dump"):
        name, _space, value = line.partition(" ")
        if name.lower().startswith(_PASSED_ON) and value.strip() not in ('"";', ""):
            found.append(f"--aptopt={name} {value.strip()}")
    return found


def unpack(tree: Path, packages: list[str], log: Path, keep_apt: bool = False) -> None:
    """``packages`` and what they depend on; with ``keep_apt`` more can be fetched from inside the tree."""
    command = [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=apt" if keep_apt else "--variant=minbase",
        f"--components={COMPONENTS.replace(' ', ',')}",
        '--aptopt=APT::Install-Recommends "false"',
        *_settings(),
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in ([] if keep_apt else LEFT_OUT)),
        *(["--skip=cleanup/apt/lists"] if keep_apt else []),
        f"--include={','.join(packages)}",
        SUITE,
        str(tree),
        "-",
    ]
    # INITRD: the kernel's package would generate an initial RAM disk that nobody boots.
    run_logged(alone(["env", "INITRD=No", *command]), log, "Unpacking Debian", sources(log))
