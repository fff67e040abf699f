"""A cell's summary: what most readers ask for, so that they need not read its runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

METRICS = (
    "answer_ms",
    "first_token_ms",
    "decode_rate",
    "throughput",
    "inter_token_p99_ms",
    "total_ms",
    "load_ms",
    "queue_ms",
    "goodput",
    "score",
)
HIGHER_IS_BETTER = frozenset(("decode_rate", "throughput", "goodput", "score"))

_PRIMARY = {
    "cold": "load_ms",
    "swap": "load_ms",
    "capability": "score",
    "concurrency": "throughput",
    "poisson": "goodput",
}


class Cell(msgspec.Struct, frozen=True):
    """One scenario of one model on one build of one target, summed up.

    Args:
        first_at, last_at: Epoch seconds of its first and latest run.
        refused, requests: Of its newest good runs; of the failed ones where none is good.
        samples: By metric, newest first.
    """

    target: str
    model: str
    scenario: str
    build: str
    kind: str
    label: str
    host: str
    gpus: str
    engine: str
    quant: str
    first_at: float
    last_at: float
    ok_runs: int
    failed_runs: int
    concurrency: int
    refused: int
    requests: int
    samples: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, row: sqlite3.Row) -> Cell:
        """From its row."""
        values = dict(row)
        values["samples"] = msgspec.json.decode(values["samples"])
        return cls(**values)

    @property
    def line(self) -> tuple[str, str, str]:
        """What it is a build of: target, model and scenario."""
        return self.target, self.model, self.scenario

    @property
    def dead(self) -> bool:
        """Every run of it failed, and not because the target was full."""
        return not self.ok_runs and (not self.requests or self.refused < self.requests)

    @property
    def primary(self) -> str:
        """The metric its verdict rests on."""
        return primary_of(self.scenario)


def primary_of(scenario: str) -> str:
    """The metric that verdicts on a scenario rest on."""
    return _PRIMARY.get(scenario.partition(":")[0], "answer_ms")


def samples_of(metric: str, rows: Sequence[sqlite3.Row]) -> list[float]:
    """A metric's samples over runs.

    ``answer_ms`` is the time to a full answer at the scenario's cap: first token, and the rest at
    the measured rate. Unlike the total it does not depend on how much a model happened to say.
    """
    if metric != "answer_ms":
        return [row[metric] for row in rows if row[metric] is not None]
    return [
        row["first_token_ms"] + max(0, row["output_cap"] - 1) * 1000 / row["decode_rate"]
        for row in rows
        if row["first_token_ms"] is not None and row["decode_rate"]
    ]
