"""What an ended exchange tells, counts and settles, without a gateway around it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from helexa.core.usage import Timings, Usage
from helexa.cortex.exchange import billing, closing
from helexa.cortex.exchange.desk import Times
from helexa.cortex.metrics import NONE

SPOKEN = Timings(prompt_n=6, cache_n=3, prompt_ms=12.345, predicted_n=5, predicted_ms=100.0)
MUTE = Timings(prompt_n=6, cache_n=3, prompt_ms=1.0)
WARM, COLD = SimpleNamespace(node="n0", cold=False), SimpleNamespace(node="n0", cold=True)


def times(**told: float) -> Times:
    """Received at 10 s, a place found at 13 s, after a try of half a second."""
    return Times(10.0, **{"granted": 10.5, "placed": 13.0, "retried": 0.5, "queued": 0.25, **told})


def ended(**members: Any) -> Any:
    """An exchange at its end."""
    plain: dict[str, Any] = {
        "placed": WARM, "times": times(), "timings": None, "usage": None, "tail": None,
        "outcome": "complete", "error": None, "model": "m", "route": SimpleNamespace(free=False),
        "attempts": 1, "sent": True, "refused": False, "request_id": "r",
    }  # fmt: skip
    return SimpleNamespace(**{**plain, **members})


@pytest.mark.parametrize(("placed", "waited"), [(WARM, 2.25), (COLD, 0.25), (None, 0.25)])
def test_the_time_in_a_queue_is_without_loads_and_tries(placed: Any, waited: float) -> None:
    assert closing.queue_seconds(ended(placed=placed)) == waited


@pytest.mark.parametrize(
    ("placed", "timings", "known"),
    [
        (None, None, {"node": None, "queue_ms": 250}),
        (WARM, SPOKEN, {"node": "n0", "queue_ms": 2250, "prefill_ms": 12.35, "cached": 3}),
        (COLD, None, {"node": "n0", "queue_ms": 250, "load_ms": 2000}),
    ],
)
def test_a_stream_ends_with_what_was_not_known_at_its_beginning(
    placed: Any, timings: Timings | None, known: dict[str, Any]
) -> None:
    told = closing.comment(ended(placed=placed, timings=timings))
    assert told.startswith(b": helexa {")
    assert told.endswith(b"}\n\n")
    assert json.loads(told.removeprefix(b": helexa ")) == known


@pytest.mark.parametrize(
    ("timings", "completion", "last", "rate"),
    [
        (SPOKEN, 9, 15.0, 50.0),
        (MUTE, 9, 18.0, 2.0),  # eight after the first, in four seconds
        (None, 9, 18.0, 2.0),
        (None, 1, 18.0, None),
        (None, 9, 14.0, None),  # all in one batch
        (None, None, 18.0, None),
    ],
)
def test_tokens_per_second_are_the_engines_else_the_streams(
    timings: Timings | None, completion: int | None, last: float, rate: float | None
) -> None:
    usage = None if completion is None else Usage(7, completion)
    found = ended(timings=timings, usage=usage, times=times(first=14.0, last=last))
    assert closing._tokens_per_second(found) == rate
    assert closing._tokens_per_second(ended(usage=Usage(7, 9))) is None  # it never streamed


class Told:
    """Writes down what it is told under each name."""

    def __init__(self, **values: Any) -> None:
        self.told: list[tuple[Any, ...]] = []
        for name in ("requests", "prompt_tokens", "completion_tokens", "cached_tokens"):
            setattr(self, name, SimpleNamespace(value=0))
        self.__dict__ |= values

    def __getattr__(self, name: str) -> Any:
        def tell(*values: Any) -> None:
            self.told.append((name, *values))

        def count(*_: Any) -> Any:
            return SimpleNamespace(
                inc=lambda: self.told.append((name, 1)),
                observe=lambda value: self.told.append((name, value)),
                add_bucket_counts=tell,
            )

        counts = ("duration", "queue", "first_token", "load", "tokens_per_second")
        return count() if name in (*counts, "cold_starts", "errors", "inter_token") else tell


def counted(**members: Any) -> Told:
    at = Told()
    asked = list[Any]()

    def placement(*place: str) -> Told:
        asked.append(place)
        return at

    refusals = SimpleNamespace(labels=lambda code: SimpleNamespace(inc=lambda: at.refused(code)))
    metrics = SimpleNamespace(placement=placement, refusals=refusals)
    found = ended(desk=SimpleNamespace(metrics=metrics), **members)
    closing._count(found)
    assert asked == ([] if found.placed is None else [("m", "n0")])
    return at


def test_an_answer_is_counted_once_with_its_times_and_tokens() -> None:
    when = times(first_byte=14.0, first=14.0, last=18.0, ended=20.0)
    tail = SimpleNamespace(measure=lambda: None, gaps=[1, 2], gap_sum=0.75)
    at = counted(usage=Usage(7, 9, 3), times=when, tail=tail)
    assert at.told == [
        ("duration", 10.0),
        ("queue", 2.25),
        ("first_token", 4.0),
        ("inter_token", [1, 2], 0.75),
        ("tokens_per_second", 2.0),
    ]
    counts = (at.prompt_tokens, at.completion_tokens, at.cached_tokens)
    assert (at.requests.value, *(each.value for each in counts)) == (1, 7, 9, 3)


def test_what_was_cold_or_failed_is_counted_as_that() -> None:
    when = times(ended=20.0)
    tail = SimpleNamespace(measure=lambda: None, gaps=None)
    cold = [("duration", 10.0), ("cold_starts", 1), ("load", 2.0)]
    assert counted(placed=COLD, times=when, tail=tail).told == cold
    for outcome, errors in (("failed", 1), ("broken", 1), ("cancelled", 0), ("complete", 0)):
        at = counted(outcome=outcome, times=when)
        assert at.told == [("duration", 10.0), *[("errors", 1)] * errors]
    free = SimpleNamespace(free=True)  # to count tokens takes no seat
    at = counted(route=free, times=times(first_byte=14.0, ended=20.0))
    assert at.told == [("duration", 10.0)]


def test_a_request_that_got_no_place_is_counted_by_its_refusal() -> None:
    error = SimpleNamespace(code="overloaded")
    assert counted(placed=None, error=error).told == [("refused", "overloaded")]
    assert counted(placed=None).told == [("refused", NONE)]


class Log:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.bugs: list[dict[str, Any]] = []

    def stamp(self) -> str:
        return "now"

    def exception(self, event: str, **members: Any) -> None:
        assert event == "bug"
        self.bugs.append(members)

    def batch(self, lines: list[Any]) -> None:
        self.lines += [msgspec.to_builtins(line) for line in lines]


def test_one_that_cannot_be_closed_keeps_the_others_from_nothing() -> None:
    log, told = Log(), Told()
    seen = list[str]()

    def settle(_node: str, request_id: str, *_: Any) -> None:
        if request_id == "bad":
            raise ValueError(request_id)
        seen.append(request_id)

    def finished(ended: list[Any]) -> None:
        seen.append("/".join(one.request_id for one in ended))
        raise LookupError

    told.__dict__["settle"] = settle
    metrics = SimpleNamespace(placement=lambda *_: told)
    desk = SimpleNamespace(
        log=log, settler=told, metrics=metrics, placer=told,
        observers=SimpleNamespace(finished=finished),
    )  # fmt: skip
    error = SimpleNamespace(code="overloaded")
    some = [
        ended(
            desk=desk, request_id=name, shown_id=f"shown_{name}", settled=name == "done",
            route=SimpleNamespace(name="chat", free=False), usage=Usage(7, 9, 3), streams=True,
            principal=SimpleNamespace(key_id="k"), delivered=2, error=error, outcome=outcome,
            reply=SimpleNamespace(status=200, bytes_sent=55),
            times=times(first=10.12346, ended=11.5),
        )
        for name, outcome in (("bad", "broken"), ("good", "complete"), ("done", "complete"))
    ]  # fmt: skip
    closing.close_all(some)
    closing.close_all([])
    assert seen == ["good", "bad/good/done"]
    assert log.bugs == [{"request_id": "bad"}, {"request_ids": ["bad", "good", "done"]}]
    assert told.requests.value == 3
    assert [what[1:] for what in told.told if what[0] == "learn"] == [
        ("m", WARM, some[0].usage, None)
    ] * 3
    assert [line["request_id"] for line in log.lines] == ["shown_bad", "shown_good", "shown_done"]
    assert [line.get("code") for line in log.lines] == ["overloaded", None, None]
    line = {name: value for name, value in log.lines[1].items() if value is not None}
    assert line == {
        "ts": "now", "level": "info", "event": "request", "request_id": "shown_good",
        "route": "chat", "model": "m", "key": "k", "status": 200, "outcome": "complete",
        "attempts": 2, "bytes": 55, "total_ms": 1500.0, "first_ms": 123.46, "stream": True,
        "node": "n0", "prompt": 7, "completion": 9, "cached": 3,
    }  # fmt: skip


def settled(*, booked: bool = True, **members: Any) -> list[tuple[Any, ...]]:
    told = Told()

    def book(*which: Any) -> str | None:
        told.told.append(("settle", *which))
        return "sum" if booked else None

    told.__dict__["settle"] = book
    billing.settle(ended(desk=SimpleNamespace(settler=told, metrics=told), **members))
    return told.told


def test_the_last_attempt_is_settled_by_how_it_ended() -> None:
    usage, free = Usage(7, 9), SimpleNamespace(free=True)
    assert settled(attempts=0, usage=usage) == []
    assert settled(route=free, usage=usage) == []
    assert settled(placed=None) == [("withdraw", "r", 1)]
    assert settled(usage=usage, attempts=2) == [
        ("settle", "n0", "r", 2, usage, "m"),
        ("spent", "sum"),
    ]
    assert settled(usage=usage, booked=False) == [("settle", "n0", "r", 1, usage, "m")]
    assert settled(usage=usage, sent=False) == [("withdraw", "r", 1)]
    assert settled(outcome="cancelled") == [("settle_later", "n0", "r", 1)]
    assert settled(outcome="failed") == [("discard", "n0", "r", 1, "m")]
    assert settled(outcome="failed", refused=True) == [("settle", "n0", "r", 1, Usage())]


@pytest.mark.parametrize(
    ("connected", "status", "free", "what"),
    [
        (0.0, 0, False, [("withdraw", "r", 1)]),
        (0.5, 503, False, [("settle", "n1", "r", 1, Usage())]),
        (0.5, 0, False, [("discard", "n1", "r", 1, "m")]),
        (0.5, 503, True, []),
    ],
)
def test_an_attempt_that_another_one_follows_costs_nothing(
    connected: float, status: int, free: bool, what: list[Any]
) -> None:
    told = Told()
    found = ended(desk=SimpleNamespace(settler=told), route=SimpleNamespace(free=free))
    attempt: Any = SimpleNamespace(connected_at=connected, status=status, failure=None)
    billing.settle_tried(found, "n1", attempt)
    assert told.told == what
