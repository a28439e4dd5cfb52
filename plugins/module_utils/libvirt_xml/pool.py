# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Pool definitions: libvirt's XML to the noun, and the noun back into the XML that it came from.

Reading follows libvirt's rules. Writing patches what is declared into the original tree, so that nothing unknown is
lost, or makes a new one; either way the result is laid out as libvirt prints it.
"""

from __future__ import annotations

import re
from typing import Any, Callable

from ..model.definition import lacking, sanitise_path, whole, with_defaults
from ..model.errors import StorageError
from ..model.pool import Pool, Source, overlay
from ..model.types import POOL_TYPES, PoolType
from . import _tree
from .fields import (
    PERMISSIONS_ORDER,
    as_yes_no,
    attribute_of,
    normal_uuid,
    read_permissions,
    text_of,
    write_permissions,
    yes_no,
)

FS_NAMESPACE = "http://libvirt.org/schemas/storagepool/fs/1.0"
RBD_NAMESPACE = "http://libvirt.org/schemas/storagepool/rbd/1.0"
_NAMESPACES = {"fs": FS_NAMESPACE, "rbd": RBD_NAMESPACE}
_MOUNT_OPTIONS, _MOUNT_OPTION = f"{{{FS_NAMESPACE}}}mount_opts", f"{{{FS_NAMESPACE}}}option"
_CONFIG_OPTIONS, _CONFIG_OPTION = f"{{{RBD_NAMESPACE}}}config_opts", f"{{{RBD_NAMESPACE}}}option"
_SIZES = ("capacity", "allocation", "available")
_ORDER = ("name", "uuid", *_SIZES, "features", "source", "target", "refresh", _MOUNT_OPTIONS, _CONFIG_OPTIONS)
_TARGET_ORDER = ("path", "permissions")
_ALLOCATIONS = ("default", "capacity")
# What the elements within a pool hold, whatever its type.
_INNER = {
    "features": ("cow",),
    "refresh": ("volume",),
    "target/permissions": PERMISSIONS_ORDER,
    "source/initiator": ("iqn",),
    "source/auth": ("secret",),
    "source/adapter": ("parentaddr",),
    "source/adapter/parentaddr": ("address",),
    _MOUNT_OPTIONS: (_MOUNT_OPTION,),
    _CONFIG_OPTIONS: (_CONFIG_OPTION,),
}
# What a shell would take for more than a word, so that it has no place in a command that is shown.
_SHELL = re.compile(r"[\x00-\x20\x7f!\"#$&'()*;<>?\[\\\]^`{|}~]|--")
_HEADER = """<!--
This file is generated: edits made to it may be overwritten and lost.
To change the pool use: virsh pool-edit{name}
or another user of the libvirt API.
-->

