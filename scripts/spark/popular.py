"""The tools everybody tries first: the weather in Paris, a message to Bob, a search, a sum."""

from __future__ import annotations

from collections.abc import Callable

from signatures import Argument, Parameter, Request, Tool
from split import Draw
from tool_phrasings import (
    ADD_WITH_TOOL,
    MAIL_REQUESTS,
    MESSAGE_REQUESTS,
    PLACE_QUESTIONS,
    SEARCH_REQUESTS,
    TIME_QUESTIONS,
    WEATHER_QUESTIONS,
)  # fmt: skip
from values import email, number, phrase, place, sentence
from words import NAMES


def named(*parts: str) -> tuple[str, tuple[str, ...]]:
    return "_".join(parts), parts


def strings(*keys: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(key, "string") for key in keys)


def location(draw: Draw) -> Request:
    kind = draw.pick(("weather", "weather", "time", "temperature", "forecast"))
    city = place(draw)
    parts = draw.pick((("get", kind), ("get", "current", kind), ("get", kind), ("check", kind)))
    key = draw.pick(("city", "location", "place", "city"))
    parameters, arguments = [Parameter(key, "string")], [Argument(key, city, city)]
    forms = PLACE_QUESTIONS
    if draw.chance(0.3):
        forms = {"time": TIME_QUESTIONS, "weather": WEATHER_QUESTIONS}.get(kind, forms)
    said = draw.pick(forms).format(k=kind, K=kind.capitalize(), c=city)
    if draw.chance(0.35):
        units = draw.pick((("celsius", "fahrenheit"), ("metric", "imperial")))
        mention = draw.chance(0.5)
        parameters.append(Parameter("unit", "string", mention and draw.chance(0.5), units))
        if mention:
            unit = draw.pick(units)
            said = f"{said.rstrip('.?')} in {unit}"
            arguments.append(Argument("unit", unit, unit))
    return Request(said, Tool("_".join(parts), parts, tuple(parameters)), tuple(arguments))


def addition(draw: Draw) -> Request:
    a, b = number(draw), number(draw)
    parts = draw.pick((("add",), ("add", "numbers"), ("calculate", "sum"), ("sum",)))
    keys = draw.pick((("a", "b"), ("x", "y"), ("first", "second")))
    parameters = tuple(Parameter(key, draw.pick(("integer", "number"))) for key in keys)
    said = draw.pick(ADD_WITH_TOOL).format(a, b)
    arguments = (Argument(keys[0], a, int(a)), Argument(keys[1], b, int(b)))
    return Request(said, Tool("_".join(parts), parts, parameters), arguments)


def search(draw: Draw) -> Request:
    parts = draw.pick((("search", "web"), ("web", "search"), ("search",), ("search", "internet")))
    key = draw.pick(("query", "query", "q", "text", "search_term"))
    text = draw.pick((phrase, sentence))(draw).rstrip(".?!")
    said = draw.pick(SEARCH_REQUESTS).format(text)
    return Request(said, Tool(*named(*parts), strings(key)), (Argument(key, text, text),))


def message(draw: Draw) -> Request:
    parts = draw.pick((("send", "message"), ("send", "text"), ("post", "message"), ("notify",)))
    to = draw.pick(("to", "recipient", "user", "name", "channel"))
    key = draw.pick(("text", "message", "content", "body"))
    person, text = draw.pick(NAMES), draw.pick((phrase, sentence))(draw)
    arguments = (Argument(to, person, person), Argument(key, text, text))
    said = draw.pick(MESSAGE_REQUESTS).format(n=person, t=text)
    return Request(said, Tool(*named(*parts), strings(to, key)), arguments)


def mail(draw: Draw) -> Request:
    to = draw.pick(("to", "recipient", "address", "email"))
    key = draw.pick(("body", "text", "content", "message"))
    values = (email(draw), phrase(draw), draw.pick((phrase, sentence))(draw))
    keys = (to, "subject", key)
    said = draw.pick(MAIL_REQUESTS).format(*values)
    arguments = tuple(Argument(k, v, v) for k, v in zip(keys, values, strict=True))
    return Request(said, Tool(*named("send", "email"), strings(*keys)), arguments)


KINDS: tuple[Callable[[Draw], Request], ...] = (location, location, location, addition, search,
                                                message, mail)  # fmt: skip


def popular(draw: Draw) -> Request:
    """Draw one such request, with its tool."""
    return draw.pick(KINDS)(draw)
