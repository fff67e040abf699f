"""Turns that use tools: one call, two at once, two in a row, and the answer to a result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent import agent_request, agent_tool, listing
from agent_phrasings import SAID as AGENT_SAID
from popular import popular
from signatures import Argument, Request, Tool, argument, string, tool
from split import Draw
from tool_phrasings import NATURAL_QUESTIONS
from values import number, path, phrase, place, sentence, word
from words import ADJECTIVES, PARAMS

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """A user's request up to the final answer, and the tools it needs."""

    messages: list[Message]
    tools: tuple[Tool, ...]


NATURAL = ("get", "show", "find", "check", "fetch", "lookup")


def wordings(draw: Draw, wanted: Tool, arguments: Sequence[Argument]) -> str:
    """Ask for a call in words; the name appears as itself or as its verb and noun."""
    verb, rest = wanted.parts[0], " ".join(wanted.parts[1:])
    action = draw.pick(
        (f"{verb} the {rest}", f"{verb} the {rest}", f"{verb} {rest}", f"{verb} a {rest}")
    )
    named = draw.pick((f"call {wanted.name}", f"use {wanted.name}", f"use the tool {wanted.name}",
                       f"call the function {wanted.name}", f"run {wanted.name}"))  # fmt: skip
    lead = named if draw.chance(0.25) else action
    if not arguments:
        said = lead
    elif len(arguments) == 1 and draw.chance(0.6):
        said = single(draw, wanted, lead, arguments[0].said)
    else:
        joint = draw.pick(("with", "with", "for", "using", "where"))
        said = f"{lead} {joint} {pairs(draw, arguments)}"
    polite = draw.pick(("{}", "{}", "{}", "please {}", "can you {}?", "could you {}?",
                        "I need you to {}", "{}, please", "now {}", "I want to {}"))  # fmt: skip
    if said.endswith("?"):
        polite = "{}"
    said = polite.format(said)
    said = said if draw.chance(0.2) else said[0].upper() + said[1:]
    return said if said[-1] == "?" else said + draw.pick(("", "", ".", "", "!"))


def single(draw: Draw, wanted: Tool, lead: str, value: str) -> str:
    verb, rest = wanted.parts[0], " ".join(wanted.parts[1:])
    if verb in NATURAL and draw.chance(0.6):
        return draw.pick(NATURAL_QUESTIONS).format(r=rest, v=value)
    join = draw.pick((" ", " ", " for ", " for ", " in ", ": ", " of ", " to ", " with ", " from "))
    return f"{lead}{join}{value}"


def unquoted(draw: Draw, wanted: Tool, value: str) -> str:
    """A value of several words without quotes: it goes on to the end of the request."""
    lead = f"{wanted.parts[0]} {draw.pick(('the ', '', 'a '))}{' '.join(wanted.parts[1:])}"
    lead = lead if draw.chance(0.3) else lead[0].upper() + lead[1:]
    return f"{lead}{draw.pick((': ', ' for ', ' '))}{value}"


def pairs(draw: Draw, arguments: Sequence[Argument]) -> str:
    style = draw.pick(("{k} {v}", "{k} {v}", "{k} {v}", "{k} = {v}", "{k}={v}", "{k}: {v}",
                       "the {k} {v}", "{k} set to {v}", "{v} as the {k}", "{k} is {v}",
                       ))  # fmt: skip
    spaced = draw.chance(0.5)
    said = []
    for item in draw.several(arguments, len(arguments)) if draw.chance(0.3) else arguments:
        key = item.key.replace("_", " ") if spaced else item.key
        said.append(style.format(k=key, v=item.said))
    if len(said) == 1:
        return said[0]
    return f"{', '.join(said[:-1])}{draw.pick((' and ', ' and ', ', '))}{said[-1]}"


def request(draw: Draw, wanted: Tool) -> Request:
    """Ask for a call of this tool; optional parameters are mentioned now and then."""
    arguments = tuple(
        argument(draw, p) for p in wanted.parameters if p.required or draw.chance(0.4)
    )
    sent = arguments[0].sent if len(arguments) == 1 else None
    if isinstance(sent, str) and " " in sent and draw.chance(0.4):
        return Request(unquoted(draw, wanted, sent), wanted, arguments)
    return Request(wordings(draw, wanted, arguments), wanted, arguments)


def call(item: Request) -> Message:
    arguments = {a.key: a.sent for a in item.arguments}
    ordered = [p.key for p in item.tool.parameters if p.required]
    ordered += [p.key for p in item.tool.parameters if not p.required]
    chosen = {key: arguments[key] for key in ordered if key in arguments}
    return {"function": {"name": item.tool.name, "arguments": chosen}}


