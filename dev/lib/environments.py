# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes what the demo and the tests need: Debian packages that are missing, and pinned environments in .venv/.

dev/setup         everything for the tests
dev/setup demo    only what the demo needs
dev/setup lab     what the lab's guests and their tests need
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import places
import pythons
from places import CACHE, ROOT, VENVS, Stop, say

BOOTSTRAP = VENVS / "bootstrap"
UV = BOOTSTRAP / "bin" / "uv"


# -- Debian packages ----------------------------------------------------------------------------------------------


def _listed_packages(purpose: str) -> list[str]:
    packages = []
    for line in (ROOT / "dev" / "apt-packages.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            package, purposes = line.split()[:2]
            if purpose in purposes.split(","):
                packages.append(package)
    return packages


def _missing_packages(purpose: str) -> list[str]:
    wanted = _listed_packages(purpose)
    if not wanted:
        return []
    asked = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in asked.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in installed]


def _may_sudo() -> bool:
    """Whether sudo works here: without a password, or with a person who can be asked for it."""
    if not shutil.which("sudo"):
        return False
    return (
        sys.stdin.isatty() or subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    )


def install_packages(purpose: str) -> None:
    if not shutil.which("dpkg-query"):
        say(f"This is no Debian: make sure that you have the equivalents of {', '.join(_listed_packages(purpose))}.")
        return
    missing = _missing_packages(purpose)
    if not missing:
        return
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *missing]
    update = ["apt-get", "update", "-q", "-o", "DPkg::Lock::Timeout=300"]
    by_hand = "  apt-get update && " + shlex.join(["apt-get", "install", "--no-install-recommends", *missing])
    prefix = ["env", "DEBIAN_FRONTEND=noninteractive"]
    if os.geteuid() != 0:
        if not _may_sudo():
            names = ", ".join(missing)
            raise Stop(f"These Debian packages are missing: {names}. As root, run\n\n{by_hand}\n\nand try again.")
        prefix = ["sudo", *prefix]
    say(f"Installing Debian packages that are missing: {' '.join(missing)}")
    log = places.LOGS / "apt.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        # The package lists may be absent or old; they are fetched only when it does not work without.
        for commands in ([install], [update, install]):
            for command in commands:
                done = subprocess.run(
                    prefix + command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, check=False
                )
            if done.returncode == 0 and not _missing_packages(purpose):
                return
    tail = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-15:])
    raise Stop(f"{tail}\nInstalling Debian packages failed (all of it: {log}). As root, try\n\n{by_hand}")


# -- settings of the package index --------------------------------------------------------------------------------

_PIP_SETTINGS = {
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "cert",
    "client-cert",
    "trusted-host",
    "proxy",
    "retries",
    "timeout",
    "default-timeout",
}


def pip_settings() -> dict[str, str]:
    """What pip would use on this machine to reach a package index, wherever it was said (files or environment)."""
    listed = subprocess.run(
        [str(BOOTSTRAP / "bin" / "python"), "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        env=places.installer_environment(),
        check=False,
    )
    from_files, from_environment = {}, {}
    for line in listed.stdout.splitlines():
        key, separator, value = line.partition("=")
        section, dot, name = key.rpartition(".")
        if not separator or not dot or name not in _PIP_SETTINGS or section not in ("global", "install", ":env:"):
            continue
        try:
            text = str(ast.literal_eval(value))
        except (SyntaxError, ValueError):
            continue
        (from_environment if section == ":env:" else from_files)[name] = text
    settings = {**from_files, **from_environment}
    for name, variables in {
        "cert": ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
        "proxy": ("https_proxy", "HTTPS_PROXY"),
    }.items():
        for variable in variables:
            if os.environ.get(variable):
                settings.setdefault(name, os.environ[variable])
    return settings


def uv_environment() -> dict[str, str]:
    """uv does not read pip's settings: tell it the same."""
    env = places.installer_environment()
    settings = pip_settings()

    def remote(name: str) -> list[str]:
        return [url for url in settings.get(name, "").split() if not url.startswith("file:")]

    told = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_INDEX": " ".join(remote("extra-index-url")),
        "UV_INSECURE_HOST": settings.get("trusted-host", ""),
        "SSL_CERT_FILE": settings.get("cert", ""),
        "UV_HTTP_TIMEOUT": settings.get("timeout", settings.get("default-timeout", "")),
    }
    for name, value in told.items():
        if value and name not in env:
            env[name] = value
    # Every file is checked against its hash, so it does not matter which index it came from.
    env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return env


