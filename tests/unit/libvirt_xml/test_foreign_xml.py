# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What other tools write into a definition is still there after a change by us: in a file, and in a daemon's dump."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import (
    parse_pool,
    render_definition,
    render_pool,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Auth,
    Permissions,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
)

UUID = "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f10"
FILE = f"""<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->

<pool type='netfs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0' xmlns:t='urn:tool' t:owner='team &amp; co'>
  <!-- ticket 4711 -->
  <name>shared</name>
  <uuid>{UUID}</uuid>
  <metadata>
    <t:info level='2'>kept <b>as</b> it is<!-- inside --></t:info>
  </metadata>
  <capacity unit='bytes'>0</capacity>
  <allocation unit='bytes'>0</allocation>
  <available unit='bytes'>0</available>
  <source t:rack='7'>
    <host name='nas1' t:site='berlin'/>
    <dir path='/export'/>
    <format type='nfs'/>
    <t:mirror>nas2</t:mirror>
  </source>
  <target>
    <path>/mnt/shared</path>
    <quota bytes='5'/>
    <permissions>
      <mode>0755</mode>
      <acl>u:me:r</acl>
    </permissions>
  </target>
  <fs:mount_opts>
    <fs:option name='ro' t:why='safe'/>
    <t:note/>
  </fs:mount_opts>
  <t:last xmlns:o='urn:other'><o:a/></t:last>
</pool>
"""
DUMP = f"""<pool type='disk'>
  <name>shared</name>
  <uuid>{UUID}</uuid>
  <capacity unit='bytes'>1073741824</capacity>
  <allocation unit='bytes'>4096</allocation>
  <available unit='bytes'>1073737728</available>
  <source>
    <device path='/dev/sdb' part_separator='no'>
      <freeExtent start='32256' end='536870912'/>
      <freeExtent start='536903168' end='1073741824'/>
    </device>
    <format type='gpt'/>
    <vendor name='v'/>
    <later since='12.0'/>
  </source>
  <target>
    <path>/dev/disk/by-path</path>
  </target>
  <later since='12.0'/>
</pool>
"""
FOREIGN = (
    "ticket 4711", "team &amp; co", "kept <b>as</b> it is<!-- inside -->", "t:rack='7'", "t:site='berlin'",
    "<t:mirror>nas2</t:mirror>", "<quota bytes='5'/>", "<acl>u:me:r</acl>", "t:why='safe'", "<t:note/>",
    "xmlns:o='urn:other'", "<o:a/>",
)  # fmt: skip
CHANGES = {
    "nothing": {},
    "path": {"path": "/mnt/other"},
    "mode": {"permissions": Permissions(0o700, 5, 6)},
    "options": {"mount_options": ("ro", "vers=4.2")},
    "host": {"source": Source(hosts=(SourceHost("nas1", 2049), SourceHost("nas2")))},
    "auth": {"source": Source(auth=Auth("ceph", "me", secret_usage="u"), vendor="v", product="p")},
    "refresh": {"refresh_allocation": "default"},
}


def nodes(text: str) -> list[str]:
    """Every element as its tag and attributes, by an independent reader."""
    return [f"{node.tag} {sorted(node.items())}" for node in ElementTree.fromstring(text).iter()]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_keeps_what_others_wrote(change: str) -> None:
    declared = replace(Pool("shared"), **CHANGES[change])
    written = render_definition(declared, FILE)
    for piece in FOREIGN:
        assert piece in written, piece
    assert render_definition(declared, written) == written
    gone = set(nodes(FILE)) - set(nodes(written))
    assert gone <= {"host [('name', 'nas1'), ('{urn:tool}site', 'berlin')]"} if change == "host" else not gone


@pytest.mark.parametrize("change", ["nothing", "path", "mode", "auth", "refresh"])
def test_a_changed_dump_keeps_what_is_shown(change: str) -> None:
    declared = replace(Pool("shared"), **CHANGES[change])
    written = render_pool(declared, DUMP)
    assert set(nodes(DUMP)) <= set(nodes(written))
    assert written.count("<later since='12.0'/>") == 2
    assert parse_pool(written).source.devices == (SourceDevice("/dev/sdb", False),)


def test_a_dump_that_is_not_changed_is_printed_as_it_was() -> None:
    assert render_pool(Pool("shared"), DUMP) == DUMP
