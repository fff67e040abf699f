"""A request that has ended at the gateway, however it did, leaves nothing for the collector."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.cortex.exchange.rig import (
    Gateway,
    answers,
    delta,
    fleet,
    next_event,
    refuses,
    request,
)
from tests.cortex.fake_node import Turn
from tests.relay.rig import client, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def kept() -> Iterator[None]:
    """What the collector finds is kept for a look at it; nothing of earlier tests is found."""
    gc.collect()
    gc.freeze()
    before = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(before)
    gc.unfreeze()
    gc.garbage.clear()
    gc.collect()


def found() -> Counter[str]:
    """Kinds of ours that only the collector could free since it was asked last."""
    gc.collect()
    kinds = Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.garbage)
    gc.garbage.clear()
    return Counter({kind: n for kind, n in kinds.items() if kind.startswith("helexa.")})


async def by_its_user(turn: Turn) -> None:
    """A node that answers, refuses, or computes for ever, as the request's user says."""
    user = turn.body.get("user")
    if user == "patient":
        turn.open()
        turn.send(delta("Hel"))
        await turn.left()
    elif user == "refused":
        await refuses(400, "invalid_request_body")(turn)
    else:
        await answers(turn)


async def leave(gateway: Gateway, body: dict[str, object]) -> None:
    app = gateway.front.app
    async with client(gateway.port) as raw:
        raw.send(request(body))
        if body["stream"]:
            await raw.head()
            assert await next_event(raw) == delta("Hel")
        else:
            await until(lambda: app.running)
    await until(lambda: not app.running)


@pytest.mark.usefixtures("kept")
async def test_a_request_that_ended_was_refused_or_left_leaves_no_cycle() -> None:
    async def some_of_each(gateway: Gateway) -> None:
        ask = {"max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
        for stream in (False, True):
            assert (await gateway.ask({"stream": stream})).status == 200
            got = await gateway.ask({**ask, "stream": stream}, path="/v1/messages")
            assert got.status == 200 or not stream  # the scripted plain answer has no usage
            assert (await gateway.ask({"stream": stream, "user": "refused"})).status == 400
            assert (await gateway.ask({"stream": stream, "model": "none"})).status == 404
            await leave(gateway, {"stream": stream, "user": "patient"})
        await gateway.settled()

    async with fleet(by_its_user, by_its_user) as (gateway, _):
        await some_of_each(gateway)
        found()  # of the start, and of what is made once
        tries, left = 10, Counter("?")
        while left and tries:  # a connection that ends as it is looked at is no leak of requests
            for _ in range(3):
                await some_of_each(gateway)
            tries, left = tries - 1, found()
        assert left == Counter()
