#!/usr/bin/python
# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storage pools of a virtualisation host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_pool
short_description: Manage storage pools of virtualisation hosts
version_added: 0.1.0
author: virt.storage contributors (@virt-storage)
description:
  - Brings a storage pool into the declared state, in the words of libvirt, through its daemon or
    without one on the same files.
  - What is there is adopted, and only the difference is done. Fields that are not declared are never touched.
  - Without a daemon, pools of types V(dir), V(fs), V(netfs), V(logical) and V(disk) can be built, started and deleted,
    those of types V(iscsi), V(iscsi-direct), V(scsi) and V(mpath), whose volumes others serve, started, and those of
    the others only defined, listed and undefined. Through a daemon all can be that the daemon supports.
extends_documentation_fragment:
  - virt.storage.attributes
  - virt.storage.connection
options:
  name:
    description:
      - The name of the pool. Required, unless O(xml) or, for types that are named by their source, O(source) names it.
    type: str
  uuid:
    description:
      - The uuid of the pool. A new pool gets a random one when it is left out; an existing pool keeps its own.
    type: str
  type:
    description:
      - The type of the pool. Needed to define it, and can't be changed afterwards.
    type: str
    choices: [dir, fs, netfs, logical, disk, iscsi, iscsi-direct, scsi, mpath, rbd, sheepdog, gluster, zfs, vstorage]
  path:
    description:
      - The directory of the pool, an absolute path. For types whose volumes are not files, where their devices show up;
        of types V(disk), V(scsi) and V(iscsi) that is C(/dev) or a directory of links below it, such as
        C(/dev/disk/by-id). Of type V(iscsi) it is C(/dev/disk/by-path) where nothing else is said.
      - Pools of type V(logical) and V(zfs) are where the name of their source says; another path is refused.
      - In an active pool it changes only with V(restart) in O(allow).
    type: str
  owner:
    description:
      - The owner of the pool's directory, a name or a number.
    type: str
  group:
    description:
      - The group of the pool's directory, a name or a number.
    type: str
  mode:
    description:
      - The mode of the pool's directory. Text is octal (V("0711")), a number is the bits themselves.
      - A directory that is made gets V("0711") when this is left out.
    type: raw
  source:
    description:
      - Where the storage comes from. Which of these a type needs is in docs/pools/README.md; what it has no use for is
        refused.
    type: dict
    suboptions:
      host:
        description: The server, as C(name), C(name:port) or C([address]:port).
        type: str
      hosts:
        description: Several servers, each as O(source.host).
        type: list
        elements: str
      dir:
        description: The exported directory, or the directory within the volume.
        type: str
      device:
        description: The device that holds the storage.
        type: str
      devices:
        description: Several devices.
        type: list
        elements: str
      volume:
        description:
          - A volume of another pool as the device, as C(POOL/VOLUME); for types V(fs), V(logical), V(disk) and V(zfs).
            Its pool has to be active.
          - The definition names its path. While this pool is active, that one is not stopped.
        type: str
      name:
        description: The volume group, zpool, Ceph pool, Gluster volume or cluster.
        type: str
      iqn:
        description: The name of the iSCSI target.
        type: str
      initiator:
        description: The name of the iSCSI initiator.
        type: str
      adapter:
        description: The host adapter of a pool of type V(scsi).
        type: dict
        suboptions:
          type:
            description: The kind of adapter.
            type: str
            choices: [scsi_host, fc_host]
          name:
            description: Its name, such as V(scsi_host2).
            type: str
          parent:
            description: The node device of the parent of a virtual FC host.
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
          parent_wwnn:
            description: The parent by its world wide node name; needs O(source.adapter.parent_wwpn).
            type: str
          parent_wwpn:
            description: The parent by its world wide port name; needs O(source.adapter.parent_wwnn).
            type: str
          parent_fabric_wwn:
            description: The parent by the fabric that it is on.
            type: str
          managed:
            description: Whether a virtual FC host is removed when the pool stops.
            type: bool
      format:
        description: The format of the source; which ones there are depends on the type.
        type: str
      protocol_version:
        description: The version of NFS.
        type: str
      auth:
        description:
          - What the source wants to know of who connects.
          - The password of V(chap) and V(ceph) is in a secret of libvirt, which the definition names. With
            O(source.auth.secret) that is made, or set, and goes with the pool; docs/secrets.md says where it is kept.
          - That of V(cifs) is kept nowhere, so that it is given in each task that may mount the share.
        type: dict
        suboptions:
          type:
            description: How it is asked for.
            type: str
            choices: [chap, ceph, cifs]
            required: true
          username:
            description: The user; of a CIFS share a domain and a backslash may be before it.
            type: str
            required: true
          secret:
            description: The password, or the key as Ceph prints it.
            type: str
          secret_uuid:
            description: The uuid of the secret of libvirt.
            type: str
          secret_usage:
            description:
              - The usage of the secret of libvirt. With O(source.auth.secret) one of the pool's own is taken where
                neither is given and the definition names none.
            type: str
          mutual:
            description:
              - As whom the target has to show itself in turn, for pools of type V(iscsi). libvirt has no word for it.
                It is used natively, from the next login on, and kept in the records of open-iscsi alone.
            type: dict
            suboptions:
              username:
                description: The target's user.
                type: str
                required: true
              secret:
                description: The target's password.
                type: str
                required: true
      part_separator:
        description: Whether partitions of a device-mapper device are named with a C(p).
        type: bool
      vendor:
        description: The vendor, for information.
        type: str
      product:
        description: The product, for information.
        type: str
  mount_options:
    description:
      - Mount options of pools of type V(fs) and V(netfs). An empty list takes away those that there are. A password
        among them is refused; O(source.auth) is the place for it.
    type: list
    elements: str
  config_options:
    description:
      - Ceph options of pools of type V(rbd), each a text, a number or a boolean. None of them (V({})) takes away those
        that there are. A C(key) is refused; O(source.auth) is the place for it.
    type: dict
  features:
    description:
      - Features of the filesystem that holds the pool.
    type: dict
    suboptions:
      cow:
        description:
          - Whether files of a directory that is made are copied on write. For types V(dir) and V(fs).
          - Of a pool of type V(dir) only btrfs can set it; elsewhere it is refused. Of one that is there it is only
            kept in the definition.
        type: bool
  xml:
    description:
      - A whole libvirt definition instead of the options that describe the pool, of any of the types.
      - All that libvirt reads of such a pool is read. The sizes (C(capacity), C(allocation), C(available)) and
        C(freeExtent) are only ever shown, so they are read over; so are attributes that libvirt has not.
      - What libvirt refuses is refused, and so are elements in C(source), C(target), C(features) and C(refresh) that
        the type has no use for, which libvirt would drop.
      - Other elements below C(pool), such as the metadata of other tools, are kept in the definition file. A libvirt
        daemon does not keep them, and a warning says so.
      - Secrets are named in it by uuid or usage, never written.
    type: str
  state:
    description:
      - V(present) means defined; the running state stays as it is, but for a restart that was interrupted, which it
        completes.
      - V(active) means defined, built if it is not there yet, and started.
      - V(inactive) means defined and stopped; the data is kept.
      - V(absent) and V(undefined) mean stopped, and the definition gone; the data is kept.
      - V(deleted) means stopped, the storage destroyed, and the definition gone. It needs O(type) and O(path) or
        O(source), refuses what is not empty unless O(allow) has V(nonempty), refuses what is not a volume, and leaves a
        directory in place that it did not make. Where the pool is not defined, and another pool or something else has
        its place by now, nothing is done.
    type: str
    choices: [present, active, inactive, absent, undefined, deleted]
    default: active
  autostart:
    description:
      - Whether the pool is started at boot, for which it is marked as libvirt has it.
      - Where no libvirt daemon is started at boot, a unit of systemd starts the marked pools of C(native:///system). It
        is installed with the first mark and removed with the last one. Elsewhere a warning says that nobody does; see
        docs/autostart.md.
    type: bool
  build:
    description:
      - V(auto) makes the storage when it is not there, V(never) refuses to.
    type: str
    choices: [auto, never]
    default: auto
  allow:
    description:
      - What may happen. Nothing in this list happens without being named.
      - V(restart) stops and starts an active pool for a change that needs it.
      - V(nonempty) deletes a pool with the volumes in it, and V(in_use) even those that are in use. V(in_use) also
        erases a device that a guest's definition has, but never what is open.
      - V(in_use) also stops a pool whose devices go away with it from those who use them.
      - V(overwrite) builds the storage where its source holds something else, which is lost.
      - V(stop_adopted) takes down what was up before the pool was started, such as a filesystem that was mounted
        already; without it, stopping leaves that as it is.
      - V(beside_daemon) works natively on the system's own files although a libvirt daemon is there.
    type: list
    elements: str
    choices: [overwrite, restart, nonempty, in_use, stop_adopted, beside_daemon]
    default: []
seealso:
  - module: virt.storage.storage_pool_info
  - module: virt.storage.storage_volume
"""

EXAMPLES = r"""
- name: A directory for images, made if it is not there
  virt.storage.storage_pool:
    name: images
    type: dir
    path: /srv/images
    mode: "0711"

- name: The same pool, owned by the hypervisor and marked for autostart
  virt.storage.storage_pool:
    name: images
    type: dir
    path: /srv/images
    owner: root
    group: root
    autostart: true

- name: Move it to another directory, for which it is stopped and started; files stay where they are
  virt.storage.storage_pool:
    name: images
    type: dir
    path: /srv/vm-images
    allow: [restart]

- name: Stop it and keep everything
  virt.storage.storage_pool:
    name: images
    state: inactive

- name: A definition that libvirt printed
  virt.storage.storage_pool:
    xml: "{{ lookup('ansible.builtin.file', 'images.xml') }}"
    state: present

- name: Destroy the pool with the volumes in it
  virt.storage.storage_pool:
    name: images
    type: dir
    path: /srv/vm-images
    state: deleted
    allow: [nonempty]

- name: A pool through the libvirt daemon of the host
  virt.storage.storage_pool:
    uri: qemu:///system
    name: backups
    type: dir
    path: /srv/backups
    autostart: true

- name: An NFS export, only defined; it is mounted when the pool is started
  virt.storage.storage_pool:
    name: shared
    type: netfs
    path: /srv/shared
    source:
      host: nfs.example.com
      dir: /export/images
      format: nfs
    mount_options: [ro]
    autostart: true
    state: present

- name: An iSCSI target that asks who logs in; the password is kept as libvirt keeps it
  virt.storage.storage_pool:
    name: san
    type: iscsi
    source:
      hosts: ["192.0.2.5", "192.0.2.6:3261"]
      iqn: iqn.2026-01.com.example:guests
      auth:
        type: chap
        username: kvm1
        secret: "{{ vault_san }}"
    autostart: true
    state: present

- name: What it would take to have files on a volume of another pool, which an earlier task may make
  virt.storage.storage_pool:
    name: files
    type: fs
    path: /srv/files
    source:
      volume: guests/data
      format: ext4
  check_mode: true
"""

RETURN = r"""
pool:
  description:
    - The pool after the task; in check mode as it would be, as far as that is known.
  returned: when it was looked at
  type: dict
  contains:
    name:
      description: The name.
      type: str
      returned: always
    state:
      description: V(active), V(inactive), V(absent), or V(unknown) when it can't be read.
      type: str
      returned: always
    error:
      description: Why it can't be read.
      type: dict
      returned: when the state is unknown
    type:
      description: The type.
      type: str
      returned: when it can be read
    uuid:
      description: The uuid.
      type: str
      returned: when it can be read
    path:
      description: The directory, or where its devices show up; null for types that have none.
      type: str
      returned: when it can be read
    persistent:
      description: Whether it has a definition, not only a running state.
      type: bool
      returned: when it can be read
    autostart:
      description: Whether it is marked for autostart.
      type: bool
      returned: when it can be read
    source:
      description: Its source. Hosts, devices and adapters are lists and dicts, as in its XML.
      type: dict
      returned: when it can be read
    features:
      description: As the option of M(virt.storage.storage_pool).
      type: dict
      returned: when its definition has some
    mount_options:
      description: As the option of M(virt.storage.storage_pool). A password in it is V((private\)).
      type: list
      elements: str
      returned: when its definition has some
    config_options:
      description: As the option of M(virt.storage.storage_pool). A key in it is V((private\)).
      type: dict
      returned: when its definition has some
    refresh_allocation:
      description: How a daemon finds out what images of a pool of type V(rbd) take, V(default) or V(capacity).
      type: str
      returned: when its definition has it
    mode:
      description: The mode of its directory, octal text.
      type: str
      returned: when the directory is there, or a daemon tells
    owner:
      description: The owner of its directory, a number.
      type: int
      returned: when the directory is there, or a daemon tells
    group:
      description: The group of its directory, a number.
      type: int
      returned: when the directory is there, or a daemon tells
    label:
      description: The SELinux label of its directory.
      type: str
      returned: when a daemon tells it
    capacity:
      description: The size of the storage in bytes, of a directory that of its filesystem.
      type: int
      returned: when the directory is there, or a daemon tells
    allocation:
      description: The bytes of it that are used.
      type: int
      returned: when the directory is there, or a daemon tells
    available:
      description: The bytes of it that are free.
      type: int
      returned: when the directory is there, or a daemon tells
    partition_table:
      description: The label that the disk has, as C(source.format).
      type: str
      returned: when the type is disk and it is active
    free_extents:
      description:
        - Where new partitions can be, each in one piece, with aligned starts. Bytes, C(end) is exclusive.
      type: list
      elements: dict
      returned: when the type is disk and it is active
      contains:
        start:
          description: The first byte, counted from the start of the disk.
          type: int
          returned: always
        end:
          description: The byte behind the last one.
          type: int
          returned: always
        size:
          description: How large a new partition can be there.
          type: int
          returned: always
        kind:
          description: V(logical) inside of an extended partition, else V(primary).
          type: str
          returned: always
    unseen:
      description:
        - What nobody but the daemon has looked at. Guards that need it are only as good as the daemon's own.
      type: list
      elements: str
      returned: when only a daemon can look at the storage, such as on another host
  sample:
    name: images
    type: dir
    uuid: 6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10
    path: /srv/images
    state: active
    persistent: true
    autostart: false
    mode: "0711"
    owner: 0
    group: 0
    capacity: 52710469632
    allocation: 10737418240
    available: 41973051392
    source: {}
plan:
  description: What is changed, or in check mode would be, like changes grouped. After a failure, what was meant.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: What is done.
      type: str
      returned: always
      sample: define
    subject:
      description: To what.
      type: str
      returned: always
      sample: pool images
    subjects:
      description: To what all, where like changes were grouped.
      type: list
      elements: str
      returned: when there are several
    summary:
      description: The same in a sentence.
      type: str
      returned: always
      sample: "pool images: define it as dir at /srv/images"
    destroys:
      description: What is lost, empty when nothing is.
      type: str
      returned: always
      sample: ""
    commands:
      description: How, as the nearest shell commands.
      type: list
      elements: str
      returned: always
      sample: ["mkdir -p -m 0711 /srv/images"]
    count:
      description: How many like changes this stands for.
      type: int
      returned: always
      sample: 1
    halfway:
      description: Of what changes were begun that then failed, so that nothing is known of what they were to change.
      type: list
      elements: str
      returned: when there are some
diff:
  description:
    - Before and after as YAML text, only what changes. After a failure, what was done until then.
    - What failed in the middle of its change is C(begun, not completed) in RV(diff.after).
  returned: always
  type: dict
  contains:
    before:
      description: What was there.
      type: str
      returned: always
    after:
      description: What is there now, or would be.
      type: str
      returned: always
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
      sample: pool_nonempty
    subject:
      description: Which pool, volume or device.
      type: str
      returned: always
      sample: pool images
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

from ansible_collections.virt.storage.plugins.module_utils.tasks import pool
from ansible_collections.virt.storage.plugins.module_utils.tasks.outcome import arguments, run_guarded


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            name={"type": "str"},
            uuid={"type": "str"},
            type={
                "type": "str",
                "choices": [
                    "dir",
                    "fs",
                    "netfs",
                    "logical",
                    "disk",
                    "iscsi",
                    "iscsi-direct",
                    "scsi",
                    "mpath",
                    "rbd",
                    "sheepdog",
                    "gluster",
                    "zfs",
                    "vstorage",
                ],
            },
            path={"type": "str"},
            owner={"type": "str"},
            group={"type": "str"},
            mode={"type": "raw"},
            source={
                "type": "dict",
                "options": {
                    "host": {"type": "str"},
                    "hosts": {"type": "list", "elements": "str"},
                    "dir": {"type": "str"},
                    "device": {"type": "str"},
                    "devices": {"type": "list", "elements": "str"},
                    "volume": {"type": "str"},
                    "name": {"type": "str"},
                    "iqn": {"type": "str"},
                    "initiator": {"type": "str"},
                    "adapter": {
                        "type": "dict",
                        "options": {
                            "type": {"type": "str", "choices": ["scsi_host", "fc_host"]},
                            "name": {"type": "str"},
                            "parent": {"type": "str"},
                            "parent_address": {"type": "str"},
                            "unique_id": {"type": "int"},
                            "wwnn": {"type": "str"},
                            "wwpn": {"type": "str"},
                            "parent_wwnn": {"type": "str"},
                            "parent_wwpn": {"type": "str"},
                            "parent_fabric_wwn": {"type": "str"},
                            "managed": {"type": "bool"},
                        },
                    },
                    "format": {"type": "str"},
                    "protocol_version": {"type": "str"},
                    "auth": {
                        "type": "dict",
                        "options": {
                            "type": {"type": "str", "choices": ["chap", "ceph", "cifs"], "required": True},
                            "username": {"type": "str", "required": True},
                            "secret": {"type": "str", "no_log": True},
                            "secret_uuid": {"type": "str", "no_log": False},
                            "secret_usage": {"type": "str", "no_log": False},
                            "mutual": {
                                "type": "dict",
                                "options": {
                                    "username": {"type": "str", "required": True},
                                    "secret": {"type": "str", "required": True, "no_log": True},
                                },
                            },
                        },
                    },
                    "part_separator": {"type": "bool"},
                    "vendor": {"type": "str"},
                    "product": {"type": "str"},
                },
                "mutually_exclusive": [("host", "hosts"), ("device", "devices", "volume", "iqn")],
            },
            mount_options={"type": "list", "elements": "str"},
            config_options={"type": "dict"},
            features={"type": "dict", "options": {"cow": {"type": "bool"}}},
            xml={"type": "str"},
            state={
                "type": "str",
                "choices": ["present", "active", "inactive", "absent", "undefined", "deleted"],
                "default": "active",
            },
            autostart={"type": "bool"},
            build={"type": "str", "choices": ["auto", "never"], "default": "auto"},
            allow={
                "type": "list",
                "elements": "str",
                "choices": ["overwrite", "restart", "nonempty", "in_use", "stop_adopted", "beside_daemon"],
                "default": [],
            },
        ),
        supports_check_mode=True,
    )
    run_guarded(module, pool.run, pool.run_unlooked)


if __name__ == "__main__":
    main()
