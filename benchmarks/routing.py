"""Where requests go: against an oracle, at random, in turns; and what a decision costs.

The trace is fixed: 8 nodes that prefill 10,000 tokens/s one prompt after the other, decode
50 tokens/s per stream and keep 154,000 tokens of KV in blocks, least recently used first; 150
customers whose requests share 6,000 tokens each and bring 300 of their own, for 200 tokens of
answer. All prefixes together are 900,000 tokens, the caches 1,232,000: they fit only when each
is in one place. Customers come one by one for 15 s, then at random; the first 15 s do not count.

The *oracle* is the least time to first token by the nodes' true queues and caches. Its
saturation is the highest rate at which nine of ten first tokens come within a second.
"""

from __future__ import annotations

import json
import os
import random
import time
import timeit
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
from kit import report
from kit.process import rss_bytes
from msgspec.structs import replace

from helexa.core.fleet import ModelEntry, ModelLoad
from helexa.core.principal import ANONYMOUS
from helexa.cortex.fleet.snapshot import FleetSnapshot, ModelState, NodeSnapshot
from helexa.cortex.profiles import ProfileFile, Profiles
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.index import POINTS, AffinityIndex
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.placer import FleetPlacer
from helexa.cortex.routing.prompt import ask_of
from helexa.cortex.routing.rank import Candidate, Field, choose
from helexa.cortex.routing.work import Work
from helexa.cortex.simulate.fleet import FleetSpec
from helexa.cortex.simulate.policies import Blind, Homes, Oracle, Policy, Routed
from helexa.cortex.simulate.report import Summary, summary
from helexa.cortex.simulate.run import Clock, Simulation
from helexa.cortex.simulate.trace import customers
from helexa.wire.peek import peek

if TYPE_CHECKING:
    from helexa.cortex.fleet.fleet import Fleet
    from helexa.cortex.residency.owner import Residency

WARM_S, SECONDS = 15.0, 45.0
LOADS = (0.5, 0.8, 0.95)
POLICIES: dict[str, Callable[[Clock, int], Policy]] = {
    "oracle": lambda _c, _s: Oracle(),
    "helexa": lambda clock, _s: Routed(clock),
    "homes": lambda _c, _s: Homes(),
    "round robin": lambda _c, _s: Blind(),
    "random": lambda _c, seed: Blind(seed),
}


def simulate(name: str, rate: float, seed: int) -> Summary:
    """One policy, one rate, one seed."""
    made = POLICIES[name]
    simulation = Simulation(FleetSpec(), lambda clock: made(clock, seed))
    return summary(simulation.run(customers(rate, SECONDS, seed=seed)), WARM_S)


def saturation(pool: Executor, seeds: list[int]) -> float:
    """Requests per second that the oracle carries."""
    low, high = 60.0, 260.0
    while high - low > 2:
        middle = (low + high) / 2
        if mean(run.first_p90 for run in simulated(pool, "oracle", middle, seeds)) <= 1.0:
            low = middle
        else:
            high = middle
    return low


def simulated(pool: Executor, name: str, rate: float, seeds: list[int]) -> list[Summary]:
    """One policy and one rate, every seed."""
    return list(pool.map(simulate, [name] * len(seeds), [rate] * len(seeds), seeds))


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    found = list(values)
    return sum(found) / len(found)


