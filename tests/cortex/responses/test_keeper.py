"""The thread that keeps responses outlives whatever it is given."""

from __future__ import annotations

import asyncio

import pytest

from helexa.core.logging import get_logger
from helexa.core.principal import ANONYMOUS, Principal
from helexa.cortex.responses.base import Kept, Shelf
from helexa.cortex.responses.keeper import Keeper
from helexa.cortex.responses.memory import MemoryShelf

pytestmark = pytest.mark.anyio

KEY = Principal("a", "a")


def shelf() -> Shelf:
    return MemoryShelf(lambda: 1.0, ttl_s=60, max_bytes=1000)


@pytest.mark.parametrize("who", [KEY, ANONYMOUS])
async def test_a_response_that_cannot_be_made_is_lost_and_nobody_waits_for_ever(
    who: Principal,
) -> None:
    def raises() -> Kept:
        raise RecursionError

    counted: list[int] = []
    keeper = Keeper(shelf, shelf, get_logger(), lambda: counted.append(1))
    keeper.keep(who, raises)
    keeper.keep(who, lambda: Kept("resp_a", None, 1.0, b"{}", ()))
    found = await asyncio.wait_for(
        keeper.ask(who, lambda shelf, owner: shelf.find(owner, "resp_a")), 30
    )
    assert (found, keeper.lost, counted) == (b"{}", 1, [1])
    await keeper.aclose()
