# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chains of backing files: followed to the end, and every other end is data."""

from __future__ import annotations

import os

import pytest

from ansible_collections.virt.storage.plugins.module_utils.images.headers import (
    BackingTarget,
    ImageHeader,
    chain,
    open_header,
    resolve_backing,
)


@pytest.mark.parametrize(
    ("backing", "target"),
    [
        ("/p/base", BackingTarget("file", "/p/base")),
        ("base", BackingTarget("file", "/d/r/base")),
        ("../base", BackingTarget("file", "/d/r/../base")),
        ("./a:b", BackingTarget("file", "/d/r/./a:b")),
        ("a/b:c", BackingTarget("file", "/d/r/a/b:c")),
        ("/a:b", BackingTarget("file", "/a:b")),
        ("-f", BackingTarget("file", "/d/r/-f")),
        ("a:b", BackingTarget("protocol")),
        ("file:/etc/shadow", BackingTarget("protocol")),
        ("nbd://h/x", BackingTarget("protocol")),
        ("fat:rw:/etc", BackingTarget("protocol")),
        (":", BackingTarget("protocol")),
        ('json:{"file": {"filename": "/etc/shadow"}}', BackingTarget("json")),
        ("json:", BackingTarget("json")),
    ],
)
def test_resolve_backing(backing, target):
    assert resolve_backing("/d/r/image", backing) == target


class Files:
    """Stands in for open_header: a table of path to (header, identity), or an error to raise."""

    def __init__(self, **files):
        self.files = {"/" + name: value for name, value in files.items()}
        self.asked = []

    def __call__(self, path, declared):
        self.asked.append((path, declared))
        value = self.files.get(path, FileNotFoundError(2, "No such file", path))
        if isinstance(value, Exception):
            raise value
        if declared == "raw":
            return ImageHeader("raw", 1), (1, hash(path))
        return value, (1, hash(path))


def image(backing=None, backing_format=None, own="qcow2", **more):
    return ImageHeader(own, 1, backing, backing_format, **more)


RAW = ImageHeader("raw", 1)


def test_whole_chain():
    files = Files(a=image("b", "qcow2"), b=image("/c", "raw"), c=RAW)
    found = chain("/a", files)
    assert [(member.path, member.probed, member.header.format) for member in found.members] == [
        ("/a", True, "qcow2"),
        ("/b", False, "qcow2"),
        ("/c", False, "raw"),
    ]
    assert (found.end, found.at, found.problem, found.probed) == ("whole", "", "", ())
    assert found.identities == ((1, hash("/a")), (1, hash("/b")), (1, hash("/c")))
    assert files.asked == [("/a", None), ("/b", "qcow2"), ("/c", "raw")]
    assert not chain("/a", files, declared="qcow2").members[0].probed


def test_a_format_that_no_header_declares_is_marked():
    found = chain("/a", Files(a=image("/b"), b=image("/c", "raw"), c=RAW), declared="qcow2")
    assert [member.probed for member in found.members] == [False, True, False]
    assert (found.end, found.probed) == ("whole", ("/b",))


def test_what_is_declared_raw_leads_nowhere():
    """A guest may have written a header with a backing file into its raw disk."""
    files = Files(a=image("/b", "raw"), b=image("/secret", "raw"), secret=RAW)
    assert [member.path for member in chain("/a", files).members] == ["/a", "/b"]
    files.asked.clear()
    assert [member.path for member in chain("/b", files, declared="raw").members] == ["/b"]
    assert files.asked == [("/b", "raw")]


@pytest.mark.parametrize("name", ["file", "host_device"])
def test_other_names_for_raw(name):
    files = Files(a=image("/b", name), b=image("/secret"))
    assert (chain("/a", files).end, files.asked[-1]) == ("whole", ("/b", "raw"))


