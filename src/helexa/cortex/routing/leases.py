"""How much of our own work is where: one lease per running request, counted in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from helexa.cortex.fleet.snapshot import ModelState, NodeSnapshot
from helexa.cortex.routing.index import UNKNOWN_CAPACITY, AffinityIndex
from helexa.cortex.routing.work import Lease, Work


class LeaseTable:
    """Work by (node, model); places that are idle and gone are forgotten.

    Args:
        clock: Monotonic seconds.
        index: Has a model of every place's prefix cache.
    """

    __slots__ = ("_seen", "_work", "clock", "index")

    def __init__(
        self, clock: Callable[[], float] = monotonic, index: AffinityIndex | None = None
    ) -> None:
        self.clock = clock
        self.index = AffinityIndex() if index is None else index
        self._work: dict[tuple[str, str], Work] = {}
        self._seen: dict[str, NodeSnapshot] = {}

    def work(self, node: str, model: str) -> Work:
        """The counters of one place."""
        work = self._work.get((node, model))
        if work is None:
            work = self._work[node, model] = Work(self.index.new())
        return work

    def take(self, node: str, model: str) -> Lease:
        """Count a request as work of a place."""
        return Lease(self.work(node, model), self.clock)

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
        restarted = before is not None and before.epoch not in (None, node.epoch)
        for model, state in node.models.items():
            previous = old.get(model)
            work = self.work(node.name, model)
            if restarted or not state.ready:
                self.index.clear(work.cache)  # what it had computed went with its engine
            if previous is not None and previous.load is state.load:
                continue
            _take_over(work, state)

    def _forget(self, now: dict[str, NodeSnapshot]) -> None:
        for place, work in list(self._work.items()):
            node = now.get(place[0])
            if node is None or place[1] not in node.models:
                self.index.clear(work.cache)
                if not work.open:
                    self.index.drop(work.cache)
                    del self._work[place]


def _take_over(work: Work, state: ModelState) -> None:
    """What the node reports of a place: others' work, its speed, its cache's size."""
    load = state.load
    work.others = max(0, load.in_flight + load.queue_depth - work.open)
    if not work.measured and load.tok_s_prefill > 0:
        work.per_token = 1 / load.tok_s_prefill
    work.cache.capacity = float(load.kv_total_tokens or UNKNOWN_CAPACITY)
