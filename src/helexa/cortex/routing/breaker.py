"""When a place is left alone for a while, and how it is tried again: pure steps on frozen states.

::

    closed ──2 connection failures or 5 model failures in a row──▶ open
      ▲                                                             │ 1 s, doubled each time,
      │ success                                                     ▼ at most 30 s
      └──────────────────────── half-open: one request tries it ◀───┘
                                    └── failure ──▶ open

A *connection* failure is the node's: refused, reset, no answer to a connect. A *model* failure is
the engine's: a 5xx that is no refusal, a stream that breaks. Refusals (busy, draining, unloaded)
are neither; they are answers. A place that is shut is passed over, never refused for: where there
is no other, it is tried all the same.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

Kind = Literal["connection", "model"]
Phase = Literal["closed", "open", "half-open"]

CONNECTION_FAILURES = 2
MODEL_FAILURES = 5
SHORTEST_S, LONGEST_S = 1.0, 30.0
PROBE_S = 30.0
"""A probe that says nothing for so long lets the next one try."""


class Breaker(msgspec.Struct, frozen=True):
    """One place's failures in a row.

    Args:
        connection, model: Failures of each kind since the last success.
        trips: How often it opened since the last success.
        shut_until: Nobody is sent there before (seconds); 0 is closed.
        probing: It is shut because one request is trying it.
    """

    connection: int = 0
    model: int = 0
    trips: int = 0
    shut_until: float = 0.0
    probing: bool = False

    @property
    def clean(self) -> bool:
        """Nothing is held against it."""
        return not (self.connection or self.model or self.trips)


CLOSED = Breaker()


def phase(breaker: Breaker, now: float) -> Phase:
    """Where it stands at a time."""
    if not breaker.trips:
        return "closed"
    return "open" if breaker.shut_until > now and not breaker.probing else "half-open"


def failed(breaker: Breaker, kind: Kind, now: float) -> Breaker:
    """A request failed there.

    Args:
        now: Seconds.
    """
    connection = breaker.connection + (kind == "connection")
    model = breaker.model + (kind == "model")
    counted = replace(breaker, connection=connection, model=model)
    again = breaker.trips > 0 and (breaker.probing or breaker.shut_until <= now)
    enough = connection >= CONNECTION_FAILURES or model >= MODEL_FAILURES
    if again or (enough and not breaker.trips):
        shut = min(LONGEST_S, SHORTEST_S * 2.0**breaker.trips)
        return replace(counted, trips=breaker.trips + 1, shut_until=now + shut, probing=False)
    return counted


def tried(breaker: Breaker, now: float) -> Breaker:
    """A request is sent there: where it was half-open, everybody else waits for its outcome."""
    if breaker.trips and breaker.shut_until <= now:
        return replace(breaker, shut_until=now + PROBE_S, probing=True)
    return breaker


def given_up(breaker: Breaker, now: float) -> Breaker:
    """A probe ended without telling anything (its client left): the next may try."""
    return replace(breaker, shut_until=now, probing=False) if breaker.probing else breaker
