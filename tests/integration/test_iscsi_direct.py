# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools of iSCSI targets without the kernel, natively, on a real tgtd; a real libvirtd as the judge."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from . import targets as user_space
from .crash_support import done, unchanged
from .targets import Targets

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root]

MIB = 2**20
ONE, TWO, GUARDED = "iqn.2026-01.test:one", "iqn.2026-01.test:two", "iqn.2026-01.test:guarded"
US = "iqn.2026-01.test:us"
WORD = "geheim, 100%!\\"
UNITS = {1: 8 * MIB, 2: 5000704, 7: 16 * MIB + 512}


@pytest.fixture
def targets(tmp_path):
    why = user_space.missing()
    if why:
        pytest.skip(why)
    made = Targets(tmp_path)
    made.serve(ONE, UNITS)
    yield made
    made.close()


def pool_on(targets: Targets, iqn: str = ONE, **more: Any) -> dict[str, Any]:
    auth = more.pop("auth", None)
    source = {"host": targets.address, "iqn": iqn, "initiator": US, **({"auth": auth} if auth else {})}
    return {"name": "san", "type": "iscsi-direct", "source": source, **more}


def chap(secret: str | None = WORD) -> dict[str, Any]:
    return {"type": "chap", "username": "kvm1", "secret": secret}


def converges(act: Any, **params: Any) -> dict[str, Any]:
    checked = act(check=True, **params)
    made = done(act(**params))
    assert (checked["plan"], checked["diff"], checked["changed"]) == (made["plan"], made["diff"], True)
    unchanged(act(**params))
    unchanged(act(check=True, **params))
    return made


def refused(act: Any, code: str, **params: Any) -> dict[str, Any]:
    """By check mode and by the real run alike."""
    for check in (True, False):
        result = act(check=check, **params)
        assert result.get("failed"), result
        assert result["error"]["code"] == code, result["msg"]
        assert result["error"]["hint"]
        assert result["changed"] is False
    return result


def missing(act: Any, code: str, **params: Any) -> dict[str, Any]:
    """A warning in check mode, and an error of the real run, which changes nothing."""
    checked = act(check=True, **params)
    assert "failed" not in checked, checked
    assert [text for text in checked["warnings"] if "planned as if" in text]
    result = act(**params)
    assert result["error"]["code"] == code, result["msg"]
    assert result["changed"] is False
    return result


def actions(result: dict[str, Any]) -> list[str]:
    return [entry["action"] for entry in result["plan"]]


# -- states -------------------------------------------------------------------------------------------------------


def test_its_states(host, targets):
    assert actions(converges(host.pool, **pool_on(targets))) == ["define", "start"]
    (record,) = host.pool_info()
    total = sum(UNITS.values())
    assert (record["state"], record["capacity"], record["allocation"], record["available"]) == (
        "active",
        total,
        total,
        0,
    )
    assert record["path"] is None
    assert actions(converges(host.pool, **pool_on(targets, state="inactive"))) == ["stop"]
    assert host.pool_info()[0]["state"] == "inactive"
    assert actions(converges(host.pool, **pool_on(targets))) == ["start"]
    assert actions(converges(host.pool, name="san", state="absent")) == ["stop", "undefine"]
    assert host.pool_info() == []


def test_what_exists_is_started_by_name(host, targets):
    done(host.pool(**pool_on(targets, state="present")))
    assert actions(converges(host.pool, name="san", state="active")) == ["start"]


def test_the_units_are_the_volumes_to_the_byte(host, targets):
    done(host.pool(**pool_on(targets)))
    found = {record["name"]: record for record in host.volume_info()}
    assert {name: record["capacity"] for name, record in found.items()} == {
        f"unit:0:0:{number}": size for number, size in UNITS.items()
    }
    record = found["unit:0:0:7"]
    assert record["path"] == record["key"] == f"ip-{targets.address}-iscsi-{ONE}-lun-7"
    assert (record["type"], record["allocation"], record["physical"]) == ("network", UNITS[7], UNITS[7])
    (one,) = host.volume_info(name="unit:0:0:2")
    assert one["capacity"] == UNITS[2]
    assert host.volume_info(name="unit:0:0:0") == []  # the target's controller is no disk
    assert "problem" not in record


