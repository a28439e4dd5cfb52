# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Starts the lab's commands (dev/lab)."""

from __future__ import annotations

import places
from lab import command

if __name__ == "__main__":
    places.main(command.entry)
