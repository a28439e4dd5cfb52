# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What a daemon is asked for and answers when it looks for sources (libvirt: virConnectFindStoragePoolSources)."""

from __future__ import annotations

from ..model.pool import Source
from ..model.types import PoolType
from . import _tree
from .source import read_source, write_source


def render_query(source: Source, row: PoolType) -> str:
    """The ``<source>`` that says whom to ask."""
    root = _tree.new_root("source")
    write_source(root, source, row)
    return _tree.to_text(root)


def parse_sources(text: bytes | str, row: PoolType) -> tuple[Source, ...]:
    """The sources in a ``<sources>``. Raises ``invalid_xml``."""
    return tuple(read_source(element, row) for element in _tree.parse(text).findall("source"))
