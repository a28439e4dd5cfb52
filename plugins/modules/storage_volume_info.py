#!/usr/bin/python
# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of storage pools, looked at."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_volume_info
short_description: List volumes of storage pools
version_added: 0.1.0
author: virt.storage contributors (@virt-storage)
description:
  - Returns the volumes of active pools that match, always as a list, which is empty when none does, also where a name
    or path is given. That is no error, and brings no warning. Changes nothing.
  - Sizes, format and backing are read from the images themselves. A malformed image is a record that says so.
  - Of volumes that only a libvirt daemon sees, such as block devices, network volumes and those of other hosts, the
    records have what the daemon tells.
extends_documentation_fragment:
  - virt.storage.attributes.info_module
  - virt.storage.connection
options:
  pool:
    description:
      - The pool. One that is not there, or not active, has no volumes, which is no error;
        M(virt.storage.storage_pool_info) tells which it is.
      - All pools when it is left out; those that can't be read are then in RV(errors).
    type: str
  name:
    description:
      - The name of a volume, or a shell pattern (V(web*)).
    type: str
  path:
    description:
      - The path of a volume. Symbolic links are followed.
    type: str
  fields:
    description:
      - Only these fields of each record, beside its name. Any of those that RV(volumes) can have.
    type: list
    elements: str
  xml:
    description:
      - Whether each record has the volume as libvirt XML.
    type: bool
    default: false
seealso:
  - module: virt.storage.storage_volume
"""

EXAMPLES = r"""
- name: All volumes of a pool
  virt.storage.storage_volume_info:
    pool: images
  register: found

- name: What is behind a path
  virt.storage.storage_volume_info:
    path: /srv/images/web1.qcow2

- name: Only the sizes of some
  virt.storage.storage_volume_info:
    pool: images
    name: web*
    fields: [capacity, allocation]
"""

RETURN = r"""
volumes:
  description: The volumes that match, by pool and name.
  returned: always
  type: list
  elements: dict
  contains:
    pool:
      description: The pool.
      type: str
      returned: always
    name:
      description: The name.
      type: str
      returned: always
    type:
      description: V(file), V(dir), V(block), or V(network).
      type: str
      returned: always
    path:
      description: The path; for network volumes what the daemon calls it.
      type: str
      returned: always
    key:
      description: What libvirt knows it by. Of a file it is the path; of others what the daemon says.
      type: str
      returned: always
    format:
      description:
        - The format that its header shows; of a partition and others what the daemon says, or null.
      type: str
      returned: always
    capacity:
      description: The size that a guest sees, in bytes.
      type: int
      returned: always
    allocation:
      description: The bytes that it takes on disk.
      type: int
      returned: always
    physical:
      description: The length of the file or device in bytes; null where it is not known.
      type: int
      returned: always
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
      returned: always
    xml:
      description: The volume as libvirt XML.
      type: str
      returned: when asked for
errors:
  description: The pools that could not be read, when no pool was named.
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

from ansible_collections.virt.storage.plugins.module_utils.tasks import info
from ansible_collections.virt.storage.plugins.module_utils.tasks.outcome import arguments, run_guarded


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(
            pool={"type": "str"},
            name={"type": "str"},
            path={"type": "str"},
            fields={"type": "list", "elements": "str"},
            xml={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    run_guarded(module, info.run_volumes)


if __name__ == "__main__":
    main()
