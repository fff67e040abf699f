"""What clients send and chat templates cannot bear: repaired, or refused with its path.

Shared by every engine that speaks chat completions; what only one of them needs is its own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.errors import UnsupportedParameter
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.request import Json, check_tops, wrong
from helexa.neuron.models.template import system_first
from helexa.wire.bodies import UNREADABLE

_NOT_DONE = {
    "moderation": "nothing here judges prompts or answers",
    "web_search_options": "nothing here searches the web; offer a tool that does",
}
"""Members whose silent absence a client would take for their effect."""

_INSTRUCTS = ("system", "developer")


def refuse_what_cannot_be(body: Json) -> None:
    """What no engine of ours does: other modalities, moderation, the old form of tools.

    Raises:
        UnsupportedParameter, InvalidRequestBody: With the member's name.
    """
    modalities = body.get("modalities", ["text"])
    if not isinstance(modalities, list):
        raise wrong("modalities", "a list", modalities)
    if any(kind != "text" for kind in modalities):
        raise UnsupportedParameter(
            f"`modalities` is {modalities!r}; only text is produced.", param="modalities"
        )
    if not isinstance(body.get("logprobs", False), bool):
        raise wrong("logprobs", "a boolean", body["logprobs"])
    check_tops(body, "top_logprobs", "n_probs")
    for name, what in _NOT_DONE.items():
        if name in body:
            raise UnsupportedParameter(f"`{name}` is not supported: {what}.", param=name)
    for old, new in (("functions", "tools"), ("function_call", "tool_choice")):
        if old in body:
            raise UnsupportedParameter(f"`{old}` is not supported; use `{new}`.", param=old)


def repair_message(message: Json, served: Served) -> None:
    """A role that the template does not know, and arguments that it could not render."""
    template = served.facts.chat_template or ""
    if message["role"] == "developer" and "developer" not in template:
        message["role"] = "system"
    for call in message.get("tool_calls") or ():
        function = call["function"]
        function["arguments"] = _arguments(function.get("arguments"))
        call.setdefault("type", "function")


def _arguments(value: Any) -> str:
    """Arguments as the JSON text that engines parse for the template; what a model once left
    unfinished is shown to it as a string."""
    if value is None or value == "":
        return "{}"
    if not isinstance(value, str):
        return msgspec.json.encode(value).decode()
    try:
        msgspec.json.decode(value)
    except UNREADABLE:
        return msgspec.json.encode({"unparsed": value}).decode()
    return value


def system_to_the_front(body: Json, served: Served) -> None:
    """Merge several or late system and developer messages where the template would refuse or
    lose them, and only there: moving them costs the cached prefix."""
    messages: list[Json] = body["messages"]
    if len(messages) == 1:
        return
    late = any(message["role"] in _INSTRUCTS for message in messages[1:])
    if not late or not system_first(served.facts.chat_template or ""):
        return
    told = [message for message in messages if message["role"] in _INSTRUCTS]
    rest = [message for message in messages if message["role"] not in _INSTRUCTS]
    merged = "\n\n".join(_text(message["content"]) for message in told)
    body["messages"] = [{"role": told[0]["role"], "content": merged}, *rest]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)
