# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server that goes away and comes back, by its network and by its services, under the pools that another host has of
it. Tasks end in time and say what does not answer, other pools go on, and what was declared is met again by the same
tasks.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from lab import saved, suites
from lab.guests import Guest
from lab.holding import environment

from .conftest import Guests

URI = "native:///?root=/srv/native"
SERVER = "10.9.0.1"
IQN = "iqn.2026-01.lab.test:"
EXPORTS, TARGETS = ("shared", "other", "late"), ("disks", "later")
LATE = ("late", "later")  # started for the first time while the server is away
TEXT = "what was written before"
LOCAL = "/dev/disk/by-id/virtio-lab-disk1"
BIG = 48  # MiB
TIMEOUT = 5  # seconds, of each task while the server is away

SERVE_FILES = f"""
mkdir -p /etc/exports.d /etc/nfs.conf.d; cd /srv; mkdir {" ".join(EXPORTS)}
printf '[nfsd]\\ngrace-time=10\\nlease-time=10\\n' > /etc/nfs.conf.d/lab.conf
number=0
for name in {" ".join(EXPORTS)}; do
    number=$((number + 1))
    echo "/srv/$name *(rw,no_root_squash,no_subtree_check,fsid=$number)"
done > /etc/exports.d/lab.exports
systemctl start rpcbind nfs-server
"""
# A target for each name, with one unit that is the same one when it is served again.
SERVE_UNITS = f"""
modprobe -a target_core_mod target_core_file iscsi_target_mod
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
cd /sys/kernel/config/target; mkdir -p iscsi
for name in {" ".join(TARGETS)}; do
    core=core/fileio_1/$name; group=iscsi/{IQN}$name/tpgt_1
    mkdir -p $core $group/lun/lun_0
    echo lab-$name > $core/wwn/vpd_unit_serial
    echo "fd_dev_name=/srv/$name.unit,fd_dev_size=67108864" > $core/control; echo 1 > $core/enable
    ln -s $PWD/$core $group/lun/lun_0/port
    echo 1 > $group/attrib/generate_node_acls; echo 0 > $group/attrib/demo_mode_write_protect
    echo 0 > $group/attrib/authentication
    mkdir $group/np/{SERVER}:3260
    echo 1 > $group/enable
done
"""
END_UNITS = f"""
cd /sys/kernel/config/target
for name in {" ".join(TARGETS)}; do
    group=iscsi/{IQN}$name/tpgt_1
    echo 0 > $group/enable
    rm $group/lun/lun_0/port
    rmdir $group/np/{SERVER}:3260 $group/lun/lun_0 $group iscsi/{IQN}$name core/fileio_1/$name
done
"""
# Each call is made by a process of its own, as a task is one, and has ended when nobody has its output open any more.
ANSWER = """
import json, os, sys, time
from tests.integration.calling import call
print(os.getpgrp(), flush=True)
for line in sys.stdin:
    module, check, params = json.loads(line)
    began = time.monotonic()
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.write(writer, json.dumps(call(module, check, **params)).encode())
        sys.exit()
    os.close(writer)
    with os.fdopen(reader) as told:
        result = json.loads(told.read() or "{}")
    os.wait()
    print(json.dumps({**result, "took": time.monotonic() - began}), flush=True)
"""


def _export(name: str) -> dict[str, str]:
    return {"host": SERVER, "dir": f"/srv/{name}", "format": "nfs"}


