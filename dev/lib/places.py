# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where things are, and the environment that every tool runs in.

Two places are written to: the clone (``.venv/`` and ``.cache/``, both ignored by git) and one cache folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venv"
LOCAL = ROOT / ".cache"
COLLECTIONS = LOCAL / "collections"
LOGS = LOCAL / "logs"


def _cache() -> Path:
    own = os.environ.get("VIRT_STORAGE_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base).absolute() / "virt-storage"


CACHE = _cache()
HOME = CACHE / "home"


class Stop(Exception):
    """The set-up cannot go on; the text says why and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def main(function) -> None:
    """Run an entry point; turn what a person can mend into a short message."""
    try:
        sys.exit(function(sys.argv[1:]))
    except Stop as why:
        print(f"\n{why}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def link_collection() -> None:
    """The tree in which Ansible finds this clone as ansible_collections.virt.storage."""
    link = COLLECTIONS / "ansible_collections" / "virt" / "storage"
    if os.path.lexists(link):
        if link.resolve() == ROOT:
            return
        link.unlink()
    link.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another run was quicker
        link.symlink_to(Path("..") / ".." / ".." / "..")


def installer_environment() -> dict[str, str]:
    """For pip and uv: the user's own settings, but our caches."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    env["PIP_CACHE_DIR"] = str(CACHE / "pip")
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    env["PIP_ROOT_USER_ACTION"] = "ignore"
    env["UV_CACHE_DIR"] = str(CACHE / "uv")
    env["UV_PYTHON_DOWNLOADS"] = "never"
    return env


def tool_environment(venv: str, more_path: list[str] | None = None) -> dict[str, str]:
    """For everything that runs out of an environment: a HOME of its own, no settings of the user's Ansible."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "PYTEST_ADDOPTS", "COLUMNS")
    prefixes = ("ANSIBLE_", "XDG_")
    env = {key: value for key, value in os.environ.items() if key not in dropped and not key.startswith(prefixes)}
    bin_dir = VENVS / venv / "bin"
    ours = {str(path) for path in VENVS.glob("*/bin")}
    path = [entry for entry in env.get("PATH", os.defpath).split(os.pathsep) if entry not in ours]
    # /usr/sbin holds losetup, mkfs and the like; a plain user's PATH lacks it.
    path += [entry for entry in ("/usr/sbin", "/sbin") if entry not in path]
    temporary = LOCAL / "tmp"
    for directory in (HOME, temporary, LOGS):
        directory.mkdir(parents=True, exist_ok=True)
    config = LOCAL / "ansible" / "ansible.cfg"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.touch()  # empty: no settings of the user's or of the machine's
    link_collection()
    env.update(
        PATH=os.pathsep.join([str(bin_dir), *(more_path or []), *path]),
        VIRTUAL_ENV=str(VENVS / venv),
        VIRT_STORAGE_CACHE=str(CACHE),
        HOME=str(HOME),
        XDG_CACHE_HOME=str(HOME / ".cache"),
        XDG_CONFIG_HOME=str(HOME / ".config"),
        XDG_DATA_HOME=str(HOME / ".local" / "share"),
        TMPDIR=str(temporary),
        ANSIBLE_HOME=str(LOCAL / "ansible"),
        ANSIBLE_LOCAL_TEMP=str(LOCAL / "ansible" / "tmp"),
        ANSIBLE_REMOTE_TEMP=str(LOCAL / "ansible" / "tmp"),
        ANSIBLE_REMOTE_TMP=str(LOCAL / "ansible" / "tmp"),
        ANSIBLE_CONFIG=str(config),
        ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
        ANSIBLE_NOCOWS="1",
        HYPOTHESIS_STORAGE_DIRECTORY=str(LOCAL / "hypothesis"),
        MYPY_CACHE_DIR=str(LOCAL / "mypy"),
        RUFF_CACHE_DIR=str(LOCAL / "ruff"),
    )
    return env


def clear_temporary() -> None:
    shutil.rmtree(LOCAL / "tmp", ignore_errors=True)
