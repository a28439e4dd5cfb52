# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""After a power cut, what was reported done is there: pools of five types, their volumes, and what is in these. Those
that are marked for autostart run again, without a task and without a daemon.
"""

from __future__ import annotations

import json
import re
from typing import Any

from lab.guests import Guest

from .conftest import Ansible, Played

DISK = "/dev/disk/by-id/virtio-lab-disk"
EXPORT = "/srv/export"
TEXT = "content that was reported to be there"
UNIT = "virt-storage-autostart.service"
COMMON = {"uri": "native:///system", "allow": ["beside_daemon"]}

# Their names are in the wrong order: what others stand on comes last.
POOLS: dict[str, dict[str, Any]] = {
    "z-partitions": {"type": "disk", "path": "/dev", "source": {"device": "{disk}", "format": "gpt"}},
    "y-group": {"type": "logical", "source": {"name": "vg", "device": "/dev/{node}1"}},  # as LVM prints it
    "x-files": {"type": "fs", "path": "/srv/files", "source": {"device": "/dev/vg/files", "format": "ext4"}},
    "w-images": {"type": "dir", "path": "/srv/files/images"},
    "shared": {
        "type": "netfs",
        "path": "/srv/shared",
        "source": {"host": "127.0.0.1", "dir": EXPORT, "format": "nfs"},
    },
    "unmarked": {"type": "fs", "path": "/srv/unmarked", "source": {"device": f"{DISK}2", "format": "xfs"}},
}
MARKED = [name for name in POOLS if name != "unmarked"]
FILES = [
    {"name": "text", "capacity": "1MiB", "source": {"content": TEXT}},
    {"name": "empty", "capacity": "4MiB"},
    {"name": "image", "capacity": "8MiB", "format": "qcow2"},
]
# Right after their pool, which is what others are made on, or after all pools.
VOLUMES: dict[str, list[dict[str, Any]]] = {
    "z-partitions": [
        {"name": "{node}1", "capacity": "512MiB"},
        {"name": "{node}2", "capacity": "16MiB", "source": {"content": TEXT}},
    ],
    "y-group": [
        {"name": "files", "capacity": "256MiB"},
        {"name": "text", "capacity": "8MiB", "source": {"content": TEXT}},
    ],
}
LATER = {"x-files": FILES, "shared": FILES}
MOUNTED = ("/srv/files", "/srv/shared")

# What tools tell, without a word of ours.
RUNNING = """
    for path in /srv/files /srv/shared /srv/unmarked; do findmnt --noheadings --output FSTYPE "$path" || echo none; done
    lvs --noheadings --options lv_active vg/files | xargs
    echo $(ls /run/libvirt/storage | grep "[.]xml$")
"""
MADE = f"""
    sfdisk --dump {DISK}1
    vgs --noheadings -o vg_name,pv_count; lvs --noheadings --units b --nosuffix -o lv_name,lv_size
    for name in text empty; do stat -c "%n %s" {" ".join(f"{path}/$name" for path in MOUNTED)}; done
    for path in {" ".join(MOUNTED)}; do qemu-img check -q -f qcow2 $path/image && echo $path/image is whole; done
    for each in {DISK}1-part2 /dev/vg/text /srv/files/text /srv/shared/text; do head -c {len(TEXT)} $each; echo; done
