"""A thread that somebody waits for gets the interpreter from a loop that never rests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from helexa.cortex import handover
from helexa.cortex.handover import Handover

pytestmark = pytest.mark.anyio

LONG_S = 60.0
"""What takes so long has not worked."""


@contextmanager
def after(work: Callable[[], object]) -> Iterator[None]:
    """Meanwhile, a thread that does ``work`` in a moment."""
    thread = threading.Timer(0.05, work)
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
    hands, seen, began = Handover(), list[str](), time.monotonic()

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
    hands = Handover()
    hands.begins()
    hands.ends()
    with hands.awaited():
        await turns()
    hands.begins()
    began = time.monotonic()
    await turns()
    assert time.monotonic() - began < LONG_S, "nobody waits any more"
