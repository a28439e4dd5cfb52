# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles on distributions that the lab does not have: what they ask stand-ins for the tools of these, and what they make
of the answers. On real storage the scenarios of tests/molecule run them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.needs_ansible

ROOT = Path(__file__).resolve().parents[2]


class Stage:
    """Plays a role's tasks on this machine, with stand-ins for some of its tools."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir()

    def tool(self, name: str, script: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(f'#!/bin/sh\necho "$0" "$@" >> {self.directory}/calls\n{script}\n', encoding="utf-8")
        path.chmod(0o755)

    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def play(self, role: str, entry: str, facts: dict[str, Any], *more: str, **variables: Any) -> Any:
        """What ansible-playbook says, and the packages that it found missing."""
        include = {"ansible.builtin.include_role": {"name": f"virt.storage.{role}", "tasks_from": entry}}
        tasks = [
            {"ansible.builtin.set_fact": {"os_family": "RedHat", **facts, "cacheable": True}},
            {**include, "vars": variables},
        ]
        return self.run({"tasks": tasks}, "packages_missing | default([])", *more)

    def run(self, play: dict[str, Any], expression: str, *more: str) -> Any:
        """What ansible-playbook says of a play, and the value of an expression at its end."""
        told = self.directory / "told.json"
        told.unlink(missing_ok=True)
        last = {
            "ansible.builtin.copy": {"content": f"{{{{ {expression} | to_json }}}}", "dest": str(told), "mode": "0600"},
            "check_mode": False,
            "changed_when": False,
            "diff": False,
        }
        play = {"hosts": "localhost", "gather_facts": False, **play, "tasks": [*play.get("tasks", []), last]}
        playbook = self.directory / "play.yml"
        playbook.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
        local = [
            "--inventory=localhost,",
            "--connection=local",
            f"--extra-vars=ansible_python_interpreter={sys.executable}",
        ]
        done = subprocess.run(
            ["ansible-playbook", *local, str(playbook), *more],
            env={**os.environ, "PATH": f"{self.directory}/bin:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done, json.loads(told.read_text(encoding="utf-8")) if told.exists() else None


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


#: How each database says that it has lxml and nothing else; its argument is the last one.
LXML_ONLY = {
    "Debian": ("dpkg-query", 'for last; do :; done; test "$last" = python3-lxml && printf installed'),
    "RedHat": ("rpm", 'for last; do :; done; test "$last" = python3-lxml'),
    "Suse": ("rpm", 'for last; do :; done; test "$last" = python3-lxml'),
    "Archlinux": ("pacman", 'for last; do :; done; test "$last" = python-lxml || { echo "$last"; exit 127; }'),
}
MISSING = {
    "Debian": ["python3-libvirt", "lvm2", "thin-provisioning-tools"],
    "RedHat": ["python3-libvirt", "lvm2", "device-mapper-persistent-data"],
    "Suse": ["python3-libvirt-python", "lvm2", "thin-provisioning-tools"],
    "Archlinux": ["libvirt-python", "lvm2", "thin-provisioning-tools"],
}


@pytest.mark.thorough
@pytest.mark.parametrize(("family", "daemon"), [*((family, True) for family in LXML_ONLY), ("RedHat", False)])
def test_what_is_missing_is_told_by_the_package_database(stage: Stage, family: str, daemon: bool) -> None:
    stage.tool(*LXML_ONLY[family])
    stage.tool("virtstoraged", "exit 1")
    daemons = [str(stage.directory / "bin" / "virtstoraged")] if daemon else []
    facts = {"os_family": family, "pkg_mgr": "none", "selinux": {}, "distribution": family}
    played, missing = stage.play(
        "packages",
        "main",
        facts,
        "--check",
        "--extra-vars",
        json.dumps({"packages_daemons": daemons}),
        packages_tools=["lvm", "thin_check"],
    )
    assert played.returncode == 0, played.stdout
    assert missing == sorted(MISSING[family][0 if daemon else 1 :])
    assert "changed=1 " in played.stdout


INSTALLS = """
import json

from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({"name": {"type": "list"}, "state": {"type": "str"}, "update_cache": {"type": "bool"}})
with open("%s", "a") as told:
    print(json.dumps(module.params), file=told)
