"""What the gateway follows while it serves."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.cortex.exchange.rig import Gateway, delta, fleet, next_event, request
from tests.cortex.fake_node import Turn
from tests.relay.rig import client

from helexa.core.logging import get_logger
from helexa.cortex import lifetime
from helexa.cortex.metrics import CortexMetrics
from helexa.cortex.profiles import ProfileFile

pytestmark = pytest.mark.anyio


class Odd:
    """A part of cortex.toml that fails in a way nobody foresaw."""

    def __init__(self) -> None:
        self.looked = 0

    async def refresh(self, *, asked: bool = False) -> list[str]:
        self.looked += 1
        raise ValueError("odd")


class OddCatalogue(ProfileFile):
    """A catalogue that does."""

    def refresh(self) -> bool:
        raise ValueError("odd")


async def test_no_file_however_odd_ends_what_is_being_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifetime, "FOLLOW_S", 0.01)
    one, two = Odd(), Odd()
    follows = lifetime.follow_files(
        OddCatalogue(None), {"nodes": one, "keys": two}, None, CortexMetrics(), get_logger()
    )
    following = asyncio.create_task(follows)
    try:
        async with asyncio.timeout(30):
            while two.looked < 3 and not following.done():
                await asyncio.sleep(0.01)
        assert not following.done()
        assert one.looked >= 3
    finally:
        following.cancel()
        await asyncio.wait([following])
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


class Certificate:
    """One whose files are as the test says."""

    def __init__(self) -> None:
        self.wrong: str | None = None

    def reload_if_changed(self) -> bool:
        if self.wrong is not None:
            raise OSError(self.wrong)
        return True


class Said:
    """What was logged."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def info(self, _event: str) -> None:
        self.reasons.append("")

    def warning(self, _event: str, *, reason: str) -> None:
        self.reasons.append(reason)


def test_a_certificate_that_cannot_be_used_is_said_once() -> None:
    tls, log, refused = Certificate(), Said(), ""
    for wrong in ("torn", "torn", "gone", "gone", None, "gone"):
        tls.wrong = wrong
        refused = lifetime._renew(tls, log, refused)  # type: ignore[arg-type]
    assert log.reasons == ["torn", "gone", "", "gone"]


async def test_a_stream_is_told_when_a_chore_fails_and_ends_the_gateway() -> None:
    async def goes_on(turn: Turn) -> None:
        turn.open()
        turn.send(delta("x"))
        await turn.left()
        turn.ended("cancelled", 3, 1)

    async def fails(begun: asyncio.Event) -> None:
        await begun.wait()
        raise LookupError("a bug, or the ledger is another's now")

    async def serves(gateway: Gateway, begun: asyncio.Event) -> None:
        front = gateway.front
        async with asyncio.TaskGroup() as group:
            group.create_task(fails(begun))
            await lifetime.told_to_stop(asyncio.Event(), front.listener, front.app)

    async with fleet(goes_on) as (gateway, _), client(gateway.port) as raw:
        raw.send(request({"stream": True}))
        await raw.head()
        begun = asyncio.Event()
        serving = asyncio.create_task(serves(gateway, begun))
        assert b"content" in await next_event(raw)
        begun.set()
        assert b"shutting down" in await next_event(raw)
        with pytest.raises(ExceptionGroup):
            await serving
