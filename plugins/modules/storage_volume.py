#!/usr/bin/python
# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of storage pools."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_volume
short_description: Manage volumes of storage pools
version_added: 0.1.0
author: virt.storage contributors (@virt-storage)
requirements:
  - qemu-img for qcow2 volumes and for images that are converted
description:
  - Brings one volume, or many of one pool, into the declared state.
  - An existing volume is compared on everything that is declared. What can be changed in place is; what can't is an
    error that names the way out. Nothing is lost without being named in O(allow) or O(recreate).
  - A volume appears under its name whole or not at all, and never replaces one that somebody else made meanwhile.
  - The pool must be active. Without a libvirt daemon it is one of type V(dir), V(fs), V(netfs), V(logical) or V(disk).
    Through a daemon it can be of any type that the daemon runs; what it can do with the volumes of each is in
    docs/pools/README.md.
extends_documentation_fragment:
  - virt.storage.attributes
  - virt.storage.connection
attributes:
  idempotent:
    support: partial
    details:
      - With O(recreate=always) the volumes are made anew on every run. Everything else is idempotent.
options:
  pool:
    description:
      - The pool.
    type: str
    required: true
  name:
    description:
      - The name of the volume. For many volumes use O(volumes).
    type: str
  capacity:
    description:
      - The size that a guest sees, in bytes or with a unit (V(10G), V(10GiB), V(512 MiB); V(1GB) is 10^9 bytes).
      - Needed for a volume that is not there yet, unless its backing or source gives the size.
      - A plain number below 1 MiB brings a warning, since V(10) is 10 bytes; V(10B) says that it is meant.
    type: str
  capacity_policy:
    description:
      - With V(at_least) a larger volume is as good. The default is V(exact), up to what the format rounds to.
    type: str
    choices: [exact, at_least]
  allocation:
    description:
      - How much of a new volume is reserved on disk at once, as O(capacity). Nothing by default (sparse).
      - Counts at creation only.
    type: str
  format:
    description:
      - The format of an image, V(raw) or V(qcow2). A new one is V(raw) by default, or what its source is.
      - Of a partition (type disk) what its table says that it is for, V(linux) by default; or V(none), V(fat16),
        V(fat32), V(linux-swap), V(linux-lvm), V(linux-raid), V(extended). Nothing is formatted.
      - V(thin-pool) is what thin volumes of a logical pool get their space from.
    type: str
  owner:
    description:
      - The owner, a name or a number. Left alone while the volume is in use.
    type: str
  group:
    description:
      - The group, a name or a number. Left alone while the volume is in use.
    type: str
  mode:
    description:
      - The mode. Text is octal (V("0600")), a number is the bits themselves. A new volume gets V("0600") by default.
      - Left alone while the volume is in use.
    type: raw
  backing:
    description:
      - What a qcow2 volume is backed by. Plain text is the name of a volume of the same pool, or an absolute path.
      - A dict has C(volume) or C(path), and C(format).
      - The format is declared, here or in the entry of the backing volume, and never taken from its content, since a
        guest can write any header into a raw disk. It may be left out for raw images only.
    type: raw
  source:
    description:
      - What a new volume starts with. It counts at creation only, except O(source.content), which an existing volume
        is compared with.
    type: dict
    suboptions:
      path:
        description: An image on the host, an absolute path. It is converted where the formats differ.
        type: str
      volume:
        description: Another volume of the same pool.
        type: str
      format:
        description:
          - The format of that image. By default what its header shows.
          - V(raw) takes its bytes as they are. An image with a backing file or a data file of its own is refused
            otherwise.
        type: str
        choices: [raw, qcow2]
      content:
        description: The content itself, for small raw volumes.
        type: str
  options:
    description:
      - Options of the format. Only qcow2 has them, except C(nocow) and C(thin_pool).
    type: dict
    suboptions:
      compat:
        description: The version of the qcow2 format. New volumes get V(1.1) by default.
        type: str
        choices: ['0.10', '1.1']
      cluster_size:
        description: The cluster size, as O(capacity). It can't be changed afterwards.
        type: str
      lazy_refcounts:
        description: Whether reference counts are written late.
        type: bool
      extended_l2:
        description: Whether clusters have subclusters. It can't be changed afterwards.
        type: bool
      preallocation:
        description: What is reserved of a new volume. Counts at creation only.
        type: str
        choices: ['off', metadata, falloc, full]
      nocow:
        description:
          - Whether a new volume is not copied on write, where the filesystem can (btrfs). Counts at creation only.
        type: bool
      thin_pool:
        description:
          - The thin pool, a volume of the same logical pool, that the volume gets its space from as it is written.
          - It can't be changed afterwards.
        type: str
  xml:
    description:
      - A whole libvirt volume definition instead of the options that describe the volume.
      - Read are C(name), C(capacity) and C(allocation), C(format), C(permissions), C(compat), C(clusterSize),
        C(features), C(nocow) and C(encryption) of C(target), and C(path) and C(format) of C(backingStore).
      - Only ever shown, and so read over, are C(key), C(physical), C(source), the type of the volume, C(path) and
        C(timestamps) of C(target), and C(permissions) and C(timestamps) of C(backingStore).
      - Refused are all other elements, a C(label), a relative path of C(backingStore), the text of a C(secret), and a
        C(cipher) where the format of C(encryption) is not luks, since libvirt would drop it.
      - Encrypted volumes that are there are adopted, by whatever secret; none is made, other than by a libvirt daemon
        whose pool can't be seen from here.
    type: str
  state:
    description:
      - V(present) is the default. V(absent) deletes the volume and its content; where its pool is not defined there is
        nothing to be deleted, which is a warning.
    type: str
    choices: [present, absent]
  recreate:
    description:
      - Whether an existing volume is made anew, which loses its content.
      - V(never) is the default; V(needed) does it when something differs that can't be changed in place; V(always)
        does it on every run, and is therefore never idempotent.
    type: str
    choices: [never, needed, always]
  allow:
    description:
      - What may happen. Nothing in this list happens without being named.
      - V(shrink) makes a volume smaller, which loses its end.
      - V(in_use) deletes, shrinks or makes anew a volume that is in use by a process, a device or a guest's definition;
        a block device that is open is only shrunk. It also makes or grows one on a device of which a guest's
        definition has the whole.
      - V(backing) deletes, shrinks or makes anew a volume that others are backed by, and rewrites an existing volume
        on another backing, its content kept as it reads.
      - V(raw) resizes a volume that is declared raw as raw, although its content begins as a qcow2 image does.
      - V(beside_daemon) works natively on the system's own files although a libvirt daemon is there.
    type: list
    elements: str
    choices: [shrink, in_use, backing, raw, beside_daemon]
  volumes:
    description:
      - Many volumes of the pool, in any order. Each entry takes from the task every option that it does not give
        itself; dicts are replaced, not merged. An empty list is nothing to do.
      - One bad entry refuses the whole task before anything changes. A failure while they are being made stops
        nothing that does not depend on it.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - The name of the volume. Required, unless C(xml) has it.
        type: str
      capacity:
        description:
          - The size that a guest sees, in bytes or with a unit (V(10G), V(10GiB), V(512 MiB); V(1GB) is 10^9 bytes).
          - Needed for a volume that is not there yet, unless its backing or source gives the size.
        type: str
      capacity_policy:
        description:
          - With V(at_least) a larger volume is as good. The default is V(exact), up to what the format rounds to.
        type: str
        choices: [exact, at_least]
      allocation:
        description:
          - How much of a new volume is reserved on disk at once, as C(capacity). Nothing by default (sparse).
          - Counts at creation only.
        type: str
      format:
        description:
          - The format of an image, V(raw) or V(qcow2). A new one is V(raw) by default, or what its source is.
          - Of a partition (type disk) what its table says that it is for, V(linux) by default; or V(none), V(fat16),
            V(fat32), V(linux-swap), V(linux-lvm), V(linux-raid), V(extended). Nothing is formatted.
          - V(thin-pool) is what thin volumes of a logical pool get their space from.
        type: str
      owner:
        description:
          - The owner, a name or a number. Left alone while the volume is in use.
        type: str
      group:
        description:
          - The group, a name or a number. Left alone while the volume is in use.
        type: str
      mode:
        description:
          - The mode. Text is octal (V("0600")), a number is the bits themselves. A new volume gets V("0600") by
            default.
          - Left alone while the volume is in use.
        type: raw
      backing:
        description:
          - What a qcow2 volume is backed by. Plain text is the name of a volume of the same pool, or an absolute path.
          - A dict has C(volume) or C(path), and C(format).
          - The format is declared, here or in the entry of the backing volume, and never taken from its content,
            since a guest can write any header into a raw disk. It may be left out for raw images only.
        type: raw
      source:
        description:
          - What a new volume starts with. It counts at creation only, except C(content), which an existing volume is
            compared with.
        type: dict
        suboptions:
          path:
            description: An image on the host, an absolute path. It is converted where the formats differ.
            type: str
          volume:
            description: Another volume of the same pool.
            type: str
          format:
            description:
              - The format of that image. By default what its header shows.
              - V(raw) takes its bytes as they are. An image with a backing file or a data file of its own is refused
                otherwise.
            type: str
            choices: [raw, qcow2]
          content:
            description: The content itself, for small raw volumes.
            type: str
      options:
        description:
          - Options of the format. Only qcow2 has them, except C(nocow) and C(thin_pool).
        type: dict
        suboptions:
          compat:
            description: The version of the qcow2 format. New volumes get V(1.1) by default.
            type: str
            choices: ['0.10', '1.1']
          cluster_size:
            description: The cluster size, as C(capacity). It can't be changed afterwards.
            type: str
          lazy_refcounts:
            description: Whether reference counts are written late.
            type: bool
          extended_l2:
            description: Whether clusters have subclusters. It can't be changed afterwards.
            type: bool
          preallocation:
            description: What is reserved of a new volume. Counts at creation only.
            type: str
            choices: ['off', metadata, falloc, full]
          nocow:
            description:
              - Whether a new volume is not copied on write, where the filesystem can (btrfs). Counts at creation only.
            type: bool
          thin_pool:
            description:
              - The thin pool, a volume of the same logical pool, that the volume gets its space from as it is written.
              - It can't be changed afterwards.
            type: str
      xml:
        description:
          - A whole libvirt volume definition instead of the options that describe the volume.
          - Read are C(name), C(capacity) and C(allocation), C(format), C(permissions), C(compat), C(clusterSize),
            C(features), C(nocow) and C(encryption) of C(target), and C(path) and C(format) of C(backingStore).
          - Only ever shown, and so read over, are C(key), C(physical), C(source), the type of the volume, C(path) and
            C(timestamps) of C(target), and C(permissions) and C(timestamps) of C(backingStore).
          - Refused are all other elements, a C(label), a relative path of C(backingStore), the text of a C(secret), and
            a C(cipher) where the format of C(encryption) is not luks, since libvirt would drop it.
          - Encrypted volumes that are there are adopted, by whatever secret; none is made, other than by a libvirt
            daemon whose pool can't be seen from here.
        type: str
      state:
        description:
          - V(present) is the default. V(absent) deletes the volume and its content.
        type: str
        choices: [present, absent]
      recreate:
        description:
          - Whether an existing volume is made anew, which loses its content.
          - V(never) is the default; V(needed) does it when something differs that can't be changed in place;
            V(always) does it on every run, and is therefore never idempotent.
        type: str
        choices: [never, needed, always]
      allow:
        description:
          - What may happen. Nothing in this list happens without being named.
          - V(shrink) makes a volume smaller, which loses its end.
          - V(in_use) deletes, shrinks or makes anew a volume that is in use by a process, a device or a guest's
            definition; a block device that is open is only shrunk. It also makes or grows one on a device of which a
            guest's definition has the whole.
          - V(backing) deletes, shrinks or makes anew a volume that others are backed by, and rewrites an existing
            volume on another backing, its content kept as it reads.
          - V(raw) resizes a volume that is declared raw as raw, although its content begins as a qcow2 image does.
          - V(beside_daemon) works natively on the system's own files although a libvirt daemon is there.
        type: list
        elements: str
        choices: [shrink, in_use, backing, raw, beside_daemon]
  exclusive:
    description:
      - A shell pattern. Volumes whose names match and that are not listed are deleted. At least one must be listed.
      - Where it matches none of the volumes to keep, a warning says so.
      - One that is in use or that others are backed by refuses the task. Files, logical volumes and partitions
        are deleted, directories never.
    type: str
