"""The bookkeeping of requests that have ended, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from helexa.core.families import RequestFamilies, RequestMetrics
from helexa.core.logging import LogLine
from helexa.core.metrics import Registry
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.exchange.closing import RequestLine, close_all, free_of_charge
from helexa.neuron.exchange.desk import Times
from helexa.neuron.stream import Billed


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.bugs: list[str] = []

    def stamp(self) -> str:
        return "now"

    def batch(self, lines: Sequence[LogLine]) -> None:
        self.lines += lines

    def exception(self, event: str, *, request_id: str) -> None:
        assert event == "bug"
        self.bugs.append(request_id)


def ended(log: Log, request_id: str, metrics: RequestMetrics | None, total: Any) -> Any:
    """A request that took half a second for 11 tokens."""
    metrics_of_all = SimpleNamespace(discarded=total)
    return SimpleNamespace(
        desk=SimpleNamespace(log=log, node=SimpleNamespace(name="n"), metrics=metrics_of_all),
        model=SimpleNamespace(model_id="m", metrics=metrics),
        caller=Caller(request_id, gateway="g"),
        times=Times(1.0, seated=1.1, first=1.2, ended=1.5),
        billed=Billed(70, 6, 11, 0, 2),
        route="chat",
        streams=True,
        reply=SimpleNamespace(status=200),
        outcome="complete",
        error=None,
    )


def test_every_request_of_a_batch_is_counted_and_logged_although_one_cannot_be() -> None:
    registry, log = Registry("neuron_"), Log()
    families = RequestFamilies(registry, gap="", load="")
    metrics, total = RequestMetrics(families, "m", "n"), families.discarded
    broken = ended(log, "b", None, total)
    close_all([ended(log, "a", metrics, total), broken, ended(log, "c", metrics, total)])
    assert log.bugs == ["b"]
    assert (metrics.requests.value, metrics.prompt_tokens.value) == (2, 140)
    assert (metrics.cached_tokens.value, metrics.completion_tokens.value) == (12, 22)
    assert total.value == 4
    lines = [line for line in log.lines if isinstance(line, RequestLine)]
    assert [line.request_id for line in lines] == ["a", "b", "c"]
    line = lines[0]
    assert (line.ts, line.role, line.node, line.model, line.key_id) == (
        "now",
        "neuron",
        "n",
        "m",
        "direct",
    )
    assert (line.queue_ms, line.first_token_ms, line.total_ms) == (100.0, 200.0, 500.0)
    assert (line.prompt, line.cached, line.output, line.discarded) == (70, 6, 11, 2)


def test_what_we_broke_costs_nothing_and_what_was_computed_for_it_is_thrown_away() -> None:
    assert free_of_charge(Billed(70, 6, 11, 4, 2)) == Billed(0, 0, 0, 0, 13)
