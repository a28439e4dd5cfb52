# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parameters of storage_volume as nouns: options, inheritance of entries, and what is refused."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.declare.volumes import volumes_goal, volumes_scope
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.goal import VolumeGoal, VolumesGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Content, Volume

ENTRY = ("name", "capacity", "capacity_policy", "allocation", "format", "owner", "group", "mode", "backing", "source",
         "options", "xml", "state", "recreate", "allow")  # fmt: skip
XML = "<volume><name>v</name><capacity unit='MiB'>1</capacity><target><format type='qcow2'/></target></volume>"


def account(value):
    return None if value is None else int(value) * 10


def goal(owner_id=account, group_id=account, **params):
    """The goal of a task with these options."""
    filled = {**dict.fromkeys((*ENTRY, "volumes", "exclusive")), "pool": "p", **params}
    if filled["volumes"] is not None:
        filled["volumes"] = [{**dict.fromkeys(ENTRY), **entry} for entry in filled["volumes"]]
    return volumes_goal(filled, owner_id, group_id)


def volume(**params):
    return goal(name="v", **params).volumes[0].volume


def refused(**params):
    with pytest.raises(StorageError) as caught:
        goal(**params)
    assert caught.value.hint
    return caught.value


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param({}, Volume("v"), id="name"),
        pytest.param({"capacity": "1G"}, Volume("v", capacity=2**30), id="capacity"),
        pytest.param({"capacity": "0"}, Volume("v", capacity=0), id="capacity-0"),
        pytest.param({"capacity": 0}, Volume("v", capacity=0), id="capacity-integer-0"),
        pytest.param({"capacity": "1GB"}, Volume("v", capacity=10**9), id="capacity-decimal"),
        pytest.param({"capacity_policy": "at_least"}, Volume("v", at_least=True), id="at-least"),
        pytest.param({"capacity_policy": "exact"}, Volume("v"), id="exact"),
        pytest.param({"allocation": "512 KiB"}, Volume("v", allocation=524288), id="allocation"),
        pytest.param({"format": "qcow2"}, Volume("v", format="qcow2"), id="format"),
        pytest.param({"owner": "0"}, Volume("v", permissions=Permissions(owner=0)), id="owner"),
        pytest.param({"group": "7"}, Volume("v", permissions=Permissions(group=70)), id="group"),
        pytest.param({"mode": 0o640}, Volume("v", permissions=Permissions(0o640)), id="mode"),
        pytest.param({"mode": "0000"}, Volume("v", permissions=Permissions(0)), id="mode-0"),
        pytest.param({"options": {}}, Volume("v"), id="no-options"),
        pytest.param({"options": {"compat": "0.10"}}, Volume("v", compat="0.10"), id="compat"),
        pytest.param({"options": {"cluster_size": "2M"}}, Volume("v", cluster_size=2**21), id="cluster-size"),
        pytest.param({"options": {"lazy_refcounts": False}}, Volume("v", lazy_refcounts=False), id="lazy-refcounts"),
        pytest.param({"options": {"extended_l2": True}}, Volume("v", extended_l2=True), id="extended-l2"),
        pytest.param({"options": {"preallocation": "full"}}, Volume("v", preallocation="full"), id="preallocation"),
        pytest.param({"options": {"nocow": True}}, Volume("v", nocow=True), id="nocow"),
        pytest.param({"backing": "base"}, Volume("v", backing=Backing(volume="base")), id="backing-name"),
        pytest.param({"backing": "/img/base"}, Volume("v", backing=Backing("/img/base")), id="backing-path"),
        pytest.param(
            {"backing": "//img//./base/"}, Volume("v", backing=Backing("/img/base")), id="backing-path-tidied"
        ),
        pytest.param(
            {"backing": "/img/link/../base"}, Volume("v", backing=Backing("/img/link/../base")), id="backing-path-back"
        ),
        pytest.param(
            {"source": {"path": "/img/link/../a"}},
            Volume("v", content=Content("/img/link/../a")),
            id="source-path-back",
        ),
        pytest.param({"backing": {"volume": "base"}}, Volume("v", backing=Backing(volume="base")), id="backing-dict"),
        pytest.param(
            {"backing": {"volume": "base", "format": "raw", "path": None}},
            Volume("v", backing=Backing(None, "raw", "base")),
            id="backing-dict-format",
        ),
        pytest.param(
            {"backing": {"path": "/img/base", "format": "qcow2"}},
            Volume("v", backing=Backing("/img/base", "qcow2")),
            id="backing-dict-path",
        ),
        pytest.param({"backing": {"volume": 5}}, Volume("v", backing=Backing(volume="5")), id="backing-number"),
        pytest.param({"source": {"path": "/a"}}, Volume("v", content=Content("/a")), id="source-path"),
        pytest.param(
            {"source": {"path": "/a", "format": "raw"}},
            Volume("v", content=Content("/a", None, "raw")),
            id="source-format",
        ),
        pytest.param({"source": {"volume": "w"}}, Volume("v", content=Content(volume="w")), id="source-volume"),
        pytest.param(
            {"source": {"content": "hällo"}}, Volume("v", content=Content(data="hällo".encode())), id="content"
        ),
        pytest.param({"source": {"content": ""}}, Volume("v", content=Content(data=b"")), id="content-empty"),
        pytest.param({"source": {"content": "\udc80"}}, Volume("v", content=Content(data=b"\x80")), id="content-bytes"),
    ],
)
def test_options(params, expected):
    assert volume(**params) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param({}, VolumeGoal(Volume("v")), id="defaults"),
        pytest.param({"state": "absent"}, VolumeGoal(Volume("v"), "absent"), id="absent"),
        pytest.param({"recreate": "always"}, VolumeGoal(Volume("v"), recreate="always"), id="recreate"),
        pytest.param(
            {"allow": ["shrink", "in_use"]}, VolumeGoal(Volume("v"), allow=frozenset({"shrink", "in_use"})), id="allow"
        ),
        pytest.param({"allow": []}, VolumeGoal(Volume("v")), id="allow-nothing"),
    ],
)
def test_the_rest_of_a_goal(params, expected):
    assert goal(name="v", **params) == VolumesGoal("p", (expected,))


