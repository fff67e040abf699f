"""Legacy text completions on llama.cpp."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.neuron.engines.base import Meter, Served
from helexa.neuron.engines.llamacpp.sampling import check_sampling
from helexa.neuron.engines.llamacpp.stream import Choice, ChoiceState, known_finish
from helexa.neuron.engines.render import Envelope
from helexa.neuron.engines.request import Json, take_cap

# As in chat, and what the chat route of llama.cpp sets itself.
_NOT_FOR_CLIENTS = (
    "id_slot", "cache_prompt", "n_keep", "n_discard", "n_indent", "t_max_prompt_ms", "n_cmpl",
    "return_tokens", "response_fields", "lora", "chat_format", "chat_parser", "generation_prompt",
    "reasoning_format", "reasoning_in_content", "parse_tool_calls", "preserved_tokens",
)  # fmt: skip


def prepare(body: Json, served: Served) -> None:
    """Check a text completion in place, all but its prompts.

    Raises:
        RequestRefused: With the path of what is wrong.
    """
    check_sampling(body, served)
    for name in _NOT_FOR_CLIENTS:
        body.pop(name, None)
    body["max_tokens"] = take_cap(body, served, "n_predict")
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    body["return_progress"] = True
    body["timings_per_token"] = True
    if body.get("logprobs") == 0:
        body["logprobs"] = 1  # for 0 it gives none at all


class TextDialect:
    """Chunks with ``text``; log probabilities in the legacy columns.

    Args:
        keep: Collect the texts for a plain answer.
        bare: Log probabilities leave without those of other tokens.
        first: The number of the first choice.
        echo: What every choice begins with.
    """

    def __init__(
        self, envelope: Envelope, keep: bool, *, bare: bool = False, first: int = 0, echo: str = ""
    ) -> None:
        self._envelope = envelope
        self._keep = keep
        self._bare = bare
        self._first = first
        self._echo = echo
        self._offsets: dict[int, int] = {}

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
            offset = self._offsets.get(state.index, 0)
            self._offsets[state.index] = offset + len(choice.text)
            columns = self._columns([choice.logprobs], offset) if choice.logprobs else None
            out = self._chunk(state, self._opened(state) + choice.text, columns, None, None)
        if choice.finish_reason is not None:
            state.finish = known_finish(choice.finish_reason, state)
            out += self.finish(state, None)
        return out

    def _chunk(
        self, state: ChoiceState, text: str, logprobs: Any, finish: str | None, why: str | None
    ) -> bytes:
        choice = {"index": self._first + state.index, "text": text, "logprobs": logprobs,
                  "finish_reason": finish}  # fmt: skip
        members: dict[str, Any] = {"choices": [choice]}
        if why is not None:
            members["helexa"] = {"finish": why}
        return self._envelope.chunk(members)

    def finish(self, state: ChoiceState, why: str | None) -> bytes:
        """The finish chunk."""
        return self._chunk(state, self._opened(state), None, state.finish, why)

    def _opened(self, state: ChoiceState) -> str:
        """What goes before the first text of a choice."""
        if state.opened:
            return ""
        state.opened = True
        return self._echo

    def whole(self, state: ChoiceState) -> dict[str, object]:
        """The choice of a plain answer."""
        return {
            "index": self._first + state.index,
            "text": self._echo + "".join(state.texts),
            "logprobs": self._columns(state.logprobs, 0),
            "finish_reason": state.finish or "stop",
        }

    def _columns(self, pieces: list[msgspec.Raw], offset: int) -> dict[str, Any] | None:
        columns = _columns(pieces, offset)
        if columns is not None and self._bare:
            columns["top_logprobs"] = [{} for _ in columns["tokens"]]
        return columns


def _columns(pieces: list[msgspec.Raw], offset: int) -> dict[str, Any] | None:
    """llama.cpp's list of tokens as the four columns of the legacy dialect.

    Args:
        offset: Characters of the answer before the first of them.
    """
    columns: dict[str, list[Any]] = {
        "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []
    }  # fmt: skip
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
