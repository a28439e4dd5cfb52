# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has volumes that are not active, or what they are cut from."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import logical, lvm
from ansible_collections.virt.storage.plugins.module_utils.engines import native_users
from ansible_collections.virt.storage.plugins.module_utils.host import block, patience
from ansible_collections.virt.storage.plugins.module_utils.host.remote import Servers
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.guests import is_in, parse_guest
from ansible_collections.virt.storage.plugins.module_utils.model.change import Condition
from ansible_collections.virt.storage.plugins.module_utils.model.found import (
    EVERYTHING,
    READY,
    Found,
    Neighbour,
    Part,
    Storage,
)
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool, Source, SourceDevice
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Extent, Volume

GROUP = lvm.Group("v-g", "aaaaaa-bbbb-cc", 0, 0, 4, False, False, "", True, 0, (), ())
IN_A_VDO_POOL = lvm.Logical("data", "dd-ee", 4, "vwi------v", "", 0, "vpool", None, (), ())


def volume(name="a-b", **more):
    told = lvm.Logical(name, "dd-ee", 4, "-wi-------", "", 0, "", None, (), ())
    return logical._volume(told._replace(**more), GROUP, {"a-b", "vpool"})


def found(*volumes, storage=None):
    pool = Pool("p", "logical", path="/dev/v-g", source=Source(name="v-g"))
    return Found(
        "p", pool, live=pool, storage=storage or Storage(READY, "/dev/v-g"), volumes={v.name: v for v in volumes}
    )


def users(told, guests=(), neighbours=()):
    seen = native_users.observe_users(told, dict.fromkeys(told.volumes, EVERYTHING), neighbours, guests, Servers(5))
    return {name: [str(user) for user in group] for name, group in seen.users.items()}


@pytest.mark.parametrize(
    "path",
    [
        "/dev/v-g/a-b",
        "/dev/mapper/v--g-a--b",
        "/dev/disk/by-id/dm-name-v--g-a--b",
        "/dev/disk/by-id/dm-uuid-LVM-aaaaaabbbbccddee",
    ],
)
def test_a_volume_that_is_not_active_is_known_by_all_of_its_names(path):
    guest = parse_guest(f"<domain><name>g</name><disk><source dev='{path}'/></disk></domain>".encode())
    pool = Neighbour(Pool("other", "fs", source=Source(devices=(SourceDevice(path),))), None)
    assert users(found(volume()), [guest], [pool]) == {"a-b": ["guest g", "pool other"]}


@pytest.mark.parametrize(
    ("kind", "name"), [("scsi", "unit:0:0:3"), ("mpath", "dm-7"), ("mpath", "mpatha"), ("mpath", "mpathb")]
)
def test_a_guest_that_has_it_as_a_volume_of_another_pool(monkeypatch, kind, name):
    """Their names say nothing of the path."""
    monkeypatch.setattr(native_users, "backend_of", lambda of: Units() if of == kind else None)
    guest = parse_guest(f"<domain><name>g</name><disk><source pool='q' volume='{name}'/></disk></domain>".encode())
    seen = users(found(volume()), [guest], [Neighbour(Pool("q", kind, path="/dev/mapper"), "/dev/mapper")])
    assert seen == {"a-b": ["guest g"] if name != "mpathb" else []}


@pytest.mark.parametrize("place", ["/dev/v-g", "/dev/later"])
def test_a_guest_that_has_it_as_a_volume_of_a_pool_with_two_places(place):
    """The pool runs in one, and will in the other one when it is started anew."""
    guest = parse_guest("<domain><name>g</name><disk><source pool='q' volume='a-b'/></disk></domain>")
    pools = [Neighbour(Pool("q", path=path), path) for path in ("/dev/v-g", "/dev/later")]
    lies = found(replace(volume(), path=f"{place}/a-b"))
    assert users(lies, [guest], pools) == {"a-b": ["guest g"]}


class Units:
    def observe(self, pool, look, holds):
        return Storage(READY, pool.path)

    def observe_volumes(self, told, scope, look):
        (name,) = scope.volumes or ("mpathb",)
        return replace(told, volumes={name: Volume(name, path="/dev/v-g/a-b")} if name != "mpathb" else {})


