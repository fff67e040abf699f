"""Fill a bench database with made-up runs, to look at the pages or to test them.

    python scripts/bench_seed.py FILE [--runs 2000]

Four targets over a dozen builds; the newest build of one is slower, that of another has broken
one scenario.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import click

from helexa.bench.row import DeviceState, ModelFacts, Provenance, Result, Run
from helexa.bench.store.store import Store

TARGETS = (
    ("attic", "neuron", "2× RTX 5090", 1.0),
    ("cellar", "neuron", "4× RTX 3090", 1.9),
    ("shelf", "neuron", "1× Ryzen AI Max", 6.0),
    ("vllm", "openai", "", 1.05),
)
MODELS = ("Qwen/Qwen3-8B", "openai/gpt-oss-120b")
SCENARIOS = (
    "chat:128", "chat:1024", "chat:4096", "prefix:4096", "concurrency:1", "concurrency:4",
    "concurrency:16", "concurrency:64", "tools", "structured", "cold", "poisson:2",
)  # fmt: skip
DAY = 86_400
START = 1_790_000_000.0


def runs(count: int, seed: int) -> Iterator[Run]:
    """Build after build until there are ``count``."""
    draw = random.Random(seed)
    samples = 5
    cells = len(TARGETS) * len(MODELS) * len(SCENARIOS) * samples
    builds = max(2, round(count / cells))
    made = 0
    for build in range(builds):
        for name, kind, gpus, slow in TARGETS:
            by = slow * (1.12 if build == builds - 1 and name == "cellar" else 1 - build / 400)
            source = Provenance(
                name, kind, "http://10.0.0.1", version(build),
                host="machine", gpus=gpus, label="vLLM on 2× RTX 5090" if kind == "openai" else "",
                engine_versions="llamacpp b6900", bench_version="0.1.0",
            )  # fmt: skip
            for model in MODELS:
                for scenario in SCENARIOS:
                    if kind == "openai" and scenario == "cold":
                        continue
                    for sample in range(samples):
                        made += 1
                        at = START + build * DAY + sample * 600
                        broken = (build, name, scenario) == (builds - 1, "shelf", "structured")
                        yield one(draw, at, scenario, source, model, by, str(made), broken=broken)
    for name, kind, gpus, _ in TARGETS:
        source = Provenance(name, kind, "http://10.0.0.1", version(builds - 1), gpus=gpus)
        answer = Result(artifact="A prince hesitates.\nEverybody dies.", output_cap=256)
        yield Run(START + builds * DAY, "capability:hamlet", source, ModelFacts(MODELS[0]), answer,
                  key=f"said-{name}")  # fmt: skip


def version(build: int) -> str:
    """What a node would call its n-th build."""
    return f"0.{build // 10}.{build % 10}+{build:07x}"


def one(
    draw: random.Random, at: float, scenario: str, source: Provenance, model: str, by: float,
    key: str, *, broken: bool = False,
) -> Run:  # fmt: skip
    """One run, with 2 % of noise."""
    by *= draw.lognormvariate(0, 0.02) * (3 if "120b" in model else 1)
    name, _, size = scenario.partition(":")
    tokens = int(float(size or 128)) if name in ("chat", "prefix") else 128
    streams = int(size) if name == "concurrency" else 1
    crowd = 1 + max(0, streams - 4) / 6
    ok = draw.random() > 0.01 and not broken
    result = Result(
        ok=ok,
        error="" if ok else "the stream ended without a finish reason",
        prompt_asked=tokens,
        prompt_tokens=tokens + 7,
        output_cap=256,
        output_tokens=256,
        first_token_ms=(20 + tokens / 25) * by * crowd,
        decode_rate=160 / by / crowd**0.5 * (1 - tokens / 60_000),
        total_ms=1700 * by * crowd,
        inter_token_p50_ms=6 * by,
        inter_token_p99_ms=14 * by,
        concurrency=streams,
        requests=streams,
        refused=max(0, streams - 48),
        throughput=160 / by * streams / crowd**0.5,
        load_ms=9000 * by if name == "cold" else None,
        goodput=min(1.0, 0.97 / by**0.2) if name == "poisson" else None,
    )
    state = DeviceState(18_432, 12.0, 51.0)
    facts = ModelFacts(model, "Q4_K_M", "llamacpp b6900", "chat, tools", source.gpus)
    return Run(at, scenario, source, facts, result, state, state, key=key)


@click.command(help=__doc__)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--runs", "count", default=2000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(file: Path, count: int, seed: int) -> None:
    store = Store(file)
    batch: list[Run] = []
    for run in runs(count, seed):
        batch.append(run)
        if len(batch) == 10_000:
            store.add_many(batch)
            batch = []
    store.add_many(batch)
    store.close()


if __name__ == "__main__":
    main()
