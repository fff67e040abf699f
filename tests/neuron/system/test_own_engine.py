"""A server of the operator's own, as a node serves it: from its section to the client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.neuron.engines.candidates import textual_template

SECTION = """
[engines.command.own]
command = [{program}, "--model", "{{model}}", "--alias", "{{served_id}}", "--port", "{{port}}",
           "--key-file", "{{key_file}}", "--template", {template}, "--context", "{{total_context}}",
           "--slots", "{{slots}}"]
slots = 2
context = 4096
models = ["helexa/spark"]
unsupported = ["response_format"]
"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def section(folder: Path) -> str:
    template = folder / "template.jinja"
    template.write_text(textual_template(), "utf-8")
    server = Path(__file__).parents[1] / "engines" / "llama_server.py"
    program = f"{json.dumps(sys.executable)}, {json.dumps(str(server))}"
    return SECTION.format(program=program, template=json.dumps(str(template)))


@pytest.fixture(scope="module")
def own(make_node: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A node whose built-in model runs on the operator's server."""
    node = make_node(section(tmp_path_factory.mktemp("own")))
    node.load()
    return node


def test_the_operators_engine_is_listed_and_takes_the_models_of_its_list(own: Any, h: Any) -> None:
    assert own.get("/discovery")["harnesses"][-1] == "own"
    listed = next(model for model in own.get("/models") if model["id"] == h.SPARK)
    assert (listed["harness"], listed["status"]) == ("own", "loaded")
    assert listed["limit"]["context"] == 4096
    assert own.figures()["max_in_flight"] == 2


def test_its_answers_are_clean_and_have_exact_usage(own: Any, h: Any) -> None:
    body = h.chat(max_tokens=5, stream=True, stream_options={"include_usage": True})
    with own.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        chunks = list(h.events(answer.iter_lines()))
    assert all(chunk["model"] == h.SPARK for chunk in chunks)
    plain = own.post("/v1/chat/completions", h.chat("Repeat: house", temperature=0)).json()
    assert plain["choices"][0]["message"]["content"] == "house"
    for usage in (chunks[-1]["usage"], plain["usage"]):
        assert usage["prompt_tokens"] > 0
        assert usage["completion_tokens"] > 0
        assert "estimated" not in usage


@pytest.mark.parametrize("stream", [False, True])
def test_calls_and_thoughts_that_it_writes_as_text_reach_the_client_as_such(
    own: Any, h: Any, stream: bool
) -> None:
    asked = h.chat("What is the weather in Paris?", tools=[WEATHER], temperature=0, stream=stream)
    thinks = h.chat("What is 3 + 4?", reasoning_effort="low", temperature=0)
    if stream:
        with own.client.stream("POST", "/v1/chat/completions", json=asked) as answer:
            chunks = list(h.events(answer.iter_lines()))
        choices = [chunk["choices"][0] for chunk in chunks]
        found = [c for choice in choices for c in choice["delta"].get("tool_calls", ())]
        finish = choices[-1]["finish_reason"]
    else:
        choice = own.post("/v1/chat/completions", asked).json()["choices"][0]
        found, finish = choice["message"]["tool_calls"], choice["finish_reason"]
    assert finish == "tool_calls"
    assert [call["function"]["name"] for call in found] == ["get_weather"]
    assert json.loads(found[0]["function"]["arguments"]) == {"city": "Paris"}
    message = own.post("/v1/chat/completions", thinks).json()["choices"][0]["message"]
    assert message["reasoning_content"]
    assert "think>" not in message["content"] + message["reasoning_content"]


def test_the_other_dialects_are_served_from_it_too(own: Any, h: Any) -> None:
    body = {"model": h.SPARK, "max_tokens": 60, "temperature": 0,
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
            "tools": [{"name": "get_weather", "description": "Weather of a city",
                       "input_schema": WEATHER["function"]["parameters"]}]}  # type: ignore[index]  # fmt: skip
    answer = own.post("/v1/messages", body).json()
    assert answer["stop_reason"] == "tool_use"
    assert answer["content"][-1]["input"] == {"city": "Paris"}


def test_what_it_ignores_is_refused_to_the_client(own: Any, h: Any) -> None:
    asked = h.chat(response_format={"type": "json_object"})
    refused = own.post("/v1/chat/completions", asked)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "response_format")


