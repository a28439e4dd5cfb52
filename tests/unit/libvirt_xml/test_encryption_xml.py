# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The encryption of a volume: what libvirt reads, what it would drop, and never a secret."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.volume import (
    parse_found_volume,
    parse_volume,
    render_found_volume,
    render_volume,
)
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import (
    Backing,
    Cipher,
    Encryption,
    Extent,
    InitVector,
    SecretReference,
    Volume,
)

POOL = Pool("p", "dir", path="/p")
UUID = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
PRINTED = f"""<volume>
  <name>v</name>
  <target>
    <encryption format='luks' engine='qemu'>
      <secret type='passphrase' uuid='{UUID}'/>
      <secret type='passphrase' usage='/p/v &lt;1&gt;'/>
      <cipher name='aes' size='256' mode='cbc' hash='sha256'/>
      <ivgen name='plain64' hash='sha256'/>
    </encryption>
  </target>
</volume>
"""
WHOLE = Encryption(
    "luks",
    "qemu",
    (SecretReference(UUID), SecretReference(usage="/p/v <1>")),
    Cipher("aes", 256, "cbc", "sha256"),
    InitVector("plain64", "sha256"),
)


def encrypted(inner: str, attributes: str = "format='luks'") -> str:
    return f"<volume><name>v</name><target><encryption {attributes}>{inner}</encryption></target></volume>"


def test_all_of_it_is_read_and_printed() -> None:
    assert parse_volume(PRINTED) == Volume("v", encryption=WHOLE)
    assert parse_found_volume(PRINTED).encryption == WHOLE
    assert render_volume(Volume("v", encryption=WHOLE), POOL) == PRINTED


@pytest.mark.parametrize("form", ["default", "qcow", "luks", "luks2"])
def test_one_with_nothing_in_it_is_printed_on_two_lines(form: str) -> None:
    printed = render_volume(Volume("v", encryption=Encryption(form)), POOL)
    assert f"    <encryption format='{form}'>\n    </encryption>\n" in printed
    assert parse_volume(printed).encryption == Encryption(form)


def test_uuids_are_read_as_liberally_as_elsewhere() -> None:
    text = encrypted(f"<secret type='passphrase' uuid=' {UUID.upper().replace('-', '')} '/>")
    assert parse_volume(text).encryption == Encryption("luks", secrets=(SecretReference(UUID),))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param(encrypted("", ""), "format", id="no-format"),
        pytest.param(encrypted("", "format='aes'"), "format", id="format"),
        pytest.param(encrypted("", "format='luks' engine='kernel'"), "engine", id="engine"),
        pytest.param(encrypted("", "format='luks' engine=''"), "engine", id="empty-engine"),
        pytest.param(encrypted("<secret uuid='x'/>"), "passphrase", id="no-type"),
        pytest.param(encrypted("<secret type='key' usage='x'/>"), "passphrase", id="type"),
        pytest.param(encrypted("<secret type='passphrase'/>"), "uuid and usage", id="no-reference"),
        pytest.param(encrypted(f"<secret type='passphrase' uuid='{UUID}' usage='x'/>"), "uuid and usage", id="two"),
        pytest.param(encrypted("<secret type='passphrase' uuid='x'/>"), "UUID", id="uuid"),
        pytest.param(encrypted("<secret type='passphrase' usage='x'>hunter2</secret>"), "no place", id="value"),
        pytest.param(encrypted("<cipher size='256'/>"), "name", id="cipher-name"),
        pytest.param(encrypted("<cipher name='aes'/>"), "size", id="cipher-size"),
        pytest.param(encrypted("<cipher name='aes' size='4294967296'/>"), "size", id="cipher-large"),
        pytest.param(encrypted("<ivgen name='plain'/>"), "needs a cipher", id="ivgen-alone"),
        pytest.param(encrypted("<cipher name='aes' size='1'/><ivgen hash='x'/>"), "ivgen", id="ivgen-name"),
        pytest.param(encrypted("<cipher name='aes' size='1'/>", "format='luks2'"), "for luks2", id="dropped-cipher"),
        pytest.param(encrypted("<new/>"), "target/encryption/new", id="unknown"),
    ],
)
def test_what_can_not_be_is_refused(text: str, word: str) -> None:
    with pytest.raises(StorageError) as caught:
        parse_volume(text)
    assert caught.value.code == "invalid_xml"
    assert word in caught.value.message
    assert "hunter2" not in str(caught.value)


