# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A definition that another tool has written into keeps what is in it when a task changes the pool."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs_ansible

_METADATA = """  <!-- ticket 4711 -->
  <t:info level='2' xmlns:t='urn:tool'>kept <b>as</b> it is</t:info>
"""
_INNER = "    <quota bytes='5'/>\n"


@pytest.fixture
def definition(images):
    """That of the pool images, with what others have added."""
    path = images.root / "etc/libvirt/storage/images.xml"
    text = path.read_text().replace("  <source>", _METADATA + "  <source>")
    path.write_text(text.replace("  </target>", _INNER + "  </target>"))
    return path


@pytest.mark.parametrize(
    "change",
    [{"mode": "0750"}, {"path": "moved", "allow": ["restart"]}, {"source": {"vendor": "v"}}, {"autostart": True}],
    ids=lambda change: next(iter(change)),
)
def test_a_change_keeps_what_others_wrote(images, definition, change):
    given = {**change, **({"path": str(images.root / change["path"])} if "path" in change else {})}
    result = images.pool(name="images", **given)
    assert result["changed"] is True, result
    text = definition.read_text()
    for line in (_METADATA + _INNER).splitlines():
        assert line in text
    assert images.pool(name="images", **given)["changed"] is False
    (record,) = images.pool_info(name="images", xml=True)
    assert "urn:tool" in record["xml"]


def test_metadata_that_is_declared_is_written_once(images, definition):
    xml = f"<pool type='dir'><name>new</name>{_METADATA}<target><path>{images.root}/new</path></target></pool>"
    assert images.pool(xml=xml)["changed"] is True
    assert "kept <b>as</b> it is</t:info>" in (definition.parent / "new.xml").read_text()
    assert images.pool(xml=xml)["changed"] is False


def test_an_encrypted_volume_is_not_made_in_the_clear(images):
    xml = (
        "<volume><name>v</name><capacity>1048576</capacity><target><format type='raw'/><encryption format='luks'>"
        "<secret type='passphrase' usage='x'/></encryption></target></volume>"
    )
    result = images.volume(xml=xml)
    assert result["error"]["code"] == "encryption_unsupported", result
    assert not (images.images / "v").exists()
    header = b"LUKS\xba\xbe\0\1" + bytes(96) + (8).to_bytes(4, "big")
    (images.images / "v").write_bytes(header.ljust(8 * 512 + 2**20, b"\0"))
    assert images.volume(xml=xml)["changed"] is False
    (record,) = images.volume_info(pool="images", name="v")
    assert record["encrypted"] is True
