"""Every store a ledger can be kept in: what is true of one is tested of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helexa.cortex.ledger.database import Database, connect

Connect = Callable[[], Database]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for a ledger."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/state/ledger.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def connection(url: str) -> Iterator[Connect]:
    """Opens connections to it, which are closed with the test."""
    opened: list[Database] = []

    def make() -> Database:
        opened.append(connect(url))
        return opened[-1]

    yield make
    for db in opened:
        db.close()