# -- entries ------------------------------------------------------------------------------------------------------

TASK = {
    "capacity": "1M",
    "capacity_policy": "at_least",
    "allocation": "1K",
    "format": "qcow2",
    "owner": "1",
    "group": "2",
    "mode": "0640",
    "backing": "base",
    "options": {"compat": "1.1"},
    "state": "present",
    "recreate": "needed",
    "allow": ["shrink"],
}
ENTRIES = {
    "capacity": "2M",
    "capacity_policy": "exact",
    "allocation": "2K",
    "format": "raw",
    "owner": "3",
    "group": "0",
    "mode": 0,
    "backing": {"path": "/b", "format": "raw"},
    "options": {"cluster_size": "4096"},
    "state": "absent",
    "recreate": "never",
    "allow": ["in_use"],
}


def test_an_entry_inherits_every_option():
    inherited = goal(volumes=[{"name": "v"}], **TASK)
    assert inherited.volumes == goal(name="v", **TASK).volumes


@pytest.mark.parametrize("option", TASK)
def test_what_an_entry_says_replaces_what_the_task_says(option):
    overriding = goal(volumes=[{"name": "v", option: ENTRIES[option]}], **TASK)
    assert overriding.volumes == goal(name="v", **{**TASK, option: ENTRIES[option]}).volumes
    assert overriding.volumes != goal(name="v", **TASK).volumes


def test_the_source_is_inherited_and_replaced():
    made = goal(
        volumes=[{"name": "a"}, {"name": "b", "source": {"content": "x"}}], source={"path": "/s", "format": "raw"}
    )
    assert [entry.volume.content for entry in made.volumes] == [Content("/s", None, "raw"), Content(data=b"x")]


