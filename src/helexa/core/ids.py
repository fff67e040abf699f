"""Identifiers: letters only, because clients grep bodies for digits such as 429 and 503."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable

IdSource = Callable[[str], str]

_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijkmnpqr")

_LAST = tuple(f"{number:02x}".translate(_LETTERS) for number in reversed(range(64)))
"""The last two letters of as many ids as are made at once; the first one is taken last."""


def letters(bits: int, rng: random.Random) -> str:
    """``bits`` random bits as letters, four bits each."""
    return f"{rng.getrandbits(bits):0{bits // 4}x}".translate(_LETTERS)


def id_source(seed: int | None = None) -> IdSource:
    """A function from a prefix to a fresh id such as ``req_`` + 26 letters.

    The first 15 letters are random and name this source (60 bits), the rest counts: two ids are
    never the same, and making one costs a third of asking for random bits every time. Ids are
    names, not secrets.

    Args:
        seed: Fixed in tests; from the operating system otherwise.
    """
    rng = random.Random(secrets.randbits(256) if seed is None else seed)
    source = letters(60, rng)
    number = itertools.count(rng.getrandbits(32))

    ready: list[str] = []

    def make(prefix: str) -> str:
        if not ready:  # made by the dozen: one by itself costs ten times as much
            begin = source + f"{next(number):09x}".translate(_LETTERS)
            ready.extend([begin + last for last in _LAST])
        return prefix + ready.pop()

    return make


def shown_id(given: str | None, ids: IdSource) -> str:
    """What a request is called in its answer and in the log: as its client calls it, at most 128
    characters of it, or a name of ours."""
    return given[:128] if given else ids("req_")
