from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.ram import ram_directory


@pytest.fixture
def ram() -> Iterator[Path]:
    """A directory in memory."""
    with ram_directory() as path:
        yield path
