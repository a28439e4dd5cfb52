# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What qemu-img is told, word by word; and that the real one accepts and refuses what we say it does."""

from __future__ import annotations

import itertools
import json

import pytest

from ansible_collections.virt.storage.plugins.module_utils.images import qemu_img as arguments
from ansible_collections.virt.storage.plugins.module_utils.model import qcow2
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Backing, Volume

MIB = 2**20


def volume(**fields):
    return Volume(**{"name": "v", "format": "qcow2", "capacity": MIB, **fields})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (arguments.create(volume(), "/p/v"), "create -q -f qcow2 -o compat=1.1 /p/v 1048576"),
        (
            arguments.create(volume(backing=Backing("/p/base", "raw"), capacity=None), "/p/v"),
            "create -q -f qcow2 -b /p/base -F raw -o compat=1.1 /p/v",
        ),
        (
            arguments.create(volume(backing=Backing("/p/b,c", "ploop"), compat="0.10"), "/p/v"),
            "create -q -f qcow2 -b /p/b,c -F parallels -o compat=0.10 /p/v 1048576",
        ),
        (
            arguments.create(
                volume(cluster_size=32768, lazy_refcounts=True, extended_l2=True, preallocation="falloc", nocow=True),
                "/p/-v",
            ),
            "create -q -f qcow2 -o compat=1.1,cluster_size=32768,lazy_refcounts=on,extended_l2=on,"
            "preallocation=falloc,nocow=on /p/-v 1048576",
        ),
        (
            arguments.create(volume(lazy_refcounts=False, extended_l2=False, preallocation="off", nocow=False), "/p/v"),
            "create -q -f qcow2 -o compat=1.1 /p/v 1048576",
        ),
        (arguments.create(volume(format="raw"), "/p/v"), "create -q -f raw /p/v 1048576"),
        (arguments.create(volume(format="raw", nocow=True), "/p/v"), "create -q -f raw -o nocow=on /p/v 1048576"),
        (arguments.resize("/p/v", "qcow2", 5), "resize -q -f qcow2 /p/v 5"),
        (arguments.resize("/p/v", "qcow2", 5, shrink=True), "resize -q -f qcow2 --shrink /p/v 5"),
        (arguments.amend("/p/v", compat="1.1"), "amend -q -f qcow2 -o compat=1.1 /p/v"),
        (
            arguments.amend("/p/v", compat="0.10", lazy_refcounts=False),
            "amend -q -f qcow2 -o compat=0.10,lazy_refcounts=off /p/v",
        ),
        (arguments.amend("/p/v", lazy_refcounts=True), "amend -q -f qcow2 -o lazy_refcounts=on /p/v"),
        (arguments.rebase("/p/v", "/p/new", "qcow2"), "rebase -q -f qcow2 -b /p/new -F qcow2 /p/v"),
    ],
)
def test_arguments(argv, expected):
    assert argv == ("qemu-img", *expected.split(" "))


def test_a_comma_in_an_option_is_doubled():
    assert arguments.create(volume(compat="1,1"), "/p/v")[6] == "compat=1,,1"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: arguments.create(volume(), path),
        lambda path: arguments.create(volume(backing=Backing(path, "raw")), "/p/v"),
        lambda path: arguments.convert(path, "raw", volume(), "/p/v"),
        lambda path: arguments.convert("/s", "raw", volume(), path),
        lambda path: arguments.resize(path, "raw", 1),
        lambda path: arguments.amend(path, compat="1.1"),
        lambda path: arguments.rebase(path, "/b", "raw"),
        lambda path: arguments.rebase("/v", path, "raw"),
    ],
)
@pytest.mark.parametrize("path", ["-v", "v", "nbd://h/v", "json:{}", "", None])
def test_only_absolute_paths(make, path):
    with pytest.raises(ValueError, match="not an absolute path"):
        make(path)


@pytest.mark.parametrize("name", [None, ""])
def test_no_format_is_ever_left_to_probing(name):
    for make in (
        lambda: arguments.create(volume(format=name), "/v"),
        lambda: arguments.create(volume(backing=Backing("/b", name)), "/v"),
        lambda: arguments.convert("/s", name, volume(), "/v"),
        lambda: arguments.resize("/v", name, 1),
        lambda: arguments.rebase("/v", "/b", name),
    ):
        with pytest.raises(ValueError, match="format is not known"):
            make()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, ""),
        ({"compat": "0.10"}, ""),
        ({"compat": "1.0"}, "compat is 1.0, and can be 0.10 or 1.1"),
        ({"cluster_size": 512}, ""),
        ({"cluster_size": 2**21}, ""),
        ({"cluster_size": 0}, "power of two"),
        ({"cluster_size": 256}, "power of two"),
        ({"cluster_size": 1000}, "power of two"),
        ({"cluster_size": 2**22}, "power of two"),
        ({"cluster_size": -512}, "power of two"),
        ({"lazy_refcounts": True}, ""),
        ({"lazy_refcounts": False, "compat": "0.10"}, ""),
        ({"lazy_refcounts": True, "compat": "0.10"}, "lazy_refcounts needs compat 1.1"),
        ({"extended_l2": True}, ""),
        ({"extended_l2": True, "compat": "0.10"}, "extended_l2 needs compat 1.1"),
        ({"extended_l2": True, "cluster_size": 16384}, ""),
        ({"extended_l2": True, "cluster_size": 8192}, "at least 16 KiB, not 8 KiB"),
        ({"preallocation": "full"}, ""),
        ({"preallocation": "some"}, "preallocation is some"),
        ({"preallocation": "off", "backing": Backing("/b", "raw")}, ""),
        ({"preallocation": "metadata", "backing": Backing("/b", "raw")}, "needs extended_l2"),
        ({"preallocation": "full", "backing": Backing("/b", "raw"), "extended_l2": True}, ""),
    ],
)
def test_qcow2_problem(fields, problem):
    said = qcow2.qcow2_problem(volume(**fields))
    assert problem in said if problem else said == ""


