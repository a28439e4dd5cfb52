# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools that were emptied, to be deleted."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends.filesystems import by_signature
from ansible_collections.virt.storage.plugins.module_utils.engines import local
from ansible_collections.virt.storage.plugins.module_utils.engines.native import NativeEngine
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.host import contents
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.notes import boot
from ansible_collections.virt.storage.plugins.module_utils.model.change import (
    EMPTIED,
    TAKE_DOWN,
    Change,
    Condition,
    Subject,
)
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, Found, Part, Storage
from ansible_collections.virt.storage.plugins.module_utils.model.operations import NoteContent, Run, WriteFile
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool

MIB = 2**20


def test_what_was_emptied_is_known_by_its_beginning(tmp_path):
    """Not by the boot: somebody may have mounted it since."""
    device = tmp_path / "device"
    device.write_bytes(b"superblock")
    condition = Condition("device", str(device), ())
    part = Part("filesystem", "x", READY, requires=(condition,))
    storage = Storage(READY, "/p", bring_up="mount", mark="uuid", up=False, parts=(part,))
    look = Look(5.0, str(tmp_path), str(tmp_path))
    text = local.emptied_note(storage)
    Applier().apply(NoteContent(str(tmp_path / "note"), text, str(device)))
    told = (tmp_path / "note").read_text()

    def emptied(note):
        return local._is_emptied(storage, note, look)

    assert emptied(told)
    assert not any(map(emptied, (text, f"{text}\n", f"{text}\n{boot()}", told.replace("/p", "/q"))))
    assert not local._is_emptied(replace(storage, mark=""), told.replace("uuid", ""), look)
    assert not local._is_emptied(replace(storage, up=True), told, look)
    device.write_bytes(b"superblock, mounted once more")
    assert not emptied(told)
    device.unlink()
    assert not emptied(f"{text}\n")


@pytest.mark.parametrize("mark", ["uuid", ""])
def test_a_pool_is_noted_as_emptied_once_it_is_down(tmp_path, mark):
    part = Part("filesystem", "x", READY, requires=(Condition("device", "/dev/sdx", ()),))
    pool = Pool("p", "fs", path="/p")
    storage = Storage(READY, "/p", take_down="unmount /p", mark=mark, ours=True, parts=(part,))
    stop = Change(Subject("p"), "stop", "", wanted=pool, may=frozenset({TAKE_DOWN, EMPTIED}))
    engine = NativeEngine(find_places(f"native:///?root={tmp_path}"), 5)
    (step,) = engine.lower([stop], Found("p", pool, live=pool, storage=storage, current=storage))
    down, *noted = [type(each) for each in step.operations]
    assert (down, NoteContent in noted, WriteFile in noted) == (Run, bool(mark), False)


@pytest.mark.parametrize("place", [0, 65536, 64 * MIB, 100 * MIB - 4096])
def test_what_is_written_at_the_ends_or_where_copies_are_is_noticed(tmp_path, place):
    """As a superblock of an array at the end, or of another filesystem that keeps copies."""
    device = tmp_path / "device"
    device.touch()
    os.truncate(device, 100 * MIB)
    before = contents.imprint_of(str(device))
    assert before == contents.imprint_of(str(device))
    with device.open("r+b") as file:
        file.seek(place)
        file.write(b"md")
    assert contents.imprint_of(str(device)) not in (before, "")


@pytest.mark.parametrize("name", ["gfs2", "ocfs2", "udf", "f2fs", "exfat", "jfs"])
def test_what_notes_nothing_at_its_beginning_is_not_trusted(name):
    assert not by_signature(name).tells
    assert all(by_signature(other).tells for other in ("ext4", "xfs", "btrfs", "vfat"))
