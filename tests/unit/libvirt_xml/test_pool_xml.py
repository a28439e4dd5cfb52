# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pool definitions: read by libvirt's rules, printed in libvirt's layout, and nothing unknown is lost on the way."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml import _tree
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml import pool as pool_xml
from ansible_collections.virt.storage.plugins.module_utils.model.definition import (
    normal,
    sanitise_path,
    whole,
    with_defaults,
)
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Adapter,
    Auth,
    Permissions,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
)
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES

UUID = "5e1f7c0a-93b2-4d6e-8a41-0c7d2b9f6e35"
SECRET = "0b5d8c1e-2f47-4a93-b6e0-91d3c7a5f248"
IQN = "iqn.2021-07.org.example:array3"
INITIATOR = "iqn.2021-07.org.example:hv1"
FS = "xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'"
RBD = "xmlns:rbd='http://libvirt.org/schemas/storagepool/rbd/1.0'"


def definition(kind: str, body: str, xmlns: str = "") -> str:
    """A definition in libvirt's layout: ``body`` is what follows the sizes."""
    attributes = f"type='{kind}'" + (f" {xmlns}" if xmlns else "")
    sizes = "".join(f"  <{tag} unit='bytes'>0</{tag}>\n" for tag in ("capacity", "allocation", "available"))
    return f"<pool {attributes}>\n  <name>p1</name>\n  <uuid>{UUID}</uuid>\n{sizes}{body}</pool>\n"


def target(path: str) -> str:
    return f"  <target>\n    <path>{path}</path>\n  </target>\n"


PERMISSIONS = """  <target>
    <path>/srv/images</path>
    <permissions>
      <mode>0711</mode>
      <owner>107</owner>
      <group>0</group>
      <label>system_u:object_r:virt_image_t:s0</label>
    </permissions>
  </target>
"""