def curve(found: report.Report, pool: Executor, seeds: list[int]) -> None:
    """Every policy at every load, and what is held to a bar."""
    most = saturation(pool, seeds[:4])
    rows, p90 = [], dict[tuple[float, str], float]()
    hits = dict[float, float]()
    for load in LOADS:
        for name in POLICIES:
            runs = simulated(pool, name, most * load, seeds)
            p90[load, name] = mean(run.first_p90 for run in runs)
            hit = mean(run.hits for run in runs)
            if name == "helexa":
                hits[load] = hit
            rows.append(
                [
                    f"{load:.0%} ({most * load:.0f}/s)",
                    name,
                    f"{mean(run.first_p50 for run in runs):.3f}",
                    f"{p90[load, name]:.3f}",
                    f"{mean(run.first_p99 for run in runs):.3f}",
                    f"{hit:.3f}",
                    f"{mean(run.spread for run in runs):.2f}",
                ]
            )
            click.echo(" ".join(rows[-1]), err=True)
    title = f"First token (s) by load; the oracle is saturated at {most:.0f} requests/s"
    columns = ["load", "policy", "p50", "p90", "p99", "hits", "busiest node / mean"]
    found.tables.append(report.TableData(title, columns, rows))
    ours = p90[0.8, "helexa"]
    note = f"p90 {ours:.3f} s, mean of {len(seeds)} seeds"
    found.figures += [
        report.at_most("80 %: p90 / oracle's", ours / p90[0.8, "oracle"], 1.1, "", note),
        report.at_most("80 %: p90 / random's", ours / p90[0.8, "random"], 0.2, ""),
        report.at_most("80 %: p90 / round robin's", ours / p90[0.8, "round robin"], 0.5, ""),
        report.at_least("80 %: hit rate", hits[0.8], 0.95, ""),
        report.at_most(
            "50 %: p90 / round robin's", p90[0.5, "helexa"] / p90[0.5, "round robin"], 1.0, ""
        ),
        report.Figure("95 %: p90 / oracle's", f"{p90[0.95, 'helexa'] / p90[0.95, 'oracle']:.3g}"),
    ]


def per_call(call: Callable[[], object], number: int) -> float:
    """Microseconds, the best of nine."""
    return min(timeit.repeat(call, number=number, repeat=9)) / number * 1e6


def places(nodes: int, models: int) -> list[Candidate]:
    """Busy places of one model, in a fleet that has more."""
    index, rng, wanted = AffinityIndex(), random.Random(1), []
    for node in range(nodes):
        for model in range(models):
            work = Work(index.new())
            work.open, work.waiting = rng.randrange(6), rng.randrange(3)
            work.ready_at = rng.random()
            for _ in range(4):
                shared = rng.randrange(64)
                index.touch(work.cache, conversation(shared), rng.random())
            if model == 0:
                wanted.append(Candidate(f"node-{node}", 8, work))
    return wanted


def conversation(number: int) -> Ask:
    """A prompt of four messages."""
    points = [number * 1000 + at for at in range(4)]
    return Ask(points, [2000, 4000, 6000, 8000], 8000, number)


def decisions(found: report.Report) -> None:
    """What placing a request costs the gateway."""
    few, many = Field(places(8, 1)), Field(places(1000, 50))
    asks = [conversation(number) for number in range(64)]
    turn = iter(range(10**9))

    def decide(among: Field) -> object:
        return choose(among, asks[next(turn) % 64], 0.2)

    found.figures += [
        report.at_most("decision, 8 nodes", per_call(lambda: decide(few), 5000), 6, "µs"),
        report.at_most(
            "decision, 1,000 nodes × 50 models", per_call(lambda: decide(many), 20) / 1000, 2, "ms"
        ),
    ]
    small, large = chat("Hello, how are you? " * 10), chat("How are you? \n" * 352, 75)
    for name, body, bar in (("small chat", small, 15), ("400 kB chat", large, 1000)):
        seen = peek(body)
        took = per_call(lambda seen=seen: ask_of(seen), 1000 if len(body) < 10_000 else 20)  # type: ignore[misc]
        note = f"{len(body)} bytes"
        found.figures.append(report.at_most(f"affinity key, {name}", took, bar, "µs", note))


