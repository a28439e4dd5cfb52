# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""XML text to a tree and back, in libvirt's layout. The one place that imports lxml, and only when it is needed.

Input is never trusted: bounded in size, no document type, no entities, no network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ..model.errors import StorageError

SIZE_LIMIT = 1024 * 1024
_XML_NAMESPACE = "http://www.w3.org/XML/1998/namespace"
_DOCTYPE = b"<!DOCTYPE"
_PROLOG = ((b"<?", b"?>"), (b"<!--", b"-->"))
_SPACE = re.compile(rb"[ \t\r\n]*")
_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;", "\r": "&#13;"})
_ATTRIBUTE = str.maketrans({**_TEXT, ord("\n"): "&#10;", ord("\t"): "&#9;"})
# Elements that libvirt prints with an end tag of their own even when there is nothing in them.
_NEVER_CLOSED = (("pool", "source"), ("volume", "source"), ("target", "encryption"))


def invalid(message: str, hint: str = "Correct the XML and run the task again.", subject: str = "xml") -> StorageError:
    """The error for a document that can't be used as it stands."""
    return StorageError("invalid_xml", message, hint=hint, subject=subject)


def etree() -> Any:
    """lxml.etree. Raises ``library_missing``."""
    try:
        from lxml import etree as module
    except ImportError as error:
        from ..model.packages import installing

        raise StorageError(
            "library_missing",
            f"The Python library lxml can't be imported by {sys.executable}: {error}",
            subject="lxml",
            hint=f"Install it for that interpreter: {installing('lxml for Python')}.",
        ) from error
    return module


