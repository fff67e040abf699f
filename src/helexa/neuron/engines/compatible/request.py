"""A client's request as an OpenAI-compatible engine gets it: checked, repaired, always a stream.

Works in place on the decoded body, so that unknown members survive.
"""

from __future__ import annotations

from collections.abc import Mapping

from helexa.core.errors import UnsupportedParameter
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.conversation import (
    refuse_what_cannot_be,
    repair_message,
    system_to_the_front,
)
from helexa.neuron.engines.request import (
    Json,
    check_messages,
    check_tools,
    set_thinking,
    take_cap,
)

_UNASKED: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
    "response_format": ({"type": "text"},),
    "top_p": (1,),
    "logit_bias": ({}, []),
}
"""Values of members that change nothing."""


def prepare_chat(body: Json, served: Served, thinking: bool, habits: Habits) -> None:
    """A chat request that the engine can render and answer.

    Raises:
        RequestRefused: With the path of what is wrong.
    """
    messages = check_messages(body, served)
    check_tools(body)
    refuse_what_cannot_be(body)
    for message in messages:
        repair_message(message, served)
    system_to_the_front(body, served)
    if "tool_choice" in habits.refused and body.get("tool_choice") == "none":
        for name in ("tools", "tool_choice"):  # it calls what it is shown
            body.pop(name, None)
    if habits.kwargs:
        set_thinking(body, served, thinking)
    _finish(body, served, habits)


def prepare_text(body: Json, served: Served, habits: Habits) -> None:
    """A text completion, all but its prompts.

    Raises:
        RequestRefused: With the path of what is wrong.
    """
    _finish(body, served, habits)


def _finish(body: Json, served: Served, habits: Habits) -> None:
    """What is the node's to say: caps, the stream and its usage; nothing that steps around it."""
    for name in sorted(habits.refused.keys() & body.keys()):
        if body[name] not in (False, 0, "", *_UNASKED.get(name, ())):
            raise UnsupportedParameter(f"`{name}` is not supported. {habits.refused[name]}",
                                       param=name)  # fmt: skip
        del body[name]
    for name in habits.barred & body.keys():
        del body[name]
    body |= habits.members
    body[habits.cap] = take_cap(body, served)
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    if habits.continuous:
        body["stream_options"]["continuous_usage_stats"] = True
    if habits.token_ids:
        body["return_token_ids"] = True
