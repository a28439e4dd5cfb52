# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the engines once did not do the same, found by random tasks (test_both_engines.py): each case on both."""

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines import execute
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

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


class Ended(BaseException):
    """Stands for the end of a task that is killed."""


@pytest.fixture
def killed_at(monkeypatch):
    """Has a task end before its step of an action."""

    def arrange(action: str) -> None:
        plain = execute._run_step

        def run_step(step, host):
            if step.change is not None and step.change.action == action:
                raise Ended
            return plain(step, host)

        monkeypatch.setattr(execute, "_run_step", run_step)

    return arrange


@pytest.mark.parametrize("action", ["redefine", "start"])
def test_a_restart_that_was_ended_is_completed_though_only_present_is_declared(engine, killed_at, monkeypatch, action):
    wanted = {"name": engine.name, "path": f"{engine.images}-moved", "state": "present", "allow": ["restart"]}
    killed_at(action)
    with pytest.raises(Ended):
        engine.pool(**wanted)
    monkeypatch.undo()
    foreseen = engine.pool(check=True, **wanted)
    result = engine.pool(**wanted)
    assert result["pool"]["state"] == "active", result
    assert [entry["action"] for entry in foreseen["plan"]] == [entry["action"] for entry in result["plan"]]
    assert [text for text in result["warnings"] if "restarting" in text]
    assert not engine.pool(**wanted)["changed"]
    engine.pool(name=engine.name, state="inactive")
    again = engine.pool(**wanted)
    assert (again["changed"], again["pool"]["state"]) == (False, "inactive")


def test_a_restart_that_was_ended_is_forgotten_where_the_pool_is_to_be_inactive(engine, killed_at, monkeypatch):
    wanted = {"name": engine.name, "path": f"{engine.images}-moved", "allow": ["restart"]}
    killed_at("start")
    with pytest.raises(Ended):
        engine.pool(**wanted, state="present")
    monkeypatch.undo()
    assert not engine.pool(**wanted, state="inactive")["changed"]
    again = engine.pool(**wanted, state="present")
    assert (again["changed"], again["pool"]["state"]) == (False, "inactive")


def test_a_restart_that_failed_says_so_and_is_completed(engine, monkeypatch):
    wanted = {"name": engine.name, "path": f"{engine.images}-moved", "state": "present", "allow": ["restart"]}
    plain, failure = execute._run_step, StorageError("command_failed", "no", hint="Mend it.")

    def run_step(step, host):
        fails = step.change is not None and step.change.action == "start"
        return execute.Outcome(execute.FAILED, failure) if fails else plain(step, host)

    monkeypatch.setattr(execute, "_run_step", run_step)
    failed = engine.pool(**wanted)
    assert (failed["failed"], failed["changed"], failed["error"]["code"]) == (True, True, "command_failed")
    assert "stays changed" in failed["error"]["hint"]
    assert "run the task again" in failed["error"]["hint"]
    monkeypatch.undo()
    assert engine.pool(**wanted)["pool"]["state"] == "active"