def test_dicts_replace_and_do_not_merge():
    made = goal(
        volumes=[{"name": "v", "options": {"lazy_refcounts": True}, "backing": {"volume": "c"}}],
        options={"compat": "0.10", "cluster_size": "4096"},
        backing={"volume": "b", "format": "raw"},
    )
    assert made.volumes[0].volume == Volume("v", lazy_refcounts=True, backing=Backing(volume="c"))


def test_an_empty_dict_replaces_too():
    made = goal(volumes=[{"name": "v", "options": {}}], options={"compat": "0.10"})
    assert made.volumes[0].volume == Volume("v")


def test_an_entry_may_be_xml():
    made = goal(volumes=[{"xml": XML}, {"name": "w", "capacity": "1M"}], mode=None)
    assert [entry.volume.name for entry in made.volumes] == ["v", "w"]
    assert made.volumes[0].volume.capacity == 2**20


def test_the_order_of_entries_is_kept():
    made = goal(volumes=[{"name": name} for name in "cab"])
    assert [entry.volume.name for entry in made.volumes] == ["c", "a", "b"]


def test_an_empty_list_declares_nothing():
    assert goal(volumes=[]) == VolumesGoal("p")


def test_an_account_is_looked_up_once():
    asked = []

    def looked_up(value):
        asked.append(value)
        return account(value)

    goal(looked_up, account, volumes=[{"name": f"v{i}"} for i in range(20)], owner="5")
    assert asked == ["5"]


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "code"),
    [
        pytest.param({}, "missing_option", id="nothing-named"),
        pytest.param({"name": "v", "volumes": []}, "invalid_option", id="name-and-volumes"),
        pytest.param({"xml": XML, "volumes": [{"name": "w"}]}, "invalid_option", id="xml-and-volumes"),
        pytest.param({"volumes": [{}]}, "missing_option", id="entry-without-name"),
        pytest.param({"volumes": [{"name": "v"}, {"name": "v"}]}, "duplicate_volume", id="duplicate"),
        pytest.param({"volumes": [{"name": "v"}, {"xml": XML}]}, "duplicate_volume", id="duplicate-in-xml"),
        pytest.param(
            {"volumes": [{"name": "v"}, {"name": "v", "state": "absent"}]}, "duplicate_volume", id="duplicate-states"
        ),
        pytest.param({"exclusive": "vm*"}, "invalid_option", id="exclusive-alone"),
        pytest.param({"volumes": [], "exclusive": "vm*"}, "invalid_option", id="exclusive-and-empty-list"),
        pytest.param({"pool": "a/b", "name": "v"}, "invalid_name", id="pool-name"),
        pytest.param({"name": "../v"}, "invalid_name", id="name"),
        pytest.param({"name": ""}, "invalid_name", id="empty-name"),
        pytest.param({"name": ".virt-storage"}, "invalid_name", id="reserved-name"),
        pytest.param({"volumes": [{"name": "good"}, {"name": "-bad"}]}, "invalid_name", id="name-in-entry"),
        pytest.param({"name": "v", "capacity": "1X"}, "invalid_size", id="capacity"),
        pytest.param({"name": "v", "capacity": "-1"}, "invalid_size", id="capacity-negative"),
        pytest.param({"name": "v", "capacity": ""}, "invalid_size", id="capacity-empty"),
        pytest.param({"name": "v", "capacity": "9E"}, "capacity_too_large", id="capacity-large"),
        pytest.param({"name": "v", "allocation": "x"}, "invalid_size", id="allocation"),
        pytest.param({"name": "v", "options": {"cluster_size": "64X"}}, "invalid_size", id="cluster-size"),
        pytest.param({"name": "v", "mode": "8"}, "invalid_mode", id="mode"),
        pytest.param({"name": "v", "format": "ext4"}, "format_unsupported", id="format"),
        pytest.param({"name": "v", "format": ""}, "format_unsupported", id="format-empty"),
        pytest.param({"volumes": [{"name": "v"}], "format": "gpt"}, "format_unsupported", id="format-inherited"),
        pytest.param({"name": "v", "backing": ""}, "invalid_name", id="backing-empty"),
        pytest.param({"name": "v", "backing": "a/b"}, "invalid_path", id="backing-relative"),
        pytest.param({"name": "v", "backing": "../b"}, "invalid_path", id="backing-climbs"),
        pytest.param({"name": "v", "backing": ".."}, "invalid_name", id="backing-parent"),
        pytest.param({"name": "v", "backing": "/b\n"}, "invalid_path", id="backing-newline"),
        pytest.param({"name": "v", "backing": "json:{}"}, None, id="backing-colon-is-a-name"),
        pytest.param({"name": "v", "backing": "nbd://host/x"}, "invalid_path", id="backing-url"),
        pytest.param({"name": "v", "backing": {}}, "invalid_option", id="backing-nothing"),
        pytest.param({"name": "v", "backing": {"format": "raw"}}, "invalid_option", id="backing-format-only"),
        pytest.param({"name": "v", "backing": {"path": "/b", "volume": "b"}}, "invalid_option", id="backing-two"),
        pytest.param({"name": "v", "backing": {"volume": "b", "x": 1}}, "invalid_option", id="backing-strange"),
        pytest.param({"name": "v", "backing": {"volume": "a/b"}}, "invalid_name", id="backing-volume-name"),
        pytest.param({"name": "v", "backing": 5}, "invalid_option", id="backing-number"),
        pytest.param({"name": "v", "backing": ["b"]}, "invalid_option", id="backing-list"),
        pytest.param({"name": "v", "backing": True}, "invalid_option", id="backing-bool"),
        pytest.param({"name": "v", "source": {}}, "invalid_option", id="source-nothing"),
        pytest.param({"name": "v", "source": {"format": "raw"}}, "invalid_option", id="source-format-only"),
        pytest.param({"name": "v", "source": {"path": "/a", "volume": "b"}}, "invalid_option", id="source-two"),
        pytest.param({"name": "v", "source": {"path": "a"}}, "invalid_path", id="source-relative"),
        pytest.param({"name": "v", "source": {"path": "http://h/x"}}, "invalid_path", id="source-url"),
        pytest.param({"name": "v", "source": {"volume": "-b"}}, "invalid_name", id="source-volume-name"),
        pytest.param({"name": "v", "source": {"content": "", "path": "/a"}}, "invalid_option", id="content-path"),
        pytest.param({"name": "v", "source": {"content": "x", "volume": "b"}}, "invalid_option", id="content-volume"),
        pytest.param({"name": "v", "source": {"content": "x", "format": "raw"}}, "invalid_option", id="content-format"),
        pytest.param({"xml": "<volume/>"}, "invalid_xml", id="xml-without-name"),
        pytest.param({"xml": XML.replace(">v<", ">a/b<")}, "invalid_name", id="xml-name"),
        pytest.param({"xml": XML, "name": "w"}, "invalid_option", id="xml-other-name"),
        pytest.param({"xml": XML, "capacity_policy": "at_least"}, "invalid_option", id="xml-and-policy"),
    ],
)
def test_refusals(params, code):
    if code is None:
        assert goal(**params)
    else:
        assert refused(**params).code == code


