"""Prompts of a wanted length, the same for everyone and different every time.

A prompt must not be found in a cache unless the scenario means it to be, so each begins with
letters of its own: targets may share an engine, and an engine may outlive the build that is
measured. The rest is the same for every target and every build, so it comes from the seed.
"""

from __future__ import annotations

import random
import string

_WORDS = (
    "river", "stone", "light", "paper", "music", "garden", "window", "bridge", "summer",
    "winter", "morning", "evening", "silver", "forest", "ocean", "island", "valley", "market",
    "engine", "signal", "pattern", "number", "letter", "voice", "shadow", "colour", "journey",
    "harbour", "village", "station", "captain", "doctor", "teacher", "painter", "sailor",
    "farmer", "baker", "singer",
)  # fmt: skip

WORDS_PER_TOKEN = 0.95
"""Common words are one token each for most tokenizers of today."""

TASK = "Retell the words above as a long story, one sentence for each of them."


def words(count: int, seed: str) -> str:
    """``count`` common words, drawn by ``seed``."""
    draw = random.Random(seed)
    return " ".join(draw.choice(_WORDS) for _ in range(max(1, count)))


def mark(run: str) -> str:
    """Six letters for a run: as many tokens for everyone, and hardly ever the same twice."""
    draw = random.Random(run)
    return " ".join(draw.choice(string.ascii_lowercase) for _ in range(6))


def prompt(tokens: int, seed: str) -> str:
    """A prompt of about ``tokens`` tokens; how many it was is the server's to say.

    Its text depends on nothing else, so that every target is asked the same.

    Args:
        seed: Differs from run to run and is equal over targets.
    """
    return f"{words(int(tokens * WORDS_PER_TOKEN), seed)}\n\n{TASK}"
