"""Answers of a certain shape: a tool call, an object after a schema, a text to be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from helexa.bench.row import Result
from helexa.bench.scenarios.base import Asked, everywhere, single
from helexa.bench.targets.base import Surveyed
from helexa.wire.bodies import UNREADABLE

_QUESTION = "What is the weather in Paris right now? Use the tool."
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 24}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


class Tools:
    """``tools``: a forced tool call; good when one came."""

    name = "tools"

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Where tools are known, or nothing is."""
        return everywhere(kind, model, others) and (model.can is None or "tools" in model.can)

    async def run(self, asked: Asked) -> Result:
        """Ask for one call."""
        body = asked.body(asked.question(_QUESTION), tools=[_TOOL], tool_choice="required")
        body.pop("ignore_eos", None)  # a call ends where it ends
        timed = await asked.target.prober.ask(body)
        result = single(timed, prompt_asked=0, cap=asked.cap)
        if result.ok and timed.finish_reason != "tool_calls":
            return _wrong(result, f"no tool call: finish_reason {timed.finish_reason!r}")
        return result


class Structured:
    """``structured``: an object after a schema; good when it is one."""

    name = "structured"

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Anywhere."""
        return everywhere(kind, model, others)

    async def run(self, asked: Asked) -> Result:
        """Ask for one object."""
        wanted = {"name": "city", "schema": _SCHEMA, "strict": True}
        body = asked.body(
            asked.question("Name a city and how many people live there."),
            response_format={"type": "json_schema", "json_schema": wanted},
        )
        body.pop("ignore_eos", None)
        timed = await asked.target.prober.ask(body)
        result = single(timed, prompt_asked=0, cap=asked.cap)
        trouble = _misfit(timed.text)
        return _wrong(result, trouble) if result.ok and trouble else result


class Capability:
    """``capability:<name>``: keeps the text, for a person to score (``bench score``)."""

    def __init__(self, name: str, text: str) -> None:
        self.name = f"capability:{name}"
        self._text = text

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Anywhere."""
        return everywhere(kind, model, others)

    async def run(self, asked: Asked) -> Result:
        """Ask once, keep what came."""
        body = asked.body([{"role": "user", "content": self._text}])
        body.pop("ignore_eos", None)
        timed = await asked.target.prober.ask(body)
        result = single(timed, prompt_asked=0, cap=asked.cap)
        return msgspec.structs.replace(result, artifact=timed.text)


def _misfit(text: str) -> str:
    try:
        value = msgspec.json.decode(text)
    except UNREADABLE as error:
        return f"the answer is no JSON: {error}"
    if not isinstance(value, dict) or set(value) != set(_SCHEMA["required"]):
        return "the answer does not follow its schema"
    if not isinstance(value["city"], str) or type(value["people"]) is not int:
        return "the answer does not follow its schema"
    return ""


def _wrong(result: Result, why: str) -> Result:
    return msgspec.structs.replace(result, ok=False, error=why, failed=1)