@pytest.mark.parametrize("option", ["capacity", "allocation", "format", "owner", "group", "mode", "backing", "options"])
def test_xml_excludes_what_it_says_itself(option):
    error = refused(xml=XML, **{option: TASK[option]})
    assert error.code == "invalid_option"
    assert option in error.message


def test_a_volume_from_xml():
    made = goal(xml=XML, recreate="needed").volumes[0]
    assert (made.volume.name, made.volume.capacity, made.volume.format, made.recreate) == (
        "v",
        2**20,
        "qcow2",
        "needed",
    )
    assert goal(xml=XML, name="v").volumes[0].volume == made.volume


def test_an_encrypted_raw_volume_is_looked_into():
    """What is declared raw is taken as that; what is encrypted has a header."""
    xml = XML.replace("qcow2", "raw").replace("</target>", "<encryption format='luks'/></target>")
    made = goal(xml=xml)
    assert made.volumes[0].volume.encryption.format == "luks"
    assert volumes_scope(made).raw == frozenset()
    assert volumes_scope(goal(xml=XML.replace("qcow2", "raw"))).raw == {"v"}


# -- how far to look ----------------------------------------------------------------------------------------------


def test_only_what_is_named_is_looked_at():
    made = goal(
        volumes=[
            {"name": "a", "backing": "base"},
            {"name": "b", "backing": {"path": "/img/b"}},
            {"name": "c", "source": {"volume": "w"}},
            {"name": "d", "source": {"path": "/src"}},
            {"name": "e", "source": {"content": "12345"}},
            {"name": "gone", "state": "absent", "backing": "unasked", "source": {"path": "/unasked"}},
        ]
    )
    scope = volumes_scope(made)
    assert scope.pool.name == "p"
    assert scope.volumes == ("a", "b", "c", "d", "e", "gone")
    assert scope.images == ("/img/b", "base")
    assert scope.sources == ("/src", "w")
    assert scope.contents == (("e", 5),)
    assert not scope.neighbours
    assert not scope.holds


