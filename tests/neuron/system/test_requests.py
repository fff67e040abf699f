"""What a caller of the node meets: answers, refusals, and nothing left behind."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from helexa.neuron.exchange.way import WAYS
from helexa.neuron.routes.management import routes

NOTHING: Any = None
ROUTES = routes(NOTHING, NOTHING, NOTHING)


def test_a_plain_answer_has_usage_and_the_served_model_id(node: Any, h: Any) -> None:
    answer = node.post("/v1/chat/completions", h.chat(max_tokens=5, ignore_eos=True))
    body = answer.json()
    assert answer.status_code == 200
    assert body["model"] == h.SPARK
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5
    assert body["usage"]["prompt_tokens"] > 0


def test_the_same_routes_answer_without_the_version_prefix(node: Any, h: Any) -> None:
    assert node.post("/chat/completions", h.chat(max_tokens=2)).status_code == 200


def test_a_stream_arrives_in_pieces_and_ends_with_done(node: Any, h: Any) -> None:
    body = h.chat(max_tokens=20, ignore_eos=True, stream=True)
    with node.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = list(answer.iter_lines())
    assert [line for line in lines if line][-1] == "data: [DONE]"
    chunks = list(h.events(iter(lines)))
    assert all(chunk["model"] == h.SPARK for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_comes_in_its_own_chunk_when_asked_for(node: Any, h: Any) -> None:
    body = h.chat(max_tokens=3, stream=True, stream_options={"include_usage": True})
    with node.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        *_, last = h.events(answer.iter_lines())
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] <= 3
    assert last["timings"]["predicted_n"] == last["usage"]["completion_tokens"]


def test_the_request_id_is_echoed(node: Any, h: Any) -> None:
    answer = node.post("/v1/chat/completions", h.chat(max_tokens=1), x_request_id="abc-def")
    assert answer.headers["x-request-id"] == "abc-def"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{not json", 400, "invalid_json", None),
        (b"[]", 400, "invalid_request_body", None),
        (b'{"messages": []}', 400, "missing_model_field", "model"),
        (b'{"model": 7, "messages": []}', 400, "invalid_request_body", "model"),
        (b'{"model": "no/such", "messages": []}', 404, "model_not_found", None),
        (b'{"model": "helexa/spark"}', 400, "invalid_request_body", "messages"),
        (
            b'{"model": "helexa/spark", "messages": [{"role": 1, "content": "x"}]}',
            400,
            "invalid_request_body",
            "messages[0].role",
        ),
    ],
)
def test_a_wrong_request_is_refused_by_its_code_and_path(
    node: Any, h: Any, body: bytes, status: int, code: str, param: str | None
) -> None:
    answer = node.client.post("/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    if param is not None:
        assert error["param"] == param
    h.until(lambda: node.in_flight() == 0)  # the test before may just be leaving


def test_an_unknown_path_and_a_wrong_method_say_so(node: Any) -> None:
    assert node.client.get("/nowhere").json()["error"]["code"] == "not_found"
    assert node.client.get("/v1/chat/completions").status_code == 405


def test_a_prompt_beyond_the_advertised_limit_is_refused_with_its_length(node: Any, h: Any) -> None:
    limit = node.get("/models")[0]["limit"]["input"]
    answer = node.post("/v1/chat/completions", h.chat("word " * limit * 2))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["prompt_len"] > error["max"] == limit
    assert "maximum context length is" in error["message"]
    assert node.figures()["rejected_too_long"] >= 1


def test_a_body_beyond_the_limit_is_refused(start_node: Any, h: Any) -> None:
    small = start_node("max_body_mb = 1\n")
    answer = small.post("/v1/chat/completions", h.chat("x" * (2 << 20)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


def test_ids_with_slashes_work_raw_and_percent_encoded(node: Any) -> None:
    for path in ("/models/helexa/spark/endpoint", "/models/helexa%2Fspark/endpoint"):
        assert node.get(path) == {"url": node.url}
    capabilities = node.get("/models/helexa/spark/capabilities")
    assert capabilities["tool_call"] is True
    assert node.client.get("/models/no/such/endpoint").status_code == 404


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_midway_frees_the_slot_within_100_ms(
    start_node: Any, h: Any, stream: bool
) -> None:
    """The quickest of several leaves counts: the machine may have other things to do."""
    single = start_node("[engines.llamacpp]\nslots = 1\n")
    single.load()
    tries = [freed_and_served(single, h, stream) for _ in range(2)]
    while len(tries) < 40 and not any(freed < 0.1 and served < 0.25 for freed, served in tries):
        tries.append(freed_and_served(single, h, stream))
    # The second is when the engine's only slot has answered somebody else.
    assert any(freed < 0.1 and served < 0.25 for freed, served in tries), tries
    h.until(lambda: '"outcome":"cancelled"' in single.log())


def freed_and_served(node: Any, h: Any, stream: bool) -> tuple[float, float]:
    """Seconds from a client's leaving midway until its seat is free, and until the slot is."""
    leaver = h.raw_request(node.url, h.endless(stream=stream))
    h.until(lambda: node.in_flight() == 1)
    time.sleep(0.05)
    leaver.close()
    left = time.monotonic()
    h.until(lambda: node.in_flight() == 0, every_s=0.002)
    freed = time.monotonic() - left
    with node.client.stream(
        "POST", "/v1/chat/completions", json=h.chat(max_tokens=1, stream=True)
    ) as answer:
        next(h.events(answer.iter_lines()))
    return freed, time.monotonic() - left


