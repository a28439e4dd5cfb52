# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A sysfs made up after real ones: SCSI hosts on PCI, their units, and multipath maps of these."""

from __future__ import annotations

import shutil

from ansible_collections.virt.storage.plugins.module_utils.host import (
    adapters,
    block,
    iscsi,
    multipath,
    scanning,
    scsi,
    vports,
)

MIB = 2**20


def designator(kind, data, code=1, of=0):
    return bytes([code, of << 4 | kind, 0, len(data)]) + data


def page83(*designators):
    data = b"".join(designators)
    return bytes([0, 0x83]) + len(data).to_bytes(2, "big") + data


def page80(number):
    return bytes([0, 0x80]) + len(number).to_bytes(2, "big") + number


class Tree:
    """Writes what the kernel would show below ``root``."""

    def __init__(self, root, monkeypatch):
        self.sys = root / "sys"
        for name in ("bus/scsi/devices", "class/block", "class/scsi_host", "dev/block"):
            (self.sys / name).mkdir(parents=True)
        for module in (adapters, block, iscsi, multipath, scsi):
            monkeypatch.setattr(module, "_SYS", str(self.sys))
        self._hosts = {}
        self._disks = 0

    def write(self, directory, **files):
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())

    def link(self, name, directory):
        path = self.sys / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(directory)

    def host(self, number, unique_id=0, pci="0000:00:1f.2", below="", driver="ahci", session=False):
        directory = self.sys / f"devices/pci0000:00/{pci}/{below}host{number}"
        self.write(directory / f"scsi_host/host{number}", unique_id=unique_id, proc_name=driver, scan="")
        self.link(f"class/scsi_host/host{number}", directory / f"scsi_host/host{number}")
        if session:
            self.link(f"class/iscsi_host/host{number}", directory)
        self._hosts[number] = directory

    def fc_host(
        self,
        number,
        wwnn,
        wwpn,
        pci,
        below="",
        vports=None,
        state="Online",
        fabric="2001000dec9877c1",
        kind="fc_host",
    ):
        """``vports``: how many it can have, None where it can't."""
        self.host(number, pci=pci, below=below, driver="lpfc")
        directory = self._hosts[number] / f"fc_host/host{number}"
        names = {"node_name": f"0x{wwnn}", "port_name": f"0x{wwpn}", "fabric_name": f"0x{fabric}"}
        self.write(directory, port_state=state, **names)
        self.link(f"class/fc_host/host{number}", directory)
        if vports is not None:
            self.write(directory, max_npiv_vports=vports, npiv_vports_inuse=0)
            self.write(self._hosts[number] / f"{kind}/host{number}", vport_create="", vport_delete="")

    def vport(self, number, wwnn, wwpn, on):
        pci = self._hosts[on].parent.relative_to(self.sys / "devices/pci0000:00")
        self.fc_host(number, wwnn, wwpn, pci, below=f"host{on}/vport-{on}:0-0/")

    def makes_vports(self, monkeypatch, on, number=7):
        """From here on virtual ports are made and removed as the kernel is told; there is one unit behind each."""
        told = scanning.tell

        def kernel(paths, word, held, seconds):
            told(paths, word, held, seconds)
            wwpn, _colon, wwnn = word.partition(":")
            doings = [path.rpartition("/")[2] for path in paths]
            if "vport_create" in doings:
                self.vport(number, wwnn, wwpn, on)
                self.unit(f"{number}:0:0:0")
            if "vport_delete" in doings:
                self.remove_host(number)

        for module in (scanning, vports):
            monkeypatch.setattr(module, "tell", kernel)

    def session(self, number, target, host, address="127.0.0.1", port=3260, initiator="", iface="default", **more):
        """A session of iSCSI on a SCSI host of its own, whose units are made below it. ``more``: ``state``,
        ``told`` (the address that it was told).
        """
        self.host(host, pci="platform", driver="iscsi_tcp", session=True)
        directory = self._hosts[host] / f"session{number}"
        own = directory / f"iscsi_session/session{number}"
        state = more.get("state", "LOGGED_IN")
        self.write(own, targetname=target, initiatorname=initiator, ifacename=iface, state=state)
        self.link(f"class/iscsi_session/session{number}", own)
        at = directory / f"connection{number}:0"
        told = more.get("told", address)
        self.write(at, persistent_address=told, persistent_port=port, address=address, port=port)
        self.link(f"class/iscsi_connection/connection{number}:0", at)
        self._hosts[host] = directory

    def end_session(self, number, host):
        for name in (f"iscsi_session/session{number}", f"iscsi_connection/connection{number}:0"):
            (self.sys / "class" / name).unlink()
        self._hosts[host] = self._hosts[host].parent
        (self.sys / f"class/iscsi_host/host{host}").unlink()
        self.remove_host(host)

    def remove_host(self, number):
        for name in ("scsi_host", "fc_host"):
            (self.sys / f"class/{name}/host{number}").unlink(missing_ok=True)
        for unit in (self.sys / "bus/scsi/devices").glob(f"{number}:*"):
            unit.unlink()
        shutil.rmtree(self._hosts.pop(number))

    def unit(self, address, size=MIB, kind=0, state="running", disk=True, nodes=None, **files):
        """Gives the name of the disk. ``nodes``: what other drivers made of it, by these."""
        number, bus, target, _lun = address.split(":")
        directory = self._hosts[int(number)] / f"target{number}:{bus}:{target}" / address
        maker = {"vendor": "Maker   ", "model": "Model           "}
        self.write(directory, type=kind, state=state, rescan="", **{**maker, **files})
        self.link(f"bus/scsi/devices/{address}", directory)
        for driver, node in (nodes or {}).items():
            self.write(directory / driver / node.rpartition("/")[2], uevent=f"MAJOR=21\nDEVNAME={node}")
        if not disk:
            return None
        self._disks += 1
        name = f"sd{chr(ord('a') + self._disks)}"
        self._device(name, directory / "block" / name, f"8:{16 * self._disks}", size)
        (directory / "block" / name / "device").symlink_to(directory)
        return name

    def map(self, minor, name, *disks, uuid=None, size=MIB):
        directory = self.sys / f"devices/virtual/block/dm-{minor}"
        self._device(f"dm-{minor}", directory, f"253:{minor}", size)
        self.write(directory / "dm", name=name, uuid=uuid or f"mpath-3{name}")
        for disk in disks:
            (self.sys / "class/block" / disk / "holders" / f"dm-{minor}").symlink_to(directory)
            (directory / "slaves").mkdir(exist_ok=True)
            (directory / "slaves" / disk).symlink_to(self.sys / "class/block" / disk)

    def _device(self, name, directory, number, size):
        self.write(directory, dev=number, size=size // 512, ro=0, uevent=f"DEVNAME={name}\nDEVTYPE=disk")
        (directory / "holders").mkdir()
        self.link(f"dev/block/{number}", directory)
        self.link(f"class/block/{name}", directory)