def test_what_a_volume_gets_its_space_from_is_its_pool_whatever_the_kind():
    """Without a pool of VDO its volumes are gone."""
    told = found(volume("vpool", attributes="dwi------v"), logical._volume(IN_A_VDO_POOL, GROUP, {"vpool", "data"}))
    assert users(told) == {"vpool": ["overlay /dev/v-g/data"], "data": []}


def test_what_volumes_are_cut_from():
    parts = (
        Part("x", "x", READY, requires=(Condition("device", "/dev/sda", (1,)), Condition("signatures", "/dev/sda"))),
        Part("y", "y", READY, requires=(Condition("device", "/dev/sdb", (2,)),)),
    )
    cut = Volume("a", type="block", path="/dev/v-g/a", extents=(Extent("/dev/sdb", 0, 1), Extent("/dev/sdc", 0, 1)))
    assert found(cut, storage=Storage(READY, "/dev/v-g", parts=parts)).ground == ("/dev/sda", "/dev/sdb", "/dev/sdc")
    files = Found("p", Pool("p", "fs"), storage=Storage(READY, "/p", parts=parts))
    assert files.ground == ()


def test_firmware_variables_in_a_file_of_its_own_kind():
    text = b"<domain><name>g</name><os><nvram type='file'><source file='/p/vars'/></nvram></os></domain>"
    assert "/p/vars" in parse_guest(text).paths


def test_what_else_a_guest_has():
    arguments = ("-cdrom", "/p/cdrom", "file=/p/a,,b,if=none", '{"driver": "file", "filename": "/p/json"}', "id=x,y")
    args = "".join(f"<q:arg value='{argument}'/>" for argument in arguments)
    guest = parse_guest(
        f"""<domain xmlns:q="http://libvirt.org/schemas/domain/qemu/1.0"><name>g</name>
        <os><dtb>/p/dtb</dtb><shim>/p/shim</shim><acpi><table type="slic">/p/acpi</table></acpi></os>
        <devices><tpm><backend type="emulator"><source type="file" path="/p/tpm"/></backend></tpm>
        <tpm><backend type="emulator"><source type="dir" path="/t"/></backend></tpm>
        <filesystem type="mount"><source dir="/d"/><target dir="/x"/></filesystem></devices>
        <q:commandline>{args}</q:commandline></domain>""".encode()
    )
    named = ["/p/a,b", "/p/acpi", "/p/cdrom", "/p/dtb", "/p/json", "/p/shim", "/p/tpm"]
    assert (sorted(guest.paths), sorted(guest.directories)) == (named, ["/d", "/t"])


def test_the_files_of_a_snapshot():
    text = """<domainsnapshot><name>s1</name><memory snapshot="external" file="/p/mem"/><disks>
    <disk name="vda"><source file="/p/over"/></disk><disk name="vdb" snapshot="no"/></disks>{}</domainsnapshot>"""
    for domain, name in (("", "dir"), ("<domain><name>g</name><disk><source file='/old'/></disk></domain>", "g")):
        snapshot = parse_guest(text.format(domain).encode(), "dir")
        assert (snapshot.name, sorted(snapshot.paths)) == (f"{name} (snapshot s1)", ["/p/mem", "/p/over"])


@pytest.mark.parametrize(
    ("directories", "inside"), [(["/p"], True), (["/p/"], True), (["/"], False), (["/p/d", "/pool", ""], False)]
)
def test_what_is_in_a_directory(directories, inside):
    """Some containers have the root of the host."""
    assert is_in("/p/a", directories) == inside


PASSED = """
<domain><name>g</name><devices>
  <hostdev type='scsi'><source><adapter name='scsi_host2'/><address bus='0' target='0' unit='1'/></source></hostdev>
  <hostdev type='pci'><source><address domain='0x0000' bus='0x03' slot='0x00' function='0x1'/></source></hostdev>
  <disk type='nvme'><source type='pci' namespace='1'><address bus='0x04' slot='0x0a' function='0x0'/></source></disk>
  <hostdev type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>
  <hostdev type='pci'><source><address bus='none' slot='0'/></source></hostdev>
</devices></domain>
"""


def test_hardware_that_is_passed_through_to_a_guest():
    assert parse_guest(PASSED.encode()).hardware == ("2:0:0:1", "0000:03:00.1", "0000:04:0a.0")


