# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules, called in the test's own process on real storage; and the guest's own tools, as the judge."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
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


def own_address() -> str:
    """The guest's address on the network that only guests are on."""
    return str(run_json("ip", "-json", "-4", "address", "show", "eth1")[0]["addr_info"][0]["local"])


class Host:
    """An engine. ``pool`` and ``volume`` return the module's result, also one that failed. What ``allow`` says is
    allowed in each call, besides what the call itself allows.
    """

    def __init__(self, uri: str, allow: Sequence[str] = ()) -> None:
        self.uri = uri
        self._allow = list(allow)

    def _declaration(self, params: dict[str, Any]) -> dict[str, Any]:
        allow = [*self._allow, *params.get("allow", [])]
        return {**params, "uri": self.uri, **({"allow": allow} if allow else {})}

    def pool(self, check: bool = False, **params: Any) -> dict[str, Any]:
        return call("storage_pool", check, **self._declaration(params))

    def volume(self, check: bool = False, **params: Any) -> dict[str, Any]:
        return call("storage_volume", check, **self._declaration(params))

    def pool_info(self, **params: Any) -> list[dict[str, Any]]:
        return call("storage_pool_info", uri=self.uri, **params)["pools"]

    def volume_info(self, **params: Any) -> list[dict[str, Any]]:
        return call("storage_volume_info", uri=self.uri, **params)["volumes"]
