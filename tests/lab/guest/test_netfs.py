# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools on NFS exports and CIFS shares, with the kernel's own servers and clients; findmnt and virsh judge."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .hosts import Host, own_address, run, run_json, sh
from .netfs_host import Far

PATH = "/srv/pool"
SERVED = ("free", "squashed", "open", "share")
MIB = 1 << 20
PASSWORD = "pass,word %1"


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[None]:
    """Exports and shares; a server that can be cut off is reached over a pair of interfaces, from its own network."""
    for name in SERVED:
        os.makedirs(f"/srv/{name}", exist_ok=True)
    os.chown("/srv/squashed", 64055, 64055)
    os.chmod("/srv/open", 0o777)
    os.chmod("/srv/share", 0o777)
    Path("/etc/samba/smb.conf").write_text(
        "[global]\nmap to guest = Bad User\n"
        "[pub]\npath = /srv/share\nread only = no\nguest ok = yes\nforce user = root\n"
        "[priv]\npath = /srv/share\nread only = no\nvalid users = guests\nforce user = root\n",
        encoding="utf-8",
    )
    sh(f"""systemctl start rpcbind nfs-server
        id guests >/dev/null 2>&1 || useradd -M -N guests
        printf '%s\\n%s\\n' '{PASSWORD}' '{PASSWORD}' | smbpasswd -s -a guests
        systemctl start smbd
        until smbclient -N -L 127.0.0.1 >/dev/null 2>&1; do sleep 0.2; done""")
    for number, (name, more) in enumerate(
        {"free": "no_root_squash", "squashed": "root_squash", "open": "root_squash"}.items(), start=1
    ):
        for client in ("127.0.0.0/8", "[::1]"):
            options = f"rw,{more},insecure,no_subtree_check,fsid={number}"
            run("exportfs", "-o", options, f"{client}:/srv/{name}")
    yield
    sh("exportfs -ua; systemctl stop nfs-server smbd")


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    while os.path.ismount(PATH):
        run("umount", "-l", PATH)
    for name in SERVED:
        run("find", f"/srv/{name}", "-mindepth", "1", "-delete")


def nfs(name: str = "free", host: str = "127.0.0.1", **more: Any) -> dict[str, Any]:
    source = {"host": host, "dir": f"/srv/{name}", "format": "nfs", **more.pop("source", {})}
    return {"name": "shared", "type": "netfs", "path": PATH, "source": source, **more}


def cifs(share: str = "pub", host: str = "127.0.0.1", **more: Any) -> dict[str, Any]:
    source = {"host": host, "dir": share, "format": "cifs", **more.pop("source", {})}
    return {"name": "shared", "type": "netfs", "path": PATH, "source": source, **more}


def mounted() -> dict[str, str]:
    """What findmnt says is on the pool's path; empty when nothing is."""
    said = run("findmnt", "--json", "--output", "SOURCE,FSTYPE,OPTIONS", "--mountpoint", PATH, check=False)
    return json.loads(said)["filesystems"][0] if said else {}


def on_both_sides() -> tuple[Any, ...]:
    """What is mounted and what is exported, with the mount point."""
    return mounted(), os.path.lexists(PATH), {name: sorted(os.listdir(f"/srv/{name}")) for name in SERVED}


def done(result: dict[str, Any]) -> dict[str, Any]:
    """A result that is no failure, and whose claims held."""
    assert "failed" not in result, result
    assert not [text for text in result["warnings"] if "verification" in text], result["warnings"]
    return result


def changed(result: dict[str, Any]) -> bool:
    return bool(done(result)["changed"])


def code(result: dict[str, Any]) -> str:
    assert result.get("failed"), result
    return str(result["error"]["code"])


def applied(host: Host, **params: Any) -> dict[str, Any]:
    return as_said(host.pool, **params)


