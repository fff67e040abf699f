"""The timelines of the last requests.

Thousands are kept, each in memory that has gone cold since the one it replaces was written, so
what is kept of an ordinary request is one string of bytes and references to what lives anyway;
its ``Timeline`` is made when somebody asks. Whatever else can be told of a request (why it
failed, who was tried before) is rare, and then the ``Timeline`` itself is kept.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import astuple

from helexa.core.fleet import RequestRecord
from helexa.core.principal import Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.exchange.desk import Placed, Times
from helexa.cortex.routing.choice import RECORDED, Choice, Parts
from helexa.cortex.routing.rank import Candidate
from helexa.cortex.timeline import Timeline

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange

T = TypeVar("T")

KEPT = 4096

_STREAM, _COLD, _MOVED, _TIMED = 1, 2, 4, 8
_ID = 30  # bytes of a request id
_PARTS = 5  # numbers of a prediction
_UNTIMED = Timings()

# Id, times, ended_at │ usage │ timings │ status, sent, attempts │ running, capacity, among │ flags,
# then what was predicted, in single precision: it is shown with four digits.
_LAYOUTS = tuple(
    struct.Struct(f"<{_ID}s11d4IIIdIdHQBIIIB{_PARTS * count}f") for count in range(RECORDED + 1)
)


class Packed(msgspec.Struct, gc=False):
    """An ordinary request: one node answered it to its end.

    Args:
        shown: What the client calls it, where that is not our id.
        node, candidates, winner: Where it went, and what it was chosen among.
        numbers: All else, see ``_LAYOUTS``.
    """

    principal: Principal
    route: str
    model: str
    shown: str | None
    node: str
    candidates: Sequence[Candidate]
    winner: Candidate | None
    numbers: bytes

    @property
    def request_id(self) -> str:
        """Ours."""
        return self.numbers[:_ID].decode()

    @property
    def shown_id(self) -> str:
        """What the client was told."""
        return self.request_id if self.shown is None else self.shown

    def timeline(self) -> Timeline:
        """All that is known of it."""
        rest = _LAYOUTS[len(self.candidates)].unpack(self.numbers)[1:]
        status, sent, attempts, running, capacity, among, flags = rest[20:27]
        choice = None
        if self.winner is not None:
            numbers = iter(rest[27:])
            parts = tuple(zip(numbers, numbers, numbers, numbers, numbers, strict=True))
            believed = parts[list(self.candidates).index(self.winner)][2]
            choice = Choice(self.winner, believed, self.candidates, parts)
        return Timeline(
            request_id=self.request_id,
            shown_id=self.shown_id,
            route=self.route,
            model=self.model,
            stream=bool(flags & _STREAM),
            principal=self.principal,
            placed=Placed(
                self.node, running, capacity, among, cold=bool(flags & _COLD), choice=choice
            ),
            attempts=attempts,
            status=status,
            sent=sent,
            outcome="complete",
            error=None,
            times=Times(*rest[:10]),
            usage=Usage(*rest[11:15]),
            timings=Timings(*rest[15:20]) if flags & _TIMED else None,
            ended_at=rest[10],
            moved=bool(flags & _MOVED),
        )


def pack(exchange: Exchange, ended_at: float) -> Packed | None:
    """What is kept of an exchange that is as nearly all are; None for any other.

    Args:
        ended_at: Epoch seconds.
    """
    placed, usage, request_id = exchange.placed, exchange.usage, exchange.request_id
    if placed is None or usage is None or exchange.outcome != "complete":
        return None
    if exchange.error is not None or exchange.tried or exchange.cut is not None:
        return None
    choice = placed.choice
    if len(request_id) != _ID or (choice is not None and choice.out):
        return None
    try:
        numbers = _numbers(exchange, placed, usage, ended_at)
    except struct.error:  # counts that no node should tell
        return None
    return Packed(
        exchange.principal,
        exchange.route.name,
        exchange.model,
        None if exchange.shown_id == request_id else exchange.shown_id,
        placed.node,
        () if choice is None else choice.candidates,
        None if choice is None else choice.winner,
        numbers,
    )


def _numbers(exchange: Exchange, placed: Placed, usage: Usage, ended_at: float) -> bytes:
    seen, timings, reply, choice = exchange.seen, exchange.timings, exchange.reply, placed.choice
    parts: Sequence[Parts] = () if choice is None else choice.parts
    flags = _STREAM if seen is not None and seen.stream else 0
    if placed.cold:
        flags |= _COLD
    if exchange.moved:
        flags |= _MOVED
    if timings is not None:
        flags |= _TIMED
    else:
        timings = _UNTIMED
    return _LAYOUTS[len(parts)].pack(
        exchange.request_id.encode(),
        *astuple(exchange.times),
        ended_at,
        *astuple(usage),
        *astuple(timings),
        reply.status,
        reply.bytes_sent,
        1,  # attempts: nobody else was tried
        placed.running,
        placed.capacity,
        placed.among,
        flags,
        *chain.from_iterable(parts),
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
        self._early: dict[str, RequestRecord] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def record(self, exchange: Exchange) -> None:
        """Keep an ended exchange's timeline."""
        now = self._now()
        packed = pack(exchange, now)
        if packed is not None:
            self._kept.append(packed)
        else:
            self.add(timeline_of(exchange, now))

    def add(self, timeline: Timeline) -> None:
        """Keep one timeline; the oldest makes room."""
        self._kept.append(timeline)
        if timeline.usage is None and timeline.placed is not None:
            _remember(self._wanting, timeline.request_id, timeline)
            record = self._early.pop(timeline.request_id, None)
            if record is not None:
                self.heard(record)

    def heard(self, record: RequestRecord) -> None:
        """A node's last word: what a request has cost whose end we did not see."""
        timeline = self._wanting.get(record.request_id)
        if timeline is None:
            _remember(self._early, record.request_id, record)
        elif timeline.attempts == record.attempt:
            del self._wanting[record.request_id]
            timeline.usage = Usage(record.prompt, record.output, record.cached, record.reasoning)

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


def _remember(things: dict[str, T], name: str, thing: T) -> None:
    """Keep ``thing`` until it is asked for, or the oldest of too many."""
    things[name] = thing
    if len(things) > KEPT:
        del things[next(iter(things))]
