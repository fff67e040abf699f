"""What a request leaves at its node: its figures, and nothing for the collector."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

WATCHED = Path(__file__).with_name("watched_node.py")


@pytest.fixture(scope="module")
def watched(make_node: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A node with its model, and the file in which it tells what only the collector could free."""
    file = tmp_path_factory.mktemp("watched") / "found"
    node = make_node(command=[sys.executable, str(WATCHED), str(file)])
    node.load()
    return node, file


def found(node: Any, h: Any, file: Path) -> dict[str, int]:
    """Kinds of ours that only the collector could free since it was asked last."""
    file.unlink(missing_ok=True)
    os.kill(node.pid, signal.SIGUSR1)
    h.until(file.exists)
    kinds: dict[str, int] = json.loads(file.read_text())
    return kinds


def test_a_scrape_has_what_ended_just_now(watched: tuple[Any, Path], h: Any) -> None:
    node, _ = watched
    name = 'neuron_requests_total{model="helexa/spark"'

    def counted() -> float:
        lines = node.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = counted()
    for more in (1, 2):
        assert node.post("/v1/chat/completions", h.chat(max_tokens=1)).status_code == 200
        h.until(lambda more=more: counted() == before + more)


def test_a_request_that_ended_or_was_cancelled_leaves_no_cycle(
    watched: tuple[Any, Path], h: Any
) -> None:
    node, file = watched

    def idle() -> bool:
        return bool(node.in_flight() == 0 and node.figures()["kv_used_tokens"] == 0)

    def some_of_each() -> None:
        for stream in (False, True):
            asked = h.chat(max_tokens=3, stream=stream)
            assert node.post("/v1/chat/completions", asked).status_code == 200
            message = {**asked, "max_tokens": 3}
            assert node.post("/v1/messages", message).status_code == 200
            assert node.post("/v1/chat/completions", h.chat(model="none")).status_code == 404
            left = h.raw_request(node.url, h.endless(4000, stream=stream))
            h.until(lambda: node.in_flight() == 1)
            left.close()
            h.until(idle)
        assert node.client.get("/metrics").status_code == 200  # books what has ended

    some_of_each()
    found(node, h, file)  # of the start, and of what is made once
    for _ in range(3):
        some_of_each()
    assert found(node, h, file) == {}
