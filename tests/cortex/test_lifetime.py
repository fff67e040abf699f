"""What the gateway follows while it serves."""

from __future__ import annotations

import asyncio
import signal

import pytest

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
