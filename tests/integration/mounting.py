# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mounts of tests beside other tests, which have mount namespaces of their own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def shared_below(directory: Path) -> Iterator[None]:
    """What is unmounted below it is unmounted in the copies of others, too, where those are slaves (mount(8)):
    otherwise a namespace that was made meanwhile keeps it in use.
    """
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "--make-shared", directory], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
