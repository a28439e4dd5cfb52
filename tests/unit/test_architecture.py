# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rooms of plugins/module_utils and the one direction in which they may import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
PACKAGE = ("ansible_collections", "virt", "storage", "plugins")

#: Room: the rooms it may import, besides itself.
MAY_IMPORT = {
    "model": set(),
    "libvirt_xml": {"model"},
    "declare": {"model", "libvirt_xml"},
    "decide": {"model"},
    "host": {"model"},
    "images": {"model", "host"},
    "backends": {"model", "host", "images"},
    "engines": {"model", "libvirt_xml", "host", "backends", "images"},
    "report": {"model", "libvirt_xml"},
}
MAY_IMPORT["tasks"] = {*MAY_IMPORT, "converge"}
#: The one file beside the rooms: it ties them together.
TOP = {"converge": set(MAY_IMPORT) - {"tasks"}}
#: What modules and other plugins may see.
FOR_MODULES = {"tasks"}


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every name that is imported anywhere in the file, in full: (line, path of names)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                if node.level > len(package):
                    raise AssertionError(f"line {node.lineno}: a relative import that climbs out of the collection")
                module = package[: len(package) - node.level + 1] + module
            for alias in node.names:
                yield node.lineno, (*module, alias.name)


def rooms_imported(source: str, package: tuple[str, ...]) -> list[tuple[int, str]]:
    """The rooms of ours that a file imports; "" for what is ours and in no room."""
    found = []
    for line, path in imported(ast.parse(source), package):
        if path[:3] == PACKAGE[:3]:
            inside = path[len(PACKAGE) : len(PACKAGE) + 2]
            is_room = path[: len(PACKAGE)] == PACKAGE and inside[:1] == ("module_utils",) and len(inside) == 2
            found.append((line, inside[1] if is_room else ""))
    return found


def imports_by_name(source: str) -> list[int]:
    """Lines that import what only a running program knows."""
    tree = ast.parse(source)
    loaders = ("importlib", "imp", "runpy", "pkgutil")
    lines = [line for line, path in imported(tree, PACKAGE * 3) if path[0] in loaders]
    lines += [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "__import__")
        or (isinstance(node, ast.Attribute) and node.attr in ("__import__", "import_module"))
    ]
    return sorted(lines)


def package_of(path: Path) -> tuple[str, ...]:
    return PACKAGE + path.relative_to(PLUGINS).parts[:-1]


def violations(path: Path) -> list[str]:
    parts = path.relative_to(PLUGINS).parts
    if parts[0] != "module_utils":
        owner, allowed = parts[0], FOR_MODULES
    elif len(parts) == 2:
        owner = path.stem
        if owner == "__init__":
            allowed = set()
        elif owner in TOP:
            allowed = TOP[owner]
        else:
            return [f"{path.relative_to(PLUGINS)} is in no room"]
    else:
        owner = parts[1]
        if owner not in MAY_IMPORT:
            return [f"{path.relative_to(PLUGINS)}: no such room, {owner}"]
        allowed = MAY_IMPORT[owner] | {owner}
    source = path.read_text(encoding="utf-8")
    return [
        f"{path.relative_to(PLUGINS)}:{line}: {owner} may not import {room or 'this'}"
        for line, room in rooms_imported(source, package_of(path))
        if room not in allowed
    ]


FILES = sorted(PLUGINS.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PLUGINS)))
def test_imports_go_one_way(path: Path) -> None:
    assert violations(path) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PLUGINS)))
def test_everything_imported_can_be_seen_by_ansible(path: Path) -> None:
    """Ansible sends a host the files whose import statements it can read, and no others."""
    assert imports_by_name(path.read_text(encoding="utf-8")) == []


def test_the_rooms_have_no_cycle() -> None:
    def below(room: str, seen: tuple[str, ...] = ()) -> None:
        assert room not in seen, " -> ".join((*seen, room))
        for other in {**MAY_IMPORT, **TOP}[room]:
            below(other, (*seen, room))

    for room in MAY_IMPORT:
        below(room)


@pytest.mark.parametrize(
    ("statement", "rooms"),
    [
        ("from ..model.units import parse", ["model"]),
        ("from ..model import units", ["model"]),
        ("from .. import model", ["model"]),
        ("from . import files", ["host"]),
        ("from .files import publish", ["host"]),
        ("def f():\n    from ..decide import pools", ["decide"]),
        ("from ansible_collections.virt.storage.plugins.module_utils.decide.pools import x", ["decide"]),
        ("from ansible_collections.virt.storage.plugins.module_utils import converge", ["converge"]),
        ("import ansible_collections.virt.storage.plugins.module_utils.report.diff as d", ["report"]),
        ("from ...modules import storage_pool", [""]),
        ("from ansible.module_utils.basic import AnsibleModule\nimport os, json", []),
    ],
)
def test_the_check_reads_every_form_of_import(statement: str, rooms: list[str]) -> None:
    assert [room for _line, room in rooms_imported(statement, (*PACKAGE, "module_utils", "host"))] == rooms


@pytest.mark.parametrize(
    "statement",
    ["import importlib", "from importlib import import_module", "x = __import__('os')", "builtins.__import__('os')"],
)
def test_the_check_sees_imports_by_name(statement: str) -> None:
    assert imports_by_name(statement)
