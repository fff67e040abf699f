"""Identifiers: letters only, because clients grep bodies for digits such as 429 and 503."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable

IdSource = Callable[[str], str]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def letters(n: int, rng: random.Random) -> str:
    """``n`` letters from ``rng`` (4.7 bits each)."""
    return "".join(rng.choices(_LETTERS, k=n))


def id_source(seed: int | None = None) -> IdSource:
    """A function from a prefix to a fresh id such as ``req_`` + 22 letters (103 bits).

    Args:
        seed: Fixed in tests; from the operating system otherwise.
    """
    rng = random.Random(secrets.randbits(256) if seed is None else seed)

    def make(prefix: str) -> str:
        return prefix + letters(22, rng)

    return make