def parse(text: bytes | str) -> Any:
    """The root element of ``text``, without the white space that only lays it out. Raises ``invalid_xml``."""
    data, encoding = _as_bytes(text)
    _refuse_hostile(data)
    lib = etree()
    parser = lib.XMLParser(
        encoding=encoding,
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
    )
    try:
        root = lib.fromstring(data, parser)
    except lib.XMLSyntaxError as error:
        raise invalid(f"The XML is malformed: line {error.lineno}: {error.msg}") from error
    except (LookupError, ValueError) as error:
        raise invalid(f"The XML can't be read: {error}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise _doctype_refused()
    _strip_layout(root)
    return root


def _as_bytes(text: bytes | str) -> tuple[bytes, str | None]:
    """What to parse, and the encoding that overrides the one that the document declares (None: as declared)."""
    if isinstance(text, bytes):
        return text, None
    try:
        return text.encode("utf-8"), "utf-8"
    except UnicodeEncodeError as error:
        raise invalid(f"The XML holds a character that is not text: {error.reason}") from error


def _refuse_hostile(data: bytes) -> None:
    if len(data) > SIZE_LIMIT:
        raise invalid(f"The XML has {len(data)} bytes; more than {SIZE_LIMIT} are not read")
    if b"\0" in data:
        raise invalid("The XML holds a NUL byte", "Give it in UTF-8.")
    start = _prolog_end(data)
    if data[start : start + len(_DOCTYPE)].upper() == _DOCTYPE:
        raise _doctype_refused()


def _doctype_refused() -> StorageError:
    return invalid("The XML has a document type declaration, which is not read", "Remove the DOCTYPE.")


def _prolog_end(data: bytes) -> int:
    """Where the first thing begins that is neither white space, a comment nor a processing instruction."""
    position = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    while position < len(data):
        position = _skip_space(data, position)
        ends = [end for start, end in _PROLOG if data.startswith(start, position)]
        found = data.find(ends[0], position) if ends else -1
        if found < 0:
            break
        position = found + len(ends[0])
    return position


def _skip_space(data: bytes, position: int) -> int:
    found = _SPACE.match(data, position)
    return found.end() if found else position


def is_element(node: Any) -> bool:
    """False for comments and processing instructions."""
    return isinstance(node.tag, str)


def local_name(node: Any) -> str:
    """The tag without its namespace."""
    return str(node.tag).rpartition("}")[2]


def _strip_layout(root: Any) -> None:
    """Drop white space between elements, but not where there is other text beside it or xml:space preserves it."""
    for node in root.iter():
        if not is_element(node) or not len(node) or node.get(f"{{{_XML_NAMESPACE}}}space") == "preserve":
            continue
        pieces = [node.text] + [child.tail for child in node]
        if not any(piece and piece.strip() for piece in pieces):
            node.text = None
            for child in node:
                child.tail = None


def canonical(element: Any) -> str:
    """One element as canonical XML text, the same for every way to write it."""
    data: bytes = etree().tostring(element, method="c14n", exclusive=True, with_comments=True)
    return data.decode("utf-8")


def new_root(tag: str) -> Any:
    return etree().Element(tag)


def child(parent: Any, tag: str, prefix: str = "") -> Any:
    """The first child of that tag, made when there is none (``prefix`` is then that of the tag's namespace)."""
    found = parent.find(tag)
    if found is not None:
        return found
    nsmap = {prefix: etree().QName(tag).namespace} if prefix else None
    return etree().SubElement(parent, tag, nsmap=nsmap)


def new_child(parent: Any, tag: str) -> Any:
    return etree().SubElement(parent, tag)


def drop(parent: Any, *tags: str) -> None:
    """Remove all children of these tags."""
    for tag in tags:
        for node in parent.findall(tag):
            parent.remove(node)


def set_text(element: Any, text: str) -> None:
    """Make ``text`` all that the element holds."""
    for node in list(element):
        element.remove(node)
    try:
        element.text = text
    except ValueError as error:
        raise invalid(f"{element.tag}: {text!r} can't be written in XML") from error


def set_attributes(element: Any, values: Mapping[str, str | None]) -> None:
    """Give the element these attributes in this order (None: not there), before those that are not named."""
    others = {key: value for key, value in element.attrib.items() if key not in values}
    element.attrib.clear()
    for key, value in {**values, **others}.items():
        if value is None:
            continue
        try:
            element.set(key, value)
        except ValueError as error:
            raise invalid(f"{element.tag}: {value!r} can't be written in XML") from error


def arrange(parent: Any, order: tuple[str, ...]) -> None:
    """Put the children into libvirt's order, those it doesn't know last; a comment stays before what follows it."""
    ranks = {tag: rank for rank, tag in enumerate(order)}
    groups: list[tuple[int, list[Any]]] = []
    pending: list[Any] = []
    for node in parent:
        pending.append(node)
        if is_element(node):
            groups.append((ranks.get(node.tag, len(ranks)), pending))
            pending = []
    groups.sort(key=lambda group: group[0])
    for node in [node for _rank, nodes in groups for node in nodes] + pending:
        parent.append(node)
    if parent.text and not parent.text.strip():
        parent.text = None


def to_text(element: Any, level: int = 0, namespaces: Mapping[str, str] | None = None) -> str:
    """The element as libvirt lays it out: two spaces a level, attributes in single quotes, a newline at the end.
    lxml's own serializer has no single quotes, and escapes other characters.

    ``namespaces`` (prefix to URI) are declared on the outermost element when something in it uses them, and only then.
    """
    scope = {prefix: uri for prefix, uri in element.nsmap.items() if uri not in (namespaces or {}).values()}
    used = _namespaces_used(element)
    for prefix, uri in (namespaces or {}).items():
        prefixes = [key for key, value in element.nsmap.items() if value == uri] or [prefix]
        scope.update({key: uri for key in prefixes if uri in used})
    out: list[str] = []
    _write(out, element, {}, scope, level)
    return "".join(out)


def _namespaces_used(element: Any) -> set[str | None]:
    """The namespaces of all tags and attributes."""
    nodes = [node for node in element.iter() if is_element(node)]
    names = {node.tag for node in nodes} | {key for node in nodes for key in node.attrib}
    return {etree().QName(name).namespace for name in names}


def _write(out: list[str], node: Any, outer: Mapping, inner: Mapping, level: int | None) -> None:
    """Append a node. ``outer`` and ``inner`` are the namespaces around and in it; no level: all on one line."""
    indent, newline = ("", "") if level is None else ("  " * level, "\n")
    if not is_element(node):
        out.append(f"{indent}{_aside(node)}{newline}")
        return
    name = _name(node.tag, node.prefix)
    out.append(f"{indent}<{name}{_attributes(node)}{_declarations(outer, inner)}")
    pieces = [node.text] + [below.tail for below in node]
    if not len(node) and not node.text:
        parent = node.getparent()
        split = level is not None and parent is not None and (parent.tag, node.tag) in _NEVER_CLOSED
        out.append(f">\n{indent}</{name}>{newline}" if split else f"/>{newline}")
    elif any(pieces):
        _write_inline(out, node, inner)
        out.append(f"</{name}>{newline}")
    else:
        out.append(f">{newline}")
        for below in node:
            _write(out, below, inner, _scope(inner, below), None if level is None else level + 1)
        out.append(f"{indent}</{name}>{newline}")


def _write_inline(out: list[str], node: Any, scope: Mapping) -> None:
    out.append(">" + (node.text or "").translate(_TEXT))
    for below in node:
        _write(out, below, scope, _scope(scope, below), None)
        out.append((below.tail or "").translate(_TEXT))


def _aside(node: Any) -> str:
    if node.tag is etree().Comment:
        return f"<!--{node.text}-->"
    return f"<?{node.target} {node.text}?>" if node.text else f"<?{node.target}?>"


def _scope(outer: Mapping, node: Any) -> Mapping:
    """The namespaces in scope in ``node``, given those around it."""
    if not is_element(node):
        return outer
    above, own = node.getparent().nsmap, node.nsmap
    return {**outer, **{prefix: uri for prefix, uri in own.items() if above.get(prefix) != uri}}


def _declarations(outer: Mapping, inner: Mapping) -> str:
    new: Iterable = ((prefix, uri) for prefix, uri in inner.items() if (outer.get(prefix) or "") != (uri or ""))
    return "".join(
        f" xmlns{':' + prefix if prefix else ''}='{(uri or '').translate(_ATTRIBUTE)}'" for prefix, uri in new
    )


def _attributes(node: Any) -> str:
    return "".join(
        f" {_attribute_name(node, key)}='{value.translate(_ATTRIBUTE)}'" for key, value in node.attrib.items()
    )


def _attribute_name(node: Any, key: str) -> str:
    uri = etree().QName(key).namespace
    if uri == _XML_NAMESPACE:
        return _name(key, "xml")
    return _name(
        key, next((prefix for prefix, value in node.nsmap.items() if prefix and value == uri), None) if uri else None
    )


def _name(tag: str, prefix: str | None) -> str:
    local = tag.rpartition("}")[2]
    return f"{prefix}:{local}" if prefix else local
