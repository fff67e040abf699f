"""Chunks of legacy text completions in one shape; log probabilities in their four columns."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.neuron.engines.base import Meter
from helexa.neuron.engines.compatible.chunks import Choice, ChoiceState, known_finish
from helexa.neuron.engines.render import Envelope
from helexa.neuron.engines.request import Json

_COLUMNS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


class TextDialect:
    """Text chunks.

    Args:
        keep: Collect the texts for a plain answer.
        first: The number of the first choice.
        echo: What every choice begins with.
    """

    def __init__(self, envelope: Envelope, keep: bool, first: int = 0, echo: str = "") -> None:
        self._envelope = envelope
        self._keep = keep
        self._first = first
        self._echo = echo

    def prefix(self, index: int) -> bytes:  # noqa: ARG002
        """Unused: text is rendered whole."""
        return b""

    def carries(self, choice: Choice) -> bool:
        """Whether the chunk holds any of the answer."""
        return bool(choice.text)

    def event(self, choice: Choice, state: ChoiceState, meter: Meter) -> bytes:  # noqa: ARG002
        """One chunk for new text, one for the end."""
        state.kind = ""
        out = b""
        if choice.text:
            state.kind = "content"
            told = msgspec.json.decode(choice.logprobs) if choice.said_logprobs() else None
            if self._keep:
                state.texts.append(choice.text)
                if told is not None:
                    state.logprobs.append(choice.logprobs)
            out = self._chunk(state, self._opened(state) + choice.text, told)
        if choice.finish_reason is not None:
            state.finish = known_finish(choice.finish_reason, state)
            out += self.finish(state, None)
        return out

    def _chunk(self, state: ChoiceState, text: str, logprobs: Any, **more: Any) -> bytes:
        """A chunk; ``more`` are its further members."""
        choice = {"index": self._first + state.index, "text": text, "logprobs": logprobs,
                  "finish_reason": state.finish}  # fmt: skip
        return self._envelope.chunk({"choices": [choice], **more})

    def finish(self, state: ChoiceState, why: str | None) -> bytes:
        """The finish chunk."""
        more = {} if why is None else {"helexa": {"finish": why}}
        return self._chunk(state, self._opened(state), None, **more)

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
            "logprobs": _joined(state.logprobs),
            "finish_reason": state.finish or "stop",
        }


def _joined(pieces: list[msgspec.Raw]) -> Json | None:
    """Columns end to end."""
    if not pieces:
        return None
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for piece in pieces:
        said = msgspec.json.decode(piece)
        for name in _COLUMNS:
            columns[name] += said.get(name) or []
    return columns
