"""A client's request for any engine: decoded once, checked with paths, repaired.

Works on the decoded dict in place, so that unknown members survive. What is wrong is refused
with the path of the member; what real clients are known to send is repaired.
"""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.errors import (
    InvalidRequestBody,
    MissingModelField,
    UnsupportedParameter,
)
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.images import KINDS, TYPES, Images
from helexa.wire.bodies import UNREADABLE, not_json
from helexa.wire.files import file_text

Json = dict[str, Any]

ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))
CAPS = ("max_completion_tokens", "max_tokens")
MOST_TOP_LOGPROBS = 20
"""As the published schema of chat has it."""
MOST_STOPS = 256
"""Each is looked for after every token; the published schema allows four."""


def _is_int(value: Any) -> bool:
    return type(value) is int


def _of(kind: str, *types: type) -> tuple[frozenset[type], str]:
    return frozenset(types), kind


_FIELDS: dict[str, tuple[frozenset[type], str]] = {
    "stream": _of("a boolean", bool),
    "parallel_tool_calls": _of("a boolean", bool),
    "n": _of("an integer", int),
    "max_tokens": _of("an integer", int),
    "max_completion_tokens": _of("an integer", int),
    "top_logprobs": _of("an integer", int),
    "seed": _of("an integer", int),
    "top_k": _of("an integer", int),
    "temperature": _of("a number", int, float),
    "top_p": _of("a number", int, float),
    "min_p": _of("a number", int, float),
    "presence_penalty": _of("a number", int, float),
    "frequency_penalty": _of("a number", int, float),
    "repeat_penalty": _of("a number", int, float),
    "stop": _of("a string or a list of strings", str, list),
    "stream_options": _of("an object", dict),
    "chat_template_kwargs": _of("an object", dict),
    "response_format": _of("an object", dict),
    "logit_bias": _of("an object", dict, list),
    "tools": _of("a list", list),
    "reasoning_effort": _of("a string", str),
}
"""The types that a plain member may have; JSON has no subclasses."""


def decode(raw: bytes) -> Json:
    """The request as a dict, its model present, its plain members of the right type.

    Members that are null are dropped: to an API null is unset.

    Raises:
        InvalidJson, MissingModelField, InvalidRequestBody: With the path as ``param``.
    """
    try:
        body = msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise not_json(error, raw) from None
    if not isinstance(body, dict):
        raise InvalidRequestBody("The body must be a JSON object.")
    _drop_unset(body)
    if "model" not in body:
        raise MissingModelField("The request names no model; set `model`.", param="model")
    if not isinstance(body["model"], str):
        raise wrong("model", "a string", body["model"])
    known = _FIELDS.get
    for name, value in body.items():
        field = known(name)
        if field is not None and type(value) not in field[0]:
            raise wrong(name, field[1], value)
    if "stop" in body:
        _check_stops(body)
    return body


def _drop_unset(value: Json, *kept: str) -> None:
    """Remove members that are null: some clients write all of a form, and engines want a string
    or nothing."""
    if None not in value.values():
        return
    for name in [name for name, said in value.items() if said is None and name not in kept]:
        del value[name]


def _check_stops(body: Json) -> None:
    """Some clients always send a field of their form, filled in or not; an empty text stands
    everywhere and would end every answer before it began."""
    stop = body["stop"]
    if isinstance(stop, list) and not all(isinstance(text, str) for text in stop):
        raise wrong("stop", _FIELDS["stop"][1], stop)
    if stop == "" or (isinstance(stop, list) and "" in stop):
        stop = body["stop"] = [text for text in stop if text]
    if isinstance(stop, list) and len(stop) > MOST_STOPS:
        raise InvalidRequestBody(
            f"`stop` has {len(stop)} texts; it may have at most {MOST_STOPS}.", param="stop"
        )


def wrong(path: str, expected: str, value: Any) -> InvalidRequestBody:
    """The refusal of a member of the wrong type."""
    return InvalidRequestBody(f"`{path}` must be {expected}, not {json_type(value)}.", param=path)


