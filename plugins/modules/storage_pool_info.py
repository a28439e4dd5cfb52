#!/usr/bin/python
# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storage pools of a virtualisation host, looked at."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_pool_info
short_description: List storage pools of virtualisation hosts
version_added: 0.1.0
author: virt.storage contributors (@virt-storage)
description:
  - Returns the pools that match, always as a list, which is empty when none does, also where a name, uuid or path is
    given. That is no error, and brings no warning. Changes nothing.
  - A pool that can't be read is a record with the state V(unknown) and its error.
extends_documentation_fragment:
  - virt.storage.attributes.info_module
  - virt.storage.connection
options:
  name:
    description:
      - The name of a pool, or a shell pattern (V(web*)).
    type: str
  uuid:
    description:
      - The uuid of a pool.
    type: str
  path:
    description:
      - The directory of a pool. Symbolic links are followed.
    type: str
  volumes:
    description:
      - Whether the volumes of an active pool are listed too, by V(names) or with V(full) records.
    type: str
    choices: [none, names, full]
    default: none
  fields:
    description:
      - Only these fields of each record, beside its name. Any of those that RV(pools) can have.
    type: list
    elements: str
  xml:
    description:
      - Whether each record has the definition as libvirt XML.
    type: bool
    default: false
seealso:
  - module: virt.storage.storage_pool
"""

EXAMPLES = r"""
- name: All pools
  virt.storage.storage_pool_info:
  register: found

- name: How full the image pools are
  virt.storage.storage_pool_info:
    name: images*
    fields: [capacity, available]

- name: One pool with everything in it
  virt.storage.storage_pool_info:
    name: images
    volumes: full
"""

RETURN = r"""
pools:
  description: The pools that match, by name.
  returned: always
  type: list
  elements: dict
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
    volumes:
      description:
        - Names, or records as M(virt.storage.storage_volume_info) has them. Empty for a pool that is not active.
      type: list
      elements: raw
      returned: when asked for
    xml:
      description: The definition.
      type: str
      returned: when asked for
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
            name={"type": "str"},
            uuid={"type": "str"},
            path={"type": "str"},
            volumes={"type": "str", "choices": ["none", "names", "full"], "default": "none"},
            fields={"type": "list", "elements": "str"},
            xml={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    run_guarded(module, info.run_pools)


if __name__ == "__main__":
    main()
