"""How much of our own work is where: one lease per running request, counted in one place."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from helexa.cortex.fleet.snapshot import NodeSnapshot
from helexa.cortex.routing.rank import Work


class Lease:
    """A request's share of a place's work; ``release`` may be called any number of times."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        work.open += 1
        work.taken += 1

    def release(self) -> None:
        """The request is no longer there."""
        work, self._work = self._work, None
        if work is not None:
            work.open -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class LeaseTable:
    """Work by (node, model); places that are idle and gone are forgotten."""

    __slots__ = ("_seen", "_work")

    def __init__(self) -> None:
        self._work: dict[tuple[str, str], Work] = {}
        self._seen: dict[str, NodeSnapshot] = {}

    def work(self, node: str, model: str) -> Work:
        """The counters of one place."""
        work = self._work.get((node, model))
        if work is None:
            work = self._work[node, model] = Work()
        return work

    def take(self, node: str, model: str) -> Lease:
        """Count a request as work of a place."""
        return Lease(self.work(node, model))

    def open(self, node: str | None = None) -> int:
        """Leases that are open, at one node or in all."""
        return sum(w.open for (name, _), w in self._work.items() if node in (None, name))

    def reconcile(self, nodes: Iterable[NodeSnapshot]) -> None:
        """Take over what nodes report: what they run and queue beyond our own is others' work.

        Only a fresh report is compared; against an old one, requests of ours that have ended
        since would look like somebody else's.
        """
        now = {node.name: node for node in nodes}
        if changed := [n for name, n in now.items() if self._seen.get(name) is not n]:
            for node in changed:
                self._compare(node, self._seen.get(node.name))
        if changed or len(now) != len(self._seen):
            self._forget(now)
        self._seen = now

    def _compare(self, node: NodeSnapshot, before: NodeSnapshot | None) -> None:
        old = {} if before is None else before.models
        for model, state in node.models.items():
            previous = old.get(model)
            if previous is not None and previous.load is state.load:
                continue
            work = self.work(node.name, model)
            work.others = max(0, state.load.in_flight + state.load.queue_depth - work.open)

    def _forget(self, now: dict[str, NodeSnapshot]) -> None:
        for place, work in list(self._work.items()):
            node = now.get(place[0])
            if not work.open and (node is None or place[1] not in node.models):
                del self._work[place]
