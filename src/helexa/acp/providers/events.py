"""What readers of event streams have in common: payloads in, and the ways a stream goes bad."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec

from helexa.acp.providers.sse import Sse
from helexa.core.errors import UpstreamConnectionError
from helexa.core.events import Event, Failed
from helexa.wire.bodies import UNREADABLE

Json = dict[str, Any]


class EventReader(ABC):
    """Reads one stream; see ``providers.base.Reader``.

    Attributes:
        api: Its name, for the words that say what was not understood.
        over: The last event has come, or nothing after it is believed.
    """

    api: ClassVar[str]

    def __init__(self) -> None:
        self.over = False
        self.sse = Sse()

    @abstractmethod
    def take(self, event: Json, out: list[Event], payload: bytes) -> None:
        """Append what ``event`` (decoded from ``payload``) means; sets ``over`` with the last.

        May raise KeyError, TypeError or AttributeError where a member is missing or misshapen.
        """

    def feed(self, data: bytes) -> list[Event]:
        """Events that ``data`` completes."""
        out: list[Event] = []
        for payload in self.sse.feed(data):
            if self.over or payload == b"[DONE]":
                break
            try:
                self.take(msgspec.json.decode(payload), out, payload)
            except (*UNREADABLE, KeyError, TypeError, AttributeError):
                self._fail(f"The endpoint sent something that is not an event of {self.api}.", out)
        return out

    def lost(self) -> list[Event]:
        """It ended; without its last event it was cut."""
        out: list[Event] = []
        if not self.over:
            self._fail("The answer broke off before it was complete.", out)
        return out

    def _fail(self, words: str, out: list[Event]) -> None:
        self.over = True
        out.append(Failed(UpstreamConnectionError(words)))
