# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A filesystem on a partition of a disk pool, on loop devices; with volume groups it is the lab's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Host
from .disk_scenarios import MIB, Disk, converges, ok, pool_of, refuses, run

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs_ansible,
    pytest.mark.skipif(shutil.which("parted") is None, reason="parted is not installed"),
    pytest.mark.skipif("ext4" not in Path("/proc/filesystems").read_text(encoding="ascii"), reason="no ext4 here"),
]


@pytest.fixture
def disk(loop: Callable[..., Disk], tmp_path: Path) -> Iterator[Disk]:
    yield loop()
    while os.path.ismount(tmp_path / "files"):
        run("umount", tmp_path / "files")


@pytest.fixture
def files(disk: Disk, tmp_path: Path) -> dict[str, Any]:
    source = {"volume": f"cut/{disk.name(1)}", "format": "ext4"}
    return {"name": "files", "type": "fs", "path": str(tmp_path / "files"), "source": source}


@pytest.fixture
def cut(host: Host, disk: Disk) -> dict[str, Any]:
    """An active disk pool with a partition."""
    pool = pool_of(disk, "gpt")
    ok(host.pool(**pool))
    ok(host.volume(pool="cut", name=disk.name(1), capacity="32MiB"))
    return pool


def test_a_filesystem_on_a_partition(host: Host, disk: Disk, cut: dict[str, Any], files: dict[str, Any]) -> None:
    made = converges(host.pool, **files)
    assert [entry["action"] for entry in made["plan"]] == ["define", "build", "build", "start"]
    assert run("findmnt", "--noheadings", "--output", "SOURCE", files["path"]) == disk.path(1)
    definition = (host.root / "etc/libvirt/storage/files.xml").read_text(encoding="utf-8")
    assert f"<device path='{disk.path(1)}'/>" in definition
    by_path = {**files, "source": {"device": disk.path(1), "format": "ext4"}}
    assert not ok(host.pool(**by_path))["changed"]


@pytest.mark.thorough
def test_what_is_below_is_left_as_it_is(host: Host, disk: Disk, cut: dict[str, Any], files: dict[str, Any]) -> None:
    ok(host.pool(**files))
    for state in ("inactive", "absent"):
        assert "pool files" in refuses(host.pool, "pool_in_use", **cut, state=state)["message"]
    refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(1), state="absent")
    refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(1), capacity="16MiB", allow=["shrink"])
    refuses(host.pool, "pool_in_use", **cut, state="deleted", allow=["nonempty"])
    ok(host.pool(name="files", state="inactive"))
    refused = refuses(host.volume, "volume_in_use", pool="cut", name=disk.name(1), state="absent")
    assert "pool files" in refused["message"]  # it is still defined
    refuses(host.pool, "volume_in_use", **cut, state="deleted", allow=["nonempty"])
    converges(host.pool, **cut, state="inactive")


@pytest.mark.thorough
def test_what_an_earlier_task_would_have_made(host: Host, disk: Disk, files: dict[str, Any]) -> None:
    def missing(code: str) -> None:
        planned = ok(host.pool(check=True, **files))
        assert "(known after apply)" in planned["diff"]["after"]
        assert planned["plan"][-1]["action"] == "start"
        assert any("planned as if an earlier task" in text for text in planned["warnings"])
        failed = host.pool(**files)
        assert (failed["error"]["code"], failed["changed"]) == (code, False)
        assert failed["error"]["message"] in " ".join(planned["warnings"])

    missing("pool_missing")
    ok(host.pool(**pool_of(disk, "gpt")))
    missing("source_missing")
    ok(host.volume(pool="cut", name=disk.name(1), capacity="32MiB"))
    ok(host.pool(**files))
    ok(host.pool(name="files", state="inactive"))
    ok(host.pool(name="cut", state="inactive"))
    refused = host.pool(**files)
    assert (refused["error"]["code"], refused["changed"]) == ("pool_inactive", False)
    assert not ok(host.pool(**files, state="inactive"))["changed"]
    converges(host.pool, **files, state="absent")


def test_a_volume_of_a_directory_is_no_device(host: Host, tmp_path: Path) -> None:
    ok(host.pool(name="images", type="dir", path=str(tmp_path / "images")))
    ok(host.volume(pool="images", name="a.raw", capacity=MIB))
    source = {"volume": "images/a.raw", "format": "ext4"}
    refuses(host.pool, "not_supported", name="p", type="fs", path=str(tmp_path / "p"), source=source)
