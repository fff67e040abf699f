"""Chat Completions on llama.cpp: the request it wants, and its chunks made clean."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.errors import UnsupportedParameter
from helexa.neuron.engines.base import Meter, Served
from helexa.neuron.engines.conversation import (
    refuse_what_cannot_be,
    repair_message,
    system_to_the_front,
)
from helexa.neuron.engines.llamacpp.constrain import constrain
from helexa.neuron.engines.llamacpp.forced import CallReader, Delta, Heads
from helexa.neuron.engines.llamacpp.sampling import check_sampling
from helexa.neuron.engines.llamacpp.stream import Choice, ChoiceState, known_finish
from helexa.neuron.engines.render import Envelope, finish_chunk, plain_choice
from helexa.neuron.engines.request import (
    Json,
    check_messages,
    check_tools,
    set_thinking,
    take_cap,
)

TEXT = b'{"content":"'
REASONING = b'{"reasoning_content":"'
_CALLS = b'{"tool_calls":['
EMPTY = frozenset((b"{}", b"", b"null", b'{"content":""}', b'{"reasoning_content":""}'))
_HOLLOW = EMPTY | {b'{"role":"assistant","content":null}'}
"""What stands at the beginning and at the end of nearly every answer."""
_decode_delta = msgspec.json.Decoder(dict[str, Any]).decode
_ROLE = b'{"role":"assistant"}'
DELTA_END = b',"finish_reason":null}]}\n\n'

IMAGE_KINDS = ("png", "jpeg", "gif", "bmp")
"""What it decodes by itself; for others it would start a program."""

# Members of llama.cpp's own that would step around the node: slots, caches, caps, raw output.
_NOT_FOR_CLIENTS = frozenset((
    "id_slot", "cache_prompt", "n_keep", "n_discard", "n_indent", "t_max_prompt_ms",
    "n_cmpl", "return_tokens", "reasoning_format", "reasoning_in_content", "parse_tool_calls",
    "response_fields", "lora", "preserved_tokens", "__verbose", "sse_ping_interval",
))  # fmt: skip

_ORDINARY = frozenset((
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop", "user",
))  # fmt: skip
"""Members that nothing is asked about here beyond their types; most requests have no others."""


def prepare(
    body: Json, served: Served, thinking: bool, *, grammars: bool = True, plain: bool = False
) -> Heads | None:
    """Check and repair a chat request in place, into what llama.cpp answers best.

    Args:
        plain: There is nothing to check.

    Returns:
        How forced calls begin, if the answer's text may be calls.

    Raises:
        RequestRefused: With the path of what is wrong.
    """
    special = not plain and _check(body, served)
    system_to_the_front(body, served)
    set_thinking(body, served, thinking)
    heads = None
    if special:
        heads = constrain(body, served, grammars=grammars)
        for name in _NOT_FOR_CLIENTS.intersection(body):
            del body[name]
        if bare_logprobs(body):
            body["top_logprobs"] = 1  # for 0 it gives none at all, and 20 for none said
    body["max_tokens"] = take_cap(body, served, "n_predict")
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    body["return_progress"] = True
    body["timings_per_token"] = True
    body["verbose"] = bool(body.get("stop"))  # the last chunk then says which of them ended it
    return heads


def _check(body: Json, served: Served) -> bool:
    """Check all, and repair the messages; whether there are members beyond the ordinary."""
    messages = check_messages(body, served, IMAGE_KINDS)
    special = not body.keys() <= _ORDINARY
    if special:
        check_tools(body)
        refuse_what_cannot_be(body)
        _refuse_logprobs_beside_tools(body)
        check_sampling(body, served)
    for message in messages:
        repair_message(message, served)
    return special


def _refuse_logprobs_beside_tools(body: Json) -> None:
    """It gives none where it may have to read a call out of the text."""
    if body.get("logprobs") and "tools" in body:
        raise UnsupportedParameter(
            "`logprobs` cannot be given beside `tools`; leave one of them out.", param="logprobs"
        )


def bare_logprobs(body: Json) -> bool:
    """Whether log probabilities of the answer's own tokens are wanted, and of no others."""
    return bool(body.get("logprobs")) and not (body.get("top_logprobs") or body.get("n_probs"))


