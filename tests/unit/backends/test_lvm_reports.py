# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of lvm2 2.03.16 as recorded, and what sources they come to."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import logical, logical_sources, lvm
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.model.discovery import Query
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import UNKNOWN_STORAGE
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool, Source

UUID = "G1PIHV-KiS4-Rbwv-kLv5-hRIV-Ei3c-rM3pwJ"


def group(*devices, **more):
    """The part of a report that tells of a group with a volume."""
    row = {
        "vg_name": "vg-a_b+c.d",
        "vg_uuid": UUID,
        "vg_size": "201326592",
        "vg_free": "192937984",
        "vg_extent_size": "4194304",
        "vg_exported": "",
        "vg_clustered": "",
        "vg_lock_type": "",
        "vg_systemid": "",
        "vg_permissions": "writeable",
        "vg_missing_pv_count": "0",
        **more,
    }
    volume = {"lv_name": "one", "lv_uuid": "1", "lv_size": "8388608", "lv_attr": "-wi-------"}
    volume.update(origin="", origin_size="", pool_lv="", data_percent="", lv_tags="")
    return {"vg": [row], "pv": list(devices), "lv": [volume], "pvseg": [], "seg": []}


def device(path, **more):
    return {
        "pv_name": path,
        "pv_uuid": f"uuid-of-{path}",
        "vg_name": "vg-a_b+c.d",
        "vg_uuid": UUID,
        "pv_major": "254",
        "pv_minor": "16",
        "pv_size": "100663296",
        "dev_size": "104857600",
        "pv_missing": "",
        "pv_in_use": "used",
        **more,
    }


def unused(path, **more):
    """The part of a report that tells of a device without a group."""
    return {"pv": [device(path, **{"vg_name": "", "vg_uuid": "", "pv_in_use": "", **more})], "pvseg": []}


@pytest.fixture
def sources(monkeypatch):
    """The sources that a report comes to; ``guests`` are paths of devices that guests' volumes are."""

    def look(*parts, guests=(), warnings=()):
        monkeypatch.setattr(logical_sources.os, "geteuid", lambda: 0)
        monkeypatch.setattr(logical_sources, "holds_guests", lambda path: path in guests)
        monkeypatch.setattr(lvm, "report", lambda look: lvm.parse({"report": list(parts)}, warnings))
        return logical_sources.find(Query("logical"), Look(10, "", "")).sources

    return look


def test_a_group_and_an_unused_device(sources):
    first, second = sources(
        group(device("/nodev/sda"), device("/nodev/sdb")), unused("/nodev/sdc", pv_size="104857600")
    )
    assert (first.source.name, [each.path for each in first.source.devices]) == (
        "vg-a_b+c.d",
        ["/nodev/sda", "/nodev/sdb"],
    )
    assert (first.size, first.available, first.volumes, first.uuid) == (201326592, 192937984, 1, UUID)
    assert (first.free, first.kind, first.group) == (True, "group", "vg-a_b+c.d")
    assert (second.source.name, [each.path for each in second.source.devices]) == (None, ["/nodev/sdc"])
    assert (second.free, second.size, second.content) == (True, 104857600, "LVM2_member")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"vg_missing_pv_count": "1"}, "1 of its physical volumes are missing"),
        ({"vg_exported": "exported"}, "it is exported (vgexport)"),
        ({"vg_lock_type": "sanlock"}, "it is shared with other hosts"),
        ({"vg_systemid": "x"}, "it belongs to another host, by its system ID x"),
    ],
)
def test_what_stands_in_the_way_of_a_group(sources, more, why):
    (found,) = sources(group(device("/nodev/sda"), device("[unknown]", pv_missing="missing"), **more))
    assert found.why_not == (why,)
    assert [each.path for each in found.source.devices] == ["/nodev/sda"]


def test_two_groups_of_one_name(sources):
    found = sources(group(device("/nodev/sda")), group(device("/nodev/sdb", vg_uuid="other"), vg_uuid="other"))
    assert [each.why_not for each in found] == [("another volume group has the same name",)] * 2
    assert [each.source.devices[0].path for each in found] == ["/nodev/sda", "/nodev/sdb"]


def test_what_is_inside_the_volumes_of_guests_is_not_offered(sources):
    guests = ("/nodev/loop0", "/nodev/vg/lv")
    of_guests = (group(device("/nodev/sda"), device("/nodev/loop0")), unused("/nodev/vg/lv"))
    assert sources(*of_guests, guests=guests) == ()


def test_a_device_that_only_looks_unused(sources):
    (found,) = sources(unused("/nodev/sda", pv_in_use="used"))
    assert found.why_not == ("it belongs to a volume group whose metadata is not found",)


