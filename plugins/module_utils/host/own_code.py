# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Our own code as one file that Python runs, for a host on which Ansible leaves nothing behind (zipapp)."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable

_PACKAGE = "virt_storage"
_MAIN = "__main__.py"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same code is the same archive


class OwnCode:
    """``entry`` names the module, from the top of our code, whose ``main`` is run and gives the exit status. Raises
    OSError where our code is neither in files nor in an archive.
    """

    def __init__(self, entry: str) -> None:
        text = f"import sys\n\nfrom {_PACKAGE}.{entry} import main\n\nsys.exit(main(sys.argv[1:]))\n"
        self._main = text.encode()
        self._names, self._read = _sources(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def is_in(self, path: str) -> bool:
        """Whether an archive has all of our code as it is here. Ansible sends of it what a module needs, and so there
        may be more in one that was made from all of it.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                there = {each.filename: (each.CRC, each.file_size) for each in archive.infolist()}
        except (OSError, zipfile.BadZipFile):
            return False
        return all(there.get(name) == (zlib.crc32(data), len(data)) for name, data in self._files())

    def archive(self) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in self._files():
                archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data, zipfile.ZIP_DEFLATED)
        return packed.getvalue()

    def _files(self) -> Iterable[tuple[str, bytes]]:
        yield _MAIN, self._main
        packages = {os.path.dirname(f"{_PACKAGE}/{name}") for name in self._names} | {_PACKAGE}
        for package in sorted(packages):
            yield f"{package}/__init__.py", b""
        for name in sorted(self._names):
            yield f"{_PACKAGE}/{name}", self._read(name)


def _sources(top: str) -> tuple[list[str], Callable[[str], bytes]]:
    """The names of the files below ``top``, and how one of them is read. It may be in an archive (AnsiballZ)."""
    if os.path.isdir(top):
        walked = os.walk(top)
        names = [os.path.relpath(os.path.join(path, name), top) for path, _below, files in walked for name in files]
        return _ours(names), lambda name: _content(os.path.join(top, name))
    archive, inside = top, ""
    while archive.strip("/") and not os.path.isfile(archive):
        archive, last = os.path.split(archive)
        inside = f"{last}/{inside}"
    with zipfile.ZipFile(archive) as packed:
        held = {each[len(inside) :]: packed.read(each) for each in packed.namelist() if each.startswith(inside)}
    return _ours(held), held.__getitem__


def _ours(names: Iterable[str]) -> list[str]:
    """Packages have no content of their own here."""
    return [name for name in names if name.endswith(".py") and os.path.basename(name) != "__init__.py"]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
