"""A table of records in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helexa.neuron.records import RecordTable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "records"


@pytest.fixture
def table(path: Path) -> Iterator[RecordTable]:
    made = RecordTable(path, time.time)
    yield made
    made.close()
