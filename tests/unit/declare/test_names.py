# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which names pools and volumes can have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.declare.names import pool_name, volume_name
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

BOTH = pytest.mark.parametrize("check", [pool_name, volume_name])
GOOD = [
    "a",
    "a b",
    " a",
    "a.qcow2",
    "...",
    ".hidden",
    "..a",
    "a-",
    "_",
    "ä",
    "日本",
    "😀",
    "a:b",
    "a%s",
    "a'b\"c",
    "*?[",
    "$(x)",
    "~",
]
BAD = {
    "empty": "",
    "spaces": "  ",
    "this-directory": ".",
    "parent": "..",
    "absolute": "/a",
    "slash": "a/b",
    "climbs-out": "../a",
    "trailing-slash": "a/",
    "newline": "a\nb",
    "newline-at-the-end": "a\n",
    "nul": "a\0b",
    "tab": "a\tb",
    "escape": "\x1b[31m",
    "delete": "a\x7f",
    "surrogate": "a\udc80",
    "noncharacter": "a\uffff",
    "dash": "-a",
    "option": "--help",
    "too-long": "a" * 256,
    "too-long-in-bytes": "ä" * 128,
}


@BOTH
@pytest.mark.parametrize("name", GOOD)
def test_good_names(check, name):
    assert check(name) == name


@BOTH
@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_bad_names(check, name):
    with pytest.raises(StorageError) as caught:
        check(name)
    assert caught.value.code == "invalid_name"
    assert caught.value.subject == f"{check.__name__.split('_', maxsplit=1)[0]} {name}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("check", "longest"), [pytest.param(pool_name, 240, id="pool"), pytest.param(volume_name, 255, id="volume")]
)
def test_how_long_a_name_can_be(check, longest):
    assert check("a" * longest)
    assert check("ä" * (longest // 2))
    with pytest.raises(StorageError, match=f"longer than {longest} bytes"):
        check("a" * (longest + 1))


def test_the_private_directory_is_no_volume():
    with pytest.raises(StorageError) as caught:
        volume_name(".virt-storage")
    assert caught.value.code == "invalid_name"
    assert pool_name(".virt-storage") == ".virt-storage"
    with pytest.raises(StorageError):
        volume_name(".virt-storage-data")
    assert volume_name(".virt-storage2") == ".virt-storage2"


@given(st.text(max_size=300), st.sampled_from([pool_name, volume_name]))
def test_a_name_that_passes_is_one_file_name(name, check):
    try:
        check(name)
    except StorageError:
        return
    assert name.strip()
    assert name not in (".", "..")
    assert not set(name) & {"/", "\0", "\n"}
    assert not name.startswith("-")
    assert 0 < len(name.encode()) <= 255
