"""What a simulation found, added up."""

from __future__ import annotations

import msgspec

from helexa.cortex.simulate.run import Result


class Summary(msgspec.Struct, frozen=True):
    """Of the requests of one run; seconds, and shares from 0 to 1.

    Args:
        hits: Share of the requests that had at least half of their prompt cached, ...
        cached: ... and share of all prompt tokens that were.
        cold: Requests that waited for a load.
        spread: Requests of the busiest node by those of the average one.
    """

    requests: int
    refused: int
    cold: int
    first_p50: float
    first_p90: float
    first_p99: float
    total_p50: float
    total_p90: float
    hits: float
    cached: float
    spread: float
    loads: int
    evictions: int


def summary(result: Result, after: float = 0.0) -> Summary:
    """The figures of a run.

    Args:
        after: Requests that came before are left out: they warm the caches.
    """
    runs = [run for run in result.runs if run.asked.at >= after]
    served = [run for run in runs if not run.refused and run.ended_at]
    first = sorted(run.first_s for run in served)
    total = sorted(run.ended_at - run.asked.at for run in served)
    nodes: dict[str, int] = {}
    for run in served:
        if run.place is not None:
            nodes[run.place.node] = nodes.get(run.place.node, 0) + 1
    tokens = sum(run.asked.tokens for run in served)
    return Summary(
        requests=len(runs),
        refused=len(runs) - len(served),
        cold=sum(run.cold for run in runs),
        first_p50=quantile(first, 0.5),
        first_p90=quantile(first, 0.9),
        first_p99=quantile(first, 0.99),
        total_p50=quantile(total, 0.5),
        total_p90=quantile(total, 0.9),
        hits=_share(sum(2 * run.cached >= run.asked.tokens for run in served), len(served)),
        cached=_share(sum(run.cached for run in served), tokens),
        spread=_share(max(nodes.values(), default=0) * len(nodes), len(served)),
        loads=sum(at >= after for at, _, _ in result.loads),
        evictions=sum(at >= after for at, _, _ in result.evictions),
    )


def quantile(ordered: list[float], share: float) -> float:
    """Of a sorted list; 0 of an empty one."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 4) if ordered else 0.0


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0
