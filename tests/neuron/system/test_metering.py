"""Tokens are counted exactly, never beyond the grant, and survive the node."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

GATEWAY = "gw/7"


def sent(request_id: str, granted: int | None = None, attempt: int = 1) -> dict[str, str]:
    """Headers of a gateway."""
    fields = {
        "x-request-id": request_id,
        "x-helexa-gateway": GATEWAY,
        "x-helexa-attempt": str(attempt),
        "x-helexa-account-id": "acme",
        "x-helexa-key-id": "acme-ci",
    }
    return fields if granted is None else fields | {"x-helexa-grant": str(granted)}


class Listener:
    """A gateway's event stream, read in a thread."""

    def __init__(self, url: str, **headers: str) -> None:
        self.seen: queue.Queue[dict[str, Any]] = queue.Queue()
        self._client = httpx.Client(base_url=url, timeout=60)
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.snapshot = self.next("snapshot") if "last_event_id" not in headers else {}

    def _read(self) -> None:
        try:
            with self._client.stream("GET", "/events", headers=self._headers) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        self.seen.put(json.loads(line[6:]))
        except httpx.HTTPError:
            pass

    def next(self, kind: str, timeout_s: float = 60) -> dict[str, Any]:
        while True:
            event = self.seen.get(timeout=timeout_s)
            if event["type"] == kind:
                return event

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def events(node: Any) -> Iterator[Listener]:
    listener = Listener(node.url, x_helexa_gateway=GATEWAY)
    yield listener
    listener.close()


def no_more(gateway: httpx.Client, events: Listener, request_id: str, granted: int) -> None:
    """The gateway's word to who waits at the edge of a grant; without it, it is waited for."""
    while True:
        low = events.next("grant_low")
        if (low["request_id"], low["granted"]) == (request_id, granted) and low["needed"]:
            update = {"request_id": request_id, "granted": granted}
            gateway.post("/requests/grants", json=[update])
            return


def record(node: Any, request_id: str) -> dict[str, Any]:
    return next(r for r in node.get("/requests") if r["request_id"] == request_id)


