# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools of virtual Fibre Channel adapters, whole tasks on a made-up sysfs: nobody here has the hardware."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines import native_users
from ansible_collections.virt.storage.plugins.module_utils.host import udev, vports
from ansible_collections.virt.storage.plugins.module_utils.model.found import User

from ..unit.backends.scsi_tree import MIB, Tree
from .disk_scenarios import code, converges, ok, refuses

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root]

NAMES = {"wwnn": "20000000c9831b4b", "wwpn": "10000000c9831b4b"}


def declared(**more: Any) -> dict[str, Any]:
    adapter = {"type": "fc_host", **NAMES, **more}
    return {"name": "san", "type": "scsi", "path": "/dev", "source": {"adapter": adapter}}


@pytest.fixture
def fabric(tmp_path, monkeypatch):
    """host5 is a port of the hardware; host7 is the virtual one, where there is one."""
    tree = Tree(tmp_path / "made-up", monkeypatch)
    monkeypatch.setattr(udev, "_CONTROL", "/nowhere/control")
    tree.fc_host(5, "20000000c9848140", "10000000c9848140", pci="0000:05:00.0", vports=2)
    tree.makes_vports(monkeypatch, on=5)
    return tree


def is_there(tree: Tree) -> bool:
    return (tree.sys / "class/fc_host/host7").exists()


def adopted(tree: Tree) -> None:
    tree.vport(7, NAMES["wwnn"], NAMES["wwpn"], on=5)
    tree.unit("7:0:0:0")


def test_it_comes_and_goes_with_the_pool(host, fabric):
    made = converges(host.pool, **declared())
    assert [change["action"] for change in made["plan"]] == ["define", "start"]
    assert "make the virtual host adapter" in made["plan"][1]["summary"]
    (volume,) = host.volume_info(pool="san")
    assert (volume["name"], volume["capacity"]) == ("unit:0:0:0", MIB)
    assert is_there(fabric)
    converges(host.pool, name="san", state="inactive")
    assert not is_there(fabric)
    ok(host.pool(name="san"))
    converges(host.pool, name="san", state="absent")
    assert not is_there(fabric)


def test_it_is_made_anew_by_a_restart(host, fabric):
    ok(host.pool(**declared()))
    moved = {**declared(), "path": "/dev/disk/by-id"}
    refuses(host.pool, "restart_needed", **moved)
    made = converges(host.pool, **moved, allow=["restart"])
    assert [change["action"] for change in made["plan"]] == ["stop", "redefine", "start"]
    said = [command for change in made["plan"] for command in change["commands"] if "vport" in command]
    assert [command.rpartition("vport_")[2] for command in said] == ["delete", "create"]
    assert is_there(fabric)
    ok(host.pool(name="san", state="inactive"))
    assert not is_there(fabric)


@pytest.mark.parametrize(("managed", "stays"), [(None, True), (False, True), (True, False)])
def test_one_that_was_there_before(host, fabric, managed, stays):
    adopted(fabric)
    made = converges(host.pool, **declared(**({} if managed is None else {"managed": managed})))
    assert "make" not in made["plan"][1]["summary"]
    converges(host.pool, name="san", state="inactive")
    assert is_there(fabric) is stays


def test_one_that_was_there_before_goes_where_that_is_allowed(host, fabric):
    adopted(fabric)
    ok(host.pool(**declared()))
    ok(host.pool(name="san", state="absent", allow=["stop_adopted"]))
    assert not is_there(fabric)


def test_it_stays_where_that_is_declared_later(host, fabric):
    ok(host.pool(**declared()))
    changed = converges(host.pool, **declared(managed=False))
    assert [change["action"] for change in changed["plan"]] == ["redefine"]
    assert not ok(host.pool(**declared()))["changed"]
    ok(host.pool(name="san", state="inactive"))
    assert is_there(fabric)


def test_it_stays_while_it_is_a_path_of_a_map(host, fabric, monkeypatch):
    """Of a unit that is no volume of the pool for that, its users are asked for too."""
    ok(host.pool(**declared()))
    (volume,) = host.volume_info(pool="san")
    fabric.map(0, "mpatha", volume["path"].rpartition("/")[2])
    assert host.volume_info(pool="san") == []
    above = {volume["path"]: (User("holder", "multipath map mpatha (/dev/mapper/mpatha)"),)}
    monkeypatch.setattr(
        native_users,
        "users_of_volumes",
        lambda paths: ({name: above.get(path, ()) for name, path in paths.items()}, ()),
    )
    error = refuses(host.pool, "volume_in_use", name="san", state="inactive")
    assert "mpatha" in error["message"]
    assert is_there(fabric)


def test_a_start_that_was_killed_is_completed(host, fabric, monkeypatch):
    """The note of what it made is there before that is."""

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vports, "_await_units", killed)
        with pytest.raises(KeyboardInterrupt):
            host.pool(**declared())
    assert host.pool_info(name="san")[0]["state"] == "inactive"
    ok(host.pool(**declared()))
    ok(host.pool(name="san", state="inactive"))
    assert not is_there(fabric)


def test_none_can_be_made(host, fabric):
    (fabric.sys / "class/fc_host/host5/port_state").write_text("Linkdown\n")
    assert code(host.pool(**declared())) == "source_missing"
    assert ok(host.pool(check=True, **declared()))["warnings"]
