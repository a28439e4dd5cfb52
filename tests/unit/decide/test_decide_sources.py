# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources: alike or not, had by pools or not, waited for and there or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide import sources as decide
from ansible_collections.virt.storage.plugins.module_utils.model.discovery import (
    Discovery,
    FoundSource,
    Query,
    SourcesGoal,
    Unanswered,
)
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Adapter,
    Pool,
    Source,
    SourceDevice,
    SourceHost,
)


def export(directory, host="nas1", protocol="nfs"):
    return Source(hosts=(SourceHost(host),), dir=directory, format=protocol)


def on(*paths, **more):
    return Source(devices=tuple(map(SourceDevice, paths)), **more)


def device(node, *parts, users=(), **more):
    return FoundSource(on(node), users=users, devices=(node, *parts), path=node, **more)


def silent(code, host="nas1", protocol="nfs", said=""):
    return Unanswered(host, protocol, StorageError(code, f"{code}!", hint="Do something.", stderr=said))


# -- alike --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "found", "alike"),
    [
        (Source(), export("/a"), True),
        (export("/a"), export("/a"), True),
        (export("/a/"), export("/a"), True),
        (export("/a", protocol=None), export("/a"), True),
        (export("/a", protocol="auto"), export("/a"), True),
        (export("/a", "NAS1"), export("/a"), True),
        (export("/a", "nas2"), export("/a"), False),
        (export("/a", protocol="cifs"), export("/a"), False),
        (export("/a"), export("/a/b"), False),
        (export("/A"), export("/a"), False),
        (export("/"), export("/"), True),
        (export("/Images", protocol="cifs"), export("images", protocol="cifs"), True),
        (export("/gv0", protocol="glusterfs"), export("gv0", protocol="glusterfs"), True),
        (export("/GV0", protocol="glusterfs"), export("gv0", protocol="glusterfs"), False),
        (Source(hosts=(SourceHost("nas2"), SourceHost("nas1")), dir="/a"), export("/a"), True),
        (Source(name="vg0"), on("/dev/sdb", name="vg0"), True),
        (Source(name="vg1"), on("/dev/sdb", name="vg0"), False),
        (on("/dev/disk/by-id/b"), on("/dev/sdb"), True),
        (on("/dev/sdb", "/dev/sdc"), on("/dev/sdb"), False),
        (on("/dev/sdb"), on("/dev/sdb", "/dev/sdc", name="vg0"), True),
    ],
)
def test_alike(declared, found, alike):
    assert decide.is_like(declared, found, Discovery(resolved={"/dev/disk/by-id/b": "/dev/sdb"})) is alike


FC = Source(adapter=Adapter("fc_host", wwnn="1" * 16, wwpn="2" * 16))
PLACE = Source(adapter=Adapter("scsi_host", parent_address="0000:00:1f.2", unique_id=1))
HOSTS = {FC.adapter: (5,), PLACE.adapter: (2,)}


def named(name):
    return Source(adapter=Adapter("scsi_host", name))


@pytest.mark.parametrize(
    ("declared", "found", "alike"),
    [
        (Source(), PLACE, True),
        (PLACE, PLACE, True),
        (named("scsi_host2"), PLACE, True),
        (named("host3"), PLACE, False),
        (named("host5"), FC, True),
        (Source(adapter=Adapter("fc_host", wwnn="0x" + "1" * 16, wwpn="2" * 16)), FC, True),
        (FC, PLACE, False),
        (FC, Source(), False),
    ],
)
def test_adapters_alike(declared, found, alike):
    assert decide.is_like(declared, found, Discovery(hosts=HOSTS)) is alike


# -- pools --------------------------------------------------------------------------------------------------------

GROUP = FoundSource(on("/dev/sdb", name="vg0"), devices=("/dev/sdb",), group="vg0")
VOLUME = FoundSource(Source(name="gv0", dir="/", hosts=(SourceHost("nas1"),)))


