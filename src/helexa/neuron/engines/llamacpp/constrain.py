"""What an answer has to look like, as a grammar of ours: ``response_format`` and forced tools.

llama.cpp leaves out keywords that it does not know, and lets a model that must call a tool talk
until its tokens are gone. So the schema is compiled here, and a forced call is JSON of a fixed
head that is turned back into a call as it comes (``forced.py``)::

    root = thought? ( answer | call ("\\n" call)* )      call = {"name": "…", "arguments": {…}}

Tools stay in the prompt as they are, which keeps its cached prefix; the engine is told
``tool_choice: none``, for only then does it take a grammar beside tools.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from helexa.core.errors import InvalidRequestBody
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.llamacpp.forced import Heads
from helexa.neuron.engines.llamacpp.grammar import (
    Grammar,
    Uncompilable,
    compile_schema,
    literal,
    relax,
    until,
)
from helexa.neuron.engines.request import Json, wrong

_MOST_CALLS = 8
_PLAIN_MARK = re.compile(r"[\[<◁][/\w:▷\]>◁]+")
_PROMPT_END = re.compile(r"add_generation_prompt(?!.*add_generation_prompt)(.*)", re.DOTALL)


def constrain(body: Json, served: Served, *, grammars: bool = True) -> Heads | None:
    """Put the grammar into the request; the heads of calls, if the answer may be one.

    Args:
        grammars: The engine takes GBNF; otherwise the schema is checked and left to it.

    Raises:
        InvalidRequestBody: A schema that cannot be enforced, by the path of its keyword; a
            choice of a tool that is not there.
    """
    answer = _answer_schema(body)
    names, forced = _choice(body)
    if names is None and answer is not None and body.get("tool_choice") != "none":
        names = [tool["function"]["name"] for tool in body.get("tools", ())] or None
    if names is None and answer is None:
        _check_strict(body)
        _relax_tools(body)
        return None
    try:
        root, heads = _root(body, answer, names, forced=forced)
        if not (grammars and _ours(served)):
            _leave_to_engine(body, answer, forced=forced)
            return None
        grammar, expression = root
        body["grammar"] = grammar.render(_thought(grammar, body, served) + expression)
    except Uncompilable as error:
        raise InvalidRequestBody(f"{error}.", param=error.path) from None
    if "tools" in body:
        _relax_tools(body)
        body["tool_choice"] = "none"
        body.pop("parallel_tool_calls", None)
    return heads


def _root(
    body: Json, answer: tuple[Any, str] | None, names: list[str] | None, *, forced: bool
) -> tuple[tuple[Grammar, str], Heads | None]:
    """The grammar and its expression for answer or calls."""
    grammar = Grammar()
    options = []
    heads: Heads | None = None
    if names is not None:
        heads = Heads(tuple(names), union=not forced)
        options.append(_calls(grammar, body, set(names), forced=forced))
    if answer is not None and not forced:
        options.append(compile_schema(grammar, *answer))
    return (grammar, "(" + " | ".join(options) + ")"), heads


def _answer_schema(body: Json) -> tuple[Any, str] | None:
    """The schema an answer has to satisfy, with its path."""
    wanted = body.pop("response_format", None)
    if wanted is None:
        bare = body.pop("json_schema", None)
        return None if bare is None else (bare, "json_schema")
    kind = wanted.get("type")
    if not isinstance(kind, str):
        raise wrong("response_format.type", "a string", kind)
    if kind == "text":
        return None
    if "grammar" in body:
        raise InvalidRequestBody(
            "`grammar` and `response_format` exclude each other; send one.", param="grammar"
        )
    if kind == "json_object":
        return wanted.get("schema") or {"type": "object"}, "response_format.schema"
    if kind != "json_schema":
        raise InvalidRequestBody(
            f"`response_format.type` is {str(kind)[:40]!r}; known are text, json_object and "
            "json_schema.", param="response_format.type",
        )  # fmt: skip
    holder = wanted.get("json_schema")
    if not isinstance(holder, dict):
        raise wrong("response_format.json_schema", "an object", holder)
    schema = holder.get("schema", {"type": "object"})
    if not isinstance(schema, (dict, bool)):
        raise wrong("response_format.json_schema.schema", "an object", schema)
    return schema, "response_format.json_schema.schema"


def _choice(body: Json) -> tuple[list[str] | None, bool]:
    """Names of the tools that may be called, if calls are ours to shape, and whether one must.

    Without a forced choice they are ours only beside a ``response_format``; the caller knows.
    """
    choice = body.get("tool_choice")
    tools = [tool["function"]["name"] for tool in body.get("tools", ())]
    known = (None, "none", "auto", "required", "any")
    if choice is None or isinstance(choice, str):
        if choice not in known:
            raise InvalidRequestBody(
                f"`tool_choice` is {choice[:40]!r}; known are none, auto, required and an object.",
                param="tool_choice",
            )
        if choice in ("required", "any"):
            if not tools:
                raise InvalidRequestBody(
                    "`tool_choice` asks for a tool call, but there are no `tools`.",
                    param="tool_choice",
                )
            return tools, True
        return None, False
    if not isinstance(choice, dict):
        raise wrong("tool_choice", "a string or an object", choice)
    allowed, names = _named(choice)
    kept = [name for name in tools if name in names]
    if not kept:
        raise InvalidRequestBody(
            "`tool_choice` names a tool that is not in `tools`.", param="tool_choice"
        )
    if allowed.get("mode") == "auto":
        body["tools"] = [t for t in body["tools"] if t["function"]["name"] in names]
        body["tool_choice"] = "auto"
        return None, False
    return kept, True


def _named(choice: Json) -> tuple[Json, set[str]]:
    """What holds the mode of a choice that is an object, and the names it lists."""
    allowed = choice.get("allowed_tools", choice)
    if not isinstance(allowed, dict):
        raise wrong("tool_choice.allowed_tools", "an object", allowed)
    listed, path = allowed.get("tools"), "tool_choice.allowed_tools.tools"
    if listed is None:
        listed, path = [choice], "tool_choice"
    if not isinstance(listed, list):
        raise wrong(path, "a list", listed)
    names: set[str] = set()
    for tool in listed:
        function = (tool.get("function") or tool) if isinstance(tool, dict) else tool
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise InvalidRequestBody(f"`{path}` names no function.", param=path)
        names.add(name)
    return allowed, names


def _calls(grammar: Grammar, body: Json, names: set[str], *, forced: bool) -> str:
    """A rule for one call, or for up to eight where several are asked for."""
    options = []
    for index, tool in enumerate(body["tools"]):
        function = tool["function"]
        if function["name"] in names:
            path = f"tools[{index}].function.parameters"
            strict = forced or function.get("strict") is True
            rule = _arguments(grammar, function["parameters"], path, strict=strict)
            options.append(f'{literal(Heads.head(function["name"]))} {rule} ws "}}"')
    grammar.use("ws")
    call = grammar.add(" | ".join(options))
    if body.get("parallel_tool_calls") is not True:
        return call
    return grammar.add(f'{call} ("\\n" {call}){{0,{_MOST_CALLS - 1}}}')


def _arguments(grammar: Grammar, parameters: Json, path: str, *, strict: bool) -> str:
    """A rule for a tool's arguments; a tool that nobody insists on may bear what it cannot."""
    try:
        return compile_schema(grammar, arguments_schema(parameters, path), path)
    except Uncompilable:
        if strict:
            raise
        return compile_schema(grammar, {"type": "object"}, path)


