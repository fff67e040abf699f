"""A Responses request as ``core.chat`` knows requests.

::

    raw ─▶ read_body ─▶ (whoever keeps responses looks up what the body refers to) ─▶ to_request
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from helexa.core.chat import ChatRequest, Message, Reasoning, ResponseFormat, Sampling, Text
from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.wire.bodies import UNREADABLE, not_json
from helexa.wire.moved import refuse_moved
from helexa.wire.peek import wrong_type
from helexa.wire.places import Placed, message_names
from helexa.wire.responses.body import MOVED, Body, Item, ToolBody
from helexa.wire.responses.tools import Names, Offered, read_choice, read_tools
from helexa.wire.responses.turns import read_items
from helexa.wire.warming import WARMING_OUTPUT

LOGPROBS = "message.output_text.logprobs"
SEALED = "reasoning.encrypted_content"

_decode = msgspec.json.Decoder(Body).decode
_item = msgspec.json.Decoder(Item).decode
_tool_list = msgspec.json.Decoder(list[ToolBody]).decode
_ABSENT = (b"", b"null")
_EFFORTS = {"xhigh": "high", "max": "high"}
"""Templates know low, medium and high."""
_HISTORY = "previous_response_id"
"""Where the client wrote all that it did not send again."""
_WITH_TOOLS = ("additional_tools", "tool_search_output")
"""Items that bring tools along."""


class Decoded(NamedTuple):
    """A request, and what its answer and its refusals have to know.

    Args:
        names: How the client calls its functions.
        paths: The client's paths by those of the chat request, where they differ.
        left_out: Types of tools that nobody here can run.
    """

    request: ChatRequest
    names: Names
    paths: dict[str, str]
    left_out: tuple[str, ...] = ()


def read_body(raw: bytes) -> Body:
    """The body of ``POST /v1/responses``, typed; what nobody here can do is refused.

    Raises:
        InvalidJson: Not JSON, not UTF-8, or nested beyond reason.
        InvalidRequestBody: A member is of the wrong type; ``param`` is its path.
        UnsupportedParameter: It is right, and cannot be honoured.
    """
    try:
        body = _decode(raw)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from None
    except UNREADABLE as error:
        raise not_json(error, raw) from None
    _refuse(body)
    return body


def _refuse(body: Body) -> None:
    refuse_moved(body, MOVED)
    if body.background:
        raise UnsupportedParameter(
            "Responses are not made in the background here; leave `background` out.",
            param="background",
        )
    if bytes(body.moderation).strip() not in _ABSENT:
        raise UnsupportedParameter(
            "`moderation` is not supported: nothing here judges prompts or answers.",
            param="moderation",
        )
    for name in ("conversation", "prompt"):
        if bytes(getattr(body, name)).strip() not in _ABSENT:
            raise UnsupportedParameter(
                f"`{name}` refers to what only OpenAI keeps; send the `input` itself, or "
                "`previous_response_id`.", param=name,
            )  # fmt: skip
    if body.max_output_tokens is not None and body.max_output_tokens < 1:
        raise InvalidRequestBody(
            f"`max_output_tokens` is {body.max_output_tokens}; it must be at least 1.",
            param="max_output_tokens",
        )


def referred_items(body: Body) -> list[str]:
    """Ids of kept items that the input refers to."""
    if not isinstance(body.input, list):
        return []
    return [item.id for item in body.input if item.type == "item_reference" and item.id]


def to_request(
    body: Body,
    history: Sequence[bytes] = (),
    found: Mapping[str, bytes] | None = None,
) -> Decoded:
    """What is asked.

    Args:
        history: Items of the responses before this one, oldest first, as JSON.
        found: Kept items that ``referred_items`` named.

    Raises:
        InvalidRequestBody: With the path.
        UnsupportedParameter: With the path.
    """
    items: list[tuple[str, Item]] = [(_HISTORY, _item(item)) for item in history]
    items += [(path, _resolved(item, found or {})) for path, item in _own_items(body)]
    offered = read_tools(_tools(body, items))
    names = offered.names
    turns = _with_somebody_asking([*_instructions(body, names), *read_items(items, names)])
    request = ChatRequest(
        model=body.model,
        messages=tuple(turn.message for turn in turns),
        stream=bool(body.stream),
        tools=offered.tools,
        tool_choice=read_choice(body.tool_choice, names),
        parallel_tool_calls=body.parallel_tool_calls,
        format=_format(body),
        sampling=_sampling(body),
        reasoning=_reasoning(body),
        max_output=WARMING_OUTPUT if body.warms else body.max_output_tokens,
        template=_given(body.chat_template_kwargs),
        user=body.prompt_cache_key or body.safety_identifier or body.user,
    )
    return Decoded(request, names, _paths(turns, offered, body), offered.left_out)


def _tools(body: Body, items: list[tuple[str, Item]]) -> Iterator[tuple[str, ToolBody]]:
    """The request's, and those that items bring along."""
    yield from ((f"tools[{index}]", tool) for index, tool in enumerate(body.tools or ()))
    for path, item in items:
        if item.type in _WITH_TOOLS:
            yield from ((f"{path}.tools[{i}]", tool) for i, tool in enumerate(_brought(item, path)))


