# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools of iSCSI targets, logged in to by the guest's kernel; the guest's daemon on the same target as the oracle."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.disk_scenarios import MIB, converges, ok, refuses

from .hosts import Host, run, sh
from .iscsi_target import Target, asked_by_account
from .test_units import run_by_virsh, sizes, told_by_us, told_by_virsh, virsh, xml_of_pool

IQN, OTHER = "iqn.2026-01.lab.test:disks", "iqn.2026-01.lab.test:others"
INITIATOR = "iqn.2026-01.lab.test:guests"
BY_PATH = "/dev/disk/by-path"
NODES, IFACES = Path("/etc/iscsi/nodes"), Path("/etc/iscsi/ifaces")
SECRET, BACK = "secretsecret1", "backbackback1"
PATIENCE = 300  # seconds: a guest without hardware virtualisation on a busy machine is no measure


def records() -> list[str]:
    """What open-iscsi has in its database."""
    found = [*NODES.glob("*/*/*"), *IFACES.glob("*")]
    return sorted(path.name for path in found if path.name != "iface.example")


def sessions() -> list[str]:
    return re.findall(r"\] (\S+),\d+ (iqn\S+)", run("iscsiadm", "-m", "session", check=False))


@pytest.fixture(scope="module", autouse=True)
def initiator() -> Iterator[None]:
    sh("systemctl start iscsid")
    yield
    sh("systemctl stop iscsid.service iscsid.socket")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = records()
    yield
    run("iscsiadm", "-m", "session", "--logout", check=False)
    left = records()
    for each in [*NODES.glob("*/*/*")]:
        run("iscsiadm", "-m", "node", "-T", each.parent.parent.name, "-o", "delete", check=False)
    assert left == before


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """One with two units of 64 MiB, at two portals."""
    made = Target(IQN, tmp_path, "127.0.0.1:3260", "127.0.0.2:3260")
    for lun in (0, 1):
        made.serve(lun, grows=lun == 1)
    made.up()
    yield made
    run("iscsiadm", "-m", "session", "--logout", check=False)
    made.end()


def pool_of(iqn: str = IQN, name: str = "san", **more: Any) -> dict[str, Any]:
    """``source``: more of that."""
    source = {"host": "127.0.0.1", "iqn": iqn, **more.pop("source", {})}
    if "hosts" in source:
        del source["host"]
    return {"name": name, "type": "iscsi", "source": source, **more}


def path_of(lun: int, iqn: str = IQN) -> str:
    return f"{BY_PATH}/ip-127.0.0.1:3260-iscsi-{iqn}-lun-{lun}"


def forgotten(host: Host, name: str = "san") -> None:
    ok(host.pool(name=name, state="absent", allow=["stop_adopted"]))


class Patient(Host):
    def _declaration(self, params: dict[str, Any]) -> dict[str, Any]:
        return super()._declaration({"timeout": PATIENCE, **params})


@pytest.fixture
def host(host: Host) -> Host:
    return Patient(host.uri)


@pytest.fixture
def system_host(system_host: Host) -> Host:
    return Patient(system_host.uri, allow=["beside_daemon"])


# -- states -----------------------------------------------------------------------------------------------------------


def test_started_stopped_and_undefined(host: Host, target: Target) -> None:
    made = converges(host.pool, **pool_of())
    assert [change["action"] for change in made["plan"]] == ["define", "start"]
    (record,) = host.pool_info(name="san")
    assert (record["state"], record["capacity"], record["available"]) == ("active", 128 * MIB, 0)
    assert record["path"] == BY_PATH
    volumes = {each["name"]: each["path"] for each in host.volume_info(pool="san")}
    assert volumes == {f"unit:0:0:{lun}": path_of(lun) for lun in (0, 1)}
    assert all(os.path.exists(path) for path in volumes.values())
    assert sessions() == [("127.0.0.1:3260", IQN)]
    converges(host.pool, name="san", state="inactive")
    assert (sessions(), host.volume_info(pool="san")) == ([], [])
    converges(host.pool, name="san", state="active")
    refuses(host.pool, "not_supported", **pool_of(state="deleted", allow=["nonempty"]))
    converges(host.pool, name="san", state="absent")
    assert sessions() == []


def test_what_is_refused(host: Host, target: Target) -> None:
    refuses(host.pool, "invalid_path", **pool_of(path="/srv"))
    ok(host.pool(**pool_of()))
    refuses(host.pool, "source_conflict", **pool_of(name="again", source={"host": "127.0.0.2"}))
    unit = {"pool": "san", "name": "unit:0:0:0"}
    assert not ok(host.volume(**unit, capacity="64MiB"))["changed"]
    for declared in ({"state": "absent"}, {"capacity": "32MiB", "allow": ["shrink"]}, {"recreate": "always"}):
        assert "where the target is" in refuses(host.volume, "not_supported", **unit, **declared)["hint"]
    refuses(host.volume, "not_supported", pool="san", name="other", capacity="1MiB")
    forgotten(host)


