# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles say of each variable what it is, in their argument specs and in their pages; packages have one source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.virt.storage.plugins.module_utils.model.packages import FAMILIES, PACKAGES

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent for path in (ROOT / "roles").glob("*/tasks/main.yml"))
#: Ansible's os_family, in the order of model/packages.py.
OS_FAMILIES = ("Debian", "RedHat", "Suse", "Archlinux")
_EXAMPLE = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Ansible notes these, or a role finds them out: nobody sets them.
_FOUND = re.compile(r"^\s+(?:register: |ansible\.builtin\.set_fact:\n\s+)(\w+)", re.MULTILINE)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def specs(role: Path) -> dict[str, Any]:
    return read(role / "meta" / "argument_specs.yml")["argument_specs"]


def texts(role: Path) -> str:
    parts = [path for part in ("tasks", "vars", "defaults") for path in sorted((role / part).glob("*.yml"))]
    return "".join(path.read_text(encoding="utf-8") for path in parts)


def of_role(role: Path, text: str) -> set[str]:
    """The variables of a role that a text has."""
    return set(re.findall(rf"\b{role.name}_\w+\b", text))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_each_variable_is_in_an_argument_spec(role: Path) -> None:
    specified = {name for entry in specs(role).values() for name in entry.get("options", {})}
    inner = set(read(role / "vars" / "main.yml")) | set(_FOUND.findall(texts(role)))
    assert of_role(role, texts(role)) - inner == specified
    assert not specified & inner
    assert set(read(role / "defaults" / "main.yml")) <= specified


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_those_of_the_argument_specs(role: Path) -> None:
    defaults = read(role / "defaults" / "main.yml")
    told = {
        name: option["default"]
        for entry, spec in specs(role).items()
        for name, option in spec.get("options", {}).items()
        if "default" in option and (entry == "main" or name not in specs(role)["main"]["options"])
    }
    templated = {name for name, value in defaults.items() if "{{" in str(value)}
    assert told == {name: value for name, value in defaults.items() if name not in templated}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_each_entry_point_has_its_tasks_and_its_words(role: Path) -> None:
    for name, spec in specs(role).items():
        assert (role / "tasks" / f"{name}.yml").exists()
        assert spec["short_description"]
        assert spec["description"]
        assert all(option.get("description") for option in spec.get("options", {}).values())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_page_of_a_role_has_its_variables_and_a_short_example(role: Path) -> None:
    page = (role / "README.md").read_text(encoding="utf-8")
    rows = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert rows == {name for spec in specs(role).values() for name in spec.get("options", {})}
    examples = _EXAMPLE.findall(page)
    assert examples
    assert all(len(example.splitlines()) <= 10 for example in examples)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_roles_use_nothing_but_ansible_itself_and_the_collection(role: Path) -> None:
    for path in (role / "tasks").glob("*.yml"):
        actions = {key for task in read(path) for key in task if "." in key}
        assert actions
        assert {action.rpartition(".")[0] for action in actions} <= {"ansible.builtin", "virt.storage"}


def test_packages_have_the_names_of_the_table() -> None:
    role = ROOT / "roles" / "packages"
    known = read(role / "vars" / "main.yml")
    assert len(FAMILIES) == len(OS_FAMILIES)
    for tool, names in known["packages_names"].items():
        plain = [re.sub(r" \(.*\)$", "", name) for name in PACKAGES[tool]]  # without what is for old versions
        assert names == dict(zip(OS_FAMILIES, plain)), tool
    assert tuple(known["packages_tests"]) == OS_FAMILIES
    offered = specs(role)["main"]["options"]["packages_tools"]["choices"]
    assert offered == [tool for tool in known["packages_names"] if not tool.endswith(" for Python")]


def test_what_the_roles_ask_for_is_offered() -> None:
    offered = set(specs(ROOT / "roles" / "packages")["main"]["options"]["packages_tools"]["choices"])
    asked = {
        tool for role in ROLES for line in re.findall(r"packages_tools: (.*)", texts(role)) for tool in _words(line)
    }
    assert {"mount.nfs", "exportfs", "lvm", "thin_check"} <= asked <= offered


def _words(line: str) -> list[str]:
    """Those of a list, or of an expression."""
    return re.findall(r"'([\w.-]+)'", line) or re.findall(r"[\w.-]+", line)


def test_the_daemons_are_those_that_the_modules_look_for() -> None:
    text = (ROOT / "plugins" / "module_utils" / "engines" / "select.py").read_text(encoding="utf-8")
    looked_for = re.findall(r'"(/usr/\w+/\w+)"', text)
    assert read(ROOT / "roles" / "packages" / "vars" / "main.yml")["packages_daemons"] == looked_for
