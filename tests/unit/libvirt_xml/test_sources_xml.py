# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a daemon is asked, and answers as virsh find-storage-pool-sources shows it (libvirt 9.0)."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.sources import parse_sources, render_query
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Source, SourceDevice, SourceHost
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES

NETFS = """<sources>
  <source>
    <host name='nas1'/>
    <dir path='/export/a b'/>
    <format type='nfs'/>
  </source>
  <source>
    <host name='nas1'/>
    <dir path='gv0'/>
    <format type='glusterfs'/>
  </source>
</sources>
"""
LOGICAL = """<sources>
  <source>
    <device path='/dev/sdb'/>
    <device path='/dev/sdc'/>
    <name>vg0</name>
    <format type='lvm2'/>
  </source>
</sources>
"""


def test_the_question():
    source = Source(hosts=(SourceHost("nas'1"),))
    assert render_query(source, POOL_TYPES["netfs"]) == "<source>\n  <host name='nas&apos;1'/>\n</source>\n"


def test_answers():
    host = (SourceHost("nas1"),)
    assert parse_sources(NETFS, POOL_TYPES["netfs"]) == (
        Source(hosts=host, dir="/export/a b", format="nfs"),
        Source(hosts=host, dir="gv0", format="glusterfs"),
    )
    devices = (SourceDevice("/dev/sdb"), SourceDevice("/dev/sdc"))
    assert parse_sources(LOGICAL, POOL_TYPES["logical"]) == (Source(devices=devices, name="vg0", format="lvm2"),)


@pytest.mark.parametrize("text", ["<sources/>", "<sources>\n</sources>\n"])
def test_nothing_found(text):
    assert parse_sources(text, POOL_TYPES["netfs"]) == ()


def test_what_is_no_answer():
    with pytest.raises(StorageError):
        parse_sources("<sources>", POOL_TYPES["netfs"])