# Per example: the definition as libvirt prints it, and the noun.
EXAMPLES = {
    "dir": (
        definition(
            "dir", "  <features>\n    <cow state='no'/>\n  </features>\n  <source>\n  </source>\n" + PERMISSIONS
        ),
        Pool(
            "p1",
            "dir",
            UUID,
            "/srv/images",
            Permissions(0o711, 107, 0, "system_u:object_r:virt_image_t:s0"),
            cow=False,
        ),
    ),
    "fs": (
        definition(
            "fs",
            "  <source>\n    <device path='/dev/disk/by-label/images'/>\n    <format type='xfs'/>\n  </source>\n"
            + target("/srv/xfs")
            + "  <fs:mount_opts>\n    <fs:option name='noatime'/>\n    <fs:option name='nodev'/>\n  </fs:mount_opts>\n",
            FS,
        ),
        Pool(
            "p1",
            "fs",
            UUID,
            "/srv/xfs",
            source=Source(devices=(SourceDevice("/dev/disk/by-label/images"),), format="xfs"),
            mount_options=("noatime", "nodev"),
        ),
    ),
    "netfs": (
        definition(
            "netfs",
            "  <source>\n    <host name='filer.example.org' port='2049'/>\n    <dir path='/exports/vm'/>\n"
            "    <format type='nfs'/>\n    <protocol ver='4.2'/>\n"
            "    <vendor name='Acme'/>\n    <product name='Box 9'/>\n"
            "  </source>\n" + target("/srv/nfs"),
        ),
        Pool(
            "p1",
            "netfs",
            UUID,
            "/srv/nfs",
            source=Source(
                hosts=(SourceHost("filer.example.org", 2049),),
                dir="/exports/vm",
                format="nfs",
                protocol_version="4.2",
                vendor="Acme",
                product="Box 9",
            ),
        ),
    ),
    "logical": (
        definition(
            "logical",
            "  <source>\n    <device path='/dev/vdb1'/>\n    <device path='/dev/vdc1'/>\n    <name>guests</name>\n"
            "    <format type='lvm2'/>\n  </source>\n" + target("/dev/guests"),
        ),
        Pool(
            "p1",
            "logical",
            UUID,
            "/dev/guests",
            source=Source(devices=(SourceDevice("/dev/vdb1"), SourceDevice("/dev/vdc1")), name="guests", format="lvm2"),
        ),
    ),
    "disk": (
        definition(
            "disk",
            "  <source>\n    <device path='/dev/mapper/mpatha' part_separator='no'/>\n"
            "    <format type='gpt'/>\n  </source>\n" + target("/dev/disk/by-path"),
        ),
        Pool(
            "p1",
            "disk",
            UUID,
            "/dev/disk/by-path",
            source=Source(devices=(SourceDevice("/dev/mapper/mpatha", False),), format="gpt"),
        ),
    ),
    "iscsi": (
        definition(
            "iscsi",
            f"  <source>\n    <host name='192.0.2.7' port='3260'/>\n    <device path='{IQN}'/>\n    <initiator>\n"
            f"      <iqn name='{INITIATOR}'/>\n    </initiator>\n    <auth type='chap' username='hv1'>\n"
            "      <secret usage='array3-chap'/>\n    </auth>\n  </source>\n" + target("/dev/disk/by-path"),
        ),
        Pool(
            "p1",
            "iscsi",
            UUID,
            "/dev/disk/by-path",
            source=Source(
                hosts=(SourceHost("192.0.2.7", 3260),),
                devices=(SourceDevice(IQN),),
                initiator=INITIATOR,
                auth=Auth("chap", "hv1", secret_usage="array3-chap"),
            ),
        ),
    ),
    "iscsi-direct": (
        definition(
            "iscsi-direct",
            f"  <source>\n    <host name='2001:db8::7'/>\n    <device path='{IQN}'/>\n    <initiator>\n"
            f"      <iqn name='{INITIATOR}'/>\n    </initiator>\n  </source>\n",
        ),
        Pool(
            "p1",
            "iscsi-direct",
            UUID,
            source=Source(hosts=(SourceHost("2001:db8::7"),), devices=(SourceDevice(IQN),), initiator=INITIATOR),
        ),
    ),
    "scsi": (
        definition(
            "scsi",
            "  <source>\n    <adapter type='scsi_host' name='scsi_host3'/>\n  </source>\n" + target("/dev/disk/by-id"),
        ),
        Pool(
            "p1", "scsi", UUID, "/dev/disk/by-id", source=Source(adapter=Adapter(type="scsi_host", name="scsi_host3"))
        ),
    ),
    "scsi by parent": (
        definition(
            "scsi",
            "  <source>\n    <adapter type='scsi_host'>\n      <parentaddr unique_id='4'>\n"
            "        <address domain='0x0001' bus='0x0a' slot='0x1f' function='0x7'/>\n      </parentaddr>\n"
            "    </adapter>\n  </source>\n" + target("/dev/disk/by-id"),
        ),
        Pool(
            "p1",
            "scsi",
            UUID,
            "/dev/disk/by-id",
            source=Source(adapter=Adapter(type="scsi_host", parent_address="0001:0a:1f.7", unique_id=4)),
        ),
    ),
    "scsi fc_host": (
        definition(
            "scsi",
            "  <source>\n    <adapter type='fc_host' parent='scsi_host5' managed='yes' wwnn='20000000c9831b4b'"
            " wwpn='0x10000000c9831b4b'/>\n  </source>\n" + target("/dev/disk/by-id"),
        ),
        Pool(
            "p1",
            "scsi",
            UUID,
            "/dev/disk/by-id",
            source=Source(
                adapter=Adapter(
                    type="fc_host",
                    parent="scsi_host5",
                    managed=True,
                    wwnn="20000000c9831b4b",
                    wwpn="0x10000000c9831b4b",
                )
            ),
        ),
    ),
    "scsi fc_host by parent wwns": (
        definition(
            "scsi",
            "  <source>\n    <adapter type='fc_host' parent_wwnn='5006016844602198' parent_wwpn='5006016844602199'"
            " wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>\n  </source>\n" + target("/dev/disk/by-id"),
        ),
        Pool(
            "p1",
            "scsi",
            UUID,
            "/dev/disk/by-id",
            source=Source(
                adapter=Adapter(
                    type="fc_host",
                    parent_wwnn="5006016844602198",
                    parent_wwpn="5006016844602199",
                    wwnn="20000000c9831b4b",
                    wwpn="10000000c9831b4b",
                )
            ),
        ),
    ),
    "scsi fc_host by fabric": (
        definition(
            "scsi",
            "  <source>\n    <adapter type='fc_host' parent_fabric_wwn='2001000dec9877c1' managed='no'"
            " wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>\n  </source>\n" + target("/dev/disk/by-id"),
        ),
        Pool(
            "p1",
            "scsi",
            UUID,
            "/dev/disk/by-id",
            source=Source(
                adapter=Adapter(
                    type="fc_host",
                    parent_fabric_wwn="2001000dec9877c1",
                    managed=False,
                    wwnn="20000000c9831b4b",
                    wwpn="10000000c9831b4b",
                )
            ),
        ),
    ),
    "mpath": (
        definition("mpath", "  <source>\n  </source>\n" + target("/dev/mapper")),
        Pool("p1", "mpath", UUID, "/dev/mapper"),
    ),
    "rbd": (
        definition(
            "rbd",
            "  <source>\n    <host name='mon1.example.org' port='6789'/>\n    <host name='mon2.example.org'/>\n"
            "    <name>vms</name>\n    <auth type='ceph' username='libvirt'>\n"
            f"      <secret uuid='{SECRET}'/>\n    </auth>\n  </source>\n"
            "  <refresh>\n    <volume allocation='capacity'/>\n  </refresh>\n"
            "  <rbd:config_opts>\n    <rbd:option name='client_mount_timeout' value='45'/>\n  </rbd:config_opts>\n",
            RBD,
        ),
        Pool(
            "p1",
            "rbd",
            UUID,
            source=Source(
                hosts=(SourceHost("mon1.example.org", 6789), SourceHost("mon2.example.org")),
                name="vms",
                auth=Auth("ceph", "libvirt", secret_uuid=SECRET),
            ),
            config_options=(("client_mount_timeout", "45"),),
            refresh_allocation="capacity",
        ),
    ),
    "sheepdog": (
        definition(
            "sheepdog", "  <source>\n    <host name='sheep1' port='7000'/>\n    <name>flock</name>\n  </source>\n"
        ),
        Pool("p1", "sheepdog", UUID, source=Source(hosts=(SourceHost("sheep1", 7000),), name="flock")),
    ),
    "gluster": (
        definition(
            "gluster",
            "  <source>\n    <host name='brick1'/>\n    <dir path='/guests'/>\n    <name>gv0</name>\n  </source>\n",
        ),
        Pool("p1", "gluster", UUID, source=Source(hosts=(SourceHost("brick1"),), dir="/guests", name="gv0")),
    ),
    "zfs": (
        definition(
            "zfs",
            "  <source>\n    <device path='/dev/vdd'/>\n    <name>tank/guests</name>\n  </source>\n"
            + target("/dev/zvol/tank/guests"),
        ),
        Pool(
            "p1",
            "zfs",
            UUID,
            "/dev/zvol/tank/guests",
            source=Source(devices=(SourceDevice("/dev/vdd"),), name="tank/guests"),
        ),
    ),
    "vstorage": (
        definition("vstorage", "  <source>\n    <name>cluster1</name>\n  </source>\n" + target("/srv/vz")),
        Pool("p1", "vstorage", UUID, "/srv/vz", source=Source(name="cluster1")),
    ),
}


def refusal(text: bytes | str) -> StorageError:
    with pytest.raises(StorageError) as caught:
        pool_xml.parse_pool(text)
    return caught.value


def small(kind: str, inner: str = "", path: str = "/p") -> str:
    return f"<pool type='{kind}'><name>n</name>{inner}<target><path>{path}</path></target></pool>"


def test_every_type_has_an_example() -> None:
    assert {pool.type for _text, pool in EXAMPLES.values()} == set(POOL_TYPES)


# ---- reading and printing


@pytest.mark.parametrize("case", EXAMPLES)
def test_definition_is_read(case: str) -> None:
    text, pool = EXAMPLES[case]
    assert pool_xml.parse_pool(text) == pool
    assert pool_xml.parse_pool(text.encode()) == pool
    assert pool_xml.parse_pool(f"<poolstate>\n{text}</poolstate>\n") == pool


@pytest.mark.parametrize("case", EXAMPLES)
def test_definition_is_printed_as_libvirt_prints_it(case: str) -> None:
    text, pool = EXAMPLES[case]
    assert pool_xml.render_pool(pool) == text
    assert pool_xml.render_pool(pool, text) == text
    assert pool_xml.render_pool(Pool("p1"), text) == text


FORMATS = [(row.name, name) for row in POOL_TYPES.values() for name in row.formats]