def as_said(act: Any, **params: Any) -> dict[str, Any]:
    """The real run, whose plan is what check mode said, and after which nothing is left to do."""
    before = on_both_sides()
    planned = done(act(check=True, **params))
    assert on_both_sides() == before
    made = done(act(**params))
    assert made["changed"]
    assert [change["summary"] for change in made["plan"]] == [change["summary"] for change in planned["plan"]]
    assert [change["commands"] for change in made["plan"]] == [change["commands"] for change in planned["plan"]]
    if params.get("state") != "deleted":
        assert not changed(act(**params))
    return made


# --- NFS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3", "4.2"])
def test_a_pool_on_an_export(host: Host, version: str) -> None:
    made = applied(host, **nfs(source={"protocol_version": version}, mount_options=["noatime"]))
    assert made["pool"]["state"] == "active"
    seen = mounted()
    assert (seen["source"], seen["fstype"]) == ("127.0.0.1:/srv/free", "nfs" if version == "3" else "nfs4")
    assert {"nodev", "nosuid", "noexec", "noatime", f"vers={version}"} <= set(seen["options"].split(","))
    assert changed(host.volume(pool="shared", name="a.qcow2", capacity="16MiB", format="qcow2"))
    assert changed(host.volume(pool="shared", name="b.raw", capacity="1MiB", owner=107, group=107, mode="0640"))
    assert not changed(host.volume(pool="shared", name="b.raw", capacity="1MiB", owner=107, group=107, mode="0640"))
    assert sorted(os.listdir("/srv/free")) == ["a.qcow2", "b.raw"]
    status = os.stat("/srv/free/b.raw")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (107, 107, 0o640)
    applied(host, name="shared", state="inactive")
    assert not mounted()
    assert sorted(os.listdir("/srv/free")) == ["a.qcow2", "b.raw"]
    applied(host, name="shared", state="absent")


@pytest.fixture
def brick() -> Iterator[None]:
    """The Gluster volume lab."""
    sh(f"""systemctl start rpcbind glusterd
        gluster --mode=script volume create lab {own_address()}:/srv/brick force
        gluster --mode=script volume start lab""")
    yield
    sh(f"""if mountpoint -q {PATH}; then umount -l {PATH}; fi
        gluster --mode=script volume stop lab force
        gluster --mode=script volume delete lab
        systemctl stop glusterd; rm -rf /srv/brick""")


def gluster(**more: Any) -> dict[str, Any]:
    source = {"host": own_address(), "dir": "lab", "format": "glusterfs"}  # it refuses the loopback
    return {"name": "shared", "type": "netfs", "path": PATH, "source": source, **more}


@pytest.mark.parametrize("declared", [nfs, cifs, gluster])
def test_the_daemon_sees_the_same(daemon_host: Host, declared: Any, request: pytest.FixtureRequest) -> None:
    """libvirt's own pool of the same source: capacity, volumes, keys, paths."""
    if declared is gluster:
        request.getfixturevalue("brick")
    source = declared()["source"]
    sh(f"""virsh -q pool-define-as shared netfs --source-host {source["host"]} --source-path {source["dir"]} \
            --source-format {source["format"]} --target {PATH}
        mkdir -p {PATH}; virsh -q pool-start shared
        truncate -s 1M {PATH}/a.raw; qemu-img create -q -f qcow2 /tmp/b.qcow2 16M; cp /tmp/b.qcow2 {PATH}; sync
        virsh -q pool-refresh shared""")
    theirs = mounted()
    native = Host("native:///system", allow=["beside_daemon"])
    done(native.pool(name="shared"))
    told = ("name", "path", "key", "format", "capacity", "allocation", "type")
    # Others write to that filesystem too, as Python does what it compiles; and what a file takes up a client of CIFS
    # learns a little later than that it is there.
    for _again in range(10):
        run("virsh", "-q", "pool-refresh", "shared")
        daemon_pool, daemon_volumes = daemon_host.pool_info(name="shared")[0], daemon_host.volume_info(pool="shared")
        pool, volumes = native.pool_info(name="shared")[0], native.volume_info(pool="shared")
        ours, its = ([[v[f] for f in told] for v in each] for each in (volumes, daemon_volumes))
        if (pool["allocation"], ours) == (daemon_pool["allocation"], its):
            break
        time.sleep(1)
    assert pool["state"] == daemon_pool["state"] == "active"
    for field in ("capacity", "allocation", "available", "source", "path", "uuid"):
        assert pool[field] == daemon_pool[field], field
    assert ours == its
    # what the daemon mounted is adopted: it stays when the native engine stops the pool
    done(native.pool(name="shared", state="inactive"))
    assert mounted() == theirs
    done(native.pool(**declared()))
    done(native.pool(name="shared", state="inactive", allow=["stop_adopted"]))
    assert not mounted()
    done(native.pool(**declared()))
    ours = mounted()
    assert (ours["source"], ours["fstype"]) == (theirs["source"], theirs["fstype"])
    more = ["nobrl"] if declared is cifs else []
    assert sorted(ours["options"].split(",")) == sorted([*theirs["options"].split(","), *more])
    done(native.pool(name="shared", state="absent"))