@pytest.mark.parametrize(
    ("kind", "found", "pool", "has"),
    [
        ("netfs", FoundSource(export("/a")), Pool("p", "netfs", source=export("/a", protocol="auto")), True),
        ("netfs", FoundSource(export("/a")), Pool("p", "netfs", source=export("/a", "nas2")), False),
        ("netfs", FoundSource(export("/a")), Pool("p", "dir", path="/a"), False),
        ("gluster", VOLUME, Pool("p", "gluster", source=Source(hosts=(SourceHost("nas1"),), name="gv0")), True),
        ("gluster", VOLUME, Pool("gv0", "gluster", source=Source(hosts=(SourceHost("nas1"),))), True),
        ("gluster", VOLUME, Pool("gv1", "gluster", source=Source(hosts=(SourceHost("nas1"),))), False),
        ("logical", GROUP, Pool("p", "logical", source=Source(name="vg0")), True),
        ("logical", GROUP, Pool("vg0", "logical"), True),
        ("logical", GROUP, Pool("p", "logical", source=Source(name="vg1")), False),
        ("logical", GROUP, Pool("p", "disk", source=on("/dev/disk/by-id/b")), True),
        ("disk", device("/dev/sdb", "/dev/sdb1"), Pool("p", "fs", source=on("/dev/sdb1")), True),
        ("fs", device("/dev/sdb1", "/dev/sdb"), Pool("p", "disk", source=on("/dev/disk/by-id/b")), True),
        ("fs", device("/dev/sdb1", "/dev/sdb"), Pool("p", "fs", source=on("/dev/sdb2")), False),
        ("fs", device("/dev/dm-0", group="vg0"), Pool("p", "logical", source=Source(name="vg0")), True),
        ("fs", device("/dev/sdb1"), Pool("p", "iscsi", source=on("iqn.2026-11.example")), False),
        ("scsi", FoundSource(PLACE), Pool("p", "scsi", source=named("host2")), True),
        ("scsi", FoundSource(PLACE), Pool("p", "scsi", source=named("host3")), False),
        ("scsi", FoundSource(PLACE), Pool("p", "iscsi", source=on("iqn.2026-11.example")), False),
        ("mpath", device("/dev/mapper/a"), Pool("p", "mpath"), True),
        ("mpath", device("/dev/mapper/a"), Pool("p", "scsi", source=named("host3")), False),
    ],
)
def test_pools_that_have_it(kind, found, pool, has):
    discovery = Discovery((found,), pools=(pool,), resolved={"/dev/disk/by-id/b": "/dev/sdb"}, hosts=HOSTS)
    (marked,) = decide.offered(SourcesGoal(Query(kind)), discovery)
    assert marked.free is not has
    assert marked.why_not == ((f"part of pool {pool.name} already",) if has else ())


def test_only_what_was_asked_for_is_listed():
    goal = SourcesGoal(Query("disk"), like=on("/dev/sdb"), only_free=True)
    sources = (device("/dev/sdb"), device("/dev/sdc"))
    assert decide.listed(goal, Discovery(), sources) == (device("/dev/sdb"),)
    assert decide.listed(goal, Discovery(), (device("/dev/sdb", users=("mounted at /",)),)) == ()


# -- waiting ------------------------------------------------------------------------------------------------------


def judged(*wanted, sources=(), unanswered=(), like=None, kind="netfs", pools=()):
    goal = SourcesGoal(Query(kind), like=like or Source(), wanted=wanted)
    discovery = Discovery(sources, unanswered, pools=pools)
    return decide.judge(goal, discovery, decide.offered(goal, discovery) if pools else sources)


def test_all_is_there():
    assert judged(export("/a"), sources=(FoundSource(export("/a")),)).met


MOUNTED = ("mounted at /srv/images",)
PARTITION = device("/dev/sdb1", "/dev/sdb")
IN_GROUP = device("/dev/dm-0", group="vg0")


@pytest.mark.parametrize(
    ("kind", "found", "pool", "met"),
    [
        ("fs", device("/dev/sdb", users=MOUNTED), Pool("p", "fs", source=on("/dev/sdb")), True),
        ("fs", device("/dev/sdb"), Pool("p", "disk", source=on("/dev/sdb")), False),
        ("disk", device("/dev/sdb", users=MOUNTED), Pool("p", "fs", source=on("/dev/sdb")), False),
        ("fs", PARTITION, Pool("p", "disk", source=on("/dev/sdb")), True),
        ("fs", replace(PARTITION, users=MOUNTED), Pool("p", "disk", source=on("/dev/sdb")), False),
        ("fs", PARTITION, Pool("p", "logical", source=on("/dev/sdb1", name="vg0")), False),
        ("fs", IN_GROUP, Pool("vg0", "logical", source=Source(name="vg0")), True),
        ("logical", GROUP, Pool("p", "logical", source=Source(name="vg0")), True),
        ("logical", GROUP, Pool("p", "logical", source=on("/dev/sdb", name="vg0")), True),
        ("logical", GROUP, Pool("p", "disk", source=on("/dev/sdb")), False),
        ("netfs", FoundSource(export("/a")), Pool("p", "netfs", source=export("/a")), True),
    ],
)
def test_what_a_pool_of_that_type_has_is_there(kind, found, pool, met):
    """The second run of a play finds it like that, mounted by the pool."""
    judgement = judged(found.source, sources=(found,), kind=kind, pools=(pool,))
    assert judgement.met is met
    assert bool(judgement.taken) is not met


def test_what_is_missing_and_what_is_taken():
    taken = device("/dev/sdc", users=("mounted at /",))
    judgement = judged(on("/dev/sdb"), on("/dev/sdc"), sources=(taken,), kind="disk")
    assert (judgement.missing, judgement.taken) == ((on("/dev/sdb"),), ((on("/dev/sdc"), taken),))
    error = decide.unmet(judgement, 30)
    assert error.code == "source_missing"
    assert error.message == "waited for 30 s, and /dev/sdb is not there; /dev/sdc is not free: mounted at /"
    assert error.subject == "/dev/sdb, /dev/sdc"


