"""The held-out evaluation as data: what is asked, and how an answer is judged.

Every case is drawn on the evaluation's side of the split (`split.py`), with a fixed seed.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent import agent_request, agent_tool
from agent_phrasings import SAID
from phrasings import CAPITAL_HELD_OUT, SUM_HELD_OUT, TALK, WHO_HELD_OUT
from plain import Turn, as_json, capital, repeat
from signatures import Request, Tool, tool
from split import Draw
from tools import closing, exchange, outcome, request
from words import CAPITALS, COMMON, NUMBER_WORDS

Message = dict[str, Any]
Check = Callable[[Message, str], bool]  # the assistant's message and the finish reason


@dataclass(frozen=True, slots=True)
class Case:
    messages: list[Message]
    check: Check
    tools: list[Tool] = field(default_factory=list)
    thinking: bool = False
    max_tokens: int = 320
    response_format: dict[str, Any] | None = None


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def content(message: Message) -> str:
    return (message.get("content") or "").strip()


def exactly(text: str) -> Check:
    return lambda message, _: content(message) == text and not message.get("tool_calls")


def contains(text: str) -> Check:
    return lambda message, _: text in content(message) and not message.get("tool_calls")


def calls(*wanted: Request) -> Check:
    """The calls are those, in order, with equal arguments; a number is not its digits."""

    def check(message: Message, finish: str) -> bool:
        found = []
        for call in message.get("tool_calls") or []:
            try:
                arguments = json.loads(call["function"]["arguments"])
            except ValueError:
                return False
            found.append((call["function"]["name"], arguments))
        expected = [(item.tool.name, {a.key: a.sent for a in item.arguments}) for item in wanted]
        return found == expected and finish == "tool_calls" and same_types(found, expected)

    return check


def same_types(left: Any, right: Any) -> bool:
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def capitals(_draw: Draw, index: int) -> Case:
    country = list(CAPITALS)[index % len(CAPITALS)]
    text = CAPITAL_HELD_OUT[index % len(CAPITAL_HELD_OUT)].format(country)
    return Case(ask(text), contains(CAPITALS[country]))


def repeating(draw: Draw, index: int) -> Case:
    text = " ".join(draw.words(COMMON, 2, 8))
    lead = ("Repeat: ", "Repeat after me: ")[index % 2]
    return Case(ask(lead + text), exactly(text))


def sums(draw: Draw, _index: int) -> Case:
    a, b = draw.between(0, 9), draw.between(0, 9)
    pair = (NUMBER_WORDS[a], NUMBER_WORDS[b]) if draw.chance(0.3) else (a, b)

    def check(message: Message, _: str) -> bool:
        return re.findall(r"\d+", content(message))[-1:] == [str(a + b)]

    return Case(ask(draw.pick(SUM_HELD_OUT).format(*pair)), check)


def tool_call(draw: Draw, index: int) -> Case:
    names: set[str] = set()
    tools = [tool(draw, names) for _ in range(1 + index % 4)]
    item = request(draw, tools[0])
    draw.rng.shuffle(tools)
    return Case(ask(item.said), calls(item), tools)


def agent_call(draw: Draw, index: int) -> Case:
    family = list(SAID)[index % len(SAID)]
    tools = {name: agent_tool(draw, name) for name in {family, *draw.several(list(SAID), 3)}}
    item = agent_request(draw, [family], tools)
    unique = {found.name: found for found in (*tools.values(), item.tool)}
    listed = list(unique.values())
    draw.rng.shuffle(listed)
    return Case(ask(item.said), calls(item), listed)


def parallel(draw: Draw, index: int) -> Case:
    names: set[str] = set()
    tools = [tool(draw, names, most=2) for _ in range(2 + index % 2)]
    first, second = request(draw, tools[0]), request(draw, tools[1])
    text = f"{first.said.rstrip('.!?')} and {second.said[0].lower()}{second.said[1:]}"
    return Case(ask(text), calls(first, second), tools)


def answering(draw: Draw, _index: int) -> Case:
    tools = [tool(draw, set()) for _ in range(1)]
    item = request(draw, tools[0])
    result = outcome(draw, item)
    messages = exchange(item.said, [item], [result])[:-1]
    return Case(over_the_wire(messages), contains(closing([result]).strip()), tools)


def over_the_wire(messages: list[Message]) -> list[Message]:
    """Messages as an OpenAI client sends them back: arguments as text, ids, no reasoning."""
    sent: list[Message] = []
    count = 0
    for message in messages:
        kept = {key: value for key, value in message.items() if key != "reasoning_content"}
        if "tool_calls" in kept:
            listed: list[Message] = []
            for call in kept["tool_calls"]:
                function = call["function"]
                text = json.dumps(function["arguments"], ensure_ascii=False)
                body = {"name": function["name"], "arguments": text}
                listed.append({"id": f"call_{len(listed)}", "type": "function", "function": body})
            kept["tool_calls"], count = listed, 0
        if kept["role"] == "tool":
            kept["tool_call_id"], count = f"call_{count}", count + 1
        sent.append(kept)
    return sent


def counting(_draw: Draw, index: int) -> Case:
    end = 2 + index % 29
    wanted = [str(n) for n in range(1, end + 1)]

    def check(message: Message, finish: str) -> bool:
        return re.findall(r"\d+", content(message)) == wanted and finish == "stop"

    return Case(ask(f"Count to {end}."), check)


def identity(_draw: Draw, index: int) -> Case:
    return Case(ask(WHO_HELD_OUT[index % len(WHO_HELD_OUT)]), contains("spark"))


def mixed(draw: Draw, index: int) -> tuple[Turn, list[Tool]]:
    turn = (capital, repeat, as_json)[index % 3](draw)
    tools = [tool(draw, set())] if index % 2 else []
    return turn, tools


def thinking_on(draw: Draw, index: int) -> Case:
    turn, tools = mixed(draw, index)

    def check(message: Message, _: str) -> bool:
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        return bool(thought.strip()) and "think>" not in content(message) and bool(content(message))

    return Case(ask(turn.user), check, tools, thinking=True)


def thinking_off(draw: Draw, index: int) -> Case:
    turn, tools = mixed(draw, index)

    def check(message: Message, _: str) -> bool:
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        return not thought.strip() and "think>" not in content(message) and bool(content(message))

    return Case(ask(turn.user), check, tools)


def no_call(draw: Draw, index: int) -> Case:
    names: set[str] = set()
    tools = [tool(draw, names) for _ in range(1 + index % 4)]
    if index % 2:
        return Case(ask((made := capital(draw)).user), exactly(made.answer), tools)
    return Case(ask((made := repeat(draw)).user), exactly(made.answer), tools)


def several_turns(draw: Draw, index: int) -> Case:
    """Two or three finished turns of other tasks, then one more question."""
    messages: list[Message] = []
    for _ in range(1 + index % 3):
        turn = draw.pick((capital, repeat, as_json))(draw)
        messages += [*ask(turn.user), {"role": "assistant", "content": turn.answer}]
    last = draw.pick((capital, repeat))(draw)
    return Case(messages + ask(last.user), exactly(last.answer))


def small_talk(draw: Draw, index: int) -> Case:
    answer = list(TALK)[index % len(TALK)]
    return Case(ask(draw.pick(TALK[answer])), exactly(answer))


def json_answer(draw: Draw, index: int) -> Case:
    turn = as_json(draw)

    def check(message: Message, _: str) -> bool:
        try:
            return bool(json.loads(content(message)) == json.loads(turn.answer))
        except ValueError:
            return False

    if index % 2:
        return Case(ask(turn.user), check)
    kinds = {key: {"type": "integer" if isinstance(value, int) else "string"}
             for key, value in json.loads(turn.answer).items()}  # fmt: skip
    schema = {"type": "object", "properties": kinds, "required": list(kinds)}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return Case(ask(turn.user), check, response_format=wanted)


SUITES: dict[str, tuple[Callable[[Draw, int], Case], int]] = {
    "capitals": (capitals, 64),
    "repeating": (repeating, 100),
    "sums": (sums, 60),
    "tool call": (tool_call, 120),
    "agent tool call": (agent_call, 80),
    "two calls": (parallel, 60),
    "answer to a result": (answering, 100),
    "counting to 30": (counting, 29),
    "identity": (identity, 5),
    "thinking enabled": (thinking_on, 30),
    "thinking disabled": (thinking_off, 30),
    "no call needed": (no_call, 60),
    "several turns": (several_turns, 60),
    "JSON answer": (json_answer, 60),
    "small talk": (small_talk, 27),
}


def suite(name: str, seed: int = 7) -> list[Case]:
    """The cases of a suite; the same seed gives the same cases."""
    make, count = SUITES[name]
    draw = Draw(random.Random(f"{name}/{seed}"), held_out=True)
    return [make(draw, index) for index in range(count)]