def test_a_slow_reader_costs_bounded_memory_and_slows_only_itself(node: Any, h: Any) -> None:
    before = node.rss_kb()
    slow = h.raw_request(node.url, h.endless(6000, stream=True), rcvbuf=4096)
    h.until(lambda: node.in_flight() == 1)
    for _ in range(5):
        assert node.post("/v1/chat/completions", h.chat(max_tokens=5)).status_code == 200
    h.until(lambda: node.in_flight() == 1)  # the slow one was not waited for
    assert node.rss_kb() - before < 8192
    slow.close()
    h.until(lambda: node.in_flight() == 0)


def test_a_node_takes_the_secrets_in_further_lines_of_the_file_too(
    start_node: Any, h: Any, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.secret"
    file.write_text("new\nold\n", encoding="utf-8")
    node = start_node(f'[fleet]\nsecret_file = "{file}"\n')
    for secret, status in (("new", 200), ("old", 200), ("older", 401), ("new old", 401)):
        header = {"authorization": f"Bearer {secret}"}
        assert httpx.get(f"{node.url}/models", headers=header, timeout=60).status_code == status
    h.until(lambda: "further lines" in (node.folder / "log").read_text())


def test_with_a_fleet_secret_only_health_and_version_are_public(start_node: Any) -> None:
    closed = start_node(secret="s3cret")
    stranger = httpx.Client(base_url=closed.url, timeout=60)
    assert stranger.get("/health").status_code == 200
    assert stranger.get("/version").status_code == 200
    assert stranger.post("/health", json={}).status_code == 401
    private = [
        (method, route.path)
        for route in ROUTES
        for method in route.methods or ()
        if (method, route.path) not in {("GET", "/health"), ("GET", "/version")}
    ]
    private += [("POST", prefix + path.decode()) for path in WAYS for prefix in ("", "/v1")]
    for method, path in [*private, ("GET", "/multiplex"), ("GET", "/%76ersion/..;/models")]:
        assert stranger.request(method, path).status_code == 401, (method, path)
    url = httpx.URL(closed.url)
    with socket.create_connection((url.host, url.port or 0), timeout=60) as long:
        long.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n")
        assert long.recv(100).startswith(b"HTTP/1.1 401 ")  # and nothing of it is read
    wrong = stranger.get("/models", headers={"authorization": "Bearer wrong"})
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert closed.get("/models") == []
    stranger.close()


def test_a_model_that_is_loaded_to_embed_says_so(start_node: Any, h: Any) -> None:
    node = start_node("[engines.llamacpp]\nembeddings = true\n")
    entry = node.load()
    assert {"text", "embeddings"} <= set(entry["capabilities"])
    answer = node.post("/v1/embeddings", {"model": h.SPARK, "input": "one"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["embedding"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_web_page_can_do_nothing_to_a_node_of_its_readers_machine(node: Any, origin: str) -> None:
    """Without a secret the node trusts its machine, and a browser runs there."""
    for path, body in (("/models/unload", {"model_id": "helexa/spark"}), ("/drain", {})):
        assert node.post(path, body, origin=origin).status_code == 403
    rebound = {"origin": "http://evil.example", "host": "evil.example"}
    assert node.post("/drain", {}, **rebound).status_code == 403
    assert node.post("/drain", {"draining": False}, origin=node.url).status_code != 403
    assert node.status() == "loaded"


@pytest.mark.parametrize("path", ["/discovery", "/requests", "/models", "/events", "/metrics"])
def test_a_page_whose_name_leads_to_the_readers_machine_reads_nothing_of_a_node(
    node: Any, path: str
) -> None:
    """A browser says nothing of an origin where a page asks the host that it came from."""
    answer = node.client.get(path, headers={"host": "evil.example:13131"})
    assert answer.status_code == 403
    assert "127.0.0.1" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost:13131", "[::1]:13131", "gpu1", "a.localhost:1"])
def test_a_node_answers_to_the_names_of_its_machine(node: Any, host: str) -> None:
    assert node.client.get("/models", headers={"host": host}).status_code == 200
