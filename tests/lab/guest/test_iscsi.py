# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools of iSCSI targets, logged in to by the guest's kernel; the guest's daemon on the same target as the oracle."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines.native import NativeEngine
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
        for where, expected in (("127.0.0.1:3261", "deadline"), ("127.0.0.1:3262", "source_missing")):
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


class Slow:
    """A portal that passes on what it is told, but for logins as long as it holds them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 3263))
        self.held = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _address = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", 3260))
                self._sockets += [ours, theirs]
                threading.Thread(target=self._pass_on, args=(ours, theirs, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(theirs, ours, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                while asks and b"SessionType=Normal" in data and self.held.is_set():
                    time.sleep(0.1)
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # it would listen as long as a thread waits in it
        for each in (self._listener, *self._sockets):
            each.close()


@pytest.fixture
def slow(target: Target) -> Iterator[Slow]:
    made = Slow()
    yield made
    made.held.clear()
    run("iscsiadm", "-m", "session", "--logout", check=False)
    made.close()


def test_a_login_that_is_given_up_does_not_come_up_later(host: Host, slow: Slow) -> None:
    pool = pool_of(source={"host": "127.0.0.1:3263"})
    slow.held.set()
    late = host.pool(**pool, timeout=8)
    assert late["error"]["code"] == "deadline", late
    slow.held.clear()
    time.sleep(25)  # what iscsid takes for one try, and more
    up = bool(sessions())
    assert not up or "iscsid may go on" in late["error"]["hint"]
    assert all("node.startup = manual" in path.read_text() for path in NODES.glob("*/*/default"))
    gone = host.pool(name="san", state="absent")
    assert [change["action"] for change in ok(gone)["plan"]] == [*(["stop"] if up else []), "undefine"]
    assert sessions() == []


def test_a_login_that_comes_up_soon_after_the_end_is_undone(host: Host, slow: Slow) -> None:
    slow.held.set()
    threading.Timer(10, slow.held.clear).start()
    late = host.pool(**pool_of(source={"host": "127.0.0.1:3263"}), timeout=8)
    assert late["error"]["code"] == "deadline", late
    assert sessions() == []
    ok(host.pool(name="san", state="absent"))


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


def test_what_is_mounted_after_the_look_keeps_its_disk(
    host: Host, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(host.pool(**pool_of()))
    sh(f"mkfs.ext4 -q {path_of(1)}")
    prepare = NativeEngine.prepare

    def meanwhile(engine: NativeEngine) -> None:
        sh(f"mount {path_of(1)} /mnt")
        prepare(engine)

    monkeypatch.setattr(NativeEngine, "prepare", meanwhile)
    try:
        refuses_late = host.pool(name="san", state="inactive")
    finally:
        monkeypatch.undo()
        run("umount", "/mnt")
    assert refuses_late["error"]["code"] == "changed_meanwhile"
    assert len(sessions()) == 1
    converges(host.pool, name="san", state="absent")


def test_whoever_gives_a_unit_commands_past_its_disk_uses_it(host: Host, target: Target) -> None:
    ok(host.pool(**pool_of()))
    (generic,) = Path(
        f"/sys/class/block/{os.path.basename(os.path.realpath(path_of(0)))}/device/scsi_generic"
    ).iterdir()
    with open(f"/dev/{generic.name}", "rb") as node, subprocess.Popen(["sleep", "300"], stdin=node) as sleeping:
        time.sleep(3)  # who has only just opened it may let go soon
        try:
            assert "sleep" in refuses(host.pool, "volume_in_use", name="san", state="inactive")["message"]
        finally:
            sleeping.kill()
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


def test_what_was_started_is_stopped_whatever_its_definition_says_since(
    host: Host, target: Target, tmp_path: Path
) -> None:
    other = Target(OTHER, tmp_path, "127.0.0.3:3260")
    other.serve(0)
    other.up()
    try:
        ok(host.pool(**pool_of()))
        sh(f"""iscsiadm -m node -T {OTHER} -p 127.0.0.3:3260,1 -o new
            iscsiadm -m node -T {OTHER} -p 127.0.0.3:3260,1 --login""")
        definition = Path(host.uri.partition("root=")[2]) / "etc/libvirt/storage/san.xml"
        definition.write_text(definition.read_text().replace(IQN, OTHER).replace("127.0.0.1", "127.0.0.3"))
        converges(host.pool, name="san", state="inactive")
        assert sessions() == [("127.0.0.3:3260", OTHER)]
        ok(host.pool(name="san", state="absent"))
        assert sessions() == [("127.0.0.3:3260", OTHER)]
    finally:
        run("iscsiadm", "-m", "session", "--logout", check=False)
        run("iscsiadm", "-m", "node", "-T", OTHER, "-o", "delete", check=False)
        other.end()


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


def test_a_record_of_somebody_else_has_its_own_password_again(host: Host, target: Target) -> None:
    target.demand("kvm1", SECRET)
    sh(f"""iscsiadm -m node -T {IQN} -p 127.0.0.1:3260,1 -o new
        iscsiadm -m node -T {IQN} -p 127.0.0.1:3260,1 -o update -n node.session.auth.password -v theirs""")
    (record,) = NODES.glob("*/*/default")
    before = record.read_text()
    ok(host.pool(**pool_of(source={"auth": {"type": "chap", "username": "kvm1", "secret": SECRET}})))
    assert SECRET in record.read_text()
    converges(host.pool, name="san", state="absent")
    assert record.read_text() == before
    run("iscsiadm", "-m", "node", "-T", IQN, "-o", "delete")


def test_the_commands_that_are_shown_log_in(host: Host, target: Target) -> None:
    target.demand("kvm1", SECRET)
    auth = {"type": "chap", "username": "kvm1", "secret": SECRET}
    for more in ({}, {"initiator": INITIATOR}):
        planned = ok(host.pool(check=True, **pool_of(source={"auth": auth, **more})))
        (command,) = [each for change in planned["plan"] for each in change["commands"] if "--login" in each]
        assert SECRET not in command
        sh(f"PASSWORD={SECRET}; {command[command.index('iscsiadm') :]}")
        assert sessions() == [("127.0.0.1:3260", IQN)]
        run("iscsiadm", "-m", "session", "--logout")
        run("iscsiadm", "-m", "node", "-T", IQN, "-o", "delete")
    for name in [name for name in records() if name.startswith("virt-storage-")]:
        run("iscsiadm", "-m", "iface", "-I", name, "-o", "delete")


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


@pytest.fixture
def no_loops() -> Iterator[None]:
    """LVM does not see twice what is on a unit that grows."""
    local = Path("/etc/lvm/lvmlocal.conf")
    before = local.read_bytes()
    local.write_text('devices/global_filter=["r|^/dev/loop|"]\n', encoding="ascii")
    yield
    local.write_bytes(before)


@pytest.fixture
def maps(host: Host, target: Target) -> Iterator[list[str]]:
    """The units, each under a map of its two paths."""
    sh("systemctl start multipathd")
    try:
        ok(host.pool(**pool_of(source={"hosts": ["127.0.0.1", "127.0.0.2"]})))
        sh("""for turn in $(seq 240); do test "$(multipath -ll | grep -c running)" = 4 && break; sleep 0.5; done
            udevadm settle""")
        yield [map_over(path_of(lun)) for lun in (0, 1)]
    finally:
        sh("multipath -F || true; systemctl stop multipathd.service multipathd.socket")
        forgotten(host)


def map_over(path: str) -> str:
    told = [line.split() for line in run("lsblk", "-nro", "NAME,TYPE", path).splitlines()]
    return next(name for name, kind in told if kind == "mpath")


def carried(host: Host, volume: str, path: Path) -> list[dict[str, Any]]:
    """A group on that volume, and a filesystem on one of its own: the pools."""
    source = {"volume": "guests/data", "format": "ext4"}
    return [
        {"name": "guests", "type": "logical", "source": {"name": "carried", "volume": volume}},
        {"name": "images", "type": "fs", "path": str(path), "source": source},
    ]


def room(host: Host) -> list[int]:
    return [host.pool_info(name=name)[0]["capacity"] for name in ("guests", "images")]


def carry_up(host: Host, device: str) -> None:
    """The group's device is larger: as docs/layers.md has it, with all pools active."""
    before = room(host)
    sh(f"pvresize -q {device}")
    assert room(host) == [before[0] + 64 * MIB, before[1]]
    converges(host.volume, pool="guests", name="data", capacity="96MiB")
    sh("resize2fs /dev/carried/data")
    assert room(host)[1] > before[1] + 50 * MIB
    assert {each["state"] for each in host.pool_info()} == {"active"}


