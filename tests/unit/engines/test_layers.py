# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A volume of another pool as a device, and who runs on volumes."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import device_sources
from ansible_collections.virt.storage.plugins.module_utils.engines import far, layers, native_users
from ansible_collections.virt.storage.plugins.module_utils.engines.layers import layer_of
from ansible_collections.virt.storage.plugins.module_utils.host import block
from ansible_collections.virt.storage.plugins.module_utils.host.block import Device
from ansible_collections.virt.storage.plugins.module_utils.host.remote import Servers
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    READY,
    UNKNOWN_STORAGE,
    Found,
    Neighbour,
    Storage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import (
    Pool,
    Source,
    SourceDevice,
    SourceVolume,
)
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Volume

WANTED = SourceVolume("vg", "data")
GROUP = Pool("vg", "logical", path="/dev/vg", source=Source(name="vg"))
DISK = Pool("vg", "disk", path="/dev", source=Source(devices=(SourceDevice("/dev/sdx"),)))
LOGICAL = Volume("data", type="block", path="/dev/vg/data")


class Engine:
    def __init__(self, found):
        self.found = found

    def observe(self, scope):
        assert (scope.pool.name, scope.volumes) == ("vg", ("data",))
        return self.found


def found(pool=GROUP, volume=LOGICAL, active=True, **more):
    volumes = {} if volume is None else {volume.name: volume}
    return Found(
        "vg", pool, live=pool, active=active, **{"storage": Storage(READY, pool.path), "volumes": volumes, **more}
    )


def look(told, named=layers.lasting):
    return layer_of(Engine(told), WANTED, named)


def outcome(told, named=layers.lasting):
    layer = look(told, named)
    return layer.path, layer.missing.code if layer.missing else None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (found(), ("/dev/vg/data", None)),
        (found(volume=None), ("/dev/vg/data", "source_missing")),
        (found(active=False), ("/dev/vg/data", "pool_inactive")),
        (found(active=False, volume=None), ("/dev/vg/data", "pool_inactive")),
        (found(DISK, None), (None, "source_missing")),
        (Found("vg"), (None, "pool_missing")),
        (found(volume=Volume("data", type="dir", path="/dev/vg/data")), ("/dev/vg/data", "source_missing")),
    ],
)
def test_where_a_volume_is_and_what_is_missing(told, expected):
    assert outcome(told) == expected
    missing = look(told).missing
    assert missing is None or (missing.subject, bool(missing.hint)) == ("volume vg/data", True)


PART = found(DISK, volumes={"data": Volume("data", type="block", path="/dev/sdx1")})


def test_a_name_of_the_kernels_is_another_ones_after_a_boot(monkeypatch):
    monkeypatch.setattr(layers.os.path, "realpath", lambda path: path)
    monkeypatch.setattr(block, "device_at", lambda path: path)
    monkeypatch.setattr(device_sources, "stable_path", lambda device: "/dev/disk/by-id/x-part1")
    assert outcome(PART) == ("/dev/disk/by-id/x-part1", None)


@pytest.mark.parametrize(("dm_name", "expected"), [("", "/dev/sdx1"), ("x-part1", "/dev/mapper/x-part1")])
def test_the_name_that_a_tool_prints(monkeypatch, dm_name, expected):
    device = Device("/dev/disk/by-path/y", "/dev/sdx1", (8, 1), 1, 512, False, "part", dm_name)
    monkeypatch.setattr(block, "device_at", lambda path: device)
    assert outcome(PART, layers.printed) == (expected, None)


@pytest.mark.parametrize("named", [layers.lasting, layers.printed])
def test_one_that_goes_away_meanwhile_keeps_its_name(monkeypatch, named):
    monkeypatch.setattr(layers.os.path, "realpath", lambda path: path)
    gone = Volume("data", type="block", path="/dev/gone-away")
    assert outcome(found(DISK, volumes={"data": gone}), named) == ("/dev/gone-away", None)


def test_a_link_is_kept():
    assert outcome(found(volumes={"data": Volume("data", type="block", path="/dev/stdin")})) == ("/dev/stdin", None)


def test_a_volume_on_the_network_has_no_path_of_this_host():
    network = Volume("data", type="block", path="iscsi://x")
    assert outcome(found(volumes={"data": network}), lambda path: "/never") == ("iscsi://x", None)


@pytest.mark.parametrize(
    "told",
    [
        found(Pool("vg", "dir", path="/p"), Volume("data", path="/p/data")),
        found(Pool("vg", "rbd"), None),
        found(volume=Volume("data", type="block", path="/dev/vg/data", format="thin-pool")),
    ],
)
def test_what_is_no_device(told):
    with pytest.raises(StorageError) as caught:
        look(told)
    assert (caught.value.code, caught.value.subject) == ("not_supported", "volume vg/data")


def test_a_pool_that_can_not_be_read():
    blind = Storage(UNKNOWN_STORAGE, "/dev/vg", "LVM does not answer")
    told = found(active=False, started=True, storage=blind, current=blind)
    with pytest.raises(StorageError, match="LVM does not answer"):
        look(told)


# -- who runs on volumes ------------------------------------------------------------------------------------------


def neighbour(path, started=True, name="upper"):
    return Neighbour(Pool(name, "fs", source=Source(devices=(SourceDevice(path),))), None, started=started)


@pytest.fixture
def devices(monkeypatch):
    """/dev/vg/data is 253:3, /dev/mapper/c is built on it, /dev/vdb on nothing of it."""
    numbers = {
        "/dev/vg/data": (253, 3),
        "/dev/disk/by-id/dm-data": (253, 3),
        "/dev/mapper/c": (253, 9),
        "/dev/vdb": (1, 1),
    }
    made = {path: Device(path, path, number, 1, 512, False, "dm") for path, number in numbers.items()}
    monkeypatch.setattr(native_users.Files, "device", lambda self, path: numbers.get(path))
    monkeypatch.setattr(block, "device_at", made.__getitem__)
    monkeypatch.setattr(block, "bases", lambda device: (made["/dev/vg/data"],) if device.number == (253, 9) else ())


@pytest.mark.parametrize(
    ("path", "started", "above"),
    [
        ("/dev/vg/data", True, True),
        ("/dev/disk/by-id/dm-data", True, True),
        ("/dev/mapper/c", True, True),
        ("/dev/vdb", True, False),
        ("/dev/vg/data", False, False),
    ],
)
def test_pools_that_run_on_a_volume(devices, path, started, above):
    told = native_users.with_above(found(), [neighbour(path, started)], Servers(5))
    assert [str(user) for user in told.above] == (["pool upper"] if above else [])


def test_a_volume_whose_device_is_gone_is_known_by_its_path():
    told = found(volume=Volume("data", type="block", path="/dev/gone/data", aliases=("/dev/mapper/gone-data",)))
    for path in ("/dev/gone/data", "/dev/mapper/gone-data"):
        assert native_users.with_above(told, [neighbour(path)], Servers(5)).above


@pytest.mark.parametrize(
    ("path", "started", "above"), [("/dev/vg/data", True, 1), ("/dev/vg/data", False, 0), ("/x", True, 0)]
)
def test_pools_of_another_host(path, started, above):
    assert len(far.pools_told(found(), [neighbour(path, started)]).above) == above
