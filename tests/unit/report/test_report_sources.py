# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records of sources: ``source`` is what storage_pool takes."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.declare.pools import source_of
from ansible_collections.virt.storage.plugins.module_utils.model.discovery import FoundSource, Unanswered
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Adapter, Source, SourceDevice, SourceHost
from ansible_collections.virt.storage.plugins.module_utils.report.sources import (
    SOURCE_FIELDS,
    as_option,
    source_record,
    unanswered_record,
)


@pytest.mark.parametrize(
    ("source", "option"),
    [
        (
            Source(hosts=(SourceHost("nas1"),), dir="/a b", format="nfs"),
            {"host": "nas1", "dir": "/a b", "format": "nfs"},
        ),
        (Source(hosts=(SourceHost("::1"),), dir="/a"), {"host": "::1", "dir": "/a"}),
        (Source(hosts=(SourceHost("::1", 1),)), {"host": "[::1]:1"}),
        (Source(hosts=(SourceHost("a", 1), SourceHost("b"))), {"hosts": ["a:1", "b"]}),
        (Source(devices=(SourceDevice("/dev/sdb"),), format="gpt"), {"device": "/dev/sdb", "format": "gpt"}),
        (
            Source(devices=(SourceDevice("/dev/a"), SourceDevice("/dev/b")), name="vg"),
            {"devices": ["/dev/a", "/dev/b"], "name": "vg"},
        ),
        (
            Source(adapter=Adapter("scsi_host", parent_address="0000:00:1f.2", unique_id=0)),
            {"adapter": {"type": "scsi_host", "parent_address": "0000:00:1f.2", "unique_id": 0}},
        ),
    ],
)
def test_the_option_is_read_back_as_the_same(source, option):
    assert as_option(source) == option
    assert source_of(option) == source


def test_what_a_pool_has_no_use_for_is_no_part_of_it():
    found = FoundSource(Source(devices=(SourceDevice("/dev/mapper/mpatha"),)), path="/dev/mapper/mpatha")
    assert source_record("mpath", found) == {"type": "mpath", "source": {}, "free": True, "path": "/dev/mapper/mpatha"}


def test_a_record_says_what_is_known():
    found = FoundSource(Source(name="vg0"), users=("it is exported",), size=0, clients=(), content="")
    record = source_record("logical", found)
    assert record == {
        "type": "logical",
        "source": {"name": "vg0"},
        "free": False,
        "why_not": ["it is exported"],
        "size": 0,
        "content": "",
        "clients": [],
    }
    assert set(record) <= set(SOURCE_FIELDS)
    assert "why_not" not in source_record("logical", FoundSource(Source(name="vg0")))


def test_who_did_not_answer():
    error = StorageError("deadline", "no answer")
    told = {"code": "deadline", "subject": "", "message": "no answer", "hint": ""}
    assert unanswered_record(Unanswered("nas1", "nfs", error)) == {"host": "nas1", "format": "nfs", **told}
    assert unanswered_record(Unanswered("/dev/sdb", "", error)) == {"device": "/dev/sdb", **told}
