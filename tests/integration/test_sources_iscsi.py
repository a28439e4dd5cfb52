# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""storage_pool_sources of iSCSI, with a real tgtd: natively and beside a real libvirtd.

Not proven here: iscsiadm, which needs the kernel's module; servers that want an account before they list.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from . import targets as user_space
from .calling import call
from .crash_support import done
from .targets import Targets, free_port

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root]

MIB = 2**20
ONE, TWO, GUARDED = "iqn.2026-01.test:one", "iqn.2026-01.test:two", "iqn.2026-01.test:guarded"
US = "iqn.2026-01.test:us"
WORD = "geheim, 100%!\\"


@pytest.fixture(params=["127.0.0.1", "::1"])
def targets(request, tmp_path):
    yield from served(tmp_path, request.param)


@pytest.fixture
def plain(tmp_path):
    yield from served(tmp_path, "127.0.0.1")


def served(directory: Path, host: str) -> Any:
    why = user_space.missing()
    if why:
        pytest.skip(why)
    made = Targets(directory, host)
    made.serve(ONE, {1: 8 * MIB, 4: MIB})
    made.serve(TWO, {})
    yield made
    made.close()


@pytest.fixture
def uri(tmp_path):
    return f"native:///?root={tmp_path}/root"


def look(kind: str, uri: str, check: bool = False, **params: Any) -> dict[str, Any]:
    return call("storage_pool_sources", check, type=kind, uri=uri, **params)


def asked(targets: Targets, kind: str, **more: Any) -> dict[str, Any]:
    initiator = {"initiator": US} if kind == "iscsi-direct" else {}
    return {"host": targets.address, **initiator, **more}


def listed(result: dict[str, Any]) -> dict[str, Any]:
    assert "failed" not in result, result
    assert result["changed"] is False
    return {record["source"]["iqn"]: record for record in result["sources"]}


KINDS = pytest.mark.parametrize("kind", ["iscsi", "iscsi-direct"])


@KINDS
def test_the_targets_of_a_server(targets, uri, kind):
    found = listed(look(kind, uri, source=asked(targets, kind)))
    assert set(found) == {ONE, TWO}
    assert found[ONE]["volumes"] == 2
    assert found[TWO]["volumes"] == 0
    assert found[ONE]["source"] == asked(targets, kind, iqn=ONE)
    assert all(record["free"] for record in found.values())


def test_a_record_is_a_source_as_it_stands(targets, host):
    found = listed(look("iscsi-direct", host.uri, source=asked(targets, "iscsi-direct")))
    done(host.pool(name="san", type="iscsi-direct", source=found[ONE]["source"]))
    assert [record["capacity"] for record in host.volume_info()] == [8 * MIB, MIB]
    again = listed(look("iscsi-direct", host.uri, source=asked(targets, "iscsi-direct")))
    assert again[ONE]["why_not"] == ["part of pool san already"]
    assert again[TWO]["free"]
    only = listed(look("iscsi-direct", host.uri, source=asked(targets, "iscsi-direct"), free=True))
    assert set(only) == {TWO}


def test_a_pool_at_another_port_is_another_one(plain, host):
    other = {"host": f"127.0.0.1:{free_port('127.0.0.1')}", "iqn": ONE, "initiator": US}
    done(host.pool(name="san", type="iscsi-direct", source=other, state="present"))
    assert listed(look("iscsi-direct", host.uri, source=asked(plain, "iscsi-direct")))[ONE]["free"]
    kernel = {"host": other["host"], "iqn": TWO}
    done(host.pool(name="kernel", type="iscsi", path="/dev/disk/by-path", source=kernel, state="present"))
    found = listed(look("iscsi", host.uri, source=asked(plain, "iscsi")))
    assert found[TWO]["why_not"] == ["part of pool kernel already"]  # by whatever way: no other pool of it


def test_only_one_of_them(plain, uri):
    assert set(listed(look("iscsi", uri, source=asked(plain, "iscsi", iqn=TWO)))) == {TWO}


@KINDS
def test_a_target_that_wants_a_password(plain, uri, kind):
    plain.serve(GUARDED, {1: 8 * MIB}, ("kvm1", WORD))
    found = listed(look(kind, uri, source=asked(plain, kind)))
    assert set(found) == {ONE, TWO, GUARDED}
    assert "volumes" not in found[GUARDED]
    account = {"username": "kvm1", "password": WORD}
    result = look(kind, uri, source=asked(plain, kind), **account)
    assert {name: record["volumes"] for name, record in listed(result).items()} == {ONE: 2, TWO: 0, GUARDED: 1}
    assert WORD not in repr({name: value for name, value in result.items() if name != "invocation"})


# -- waiting ------------------------------------------------------------------------------------------------------


@KINDS
def test_waiting_for_a_target(plain, uri, kind):
    timer = threading.Timer(2.0, lambda: plain.serve("iqn.2026-01.test:late", {1: MIB}))
    timer.start()
    result = look(kind, uri, wait_for=[asked(plain, kind, iqn="iqn.2026-01.test:late")], timeout=30)
    timer.join()
    assert "iqn.2026-01.test:late" in listed(result)
    assert result["missing"] == []