@pytest.mark.parametrize(("kind", "name"), FORMATS)
def test_every_format_of_every_type(kind: str, name: str) -> None:
    pool = replace(EXAMPLES[kind][1], source=replace(EXAMPLES[kind][1].source, format=name, protocol_version=None))
    text = pool_xml.render_pool(pool)
    assert f"<format type='{name}'/>" in text
    assert pool_xml.parse_pool(text) == pool


@pytest.mark.parametrize("kind", [kind for kind, row in POOL_TYPES.items() if row.formats])
def test_unknown_format_is_refused_with_those_known(kind: str) -> None:
    text, pool = EXAMPLES[kind]
    error = refusal(text.replace(f"<format type='{pool.source.format}'/>", "<format type='btrfs'/>"))
    assert error.code == "invalid_xml"
    assert POOL_TYPES[kind].formats[1] in error.hint


def test_protocol_version_goes_with_the_first_two_formats() -> None:
    inner = "<source><device path='/dev/x'/><format type='dos'/><protocol ver='4'/></source>"
    assert pool_xml.parse_pool(small("disk", inner)).source.protocol_version == "4"
    assert pool_xml.parse_pool(small("dir", inner)).source == Source(protocol_version="4")
    assert refusal(small("disk", inner.replace("dos", "gpt"))).code == "invalid_xml"


def test_new_definition_has_the_defaults_of_libvirt() -> None:
    disk = Pool("n", "disk", path="/dev", source=Source(devices=(SourceDevice("/dev/vdb"),)))
    assert "<format type='unknown'/>" in pool_xml.render_pool(disk)
    gluster = pool_xml.render_pool(Pool("gv0", "gluster", source=Source(hosts=(SourceHost("h"),))))
    assert "<dir path='/'/>" in gluster
    assert gluster.count("<name>gv0</name>") == 2
    assert "<path>/dev/vg1</path>" in pool_xml.render_pool(Pool("vg1", "logical", path="/somewhere"))
    assert "<path>/dev/zvol/t/d</path>" in pool_xml.render_pool(Pool("z", "zfs", source=Source(name="t/d")))


def test_defaults_are_not_taken_for_declared() -> None:
    assert pool_xml.parse_declared_pool(small("fs", "<source><device path='/dev/x'/></source>")).source.format is None
    pool = pool_xml.parse_declared_pool("<pool type='gluster'><name>g</name><source><host name='h'/></source></pool>")
    assert pool.source.dir is None
    assert with_defaults(pool).source == Source(hosts=(SourceHost("h"),), dir="/", name="g")


def test_what_is_found_has_the_defaults() -> None:
    assert pool_xml.parse_pool(small("fs", "<source><device path='/dev/x'/></source>")).source.format == "auto"
    pool = pool_xml.parse_pool("<pool type='gluster'><name>g</name><source><host name='h'/></source></pool>")
    assert pool.source == Source(hosts=(SourceHost("h"),), dir="/", name="g")


def test_fields_that_a_type_does_not_use_are_neither_read_nor_printed() -> None:
    text = small("dir", "<source><host name='h'/><device path='/dev/x'/><vendor name='v'/></source>")
    assert pool_xml.parse_pool(text).source == Source(vendor="v")
    pool = Pool("n", "dir", path="/p", source=Source(hosts=(SourceHost("h"),), format="nfs", name="x", product="o"))
    printed = pool_xml.render_pool(pool)
    assert pool_xml.parse_pool(printed).source == Source(product="o")
    assert "host" not in printed
    assert "format" not in printed
    rbd = pool_xml.render_pool(replace(EXAMPLES["rbd"][1], path="/p", permissions=Permissions(0o700)))
    assert "<target>" not in rbd
    network = EXAMPLES["sheepdog"][0].replace("</pool>", "<target><path>/p</path></target></pool>")
    assert pool_xml.parse_pool(network).path is None
    assert "<target>" not in pool_xml.render_pool(Pool("p1"), network)


# ---- single fields


@pytest.mark.parametrize(
    "written",
    [
        UUID,
        UUID.upper(),
        UUID.replace("-", ""),
        f"\n  {UUID} \t",
        UUID.replace("-", " "),
        "--5e 1f-7c0a93b24d6e8a410c7d2b9f6e-35",
    ],
)
def test_uuid_is_read_liberally(written: str) -> None:
    assert pool_xml.parse_pool(small("dir", f"<uuid>{written}</uuid>")).uuid == UUID
    assert f"<uuid>{UUID}</uuid>" in pool_xml.render_pool(Pool("n", "dir", written, "/p"))


@pytest.mark.parametrize("written", ["x", UUID[:-1], UUID + "0", "5-" + UUID[1:], UUID.replace("-", "_"), UUID + "-"])
def test_bad_uuid_is_refused(written: str) -> None:
    assert refusal(small("dir", f"<uuid>{written}</uuid>")).code == "invalid_xml"


def test_empty_elements_count_as_absent() -> None:
    text = small("dir", "<uuid/>").replace("</path>", "</path><permissions><mode/><label></label></permissions>")
    assert pool_xml.parse_pool(text) == Pool("n", "dir", path="/p")


@pytest.mark.parametrize("kind", [kind for kind, row in POOL_TYPES.items() if row.named_by_source])
def test_name_and_source_name_stand_in_for_each_other(kind: str) -> None:
    text, pool = EXAMPLES[kind]
    source_name = pool.source.name or ""
    nameless = text.replace("  <name>p1</name>\n", "", 1).replace("tank/guests", "tank")
    assert pool_xml.parse_pool(nameless).name == source_name.split("/")[0]
    bare = text.replace(f"    <name>{source_name}</name>\n", "")
    if kind == "rbd":
        assert refusal(bare).code == "invalid_xml"
    else:
        assert pool_xml.parse_pool(bare).source.name == "p1"


@pytest.mark.parametrize(
    ("written", "bits"), [("0755", 0o755), ("755", 0o755), ("0", 0), ("000777", 0o777), ("\n 0711", 0o711)]
)
def test_mode_is_octal(written: str, bits: int) -> None:
    text = small("dir").replace("</path>", f"</path><permissions><mode>{written}</mode></permissions>")
    assert pool_xml.parse_pool(text).permissions == Permissions(mode=bits)


@pytest.mark.parametrize("written", ["1777", "0o755", "08", "rwx", "-1", "755 ", "2755", "0x1ff"])
def test_bad_mode_is_refused(written: str) -> None:
    text = small("dir").replace("</path>", f"</path><permissions><mode>{written}</mode></permissions>")
    assert refusal(text).code == "invalid_xml"


