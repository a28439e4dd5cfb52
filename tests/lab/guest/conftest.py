# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tests inside a guest share."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .hosts import Host, run, sh


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """The native engine, with definitions and records below a directory of the test's own."""
    return Host(f"native:///?root={tmp_path / 'root'}")


@pytest.fixture
def system_host() -> Host:
    """The native engine on the system's own files; libvirtd is installed, and not running."""
    return Host("native:///system", allow=["beside_daemon"])


@pytest.fixture
def daemon_host() -> Iterator[Host]:
    """The guest's own libvirtd; its pools are stopped and undefined after the test."""
    run("systemctl", "start", "virtlogd.socket", "virtlockd.socket", "libvirtd.service")
    yield Host("qemu:///system")
    for name in run("virsh", "pool-list", "--all", "--name").split():
        run("virsh", "pool-destroy", name, check=False)
        run("virsh", "pool-undefine", name, check=False)
    run("systemctl", "stop", "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")


# What a test that failed left on the disks, taken down from the top.
TAKE_DOWN = """
    lsblk --noheadings --raw --output MOUNTPOINT "$@" | grep / | sort -r | xargs --no-run-if-empty --max-args=1 umount
    zpool list -H -o name | xargs --no-run-if-empty --max-args=1 zpool destroy -f
    vgs --noheadings --options vg_name | xargs --no-run-if-empty vgremove --quiet -ff --yes
    dmsetup ls --target crypt | grep -v "No devices" | cut -f 1 | xargs --no-run-if-empty --max-args=1 cryptsetup close
    mdadm --stop --scan
    for each in /sys/block/*/bcache/stop; do [ ! -e "$each" ] || echo 1 > "$each"; done
    udevadm settle
"""


_BLKRRPART, _BLKDISCARD = 0x125F, 0x1277  # linux/fs.h


def _in_use(disk: str) -> bool:
    """Opened for reading: udev looks at what was opened for writing."""
    try:
        os.close(os.open(disk, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return True
    return False


def _written(disk: str) -> str:
    """How often the kernel wrote to it or discarded of it, since the boot (sysfs-block: stat)."""
    counts = Path("/sys/class/block", os.path.basename(os.path.realpath(disk)), "stat").read_text().split()
    return " ".join(counts[index] for index in (4, 6, 11, 13))


def _clear(disk: str) -> None:
    descriptor = os.open(disk, os.O_RDWR)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        fcntl.ioctl(descriptor, _BLKDISCARD, struct.pack("QQ", 0, size))
        with contextlib.suppress(OSError):  # a partition is in use
            fcntl.ioctl(descriptor, _BLKRRPART)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def emptied(disks: list[str]) -> Iterator[list[str]]:
    """Those that were written to are cleared afterwards; no process is started for that."""
    before = {disk: _written(disk) for disk in disks}
    try:
        yield disks
    finally:
        _cleared(disks, before)


def _cleared(disks: list[str], before: dict[str, str]) -> None:
    if any(_in_use(disk) for disk in disks):
        run("sh", "-c", TAKE_DOWN, "sh", *disks, check=False)
    used = [disk for disk in disks if _written(disk) != before[disk]]
    for disk in used:
        _clear(disk)
    if used:
        run("udevadm", "settle")


@pytest.fixture
def disks() -> Iterator[list[str]]:
    """Six virtio disks of 1 GiB, empty, by names that stay: /dev/disk/by-id/virtio-lab-disk1 and so on. What a test
    made of them is removed after it.
    """
    with emptied(sorted(glob.glob("/dev/disk/by-id/virtio-lab-disk[0-9]"))) as names:
        yield names


@pytest.fixture
def scsi_disks() -> Iterator[list[str]]:
    """Two SCSI disks of 1 GiB, empty, by their world-wide names; as ``disks``."""
    with emptied(sorted(glob.glob("/dev/disk/by-id/wwn-0x5000c500a00000??"))) as names:
        yield names


@pytest.fixture
def multipath() -> Iterator[Callable[[str], str]]:
    """Makes a map of the two paths to one unit by two adapters of scsi_debug, with more settings of multipath's, and
    gives its name.
    """
    settings = Path("/etc/multipath/conf.d/lab.conf")

    def make(more: str) -> str:
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(f"defaults {{\n{more}\n}}\n", encoding="ascii")
        sh("""systemctl start multipathd
            modprobe scsi_debug dev_size_mb=64 max_luns=1 add_host=2 vpd_use_hostno=0
            for turn in $(seq 60); do test "$(multipath -ll | grep -c running)" = 2 && break; sleep 0.5; done
            udevadm settle""")
        (name,) = (line.split()[0] for line in run("dmsetup", "ls", "--target", "multipath").splitlines())
        return name

    yield make
    sh("""udevadm settle
        for each in $(dmsetup ls --target linear | sed '/^No devices/d' | cut -f 1); do
            dmsetup remove --retry $each
        done
        multipath -F; systemctl stop multipathd.service multipathd.socket; modprobe -r scsi_debug""")
    settings.unlink()
