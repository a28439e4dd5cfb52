# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can't be asked for is an error; what is asked for and not there is an empty list, without a word."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, Found, Storage
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume
from ansible_collections.virt.storage.plugins.module_utils.tasks import info

pytestmark = pytest.mark.needs_ansible

UUID = "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10"
POOL = Pool("p", "dir", UUID, "/p")
STORAGE = Storage(READY, "/p")
FOUND = Found(
    "p",
    POOL,
    started=True,
    active=True,
    storage=STORAGE,
    current=STORAGE,
    volumes={"v": Volume("v", type="file", path="/p/v"), "far": Volume("far", type="file", path="data/far")},
)
GIVEN = {"volumes": "none", "xml": False, "uri": "auto", "timeout": 30}


class Module:
    def __init__(self, **params):
        self.params = {**dict.fromkeys(("name", "pool", "uuid", "path", "fields")), **GIVEN, **params}
        self.said = {}

    def exit_json(self, **said):
        self.said = said

    def warn(self, text):
        raise AssertionError(text)


@pytest.fixture
def asked(monkeypatch):
    def ask(run, engine="native", **params):
        host = SimpleNamespace(servers=SimpleNamespace(resolved=str))
        fake = SimpleNamespace(
            name=engine, uri="", why="", host=host, pool_names=lambda: ["p"], observe=lambda scope: FOUND
        )
        monkeypatch.setattr(info, "_engine", lambda module, known: fake)
        module = Module(**params)
        run(module)
        return [record["name"] for record in module.said["pools" if run is info.run_pools else "volumes"]]

    return ask


@pytest.mark.parametrize(
    ("run", "params", "code"),
    [
        (info.run_pools, {"uuid": "abc"}, "invalid_uuid"),
        (info.run_pools, {"uuid": ""}, "invalid_uuid"),
        (info.run_pools, {"path": "relative"}, "invalid_path"),
        (info.run_pools, {"path": ""}, "invalid_path"),
        (info.run_pools, {"name": ""}, "invalid_name"),
        (info.run_pools, {"name": "a/b"}, "invalid_name"),
        (info.run_volumes, {"path": "relative"}, "invalid_path"),
        (info.run_volumes, {"path": "", "engine": "libvirt"}, "invalid_path"),
        (info.run_volumes, {"name": ""}, "invalid_name"),
        (info.run_volumes, {"name": "../v"}, "invalid_name"),
        (info.run_volumes, {"pool": ""}, "invalid_name"),
        (info.run_volumes, {"pool": "a/b"}, "invalid_name"),
    ],
)
def test_what_nothing_can_be_called_is_an_error(asked, run, params, code):
    with pytest.raises(StorageError) as caught:
        asked(run, **params)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    ("run", "params"),
    [
        (info.run_pools, {"name": "q"}),
        (info.run_pools, {"name": "q*"}),
        (info.run_pools, {"uuid": UUID.replace("6", "7")}),
        (info.run_pools, {"path": "/q"}),
        (info.run_volumes, {"pool": "q"}),
        (info.run_volumes, {"pool": "p", "name": "w"}),
        (info.run_volumes, {"path": "/q/v"}),
    ],
)
def test_what_is_not_there_is_no_error_and_no_warning(asked, run, params):
    assert asked(run, **params) == []


@pytest.mark.parametrize("uuid", [UUID, UUID.upper(), UUID.replace("-", ""), f" {UUID}\n"])
def test_a_uuid_is_read_as_a_declared_one(asked, uuid):
    assert asked(info.run_pools, uuid=uuid) == ["p"]


def test_volumes_are_found_by_their_paths(asked):
    assert asked(info.run_volumes, path="/p/v") == ["v"]
    assert asked(info.run_volumes, engine="libvirt", path="data/far") == ["far"]


def test_a_pool_that_the_system_does_not_let_us_look_at_hides_no_other(monkeypatch):
    """Be it for a filesystem that is full, or broken."""

    def observe(scope):
        if scope.pool.name == "bad":
            raise OSError(5, "Input/output error", "/bad")
        return FOUND

    fake = SimpleNamespace(name="native", uri="", why="", pool_names=lambda: ["bad", "p"], observe=observe)
    monkeypatch.setattr(info, "_engine", lambda module, known: fake)
    pools, volumes = Module(), Module()
    info.run_pools(pools)
    info.run_volumes(volumes)
    bad, good = pools.said["pools"]
    assert (bad["state"], bad["error"]["code"], bad["error"]["subject"]) == ("unknown", "not_readable", "/bad")
    assert (good["name"], good["state"]) == ("p", "active")
    assert [error["pool"] for error in volumes.said["errors"]] == ["bad"]
    assert {record["pool"] for record in volumes.said["volumes"]} == {"p"}