def test_owner_and_group() -> None:
    text = small("dir").replace(
        "</path>", "</path><permissions><owner>-1</owner><group>4294967294</group></permissions>"
    )
    assert pool_xml.parse_pool(text).permissions == Permissions(group=4294967294)
    assert pool_xml.parse_pool(text.replace("-1", "4294967295")).permissions == Permissions(group=4294967294)
    assert pool_xml.parse_pool(text.replace("-1", "-2")).permissions.owner == 4294967294  # as libvirt prints it
    for bad in ("root", "-2147483649", "4294967296", "1.5", "", "٣", "5 "):
        assert refusal(text.replace(">-1<", f">{bad}<")).code == "invalid_xml"


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("/", "/"),
        ("//", "//"),
        ("///", "/"),
        ("/a/", "/a"),
        ("//a//b//", "//a/b"),
        ("///a", "/a"),
        ("/a/../b/.", "/a/../b/."),
        ("a//b/", "a/b"),
        ("nfs://h//x/", "nfs://h//x/"),
        ("/a//nfs://h//x/", "/a/nfs:/h/x"),
        ("", ""),
    ],
)
def test_paths_are_sanitised(path: str, clean: str) -> None:
    assert sanitise_path(path) == clean
    if path:
        assert pool_xml.parse_pool(small("dir", path=path)).path == clean
        text = EXAMPLES["netfs"][0].replace("/exports/vm", path)
        assert pool_xml.parse_pool(text).source.dir == clean


def test_sizes_are_ignored_when_read_and_kept_when_printed() -> None:
    text = (
        EXAMPLES["dir"][0]
        .replace("<capacity unit='bytes'>0", "<capacity unit='bytes'>4096")
        .replace(">0</avail", ">x</avail")
    )
    assert pool_xml.parse_pool(text) == EXAMPLES["dir"][1]
    assert pool_xml.render_pool(Pool("p1"), text) == text


@pytest.mark.parametrize(
    ("kind", "inner", "word"),
    [
        ("dir", "<features><cow state='maybe'/></features>", "cow"),
        ("disk", "<features><cow state='yes'/></features><source><device path='/dev/x'/></source>", "cow"),
        ("dir", "<refresh><volume allocation='full'/></refresh>", "allocation"),
        ("fs", "", "devices"),
        ("disk", "<source><device/></source>", "path"),
        ("disk", "<source><device path='/dev/x' part_separator='1'/></source>", "part_separator"),
        ("netfs", "<source><dir path='/x'/></source>", "hosts"),
        ("netfs", "<source><host name='h'/></source>", "dir"),
        ("netfs", "<source><host/><dir path='/x'/></source>", "name"),
        ("netfs", "<source><host name='h' port='nfs'/><dir path='/x'/></source>", "port"),
        ("netfs", "<source><host name='h' port=''/><dir path='/x'/></source>", "port"),
        ("netfs", "<source><host name='h' port='-1'/><dir path='/x'/></source>", "port"),
        ("netfs", "<source><host name='h'/><dir path='/x'/><format type='cifs'/><protocol ver='3'/></source>", "cifs"),
        ("netfs", "<source><host name='h'/><dir path='/x'/><protocol ver='3,ro'/></source>", "comma"),
        ("iscsi", "<source><device path='iqn.x'/></source>", "hosts"),
        ("iscsi-direct", "<source><host name='h'/><device path='iqn.x'/></source>", "initiator"),
        ("scsi", "<source/>", "adapter"),
        ("sheepdog", "", "hosts"),
        ("dir", "<source><auth type='none' username='u'><secret usage='s'/></auth></source>", "none"),
        ("dir", "<source><auth username='u'><secret usage='s'/></auth></source>", "type"),
        ("dir", "<source><auth type='chap'><secret usage='s'/></auth></source>", "username"),
        ("dir", "<source><auth type='chap' username='u'/></source>", "secret"),
        ("dir", "<source><auth type='chap' username='u'><secret/></auth></source>", "secret"),
        ("dir", f"<source><auth type='chap' username='u'><secret usage='s' uuid='{UUID}'/></auth></source>", "one of"),
        ("dir", "<source><auth type='ceph' username='u'><secret uuid='1'/></auth></source>", "UUID"),
    ],
)
def test_what_libvirt_refuses_is_refused(kind: str, inner: str, word: str) -> None:
    error = refusal(small(kind, inner))
    assert error.code == "invalid_xml"
    assert word in error.message


@pytest.mark.parametrize("kind", ["iscsi", "iscsi-direct", "logical", "zfs"])
def test_devices_may_be_missing_until_the_start(kind: str) -> None:
    text, pool = EXAMPLES[kind]
    text = "".join(line for line in text.splitlines(True) if "<device" not in line)
    assert pool_xml.parse_pool(text) == replace(pool, source=replace(pool.source, devices=None))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<pool><name>n</name></pool>", "invalid_xml"),
        ("<pool type=''><name>n</name></pool>", "invalid_xml"),
        ("<pool type='nbd'><name>n</name></pool>", "unknown_type"),
        ("<pool type='dir'><target><path>/p</path></target></pool>", "invalid_xml"),
        ("<pool type='dir'><name>n</name></pool>", "invalid_xml"),
        (small("dir").replace(">n<", ">a/b<"), "invalid_xml"),
        (small("dir").replace(">n<", ">a\nb<"), "invalid_xml"),
    ],
)
def test_name_type_and_path_are_required(text: str, code: str) -> None:
    assert refusal(text).code == code


def test_unknown_type_names_those_known() -> None:
    assert "iscsi-direct" in refusal("<pool type='nbd'><name>n</name></pool>").hint


# ---- adapters


def scsi(adapter: str) -> str:
    return small("scsi", f"<source>{adapter}</source>")


def test_legacy_adapter_becomes_a_scsi_host() -> None:
    text = scsi("<adapter name='host2'/>")
    assert pool_xml.parse_pool(text).source.adapter == Adapter(type="scsi_host", name="host2")
    assert "<adapter type='scsi_host' name='host2'/>" in pool_xml.render_pool(Pool("n"), text)


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ("domain='0' bus='0' slot='31' function='2'", "0000:00:1f.2"),
        ("bus='0x1' slot='010'", "0000:01:08.0"),
        ("domain='0xFFFF' bus='0xff' slot='0x1f' function='7'", "ffff:ff:1f.7"),
    ],
)
def test_pci_addresses(attributes: str, text: str) -> None:
    adapter = f"<adapter type='scsi_host'><parentaddr unique_id='0'><address {attributes}/></parentaddr></adapter>"
    assert pool_xml.parse_pool(scsi(adapter)).source.adapter == Adapter("scsi_host", parent_address=text, unique_id=0)