def test_units_are_only_listed(host, targets):
    done(host.pool(**pool_on(targets)))
    volume = {"pool": "san", "name": "unit:0:0:1"}
    unchanged(host.volume(**volume))
    unchanged(host.volume(**volume, capacity="8MiB"))
    unchanged(host.volume(**volume, capacity="4MiB", capacity_policy="at_least"))
    refused(host.volume, "not_supported", **volume, state="absent")
    refused(host.volume, "not_supported", pool="san", name="another", capacity="1MiB")
    refused(host.volume, "not_supported", **volume, capacity="4MiB")
    refused(host.pool, "not_supported", **pool_on(targets, state="deleted"))


def test_new_and_grown_units(host, targets):
    done(host.pool(**pool_on(targets)))
    params = {"pool": "san", "name": "unit:0:0:9", "capacity": "4MiB"}
    planned = host.volume(check=True, **params)
    assert actions(planned) == ["refresh"]
    failed = host.volume(**params)
    assert failed["error"]["code"] == "source_missing"
    assert failed["changed"] is False
    targets.add(ONE, 9, 4 * MIB)
    unchanged(host.volume(**params))
    targets.remove(ONE, 9)
    targets.add(ONE, 9, 6 * MIB)
    unchanged(host.volume(**{**params, "capacity": "6MiB"}))
    targets.remove(ONE, 9)
    assert host.volume_info(name="unit:0:0:9") == []


def test_autostart_and_a_boot(host, targets):
    done(host.pool(**pool_on(targets, autostart=True)))
    shutil.rmtree(Path(host.root) / "run")  # what a boot leaves of it
    assert host.pool_info()[0]["state"] == "inactive"
    assert actions(converges(host.pool, name="san")) == ["start"]


# -- logging in ---------------------------------------------------------------------------------------------------


def test_chap(host, targets, tmp_path):
    targets.serve(GUARDED, {1: 8 * MIB}, ("kvm1", WORD))
    result = refused(host.pool, "login_refused", **pool_on(targets, GUARDED))
    assert "513" in result["msg"]
    assert refused(host.pool, "login_refused", **pool_on(targets, GUARDED, auth=chap("wrong word 12")))
    made = converges(host.pool, **pool_on(targets, GUARDED, auth=chap()))
    assert actions(made) == ["define", "secret", "start"]
    assert WORD not in repr({name: value for name, value in made.items() if name != "invocation"})
    assert [record["capacity"] for record in host.volume_info()] == [8 * MIB]


def test_the_kept_secret_starts_it_later(host, targets):
    """As at boot, where nobody says it again."""
    targets.serve(GUARDED, {1: 8 * MIB}, ("kvm1", WORD))
    done(host.pool(**pool_on(targets, GUARDED, auth=chap())))
    done(host.pool(name="san", state="inactive"))
    assert actions(converges(host.pool, name="san")) == ["start"]
    for path in (Path(host.root) / "etc/libvirt/secrets").iterdir():
        path.unlink()
    done(host.pool(name="san", state="inactive"))
    refused(host.pool, "secret_missing", name="san")
    done(host.pool(**pool_on(targets, GUARDED, auth=chap())))


def test_what_starts_pools_at_boot_reads_the_secret(host, targets):
    from ansible_collections.virt.storage.plugins.module_utils.tasks.boot import main

    targets.serve(GUARDED, {1: 8 * MIB}, ("kvm1", WORD))
    done(host.pool(**pool_on(targets, GUARDED, auth=chap(), autostart=True, state="inactive")))
    assert main([host.uri]) == 0
    assert host.pool_info()[0]["state"] == "active"