def test_volumes_through_the_daemon(daemon_host: Host) -> None:
    applied(daemon_host, **nfs())
    assert mounted()["source"] == "127.0.0.1:/srv/free"
    for name, image in (("a.raw", "raw"), ("b.qcow2", "qcow2")):
        for size in (16, 32):
            as_said(daemon_host.volume, pool="shared", name=name, capacity=f"{size}MiB", format=image)
            info = run_json("qemu-img", "info", "--output=json", f"/srv/free/{name}")
            assert (info["format"], info["virtual-size"]) == (image, size * MIB)
    as_said(daemon_host.volume, pool="shared", name="a.raw", state="absent")
    assert os.listdir("/srv/free") == ["b.qcow2"]
    assert code(daemon_host.pool(**nfs(state="deleted"))) == "pool_nonempty"
    applied(daemon_host, **nfs(state="deleted", allow=["nonempty"]))
    assert (os.listdir("/srv/free"), mounted()) == ([], {})
    done(daemon_host.pool(**nfs("squashed")))
    owned = {"pool": "shared", "name": "a.qcow2", "format": "qcow2", "owner": 64055, "group": 64055}
    as_said(daemon_host.volume, **owned, capacity="1MiB")
    assert (os.stat("/srv/squashed/a.qcow2").st_uid, os.listdir("/srv/squashed")) == (64055, ["a.qcow2"])
    as_said(daemon_host.volume, pool="shared", name="a.qcow2", state="absent")
    assert os.listdir("/srv/squashed") == []


@pytest.mark.parametrize("host_name", ["::1", "localhost"])
def test_other_spellings_of_a_server(host: Host, host_name: str) -> None:
    """Also while it is mounted elsewhere by its address, so that the kernel shows that."""
    os.makedirs("/srv/other", exist_ok=True)
    run("mount", "-t", "nfs", "127.0.0.1:/srv/open", "/srv/other")
    try:
        applied(host, **nfs(host=host_name))
        applied(host, name="shared", state="inactive")
        assert not mounted()
    finally:
        run("umount", "/srv/other")


def test_another_mount_on_the_path_is_not_the_pool(host: Host) -> None:
    applied(host, **nfs())
    run("umount", PATH)
    run("mount", "-t", "nfs", "127.0.0.1:/srv/open", PATH)
    assert host.pool_info(name="shared")[0]["state"] == "inactive"
    assert code(host.pool(**nfs())) == "storage_foreign"
    assert code(host.volume(pool="shared", name="a.raw", capacity="1MiB")) == "pool_inactive"
    assert os.listdir("/srv/open") == []
    done(host.pool(name="shared", state="absent"))
    assert mounted()["source"] == "127.0.0.1:/srv/open"


def test_what_was_mounted_before_is_adopted_and_only_released(host: Host) -> None:
    os.makedirs(PATH, exist_ok=True)
    run("mount", "-t", "nfs", "localhost:/srv/free/", PATH)
    before = mounted()
    applied(host, **nfs())
    done(host.pool(name="shared", state="inactive"))
    assert mounted() == before


