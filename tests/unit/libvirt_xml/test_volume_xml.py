# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volume definitions: what is declared is read or refused, and any volume is printed in libvirt's layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml import volume as volume_xml
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Volume

POOL = Pool("p1", "dir", path="/srv/images")

FOUND = Volume(
    "web1.qcow2",
    capacity=10737418240,
    allocation=200704,
    format="qcow2",
    permissions=Permissions(0o600, 64055, 108, "system_u:object_r:virt_image_t:s0"),
    backing=Backing("/srv/images/base.img", "raw"),
    compat="1.1",
    cluster_size=65536,
    lazy_refcounts=True,
    extended_l2=False,
    type="file",
    path="/srv/images/web1.qcow2",
    key="/srv/images/web1.qcow2",
    physical=196616,
    timestamps=(("mtime", 1700000001500000000), ("atime", 1700000000250000001), ("ctime", 1700000002 * 10**9)),
)

PRINTED = """<volume type='file'>
  <name>web1.qcow2</name>
  <key>/srv/images/web1.qcow2</key>
  <capacity unit='bytes'>10737418240</capacity>
  <allocation unit='bytes'>200704</allocation>
  <physical unit='bytes'>196616</physical>
  <target>
    <path>/srv/images/web1.qcow2</path>
    <format type='qcow2'/>
    <permissions>
      <mode>0600</mode>
      <owner>64055</owner>
      <group>108</group>
      <label>system_u:object_r:virt_image_t:s0</label>
    </permissions>
    <timestamps>
      <atime>1700000000.250000001</atime>
      <mtime>1700000001.500000000</mtime>
      <ctime>1700000002</ctime>
      <btime>0</btime>
    </timestamps>
    <compat>1.1</compat>
    <clusterSize unit='B'>65536</clusterSize>
    <features>
      <lazy_refcounts/>
    </features>
  </target>
  <backingStore>
    <path>/srv/images/base.img</path>
    <format type='raw'/>
  </backingStore>
</volume>
"""


def declared(volume: Volume) -> Volume:
    """What remains of a volume when it is read as a declaration."""
    return replace(volume, type=None, path=None, key=None, physical=None, timestamps=())


def small(inner: str) -> str:
    return f"<volume><name>v</name>{inner}</volume>"


def refusal(text: str) -> StorageError:
    with pytest.raises(StorageError) as caught:
        volume_xml.parse_volume(text)
    return caught.value


def test_volume_is_printed_as_libvirt_prints_it() -> None:
    assert volume_xml.render_volume(FOUND, POOL) == PRINTED


def test_printed_volume_reads_as_its_declaration() -> None:
    assert volume_xml.parse_volume(PRINTED) == declared(FOUND)
    assert volume_xml.parse_volume(PRINTED.encode()) == declared(FOUND)


def test_little_is_printed_of_a_volume_of_which_little_is_declared() -> None:
    printed = volume_xml.render_volume(Volume("v", capacity=0, nocow=True), POOL)
    assert printed == (
        "<volume>\n  <name>v</name>\n  <capacity unit='bytes'>0</capacity>\n"
        "  <target>\n    <nocow/>\n  </target>\n</volume>\n"
    )


@pytest.mark.parametrize("kind", POOL_TYPES)
def test_format_is_printed_for_pools_that_have_formats(kind: str) -> None:
    row = POOL_TYPES[kind]
    volume = Volume("v", format="raw", backing=Backing("/b", "raw"))
    printed = volume_xml.render_volume(volume, Pool("p1", kind))
    assert printed.count("<format type='raw'/>") == (2 if row.volume_formats else 0)


@pytest.mark.parametrize("name", sorted({name for row in POOL_TYPES.values() for name in row.volume_formats}))
def test_every_format(name: str) -> None:
    volume = Volume("v", capacity=1, format=name)
    assert volume_xml.parse_volume(volume_xml.render_volume(volume, POOL)) == volume


def test_backing_by_name_is_printed_by_path() -> None:
    printed = volume_xml.render_volume(Volume("v", backing=Backing(volume="base", format="qcow2")), POOL)
    assert "<path>/srv/images/base</path>" in printed
    assert "<format type='qcow2'/>" in printed


@pytest.mark.parametrize(
    ("attributes", "text", "size"),
    [
        ("", "4096", 4096),
        ("", "\n 4096", 4096),
        ("unit='bytes'", "1", 1),
        ("unit='B'", "7", 7),
        ("unit='k'", "1", 1024),
        ("unit='KB'", "1", 1000),
        ("unit='GiB'", "2", 2 * 1024**3),
        ("unit='t'", "1", 1024**4),
        ("unit=''", "5", 5),
    ],
)
def test_sizes_have_units(attributes: str, text: str, size: int) -> None:
    volume = volume_xml.parse_volume(
        small(
            f"<capacity {attributes}>{text}</capacity><target><clusterSize {attributes}>{text}</clusterSize></target>"
        )
    )
    assert volume.capacity == volume.cluster_size == size


