# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Host adapters in a made-up sysfs: which one is meant, what starting and stopping a pool of one does, and virtual ones
of Fibre Channel, for which there is no hardware here.
"""

from __future__ import annotations

import os

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import scsi as backend
from ansible_collections.virt.storage.plugins.module_utils.backends import scsi_sources
from ansible_collections.virt.storage.plugins.module_utils.host import adapters, udev
from ansible_collections.virt.storage.plugins.module_utils.host.adapters import hosts_of, meant_by
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.notes import Notes
from ansible_collections.virt.storage.plugins.module_utils.model.adapters import in_conflict, is_same, keep_adapter
from ansible_collections.virt.storage.plugins.module_utils.model.change import Change, Subject
from ansible_collections.virt.storage.plugins.module_utils.model.discovery import Query
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ABSENT,
    READY,
    UNKNOWN_STORAGE,
    Found,
)
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.operations import ChangeVport, ScanUnits
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Adapter, Pool, Source
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Sought

from .scsi_tree import MIB, Tree

NODE, PORT = "20000000c9848140", "10000000c9848140"
VNODE, VPORT = "20000000c9831b4b", "10000000c9831b4b"
HBA = "0000:05:00.0"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    made = Tree(tmp_path, monkeypatch)
    monkeypatch.setattr(udev, "_CONTROL", "/nowhere/control")
    return made


@pytest.fixture
def fabric(tree, monkeypatch):
    """A port of hardware with a fabric behind it."""
    tree.fc_host(5, NODE, PORT, pci=HBA, vports=2)
    tree.makes_vports(monkeypatch, on=5)
    return tree


def look():
    return Look(10, "/nowhere/records", "/nowhere/started")


def scsi(name=None, **more):
    return Adapter("scsi_host", name, **more)


def fc(wwnn=VNODE, wwpn=VPORT, **more):
    return Adapter("fc_host", wwnn=wwnn, wwpn=wwpn, **more)


def pool_of(adapter):
    return Pool("units", "scsi", path="/dev", source=Source(adapter=adapter))


def observe(adapter):
    return backend.observe(pool_of(adapter), look(), False)


def lower(action, adapter):
    change = Change(Subject("units"), action, "", wanted=pool_of(adapter))
    return backend.lower(change, Found("units"), Notes("/nowhere", "/nowhere"))


def do(operations):
    for operation in operations:
        Applier(timeout=10).apply(operation)


# -- which one is meant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "number"),
    [
        (scsi("host2"), 2),
        (scsi("scsi_host2"), 2),
        (scsi("fc_host2"), 2),
        (scsi(parent_address="0000:00:1f.2", unique_id=1), 2),
        (scsi(parent_address="0:0:1f.2", unique_id=2), 3),
        (scsi(parent_address="0000:02:00.0", unique_id=1), 4),
        (scsi(parent_address="0000:00:01.0", unique_id=1), 4),  # what that is on
    ],
)
def test_which_one_is_meant(tree, adapter, number):
    tree.host(2, unique_id=1)
    tree.host(3, unique_id=2)
    tree.host(4, unique_id=1, pci="0000:00:01.0/0000:02:00.0")
    assert meant_by(adapter).host.number == number
    storage = observe(adapter)
    assert (storage.kind, storage.up, storage.idle, storage.take_down) == (READY, True, True, "")


@pytest.mark.parametrize(
    ("adapter", "kind", "code"),
    [
        (scsi("host9"), ABSENT, "source_missing"),
        (scsi("scsi_host22"), ABSENT, "source_missing"),
        (scsi("sda"), UNKNOWN_STORAGE, "invalid_option"),
        (scsi(parent_address="0000:00:1f.2", unique_id=7), ABSENT, "source_missing"),
        (scsi(parent_address="0000:00:1f.3", unique_id=1), ABSENT, "source_missing"),
        (scsi(parent_address="0000:00:14.0", unique_id=0), UNKNOWN_STORAGE, "storage_foreign"),
        (fc(), ABSENT, "source_missing"),
        (fc(parent="scsi_host2"), ABSENT, "source_missing"),
        (fc(parent_wwnn=NODE, parent_wwpn=PORT), ABSENT, "source_missing"),
    ],
)
def test_none_is_meant(tree, adapter, kind, code):
    tree.host(2, unique_id=1)
    for number in (6, 7):
        tree.host(number, unique_id=0, pci="0000:00:14.0", below="usb1/", driver="usb-storage")
    storage = observe(adapter)
    (part,) = storage.parts
    assert (storage.kind, part.problem.code) == (kind, code)
    assert part.problem.hint
    assert storage.bring_up == ""


def test_without_an_adapter_there_is_nothing():
    assert backend.observe(Pool("units", "scsi", path="/dev"), look(), False).kind == ABSENT


def test_only_root_can_start_one(tree, monkeypatch):
    tree.host(2)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert observe(scsi("host2")).unable.code == "not_writable"


# -- which ones are the same --------------------------------------------------------------------------------------

PLACE = scsi(parent_address="0000:00:1f.2", unique_id=1)
PAIRS = [
    (scsi("host2"), scsi("scsi_host2"), True, True),
    (scsi("host2"), PLACE, True, True),
    (scsi("host2"), scsi("host3"), False, False),
    (PLACE, scsi(parent_address="0000:00:1f.2", unique_id=9), False, False),
    (fc(), fc(f"0x{VNODE.upper()}", VPORT), True, True),
    (fc(), fc(NODE, PORT), False, False),
    (fc(), scsi("host7"), True, True),
    (fc(), scsi("host5"), False, True),  # the host that it is on
    (fc("a" * 16, "b" * 16, parent="scsi_host5"), scsi("host5"), False, True),
    (fc("a" * 16, "b" * 16), scsi("host5"), False, False),
]


@pytest.mark.parametrize(("one", "other", "same", "conflict"), PAIRS)
def test_the_same_by_another_name(fabric, one, other, same, conflict):
    fabric.host(2, unique_id=1)
    fabric.host(3, unique_id=2)
    fabric.vport(7, VNODE, VPORT, on=5)
    hosts = hosts_of([one, other])
    for pair in ((one, other), (other, one)):
        assert (is_same(*pair, hosts), in_conflict(*pair, hosts)) == (same, conflict)


def test_without_a_look_their_names_tell():
    assert is_same(scsi("host2"), scsi("scsi_host2"), {})
    assert is_same(PLACE, PLACE, {})
    assert not is_same(scsi("host2"), PLACE, {})
    assert not is_same(scsi("a"), scsi("b"), {})


def test_a_definition_keeps_its_own_words():
    hosts = {PLACE: (2,)}
    assert keep_adapter(scsi("host2"), PLACE, hosts) == PLACE
    assert keep_adapter(scsi("host3"), PLACE, hosts) == scsi("host3")
    known = fc(managed=True, parent="scsi_host5")
    assert keep_adapter(fc(f"0x{VNODE}"), known, {}) == known
    assert keep_adapter(fc(managed=False), known, {}) == fc(managed=False, parent="scsi_host5")
    assert keep_adapter(fc(NODE, PORT), known, {}) == fc(NODE, PORT)


# -- starting and stopping ----------------------------------------------------------------------------------------


def test_starting_one_looks_for_units(tree):
    tree.host(2)
    assert observe(scsi("host2")).bring_up == "look for units of the SCSI host host2"
    assert lower("start", scsi("host2")) == [ScanUnits(2)]


def test_what_went_away_meanwhile_is_not_started(tree):
    with pytest.raises(StorageError) as caught:
        lower("start", scsi("host2"))
    assert caught.value.code == "changed_meanwhile"


def test_the_units_are_its_volumes(tree):
    tree.host(2)
    tree.unit("2:0:0:0")
    pool = pool_of(scsi("host2"))
    found = backend.observe_volumes(Found("units", definition=pool), Scope(Pool("units"), volumes=None), look())
    assert list(found.volumes) == ["unit:0:0:0"]
    declared = backend.observe_volumes(Found("units"), Scope(pool, volumes=None), look())
    assert declared.volumes == found.volumes
    assert backend.observe_volumes(Found("units"), Scope(pool_of(scsi("host9")), volumes=None), look()).volumes == {}


def test_units_are_looked_for(tree):
    tree.host(2)
    found = Found("units", definition=pool_of(scsi("host2")))
    sought = (Sought("unit:0:0:1", MIB),)
    change = Change(Subject("units"), "refresh", "", wanted=sought)
    (step,) = backend.lower_volumes([change], found)
    assert (step.operations, step.change) == ((ScanUnits(2, sought=sought),), change)
    assert backend.lower_volumes([change], Found("units")) == ()
    assert backend.lower_volumes([change], Found("units", definition=pool_of(scsi("host9")))) == ()


SIZES = [
    (Sought("unit:0:0:0"), ""),
    (Sought("unit:0:0:0", MIB), ""),
    (Sought("unit:0:0:0", MIB // 2, at_least=True), ""),
    (Sought("unit:0:0:0", MIB // 2), "has 1 MiB, not 512 KiB"),
    (Sought("unit:0:0:0", 2 * MIB, at_least=True), "has 1 MiB, not 2 MiB"),
    (Sought("unit:0:0:9"), "is not there"),
    (Sought("unit:0:0:1"), "can't be used: it does not tell its size"),
    (Sought("unit:0:0:2"), "can't be used: the kernel has no way to it"),
]


@pytest.mark.parametrize(("sought", "wrong"), SIZES)
def test_what_does_not_turn_up_is_an_error(tree, sought, wrong):
    tree.host(2)
    tree.unit("2:0:0:0")
    tree.unit("2:0:0:1", size=0)
    tree.unit("2:0:0:2", state="offline")
    if not wrong:
        do([ScanUnits(2, sought=(sought,))])
        return
    with pytest.raises(StorageError) as caught:
        do([ScanUnits(2, sought=(sought,))])
    assert (caught.value.code, wrong in caught.value.message) == ("source_missing", True)
    assert caught.value.hint


# -- virtual adapters of Fibre Channel ----------------------------------------------------------------------------


def test_one_is_made_and_removed(fabric):
    before = observe(fc())
    assert (before.kind, before.up, before.ours) == (READY, False, False)
    assert before.bring_up == f"make the virtual host adapter {VPORT}"
    operations = lower("start", fc())
    assert operations == [ChangeVport("create", 5, VNODE, VPORT)]
    assert operations[0].command == f"echo {VPORT}:{VNODE} > /sys/class/fc_host/host5/vport_create"
    do(operations)
    assert (fabric.sys / "class/fc_host/host5/vport_create").read_text() == f"{VPORT}:{VNODE}\n"
    after = observe(fc())
    assert (after.up, after.idle, after.bring_up) == (True, False, before.bring_up)
    assert after.take_down == f"remove the virtual host adapter {VPORT}"
    volumes = backend.observe_volumes(Found("units"), Scope(pool_of(fc()), volumes=None), look()).volumes
    assert list(volumes) == ["unit:0:0:0"]
    do(lower("stop", fc()))
    assert (fabric.sys / "class/fc_host/host5/vport_delete").read_text() == f"{VPORT}:{VNODE}\n"
    assert not observe(fc()).up


@pytest.mark.parametrize(("managed", "ours", "goes"), [(None, False, True), (False, False, False), (True, True, True)])
def test_whether_it_goes_with_the_pool(fabric, managed, ours, goes):
    fabric.vport(7, VNODE, VPORT, on=5)
    storage = observe(fc(managed=managed))
    assert (storage.up, storage.ours, bool(storage.take_down)) == (True, ours, goes)


def test_one_of_the_hardware_is_only_used(fabric):
    storage = observe(fc(NODE, PORT, managed=True))
    assert (storage.up, storage.idle, storage.take_down) == (True, True, "")
    assert lower("start", fc(NODE, PORT)) == [ScanUnits(5)]


@pytest.mark.parametrize(
    "parent",
    [
        {},
        {"parent": "scsi_host5"},
        {"parent": "fc_host5"},
        {"parent_wwnn": f"0x{NODE}", "parent_wwpn": PORT.upper()},
        {"parent_fabric_wwn": "2001000dec9877c1"},
    ],
)
def test_where_it_is_made(fabric, parent):
    fabric.fc_host(4, "1" * 16, "2" * 16, pci="0000:04:00.0", vports=2, state="Linkdown", fabric="0" * 16)
    assert meant_by(fc(**parent)).parent == 5


@pytest.mark.parametrize(
    ("host", "adapter", "code"),
    [
        ({"vports": None}, fc(), "source_missing"),
        ({"vports": None}, fc(parent="scsi_host5"), "not_supported"),
        ({"vports": 0}, fc(), "source_missing"),
        ({"vports": 2, "state": "Offline"}, fc(), "source_missing"),
        ({"vports": 2}, fc(parent="scsi_host6"), "source_missing"),
        ({"vports": 2}, fc(parent_fabric_wwn="f" * 16), "source_missing"),
    ],
)
def test_where_it_can_not_be_made(tree, host, adapter, code):
    tree.fc_host(5, NODE, PORT, pci=HBA, **host)
    assert observe(adapter).parts[0].problem.code == code


def test_drivers_that_have_it_in_another_place(tree):
    tree.fc_host(5, NODE, PORT, pci=HBA, vports=2, kind="scsi_host")
    assert adapters.vport_file(5, "create") == f"{tree.sys}/class/scsi_host/host5/vport_create"


def test_one_that_is_on_another_parent(fabric):
    fabric.vport(7, VNODE, VPORT, on=5)
    fabric.fc_host(4, "1" * 16, "2" * 16, pci="0000:04:00.0", vports=2)
    (part,) = observe(fc(parent="scsi_host4")).parts
    assert (part.problem.code, "host5" in part.problem.what) == ("storage_foreign", True)
    assert observe(fc(parent="scsi_host5")).up


def test_one_that_does_not_appear_ends_at_the_deadline(tree):
    tree.fc_host(5, NODE, PORT, pci=HBA, vports=2)
    with pytest.raises(StorageError) as caught:
        Applier(timeout=0.3).apply(ChangeVport("create", 5, VNODE, VPORT))
    assert (caught.value.code, VPORT in caught.value.message) == ("deadline", True)


def test_one_whose_parent_went_away(tree):
    with pytest.raises(StorageError) as caught:
        do([ChangeVport("delete", 5, VNODE, VPORT)])
    assert caught.value.code == "changed_meanwhile"


# -- finding them -------------------------------------------------------------------------------------------------


def test_what_pools_can_be_made_of(fabric):
    fabric.host(2, unique_id=1)
    fabric.host(3, unique_id=2)
    for number in (8, 9):
        fabric.host(number, unique_id=0, pci="0000:00:14.0", below="usb1/", driver="usb-storage")
    fabric.host(11, unique_id=0, pci="pseudo_0", driver="scsi_debug")
    fabric.host(12, pci="platform", driver="iscsi_tcp", session=True)
    fabric.unit("2:0:0:0", size=3 * MIB)
    fabric.unit("2:0:0:1")
    found = scsi_sources.find(Query("scsi"), look()).sources
    assert [each.source.adapter for each in found] == [
        PLACE,
        scsi(parent_address="0000:00:1f.2", unique_id=2),
        fc(NODE, PORT),
        scsi("host8"),
        scsi("host9"),
        scsi("host11"),
    ]
    first = found[0]
    assert (first.kind, first.path) == ("scsi_host", f"{fabric.sys}/class/scsi_host/host2")
    assert (first.size, first.volumes, first.comment) == (4 * MIB, 2, "ahci")
    assert found[2].kind == "fc_host"
