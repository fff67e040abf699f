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

    __slots__ = ("_gone", "_seen", "_work", "clock", "index")

    def __init__(
        self, clock: Callable[[], float] = monotonic, index: AffinityIndex | None = None
    ) -> None:
        self.clock = clock
        self.index = AffinityIndex() if index is None else index
        self._work: dict[str, dict[str, Work]] = {}
        self._gone: set[tuple[str, str]] = set()
        self._seen: dict[str, NodeSnapshot] = {}

    def work(self, node: str, model: str) -> Work:
        """The counters of one place."""
        here = self._work.get(node)
        if here is None:
            here = self._work[node] = {}
        work = here.get(model)
        if work is None:
            work = here[model] = Work(self.index.new())
            if node not in self._seen or model not in self._seen[node].models:
                self._gone.add((node, model))  # until a node says that it has it
        return work

    def take(self, node: str, model: str) -> Lease:
        """Count a request as work of a place."""
        return Lease(self.work(node, model), self.clock)

    def open(self, node: str | None = None) -> int:
        """Leases that are open, at one node or in all."""
        here = self._work.values() if node is None else [self._work.get(node, {})]
        return sum(work.open for works in here for work in works.values())

    def reconcile(self, nodes: Iterable[NodeSnapshot]) -> None:
        """Take over what nodes report: what they run and queue beyond our own is others' work.

        Only a fresh report is compared; against an old one, requests of ours that have ended
        since would look like somebody else's. Nothing is looked at but what has changed.
        """
        now = {node.name: node for node in nodes}
        before = self._seen
        for name, node in now.items():
            if before.get(name) is not node:
                self._compare(node, before.get(name))
        if len(before) > len(now) or before.keys() - now.keys():
            gone = before.keys() - now.keys()
            self._gone |= {(name, model) for name in gone for model in self._work.get(name, ())}
        self._seen = now
        if self._gone:
            self._forget()

    def _compare(self, node: NodeSnapshot, before: NodeSnapshot | None) -> None:
        old = {} if before is None else before.models
        restarted = before is not None and before.epoch not in (None, node.epoch)
        for model, state in node.models.items():
            previous = old.get(model)
            if previous is state and not restarted:
                continue
            work = self.work(node.name, model)
            work.standing = None
            if restarted or not state.ready:
                self.index.clear(work.cache)  # what it had computed went with its engine
            if previous is None or previous.load is not state.load:
                _take_over(work, state)
        self._gone |= {(node.name, model) for model in old.keys() - node.models.keys()}

    def _forget(self) -> None:
        """Places that have gone: their caches at once, their counters when nothing is open."""
        for node, model in list(self._gone):
            known, works = self._seen.get(node), self._work.get(node, {})
            work = works.get(model)
            if work is None or (known is not None and model in known.models):
                self._gone.discard((node, model))
                continue
            work.standing = None
            self.index.clear(work.cache)
            if not work.open:
                self.index.drop(work.cache)
                del works[model]
                self._gone.discard((node, model))
                if not works:
                    del self._work[node]


def _take_over(work: Work, state: ModelState) -> None:
    """What the node reports of a place: others' work, its speed, its cache's size."""
    load = state.load
    work.others = max(0, load.in_flight + load.queue_depth - work.open)
    if not work.measured and load.tok_s_prefill > 0:
        work.per_token = 1 / load.tok_s_prefill
    known = load.kv_total_tokens + load.prompt_cache_tokens
    work.cache.capacity = float(known or UNKNOWN_CAPACITY)
