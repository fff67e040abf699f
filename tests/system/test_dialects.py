"""One meaning, three dialects: the same question to the same engine, asked and paid for thrice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.neuron.system.conftest import SPARK
from tests.system.rig import Stack
from tests.wire.messages import reading as messages
from tests.wire.responses import reading as responses

QUESTION = "What is the weather in Paris?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Get the weather of a city"}
Said = list[tuple[str, ...]]


def bodies(question: str, *, tool: bool) -> dict[str, dict[str, Any]]:
    """One question in every dialect."""
    turn = {"role": "user", "content": question}
    found: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": [turn], "max_tokens": 100},
        "/v1/messages": {"messages": [turn], "max_tokens": 100},
        "/v1/responses": {"input": question, "max_output_tokens": 100, "store": False},
    }
    chat, ours, theirs = found.values()
    if tool:
        chat["tools"] = [{"type": "function", "function": {**FUNCTION, "parameters": SCHEMA}}]
        chat["tool_choice"] = theirs["tool_choice"] = "required"
        ours["tools"] = [{**FUNCTION, "input_schema": SCHEMA}]
        ours["tool_choice"] = {"type": "any"}
        theirs["tools"] = [{"type": "function", **FUNCTION, "parameters": SCHEMA}]
    return found


def ask(stack: Stack, path: str, body: dict[str, Any], *, stream: bool) -> Said:
    """What an answer says, its counts left to the last item."""
    whole = {"model": SPARK, "temperature": 0, **body, "stream": stream}
    if stream and "chat" in path:
        whole["stream_options"] = {"include_usage": True}
    with stack.client("sk-meter") as client:
        answer = client.post(path, json=whole)
    assert answer.status_code == 200, answer.text
    if path == "/v1/messages":
        return _messages(answer.content, stream=stream)
    if path == "/v1/responses":
        if stream:
            return responses.said(responses.sse(answer.content)[-1]["response"])
        return responses.said(answer.json())
    return _chat(answer.text, stream=stream)


def _messages(content: bytes, *, stream: bool) -> Said:
    if stream:
        return messages.said(messages.sse(content))
    found = messages.said_plain(content)
    raw = content.decode()
    # The reader has parsed the arguments; what counts here are their bytes.
    start = raw.find('"input":') + len('"input":')
    text = json.dumps(json.loads(content)["content"][-1].get("input"))
    end = json.JSONDecoder().raw_decode(raw, start)[1] if text != "null" else start
    return [(*i[:3], raw[start:end]) if i[0] == "call" else i for i in found]


def _chat(text: str, *, stream: bool) -> Said:
    if stream:
        events = [json.loads(e[6:]) for e in text.split("\n\n") if e.startswith("data: {")]
        usage, choices = events[-1]["usage"], [c for e in events for c in e["choices"]]
        deltas, reason = [c["delta"] for c in choices], choices[-1]["finish_reason"]
    else:
        body = json.loads(text)
        usage, [choice] = body["usage"], body["choices"]
        deltas, reason = [choice["message"]], choice["finish_reason"]
    said: Said = []
    words = "".join(delta.get("content") or "" for delta in deltas)
    pieces = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    if words:
        said.append(("text", words))
    if pieces:
        arguments = "".join(piece["function"].get("arguments", "") for piece in pieces)
        said.append(("call", pieces[0]["id"], pieces[0]["function"]["name"], arguments))
    counts = (usage["prompt_tokens"], usage["completion_tokens"],
              usage["prompt_tokens_details"]["cached_tokens"])  # fmt: skip
    return [*said, ("end", reason, *map(str, counts), "")]


def comparable(said: Said) -> Said:
    """Without what differs from request to request: call ids and what was cached."""
    return [
        ("call", *item[2:]) if item[0] == "call" else item[:4] if item[0] == "end" else item
        for item in said
    ]


@pytest.mark.parametrize("tool", [False, True])
def test_one_meaning_three_dialects(stack: Stack, tool: bool) -> None:
    """The promise: renderings of one event stream; the same tool call has the same bytes."""
    question = QUESTION if tool else "Repeat: house garden"
    answers = {
        f"{path} {stream}": comparable(ask(stack, path, body, stream=stream))
        for path, body in bodies(question, tool=tool).items()
        for stream in (False, True)
    }
    first, *others = answers.values()
    assert len(first) >= 2
    assert all(answer == first for answer in others), answers


def test_a_translated_request_costs_what_the_same_chat_costs(stack: Stack) -> None:
    spent = []
    for path, body in bodies("Repeat: tree house", tool=False).items():
        for stream in (False, True):
            before = stack.settled("sk-meter")["spent_tokens"]
            end = ask(stack, path, body, stream=stream)[-1]
            cost = stack.settled("sk-meter")["spent_tokens"] - before
            assert cost == int(end[2]) + int(end[3])
            spent.append(cost)
    assert len(set(spent)) == 1
