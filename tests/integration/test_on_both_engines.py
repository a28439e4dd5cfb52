# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the engines once did not do the same, found by random tasks (test_both_engines.py): each case on both."""

from __future__ import annotations

import os
import stat

import pytest

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.libvirt_binding,
    pytest.mark.xdist_group("daemon"),
]


@pytest.fixture(params=["images", "daemon_images"], ids=["native", "daemon"])
def engine(request):
    """A host whose pool is active."""
    return request.getfixturevalue(request.param)


def unmet(result) -> list[str]:
    return [text for text in result["warnings"] if text.startswith("verification:")]


def test_permissions_that_nobody_declared_are_left_alone(engine):
    engine.images.chmod(0o755)
    engine.pool(name=engine.name, state="inactive")
    engine.pool(name=engine.name)
    engine.images.chmod(0o700)
    os.chown(engine.images, 65534, 65534)
    result = engine.pool(name=engine.name)
    assert "failed" not in result, result
    assert not result["changed"], result["plan"]
    status = engine.images.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o700, 65534, 65534)


def test_declared_permissions_are_set_while_the_pool_runs(engine):
    result = engine.pool(name=engine.name, mode="0750")
    assert "failed" not in result, result
    assert stat.S_IMODE(engine.images.stat().st_mode) == 0o750
    assert not engine.pool(name=engine.name, mode="0750")["changed"]


def test_a_volume_smaller_than_a_block_grows(engine):
    (engine.images / "small").write_bytes(b"a" * 1003)
    result = engine.volume(name="small", capacity=1515)
    assert "failed" not in result, result
    assert unmet(result) == []
    assert (engine.images / "small").read_bytes() == b"a" * 1003 + bytes(512)


def test_a_volume_that_a_hand_made_smaller_grows(engine):
    engine.volume(name="disk", capacity="4MiB")
    os.truncate(engine.images / "disk", 2**20)
    result = engine.volume(name="disk", capacity="2MiB")
    assert "failed" not in result, result
    assert (engine.images / "disk").stat().st_size == 2**21


def test_what_a_hand_removed_is_not_warned_about(engine):
    engine.volume(volumes=[{"name": "here", "capacity": 512}, {"name": "gone", "capacity": 512}])
    (engine.images / "gone").unlink()
    result = engine.volume(volumes=[{"name": "here", "capacity": 1024}, {"name": "gone", "state": "absent"}])
    assert "failed" not in result, result
    assert unmet(result) == []


def test_a_source_outside_is_looked_at_though_the_pool_is_still_to_come(engine, tmp_path):
    (tmp_path / "disk.raw").write_bytes(bytes(2**20))
    volume = {"name": "copy", "format": "qcow2", "source": {"path": str(tmp_path / "disk.raw")}}
    checked = engine.volume(True, pool="later", **volume)
    assert "failed" not in checked, checked
    assert [text.partition(":")[0] for text in checked["warnings"]] == ["pool later is not defined on this host"]
    assert checked["volumes"][0]["capacity"] == 2**20
    refused = engine.volume(True, pool="later", **volume, capacity=512)
    assert refused["error"]["code"] == "capacity_too_small", refused


def test_nothing_is_deleted_by_another_path_unseen(engine):
    engine.volume(name="disk", capacity=512)
    link = engine.root / "link"
    link.symlink_to(engine.images)
    refused = engine.pool(name=engine.name, type="dir", path=str(link), state="deleted")
    assert refused["error"]["code"] == "pool_nonempty", refused
    assert engine.pool_info(name=engine.name)[0]["state"] == "active"
    assert (engine.images / "disk").exists()


def test_figures_are_those_of_the_declared_directory(engine):
    checked = engine.pool(True, name=engine.name, path=str(engine.root / "other"), state="inactive")
    assert "failed" not in checked, checked
    assert "capacity" not in checked["pool"]


def test_an_overlay_whose_base_became_another_is_refused_in_time(engine):
    engine.volume(name="base", format="qcow2", capacity="1MiB")
    engine.volume(name="over", format="qcow2", backing={"volume": "base", "format": "qcow2"})
    engine.volume(name="base", format="raw", capacity="1MiB", recreate="always", allow=["backing"])
    for check in (True, False):
        refused = engine.volume(check, name="over", format="qcow2", capacity="2MiB")
        assert refused["error"]["code"] == "format_mismatch", refused
    assert "failed" not in engine.volume(name="over", mode="0640")
