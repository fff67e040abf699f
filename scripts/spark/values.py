"""Argument values, free text and paths, drawn as combinations of common words."""

from __future__ import annotations

from split import Draw
from words import (
    ADJECTIVES,
    CAPITALS,
    CITIES,
    COMMON,
    DIRS,
    EXTENSIONS,
    NAMES,
    NOUNS,
    OTHER,
    STEMS,
    THINGS,
)  # fmt: skip

ALL = COMMON + OTHER + NAMES
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def invented(draw: Draw) -> str:
    """A word nobody has seen, of one to three syllables; it takes several tokens."""
    size = draw.between(1, 3)
    return "".join(draw.pick(CONSONANTS) + draw.pick(VOWELS) for _ in range(size)) + draw.pick(
        ("", "", "n", "r", "s", "ing", "er", "x")
    )


SCRIPTS = ((0xC0, 0xFF), (0x3B1, 0x3C9), (0x430, 0x44F), (0x3042, 0x3093), (0x4E00, 0x4E80),
           (0x5D0, 0x5EA), (0x1F600, 0x1F640), (0x2190, 0x21FF))  # fmt: skip


def exotic(draw: Draw) -> str:
    """A few words with letters beyond ASCII, or emoji; they are copied byte by byte."""
    low, high = draw.pick(SCRIPTS)
    parts = []
    for _ in range(draw.between(1, 4)):
        if draw.chance(0.5):
            low, high = draw.pick(SCRIPTS)
        strange = "".join(chr(draw.between(low, high)) for _ in range(draw.between(1, 4)))
        parts.append(draw.pick((strange, strange, draw.pick(NOUNS), invented(draw) + strange)))
    return " ".join(parts)


def word(draw: Draw) -> str:
    if draw.chance(0.08):
        return invented(draw)
    return draw.pick(NOUNS if draw.chance(0.7) else ALL)


def phrase(draw: Draw, low: int = 2, high: int = 4) -> str:
    """A few words; now and then the same word twice, to make copying ambiguous."""
    count, kind = draw.between(low, high), draw.rng.random()

    def make() -> tuple[str, ...]:
        pool: list[str] = COMMON
        if kind < 0.15:
            pool = draw.several(COMMON, 3)
        elif kind < 0.3:
            pool = [invented(draw) for _ in range(4)] + draw.several(ALL, 4)
        return tuple(draw.pick(pool) for _ in range(count))

    return " ".join(draw.combination("words", make))


def sentence(draw: Draw) -> str:
    noun, other = draw.words(NOUNS, 2, 2)
    form = draw.pick(
        (
            "The {a} is {j}.", "The {a} and the {b} are {j}", "A {j} {a} saw the {b}.",
            "{n} has a {j} {a}.", "Meet {n} at the {a} tomorrow", "the {a} is in the {b}",
            "{n} went to the {a} with a {b}.", "Please buy a {j} {a}", "I like the {j} {a}!",
            "Where is the {a}?", "{n}, bring the {a} and the {b}.", "Call {n} about the {a}",
        )
    )  # fmt: skip
    return form.format(a=noun, b=other, j=draw.pick(ADJECTIVES), n=draw.pick(NAMES))


def segment(draw: Draw, pool: list[str]) -> str:
    if draw.chance(0.12):
        return invented(draw)
    if draw.chance(0.15):
        return draw.pick(("_", "-", "_")).join(draw.words(COMMON, 2, 2))
    return draw.pick(pool)


def path(draw: Draw, file: bool = True) -> str:
    """A path such as /etc/hosts, src/app.py, ./notes/plan.md or ~/music."""
    depth = draw.pick((0, 1, 1, 1, 2, 2, 3)) if file else draw.pick((1, 1, 2, 2, 3))

    def make() -> tuple[str, ...]:
        parts = [segment(draw, DIRS if draw.chance(0.7) else COMMON) for _ in range(depth)]
        if file:
            parts.append(segment(draw, STEMS if draw.chance(0.6) else COMMON))
        return tuple(parts)

    text = "/".join(draw.combination("path", make))
    if file and draw.chance(0.85):
        text += "." + draw.pick(EXTENSIONS)
    lead = draw.pick(("/", "/", "", "", "", "./", "~/", "../"))
    if not file and draw.chance(0.2):
        text += "/"
    return lead + text


def number(draw: Draw) -> str:
    return str(draw.between(0, 9) if draw.chance(0.35) else draw.between(10, 99999)
               if draw.chance(0.3) else draw.between(10, 999))  # fmt: skip


def decimal(draw: Draw) -> str:
    return f"{draw.between(0, 99)}.{draw.between(1, 9)}"


def date(draw: Draw) -> str:
    return f"20{draw.between(10, 39)}-{draw.between(1, 12):02d}-{draw.between(1, 28):02d}"


def email(draw: Draw) -> str:
    user, host = draw.words(COMMON, 2, 2)
    return (
        f"{draw.pick((user, draw.pick(NAMES).lower()))}@{host}.{draw.pick(('com', 'org', 'net'))}"
    )


def url(draw: Draw) -> str:
    return f"https://{'.'.join(draw.words(COMMON, 1, 2))}.com/" + "/".join(draw.words(COMMON, 1, 2))


def code(draw: Draw) -> str:
    """A short line of code, for edits."""
    left, right = draw.words(THINGS, 2, 2)
    form = draw.pick(("{a} = {n}", "{a}({b})", "import {a}", "{a}.{b}()", "return {a}", "{a}_{b}",
                      "def {a}():", "print({a})", "{a} = {b}", "# {a} {b}",
                      "{a} += {n}"))  # fmt: skip
    return form.format(a=left, b=right, n=number(draw))


TOWNS = ("San Francisco", "New York", "Los Angeles", "San Francisco, CA", "Boston, MA",
         "Paris, France", "London, UK", "Rio de Janeiro", "Cape Town", "Hong Kong")  # fmt: skip


def place(draw: Draw) -> str:
    if draw.chance(0.12):
        return draw.pick(TOWNS)
    return draw.pick(CITIES if draw.chance(0.6) else list(CAPITALS.values()))


def filler(draw: Draw, sentences: int) -> str:
    """Ordinary text that asks for nothing: system prompts, reminders, file contents."""
    parts = []
    for _ in range(sentences):
        kind = draw.rng.random()
        if kind < 0.5:
            parts.append(sentence(draw))
        elif kind < 0.8:
            pool = ALL
            text = " ".join(draw.pick(pool) for _ in range(draw.between(3, 12)))
            parts.append(text.capitalize() + ".")
        elif kind < 0.9:
            lead = draw.pick((f"{draw.pick(THINGS).capitalize()}:", "Working directory:", "cwd:",
                              "The directory is", "Use this folder:"))  # fmt: skip
            parts.append(f"{lead} {path(draw)}")
        else:
            parts.append(f"- {phrase(draw, 2, 5)}")
    glue = "\n" if draw.chance(0.4) else " "
    return glue.join(parts)
