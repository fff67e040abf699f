"""When each model that is waited for will be ready: pure, from what is under way and learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from helexa.cortex.residency.choose import NotBefore
from helexa.cortex.residency.lane import Work
from helexa.cortex.residency.world import Demand, Rules

OVERDUE = 0.1
"""A load that takes longer than it ever did is taken to need a tenth of its time more."""


def etas(
    ordered: Iterable[Demand],
    works: Mapping[str, Work],
    later: Callable[[str], NotBefore | None],
    rules: Rules,
    unload_s: float,
    now: float,
) -> dict[str, float]:
    """The time at which each model will be ready.

    Args:
        ordered: The demands, in the order in which they are looked at.
        works: What is under way, by node.
        later: Why nothing is done for a model yet.
    """
    found: dict[str, float] = {}
    free_at: dict[str, float] = {}
    demands = {demand.model: demand for demand in ordered}
    for node, work in works.items():
        demand = demands.get(work.model or "")
        free_at[node] = ready = _ready(node, work, demand, unload_s, now)
        if work.model is not None:
            found[work.model] = ready
            # Whoever comes next waits until this one may go again.
            free_at[node] += rules.min_residency_s
    for model, demand in demands.items():
        if model in found:
            continue
        postponed = later(model)
        at = now if postponed is None or postponed.at is None else max(now, postponed.at)
        nodes = [o.node for o in demand.options]
        if postponed is not None and postponed.node is not None:
            nodes = [postponed.node]
        node = min(nodes, key=lambda n: free_at.get(n, now), default="")
        load_s = next((o.load_s for o in demand.options if o.node == node), demand.load_s)
        found[model] = max(at, free_at.get(node, now)) + unload_s + load_s
        free_at[node] = found[model] + rules.min_residency_s
    return found


def _ready(node: str, work: Work, demand: Demand | None, unload_s: float, now: float) -> float:
    load_s = work.load_s
    if demand is not None:
        load_s = next((o.load_s for o in demand.options if o.node == node), demand.load_s)
    if work.phase == "loading":
        return max(work.since + load_s, now + OVERDUE * load_s)
    return now + unload_s * max(1, len(work.victims)) + (load_s if work.model else 0.0)