def test_copies_of_a_device(sources):
    """All of them where it belongs to no group; those that LVM leaves out where it does."""
    warnings = [f"  WARNING: Not using device /nodev/{copy} for PV uuid-of-/nodev/{of}." for copy, of in ("ba", "cx")]
    found = sources(unused("/nodev/a"), group(device("/nodev/x")), warnings=warnings)
    why = "another device is the same physical volume"
    assert [(each.path, each.why_not) for each in found] == [
        (None, (f"{why} as one of its own",)),
        *((f"/nodev/{name}", (why,)) for name in "abc"),
    ]


def test_only_root_can_look(monkeypatch):
    monkeypatch.setattr(logical_sources.os, "geteuid", lambda: 1000)
    with pytest.raises(StorageError) as caught:
        logical_sources.find(Query("logical"), Look(10, "", ""))
    assert caught.value.code == "not_readable"


# -- the devices file ---------------------------------------------------------------------------------------------

LVM = """#!/bin/sh
PATH=/usr/bin:/bin
cat "$LVM_SYSTEM_DIR/lvm.conf" >&2
for file in "$LVM_SYSTEM_DIR"/devices/*; do echo changed >> "$file"; done
echo "$LVM_SYSTEM_DIR" > "$TOLD"
printf %s "$REPORT"
"""
NOTHING = '{"report": []}'


def report():
    return lvm.report(Look(10, "", ""))


@pytest.fixture
def etc_lvm(tmp_path, monkeypatch):
    """What stands for /etc/lvm, and an lvm that writes to the devices file it is given, as the real one does."""
    place, tool = tmp_path / "etc", tmp_path / "bin" / "lvm"
    (place / "devices").mkdir(parents=True)
    (place / "lvm.conf").write_text("devices {}\n", encoding="utf-8")
    tool.parent.mkdir()
    tool.write_text(LVM, encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tool.parent))
    monkeypatch.setenv("LVM_SYSTEM_DIR", str(place))
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    monkeypatch.setenv("REPORT", NOTHING)
    return place


def test_the_devices_file_is_respected_and_not_changed(etc_lvm, tmp_path):
    file = etc_lvm / "devices" / "system.devices"
    file.write_text("VERSION=1.1.1\n", encoding="utf-8")
    assert report() == lvm.Report((), ())
    assert file.read_text(encoding="utf-8") == "VERSION=1.1.1\n"
    private = (tmp_path / "told").read_text(encoding="utf-8").strip()
    assert private != str(etc_lvm)
    assert not (tmp_path / private).exists()


def test_without_a_devices_file_nothing_is_made(etc_lvm, tmp_path):
    assert report() == lvm.Report((), ())
    assert (tmp_path / "told").read_text(encoding="utf-8").strip() == str(etc_lvm)


def test_a_full_tmp_is_no_matter_where_run_can_be_written(etc_lvm, tmp_path, monkeypatch):
    (etc_lvm / "devices" / "system.devices").write_text("", encoding="utf-8")
    place = tmp_path / "run"
    place.mkdir()
    monkeypatch.setattr(lvm, "_PLACE", str(place))
    monkeypatch.setattr(tempfile, "tempdir", "/nodev/null")
    assert report() == lvm.Report((), ())
    assert (tmp_path / "told").read_text(encoding="utf-8").startswith(str(place))
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "operation_failed"), (errno.EACCES, "not_readable")])
def test_a_devices_file_that_can_not_be_copied_is_an_error_of_lvm(etc_lvm, monkeypatch, number, code):
    """Of which a pool is a record, rather than the end of all looking."""
    (etc_lvm / "devices" / "system.devices").write_text("", encoding="utf-8")

    def copy(*paths):
        raise OSError(number, os.strerror(number), *paths[:1])

    monkeypatch.setattr(shutil, "copy", copy)
    monkeypatch.setattr(logical, "unable", lambda row, formats: None)
    with pytest.raises(StorageError) as caught:
        report()
    assert (caught.value.code, caught.value.subject) == (code, "lvm")
    assert os.strerror(number) in caught.value.message
    pool = Pool("vg", "logical", path="/dev/vg", source=Source(name="vg"))
    assert logical.observe(pool, Look(10, "", ""), False).kind == UNKNOWN_STORAGE


@pytest.mark.parametrize("printed", ["", "{}", "[]", '{"report": [{"pv": 1}]}', '{"report": [{"vg": [{}]}]}'])
def test_what_is_no_report(etc_lvm, monkeypatch, printed):
    """Nothing said is not the same as nothing there."""
    monkeypatch.setenv("REPORT", printed)
    with pytest.raises(StorageError) as caught:
        report()
    assert (caught.value.code, caught.value.subject) == ("command_failed", "lvm")
    assert "fullreport" in caught.value.command
