# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""This host's own eyes: what an engine is told of users, and what could not be looked at for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import mounted
from ansible_collections.virt.storage.plugins.module_utils.engines import local as local_module
from ansible_collections.virt.storage.plugins.module_utils.engines.local import LocalHost
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.host import volume_users
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.notes import boot
from ansible_collections.virt.storage.plugins.module_utils.model.change import Condition
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    ITSELF,
    READY,
    RUNNING,
    Found,
    Part,
    Storage,
    User,
)
from ansible_collections.virt.storage.plugins.module_utils.model.operations import NoteContent
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool

BLIND = "open files of other users' processes"


@pytest.fixture
def local(tmp_path):
    return LocalHost(find_places(f"native:///?root={tmp_path}"), 5.0)


@pytest.mark.parametrize(
    ("users", "unseen", "known", "expected"),
    [
        ((), (), (), ""),
        ((), (BLIND,), (), f"could not be checked for users ({BLIND})"),
        ((), (BLIND,), (BLIND,), ""),
        ((), (BLIND, "more"), (BLIND,), "could not be checked for users (more)"),
        ((User("process", "x"),), (BLIND,), (BLIND,), "was taken into use by process x"),
    ],
)
def test_of_a_volume_nothing_may_be_unseen_that_was_not_warned_of(
    local, tmp_path, monkeypatch, users, unseen, known, expected
):
    path = tmp_path / "v"
    path.touch()
    monkeypatch.setattr(volume_users, "users_of_volumes", lambda paths: (dict.fromkeys(paths, users), unseen))
    broken = local.broken({3: (Condition("unused", str(path), known),)})
    assert [error.message for error in broken.values()] == (
        [f"{path} {expected} after it was looked at"] if expected else []
    )
    assert set(broken) <= {3}


def test_what_is_not_there_has_no_users(local, monkeypatch):
    monkeypatch.setattr(volume_users, "users_of_volumes", lambda paths: ({}, (BLIND,)))
    assert local.broken({0: (Condition("unused", "/no/such/volume"),)}) == {}


def test_who_keeps_a_pool_up_and_what_could_not_be_looked_at(local, monkeypatch):
    told = ((User("process", "x"),), (BLIND,))
    monkeypatch.setattr(mounted, "busy", lambda pool, storage, look: told)
    monkeypatch.setattr("ansible_collections.virt.storage.plugins.module_utils.backends.fs.busy", mounted.busy)
    there = Storage(READY, "/p")
    found = Found("p", Pool("p", "fs", path="/p"), storage=there, current=there)
    seen = local.observe_users(found, {ITSELF: RUNNING}, tuple)
    assert (seen.current.busy, seen.unseen) == told


def test_what_was_emptied_is_known_by_its_beginning(tmp_path):
    """Or for the moment before that is noted by the boot; after another boot somebody may have mounted it."""
    device = tmp_path / "device"
    device.write_bytes(b"superblock")
    condition = Condition("device", str(device), ())
    part = Part("filesystem", "x", READY, requires=(condition,))
    storage = Storage(READY, "/p", bring_up="mount", mark="uuid", up=False, parts=(part,))
    look = Look(5.0, str(tmp_path), str(tmp_path))
    text = local_module.emptied_note(storage)
    Applier().apply(NoteContent(str(tmp_path / "note"), text, str(device)))
    told = (tmp_path / "note").read_text()

    def emptied(note):
        return local_module._is_emptied(storage, note, look)

    assert emptied(told)
    assert emptied(f"{text}\n{boot()}")
    assert not any(map(emptied, (text, f"{text}\nanother", f"other\n{boot()}")))
    device.write_bytes(b"superblock, mounted once more")
    assert not emptied(told)
    device.unlink()
    assert not emptied(f"{text}\n")
    assert local_module._is_emptied(replace(storage, parts=()), text, look)