def test_another_target_that_refuses_hides_none(host, targets):
    """tgtd lists the newest first: the tool stops there."""
    targets.serve(GUARDED, {1: 8 * MIB}, ("kvm1", WORD))
    done(host.pool(**pool_on(targets)))
    assert {record["name"]: record["capacity"] for record in host.volume_info()} == {
        f"unit:0:0:{number}": size for number, size in UNITS.items()
    }


def test_no_argument_has_the_password(host, targets, tmp_path, monkeypatch):
    """What each tool was started with, and what its environment was."""
    targets.serve(GUARDED, {1: 8 * MIB}, ("kvm1", WORD))
    log = tmp_path / "log"
    for tool in ("iscsi-ls", "iscsi-readcapacity16", "iscsi-inq"):
        real, wrapper = shutil.which(tool), tmp_path / "bin" / tool
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$0 $*" "$LIBISCSI_CHAP_USERNAME" >> {log}\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    done(host.pool(**pool_on(targets, GUARDED, auth=chap())))
    said = log.read_text()
    assert "iscsi-ls" in said
    assert "iscsi-readcapacity16" in said
    assert "kvm1" in said
    assert WORD not in said


# -- what is not there --------------------------------------------------------------------------------------------


def test_no_such_target(host, targets):
    missing(host.pool, "source_missing", **pool_on(targets, TWO))


def test_nobody_serves_there(host, targets):
    pool = pool_on(targets)
    pool["source"]["host"] = "127.0.0.1:9"
    missing(host.pool, "source_missing", **pool)
    done(host.pool(**pool, state="present"))
    done(host.pool(name="san", state="absent"))


@pytest.mark.thorough
def test_a_server_that_does_not_answer(host, targets):
    done(host.pool(**pool_on(targets)))
    os.kill(targets.pid, signal.SIGSTOP)
    began = time.monotonic()
    (record,) = host.pool_info(timeout=3)
    assert time.monotonic() - began < 10
    assert (record["state"], record["error"]["code"]) == ("unknown", "deadline")
    done(host.pool(name="san", state="inactive", timeout=3))
    os.kill(targets.pid, signal.SIGCONT)
    done(host.pool(name="san"))


@pytest.mark.thorough
def test_a_port_that_listens_and_is_silent(host, targets):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        pool = pool_on(targets)
        pool["source"]["host"] = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        refused(host.pool, "deadline", **pool, timeout=3)
        assert time.monotonic() - began < 20


def test_a_server_that_goes_away_and_comes_back(host, targets):
    done(host.pool(**pool_on(targets)))
    targets.remove(ONE, 1)
    assert [record["name"] for record in host.volume_info()] == ["unit:0:0:2", "unit:0:0:7"]
    targets.close()
    (record,) = host.pool_info()
    assert record["state"] == "inactive"
    missing(host.pool, "source_missing", name="san")
    targets.start()
    targets.serve(ONE, UNITS)
    assert host.pool_info()[0]["state"] == "active"
    unchanged(host.pool(name="san"))


