# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools on volumes of other pools: a partition, a volume group on it, a filesystem on one of its volumes; natively and
through the guest's daemon.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .hosts import Host, run

GROUP = "layered"
Task = Callable[[bool], dict[str, Any]]


@pytest.fixture(params=["native", "daemon"])
def engine(request: pytest.FixtureRequest) -> Host:
    host: Host = request.getfixturevalue("host" if request.param == "native" else "daemon_host")
    return host


class Layers:
    """The declarations of a host, from the bottom up."""

    def __init__(self, host: Host, disk: str, path: Path) -> None:
        self.host, self.disk, self.path = host, disk, path
        self.part = f"{os.path.basename(os.path.realpath(disk))}1"

    def cut(self, check: bool = False, **more: Any) -> dict[str, Any]:
        declared = {"name": "cut", "type": "disk", "path": "/dev", "source": {"device": self.disk, "format": "gpt"}}
        return self.host.pool(check, **{**declared, **more})

    def partition(self, check: bool = False, **more: Any) -> dict[str, Any]:
        return self.host.volume(check, **{"pool": "cut", "name": self.part, "capacity": "600MiB", **more})

    def group(self, check: bool = False, **more: Any) -> dict[str, Any]:
        declared = {"name": "guests", "type": "logical", "source": {"name": GROUP, "volume": f"cut/{self.part}"}}
        return self.host.pool(check, **{**declared, **more})

    def logical(self, check: bool = False, **more: Any) -> dict[str, Any]:
        return self.host.volume(check, **{"pool": "guests", "name": "data", "capacity": "256MiB", **more})

    def files(self, check: bool = False, **more: Any) -> dict[str, Any]:
        source = {"volume": "guests/data", "format": "ext4"}
        declared = {"name": "images", "type": "fs", "path": str(self.path), "source": source}
        return self.host.pool(check, **{**declared, **more})

    @property
    def all(self) -> list[Task]:
        return [self.cut, self.partition, self.group, self.logical, self.files]


@pytest.fixture
def layers(engine: Host, disks: list[str], tmp_path: Path) -> Iterator[Layers]:
    yield Layers(engine, disks[0], tmp_path / "images")
    run("umount", str(tmp_path / "images"), check=False)


