"""Legacy text completions on llama.cpp."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.neuron.engines.base import Meter, Served
from helexa.neuron.engines.llamacpp.stream import Choice, ChoiceState, known_finish
from helexa.neuron.engines.render import Envelope
from helexa.neuron.engines.request import Json, check_prompt, take_cap

_NOT_FOR_CLIENTS = ("id_slot", "cache_prompt", "n_keep", "n_discard", "response_fields", "lora",
                    "return_tokens", "best_of")  # fmt: skip


def prepare(body: Json, served: Served) -> None:
    """Check a text completion in place.

    Raises:
        RequestRefused: With the path of what is wrong.
    """
    check_prompt(body)
    for name in _NOT_FOR_CLIENTS:
        body.pop(name, None)
    body["max_tokens"] = take_cap(body, served, "n_predict")
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    body["return_progress"] = True
    body["timings_per_token"] = True


class TextDialect:
    """Chunks with ``text``; log probabilities in the legacy columns."""

    def __init__(self, envelope: Envelope, keep: bool) -> None:
        self._envelope = envelope
        self._keep = keep

    def prefix(self, index: int) -> bytes:  # noqa: ARG002
        """Unused: text is rendered whole."""
        return b""

    def event(
        self,
        choice: Choice,
        state: ChoiceState,
        fresh: int,  # noqa: ARG002
        meter: Meter,  # noqa: ARG002
    ) -> bytes:
        """One chunk for new text, one for the end."""
        out = b""
        if choice.text:
            if self._keep:
                state.texts.append(choice.text)
                state.logprobs.append(choice.logprobs)
            out = self._chunk(state, choice.text, _columns([choice.logprobs]), None, None)
        if choice.finish_reason is not None:
            state.finish = known_finish(choice.finish_reason, state)
            out += self.finish(state, None)
        return out

    def _chunk(
        self, state: ChoiceState, text: str, logprobs: Any, finish: str | None, why: str | None
    ) -> bytes:
        choice = {"index": state.index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        members: dict[str, Any] = {"choices": [choice]}
        if why is not None:
            members["helexa"] = {"finish": why}
        return self._envelope.chunk(members)

    def finish(self, state: ChoiceState, why: str | None) -> bytes:
        """The finish chunk."""
        return self._chunk(state, "", None, state.finish, why)

    def whole(self, state: ChoiceState) -> dict[str, object]:
        """The choice of a plain answer."""
        return {
            "index": state.index,
            "text": "".join(state.texts),
            "logprobs": _columns(state.logprobs),
            "finish_reason": state.finish or "stop",
        }


def _columns(pieces: list[msgspec.Raw]) -> dict[str, Any] | None:
    """llama.cpp's list of tokens as the four columns of the legacy dialect."""
    columns: dict[str, list[Any]] = {
        "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []
    }  # fmt: skip
    offset = 0
    for piece in pieces:
        found = msgspec.json.decode(piece) if piece else None
        for token in (found or {}).get("content") or ():
            columns["tokens"].append(token["token"])
            columns["token_logprobs"].append(token["logprob"])
            top = {other["token"]: other["logprob"] for other in token["top_logprobs"]}
            columns["top_logprobs"].append(top)
            columns["text_offset"].append(offset)
            offset += len(token["token"])
    return columns if columns["tokens"] else None
