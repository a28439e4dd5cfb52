# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What qemu-img(1) must be told, and what it would refuse. Nothing is run here.

The format of every file is named (``-f``, ``-F``), so that nothing is probed; sizes are bytes; paths are absolute, so
that none looks like an option or a protocol. qemu-img doesn't sync all that it writes: whoever publishes the file does.
"""

from __future__ import annotations

import json

from ..model.qcow2 import DEFAULT_COMPAT
from ..model.types import VOLUME_FORMATS
from ..model.volume import Volume

_OPTIONS = ("compat", "cluster_size", "lazy_refcounts", "extended_l2", "preallocation", "nocow")

# libvirt's names of formats that QEMU has another name for.
_TO_QEMU = {"iso": "raw", "ploop": "parallels"}


def create(volume: Volume, path: str) -> tuple[str, ...]:
    """Makes ``volume`` at ``path``. Without a capacity it gets that of its backing file."""
    argv = ["qemu-img", "create", "-q", "-f", _driver(volume.format)]
    if volume.backing is not None:
        argv += ["-b", _absolute(volume.backing.path), "-F", _driver(volume.backing.format)]
    argv += [*_options(volume), _absolute(path)]
    if volume.capacity is not None:
        argv.append(str(volume.capacity))
    return tuple(argv)


def convert(source: str, source_format: str, volume: Volume, path: str) -> tuple[str, ...]:
    """Makes ``volume`` at ``path`` from what ``source`` holds; it gets the source's capacity.

    A backing file that the source names is not opened, so that nothing gets in that was not declared.
    """
    target = ["-O", _driver(volume.format), *_options(volume), _only_itself(source, source_format), _absolute(path)]
    return ("qemu-img", "convert", "-q", *target)


def convert_into(source: str, source_format: str, device: str, start: int, end: int) -> tuple[str, ...]:
    """Writes what ``source`` holds to the bytes from ``start`` to ``end`` of a block device."""
    place = (("driver", "raw"), ("offset", start), ("size", end - start))
    target = (*place, ("file.driver", "host_device"), ("file.filename", _absolute(device)))
    words = ["-n", "--target-image-opts", _only_itself(source, source_format)]
    return ("qemu-img", "convert", "-q", *words, ",".join(_option(*pair) for pair in target))


def copy_onto(source: str, source_format: str, device: str) -> tuple[str, ...]:
    """Writes what ``source`` holds onto a device that is there and large enough."""
    return ("qemu-img", "convert", "-q", "-n", "-O", "raw", _only_itself(source, source_format), _absolute(device))


def _only_itself(path: str, image_format: str) -> str:
    node: dict[str, object] = {"driver": _driver(image_format)}
    if image_format == "qcow2":
        node["backing"] = None
    filename = _absolute(path)
    on_device = filename.startswith("/dev/") and not filename.startswith("/dev/shm/")
    node["file"] = {"driver": "host_device" if on_device else "file", "filename": filename}
    return "json:" + json.dumps(node)


def resize(path: str, image_format: str, size: int, shrink: bool = False) -> tuple[str, ...]:
    allowed = ("--shrink",) if shrink else ()
    return ("qemu-img", "resize", "-q", "-f", _driver(image_format), *allowed, _absolute(path), str(size))


def amend(path: str, *, compat: str | None = None, lazy_refcounts: bool | None = None) -> tuple[str, ...]:
    """Changes an existing qcow2 image. One with extended L2 entries can't go back to compat 0.10."""
    options = []
    if compat is not None:
        options.append(_option("compat", compat))
    if lazy_refcounts is not None:
        options.append(_option("lazy_refcounts", lazy_refcounts))
    return ("qemu-img", "amend", "-q", "-f", "qcow2", "-o", ",".join(options), _absolute(path))


def rebase(path: str, backing: str, backing_format: str) -> tuple[str, ...]:
    """Puts a qcow2 image on another backing file, and copies into it what would differ."""
    names = ["-f", "qcow2", "-b", _absolute(backing), "-F", _driver(backing_format)]
    return ("qemu-img", "rebase", "-q", *names, _absolute(path))


def _absolute(path: str | None) -> str:
    if path is None or not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    return path


def _driver(name: str | None) -> str:
    if not name:
        raise ValueError("the format is not known")
    return _TO_QEMU.get(name, name)


def _option(name: str, value: str | int | bool) -> str:
    """One option of ``-o``, where a comma within a value is written twice."""
    text = ("on" if value else "off") if isinstance(value, bool) else str(value)
    return f"{name}={text.replace(',', ',,')}"


def _options(volume: Volume) -> list[str]:
    """What was declared and is not qemu-img's default (older ones don't know all options), but always ``compat``."""
    known = VOLUME_FORMATS[volume.format].options if volume.format in VOLUME_FORMATS else ()
    options = []
    for name in _OPTIONS:
        value = getattr(volume, name)
        if name == "compat":
            value = value or DEFAULT_COMPAT
        if name in known and value and value != "off":
            options.append(_option(name, value))
    return ["-o", ",".join(options)] if options else []