def test_what_a_portal_does_not_offer(host: Host, target: Target) -> None:
    gone = host.pool(**pool_of(OTHER))
    assert (gone["error"]["code"], IQN in gone["error"]["message"]) == ("source_missing", True)
    assert records() == []
    assert ok(host.pool(check=True, **pool_of(OTHER)))["changed"]
    silent = socket.create_server(("127.0.0.1", 3261))  # it is connected to, and says nothing
    try:
        ok(host.pool(name="san", state="absent"))
        for where, expected in (("127.0.0.1:3261", "deadline"), ("127.0.0.1:3262", "operation_failed")):
            started = time.monotonic()
            dead = host.pool(**pool_of(source={"host": where}), timeout=5)
            assert dead["error"]["code"] == expected, dead
            assert time.monotonic() - started < 20
            ok(host.pool(**pool_of(OTHER, name="other"), state="present"))
            assert {each["name"] for each in host.pool_info()} == {"san", "other"}
            ok(host.pool(name="san", state="absent"))
            ok(host.pool(name="other", state="absent"))
    finally:
        silent.close()
    assert sessions() == []


# -- adopted ----------------------------------------------------------------------------------------------------------


def by_hand(*portals: str) -> None:
    for portal in portals or ("127.0.0.1",):
        sh(f"""iscsiadm -m node -T {IQN} -p {portal}:3260,1 -o new
            iscsiadm -m node -T {IQN} -p {portal}:3260,1 -o update -n node.startup -v automatic
            iscsiadm -m node -T {IQN} -p {portal}:3260,1 --login""")


def test_what_is_logged_in_is_adopted_and_released(host: Host, target: Target) -> None:
    by_hand()
    had = records()
    made = converges(host.pool, **pool_of())
    assert "already" in made["plan"][1]["summary"]
    assert len(host.volume_info(pool="san")) == 2
    converges(host.pool, name="san", state="inactive")
    assert len(sessions()) == 1
    ok(host.pool(**pool_of()))
    converges(host.pool, name="san", state="absent", allow=["stop_adopted"])
    assert (sessions(), records()) == ([], had)
    run("iscsiadm", "-m", "node", "-T", IQN, "-o", "delete")


def test_who_starts_it_at_boot(host: Host, target: Target) -> None:
    by_hand()
    made = converges(host.pool, **pool_of(autostart=True))
    assert "comes_back" not in str(made["diff"])
    left = converges(host.pool, name="san", autostart=False)
    assert "node.startup -v manual" in str(left["plan"])
    (record,) = NODES.glob("*/*/default")
    assert "node.startup = manual" in record.read_text()
    forgotten(host)
    run("iscsiadm", "-m", "node", "-T", IQN, "-o", "delete")


def test_not_while_it_is_used(host: Host, target: Target, tmp_path: Path) -> None:
    ok(host.pool(**pool_of()))
    point = tmp_path / "mnt"
    point.mkdir()
    sh(f"mkfs.ext4 -q {path_of(1)}; mount {path_of(1)} {point}")
    try:
        for state in ("inactive", "absent"):
            refuses(host.pool, "volume_in_use", name="san", state=state)
    finally:
        run("umount", str(point))
    sh(f"wipefs -qa {path_of(1)}; vgcreate -q vg-san {path_of(0)}; lvcreate -qq -y -n lv -L 8M vg-san")
    try:
        refuses(host.pool, "volume_in_use", name="san", state="inactive")
        ok(host.pool(name="group", type="logical", source={"name": "vg-san", "device": path_of(0)}))
        refuses(host.pool, "pool_in_use", name="san", state="inactive")
        ok(host.pool(name="group", state="absent", allow=["stop_adopted"]))
    finally:
        run("vgremove", "-q", "-y", "vg-san")
        run("pvremove", "-q", path_of(0))
    converges(host.pool, name="san", state="absent")


@pytest.mark.parametrize("source", [{"host": "127.0.0.2"}, {"initiator": INITIATOR}], ids=["portal", "initiator"])
def test_not_restarted_elsewhere_while_it_is_used(host: Host, target: Target, source: dict[str, str]) -> None:
    ok(host.pool(**pool_of()))
    sh(f"mkfs.ext4 -q {path_of(1)}; mount {path_of(1)} /mnt")
    try:
        refuses(host.pool, "volume_in_use", **pool_of(source=source), allow=["restart"])
    finally:
        run("umount", "/mnt")
    assert sessions() == [("127.0.0.1:3260", IQN)]
    converges(host.pool, **pool_of(source=source), allow=["restart"])
    forgotten(host)


