from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts/spark"


@pytest.fixture(autouse=True, scope="session")
def scripts_on_path() -> Iterator[None]:
    """The training scripts import each other as siblings; let the tests do so too."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))
