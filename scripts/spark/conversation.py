"""Whole conversations: a system prompt, tools, one to four turns of any task.

Nothing here needs more than the standard library: the evaluation and the tests draw from it too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from agent import bystanders
from plain import PLAIN
from signatures import Tool
from split import Draw
from tools import Message, agent_set, extra_tools, tool_turn
from values import filler

TASKS = (*PLAIN, "call", "calls", "result", "agent")
WEIGHTS = {"repeat": 11, "count": 4, "sum": 15, "capital": 7, "who": 3, "talk": 9, "json": 8,
           "call": 22, "calls": 12, "result": 10, "agent": 22}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: list[Message]
    tools: list[Tool]
    thinking: bool


def plain_turn(draw: Draw, task: str) -> list[Message]:
    turn = PLAIN[task](draw)
    return [
        {"role": "user", "content": turn.user},
        {"role": "assistant", "content": turn.answer, "reasoning_content": turn.thought},
    ]


def system_prompt(draw: Draw) -> str:
    kind = draw.rng.random()
    if kind < 0.5:
        return ""
    if kind < 0.7:
        return draw.pick(
            ("You are a helpful assistant.", "You are helpful.", "Be brief.", "You are spark.",
             "You are a helpful assistant with access to tools.", "You are a coding agent.")
        )  # fmt: skip
    if kind < 0.94:
        return "You are a helpful assistant. " * draw.chance(0.3) + filler(draw, draw.between(1, 4))
    return filler(draw, draw.between(5, 25))


def surround(draw: Draw, turn: list[Message]) -> None:
    """Put text that asks for nothing before the question, as clients of coding agents do."""
    text = filler(draw, draw.between(1, 5) if draw.chance(0.8) else draw.between(6, 15))
    tag = draw.pick(("", "", "system-reminder", "environment_context", "context"))
    if tag:
        text = f"<{tag}>\n{text}\n</{tag}>"
    if draw.chance(0.3):
        turn.insert(0, {"role": "user", "content": text})
    else:
        turn[0]["content"] = f"{text}{draw.pick((chr(10), chr(10) * 2))}{turn[0]['content']}"


def draw_turn(
    draw: Draw, task: str, names: set[str], agent: dict[str, Tool]
) -> tuple[list[Message], list[Tool]]:
    if task in PLAIN:
        return plain_turn(draw, task), []
    while True:
        turn = tool_turn(draw, names, agent if task == "agent" else {})
        calls = max(len(m.get("tool_calls", ())) for m in turn.messages)
        steps = sum("tool_calls" in m for m in turn.messages)
        if (calls == 1 and steps == 1) == (task != "calls") or task == "agent":
            break
    messages = list(turn.messages)
    if task != "result" and not (task == "agent" and draw.chance(0.3)):
        asks = [i for i, m in enumerate(messages) if "tool_calls" in m]
        messages = messages[: draw.pick(asks) + 1]
    return messages, list(turn.tools)


def converse(draw: Draw, task: str) -> Conversation:
    """Draw a conversation whose last turn is of the task; earlier turns may be of any."""
    if task in PLAIN and draw.chance(0.5):
        return Conversation(plain_turn(draw, task), [], thinking=draw.chance(0.25))
    names: set[str] = set()
    agent = agent_set(draw) if task == "agent" or draw.chance(0.05) else {}
    names.update(tool.name for tool in agent.values())
    messages: list[Message] = []
    tools: list[Tool] = list(agent.values())
    if draw.chance(0.3) and not draw.held_out:
        for _ in range(draw.pick((1, 1, 2, 3))):
            options = [*PLAIN, "sum", "result", "result"] if task not in PLAIN else [*PLAIN, "sum"]
            kind = draw.pick(options)
            earlier, needed = draw_turn(draw, kind, names, agent)
            messages += earlier
            tools += needed
    if agent and draw.chance(0.4) and not draw.held_out:
        tools += bystanders(draw)
    last, needed = draw_turn(draw, task, names, agent)
    if draw.chance(0.35 if task == "agent" else 0.1) and not draw.held_out:
        surround(draw, last)
    tools += needed
    if task not in (*PLAIN, "agent") or draw.chance(0.2):
        most = 3 if draw.chance(0.9) or draw.held_out else 8
        tools += extra_tools(draw, names, max(1, most if not tools else most - len(needed) + 1))
    tools = list({tool.name: tool for tool in tools}.values())
    draw.rng.shuffle(tools)
    text = system_prompt(draw)
    head = [{"role": "system", "content": text}] if text else []
    return Conversation(head + messages + last, tools, thinking=draw.chance(0.3))


def conversations(seed: int, held_out: bool = False) -> Iterator[Conversation]:
    """All conversations of a seed, without end."""
    rng = random.Random(seed)
    while True:
        task = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        yield converse(Draw(rng, held_out), task)