def test_a_unit_that_grew_is_carried_up(host: Host, no_loops: None, target: Target, tmp_path: Path) -> None:
    ok(host.pool(**pool_of()))
    guests, images = carried(host, "san/unit:0:0:1", tmp_path / "images")
    ok(host.pool(**guests))
    ok(host.volume(pool="guests", name="data", capacity="32MiB"))
    ok(host.pool(**images))
    target.grow(1, 128 * MIB)
    converges(host.volume, pool="san", name="unit:0:0:1", capacity="128MiB")
    carry_up(host, path_of(1))
    ok(host.pool(name="images", state="absent"))
    ok(host.pool(**guests, state="deleted", allow=["nonempty"]))
    forgotten(host)


def test_a_unit_that_grew_is_carried_up_by_its_map(
    host: Host, no_loops: None, target: Target, maps: list[str], tmp_path: Path
) -> None:
    ok(host.pool(name="maps", type="mpath", path="/dev/mapper"))
    guests, images = carried(host, f"maps/{maps[1]}", tmp_path / "images")
    ok(host.pool(**guests))
    ok(host.volume(pool="guests", name="data", capacity="32MiB"))
    ok(host.pool(**images))
    target.grow(1, 128 * MIB)
    run("iscsiadm", "-m", "session", "--rescan")
    assert sizes(host, "maps")[maps[1]] == 64 * MIB
    run("multipathd", "resize", "map", maps[1])
    assert sizes(host, "maps")[maps[1]] == 128 * MIB
    carry_up(host, f"/dev/mapper/{maps[1]}")
    refuses(host.pool, "pool_in_use", name="san", state="inactive")
    ok(host.pool(name="images", state="absent"))
    ok(host.pool(**guests, state="deleted", allow=["nonempty"]))
    ok(host.pool(name="maps", state="absent"))


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


