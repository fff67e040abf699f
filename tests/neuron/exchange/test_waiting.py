"""What a chain of calls waits for: gone on with once, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from helexa.core.errors import HelexaError, ServiceUnavailable
from helexa.neuron.exchange.waiting import Waiting

pytestmark = pytest.mark.anyio


class Chain:
    """Remembers what it was told."""

    def __init__(self, then: Callable[[int], object] | None = None) -> None:
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.results: list[int] = []
        self.errors: list[Exception] = []
        self.waiting = Waiting(self.future, then or self.results.append, self.errors.append)


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_chain_goes_on_with_the_result() -> None:
    chain = Chain()
    chain.future.set_result(7)
    await turns()
    chain.waiting.drop()
    assert (chain.results, chain.errors) == ([7], [])


async def test_what_is_raised_while_waiting_or_behind_it_ends_the_chain() -> None:
    error = ServiceUnavailable("The model is being unloaded.", retry_after_s=1)

    def bug(_: int) -> None:
        raise KeyError("a bug")

    refused, broken = Chain(), Chain(bug)
    refused.future.set_exception(error)
    broken.future.set_result(1)
    await turns()
    assert refused.errors == [error]
    assert [type(e) for e in broken.errors] == [KeyError]


@pytest.mark.parametrize("end", ["nothing", "a result", "an error"])
async def test_who_does_not_wait_any_more_is_told_nothing(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    chain = Chain()
    if end == "a result":
        chain.future.set_result(7)
    elif end == "an error":
        chain.future.set_exception(ServiceUnavailable("gone", retry_after_s=1))
    chain.waiting.drop()
    chain.waiting.drop()
    await turns()
    assert (chain.results, chain.errors) == ([], [])
    assert chain.future.cancelled() is (end == "nothing")
    del chain
    assert "never retrieved" not in caplog.text


async def test_a_node_that_ends_says_so_to_who_waits() -> None:
    chain = Chain()
    chain.future.cancel()
    await turns()
    (error,) = chain.errors
    assert isinstance(error, HelexaError)
    assert "shutting down" in error.message
