# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the tests call the modules: their own entry points, with parameters as Ansible hands them over."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

_MODULES = "ansible_collections.virt.storage.plugins.modules"


def call(module: str, check: bool = False, **params: Any) -> dict[str, Any]:
    """The result of one module run in this process; warnings as plain text."""
    from ansible.module_utils.common import warnings
    from ansible.module_utils.testing import patch_module_args

    warnings._global_warnings.clear()
    entry = importlib.import_module(f"{_MODULES}.{module}")
    printed = io.StringIO()
    with (
        patch_module_args({**params, "_ansible_check_mode": check, "_ansible_diff": True}),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        entry.main()
    result = json.loads(printed.getvalue())
    told = result.get("warnings", [])
    result["warnings"] = [text if isinstance(text, str) else text["event"]["msg"] for text in told]
    return result


class Host:
    """A native engine with a root of its own. ``images`` is the directory of the pool that most tests use."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = f"native:///?root={root}"
        self.images = root / "images"

    def pool(self, check: bool = False, **params: Any) -> dict[str, Any]:
        return call("storage_pool", check, uri=self.uri, **params)

    def volume(self, check: bool = False, **params: Any) -> dict[str, Any]:
        return call("storage_volume", check, uri=self.uri, **{"pool": "images", **params})

    def pool_info(self, **params: Any) -> list[dict[str, Any]]:
        return call("storage_pool_info", uri=self.uri, **params)["pools"]

    def volume_info(self, **params: Any) -> list[dict[str, Any]]:
        return call("storage_volume_info", uri=self.uri, **params)["volumes"]

    def start_images(self) -> None:
        result = self.pool(name="images", type="dir", path=str(self.images))
        assert "failed" not in result, result


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Nothing is there yet."""
    return Host(tmp_path / "host")


@pytest.fixture
def images(host: Host) -> Host:
    """The pool images is active."""
    host.start_images()
    return host