# -- who logs in ------------------------------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The words of all commands of iscsiadm."""
    log, shim = tmp_path / "words", tmp_path / "bin/iscsiadm"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec /usr/sbin/iscsiadm "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    return log


def test_with_a_password(host: Host, target: Target, words: Path) -> None:
    target.demand("kvm1", SECRET)
    auth = {"type": "chap", "username": "kvm1", "secret": "wrongwrongwr"}
    wrong = host.pool(**pool_of(source={"auth": auth}))
    assert (wrong["error"]["code"], "secret" in wrong["error"]["hint"]) == ("login_refused", True)
    assert (sessions(), records()) == ([], [])
    auth["secret"] = SECRET
    made = converges(host.pool, **pool_of(source={"auth": auth}))
    assert SECRET not in str(made)
    (record,) = NODES.glob("*/*/default")
    assert SECRET in record.read_text()
    assert record.stat().st_mode & 0o777 == 0o600
    converges(host.pool, name="san", state="inactive")
    converges(host.pool, name="san", state="active")  # it is kept
    converges(host.pool, name="san", state="absent")
    said = words.read_text()
    assert "--login" in said
    assert SECRET not in said


def test_the_target_shows_itself(host: Host, target: Target, words: Path) -> None:
    target.demand("kvm1", SECRET, ("san", BACK))
    mutual = {"username": "san", "secret": "wrongwrongwr"}
    auth = {"type": "chap", "username": "kvm1", "secret": SECRET, "mutual": mutual}
    # Who of the two gives up first is up to open-iscsi.
    assert host.pool(**pool_of(source={"auth": auth}))["error"]["code"] in ("command_failed", "login_refused")
    mutual["secret"] = BACK
    made = converges(host.pool, **pool_of(source={"auth": auth}))
    assert BACK not in str(made)
    converges(host.pool, name="san", state="absent")
    assert BACK not in words.read_text()


def test_a_portal_that_tells_only_who_knows_the_password(host: Host, target: Target, words: Path) -> None:
    target.demand("kvm1", SECRET)
    auth = {"type": "chap", "username": "kvm1", "secret": SECRET}
    with asked_by_account("kvm1", SECRET):
        assert host.pool(**pool_of())["error"]["code"] == "login_refused"
        made = converges(host.pool, **pool_of(source={"auth": auth}))
        assert SECRET not in str(made)
        converges(host.pool, name="san", state="inactive")
        converges(host.pool, name="san", state="active")
        assert sessions() == [("127.0.0.1:3260", IQN)]
        assert asked() == []
        forgotten(host)
    with asked_by_account("kvm1", "anotheranother"):
        assert host.pool(**pool_of(source={"auth": auth}))["error"]["code"] == "login_refused"
        assert (asked(), records()) == ([], [])
        host.pool(name="san", state="absent")
    said = words.read_text()
    assert "--discover" in said
    assert SECRET not in said


def asked() -> list[str]:
    """The records of how portals are asked."""
    return [line for line in run("iscsiadm", "-m", "discoverydb", check=False).splitlines() if line]


def test_under_a_name_of_its_own(host: Host, target: Target) -> None:
    named = pool_of(source={"initiator": INITIATOR})
    converges(host.pool, **named)
    said = run("iscsiadm", "-m", "session", "-P", "1")
    assert f"Iface Initiatorname: {INITIATOR}" in said
    (iface,) = [name for name in records() if name.startswith("virt-storage-")][:1]
    assert (IFACES / iface).exists()
    converges(host.pool, **pool_of(name="own"))
    assert len(sessions()) == 2
    converges(host.pool, name="san", state="absent")
    assert (len(sessions()), records()) == (1, ["default"])
    converges(host.pool, name="own", state="absent")


# -- units ------------------------------------------------------------------------------------------------------------


def test_units_that_appear_grow_and_go(host: Host, target: Target) -> None:
    ok(host.pool(**pool_of()))
    target.serve(3)
    found = converges(host.volume, pool="san", name="unit:0:0:3")
    assert [change["action"] for change in found["plan"]] == ["refresh"]
    assert sizes(host, "san") == {f"unit:0:0:{lun}": 64 * MIB for lun in (0, 1, 3)}
    target.grow(1, 96 * MIB)
    assert sizes(host, "san")["unit:0:0:1"] == 64 * MIB
    converges(host.volume, pool="san", name="unit:0:0:1", capacity="96MiB")
    assert run("blockdev", "--getsize64", path_of(1)).strip() == str(96 * MIB)
    target.remove(3)
    gone = host.volume(pool="san", name="unit:0:0:3", capacity="1GiB")
    assert gone["error"]["code"] == "source_missing"
    (problem,) = (each["problem"] for each in host.volume_info(pool="san") if each.get("problem"))
    assert problem
    converges(host.pool, name="san", state="inactive")
    converges(host.pool, name="san", state="active")
    assert sorted(sizes(host, "san")) == ["unit:0:0:0", "unit:0:0:1"]
    forgotten(host)


