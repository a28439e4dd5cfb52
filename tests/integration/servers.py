# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Storage servers in user space: NFS-Ganesha with rpcbind, glusterd, smbd, all real.

They live in a network, mount and process namespace of their own, whose loopback device is all the network that they
have: nothing outside reaches them. All of them end with it, and it ends with the process that made it. What asks them
is run inside (``Namespace.call``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOST, GLUSTER_HOST = "127.0.0.1", "127.0.0.2"  # a Gluster brick on 127.0.0.1 is refused
USER, PASSWORD = "root", 'se%cret "x\\'
_TOOLS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "rpcbind": "rpcbind",
    "showmount": "nfs-common",
    "ganesha.nfsd": "nfs-ganesha-mem",
    "glusterd": "glusterfs-server",
    "gluster": "glusterfs-server",
    "smbd": "samba",
    "smbclient": "smbclient",
}
_HOLD = """
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/rpcbind /run/ganesha /run/gluster /run/samba /run/lock
echo ready
exec sleep infinity
"""
#: What others mount and unmount is mounted and unmounted here too: nothing is kept in use by a copy.
_NAMESPACE = ("unshare", "--net", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child")
_GANESHA = """
NFS_CORE_PARAM {{ Protocols = 3, 4; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSV4 {{ Graceless = true; RecoveryRoot = "{root}/recovery"; }}
{exports}
LOG {{ Default_Log_Level = EVENT; }}
"""
_EXPORT = (
    'EXPORT {{ Export_Id = {number}; Path = "{path}"; Pseudo = "/{number}"; Access_Type = RW; SecType = sys; '
    "Protocols = 3, 4; Transports = TCP; FSAL {{ Name = MEM; }} {clients} }}"
)
_CLIENTS = "CLIENT {{ Clients = {}; Access_Type = RO; }}"
#: What the NFS server exports, and to whom.
EXPORTS: dict[str, tuple[str, ...]] = {
    "/export/images": (),
    "/export/with  two spaces": ("127.0.0.1/32", "*.example.com", "2001:db8::/64"),
    "/export/Bildär": (),
}
_GLUSTERD = """
volume management
    type mgmt/glusterd
    option working-directory {root}/work
    option run-directory {root}/run
    option transport-type socket
    option transport.socket.bind-address {host}
    option transport.socket.listen-port 24007
end-volume
"""
VOLUMES = {"gv0": True, "gv-stopped": False}  #: Gluster volumes, and whether they are started
_SMB = """
[global]
  server role = standalone server
  private dir = {root}/private
  state directory = {root}/state
  cache directory = {root}/cache
  lock directory = {root}/lock
  pid directory = {root}/pid
  ncalrpc dir = {root}/ncalrpc
  log file = {root}/log.%m
  passdb backend = tdbsam
  map to guest = {guests}
  restrict anonymous = {restrict}
  load printers = no
  printcap name = /dev/null
  disable spoolss = yes
  disable netbios = yes
  dos charset = CP850
[images]
  comment = images | of guests
  path = {root}
  guest ok = yes
[With space ü]
  path = {root}
[archive$]
  path = {root}
[print$]
  path = {root}
"""
SHARES = {"images": "images | of guests", "With space ü": None, "archive$": None}
# Runs a module with the parameters that it reads, as tests/integration/calling.py does.
_CALL = """
import importlib.util, json, os, sys
sys.path.insert(0, os.environ["ANSIBLE_COLLECTIONS_PATH"])
sys.path += json.loads(os.environ["MORE_PATHS"])
spec = importlib.util.spec_from_file_location("calling", sys.argv[1])
calling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(calling)
module, check, params = json.load(sys.stdin)
print(json.dumps(calling.call(module, check, **params)))
"""


def missing() -> str:
    """Why there can be no servers here; empty when there can be."""
    if os.geteuid() != 0:
        return "needs root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    gone = [tool for tool in _TOOLS if shutil.which(tool, path=path) is None]
    packages = " ".join(sorted({_TOOLS[tool] for tool in gone}))
    return f"{' and '.join(gone)} is not installed (Debian: apt-get install {packages})" if gone else ""


class Namespace:
    """A network of its own without any server. ``root`` is for the servers' files; paths of sockets are short."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="servers-", dir="/tmp"))
        self._servers: list[subprocess.Popen[bytes]] = []
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *_NAMESPACE, "sh", "-c", _HOLD],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        if self._holder.stdout is None or self._holder.stdout.readline() != b"ready\n":
            raise OSError("no namespace of its own")

    @property
    def network(self) -> list[str]:
        """What a command is put into this network with; it sees the machine's files and processes."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]

    def start(self, *argv: str | Path) -> None:
        """A server. It ends with the namespace."""
        own = f"/proc/{self._holder.pid}/ns"
        into = ["nsenter", f"--net={own}/net", f"--mount={own}/mnt", f"--pid={own}/pid_for_children", "--"]
        with (self.root / "servers.log").open("ab") as log:
            server = subprocess.Popen(
                [*into, *map(str, argv)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._servers.append(server)

    def run(self, *argv: str | Path, text: str = "", check: bool = True, whole: bool = False) -> str:
        """Standard output. ``whole``: with the servers' own /run too."""
        into = self.network[:-1] + ([f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"] if whole else ["--"])
        done = subprocess.run(
            [*into, *map(str, argv)], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode != 0:
            raise OSError(f"{argv}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def until(self, *argv: str, shows: str, whole: bool = False) -> None:
        deadline = time.monotonic() + 60
        while shows not in self.run(*argv, check=False, whole=whole):
            if time.monotonic() > deadline:
                raise OSError(f"{argv}: never shows {shows}: {(self.root / 'servers.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def call(self, module: str, check: bool = False, **params: Any) -> dict[str, Any]:
        """The result of a module that runs in this network."""
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
            "MORE_PATHS": json.dumps([path for path in sys.path if "/binding/" in path]),
        }
        done = subprocess.run(
            [*self.network, sys.executable, "-c", _CALL, str(HERE / "calling.py")],
            input=json.dumps([module, check, params]), env=environment, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise OSError(done.stderr)
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def close(self) -> None:
        self._holder.kill()
        for process in (self._holder, *self._servers):
            process.wait(30)
        if self._holder.stdout is not None:
            self._holder.stdout.close()
        shutil.rmtree(self.root, ignore_errors=True)


class Servers(Namespace):
    def start_nfs(self) -> None:
        root = self.root / "nfs"
        (root / "recovery").mkdir(parents=True)
        exports = [
            _EXPORT.format(number=number, path=path, clients=_CLIENTS.format(", ".join(clients)) if clients else "")
            for number, (path, clients) in enumerate(EXPORTS.items(), 1)
        ]
        (root / "ganesha.conf").write_text(_GANESHA.format(root=root, exports="\n".join(exports)), encoding="utf-8")
        # rpcbind adds 127.0.0.1 by itself, and would not bind it twice.
        self.start("rpcbind", "-f", "-h", "127.0.0.9")
        self.until("rpcinfo", "-p", HOST, shows="portmapper")
        self.start("ganesha.nfsd", "-F", "-f", root / "ganesha.conf", "-L", root / "log", "-p", "/run/ganesha.pid")
        self.until("showmount", "-e", "--no-headers", HOST, shows="/export/")

    def start_gluster(self) -> None:
        root = self.root / "gluster"
        for name in ("work", "run", *(f"brick/{name}" for name in VOLUMES)):
            (root / name).mkdir(parents=True)
        (root / "glusterd.vol").write_text(_GLUSTERD.format(root=root, host=GLUSTER_HOST), encoding="utf-8")
        self.start("glusterd", "-f", root / "glusterd.vol", "--no-daemon", "-l", root / "log")
        gluster = ("gluster", "--mode=script", "--log-file=/dev/null")
        self.until(*gluster, "pool", "list", shows="UUID", whole=True)
        for name, started in VOLUMES.items():
            brick = f"{GLUSTER_HOST}:{root}/brick/{name}"
            self.run(*gluster, "volume", "create", name, brick, "force", whole=True)
            if started:
                self.run(*gluster, "volume", "start", name, whole=True)

    def start_cifs(self, guests: bool = True) -> None:
        root = self.root / "cifs"
        for name in ("private", "state", "cache", "lock", "pid", "ncalrpc"):
            (root / name).mkdir(parents=True)
        settings = _SMB.format(root=root, guests="Bad User" if guests else "Never", restrict=0 if guests else 2)
        (root / "smb.conf").write_text(settings, encoding="utf-8")
        self.run("smbpasswd", "-c", root / "smb.conf", "-a", "-s", USER, text=f"{PASSWORD}\n{PASSWORD}\n", whole=True)
        self.start("smbd", "-F", "--no-process-group", "-s", root / "smb.conf")
        (root / "account").write_text(f"username={USER}\npassword={PASSWORD}\n", encoding="utf-8")
        (root / "account").chmod(0o600)
        self.until("smbclient", "-A", str(root / "account"), "-L", HOST, "-g", shows="Disk|images")
