# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""storage_pool_sources with real servers: NFS-Ganesha, glusterd and smbd; natively and through a real libvirtd.

Not proven here: servers in another network, kernels' NFS servers, Windows hosts, Gluster of several servers.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import daemon as private_daemon
from .servers import EXPORTS, GLUSTER_HOST, HOST, PASSWORD, SHARES, USER, VOLUMES, Namespace, Servers, missing

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root, pytest.mark.xdist_group("servers")]

MODULE = "storage_pool_sources"
_LISTEN = """
import socket, time
listening = [socket.create_server(("127.0.0.1", port)) for port in (111, 445, 2049, 24007)]
time.sleep(600)
"""


def sources(result, *, fields=("dir",)):
    assert "failed" not in result, result
    assert result["changed"] is False
    return [tuple(each["source"].get(field) for field in fields) for each in result["sources"]]


def code(result):
    assert result.get("failed"), result
    assert result["changed"] is False
    assert result["error"]["hint"], result["error"]
    return result["error"]["code"]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"native:///?root={tmp_path}"


def netfs(servers, uri, protocol=None, host=HOST, **params):
    source = {"host": host, "format": protocol} if protocol else {"host": host}
    return servers.call(MODULE, type="netfs", uri=uri, **{"source": source, **params})


# -- natively -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [HOST, "::1", "localhost"])
def test_exports(servers, uri, host):
    result = netfs(servers, uri, "nfs", host)
    assert sources(result, fields=("host", "dir", "format")) == [(host, path, "nfs") for path in EXPORTS]
    assert [tuple(each["clients"]) for each in result["sources"]] == list(EXPORTS.values())
    assert all(each["free"] for each in result["sources"])


@pytest.mark.thorough
def test_gluster_volumes_of_both_types(servers, uri):
    result = netfs(servers, uri, "glusterfs", GLUSTER_HOST)
    assert dict(zip((each["source"]["dir"] for each in result["sources"]), (e["free"] for e in result["sources"]))) == (
        VOLUMES
    )
    result = servers.call(MODULE, type="gluster", uri=uri, source={"host": GLUSTER_HOST}, free=True)
    assert sources(result, fields=("host", "name", "dir")) == [(GLUSTER_HOST, "gv0", "/")]


def test_shares_as_a_guest(servers, uri):
    result = netfs(servers, uri, "cifs")
    assert sources(result, fields=("dir", "format")) == [(name, "cifs") for name in SHARES]
    assert [each.get("comment") for each in result["sources"]] == list(SHARES.values())


@pytest.mark.parametrize("user", [USER, f"WORKGROUP\\{USER}"])
def test_shares_with_an_account(servers, uri, user):
    result = netfs(servers, uri, "cifs", username=user, password=PASSWORD)
    assert sources(result) == [(name,) for name in SHARES]
    assert PASSWORD not in str(result).replace("\\\\", "\\")


def test_a_wrong_password(servers, uri):
    result = netfs(servers, uri, "cifs", username=USER, password="wrong")
    assert code(result) == "command_failed"
    assert "LOGON_FAILURE" in result["error"]["stderr"]


def test_everything_of_a_host(servers, uri):
    """It serves no Gluster at this address, which is no news."""
    result = netfs(servers, uri)
    assert sources(result) == [(path,) for path in (*EXPORTS, *SHARES)]
    assert [(each["format"], each["code"]) for each in result["unanswered"]] == [("glusterfs", "source_missing")]
    assert result["warnings"] == []


def test_only_what_is_like_the_source(servers, uri):
    like = {"host": HOST, "dir": "/export/images/"}
    assert sources(netfs(servers, uri, source=like)) == [("/export/images",)]


@pytest.mark.thorough
def test_a_source_can_be_given_to_storage_pool(servers, uri):
    """As it stands; and afterwards it is part of that pool."""
    for number, found in enumerate(netfs(servers, uri, "nfs")["sources"]):
        pool = {"name": f"p{number}", "type": found["type"], "path": f"/nowhere/p{number}", "source": found["source"]}
        made = servers.call("storage_pool", uri=uri, state="inactive", **pool)
        assert made["changed"] is True
        assert servers.call("storage_pool", uri=uri, state="inactive", **pool)["changed"] is False
    after = netfs(servers, uri, "nfs")
    assert [each["why_not"] for each in after["sources"]] == [
        [f"part of pool p{number} already"] for number in range(len(EXPORTS))
    ]
    assert netfs(servers, uri, "nfs", free=True)["sources"] == []
    # What a pool has is there: the play runs again.
    wait = [each["source"] for each in after["sources"]]
    assert servers.call(MODULE, type="netfs", uri=uri, wait_for=wait, timeout=5)["missing"] == []


