# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who looks for what pools could be made from, where there is a daemon."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines import sources
from ansible_collections.virt.storage.plugins.module_utils.model.discovery import Discovery, Query
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

HERE = Discovery()
GROUP = "<sources><source><device path='/dev/sdb'/><name>vg0</name><format type='lvm2'/></source></sources>"
DAEMON = SimpleNamespace(uri="qemu:///system", find_sources=lambda kind, query: GROUP)


def looked(monkeypatch, kind, at_hand, supported=True):
    monkeypatch.setattr(sources, "look_here", lambda query, look: HERE)
    return sources.look_through(Query(kind), DAEMON, None, at_hand, supported)


@pytest.mark.parametrize("kind", ["logical", "disk", "fs", "scsi", "mpath"])
def test_what_is_on_this_host_is_looked_at_here(monkeypatch, kind):
    """A daemon does not tell what keeps a group from being a pool."""
    for supported in (True, False):
        assert looked(monkeypatch, kind, True, supported) is HERE


def test_groups_of_another_host_are_those_that_its_daemon_tells(monkeypatch):
    (group,) = looked(monkeypatch, "logical", False).sources
    assert (group.group, group.devices, group.kind) == ("vg0", ("/dev/sdb",), "group")


@pytest.mark.parametrize(("kind", "supported"), [("disk", True), ("logical", False)])
def test_what_nobody_can_look_at_there(monkeypatch, kind, supported):
    with pytest.raises(StorageError) as caught:
        looked(monkeypatch, kind, False, supported)
    assert caught.value.code == "daemon_cannot"