ADDRESS = "<address domain='0' bus='0' slot='1' function='0'/>"
WWNS = "wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'"


@pytest.mark.parametrize(
    "adapter",
    [
        "<adapter/>",
        "<adapter name='h' wwnn='20000000c9831b4b'/>",
        "<adapter name='h' parent='scsi_host1'/>",
        f"<adapter name='h'><parentaddr unique_id='1'>{ADDRESS}</parentaddr></adapter>",
        "<adapter type='scsi_host'/>",
        "<adapter type='default' name='h'/>",
        f"<adapter type='scsi_host' name='h'><parentaddr unique_id='1'>{ADDRESS}</parentaddr></adapter>",
        f"<adapter type='scsi_host'><parentaddr>{ADDRESS}</parentaddr></adapter>",
        f"<adapter type='scsi_host'><parentaddr unique_id='-1'>{ADDRESS}</parentaddr></adapter>",
        "<adapter type='scsi_host'><parentaddr unique_id='1'/></adapter>",
        f"<adapter type='scsi_host'><parentaddr unique_id='1'>{ADDRESS.replace('1', '32')}</parentaddr></adapter>",
        f"<adapter type='scsi_host'><parentaddr unique_id='1'>{ADDRESS.replace('1', '09')}</parentaddr></adapter>",
        "<adapter type='fc_host'/>",
        "<adapter type='fc_host' wwnn='20000000c9831b4b'/>",
        f"<adapter type='fc_host' {WWNS.replace('4b', '4')}/>",
        f"<adapter type='fc_host' {WWNS.replace('c9', 'g9')}/>",
        f"<adapter type='fc_host' {WWNS} parent_wwnn='20000000c9831b4b'/>",
        f"<adapter type='fc_host' {WWNS} managed='on'/>",
    ],
)
def test_bad_adapters_are_refused(adapter: str) -> None:
    assert refusal(scsi(adapter)).code == "invalid_xml"


def test_adapter_form_can_be_changed() -> None:
    fc_host, by_parent = EXAMPLES["scsi fc_host"], EXAMPLES["scsi by parent"]
    assert pool_xml.render_pool(fc_host[1], by_parent[0]) == fc_host[0]
    assert pool_xml.render_pool(by_parent[1], fc_host[0]) == by_parent[0]
    assert pool_xml.render_pool(EXAMPLES["scsi"][1], by_parent[0]) == EXAMPLES["scsi"][0]


# ---- namespaces


def test_options_of_a_namespace_belong_to_their_types() -> None:
    block = f"<fs:mount_opts {FS}><fs:option name='ro'/></fs:mount_opts>"
    assert pool_xml.parse_pool(small("dir", block)).mount_options is None
    assert pool_xml.parse_pool(small("fs", block + "<source><device path='/d'/></source>")).mount_options == ("ro",)
    assert "fs:" not in pool_xml.render_pool(Pool("n", "dir", path="/p", mount_options=("ro",)))


def test_incomplete_options_are_refused() -> None:
    text, _pool = EXAMPLES["fs"]
    assert refusal(text.replace(" name='nodev'", "")).code == "invalid_xml"
    text, _pool = EXAMPLES["rbd"]
    assert refusal(text.replace("value='45'", "value=''")).code == "invalid_xml"
    assert refusal(text.replace("value='45'", "")).code == "invalid_xml"


def test_namespace_is_declared_only_with_options() -> None:
    text, pool = EXAMPLES["fs"]
    assert "xmlns" not in pool_xml.render_pool(replace(pool, mount_options=None))
    removed = pool_xml.render_pool(replace(pool, mount_options=()), text)
    assert "fs:" not in removed
    assert "xmlns" not in removed
    assert pool_xml.parse_pool(removed) == replace(pool, mount_options=None)
    added = pool_xml.render_pool(Pool("p1", mount_options=("noatime", "nodev")), removed)
    assert added == text


def test_prefix_of_the_document_is_kept() -> None:
    text = EXAMPLES["fs"][0].replace("xmlns:fs", "xmlns:q").replace("fs:", "q:")
    printed = pool_xml.render_pool(Pool("p1", mount_options=("noatime", "ro")), text)
    assert "<q:option name='ro'/>" in printed
    assert "xmlns:fs" not in printed
    assert pool_xml.parse_pool(printed).mount_options == ("noatime", "ro")


# ---- what is not ours survives

FOREIGN = """<?xml version='1.0' encoding='UTF-8'?>
<!-- before -->
<pool type='netfs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0' xmlns:m='urn:example:meta'
      m:rev='7' vendor-x='1'>
  <!-- who to call -->
  <name>p1</name>
  <m:info level='2'>
    <m:owner>Ü &amp; co</m:owner>
    <plain xmlns='urn:example:plain'>some <b>mixed</b> text<c xmlns=''/></plain>
  </m:info>
  <source place='rack 3'>
    <host name='filer1' port='2049' rack='9'/>
    <dir path='/e' quota='none'/>
    <format type='nfs' guess='no'/>
    <future><deep a='&lt;&apos;&#10;'/></future>
  </source>
  <target hint='x'>
    <path>/srv/n</path>
    <permissions><mode>0755</mode><acl>yes</acl></permissions>
    <quota unit='GiB'>5</quota>
  </target>
  <fs:mount_opts m:why='slow'><fs:option name='soft' m:why='hang'/><fs:other/></fs:mount_opts>
  <?tool data?>
  <later/>
</pool>
"""


def shape(text: str) -> dict:
    """Every element by its path: attributes and text, to compare two documents whatever the order of elements."""
    root = etree.fromstring(text.encode(), etree.XMLParser(remove_blank_text=True, remove_comments=True))
    tree = root.getroottree()
    found: dict = {}
    for node in root.iter(etree.Element):
        found.setdefault(tree.getelementpath(node), []).append(
            (dict(node.attrib), (node.text or "").strip(), (node.tail or "").strip())
        )
    return found


