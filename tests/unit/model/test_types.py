# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of types agrees with the nouns and with itself; what qcow2 can hold."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.model import qcow2
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Permissions, Pool, Source
from ansible_collections.virt.storage.plugins.module_utils.model.types import (
    ALWAYS_OPTIONAL,
    FILE_FORMATS,
    POOL_TYPES,
    VOLUME_FORMATS,
    spoken,
)
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Volume

SOURCE = {field.name for field in fields(Source)}
POOL = {field.name for field in fields(Pool)}
PERMISSIONS = {field.name for field in fields(Permissions)}
VOLUME = {field.name for field in fields(Volume)}
ROWS = pytest.mark.parametrize("row", POOL_TYPES.values(), ids=lambda row: row.name)


def test_the_types_are_libvirts():
    assert set(POOL_TYPES) == {
        "dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "sheepdog", "gluster",
        "zfs", "vstorage",
    }  # fmt: skip


@ROWS
def test_a_row_is_found_by_its_name(row):
    assert POOL_TYPES[row.name] is row


@ROWS
def test_source_fields_are_fields_of_a_source(row):
    assert set(row.required) <= SOURCE
    assert set(row.optional) <= SOURCE
    assert not set(row.required) & set(row.optional)
    assert not {*row.required, *row.optional} & set(ALWAYS_OPTIONAL)


def test_what_is_always_optional_is_a_field_of_a_source():
    assert set(ALWAYS_OPTIONAL) <= SOURCE


@ROWS
def test_formats(row):
    assert (row.default_format is None) == (not row.formats)
    assert row.default_format is None or row.default_format in row.formats
    assert ("format" in row.optional) == bool(row.formats)
    assert len(set(row.formats)) == len(row.formats)


@ROWS
def test_volume_formats(row):
    assert len(set(row.volume_formats)) == len(row.volume_formats)


@ROWS
def test_what_may_change_are_fields(row):
    known = POOL | {f"source.{name}" for name in SOURCE} | {"source.adapter.managed"}
    assert set(row.live) <= known
    assert set(row.restart) <= known
    assert "type" not in row.live + row.restart
    assert "source.name" not in row.live + row.restart
    assert not set(row.live) & set(row.restart)
    assert set(row.features) <= POOL


@ROWS
def test_where_the_path_comes_from(row):
    assert row.target in ("declared", "none") or row.target.startswith("/dev/")
    assert "{" not in row.target or "name" in row.required
    assert not row.named_by_source or "name" in row.required
    assert not row.named_by_pool or row.named_by_source
    assert row.default_dir is None or "dir" in row.optional


@ROWS
def test_what_can_be_done_with_it(row):
    assert row.active
    assert row.volumes in ("file", "block", "network")
    assert {*row.daemon, *row.native} <= {"build", "delete", "create", "clone", "remove", "resize"}
    assert row.file_tree <= (row.volumes == "file")
    assert row.granule >= 1
    assert row.snapshots <= (row.volumes == "block")
    assert row.partitions <= (row.volumes == "block")


@ROWS
def test_what_the_source_is(row):
    known = {*row.required, *row.optional}
    assert set(row.one_of or ()) <= known
    assert set(row.sources) <= known or row.one_of == ()  # its only pool has all of them
    assert bool(row.protocols or row.port) == ("hosts" in row.required and bool(row.sources))
    assert not (row.protocols and row.port)
    assert row.daemon_finds <= bool(row.sources)
    assert row.device_paths <= row.on_devices
    assert row.on_devices <= ("devices" in known)
    assert not row.formats or not row.login or row.login in row.formats
    assert not row.builds or row.builds in row.formats
    assert bool(row.group) == (row.on_devices and "name" in known)
    assert not row.unlisted[0] or all((*row.unlisted, row.group))


def test_volume_formats_are_known_to_file_trees():
    assert set(VOLUME_FORMATS) <= set(FILE_FORMATS)


