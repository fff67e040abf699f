"""The timelines of the last requests.

Thousands are kept, each in memory that has gone cold since the one it replaces was written, so
what is kept of an ordinary request is one string of bytes and references to what lives anyway;
its ``Timeline`` is made when somebody asks. Whatever else can be told of a request (why it
failed, who was tried before) is rare, and then the ``Timeline`` itself is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import msgspec
from msgspec.structs import astuple

from helexa.core.fleet import RequestRecord
from helexa.core.principal import Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.exchange.desk import Placed, Times
from helexa.cortex.routing.choice import Choice
from helexa.cortex.routing.rank import Candidate
from helexa.cortex.routing.work import Standing
from helexa.cortex.timeline import Timeline

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange

T = TypeVar("T")

KEPT = 4096

_Grounds: TypeAlias = tuple[float, Sequence[Standing], Sequence[tuple[int, float]], float, float]


class _Numbers(msgspec.Struct, array_like=True, gc=False):
    """What is told of an ordinary request in numbers; ``grounds`` is what its choice was made on.

    Read only: ``_numbers`` writes the same array from a tuple, which takes a third of the time.
    """

    times: tuple[float, float, float, float, float, float, float, float, float, float]
    ended_at: float
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
_decode = msgspec.msgpack.Decoder(_Numbers).decode


class Packed(msgspec.Struct, gc=False):
    """An ordinary request: one node answered it to its end.

    Args:
        request_id: Ours.
        shown_id: What the client was told.
        node, candidates, winner: Where it went, and what it was chosen among.
        numbers: All else, see ``_Numbers``.
    """

    request_id: str
    shown_id: str
    principal: Principal
    route: str
    model: str
    node: str
    candidates: Sequence[Candidate]
    winner: Candidate | None
    numbers: bytes

    def timeline(self) -> Timeline:
        """All that is known of it."""
        told = _decode(self.numbers)
        placed = Placed(self.node, cold=told.cold)
        if self.winner is not None and told.grounds is not None:
            cached, standings, homes, tokens, now = told.grounds
            placed.choice = Choice(
                self.winner, cached, self.candidates, standings, homes, tokens, now
            )
        return Timeline(
            request_id=self.request_id,
            shown_id=self.shown_id,
            route=self.route,
            model=self.model,
            stream=told.stream,
            principal=self.principal,
            placed=placed,
            attempts=1,  # nobody else was tried
            status=told.status,
            sent=told.sent,
            outcome="complete",
            error=None,
            times=Times(*told.times),
            usage=Usage(told.prompt, told.completion, told.cached, told.reasoning),
            timings=None if told.timings is None else Timings(*told.timings),
            ended_at=told.ended_at,
            moved=told.moved,
        )


def pack(exchange: Exchange, ended_at: float) -> Packed | None:
    """What is kept of an exchange that is as nearly all are; None for any other.

    Args:
        ended_at: Epoch seconds.
    """
    placed, usage = exchange.placed, exchange.usage
    if placed is None or usage is None or exchange.outcome != "complete":
        return None
    if exchange.error is not None or exchange.tried or exchange.cut is not None:
        return None
    choice = placed.choice
    if choice is not None and choice.out:
        return None
    try:
        numbers = _numbers(exchange, placed, usage, ended_at)
    except OverflowError:  # counts that no node should tell
        return None
    return Packed(
        exchange.request_id,
        exchange.shown_id,
        exchange.principal,
        exchange.route.name,
        exchange.model,
        placed.node,
        () if choice is None else choice.candidates,
        None if choice is None else choice.winner,
        numbers,
    )


def _numbers(exchange: Exchange, placed: Placed, usage: Usage, ended_at: float) -> bytes:
    seen, reply, choice = exchange.seen, exchange.reply, placed.choice
    times, timings = exchange.times, exchange.timings
    return _encode(
        (
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
            ended_at,
            usage.prompt,
            usage.completion,
            usage.cached,
            usage.reasoning,
            reply.status,
            reply.bytes_sent,
            seen is not None and seen.stream,
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
    )


class Timelines:
    """The last requests, newest last.

    Args:
        now: Epoch seconds.
        kept: How many.
    """

    __slots__ = ("_early", "_kept", "_now", "_wanting")

    def __init__(self, now: Callable[[], float], kept: int = KEPT) -> None:
        self._now = now
        self._kept: deque[Packed | Timeline] = deque(maxlen=kept)
        self._wanting: dict[str, Timeline] = {}
        self._early: dict[str, list[tuple[RequestRecord, bool]]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def record(self, exchange: Exchange) -> None:
        """Keep an ended exchange's timeline."""
        now = self._now()
        packed = pack(exchange, now)
        if packed is not None:
            self._kept.append(packed)
        else:
            if exchange.placed is not None:
                exchange.placed.ask = None  # nobody asks for the points of its prompt any more
            self.add(timeline_of(exchange, now))

    def add(self, timeline: Timeline) -> None:
        """Keep one timeline; the oldest makes room."""
        self._kept.append(timeline)
        if timeline.placed is not None and (timeline.usage is None or timeline.tried):
            _remember(self._wanting, timeline.request_id, timeline)
            for record, billed in self._early.pop(timeline.request_id, ()):
                self._tell(record, billed=billed)

    def heard(self, record: RequestRecord) -> None:
        """A node's last word: what a request has cost whose end we did not see."""
        self._tell(record, billed=True)

    def discarded(self, record: RequestRecord) -> None:
        """What a node has computed for an attempt of which nothing was relayed."""
        self._tell(record, billed=False)

    def _tell(self, record: RequestRecord, *, billed: bool) -> None:
        timeline = self._wanting.get(record.request_id)
        if timeline is None:
            early = self._early.get(record.request_id, [])
            _remember(self._early, record.request_id, [*early, (record, billed)])
            return
        told = Usage(record.prompt, record.output, record.cached, record.reasoning)
        if not billed:
            timeline.discarded = _sum(timeline.discarded, told)
        elif timeline.attempts == record.attempt:
            timeline.usage = told

    def find(self, request_id: str, principal: Principal | None) -> Timeline | None:
        """The latest request of that id.

        Args:
            request_id: Ours, or the one that the client was told.
            principal: Only this key's requests; None for any.
        """
        for kept in reversed(self._kept):
            if request_id in (kept.shown_id, kept.request_id) and (
                principal is None or kept.principal.key_id == principal.key_id
            ):
                return _shown(kept)
        return None

    def latest(
        self, limit: int, model: str | None = None, key: str | None = None
    ) -> list[Timeline]:
        """The newest requests first, of one model or of one key if so asked."""
        found = (
            kept
            for kept in reversed(self._kept)
            if model in (None, kept.model) and key in (None, kept.principal.key_id)
        )
        return [_shown(kept) for kept, _ in zip(found, range(limit), strict=False)]

    def __iter__(self) -> Iterator[Timeline]:
        return map(_shown, self._kept)


