# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbooks of ``examples`` are run as they are, on hosts that are this machine with a root each; quickstart.yml is
run by ``make demo``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.needs_ansible, pytest.mark.thorough]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Hosts:
    """Hosts of an inventory, each with a root of its own below ``root``."""

    def __init__(self, root: Path, names: list[str], **more: str) -> None:
        self.root, self.names = root, names
        told = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        hosts = {name: {**told, **self._places(name), **more} for name in names}
        self.inventory = root / "inventory.json"
        self.inventory.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")

    def _places(self, name: str) -> dict[str, str]:
        self.images(name).parent.mkdir(parents=True)
        return {"storage_uri": f"native:///?root={self.root / name}", "images_path": str(self.images(name))}

    def images(self, name: str) -> Path:
        return self.root / name / "srv" / "images"

    def play(self, playbook: str, *more: str, status: int = 0) -> Played:
        """Runs an example, on the inventory beside it too if there is one."""
        file = EXAMPLES / playbook
        own = file.parent / "inventory.yml"
        inventories = [f"--inventory={each}" for each in (own, self.inventory) if each.exists()]
        done = subprocess.run(
            ["ansible-playbook", *inventories, str(file), *more],
            env={**os.environ, "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORKS": "2"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return Played(done.stdout)


class Played:
    def __init__(self, output: str) -> None:
        self.output = output

    def count(self, what: str) -> dict[str, int]:
        """Of each host, by its recap: changed, failed."""
        found = re.findall(rf"^(\S+) +: .*\b{what}=(\d+)", self.output, re.MULTILINE)
        return {name: int(number) for name, number in found}


# -- a fleet ------------------------------------------------------------------------------------------------------

FLEET = [f"kvm{number}.example.com" for number in (1, 2, 3)]


@pytest.fixture
def fleet(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path, FLEET)


def each(number: int) -> dict[str, int]:
    return dict.fromkeys(FLEET, number)


def test_a_fleet_is_told_what_would_be_done_then_done_one_batch_after_the_other(fleet: Hosts) -> None:
    assert fleet.play("fleet/site.yml", "--check", "--diff").count("changed") == each(2)
    assert not any(fleet.images(name).exists() for name in FLEET)
    played = fleet.play("fleet/site.yml")
    assert played.count("changed") == each(2)
    assert played.output.count("PLAY [Storage of the fleet]") == 3
    assert sorted(path.name for path in fleet.images(FLEET[0]).glob("*.qcow2")) == ["db1.qcow2", "web1.qcow2"]
    assert fleet.play("fleet/site.yml").count("changed") == each(0)


def test_where_the_first_host_fails_the_others_are_left_as_they_are(fleet: Hosts) -> None:
    fleet.images(FLEET[0]).write_text("no directory", encoding="utf-8")
    played = fleet.play("fleet/site.yml", status=2)
    assert played.count("failed") == {FLEET[0]: 1}
    assert not any(fleet.images(name).exists() for name in FLEET[1:])


def test_the_audit_names_what_differs_and_where_and_changes_nothing(fleet: Hosts) -> None:
    fleet.play("fleet/site.yml")
    fleet.images(FLEET[0]).chmod(0o755)
    (fleet.images(FLEET[1]) / "web2.qcow2").unlink()
    played = fleet.play("fleet/audit.yml", status=2)
    assert played.count("failed") == {FLEET[0]: 1, FLEET[1]: 1, FLEET[2]: 0}
    assert f"pool images: set mode of {fleet.images(FLEET[0])}" in played.output
    assert "volume images/web2.qcow2: create it" in played.output
    assert fleet.images(FLEET[0]).stat().st_mode & 0o777 == 0o755
    assert not (fleet.images(FLEET[1]) / "web2.qcow2").exists()
    fleet.play("fleet/site.yml")
    assert fleet.play("fleet/audit.yml").count("failed") == each(0)


# -- a hypervisor for tests ---------------------------------------------------------------------------------------


@pytest.fixture
def hypervisor(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path, ["hypervisor"])
    published = tmp_path / "published.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(published), "8M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 7 0 64k", str(published)], check=True, capture_output=True)
    return hosts


def settings(hosts: Hosts) -> list[str]:
    published = hosts.root / "published.qcow2"
    told = {
        "ci_path": str(hosts.images("hypervisor")),
        "ci_image": published.as_uri(),
        "ci_checksum": f"sha256:{hashlib.sha256(published.read_bytes()).hexdigest()}",
        "ci_download": str(hosts.root / "download.qcow2"),
    }
    return ["--extra-vars", json.dumps(told)]


def reads(path: Path, pattern: int) -> bool:
    """Whether the first 64 KiB are of that byte, as a guest would see them."""
    looked = subprocess.run(
        ["qemu-io", "--read-only", "-c", f"read -P {pattern} 0 64k", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return looked.returncode == 0 and "failed" not in looked.stdout


def write(path: Path) -> None:
    """What a job leaves."""
    subprocess.run(["qemu-io", "-c", "write -P 9 0 64k", str(path)], check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("qemu-io"), reason="needs qemu-io (Debian: qemu-utils)")
def test_a_hypervisor_for_tests_has_thirty_disks_that_are_reset_between_jobs(hypervisor: Hosts) -> None:
    vars_of_it = settings(hypervisor)
    assert hypervisor.play("ci/provision.yml", *vars_of_it).count("changed") == {"hypervisor": 4}
    assert hypervisor.play("ci/provision.yml", *vars_of_it).count("changed") == {"hypervisor": 0}
    pool = hypervisor.images("hypervisor")
    disks = [pool / f"job{number}.qcow2" for number in range(1, 31)]
    assert sorted(pool.glob("job*")) == sorted(disks)
    assert backing_of(disks[29]) == str(pool / "base.qcow2")
    for disk in disks[:3]:
        write(disk)
    hypervisor.play("ci/reset.yml", *vars_of_it, "--extra-vars", "job=2")
    assert [reads(disk, 7) for disk in disks[:3]] == [False, True, False]
    hypervisor.play("ci/reset.yml", *vars_of_it)
    assert all(reads(disk, 7) for disk in disks)
    assert backing_of(disks[0]) == str(pool / "base.qcow2")


def backing_of(path: Path) -> Any:
    told = subprocess.run(["qemu-img", "info", "--output=json", str(path)], capture_output=True, check=True)
    return json.loads(told.stdout)["full-backing-filename"]


def test_each_playbook_is_run_by_a_test() -> None:
    """This file and the demo have all that can be started."""
    run = set(re.findall(r'"(\w+/\w+\.yml)"', Path(__file__).read_text(encoding="utf-8"))) | {"quickstart.yml"}
    plays = {
        str(path.relative_to(EXAMPLES))
        for path in EXAMPLES.rglob("*.yml")
        if re.search(r"^  hosts: ", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert plays == run
