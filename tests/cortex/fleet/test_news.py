"""What the log says of nodes that come and go."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from helexa.core.logging import configure, get_logger
from helexa.cortex.fleet import state
from helexa.cortex.fleet.news import NodeNews
from helexa.cortex.fleet.snapshot import NodeSnapshot


@dataclass
class Told:
    """The news of one node, and what was logged of it."""

    stream: io.StringIO = field(default_factory=io.StringIO)
    node: NodeSnapshot = field(
        default_factory=lambda: NodeSnapshot("attic", "http://attic.lan:13131")
    )

    def __post_init__(self) -> None:
        self.sink = configure("info", self.stream)
        self.news = NodeNews(get_logger())

    def misses(self, error: str, times: int = 1) -> None:
        for _ in range(times):
            self.node = state.missed(self.node, error)
            self.news.heard(self.node)

    def answers(self) -> None:
        self.node = state.alive(self.node, 1.0)
        self.news.heard(self.node)

    def lines(self) -> list[dict[str, Any]]:
        self.sink.close()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def test_a_node_that_was_never_reached_is_named_with_the_reason() -> None:
    told = Told()
    told.misses("The node answered with status 401. The fleet secret differs.", 20)
    (line,) = told.lines()
    assert (line["level"], line["what"], line["node"]) == ("warning", "unreachable", "attic")
    assert line["endpoint"] == "http://attic.lan:13131"
    assert "The fleet secret differs" in line["reason"]


def test_a_node_that_goes_and_comes_back_is_said_each_time_once() -> None:
    told = Told()
    for _ in range(2):
        told.answers()
        told.answers()
        told.misses("no connection", 5)
    told.answers()
    whats = [line["what"] for line in told.lines()]
    assert whats == ["reachable", "unreachable", "reachable", "unreachable", "reachable"]


def test_one_missed_poll_is_no_news() -> None:
    told = Told()
    told.answers()
    told.misses("no connection")
    told.answers()
    assert [line["what"] for line in told.lines()] == ["reachable"]


def test_another_reason_is_said_and_reasons_without_end_are_not() -> None:
    told = Told()
    told.misses("no connection", 4)
    told.misses("The fleet secret differs.", 4)
    told.misses("no connection", 4)
    for number in range(100):
        told.misses(f"reason {number}")
    reasons = [line["reason"] for line in told.lines()]
    assert reasons[:2] == ["no connection", "The fleet secret differs."]
    assert len(reasons) == 8


def test_a_node_that_is_put_back_under_its_name_is_said_again() -> None:
    told = Told()
    told.answers()
    told.node = replace(told.node, answered=False)
    told.misses("no connection")
    told.answers()
    assert [line["what"] for line in told.lines()] == ["reachable", "reachable"]