def test_what_is_there_with_other_content():
    wanted = Source(devices=(SourceDevice("/dev/sdb"),), format="ext4")
    there = replace(device("/dev/sdb"), content="xfs")
    judgement = judged(wanted, sources=(there,), kind="fs")
    assert (judgement.met, judgement.other) == (False, ((wanted, there),))
    error = decide.unmet(judgement, 0)
    assert (error.code, error.message) == ("source_missing", "/dev/sdb holds xfs, not ext4")
    empty = judged(wanted, sources=(replace(there, content=""),), kind="fs")
    assert decide.unmet(empty, 3).message == "waited for 3 s, and /dev/sdb holds nothing, not ext4"


def test_taken_only():
    judgement = judged(on("/dev/sdc"), sources=(device("/dev/sdc", users=("used as swap",)),), kind="disk")
    assert decide.unmet(judgement, 5).code == "source_not_free"


@pytest.mark.parametrize(
    ("wanted", "unanswered", "code"),
    [
        (export("/b"), silent("command_failed"), "source_missing"),
        (export("/b"), silent("deadline"), "deadline"),
        (export("/b", protocol=None), silent("tool_missing", protocol="cifs"), "tool_missing"),
        (export("/b"), silent("deadline", protocol="cifs"), "source_missing"),
        (export("/b"), silent("deadline", host="nas2"), "source_missing"),
        (export("/b"), silent("deadline", protocol=""), "deadline"),
    ],
)
def test_unknown_is_not_absent(wanted, unanswered, code):
    judgement = judged(wanted, sources=(FoundSource(export("/a")),), unanswered=(unanswered,))
    assert not judgement.met
    assert decide.unmet(judgement, 30).code == code


def test_a_refusal_is_not_told_as_silence():
    told = [decide.unmet(judged(export("/b"), unanswered=(silent(c),)), 9) for c in ("command_failed", "deadline")]
    assert ["is not listed" in error.message for error in told] == [True, False]
    assert ["can't be told" in error.message for error in told] == [False, True]
    assert all("spelling" not in error.hint for error in told)


@pytest.mark.parametrize("wanted", [on("/dev/disk/by-id/b"), on("/dev/sdb", format="ext4")])
def test_a_device_that_does_not_answer_is_neither_missing_nor_taken(wanted):
    unread = device("/dev/sdb", users=("it can't be looked at: it did not answer",))
    goal = SourcesGoal(Query("fs"), wanted=(wanted,))
    discovery = Discovery(
        (unread,), (silent("deadline", host="/dev/sdb", protocol=""),), resolved={"/dev/disk/by-id/b": "/dev/sdb"}
    )
    judgement = decide.judge(goal, discovery, (unread,))
    assert [pair[0] for pair in judgement.unknown] == [wanted]
    assert decide.unmet(judgement, 30).code == "deadline"


def test_a_host_named_once_is_meant_everywhere():
    like = Source(hosts=(SourceHost("nas1"),))
    sources = (FoundSource(export("/a", "nas2")),)
    assert judged(Source(dir="/a"), like=like, sources=sources).missing == (Source(hosts=like.hosts, dir="/a"),)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (export("/a"), "nas1:/a (nfs)"),
        (Source(hosts=(SourceHost("a"), SourceHost("b")), name="gv0"), "a or b:gv0"),
        (Source(name="vg0"), "volume group vg0"),
        (on("/dev/sdb", name="vg0"), "volume group vg0 on /dev/sdb"),
        (on("/dev/sdb", "/dev/sdc"), "/dev/sdb, /dev/sdc"),
    ],
)
def test_sources_in_words(source, words):
    assert decide.named(source, "logical") == words


# -- who did not answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        (("tool_missing", "tool_missing"), "tool_missing"),
        (("tool_missing", "command_failed"), "command_failed"),
        (("command_failed", "deadline", "tool_missing"), "deadline"),
        (("operation_failed",), "operation_failed"),
        (("tool_missing", "source_missing"), "source_missing"),
    ],
)
def test_nobody_answered(codes, code):
    error = decide.nobody([silent(each, said="Connection refused\n") for each in codes])
    assert (error.code, bool(error.hint)) == (code, True)
    assert all(f"{each}!" in error.message for each in codes)


def test_a_protocol_that_a_server_does_not_speak_is_no_news():
    sources = (FoundSource(export("/a")),)
    refusing = (silent("command_failed", protocol="cifs"), silent("operation_failed", protocol="glusterfs"))
    assert decide.warnings(Discovery(sources, refusing)) == []
    for code in ("deadline", "tool_missing"):
        assert decide.warnings(Discovery(sources, (silent(code, protocol="cifs"),)))
    assert decide.warnings(Discovery(sources, (silent("command_failed", host="nas2"),)))


def test_other_warnings():
    told = decide.warnings(Discovery(left_out=("nas1: 'x'",), unread=("pool broken",)))
    assert len(told) == 2
