# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A disk of a hundred gpt partitions observed, against the daemon's pool-refresh and vol-list. Run it in a guest of the
lab, from the root of the collection there, with a disk that may be overwritten:

    PYTHONPATH=.:/root:/root/ansible-core python3 -m tests.benchmarks.guest_disk /dev/disk/by-id/virtio-lab-disk1
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import harness
from tests.integration.calling import call

PARTITIONS, TIMES = 100, 3


def run(*words: str, text: str | None = None) -> str:
    return subprocess.run(words, input=text, check=True, capture_output=True, text=True).stdout


def partitioned(disk: str) -> None:
    lines = "".join(f"start={2048 * (1 + 2 * number)}, size=2048\n" for number in range(PARTITIONS))
    run("sfdisk", "--quiet", "--wipe", "always", disk, text="label: gpt\n" + lines)
    run("udevadm", "settle", "--timeout=600")
    # The daemon opens the disk for writing, whereupon udev has the table read anew, and is busy with a hundred
    # partitions for as long as both take: without it only they are timed.
    run("systemctl", "stop", *(f"systemd-udevd{unit}" for unit in ("-control.socket", "-kernel.socket", ".service")))


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
        run("systemctl", "start", "libvirtd")
        run("virsh", "pool-define", str(xml))
        try:
            run("virsh", "pool-start", "theirs")
            plans = {
                f"{PARTITIONS} partitions, storage_volume_info": lambda: seen(uri),
                "virsh pool-refresh, vol-list": refreshed,
                "virsh pool-refresh, vol-list --details": lambda: refreshed("--details"),
            }
            harness.compared(plans, TIMES)
        finally:
            subprocess.run(["virsh", "pool-destroy", "theirs"], check=False, capture_output=True)
            run("virsh", "pool-undefine", "theirs")


def seen(uri: str) -> None:
    volumes = call("storage_volume_info", uri=uri)["volumes"]
    assert len(volumes) == PARTITIONS, len(volumes)


def refreshed(*more: str) -> None:
    run("virsh", "pool-refresh", "theirs")
    assert len(run("virsh", "-q", "vol-list", "theirs", *more).splitlines()) == PARTITIONS


if __name__ == "__main__":
    main(sys.argv[1])
