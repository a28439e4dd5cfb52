# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One of several hosts that share an export: makes a volume of each name that it reads, and prints what came of it.

Run in network, mount and UTS namespaces of its own: a network has its own NFS client, which knows no other's locks.
"""

from __future__ import annotations

import json
import socket
import sys

from .hosts import Host


def main(root: str, server: str, image: str) -> None:
    host = Host(f"native:///?root={root}")
    source = {"host": server, "dir": "/srv/free", "format": "nfs"}
    started = host.pool(name="shared", type="netfs", path="/srv/pool", source=source)
    print(json.dumps([started["changed"], started.get("msg", "")]), flush=True)
    for line in sys.stdin:
        made = host.volume(pool="shared", name=line.strip(), source={"path": image, "format": "raw"}, format="raw")
        print(json.dumps([made["changed"], made.get("error", {}).get("code", "")]), flush=True)
    host.pool(name="shared", state="absent")


if __name__ == "__main__":
    socket.sethostname(sys.argv[1])
    main(*sys.argv[2:])
