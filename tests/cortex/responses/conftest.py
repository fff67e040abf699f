"""Every shelf responses can be kept on: what is true of one is tested of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helexa.cortex.ledger.database import connect
from helexa.cortex.responses.base import Shelf
from helexa.cortex.responses.memory import MemoryShelf
from helexa.cortex.responses.sql import SqlShelf


class Clock:
    """Epoch seconds that a test sets."""

    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


Make = Callable[..., Shelf]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Make]:
    """Opens the shelf, again and again the same where it lasts."""
    opened: list[Shelf] = []
    url = ""
    if request.param == "sqlite":
        url = f"sqlite://{tmp_path}/state/responses.db"
    elif request.param == "postgres":
        url = request.getfixturevalue("postgres_url")

    def open_(ttl_s: float = 3600, max_bytes: int = 1_000_000) -> Shelf:
        if not url:
            opened.append(MemoryShelf(clock, ttl_s=ttl_s, max_bytes=max_bytes))
        else:
            opened.append(SqlShelf(connect(url), clock, ttl_s=ttl_s, max_bytes=max_bytes))
        return opened[-1]

    yield open_
    for shelf in opened:
        shelf.close()
