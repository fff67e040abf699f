"""What clients meet through both hops: the official SDK, curl, every kind of wrong request."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import Any

import openai
import pytest
from tests.neuron.system.conftest import SPARK, chat, endless, events, until
from tests.system.rig import CHAT, PATIENT, Stack, StartStack

ASK: Any = [{"role": "user", "content": "Repeat: one two three"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def stack(make_stack: StartStack) -> Stack:
    """However slow the machine is."""
    return make_stack(PATIENT)


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "-m", "60", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sdk_gets_plain_and_streamed_answers_with_exact_usage(stack: Stack) -> None:
    with stack.sdk() as client:
        plain = client.chat.completions.create(
            model=SPARK, messages=ASK, temperature=0, max_tokens=40
        )
        assert plain.model == SPARK
        assert plain.usage is not None
        text, usage = "", None
        for chunk in client.chat.completions.create(
            model=SPARK,
            messages=ASK,
            temperature=0,
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        ):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            usage = chunk.usage or usage
        assert text == plain.choices[0].message.content
        assert text
        assert usage is not None
        assert usage.completion_tokens == plain.usage.completion_tokens
        assert usage.prompt_tokens == plain.usage.prompt_tokens


def test_tools_pass_through_both_hops_in_one_shape(stack: Stack) -> None:
    asked: dict[str, Any] = {
        "model": SPARK,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [WEATHER],
        "tool_choice": "required",
        "temperature": 0,
        "max_tokens": 120,
    }
    with stack.sdk() as client:
        plain = client.chat.completions.create(**asked)
        [call] = list(plain.choices[0].message.tool_calls or [])
        assert call.type == "function"
        assert plain.choices[0].finish_reason == "tool_calls"
        name, arguments = "", ""
        for chunk in client.chat.completions.create(**asked, stream=True):
            for piece in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
                assert piece.function is not None
                name += piece.function.name or ""
                arguments += piece.function.arguments or ""
        assert (name, arguments) == (call.function.name, call.function.arguments)
        assert name == "get_weather"
        assert isinstance(json.loads(arguments), dict)


def test_who_wants_no_parallel_calls_gets_one(stack: Stack) -> None:
    question = "What is the weather in Paris and in Rome?"
    asked: dict[str, Any] = {
        "model": SPARK,
        "messages": [{"role": "user", "content": question}],
        "tools": [WEATHER],
        "temperature": 0,
        "max_tokens": 120,
    }
    with stack.sdk() as client:
        found = [
            client.chat.completions.create(**asked, parallel_tool_calls=parallel).choices[0]
            for parallel in (True, False)
        ]
    assert [len(choice.message.tool_calls or []) for choice in found] == [2, 1]
    assert [choice.finish_reason for choice in found] == ["tool_calls", "tool_calls"]


@pytest.mark.parametrize(
    ("model", "key", "kind", "code"),
    [
        ("no/such", "sk-open", openai.NotFoundError, "model_not_found"),
        (SPARK, "sk-spent", openai.RateLimitError, "insufficient_quota"),
        ("", "sk-open", openai.BadRequestError, "missing_model_field"),
    ],
)
def test_refusals_are_the_sdks_own_errors(
    stack: Stack, model: str, key: str, kind: type[openai.APIStatusError], code: str
) -> None:
    with stack.sdk(key, retries=2) as client, pytest.raises(kind) as refused:
        client.chat.completions.create(model=model, messages=ASK)
    assert refused.value.code == code
    assert refused.value.request_id
    # None of them will pass: the SDK did not try again.
    last, *before = stack.get("/admin/requests?limit=2", "sk-root")["requests"]
    assert last["id"] == refused.value.request_id
    assert all(other.get("error", {}).get("code") != code for other in before)


def test_the_sdk_comes_back_when_it_was_told_to(stack: Stack) -> None:
    assert stack.admin("/admin/drain", {"node": "one"}).status_code == 200
    try:
        refused = stack.ask(chat())
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            503,
            "service_unavailable",
        )
        assert 1 <= int(refused.headers["retry-after"]) <= 59
        back = threading.Timer(
            0.3, lambda: stack.admin("/admin/drain", {"node": "one", "draining": False})
        )
        back.start()
        with stack.sdk(retries=20) as client:
            answer = client.chat.completions.create(model=SPARK, messages=ASK, max_tokens=5)
        assert answer.usage is not None
        back.join()
    finally:
        stack.admin("/admin/drain", {"node": "one", "draining": False})


def test_curl_streams_events_and_ends_with_the_terminator(stack: Stack) -> None:
    body = json.dumps(chat(stream=True, max_tokens=20))
    shown = curl("-N", "-i", f"{stack.url}{CHAT}", "-H", "content-type: application/json",
                 "-d", body)  # fmt: skip
    head, _, text = shown.partition("\n\n")
    assert "x-helexa-node: one" in head
    assert "server-timing: gateway;dur=" in head
    *_, comment, done, _ = text.split("\n\n")
    assert done == "data: [DONE]"
    known = json.loads(comment.removeprefix(": helexa "))
    assert known["node"] == "one"
    assert known["prefill_ms"] > 0
    assert '"usage"' not in text  # not asked for


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ('{"model": "no/such", "messages": []}', 404, "model_not_found", "model"),
        ('{"messages": []}', 400, "missing_model_field", "model"),
        ('{"model": "helexa/spark", ', 400, "invalid_json", None),
        ('{"model": "helexa/spark", "stream": "x"}', 400, "invalid_request_body", "stream"),
        (
            '{"model": "helexa/spark", "messages": [{"role": 5, "content": ""}]}',
            400,
            "invalid_request_body",
            "messages[0].role",
        ),
        (
            '{"model": "helexa/spark", "temperature": "hot", "messages": [{"role": "user"}]}',
            400,
            "invalid_request_body",
            "temperature",
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_a_wrong_request_is_refused_by_its_path_through_both_hops(
    stack: Stack, body: str, status: int, code: str, param: str | None, prefix: str
) -> None:
    with stack.client() as client:
        got = client.post(f"{prefix}/chat/completions", content=body)
    error = got.json()["error"]
    assert (got.status_code, error["code"]) == (status, code), error
    assert error["param"] == param
    assert "retry-after" not in got.headers


def test_a_prompt_that_is_too_long_is_refused_in_words_that_agents_know(stack: Stack) -> None:
    limit = stack.get(f"/v1/models/{SPARK}")["limit"]["input"]
    with stack.sdk() as client, pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=SPARK, messages=[{"role": "user", "content": "word " * limit * 2}]
        )
    assert refused.value.code == "context_length_exceeded"
    assert "maximum context length is" in refused.value.message


def test_an_alias_is_a_model_of_its_own_in_the_list_and_the_same_in_answers(stack: Stack) -> None:
    listed = {m["id"]: m for m in stack.get("/v1/models")["data"]}
    assert listed["helexa/small"]["limit"] == listed[SPARK]["limit"]
    for path in ("/v1/models/helexa/small", "/v1/models/helexa%2Fsmall", "/models/helexa/spark"):
        assert stack.get(path)["loaded"] is True
    got = stack.ask(chat(model="helexa/small", max_tokens=4))
    assert (got.status_code, got.json()["model"]) == (200, SPARK)


def test_a_changed_catalogue_is_taken_in_and_a_broken_one_is_not(stack: Stack) -> None:
    file = stack.cortex.folder / "models.toml"
    before = file.read_text()
    file.write_text(before + '"helexa/tiny" = "helexa/spark"\n')
    until(lambda: stack.get("/v1/models/helexa/tiny").get("id") == "helexa/tiny")
    assert stack.ask(chat(model="helexa/tiny", max_tokens=2)).status_code == 200
    file.write_text("[[models]\n")
    until(lambda: any("catalogue refused" in line["event"] for line in stack.cortex.lines()))
    assert stack.ask(chat(model="helexa/tiny", max_tokens=2)).status_code == 200
    file.write_text(before)
    until(lambda: "error" in stack.get("/v1/models/helexa/tiny"))


def test_cold_is_not_missing(stack: Stack) -> None:
    """Promise 7: a known model that is asleep is loaded for whoever asks."""
    assert stack.admin("/admin/unload", {"model": SPARK}).status_code == 200
    until(lambda: stack.get(f"/v1/models/{SPARK}")["loaded"] is False)
    with (
        stack.client() as client,
        client.stream("POST", CHAT, json=chat(stream=True, max_tokens=5)) as answer,
    ):
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    stack.warm()
    assert "cortex_cold_starts_total" in stack.metrics()


def test_no_byte_waits(stack: Stack) -> None:
    """Promise 5: the first token is here while the engine is at its next ones."""
    with (
        stack.client() as client,
        client.stream("POST", CHAT, json=endless(7000, stream=True)) as answer,
    ):
        arriving = events(answer.iter_lines())
        assert next(arriving)["choices"]
        assert [record["state"] for record in stack.node.get("/requests")].count("decode") == 1
    until(lambda: stack.node.in_flight() == 0)


def test_no_lies(stack: Stack) -> None:
    """Promise 4: what is listed is served, what was cut says so, what is unknown is refused."""
    for model in stack.get("/v1/models")["data"]:
        assert stack.ask(chat(model=model["id"], max_tokens=2)).status_code == 200
    cut = stack.ask(endless(3)).json()
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 3
    seen = stack.ask(
        chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}])  # type: ignore[arg-type]
    )
    assert (seen.status_code, seen.json()["error"]["code"]) == (400, "vision_unsupported")


def test_versions_and_health_of_both_are_public(stack: Stack) -> None:
    assert json.loads(curl(f"{stack.url}/health"))["status"] == "ok"
    assert json.loads(curl(f"{stack.node.url}/health"))["uptime_secs"] >= 0
    refused = json.loads(curl(f"{stack.node.url}/models"))
    assert refused["error"]["code"] == "invalid_api_key"  # the fleet's secret
    assert json.loads(curl(f"{stack.url}/version"))["package_version"]


def test_every_request_is_explained_afterwards(stack: Stack) -> None:
    got = stack.ask(chat(max_tokens=5), x_request_id="mine-alone")
    assert got.headers["x-request-id"] == "mine-alone"
    seen = stack.get("/v1/requests/mine-alone")
    assert (seen["node"], seen["status"], seen["outcome"]) == ("one", 200, "complete")
    assert seen["usage"] == {
        **seen["usage"],
        "completion": got.json()["usage"]["completion_tokens"],
    }
    assert {"queue", "prefill", "total"} <= seen["ms"].keys()
    lines = until(lambda: [e for e in stack.cortex.lines() if e.get("request_id") == "mine-alone"])
    assert len(lines) == 1


def test_a_capture_shows_what_the_model_got_to_read(stack: Stack) -> None:
    with stack.client("sk-root") as admin:
        order = {"model": SPARK, "requests": 1, "minutes": 1}
        assert admin.post("/admin/capture", json=order).status_code == 201
        try:
            answer = stack.ask(chat("Repeat: blue fish", max_tokens=8)).text
            captured = json.loads(admin.get("/admin/capture/download").text)
        finally:
            admin.delete("/admin/capture")
    assert captured["response"] == answer
    assert json.loads(captured["request"])["messages"][-1]["content"] == "Repeat: blue fish"
    assert "<|im_start|>user\nRepeat: blue fish<|im_end|>" in captured["prompt"]
    assert captured["prompt_missing"] is None