def _shown(kept: Packed | Timeline) -> Timeline:
    return kept.timeline() if isinstance(kept, Packed) else kept


def timeline_of(exchange: Exchange, ended_at: float) -> Timeline:
    """All that is known of an ended exchange.

    Args:
        ended_at: Epoch seconds.
    """
    error, seen, reply = exchange.error, exchange.seen, exchange.reply
    failed = error is not None and exchange.outcome != "complete"
    return Timeline(
        exchange.request_id,
        exchange.shown_id,
        exchange.route.name,
        exchange.model,
        seen is not None and seen.stream,
        exchange.principal,
        exchange.placed,
        exchange.delivered,
        reply.status,
        reply.bytes_sent,
        exchange.outcome,
        # Not the error itself: its traceback would keep the request's body alive.
        (error.code, error.message) if failed and error is not None else None,
        exchange.times,
        exchange.usage,
        exchange.timings,
        ended_at,
        exchange.moved,
        tuple(exchange.tried or ()),
        exchange.cut,
    )


def _sum(one: Usage | None, other: Usage) -> Usage:
    if one is None:
        return other
    return Usage(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))


def _remember(things: dict[str, T], name: str, thing: T) -> None:
    """Keep ``thing`` until it is asked for, or the oldest of too many."""
    things[name] = thing
    if len(things) > KEPT:
        del things[next(iter(things))]
