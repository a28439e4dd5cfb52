# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cases of test_netfs_gluster.py: run in network, mount and process namespaces of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.integration.calling import call

ADDRESS = "127.0.0.2"  # glusterd refuses 127.0.0.1 as the host of a brick


def run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def start_server(directory: Path) -> list[int]:
    """The processes that serve the volume gv0."""
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for name in ("/run/lock", "/run/gluster", directory / "work", directory / "run", directory / "brick"):
        os.makedirs(name)
    volfile = directory / "glusterd.vol"
    volfile.write_text(
        f"""volume management
    type mgmt/glusterd
    option working-directory {directory}/work
    option run-directory {directory}/run
    option transport-type socket
    option transport.socket.bind-address {ADDRESS}
    option transport.socket.listen-port 24007
    option ping-timeout 0
    option event-threads 1
end-volume
""",
        encoding="utf-8",
    )
    with open(directory / "out", "wb") as out:
        server = subprocess.Popen(
            ["glusterd", "-f", str(volfile), "--no-daemon", "-l", str(directory / "log")], stdout=out, stderr=out
        )
    end = time.monotonic() + 60
    while "Number of Peers" not in (run("gluster", "--mode=script", "peer", "status", check=False)):
        assert time.monotonic() < end, (directory / "out").read_text()
        time.sleep(0.1)
    run("gluster", "--mode=script", "volume", "create", "gv0", f"{ADDRESS}:{directory}/brick", "force")
    run("gluster", "--mode=script", "volume", "set", "gv0", "network.ping-timeout", "4")
    run("gluster", "--mode=script", "volume", "start", "gv0")
    bricks = run("pgrep", "-x", "glusterfsd").split()
    return [server.pid, *map(int, bricks)]


class Cases:
    def __init__(self, root: Path, servers: list[int]) -> None:
        self.root, self.servers = root, servers
        self.path = str(root / "pool")
        self.brick = root / "gluster" / "brick"

    def pool(self, **params: Any) -> dict[str, Any]:
        return call("storage_pool", uri=f"native:///?root={self.root}/host", **params)

    def volume(self, **params: Any) -> dict[str, Any]:
        return call("storage_volume", uri=f"native:///?root={self.root}/host", pool="shared", **params)

    def info(self, **params: Any) -> dict[str, dict[str, Any]]:
        told = call("storage_pool_info", uri=f"native:///?root={self.root}/host", **params)
        return {record["name"]: record for record in told["pools"]}

    def shared(self, directory: str = "gv0", kind: str = "glusterfs", **more: Any) -> dict[str, Any]:
        source = {"host": ADDRESS, "dir": directory, "format": kind}
        return {"name": "shared", "type": "netfs", "path": self.path, "source": source, **more}

    def mounted(self) -> dict[str, str]:
        said = run("findmnt", "--json", "--output", "SOURCE,FSTYPE,OPTIONS", "--mountpoint", self.path, check=False)
        return json.loads(said)["filesystems"][0] if said else {}

    def test_the_directory_is_the_name_of_the_volume(self) -> None:
        """With a slash before it or without, as libvirt has it."""
        for directory, kind in (("gv0", "glusterfs"), ("/gv0", "glusterfs"), ("gv0", "auto")):
            assert changed(self.pool(**self.shared(directory, kind))), directory
            seen = self.mounted()
            assert (seen["source"], seen["fstype"]) == (f"{ADDRESS}:{directory}", "fuse.glusterfs")
            assert {"nodev", "nosuid", "noexec"} <= set(seen["options"].split(","))
            assert not changed(self.pool(**self.shared(directory, kind)))
            done(self.pool(name="shared", state="absent"))
            assert not self.mounted()

    def test_volumes(self) -> None:
        os.rmdir(self.path)
        done(self.pool(**self.shared()))
        for entry in ({"name": "a.raw", "capacity": "1MiB", "owner": 107, "group": 107, "mode": "0640"},
                      {"name": "b.qcow2", "capacity": "16MiB", "format": "qcow2"}):  # fmt: skip
            assert changed(self.volume(**entry))
            assert not changed(self.volume(**entry))
        status = os.stat(self.brick / "a.raw")
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (107, 107, 0o640)
        assert json.loads(run("qemu-img", "info", "--output=json", f"{self.path}/b.qcow2"))["format"] == "qcow2"
        assert changed(self.volume(name="a.raw", capacity="2MiB", recreate="always"))
        assert changed(self.volume(name="a.raw", state="absent"))
        assert visible(self.brick) == ["b.qcow2"]
        assert changed(self.pool(**self.shared(state="deleted", allow=["nonempty"])))
        assert visible(self.brick) == []
        assert not os.path.exists(self.path)

    def test_a_mount_that_was_there_is_adopted(self) -> None:
        os.makedirs(self.path)
        run("mount", "-t", "glusterfs", f"{ADDRESS}:/gv0", self.path)
        done(self.pool(**self.shared()))
        assert not changed(self.pool(**self.shared()))
        done(self.pool(name="shared", state="inactive"))
        assert self.mounted()
        done(self.pool(name="shared", state="active"))
        done(self.pool(name="shared", state="absent", allow=["stop_adopted"]))
        assert not self.mounted()

    def test_no_such_volume(self) -> None:
        result = self.pool(**self.shared("none", timeout=20))
        assert result["error"]["code"] in ("command_failed", "deadline"), result
        assert not self.mounted()
        done(self.pool(name="shared", state="absent"))

    def test_a_dead_server_hides_no_other_pool(self) -> None:
        """The last case: its server is gone then."""
        done(self.pool(**self.shared()))
        done(self.pool(name="images", type="dir", path=str(self.root / "images")))
        for pid in self.servers:
            os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        records = self.info(timeout=2)
        assert time.monotonic() - begin < 8
        assert (records["images"]["state"], records["shared"]["state"]) == ("active", "unknown"), records
        assert records["shared"]["error"]["code"] == "deadline"
        begin = time.monotonic()
        done(self.pool(name="more", type="dir", path=str(self.root / "more"), timeout=2))
        assert self.pool(**self.shared(timeout=2))["error"]["code"] == "deadline"
        stopped = self.pool(name="shared", state="inactive", timeout=2)
        assert time.monotonic() - begin < 20
        if stopped.get("failed"):
            assert "umount -f" in stopped["error"]["hint"], stopped
        for pid in self.servers:
            os.kill(pid, signal.SIGCONT)
        done(self.pool(name="shared", state="inactive"))
        assert not self.mounted()


def visible(brick: Path) -> list[str]:
    return sorted(name for name in os.listdir(brick) if name != ".glusterfs")


def done(result: dict[str, Any]) -> dict[str, Any]:
    assert "failed" not in result, result
    assert not [text for text in result["warnings"] if "verification" in text], result["warnings"]
    return result


def changed(result: dict[str, Any]) -> bool:
    return bool(done(result)["changed"])


def main() -> None:
    root = Path(sys.argv[1])
    os.environ.pop("PYTHONPATH", None)  # glusterd runs another Python
    cases = Cases(root, start_server(root / "gluster"))
    for name in [name for name in dir(cases) if name.startswith("test_")]:
        if not name.startswith("test_a_dead"):
            print(name, flush=True)
            getattr(cases, name)()
    cases.test_a_dead_server_hides_no_other_pool()
    print("all cases passed")


if __name__ == "__main__":
    main()
