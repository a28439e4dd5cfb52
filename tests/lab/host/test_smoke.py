# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests can be used from outside: by Ansible, by each other, and after a power cut."""

from __future__ import annotations

from lab.guests import Guest

from .conftest import Ansible, Guests

PLAYBOOK = """
- name: A directory pool with a volume
  hosts: all
  gather_facts: false
  tasks:
    - name: The pool is active
      virt.storage.storage_pool:
        uri: native:///?root=/srv/native
        name: images
        type: dir
        path: /srv/images
    - name: The volume is there
      virt.storage.storage_volume:
        uri: native:///?root=/srv/native
        pool: images
        name: a.qcow2
        capacity: 16MiB
        format: qcow2
"""


def test_ansible_manages_a_guest(guest: Guest, ansible: Ansible) -> None:
    assert ansible.module("ansible.builtin.ping", guest)["ping"] == "pong"
    assert ansible.playbook(PLAYBOOK, [guest]).count(guest, "changed") == 2
    assert '"format": "qcow2"' in guest.text("qemu-img info --output=json /srv/images/a.qcow2")
    assert ansible.playbook(PLAYBOOK, [guest]).count(guest, "changed") == 0


def test_guests_see_each_other_and_nothing_else(guests: Guests) -> None:
    server, client = guests(2)
    server.run(
        "mkdir /srv/shared; systemctl start rpcbind nfs-server;"
        f" exportfs -o rw,no_root_squash,no_subtree_check {client.address}:/srv/shared"
    )
    client.run(f"mount -t nfs4 {server.name}:/srv/shared /mnt && echo content > /mnt/file && umount /mnt")
    assert server.text("cat /srv/shared/file") == "content\n"
    # The gateway is QEMU's own; what would lead on to the host is closed.
    assert client.run("timeout 5 bash -c '</dev/tcp/10.0.2.2/22'", check=False).returncode != 0


def test_what_was_flushed_outlives_a_power_cut(guest: Guest) -> None:
    first = guest.text("cat /proc/sys/kernel/random/boot_id")
    guest.run(
        "mkfs.ext4 -q /dev/disk/by-id/virtio-lab-disk1; mount /dev/disk/by-id/virtio-lab-disk1 /mnt;"
        " echo content > /mnt/file; sync -f /mnt/file; echo content > /run/file"
    )
    guest.cut_power()
    assert not guest.alive()
    guest.boot()
    assert guest.text("cat /proc/sys/kernel/random/boot_id") != first
    guest.run("mount /dev/disk/by-id/virtio-lab-disk1 /mnt")
    assert guest.text("cat /mnt/file; test -e /run/file || echo gone") == "content\ngone\n"