def prompt_tokens(node: Any, h: Any) -> int:
    answer = node.post("/v1/chat/completions", h.chat("Count.", max_tokens=1))
    return int(answer.json()["usage"]["prompt_tokens"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("extra", [1, 30, 100])
def test_an_answer_is_cut_exactly_at_its_grant_and_says_why(
    node: Any, h: Any, stream: bool, extra: int
) -> None:
    name = f"cut-{stream}-{extra}"
    granted = prompt_tokens(node, h) + extra
    body = h.endless(3000, stream=stream, stream_options={"include_usage": True})
    with node.client.stream(
        "POST", "/v1/chat/completions", json=body, headers=sent(name, granted)
    ) as answer:
        assert answer.status_code == 200
        if stream:
            *_, finish, last = h.events(answer.iter_lines())
        else:
            finish = last = json.loads(answer.read())
    assert finish["choices"][0]["finish_reason"] == "length"
    assert finish["helexa"] == {"finish": "budget"}
    usage = last["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == granted
    kept = record(node, name)
    assert (kept["state"], kept["prompt"] + kept["output"]) == ("cut", granted)
    assert kept["discarded"] > 0


def test_a_raised_grant_lets_the_answer_go_on_and_never_shrinks(
    node: Any, h: Any, events: Listener
) -> None:
    start = prompt_tokens(node, h) + 10
    final = start + 50

    gateway = httpx.Client(base_url=node.url, timeout=60)
    gateway.get("/health")  # the connection is there before it is urgent

    def raise_it() -> None:
        low = events.next("grant_low")
        assert (low["request_id"], low["granted"]) == ("raise", start)
        for granted in (final, start, 1):
            update = {"request_id": "raise", "granted": granted}
            gateway.post("/requests/grants", json=[update])
        no_more(gateway, events, "raise", final)

    raising = threading.Thread(target=raise_it)
    raising.start()
    answer = node.client.post(
        "/v1/chat/completions", json=h.endless(3000), headers=sent("raise", start)
    )
    raising.join()
    gateway.close()
    assert sum(answer.json()["usage"][k] for k in ("prompt_tokens", "completion_tokens")) == final
    end = events.next("request_end")
    assert (end["record"]["request_id"], end["record"]["state"]) == ("raise", "cut")


def test_a_prompt_that_exceeds_its_grant_is_refused_before_the_engine_sees_it(
    node: Any, h: Any, events: Listener
) -> None:
    with httpx.Client(base_url=node.url, timeout=60) as gateway:
        saying = threading.Thread(target=no_more, args=(gateway, events, "too-much", 20))
        saying.start()
        answer = node.client.post(
            "/v1/chat/completions", json=h.chat("word " * 300), headers=sent("too-much", 20)
        )
        saying.join()
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (429, "rate_limit_exceeded")
    assert error["prompt_len"] > 300
    assert not [r for r in node.get("/requests") if r["request_id"] == "too-much"]


def test_a_finished_record_stays_until_it_is_acknowledged(
    node: Any, h: Any, events: Listener
) -> None:
    answer = node.client.post(
        "/v1/chat/completions",
        json=h.chat(max_tokens=7, ignore_eos=True),
        headers=sent("kept", 5000, attempt=2),
    )
    usage = answer.json()["usage"]
    kept = record(node, "kept")
    assert kept["state"] == "complete"
    assert (kept["attempt"], kept["gateway"], kept["epoch"]) == (2, "gw", 7)
    assert (kept["account_id"], kept["key_id"]) == ("acme", "acme-ci")
    assert (kept["prompt"], kept["output"]) == (usage["prompt_tokens"], 7)
    assert events.next("request_end")["record"] == kept
    assert node.post("/requests/ack", [{"request_id": "kept", "attempt": 1}]).json() == {
        "acknowledged": 0
    }
    assert node.post("/requests/ack", [{"request_id": "kept", "attempt": 2}]).json() == {
        "acknowledged": 1
    }
    assert not [r for r in node.get("/requests") if r["request_id"] == "kept"]


def test_a_direct_callers_request_leaves_no_record(node: Any, h: Any) -> None:
    node.post("/v1/chat/completions", h.chat(max_tokens=1), x_request_id="direct")
    assert not [r for r in node.get("/requests") if r["request_id"] == "direct"]


def test_a_cancelled_request_is_billed_for_what_it_got(node: Any, h: Any) -> None:
    body = h.endless(3000, stream=True)
    with node.client.stream(
        "POST", "/v1/chat/completions", json=body, headers=sent("left", 6000)
    ) as answer:
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
    h.until(lambda: record(node, "left")["state"] == "cancelled")
    kept = record(node, "left")
    assert 5 <= kept["output"] < 3000
    h.until(lambda: node.in_flight() == 0)  # when the engine has let go of its slot


def test_events_of_requests_go_to_the_gateway_that_sent_them_only(node: Any, h: Any) -> None:
    mine = Listener(node.url, x_helexa_gateway="gw")
    other = Listener(node.url, x_helexa_gateway="other")
    node.client.post("/v1/chat/completions", json=h.chat(max_tokens=2), headers=sent("mine", 5000))
    assert mine.next("request_end")["record"]["request_id"] == "mine"
    other.next("admission")
    assert all(event["type"] != "request_end" for event in list(other.seen.queue))
    mine.close()
    other.close()


def test_records_survive_the_death_of_the_node(start_node: Any, h: Any) -> None:
    node = start_node()
    node.load()
    done = node.client.post(
        "/v1/chat/completions", json=h.chat(max_tokens=5, ignore_eos=True), headers=sent("done")
    ).json()["usage"]
    body = h.endless(8000, stream=True)
    got = 0
    with node.client.stream(
        "POST", "/v1/chat/completions", json=body, headers=sent("running", 9000)
    ) as answer:
        for _ in h.events(answer.iter_lines()):
            got += 1
            if got == 30:
                os.kill(node.pid, signal.SIGKILL)
                break
    node.stop()
    again = start_node(folder=node.folder)
    records = {r["request_id"]: r for r in again.get("/requests")}
    assert records["done"]["output"] == done["completion_tokens"]
    assert records["done"]["state"] == "complete"
    assert records["running"]["state"] == "node_lost"
    assert records["running"]["output"] >= 25
    assert records["running"]["granted"] == 9000


def test_the_event_stream_tells_a_models_whole_life_in_order(start_node: Any, h: Any) -> None:
    node = start_node()
    listener = Listener(node.url)
    assert listener.snapshot["models"] == []
    assert listener.snapshot["health"]["activation"]["state"] == "ready"
    node.load()
    assert listener.next("model")["model"]["status"] == "loading"
    assert listener.next("load_progress")["id"] == h.SPARK
    [seats] = listener.next("admission")["models"]  # a gateway lets in who waits by these
    assert (seats["id"], seats["max_in_flight"] > 0) == (h.SPARK, True)
    loaded = listener.next("model")
    assert (loaded["model"]["id"], loaded["model"]["status"]) == (h.SPARK, "loaded")
    node.post("/models/unload", {"model_id": h.SPARK})
    assert listener.next("model")["model"]["status"] == "unloading"
    assert listener.next("model")["model"]["status"] == "unloaded"
    listener.close()
    resumed = Listener(node.url, last_event_id=f"{loaded['epoch']}-{loaded['seq']}")
    first = resumed.seen.get(timeout=60)  # the model's next, or the host's memory between them
    assert first["seq"] == loaded["seq"] + 1
    told = first if first["type"] == "model" else resumed.next("model")
    assert told["model"]["status"] == "unloading"
    resumed.close()
    node.post("/drain")
    late = Listener(node.url)
    assert late.snapshot["draining"] is True
    late.close()


def test_figures_of_admission_are_told_while_requests_come_and_go(
    node: Any, h: Any, events: Listener
) -> None:
    assert node.post("/v1/chat/completions", h.chat(max_tokens=2)).status_code == 200
    (figures,) = events.next("admission")["models"]
    assert figures["id"] == h.SPARK
    assert figures["kv_total_tokens"] > 0


def test_metrics_count_what_was_billed(node: Any, h: Any) -> None:
    text = node.client.get("/metrics").text
    assert f'neuron_requests_total{{model="{h.SPARK}"' in text
    assert "neuron_discarded_tokens_total" in text
    assert "neuron_process_resident_memory_bytes" in text
    idle = "neuron_event_loop_lag_seconds_count 0\n"
    h.until(lambda: idle not in node.client.get("/metrics").text)