seealso:
  - module: virt.storage.storage_volume_info
  - module: virt.storage.storage_pool
"""

EXAMPLES = r"""
- name: A disk of 10 GiB that takes no space yet
  virt.storage.storage_volume:
    pool: images
    name: data.raw
    capacity: 10GiB

- name: A base image, converted to qcow2
  virt.storage.storage_volume:
    pool: images
    name: base.qcow2
    format: qcow2
    source:
      path: /var/tmp/installer.img
      format: raw

- name: Thirty disks on top of it in one task
  virt.storage.storage_volume:
    pool: images
    format: qcow2
    capacity: 20G
    backing: {volume: base.qcow2, format: qcow2}
    volumes: "{{ range(30) | map('string') | map('regex_replace', '(.+)', '{name: vm\\1}') | map('from_yaml') | list }}"

- name: A disk with large clusters, its metadata laid out beforehand
  virt.storage.storage_volume:
    pool: images
    name: db.qcow2
    format: qcow2
    capacity: 100GiB
    options:
      cluster_size: 1MiB
      preallocation: metadata

- name: A small disk with a text in it
  virt.storage.storage_volume:
    pool: images
    name: note.raw
    capacity: 1MiB
    source:
      content: "made for vm0\n"

- name: A volume as libvirt describes it
  virt.storage.storage_volume:
    pool: images
    xml: |
      <volume>
        <name>described.qcow2</name>
        <capacity unit='GiB'>10</capacity>
        <target><format type='qcow2'/></target>
      </volume>