def test_one_field_is_changed_and_all_else_survives() -> None:
    printed = pool_xml.render_pool(Pool("p1", permissions=Permissions(mode=0o700)), FOREIGN)
    before, after = shape(FOREIGN), shape(printed)
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert changed == {"target/permissions/mode", "capacity", "allocation", "available"}
    assert after["target/permissions/mode"] == [({}, "0700", "")]
    assert "<!-- who to call -->\n  <name>" in printed
    assert "<?tool data?>" in printed


def test_unknown_attributes_of_listed_things_survive() -> None:
    source = Source(hosts=(SourceHost("filer2"), SourceHost("filer1", 20049)), protocol_version="4.1")
    printed = pool_xml.render_pool(Pool("p1", source=source, mount_options=("soft", "ro")), FOREIGN)
    assert "<host name='filer2'/>\n    <host name='filer1' port='20049' rack='9'/>" in printed
    assert "<fs:option name='soft' m:why='hang'/>" in printed
    assert "<fs:option name='ro'/>" in printed
    assert "<fs:other/>" in printed
    assert "<fs:mount_opts m:why='slow'>" in printed
    assert pool_xml.parse_pool(printed).source == replace(source, dir="/e", format="nfs")


def test_secret_keeps_what_it_says_beside_its_reference() -> None:
    text = EXAMPLES["iscsi"][0].replace("<secret usage", "<secret type='iscsi' usage")
    auth = Auth("chap", "hv2", secret_uuid=SECRET)
    printed = pool_xml.render_pool(Pool("p1", source=Source(auth=auth)), text)
    assert pool_xml.parse_pool(printed).source.auth == auth
    assert "type='iscsi'" in printed
    assert "usage" not in printed


def test_lists_declared_empty_are_removed() -> None:
    text, pool = EXAMPLES["logical"]
    printed = pool_xml.render_pool(Pool("p1", source=Source(devices=())), text)
    assert "device" not in printed
    assert pool_xml.parse_pool(printed) == replace(pool, source=replace(pool.source, devices=None))


def test_extras_are_read_canonically_and_sorted() -> None:
    extras = pool_xml.parse_pool(FOREIGN).extras
    assert extras[0] == "<later></later>"
    assert extras[1].startswith('<m:info xmlns:m="urn:example:meta" level="2"><m:owner>Ü')
    assert pool_xml.parse_pool(pool_xml.render_pool(pool_xml.parse_pool(FOREIGN))).extras == extras
    assert pool_xml.parse_pool(pool_xml.render_pool(Pool("p1", extras=extras), FOREIGN)).extras == extras


def test_declared_extra_replaces_its_like_and_only_that() -> None:
    printed = pool_xml.render_pool(Pool("p1", extras=("<later b='2'/>", "<new xmlns='urn:n'/>")), FOREIGN)
    extras = pool_xml.parse_pool(printed).extras
    assert '<later b="2"></later>' in extras
    assert "<later></later>" not in extras
    assert '<new xmlns="urn:n"></new>' in extras
    assert len(extras) == 3


def test_extra_can_not_stand_for_a_field() -> None:
    with pytest.raises(StorageError) as caught:
        pool_xml.render_pool(Pool("p1", "dir", path="/p", extras=("<name>x</name>",)))
    assert caught.value.code == "invalid_xml"


def test_order_is_that_of_libvirt_whatever_the_original_has() -> None:
    text, _pool = EXAMPLES["rbd"]
    root = etree.fromstring(text)
    for parent in (root, root.find("source")):
        parent[:] = list(reversed(parent))
    hosts = root.find("source").findall("host")
    hosts[0].addprevious(hosts[1])
    assert pool_xml.render_pool(Pool("p1"), etree.tostring(root)) == text


def test_prefix_used_only_by_an_attribute_stays_declared() -> None:
    text = EXAMPLES["dir"][0].replace("'dir'", f"'dir' {FS}").replace("<source>", "<source fs:a='1'>")
    assert etree.fromstring(pool_xml.render_pool(Pool("p1"), text)).nsmap == {"fs": pool_xml.FS_NAMESPACE}


def test_white_space_that_is_content_survives() -> None:
    kept = "<k xml:space='preserve'> <b/> </k>"
    mixed = "<m>a <b/> <c/></m>"
    printed = pool_xml.render_pool(Pool("n"), small("dir", kept + mixed + "<l>  </l>"))
    assert kept in printed
    assert mixed in printed
    assert "<l>  </l>" in printed


@pytest.mark.parametrize(
    "pool",
    [
        Pool("a/b", "dir", path="/p"),
        Pool("n", "dir"),
        Pool("n", "fs", path="/p"),
        Pool("n"),
        Pool("n", "dir", "12", "/p"),
        Pool("n", "dir", path="/p", permissions=Permissions(mode=0o1777)),
        Pool("n", "scsi", path="/p", source=Source(adapter=Adapter(type="usb", name="x"))),
        Pool("n", "scsi", path="/p", source=Source(adapter=Adapter(type="scsi_host", parent_address="1f.2"))),
    ],
)
def test_what_libvirt_would_refuse_is_not_written(pool: Pool) -> None:
    with pytest.raises(StorageError) as caught:
        pool_xml.render_pool(pool)
    assert caught.value.code == "invalid_xml"


def test_patch_that_spoils_the_original_is_refused() -> None:
    text, _pool = EXAMPLES["netfs"]
    for source in (Source(format="cifs"), Source(hosts=())):
        with pytest.raises(StorageError) as caught:
            pool_xml.render_pool(Pool("p1", source=source), text)
        assert caught.value.code == "invalid_xml"


def test_name_that_xml_can_not_hold_is_refused() -> None:
    for pool in (Pool("a\0b", "dir", path="/p"), Pool("n", "fs", path="/p", mount_options=("\x01",))):
        with pytest.raises(StorageError) as caught:
            pool_xml.render_pool(pool)
        assert caught.value.code == "invalid_xml"


# ---- files


@pytest.mark.parametrize(
    ("name", "shown"),
    [("p1", "p1"), ("p-1.ü", "p-1.ü"), ("p 1", UUID), ("a--b", UUID), ("$(x)", UUID), ("a;b", UUID), ("a\tb", UUID)],
)
def test_definition_file(name: str, shown: str) -> None:
    pool = replace(EXAMPLES["dir"][1], name=name)
    text = pool_xml.render_definition(pool)
    header, xml = text.split("-->\n\n")
    assert header.startswith("<!--\n")
    assert header.count("\n") == 4
    assert f"virsh pool-edit {shown}\n" in header
    assert "--" not in header[4:]
    assert xml == pool_xml.render_pool(pool)
    assert pool_xml.parse_pool(text) == pool
    assert pool_xml.render_definition(pool, text) == text


