# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Resolves requirements/*.in anew. The lock files hold names, versions and hashes, and no address of an index."""

from __future__ import annotations

import environments
import places
from places import ROOT, say

LOCKS: list[tuple[str, str, str, list[str]]] = [
    ("uv.in", "uv.txt", "3.9", []),
    ("dev.in", "dev-py311.txt", "3.11", []),
    ("dev.in", "dev-py312.txt", "3.12", []),
    ("unit-py39.in", "unit-py39.txt", "3.9", []),
    ("peer.in", "peer.txt", "3.12", ["--no-deps"]),  # of it a benchmark takes one collection
]


def entry(arguments: list[str]) -> int:
    environments.install_packages("demo")
    environments.make_bootstrap()
    env = environments.uv_environment()
    for source, lock, version, more in LOCKS:
        command = [str(environments.UV), "pip", "compile", "-q", "--upgrade", "--generate-hashes", "--no-header"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--python-version", version]
        command += [f"requirements/{source}", "-o", str(ROOT / "requirements" / lock), *more, *arguments]
        environments.run(command, env, "Resolving")
        say(f"resolved requirements/{lock} for Python {version}")
    return 0


if __name__ == "__main__":
    places.main(entry)
