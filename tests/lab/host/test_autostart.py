# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools that are marked for autostart are there again after a power cut, without a task and without a daemon."""

from __future__ import annotations

import json
from typing import Any

from lab.guests import Guest

from .conftest import Ansible, Played

DISK = "/dev/disk/by-id/virtio-lab-disk"
EXPORT = "/srv/export"
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
VOLUMES = {"z-partitions": ["{node}1", "512MiB"], "y-group": ["files", "256MiB"]}

# What tools tell, without a word of ours.
READ = """
    for path in /srv/files /srv/shared /srv/unmarked; do findmnt --noheadings --output FSTYPE "$path" || echo none; done
    lvs --noheadings --options lv_active vg/files | xargs
    echo $(ls /run/libvirt/storage | grep "[.]xml$")
"""


def _plays(guest: Guest, tasks: list[dict[str, Any]]) -> str:
    node = guest.text(f"basename $(readlink -f {DISK}1)").strip()
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    return json.dumps([play]).replace("{disk}", f"{DISK}1").replace("{node}", node)


def _pool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "virt.storage.storage_pool": {**COMMON, "name": name, **more}}


def _declaring(guest: Guest) -> str:
    tasks = []
    for name, pool in POOLS.items():
        tasks.append(_pool(name, autostart=name in MARKED, **pool))
        if name in VOLUMES:
            volume, capacity = VOLUMES[name]
            entry = {**COMMON, "pool": name, "name": volume, "capacity": capacity}
            tasks.append({"name": volume, "virt.storage.storage_volume": entry})
    return _plays(guest, tasks)


def _each(guest: Guest, ansible: Ansible, names: list[str], **more: Any) -> Played:
    return ansible.playbook(_plays(guest, [_pool(name, **more) for name in names]), [guest])


def _there(guest: Guest) -> list[str]:
    return guest.text(f"ls /etc/systemd/system/{UNIT} /var/lib/virt-storage/autostart.pyz 2>/dev/null || true").split()


def test_marked_pools_outlive_a_power_cut(guest: Guest, ansible: Ansible) -> None:
    options = "rw,no_root_squash,insecure,no_subtree_check,fsid=1"
    guest.run(
        f"mkdir {EXPORT}; echo '{EXPORT} 127.0.0.1({options})' >> /etc/exports;"
        " systemctl start rpcbind nfs-server; exportfs -ra; sync"
    )
    playbook = _declaring(guest)
    made = ansible.playbook(playbook, [guest])
    assert made.count(guest, "changed") == len(POOLS) + len(VOLUMES), made.output
    assert ansible.playbook(playbook, [guest]).count(guest, "changed") == 0
    # LVM's own activation at boot is not to stand in for ours.
    guest.run("vgchange --quiet --setautoactivation n vg; sync")
    guest.run(f"systemd-analyze verify /etc/systemd/system/{UNIT}")

    guest.cut_power()
    guest.boot()
    # The server comes up later than the pools: the unit waits for it. Starting it is waiting for its end.
    guest.run("systemctl start rpcbind nfs-server")
    guest.run(f"systemctl start {UNIT}")

    states = " ".join(sorted(f"{name}.xml" for name in MARKED))
    journal = guest.text(f"journalctl --unit {UNIT} --output cat")
    assert guest.text(READ).splitlines() == ["ext4", "nfs4", "none", "active", states], journal
    back = ansible.playbook(playbook, [guest])
    assert back.count(guest, "changed") == 1, back.output  # the one that is not marked
    _check_a_daemon_takes_over(guest)
    _check_they_are_ours(guest, ansible)


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
    assert guest.text(READ).splitlines() == ["none", "none", "xfs", "", "unmarked.xml"], stopped.output
    first, *others = MARKED
    assert _each(guest, ansible, others, state="present", autostart=False).count(guest, "changed") == len(others)
    assert len(_there(guest)) == 2
    assert _each(guest, ansible, [first], state="absent").count(guest, "changed") == 1
    assert _there(guest) == []
    assert guest.run(f"systemctl is-enabled {UNIT}", check=False).returncode != 0
