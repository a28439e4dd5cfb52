# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peer among collections: community.libvirt, out of the PyPI package ansible, which carries it.

The package is pinned with its hashes in requirements/peer.txt. It is fetched on first use, and only the collection is
kept, in the project's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "dev" / "lib"))
import places

_LOCK = places.ROOT / "requirements" / "peer.txt"
_COLLECTION = "ansible_collections/community/libvirt/"
_SECONDS = 600


class Unavailable(Exception):
    """The collection can't be fetched; the text says why."""


def collection() -> Path:
    """The directory of collections that it is in. Raises Unavailable."""
    kept = places.CACHE / "peers" / hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]
    if not (kept / _COLLECTION / "MANIFEST.json").exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
            made = _fetch(Path(directory))
            made.rename(kept)
    return kept


def version(collections: Path) -> str:
    told = json.loads((collections / _COLLECTION / "MANIFEST.json").read_text(encoding="utf-8"))
    return f"community.libvirt {told['collection_info']['version']}"


def _fetch(directory: Path) -> Path:
    pip = [str(places.VENVS / "bootstrap" / "bin" / "python"), "-m", "pip", "download", "-q", "--no-deps"]
    # Its program would not run with every Python that the tests run with, but of it we only want files.
    pip += ["--no-cache-dir", "--require-hashes", "--only-binary", ":all:", "--python-version", "3.12"]
    # dev/run gives everything a HOME of its own; how an index is reached may be said in the user's.
    env = {**places.installer_environment(), "HOME": pwd.getpwuid(os.geteuid()).pw_dir}
    try:
        done = subprocess.run(
            [*pip, "--dest", str(directory), "--requirement", str(_LOCK)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as why:
        raise Unavailable(f"pip: {why}") from why
    wheels = list(directory.glob("ansible-*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = done.stderr.strip().splitlines()
        raise Unavailable(f"pip could not fetch it: {lines[-1] if lines else done.returncode}")
    made = directory / "made"
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(made, [name for name in wheel.namelist() if name.startswith(_COLLECTION)])
    return made