def test_nobody_serves_nfs_there(servers, uri):
    alone = {"type": "gluster", "source": {"host": "127.0.0.3"}}
    assert code(servers.call(MODULE, uri=uri, **alone)) == "source_missing"


def test_one_host_that_serves_nothing_hides_no_other(servers, uri):
    hosts = {"hosts": ["127.0.0.3", GLUSTER_HOST], "format": "glusterfs"}
    result = netfs(servers, uri, source=hosts)
    assert len(result["sources"]) == len(VOLUMES)
    assert any("127.0.0.3" in text for text in result["warnings"])


@pytest.mark.parametrize("check", [False, True])
def test_check_mode_is_the_same_where_all_is_there(servers, uri, check):
    wait = [{"host": HOST, "dir": path, "format": "nfs"} for path in EXPORTS]
    result = servers.call(MODULE, check, type="netfs", uri=uri, wait_for=wait)
    assert sources(result) == [(path,) for path in EXPORTS]


@pytest.mark.thorough
def test_what_is_missing_is_named(servers, uri):
    wait = [{"host": HOST, "dir": path, "format": "nfs"} for path in ("/export/images", "/export/none")]
    began = time.monotonic()
    result = servers.call(MODULE, type="netfs", uri=uri, wait_for=wait, timeout=3)
    assert 2 <= time.monotonic() - began < 20
    assert code(result) == "source_missing"
    assert result["error"]["subject"] == f"{HOST}:/export/none (nfs)"
    assert result["missing"] == [{"source": wait[1], "why": "it is not there"}]
    assert "/export/images" not in result["error"]["message"]


def test_in_check_mode_what_is_missing_is_a_warning_at_once(servers, uri):
    wait = [{"host": HOST, "dir": "/export/none", "format": "nfs"}]
    began = time.monotonic()
    result = servers.call(MODULE, True, type="netfs", uri=uri, wait_for=wait, timeout=60)
    assert time.monotonic() - began < 30
    assert "failed" not in result
    assert any("/export/none" in text for text in result["warnings"])
    assert result["missing"]


def test_a_stopped_gluster_volume_is_not_free(servers, uri):
    wait = [{"host": GLUSTER_HOST, "name": "gv-stopped"}]
    result = servers.call(MODULE, type="gluster", uri=uri, wait_for=wait, timeout=2)
    assert code(result) == "source_not_free"
    assert result["missing"][0]["why"] == "the volume is not started (Created)"


@pytest.mark.thorough
def test_what_comes_while_it_is_waited_for(servers, uri):
    """A volume that is started meanwhile."""
    name = "gv-late"
    brick = servers.root / "gluster" / "brick" / name
    brick.mkdir()
    gluster = ("gluster", "--mode=script", "--log-file=/dev/null", "volume")

    def make() -> None:
        time.sleep(2)
        servers.run(*gluster, "create", name, f"{GLUSTER_HOST}:{brick}", "force", whole=True)
        servers.run(*gluster, "start", name, whole=True)

    thread = threading.Thread(target=make)
    thread.start()
    try:
        wait = [{"host": GLUSTER_HOST, "name": name}]
        result = servers.call(MODULE, type="gluster", uri=uri, wait_for=wait, timeout=60)
        assert "failed" not in result
    finally:
        thread.join()
        servers.run(*gluster, "stop", name, whole=True)
        servers.run(*gluster, "delete", name, whole=True)


def test_looking_leaves_nothing_behind(servers, uri, tmp_path):
    """No file is opened for writing but what goes away with the process, and no directory made."""
    trace = tmp_path / "trace"
    tools = [
        ["showmount", "--no-headers", "--exports", "--", HOST],
        [
            "gluster",
            f"--remote-host={GLUSTER_HOST}",
            "--mode=script",
            "--xml",
            "--log-file=/dev/null",
            "volume",
            "info",
        ],
        ["smbclient", "--grepable", "--option=name resolve order=host", f"--list={HOST}", "--no-pass"],
    ]
    for tool in tools:
        servers.run("strace", "-f", "-e", "trace=openat,creat,mkdir,mkdirat,rename,symlink", "-o", trace, *tool)
        lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
        made = [line for line in lines if " = -1 " not in line and ("O_CREAT" in line or "openat" not in line)]
        made = [line for line in made if "(" in line and "/dev/null" not in line]
        assert made == [], tool


# -- servers that are dead or refuse ------------------------------------------------------------------------------


@pytest.fixture
def dead() -> Iterator[Namespace]:
    """Servers that take connections and never answer."""
    if missing():
        pytest.skip(missing())
    made = Namespace()
    try:
        made.start(shutil.which("python3") or "python3", "-c", _LISTEN)
        made.until("cat", "/proc/net/tcp", shows=":006F")
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("protocol", ["nfs", "glusterfs", "cifs", None])
def test_a_dead_server_ends_at_the_deadline(dead, uri, protocol):
    began = time.monotonic()
    assert code(netfs(dead, uri, protocol, timeout=2)) == "deadline"
    assert time.monotonic() - began < 20


