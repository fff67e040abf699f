"""A model's line counts everybody once, however they go."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from helexa.core.errors import ServiceUnavailable
from helexa.cortex.residency.waiting import Waiter, WaitingRoom

pytestmark = pytest.mark.anyio


def a_room() -> WaitingRoom:
    return WaitingRoom(lambda: 0.0, lambda: None)


async def a_request(waiter: Waiter) -> None:
    try:
        await waiter.turn()
    finally:
        waiter.leave()


async def test_a_client_that_leaves_as_its_turn_comes_takes_no_place_with_it() -> None:
    room = a_room()
    waiter = room.join("m", 1e9, may_load=True)
    request = asyncio.create_task(a_request(waiter))
    await asyncio.sleep(0)
    request.cancel()
    waiter.go()  # in the same turn of the loop: the request has not yet noticed
    with suppress(asyncio.CancelledError):
        await request
    assert room.lines["m"].released == 0
    room.tidy()
    assert not room.lines
    assert len(room) == 0


@pytest.mark.parametrize("again", [False, True])
async def test_a_place_that_was_given_is_given_back_once(again: bool) -> None:
    room = a_room()
    waiter = room.join("m", 1e9, may_load=True)
    line = room.lines["m"]
    waiter.go()
    assert line.released == 1
    if again:
        waiter.again()
        assert line.released == 0
        assert room.waited_for("m")
    waiter.leave()
    waiter.leave()
    assert line.released == 0
    assert len(room) == 0


async def test_who_was_refused_held_no_place() -> None:
    room = a_room()
    waiter = room.join("m", 1e9, may_load=True)
    request = asyncio.create_task(a_request(waiter))
    await asyncio.sleep(0)
    waiter.refuse(ServiceUnavailable("no"))
    with pytest.raises(ServiceUnavailable):
        await request
    assert room.lines["m"].released == 0