module.exit_json(changed=True)
"""


@pytest.mark.thorough
def test_what_is_missing_is_installed_and_nothing_else(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of the package manager is a stand-in, which ansible.builtin.package finds by its name."""
    stage.tool(*LXML_ONLY["Suse"])
    (stage.directory / "zypper.py").write_text(INSTALLS % (stage.directory / "installed"), encoding="utf-8")
    monkeypatch.setenv("ANSIBLE_LIBRARY", str(stage.directory))
    facts = {"os_family": "Suse", "pkg_mgr": "zypper", "selinux": {}, "distribution": "SLES"}
    no_daemon = json.dumps({"packages_daemons": []})
    played, missing = stage.play("packages", "main", facts, "--extra-vars", no_daemon, packages_tools=["lvm"])
    assert missing == ["lvm2"], played.stdout + played.stderr
    assert "changed=1 " in played.stdout
    stage.tool("rpm", "exit 0")
    played, missing = stage.play("packages", "main", facts, "--extra-vars", no_daemon, packages_tools=["lvm"])
    assert missing == []
    assert "changed=0 " in played.stdout
    told = [json.loads(line) for line in (stage.directory / "installed").read_text(encoding="utf-8").splitlines()]
    assert told == [{"name": ["lvm2"], "state": "present", "update_cache": True}]


@pytest.mark.thorough
def test_a_distribution_that_has_no_such_package_is_refused(stage: Stage) -> None:
    facts = {"os_family": "Archlinux", "pkg_mgr": "none", "selinux": {}, "distribution": "Archlinux"}
    played, _missing = stage.play("packages", "main", facts, packages_tools=["mkfs.gfs2"])
    assert played.returncode == 2
    assert "Archlinux has no package that is known here for each of mkfs.gfs2" in played.stdout + played.stderr


@pytest.mark.thorough
def test_a_word_that_is_no_tool_is_refused(stage: Stage) -> None:
    played, _missing = stage.play("packages", "main", {}, packages_tools=["lvm3"])
    assert played.returncode == 2
    assert "lvm3" in played.stdout + played.stderr


@pytest.mark.thorough
def test_selinux_lets_guests_use_nfs(stage: Stage) -> None:
    state = stage.directory / "virt_use_nfs"
    state.write_text("off", encoding="utf-8")
    stage.tool("getsebool", f'echo "virt_use_nfs --> $(cat {state})"')
    stage.tool("setsebool", f'test "$*" = "-P virt_use_nfs on" && echo -n on > {state}')
    for mode, counts, then in ((["--check"], 1, "off"), ([], 1, "on"), ([], 0, "on")):
        played, _missing = stage.play("nfs_pool", "selinux", {}, *mode)
        assert f"changed={counts} " in played.stdout
        assert state.read_text(encoding="utf-8") == then
    assert sum("setsebool" in call for call in stage.calls()) == 1


