"""Requests of the shapes that real clients send, replayed against a real gateway, node and engine.

Each file of ``tests/corpus`` is one request: its path, the headers that matter, its body, and the
status it must get. The model's name is the only thing that is put in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.neuron.system.conftest import SPARK
from tests.openai_schema import validate
from tests.system.rig import PATIENT, Stack, StartStack
from tests.wire.messages import reading
from tests.wire.responses import reading as responses

CORPUS = Path(__file__).parents[1] / "corpus"


@pytest.fixture(scope="module")
def stack(make_stack: StartStack) -> Stack:
    """A model that chats and embeds."""
    return make_stack(PATIENT, node="[engines.llamacpp]\nembeddings = true\n")


@pytest.mark.parametrize("name", sorted(file.stem for file in CORPUS.glob("*.json")))
def test_what_clients_send_is_served_and_the_answer_is_valid(stack: Stack, name: str) -> None:
    asked = json.loads((CORPUS / f"{name}.json").read_text())
    with stack.client() as client:
        body = {**asked["body"], "model": SPARK}
        answer = client.post(asked["path"], json=body, headers=asked["headers"])
    assert answer.status_code == asked["status"], answer.text
    if answer.status_code == 200:
        check(asked["path"].partition("?")[0].removeprefix("/v1"), asked["body"], answer)


def check(path: str, body: Any, answer: httpx.Response) -> None:
    stream = body.get("stream")
    if path == "/messages" and stream:
        found = reading.sse(answer.content)
        reading.check_order(found)
        reading.validate(found)
        assert reading.said(found)[-1][0] == "end"
    elif path == "/messages/count_tokens":
        assert answer.json()["input_tokens"] > 0
    elif path == "/chat/completions" and stream:
        events = [line[6:] for line in answer.text.split("\n\n") if line.startswith("data: ")]
        assert events.pop() == "[DONE]"
        for event in events:
            validate("CreateChatCompletionStreamResponse", json.loads(event))
        choices = [choice for event in events for choice in json.loads(event)["choices"]]
        assert choices[-1]["finish_reason"] in ("stop", "length", "tool_calls")
    elif path == "/chat/completions":
        validate("CreateChatCompletionResponse", answer.json())
    elif path == "/responses" and stream:
        payloads = responses.sse(answer.content)
        responses.check_order(payloads)
        responses.validate(payloads)
        assert payloads[-1]["type"] in ("response.completed", "response.incomplete")
    elif path == "/responses":
        responses.validate_body(answer.content)
    elif path == "/completions":
        validate("CreateCompletionResponse", answer.json())
    elif path == "/embeddings":
        assert len(answer.json()["data"]) == len(body["input"])
    else:
        pytest.fail(f"no check for {path}")
