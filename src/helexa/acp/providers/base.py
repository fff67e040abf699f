"""The interface of an endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from helexa.acp.settings import Endpoint
from helexa.core.chat import ChatRequest
from helexa.core.events import Event


class Model(msgspec.Struct, frozen=True):
    """One model of an endpoint; None is "it does not say".

    Args:
        context: Tokens of prompt and answer together.
        warm: Loaded now; a cold one is loaded when it is asked for.
        cost: USD per million tokens, ``input`` and ``output``.
    """

    id: str
    context: int | None = None
    output: int | None = None
    warm: bool | None = None
    tools: bool | None = None
    vision: bool | None = None
    reasoning: bool | None = None
    cost: dict[str, float] | None = None


class Note(msgspec.Struct, frozen=True):
    """Something the endpoint says while it works: a place in a queue, a load's progress."""

    text: str


class Dialect(Protocol):
    """How one wire API is spoken by a client."""

    path: str
    headers: dict[str, str]

    def encode(self, request: ChatRequest) -> bytes:
        """The request's body, streamed."""

    def reader(self) -> Reader:
        """Reads one answer."""


class Reader(Protocol):
    """Bytes of an answer to events, any chunking."""

    over: bool

    def feed(self, data: bytes) -> list[Event]:
        """Events that ``data`` completes."""

    def lost(self) -> list[Event]:
        """The stream has ended; what that means if it was not over."""


class Provider(Protocol):
    """One endpoint."""

    endpoint: Endpoint

    async def models(self) -> list[Model]:
        """What it serves now.

        Raises:
            HelexaError: It does not answer, or refuses the key.
        """

    def stream(self, request: ChatRequest) -> AsyncIterator[Event | Note]:
        """One answer.

        Raises:
            HelexaError: It was refused before anything came (retry where the class says so).
        """
