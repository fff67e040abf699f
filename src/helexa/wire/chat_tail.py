"""Metering clean chat from its bytes as they go by.

Events in the middle of a stream are only looked at: is there a first delta, how long since the
last batch. The few at its end (usage, ``[DONE]``, an error) are found by substring and decoded.
A model's text cannot fake them: inside JSON strings its quotes are escaped.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import sub

import msgspec

from helexa.core.usage import Timings, Usage
from helexa.wire.bodies import UNREADABLE

DONE = b"data: [DONE]\n\n"

MOST_STAMPS = 1024

MIDDLE = b"null}]}\n\n"
"""How a batch ends whose last event is a delta without a finish reason. What we look for comes
after those, so one comparison settles nearly every batch."""

_CUT = re.compile(rb'"helexa":\s?\{"finish":\s?"([a-z_]{1,32})"', re.ASCII)

_FIRST = re.compile(
    rb'"(?:content|reasoning_content|arguments|text|refusal|name)":\s?"(?!")', re.ASCII
)


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Reasoning(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _WireUsage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoning | None = None


class _Metered(msgspec.Struct, gc=False):
    usage: _WireUsage | None = None
    timings: Timings | None = None


class _Chunk(_Metered, gc=False):
    choices: list[msgspec.Raw] = []


class _Body(_Metered, gc=False):
    helexa: msgspec.Raw = msgspec.Raw()


_chunk = msgspec.json.Decoder(_Chunk).decode
_body = msgspec.json.Decoder(_Body).decode


class ChatTail:
    """Observer of one streamed answer.

    Args:
        gap_bounds: Upper bounds of the inter-token histogram, seconds.
        show_usage: The client asked for the usage chunk; otherwise it is taken out.

    Attributes:
        first_at: Loop time of the first non-empty delta; 0 before it.
        last_at: Loop time of the last batch.
        gaps: Counts per bucket of the time between batches, ``gap_sum`` their sum, as of the last
            ``measure``; None before the second batch.
        usage, timings: From the usage chunk; None before it.
        stamps: Times of batches in the middle of the stream that are not in ``gaps`` yet; whoever
            adds to them calls ``measure`` when there are ``MOST_STAMPS``. Eight bytes each.
        cut: Why the answer was ended before the model did, if it was.
        done: The stream ended with its terminator (kept back: the caller writes it).
        error: The raw data of an error event, also kept back.
    """

    __slots__ = (
        "_bounds",
        "_show_usage",
        "cut",
        "done",
        "error",
        "first_at",
        "gap_sum",
        "gaps",
        "last_at",
        "stamps",
        "timings",
        "usage",
    )

    def __init__(self, gap_bounds: Sequence[float], *, show_usage: bool) -> None:
        self._bounds = gap_bounds
        self._show_usage = show_usage
        self.first_at = self.last_at = self.gap_sum = 0.0
        self.gaps: list[int] | None = None
        self.stamps = array("d")
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.cut: str | None = None
        self.done = False
        self.error: bytes | None = None

    def feed(self, events: bytes, now: float) -> bytes:
        """Look at whole events; returns what of them goes to the client."""
        if self.first_at:
            self.stamps.append(now)
            if events.endswith(MIDDLE):
                if len(self.stamps) >= MOST_STAMPS:
                    self.measure()
                return events
        elif _FIRST.search(events) is not None:
            self.first_at = self.last_at = now
        find = events.find  # half of what ``in`` costs
        if find(b'"helexa"') >= 0:
            self.cut = _cut(events)
        if find(b'"usage"') >= 0 or find(b"[DONE]") >= 0 or find(b'"error"') >= 0:
            return self._tail(events)
        return events

    def measure(self) -> None:
        """Bring ``gaps``, ``gap_sum`` and ``last_at`` up to the last batch."""
        stamps = self.stamps
        if not stamps:
            return
        self.stamps = array("d")
        gaps = self.gaps
        if gaps is None:
            gaps = self.gaps = [0] * (len(self._bounds) + 1)
        bounds, last = self._bounds, self.last_at
        # Sorted, the gaps of a bucket stand together: no step of ours for each of them.
        spans = sorted(map(sub, stamps, (last, *stamps)))
        self.gap_sum += stamps[-1] - last
        self.last_at = stamps[-1]
        bucket, highest, counted = bisect_left(bounds, spans[0]), bisect_left(bounds, spans[-1]), 0
        while bucket < highest:
            below = bisect_right(spans, bounds[bucket])
            gaps[bucket] += below - counted
            counted = below
            bucket += 1
        gaps[highest] += len(spans) - counted

    def _tail(self, events: bytes) -> bytes:
        kept = [e + b"\n\n" for e in events.split(b"\n\n") if e and self._keep(e)]
        return b"".join(kept)

    def _keep(self, event: bytes) -> bool:
        if not event.startswith(b"data:"):
            return True
        data = event[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return False
        if data.startswith((b'{"error"', b'{ "error"')):
            self.error = data
            return False
        if data.find(b'"usage"') < 0:
            return True
        try:
            chunk = _chunk(data)
        except UNREADABLE:
            return True
        if chunk.usage is None:
            return True
        self.usage = _usage(chunk.usage)
        self.timings = chunk.timings
        return bool(chunk.choices) or self._show_usage


def plain_end(body: bytes) -> tuple[Usage | None, Timings | None, str | None]:
    """Usage and timings of a whole answer, and why it was cut; None where it has none of them, or
    is no JSON."""
    try:
        found = _body(body)
    except UNREADABLE:
        return None, None, None
    usage = None if found.usage is None else _usage(found.usage)
    return usage, found.timings, _cut(body) if found.helexa else None


def _cut(data: bytes) -> str | None:
    """Why an answer was cut, from the chunk or the whole body that says so."""
    found = _CUT.search(data)
    return None if found is None else found[1].decode()


def _usage(wire: _WireUsage) -> Usage:
    prompt, output = wire.prompt_tokens_details, wire.completion_tokens_details
    return Usage(
        wire.prompt_tokens,
        wire.completion_tokens or 0,
        (prompt.cached_tokens or 0) if prompt is not None else 0,
        (output.reasoning_tokens or 0) if output is not None else 0,
    )
