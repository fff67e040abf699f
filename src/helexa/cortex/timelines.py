"""The timelines of the last requests.

Ordinary requests are kept by the ``Page``, in bytes. Whatever else can be told of a request (why
it failed, who was tried before) is rare, and then its ``Timeline`` itself is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import astuple

from helexa.core.fleet import RequestRecord
from helexa.core.principal import Principal
from helexa.core.usage import Usage
from helexa.cortex.pages import Page, is_ordinary
from helexa.cortex.timeline import Timeline

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange

T = TypeVar("T")

KEPT = 4096


class Timelines:
    """The last requests, newest last.

    Args:
        now: Epoch seconds.
        kept: How many; of what was kept together, a few more.
    """

    __slots__ = ("_early", "_kept", "_most", "_now", "_size", "_wanting")

    def __init__(self, now: Callable[[], float], kept: int = KEPT) -> None:
        self._now = now
        self._most = kept
        self._size = 0
        self._kept: deque[Page | Timeline] = deque()
        self._wanting: dict[str, Timeline] = {}
        self._early: dict[str, list[tuple[RequestRecord, bool]]] = {}

    def __len__(self) -> int:
        return self._size

    def record(self, ended: Sequence[Exchange]) -> None:
        """Keep the timelines of exchanges in the order in which they have ended."""
        now = self._now()
        for ordinary, together in groupby(ended, is_ordinary):
            exchanges = list(together)
            if not (ordinary and self._add_page(exchanges, now)):
                for exchange in exchanges:
                    if exchange.placed is not None:
                        exchange.placed.ask = None  # nobody asks for the points of its prompt
                    self.add(timeline_of(exchange, now))

    def _add_page(self, ended: Sequence[Exchange], ended_at: float) -> bool:
        try:
            page = Page(ended, ended_at)
        except OverflowError:
            return False
        self._append(page)
        return True

    def _append(self, kept: Page | Timeline) -> None:
        """Keep it; the oldest makes room."""
        self._kept.append(kept)
        self._size += _size(kept)
        while self._size - _size(self._kept[0]) >= self._most:
            self._size -= _size(self._kept.popleft())

    def add(self, timeline: Timeline) -> None:
        """Keep one timeline; the oldest makes room."""
        self._append(timeline)
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
            if isinstance(kept, Page):
                found = kept.find(request_id, principal)
                if found is not None:
                    return found
            elif kept.is_called(request_id) and (
                principal is None or kept.principal.key_id == principal.key_id
            ):
                return kept
        return None

    def latest(
        self, limit: int, model: str | None = None, key: str | None = None
    ) -> list[Timeline]:
        """The newest requests first, of one model or of one key if so asked."""
        return list(islice(self._newest(model, key), limit))

    def _newest(self, model: str | None = None, key: str | None = None) -> Iterator[Timeline]:
        for kept in reversed(self._kept):
            if isinstance(kept, Page):
                yield from kept.newest(model, key)
            elif model in (None, kept.model) and key in (None, kept.principal.key_id):
                yield kept


def _size(kept: Page | Timeline) -> int:
    return len(kept) if isinstance(kept, Page) else 1


def timeline_of(exchange: Exchange, ended_at: float) -> Timeline:
    """All that is known of an ended exchange.

    Args:
        ended_at: Epoch seconds.
    """
    error, reply = exchange.error, exchange.reply
    failed = error is not None and exchange.outcome != "complete"
    return Timeline(
        exchange.request_id,
        exchange.shown_id,
        exchange.route.name,
        exchange.model,
        bool(exchange.streams),
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
