# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # What all modules that change a host have in common.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: In check mode the module looks at the host, says what it would do, and does none of it.
    support: full
  diff_mode:
    description: In diff mode the module returns what differs between the host before and after.
    support: full
  idempotent:
    description: Run again with the same options on an unchanged host, the module changes nothing and says so.
    support: full
  platform:
    description: The operating systems of the hosts that the module manages.
    platforms: linux
    support: full
"""

    # For modules that only look.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    description: The module changes nothing, with or without check mode.
    support: full
  diff_mode:
    description: The module changes nothing, so that there is no difference to show.
    support: N/A
  idempotent:
    description: The module changes nothing, however often it runs.
    support: full
  platform:
    description: The operating systems of the hosts that the module manages.
    platforms: linux
    support: full
"""