# -- environments -------------------------------------------------------------------------------------------------


def _stamp(lock: Path, python: str) -> str:
    parts = [str(ROOT), python, hashlib.sha256(lock.read_bytes()).hexdigest()]
    with contextlib.suppress(OSError):
        parts.append(str(os.stat(python).st_mtime_ns))
    return "\n".join(parts) + "\n"


def _is_made(venv: Path, stamp: str) -> bool:
    try:
        return (venv / "stamp").read_text(encoding="utf-8") == stamp and (venv / "bin" / "python").exists()
    except OSError:
        return False


def run(command: list[str], env: dict[str, str], what: str) -> None:
    done = subprocess.run(
        command,
        env=env,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Stop(f"{done.stdout}\n{what} failed (exit status {done.returncode}): {shlex.join(command)}")


def make_bootstrap() -> None:
    lock = ROOT / "requirements" / "uv.txt"
    stamp = _stamp(lock, os.path.realpath(sys.executable))
    if _is_made(BOOTSTRAP, stamp) and UV.exists():
        return
    say("Installing the installer (uv)")
    env = places.installer_environment()
    shutil.rmtree(BOOTSTRAP, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(BOOTSTRAP)], env, "Making the first environment")
    pip = [str(BOOTSTRAP / "bin" / "python"), "-m", "pip", "install", "-q", "--require-hashes", "-r", str(lock)]
    run(pip, env, "Installing uv from the package index")
    (BOOTSTRAP / "stamp").write_text(stamp, encoding="utf-8")


def lock_for(python: pythons.Python) -> Path:
    if python.minor == (3, 9):
        name = "unit-py39.txt"
    elif python.minor == (3, 11):
        name = "dev-py311.txt"
    else:
        name = "dev-py312.txt"  # for every later Python too
    return ROOT / "requirements" / name


def make_environment(python: pythons.Python) -> None:
    venv, lock = VENVS / python.name, lock_for(python)
    stamp = _stamp(lock, python.path)
    if _is_made(venv, stamp):
        return
    say(f"Installing the environment for Python {python.version}: some 300 MB, the first time only")
    env = uv_environment()
    shutil.rmtree(venv, ignore_errors=True)
    run([str(UV), "venv", "-q", "--python", python.path, str(venv)], env, "Making an environment")
    sync = [str(UV), "pip", "sync", "-q", "--require-hashes", "--python", str(venv / "bin" / "python"), str(lock)]
    run(sync, env, "Installing from the package index")
    (venv / "stamp").write_text(stamp, encoding="utf-8")


def prepare(purpose: str) -> pythons.Choice:
    """Everything that ``purpose`` (demo, test or lab) needs. Quick when it is there already."""
    started = time.monotonic()
    install_packages(purpose)
    choice = pythons.choose()
    if not choice.suites:
        raise Stop("ansible-core needs Python 3.11 to 3.14: none was found. On Debian 12: apt-get install python3")
    VENVS.mkdir(exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (VENVS / "lock").open("w", encoding="utf-8") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two runs in one clone build one environment once
        make_bootstrap()
        for python in choice.wanted if purpose == "test" else [choice.main]:
            make_environment(python)
        main = VENVS / "main"
        if not main.is_symlink() or os.readlink(main) != choice.main.name:
            main.unlink(missing_ok=True)
            main.symlink_to(choice.main.name)
    places.link_collection()
    if time.monotonic() - started > 2:
        say(f"Set up in {time.monotonic() - started:.1f} s")
    return choice


def entry(arguments: list[str]) -> int:
    purpose = arguments[0] if arguments else "test"
    if purpose not in ("demo", "test", "lab"):
        raise Stop(str(__doc__))
    choice = prepare(purpose)
    for python in choice.wanted if purpose == "test" else [choice.main]:
        say(f"ready: .venv/{python.name} (Python {python.version}, {python.path})")
    if purpose == "test":
        for note in choice.notes:
            say(note)
    return 0


if __name__ == "__main__":
    places.main(entry)