def _brought(item: Item, path: str) -> list[ToolBody]:
    if _given(item.tools) is None:
        return []
    try:
        return _tool_list(item.tools)
    except msgspec.ValidationError:
        where = f"{path}.tools"
        raise InvalidRequestBody(f"`{where}` must be a list of tools.", param=where) from None


def _paths(turns: list[Placed], offered: Offered, body: Body) -> dict[str, str]:
    """The client's paths by those of the chat request."""
    paths = {
        name: _HISTORY if path.startswith(_HISTORY) else path
        for name, path in message_names(turns, "image_url").items()
    }
    paths |= {f"tools[{i}].function": path for i, path in enumerate(offered.paths)}
    paths["messages"] = "input"
    paths["response_format"] = "text.format"
    paths["response_format.json_schema"] = "text.format"
    paths["reasoning_effort"] = "reasoning.effort"
    paths["logprobs"] = "include" if LOGPROBS in (body.include or ()) else "top_logprobs"
    return paths


def _own_items(body: Body) -> list[tuple[str, Item]]:
    if body.input is None:
        return []
    if isinstance(body.input, str):
        return [("input", Item(role="user", content=body.input))]
    return [(f"input[{index}]", item) for index, item in enumerate(body.input)]


def _resolved(item: Item, found: Mapping[str, bytes]) -> Item:
    if item.type == "item_reference" and item.id is not None and item.id in found:
        return _item(found[item.id])
    return item


def _instructions(body: Body, names: Names) -> list[Placed]:
    """They come first, and are not kept for the next response."""
    if isinstance(body.instructions, str):
        said = Message("system", (Text(body.instructions),))
        return [Placed(said, "instructions", ("instructions",))] if body.instructions else []
    items = [(f"instructions[{i}]", item) for i, item in enumerate(body.instructions or ())]
    return read_items(items, names)


def _with_somebody_asking(turns: list[Placed]) -> list[Placed]:
    """Clients warm a connection up with an empty input; templates want a user's turn."""
    if any(turn.message.role not in ("system", "developer") for turn in turns):
        return turns
    return [*turns, Placed(Message("user", (Text(""),)), "input", ("input",))]


def _given(raw: msgspec.Raw) -> msgspec.Raw | None:
    return None if bytes(raw).strip() in _ABSENT else raw


def _format(body: Body) -> ResponseFormat:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type == "text":
        return ResponseFormat()
    if wanted.type == "json_object":
        return ResponseFormat("json_object")
    if wanted.type != "json_schema":
        raise UnsupportedParameter(
            f"`text.format.type` is {wanted.type[:40]!r}; known are text, json_object and "
            "json_schema.", param="text.format.type",
        )  # fmt: skip
    schema = bytes(wanted.schema).strip()
    if not schema.startswith(b"{"):
        raise InvalidRequestBody(
            "`text.format.schema` must be an object.", param="text.format.schema"
        )
    name = wanted.name or "response"
    return ResponseFormat("json_schema", name, wanted.schema, wanted.strict, wanted.description)


def _sampling(body: Body) -> Sampling:
    asked = LOGPROBS in (body.include or ()) or bool(body.top_logprobs)
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logprobs=asked,
        top_logprobs=body.top_logprobs if asked else None,
    )


def _reasoning(body: Body) -> Reasoning:
    """An effort asks; a summary alone does not."""
    effort = body.reasoning.effort if body.reasoning is not None else None
    return Reasoning(effort=_EFFORTS.get(effort or "", effort))
