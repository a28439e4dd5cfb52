# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was reported done outlives a power cut: pools of four types, their volumes, and what is in these."""

from __future__ import annotations

import json
import re

from lab.guests import Guest

from .conftest import Ansible, Played

DISK = "/dev/disk/by-id/virtio-lab-disk"
EXPORT = "/srv/export"
TEXT = "content that was reported to be there"

POOLS = {
    "vd": {"type": "disk", "path": "/dev", "source": {"device": "{disk}", "format": "gpt"}},
    "vg": {"type": "logical", "source": {"name": "vg", "devices": [f"{DISK}2", f"{DISK}3"]}},
    "files": {"type": "fs", "path": "/srv/files", "source": {"device": f"{DISK}4", "format": "ext4"}},
    "shared": {
        "type": "netfs",
        "path": "/srv/shared",
        "source": {"host": "127.0.0.1", "dir": EXPORT, "format": "nfs"},
    },
}
FILES = [
    {"name": "text", "capacity": "1MiB", "source": {"content": TEXT}},
    {"name": "empty", "capacity": "4MiB"},
    {"name": "image", "capacity": "8MiB", "format": "qcow2"},
]
VOLUMES = {
    "vd": [
        {"name": "{node}1", "capacity": "16MiB", "source": {"content": TEXT}},
        {"name": "{node}2", "capacity": "16MiB", "format": "linux-swap"},
    ],
    "vg": [{"name": "text", "capacity": "8MiB", "source": {"content": TEXT}}, {"name": "empty", "capacity": "8MiB"}],
    "files": FILES,
    "shared": FILES,
}

MOUNTED = ("/srv/files", "/srv/shared")

# What tools tell, without a word of ours.
READ = f"""
    sfdisk --dump {DISK}1
    vgs --noheadings -o vg_name,pv_count; lvs --noheadings --units b --nosuffix -o lv_name,lv_size
    blkid -p {DISK}4
    for name in text empty; do stat -c "%n %s" {" ".join(f"{path}/$name" for path in MOUNTED)}; done
    for path in {" ".join(MOUNTED)}; do qemu-img check -q -f qcow2 $path/image && echo $path/image is whole; done
    for each in {DISK}1-part1 /dev/vg/text /srv/files/text /srv/shared/text; do head -c {len(TEXT)} $each; echo; done
"""
GROUP_AND_VOLUMES = [["vg", "2"], ["empty", str(8 << 20)], ["text", str(8 << 20)]]
SIZES = [
    [f"{path}/{name}", size] for name, size in (("text", str(1 << 20)), ("empty", str(4 << 20))) for path in MOUNTED
]


def _playbook(guest: Guest) -> str:
    node = guest.text(f"basename $(readlink -f {DISK}1)").strip()
    common = {"uri": "native:///system", "allow": ["beside_daemon"]}
    tasks = []
    for name, pool in POOLS.items():
        tasks.append({"name": name, "virt.storage.storage_pool": {**common, "name": name, **pool}})
    for name, volumes in VOLUMES.items():
        tasks.append(
            {"name": f"volumes of {name}", "virt.storage.storage_volume": {**common, "pool": name, "volumes": volumes}}
        )
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    return json.dumps([play]).replace("{disk}", f"{DISK}1").replace("{node}", node)


def _changed(played: Played) -> list[str]:
    """The names of the tasks that changed something."""
    name, found = "", []
    for line in played.output.splitlines():
        if line.startswith("TASK ["):
            name = line[len("TASK [") :].partition("]")[0]
        elif line.startswith("changed:"):
            found.append(name)
    return found


def test_what_was_reported_done_outlives_a_power_cut(guest: Guest, ansible: Ansible) -> None:
    """The cut comes right after the last task: nothing has looked at what was made, and so brought it to the disks."""
    options = "rw,no_root_squash,insecure,no_subtree_check,fsid=1"
    guest.run(
        f"mkdir {EXPORT}; echo '{EXPORT} 127.0.0.1({options})' >> /etc/exports;"
        " systemctl start rpcbind nfs-server; exportfs -ra; sync"
    )
    playbook = _playbook(guest)
    made = ansible.playbook(playbook, [guest])
    assert made.count(guest, "changed") == len(POOLS) + len(VOLUMES), made.output

    _cut_and_boot(guest)

    assert "/srv/files" not in guest.text("cat /proc/mounts")
    back = ansible.playbook(playbook, [guest])
    assert not [name for name in _changed(back) if name.startswith("volumes")], back.output
    _check(guest.text(READ))
    assert ansible.playbook(playbook, [guest]).count(guest, "changed") == 0


def _check(read: str) -> None:
    told = read.splitlines()
    assert told.count(TEXT) == 4, read
    assert [line.split() for line in told if line.startswith("  ")] == GROUP_AND_VOLUMES, read
    assert [line for line in told if line.endswith("is whole")] == [f"{path}/image is whole" for path in MOUNTED], read
    assert [line.split()[:2] for line in told if re.match("/srv.* [0-9]+$", line)] == SIZES, read
    assert 'TYPE="ext4"' in read, read
    assert [int(start) for start in re.findall(r"start= *(\d+), size= *32768", read)] == [2048, 34816], read


def _cut_and_boot(guest: Guest) -> None:
    guest.cut_power()
    guest.boot()
    guest.run("systemctl start rpcbind nfs-server")
