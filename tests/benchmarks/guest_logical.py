# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A volume group of many volumes: what storage_volume_info takes, beside a daemon's pool-refresh and vol-list; and what
it takes to make some volumes, beside virsh and lvcreate in a loop.

It takes the first two of the lab's disks, so it runs in a guest of the lab, from the root of the collection there:

    dev/lab start bench && dev/lab push bench
    dev/lab shell bench 'cd ansible_collections/virt/storage &&
        PYTHONPATH=.:/root:/root/ansible-core python3 -m tests.benchmarks.guest_logical'
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks import harness
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
    return harness.run(list(words))


def done(module: str, **params: Any) -> dict[str, Any]:
    result = call(module, **params)
    if result.get("failed"):
        raise harness.Failed(result["msg"])
    return result


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


def started(uri: str) -> None:
    """The daemon stays: by itself it ends after two idle minutes, and forgets a pool that has no volumes then."""
    done("storage_pool", uri=uri, name=GROUP, type="logical")
    settings = Path("/run/systemd/system/libvirtd.service.d/stays.conf")
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[Service]\nEnvironment=LIBVIRTD_ARGS=\n", encoding="utf-8")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "libvirtd")
    run("virsh", "pool-create-as", GROUP, "logical", "--source-name", GROUP)


def stopped(uri: str) -> None:
    run("virsh", "pool-destroy", GROUP)
    done("storage_pool", uri=uri, name=GROUP, state="absent")
    run("vgremove", "--quiet", "--force", "--yes", GROUP)


def made(uri: str, count: int, rounds: int) -> None:
    """So many volumes, each time in a group without any."""
    run("vgcreate", "--quiet", "-s", "1M", GROUP, *DISKS)
    started(uri)
    names = [f"new{number}" for number in range(count)]

    def each(*words: str) -> None:
        for name in names:
            run(*(word.replace("NAME", name) for word in words))

    def removed() -> None:
        if len(run("lvs", "--noheadings", GROUP).splitlines()) != count:
            raise harness.Failed("the volumes were not made")
        run("lvremove", "--quiet", "--force", "--yes", GROUP)
        run("virsh", "pool-refresh", GROUP)  # or it takes them for there

    volumes = [{"name": name, "capacity": "1MiB"} for name in names]
    plans = {
        f"{count} volumes made, storage_volume": lambda: done("storage_volume", uri=uri, pool=GROUP, volumes=volumes),
        "virsh vol-create-as in a loop": lambda: each("virsh", "vol-create-as", GROUP, "NAME", "1MiB"),
        "lvcreate in a loop": lambda: each("lvcreate", "--quiet", "--yes", "-L", "1M", "-n", "NAME", GROUP),
    }
    harness.compared(plans, rounds, removed)
    stopped(uri)


def seen(uri: str, count: int, rounds: int) -> None:
    fill(count)
    # Hundreds of devices at once keep udev busy for minutes; LVM can make their nodes itself.
    run("systemctl", "stop", *(f"systemd-udevd{unit}" for unit in ("-control.socket", "-kernel.socket", ".service")))
    run("vgchange", "-ay", "--config", "activation { udev_sync=0 udev_rules=0 verify_udev_operations=1 }", GROUP)
    started(uri)
    found = len(done("storage_volume_info", uri=uri, pool=GROUP)["volumes"])
    if found != count:
        raise harness.Failed(f"storage_volume_info shows {found} of {count} volumes")

    def refreshed(*more: str) -> None:
        run("virsh", "pool-refresh", GROUP)
        run("virsh", "vol-list", GROUP, *more)

    plans = {
        f"{count} volumes, storage_volume_info": lambda: done("storage_volume_info", uri=uri, pool=GROUP),
        "the same of one by name": lambda: done("storage_volume_info", uri=uri, pool=GROUP, name="many0001"),
        "the same of capacities": lambda: done("storage_volume_info", uri=uri, pool=GROUP, fields=["capacity"]),
        "virsh pool-refresh, vol-list": refreshed,
        "virsh pool-refresh, vol-list --details": lambda: refreshed("--details"),
        "lvm fullreport": lambda: run("lvm", "fullreport", "--reportformat", "json"),
        "lvs": lambda: run("lvs"),
    }
    harness.compared(plans, rounds)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=500, help="volumes that are looked at (%(default)s)")
    arguments.add_argument("--made", type=int, default=20, help="volumes that are made (%(default)s)")
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    uri = f"native:///?root={tempfile.mkdtemp()}"
    if given.made:
        made(uri, given.made, given.rounds)
    seen(uri, given.count, given.rounds)


if __name__ == "__main__":
    harness.main(main)
