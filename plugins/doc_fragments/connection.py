# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that every module takes."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  uri:
    description:
      - Which pools are meant, and through what.
      - V(auto) works through the libvirt daemon of a host on which one is installed or listens (V(qemu:///system), or
        V(qemu:///session) when not run as root), and natively on the same files where there is none
        (V(native:///system) or V(native:///session)). A daemon that is installed but does not answer is an error.
      - Any uri of libvirt, such as V(qemu:///system) or V(qemu+ssh://root@kvm1/system), works through that daemon.
      - V(native:///system) uses C(/etc/libvirt/storage) and C(/run/libvirt/storage) without a daemon.
      - V(native:///session) uses the same files of the user.
      - V(native:///?root=DIR) keeps definitions, state and locks below C(DIR), which needs no privileges.
    type: str
    default: auto
  timeout:
    description:
      - How many seconds to wait for what may never answer (a server, a device, a daemon), and, where something is to be
        changed, for another task that is changing the same pool.
    type: int
    default: 30
requirements:
  - lxml (Debian and Ubuntu C(python3-lxml), Fedora and EL C(python3-lxml), SUSE C(python3-lxml), Arch C(python-lxml))
  - for a libvirt daemon its Python binding (Debian, Ubuntu, Fedora and EL C(python3-libvirt), SUSE
    C(python3-libvirt-python), Arch C(libvirt-python)); where Ansible uses a Python that lacks it, the module runs
    itself again with one that has it
  - Python 3.9 or newer on the target
"""
