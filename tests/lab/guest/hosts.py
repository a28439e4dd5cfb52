# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules, called in the test's own process on the guest's real storage; and the guest's own tools, as the judge."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.integration.calling import call


def run(*words: str, check: bool = True, text: str | None = None) -> str:
    """What a tool prints; one that fails is an error of the test, unless ``check`` is false."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def sh(script: str) -> str:
    """What a shell script prints; it ends with the first command that fails."""
    return run("bash", "--norc", "-euo", "pipefail", "-c", script)


def run_json(*words: str) -> Any:
    """What a tool says in JSON."""
    return json.loads(run(*words))


class Host:
    """An engine. ``pool`` and ``volume`` return the module's result, also one that failed."""

    def __init__(self, uri: str, **defaults: Any) -> None:
        self.uri = uri
        self._defaults = defaults

    def pool(self, check: bool = False, **params: Any) -> dict[str, Any]:
        return call("storage_pool", check, uri=self.uri, **{**self._defaults, **params})

    def volume(self, check: bool = False, **params: Any) -> dict[str, Any]:
        return call("storage_volume", check, uri=self.uri, **params)

    def pool_info(self, **params: Any) -> list[dict[str, Any]]:
        return call("storage_pool_info", uri=self.uri, **params)["pools"]

    def volume_info(self, **params: Any) -> list[dict[str, Any]]:
        return call("storage_volume_info", uri=self.uri, **params)["volumes"]
