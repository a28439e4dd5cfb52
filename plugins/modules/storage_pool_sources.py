#!/usr/bin/python
# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What storage pools could be made from, looked for and waited for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_pool_sources
short_description: Find what storage pools can be made from, or wait for it
version_added: 0.1.0
author: virt.storage contributors (@virt-storage)
description:
  - Finds exports of servers, volume groups, disks and filesystems. What a record has as RV(sources[].source) can be
    given to M(virt.storage.storage_pool) as it stands.
  - Each record says whether the source is free, and if it is not, who has it.
  - With O(wait_for) it is a declaration too. It waits until those sources are there, and fails naming those that are
    not.
  - Looking changes nothing and leaves nothing behind. The page docs/sources.md says what is looked at, and how.
  - O(timeout) is what all of it may take, waiting included. Who does not answer until then holds up nobody else.
  - In check mode nothing is waited for, since what an earlier task would make does not come. What is missing is a
    warning then.
extends_documentation_fragment:
  - virt.storage.attributes.info_module
  - virt.storage.connection
attributes:
  check_mode:
    description: In check mode the module looks once instead of waiting, and what is missing is a warning.
options:
  type:
    description:
      - What kind of pool the sources are for. V(netfs) are NFS exports, Gluster volumes and CIFS shares of servers,
        V(gluster) their Gluster volumes for guests to connect to, V(logical) volume groups and physical volumes that
        belong to none, V(fs) what holds or could hold a filesystem, V(disk) whole disks, V(scsi) SCSI and Fibre Channel
        host adapters, V(mpath) multipath maps, all of which one pool has, V(iscsi) and V(iscsi-direct) the targets of
        iSCSI servers.
    type: str
    choices: [netfs, gluster, logical, fs, disk, iscsi, iscsi-direct, scsi, mpath]
    required: true
  source:
    description:
      - Which sources are wanted, in the words of O(virt.storage.storage_pool#module:source). Only what is like this is
        listed. Servers have to be named.
    type: dict
    suboptions: &source
      host:
        description: The server to ask, a name or an address; of iSCSI with C(:PORT), if it is not at 3260.
        type: str
      hosts:
        description: Several servers. All of them are asked at once.
        type: list
        elements: str
      dir:
        description: The exported directory, the share, or the Gluster volume of V(netfs).
        type: str
      device:
        description: The device. Links are followed.
        type: str
      devices:
        description: Several devices, all of which the source has.
        type: list
        elements: str
      name:
        description: The volume group, or the Gluster volume of V(gluster).
        type: str
      iqn:
        description: The iSCSI target.
        type: str
      initiator:
        description:
          - The name of the iSCSI initiator that asks, which servers may offer other targets than others. For
            V(iscsi-direct) it is needed; for V(iscsi) it is that of the host when it is left out.
        type: str
      adapter:
        description: The host adapter of V(scsi), by its name, its place or its world wide names.
        type: dict
        suboptions:
          type:
            description: The kind of adapter.
            type: str
            choices: [scsi_host, fc_host]
          name:
            description: Its name, such as V(scsi_host2).
            type: str
          parent_address:
            description: The PCI address of its parent, such as V(0000:00:1f.2).
            type: str
          unique_id:
            description: Its number among the adapters of that address.
            type: int
          wwnn:
            description: The world wide node name, 16 hex digits.
            type: str
          wwpn:
            description: The world wide port name, 16 hex digits.
            type: str
      format:
        description:
          - V(nfs), V(glusterfs) or V(cifs) for type V(netfs), of which no other is asked for then. The filesystem for
            V(fs), the partition table for V(disk).
        type: str
  username:
    description:
      - The account that CIFS servers are asked with, C(NAME) or C(DOMAIN\NAME). As a guest when it is left out.
      - The account that iSCSI servers and targets are told (CHAP).
    type: str
  password:
    description:
      - The password of O(username). It is handed to C(smbclient) in an open file that has no name, to C(iscsi-ls) in
        its environment.
    type: str
  free:
    description:
      - Whether only sources that are free are listed.
    type: bool
    default: false
  wait_for:
    description:
      - Sources that have to be there, each as O(source). Each of them names a directory, a volume group, a Gluster
        volume, an iSCSI target, an adapter or devices; of V(mpath) the device is a map.
      - What is used by something else than a pool of O(type) is waited for until it is free.
    type: list
    elements: dict
    suboptions: *source
requirements:
  - for V(netfs) C(showmount), C(gluster) or C(smbclient), for V(gluster) C(gluster), for V(logical) lvm2, for
    V(iscsi-direct) C(iscsi-ls), for V(iscsi) C(iscsi-ls) or C(iscsiadm)
seealso:
  - module: virt.storage.storage_pool
"""

EXAMPLES = r"""
- name: What an NFS server exports
  virt.storage.storage_pool_sources:
    type: netfs
    source: {host: nas1.example.com, format: nfs}
  register: found

- name: A pool on the first of them
  virt.storage.storage_pool:
    name: exported
    type: netfs
    path: /srv/exported
    source: "{{ found.sources[0].source }}"
    state: inactive

- name: The export is there before anything is built on it
  virt.storage.storage_pool_sources:
    type: netfs
    wait_for:
      - {host: nas1.example.com, dir: /export/images, format: nfs}
    timeout: 120

- name: The targets that an iSCSI server offers to this host
  virt.storage.storage_pool_sources:
    type: iscsi
    source: {host: san.example.com}

- name: Disks that nobody uses
  virt.storage.storage_pool_sources:
    type: disk
    free: true
"""

RETURN = r"""
sources:
  description:
    - What was found. Servers are in the order in which they were named. What is not known of a source, such as most of
      what only a daemon has looked at, is left out.
  returned: always
  type: list
  elements: dict
  contains:
    type:
      description: The type of pool.
      type: str
      returned: always
    source:
      description: The option O(virt.storage.storage_pool#module:source) of a pool on it.
      type: dict
      returned: always
      sample: {host: nas1.example.com, dir: /export/images, format: nfs}
    free:
      description: Whether nobody has it, so that a pool can be made from it.
      type: bool
      returned: always
    why_not:
      description: Who has it, in words.
      type: list
      elements: str
      returned: when it is not free
      sample: [mounted at /srv]
    kind:
      description:
        - Of a device V(disk), V(part), V(loop), V(dm), V(md) or V(other). For V(logical) V(group) or V(device). Of a
          host adapter V(scsi_host) or V(fc_host).
      type: str
      returned: for devices, volume groups and host adapters
    path:
      description: What the kernel calls the device now. Of a host adapter its directory in C(/sys).
      type: str
      returned: for devices and host adapters
    size:
      description: Bytes. Of a host adapter that of all its disks.
      type: int
      returned: for devices, volume groups and host adapters
    available:
      description: The bytes of a volume group that no volume has.
      type: int
      returned: for volume groups
    content:
      description: The signature that is on a device, empty when it holds nothing.
      type: str
      returned: for devices
      sample: ext4
    label:
      description: The label of its filesystem.
      type: str
      returned: when it has one
    uuid:
      description: The uuid of the filesystem, volume group, physical volume or Gluster volume, or the WWID of a map.
      type: str
      returned: when it has one
    volumes:
      description: How many volumes a volume group, or disks a host adapter or an iSCSI target has.
      type: int
      returned: for volume groups and host adapters, and for targets that tell it
    clients:
      description: Whom an NFS export lets in, as the server says it. Empty when it is everybody.
      type: list
      elements: str
      returned: for NFS exports
    comment:
      description: What the server says of a share, or the driver of a host adapter.
      type: str
      returned: when there is something
unanswered:
  description:
    - Servers that did not answer or refused, each with its C(host) and the C(format) that it was asked by, and devices
      that did not answer, each as C(device); and the C(code), C(message) and all else that RV(error) can have.
  returned: always
  type: list
  elements: dict
missing:
  description: What of O(wait_for) is not as it has to be, each with its C(source), and C(why) in words.
  returned: always
  type: list
  elements: dict
engine:
  description: What the task worked through.
  returned: when it was looked at
  type: dict
  contains:
    name:
      description: The engine.
      type: str
      returned: always
      sample: native
    uri:
      description: The pools it sees.
      type: str
      returned: always
      sample: native:///system
    why:
      description: Why this one was taken.
      type: str
      returned: always
      sample: no daemon is installed
error:
  description: Why the task failed.
  returned: on failure
  type: dict
  contains:
    code:
      description: A stable code; docs/errors.md lists them.
      type: str
      returned: always
      sample: source_missing
    subject:
      description: Which pool, volume or device.
      type: str
      returned: always
      sample: nas1.example.com:/export/images (nfs)
    message:
      description: What is wrong.
      type: str
      returned: always
    hint:
      description: What to do next.
      type: str
      returned: always
    command:
      description: The command that failed.
      type: str
      returned: when a command failed
    rc:
      description: Its exit status.
      type: int
      returned: when a command failed
    stderr:
      description: What it said.
      type: str
      returned: when a command failed
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.virt.storage.plugins.module_utils.tasks import sources
from ansible_collections.virt.storage.plugins.module_utils.tasks.outcome import arguments, run_guarded


def main() -> None:
    source = {
        "host": {"type": "str"},
        "hosts": {"type": "list", "elements": "str"},
        "dir": {"type": "str"},
        "device": {"type": "str"},
        "devices": {"type": "list", "elements": "str"},
        "name": {"type": "str"},
        "iqn": {"type": "str"},
        "initiator": {"type": "str"},
        "adapter": {
            "type": "dict",
            "options": {
                "type": {"type": "str", "choices": ["scsi_host", "fc_host"]},
                "name": {"type": "str"},
                "parent_address": {"type": "str"},
                "unique_id": {"type": "int"},
                "wwnn": {"type": "str"},
                "wwpn": {"type": "str"},
            },
        },
        "format": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec=arguments(
            type={
                "type": "str",
                "choices": ["netfs", "gluster", "logical", "fs", "disk", "iscsi", "iscsi-direct", "scsi", "mpath"],
                "required": True,
            },
            source={"type": "dict", "options": source},
            username={"type": "str"},
            password={"type": "str", "no_log": True},
            free={"type": "bool", "default": False},
            wait_for={"type": "list", "elements": "dict", "options": source},
        ),
        supports_check_mode=True,
    )
    run_guarded(module, sources.run_sources, sources.run_unlooked)


if __name__ == "__main__":
    main()
