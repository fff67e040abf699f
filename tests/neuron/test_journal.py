"""What the node's log says of its models."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from helexa.core.errors import ModelNotFound, ServiceUnavailable
from helexa.core.fleet import Limit, ModelEntry, Servable
from helexa.core.logging import LogSink, configure, get_logger
from helexa.neuron.registry.journal import Journal


@dataclass
class Kept:
    """A journal at ``info``, its clock in the test's hand."""

    sink: LogSink
    stream: io.StringIO
    now: float = 0.0
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(get_logger(), lambda: self.now)

    def lines(self) -> list[dict[str, Any]]:
        self.sink.close()
        found = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [{k: v for k, v in line.items() if k != "ts"} for line in found]


@pytest.fixture
def kept() -> Iterator[Kept]:
    stream = io.StringIO()
    sink = configure("info", stream)
    yield Kept(sink, stream)
    sink.close()


def test_a_load_is_said_with_its_engine_and_its_seconds(kept: Kept) -> None:
    kept.journal.changed(ModelEntry("a/b", "loading"))
    kept.journal.changed(ModelEntry("a/b", "loading", progress=0.5))
    kept.now = 2.5
    kept.journal.changed(
        ModelEntry("a/b", "loaded", "llamacpp", vram_used_mb=300, limit=Limit(100, 60, 40))
    )
    assert kept.lines() == [
        {"level": "info", "event": "model", "model": "a/b", "status": "loading"},
        {
            "level": "info",
            "event": "model",
            "model": "a/b",
            "status": "loaded",
            "engine": "llamacpp",
            "seconds": 2.5,
            "context": 100,
            "memory_mb": 300,
        },
    ]


def test_a_load_that_fails_is_a_warning_with_the_reason_and_retries_are_quiet(kept: Kept) -> None:
    for _ in range(3):
        kept.journal.changed(ModelEntry("a/b", "loading"))
        kept.journal.failed("a/b", ServiceUnavailable("no network"))
        kept.journal.changed(ModelEntry("a/b", "failed"))
    kept.journal.changed(ModelEntry("a/b", "loading"))
    kept.journal.failed("a/b", ModelNotFound("no such model"))
    kept.journal.gone("a/b")
    assert [(line["level"], line["status"], line.get("reason")) for line in kept.lines()] == [
        ("info", "loading", None),
        ("warning", "failed", "no network"),
        ("warning", "failed", "no such model"),
    ]


def test_an_engine_that_died_is_a_warning_and_its_return_is_said(kept: Kept) -> None:
    kept.journal.changed(ModelEntry("a/b", "loaded"))
    dead = ModelEntry("a/b", "recovering", servable=Servable(False, "x", "killed by signal 9"))
    kept.journal.changed(dead)
    kept.journal.changed(dead)
    kept.now = 1.0
    kept.journal.changed(ModelEntry("a/b", "loaded"))
    died, back = kept.lines()[1:]
    assert (died["level"], died["status"]) == ("warning", "recovering")
    assert died["reason"] == "killed by signal 9"
    assert (back["status"], back["seconds"]) == ("loaded", 1.0)


def test_an_unload_is_said(kept: Kept) -> None:
    kept.journal.changed(ModelEntry("a/b", "loaded"))
    kept.journal.changed(ModelEntry("a/b", "unloading"))
    kept.journal.gone("a/b")
    last = kept.lines()[-1]
    assert last == {"level": "info", "event": "model", "model": "a/b", "status": "unloaded"}


def test_names_without_end_are_not_kept(kept: Kept) -> None:
    for number in range(1000):
        kept.journal.failed(f"no/{number}", ModelNotFound("no such model"))
    assert len(kept.journal._failed) <= 256