def test_without_the_tools(host, targets, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    bare.mkdir()
    monkeypatch.setenv("PATH", str(bare))
    result = missing(host.pool, "tool_missing", **pool_on(targets))
    assert "libiscsi-bin on Debian and Ubuntu" in result["error"]["hint"]


@pytest.mark.parametrize(
    "source",
    [
        {"hosts": ["127.0.0.1", "127.0.0.2"], "iqn": ONE, "initiator": US},
        {"host": "127.0.0.1", "devices": [ONE, TWO], "initiator": US},
    ],
    ids=["hosts", "targets"],
)
def test_what_can_not_be_asked(host, source):
    refused(host.pool, "not_supported", name="san", type="iscsi-direct", source=source)


@pytest.mark.parametrize("kind", ["iscsi", "iscsi-direct"])
@pytest.mark.parametrize(
    "named", [{"iqn": "iqn.2026-01.test:a/b"}, {"iqn": "iqn.2026-01.test:a   b"}, {"initiator": "a b"}]
)
def test_names_that_are_none(host, kind, named):
    source = {"host": "127.0.0.1", "iqn": ONE, "initiator": US, **named}
    refused(host.pool, "invalid_option", name="san", type=kind, source=source, state="present")


def test_without_an_initiator(host):
    source = {"host": "127.0.0.1", "iqn": ONE}
    refused(host.pool, "missing_option", name="san", type="iscsi-direct", source=source)


def test_over_ipv6(host, tmp_path):
    why = user_space.missing()
    if why:
        pytest.skip(why)
    server = Targets(tmp_path, "::1")
    try:
        server.serve(ONE, {1: 8 * MIB})
        done(host.pool(**pool_on(server)))
        (record,) = host.volume_info()
        assert record["path"] == f"ip-[::1]:{server.port}-iscsi-{ONE}-lun-1"
    finally:
        server.close()


# -- with a daemon ----------------------------------------------------------------------------------------------


@pytest.mark.libvirt_binding
@pytest.mark.xdist_group("daemon")
def test_a_daemon_sees_the_same_but_for_its_known_faults(daemon, native_host, targets):
    """It is one block short, and lists what is no disk."""
    daemon.stop()
    targets.serve(GUARDED, {1: 8 * MIB, 3: 4 * MIB}, ("kvm1", WORD))
    done(native_host.pool(**pool_on(targets, GUARDED, auth=chap())))
    ours = {record["name"]: record for record in native_host.volume_info()}
    daemon.start()
    assert "san" in daemon.pools()
    lines = [line.split(None, 1) for line in daemon.virsh("vol-list", "san").splitlines() if line.strip()]
    theirs = {name: path.strip() for name, path in lines}
    assert {name: record["path"] for name, record in ours.items()} == {
        name: path for name, path in theirs.items() if name != "unit:0:0:0"
    }
    assert "unit:0:0:0" in theirs
    for name, record in ours.items():
        text = daemon.virsh("vol-dumpxml", "--pool", "san", name)
        size = re.search(r"<capacity unit='bytes'>(\d+)<", text)
        assert size is not None
        assert int(size[1]) == record["capacity"] - 512


@pytest.mark.libvirt_binding
@pytest.mark.xdist_group("daemon")
def test_a_daemon_logs_in_with_the_secret_that_is_declared(daemon_host, targets):
    targets.serve(GUARDED, {1: 8 * MIB}, ("kvm1", WORD))
    pool = pool_on(targets, GUARDED, name=daemon_host.name, auth=chap())
    assert actions(converges(daemon_host.pool, **pool)) == ["define", "secret", "start"]
    assert "unit:0:0:1" in daemon_host.daemon.virsh("vol-list", daemon_host.name)
    assert WORD not in daemon_host.daemon.log.read_text(errors="replace")
    other = pool_on(targets, GUARDED, name=daemon_host.name, auth=chap("another word"), state="inactive")
    assert actions(done(daemon_host.pool(**other))) == ["stop", "secret"]
    failed = daemon_host.pool(name=daemon_host.name)
    assert failed["error"]["code"] == "daemon_failed"
    gone = done(daemon_host.pool(name=daemon_host.name, state="absent"))
    assert "remove its secret" in gone["plan"][-1]["summary"]
    assert daemon_host.daemon.secrets() == []


@pytest.mark.libvirt_binding
@pytest.mark.xdist_group("daemon")
def test_a_unit_that_a_daemon_does_not_list_yet(daemon_host, targets):
    done(daemon_host.pool(**pool_on(targets, name=daemon_host.name)))
    targets.add(ONE, 9, 4 * MIB)
    wanted = {"name": "unit:0:0:9"}
    assert actions(converges(daemon_host.volume, **wanted)) == ["refresh"]
