"""Reading a server's text for calls and thoughts, as deltas of clean chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helexa.core.events import ReasoningDelta, TextDelta, ToolCallArguments, ToolCallBegun
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.compatible.reader import CallId, Delta, MakeReader
from helexa.neuron.engines.request import Json
from helexa.neuron.settings import Parsers
from helexa.wire.parsers.coerce import Schema
from helexa.wire.parsers.forms import (
    BARE,
    FUNCTION,
    NAMED,
    PYTHON_TAG,
    SECTIONS,
    TAGGED,
    Form,
    forms_of,
)
from helexa.wire.parsers.outlet import ReaderEvent
from helexa.wire.parsers.reader import AnswerReader

_FORMS: Mapping[str, tuple[Form, ...]] = {
    "tagged": (TAGGED, FUNCTION),
    "mistral": (NAMED,),
    "llama": (PYTHON_TAG, BARE),
    "deepseek": (SECTIONS,),
}


class TextReader:
    """One choice's text as deltas."""

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader

    def feed(self, text: str) -> list[Delta]:
        """What ``text`` adds."""
        return deltas(self._reader.feed(text))

    def thought(self, text: str) -> list[Delta]:
        """What a piece adds that the server itself calls a thought."""
        return deltas(self._reader.feed_thought(text))

    def end(self) -> list[Delta]:
        """What was held back."""
        return deltas(self._reader.end())


def deltas(events: Sequence[ReaderEvent]) -> list[Delta]:
    """Events as deltas; a call's beginning and its arguments are one."""
    out: list[Delta] = []
    for event in events:
        if isinstance(event, TextDelta):
            out.append({"content": event.text})
        elif isinstance(event, ReasoningDelta):
            out.append({"reasoning_content": event.text})
        elif isinstance(event, ToolCallBegun):
            call = {"index": event.call, "id": event.id, "type": "function"}
            out.append({"tool_calls": [{**call, "function": {"name": event.name}}]})
        elif isinstance(event, ToolCallArguments):
            function = out[-1]["tool_calls"][0]["function"]
            function["arguments"] = event.fragment
    return out


def make_reader(body: Json, served: Served, parsers: Parsers) -> MakeReader | None:
    """What reads the answers to a prepared chat request; None leaves them as they are.

    Where the server finds thoughts or calls itself there is nothing left in the text to be found,
    so reading is on unless the operator turns it off.
    """
    if parsers == "none":
        return None
    tools = _schemas(body)
    forms = (_FORMS.get(parsers) or forms_of(served.facts.chat_template)) if tools else ()
    think = served.facts.think_markers
    opened = served.facts.thinks_first and _thinks(body, served)

    def make(call_id: CallId) -> TextReader:
        return TextReader(AnswerReader(forms, think, thinking=opened, tools=tools, call_id=call_id))

    return make


def _schemas(body: Json) -> Mapping[str, Schema | None]:
    """The request's tools that may be called, with their parameters."""
    if body.get("tool_choice") == "none":
        return {}
    functions = [tool["function"] for tool in body.get("tools") or ()]
    return {function["name"]: function.get("parameters") for function in functions}


def _thinks(body: Json, served: Served) -> bool:
    """Whether the template is told to think; without a switch it always is, and one that nobody
    has set is off."""
    switch = served.facts.thinking_variable
    if switch is None:
        return True
    return bool((body.get("chat_template_kwargs") or {}).get(switch, False))
