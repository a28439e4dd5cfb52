# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What volumes are made from."""

from __future__ import annotations

from ansible_collections.virt.storage.plugins.module_utils.backends import filetree
from ansible_collections.virt.storage.plugins.module_utils.decide.guards import same_file
from ansible_collections.virt.storage.plugins.module_utils.engines.native_images import observe_images
from ansible_collections.virt.storage.plugins.module_utils.host import block
from ansible_collections.virt.storage.plugins.module_utils.host.remote import Servers
from ansible_collections.virt.storage.plugins.module_utils.model.found import READY, Found, Storage
from ansible_collections.virt.storage.plugins.module_utils.model.goal import Scope
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume

ORIGIN = "/dev/group/origin"


class Device:
    identity = (253, 3)


def test_a_device_is_itself_though_its_link_is_made_anew(monkeypatch):
    links = iter([(5, 100), (5, 101)])

    def read_volume(path, name):
        return Volume(name, type="block", path=path, identity=next(links), link_target="../dm-3")

    monkeypatch.setattr(filetree, "read_volume", read_volume)
    monkeypatch.setattr(block, "device_at", lambda path: Device)
    pool = Pool("p", "logical", path="/dev/group")
    found = Found("p", pool, storage=Storage(READY, "/dev/group"))
    first, second = (
        observe_images(found, Scope(pool, images=(ORIGIN,)), Servers(5)).images[ORIGIN].volume for _look in range(2)
    )
    assert same_file(first) == same_file(second)
    (condition,) = same_file(first)
    assert (condition.kind, condition.expected) == ("device", Device.identity)