def test_deleting(host: Host) -> None:
    run("rm", "-rf", PATH)
    applied(host, **nfs())
    done(host.volume(pool="shared", name="a.raw", capacity="1MiB"))
    assert code(host.pool(**nfs(state="deleted"))) == "pool_nonempty"
    made = applied(host, **nfs(state="deleted", allow=["nonempty"]))
    assert any("a.raw" in change.get("destroys", "") for change in made["plan"]), made["plan"]
    assert os.listdir("/srv/free") == []
    assert not os.path.exists(PATH)
    assert not changed(host.pool(**nfs(state="deleted", allow=["nonempty"])))


def test_recreating_without_an_exchange(host: Host) -> None:
    """NFS has no way to exchange two files."""
    done(host.pool(**nfs()))
    done(host.volume(pool="shared", name="a", capacity="1MiB"))
    before = os.stat("/srv/free/a").st_ino
    assert changed(host.volume(pool="shared", name="a", capacity="2MiB", recreate="always"))
    assert os.stat("/srv/free/a").st_ino != before
    assert os.listdir("/srv/free") == ["a"]
    assert os.stat("/srv/free/a").st_size == 2 * MIB


def test_a_wrong_export_says_so(host: Host) -> None:
    result = host.pool(**nfs(source={"dir": "/srv/none"}))
    assert code(result) == "command_failed"
    assert "/srv/none" in result["error"]["command"]
    assert not mounted()


# --- root squash -----------------------------------------------------------------------------------------------------


def test_a_squashed_export_takes_volumes_of_a_declared_owner(host: Host) -> None:
    done(host.pool(**nfs("squashed")))
    result = host.volume(pool="shared", name="a.raw", capacity="1MiB")
    assert code(result) == "not_permitted"
    assert "owner: 64055" in result["error"]["hint"]
    for name, image in (("a.raw", "raw"), ("b.qcow2", "qcow2")):
        entry = {"pool": "shared", "name": name, "capacity": "1MiB", "format": image, "owner": 64055, "group": 64055}
        assert changed(host.volume(**entry))
        assert not changed(host.volume(**entry))
        status = os.stat(f"/srv/squashed/{name}")
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (64055, 64055, 0o600)
        assert changed(host.volume(**{**entry, "capacity": "2MiB"}))
        assert changed(host.volume(**{**entry, "capacity": "2MiB", "mode": "0640"}))
    assert sorted(os.listdir("/srv/squashed")) == ["a.raw", "b.qcow2"]
    assert changed(host.volume(pool="shared", name="a.raw", state="absent"))
    assert os.listdir("/srv/squashed") == ["b.qcow2"]
    assert code(host.volume(pool="shared", name="c.raw", capacity="1MiB", owner=1234)) == "not_permitted"
    made = host.pool(**nfs("squashed", state="deleted", allow=["nonempty"]))
    assert changed(made)
    assert os.listdir("/srv/squashed") == []


def test_a_squashed_export_that_everybody_may_write(host: Host) -> None:
    """Root is nobody there, and can give no file away."""
    done(host.pool(**nfs("open")))
    assert changed(host.volume(pool="shared", name="a.raw", capacity="1MiB"))
    assert os.stat("/srv/open/a.raw").st_uid == 65534
    assert changed(host.volume(pool="shared", name="b.raw", capacity="1MiB", owner=1234))
    assert os.stat("/srv/open/b.raw").st_uid == 1234
    assert not changed(host.volume(pool="shared", name="b.raw", capacity="1MiB", owner=1234))
    assert changed(host.volume(pool="shared", name="a.raw", state="absent"))
    assert os.listdir("/srv/open") == ["b.raw"]


