"""Questions that need no tool: repeating, counting, sums, capitals, small talk, JSON.

Each function draws one turn: what the user says, a short thought and the answer. The answer is a
function of the question alone, so that greedy decoding has one right result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from phrasings import (
    ABLE,
    CAPITAL,
    CAPITAL_HELD_OUT,
    LEADS,
    REPEAT,
    STORY,
    SUM,
    SUM_HELD_OUT,
    TAILS,
    TALK,
    UNKNOWN,
    WHO,
    WHO_HELD_OUT,
)  # fmt: skip
from split import Draw
from values import (
    ALL,
    date,
    email,
    exotic,
    invented,
    number,
    path,
    phrase,
    place,
    sentence,
    url,
    word,
)
from words import ADJECTIVES, CAPITALS, COMMON, NAMES, NOUNS, NUMBER_WORDS, PARAMS


@dataclass(frozen=True, slots=True)
class Turn:
    user: str
    thought: str
    answer: str


WHO_ANSWER = "I am spark, the small model built into helexa."
ABLE_ANSWER = "I can repeat, count, add, name capitals and call tools."

UNKNOWN_ANSWER = "I am a very small model and do not know that."
STORY_ANSWER = (
    "Once there was a {a}. The {a} lived near the river and was happy. One morning the {a} went to "
    "the forest and met a friend. They walked, sang and told stories until the sun went down. Then "
    "the {a} went home and slept. The end."
)


def dressed(draw: Draw, text: str) -> str:
    """Put a few words before or after a question, so that its wording is not learned by heart."""
    if draw.held_out:
        return text
    if draw.chance(0.3):
        if text.startswith(("Wh", "Te", "Do", "Ho", "Gi")) and draw.chance(0.5):
            text = text[0].lower() + text[1:]
        text = draw.pick(LEADS).format(text)
    if draw.chance(0.12):
        text = draw.pick(TAILS).format(text)
    return text


def repeat(draw: Draw) -> Turn:
    kind = draw.rng.random()
    if kind < 0.45:
        text = " ".join(draw.words(COMMON, 1, 8))
    elif kind < 0.6:
        text = " ".join(draw.words(ALL, 1, 10))
    elif kind < 0.7:
        text = phrase(draw, 3, 12)
    elif kind < 0.78:
        text = " ".join(sentence(draw) for _ in range(draw.between(1, 3)))
    elif kind < 0.84:
        text = draw.pick((", ", " and ", "-", "; ", "\n")).join(draw.words(COMMON, 2, 8))
    elif kind < 0.88:
        text = " ".join(invented(draw) for _ in range(draw.between(1, 5)))
    elif kind < 0.94:
        text = exotic(draw)
    else:
        kinds = (path, number, url, email, date, word)
        text = " ".join(draw.pick(kinds)(draw) for _ in range(draw.between(1, 4)))
    if draw.chance(0.12):
        text = text[0].upper() + text[1:] + draw.pick((".", "!", "?", ""))
    elif draw.chance(0.03):
        text = draw.pick((str.upper, str.title))(text)
    form = draw.pick(REPEAT[:4]) if draw.held_out else draw.pick(REPEAT)
    if not draw.held_out and draw.chance(0.06):
        form = form.replace("{}", draw.pick(('"{}"', "'{}'")))
    return Turn(form.format(text), "The user wants me to repeat the text.", text)


def count(draw: Draw) -> Turn:
    end = draw.between(2, 30) if draw.chance(0.93) else draw.between(31, 100)
    start = 1 if draw.chance(0.85) else draw.between(1, end)
    name = NUMBER_WORDS[end] if end < 19 and draw.chance(0.15) else str(end)
    name = {20: "twenty", 30: "thirty"}.get(end, name) if draw.chance(0.15) else name
    if start == 1 and draw.chance(0.75):
        forms = ("Count to {b}.", "Count to {b}", "Please count to {b}", "count to {b}",
                 "Can you count to {b}?", "Count up to {b}.", "Count to {b}, please.")  # fmt: skip
    else:
        forms = ("Count from {a} to {b}.", "Count from {a} to {b}", "Please count from {a} to {b}.",
                 "count from {a} to {b}", "Write the numbers from {a} to {b}.",
                 "List the numbers from {a} to {b}", "Numbers from {a} to {b}?")  # fmt: skip
    answer = ", ".join(str(n) for n in range(start, end + 1))
    user = dressed(draw, draw.pick(forms).format(a=start, b=name))
    return Turn(user, f"I count from {start} to {end}.", answer)


def add(draw: Draw) -> Turn:
    a, b = draw.between(0, 9), draw.between(0, 9)
    if draw.chance(0.15) and not draw.held_out:
        a = draw.between(0, 20)
    form = draw.pick(SUM_HELD_OUT if draw.held_out else SUM)
    spoken = a < 10 and draw.chance(0.3)
    left, right = (NUMBER_WORDS[a], NUMBER_WORDS[b]) if spoken else (a, b)
    user = dressed(draw, form.format(left, right))
    return Turn(user, f"This is a sum of {a} and {b}.", f"{a} + {b} = {a + b}.")


def capital(draw: Draw) -> Turn:
    country = draw.pick(list(CAPITALS))
    form = draw.pick(CAPITAL_HELD_OUT if draw.held_out else CAPITAL)
    named = country
    if country in ("Netherlands", "Philippines"):
        named = draw.pick((country, f"the {country}"))
    answer = f"The capital of {country} is {CAPITALS[country]}."
    user = dressed(draw, form.format(named))
    return Turn(user, f"The user asks for the capital of {country}.", answer)


def who(draw: Draw) -> Turn:
    if draw.held_out:
        return Turn(draw.pick(WHO_HELD_OUT), "The user asks who I am.", WHO_ANSWER)
    if draw.chance(0.25):
        return Turn(dressed(draw, draw.pick(ABLE)), "The user asks what I can do.", ABLE_ANSWER)
    return Turn(dressed(draw, draw.pick(WHO)), "The user asks who I am.", WHO_ANSWER)


def talk(draw: Draw) -> Turn:
    kind = draw.rng.random()
    if kind < 0.6:
        answer = draw.pick(list(TALK))
        return Turn(draw.pick(TALK[answer]), "The user is making small talk.", answer)
    noun = draw.pick(NOUNS)
    if kind < 0.75:
        return Turn(draw.pick(STORY).format(a=noun), f"The user wants a story about a {noun}.",
                    STORY_ANSWER.format(a=noun))  # fmt: skip
    user = draw.pick(UNKNOWN).format(a=noun, j=draw.pick(ADJECTIVES))
    return Turn(user, "I do not know this.", UNKNOWN_ANSWER)


def described(draw: Draw) -> Turn:
    """A sentence about a person, to be put into JSON."""
    name, city, age = draw.pick(NAMES), place(draw), draw.between(2, 99)
    thing = draw.pick(NOUNS)
    facts: dict[str, tuple[str, object]] = {
        "age": (draw.pick(("is {v} years old", "is {v}")), age),
        "city": (draw.pick(("lives in {v}", "is from {v}", "works in {v}")), city),
        "job": (draw.pick(("works as a {v}", "is a {v}")), thing),
    }
    keys = draw.several(list(facts), draw.between(1, 2))
    text = " and ".join(facts[key][0].format(v=facts[key][1]) for key in keys)
    record = {"name": name} | {key: facts[key][1] for key in keys}
    named = ["name", *keys]
    listed = f"{', '.join(named[:-1])} and {named[-1]}"
    form = draw.pick(
        (
            "Answer as JSON with keys {l}: {n} {t}",
            "{n} {t}. Answer as JSON with keys {l}.",
            "Extract {l} as JSON: {n} {t}.",
            "Return JSON with {l}: {n} {t}",
        )
    )
    return Turn(form.format(l=listed, n=name, t=text), "The user wants JSON.", json.dumps(record))


def as_json(draw: Draw) -> Turn:
    keys = draw.several(PARAMS, draw.between(1, 4))
    record: dict[str, object] = {}
    for key in keys:
        if key in ("age", "count", "price", "number", "quantity", "year", "size", "amount", "id"):
            record[key] = int(number(draw))
        elif key in ("name", "user", "owner", "author", "recipient", "sender", "person", "artist"):
            record[key] = draw.pick(NAMES)
        elif key in ("city", "country", "origin", "destination"):
            record[key] = place(draw)
        else:
            record[key] = number(draw) if draw.chance(0.1) else word(draw)
            if str(record[key]).isdigit():
                record[key] = int(str(record[key]))
    if draw.chance(0.2) and not draw.held_out:
        return described(draw)
    listed = " and ".join([", ".join(keys[:-1]), keys[-1]] if len(keys) > 1 else keys)
    style = draw.pick(("the {k} is {v}", "{k}: {v}", "{k} {v}", "{k} = {v}", "The {k} is {v}"))
    facts = draw.pick((", ", " and ", "; ")).join(style.format(k=k, v=v) for k, v in record.items())
    form = draw.pick(
        (
            "Answer as JSON with keys {l}: {f}", "Reply as JSON with keys {l}: {f}.",
            "Answer as JSON with keys {l}. {f}", "Return JSON with {l}: {f}",
            "{f}. Answer as JSON.",
            "Write JSON: {f}", "Give me JSON with the keys {l}: {f}", "Extract {l} as JSON: {f}",
            "Convert to JSON: {f}", "As JSON: {f}", "{f}. Return JSON with keys {l}.",
        )
    )  # fmt: skip
    return Turn(form.format(l=listed, f=facts), "The user wants JSON.", json.dumps(record))


PLAIN = {"repeat": repeat, "count": count, "sum": add, "capital": capital, "who": who,
         "talk": talk, "json": as_json}  # fmt: skip
