# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools on the units of a target that another host serves, through clean shutdowns and boots: a volume group on one, a
filesystem on one of its volumes, and a filesystem right on another unit. And those of an adapter and of all maps.
"""

from __future__ import annotations

import json
from typing import Any

from lab.guests import Guest

from .conftest import Ansible, Guests

UNIT = "virt-storage-autostart.service"
COMMON = {"uri": "native:///system", "allow": ["beside_daemon"]}
IQN = "iqn.2026-01.lab.test:layers"
GROUP = f"/sys/kernel/config/target/iscsi/{IQN}/tpgt_1"
CORE = "/sys/kernel/config/target/core"
MOUNTS = ("srv-files.mount", "srv-upper.mount")
GOES_LATER = ("open-iscsi.service", "iscsid.service", "network.target", "lab-network.service")
LATE = 1  # the unit of the volume group

# A target at an address, for everybody who asks.
TARGET = f"""
modprobe -a target_core_mod iscsi_target_mod
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
mkdir -p /sys/kernel/config/target/iscsi {GROUP}/np/$address:3260
echo 1 > {GROUP}/attrib/generate_node_acls; echo 0 > {GROUP}/attrib/demo_mode_write_protect
echo 0 > {GROUP}/attrib/authentication
"""
DISKS = f"""
modprobe target_core_file
for number in 0 1; do
    disk={CORE}/fileio_1/disk$number
    mkdir -p $disk; echo "layers-$number" > $disk/wwn/vpd_unit_serial
    echo "fd_dev_name=/srv/disk$number,fd_dev_size=268435456" > $disk/control; echo 1 > $disk/enable
    mkdir {GROUP}/lun/lun_$number; ln -s $disk {GROUP}/lun/lun_$number/port
done
echo 1 > {GROUP}/enable
"""
TAPE = f"""
modprobe scsi_debug ptype=1 max_luns=1 num_tgts=1 add_host=1
modprobe target_core_pscsi
host=$(basename $(echo $(readlink -f /sys/bus/pseudo/drivers/scsi_debug/adapter0)/host*)); tape={CORE}/pscsi_0/tape
mkdir -p $tape
echo "scsi_host_id=${{host#host}},scsi_channel_id=0,scsi_target_id=0,scsi_lun_id=0" > $tape/control
echo /dev/sg0 > $tape/udev_path
echo 1 > $tape/enable
mkdir {GROUP}/lun/lun_0; ln -s $tape {GROUP}/lun/lun_0/port
echo 1 > {GROUP}/enable
"""
# As on a host: what logs out at a shutdown is enabled, the network goes down at its end, and the journal stays.
LIKE_A_HOST = """
printf '[Journal]\nStorage=persistent\n' > /etc/systemd/journald.conf.d/zz-kept.conf
rm /etc/systemd/system/systemd-journal-flush.service
mkdir /etc/systemd/system/lab-network.service.d
cat > /etc/systemd/system/lab-network.service.d/down.conf <<'END'
[Unit]
Conflicts=shutdown.target
Before=shutdown.target
[Service]
ExecStop=/sbin/ip link set eth1 down
END
systemctl daemon-reload; systemctl restart systemd-journald; journalctl --flush
systemctl -q enable open-iscsi.service; systemctl -q enable --now iscsid.socket
"""

# What tools tell, without a word of ours.
RUNNING = """
    for path in /srv/files /srv/upper; do findmnt --noheadings --output FSTYPE $path || echo none; done
    lvs --noheadings --options lv_active vg/raw | xargs
    iscsiadm -m session | awk '{ print $4 }'
    echo $(ls /run/libvirt/storage | grep "[.]xml$")
"""
WRITTEN = ("/srv/files/late", "/srv/upper/late", "/dev/vg/raw")
STATES = "u-maps.xml v-adapter.xml w-files.xml x-upper.xml y-group.xml z-san.xml"


def _pools(server: Guest, adapter: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Their names are in the wrong order: what others stand on comes last."""
    return {
        "z-san": {"type": "iscsi", "source": {"host": server.address, "iqn": IQN}},
        "y-group": {"type": "logical", "source": {"name": "vg", "volume": f"z-san/unit:0:0:{LATE}"}},
        "x-upper": {"type": "fs", "path": "/srv/upper", "source": {"volume": "y-group/files", "format": "ext4"}},
        "w-files": {"type": "fs", "path": "/srv/files", "source": {"volume": "z-san/unit:0:0:0", "format": "ext4"}},
        "v-adapter": {"type": "scsi", "path": "/dev/disk/by-path", "source": adapter},
        "u-maps": {"type": "mpath", "path": "/dev/mapper"},
    }


def _pool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "virt.storage.storage_pool": {**COMMON, "name": name, "autostart": True, **more}}


def _play(tasks: list[dict[str, Any]]) -> str:
    return json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}])


def _declaring(server: Guest, adapter: dict[str, Any]) -> str:
    volumes = [{"name": "files", "capacity": "128MiB"}, {"name": "raw", "capacity": "8MiB"}]
    group = {**COMMON, "pool": "y-group", "volumes": volumes}
    tasks = [_pool(name, **pool) for name, pool in _pools(server, adapter).items()]
    tasks.insert(2, {"name": "volumes", "virt.storage.storage_volume": group})
    return _play(tasks)


def _adapter(guest: Guest, ansible: Ansible) -> dict[str, Any]:
    """The one of the machine, by what stays over a boot."""
    told = ansible.module("virt.storage.storage_pool_sources", guest, uri=COMMON["uri"], type="scsi")
    (source,) = (each["source"] for each in told["sources"] if each.get("comment") == "virtio_scsi")
    assert isinstance(source, dict)
    return source


