"""What is kept about requests beyond their metrics: timelines, and captures when armed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helexa.core.fleet import RequestRecord
from helexa.core.principal import Principal
from helexa.cortex.capture import Captured, Captures
from helexa.cortex.timelines import Timelines

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange


class RequestObservers:
    """The ``Observers`` of every exchange."""

    __slots__ = ("captures", "timelines")

    def __init__(self, timelines: Timelines, captures: Captures) -> None:
        self.timelines = timelines
        self.captures = captures

    def finished(self, ended: Sequence[Exchange]) -> None:
        """Keep the timelines of exchanges that have ended."""
        self.timelines.record(ended)

    def heard(self, record: RequestRecord) -> None:
        """Say in a timeline what only its node could tell."""
        self.timelines.heard(record)

    def discarded(self, record: RequestRecord) -> None:
        """Say in a timeline what was computed for an attempt of which nothing was relayed."""
        self.timelines.discarded(record)

    def watch(self, principal: Principal, model: str, request_id: str) -> Captured | None:
        """A watcher if this request is being captured."""
        if self.captures.current is None:
            return None
        return self.captures.watch(principal, model, request_id)
