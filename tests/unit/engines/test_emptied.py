# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools that were emptied, to be deleted."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.virt.storage.plugins.module_utils.engines import local
from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.notes import boot
from ansible_collections.virt.storage.plugins.module_utils.model.change import Condition
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, Part, Storage
from ansible_collections.virt.storage.plugins.module_utils.model.operations import NoteContent


def test_what_was_emptied_is_known_by_its_beginning(tmp_path):
    """Or for the moment before that is noted by the boot; after another boot somebody may have mounted it."""
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
    assert emptied(f"{text}\n{boot()}")
    assert not any(map(emptied, (text, f"{text}\nanother", f"other\n{boot()}")))
    device.write_bytes(b"superblock, mounted once more")
    assert not emptied(told)
    device.unlink()
    assert not emptied(f"{text}\n")
    assert local._is_emptied(replace(storage, parts=()), text, look)