def test_exclusive_looks_at_all():
    assert volumes_scope(goal(volumes=[{"name": "a"}], exclusive="a*")).volumes is None


# -- what is hardly meant -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"capacity": "10"}, "capacity is 10 bytes: did you mean 10G"),
        ({"capacity": 10}, "capacity is 10 bytes: did you mean 10G"),
        ({"capacity": " 1048575 "}, "did you mean 1048575G"),
        ({"capacity": "1G", "allocation": "1"}, "allocation is 1 bytes"),
    ],
)
def test_a_plain_number_that_is_hardly_one_of_bytes(params, told):
    (doubt,) = goal(name="v", **params).doubts
    assert doubt.startswith("volume p/v: ")
    assert told in doubt


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"capacity": "10B"},
        {"capacity": "10 bytes"},
        {"capacity": "1K"},
        {"capacity": "1048576"},
        {"capacity": "0"},
        {"capacity": "1G", "allocation": "0"},
        {"capacity": "10", "state": "absent"},
        {"capacity": "1G", "options": {"cluster_size": "65536"}},
    ],
)
def test_sizes_that_may_be_meant(params):
    assert goal(name="v", **params).doubts == ()


def test_volumes_of_one_size_are_doubted_once():
    (doubt,) = goal(capacity="10", volumes=[{"name": "a"}, {"name": "b"}, {"name": "c", "capacity": "10G"}]).doubts
    assert doubt.startswith("volume p/a and 1 more: ")


@pytest.mark.parametrize(
    ("volumes", "doubted"),
    [
        ([{"name": "vm1"}], False),
        ([{"name": "other"}, {"name": "vm1"}], False),
        ([{"name": "other"}], True),
        ([{"name": "other"}, {"name": "vm1", "state": "absent"}], True),
    ],
)
def test_a_pattern_for_none_of_the_volumes_to_keep(volumes, doubted):
    assert bool(goal(exclusive="vm*", volumes=volumes).doubts) == doubted


@pytest.mark.parametrize(
    ("params", "option"),
    [
        ({"backing": ""}, "backing"),
        ({"backing": {"volume": ""}}, "backing"),
        ({"source": {"volume": ""}}, "source"),
        ({"options": {"thin_pool": ""}}, "options.thin_pool"),
    ],
)
def test_an_empty_name_in_an_option_is_told_with_volume_and_option(params, option):
    error = refused(name="v", **params)
    assert (error.code, error.subject) == ("invalid_name", "volume p/v")
    assert error.message.startswith(f"{option}: ")


@pytest.mark.parametrize("name", ["raw", "qcow2", "thin-pool", "none", "linux", "fat16", "linux-raid", "extended"])
def test_formats_of_any_type_of_pool(name):
    assert volume(format=name).format == name


def test_what_to_write_for_a_format():
    error = refused(name="v", format="ext4")
    assert error.message == "format: 'ext4' is no format of a volume"
    assert "raw or qcow2 for an image" in error.hint
    assert "none, linux, fat16, fat32, linux-swap, linux-lvm, linux-raid, extended (linux for ext4" in error.hint