- name: A disk through the libvirt daemon of the host
  virt.storage.storage_volume:
    uri: qemu:///system
    pool: images
    name: web.qcow2
    format: qcow2
    capacity: 20G

- name: Grow one
  virt.storage.storage_volume:
    pool: images
    name: vm0
    capacity: 40G

- name: Start over with all of them
  virt.storage.storage_volume:
    pool: images
    format: qcow2
    capacity: 20G
    backing: {volume: base.qcow2, format: qcow2}
    recreate: always
    volumes: [{name: vm0}, {name: vm1}]

- name: Exactly these disks, and no other vm*
  virt.storage.storage_volume:
    pool: images
    capacity: 20G
    exclusive: vm*
    volumes: [{name: vm0}, {name: vm1}]

- name: Remove a disk
  virt.storage.storage_volume:
    pool: images
    name: data.raw
    state: absent
"""

RETURN = r"""
volumes:
  description:
    - One record per declared volume, and per one that O(exclusive) removed, as M(virt.storage.storage_volume_info)
      has them, after the task; in check mode as they would be, as far as that is known.
  returned: when they were looked at
  type: list
  elements: dict
  contains:
    name:
      description: The name.
      type: str
      returned: always
    state:
      description: V(present) or V(absent).
      type: str
      returned: always
    status:
      description: What became of it, one of V(ok), V(changed), V(failed) and V(skipped).
      type: str
      returned: always
    error:
      description: Why it failed or was skipped, as RV(error).
      type: dict
      returned: when it did
    type:
      description: V(file), V(dir), V(block), or V(network).
      type: str
      returned: when it is present
    path:
      description: The path; for network volumes what the daemon calls it.
      type: str
      returned: when it is present
    key:
      description: What libvirt knows it by. Of a file it is the path; of others what the daemon says.
      type: str
      returned: when it is present
    format:
      description:
        - The format that its header shows; of a partition and others what the daemon says, or null.
      type: str
      returned: when it is present
    capacity:
      description: The size that a guest sees, in bytes.
      type: int
      returned: when it is present
    allocation:
      description: The bytes that it takes on disk.
      type: int
      returned: when it is present
    physical:
      description: The length of the file or device in bytes; null where it is not known.
      type: int
      returned: when it is present
    mode:
      description: The mode, octal text.
      type: str
      returned: when it was looked at, or a daemon tells
    owner:
      description: The owner, a number.
      type: int
      returned: when it was looked at, or a daemon tells
    group:
      description: The group, a number.
      type: int
      returned: when it was looked at, or a daemon tells
    label:
      description: The SELinux label.
      type: str
      returned: when a daemon tells it
    backing:
      description: What the image is backed by.
      type: dict
      sample: {path: /srv/images/base.qcow2, format: qcow2}
      returned: when it is
    thin_pool:
      description: The thin pool that a thin volume of a logical pool gets its space from.
      type: str
      returned: for thin volumes
    compat:
      description: The version of the qcow2 format.
      type: str
      returned: for qcow2
    cluster_size:
      description: The cluster size of a qcow2 image in bytes.
      type: int
      returned: for qcow2
    lazy_refcounts:
      description: Whether reference counts are written late.
      type: bool
      returned: for qcow2
    extended_l2:
      description: Whether clusters have subclusters.
      type: bool
      returned: for qcow2
    data_file:
      description: The file that holds the data of the image.
      type: str
      returned: when it is another one
    encrypted:
      description: True when the image is encrypted.
      type: bool
      returned: when it is
    link_target:
      description: What it points to, when the volume is a symbolic link.
      type: str
      returned: when it is
    problem:
      description: What is wrong with it.
      type: str
      returned: when something is
    extents:
      description: Where on which device it lies, in bytes; C(end) is exclusive.
      type: list
      elements: dict
      returned: when it is known
      contains:
        device:
          description: The device.
          type: str
          returned: always
        start:
          description: The first byte.
          type: int
          returned: always
        end:
          description: The byte behind the last one.
          type: int
          returned: always
    timestamps:
      description:
        - Times of access, modification and change, seconds since 1970; empty where a daemon does not tell
          them.
      type: dict
      returned: when it is present