def test_header_of_an_unnameable_pool() -> None:
    assert "virsh pool-edit\n" in pool_xml.render_definition(Pool("a b", "dir", path="/p"))
    original = EXAMPLES["dir"][0]
    assert f"virsh pool-edit {UUID}\n" in pool_xml.render_definition(Pool("a b"), original)


@pytest.mark.parametrize("case", EXAMPLES)
def test_state_file(case: str) -> None:
    text, pool = EXAMPLES[case]
    state = pool_xml.render_state(pool, text)
    inner = "".join(f"  {line}\n" for line in text.splitlines())
    assert state.endswith(f"-->\n\n<poolstate>\n{inner}</poolstate>\n")
    assert state == pool_xml.render_state(pool) == pool_xml.render_state(pool, state)
    assert pool_xml.parse_pool(state) == pool


# ---- hostile input


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "pool",
        "<pool",
        "<pool type='dir'><name>n</pool>",
        "<a/><b/>",
        "<volume><name>n</name></volume>",
        "<poolstate/>",
        "<html><body>x</body></html>",
        "<pool xmlns='urn:x' type='dir'><name>n</name><target><path>/p</path></target></pool>",
        small("dir").replace(">n<", ">&e;<"),
        b"<pool type='dir'><name>\xff</name></pool>",
        b"<?xml version='1.0' encoding='no-such'?><pool type='dir'/>",
        "\ud800",
        "<pool type='dir'><name>a\0b</name></pool>",
        small("dir").encode("utf-16"),
        "<a>" * 5000 + "</a>" * 5000,
    ],
)
def test_malformed_or_foreign_documents_are_refused(text: bytes | str) -> None:
    assert refusal(text).code == "invalid_xml"


def test_error_names_the_line() -> None:
    assert "line 3" in refusal("<pool type='dir'>\n<name>n</name>\n<target></pool>").message


ENTITY = '<!DOCTYPE pool [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
LEVELS = "".join(f"<!ENTITY a{n + 1} '{f'&a{n};' * 10}'>" for n in range(12))
LAUGHS = f"<!DOCTYPE pool [<!ENTITY a0 'ha'>{LEVELS}]>"


@pytest.mark.parametrize("prolog", ["", "<?xml version='1.0'?>\n", "\ufeff", "<!-- x --> <?pi ?>\n", "<!-- <?x -->\n"])
@pytest.mark.parametrize(
    "doctype", ["<!DOCTYPE pool>", "<!doctype pool>", ENTITY, LAUGHS, '<!DOCTYPE pool SYSTEM "http://192.0.2.1/x.dtd">']
)
def test_document_types_are_refused_unread(prolog: str, doctype: str) -> None:
    text = prolog + doctype + small("dir").replace(">n<", ">&a12;<")
    began = time.monotonic()
    for form in (text, text.encode()):
        error = refusal(form)
        assert error.code == "invalid_xml"
        assert "document type" in error.message
    assert time.monotonic() - began < 30


def test_document_type_in_another_encoding_is_refused() -> None:
    text = "<?xml version='1.0' encoding='UTF-7'?>" + ENTITY.replace("<", "+ADw-") + small("dir")
    assert refusal(text.encode("ascii")).code == "invalid_xml"


def test_the_word_doctype_is_no_document_type() -> None:
    assert pool_xml.parse_pool("<!-- <!DOCTYPE x> -->" + small("dir")).name == "n"
    assert pool_xml.parse_pool(small("dir").replace(">n<", "><![CDATA[<!DOCTYPE]]><")).name == "<!DOCTYPE"


