"""What one place (node, model) has to do and how fast it does it; one lease per request there."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from helexa.cortex.routing import breaker as breakers
from helexa.cortex.routing.breaker import CLOSED, Breaker
from helexa.cortex.routing.index import CacheModel

if TYPE_CHECKING:
    from helexa.cortex.routing.rank import Candidate

BOOTSTRAP_PREFILL = 800.0
"""Tokens per second that a place is believed to prefill before anybody has measured it."""

SERVICE_S = 2.0
"""How long a request is believed to hold its seat before one has."""

FULL_S = 0.02
"""What a place whose seats are all taken costs more than an idle one, where nothing else tells
them apart: whoever decodes with fewer decodes faster."""

DISPLACED = 2.0
"""What pushing out a prompt that is asked for again costs, in times of its prefill: it is computed
again, and whoever is behind it waits. Found by simulation; without it, prompts spread over more
places than they need as soon as queues grow, and push each other out."""

MEMORY_S = 60.0
"""A prefix that was used so long ago is as likely as not to be used again in time."""

_LEARNS = 0.2
_LEAST_TOKENS = 32
"""A prefill of fewer tokens says more about the clock than about the engine."""


Standing: TypeAlias = tuple[float, float, float, float, float]
"""How a place stands until something changes there, in what a choice adds up (seconds):

- ``due``: until then (a time) the prefills before a request take longer than it waits for a seat,
- ``least``: what it costs in any case: the wait for a seat, company, a load,
- ``token_s``: what each new token costs: its prefill beside who is there, and what it pushes out,

and for whoever asks why, ``queued``, the wait for a seat in ``least``, and ``own``, the prefill in
``token_s``."""

SHUT: Standing = (inf, 0.0, 0.0, 0.0, 0.0)
"""While its breaker is open."""


class Work:
    """The state of one place that decisions rest on; one owner, the ``LeaseTable``.

    ``others`` comes from the node's last report, everything else from our own requests.
    Whoever changes what a ``Standing`` is made of clears ``standing``.

    Attributes:
        standing: All of the rest that a choice looks at, made by ``stand`` when one does.
        share: Of its seats, for each request there.
        load_s: Seconds until it could start.
        open: Our requests there.
        others: Requests there that are not ours.
        taken: Requests of ours there have ever been: ``residency`` sees by it when a place was
            last used.
        waiting: Ours whose first token has not come.
        drift: Seconds by which first tokens have come later than predicted, summed up.
        ready_at: When the prefills that we have sent there will be done, seconds.
        per_token: Seconds to prefill a token; ``measured`` by our own requests, or the node's word.
        service_s: Seconds a request holds its seat.
        breaker: Its failures in a row; ``shut_until`` is that of the breaker.
        candidate: This place as it stands for a choice; made by the placer.
        cache: What its prefix cache is believed to hold.
    """

    __slots__ = (
        "breaker",
        "cache",
        "candidate",
        "drift",
        "load_s",
        "measured",
        "open",
        "others",
        "per_token",
        "ready_at",
        "service_s",
        "share",
        "shut_until",
        "standing",
        "taken",
        "waiting",
    )

    def __init__(self, cache: CacheModel | None = None) -> None:
        self.standing: Standing | None = None
        self.share = 1.0
        self.load_s = 0.0
        self.open = 0
        self.others = 0
        self.taken = 0
        self.waiting = 0
        self.drift = 0.0
        self.ready_at = 0.0
        self.per_token = 1 / BOOTSTRAP_PREFILL
        self.measured = False
        self.service_s = SERVICE_S
        self.breaker: Breaker = CLOSED
        self.candidate: Candidate | None = None
        self.shut_until = 0.0
        self.cache = CacheModel() if cache is None else cache

    def stand(self, now: float) -> Standing:
        """How it stands; kept until something changes, unless its breaker has more to say.

        Only what is pushed out ages while nothing changes, slowly: see ``rank.Field``.

        Args:
            now: Seconds.
        """
        shut = self.shut_until
        if shut > now:
            return SHUT
        cache, share, per_token = self.cache, self.share, self.per_token
        busy = (self.open + self.others) * share
        queued = (busy - 1.0 + share) * self.service_s if busy >= 1.0 else 0.0
        own = per_token * (1.0 + busy)
        full, age = cache.used / cache.capacity, MEMORY_S + now - cache.oldest()
        found = (
            self.ready_at - queued,
            queued + busy * FULL_S + self.load_s,
            own + per_token * (DISPLACED * MEMORY_S) * full / age,
            queued,
            own,
        )
        if not shut:
            self.standing = found
        return found

    def learn_rate(self, tokens: int, seconds: float) -> None:
        """A prefill was measured; short ones count less."""
        if tokens < _LEAST_TOKENS or seconds <= 0:
            return
        self.standing = None
        weight = _LEARNS * min(1.0, tokens / 512) if self.measured else 1.0
        self.measured = True
        self.per_token += weight * (seconds / tokens - self.per_token)

    def judge(self, breaker: Breaker) -> None:
        """The breaker's next state."""
        self.standing = None
        self.breaker = breaker
        self.shut_until = breaker.shut_until


class Lease:
    """A request's share of a place's work; ``release`` may be called any number of times.

    The place's prefills are taken to be done one after the other: a request's is due when those
    before it and its own are through. Its first token tells how far that was off, and whoever is
    behind it is expected that much earlier or later.

    Args:
        prefill_s: Seconds of prefill that it brings along, as predicted.
        clock: Monotonic seconds.
        now: What it says, where that is known.
    """

    __slots__ = ("_clock", "_drift", "_due", "_prefill_s", "_since", "_started", "_work")

    def __init__(
        self,
        work: Work,
        clock: Callable[[], float],
        prefill_s: float = 0.0,
        now: float | None = None,
    ) -> None:
        self._work: Work | None = work
        self._clock = clock
        self._since = now = clock() if now is None else now
        self._prefill_s = prefill_s
        self._drift = work.drift
        self._started = False
        work.standing = None
        work.open += 1
        work.taken += 1
        work.waiting += 1
        ready = work.ready_at
        work.ready_at = self._due = now + prefill_s if now > ready else ready + prefill_s
        if work.shut_until:
            work.judge(breakers.tried(work.breaker, now))

    def started(self) -> None:
        """Its first token has come: its prefill is done, whatever was predicted."""
        work = self._work
        if work is None or self._started:
            return
        self._started = True
        work.standing = None
        work.waiting -= 1
        if work.waiting:
            late = self._clock() - self._due - (work.drift - self._drift)
            work.drift += late
            work.ready_at += late
        else:
            work.ready_at = 0.0

    def release(self) -> None:
        """The request is no longer there."""
        work, self._work = self._work, None
        if work is None:
            return
        now = self._clock()
        work.standing = None
        work.open -= 1
        if not self._started:
            work.waiting -= 1
            if self._due + (work.drift - self._drift) > now:
                work.ready_at -= self._prefill_s  # it left before its turn
                work.drift -= self._prefill_s
        if not work.waiting:
            work.ready_at = 0.0
        work.service_s += _LEARNS * (now - self._since - work.service_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
