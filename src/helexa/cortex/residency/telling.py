"""What those who wait are told: their place, when their turn comes, or that it comes too late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import asdict

from helexa.core.errors import ModelLoading
from helexa.cortex.residency.eta import etas
from helexa.cortex.residency.lane import Work
from helexa.cortex.residency.learned import Learned
from helexa.cortex.residency.scheduler import Scheduler
from helexa.cortex.residency.waiting import HeldUp, Line, Standing, WaitingRoom
from helexa.cortex.residency.world import Demand
from helexa.cortex.routing.decide import Decision, Wait


class Teller:
    """Writes places and times into the lines, after every look.

    Args:
        decided: What can be done for a model, by what the nodes say.
    """

    def __init__(
        self,
        room: WaitingRoom,
        scheduler: Scheduler,
        learned: Learned,
        decided: Callable[[str], Decision],
    ) -> None:
        self._room = room
        self._scheduler = scheduler
        self._learned = learned
        self._decided = decided

    def tell(self, now: float) -> None:
        """Everybody's place and time; those whose deadline cannot be met are refused."""
        ordered = self._scheduler.ordered(now)
        times = etas(
            ordered,
            self._scheduler.works(),
            self._scheduler.postponed,
            self._scheduler.rules,
            self._learned.unload_s,
            now,
        )
        ahead = 0
        for demand in ordered:
            line = self._room.lines.get(demand.model)
            if line is None:
                continue
            line.ahead, ahead = ahead, ahead + len(line.waiters)
            if self._timed(demand):
                line.eta_at = times.get(demand.model)
            line.held_up = self._held_up(demand)
        for line in list(self._room.lines.values()):
            line.count_off()
            lane = self._scheduler.lane_of(line.model)
            if self._fetching(line, now):
                pass
            elif lane is not None and self._learned.timed_here(lane[0], line.model):
                line.progress = self._progress(lane, line.model, now)
            elif line.cold and (lane is not None or line.model not in times):
                self._as_told(line, now)
            self._refuse_hurried(line, now)

    def _held_up(self, demand: Demand) -> HeldUp | None:
        """The load that it waits for wherever it could go; the one that began last, where there
        are several, since nobody knows which ends first."""
        works, postponed = self._scheduler.works(), self._scheduler.postponed(demand.model)
        nodes = {option.node for option in demand.options}
        if postponed is not None and postponed.node is not None:
            nodes = {postponed.node}
        found = [
            HeldUp(node, work.model, work.since, work.load_s)
            for node in nodes
            if (work := works.get(node)) is not None
            and work.phase == "loading"
            and work.model not in (None, demand.model)
        ]
        everywhere = bool(nodes) and len(found) == len(nodes)
        return max(found, key=lambda held: held.since) if everywhere else None

    def _timed(self, demand: Demand) -> bool:
        """Whether anybody knows what a load of it takes."""
        return any(self._learned.load_s(o.node, demand.model) is not None for o in demand.options)

    def _progress(self, lane: tuple[str, Work], model: str, now: float) -> float | None:
        """Of a load of ours, by how long the last ones took."""
        node, work = lane
        expected = self._learned.load_s(node, model)
        if work.phase != "loading" or not expected:
            return None
        return round(min(0.99, (now - work.since) / expected), 2)

    def _fetching(self, line: Line, now: float) -> bool:
        """While files are fetched the node knows best; earlier loads had theirs."""
        decision = self._decided(line.model) if line.cold else None
        line.download = decision.download if isinstance(decision, Wait) else None
        if not isinstance(decision, Wait) or decision.download is None:
            return False
        line.progress = decision.progress
        line.eta_at = None if decision.eta_s is None else now + decision.eta_s
        return True

    def _as_told(self, line: Line, now: float) -> None:
        """Somebody else's load, or our first one there: what the node says of it."""
        decision = self._decided(line.model)
        if not isinstance(decision, Wait):
            return
        said = (decision.progress, decision.eta_s)
        if said != line.told:
            line.told, line.progress = said, decision.progress
            line.eta_at = None if decision.eta_s is None else now + decision.eta_s

    def _refuse_hurried(self, line: Line, now: float) -> None:
        for waiter in [w for w in line.waiters if w.fresh]:
            waiter.fresh = line.eta_at is None and line.progress is None
            if line.eta_at is not None and line.eta_at > waiter.deadline:
                waiter.refuse(still_loading(line.model, waiter.standing(now)))


def still_loading(model: str, standing: Standing) -> ModelLoading:
    """The refusal of somebody who cannot wait so long."""
    seconds = "" if standing.eta_s is None else f", about {standing.eta_s:.0f} s"
    files, extras = standing.download, dict[str, Any]()
    if files is not None:
        extras["download"] = asdict(files)
        seconds += f"; of its files {files.words()}"
    if standing.reason is not None:
        extras["reason"] = standing.reason
        seconds += f"; {standing.reason}"
    return ModelLoading(
        f"The model {model!r} is not loaded yet: place {standing.position} in line{seconds}.",
        retry_after_s=2.0 if standing.eta_s is None else max(1.0, standing.eta_s),
        progress=standing.progress,
        position=standing.position,
        eta_s=standing.eta_s,
        **extras,
    )
