"""Clean chat as bytes: chunks around raw deltas, the usage chunk, and the plain answer.

Shared by every engine's cleaner. A delta's JSON is spliced, not decoded, between a prefix and a
suffix that are made once per request; what every answer has is formatted, which costs less than
collecting it first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from helexa.neuron.engines.base import Meter

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.encode


def usage_json(meter: Meter) -> bytes:
    """The ``usage`` member; ``estimated`` is said where the engine gave no counts."""
    return (
        b'{%b"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d},'
        b'"completion_tokens_details":{"reasoning_tokens":%d}}'
    ) % (
        b'"estimated":true,' if meter.estimated else b"",
        meter.prompt,
        meter.output,
        meter.prompt + meter.output,
        meter.cached,
        meter.reasoning,
    )


def timings_json(meter: Meter) -> bytes:
    """The ``timings`` member: tokens and milliseconds."""
    return b'%b,"predicted_n":%d,"predicted_ms":%d.%03d}' % (
        prompt_timings_json(meter)[:-1],
        meter.output,
        *_thousandths(meter.predicted_ms),
    )


def prompt_timings_json(meter: Meter) -> bytes:
    """What of the timings is known before the first token."""
    return b'{"prompt_n":%d,"cache_n":%d,"prompt_ms":%d.%03d}' % (
        max(0, meter.prompt - meter.cached),
        meter.cached,
        *_thousandths(meter.prompt_ms),
    )


def _thousandths(ms: float) -> tuple[int, int]:
    """Whole ones and thousandths: to round and write a float is longer than all the rest."""
    return divmod(round(ms * 1000), 1000)


class Envelope:
    """The members every chunk of one answer shares: ``kind`` is ``chat.completion`` or
    ``text_completion``."""

    def __init__(self, answer_id: str, created: int, model: str, kind: str) -> None:
        self.kind = kind
        self._id = answer_id
        self._created = created
        self._model = model
        self._open = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,' % (
            _encode(answer_id),
            b"chat.completion.chunk" if kind == "chat.completion" else kind.encode(),
            created,
            _encode(model),
        )

    def call_ids(self, choice: int) -> Callable[[int], str]:
        """Names for calls of one choice that the engine has not named: unique with the request,
        and letters after it."""
        stem = self._id.rpartition("_")[2].rpartition("-")[2]
        return lambda call: f"call_{stem}{chr(ord('a') + choice % 26)}{chr(ord('a') + call % 26)}"

    def choice_prefix(self, index: int) -> bytes:
        """Everything before a delta of choice ``index``."""
        return self._open + b'"choices":[{"index":%d,"delta":' % index

    def chunk(self, members: dict[str, Any]) -> bytes:
        """One event with further members."""
        return self._open + _encode(members)[1:] + b"\n\n"

    def usage(self, meter: Meter) -> bytes:
        """The usage chunk."""
        told = usage_json(meter), timings_json(meter)
        return self._open + b'"choices":[],"usage":%b,"timings":%b}\n\n' % told

    def role(self, index: int, meter: Meter) -> bytes:
        """The first chunk of choice ``index``, with what is known of the prompt."""
        return self._open + (
            b'"timings":%b,"choices":[{"index":%d,"delta":{"role":"assistant"},'
            b'"finish_reason":null}]}\n\n'
        ) % (prompt_timings_json(meter), index)

    def whole(self, choices: Sequence[Any], meter: Meter, why: str | None) -> bytes:
        """The plain answer."""
        body: dict[str, Any] = {
            "id": self._id,
            "object": self.kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
            "usage": msgspec.Raw(usage_json(meter)),
            "timings": msgspec.Raw(timings_json(meter)),
        }
        if why is not None:
            body["helexa"] = {"finish": why}
        return _encode(body)


def assemble(deltas: list[msgspec.Raw]) -> dict[str, Any]:
    """One message out of the deltas of one choice."""
    content: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    for raw in deltas:
        delta = msgspec.json.decode(raw)
        content.append(delta.get("content") or "")
        reasoning.append(delta.get("reasoning_content") or "")
        for fragment in delta.get("tool_calls") or ():
            _add_fragment(calls, fragment)
    text = "".join(content)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not calls else None,
        "refusal": None,
    }
    if any(reasoning):
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message


def _add_fragment(calls: dict[int, dict[str, Any]], fragment: dict[str, Any]) -> None:
    """Add a streamed piece of a tool call to what there is of it."""
    index = fragment.get("index", 0)
    blank = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call = calls.setdefault(index, blank)
    function = fragment.get("function") or {}
    call["id"] = fragment.get("id") or call["id"]
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""


class Ending(Protocol):
    """What is known of one choice when it ends.

    Attributes:
        stop: The client's text that ended it.
        deltas, logprobs: Kept for plain answers.
    """

    index: int
    finish: str | None
    stop: str | None
    deltas: list[msgspec.Raw]
    logprobs: list[msgspec.Raw]


def finish_chunk(envelope: Envelope, state: Ending, why: str | None) -> bytes:
    """The finish chunk of a choice; ``why`` says what of ours cut the answer."""
    choice: dict[str, Any] = {"index": state.index, "delta": {}}
    if state.stop is not None:
        choice["stop_reason"] = state.stop
    choice["finish_reason"] = state.finish
    members: dict[str, Any] = {"choices": [choice]}
    if why is not None:
        members["helexa"] = {"finish": why}
    return envelope.chunk(members)


def plain_choice(state: Ending) -> dict[str, object]:
    """The choice of a plain answer."""
    choice: dict[str, object] = {
        "index": state.index,
        "message": assemble(state.deltas),
        "logprobs": _joined(state.logprobs),
        "finish_reason": state.finish or "stop",
    }
    if state.stop is not None:
        choice["stop_reason"] = state.stop
    return choice


def _joined(pieces: list[msgspec.Raw]) -> dict[str, Any] | None:
    if not pieces:
        return None
    tokens: list[Any] = []
    for piece in pieces:
        tokens += msgspec.json.decode(piece).get("content") or []
    return {"content": tokens, "refusal": None}