"""


# ---- reading


def parse_pool(text: bytes | str) -> Pool:
    """The pool of a ``<pool>`` or ``<poolstate>`` document, with libvirt's defaults. Raises ``invalid_xml`` and
    ``unknown_type``.
    """
    return with_defaults(_read(_pool_element(text)))


def parse_declared_pool(text: bytes | str) -> Pool:
    """The pool of a document that is a declaration: what would be lost, since the type has no use for it or since
    there is no such element, is refused.
    """
    root = _pool_element(text)
    pool = _read(root)
    lost = _lost(root, _row(pool.type))
    target = text_of(root, "target/path")
    if "target/path" not in lost and target and sanitise_path(target) != pool.path:
        raise _tree.invalid(f"target/path: {pool.type} pools are at {pool.path}", subject=pool.name)
    if lost:
        raise _tree.invalid(
            f"{pool.type} pools have no {', '.join(lost)}",
            "Remove it; nothing that is declared is dropped silently.",
            subject=pool.name,
        )
    return pool


def _lost(root: Any, row: PoolType) -> list[str]:
    """The elements, by their paths, that are in nothing that is written."""
    from .source import tags_of

    known = {**_INNER, "source": tags_of(row), "target": () if row.target == "none" else _TARGET_ORDER}
    below = {"source/host": (), "source/device": ("freeExtent",), **known}
    lost = [
        f"{path}/{_tree.local_name(node)}"
        for path, tags in below.items()
        for parent in root.findall(path)
        for node in parent
        if _tree.is_element(node) and node.tag not in tags
    ]
    for feature, tag, _write in _OPTIONS:
        if root.find(tag) is not None and feature not in row.features:
            lost.append(feature)
    return sorted(set(lost))


def _pool_element(text: bytes | str) -> Any:
    root = _tree.parse(text)
    if root.tag == "pool":
        return root
    found = root.find(".//pool") if root.tag == "poolstate" else None
    if found is None:
        raise _tree.invalid(f"The XML is not a pool: its outermost element is {root.tag}")
    return found


def _row(name: str | None) -> PoolType:
    if not name:
        raise _tree.invalid("The pool has no type", _types_hint())
    if name not in POOL_TYPES:
        raise StorageError("unknown_type", f"{name!r} is not a type of pool", subject="xml", hint=_types_hint())
    return POOL_TYPES[name]


def _types_hint() -> str:
    return f"Use one of: {', '.join(POOL_TYPES)}."


def _read(root: Any) -> Pool:
    row = _row(root.get("type"))
    source = _read_source(root.find("source"), row)
    name = _name(text_of(root, "name") or (source.name if row.named_by_source else None))
    uuid = text_of(root, "uuid")
    pool = Pool(
        name=name,
        type=row.name,
        uuid=uuid and normal_uuid(uuid),
        path=text_of(root, "target/path"),
        permissions=read_permissions(None if row.target == "none" else root.find("target")),
        source=source,
        cow=_read_cow(root, row),
        mount_options=_read_mount_options(root, row),
        config_options=_read_config_options(root, row),
        refresh_allocation=_read_refresh(root),
        extras=_read_extras(root),
    )
    absent = lacking(pool, starting=False)
    if absent:
        raise _tree.invalid(f"{row.name} pools need {', '.join(absent)}", subject=pool.name)
    return whole(pool)


def _name(text: str | None) -> str:
    if text is None:
        raise _tree.invalid("The pool has no name")
    if "/" in text or "\n" in text:
        raise _tree.invalid(f"The name {text!r} holds a slash or a line break", subject=text)
    return text


def _read_source(element: Any, row: PoolType) -> Source:
    """Most definitions of a host have an empty source: what reads the others is imported when there is one."""
    if element is None or not (len(element) or element.attrib):
        return Source()
    from .source import read_source

    return read_source(element, row)


def _read_cow(root: Any, row: PoolType) -> bool | None:
    state = yes_no(attribute_of(root, "features/cow", "state"), "features/cow")
    if state is not None and "cow" not in row.features:
        raise _tree.invalid(f"features/cow is not for {row.name} pools")
    return state


def _read_refresh(root: Any) -> str | None:
    value = attribute_of(root, "refresh/volume", "allocation")
    if value is not None and value not in _ALLOCATIONS:
        raise _tree.invalid(f"refresh/volume: the allocation {value!r} is neither {' nor '.join(_ALLOCATIONS)}")
    return value


def _read_mount_options(root: Any, row: PoolType) -> tuple[str, ...] | None:
    if "mount_options" not in row.features:
        return None
    nodes = root.findall(f"{_MOUNT_OPTIONS}/{_MOUNT_OPTION}")
    return tuple(_needed(node, "name", "fs:option") for node in nodes) or None


def _read_config_options(root: Any, row: PoolType) -> tuple[tuple[str, str], ...] | None:
    if "config_options" not in row.features:
        return None
    nodes = root.findall(f"{_CONFIG_OPTIONS}/{_CONFIG_OPTION}")
    return tuple((_needed(node, "name", "rbd:option"), _needed(node, "value", "rbd:option")) for node in nodes) or None


def _needed(node: Any, name: str, what: str) -> str:
    value: str | None = node.get(name)
    if not value:
        raise _tree.invalid(f"{what}: the attribute {name} is missing or empty")
    return value


def _read_extras(root: Any) -> tuple[str, ...]:
    return tuple(sorted(_tree.canonical(node) for node in root if _tree.is_element(node) and node.tag not in _ORDER))


# ---- writing


def render_pool(pool: Pool, original: bytes | str | None = None) -> str:
    """The definition: the declared fields of ``pool`` patched into ``original``, or a new one.

    Raises ``invalid_xml`` when libvirt would refuse the result.
    """
    return _render(pool, original, 0)


def without_secrets(text: str) -> str:
    """A definition as it is shown: its options may hold a password or a key."""
    if not any(namespace in text for namespace in _NAMESPACES.values()):
        return text
    from ..model.private import shown_option, shown_value

    root = _pool_element(text)
    for node in root.iter(_MOUNT_OPTION):
        node.set("name", shown_option(node.get("name", "")))
    for node in root.iter(_CONFIG_OPTION):
        node.set("value", shown_value(node.get("name", ""), node.get("value", "")))
    return _tree.to_text(root, 0, _NAMESPACES)


def render_definition(pool: Pool, original: bytes | str | None = None) -> str:
    """The text of a definition file."""
    return _header(pool, original) + _render(pool, original, 0)


def render_state(pool: Pool, original: bytes | str | None = None) -> str:
    """The text of the state file of a started pool."""
    return f"{_header(pool, original)}<poolstate>\n{_render(pool, original, 1)}</poolstate>\n"


def _header(pool: Pool, original: bytes | str | None) -> str:
    uuid = pool.uuid or (text_of(_pool_element(original), "uuid") if original is not None else None)
    shown = uuid and normal_uuid(uuid) if _SHELL.search(pool.name) else pool.name
    return _HEADER.format(name=f" {shown}" if shown else "")


def _render(pool: Pool, original: bytes | str | None, level: int) -> str:
    root = _tree.new_root("pool") if original is None else _pool_element(original)
    merged = pool if original is None else overlay(_read(root), pool)
    row = _row(merged.type)
    _write(root, with_defaults(whole(merged)), row)
    _read(root)  # What libvirt would refuse to read is not written.
    return _tree.to_text(root, level, _NAMESPACES)


def _write(root: Any, pool: Pool, row: PoolType) -> None:
    _tree.set_attributes(root, {"type": row.name})
    _tree.set_text(_tree.child(root, "name"), pool.name)
    if pool.uuid is not None:
        _tree.set_text(_tree.child(root, "uuid"), pool.uuid)
    for tag in _SIZES:
        _write_size(root, tag)
    _write_cow(root, pool, row)
    from .source import write_source

    write_source(_tree.child(root, "source"), pool.source, row)
    _write_target(root, pool, row)
    if pool.refresh_allocation is not None:
        volume = _tree.child(_tree.child(root, "refresh"), "volume")
        _tree.set_attributes(volume, {"allocation": pool.refresh_allocation})
    for name, tag, write in _OPTIONS:
        _write_options(root, tag, write, getattr(pool, name) if name in row.features else ())
    _write_extras(root, pool.extras)
    _tree.arrange(root, _ORDER)


def _write_size(root: Any, tag: str) -> None:
    """Sizes are observations: one that is there stays, a new definition has none yet."""
    if root.find(tag) is None:
        node = _tree.child(root, tag)
        _tree.set_attributes(node, {"unit": "bytes"})
        _tree.set_text(node, "0")


def _write_cow(root: Any, pool: Pool, row: PoolType) -> None:
    if pool.cow is not None and "cow" in row.features:
        node = _tree.child(_tree.child(root, "features"), "cow")
        _tree.set_attributes(node, {"state": as_yes_no(pool.cow)})


def _write_target(root: Any, pool: Pool, row: PoolType) -> None:
    if row.target == "none":
        _tree.drop(root, "target")
        return
    target = _tree.child(root, "target")
    if pool.path is not None:
        _tree.set_text(_tree.child(target, "path"), pool.path)
    write_permissions(target, pool.permissions)
    _tree.arrange(target, _TARGET_ORDER)


def _write_options(root: Any, tag: str, write: Callable[[Any, tuple], None], options: tuple | None) -> None:
    """Options of a namespace: None leaves them as they are, none at all removes their element."""
    if options == ():
        _tree.drop(root, tag)
    elif options is not None:
        write(root, options)


def _write_mount_options(root: Any, options: tuple[str, ...]) -> None:
    _replace_options(_tree.child(root, _MOUNT_OPTIONS, "fs"), _MOUNT_OPTION, [{"name": name} for name in options])


def _write_config_options(root: Any, options: tuple[tuple[str, str], ...]) -> None:
    values = [{"name": name, "value": value} for name, value in options]
    _replace_options(_tree.child(root, _CONFIG_OPTIONS, "rbd"), _CONFIG_OPTION, values)


def _replace_options(block: Any, tag: str, options: list[dict[str, str]]) -> None:
    """Make these the options of the block; elements that are right already stay as they are."""
    old = block.findall(tag)
    _tree.drop(block, tag)
    for values in options:
        node = next((node for node in old if all(node.get(key) == value for key, value in values.items())), None)
        if node is None:
            _tree.set_attributes(_tree.new_child(block, tag), values)
        else:
            old.remove(node)
            block.append(node)


_OPTIONS: tuple[tuple[str, str, Callable[[Any, tuple], None]], ...] = (
    ("mount_options", _MOUNT_OPTIONS, _write_mount_options),
    ("config_options", _CONFIG_OPTIONS, _write_config_options),
)


def _write_extras(root: Any, extras: tuple[str, ...]) -> None:
    """Elements that we have no word for: those of a declared tag take the place of those that are there."""
    wanted: dict[str, list[Any]] = {}
    for text in sorted(extras):
        node = _tree.parse(text)
        if node.tag in _ORDER:
            raise _tree.invalid(f"{node.tag} is not an element beyond what pools are made of")
        wanted.setdefault(node.tag, []).append(node)
    for tag, nodes in wanted.items():
        there = [_tree.canonical(node) for node in root.findall(tag)]
        if sorted(there) != sorted(_tree.canonical(node) for node in nodes):
            _tree.drop(root, tag)
            root.extend(nodes)
