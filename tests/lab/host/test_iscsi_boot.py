# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""After a power cut a target is logged in to exactly where autostart says so, whoever it was that did before."""

from __future__ import annotations

import json
from typing import Any

from lab.guests import Guest

from .conftest import Ansible

UNIT = "virt-storage-autostart.service"
COMMON = {"uri": "native:///system", "allow": ["beside_daemon"]}
NAMES = ("marked", "unmarked", "taken", "left")
SECRET = "secretsecret1"

# A target for each name, with one unit; the one that is marked asks who logs in.
SERVE = f"""
modprobe -a target_core_mod target_core_file iscsi_target_mod
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
cd /sys/kernel/config/target; mkdir -p iscsi
for name in {" ".join(NAMES)}; do
    core=core/fileio_1/$name; group=iscsi/iqn.2026-01.lab.test:$name/tpgt_1
    mkdir -p $core $group/np/127.0.0.1:3260
    echo "fd_dev_name=/srv/$name,fd_dev_size=67108864" > $core/control; echo 1 > $core/enable
    mkdir -p $group/lun/lun_0; ln -s $PWD/$core $group/lun/lun_0/port
    echo 1 > $group/attrib/generate_node_acls; echo 0 > $group/attrib/demo_mode_write_protect
    echo 0 > $group/attrib/authentication
    if [ $name = marked ]; then
        echo -n kvm1 > $group/auth/userid; echo -n {SECRET} > $group/auth/password
        echo 1 > $group/attrib/authentication
    fi
    echo 1 > $group/enable
done
"""
# What open-iscsi does at boot where it is enabled (open-iscsi.service of Debian).
LOG_IN = "iscsiadm -m node --loginall=automatic || true"


def _pools(**more: dict[str, Any]) -> str:
    tasks = []
    for name, options in more.items():
        source: dict[str, Any] = {"host": "127.0.0.1", "iqn": f"iqn.2026-01.lab.test:{name}"}
        if name == "marked":
            source["auth"] = {"type": "chap", "username": "kvm1", "secret": SECRET}
        pool = {**COMMON, "name": name, "type": "iscsi", "source": source, **options}
        tasks.append({"name": name, "virt.storage.storage_pool": pool})
    return json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}])


def _sessions(guest: Guest) -> list[str]:
    lines = guest.text("iscsiadm -m session 2>/dev/null || true").splitlines()
    return sorted(line.split()[3].rpartition(":")[2] for line in lines)


def test_logged_in_where_it_is_declared(guest: Guest, ansible: Ansible) -> None:
    guest.run(f"cat > /srv/serve <<'END'\n{SERVE}\nEND\nbash -eu /srv/serve; systemctl start iscsid")
    for name in ("taken", "left"):
        node = f"iscsiadm -m node -T iqn.2026-01.lab.test:{name} -p 127.0.0.1:3260,1"
        guest.run(f"{node} -o new; {node} -o update -n node.startup -v automatic; {node} --login")
    declared = _pools(marked={"autostart": True}, unmarked={}, taken={"autostart": False}, left={"autostart": True})
    assert ansible.playbook(declared, [guest]).count(guest, "changed") == 4
    assert ansible.playbook(declared, [guest]).count(guest, "changed") == 0
    assert _sessions(guest) == sorted(NAMES)
    guest.run("sync")

    guest.cut_power()
    guest.boot()
    # The boot starts the unit, which finds no target yet.
    guest.run(f"timeout 120 sh -c 'until journalctl --unit {UNIT} --output cat | grep -q .; do sleep 3; done'")
    guest.run(f"bash -eu /srv/serve; systemctl start iscsid; {LOG_IN}")
    assert _sessions(guest) == ["left"]
    guest.run(f"systemctl restart {UNIT}")
    journal = guest.text(f"journalctl --unit {UNIT} --output cat")
    assert _sessions(guest) == ["left", "marked"], journal
    assert SECRET not in journal
    stopped = ansible.playbook(_pools(marked={"state": "absent"}, left={"state": "absent"}), [guest])
    assert stopped.count(guest, "changed") == 2, stopped.output
    assert _sessions(guest) == ["left"]  # the other one was adopted
    assert SECRET not in guest.text("grep -rh . /etc/iscsi/nodes /etc/libvirt/secrets || true")
