"""Every store a ledger can be kept in: what is true of one is tested of all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cortex.ledger.rig import START, Rig, Start

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


@pytest.fixture
async def start(url: str) -> AsyncIterator[Start]:
    clock, rigs = [START], list[Rig]()

    def make(gateway: str = "g", epoch: int = 0) -> Rig:
        rigs.append(Rig(url, gateway, epoch or len(rigs) + 1, clock))
        return rigs[-1]

    yield make
    for rig in rigs:
        await rig.store.close()


@pytest.fixture
def look(url: str) -> Callable[[str], list[Any]]:
    def query(sql: str) -> list[Any]:
        db = connect(url)
        try:
            return db.execute(sql)
        finally:
            db.close()

    return query