@pytest.mark.parametrize("row", VOLUME_FORMATS.values(), ids=lambda row: row.name)
def test_a_volume_format(row):
    assert VOLUME_FORMATS[row.name] is row
    assert row.granule >= 1
    assert row.granule & (row.granule - 1) == 0
    assert set(row.options) <= VOLUME
    assert set(row.in_place) <= VOLUME | PERMISSIONS


# -- qcow2 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "extended", "limit"),
    [
        pytest.param(None, None, 2**51, id="default"),  # 2 PiB: docs/interop/qcow2.txt, block/qcow2.h
        pytest.param(65536, False, 2**51, id="the-default-said"),
        pytest.param(512, None, 128 * 2**30, id="smallest-clusters"),
        pytest.param(2**21, None, 2**61, id="largest-clusters"),
        pytest.param(65536, True, 2**50, id="subclusters-take-half"),
    ],
)
def test_the_largest_qcow2(cluster, extended, limit):
    assert qcow2.qcow2_limit(cluster, extended) == limit


def image(**options):
    return Volume("v", format="qcow2", **options)


@pytest.mark.parametrize(
    "volume",
    [
        pytest.param(image(), id="nothing-said"),
        pytest.param(image(compat="0.10"), id="old"),
        pytest.param(image(compat="0.10", lazy_refcounts=False, extended_l2=False), id="old-without"),
        pytest.param(image(compat="1.1", lazy_refcounts=True), id="lazy"),
        pytest.param(image(lazy_refcounts=True), id="lazy-by-default-compat"),
        pytest.param(image(cluster_size=512), id="smallest-clusters"),
        pytest.param(image(cluster_size=2**21), id="largest-clusters"),
        pytest.param(image(cluster_size=16384, extended_l2=True), id="smallest-subclusters"),
        pytest.param(image(preallocation="full"), id="full"),
        pytest.param(image(preallocation="off", backing=Backing("/b")), id="off-with-backing"),
        pytest.param(image(preallocation="falloc", backing=Backing("/b"), extended_l2=True), id="falloc-with-backing"),
    ],
)
def test_what_qcow2_can_be(volume):
    assert qcow2.qcow2_problem(volume) == ""


@pytest.mark.parametrize(
    ("volume", "word"),
    [
        pytest.param(image(compat="2"), "compat", id="compat"),
        pytest.param(image(compat="0.10", lazy_refcounts=True), "lazy_refcounts", id="lazy-in-old"),
        pytest.param(image(compat="0.10", extended_l2=True), "extended_l2", id="subclusters-in-old"),
        pytest.param(image(cluster_size=0), "cluster_size", id="cluster-0"),
        pytest.param(image(cluster_size=256), "cluster_size", id="cluster-256"),
        pytest.param(image(cluster_size=2**22), "cluster_size", id="cluster-4M"),
        pytest.param(image(cluster_size=65537), "cluster_size", id="cluster-odd"),
        pytest.param(image(cluster_size=768), "cluster_size", id="cluster-768"),
        pytest.param(image(cluster_size=8192, extended_l2=True), "extended_l2", id="subclusters-too-small"),
        pytest.param(image(preallocation="some"), "preallocation", id="preallocation"),
        pytest.param(image(preallocation="full", backing=Backing("/b")), "preallocation", id="full-with-backing"),
        pytest.param(
            image(preallocation="metadata", backing=Backing("/b")), "preallocation", id="metadata-with-backing"
        ),
    ],
)
def test_what_qcow2_can_not_be(volume, word):
    assert word in qcow2.qcow2_problem(volume)


@given(st.integers(-1, 2**23))
def test_cluster_sizes(size):
    possible = size in [2**bits for bits in range(9, 22)]
    assert (qcow2.qcow2_problem(image(cluster_size=size)) == "") == possible


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("dos", "a dos partition table"),
        ("gpt and ext4", "a gpt partition table and an ext4 filesystem"),
        ("xfs", "an xfs filesystem"),
        ("btrfs", "a btrfs filesystem"),
        ("LVM2_member", "LVM2_member"),
        ("data without a signature", "data without a signature"),
        ("", ""),
    ],
)
def test_what_a_device_holds_in_words(content, words):
    assert spoken(content) == words