def test_by_two_portals(host: Host, target: Target) -> None:
    converges(host.pool, **pool_of(source={"hosts": ["127.0.0.1", "127.0.0.2"]}))
    assert sorted(sessions()) == [(f"127.0.0.{n}:3260", IQN) for n in (1, 2)]
    (record,) = host.pool_info(name="san")
    assert (record["capacity"], sorted(sizes(host, "san"))) == (128 * MIB, ["unit:0:0:0", "unit:0:0:1"])
    other = path_of(0).replace("127.0.0.1", "127.0.0.2")
    sh(f"mkfs.ext4 -q {other}; mount {other} /mnt")
    refuses(host.pool, "volume_in_use", name="san", state="inactive")
    sh(f"umount /mnt; wipefs -qa {other}")
    converges(host.pool, name="san", state="absent")
    assert sessions() == []


def test_a_target_that_goes_and_comes_back(host: Host, target: Target) -> None:
    ok(host.pool(**pool_of()))
    (node,) = NODES.glob("*/*/default")
    target.up(False)
    deadline = time.monotonic() + 60
    while not any("state" in each.get("problem", "") for each in host.volume_info(pool="san")):
        assert time.monotonic() < deadline, host.volume_info(pool="san")
        time.sleep(1)
    started = time.monotonic()
    (record,) = host.pool_info(name="san")
    assert record["state"] == "active"
    again = ok(host.pool(**pool_of()))
    assert (again["changed"], "does not answer" in str(again.get("warnings"))) == (False, True)
    assert time.monotonic() - started < 90  # what asks the target waits for two minutes
    target.up()
    while any(each.get("problem") for each in host.volume_info(pool="san")):
        assert time.monotonic() < deadline + 60
        time.sleep(1)
    assert node.exists()
    converges(host.pool, name="san", state="absent")


def test_one_that_is_away_for_good_is_logged_out_of(host: Host, target: Target) -> None:
    ok(host.pool(**pool_of()))
    target.up(False)
    time.sleep(3)
    ok(host.pool(name="san", state="absent", timeout=20))
    assert sessions() == []


# -- the daemon -------------------------------------------------------------------------------------------------------

SOURCE = f"<source><host name='127.0.0.1'/><device path='{IQN}'/></source>"


def test_it_looks_like_the_daemons(host: Host, daemon_host: Host, target: Target, tmp_path: Path) -> None:
    ok(host.pool(**pool_of()))
    run_by_virsh(tmp_path, xml_of_pool("iscsi", SOURCE, BY_PATH))
    ours = told_by_us(host, "san")
    assert ours == told_by_virsh()
    assert len(ours[1]) == 2
    virsh("pool-destroy", "theirs")  # it takes the session with it
    (record,) = host.pool_info(name="san")
    assert record["state"] == "inactive"
    converges(host.pool, **pool_of())
    forgotten(host)


def test_through_the_daemon(daemon_host: Host, target: Target) -> None:
    made = converges(daemon_host.pool, **pool_of())
    assert [change["action"] for change in made["plan"]] == ["define", "start"]
    assert sorted(sizes(daemon_host, "san")) == ["unit:0:0:0", "unit:0:0:1"]
    target.serve(2)
    converges(daemon_host.volume, pool="san", name="unit:0:0:2")
    refuses(daemon_host.volume, "daemon_cannot", pool="san", name="unit:0:0:0", state="absent")
    refuses(daemon_host.pool, "source_conflict", **pool_of(name="again"))
    auth = {"type": "chap", "username": "kvm1", "secret": SECRET, "mutual": {"username": "san", "secret": BACK}}
    refuses(daemon_host.pool, "daemon_cannot", **pool_of(OTHER, name="other", source={"auth": auth}))
    converges(daemon_host.pool, name="san", state="inactive")
    converges(daemon_host.pool, name="san", state="absent")
    run("iscsiadm", "-m", "node", "-T", IQN, "-o", "delete")  # the daemon leaves it


def test_a_daemon_takes_over(system_host: Host, daemon_host: Host, target: Target) -> None:
    run("systemctl", "stop", "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
    ok(system_host.pool(**pool_of()))
    ours = told_by_us(system_host, "san")
    run("systemctl", "start", "libvirtd.service")
    assert virsh("pool-list", "--name").split() == ["san"]
    assert told_by_virsh("san") == ours
    assert not ok(daemon_host.pool(**pool_of()))["changed"]
    virsh("pool-destroy", "san")
    run("systemctl", "stop", "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
    converges(system_host.pool, name="san", state="absent")
    run("systemctl", "start", "libvirtd.service")