# --- CIFS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_share_for_guests(host: Host, address: str) -> None:
    applied(host, **cifs(host=address))
    assert mounted()["source"].lower() == f"//{address}/pub"
    assert "sec=none" in mounted()["options"]
    entry = {"pool": "shared", "name": "a.qcow2", "capacity": "16MiB", "format": "qcow2"}
    assert changed(host.volume(**entry))
    assert not changed(host.volume(**entry))
    assert os.listdir("/srv/share") == ["a.qcow2"]
    assert changed(host.volume(pool="shared", name="a.qcow2", state="absent"))
    applied(host, name="shared", state="inactive")
    assert not mounted()


def test_a_share_with_a_password_that_shows_up_nowhere(host: Host, tmp_path: Path) -> None:
    auth = {"type": "cifs", "username": "guests", "secret": PASSWORD}
    strace = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=execve", "-o", str(tmp_path / "trace"), "-p"]
    with subprocess.Popen([*strace, str(os.getpid())], stderr=subprocess.DEVNULL) as tracer:
        time.sleep(1)
        result = host.pool(**cifs("priv", source={"auth": auth}))
        tracer.terminate()
    assert changed(result)
    assert "username=guests" in mounted()["options"]
    texts = [json.dumps(result), Path("/proc/self/mountinfo").read_text(), (tmp_path / "trace").read_text()]
    for path in [*tmp_path.rglob("*.xml"), Path("/run/mount/utab")]:
        if path.exists():
            texts.append(path.read_text())
    assert "mount" in texts[2]
    for text in texts:
        assert PASSWORD not in text.replace(json.dumps(auth), "")
        assert "pass,word" not in text.replace(json.dumps(auth), "") or text is texts[0]
    assert not changed(host.pool(name="shared"))
    assert changed(host.volume(pool="shared", name="a.raw", capacity="1MiB"))
    done(host.pool(name="shared", state="inactive"))
    wrong = host.pool(**cifs("priv", source={"auth": {**auth, "secret": "wrong"}}))
    assert code(wrong) == "command_failed"
    assert not mounted()


# --- automatic -------------------------------------------------------------------------------------------------------


def test_auto_is_nfs_first_and_then_what_is_there(host: Host) -> None:
    applied(host, **nfs(source={"format": "auto"}))
    assert mounted()["fstype"] == "nfs4"
    done(host.pool(name="shared", state="absent"))
    done(host.pool(**cifs(source={"format": "auto"})))
    assert mounted()["fstype"] == "cifs"
    assert not changed(host.pool(**cifs(source={"format": "auto"})))


# --- dead servers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cut_off(host: Host) -> Iterator[Any]:
    """Calls it to cut the servers off, and to let them answer again."""

    def cut(off: bool = True) -> None:
        run("iptables", "-A" if off else "-D", "INPUT", "-i", "lo", "-p", "tcp", "-m", "multiport", "--dports",
            "2049,445,111,20048", "-j", "DROP")  # fmt: skip

    state = {"off": False}

    def switch(off: bool = True) -> None:
        if state["off"] != off:
            cut(off)
            state["off"] = off

    yield switch
    switch(False)


def took(function: Any) -> float:
    """Seconds: how fast this guest is just now."""
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


