"""A thread that somebody waits for gets the interpreter from a loop that never rests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.cortex.ledger.rig import Start, hard

from helexa.cortex.ledger import handover
from helexa.cortex.ledger.handover import Handover

pytestmark = pytest.mark.anyio

LONG_S = 60.0
"""What takes so long has not worked."""


@contextmanager
def after(work: Callable[[], object], most_s: float = 0.05) -> Iterator[None]:
    """Meanwhile, a thread that does ``work`` in a moment."""
    thread = threading.Timer(most_s, work)
    thread.start()
    yield
    thread.join()


async def turns() -> None:
    """Until whatever is due every millisecond has been done."""
    await asyncio.sleep(0.02)


async def test_the_loop_stands_still_until_the_threads_statements_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "TURN_S", LONG_S)
    loop = asyncio.get_running_loop()
    hands, seen, began = Handover(loop), list[str](), time.monotonic()

    def statements() -> None:
        seen.append("thread")
        hands.ends()

    hands.begins()
    with hands.awaited(), after(statements):
        await turns()
        seen.append("loop")
    assert seen == ["thread", "loop"]
    assert time.monotonic() - began < LONG_S


async def test_a_thread_in_its_commit_is_only_glanced_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "TURN_S", LONG_S)
    hands = Handover(asyncio.get_running_loop())
    hands.begins()
    hands.ends()
    with hands.awaited():
        await turns()
    hands.begins()
    began = time.monotonic()
    await turns()
    assert time.monotonic() - began < LONG_S, "nobody waits any more"


async def test_whoever_waits_for_a_block_has_the_loop_hand_over_until_the_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "TURN_S", LONG_S)
    rig, seen, began = start(), list[str](), time.monotonic()
    go = threading.Event()

    def statements(_db: object) -> None:
        go.wait(LONG_S)
        seen.append("thread")

    rig.store.submit(statements, lambda _outcome: None)
    first = asyncio.ensure_future(rig.take(hard(10_000), "r1", 600))
    await asyncio.sleep(0)  # it has been asked for
    asyncio.get_running_loop().call_later(0.02, seen.append, "loop")
    with after(go.set):
        assert await first == 600
    assert seen[0] == "thread"
    assert time.monotonic() - began < LONG_S