def test_the_disks_of_such_hardware_are_the_guests(tmp_path, monkeypatch):
    known = tmp_path / "class/block"
    known.mkdir(parents=True)
    for place in (
        "0000:00:05.0/host2/target2:0:0/2:0:0:1/block/sdb",
        "0000:00:05.0/host2/target2:0:0/2:0:0:1/block/sdb/sdb1",
        "0000:00:05.0/host2/target2:0:0/2:0:0:0/block/sda",
        "0000:04:0a.0/nvme/nvme0/nvme0n1",
    ):
        (tmp_path / "devices" / place).mkdir(parents=True)
        (known / place.rpartition("/")[2]).symlink_to(tmp_path / "devices" / place)
    monkeypatch.setattr(block, "_SYS", str(tmp_path))
    named = list(native_users._named(parse_guest(PASSED.encode()), (), native_users.Files(Servers(5))))
    assert named == ["/dev/nvme0n1", "/dev/sdb", "/dev/sdb1"]


def test_images_on_the_volumes_of_pools_of_devices(tmp_path):
    """Their names are links in a directory of the pool's own, as those of a volume group."""
    (tmp_path / "v-g").mkdir()
    over = tmp_path / "v-g/over"
    over.write_bytes(b"OOOM\0\0\0\2" + str(tmp_path / "base").encode().ljust(1028, b"\0") + bytes(8))
    (tmp_path / "v-g/gone").symlink_to("nowhere")
    (tmp_path / "base").touch()
    base = Volume("base", type="file", path=str(tmp_path / "base"))
    told = Found("p", Pool("p", path=str(tmp_path)), storage=Storage(READY, str(tmp_path)), volumes={"base": base})
    for kind in ("logical", "zfs"):
        pool = Neighbour(Pool("q", kind, path=str(tmp_path / "v-g"), source=Source(name="v-g")), None)
        assert users(told, neighbours=[pool]) == {"base": [f"overlay {over}"]}


def test_the_partitions_of_a_disk_and_the_units_that_others_serve_may_hold_images(monkeypatch):
    disk = SimpleNamespace(partitions=("/dev/x2", "/dev/x1"))
    monkeypatch.setattr(block, "device_at", lambda path: disk)
    monkeypatch.setattr(native_users, "backend_of", lambda of: All())
    look = native_users.Files(Servers(5))
    assert look.devices(Pool("q", "disk", source=Source(devices=(SourceDevice("/dev/x"),)))) == ["/dev/x1", "/dev/x2"]
    assert look.devices(Pool("q", "mpath", path="/dev/mapper")) == ["/dev/mapper/a"]


class All(Units):
    def observe_volumes(self, told, scope, look):
        assert scope.volumes is None
        return replace(told, volumes={"a": Volume("a", path="/dev/mapper/a"), "b": Volume("b", problem="no link")})


def test_a_device_that_does_not_answer_is_said(monkeypatch, tmp_path):
    (tmp_path / "dead").touch()
    monkeypatch.setattr(patience, "in_child", lambda function, seconds: None)
    look = native_users.Files(Servers(5))
    assert look.below_devices(Pool("q", "logical", path=str(tmp_path))) == {}
    assert look.unseen == {"the images on the volumes of pool q"}


@pytest.mark.parametrize(
    ("mounted", "up", "told"),
    [
        ((), False, {"the images of pool q, which is not mounted,"}),
        (("/q",), True, set()),
        (("/q",), False, {"the images of pool q, which is not mounted,"}),  # but something else
        (("/elsewhere",), True, set()),  # where it runs still
    ],
)
def test_pools_that_are_not_mounted(monkeypatch, tmp_path, mounted, up, told):
    monkeypatch.setattr(native_users, "mount_at", lambda path, table: path if path in mounted else None)
    monkeypatch.setattr(
        native_users, "backend_of", lambda of: SimpleNamespace(observe=lambda *given: Storage(READY, up=up))
    )
    source = Source(devices=(SourceDevice("/dev/x"),), format="ext4")
    pools = [Neighbour(Pool("q", "fs", path=path, source=source), path) for path in ("/q", *mounted)]
    base = Volume("base", type="file", path=str(tmp_path / "base"))
    own = Found("p", Pool("p", path=str(tmp_path)), storage=Storage(READY, str(tmp_path)), volumes={"base": base})
    (tmp_path / "base").touch()
    seen = native_users.observe_users(own, {"base": EVERYTHING}, pools, (), Servers(5))
    assert {what for what in seen.unseen if "pool" in what} == told
