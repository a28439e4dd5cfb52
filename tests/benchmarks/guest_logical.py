# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A volume group of many volumes: what storage_volume_info takes, beside a daemon's pool-refresh and vol-list.

It takes the first two of the lab's disks, so it runs in a guest of the lab, from the root of the collection there:

    dev/lab start bench && dev/lab push bench
    dev/lab shell bench 'cd ansible_collections/virt/storage &&
        PYTHONPATH=.:/root:/root/ansible-core python3 tests/benchmarks/guest_logical.py'
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.calling import call

GROUP, DISKS = "bench", ["/dev/vdb", "/dev/vdc"]
_VOLUME = """
  many{number:04} {{
   id = "{uuid}"
   status = ["READ", "WRITE", "VISIBLE"]
   flags = []
   segment_count = 1
   segment1 {{
    start_extent = 0
    extent_count = 1
    type = "striped"
    stripe_count = 1
    stripes = ["pv{device}", {extent}]
   }}
  }}
"""


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def fill(count: int) -> None:
    """All at once: what vgcfgrestore(8) makes of a description."""
    run("vgcreate", "-s", "1M", GROUP, *DISKS)
    with tempfile.TemporaryDirectory() as directory:
        backup = Path(directory, "backup")
        run("vgcfgbackup", "-f", str(backup), GROUP)
        text = backup.read_text(encoding="utf-8")
        volumes = "".join(
            _VOLUME.format(number=n, uuid=f"000000-0000-0000-0000-0000-0000-{n:06}", device=n % 2, extent=n // 2)
            for n in range(count)
        )
        at = text.index("\n\t}\n", text.index("physical_volumes")) + len("\n\t}\n")
        backup.write_text(f"{text[:at]}\n logical_volumes {{{volumes}}}{text[at:]}", encoding="utf-8")
        run("vgcfgrestore", "-f", str(backup), GROUP)


def timed(function: Callable[[], Any]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    fill(given.count)
    # Hundreds of devices at once keep udev busy for minutes; LVM can make their nodes itself.
    run("systemctl", "stop", *(f"systemd-udevd{unit}" for unit in ("-control.socket", "-kernel.socket", ".service")))
    run("vgchange", "-ay", "--config", "activation { udev_sync=0 udev_rules=0 verify_udev_operations=1 }", GROUP)
    uri = f"native:///?root={tempfile.mkdtemp()}"
    started = call("storage_pool", uri=uri, name=GROUP, type="logical")
    if started.get("failed"):
        sys.exit(started["msg"])
    run("systemctl", "start", "libvirtd")
    run("virsh", "pool-create-as", GROUP, "logical", "--source-name", GROUP)
    plans: dict[str, Callable[[], Any]] = {
        "storage_volume_info": lambda: call("storage_volume_info", uri=uri, pool=GROUP),
        "one by name": lambda: call("storage_volume_info", uri=uri, pool=GROUP, name="many0001"),
        "lvm fullreport alone": lambda: run("lvm", "fullreport", "--reportformat", "json"),
        "virsh pool-refresh, vol-list --details": lambda: (
            run("virsh", "pool-refresh", GROUP),
            run("virsh", "vol-list", GROUP, "--details"),
        ),
    }
    count = len(call("storage_volume_info", uri=uri, pool=GROUP)["volumes"])
    print(f"{count} logical volumes, {given.rounds} rounds: minimum and median in seconds")
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for _round in range(given.rounds):
        for name, plan in plans.items():
            seconds[name].append(timed(plan))
    for name, taken in seconds.items():
        print(f"{name:42} {min(taken):8.2f} {statistics.median(taken):8.2f}")


if __name__ == "__main__":
    main()
