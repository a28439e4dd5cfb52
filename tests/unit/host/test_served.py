# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel itself has open: with a stand-in for zpool, which prints what its man page and source say."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import mount_users, served
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import filesystem_of, mounts
from ansible_collections.virt.storage.plugins.module_utils.host.processes import Processes
from ansible_collections.virt.storage.plugins.module_utils.host.users import users_of
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

LISTED = """\
tank\t960M\t140K\t960M\t-\t-\t0%\t0%\t1.00x\tONLINE\t-
\tmirror-0\t960M\t140K\t960M\t-\t-\t0%\t0.01%\t-\tONLINE
\t{directory}/image with space\t-\t-\t-\t-\t-\t-\t-\t-\tONLINE
\t/dev/sdb1\t-\t-\t-\t-\t-\t-\t-\t-\tONLINE
\t1234567890123\t-\t-\t-\t-\t-\t-\t-\t-\tUNAVAIL
logs      -      -      -        -         -      -      -      -  -
\t{directory}/log\t-\t-\t-\t-\t-\t-\t-\t-\tONLINE
other\t960M\t140K\t960M\t-\t-\t0%\t0%\t1.00x\tONLINE\t-
\t/dev/sdc\t960M\t140K\t960M\t-\t-\t0%\t0.01%\t-\tONLINE
"""


@pytest.fixture
def pools(tmp_path, monkeypatch):
    """A host with two pools imported; how often it was asked."""
    (tmp_path / "kstat/tank").mkdir(parents=True)
    asked = []

    def run(argv, timeout):
        asked.append(argv)
        return LISTED.format(directory=tmp_path)

    monkeypatch.setattr(served, "_IMPORTED", str(tmp_path / "kstat"))
    monkeypatch.setattr(served, "run", run)
    return asked


def test_files_that_zpools_are_made_of_are_in_use(pools, tmp_path):
    paths = {name: str(tmp_path / name) for name in ("image with space", "log", "free")}
    for path in paths.values():
        with open(path, "w", encoding="ascii"):
            pass
    users, _unseen = users_of(paths)
    assert {name: list(map(str, group)) for name, group in users.items()} == {
        "image with space": ["holder zpool tank"],
        "log": ["holder zpool tank"],
        "free": [],
    }
    assert all(user.running for user in users["log"])
    assert len(pools) == 1
    users_of({})
    assert len(pools) == 1


def test_a_file_that_a_zpool_is_made_of_is_known_under_another_name(pools, tmp_path):
    """Its pool goes on telling the name by which it was imported."""
    uberblocks = b"".join((0x00BAB10C).to_bytes(1024, "little") for _each in range(16))
    paths = {name: str(tmp_path / name) for name in ("renamed", "free")}
    for name, path in paths.items():
        with open(path, "wb") as file:
            file.truncate(64 << 20)
            if name == "renamed":
                file.seek(128 << 10)  # of the first label: zpool's on-disk format, section 1.3
                file.write(uberblocks)
    users, _unseen = users_of(paths)
    assert "holder zpool tank" in map(str, users["renamed"])
    assert users["free"] == ()


def test_devices_that_zpools_are_made_of(pools):
    processes = Processes()
    told = [(path, str(user)) for path, user in processes.served() if path.startswith("/dev/")]
    assert told == [("/dev/sdb1", "holder zpool tank"), ("/dev/sdc", "holder zpool other")]
    processes.served()
    assert len(pools) == 1


def test_what_a_zpool_is_made_of_keeps_its_filesystem_mounted(pools, tmp_path):
    mount = filesystem_of(str(tmp_path.resolve()), mounts())
    assert "holder zpool tank" in map(str, mount_users.users_of_mount(mount)[0])


@pytest.mark.parametrize("there", ["", "kstat", "kstat/arcstats"])
def test_without_a_pool_nothing_is_asked(pools, tmp_path, monkeypatch, there):
    (tmp_path / "kstat/tank").rmdir()
    if there.endswith("stats"):
        (tmp_path / there).touch()
    if not there:
        (tmp_path / "kstat").rmdir()
    assert not list(served.served(set()))
    assert pools == []


def test_what_zpool_does_not_tell_is_not_called_unused(pools, tmp_path, monkeypatch):
    def run(argv, timeout):
        raise StorageError("deadline", "zpool did not answer")

    monkeypatch.setattr(served, "run", run)
    path = tmp_path / "image"
    path.touch()
    users, unseen = users_of({"it": str(path)})
    assert users == {"it": ()}
    assert "what the pools of ZFS are made of (zpool did not answer)" in unseen