def test_waiting_for_a_server(tmp_path, uri):
    if user_space.missing():
        pytest.skip(user_space.missing())
    made = Targets(tmp_path)
    made.close()

    def serve() -> None:
        made.start()
        made.serve(ONE, {1: MIB})

    timer = threading.Timer(2.0, serve)
    timer.start()
    try:
        result = look("iscsi-direct", uri, wait_for=[asked(made, "iscsi-direct", iqn=ONE)], timeout=30)
        assert set(listed(result)) == {ONE}
    finally:
        timer.join()
        made.close()


def test_what_does_not_come(plain, uri):
    result = look("iscsi", uri, wait_for=[asked(plain, "iscsi", iqn="iqn.2026-01.test:no")], timeout=2)
    assert result["failed"]
    assert result["error"]["code"] == "source_missing"
    assert "iqn.2026-01.test:no at 127.0.0.1" in result["error"]["message"]
    assert result["missing"] == [{"source": asked(plain, "iscsi", iqn="iqn.2026-01.test:no"), "why": "it is not there"}]
    checked = look("iscsi", uri, check=True, wait_for=[asked(plain, "iscsi", iqn="iqn.2026-01.test:no")])
    assert "failed" not in checked
    assert checked["warnings"]


# -- who does not answer ------------------------------------------------------------------------------------------


@KINDS
def test_a_server_that_hangs_ends_inside_the_deadline(plain, uri, kind):
    os.kill(plain.pid, signal.SIGSTOP)
    began = time.monotonic()
    result = look(kind, uri, source=asked(plain, kind), timeout=3)
    assert time.monotonic() - began < 10
    assert result["error"]["code"] == "deadline"
    os.kill(plain.pid, signal.SIGCONT)


@KINDS
def test_nobody_listens(uri, kind):
    source = {"host": f"127.0.0.1:{free_port('127.0.0.1')}", "initiator": US}
    result = look(kind, uri, source=source)
    assert result["error"]["code"] == "source_missing"
    assert "Connection refused" in result["error"]["message"]


def test_one_dead_server_hides_no_other(plain, uri):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        dead = f"127.0.0.1:{silent.getsockname()[1]}"
        source = {"hosts": [plain.address, dead], "initiator": US}
        result = look("iscsi-direct", uri, source=source, timeout=3)
    assert set(listed(result)) == {ONE, TWO}
    (entry,) = result["unanswered"]
    assert (entry["host"], entry["code"]) == ("127.0.0.1", "deadline")
    assert [text for text in result["warnings"] if "not all was looked at" in text]


# -- with other tools ---------------------------------------------------------------------------------------------


@pytest.fixture
def without(tmp_path, monkeypatch):
    """No tools but these."""

    def only(**scripts: str) -> None:
        directory = tmp_path / "tools"
        directory.mkdir()
        for name, text in scripts.items():
            (directory / name).write_text(f"#!/bin/sh\n{text}\n")
            (directory / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(directory))

    return only


def test_without_any_tool(plain, uri, without):
    without()
    result = look("iscsi", uri, source=asked(plain, "iscsi"))
    assert result["error"]["code"] == "tool_missing"
    assert "libiscsi-bin" in result["error"]["hint"]


def test_the_tool_of_the_kernel_keeps_nothing(plain, uri, without, tmp_path):
    """A stand-in that prints what iscsiadm does: the real one needs the kernel's module."""
    log = tmp_path / "log"
    without(iscsiadm=f'echo "$*" > {log}; echo "{plain.address},1 {ONE}"; echo "[fe80::1]:3260,2 {TWO}"')
    assert set(listed(look("iscsi", uri, source=asked(plain, "iscsi")))) == {ONE, TWO}
    assert log.read_text().split() == [
        "-m", "discovery", "-t", "sendtargets", "-p", plain.address, "-o", "nonpersistent", "-I", "default",
    ]  # fmt: skip


def test_it_is_not_asked_in_another_name(plain, uri, without):
    without(iscsiadm="exit 1")
    result = look("iscsi", uri, source=asked(plain, "iscsi", initiator=US))
    assert result["error"]["code"] == "tool_missing"


@pytest.mark.parametrize(
    ("kind", "params", "code"),
    [
        ("iscsi", {}, "missing_option"),
        ("iscsi-direct", {"source": {"host": "a"}}, "missing_option"),
        ("iscsi", {"wait_for": [{"host": "a"}]}, "missing_option"),
        ("iscsi", {"source": {"host": "a", "dir": "/x"}}, "invalid_option"),
        ("iscsi", {"source": {"host": "a"}, "username": "u"}, "missing_option"),
        ("iscsi", {"wait_for": [{"host": "a", "iqn": "x", "initiator": n} for n in "yz"]}, "invalid_option"),
        ("netfs", {"source": {"host": "a:1"}}, "invalid_option"),
    ],
    ids=["host", "initiator", "target", "dir", "password", "initiators", "port"],
)
def test_what_is_refused(uri, kind, params, code):
    assert look(kind, uri, **params)["error"]["code"] == code


# -- beside a daemon ----------------------------------------------------------------------------------------------


@pytest.mark.libvirt_binding
@pytest.mark.xdist_group("daemon")
@KINDS
def test_beside_a_daemon(daemon, plain, kind):
    assert set(listed(look(kind, daemon.uri, source=asked(plain, kind)))) == {ONE, TWO}