def arguments_schema(parameters: Json, path: str) -> Json:
    """Arguments are an object, whatever a schema leaves open.

    Raises:
        Uncompilable: The schema is for something else.
    """
    kind = parameters.get("type", "object")
    kinds = kind if isinstance(kind, list) else [kind]
    if "object" not in kinds:
        raise Uncompilable(f"{path}.type", f"is {kind!r}; arguments are an object")
    return {**parameters, "type": "object"}


def _check_strict(body: Json) -> None:
    """A tool that asks for ``strict`` is told when that cannot be."""
    for index, tool in enumerate(body.get("tools", ())):
        function = tool["function"]
        if function.get("strict") is True:
            path = f"tools[{index}].function.parameters"
            try:
                compile_schema(Grammar(), arguments_schema(function["parameters"], path), path)
            except Uncompilable as error:
                raise InvalidRequestBody(f"{error}.", param=error.path) from None


def _relax_tools(body: Json) -> None:
    for tool in body.get("tools", ()):
        tool["function"]["parameters"] = relax(tool["function"]["parameters"])


# ── reasoning ───────────────────────────────────────────────────────────────────────────────


def _ours(served: Served) -> bool:
    """Whether what comes before the answer can be written into a grammar."""
    markers = served.facts.think_markers
    return markers is None or all(_PLAIN_MARK.fullmatch(mark) for mark in markers)


def _thought(grammar: Grammar, body: Json, served: Served) -> str:
    """Reasoning before the answer, where the template lets the model reason."""
    markers = served.facts.think_markers
    if markers is None:
        return ""
    switch = served.facts.thinking_variable
    if switch is not None and not (body.get("chat_template_kwargs") or {}).get(switch, True):
        return ""
    begin, end = markers
    thought = f"{until(grammar, end)} [\\n ]{{0,3}}"
    if _opened(served.facts.chat_template or "", begin, end):
        return f"{thought} "
    return f"({literal(begin)} {thought})? "


def _opened(template: str, begin: str, end: str) -> bool:
    """Whether the prompt itself ends inside of a thought."""
    found = _PROMPT_END.search(template)
    tail = found[1] if found else ""
    return tail.count(begin) > tail.count(end)


def _leave_to_engine(body: Json, answer: tuple[Any, str] | None, *, forced: bool) -> None:
    """Templates with channels: the engine's own grammar knows them. The schema was checked."""
    _relax_tools(body)
    if forced:
        choice = body.get("tool_choice")
        if isinstance(choice, dict):
            names, _ = _choice(body)
            body["tools"] = [t for t in body["tools"] if t["function"]["name"] in (names or ())]
        body["tool_choice"] = "required"
    elif answer is not None:
        schema = relax(msgspec.to_builtins(answer[0]))
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
