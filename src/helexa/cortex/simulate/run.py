"""The clock of a simulation: arrivals, prefills, answers, loads and evictions in order of time.

::

    arrival ──▶ a warm place? ──policy──▶ place ──▶ first token ──▶ ended
                    │ none                              (place.begin whenever something ended)
                    └──▶ waits ──scheduler──▶ loaded ──▶ as above
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from helexa.cortex.simulate.fleet import FleetSpec
from helexa.cortex.simulate.place import Place, Run
from helexa.cortex.simulate.policies import Policy
from helexa.cortex.simulate.residents import Residents
from helexa.cortex.simulate.trace import Asked, ask_of

Action = Callable[[], None]


@dataclass(slots=True)
class Clock:
    """Simulated seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Result:
    """What happened.

    Args:
        loads, evictions: (seconds, node, model).
    """

    runs: list[Run] = field(default_factory=list)
    loads: list[tuple[float, str, str]] = field(default_factory=list)
    evictions: list[tuple[float, str, str]] = field(default_factory=list)


class Simulation:
    """One run of a trace over a fleet.

    Args:
        policy: Made with the simulation's clock.
    """

    def __init__(self, spec: FleetSpec, policy: Callable[[Clock], Policy]) -> None:
        self.clock = Clock()
        self.policy = policy(self.clock)
        self.result = Result()
        self._events: list[tuple[float, int, Action]] = []
        self._order = count()
        self._waiting: dict[str, list[Run]] = {}
        self._look_at: float | None = None
        self.residents = Residents(spec, self)

    def run(self, trace: Iterable[Asked]) -> Result:
        """Every request to its end; those that still wait when nothing can happen are refused."""
        for asked in trace:
            self._until(asked.at)
            self.clock.now = asked.at
            run = Run(asked, ask_of(asked))
            self.result.runs.append(run)
            self._arrive(run)
        self._until(None)
        for runs in self._waiting.values():
            for run in runs:
                run.refused = True
        return self.result

    # ── for the residents ───────────────────────────────────────────────────────────────────

    def at(self, when: float, action: Action) -> None:
        """Do something later."""
        heapq.heappush(self._events, (when, next(self._order), action))

    @property
    def waiting(self) -> dict[str, list[Run]]:
        """Requests whose model is nowhere, by model."""
        return self._waiting

    def refuse(self, model: str) -> None:
        """Nobody need wait for this model."""
        for run in self._waiting.pop(model, []):
            run.refused = True

    def look(self) -> None:
        """Something has changed for those who wait: send on who can go, then decide anew."""
        for model in list(self._waiting):
            if self.residents.open(model):
                for run in self._waiting.pop(model):
                    self._send(run)
        self.residents.step()

    # ── time passes ─────────────────────────────────────────────────────────────────────────

    def _until(self, end: float | None) -> None:
        events = self._events
        while events and (end is None or events[0][0] <= end):
            self.clock.now, _, action = heapq.heappop(events)
            action()

    def _arrive(self, run: Run) -> None:
        model = run.asked.model
        if not self.residents.known(model):
            run.refused = True
        elif self.residents.open(model) and model not in self._waiting:
            self._send(run)
        else:
            run.cold = True
            self._waiting.setdefault(model, []).append(run)
            self.residents.step()

    def _send(self, run: Run) -> None:
        places = self.residents.open(run.asked.model)
        if not any(place.fits(run) for place in places):
            run.refused = True
            return
        place = run.place = self.policy.place(run, places, self.clock.now)
        self.residents.used(place)
        place.queue.append(run)
        self._begin(place)

    def _begin(self, place: Place) -> None:
        run = place.begin(self.clock.now)
        if run is not None:
            self.at(place.prefilled_at, lambda: self._first(place, run))

    def _first(self, place: Place, run: Run) -> None:
        end = place.first(run, self.clock.now)
        self.policy.first(run, self.clock.now)
        self.at(end, lambda: self._ended(place, run))
        self._begin(place)

    def _ended(self, place: Place, run: Run) -> None:
        place.end(run, self.clock.now)
        self.policy.ended(run, self.clock.now)
        self._begin(place)
        if self._waiting:
            self.look()