def outcome(draw: Draw, item: Request) -> str:
    """Draw what the tool answers: a phrase, a sentence, a flat JSON object, an error."""
    if item.tool.parts[0] in AGENT_SAID or draw.chance(0.1):
        return listing(draw)
    kind = draw.rng.random()
    if kind < 0.3:
        return phrase(draw, 1, 5) if kind > 0.1 else sentence(draw)
    if kind < 0.4:
        return draw.pick((number, path, word, place))(draw)
    if kind < 0.5:
        return f"{number(draw)} {draw.pick(('degrees', 'items', 'euros', 'dollars', 'points'))}"
    if kind < 0.58:
        return f"{draw.pick(('error', 'Error'))}: {draw.pick((phrase, sentence))(draw)}"
    if kind < 0.65:
        return f"{draw.pick(ADJECTIVES)}, {number(draw)} degrees"
    record: dict[str, Any] = {}
    for key in draw.several([*PARAMS, "temperature", "condition", "result"], draw.between(1, 4)):
        record[key] = draw.pick((string(draw, key), int(number(draw)), draw.pick(ADJECTIVES)))
    return json.dumps(record) if draw.chance(0.7) else json.dumps(record, separators=(",", ":"))


def closing(results: Sequence[str]) -> str:
    """The answer to tool results: their content, and for a JSON object its pairs in words."""
    if len(results) > 1:
        return "The results are: " + "; ".join(spoken(r) for r in results)
    if results[0].lower().startswith("error"):
        return f"The tool failed: {results[0]}"
    return f"The result is: {spoken(results[0])}"


def spoken(result: str) -> str:
    if not (result.startswith("{") and result.endswith("}")):
        return result
    try:
        record = json.loads(result)
    except ValueError:
        return result
    return ", ".join(f"{key} {value}" for key, value in record.items())


def exchange(said: str, items: Sequence[Request], results: Sequence[str]) -> list[Message]:
    names = " and ".join(item.tool.name for item in items)
    asked = {"role": "assistant", "content": "", "reasoning_content": f"I should call {names}."}
    answer = {"role": "assistant", "content": closing(results)}
    return [
        {"role": "user", "content": said},
        asked | {"tool_calls": [call(item) for item in items]},
        *({"role": "tool", "content": result} for result in results),
        answer | {"reasoning_content": "The tool has answered."},
    ]


def tool_turn(draw: Draw, names: set[str], agent: dict[str, Tool]) -> ToolTurn:
    """Draw one request that needs tools, with tools whose names are not taken."""

    def one() -> Request:
        if agent:
            return agent_request(draw, list(agent), agent)
        if not draw.held_out and draw.chance(0.1):
            item = popular(draw)
            if item.tool.name not in names:
                names.add(item.tool.name)
                return item
        return request(draw, tool(draw, names))

    first = one()
    style = draw.rng.random()
    if style < 0.8:
        result = [outcome(draw, first)]
        return ToolTurn(exchange(first.said, [first], result), (first.tool,))
    second = one() if style < 0.95 or agent else request(draw, first.tool)
    said = first.said.rstrip(".!?")
    tail = second.said[0].lower() + second.said[1:]
    tools = tuple({item.tool.name: item.tool for item in (first, second)}.values())
    results = [outcome(draw, first), outcome(draw, second)]
    if style < 0.92:
        said = f"{said} {draw.pick(('and', 'and', 'and also'))} {tail}"
        return ToolTurn(exchange(said, [first, second], results), tools)
    said = f"{said}{draw.pick((', then', ' and then', '. Then', ', after that'))} {tail}"
    if not said.startswith("First") and draw.chance(0.4):
        said = f"First {said[0].lower()}{said[1:]}"
    one_call = exchange(said, [first], results[:1])[:-1]
    two_call = exchange(said, [second], results[1:])[1:]
    two_call[-1]["content"] = closing(results)
    return ToolTurn(one_call + two_call, tools)


def agent_set(draw: Draw) -> dict[str, Tool]:
    """A coding agent's tools: two to six families, no name twice."""
    chosen, names = {}, set()
    for family in draw.several(list(AGENT_SAID), draw.between(2, 6)):
        found = agent_tool(draw, family)
        if found.name not in names:
            names.add(found.name)
            chosen[family] = found
    return chosen


def extra_tools(draw: Draw, names: set[str], most: int) -> list[Tool]:
    return [tool(draw, names) for _ in range(draw.between(0, most))]
