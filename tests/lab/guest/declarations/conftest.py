# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The storage that the tests of a type have: it is made once for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .runs import in_memory
from .steps import Kind


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """``Kind`` is what the file of the test calls its type."""
    with in_memory() as directory:
        made = request.module.Kind(directory)
        try:
            yield made
        finally:
            made.end()