class _Fleet:
    """A fleet of which one node after the other reports."""

    def __init__(self, nodes: int, models: int) -> None:
        load = {f"m{at}": ModelLoad(f"m{at}", max_in_flight=8) for at in range(models)}
        here = {m: ModelState(ModelEntry(m, "loaded"), load[m]) for m in load}
        self.nodes = [NodeSnapshot(f"n{at}", "", answered=True, models=here) for at in range(nodes)]
        self.turn = 0
        self.report()

    def report(self) -> None:
        """One node has something new to say."""
        self.turn += 1
        at = self.turn % len(self.nodes)
        self.nodes[at] = replace(self.nodes[at], uptime_secs=float(self.turn))
        self.now = FleetSnapshot(tuple(self.nodes), self.turn)

    def snapshot(self) -> FleetSnapshot:
        """As ``Fleet.snapshot``."""
        return self.now


class _NoLoads:
    """Everything is warm."""

    version = 0

    def queued(self, _model: str) -> bool:
        return False

    def closing(self, _model: str) -> frozenset[str]:
        return frozenset()


def placements(found: report.Report) -> None:
    """All that a request costs from its model's name to its place, the key of its prompt too."""
    seen = peek(chat("Hello, how are you? " * 10).replace(b'"model": "m"', b'"model": "m0"'))
    for nodes, models in ((8, 1), (1000, 50)):
        fleet = _Fleet(nodes, models)
        profiles, idle = ProfileFile(None, Profiles()), _NoLoads()
        placer = FleetPlacer(profiles, cast("Fleet", fleet), cast("Residency", idle), LeaseTable())

        def place(placer: FleetPlacer = placer) -> object:
            return placer.find("m0", ANONYMOUS, seen)

        def reported(fleet: _Fleet = fleet, place: Callable[[], object] = place) -> float:
            fleet.report()
            began = time.perf_counter()
            place()
            return time.perf_counter() - began

        place()
        size = f"{nodes:,} nodes × {models} models"
        took = per_call(place, 20_000 // nodes)
        found.figures.append(report.Figure(f"placing a request, {size}", f"{took:.4g} µs"))
        after = sorted(reported() for _ in range(101))[50] * 1000
        name = f"… just after a node's report, {size}"
        found.figures.append(report.at_most(name, after, 2, "ms", "median"))


def chat(text: str, turns: int = 1) -> bytes:
    """A chat body."""
    messages = [{"role": "system", "content": "You are a careful engineer. " * 12}]
    messages += [{"role": "user", "content": text} for _ in range(turns)]
    return json.dumps({"model": "m", "messages": messages, "stream": True}).encode()


def memory(found: report.Report, requests: int) -> None:
    """The index under ever new prompts: it fills, and then it stays."""
    index = AffinityIndex()
    caches = [index.new() for _ in range(8)]
    for cache in caches:
        cache.capacity = 10.0**12  # only the index's own bound is to hold
    before, full = rss_bytes([-os.getpid()]), 0
    for number in range(requests):
        index.touch(caches[number % 8], conversation(number), number / 1000)
        if number == requests // 4:
            full = rss_bytes([-os.getpid()])
    grown = rss_bytes([-os.getpid()]) - full
    note = f"{(full - before) / 2**20:.0f} MiB when full, {requests:,} requests"
    found.figures += [
        report.at_most("affinity index, points", index.points, POINTS, "", note),
        report.at_most("affinity index, grown after it was full", grown / 2**20, 4, "MiB"),
    ]


@click.command(help=__doc__)
@click.option("--seeds", default=10, show_default=True)
@click.option("--requests", default=1_000_000, show_default=True, help="Of the index's test.")
@report.json_option
def main(seeds: int, requests: int, json_file: Path | None) -> None:
    began = time.perf_counter()
    found = report.report(
        "routing", "who serves what, simulated; what deciding costs", "python benchmarks/routing.py"
    )
    decisions(found)
    placements(found)
    memory(found, requests)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        curve(found, pool, list(range(1, seeds + 1)))
    click.echo(f"{time.perf_counter() - began:.0f} s", err=True)
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
