# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is run at boot, for pools whose units others serve: in a made-up sysfs, with a stand-in for iscsiadm."""

from __future__ import annotations

import os

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.engines.select import native_engine
from ansible_collections.virt.storage.plugins.module_utils.host import patience, run, scanning, udev
from ansible_collections.virt.storage.plugins.module_utils.host.directories import make_link, write_file
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import render_definition
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.operations import MakeLink, WriteFile
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Adapter,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
)
from ansible_collections.virt.storage.plugins.module_utils.tasks import boot

from ..backends.initiator_host import OpenIscsi
from ..backends.scsi_tree import MIB, Tree

TARGET = "iqn.2026-01.lab.test:disks"
UUID = "6f1ec92b-2b3c-4d2f-9d5f-0d2c1c6c7f1{}"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    made = Tree(tmp_path, monkeypatch)
    made.host(2)
    monkeypatch.setattr(udev, "_CONTROL", "/nowhere/control")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(patience, "in_child", lambda function, seconds: function())
    monkeypatch.setattr(boot, "_SECONDS", 0)
    return made


@pytest.fixture
def tool(tmp_path, tree, monkeypatch):
    return OpenIscsi(tmp_path, tree, monkeypatch)


@pytest.fixture
def host(tmp_path, tool, monkeypatch):
    """A host with a marked pool of a target, of an adapter, and of all maps."""
    monkeypatch.setattr(run, "lacks", lambda operation: "")
    server, portal = tool.listen()
    tool.offer(TARGET, portal)
    address, _colon, port = portal.rpartition(":")
    at_target = Source((SourceHost(address, int(port)),), (SourceDevice(TARGET),))
    pools = (
        Pool("san", "iscsi", UUID.format(1), "/dev", source=at_target),
        Pool("units", "scsi", UUID.format(2), "/dev", source=Source(adapter=Adapter("scsi_host", "host2"))),
        Pool("maps", "mpath", UUID.format(3), "/dev/mapper"),
    )
    places = find_places(f"native:///?root={tmp_path / 'root'}")
    for pool in pools:
        path = os.path.join(places.config, f"{pool.name}.xml")
        write_file(WriteFile(path, render_definition(pool, None)))
        make_link(MakeLink(os.path.join(places.config, "autostart", f"{pool.name}.xml"), path))
    yield places
    server.close()


def volumes(places, name):
    found = native_engine(places, 5).observe(Scope(Pool(name), volumes=None))
    assert found.active
    return sorted(found.volumes)


def test_all_of_them_are_started(host, tree, capsys):
    tree.unit("2:0:0:0")
    tree.map(7, "mpatha", size=MIB)
    assert boot.main([host.uri]) == 0, capsys.readouterr().err
    assert (tree.sys / "class/scsi_host/host2/scan").read_text() == "- - -\n"
    assert [volumes(host, name) for name in ("san", "units", "maps")] == [["unit:0:0:0"], ["unit:0:0:0"], ["mpatha"]]


def test_a_unit_that_is_no_disk_keeps_none_from_being_started(host, tree, tool, monkeypatch, capsys):
    tree.unit("2:0:0:0", kind=1, disk=False)
    tool.units = ()
    told = tree.session

    def with_a_tape(*args, **more):
        told(*args, **more)
        tree.unit("11:0:0:0", kind=1, disk=False, nodes={"scsi_tape": "st0"})

    monkeypatch.setattr(tree, "session", with_a_tape)
    assert boot.main([host.uri]) == 0, capsys.readouterr().err
    assert [volumes(host, name) for name in ("san", "units")] == [[], []]


@pytest.mark.parametrize(("name", "number"), [("san", 11), ("units", 2)])
def test_a_unit_that_is_served_late_is_found(host, tree, monkeypatch, name, number):
    boot.main([host.uri])
    before, told = volumes(host, name), scanning.tell

    def kernel(paths, word, held, seconds):
        told(paths, word, held, seconds)
        if any(path.endswith(f"host{number}/scan") for path in paths):
            tree.unit(f"{number}:0:0:5")

    monkeypatch.setattr(scanning, "tell", kernel)
    assert volumes(host, name) == before
    boot.seek(name, native_engine(host, 5))
    assert volumes(host, name) == [*before, "unit:0:0:5"]


@pytest.mark.parametrize("gone", ["session", "definition"])
def test_what_can_not_be_looked_at_is_no_error(host, tree, gone):
    boot.main([host.uri])
    if gone == "session":
        tree.end_session(1, 11)
    else:
        with open(os.path.join(host.config, "san.xml"), "w", encoding="utf-8") as file:
            file.write("<pool")
    boot.seek("san", native_engine(host, 5))
