# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What libvirt itself makes of made-up definitions, by its test driver, against what we make of them."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest

from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import (
    parse_pool,
    render_pool,
)
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.volume import (
    parse_found_volume,
    parse_volume,
    render_found_volume,
    render_volume,
)
from ansible_collections.virt.storage.plugins.module_utils.model.definition import with_defaults
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

from .xml_cases import FS, KINDS, RBD, Case, Judged, damaged, has_binding, judge, pools, volumes

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.skipif(not has_binding(), reason="libvirt's Python binding is not installed"),
]

_EACH = 60
# Where we differ, on purpose: by libvirt's words or by ours.
_DIFFERING = (
    r"^XML error: missing capacity element",  # a backing, a source or what is there can give it, which is seen later
    r"option: the attribute \w+ is missing",  # the test driver doesn't look into these
    r"source/host/port: '-1'",  # libvirt takes it, and has no port then
    r"source/device: the attribute path is missing",  # libvirt takes an empty path as one
    r"its value has no place here",  # a secret that is written into the XML
)
_DECLARED = re.compile(r" xmlns:(?:fs|rbd)='.*?'")
_OPTIONS = re.compile(r"  <(fs|rbd):(\w+)>.*?</\1:\2>\n", re.DOTALL)
# The driver says that a pool holds 100 GiB.
_SIZES = re.compile(r"<(capacity|allocation|available) unit='bytes'>\d+<")


@pytest.fixture(scope="module")
def judged_pools() -> list[Judged]:
    return judge(pools(_EACH))


@pytest.fixture(scope="module")
def judged_volumes() -> list[Judged]:
    return judge(volumes(_EACH))


def unsized(text: str) -> str:
    return _SIZES.sub(r"<\1 unit='bytes'>0<", text)


def split(text: str) -> tuple[str, str]:
    """A pool as the test driver writes it, and what it doesn't know: only the daemon's drivers register these."""
    declared = "".join(_DECLARED.findall(text))
    block = "".join(match.group() for match in _OPTIONS.finditer(text))
    return _DECLARED.sub("", _OPTIONS.sub("", text)), declared + block


def options_block(case: Case) -> str:
    """Options as libvirt documents their form (formatstorage: "Storage Pool Namespaces")."""
    root = ElementTree.fromstring(case.pool)
    for prefix, uri in (("fs", FS), ("rbd", RBD)):
        for block in root:
            if block.tag.startswith(f"{{{uri}}}"):
                lines = [f"    <{prefix}:option{attributes(option)}/>" for option in block]
                tag = f"{prefix}:{block.tag.rpartition('}')[2]}"
                return "\n".join([f" xmlns:{prefix}='{uri}'  <{tag}>", *lines, f"  </{tag}>\n"])
    return ""


def attributes(node: ElementTree.Element) -> str:
    entities = {"'": "&apos;", '"': "&quot;"}
    return "".join(f" {key}='{escape(value, entities)}'" for key, value in node.items())


def of_kind(judged: list[Judged], kind: str) -> list[Judged]:
    chosen = [one for one in judged if one.case.kind == kind]
    assert len(chosen) == _EACH
    assert [one for one in chosen if one.refused] == []
    return chosen


@pytest.mark.parametrize("kind", KINDS)
def test_pools_are_written_as_libvirt_writes_them(kind: str, judged_pools: list[Judged]) -> None:
    for case, shown, _refused in of_kind(judged_pools, kind):
        pool = parse_pool(case.pool)
        written = render_pool(pool)
        assert split(written) == (unsized(shown), options_block(case)), case
        unlisted = {"mount_options": None, "config_options": None}
        assert parse_pool(written) == with_defaults(pool), case
        assert parse_pool(shown) == replace(with_defaults(pool), **unlisted), case
        assert render_pool(replace(pool, **unlisted), shown) == shown, case
        assert unsized(render_pool(pool, case.pool)) == written, case


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_are_written_as_libvirt_writes_them(kind: str, judged_volumes: list[Judged]) -> None:
    for case, shown, _refused in of_kind(judged_volumes, kind):
        declared, pool, found = parse_volume(case.volume), parse_pool(case.pool), parse_found_volume(shown)
        # What libvirt adds to a declaration: where it is, all of it allocated, and the format of the pool's type.
        complete = parse_volume(shown)
        added = {"type": found.type, "path": found.path, "key": found.key, "allocation": complete.allocation}
        expected = replace(declared, **{**added, "format": complete.format})
        if expected.backing is not None:
            expected = replace(expected, backing=replace(expected.backing, format=complete.backing.format))
        assert declared.allocation in (None, complete.allocation), case
        assert declared.format in (None, complete.format), case
        assert render_volume(replace(expected, nocow=None), pool) == shown, case
        assert complete == replace(expected, nocow=None, type=None, path=None, key=None), case
        assert render_volume(replace(complete, **added), pool) == shown, case


def test_what_is_shown_of_a_volume_is_shown_alike(judged_volumes: list[Judged]) -> None:
    """A daemon that has looked at an image says nothing of the older version, and makes up no format elsewhere."""
    looked = [one for one in judged_volumes if _could_be_found(one.shown)]
    assert len(looked) > 100
    for case, shown, _refused in looked:
        assert render_found_volume(parse_found_volume(shown), parse_pool(case.pool)) == shown, case


def _could_be_found(shown: str) -> bool:
    is_qcow2 = "<target>\n" in shown and "<format type='qcow2'/>" in shown.split("</target>", maxsplit=1)[0]
    version = re.search(r"<compat>(.*)</compat>", shown)
    if is_qcow2:
        return (version is None) == ("<features" not in shown) and (version is None or version.group(1) == "1.1")
    return version is None and "<features" not in shown


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "cases"), [("pools", pools), ("volumes", volumes)])
def test_what_libvirt_refuses_is_refused(kind: str, cases) -> None:
    """And what it takes is taken, but for what would be dropped without a word."""
    strange = []
    for case, shown, refused in judge(damaged(cases(_EACH))):
        try:
            ours, error = (parse_pool(case.pool) if case.volume is None else parse_volume(case.volume)), ""
        except StorageError as problem:
            ours, error = None, str(problem)
        if bool(error) != bool(refused):
            if not any(re.search(known, refused or error) for known in _DIFFERING):
                strange.append((case.volume or case.pool, f"libvirt: {refused}", f"ours: {error}"))
        elif ours is not None and case.volume is None:
            uuid = parse_pool(shown).uuid  # where there is none, libvirt makes one
            if split(render_pool(replace(ours, uuid=uuid)))[0] != unsized(shown):
                strange.append((case.pool, shown, render_pool(ours)))
    assert strange == []