def test_large_documents_are_refused() -> None:
    limit = 1024 * 1024
    text = small("dir")
    assert pool_xml.parse_pool(text + " " * (limit - len(text))).name == "n"
    for form in (text + " " * (limit - len(text) + 1), text + " " * limit * 2, (text + "é" * (limit // 2)).encode()):
        assert refusal(form).code == "invalid_xml"


def test_long_prologs_are_read_quickly() -> None:
    began = time.monotonic()
    assert pool_xml.parse_pool("<?a?>\n" * 150_000 + small("dir")).name == "n"
    assert refusal("<!-- " * 200_000).code == "invalid_xml"
    assert time.monotonic() - began < 60


def test_declared_encoding() -> None:
    text = "<?xml version='1.0' encoding='ISO-8859-1'?>" + small("dir").replace(">n<", ">Dépôt<")
    assert pool_xml.parse_pool(text).name == "Dépôt"
    assert pool_xml.parse_pool(text.encode("latin-1")).name == "Dépôt"
    assert "<name>Dépôt</name>" in pool_xml.render_pool(Pool("Dépôt"), text.encode("latin-1"))


def test_missing_lxml_names_the_package_and_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxml", None)
    error = refusal(small("dir"))
    assert error.code == "library_missing"
    assert sys.executable in error.message
    assert "python3-lxml" in error.hint
    assert "python-lxml" in error.hint
    assert "Debian" in error.hint


# ---- property: what is printed reads as what was declared

CHARACTERS = st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff")
TEXT = st.text(CHARACTERS | st.sampled_from("<>&'\"\t\r\x85 ]"), min_size=1, max_size=12)
LINES = TEXT | st.just("two\nlines")
NAME = TEXT.filter(lambda text: "/" not in text)
PATH = st.lists(TEXT, min_size=1, max_size=3).map(lambda parts: sanitise_path("/" + "/".join(parts)))
HEX16 = st.integers(0, 2**64 - 1).map("{:016x}".format)
UUIDS = st.uuids().map(str)
YES_NO = st.none() | st.booleans()
IDS = st.none() | st.integers(0, 2**32 - 2)


def optional(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


def several(strategy: st.SearchStrategy, least: int = 1) -> st.SearchStrategy:
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


ADDRESSES = st.builds(
    "{:04x}:{:02x}:{:02x}.{:x}".format,
    st.integers(0, 65535),
    st.integers(0, 255),
    st.integers(0, 31),
    st.integers(0, 7),
)
ADAPTERS = st.one_of(
    st.builds(Adapter, type=st.just("scsi_host"), name=LINES),
    st.builds(Adapter, type=st.just("scsi_host"), parent_address=ADDRESSES, unique_id=st.integers(0, 2**31)),
    st.builds(
        lambda parents, **rest: Adapter(type="fc_host", parent_wwnn=parents[0], parent_wwpn=parents[1], **rest),
        parents=st.just((None, None)) | st.tuples(HEX16, HEX16),
        parent=optional(LINES),
        parent_fabric_wwn=optional(HEX16),
        managed=YES_NO,
        wwnn=HEX16,
        wwpn=HEX16.map("0x{}".format),
    ),
)
AUTHS = st.one_of(
    st.builds(Auth, st.sampled_from(["chap", "ceph"]), LINES, secret_uuid=UUIDS),
    st.builds(Auth, st.sampled_from(["chap", "ceph"]), LINES, secret_usage=LINES),
)
FIELDS = {
    "hosts": several(st.builds(SourceHost, LINES, optional(st.integers(1, 65535)))),
    "devices": several(st.builds(SourceDevice, LINES, YES_NO)),
    "dir": PATH,
    "adapter": ADAPTERS,
    "name": NAME,
    "initiator": LINES,
}
IQNS = st.sampled_from(["iqn.2026-01.com.example", "iqn.2026-01.com.example:a.b-c:1", "eui.02004567A425678D"])
ISCSI = {**FIELDS, "devices": several(st.builds(SourceDevice, IQNS, YES_NO)), "initiator": IQNS}
EXTRAS = st.lists(
    st.builds(
        lambda tag, text, value: _tree.canonical(
            _tree.parse(f"<{tag} xmlns:x='urn:x' a='{value}'><x:y>{text}</x:y></{tag}>")
        ),
        st.sampled_from(["meta", "x:meta", "zz"]),
        st.sampled_from(["", "t", "a <b/> c", "<b/><b/>", "&amp;"]),
        st.sampled_from(["1", "&lt;", "&#10;"]),
    ),
    max_size=3,
).map(lambda extras: tuple(sorted(extras)))


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    row = POOL_TYPES[draw(st.sampled_from(sorted(POOL_TYPES)))]
    fields = ISCSI if row.port else FIELDS
    chosen = {name: draw(fields[name]) for name in row.required}
    chosen.update({name: draw(optional(fields[name])) for name in row.optional if name in fields})
    kind_of = draw(st.sampled_from(row.formats)) if row.formats else None
    versioned = kind_of is None or kind_of in row.formats[:2]
    source = Source(
        **chosen,
        format=kind_of,
        auth=draw(optional(AUTHS)),
        protocol_version=draw(optional(LINES.filter(lambda text: "," not in text))) if versioned else None,
        vendor=draw(optional(LINES)),
        product=draw(optional(LINES)),
    )
    return Pool(
        name=draw(NAME),
        type=row.name,
        uuid=draw(optional(UUIDS)),
        path=draw(PATH) if row.target == "declared" else None,
        permissions=Permissions()
        if row.target == "none"
        else draw(st.builds(Permissions, optional(st.integers(0, 0o777)), IDS, IDS, optional(LINES))),
        source=source,
        cow=draw(YES_NO) if "cow" in row.features else None,
        mount_options=draw(optional(several(LINES))) if "mount_options" in row.features else None,
        config_options=draw(optional(several(st.tuples(LINES, LINES)))) if "config_options" in row.features else None,
        refresh_allocation=draw(st.sampled_from([None, "default", "capacity"])),
        extras=draw(EXTRAS),
    )


@settings(deadline=None, max_examples=300)
@given(pools())
def test_what_is_printed_reads_as_what_was_declared(pool: Pool) -> None:
    read = with_defaults(whole(pool))
    text = pool_xml.render_pool(pool)
    assert pool_xml.parse_pool(text) == read
    assert pool_xml.render_pool(pool, text) == text
    assert pool_xml.parse_pool(pool_xml.render_definition(pool)) == read
    assert pool_xml.parse_pool(pool_xml.render_state(pool)) == read


@settings(deadline=None, max_examples=200)
@given(pools(), pools())
def test_patching_lays_the_declared_over_the_original(found: Pool, declared: Pool) -> None:
    """Onto the definition of another pool of the same type: what is declared holds, and what is not stays."""
    if found.type != declared.type:
        declared = replace(Pool(declared.name), uuid=declared.uuid, extras=declared.extras)
    if declared.source.protocol_version is not None and declared.source.format is None:
        declared = replace(declared, source=replace(declared.source, protocol_version=None))
    if declared.source.format not in (None, *POOL_TYPES[found.type or ""].formats[:2]):
        found = replace(found, source=replace(found.source, protocol_version=None))
    found, declared = normal(found), normal(declared)
    patched = pool_xml.parse_pool(pool_xml.render_pool(declared, pool_xml.render_pool(found)))
    for field in ("name", "uuid", "cow", "mount_options", "config_options", "refresh_allocation"):
        wanted, was = getattr(declared, field), getattr(found, field)
        assert getattr(patched, field) == (was if wanted is None else wanted), field
    for field in Source.__dataclass_fields__:
        wanted, was = getattr(declared.source, field), getattr(with_defaults(whole(found)).source, field)
        assert getattr(patched.source, field) == (was if wanted is None else wanted), field
    assert set(declared.extras) <= set(patched.extras)


# -- what is shown ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "xmlns", "block", "shown"),
    [
        (
            "netfs",
            FS,
            "<fs:mount_opts>\n    <fs:option name='ro,pass=s3cret'/>\n    <fs:option name='user=a%s3cret'/>\n"
            "  </fs:mount_opts>",
            {"ro,pass=s3cret": "ro,pass=(private)", "user=a%s3cret": "user=a%(private)"},
        ),
        (
            "rbd",
            RBD,
            "<rbd:config_opts>\n    <rbd:option name='key' value='s3cret'/>\n    <rbd:option name='a' value='b'/>\n"
            "  </rbd:config_opts>",
            {"s3cret": "(private)"},
        ),
    ],
)
def test_a_definition_is_shown_without_secrets(kind, xmlns, block, shown):
    source = "  <source>\n    <host name='h'/>\n    <dir path='/x'/>\n    <name>n</name>\n  </source>\n"
    text = definition(kind, f"{source}{target('/srv') if kind == 'netfs' else ''}  {block}\n", xmlns)
    written = pool_xml.render_pool(pool_xml.parse_pool(text), text)
    assert "s3cret" in written  # it stays in what is written
    expected = written
    for secret, instead in shown.items():
        expected = expected.replace(secret, instead)
    assert pool_xml.without_secrets(written) == expected
    assert "s3cret" not in expected