#: What a role makes of lists that are given as text, as modules take them, in the words of its own variables.
TEXTS = {
    "nfs_pool": (
        {"nfs_pool_dir": "/srv/vm", "nfs_pool_clients": "192.0.2.0/24, kvm1", "nfs_pool_export_options": "rw,sync"},
        {"nfs_pool_line": "/srv/vm 192.0.2.0/24(rw,sync) kvm1(rw,sync)"},
    ),
    "lvm_pool": ({"lvm_pool_allow": "overwrite, shrink"}, {"lvm_pool_allowed": ["overwrite", "shrink"]}),
    "iscsi_pool": (
        {
            "iscsi_pool_hosts": "192.0.2.1",
            "iscsi_pool_portals": "0.0.0.0,[::]:3261",
            "iscsi_pool_allow": "in_use, shrink, overwrite",
            "iscsi_pool_upper": {"name": "guests", "luns": "0, 2"},
        },
        {
            "iscsi_pool_each_host": ["192.0.2.1"],
            "iscsi_pool_each_portal": ["0.0.0.0", "[::]:3261"],
            "iscsi_pool_lower_allow": ["in_use"],
            "iscsi_pool_of_volumes": ["in_use", "shrink"],
            "iscsi_pool_units_above": ["unit:0:0:0", "unit:0:0:2"],
        },
    ),
    "packages": ({"packages_tools": "lvm, parted"}, {"packages_each_tool": ["lvm", "parted"]}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("role", TEXTS)
def test_a_list_may_be_given_as_text(stage: Stage, role: str) -> None:
    given, made = TEXTS[role]
    expression = "{" + ", ".join(f"'{name}': {name}" for name in made) + "}"
    play = {"vars": given, "vars_files": [str(ROOT / "roles" / role / "vars" / "main.yml")]}
    played, told = stage.run(play, expression)
    assert played.returncode == 0, played.stdout
    told = {name: value if isinstance(value, str) else sorted(value) for name, value in told.items()}
    assert told == {name: value if isinstance(value, str) else sorted(value) for name, value in made.items()}


@pytest.mark.thorough
@pytest.mark.parametrize(("given", "written"), [(True, "yes"), (False, "no"), ("no", "no"), ("greedy", "greedy")])
def test_a_plain_yes_is_a_word_of_multipath(stage: Stage, given: bool | str, written: str) -> None:
    play = {
        "vars": {"iscsi_pool_find_multipaths": given},
        "vars_files": [str(ROOT / "roles" / "iscsi_pool" / "vars" / "main.yml")],
    }
    _played, told = stage.run(play, "iscsi_pool_with_map")
    assert told == written


SERVED = {
    "iscsi_pool_iqn": "iqn.2026-01.org.example:vm",
    "iscsi_pool_initiators": [{"iqn": "iqn.2026-01.org.example:kvm"}],
}
#: An entry of a role, what it is told, and what its plan shows.
UNTOUCHED = {
    "nfs_pool server": (
        {"nfs_pool_dir": "/srv/vm", "nfs_pool_clients": ["kvm1"]},
        "+/srv/vm kvm1(rw,sync,no_subtree_check)",
    ),
    "iscsi_pool initiator": (
        {"iscsi_pool_initiator": "iqn.2026-01.org.example:x"},
        "+InitiatorName=iqn.2026-01.org.example:x",
    ),
    "iscsi_pool multipath": ({"iscsi_pool_find_multipaths": True}, "+    find_multipaths yes"),
    "iscsi_pool target": (SERVED, "the portal 0.0.0.0:3260"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("entry", UNTOUCHED)
def test_check_mode_shows_a_plan_where_no_unit_is_installed(stage: Stage, entry: str) -> None:
    """Also where packages are somebody else's business."""
    stage.tool("systemctl", "exit 1")
    given, shown = UNTOUCHED[entry]
    role, name = entry.split()
    if name == "target":
        given = {**given, "iscsi_pool_luns": [{"path": f"{stage.directory}/one.img", "size": "1M"}]}
    play = {
        "vars": {**given, f"{role}_packages": False, "nfs_pool_owner": "root"},
        "tasks": [
            {"ansible.builtin.set_fact": {"os_family": "Debian", "pkg_mgr": "apt", "selinux": {}, "cacheable": True}},
            {"ansible.builtin.include_role": {"name": f"virt.storage.{role}", "tasks_from": name}},
        ],
    }
    played, _told = stage.run(play, "1", "--check", "--diff")
    assert played.returncode == 0, played.stdout
    assert shown in played.stdout


@pytest.mark.thorough
def test_a_target_that_nothing_restores_is_told(stage: Stage) -> None:
    """The program that serves is told to look only."""
    stage.tool("systemctl", "exit 0")
    luns = [{"path": f"{stage.directory}/one.img", "size": "1M"}]
    looking = {
        "check": True,
        "state": "present",
        "iqn": SERVED["iscsi_pool_iqn"],
        "luns": luns,
        "initiators": SERVED["iscsi_pool_initiators"],
        "portals": ["0.0.0.0"],
        "in_use": False,
    }
    only = json.dumps({"iscsi_pool_declared": looking})
    more = {"iscsi_pool_luns": luns, "iscsi_pool_packages": False}
    played, _missing = stage.play("iscsi_pool", "target", {}, "--extra-vars", only, **SERVED, **more)
    assert played.returncode == 2
    assert "nothing on this host restores it at boot" in played.stdout + played.stderr


#: What the look at the exports of /srv/vm said, who lacks it as it is declared, and what is done about others.
EXPORTED = {
    "as declared": ("served: kvm1 rw sys \nserved: fd00::/64 rw sys ", [], "true"),
    "nothing": ("", ["fd00::/64", "kvm1"], "true"),
    "others too": (
        "served: kvm1 rw sys \nserved: fd00::/64 no_root_squash rw sys \nserved: fd01::/64 rw sys \nserved: * sys ",
        ["fd00::/64"],
        "/usr/sbin/exportfs -u '*:/srv/vm' '[fd01::/64]:/srv/vm'",
    ),
    "by another name": (
        "named: kvm1 kvm1.example.com\nserved: kvm1.example.com rw sys \nserved: fd00::/64 rw sys ",
        [],
        "true",
    ),
    "otherwise by another name": (
        "named: kvm1 k.example.com\nserved: k.example.com sys ",
        ["fd00::/64", "kvm1"],
        "true",
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", EXPORTED)
def test_what_is_exported_is_compared_with_what_is_declared(stage: Stage, case: str) -> None:
    served, unlike, unexport = EXPORTED[case]
    play = {
        "vars": {
            "nfs_pool_dir": "/srv/vm",
            "nfs_pool_clients": ["kvm1", "fd00::/64"],
            "nfs_pool_export_options": ["rw", "sync"],
            "nfs_pool_state": "present",
            "nfs_pool_look": {"stdout": f"unit: nfs-server\ndeclared: rw sys \n{served}"},
        },
        "vars_files": [str(ROOT / "roles" / "nfs_pool" / "vars" / "main.yml")],
    }
    played, told = stage.run(play, "[nfs_pool_unlike | sort, nfs_pool_unexport, nfs_pool_compared_options | join(',')]")
    assert played.returncode == 0, played.stdout
    assert told == [unlike, unexport, "rw,sync,sec=sys"]
