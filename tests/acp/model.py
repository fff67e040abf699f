"""A model server that says what a test told it to, over Chat Completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.bench.made import Write, json_answer, serving_in_thread

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@dataclass
class Reply:
    """One answer.

    Args:
        calls: Name and arguments (an object, or raw text).
        cut: The stream ends in the middle.
        hold: Seconds before it ends, behind its first words.
        until: It does not end before this is so.
        comment: Sent before anything else.
        cut_by: Why a node says it ended the answer.
    """

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    status: int = 200
    error: dict[str, Any] | None = None
    cut: bool = False
    hold: float = 0
    until: Callable[[], bool] = lambda: True
    comment: str = ""
    finish: str = ""
    cut_by: str = ""
    prompt_tokens: int = 100


@dataclass
class Model:
    """The server: replies in order, and what it was asked."""

    replies: list[Reply] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(
        default_factory=lambda: [{"id": "m", "limit": {"context": 8000}, "tool_call": True}]
    )
    models_status: int = 200
    url: str = ""

    def say(self, *replies: Reply | str) -> None:
        self.replies += [Reply(r) if isinstance(r, str) else r for r in replies]

    async def __call__(self, body: dict[str, Any], write: Write) -> None:
        if body.pop("_path") == "/v1/models":
            error = {"error": {"message": "no such key", "code": "invalid_api_key"}}
            found = {"data": self.models} if self.models_status == 200 else error
            await write(json_answer(found, self.models_status))
            return
        self.asked.append(body)
        reply = self.replies.pop(0) if self.replies else Reply("nothing more to say")
        if reply.status != 200:
            await write(json_answer({"error": reply.error or {"message": "no"}}, reply.status))
            return
        await write(HEAD + (f": {reply.comment}\n\n".encode() if reply.comment else b""))
        for delta in deltas(reply):
            await write(event({"choices": [{"index": 0, "delta": delta}]}))
        if reply.hold:
            await asyncio.sleep(reply.hold)
        while not reply.until():
            await asyncio.sleep(0.01)
        if reply.cut:
            return
        finish = reply.finish or ("tool_calls" if reply.calls else "stop")
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": 7, "total_tokens": 107}
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
        why = {"helexa": {"finish": reply.cut_by}} if reply.cut_by else {}
        await write(event(last | why))
        await write(event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")


def deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant"}
    if reply.thought:
        yield {"reasoning_content": reply.thought}
    half = len(reply.text) // 2
    for part in (reply.text[:half], reply.text[half:]):
        if part:
            yield {"content": part}
    for i, (name, arguments) in enumerate(reply.calls):
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        function = {"name": name, "arguments": ""}
        yield {
            "tool_calls": [{"index": i, "id": f"c{i}", "type": "function", "function": function}]
        }
        for at in range(0, len(text), 9):
            yield {"tool_calls": [{"index": i, "function": {"arguments": text[at : at + 9]}}]}


def event(value: dict[str, Any]) -> bytes:
    whole = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", **value}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


@contextmanager
def serving_model() -> Iterator[Model]:
    model = Model()
    with serving_in_thread(model) as url:
        model.url = url
        yield model