@pytest.mark.parametrize(
    ("cluster_size", "extended_l2", "limit"),
    [
        (None, None, 2**51), (512, False, 2**37), (2**21, False, 2**61), (2**21, True, 2**60), (16384, True, 2**46),
    ],
)  # fmt: skip
def test_qcow2_limit(cluster_size, extended_l2, limit):
    assert qcow2.qcow2_limit(cluster_size, extended_l2) == limit


@pytest.mark.parametrize(("said", "driver"), [("vmdk", "vmdk"), ("iso", "raw"), ("qcow2", "qcow2")])
def test_a_source_is_opened_without_its_backing_file(said, driver):
    *command, source, target = arguments.convert("/s,1", said, volume(), "/p/v")
    assert command == ["qemu-img", "convert", "-q", "-O", "qcow2", "-o", "compat=1.1"]
    assert target == "/p/v"
    node = json.loads(source[len("json:") :])
    assert node.pop("backing", "left out") == (None if said == "qcow2" else "left out")
    assert node == {"driver": driver, "file": {"driver": "file", "filename": "/s,1"}}


# Beside the real one.


@pytest.mark.parametrize(("cluster_size", "extended"), [(512, False), (16384, True), (2**21, True)])
@pytest.mark.parametrize("more", [0, 512])
def test_qcow2_limit_is_that_of_qemu_img(qemu_img, tmp_path, cluster_size, extended, more):
    limit = qcow2.qcow2_limit(cluster_size, extended)
    wanted = volume(cluster_size=cluster_size, extended_l2=extended, capacity=limit + more)
    done = qemu_img.run(*arguments.create(wanted, f"{tmp_path}/v"))
    assert (done.returncode == 0) == (more == 0), done.stderr


def test_qemu_img_refuses_exactly_what_we_do(qemu_img, tmp_path):
    qemu_img.make("create", "-q", "-f", "raw", tmp_path / "base", MIB)
    made = refused = 0
    values = ((None, "0.10", "1.2"), (None, 1000, 8192, 16384), (None, True), (None, True), (None, "metadata", "some"))
    for compat, cluster_size, lazy, extended, preallocation, backed in itertools.product(*values, (False, True)):
        wanted = volume(
            compat=compat,
            cluster_size=cluster_size,
            lazy_refcounts=lazy,
            extended_l2=extended,
            preallocation=preallocation,
            backing=Backing(f"{tmp_path}/base", "raw") if backed else None,
        )
        done = qemu_img.run(*arguments.create(wanted, f"{tmp_path}/v"))
        assert (done.returncode == 0) == (qcow2.qcow2_problem(wanted) == ""), (wanted, done.stderr)
        made += done.returncode == 0
        refused += done.returncode != 0
    assert made >= 20
    assert refused >= 20


def test_the_life_of_an_image(qemu_img, tmp_path):
    """Each command does to a file, with a comma and a dash in its name, what it says."""
    base, top, copy = f"{tmp_path}/-b,ase", f"{tmp_path}/-t,op", f"{tmp_path}/-c,opy"
    for argv in (
        arguments.create(volume(), base),
        arguments.create(volume(backing=Backing(base, "qcow2"), capacity=None, compat="0.10"), top),
        arguments.resize(top, "qcow2", 3 * MIB),
        arguments.resize(top, "qcow2", 2 * MIB, shrink=True),
        arguments.amend(top, compat="1.1", lazy_refcounts=True),
        arguments.convert(base, "qcow2", volume(format="raw", capacity=None), copy),
        arguments.rebase(top, copy, "raw"),
    ):
        qemu_img.make(*argv)
    told = qemu_img.info(top, "qcow2")
    assert told["virtual-size"] == 2 * MIB
    assert (told["backing-filename"], told["backing-filename-format"]) == (copy, "raw")
    assert told["format-specific"]["data"]["compat"] == "1.1"
    assert told["format-specific"]["data"]["lazy-refcounts"]
    assert qemu_img.info(copy, "raw")["virtual-size"] == MIB
    assert qemu_img.run(*arguments.resize(top, "qcow2", MIB)).returncode != 0
