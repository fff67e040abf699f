"""Tools: names, parameters with types, and an argument for each as it is said and as it is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from split import Draw
from values import (
    code,
    date,
    decimal,
    email,
    invented,
    number,
    path,
    phrase,
    place,
    sentence,
    url,
    word,
)  # fmt: skip
from words import ADJECTIVES, COMMANDS, NAMES, PARAMS, TEXT_PARAMS, TOOL_NOUNS, TOOL_VERBS

NUMERIC = ("price", "amount", "count", "limit", "number", "quantity", "year", "speed", "width",
           "height", "depth", "weight", "length", "distance", "duration", "size", "level", "floor",
           "seat", "page", "score", "day")  # fmt: skip
PLACES = ("city", "country", "origin", "destination", "from", "to", "location", "place")
PEOPLE = ("name", "user", "owner", "author", "recipient", "sender", "person", "artist")
PATHS = ("path", "file", "folder", "source", "target")
FLAGS = ("enabled", "verbose", "recursive", "urgent", "public", "dry_run", "all", "force")


@dataclass(frozen=True, slots=True)
class Parameter:
    key: str
    kind: str  # the JSON schema type
    required: bool = True
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parts: tuple[str, ...]  # the words of the name
    parameters: tuple[Parameter, ...]

    def schema(self) -> dict[str, Any]:
        """The tool as an OpenAI client declares it."""
        properties: dict[str, Any] = {}
        for parameter in self.parameters:
            properties[parameter.key] = {} if parameter.kind == "any" else {"type": parameter.kind}
            if parameter.choices:
                properties[parameter.key]["enum"] = list(parameter.choices)
        required = [parameter.key for parameter in self.parameters if parameter.required]
        body = {"type": "object", "properties": properties, "required": required}
        return {"type": "function", "function": {"name": self.name, "parameters": body}}


@dataclass(frozen=True, slots=True)
class Argument:
    """One value: `said` is its wording in the question, `sent` is what belongs in the JSON."""

    key: str
    said: str
    sent: Any


@dataclass(frozen=True, slots=True)
class Request:
    """What the user says, and the call that is right."""

    said: str
    tool: Tool
    arguments: tuple[Argument, ...]


def join_name(draw: Draw, parts: Sequence[str]) -> str:
    """Write the words of a name: mostly snake_case, sometimes camelCase or with a prefix."""
    style = 0.0 if draw.held_out else draw.rng.random()
    if style < 0.82:
        return "_".join(parts)
    if style < 0.89:
        return parts[0] + "".join(part.capitalize() for part in parts[1:])
    if style < 0.92:
        return "".join(part.capitalize() for part in parts)
    if style < 0.96:
        return "-".join(parts)
    return f"mcp__{draw.pick(TOOL_NOUNS)}__{'_'.join(parts)}"


def name_parts(draw: Draw) -> tuple[str, ...]:
    def make() -> tuple[str, ...]:
        if not draw.held_out and draw.chance(0.12):
            return draw.pick(TOOL_VERBS), draw.pick(ADJECTIVES), draw.pick(TOOL_NOUNS)
        if not draw.held_out and draw.chance(0.06):
            return draw.pick(TOOL_VERBS), invented(draw)
        return draw.pick(TOOL_VERBS), draw.pick(TOOL_NOUNS)

    return draw.combination("name", make)


def parameter(draw: Draw, taken: set[str], required: bool = True) -> Parameter:
    while True:
        key = draw.pick(PARAMS)
        if not draw.held_out and draw.chance(0.1):
            key = "_".join(
                draw.combination("key", lambda: (draw.pick(TOOL_NOUNS), draw.pick(PARAMS)))
            )
        if draw.chance(0.05):
            key = draw.pick(FLAGS)
        if key not in taken:
            break
    taken.add(key)
    if key in FLAGS:
        return Parameter(key, "boolean", required)
    if key in NUMERIC:
        return Parameter(key, draw.pick(("integer", "integer", "number")), required)
    if draw.chance(0.05):
        return Parameter(key, "array", required)
    if draw.chance(0.03):
        return Parameter(key, draw.pick(("any", "object")), required)
    if draw.chance(0.06):
        return Parameter(
            key, "string", required, tuple(draw.several(ADJECTIVES, draw.between(2, 4)))
        )
    return Parameter(key, "string", required)


def tool(draw: Draw, names: set[str], most: int = 3) -> Tool:
    """Draw a tool whose name is not among `names`, and add it."""
    while True:
        parts = name_parts(draw)
        name = join_name(draw, parts)
        if name not in names:
            break
    names.add(name)
    taken: set[str] = set()
    needed = draw.pick((0, 1, 1, 1, 1, 2, 2, 2, 3)[: 1 + 3 * most])
    parameters = [parameter(draw, taken) for _ in range(needed)]
    if draw.chance(0.15):
        parameters += [parameter(draw, taken, False) for _ in range(draw.between(1, 2))]
    return Tool(name, parts, tuple(parameters))


def argument(draw: Draw, parameter: Parameter) -> Argument:
    """Draw a value of the parameter's type; some wordings are quoted, some are not."""
    key = parameter.key
    if parameter.kind == "boolean":
        flag = draw.chance(0.5)
        return Argument(key, "true" if flag else "false", flag)
    if parameter.kind in ("integer", "number"):
        text = decimal(draw) if parameter.kind == "number" and draw.chance(0.4) else number(draw)
        return Argument(key, text, float(text) if "." in text else int(text))
    if parameter.kind == "array":
        items = list(draw.words(TOOL_NOUNS, 1, 4))
        said = json.dumps(items) if draw.chance(0.3) else f"[{', '.join(items)}]"
        return Argument(key, " and ".join(items) if len(items) < 3 else said, items)
    if parameter.kind == "object":
        record = {draw.pick(PARAMS): word(draw) for _ in range(draw.between(1, 2))}
        return Argument(key, json.dumps(record), record)
    if parameter.choices:
        choice = draw.pick(parameter.choices)
        return Argument(key, choice, choice)
    text = string(draw, key)
    if " " in text or draw.chance(0.15):
        return Argument(key, draw.pick(('"{}"', '"{}"', "'{}'")).format(text), text)
    return Argument(key, text, text)


def string(draw: Draw, key: str) -> str:
    last = key.rsplit("_", 1)[-1]
    chance = draw.rng.random()
    if last in PATHS and chance < 0.85:
        return path(draw, file=last != "folder")
    if last in PLACES and chance < 0.7:
        return place(draw)
    if last in PEOPLE and chance < 0.6:
        return draw.pick(NAMES)
    if last in ("email", "address") and chance < 0.6:
        return email(draw)
    if last == "date" and chance < 0.6:
        return date(draw)
    if last in TEXT_PARAMS and chance < 0.8:
        return sentence(draw) if draw.chance(0.4) else phrase(draw, 2, 6)
    if last == "command":
        return draw.pick(COMMANDS)
    chance = draw.rng.random()
    if chance < 0.62:
        return word(draw)
    if chance < 0.84:
        return phrase(draw, 2, 4)
    others = (path, path, url, code, number, email, invented)
    return draw.pick(others)(draw)