class Caller:
    """The modules, in a guest that has the collection. ``pace``: seconds that a look takes there when all is well."""

    def __init__(self, guest: Guest) -> None:
        words = shlex.join(["python3", "-c", ANSWER])
        command = f"cd {suites.COLLECTION} && exec env PYTHONPATH=/root:{saved.ANSIBLE} {words}"
        self._guest, self.pace = guest, 0.0
        self._process = subprocess.Popen(
            guest.ssh(command), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._group = self._line().strip()

    def begin(self, module: str, check: bool = False, **params: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([module, check, {"uri": URI, **params}]) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self._line())
        return result

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def __call__(self, module: str, check: bool = False, **params: Any) -> dict[str, Any]:
        self.begin(module, check, **params)
        return self.end()

    def kill(self) -> None:
        """With what it has begun; what waits for its server within the kernel ends when that is back."""
        self._guest.run(f"kill -9 -- -{self._group}", check=False)
        self.leave()

    def leave(self) -> None:
        """Whatever it waits for: it ends with its guest."""
        self._process.kill()
        self._process.communicate()


POOLS: dict[str, dict[str, Any]] = {
    "images": {"type": "dir", "path": "/srv/images"},
    "group": {"type": "logical", "source": {"name": "group", "device": LOCAL}},
    **{name: {"type": "netfs", "path": f"/srv/{name}", "source": _export(name)} for name in EXPORTS},
    **{name: {"type": "iscsi", "source": {"host": SERVER, "iqn": IQN + name}} for name in TARGETS},
}
STATES = {
    **dict.fromkeys(("images", "group", "disks"), "active"),
    **dict.fromkeys(("shared", "other"), "unknown"),
    **dict.fromkeys(LATE, "inactive"),
}
SMALL = {"capacity": "1MiB", "source": {"content": TEXT}}
UNIT = {"pool": "disks", "name": "unit:0:0:0", "capacity": "64MiB"}


class Away:
    """What tasks come to while the server is away; each says in check mode what it says in the real run."""

    def __init__(self, call: Caller) -> None:
        self._call = call

    def _timed(self, module: str, check: bool = False, **params: Any) -> dict[str, Any]:
        """In time: what hangs is waited for once or twice, and a guest on a busy machine has no pace of its own."""
        result = self._call(module, check, timeout=TIMEOUT, **params)
        assert result["took"] < 2 * TIMEOUT + 10 * self._call.pace, (module, params, result)
        return result

    def look(self, **states: str) -> None:
        """All pools are listed; of two servers' mounts that do not answer both are waited for together."""
        result = self._timed("storage_pool_info")
        assert result["took"] < TIMEOUT + 10 * self._call.pace, result
        told = {each["name"]: each for each in result["pools"]}
        assert {name: each["state"] for name, each in told.items()} == states
        for name, each in told.items():
            assert each.get("error", {}).get("code", "") == ("deadline" if states[name] == "unknown" else ""), each

    def says(self, module: str, *codes: str, **params: Any) -> dict[str, Any]:
        """The real run, which fails with one of these codes, as check mode does."""
        checked, done = self._timed(module, check=True, **params), self._timed(module, **params)
        for result in (checked, done):
            assert _code(result) in codes, (params, result)
            assert not result["changed"], (params, result)
        return done

    def does(self, module: str, changed: bool, **params: Any) -> dict[str, Any]:
        checked, done = self._timed(module, check=True, **params), self._timed(module, **params)
        for result in (checked, done):
            assert (_code(result), result["changed"]) == ("", changed), (params, result)
        assert _summaries(checked) == _summaries(done)
        return done

    def tries(self, module: str, *codes: str, **params: Any) -> None:
        """What only doing shows: check mode asks no server."""
        checked, done = self._timed(module, check=True, **params), self._timed(module, **params)
        assert (_code(checked), checked["changed"]) == ("", True), checked
        assert _code(done) in codes, done
        assert _summaries(checked) == _summaries(done)


def _code(result: dict[str, Any]) -> str:
    return str(result["error"]["code"]) if result.get("failed") else ""


def _summaries(result: dict[str, Any]) -> list[str]:
    return [change["summary"] for change in result["plan"]]


def _declare(call: Caller, pools: dict[str, bool], later: tuple[str, ...] = ()) -> None:
    """Which of them a task changes; a second one has nothing to do."""
    for turn in (pools, dict.fromkeys(pools, False)):
        for name, changed in turn.items():
            state = "present" if name in later else "active"
            result = call("storage_pool", name=name, state=state, **POOLS[name])
            assert (_code(result), result["changed"]) == ("", changed), (name, result)


def _write(host: Guest, call: Caller) -> None:
    for name in ("images", "shared", "group"):
        made = call("storage_volume", pool=name, name="text", **SMALL)
        assert (_code(made), made["changed"]) == ("", True), made
    # Random, so that the volume has no holes.
    host.run(f"""set -eu
        printf %-512s '{TEXT}' | dd of={_link("disks")} oflag=direct bs=512 status=none
        head -c {BIG}M /dev/urandom > /srv/big; sync /srv/big""")


def _link(target: str) -> str:
    return f"/dev/disk/by-path/ip-{SERVER}:3260-iscsi-{IQN}{target}-lun-0"


def _big(name: str) -> dict[str, Any]:
    return {"pool": "other", "name": name, "format": "raw", "source": {"path": "/srv/big", "format": "raw"}}


def _begin_volume(server: Guest, under_way: Caller, name: str, then: str) -> None:
    """The server goes when some of the volume is there."""
    under_way.begin("storage_volume", timeout=TIMEOUT, **_big(name))
    seen = server.run(
        f"""set -eu
        for turn in $(seq 600); do
            partial=$(find /srv/other -type f ! -path /srv/other/first -size +1M)
            [ -z "$partial" ] || break
            sleep 0.1
        done
        [ -n "$partial" ]; {then}""",
        check=False,
    )
    assert seen.returncode == 0, under_way.end()
    assert name not in server.text("ls /srv/other").split()


def _lost(host: Guest) -> None:
    """The kernel has noticed that no target answers."""
    host.run("timeout 120 sh -c 'while grep -q LOGGED_IN /sys/class/iscsi_session/*/state; do sleep 1; done'")


def _back(host: Guest) -> None:
    """Whatever is mounted answers again, and so do the targets that are logged in to."""
    host.run("""timeout 300 sh -euc '
        for each in $(findmnt -rno TARGET -t nfs,nfs4); do stat --file-system $each >/dev/null; done
        while grep -qv LOGGED_IN /sys/class/iscsi_session/*/state; do sleep 1; done'""")


def _sessions(host: Guest) -> list[str]:
    return sorted(line.split()[3] for line in host.text("iscsiadm -m session 2>/dev/null || true").splitlines())


def _asked(away: Away, host: Guest) -> None:
    """Of each kind of task one about what does not answer, and what is not there is not touched."""
    away.says("storage_pool", "deadline", name="shared", state="active", **POOLS["shared"])
    away.says("storage_volume", "deadline", pool="shared", name="text", **SMALL)
    away.says("storage_volume", "deadline", pool="shared", name="new", capacity="1MiB")
    away.says("storage_volume", "deadline", pool="shared", name="text", state="absent")
    kept = away.does("storage_pool", False, name="disks", state="active", **POOLS["disks"])
    assert any("does not answer" in text for text in kept["warnings"]), kept
    away.tries("storage_pool", "deadline", name="late", state="active", **POOLS["late"])
    away.tries("storage_pool", "deadline", name="later", state="active", **POOLS["later"])
    away.does("storage_volume", True, pool="images", name="new", capacity="1MiB")
    away.does("storage_volume", True, pool="images", name="new", state="absent")
    away.does("storage_volume", True, pool="group", name="new", capacity="4MiB")
    # Whether it is back by now, a look tells.
    away.tries("storage_volume", "deadline", "source_missing", **UNIT)
    assert _sessions(host) == [f"{IQN}disks"]
    assert host.text("findmnt -rno TARGET -t nfs,nfs4").split() == ["/srv/shared", "/srv/other"]
    # It may need its server to be unmounted.
    away.tries("storage_pool", "", "deadline", name="shared", state="inactive")


def _intact(server: Guest, host: Guest, *whole: str) -> None:
    """What was written before is there, at both ends, and nothing else."""
    made = server.text("cd /srv; head -c 64 shared/text; echo; find shared other late -type f -printf '%P\n' | sort")
    assert [line.strip("\0") for line in made.splitlines()] == [TEXT, *sorted([*whole, "text"])]
    copies = server.text(f"cd /srv/other; sha256sum {' '.join(whole)}") + host.text("sha256sum /srv/big")
    assert len({line.split()[0] for line in copies.splitlines()}) == 1, copies
    read = host.text(f"dd if={_link('disks')} iflag=direct bs=512 count=1 status=none; head -c 64 /dev/group/text")
    assert read.count(TEXT) == 2
    mounted = host.text("findmnt -rno TARGET,SOURCE -t nfs,nfs4").splitlines()
    assert sorted(mounted) == sorted(f"/srv/{name} {SERVER}:/srv/{name}" for name in EXPORTS)
    assert _sessions(host) == sorted(IQN + name for name in TARGETS)


@pytest.fixture
def hosts(guests: Guests) -> Iterator[tuple[Guest, Guest, Caller, Caller]]:
    """The server, and the host with its pools: one to call tasks there, and one for the task that is under way."""
    server, host = guests(2)
    assert server.address == SERVER
    server.run(f"set -eu; {SERVE_FILES}{SERVE_UNITS}")
    host.run("systemctl start iscsid; tc qdisc add dev eth1 root tbf rate 64mbit burst 64kb latency 1s")
    suites.push_collection(host)
    with contextlib.ExitStack() as stack:
        call, under_way = Caller(host), Caller(host)
        stack.callback(under_way.leave)
        stack.callback(call.leave)
        yield server, host, call, under_way


def test_tasks_end_in_time_and_are_met_again(hosts: tuple[Guest, Guest, Caller, Caller]) -> None:
    server, host, call, under_way = hosts
    _declare(call, dict.fromkeys(POOLS, True), LATE)
    _write(host, call)
    call.pace = max(call("storage_pool_info")["took"] for _each in range(2))

    # -- the network is lost while a volume is written, which goes on when it is back
    _begin_volume(server, under_way, "first", "ip link set eth1 down")
    _lost(host)
    away = Away(call)
    away.look(**STATES)
    _asked(away, host)
    server.run("ip link set eth1 up")
    first = under_way.end()
    assert (_code(first), first["changed"]) == ("", True), first
    _back(host)
    stopped = call("storage_pool", name="shared", state="inactive")
    assert _code(stopped) == "", stopped
    _declare(call, {**dict.fromkeys(POOLS, False), "shared": True, "late": True, "later": True})
    _intact(server, host, "first")

    # -- the services are gone while a volume is written, by a task that is killed then
    _begin_volume(server, under_way, "second", "systemctl stop nfs-server")
    server.run(f"set -eu; {END_UNITS}")
    under_way.kill()
    _lost(host)
    away.look(**{**STATES, "late": "unknown", "later": "active"})
    away.says("storage_pool", "deadline", name="late", state="active", **POOLS["late"])
    away.does("storage_pool", True, name="disks", state="inactive")
    assert _sessions(host) == [f"{IQN}later"]
    away.tries("storage_pool", "source_missing", name="disks", state="active")
    assert _sessions(host) == [f"{IQN}later"]
    server.run(f"set -eu; systemctl start nfs-server; {SERVE_UNITS}")
    _back(host)
    _declare(call, {**dict.fromkeys(POOLS, False), "disks": True})
    second = call("storage_volume", **_big("second"))
    assert (_code(second), second["changed"]) == ("", True), second
    _intact(server, host, "first", "second")
