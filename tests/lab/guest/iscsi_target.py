# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An iSCSI target of the guest's own kernel (LIO), by its files in configfs: a process per word would be dear."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .hosts import run, sh

CORE = Path("/sys/kernel/config/target/core")
FABRIC = Path("/sys/kernel/config/target/iscsi")
DISCOVERY = FABRIC / "discovery_auth"
MIB = 1 << 20


def load() -> None:
    sh("""modprobe -a target_core_mod target_core_iblock target_core_file iscsi_target_mod
        mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config""")
    FABRIC.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def asked_by_account(username: str, password: str) -> Iterator[None]:
    """All portals tell what there is only to who knows the password."""
    load()
    words = {"userid": username, "password": password, "enforce_discovery_auth": "1"}
    for name, value in words.items():
        (DISCOVERY / name).write_text(value, encoding="ascii")
    try:
        yield
    finally:
        for name, value in {"enforce_discovery_auth": "0", "userid": "NULL", "password": "NULL"}.items():
            (DISCOVERY / name).write_text(value, encoding="ascii")


class Target:
    """Serves units that are files of ``directory``, without a password, to whoever asks."""

    def __init__(self, iqn: str, directory: Path, *addresses: str) -> None:
        load()
        self.iqn, self._directory = iqn, directory
        self.group = FABRIC / iqn / "tpgt_1"
        self.group.mkdir(parents=True)
        self._loops: dict[int, str] = {}
        self.say("attrib/generate_node_acls", 1)
        self.say("attrib/demo_mode_write_protect", 0)
        self.say("attrib/authentication", 0)
        for address in addresses or ("127.0.0.1:3260",):
            (self.group / "np" / address).mkdir()

    def say(self, name: str, value: object) -> None:
        (self.group / name).write_text(str(value), encoding="ascii")

    def up(self, yes: bool = True) -> None:
        self.say("enable", int(yes))

    def demand(self, username: str, password: str, mutual: tuple[str, str] | None = None) -> None:
        """Lets only those log in who know the password."""
        self.say("auth/userid", username)
        self.say("auth/password", password)
        self.say("auth/userid_mutual", mutual[0] if mutual else "NULL")
        self.say("auth/password_mutual", mutual[1] if mutual else "NULL")
        self.say("attrib/authentication", 1)

    @property
    def _number(self) -> int:
        """What tells the devices of this target from those of others."""
        return int.from_bytes(self.iqn[-2:].encode(), "big")

    def file(self, lun: int) -> Path:
        return self._directory / f"{self.iqn.rpartition(':')[2]}-{lun}"

    def serve(self, lun: int, size: int = 64 * MIB, grows: bool = False) -> None:
        """A new unit. One that grows is on a loop device, where LVM would see what is on it twice."""
        file = self.file(lun)
        file.write_bytes(b"")
        os.truncate(file, size)
        if grows:
            self._loops[lun] = run("losetup", "--find", "--show", str(file)).strip()
            self.serve_device(lun, self._loops[lun])
        else:
            self._serve(lun, "fileio", f"fd_dev_name={file},fd_dev_size={size}")

    def serve_device(self, lun: int, node: str) -> None:
        self._serve(lun, "iblock", f"udev_path={node}")

    def _serve(self, lun: int, plugin: str, control: str) -> None:
        core = CORE / f"{plugin}_{self._number}" / f"disk{lun}"
        core.mkdir(parents=True)
        (core / "wwn/vpd_unit_serial").write_text(f"{self.iqn}-{lun}")
        (core / "control").write_text(control)
        (core / "enable").write_text("1")
        unit = self.group / f"lun/lun_{lun}"
        unit.mkdir()
        (unit / "port").symlink_to(core)

    def grow(self, lun: int, size: int) -> None:
        os.truncate(self.file(lun), size)
        run("losetup", "--set-capacity", self._loops[lun])

    def remove(self, lun: int) -> None:
        self.withdraw(lun)
        if lun in self._loops:
            run("losetup", "--detach", self._loops.pop(lun))
        self.file(lun).unlink(missing_ok=True)

    def withdraw(self, lun: int) -> None:
        """The unit is not served any more; its device stays."""
        unit = self.group / f"lun/lun_{lun}"
        core = (unit / "port").resolve()
        (unit / "port").unlink()
        unit.rmdir()
        core.rmdir()
        with contextlib.suppress(OSError):
            core.parent.rmdir()

    @property
    def served(self) -> list[int]:
        return sorted(int(unit.name.removeprefix("lun_")) for unit in (self.group / "lun").iterdir())

    def end(self) -> None:
        self.up(False)
        for lun in self.served:
            self.remove(lun)
        for kind in ("acls", "np"):
            for entry in (self.group / kind).iterdir():
                entry.rmdir()
        self.group.rmdir()
        self.group.parent.rmdir()
