"""Chat chunks of any engine in one shape: one member per delta, calls with a head and pieces."""

from __future__ import annotations

import msgspec

from helexa.neuron.engines.base import Meter
from helexa.neuron.engines.compatible.chunks import Choice, ChoiceState, Delta, known_finish
from helexa.neuron.engines.compatible.reader import Delta as Clean
from helexa.neuron.engines.compatible.reader import MakeReader, Reader
from helexa.neuron.engines.render import Envelope, finish_chunk, plain_choice, prompt_timings_json
from helexa.neuron.engines.request import Json

_END = b',"finish_reason":null}]}\n\n'
_NO_DELTA = Delta()
_encode = msgspec.json.encode


def text_chunk(state: ChoiceState, text: str) -> bytes:
    """The chunk of a delta that is one piece of text or reasoning, as ``state.kind`` says."""
    name = b'{"content":' if state.kind == "content" else b'{"reasoning_content":'
    return b"".join((state.prefix, name, _encode(text), b"}", _END))


class ChatDialect:
    """Chat chunks.

    Args:
        keep: Collect the deltas for a plain answer.
        reader: Reads what the engine gives as text; None where the engine parses itself.
        single: No call behind the first leaves (``parallel_tool_calls: false``).
    """

    def __init__(
        self,
        envelope: Envelope,
        keep: bool,
        reader: MakeReader | None = None,
        *,
        single: bool = False,
    ) -> None:
        self._envelope = envelope
        self._keep = keep
        self._make_reader = reader
        self._single = single
        self._begun = 0  # choices
        self._readers: dict[int, Reader] = {}

    @property
    def as_it_comes(self) -> bool:
        """Whether the engine's deltas need no reading and are not kept."""
        return self._make_reader is None and not self._keep

    def prefix(self, index: int) -> bytes:
        """Bytes before a delta of choice ``index``."""
        return self._envelope.choice_prefix(index)

    def carries(self, choice: Choice) -> bool:
        """Whether the chunk holds any of the answer, and so at least one token."""
        delta = choice.delta or _NO_DELTA
        said = delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls
        return bool(said or delta.refusal)

    def event(self, choice: Choice, state: ChoiceState, meter: Meter) -> bytes:
        """Clean bytes of one choice of one chunk."""
        state.kind = ""
        out = b"" if state.opened else self._role(state, meter)
        delta = choice.delta or _NO_DELTA
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            out += self._thought(thought, choice, state)
        if delta.content:
            out += self._text(delta.content, choice, state)
        if delta.refusal:
            out += self._delta({"refusal": delta.refusal}, choice, state)
        if delta.tool_calls:
            out += self._calls(delta.tool_calls, choice, state)
        if choice.finish_reason is not None:
            out += self._held(state)
            state.finish = known_finish(choice.finish_reason, state)
            out += self.finish(state, None)
        return out

    def _thought(self, text: str, choice: Choice, state: ChoiceState) -> bytes:
        reader = self._reader(state)
        if reader is None:
            return self._delta({"reasoning_content": text}, choice, state)
        return b"".join([self._read(delta, choice, state) for delta in reader.thought(text)])

    def _text(self, text: str, choice: Choice, state: ChoiceState) -> bytes:
        reader = self._reader(state)
        if reader is None:
            return self._delta({"content": text}, choice, state)
        return b"".join([self._read(delta, choice, state) for delta in reader.feed(text)])

    def _reader(self, state: ChoiceState) -> Reader | None:
        """The choice's reader, where there are any."""
        reader = self._readers.get(state.index)
        if reader is None and self._make_reader is not None:
            reader = self._make_reader(self._envelope.call_ids(state.index))
            self._readers[state.index] = reader
        return reader

    def _held(self, state: ChoiceState) -> bytes:
        """What a reader still holds when its choice ends."""
        reader = self._readers.pop(state.index, None)
        if reader is None:
            return b""
        last = Choice(state.index)
        return b"".join([self._read(delta, last, state) for delta in reader.end()])

    def _read(self, delta: Clean, choice: Choice, state: ChoiceState) -> bytes:
        """A delta that a reader has made out of text."""
        calls = delta.get("tool_calls")
        if calls is None:
            return self._delta(delta, choice, state)
        return self._calls(calls, choice, state)

    def _calls(self, fragments: list[Json], choice: Choice, state: ChoiceState) -> bytes:
        """Fragments in one shape; log probabilities are of the text that a call was written in."""
        choice.logprobs = msgspec.Raw(b"")
        shaped = [self._fragment(fragment, state) for fragment in fragments]
        if self._single:
            shaped = [fragment for fragment in shaped if fragment["index"] == 0]
        return self._delta({"tool_calls": shaped}, choice, state) if shaped else b""

    def _fragment(self, fragment: Json, state: ChoiceState) -> Json:
        index = fragment.get("index")
        if not isinstance(index, int):
            index = len(state.calls) if fragment.get("id") else max(0, len(state.calls) - 1)
        function = fragment.get("function") or {}
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = _encode(arguments).decode()
        piece: Json = {"index": index, "function": {"arguments": arguments or ""}}
        if index in state.calls:
            return piece
        state.calls.add(index)
        name = self._envelope.call_ids(state.index)(index)
        head = {"name": function.get("name") or "", "arguments": arguments or ""}
        return {"index": index, "id": fragment.get("id") or name, "type": "function",
                "function": head}  # fmt: skip

    def _delta(self, delta: Clean, choice: Choice, state: ChoiceState) -> bytes:
        if "tool_calls" in delta:
            state.kind = "calls"
        else:
            state.kind = "reasoning" if "reasoning_content" in delta else "content"
        raw = _encode(delta)
        told = choice.said_logprobs()
        if self._keep:
            state.deltas.append(msgspec.Raw(raw))
            if told:
                state.logprobs.append(choice.logprobs)
        logprobs = _logprobs(choice.logprobs) if told else b""
        return b"".join((state.prefix, raw, logprobs, _END))

    def _role(self, state: ChoiceState, meter: Meter) -> bytes:
        """The first chunk of a choice, and before it of those with lower numbers: OpenAI's SDK
        numbers choices as they appear. Where the prompt has been counted by then, it says so."""
        state.opened = True
        begun, self._begun = self._begun, max(self._begun, state.index + 1)
        return b"".join([self._begin(index, meter) for index in range(begun, self._begun)])

    def _begin(self, index: int, meter: Meter) -> bytes:
        choice = {"index": index, "delta": {"role": "assistant"}, "finish_reason": None}
        members: Json = {"choices": [choice]}
        if meter.prompt_known:
            members = {"timings": msgspec.Raw(prompt_timings_json(meter)), **members}
        return self._envelope.chunk(members)

    def finish(self, state: ChoiceState, why: str | None) -> bytes:
        """The finish chunk, behind what a reader still held; ``why`` says what of ours cut the
        answer."""
        start = b"" if state.opened else self._role(state, Meter())
        start += self._held(state)
        return start + finish_chunk(self._envelope, state, why)

    def whole(self, state: ChoiceState) -> dict[str, object]:
        """The choice of a plain answer."""
        return plain_choice(state)


def _logprobs(raw: msgspec.Raw) -> bytes:
    """The engine's ``{"content":[…]}`` with the member the schema wants beside it."""
    said = msgspec.json.decode(raw)
    return b',"logprobs":' + _encode({"refusal": None, "content": None} | said)
