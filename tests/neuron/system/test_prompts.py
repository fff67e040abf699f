"""Several prompts in one text completion on a node: seats, turns, faults, the end of a model."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

import pytest

PATH = "/v1/completions"
ONE_SEAT = "[engines.llamacpp]\nslots = 1\nctx = 4096\n"


def asked(h: Any, number: int, tokens: int, **more: Any) -> dict[str, Any]:
    prompts = [f"Count to {index}." for index in range(number)]
    return {"model": h.SPARK, "prompt": prompts, "max_tokens": tokens, "ignore_eos": True, **more}


@pytest.fixture(scope="module")
def narrow_node(make_node: Any) -> Any:
    return make_node(
        ONE_SEAT
        + "[life]\nunload_secs = 0.2\n[admission]\nmax_queue_depth = 2\nmax_wait_secs = 30\n"
    )


@pytest.fixture
def narrow(narrow_node: Any) -> Any:
    """A node whose model runs one request at a time, with little room to wait."""
    narrow_node.load()  # or finds it loaded: in whatever order, one test ends it
    return narrow_node


def test_several_prompts_take_turns_with_others_on_the_only_seat(narrow: Any, h: Any) -> None:
    ended: list[str] = []

    def ask() -> None:
        answer = narrow.client.post(PATH, json=asked(h, 40, 50), timeout=120)
        ended.append("batch")
        assert len(answer.json()["choices"]) == 40

    batch = threading.Thread(target=ask)
    batch.start()
    h.until(lambda: narrow.in_flight() == 1)
    for _ in range(3):
        answer = narrow.post("/v1/chat/completions", h.chat(max_tokens=2))
        assert answer.status_code == 200, answer.text
        ended.append("other")
    batch.join(120)
    assert ended == ["other", "other", "other", "batch"]


def test_what_has_begun_is_not_refused_by_a_full_queue(narrow: Any, h: Any) -> None:
    results: list[int] = []

    def ask() -> None:
        answer = narrow.client.post(PATH, json=asked(h, 20, 20), timeout=120)
        results.append(answer.status_code)

    first = threading.Thread(target=ask)
    first.start()
    h.until(lambda: narrow.in_flight() == 1)
    others = [h.raw_request(narrow.url, h.endless(100, stream=True)) for _ in range(5)]
    first.join(120)
    assert results == [200]
    for sock in others:
        sock.close()
    h.until(lambda: narrow.in_flight() == 0 and narrow.figures()["queue_depth"] == 0)


def test_several_prompts_leave_a_seat_to_others(node: Any, h: Any) -> None:
    seats = node.figures()["max_in_flight"]
    most: list[int] = []
    with node.client.stream("POST", PATH, json=asked(h, 40, 100, stream=True)) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {") and len(most) < 8:
                most.append(node.in_flight())
    assert 1 < max(most) <= seats - 1


def test_an_engine_that_dies_fails_the_answer_and_not_the_node(narrow: Any, h: Any) -> None:
    with narrow.client.stream("POST", PATH, json=asked(h, 50, 500, stream=True)) as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith("data: {"):
            pass
        os.kill(narrow.engines()[0], signal.SIGKILL)
        rest = [line for line in lines if line.startswith("data: ")]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] in (
        "upstream_connection_error",  # while it answered
        "model_recovering",  # when the next prompt was to be asked
    )
    again = h.until(
        lambda: (found := narrow.post(PATH, asked(h, 3, 2))).status_code == 200 and found
    )
    assert len(again.json()["choices"]) == 3
    h.until(lambda: narrow.in_flight() == 0)


def test_an_unload_cuts_what_has_not_ended_in_time_and_says_so(narrow: Any, h: Any) -> None:
    found: list[dict[str, Any]] = []

    def ask() -> None:
        found.append(narrow.client.post(PATH, json=asked(h, 100, 300), timeout=120).json())

    batch = threading.Thread(target=ask)
    batch.start()
    h.until(lambda: narrow.in_flight() == 1)
    assert narrow.post("/models/unload", {"model_id": h.SPARK}).status_code == 200
    batch.join(120)
    assert found[0]["helexa"]["finish"] == "drain"
    assert [c["index"] for c in found[0]["choices"]] == list(range(100))
    assert found[0]["choices"][-1] == {
        "index": 99, "text": "", "logprobs": None, "finish_reason": "length"
    }  # fmt: skip