def test_through_the_daemon_with_a_password(daemon_host: Host, target: Target) -> None:
    target.demand("kvm1", SECRET)
    auth = {"type": "chap", "username": "kvm1", "secret": "wrongwrongwr"}
    assert daemon_host.pool(**pool_of(source={"auth": auth}))["failed"]
    assert sessions() == []
    auth["secret"] = SECRET
    made = ok(daemon_host.pool(**pool_of(source={"auth": auth})))
    assert made["changed"]
    assert SECRET not in str(made)
    assert SECRET not in virsh("pool-dumpxml", "san")
    assert sessions() == [("127.0.0.1:3260", IQN)]
    assert not ok(daemon_host.pool(**pool_of(source={"auth": auth})))["changed"]
    converges(daemon_host.pool, name="san", state="inactive")
    converges(daemon_host.pool, name="san", state="active")  # it is kept
    converges(daemon_host.pool, name="san", state="absent")
    assert "iscsi" not in virsh("secret-list")
    run("iscsiadm", "-m", "node", "-T", IQN, "-o", "delete")


def test_through_the_daemon_while_it_is_used(daemon_host: Host, target: Target) -> None:
    ok(daemon_host.pool(**pool_of()))
    sh(f"mkfs.ext4 -q {path_of(0)}; mount {path_of(0)} /mnt")
    for state in ("inactive", "absent"):
        refuses(daemon_host.pool, "volume_in_use", name="san", state=state)
    sh("umount /mnt")
    assert sessions() == [("127.0.0.1:3260", IQN)]
    converges(daemon_host.pool, name="san", state="absent")
    run("iscsiadm", "-m", "node", "-T", IQN, "-o", "delete")


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
