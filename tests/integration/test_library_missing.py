# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""On a host that has the Python libraries not yet, check mode plans from what is not known, and a real run refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from .calling import call

pytestmark = pytest.mark.needs_ansible

POOL = {"name": "images", "type": "dir", "path": "/srv/images"}
VOLUMES = {"pool": "images", "format": "qcow2", "capacity": "1G", "volumes": [{"name": "a"}, {"name": "b"}]}
WAITED = {"type": "netfs", "wait_for": [{"host": "nas1", "dir": "/export"}]}


@pytest.fixture(params=["native", "daemon"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An engine whose library is missing. The native one needs it as soon as a definition is read or written."""
    for library in ("lxml", "libvirt"):
        monkeypatch.setitem(sys.modules, library, None)
    return "qemu:///system" if request.param == "daemon" else f"native:///?root={tmp_path}"


def told(result: dict[str, Any]) -> None:
    assert "failed" not in result, result
    assert any("Python librar" in warning for warning in result["warnings"])


def test_check_mode_plans_a_pool_from_what_is_not_known(uri):
    result = call("storage_pool", True, uri=uri, **POOL)
    told(result)
    assert result["changed"]
    assert [entry["summary"] for entry in result["plan"]] == ["pool images: define it, or adjust what is there by then"]
    assert "(known after apply)" in result["diff"]["before"]
    assert (result["pool"]["state"], result["pool"]["path"]) == ("active", "/srv/images")


def test_of_a_pool_that_is_only_to_be_defined_nobody_knows_the_state(uri):
    result = call("storage_pool", True, uri=uri, state="present", **POOL)
    told(result)
    assert result["pool"]["state"] == "unknown"
    assert "state:" not in result["diff"]["after"]


def test_bad_input_is_refused_all_the_same(uri):
    result = call("storage_pool", True, uri=uri, name="a/b", type="dir", path="/srv/images")
    assert result["error"]["code"] == "invalid_name"


def test_a_real_run_is_refused(uri):
    result = call("storage_pool", uri=uri, **POOL)
    assert (result["error"]["code"], result["changed"]) == ("library_missing", False)


@pytest.mark.parametrize("uri", ["daemon"], indirect=True)
def test_what_only_the_daemon_could_tell(uri):
    result = call("storage_volume", True, uri=uri, **VOLUMES)
    told(result)
    assert [entry["count"] for entry in result["plan"]] == [2]
    assert [entry["status"] for entry in result["volumes"]] == ["changed", "changed"]
    assert result["pool"] == {"name": "images", "state": "unknown"}
    gone = call("storage_pool", True, uri=uri, name="images", state="absent")
    told(gone)
    assert (gone["changed"], gone["plan"]) == (False, [])
    sources = call("storage_pool_sources", True, uri=uri, **WAITED)
    told(sources)
    assert (sources["sources"], sources["missing"][0]["source"]["dir"]) == ([], "/export")
    assert call("storage_pool_sources", uri=uri, **WAITED)["error"]["code"] == "library_missing"