def _await_boot(guest: Guest) -> str:
    """What the unit has said, once the boot is over."""
    guest.run("timeout 300 systemctl is-system-running --wait >/dev/null || true")
    return guest.text(f"systemctl show -P Result {UNIT}; journalctl -b --unit {UNIT} --output cat")


def _check_it_runs(guest: Guest, said: str) -> None:
    assert said.startswith("success\n"), said
    assert guest.text(RUNNING).splitlines() == ["ext4", "ext4", "active", IQN, STATES], said
    assert guest.text(f"for path in {' '.join(WRITTEN)}; do head -n 1 $path; done").split() == ["late"] * 3
    for mount in MOUNTS:
        after = guest.text(f"systemctl show -P After {mount}").split()
        assert {"remote-fs-pre.target", "network.target"} <= {*after}, after


def _check_shutdown(guest: Guest, boot: str) -> None:
    """All was unmounted before who logs out and the network went; nothing had to be recovered."""
    told = guest.text(f"journalctl --output=json _PID=1 JOB_TYPE=stop _BOOT_ID={boot}")
    stopped = [each for each in map(json.loads, told.splitlines()) if "JOB_RESULT" in each]  # not those that begin
    assert [each["MESSAGE"] for each in stopped if each["JOB_RESULT"] != "done"] == []
    order = {each["UNIT"]: place for place, each in enumerate(stopped)}  # of the last time
    assert {*MOUNTS, *GOES_LATER} <= {*order}, order
    assert max(order[each] for each in MOUNTS) < min(order[each] for each in GOES_LATER), order
    said = guest.text(f"journalctl --output=cat _SYSTEMD_UNIT=open-iscsi.service _BOOT_ID={boot}")
    assert [IQN in line for line in said.splitlines() if line.startswith("Logout of")] == [True], said
    everything = guest.text(f"journalctl --output=cat _BOOT_ID={boot}").splitlines()
    assert [each for each in everything if "/srv/" in each and ("is busy" in each or "Failed" in each)] == []
    kernel = [line for line in guest.text("dmesg").splitlines() if "EXT4-fs" in line and "(vda)" not in line]
    assert ["mounted filesystem" in line for line in kernel] == [True, True], kernel


def test_units_of_another_host_hold_through_shutdowns(guests: Guests, ansible: Ansible) -> None:
    server, guest = guests(2)
    server.run(f"set -e; address={server.address}\n{TARGET}{DISKS}")
    guest.run(f"set -e\n{LIKE_A_HOST}")
    declared = _declaring(server, _adapter(guest, ansible))
    made = ansible.playbook(declared, [guest])
    assert made.count(guest, "changed") == 7, made.output
    assert ansible.playbook(declared, [guest]).count(guest, "changed") == 0
    # It did nothing so far: there were no records of targets when the guest was booted. What is written is not synced.
    guest.run(f"systemctl start open-iscsi; for path in {' '.join(WRITTEN)}; do echo late > $path; done")

    boot = guest.boot_id()
    guest.reboot()
    _check_it_runs(guest, _await_boot(guest))
    _check_shutdown(guest, boot)

    boot = guest.boot_id()
    guest.power_off()
    assert server.text(f"cat {GROUP}/dynamic_sessions").strip("\0\n ") == ""
    on_disk = server.text("dumpe2fs -h /srv/disk0 2>/dev/null")
    assert "needs_recovery" not in on_disk, on_disk
    assert [line.split()[-1] for line in on_disk.splitlines() if line.startswith("Filesystem state:")] == ["clean"]
    _check_one_that_is_late(server, guest)
    _check_shutdown(guest, boot)
    assert ansible.playbook(declared, [guest]).count(guest, "changed") == 0


def _check_one_that_is_late(server: Guest, guest: Guest) -> None:
    """It is served only after the target was logged in to, and what is on its other unit was started."""
    unit = f"{GROUP}/lun/lun_{LATE}"
    server.run(f"rm {unit}/port; rmdir {unit}")
    guest.boot()
    guest.run("timeout 200 sh -c 'until mountpoint -q /srv/files; do sleep 1; done'; sleep 5")
    assert guest.text(f"systemctl show -P ActiveState {UNIT}").strip() == "activating"
    assert guest.run("vgs vg", check=False).returncode != 0
    server.run(f"mkdir {unit}; ln -s {CORE}/fileio_1/disk{LATE} {unit}/port")
    _check_it_runs(guest, _await_boot(guest))


def test_a_target_whose_unit_is_no_disk(guest: Guest, ansible: Ansible) -> None:
    guest.run(f"set -e; address=127.0.0.1\n{TARGET}{TAPE}systemctl start iscsid")
    declared = _play([_pool("tapes", type="iscsi", source={"host": "127.0.0.1", "iqn": IQN})])
    assert ansible.playbook(declared, [guest]).count(guest, "changed") == 1
    guest.run(f"iscsiadm -m session --logout && systemctl restart {UNIT}")
    assert guest.text("cat /sys/class/iscsi_session/session*/device/target*/*/type").split() == ["1"]
    (pool,) = ansible.module("virt.storage.storage_pool_info", guest, uri=COMMON["uri"], name="tapes")["pools"]
    assert pool["state"] == "active"
    assert ansible.module("virt.storage.storage_volume_info", guest, uri=COMMON["uri"])["volumes"] == []