class ChatDialect:
    """Chat chunks.

    Args:
        keep: Collect the deltas for a plain answer.
        heads: Text is read as calls that a grammar has shaped.
        bare: Log probabilities leave without those of other tokens.
        single: No call behind the first leaves (``parallel_tool_calls: false``): llama.cpp lets a
            model that may call do it as often as it likes.
    """

    def __init__(
        self,
        envelope: Envelope,
        keep: bool,
        heads: Heads | None = None,
        *,
        bare: bool = False,
        single: bool = False,
    ) -> None:
        self._envelope = envelope
        self.prefix = envelope.choice_prefix
        self._keep = keep
        self._heads = heads
        self._bare = bare
        self._single = single
        self._begun = 0  # choices
        self._readers: dict[int, CallReader] = {}

    def event(self, choice: Choice, state: ChoiceState, fresh: int, meter: Meter) -> bytes:
        """Splice the engine's delta between our own prefix and suffix."""
        raw = bytes(choice.delta)
        if raw.startswith(TEXT) and raw not in EMPTY:
            state.pending = 0
            if self._heads is not None:
                return self._shaped(self._heads, choice, raw, state)
        elif raw.startswith(REASONING) and raw not in EMPTY:
            meter.reasoning += fresh + state.pending
            state.pending = 0
        elif raw.startswith(_CALLS) and not self._single:
            state.called = True
            state.pending = 0
        else:
            return self._unusual(choice, raw, state, fresh, meter)
        if choice.finish_reason is not None:
            return self._delta(choice, raw, state) + self._ended(choice.finish_reason, state)
        return self._delta(choice, raw, state)

    def _shaped(self, heads: Heads, choice: Choice, raw: bytes, state: ChoiceState) -> bytes:
        """Text under a grammar of ours: calls, or an answer beside them."""
        text = msgspec.json.decode(raw)["content"]
        deltas = self._reader(heads, state).feed(text)
        out = self._deltas(deltas, choice, state)
        if choice.finish_reason is not None:
            out += self._ended(choice.finish_reason, state)
        return out

    def _reader(self, heads: Heads, state: ChoiceState) -> CallReader:
        reader = self._readers.get(state.index)
        if reader is None:
            reader = CallReader(heads, self._envelope.call_ids(state.index))
            self._readers[state.index] = reader
        return reader

    def _deltas(self, deltas: list[Delta], choice: Choice, state: ChoiceState) -> bytes:
        out = []
        for delta in deltas:
            state.called = state.called or "tool_calls" in delta
            raw = msgspec.json.encode(delta)
            choice.delta = msgspec.Raw(raw)
            if "tool_calls" in delta:
                choice.logprobs = msgspec.Raw(b"")  # of the text that the call was written in
            out.append(self._delta(choice, raw, state))
        return b"".join(out)

    def _delta(self, choice: Choice, raw: bytes, state: ChoiceState) -> bytes:
        if self._bare and choice.logprobs:
            choice.logprobs = _without_tops(choice.logprobs)
        if self._keep:
            state.deltas.append(choice.delta)
            if choice.logprobs:
                state.logprobs.append(choice.logprobs)
        start = b"" if state.opened else self._role(state)
        if choice.logprobs:
            return b"".join((start, state.prefix, raw, _logprobs(choice.logprobs), DELTA_END))
        return start + state.prefix + raw + DELTA_END

    def _role(self, state: ChoiceState, meter: Meter | None = None) -> bytes:
        """The first chunk of a choice, and before it of those with lower numbers: OpenAI's SDK
        numbers choices as they appear. Where the prompt has been counted by then, it says so."""
        state.opened = True
        begun, self._begun = self._begun, max(self._begun, state.index + 1)
        return b"".join([self._begin(index, meter) for index in range(begun, self._begun)])

    def _begin(self, index: int, meter: Meter | None) -> bytes:
        if meter is None or not meter.prompt_known:
            return self.prefix(index) + _ROLE + DELTA_END
        return self._envelope.role(index, meter)

    def _unusual(
        self, choice: Choice, raw: bytes, state: ChoiceState, fresh: int, meter: Meter
    ) -> bytes:
        """The role, an empty delta, or one in a form that is not spliced as it is."""
        state.pending += fresh
        out = b"" if state.opened else self._role(state, meter)
        kept = None if raw in _HOLLOW else _without_hollows(raw)
        if kept and self._single:
            kept = _without_later_calls(kept)
        if kept:
            if "reasoning_content" in kept:
                meter.reasoning += state.pending
            state.pending = 0
            state.called = state.called or "tool_calls" in kept
            again = msgspec.Raw(msgspec.json.encode(kept))
            choice.delta = again
            out += self._delta(choice, bytes(again), state)
        if choice.finish_reason is not None:
            out += self._ended(choice.finish_reason, state)
        return out

    def _ended(self, reason: str, state: ChoiceState) -> bytes:
        state.finish = known_finish(reason, state)
        return self.finish(state, None)

    def _held(self, state: ChoiceState) -> bytes:
        """The text that was held back because it might have become a call."""
        if self._heads is None:
            return b""
        return self._deltas(self._reader(self._heads, state).end(), Choice(state.index), state)

    def finish(self, state: ChoiceState, why: str | None) -> bytes:
        """The finish chunk; ``why`` says what of ours cut the answer."""
        held = self._held(state)
        start = b"" if state.opened else self._role(state)
        return held + start + finish_chunk(self._envelope, state, why)

    def whole(self, state: ChoiceState) -> dict[str, object]:
        """The choice of a plain answer."""
        return plain_choice(state)


def _without_hollows(raw: bytes) -> Json:
    """A delta without its role and what is empty."""
    delta = _decode_delta(raw)
    return {k: v for k, v in delta.items() if v not in (None, "") and k != "role"}


def _without_later_calls(delta: Json) -> Json:
    """A delta with what it says of the first call only."""
    calls = [call for call in delta.pop("tool_calls", ()) if call.get("index", 0) == 0]
    return {**delta, "tool_calls": calls} if calls else delta


def _without_tops(raw: msgspec.Raw) -> msgspec.Raw:
    said = msgspec.json.decode(raw)
    for token in said.get("content") or ():
        token["top_logprobs"] = []
    return msgspec.Raw(msgspec.json.encode(said))


def _logprobs(raw: msgspec.Raw) -> bytes:
    """The engine's ``{"content":[…]}`` with the member the schema wants beside it."""
    return b',"logprobs":{"refusal":null,' + bytes(raw)[1:]
