# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Targets of the kernel's own server (LIO), asked for with the tools of libiscsi, and with iscsiadm where these are
missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.calling import call

from .hosts import own_address, run, sh
from .iscsi_target import asked_by_account

NAMES = [f"iqn.2026-01.lab.example:{name}" for name in ("one", "two")]
RECORDS = ("/etc/iscsi", "/var/lib/iscsi")


@pytest.fixture(scope="module", autouse=True)
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory = tmp_path_factory.mktemp("units")
    words = [f"/backstores/fileio create unit {directory}/unit 64M", *(f"/iscsi create {name}" for name in NAMES)]
    words.append(f"/iscsi/{NAMES[0]}/tpg1/luns create /backstores/fileio/unit")
    run("targetcli", text="\n".join([*words, "exit", ""]))
    sh("systemctl start iscsid")
    yield
    sh("targetcli clearconfig confirm=True; systemctl stop iscsid iscsid.socket")


@pytest.fixture
def kernels_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host without libiscsi's, which are in /usr/bin."""
    monkeypatch.setenv("PATH", "/usr/sbin")


@pytest.fixture(params=["iscsi-ls", "iscsiadm"])
def tool(request: pytest.FixtureRequest) -> str:
    if request.param == "iscsiadm":
        request.getfixturevalue("kernels_tool")
    return str(request.param)


def kept() -> list[str]:
    return sorted(str(path) for top in RECORDS for path in Path(top).rglob("*"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:3260", "own"])
def test_the_targets_of_a_server(tmp_path: Path, host: str, tool: str) -> None:
    before = kept()
    address = own_address() if host == "own" else host
    result = call("storage_pool_sources", type="iscsi", uri=f"native:///?root={tmp_path}", source={"host": address})
    assert "failed" not in result, result
    assert sorted(record["source"]["iqn"] for record in result["sources"]) == NAMES
    assert {record["source"]["host"] for record in result["sources"]} == {address}
    assert kept() == before
    assert run("iscsiadm", "-m", "discoverydb", check=False).strip() == ""
    assert run("iscsiadm", "-m", "session", check=False).strip() == ""


def test_waiting_for_one(tmp_path: Path) -> None:
    wanted = {"host": "127.0.0.1", "iqn": NAMES[1]}
    result = call("storage_pool_sources", type="iscsi", uri=f"native:///?root={tmp_path}", wait_for=[wanted])
    assert result["missing"] == []


def test_nobody_listens_there(tmp_path: Path) -> None:
    source = {"host": "127.0.0.1:9"}
    result = call("storage_pool_sources", type="iscsi", uri=f"native:///?root={tmp_path}", source=source, timeout=10)
    assert result["error"]["code"] == "source_missing"


def test_what_takes_other_tools_says_so(tmp_path: Path, kernels_tool: None) -> None:
    source = {"host": "127.0.0.1", "initiator": "iqn.2026-01.lab.example:us"}
    result = call("storage_pool_sources", type="iscsi-direct", uri=f"native:///?root={tmp_path}", source=source)
    assert result["error"]["code"] == "tool_missing"


def test_a_server_that_tells_only_who_knows_the_password(tmp_path: Path) -> None:
    account = {"username": "us", "password": "geheimgeheim"}
    asking = {"type": "iscsi", "uri": f"native:///?root={tmp_path}", "source": {"host": "127.0.0.1"}}
    with asked_by_account("us", "geheimgeheim"):
        assert call("storage_pool_sources", **asking)["error"]["code"] == "login_refused"
        told = call("storage_pool_sources", **asking, **account)
        assert sorted(record["source"]["iqn"] for record in told["sources"]) == NAMES
        account["password"] = "anotheranother"
        assert call("storage_pool_sources", **asking, **account)["error"]["code"] == "login_refused"
