# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module that needs libvirt's binding, and says how it was run."""

from __future__ import annotations

import sys

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.tasks.binding import ensure_libvirt


def main():
    spec = {"names": {"type": "list", "elements": "str"}, "password": {"type": "str", "no_log": True}}
    module = AnsibleModule(spec, supports_check_mode=True)
    try:
        ensure_libvirt(module)
    except StorageError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    import libvirt

    module.exit_json(
        changed=True,
        check_mode=module.check_mode,
        executable=sys.executable,
        binding=libvirt.getVersion(),
        count=len(module.params["names"]),
        diff={"before": "", "after": f"{len(module.params['names'])} volumes\n"},
        length=len(module.params["password"]),
        said=module.params["password"],
    )


if __name__ == "__main__":
    main()
