"""Engines die, hang and are taken away; requests get a clean error and the model comes back."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import httpx


def metric(node: Any, name: str) -> float:
    """What the node's only model has of a metric."""
    lines = node.client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}{{")]
    return float(line.rpartition(" ")[2])


def test_an_engine_killed_while_idle_comes_back_by_itself(start_node: Any, h: Any) -> None:
    node = start_node()
    node.load()
    assert metric(node, "neuron_load_seconds_count") == 1
    assert metric(node, "neuron_load_seconds_sum") > 0
    assert metric(node, "neuron_engine_restarts_total") == 0
    (engine,) = node.engines()
    os.kill(engine, signal.SIGKILL)
    # It may be back before we have looked.
    h.until(lambda: node.status() != "loaded" or node.engines() != [engine], every_s=0.002)
    refused = node.post("/v1/chat/completions", h.chat())
    if refused.status_code != 200:
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_recovering"
        assert int(refused.headers["retry-after"]) >= 1
    h.until(lambda: node.engines() not in ([], [engine]) and node.status() == "loaded")
    assert node.post("/v1/chat/completions", h.chat(max_tokens=1)).status_code == 200

    def told() -> list[Any]:
        lines = [json.loads(line) for line in node.log().splitlines() if line.endswith("}")]
        return [line for line in lines if line["event"] == "model"]

    h.until(lambda: len(told()) == 4)  # the log is written by a thread
    assert [line["status"] for line in told()] == ["loading", "loaded", "recovering", "loaded"]
    assert told()[2]["reason"].startswith("the engine was killed by SIGKILL (out of memory?)")
    assert metric(node, "neuron_engine_restarts_total") == 1
    assert metric(node, "neuron_load_seconds_count") == 1  # nobody asked for this one


def test_an_engine_killed_while_streaming_ends_the_stream_with_an_error_event(
    start_node: Any, h: Any
) -> None:
    node = start_node()
    node.load()
    (engine,) = node.engines()
    with node.client.stream(
        "POST", "/v1/chat/completions", json=h.endless(8000, stream=True)
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(engine, signal.SIGKILL)
        rest = [line for line in lines if line]
    *_, last = h.events(iter(rest))
    assert last["error"]["code"] == "upstream_connection_error"
    assert "data: [DONE]" not in rest
    h.until(lambda: node.engines() not in ([], [engine]) and node.status() == "loaded")
    h.until(lambda: node.in_flight() == 0)
    assert node.post("/v1/chat/completions", h.chat(max_tokens=1)).status_code == 200


def test_an_engine_killed_under_a_plain_request_is_a_502(start_node: Any, h: Any) -> None:
    node = start_node()
    node.load()
    (engine,) = node.engines()
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(node.post("/v1/chat/completions", h.endless(8000)))
    )
    asking.start()
    h.until(lambda: node.in_flight() == 1)
    time.sleep(0.05)
    os.kill(engine, signal.SIGKILL)
    asking.join(60)
    assert answers[0].status_code in (502, 503), answers[0].text


def test_a_stopped_engine_is_killed_by_the_watchdog_and_comes_back(start_node: Any, h: Any) -> None:
    node = start_node("[life]\nwatchdog_secs = 0.4\n")
    node.load()
    (engine,) = node.engines()
    with node.client.stream(
        "POST", "/v1/chat/completions", json=h.endless(8000, stream=True)
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(engine, signal.SIGSTOP)
        *_, last = h.events(lines)
    assert last["error"]["code"] == "upstream_connection_error"
    h.until(lambda: not h.alive(engine))
    h.until(lambda: node.engines() not in ([], [engine]) and node.status() == "loaded")
    assert node.post("/v1/chat/completions", h.chat(max_tokens=1)).status_code == 200


def test_a_reader_who_takes_nothing_holds_no_seat_of_an_engine_that_has_died(
    start_node: Any, h: Any
) -> None:
    node = start_node()
    node.load()
    (engine,) = node.engines()
    wide = {"logprobs": True, "top_logprobs": 20}  # more than the sockets between them hold
    reader = h.raw_request(node.url, h.endless(2000, stream=True, **wide), rcvbuf=4096)
    h.until(lambda: node.figures().get("kv_used_tokens", 0) > 2000)
    os.kill(engine, signal.SIGKILL)
    h.until(lambda: node.engines() not in ([], [engine]) and node.status() == "loaded")
    h.until(lambda: node.in_flight() == 0)
    reader.close()


def test_unload_while_streaming_waits_for_a_short_answer(start_node: Any, h: Any) -> None:
    node = start_node()
    node.load()
    with node.client.stream(
        "POST", "/v1/chat/completions", json=h.endless(400, stream=True)
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        other = httpx.Client(base_url=node.url, timeout=60)
        unloading = threading.Thread(
            target=other.post, args=["/models/unload"], kwargs={"json": {"model_id": h.SPARK}}
        )
        unloading.start()
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    unloading.join(60)
    assert node.get("/models") == []
    other.close()


def test_unload_while_streaming_cuts_a_long_answer_within_its_bound(
    start_node: Any, h: Any
) -> None:
    node = start_node("[life]\nunload_secs = 0.2\n")
    node.load()
    with node.client.stream(
        "POST", "/v1/chat/completions", json=h.endless(8000, stream=True)
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        other = httpx.Client(base_url=node.url, timeout=60)
        assert other.post("/models/unload", json={"model_id": h.SPARK}).status_code == 200
        *_, last = h.events(lines)
    assert last["helexa"] == {"finish": "drain"}
    assert node.engines() == []
    other.close()