def test_its_death_takes_its_requests_along_and_it_comes_back(own: Any, h: Any) -> None:
    (leader,) = own.engines()
    os.killpg(leader, signal.SIGKILL)
    h.until(lambda: own.engines() not in ([], [leader]) and own.status() == "loaded", 30)
    assert own.post("/v1/chat/completions", h.chat(max_tokens=2)).status_code == 200


def test_a_place_that_is_unknown_stops_the_start_with_status_2(tmp_path: Path) -> None:
    config = tmp_path / "neuron.toml"
    config.write_text(section(tmp_path).replace("{port}", "{prot}"))
    done = subprocess.run(
        [sys.executable, "-m", "helexa.cli", "neuron", "--config", str(config), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown place {prot} (did you mean {port}?)" in done.stderr


ODD = """
import http.server, json, os, sys

class Handler(http.server.BaseHTTPRequestHandler):  # HTTP/1.0: an answer ends with its connection
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = asked["messages"][-1]["content"]
        if said == "die":
            os.kill(os.getpid(), 9)
        self.send_response(200)
        self.end_headers()
        if said == "half":
            self.event({"choices": [{"index": 0, "delta": {"content": "one"}}]})
        if said in ("half", "nothing"):
            return
        if not asked.get("stream"):
            self.wfile.write(json.dumps({"choices": [{"message": {"content": "x"}}]}).encode())
            return
        for text in ("one", " two", " three"):
            self.event({"choices": [{"index": 0, "delta": {"content": text}}]})
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "eos"}]})
        self.wfile.write(b"data: [DONE]\\r\\n\\r\\n")

    def event(self, chunk):
        said = json.dumps(chunk).encode()
        for piece in (b"event: message\\r\\n", b"data: ", said, b"\\r\\n\\r", b"\\n"):
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def odd_node(start_node: Any, h: Any, tmp_path: Path) -> Any:
    """A node whose engine is ``ODD``, loaded."""
    program = tmp_path / "odd.py"
    program.write_text(ODD)
    command = json.dumps([sys.executable, str(program), "{port}"])
    node = start_node(f"[engines.command.odd]\ncommand = {command}\nmodels = ['{h.SPARK}']\n")
    node.load()
    return node


def test_a_server_with_other_line_ends_and_no_counts_is_served_and_its_usage_called_estimated(
    start_node: Any, h: Any, tmp_path: Path
) -> None:
    node = odd_node(start_node, h, tmp_path)
    answer = node.post("/v1/chat/completions", h.chat()).json()
    assert answer["choices"][0]["message"]["content"] == "one two three"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["estimated"] is True
    assert answer["usage"]["completion_tokens"] == 3
    body = h.chat(stream=True, stream_options={"include_usage": True})
    with node.client.stream("POST", "/v1/chat/completions", json=body) as streamed:
        chunks = list(h.events(streamed.iter_lines()))
    assert [c["choices"][0]["delta"].get("content") for c in chunks[1:4]] == [
        "one",
        " two",
        " three",
    ]
    assert chunks[-1]["usage"]["estimated"] is True


def test_an_engine_that_breaks_off_and_serves_on_is_not_called_restarting(
    start_node: Any, h: Any, tmp_path: Path
) -> None:
    node = odd_node(start_node, h, tmp_path)
    for said in ("half", "nothing"):
        refused = node.post("/v1/chat/completions", h.chat(said))
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "service_unavailable")
        assert "broke off its answer, and is still running" in error["message"]
    body = h.chat("half", stream=True)
    with node.client.stream("POST", "/v1/chat/completions", json=body) as streamed:
        text = streamed.read().decode()
    assert "stopped before the answer was complete" in text
    assert "[DONE]" not in text
    assert node.status() == "loaded"
    refused = node.post("/v1/chat/completions", h.chat("die"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_recovering")
    h.until(lambda: node.status() == "loaded")
