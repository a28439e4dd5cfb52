# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a guest reads from and writes to a qcow2 image of its own, with neither compression nor a backing file.

Reading is done here (QEMU: docs/interop/qcow2.txt), since it happens after each task and a process is dear in a guest.
"""

from __future__ import annotations

import struct
import tempfile
from typing import BinaryIO

from .machine import tool

_PLACE = 0x00FF_FFFF_FFFF_FE00  # of an entry of both tables: the offset in the file
_COMPRESSED, _ZERO = 1 << 62, 1


def write(path: str, marks: dict[int, bytes]) -> None:
    """``marks``: bytes by their offsets."""
    words: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        for offset, mark in marks.items():
            with open(f"{directory}/{offset}", "wb") as stream:
                stream.write(mark)
            words += ["-c", f"write -q -s {directory}/{offset} {offset} {len(mark)}"]
        tool("qemu-io", "-f", "qcow2", *words, path)


def read(stream: BinaryIO, offset: int, size: int) -> bytes:
    """Bytes inside one cluster; what is not there reads as zeros."""
    stream.seek(0)
    head = stream.read(48)
    bits, (length,), (table,) = head[23], struct.unpack(">I", head[36:40]), struct.unpack(">Q", head[40:48])
    index, inside = divmod(offset >> bits, 1 << (bits - 3))
    if index >= length:
        return b""
    place = _entry(stream, table + 8 * index) & _PLACE
    entry = _entry(stream, place + 8 * inside) if place else 0
    assert not entry & _COMPRESSED, "the image is compressed"
    if not entry & _PLACE or entry & _ZERO:
        return bytes(size)
    stream.seek((entry & _PLACE) + offset % (1 << bits))
    return stream.read(size)


def _entry(stream: BinaryIO, offset: int) -> int:
    stream.seek(offset)
    return int(struct.unpack(">Q", stream.read(8))[0])
