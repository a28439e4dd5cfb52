# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest

from .calling import call

pytestmark = [pytest.mark.needs_ansible, pytest.mark.each_python]


def test_pool_and_volume(host):
    planned = host.pool(check=True, name="images", type="dir", path=str(host.images))
    assert planned["changed"]
    assert not host.root.exists()
    host.start_images()
    assert host.images.is_dir()
    made = host.volume(name="a.raw", capacity="1MiB")
    assert made["changed"]
    assert made["volumes"][0]["status"] == "changed"
    assert (host.images / "a.raw").stat().st_size == 2**20
    assert not host.volume(name="a.raw", capacity="1MiB")["changed"]


def test_a_missing_tool_is_said_before_anything_changes(images, monkeypatch):
    """In check mode it is a warning: an earlier task of the play may install it."""
    wanted = {"volumes": [{"name": "a.raw"}, {"name": "b.qcow2", "format": "qcow2"}], "capacity": "1MiB"}
    monkeypatch.setenv("PATH", str(images.root))
    planned = images.volume(check=True, **wanted)
    assert planned["changed"]
    assert any("qemu-img is not installed" in warning for warning in planned["warnings"])
    refused = images.volume(**wanted)
    assert refused["error"]["code"] == "tool_missing"
    assert "qemu-utils on Debian" in refused["error"]["hint"]
    assert list(images.images.iterdir()) == []
    assert images.volume(name="a.raw", capacity="1MiB")["changed"]


@pytest.mark.parametrize(
    "text",
    ["volume=base,format=qcow2", '{"volume": "base", "format": "qcow2"}', "{'volume': 'base', 'format': 'qcow2'}"],
)
def test_a_backing_on_a_command_line(images, text):
    images.volume(name="base", format="qcow2", capacity="1MiB")
    made = images.volume(name="over", format="qcow2", backing=text)
    assert made["volumes"][0]["backing"] == {"path": f"{images.images}/base", "format": "qcow2"}


@pytest.mark.parametrize(
    ("module", "known"), [("storage_pool_info", "available"), ("storage_volume_info", "cluster_size")]
)
def test_fields_that_no_record_has_are_refused(images, module, known):
    refused = call(module, uri=images.uri, fields=["name", "capacity", "typo"])
    assert refused["error"]["code"] == "invalid_option"
    assert "typo" in refused["msg"]
    assert known in refused["error"]["hint"]
    assert "failed" not in call(module, uri=images.uri, fields=["name", "capacity", known, "xml"])


def test_a_pool_that_is_not_there_has_no_volumes(images):
    assert images.volume_info(pool="nowhere") == []
