# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random sequences of declared states of pools on each other's volumes, and tasks on them that are killed."""

from __future__ import annotations

from .both import test_killed_anywhere, test_random_declarations
from .on_layers import LayersKind as Kind

__all__ = ["Kind", "test_killed_anywhere", "test_random_declarations"]