"""
GROUP_AND_VOLUMES = [["vg", "1"], ["files", str(256 << 20)], ["text", str(8 << 20)]]
SIZES = [
    [f"{path}/{name}", size] for name, size in (("text", str(1 << 20)), ("empty", str(4 << 20))) for path in MOUNTED
]


def _plays(guest: Guest, tasks: list[dict[str, Any]]) -> str:
    node = guest.text(f"basename $(readlink -f {DISK}1)").strip()
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    return json.dumps([play]).replace("{disk}", f"{DISK}1").replace("{node}", node)


def _pool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "virt.storage.storage_pool": {**COMMON, "name": name, **more}}


def _volumes(pool: str, volumes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": f"volumes of {pool}", "virt.storage.storage_volume": {**COMMON, "pool": pool, "volumes": volumes}}


def _declaring(guest: Guest, first: bool) -> str:
    tasks: list[dict[str, Any]] = []
    for name, pool in POOLS.items():
        tasks.append(_pool(name, autostart=name in MARKED, **pool))
        if name in VOLUMES:
            tasks.append(_volumes(name, VOLUMES[name]))
        if name == "y-group" and first:  # LVM's own activation at boot is not to stand in for ours
            by_hand = "vgchange --quiet --setautoactivation n vg"
            tasks.append({"name": by_hand, "ansible.builtin.command": by_hand, "changed_when": False})
    tasks += [_volumes(name, volumes) for name, volumes in LATER.items()]
    return _plays(guest, tasks)


def _each(guest: Guest, ansible: Ansible, names: list[str], **more: Any) -> Played:
    return ansible.playbook(_plays(guest, [_pool(name, **more) for name in names]), [guest])


def _there(guest: Guest) -> list[str]:
    return guest.text(f"ls /etc/systemd/system/{UNIT} /var/lib/virt-storage/autostart.pyz 2>/dev/null || true").split()


def test_what_was_reported_done_outlives_a_power_cut(guest: Guest, ansible: Ansible) -> None:
    """It comes right after the last task: nothing has looked at what was made, and so brought it to the disks."""
    options = "rw,no_root_squash,insecure,no_subtree_check,fsid=1"
    guest.run(
        f"mkdir {EXPORT}; echo '{EXPORT} 127.0.0.1({options})' >> /etc/exports;"
        " systemctl start rpcbind nfs-server; exportfs -ra; sync"
    )
    made = ansible.playbook(_declaring(guest, first=True), [guest])
    assert made.count(guest, "changed") == len(POOLS) + len(VOLUMES) + len(LATER), made.output

    guest.cut_power()
    guest.boot()
    # The server comes up later than the pools: the unit that the boot starts waits for it.
    guest.run("systemctl start rpcbind nfs-server")
    guest.run("systemctl is-system-running --wait >/dev/null || true")
    guest.run(f"systemd-analyze verify /etc/systemd/system/{UNIT}")

    states = " ".join(sorted(f"{name}.xml" for name in MARKED))
    journal = guest.text(f"journalctl --unit {UNIT} --output cat")
    assert guest.text(RUNNING).splitlines() == ["ext4", "nfs4", "none", "active", states], journal
    _check_made(guest.text(MADE))
    back = ansible.playbook(_declaring(guest, first=False), [guest])
    assert back.count(guest, "changed") == 1, back.output  # the one that is not marked
    _check_a_daemon_takes_over(guest)
    _check_they_are_ours(guest, ansible)


def _check_made(read: str) -> None:
    told = read.splitlines()
    assert told.count(TEXT) == 4, read
    assert [line.split() for line in told if line.startswith("  ")] == GROUP_AND_VOLUMES, read
    assert [line for line in told if line.endswith("is whole")] == [f"{path}/image is whole" for path in MOUNTED], read
    assert [line.split()[:2] for line in told if re.match("/srv.* [0-9]+$", line)] == SIZES, read
    assert re.findall(r"start= *(\d+), size= *32768", read) == [str(2048 + 2**20)], read


def _check_a_daemon_takes_over(guest: Guest) -> None:
    """It finds all that runs, and the same marks; the unit does nothing beside it."""
    guest.run("systemctl enable --now libvirtd.service")
    listed = [line.split() for line in guest.text("virsh pool-list --all").splitlines()[2:] if line.strip()]
    assert {name: (state, mark) for name, state, mark in listed} == {
        name: ("active", "yes" if name in MARKED else "no") for name in POOLS
    }
    guest.run(f"systemctl restart {UNIT}")
    assert "that starts pools itself" in guest.text(f"journalctl --unit {UNIT} --output cat --lines 4")
    guest.run("systemctl disable --now libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket")


def _check_they_are_ours(guest: Guest, ansible: Ansible) -> None:
    """What was started at boot is stopped as what a task has started; the unit goes with the last mark."""
    stopped = _each(guest, ansible, ["shared", "w-images", "x-files", "y-group", "z-partitions"], state="inactive")
    assert stopped.count(guest, "changed") == len(MARKED), stopped.output
    assert guest.text(RUNNING).splitlines() == ["none", "none", "xfs", "", "unmarked.xml"], stopped.output
    first, *others = MARKED
    assert _each(guest, ansible, others, state="present", autostart=False).count(guest, "changed") == len(others)
    assert len(_there(guest)) == 2
    assert _each(guest, ansible, [first], state="absent").count(guest, "changed") == 1
    assert _there(guest) == []
    assert guest.run(f"systemctl is-enabled {UNIT}", check=False).returncode != 0
