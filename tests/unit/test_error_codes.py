# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/errors.md lists exactly the error codes that the code can end with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = sorted((REPOSITORY / "plugins" / "module_utils").rglob("*.py"))
DOCUMENT = REPOSITORY / "docs" / "errors.md"
#: Codes that are put together from parts, and what they come to.
COMPOSED = {"unknown_{}": {"unknown_owner", "unknown_group"}}
_IS_CODE = re.compile(r"[a-z]+(_[a-z]+)*\Z")


def texts(node: ast.expr) -> Iterator[str]:
    """What an expression can come to, as far as it is written down; of a tuple, its first item."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple):
        yield from texts(node.elts[0])
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from texts(value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        yield from texts(node.args[-1])  # what is taken when a table has nothing
    elif isinstance(node, ast.JoinedStr):
        composed = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        yield from COMPOSED[composed]


def raising_functions(trees: list[ast.Module]) -> dict[str, int]:
    """Functions that take an error code, and the place of that argument."""
    found = {"StorageError": 0, "Problem": 0}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [argument.arg for argument in node.args.args if argument.arg != "self"]
                if "code" in names and node.name != "__init__":
                    found[node.name] = names.index("code")
    return found


def codes_of(trees: list[ast.Module]) -> set[str]:
    functions = raising_functions(trees)
    codes: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            place = functions.get(name)
            if place is not None and len(node.args) > place:
                codes.update(texts(node.args[place]))
            codes.update(code for keyword in node.keywords if keyword.arg == "code" for code in texts(keyword.value))
    for tree in trees:
        codes.update(_assigned(tree))
    return {code for code in codes if _IS_CODE.match(code)}


def _assigned(tree: ast.Module) -> Iterator[str]:
    """``code, … = …``; tables named ``…_CODES``, of codes or of what starts with one; loops over ``code, …``."""
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            names = [part.id for part in ast.walk(target) if isinstance(part, ast.Name)]
            for name in names:
                values.setdefault(name, []).append(node.value)
            if names and names[0] == "code":
                yield from texts(node.value)
            elif names and names[0].endswith("_CODES"):
                yield from _each(node.value)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.For)
            and isinstance(node.target, ast.Tuple)
            and ast.unparse(node.target.elts[0]) == "code"
        ):
            tables = values.get(node.iter.id, []) if isinstance(node.iter, ast.Name) else [node.iter]
            for table in tables:
                yield from _each(table)


def _each(table: ast.expr) -> Iterator[str]:
    for item in table.values if isinstance(table, ast.Dict) else getattr(table, "elts", []):
        yield from texts(item)


def in_code() -> set[str]:
    return codes_of([ast.parse(path.read_text(encoding="utf-8")) for path in CODE])


def in_document() -> list[str]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)


def test_every_code_is_documented() -> None:
    assert sorted(in_code() - set(in_document())) == []


def test_every_documented_code_is_in_the_code() -> None:
    assert sorted(set(in_document()) - in_code()) == []


def unhelpful(source: str, needed: tuple[str, ...]) -> list[str]:
    """The errors that a file makes without one of these."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    errors = [call for call in calls if getattr(call.func, "id", "") == "StorageError"]
    return [
        f"line {call.lineno}: no {name}"
        for call in errors
        for name in needed
        if name not in {keyword.arg for keyword in call.keywords if ast.unparse(keyword.value) not in ("''", "None")}
    ]


@pytest.mark.parametrize("path", CODE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_error_says_what_to_do_and_of_what_it_is(path: Path) -> None:
    """What is wrong with an option is told by the message alone."""
    of_options = path.parent.name in ("declare", "tasks")
    assert unhelpful(path.read_text(encoding="utf-8"), ("hint",) if of_options else ("hint", "subject")) == []


def test_an_error_without_a_hint_is_noticed() -> None:
    assert unhelpful('StorageError("a", "b", subject="c", hint="")', ("hint", "subject")) == ["line 1: no hint"]
    assert unhelpful('StorageError("a", "b", subject=c, hint=d)', ("hint", "subject")) == []


def test_no_code_is_documented_twice() -> None:
    assert sorted(in_document()) == sorted(set(in_document()))


def test_other_pages_name_only_codes_that_there_are() -> None:
    known = set(in_document())
    for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]:
        for code in re.findall(r"\(`([a-z]+_[a-z_]+)`\)|# refused: ([a-z_]+)", page.read_text(encoding="utf-8")):
            assert set(filter(None, code)) <= known, f"{page.name}: {code}"


def test_the_search_finds_every_way_to_write_a_code() -> None:
    source = """
_SOME_CODES = {1: ("in_table", "text"), 2: "in_short_table"}
def _refuse(subject, code): raise StorageError(code, "text")
raise StorageError("plain", "text")
raise StorageError("either" if x else "or_else", "text")
raise StorageError(found.code or "fallback", "text")
_refuse("pool", "passed_on")
code, problem = "assigned", "Some words"
groups = (("looped", 1), ("looped_too", 2))
for code, group in groups: pass
code, text = _SOME_CODES.get(2, ("not_in_table", "text"))
"""
    expected = {"in_table", "in_short_table", "plain", "either", "or_else", "fallback", "passed_on", "assigned"}
    expected |= {"looped", "looped_too", "not_in_table"}
    assert expected <= codes_of([ast.parse(source)])
