# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a new type costs: a type whose units others serve works natively with a backend that only looks. That nothing of
it can be made, changed or deleted is in its row, and is refused without a word in the backend.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines import local, native
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    READY,
    Found,
    Part,
    Problem,
    Storage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.operations import Step, WriteFile
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume

pytestmark = pytest.mark.needs_ansible

ADAPTER = "scsi_host7"
MIB = 2**20


class Units:
    """A backend of the type scsi: each file of ``root`` is a unit of the adapter that the directory stands for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def serve(self, *names: str) -> None:
        self.root.mkdir(exist_ok=True)
        for name in names:
            (self.root / name).write_bytes(bytes(MIB))

    def observe(self, pool: Any, look: Any, holds: bool) -> Storage:
        there, what = self.root.is_dir(), f"the host adapter {pool.source.adapter.name}"
        problem = None if there else Problem("source_missing", f"{what} is not there", "Name one that is there.")
        part = Part("adapter", what, READY if there else ABSENT, problem=problem)
        return Storage(part.kind, pool.path, parts=(part,), up=there)

    def observe_volumes(self, found: Found, scope: Any, look: Any) -> Found:
        units = [file for file in sorted(self.root.iterdir()) if scope.volumes is None or file.name in scope.volumes]
        volumes = [Volume(f.name, type="block", path=str(f), capacity=f.stat().st_size) for f in units]
        return replace(found, volumes={volume.name: volume for volume in volumes})

    def busy(self, pool: Any, storage: Any, look: Any) -> Any:
        return (), ()

    def lower(self, change: Any, found: Any, notes: Any) -> list:
        return []

    def lower_volumes(self, changes: Any, found: Any, instead: Any) -> list:
        """Those that are looked for are there by then."""
        return [Step(tuple(map(self.looked_for, change.wanted)), change) for change in changes]

    def looked_for(self, unit: Any) -> WriteFile:
        return WriteFile(str(self.root / unit.name), "\0" * (unit.capacity or MIB))


@pytest.fixture
def units(tmp_path, monkeypatch):
    made = Units(tmp_path / "units")
    for module in (local, native):
        monkeypatch.setattr(module, "backend_of", lambda name: made if name == "scsi" else None)
    return made


POOL = {"name": "units", "type": "scsi", "path": "/dev", "source": {"adapter": {"type": "scsi_host", "name": ADAPTER}}}


def code(result):
    assert not result["changed"]
    assert result["error"]["hint"]
    return result["error"]["code"]


@pytest.fixture
def pool(host, units):
    units.serve("unit:0:0:0", "unit:0:0:1")
    assert host.pool(**POOL)["changed"]
    return host


def test_what_others_serve_is_started_and_stopped(host, units):
    assert host.pool(check=True, **POOL)["warnings"]
    assert code(host.pool(**POOL)) == "source_missing"
    units.serve("unit:0:0:0")
    done = host.pool(**POOL)
    assert [change["action"] for change in done["plan"]] == ["define", "start"]
    assert not host.pool(**POOL)["changed"]
    assert [each["name"] for each in host.volume_info(pool="units")] == ["unit:0:0:0"]
    assert host.pool(name="units", state="absent")["changed"]
    assert not host.pool(name="units", state="absent")["changed"]
    assert [file.name for file in units.root.iterdir()] == ["unit:0:0:0"]


def test_what_is_declared_as_it_is_is_met(pool):
    assert not pool.volume(pool="units", name="unit:0:0:0", capacity="1MiB")["changed"]
    assert not pool.volume(pool="units", name="unit:0:0:9", state="absent")["changed"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    "declared",
    [
        {"name": "other", "capacity": "1MiB"},
        {"name": "unit:0:0:0", "capacity": "512KiB", "allow": ["shrink"]},
        {"name": "unit:0:0:0", "state": "absent"},
        {"name": "unit:0:0:0", "recreate": "always"},
        {"volumes": [{"name": "unit:0:0:0"}], "exclusive": "*"},
    ],
)
def test_nothing_is_done_with_its_volumes(pool, units, declared, check):
    refused = pool.volume(check=check, pool="units", **declared)
    assert code(refused) == "not_supported"
    assert refused["error"]["hint"] == POOL_TYPES["scsi"].elsewhere
    assert [file.stat().st_size for file in units.root.iterdir()] == [MIB, MIB]


@pytest.mark.parametrize("declared", [{"name": "unit:0:0:5"}, {"name": "unit:0:0:0", "capacity": "2MiB"}])
def test_one_that_is_not_as_declared_is_looked_for(pool, units, declared):
    planned = pool.volume(check=True, pool="units", **declared)
    assert len(list(units.root.iterdir())) == 2
    done = pool.volume(pool="units", **declared)
    assert [change["action"] for change in done["plan"]] == ["refresh"]
    assert (done["plan"], done["diff"], done["warnings"]) == (planned["plan"], planned["diff"], [])
    assert done["volumes"][0]["state"] == "present"
    assert not pool.volume(pool="units", **declared)["changed"]


@pytest.mark.parametrize("check", [True, False])
def test_it_is_not_deleted(pool, units, check):
    assert code(pool.pool(check=check, **POOL, state="deleted", allow=["nonempty"])) == "not_supported"
    assert len(list(units.root.iterdir())) == 2
