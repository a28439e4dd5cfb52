# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of lvm2 2.03.16 as recorded, and what sources they come to."""

from __future__ import annotations

import json
import stat

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import logical_sources, lvm
from ansible_collections.virt.storage.plugins.module_utils.host.clock import Deadline
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

UUID = "G1PIHV-KiS4-Rbwv-kLv5-hRIV-Ei3c-rM3pwJ"


def group(**more):
    return {
        "vg_name": "vg-a_b+c.d",
        "vg_uuid": UUID,
        "vg_size": "201326592",
        "vg_free": "192937984",
        "vg_exported": "",
        "vg_missing_pv_count": "0",
        "lv_count": "1",
        **more,
    }


def device(path, **more):
    return {
        "pv_name": path,
        "pv_uuid": f"uuid of {path}",
        "vg_name": "vg-a_b+c.d",
        "vg_uuid": UUID,
        "pv_size": "100663296",
        "dev_size": "104857600",
        "pv_missing": "",
        "pv_in_use": "used",
        "pv_duplicate": "",
        **more,
    }


def unused(path, **more):
    return device(path, **{"vg_name": "", "vg_uuid": "", "pv_in_use": "", **more})


def report(kind, *rows):
    return json.dumps({"report": [{kind: rows}]})


@pytest.fixture
def sources(monkeypatch):
    """The sources that reports come to; ``guests`` are paths of devices that guests' volumes are."""

    def look(groups, devices, guests=()):
        monkeypatch.setattr(logical_sources.os, "geteuid", lambda: 0)
        monkeypatch.setattr(logical_sources, "holds_guests", lambda path: path in guests)
        monkeypatch.setattr(lvm, "groups", lambda deadline: lvm.parse_groups(report("vg", *groups)))
        monkeypatch.setattr(lvm, "devices", lambda deadline: lvm.parse_devices(report("pv", *devices)))
        return logical_sources.look(Deadline(10)).sources

    return look


def test_a_group_and_an_unused_device(sources):
    first, second = sources(
        [group()], [device("/nodev/sda"), device("/nodev/sdb"), unused("/nodev/sdc", pv_size="104857600")]
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
    ],
)
def test_what_stands_in_the_way_of_a_group(sources, more, why):
    (found,) = sources([group(**more)], [device("/nodev/sda"), device("[unknown]", pv_missing="missing")])
    assert found.why_not == (why,)
    assert [each.path for each in found.source.devices] == ["/nodev/sda"]


def test_two_groups_of_one_name(sources):
    found = sources([group(), group(vg_uuid="other")], [device("/nodev/sda"), device("/nodev/sdb", vg_uuid="other")])
    assert [each.why_not for each in found] == [("another volume group has the same name",)] * 2
    assert [each.source.devices[0].path for each in found] == ["/nodev/sda", "/nodev/sdb"]


def test_what_is_inside_the_volumes_of_guests_is_not_offered(sources):
    guests = ("/nodev/loop0", "/nodev/vg/lv")
    assert sources([group()], [device("/nodev/sda"), device("/nodev/loop0"), unused("/nodev/vg/lv")], guests) == ()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"pv_in_use": "used"}, "it belongs to a volume group whose metadata is not found"),
        ({"pv_duplicate": "duplicate"}, "another device is the same physical volume"),
    ],
)
def test_a_device_that_only_looks_unused(sources, more, why):
    (found,) = sources([], [unused("/nodev/sda", **more)])
    assert found.why_not == (why,)


@pytest.mark.parametrize("printed", ["", "{}", "[]", '{"report": [{"pv": 1}]}', '{"report": [{"lv": []}]}'])
def test_what_is_no_report(printed):
    with pytest.raises(StorageError) as caught:
        lvm.parse_devices(printed)
    assert caught.value.code == "command_failed"
    assert caught.value.hint


def test_only_root_can_look(monkeypatch):
    monkeypatch.setattr(logical_sources.os, "geteuid", lambda: 1000)
    with pytest.raises(StorageError) as caught:
        logical_sources.look(Deadline(10))
    assert caught.value.code == "not_readable"


# -- the devices file ---------------------------------------------------------------------------------------------

PVS = """#!/bin/sh
PATH=/usr/bin:/bin
cat "$LVM_SYSTEM_DIR/lvm.conf" >&2
for file in "$LVM_SYSTEM_DIR"/devices/*; do echo changed >> "$file"; done
echo "$LVM_SYSTEM_DIR" > "$TOLD"
echo '{"report": [{"pv": []}]}'
"""


@pytest.fixture
def etc_lvm(tmp_path, monkeypatch):
    """What stands for /etc/lvm, and a pvs that writes to the devices file it is given, as the real one does."""
    place, tool = tmp_path / "etc", tmp_path / "bin" / "pvs"
    (place / "devices").mkdir(parents=True)
    (place / "lvm.conf").write_text("devices {}\n", encoding="utf-8")
    tool.parent.mkdir()
    tool.write_text(PVS, encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tool.parent))
    monkeypatch.setenv("LVM_SYSTEM_DIR", str(place))
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    return place


def test_the_devices_file_is_respected_and_not_changed(etc_lvm, tmp_path):
    file = etc_lvm / "devices" / "system.devices"
    file.write_text("VERSION=1.1.1\n", encoding="utf-8")
    assert lvm.devices(Deadline(10)) == []
    assert file.read_text(encoding="utf-8") == "VERSION=1.1.1\n"
    private = (tmp_path / "told").read_text(encoding="utf-8").strip()
    assert private != str(etc_lvm)
    assert not (tmp_path / private).exists()


def test_without_a_devices_file_nothing_is_made(etc_lvm, tmp_path):
    assert lvm.devices(Deadline(10)) == []
    assert (tmp_path / "told").read_text(encoding="utf-8").strip() == str(etc_lvm)