def ok(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("failed"), result
    assert not [text for text in result["warnings"] if text.startswith("verification")], result["warnings"]
    return result


def made(task: Task) -> dict[str, Any]:
    """Check mode, the real run that does what was planned, and one that does nothing."""
    planned = ok(task(True))
    result = ok(task(False))
    assert result["changed"], result
    told = [
        [(entry["action"], entry["summary"], entry["commands"]) for entry in run["plan"]] for run in (planned, result)
    ]
    hidden = [re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", str(each)) for each in told]
    assert hidden[0] == hidden[1]
    again = ok(task(False))
    assert not again["changed"], again["plan"]
    return result


def refused(result: dict[str, Any], code: str, *words: str) -> None:
    assert result.get("failed"), result
    assert (result["error"]["code"], result["changed"]) == (code, False), result
    assert not [word for word in words if word not in result["error"]["message"]], result["error"]["message"]


def mounted_from(path: Path) -> str:
    return run("findmnt", "--noheadings", "--output", "SOURCE", str(path), check=False).strip()


def test_each_is_made_on_the_one_below(layers: Layers) -> None:
    for task in layers.all:
        made(task)
    assert os.path.realpath(mounted_from(layers.path)) == os.path.realpath(f"/dev/{GROUP}/data")
    group = run("pvs", "--noheadings", "--options", "pv_name", "--select", f"vg_name={GROUP}").strip()
    assert os.path.realpath(group) == f"/dev/{layers.part}"
    records = {record["name"]: record["source"] for record in layers.host.pool_info()}
    assert records["images"]["devices"] == [{"path": f"/dev/{GROUP}/data"}]
    (device,) = records["guests"]["devices"]
    lasting = layers.host.uri.startswith("native")  # a daemon knows the devices of a group as LVM prints them
    assert device["path"].startswith("/dev/disk/by-id/" if lasting else f"/dev/{layers.part}")
    assert os.path.realpath(device["path"]) == f"/dev/{layers.part}"
    # The same by other names of the devices is no difference.
    for task, path in ((layers.group, f"/dev/{layers.part}"), (layers.files, f"/dev/mapper/{GROUP}-data")):
        source = {"device": path, **({"name": GROUP} if task == layers.group else {"format": "ext4"})}
        assert not ok(task(source=source))["changed"]


def test_what_is_below_is_left_as_it_is(layers: Layers) -> None:
    for task in layers.all:
        ok(task(False))
    for check in (True, False):
        refused(layers.group(check, state="inactive"), "pool_in_use", "pool images")
        refused(layers.cut(check, state="inactive"), "pool_in_use", "pool guests")
        refused(layers.cut(check, state="absent"), "pool_in_use", "pool guests")
        refused(layers.logical(check, state="absent"), "volume_in_use")
        refused(layers.logical(check, recreate="always"), "volume_in_use")
        if layers.host.uri.startswith("native"):  # no daemon resizes it
            refused(layers.logical(check, capacity="128MiB", allow=["shrink"]), "volume_in_use")
        refused(layers.partition(check, state="absent"), "volume_in_use")
        refused(layers.group(check, state="deleted", allow=["nonempty"]), "pool_in_use", "pool images")
    ok(layers.files(state="inactive"))
    refused(layers.logical(state="absent"), "volume_in_use", "pool images")  # it is still defined
    refused(layers.group(state="deleted", allow=["nonempty"]), "volume_in_use", "pool images")
    for task in (layers.group, layers.cut):
        assert ok(task(state="inactive"))["changed"]


def test_from_the_top_down_all_can_be_taken_away(layers: Layers) -> None:
    for task in layers.all:
        ok(task(False))
    assert ok(layers.files(state="deleted"))["changed"]
    assert ok(layers.group(state="deleted", allow=["nonempty"]))["changed"]
    assert ok(layers.cut(state="deleted", allow=["nonempty"]))["changed"]
    for task in (layers.files, layers.group, layers.cut):
        assert not ok(task(state="deleted"))["changed"]
    assert GROUP not in run("vgs", "--noheadings", "--options", "vg_name")


def test_what_an_earlier_task_would_have_made(layers: Layers) -> None:
    """A whole play in check mode, on a host that has nothing of it."""
    for task in layers.all:
        planned = ok(task(True))
        assert planned["changed"]
    assert "(known after apply)" in planned["diff"]["after"]
    assert "pool guests is not defined on this host" in " ".join(planned["warnings"])
    refused(layers.files(), "pool_missing", "pool guests")
    assert layers.host.pool_info() == []
    for task in layers.all[:3]:
        ok(task(False))
    refused(layers.files(), "source_missing", "guests/data")
    assert "guests/data" in " ".join(ok(layers.files(True))["warnings"])
    ok(layers.logical())
    ok(layers.group(state="inactive"))
    refused(layers.files(), "pool_inactive", "pool guests")
    assert "pool guests" in " ".join(ok(layers.files(True))["warnings"])
    ok(layers.group())
    ok(layers.files())
    for state in ("inactive", "absent"):
        assert ok(layers.files(state=state))["changed"]


def test_what_can_be_no_device(host: Host, tmp_path: Path) -> None:
    ok(host.pool(name="plain", type="dir", path=str(tmp_path / "plain")))
    ok(host.volume(pool="plain", name="a.raw", capacity="16MiB"))
    for check in (True, False):
        source = {"volume": "plain/a.raw", "format": "ext4"}
        refused(host.pool(check, name="p", type="fs", path=str(tmp_path / "p"), source=source), "not_supported")


def test_a_logical_volume_is_divided(host: Host, disks: list[str], tmp_path: Path) -> None:
    layers = Layers(host, disks[0], tmp_path / "images")
    ok(layers.group(source={"name": GROUP, "device": disks[0]}))
    ok(layers.logical())
    disk = {
        "name": "inner",
        "type": "disk",
        "path": "/dev/mapper",
        "source": {"volume": "guests/data", "format": "gpt"},
    }
    made(lambda check: host.pool(check, **disk))
    assert "gpt" in run("blkid", "--probe", "--output", "value", "--match-tag", "PTTYPE", f"/dev/{GROUP}/data")
    refused(layers.group(state="inactive"), "pool_in_use", "pool inner")
    ok(host.pool(**disk, state="deleted"))
    ok(layers.group(state="deleted", allow=["nonempty"]))