def json_type(value: Any) -> str:
    """The JSON name of a decoded value's type."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string",
             list: "a list", dict: "an object"}  # fmt: skip
    return names.get(type(value), type(value).__name__)


def check_messages(body: Json, served: Served, image_kinds: tuple[str, ...] = KINDS) -> list[Json]:
    """The messages, each with a known role and content of a known form; repaired in place.

    Args:
        image_kinds: What the engine decodes.

    Raises:
        InvalidRequestBody: With a path such as ``messages[0].role``.
        VisionUnsupported: An image for a model that cannot see.
    """
    messages = body.get("messages")
    if messages is None:
        raise InvalidRequestBody("The request has no `messages`.", param="messages")
    if not isinstance(messages, list):
        raise wrong("messages", "a list", messages)
    if not messages:
        raise InvalidRequestBody("`messages` is empty; send at least one.", param="messages")
    images = Images(served.model_id, "vision" in served.facts.capabilities, image_kinds)
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]", images)
    return messages


def _check_message(message: Any, path: str, images: Images) -> None:
    if not isinstance(message, dict):
        raise wrong(path, "an object", message)
    role = message.get("role")
    if not isinstance(role, str):
        raise wrong(path + ".role", "a string", role)
    if role == "function" or message.get("function_call") is not None:
        raise UnsupportedParameter(  # templates know neither, and would leave them out
            f"`{path}` is of the old function calls; use `tool_calls` and the role tool.",
            param=path,
        )
    if role not in ROLES:
        known = ", ".join(sorted(ROLES))
        raise InvalidRequestBody(
            f"`{path}.role` is {role[:40]!r}; known roles are {known}.", param=path + ".role"
        )
    if len(message) > 2 or "content" not in message:  # else it has a role and that
        _drop_unset(message, "content")
        _check_texts(message, path, "name", "reasoning_content", "tool_call_id")
    content = message.get("content")
    if content is None:
        _repair_absent_content(message, path, role)
    elif isinstance(content, list):
        for index, part in enumerate(content):
            _check_part(part, f"{path}.content[{index}]", images)
    elif not isinstance(content, str):
        raise wrong(path + ".content", "a string or a list of parts", content)
    if "tool_calls" in message:
        _check_calls(message["tool_calls"], path + ".tool_calls")


def _check_texts(value: Json, path: str, *names: str) -> None:
    for name in names:
        if name in value and not isinstance(value[name], str):
            raise wrong(f"{path}.{name}", "a string", value[name])


def _repair_absent_content(message: Json, path: str, role: str) -> None:
    """Assistant turns may have none beside calls; elsewhere null is an empty text."""
    if "content" not in message and role not in ("assistant", "tool"):
        raise InvalidRequestBody(f"`{path}.content` is missing.", param=path + ".content")
    message["content"] = ""


def _check_part(part: Any, path: str, images: Images) -> None:
    if not isinstance(part, dict):
        raise wrong(path, "an object", part)
    kind = part.get("type")
    if not isinstance(kind, str):
        raise wrong(path + ".type", "a string", kind)
    if kind in ("text", "input_text", "output_text", "refusal"):
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise wrong(path + ".text", "a string", text)
        part.clear()
        part.update(type="text", text=text)
    elif kind in TYPES:
        images.take(part, path)
    elif kind == "file":
        _take_file(part, path)
    else:
        raise UnsupportedParameter(
            f"`{path}` has the type {kind[:40]!r}, which {images.model_id} cannot read.",
            param=path,
        )


def _take_file(part: Json, path: str) -> None:
    file, where = part.get("file"), path + ".file"
    if not isinstance(file, dict):
        raise wrong(where, "an object", file)
    _drop_unset(file)
    _check_texts(file, where, "file_data", "filename")
    text = file_text(file.get("file_data"), file.get("filename"), path)
    part.clear()
    part.update(type="text", text=text)


def _check_calls(calls: Any, path: str) -> None:
    if not isinstance(calls, list):
        raise wrong(path, "a list", calls)
    for index, call in enumerate(calls):
        here = f"{path}[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise wrong(here + ".function", "an object", function)
        _drop_unset(call)
        _check_texts(call, here, "id", "type")
        if not isinstance(function.get("name"), str):
            raise wrong(here + ".function.name", "a string", function.get("name"))
        arguments = function.get("arguments")
        if not isinstance(arguments, (str, dict, type(None))):
            raise wrong(here + ".function.arguments", "a string", arguments)


def check_tools(body: Json) -> None:
    """Function tools with names and object parameters; what only its own server runs is left out.

    Raises:
        InvalidRequestBody: With the path.
        UnsupportedParameter: A custom tool, whose calls the client waits for; or a call is
            demanded, and only other types could be called.
    """
    tools = body.get("tools")
    if tools is None:
        return
    kept = []
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise wrong(path, "an object", tool)
        kind = tool.get("type", "function")
        if kind == "custom":
            raise UnsupportedParameter(
                f"`{path}` is a custom tool. Send it as a function of one string, or ask "
                "/v1/responses, where custom tools are called.", param=path,
            )  # fmt: skip
        if kind != "function":
            continue
        _check_function(tool.get("function"), path + ".function")
        tool["type"] = "function"
        kept.append(tool)
    if kept:
        body["tools"] = kept
    else:
        if _demands_call(body.get("tool_choice")):
            raise UnsupportedParameter(
                "`tool_choice` asks for a tool call, but `tools` holds none that can be called "
                "here.", param="tool_choice",
            )  # fmt: skip
        body.pop("tools")
        body.pop("tool_choice", None)
        body.pop("parallel_tool_calls", None)


def _demands_call(choice: Any) -> bool:
    """Whether an answer without a call would not be what was asked for."""
    if isinstance(choice, dict):
        allowed = choice.get("allowed_tools", choice)
        return not isinstance(allowed, dict) or allowed.get("mode") != "auto"
    return choice in ("required", "any")


def _check_function(function: Any, path: str) -> None:
    if not isinstance(function, dict):
        raise wrong(path, "an object", function)
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise wrong(path + ".name", "a name", function.get("name"))
    _drop_unset(function)
    _check_texts(function, path, "description")
    parameters = function.get("parameters")
    if parameters is None:
        function["parameters"] = {"type": "object", "properties": {}}
    elif not isinstance(parameters, dict):
        raise wrong(path + ".parameters", "an object", parameters)


def take_cap(body: Json, served: Served, *further: str) -> int:
    """Remove every form of output cap and return the one that binds: tokens, clamped to what
    the model may give. Clients ask every model for 32,000; −1 is unset.

    Raises:
        InvalidRequestBody: A cap below one.
    """
    cap = served.max_output
    for name in (*CAPS, *further):
        if name not in body:
            continue
        value = body.pop(name)
        if type(value) is not int or value == -1:
            continue
        if value < 1:
            raise InvalidRequestBody(f"`{name}` is {value}; it must be at least 1.", param=name)
        cap = min(cap, value)
    return cap


def check_tops(body: Json, *names: str) -> None:
    """How many other tokens are shown beside each: an engine would write all of its vocabulary.

    Raises:
        InvalidRequestBody: No number, or too many.
    """
    for name in names:
        tops = body.get(name, 0)
        if not _is_int(tops):
            raise wrong(name, "an integer", tops)
        if not 0 <= tops <= MOST_TOP_LOGPROBS:
            raise InvalidRequestBody(
                f"`{name}` is {tops}; it may be 0 to {MOST_TOP_LOGPROBS}.", param=name
            )


_OF_THINKING = frozenset(("chat_template_kwargs", "thinking", "reasoning_effort", "reasoning"))


def wants_thinking(body: Json) -> bool | None:
    """What the body says about thinking: asked for, asked not to, or nothing."""
    kwargs = body.get("chat_template_kwargs") or {}
    for switch in ("enable_thinking", "thinking"):
        if isinstance(kwargs.get(switch), bool):
            return bool(kwargs[switch])
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and isinstance(thinking.get("type"), str):
        return thinking["type"] in ("enabled", "adaptive")
    if isinstance(thinking, bool):
        return thinking
    effort = body.get("reasoning_effort")
    if effort is None and isinstance(body.get("reasoning"), dict):
        effort = body["reasoning"].get("effort")
    return effort not in ("none", "minimal") if isinstance(effort, str) else None


def set_thinking(body: Json, served: Served, asked: bool) -> None:
    """Set the template's switch, if it has one: off unless somebody asks for it."""
    switch = served.facts.thinking_variable
    if switch is not None:
        said = None if _OF_THINKING.isdisjoint(body) else wants_thinking(body)
        kwargs = dict(body.get("chat_template_kwargs") or {})
        kwargs[switch] = asked if said is None else said
        body["chat_template_kwargs"] = kwargs
