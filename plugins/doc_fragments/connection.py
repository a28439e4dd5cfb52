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
      - V(auto) uses the native engine on the system's own files (those of the user when not run as root). A host on
        which a libvirt daemon is installed is refused, since there is no engine that works through a daemon yet.
      - V(native:///system) uses C(/etc/libvirt/storage) and C(/run/libvirt/storage) without a daemon.
      - V(native:///session) uses the same files of the user.
      - V(native:///?root=DIR) keeps definitions, state and locks below C(DIR), which needs no privileges.
    type: str
    default: auto
  timeout:
    description:
      - How many seconds to wait for another task that is changing the same pool.
    type: int
    default: 30
requirements:
  - lxml (Debian and Ubuntu C(python3-lxml), Fedora and EL C(python3-lxml), SUSE C(python3-lxml), Arch C(python-lxml))
  - Python 3.9 or newer on the target
"""
