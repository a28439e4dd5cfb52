# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools of iSCSI targets that the host is not logged in to, by the tools of libiscsi, on the kernel's own server (LIO).
What is the same with every server is tested on one in user space: tests/integration/test_iscsi_direct.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.calling import call
from tests.integration.disk_scenarios import MIB, converges, ok

from .hosts import Host
from .iscsi_target import Target, asked_by_account
from .test_units import sizes

IQN, US = "iqn.2026-01.lab.test:direct", "iqn.2026-01.lab.test:us"
UNITS = {0: 64 * MIB, 3: 5000704}  # the second one is no whole number of anything but sectors
SECRET = "secretsecret1"
AUTH = {"type": "chap", "username": "kvm1", "secret": SECRET}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = Target(IQN, tmp_path)
    for lun, size in UNITS.items():
        made.serve(lun, size)
    made.up()
    yield made
    made.end()


def pool_of(**more: Any) -> dict[str, Any]:
    source = {"host": "127.0.0.1", "iqn": IQN, "initiator": US, **more.pop("source", {})}
    return {"name": "san", "type": "iscsi-direct", "source": source, **more}


def error_of(result: dict[str, Any]) -> str:
    assert result.get("failed"), result
    return str(result["error"]["code"])


def offered(host: Host, **account: str) -> dict[str, Any]:
    source = {"host": "127.0.0.1", "initiator": US}
    return call("storage_pool_sources", type="iscsi-direct", uri=host.uri, source=source, **account)


def test_the_units_to_the_byte(host: Host, target: Target) -> None:
    (found,) = offered(host)["sources"]
    assert found["source"]["iqn"] == IQN
    converges(host.pool, **pool_of())
    (record,) = host.pool_info(name="san")
    assert (record["state"], record["capacity"]) == ("active", sum(UNITS.values()))
    assert sizes(host, "san") == {f"unit:0:0:{lun}": size for lun, size in UNITS.items()}
    assert {path.stat().st_size for path in map(target.file, UNITS)} == set(UNITS.values())
    assert not os.path.exists("/sys/class/iscsi_session") or os.listdir("/sys/class/iscsi_session") == []
    target.serve(4, 8 * MIB + 512)
    assert not ok(host.volume(pool="san", name="unit:0:0:4", capacity=str(8 * MIB + 512)))["changed"]
    converges(host.pool, name="san", state="absent")


def test_with_a_password(host: Host, target: Target) -> None:
    target.demand("kvm1", SECRET)
    assert error_of(host.pool(**pool_of())) == "login_refused"
    assert error_of(host.pool(**pool_of(source={"auth": {**AUTH, "secret": "wrongwrongwr"}}))) == "login_refused"
    assert SECRET not in str(converges(host.pool, **pool_of(source={"auth": AUTH})))
    assert sizes(host, "san")["unit:0:0:3"] == UNITS[3]
    ok(host.pool(name="san", state="absent"))


def test_a_portal_that_tells_only_who_knows_the_password(host: Host, target: Target) -> None:
    target.demand("kvm1", SECRET)
    with asked_by_account("kvm1", SECRET):
        assert error_of(offered(host)) == "login_refused"
        (found,) = offered(host, username="kvm1", password=SECRET)["sources"]
        assert found["source"]["iqn"] == IQN
        converges(host.pool, **pool_of(source={"auth": AUTH}))
        assert sizes(host, "san") == {f"unit:0:0:{lun}": size for lun, size in UNITS.items()}
        ok(host.pool(name="san", state="absent"))
