"""Ordinary requests, kept by the page: what ended together lies together.

Thousands of requests are kept, each in memory that has gone cold since the one it replaces was
written. So the ordinary ones of a batch become one string of bytes, written from one end to the
other, beside references to what lives anyway. A ``Timeline`` is made when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from helexa.core.principal import Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.exchange.desk import Placed, Times
from helexa.cortex.routing.choice import Choice
from helexa.cortex.routing.rank import Candidate
from helexa.cortex.routing.work import Standing
from helexa.cortex.timeline import Timeline

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange

_Grounds: TypeAlias = tuple[float, Sequence[Standing], Sequence[tuple[int, float]], float, float]


class _Row(msgspec.Struct, array_like=True, gc=False):
    """What is told of one request; ``grounds`` is what its choice was made on.

    Read only: ``_row`` makes the same array as a tuple, which takes a third of the time.
    """

    request_id: str
    shown_id: str | None  # None: the same
    route: str
    node: str
    times: tuple[float, float, float, float, float, float, float, float, float, float]
    prompt: int
    completion: int
    cached: int
    reasoning: int
    status: int
    sent: int
    stream: bool
    cold: bool
    moved: bool
    timings: tuple[int, int, float, int, float] | None
    grounds: _Grounds | None


_encode = msgspec.msgpack.Encoder().encode
_rows = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_read = msgspec.msgpack.Decoder(_Row).decode


def is_ordinary(exchange: Exchange) -> bool:
    """One node answered it to its end, as nearly always: a page can tell all that is to be told."""
    placed = exchange.placed
    if placed is None or exchange.usage is None or exchange.outcome != "complete":
        return False
    if exchange.error is not None or exchange.tried or exchange.cut is not None:
        return False
    return placed.choice is None or not placed.choice.out


class Page:
    """Ordinary requests that ended together, oldest first.

    Args:
        ended: Exchanges that are ``is_ordinary``.
        ended_at: Epoch seconds.

    Raises:
        OverflowError: Counts that no node should tell.
    """

    __slots__ = ("_ended_at", "_fields", "_models", "_principals", "_rows")

    def __init__(self, ended: Sequence[Exchange], ended_at: float) -> None:
        self._ended_at = ended_at
        self._rows: bytes = _encode([_row(exchange) for exchange in ended])
        self._principals = tuple([exchange.principal for exchange in ended])
        self._models = tuple([exchange.model for exchange in ended])
        self._fields = tuple([_field(exchange) for exchange in ended])

    def __len__(self) -> int:
        return len(self._models)

    def find(self, request_id: str, principal: Principal | None) -> Timeline | None:
        """The latest of its requests with that id; see ``Timelines.find``."""
        if request_id.encode() not in self._rows:
            return None
        key = None if principal is None else principal.key_id
        named = (found for found in self.newest(key=key) if found.is_called(request_id))
        return next(named, None)

    def newest(self, model: str | None = None, key: str | None = None) -> Iterator[Timeline]:
        """Its requests, newest first, of one model or of one key if so asked."""
        wanted = [
            at
            for at, (of, who) in enumerate(zip(self._models, self._principals, strict=True))
            if model in (None, of) and key in (None, who.key_id)
        ]
        if wanted:
            rows = _rows(self._rows)
            for at in reversed(wanted):
                yield self._timeline(at, _read(rows[at]))

    def _timeline(self, at: int, told: _Row) -> Timeline:
        placed = Placed(told.node, cold=told.cold)
        if told.grounds is not None:
            cached, standings, homes, tokens, now = told.grounds
            field = self._fields[at]
            winner = next(one for one in field if one.node == told.node)
            placed.choice = Choice(winner, cached, field, standings, homes, tokens, now)
        return Timeline(
            request_id=told.request_id,
            shown_id=told.request_id if told.shown_id is None else told.shown_id,
            route=told.route,
            model=self._models[at],
            stream=told.stream,
            principal=self._principals[at],
            placed=placed,
            attempts=1,  # nobody else was tried
            status=told.status,
            sent=told.sent,
            outcome="complete",
            error=None,
            times=Times(*told.times),
            usage=Usage(told.prompt, told.completion, told.cached, told.reasoning),
            timings=None if told.timings is None else Timings(*told.timings),
            ended_at=self._ended_at,
            moved=told.moved,
        )


def _field(exchange: Exchange) -> Sequence[Candidate]:
    """The candidates of its choice, which choices share."""
    placed: Placed = exchange.placed  # type: ignore[assignment]  # it is ordinary
    return () if placed.choice is None else placed.choice.candidates


def _row(exchange: Exchange) -> tuple[object, ...]:
    """The members of a ``_Row``."""
    placed: Placed = exchange.placed  # type: ignore[assignment]  # it is ordinary
    usage: Usage = exchange.usage  # type: ignore[assignment]
    request_id, reply = exchange.request_id, exchange.reply
    times, timings, choice = exchange.times, exchange.timings, placed.choice
    return (
        request_id,
        None if exchange.shown_id is request_id else exchange.shown_id,
        exchange.route.name,
        placed.node,
        (
            times.received,
            times.granted,
            times.placed,
            times.connected,
            times.first_byte,
            times.first,
            times.last,
            times.ended,
            times.queued,
            times.retried,
        ),
        usage.prompt,
        usage.completion,
        usage.cached,
        usage.reasoning,
        reply.status,
        reply.bytes_sent,
        bool(exchange.streams),
        placed.cold,
        exchange.moved,
        None
        if timings is None
        else (
            timings.prompt_n,
            timings.cache_n,
            timings.prompt_ms,
            timings.predicted_n,
            timings.predicted_ms,
        ),
        None
        if choice is None
        else (choice.cached, choice.standings, choice.homes, choice.tokens, choice.now),
    )