@pytest.mark.thorough
def test_of_a_dead_server_nothing_can_be_told(dead, uri):
    wait = [{"host": HOST, "dir": "/export/images", "format": "nfs"}]
    result = dead.call(MODULE, type="netfs", uri=uri, wait_for=wait, timeout=2)
    assert code(result) == "deadline"
    assert f"{HOST}:/export/images" in result["error"]["message"]
    assert code(dead.call(MODULE, True, type="netfs", uri=uri, wait_for=wait, timeout=2)) == "deadline"


@pytest.mark.thorough
def test_a_server_that_lets_no_guest_ask(uri):
    if missing():
        pytest.skip(missing())
    made = Servers()
    try:
        made.start_cifs(guests=False)
        assert code(netfs(made, uri, "cifs")) == "command_failed"
        result = netfs(made, uri, "cifs", username=USER, password=PASSWORD)
        assert sources(result) == [(name,) for name in SHARES]
    finally:
        made.close()


# -- through a daemon ---------------------------------------------------------------------------------------------


class _Inside(private_daemon.Daemon):
    """A libvirtd in the servers' network."""

    def __init__(self, files: Path, servers: Servers) -> None:
        super().__init__(files)
        self.prefix = servers.network


@pytest.fixture(scope="module")
def daemon(servers, tmp_path_factory) -> Iterator[private_daemon.Daemon]:
    why = private_daemon.missing()
    if why:
        pytest.skip(why)
    made = _Inside(tmp_path_factory.mktemp("daemon"), servers)
    made.start()
    yield made
    made.close()


@pytest.fixture
def through(daemon) -> Iterator[str]:
    yield daemon.uri
    daemon.remove_pools()


@pytest.mark.thorough
@pytest.mark.libvirt_binding
def test_the_daemon_is_asked_and_shows_the_same(servers, through, daemon, tmp_path):
    result = netfs(servers, through, "nfs")
    assert sources(result, fields=("host", "dir", "format")) == [(HOST, path, "nfs") for path in EXPORTS]
    assert all("clients" not in each for each in result["sources"])
    assert result["engine"]["name"] == "libvirt"
    spec = tmp_path / "host.xml"
    spec.write_text(f"<source><host name='{HOST}'/></source>", encoding="utf-8")
    told = daemon.virsh("find-storage-pool-sources", "netfs", spec)
    assert all(f"<dir path='{path}'/>" in told for path in EXPORTS)


@pytest.mark.thorough
@pytest.mark.libvirt_binding
def test_what_the_daemon_can_not_ask_is_asked_beside_it(servers, through):
    result = netfs(servers, through)
    assert sources(result) == [(path,) for path in (*EXPORTS, *SHARES)]


@pytest.mark.thorough
@pytest.mark.libvirt_binding
def test_its_pools_have_their_sources(servers, through):
    pool = {"name": "exported", "type": "netfs", "path": "/nowhere", "source": netfs(servers, through)["sources"][0]}
    pool["source"] = pool["source"]["source"]
    assert servers.call("storage_pool", uri=through, state="inactive", **pool)["changed"]
    assert netfs(servers, through)["sources"][0]["why_not"] == ["part of pool exported already"]


@pytest.mark.thorough
@pytest.mark.libvirt_binding
def test_the_daemon_finds_nothing(servers, through):
    assert code(netfs(servers, through, "nfs", "127.0.0.3x")) == "daemon_failed"


@pytest.mark.libvirt_binding
def test_gluster_volumes_through_a_daemon(servers, through):
    """Asked by the daemon where it has the driver, and else beside it."""
    result = servers.call(MODULE, type="gluster", uri=through, source={"host": GLUSTER_HOST})
    assert sorted(sources(result, fields=("host", "name", "dir"))) == sorted(
        (GLUSTER_HOST, name, "/") for name in VOLUMES
    )


@pytest.mark.libvirt_binding
@pytest.mark.parametrize("kind", ["disk", "fs"])
def test_disks_are_looked_at_beside_it(servers, through, kind):
    result = servers.call(MODULE, type=kind, uri=through)
    assert "failed" not in result, result
    nodes = {each["path"] for each in result["sources"]}
    assert nodes or not os.listdir("/sys/class/block")


@pytest.mark.libvirt_binding
@pytest.mark.parametrize(("kind", "source"), [("disk", None), ("netfs", {"host": HOST, "format": "cifs"})])
def test_nobody_can_look_at_disks_of_another_host(servers, kind, source):
    """libvirt's test driver stands for a daemon far away: it has no process of its own."""
    assert code(servers.call(MODULE, type=kind, uri="test:///default", source=source)) == "daemon_cannot"