@pytest.mark.parametrize("kind", ["nfs3", "nfs4", "cifs"])
def test_a_dead_server_ends_in_time_and_hides_no_other_pool(
    host: Host, cut_off: Any, tmp_path: Path, kind: str
) -> None:
    version = {"nfs3": "3", "nfs4": "4.2"}.get(kind)
    shared = cifs() if version is None else nfs(source={"protocol_version": version})
    done(host.pool(**shared))
    done(host.pool(name="images", type="dir", path=str(tmp_path / "images")))
    done(host.pool(name="inside", type="dir", path=f"{PATH}/inside", mode="0755"))
    pace = took(host.pool_info)
    cut_off()
    begin = time.monotonic()
    records = {record["name"]: record for record in host.pool_info(timeout=3)}
    assert time.monotonic() - begin < 5 + 2 * pace
    assert records["images"]["state"] == "active"
    assert "capacity" in records["images"]
    for name in ("shared", "inside"):
        assert (records[name]["state"], records[name]["error"]["code"]) == ("unknown", "deadline"), records[name]
    begin = time.monotonic()
    assert changed(host.volume(pool="images", name="a.raw", capacity="1MiB", timeout=3))
    assert changed(host.volume(pool="images", name="a.raw", state="absent", timeout=3))
    assert changed(host.pool(name="more", type="dir", path=str(tmp_path / "more"), timeout=3))
    assert code(host.pool(**shared, timeout=3)) == "deadline"
    assert code(host.volume(pool="shared", name="a.raw", capacity="1MiB", timeout=3)) in ("deadline", "pool_inactive")
    assert time.monotonic() - begin < 20 + 10 * pace
    assert code(host.pool(name="shared", state="inactive", timeout=3)) == "pool_in_use"  # by the one inside
    assert changed(host.pool(name="inside", state="inactive", timeout=3))
    begin = time.monotonic()
    stopped = host.pool(name="shared", state="inactive", timeout=3)
    assert time.monotonic() - begin < 8 + 4 * pace
    if stopped.get("failed"):
        assert code(stopped) == "deadline"
        assert "umount -f" in stopped["error"]["hint"]
        assert mounted()
    cut_off(False)
    done(host.pool(name="shared", state="inactive", timeout=60))
    assert not mounted()


def test_mounting_from_a_dead_server_ends_in_time(host: Host, cut_off: Any) -> None:
    pace = took(lambda: host.pool(**nfs(state="present")))
    done(host.pool(**nfs(state="absent")))
    cut_off()
    for shared in (nfs(), cifs(), nfs(source={"format": "auto"})):
        begin = time.monotonic()
        result = host.pool(**{**shared, "name": "dead"}, timeout=3)
        assert time.monotonic() - begin < 5 + 3 * pace
        assert code(result) == "deadline"
        assert result["changed"]
        assert not mounted()
        assert "mount." not in run("ps", "-eo", "comm")
        done(host.pool(name="dead", state="absent"))


# --- several hosts ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["nfs", "cifs"])
def two_hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Far]]:
    """Two clients of one server, each with a network and a name of its own."""
    running = []
    for number, name in enumerate(("one", "two"), start=1):
        sh(f"""ip netns add {name}
            ip link add far{number} type veth peer name near{number} netns {name}
            ip address add 10.78.{number}.1/24 dev far{number}
            ip link set far{number} up
            ip -n {name} address add 10.78.{number}.2/24 dev near{number}
            ip -n {name} link set near{number} up
            ip -n {name} link set lo up
            exportfs -o rw,no_root_squash,insecure,no_subtree_check,fsid=1 10.78.{number}.2:/srv/free""")
        image = tmp_path / f"{name}.raw"
        image.write_bytes(bytes([number]) * (4 * MIB))
        declared = nfs if request.param == "nfs" else cifs
        running.append(Far(name, declared(host=f"10.78.{number}.1")["source"], image, tmp_path / name))
    yield running
    for far in running:
        far.kill()
    for name in ("one", "two"):
        run("ip", "netns", "delete", name)


def test_two_hosts_make_one_volume(request: pytest.FixtureRequest, two_hosts: list[Far]) -> None:
    """One wins whole, and the other is told, or finds it; neither cleans up what the other one is making."""
    served = "/srv/free" if "nfs" in request.node.name else "/srv/share"
    for far in two_hosts:
        assert far.answer() == [True, ""]
    told = []
    for turn in range(5):
        name = f"v{turn}.raw"
        for far in two_hosts:
            far.tell(name)
        results = [far.answer() for far in two_hosts]
        winners = [number for number, (made, _code) in enumerate(results, start=1) if made]
        assert len(winners) == 1, results
        assert {code for _made, code in results} <= {"", "changed_meanwhile"}, results
        told += [code for _made, code in results if code]
        assert Path(f"{served}/{name}").read_bytes() == bytes([winners[0]]) * (4 * MIB)
    assert sorted(os.listdir(served)) == [f"v{turn}.raw" for turn in range(5)]
    assert told, "they never met"
    assert [far.finish() for far in two_hosts] == [0, 0]