@pytest.mark.parametrize(
    ("attributes", "text"),
    [("", "-1"), ("", "1G"), ("", "1 G"), ("", "1.5"), ("", "ten"), ("unit='X'", "1"), ("unit='0'", "1"), ("", "0x10")],
)
def test_bad_sizes_are_refused(attributes: str, text: str) -> None:
    error = refusal(small(f"<allocation {attributes}>{text}</allocation>"))
    assert error.code == "invalid_size"
    assert "allocation" in error.message
    assert error.subject == "v"


def test_size_beyond_the_limit_is_refused() -> None:
    assert volume_xml.parse_volume(small(f"<capacity>{2**63 - 1}</capacity>")).capacity == 2**63 - 1
    assert refusal(small("<capacity unit='E'>8</capacity>")).code == "capacity_too_large"


def test_capacity_may_be_left_to_the_backing() -> None:
    volume = volume_xml.parse_volume(small("<backingStore><path>/b</path></backingStore>"))
    assert volume == Volume("v", backing=Backing("/b"))
    assert volume_xml.parse_volume(small("<backingStore/>")).backing is None


def test_features_mean_the_newer_format() -> None:
    volume = volume_xml.parse_volume(small("<target><features><extended_l2/></features></target>"))
    assert volume == Volume("v", compat="1.1", lazy_refcounts=False, extended_l2=True)
    volume = volume_xml.parse_volume(small("<target><compat>0.10</compat></target>"))
    assert volume == Volume("v", compat="0.10")


def test_presence_of_nocow_is_its_value() -> None:
    assert volume_xml.parse_volume(small("<target><nocow/></target>")).nocow is True
    assert volume_xml.parse_volume(small("<target/>")).nocow is None


@pytest.mark.parametrize(
    ("inner", "word"),
    [
        ("<target><encryption format='luks'><new/></encryption></target>", "target/encryption/new"),
        ("<encryption format='luks'/>", "encryption"),
        ("<snapshots/>", "snapshots"),
        ("<target><quota/></target>", "target/quota"),
        ("<target><features><data_file/></features></target>", "target/features/data_file"),
        ("<target><permissions><acl/></permissions></target>", "target/permissions/acl"),
        ("<backingStore><path>/b</path><chain/></backingStore>", "backingStore/chain"),
        ("<x:y xmlns:x='urn:x'/>", "urn:x"),
        ("<target/><target><quota/></target>", "target/quota"),
    ],
)
def test_what_has_no_word_is_refused_and_named(inner: str, word: str) -> None:
    error = refusal(small(inner))
    assert error.code == "invalid_xml"
    assert word in error.message
    assert error.subject == "v"


@pytest.mark.parametrize(
    "text",
    [
        "<volume/>",
        "<volume><name/></volume>",
        "<pool type='dir'><name>n</name></pool>",
        "<volume type='tape'><name>v</name></volume>",
        small("<target><compat>new</compat></target>"),
        small("<target><permissions><mode>1777</mode></permissions></target>"),
        "<!DOCTYPE volume [<!ENTITY e 'x'>]>" + small("&e;"),
        small("&e;"),
        small("<a>" * 300 + "</a>" * 300),
        small(" " * 2 * 1024 * 1024),
    ],
)
def test_bad_documents_are_refused(text: str) -> None:
    assert refusal(text).code == "invalid_xml"


TEXT = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff")
    | st.sampled_from("<>&'\"\t\r\n "),
    min_size=1,
    max_size=12,
)
SIZES = st.none() | st.integers(0, 2**63 - 1)
IDS = st.none() | st.integers(0, 2**32 - 2)


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    features = draw(st.none() | st.tuples(st.booleans(), st.booleans()))
    compat = draw(st.sampled_from(["0.10", "1.1"]) if features else st.sampled_from([None, "0.10", "1.1"]))
    return Volume(
        name=draw(TEXT),
        capacity=draw(SIZES),
        allocation=draw(SIZES),
        format=draw(st.none() | st.sampled_from(["raw", "qcow2"])),
        permissions=draw(st.builds(Permissions, st.none() | st.integers(0, 0o777), IDS, IDS, st.none() | TEXT)),
        backing=draw(st.none() | st.builds(Backing, TEXT, st.sampled_from([None, "raw", "qcow2"]))),
        compat=compat,
        cluster_size=draw(st.none() | st.integers(1, 2**63 - 1)),
        lazy_refcounts=features[0] if features else None,
        extended_l2=features[1] if features else None,
        nocow=draw(st.sampled_from([None, True])),
        type=draw(st.sampled_from([None, "file", "block", "dir", "network"])),
        path=draw(st.none() | TEXT),
        key=draw(st.none() | TEXT),
        physical=draw(st.none() | st.integers(1, 2**63 - 1)),
        timestamps=draw(st.sampled_from([(), (("mtime", 1_500_000_000),)])),
    )