@pytest.mark.parametrize(
    ("declared", "header", "end"),
    [
        ("qcow2", RAW, "mismatch"),
        ("qcow2", image(own="vmdk"), "mismatch"),
        ("dmg", image(), "mismatch"),
        ("parallels", image(own="ploop"), "whole"),
        ("vpc", RAW, "whole"),
        ("vpc", image(own="vpc"), "whole"),
        ("luks", RAW, "whole"),
        ("vmdk", image(own="vmdk"), "whole"),
    ],
)
def test_a_file_is_what_its_parent_says(declared, header, end):
    found = chain("/a", Files(a=image("/b", declared), b=header))
    assert (found.end, len(found.members)) == (end, 2)
    assert ("/b" in found.problem) == (end == "mismatch")


@pytest.mark.parametrize(
    ("files", "end", "at", "members"),
    [
        ({}, "missing", "/a", 0),
        ({"a": image("/b", "raw")}, "missing", "/b", 1),
        ({"a": image("/b", "raw"), "b": NotADirectoryError(20, "Not a directory")}, "missing", "/b", 1),
        ({"a": image("/b", "raw"), "b": PermissionError(13, "Permission denied")}, "unreadable", "/b", 1),
        ({"a": image("/b", "raw"), "b": OSError(40, "Too many levels of symbolic links")}, "unreadable", "/b", 1),
        ({"a": image("/b", "raw"), "b": ValueError("embedded null byte")}, "unreadable", "/b", 1),
        ({"a": image("json:{}", "raw")}, "json", "json:{}", 1),
        ({"a": image("nbd:x", "raw")}, "protocol", "nbd:x", 1),
        ({"a": image("/a", "qcow2")}, "loop", "/a", 1),
        ({"a": image("/b", "qcow2"), "b": image("a", "qcow2")}, "loop", "/a", 2),
        ({"a": image("/b", "qcow2"), "b": image("/c", problem="odd")}, "malformed", "/b", 2),
    ],
)
def test_ends(files, end, at, members):
    found = chain("/a", Files(**files))
    assert (found.end, found.at, len(found.members)) == (end, at, members)
    assert at in found.problem


def test_depth_is_limited():
    def endless(path, declared):
        return image(path + "x", "qcow2"), (1, len(path))

    found = chain("/a", endless)
    assert (found.end, len(found.members)) == ("too_deep", 64)
    assert len(chain("/a", endless, limit=3).members) == 3


def test_a_chain_of_just_the_limit_is_whole():
    files = Files(a=image("/b", "qcow2"), b=image())
    assert chain("/a", files, limit=2).end == "whole"


# On real files.


def test_real_chain_with_relative_names_and_links(qemu_img, tmp_path):
    (tmp_path / "sub").mkdir()
    qemu_img.make("create", "-q", "-f", "raw", tmp_path / "base", "1M")
    qemu_img.make("create", "-q", "-f", "qcow2", "-b", "../base", "-F", "raw", tmp_path / "sub" / "middle")
    qemu_img.make("create", "-q", "-f", "qcow2", "-b", "sub/middle", "-F", "qcow2", tmp_path / "top")
    found = chain(str(tmp_path / "top"))
    assert found.end == "whole"
    assert [os.path.realpath(member.path) for member in found.members] == [
        str(tmp_path / name) for name in ("top", "sub/middle", "base")
    ]
    os.symlink("sub/middle", tmp_path / "link")
    # The name in the header starts from the directory of the link: outside of everything.
    assert (chain(str(tmp_path / "link")).end, chain(str(tmp_path / "sub/middle")).end) == ("missing", "whole")


def test_real_loop_through_a_hard_link(qemu_img, tmp_path):
    for name, backing in (("a", "b"), ("b", "a")):
        qemu_img.make("create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", tmp_path / name, "1M")
    os.unlink(tmp_path / "b")
    os.link(tmp_path / "a", tmp_path / "b")
    found = chain(str(tmp_path / "a"), open_header)
    assert (found.end, found.at, len(found.members)) == ("loop", str(tmp_path / "b"), 1)


def test_real_backing_that_is_no_file(qemu_img, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, backing, end in (
        ("a", "fifo", "unreadable"),
        ("b", ".", "unreadable"),
        ("c", "none", "missing"),
        ("d", "n" * 900, "unreadable"),
        ("e", "fifo/x", "missing"),
    ):
        qemu_img.make("create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", tmp_path / name, "1M")
        assert chain(str(tmp_path / name)).end == end
