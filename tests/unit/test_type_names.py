# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of a type of pool is in its row, its backend and libvirt's XML: nobody else asks what a type is called.

So a new type is a row, a backend and a page, and no search for all the places that know types by their names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ansible_collections.virt.storage.plugins.module_utils.backends.by_type import backend_of, finder_of
from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
ROOT = PLUGINS / "module_utils"
#: Where types have names: the table, the way from a name to its modules, and what libvirt writes.
ROOMS = ("model/types.py", "backends/by_type.py", "libvirt_xml/")
#: What is called like a type and is none.
OTHERS = {
    ("backends/filetree.py", "dir"): "a type of volumes",
    ("declare/pools.py", "dir"): "an option of source",
    ("host/block.py", "disk"): "a kind of devices",
    **{("model/blockdev.py", name): "a driver of QEMU's" for name in ("gluster", "iscsi", "rbd", "sheepdog")},
    ("model/packages.py", "gluster"): "a tool",
    ("model/secrets.py", "iscsi"): "what a secret is used by",
    ("report/records.py", "logical"): "a kind of partitions",
    ("report/sources.py", "dir"): "a field of Source",
}


def named(source: str) -> Iterator[tuple[int, str]]:
    """Where the name of a type is written: (line, name)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in POOL_TYPES:
            yield node.lineno, node.value


def compared(source: str) -> Iterator[int]:
    """Lines that ask which row it is."""
    for node in ast.walk(ast.parse(source)):
        for each in [node.left, *node.comparators] if isinstance(node, ast.Compare) else ():
            if isinstance(each, ast.Attribute) and each.attr == "name" and ast.unparse(each.value).endswith("row"):
                yield node.lineno


def has_names(path: str) -> bool:
    """A backend's files are called after its type."""
    room, _slash, name = path.rpartition("/")
    of_type = room == "backends" and re.split(r"[_.]", name)[0] in POOL_TYPES
    return of_type or path.startswith(ROOMS)


FILES = [path for path in sorted(ROOT.rglob("*.py")) if not has_names(path.relative_to(ROOT).as_posix())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_type_is_known_by_its_name(path: Path) -> None:
    source, file = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    assert [(line, name) for line, name in named(source) if (file, name) not in OTHERS] == []
    assert list(compared(source)) == []


@pytest.mark.parametrize(("file", "name"), OTHERS, ids=lambda value: value)
def test_no_exception_is_left_over(file: str, name: str) -> None:
    assert name in [found for _line, found in named((ROOT / file).read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "source", ["pool.type == 'scsi'", "TAKEN = ('iscsi', 'x')", "{'zfs': 1}", "kind in {'netfs'}", "f(kind='mpath')"]
)
def test_the_check_sees_names(source: str) -> None:
    assert list(named(source))


@pytest.mark.parametrize("source", ["row.name == kind", "found.row.name in TAKEN", "kind != self.found.row.name"])
def test_the_check_sees_comparisons(source: str) -> None:
    assert list(compared(source)) == [1]


# -- the table and what it leads to agree -------------------------------------------------------------------------


@pytest.mark.parametrize("row", POOL_TYPES.values(), ids=lambda row: row.name)
def test_who_has_a_backend_says_what_it_can(row):
    assert row.native == () or backend_of(row.name) is not None
    assert row.sources == () or finder_of(row.name) is not None
    assert row.sources != () or finder_of(row.name) is None


def choices(module: str) -> list[str]:
    text = (PLUGINS / "modules" / f"{module}.py").read_text(encoding="utf-8")
    documentation = re.search(r'^DOCUMENTATION = r"""\n(.*?)^"""$', text, re.MULTILINE | re.DOTALL)
    assert documentation is not None
    return yaml.safe_load(documentation[1])["options"]["type"]["choices"]


def test_the_types_that_can_be_declared():
    assert choices("storage_pool") == list(POOL_TYPES)


def test_the_types_whose_sources_can_be_asked_for():
    assert set(choices("storage_pool_sources")) == {name for name, row in POOL_TYPES.items() if row.sources}