@settings(deadline=None, max_examples=200)
@given(volumes())
def test_what_is_printed_reads_as_what_was_declared(volume: Volume) -> None:
    assert volume_xml.parse_volume(volume_xml.render_volume(volume, POOL)) == declared(volume)


# ---- what a daemon shows


def test_shown_volume_is_found_with_everything() -> None:
    found = volume_xml.parse_found_volume(PRINTED)
    assert dict(found.timestamps) == dict(FOUND.timestamps)
    assert replace(found, timestamps=()) == replace(FOUND, timestamps=())
    assert volume_xml.parse_found_volume(PRINTED.encode()) == found


def qcow2(inner: str) -> Volume:
    return volume_xml.parse_found_volume(small(f"<target><format type='qcow2'/>{inner}</target>"))


@pytest.mark.parametrize(
    ("inner", "compat", "lazy", "extended"),
    [
        ("", "0.10", False, False),
        ("<compat>1.1</compat><features/>", "1.1", False, False),
        ("<compat>1.1</compat><features><lazy_refcounts/></features>", "1.1", True, False),
        ("<compat>1.1</compat><features><new_one/><extended_l2/></features>", "1.1", False, True),
    ],
)
def test_shown_qcow2_says_all_features(inner: str, compat: str, lazy: bool, extended: bool) -> None:
    found = qcow2(inner)
    assert (found.compat, found.lazy_refcounts, found.extended_l2) == (compat, lazy, extended)


def test_other_shown_formats_have_no_features() -> None:
    found = volume_xml.parse_found_volume(small("<target><format type='raw'/></target>"))
    assert (found.compat, found.lazy_refcounts, found.extended_l2) == (None, None, None)


@pytest.mark.parametrize(("kind", "physical"), [("file", 0), ("dir", 0), ("block", 0), ("network", None)])
def test_physical_size_of_nothing_is_not_shown(kind: str, physical: int | None) -> None:
    found = volume_xml.parse_found_volume(f"<volume type='{kind}'><name>v</name></volume>")
    assert (found.type, found.physical) == (kind, physical)


def test_what_is_new_in_a_shown_volume_is_read_over() -> None:
    found = volume_xml.parse_found_volume(
        "<volume type='tape' x:a='b' xmlns:x='urn:x'><name>v</name><!-- c --><x:new/><new><path>/p</path></new>"
        "<target><new/><timestamps><atime>1</atime><new>x</new></timestamps></target></volume>"
    )
    assert found == Volume("v", type="tape", physical=0, timestamps=(("atime", 10**9),))


def test_shown_encryption_is_found() -> None:
    assert volume_xml.parse_found_volume(small("<target><encryption format='luks'>\n</encryption></target>")).encrypted


@pytest.mark.parametrize(
    ("path", "form"), [("/p/base", "qcow2"), ("nbd://h/x", None), ('json:{"driver":"qcow2"}', None)]
)
def test_shown_format_counts_for_local_backings(path: str, form: str | None) -> None:
    found = volume_xml.parse_found_volume(
        small(f"<backingStore><path>{path}</path><format type='qcow2'/></backingStore>")
    )
    assert found.backing == Backing(path, form)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1795270140.583417919", 1795270140583417919),
        ("1.000000001", 1000000001),
        ("18446744073709551614.500000000", -1500000000),
    ],
)
def test_times_are_exact_and_printed_as_they_were(text: str, nanoseconds: int) -> None:
    found = volume_xml.parse_found_volume(small(f"<target><timestamps><atime>{text}</atime></timestamps></target>"))
    assert found.timestamps == (("atime", nanoseconds),)
    assert f"<atime>{text}</atime>" in volume_xml.render_volume(found, POOL)


def test_unknown_birth_is_left_out_and_printed_as_libvirt_prints_it() -> None:
    block = "<target><timestamps><mtime>1</mtime><btime>{}</btime></timestamps></target>"
    found = volume_xml.parse_found_volume(small(block.format(0)))
    assert dict(found.timestamps) == {"mtime": 10**9}
    assert "<btime>0</btime>" in volume_xml.render_volume(found, POOL)
    assert dict(volume_xml.parse_found_volume(small(block.format(7))).timestamps)["btime"] == 7 * 10**9


@pytest.mark.parametrize(
    "text",
    ["<pool/>", "<volume/>", small("<target><timestamps><atime>now</atime></timestamps></target>")],
)
def test_bad_shown_volumes_are_refused(text: str) -> None:
    with pytest.raises(StorageError) as caught:
        volume_xml.parse_found_volume(text)
    assert caught.value.code == "invalid_xml"
