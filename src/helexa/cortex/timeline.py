"""Where a request's time went and why it went where it did, rendered when somebody asks.

::

    received ──▶ granted ──▶ placed ──▶ connected ──▶ first ──▶ last ──▶ ended
       └ checks ────┴ queue or load ┴ connect ┴ queue, prefill ┴ decode ┴ tail
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from helexa.core.principal import Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.routing import explain

if TYPE_CHECKING:
    from helexa.cortex.exchange.desk import Placed, Times, Tried


class Timeline(msgspec.Struct, gc=False):
    """One ended request; ``usage`` and ``discarded`` may still come, with the nodes' word.

    Args:
        request_id: Ours; what nodes and ledger know it by.
        shown_id: What the client was told, which may be its own.
        ended_at: Epoch seconds.
        error: Code and message of what went wrong, if anything did.
        tried: Candidates that did not answer before the one in ``placed``.
        cut: Why the answer was ended before the model did, if it was.
        moved: A rotating first line was moved behind the rest of the system prompt.
        discarded: Computed for attempts of which nothing was relayed; nobody is billed for it.
    """

    request_id: str
    shown_id: str
    route: str
    model: str
    stream: bool
    principal: Principal
    placed: Placed | None
    attempts: int
    status: int
    sent: int
    outcome: str
    error: tuple[str | None, str] | None
    times: Times
    usage: Usage | None
    timings: Timings | None
    ended_at: float
    moved: bool = False
    tried: tuple[Tried, ...] = ()
    cut: str | None = None
    discarded: Usage | None = None

    def is_called(self, request_id: str) -> bool:
        """Whether that is its id, ours or the client's."""
        return request_id in (self.shown_id, self.request_id)

    def phases(self) -> dict[str, float | None]:
        """Milliseconds per phase; None for a phase that did not happen.

        The loop's clock is read once per turn, so a phase within a turn may seem to end before
        it began; it has taken no time.
        """
        times, cold = self.times, self.placed is not None and self.placed.cold
        retried = times.retried
        waiting = times.ms(times.granted + retried, times.placed)
        queued = round(times.queued * 1000, 2)
        start = times.connected or times.placed
        phases = {
            "check": times.ms(times.received, times.granted),
            "queue": (queued or None) if cold or waiting is None else round(waiting + queued, 2),
            "load": waiting if cold else None,
            "retries": round(retried * 1000, 2) or None,
            "connect": times.ms(times.placed, times.connected),
            "first_byte": times.ms(start, times.first_byte),
            "prefill": times.ms(start + times.queued, times.first),
            "decode": times.ms(times.first, times.last),
            "first_token": times.ms(times.received, times.first),
            "total": times.ms(times.received, times.ended),
        }
        return {name: ms if ms is None else max(0.0, ms) for name, ms in phases.items()}

    def prefix(self, usage: Usage) -> dict[str, object]:
        """How much of the prompt was reused, and the token at which it first differed from what
        its engine had; None where it did not. An engine reads the last token anew in any case."""
        same = usage.cached >= usage.prompt - 1
        found: dict[str, object] = {
            "reused": usage.cached,
            "of": usage.prompt,
            "differs_at": None if same else usage.cached,
        }
        return found | {"first_line": "moved"} if self.moved else found

    def render(self, *, admin: bool = False) -> dict[str, object]:
        """As a JSON body; only administrators see whose it was."""
        usage, placed = self.usage, self.placed
        body: dict[str, object] = {
            "id": self.shown_id,
            "route": self.route,
            "model": self.model,
            "stream": self.stream,
            "status": self.status,
            "outcome": self.outcome,
            "started_at": round(self.ended_at - (self.times.ended - self.times.received), 3),
            "ms": {name: ms for name, ms in self.phases().items() if ms is not None},
            "attempts": self.attempts,
            "bytes": self.sent,
        }
        if placed is not None:
            body |= {"node": placed.node, "why": placed.why, "cold_start": placed.cold}
        if usage is not None:
            body["usage"] = {**msgspec.to_builtins(usage), "total": usage.total}
            body["prefix"] = self.prefix(usage)
        if self.discarded is not None:
            thrown = self.discarded
            body["discarded"] = {**msgspec.to_builtins(thrown), "total": thrown.total}
        if self.timings is not None:
            body["timings"] = msgspec.to_builtins(self.timings)
        if self.tried:
            body["tried"] = [one._asdict() for one in self.tried]
        if self.cut is not None:
            body["cut"] = self.cut
        if self.error is not None:
            body["error"] = {"code": self.error[0], "message": self.error[1]}
        if admin:
            body |= {
                "request_id": self.request_id,
                "account_id": self.principal.account_id,
                "key_id": self.principal.key_id,
            }
            if placed is not None and placed.choice is not None:
                body["candidates"] = explain.candidates(placed.choice)
        return body
