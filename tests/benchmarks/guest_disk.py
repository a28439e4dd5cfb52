# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A disk of a hundred gpt partitions observed, against the daemon's pool-refresh and vol-list. Run it as root in a
guest of the lab with a disk that may be overwritten:

    python3 -m tests.benchmarks.guest_disk /dev/disk/by-id/virtio-lab-disk1
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.calling import call

PARTITIONS, MIB, TIMES = 100, 2**20, 3


def run(*words: str, text: str | None = None) -> str:
    return subprocess.run(words, input=text, check=True, capture_output=True, text=True).stdout


def best(what: str, act: Callable[[], Any]) -> float:
    seconds = []
    for _time in range(TIMES):
        start = time.monotonic()
        act()
        seconds.append(time.monotonic() - start)
    print(f"{what:48} {min(seconds):8.3f} s")
    return min(seconds)


def partitioned(disk: str) -> None:
    lines = "".join(f"start={2048 * (1 + 2 * number)}, size=2048\n" for number in range(PARTITIONS))
    run("sfdisk", "--quiet", "--wipe", "always", disk, text="label: gpt\n" + lines)
    if os.path.exists("/run/udev/control"):
        run("udevadm", "settle")


def main(disk: str) -> None:
    node = os.path.realpath(disk)
    partitioned(node)
    with tempfile.TemporaryDirectory() as directory:
        uri = f"native:///?root={directory}/root"
        source = {"device": disk, "format": "gpt"}
        made = call("storage_pool", uri=uri, name="cut", type="disk", path="/dev", source=source)
        assert not made.get("failed"), made
        xml = Path(directory) / "pool.xml"
        xml.write_text(
            f"<pool type='disk'><name>theirs</name><source><device path='{node}'/><format type='gpt'/></source>"
            "<target><path>/dev</path></target></pool>",
            encoding="utf-8",
        )
        run("virsh", "pool-define", str(xml))
        try:
            run("virsh", "pool-start", "theirs")
            ours = best("storage_volume_info", lambda: seen(uri))
            theirs = best("virsh pool-refresh, vol-list", refreshed)
            print(f"{'ours, in parts of theirs':48} {ours / theirs:8.2f}")
        finally:
            subprocess.run(["virsh", "pool-destroy", "theirs"], check=False, capture_output=True)
            run("virsh", "pool-undefine", "theirs")


def seen(uri: str) -> None:
    volumes = call("storage_volume_info", uri=uri)["volumes"]
    assert len(volumes) == PARTITIONS, len(volumes)


def refreshed() -> None:
    run("virsh", "pool-refresh", "theirs")
    assert len(run("virsh", "-q", "vol-list", "theirs").splitlines()) == PARTITIONS


if __name__ == "__main__":
    main(sys.argv[1])