pool:
  description: The pool, as M(virt.storage.storage_pool) has it.
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
      sample: create
    subject:
      description: To what.
      type: str
      returned: always
      sample: volume images/vm0
    subjects:
      description: To what all, where like changes were grouped.
      type: list
      elements: str
      returned: when there are several
    summary:
      description: The same in a sentence.
      type: str
      returned: always
      sample: "volume images/vm0: create it (raw, 10 GiB)"
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
      sample: ["truncate -s 10737418240 /srv/images/.virt-storage/vm0"]
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
      sample: shrink_refused
    subject:
      description: Which pool, volume or device.
      type: str
      returned: always
      sample: volume images/vm0
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

from ansible_collections.virt.storage.plugins.module_utils.tasks import volume
from ansible_collections.virt.storage.plugins.module_utils.tasks.outcome import arguments, run_guarded


def volume_options() -> dict:
    """The options of one volume: those of the task, and of each entry of ``volumes``."""
    return {
        "name": {"type": "str"},
        "capacity": {"type": "str"},
        "capacity_policy": {"type": "str", "choices": ["exact", "at_least"]},
        "allocation": {"type": "str"},
        "format": {"type": "str"},
        "owner": {"type": "str"},
        "group": {"type": "str"},
        "mode": {"type": "raw"},
        "backing": {"type": "raw"},
        "source": {
            "type": "dict",
            "options": {
                "path": {"type": "str"},
                "volume": {"type": "str"},
                "format": {"type": "str", "choices": ["raw", "qcow2"]},
                "content": {"type": "str", "no_log": True},
            },
        },
        "options": {
            "type": "dict",
            "options": {
                "compat": {"type": "str", "choices": ["0.10", "1.1"]},
                "cluster_size": {"type": "str"},
                "lazy_refcounts": {"type": "bool"},
                "extended_l2": {"type": "bool"},
                "preallocation": {"type": "str", "choices": ["off", "metadata", "falloc", "full"]},
                "nocow": {"type": "bool"},
                "thin_pool": {"type": "str"},
            },
        },
        "xml": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"]},
        "recreate": {"type": "str", "choices": ["never", "needed", "always"]},
        "allow": {
            "type": "list",
            "elements": "str",
            "choices": ["shrink", "in_use", "backing", "raw", "beside_daemon"],
        },
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            pool={"type": "str", "required": True},
            volumes={"type": "list", "elements": "dict", "options": volume_options()},
            exclusive={"type": "str"},
            **volume_options(),
        ),
        supports_check_mode=True,
    )
    run_guarded(module, volume.run, volume.run_unlooked)


if __name__ == "__main__":
    main()