def test_a_newer_daemon_may_show_more() -> None:
    found = parse_found_volume(encrypted("<secret type='new' usage='x'/><new/>", "format='luks-any'"))
    assert found.encrypted
    assert found.encryption == Encryption("luks-any", secrets=(SecretReference(usage="x"),))


# ---- what was found, as a daemon shows it


@pytest.mark.parametrize(("image", "form"), [("raw", "luks"), ("qcow2", "luks"), ("qcow", "qcow")])
def test_an_encrypted_image_is_shown_as_one(image: str, form: str) -> None:
    printed = render_found_volume(Volume("v", format=image, encrypted=True), POOL)
    assert f"<encryption format='{form}'>\n    </encryption>" in printed


def test_nothing_is_shown_of_the_older_qcow2() -> None:
    old = Volume("v", format="qcow2", compat="0.10", cluster_size=65536, lazy_refcounts=False, extended_l2=False)
    printed = render_found_volume(old, POOL)
    assert "compat" not in printed
    assert "features" not in printed
    assert "<clusterSize unit='B'>65536</clusterSize>" in printed
    assert "<compat>0.10</compat>" in render_volume(old, POOL)  # a daemon has to be told
    new = render_found_volume(Volume("v", compat="1.1", lazy_refcounts=False, extended_l2=False), POOL)
    assert "<compat>1.1</compat>\n    <features/>" in new


def test_bits_beyond_permissions_are_not_shown() -> None:
    assert "<mode>0755</mode>" in render_found_volume(Volume("v", permissions=Permissions(0o4755)), POOL)


@pytest.mark.parametrize("path", ["nbd://h/x", "json:{}"])
def test_what_is_no_file_is_shown_as_raw(path: str) -> None:
    printed = render_found_volume(Volume("v", backing=Backing(path, "qcow2")), POOL)
    assert "<format type='raw'/>\n  </backingStore>" in printed


def test_a_backing_file_is_shown_with_its_permissions() -> None:
    text = (
        "<volume><name>v</name><backingStore><path>/b</path><format type='raw'/><permissions><mode>0640</mode>"
        "<owner>1</owner></permissions></backingStore></volume>"
    )
    backing = Backing("/b", "raw", permissions=Permissions(0o640, 1))
    assert parse_found_volume(text).backing == parse_volume(text).backing == backing
    printed = render_found_volume(Volume("v", backing=backing), POOL)
    assert "<permissions>\n      <mode>0640</mode>\n      <owner>1</owner>\n    </permissions>" in printed


def test_extents_are_shown_by_device() -> None:
    block = (
        "  <source>\n"
        "    <device path='/dev/sda1'>\n"
        "      <extent start='0' end='9663676416'/>\n"
        "      <extent start='9663676416' end='10737418240'/>\n"
        "    </device>\n"
        "    <device path='/dev/sdb1'>\n"
        "      <extent start='1' end='2'/>\n"
        "    </device>\n"
        "  </source>\n"
    )
    text = f"<volume type='block'>\n  <name>v</name>\n{block}  <target>\n  </target>\n</volume>\n"
    found = parse_found_volume(text)
    assert found.extents[1:] == (Extent("/dev/sda1", 9663676416, 10737418240), Extent("/dev/sdb1", 1, 2))
    assert block in render_found_volume(found, Pool("p", "logical"))
    assert parse_volume(text) == Volume("v")
