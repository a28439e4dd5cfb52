# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the tests call the modules: their own entry points, with parameters as Ansible hands them over."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from typing import Any

_MODULES = "ansible_collections.virt.storage.plugins.modules"


def said(module: str, params: dict[str, Any]) -> str:
    """What a module prints that is run in this process, with Ansible's own parameters beside its own."""
    from ansible.module_utils.testing import patch_module_args

    entry = importlib.import_module(f"{_MODULES}.{module}")
    printed = io.StringIO()
    with patch_module_args(params), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        entry.main()
    return printed.getvalue()


def call(module: str, check: bool = False, **params: Any) -> dict[str, Any]:
    """The result of one module run in this process; warnings as plain text."""
    from ansible.module_utils.common import warnings

    warnings._global_warnings.clear()
    result = json.loads(said(module, {**params, "_ansible_check_mode": check, "_ansible_diff": True}))
    told = result.get("warnings", [])
    result["warnings"] = [text if isinstance(text, str) else text["event"]["msg"] for text in told]
    return result
