"""Answers of the bench's API over a large store, while a sweep writes to it."""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
from kit import report
from kit.process import Process

from helexa.bench.row import ModelFacts, Provenance, Result, Run
from helexa.bench.store.store import Store

API_BAR_MS, WRITE_BAR_MS = 100.0, 100.0
QUESTIONS = (
    "health", "dimensions", "overview", "summary", "summary?target=node3",
    "series?target=node3&model=model1", "runs",
    "runs?target=node3&ok=true&sort=first_token_ms", "runs?ok=false", "scaling", "concurrency",
    "swap", "capability", "regressions", "history",
)  # fmt: skip
SCENARIOS = (
    "chat:128", "chat:4096", "concurrency:1", "concurrency:4", "concurrency:16", "prefix:4096",
    "tools", "structured", "cold", "poisson:1",
)  # fmt: skip


def runs(count: int, seed: int) -> Iterator[Run]:
    """Ten targets, three models, ten scenarios, five runs of each a build."""
    draw = random.Random(seed)
    made = 0
    build = 0
    while True:
        for target in range(10):
            source = Provenance(f"node{target}", "neuron", "http://x", f"1.{build}+{build:07x}",
                                host="h", gpus="2× RTX 5090")  # fmt: skip
            for model in range(3):
                for scenario in SCENARIOS:
                    for sample in range(5):
                        if made == count:
                            return
                        made += 1
                        by = draw.lognormvariate(0, 0.02)
                        size = int(scenario.partition(":")[2] or 1)
                        result = Result(
                            ok=draw.random() > 0.01, first_token_ms=100 * by, decode_rate=50 / by,
                            output_cap=256, prompt_tokens=128, output_tokens=256,
                            total_ms=5200 * by,
                            throughput=50 * size / by, concurrency=size,
                            load_ms=9000 * by if scenario == "cold" else None,
                        )  # fmt: skip
                        yield Run(1e9 + build * 3600 + sample, scenario, source,
                                  ModelFacts(f"model{model}"), result, key=f"{made}")  # fmt: skip
        build += 1


def fill(path: Path, count: int) -> None:
    """Store ``count`` runs."""
    store, batch = Store(path), []
    with click.progressbar(length=count, label="storing", file=sys.stderr) as bar:
        for run in runs(count, 1):
            batch.append(run)
            if len(batch) == 20_000:
                store.add_many(batch)
                bar.update(len(batch))
                batch = []
    store.add_many(batch)
    store.close()


def write_on(path: Path, stop: threading.Event, took: list[float]) -> None:
    """Store a run ten times a second, like a fast sweep, and note how long each took."""
    store, draw = Store(path), runs(10_000, 2)
    for i in range(10_000):
        if stop.wait(0.1):
            break
        run = next(draw)
        begun = time.perf_counter()
        store.add(Run(2e9 + i, run.scenario, run.source, run.model, run.result, key=f"live{i}"))
        took.append((time.perf_counter() - begun) * 1000)
    store.close()


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return sorted(values)[int(len(values) * 0.95)]


@click.command(help=__doc__)
@click.option("--runs", "count", default=1_000_000, show_default=True)
@click.option("--asks", default=40, show_default=True, help="Times each question is asked.")
@click.option("--keep", type=click.Path(path_type=Path), help="Use this database; made if missing.")
@report.json_option
def main(count: int, asks: int, keep: Path | None, json_file: Path | None) -> None:
    command = f"python benchmarks/bench_store.py --runs {count}"
    found = report.report("bench_store", f"the bench's API over {count:,} runs", command)
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as folder:
        path = keep or Path(folder) / "bench.sqlite"
        if not path.exists():
            fill(path, count)
        command_line = [sys.executable, "-m", "helexa.cli", "bench", "serve", "--port", "0"]
        server = Process([*command_line, "--db", str(path)], Path(folder) / "log", ready_line=True)
        url = server.ready()["url"]
        stop, writes = threading.Event(), list[float]()
        writer = threading.Thread(target=write_on, args=(path, stop, writes))
        writer.start()
        rows = []
        try:
            for question in QUESTIONS:
                took, size = [], 0
                for _ in range(asks):
                    begun = time.perf_counter()
                    with urllib.request.urlopen(f"{url}/api/{question}", timeout=60) as answer:
                        size = len(answer.read())
                    took.append((time.perf_counter() - begun) * 1000)
                rows.append([question, f"{sorted(took)[asks // 2]:.1f}", f"{p95(took):.1f}",
                             f"{size / 1024:.0f}"])  # fmt: skip
        finally:
            stop.set()
            writer.join()
            server.stop()
    slowest = max(rows, key=lambda row: float(row[2]))
    found.tables.append(report.TableData("Answers", ["/api/", "p50 ms", "p95 ms", "kB"], rows))
    found.figures += [
        report.at_most("slowest answer, p95", float(slowest[2]), API_BAR_MS, "ms", slowest[0]),
        report.at_most("storing a run meanwhile, p95", p95(writes), WRITE_BAR_MS, "ms",
                       "the writer waits for nobody who reads"),
    ]  # fmt: skip
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
