# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules' RETURN says of the same thing is the same, and lists every field that records have.

A doc fragment can't hold RETURN, so it is repeated in each module.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.virt.storage.plugins.module_utils.report.records import POOL_FIELDS, VOLUME_FIELDS
from ansible_collections.virt.storage.plugins.module_utils.report.sources import SOURCE_FIELDS

MODULES = sorted((Path(__file__).resolve().parents[2] / "plugins" / "modules").glob("*.py"))


def returned(module: Path) -> dict[str, Any]:
    text = module.read_text(encoding="utf-8")
    found = re.search(r'^RETURN = r"""\n(.*?)^"""$', text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1])


RETURNED = {module.stem: returned(module) for module in MODULES}
POOLS = {"storage_pool": "pool", "storage_pool_info": "pools", "storage_volume": "pool"}
VOLUMES = {"storage_volume": "volumes", "storage_volume_info": "volumes"}


def without(key: str, value: Any) -> Any:
    """The same with ``key`` left out everywhere."""
    if isinstance(value, dict):
        return {name: without(key, inner) for name, inner in value.items() if name != key}
    return value


@pytest.mark.parametrize("field", ["engine", "error", "plan", "diff"])
def test_what_all_modules_return_is_described_alike(field):
    """Samples are each module's own."""
    changing = ["storage_pool", "storage_volume"]
    modules = list(RETURNED) if field in ("engine", "error") else changing
    first, *others = [without("sample", RETURNED[module][field]) for module in modules]
    assert len(others) == len(modules) - 1 > 0
    for other in others:
        assert other == first


@pytest.mark.parametrize(
    ("modules", "fields", "own"),
    [
        pytest.param(POOLS, POOL_FIELDS, {"storage_pool_info": {"volumes", "xml"}}, id="pools"),
        pytest.param(
            VOLUMES,
            VOLUME_FIELDS,
            {"storage_volume": {"state", "status", "error"}, "storage_volume_info": {"pool", "xml"}},
            id="volumes",
        ),
    ],
)
def test_every_field_of_a_record_is_described_alike(modules, fields, own):
    lists = {module: RETURNED[module][field]["contains"] for module, field in modules.items()}
    for module, contains in lists.items():
        assert set(contains) == {*fields, *own.get(module, ())}, module
    for field in fields:
        first, *others = [without("returned", contains[field]) for contains in lists.values()]
        for other in others:
            assert other == first, field


def test_every_field_of_a_source_is_described():
    assert list(RETURNED["storage_pool_sources"]["sources"]["contains"]) == list(SOURCE_FIELDS)
