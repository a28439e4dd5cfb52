# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes into a guest is compiled here, by the Python that the guest has too: an emulated processor takes seconds
for what takes this machine a moment. Python checks each result against its source, by a hash; a guest with another
Python compiles for itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from places import LOCAL

#: Where a guest's Python keeps what it compiles out of archives (``guest/sitecustomize.py``).
DIRECTORY = "/root/compiled"
_KEPT = LOCAL / "lab" / "compiled" / str(sys.implementation.cache_tag)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """An empty directory that is gone afterwards."""
    _KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_KEPT.parent) as directory:
        yield Path(directory)


def compile_tree(tree: Path, target: Path, beside: bool = True) -> None:
    """Into ``target`` what ``tree`` compiles to, named by the hash of each source, and also ``beside`` the sources,
    where Python looks first. They are copies, since several guests may be given theirs at the same time.
    """
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted(tree.rglob("*.py")):
        with contextlib.suppress(py_compile.PyCompileError):
            made = _compiled(source)
            if beside:
                cached = Path(importlib.util.cache_from_source(str(source)))
                cached.parent.mkdir(exist_ok=True)
                shutil.copyfile(made, cached)
            shutil.copyfile(made, target / made.name)


def _compiled(source: Path) -> Path:
    made = _KEPT / f"{importlib.util.source_hash(source.read_bytes()).hex()}.pyc"
    if not made.exists():
        py_compile.compile(
            str(source), str(made), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )
    return made
